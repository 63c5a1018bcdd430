//! The mutex for JavaScript. `mutex.js` dresses it as a function.

use std::sync::Arc;

use async_mutex_lite::{KeyedMutex, Stopped};
use js_sys::{Function, Promise, Reflect};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, future_to_promise};

/// A mutex by key.
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

    /// Queues a task, now, and runs it when its turn comes. The promise has what the task returns or throws,
    /// or `undefined` if the queue was stopped. With `{ onError: "stop" }` a task that fails stops those
    /// behind it.
    pub fn run(&self, key: String, task: Function, options: JsValue) -> Promise {
        let stop = Reflect::get(&options, &"onError".into()).is_ok_and(|on_error| on_error == "stop");
        let ticket = self.0.ticket_arc(key);
        let task = async move || JsFuture::from(Promise::resolve(&task.call0(&JsValue::UNDEFINED)?)).await;
        future_to_promise(async move {
            let done = if stop { ticket.run_or_stop(task).await } else { ticket.run(task).await };
            done.unwrap_or_else(|Stopped| Ok(JsValue::UNDEFINED))
        })
    }

    /// Turns away the tasks that are queued for a key now, and returns how many.
    pub fn stop(&self, key: &str) -> usize {
        self.0.stop(key)
    }

    /// How many are queued for a key, the one that runs not counted.
    pub fn waiting(&self, key: &str) -> usize {
        self.0.waiting(key)
    }

    /// How many keys are in use.
    #[wasm_bindgen(getter)]
    pub fn size(&self) -> usize {
        self.0.len()
    }
}
