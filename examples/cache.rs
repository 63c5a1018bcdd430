//! A cache under a stampede, on smol: many readers ask for the same few keys at the same moment, and each key is loaded
//! once. A reader that waited finds the value when it checks the cache again.
//!
//! `cargo run --release --example cache`
#![allow(clippy::std_instead_of_core)] // examples have the standard library

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::process::ExitCode;

use async_mutex_lite::KeyedMutex;
use smol::future::yield_now;
use smol::{LocalExecutor, block_on};

const KEYS: usize = 5;
const READERS: usize = 100;

#[derive(Default)]
struct Cache {
    mutex: KeyedMutex<usize>,
    values: RefCell<HashMap<usize, String>>,
    loads: Cell<usize>,
}

impl Cache {
    fn cached(&self, key: usize) -> Option<String> {
        self.values.borrow().get(&key).cloned()
    }

    async fn load(&self, key: usize) -> String {
        self.loads.set(self.loads.get() + 1);
        yield_now().await; // a slow database
        let value = format!("value {key}");
        self.values.borrow_mut().insert(key, value.clone());
        value
    }

    async fn get(&self, key: usize, locked: bool) -> String {
        if let Some(value) = self.cached(key) {
            return value;
        }
        if !locked {
            return self.load(key).await;
        }
        let _guard = self.mutex.lock(key).await;
        match self.cached(key) {
            Some(value) => value,
            None => self.load(key).await,
        }
    }
}

/// Starts all readers at once, on an empty cache. Returns how many loads that took.
pub(crate) fn loads(locked: bool) -> usize {
    let cache = Cache::default();
    let executor = LocalExecutor::new();
    let readers: Vec<_> = (0..READERS).map(|number| executor.spawn(cache.get(number % KEYS, locked))).collect();
    block_on(executor.run(async {
        for (number, reader) in readers.into_iter().enumerate() {
            assert_eq!(reader.await, format!("value {}", number % KEYS));
        }
    }));
    cache.loads.get()
}

pub(crate) fn main() -> ExitCode {
    let (without, with) = (loads(false), loads(true));
    println!("{READERS} readers at once, {KEYS} keys, an empty cache");
    println!("without the mutex: {without} loads");
    println!("with the mutex:    {with} loads, one for each key");
    if with == KEYS { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
