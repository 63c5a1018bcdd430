//! The mutex for JavaScript. `mutex.js` makes a function of it.

use std::sync::Arc;

use async_mutex_lite::{KeyState, KeyedMutex, Stopped};
use js_sys::{Array, Function, Object, Promise, Reflect};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, future_to_promise};

/// A keyed mutex.
#[wasm_bindgen(js_name = KeyedMutex)]
pub struct JsMutex(Arc<KeyedMutex<String>>);

#[wasm_bindgen(js_class = KeyedMutex)]
impl JsMutex {
    /// Creates a mutex in which no key is locked.
    #[wasm_bindgen(constructor)]
    #[allow(clippy::new_without_default, reason = "it is called from JavaScript")]
    pub fn new() -> Self {
        Self(Arc::new(KeyedMutex::new()))
    }

    /// Queues a task now, and runs it when the key is granted. The promise settles as the task does, or is fulfilled
    /// with `undefined` if the task was stopped. With `{ onError: "stop" }` a task that fails stops the tasks queued
    /// behind it.
    pub fn run(&self, key: String, task: Function, options: JsValue) -> Promise {
        let stop = Reflect::get(&options, &"onError".into()).is_ok_and(|on_error| on_error == "stop");
        let ticket = self.0.arc().ticket(key);
        let task = async move || JsFuture::from(Promise::resolve(&task.call0(&JsValue::UNDEFINED)?)).await;
        future_to_promise(async move {
            let done = if stop { ticket.run_or_stop(task).await } else { ticket.run(task).await };
            done.unwrap_or_else(|Stopped| Ok(JsValue::UNDEFINED))
        })
    }

    /// Stops the tasks that wait for a key now, and returns how many.
    pub fn stop(&self, key: &str) -> usize {
        self.0.stop(key)
    }

    /// The locked keys, as `{ key, holders, waiting }`.
    pub fn locked(&self) -> Array {
        let locked = Array::new();
        self.0.for_each_locked(|key, KeyState { holders, waiting, .. }| {
            let entry = Object::new();
            let fields = [("key", key.into()), ("holders", holders.into()), ("waiting", waiting.into())];
            for (name, value) in fields {
                Reflect::set(&entry, &name.into(), &value).expect("a new object takes fields");
            }
            locked.push(&entry);
        });
        locked
    }
}
