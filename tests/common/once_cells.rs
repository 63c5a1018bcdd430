//! One fetch for all callers, as it is often written: a map of tokio's `OnceCell`. What examples/flights.rs is compared with.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use tokio::sync::OnceCell;

pub(crate) struct OnceCells<K, T>(Mutex<HashMap<K, Arc<OnceCell<Arc<T>>>>>);

impl<K: Clone + Eq + Hash, T> OnceCells<K, T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::default())
    }

    /// The number of entries.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub(crate) async fn get(&self, key: K, fetch: impl Future<Output = T>) -> Arc<T> {
        let cell = self.0.lock().unwrap().entry(key.clone()).or_default().clone();
        let outcome = cell.get_or_init(|| async { Arc::new(fetch.await) }).await.clone();
        let mut map = self.0.lock().unwrap();
        if map.get(&key).is_some_and(|now| Arc::ptr_eq(now, &cell)) {
            map.remove(&key);
        }
        outcome
    }
}
