//! One fetch for all callers, also known as single flight: callers that ask for the same key while its fetch runs share
//! that fetch, and get the same [`Arc`] of its outcome, whether that is a success or an error. Nothing is kept once the
//! last of them has its outcome: this is not a cache.
//!
//! Each caller brings a fetch of its own, and the first one runs. If its caller is cancelled, or panics, the next caller
//! runs its own. So a fetch never leaves the task of its caller: it may borrow, and need not be `Send`.
//!
//! - **After a write**, a caller that joins a fetch from before it still gets the older outcome. Call
//!   [`forget`](Flights::forget) after each write: callers that come after that share a new fetch.
//! - **A caller that is kept and not polled** holds up all the others of its key, if it is the one whose fetch runs. A
//!   stream's `buffered` does that to its futures while the consumer of the stream does something else: spawn them.
//! - **A fetch must not wait for a flight that waits for it**: neither for that of its own key, nor for one whose fetch
//!   asks for this key. They wait until their callers are dropped, by a timeout for example. Nothing stays locked then.
//!
//! Written to be copied, but for `is_empty` and `main`. `cargo run --release --example flights`
#![allow(clippy::std_instead_of_core)] // examples have the standard library

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use async_mutex_lite::KeyedMutex;

pub(crate) struct Flights<K, T> {
    /// The flights that callers can join.
    open: Mutex<Open<K, T>>,
    /// A flight's address is a key here: the caller that holds it fetches, the others wait until they are stopped.
    turns: KeyedMutex<usize>,
}

type Open<K, T> = HashMap<Arc<K>, Weak<Flight<T>>>;
/// The outcome, once there is one. The callers of a flight own it.
type Flight<T> = OnceLock<Arc<T>>;

impl<K: Eq + Hash, T> Flights<K, T> {
    pub(crate) fn new() -> Self {
        Self { open: Mutex::default(), turns: KeyedMutex::new() }
    }

    /// Returns the outcome of the fetch that runs for this key, or else of `fetch`. It may be dropped in any state.
    pub(crate) async fn get(&self, key: K, fetch: impl Future<Output = T>) -> Arc<T> {
        let caller = Caller(self, Arc::new(key)); // first, so that it is dropped after all that follows
        let flight = self.join(&caller.1);
        if let Ok(guard) = self.turns.ticket(Arc::as_ptr(&flight).addr()).await {
            if flight.get().is_none() {
                let _ = flight.set(Arc::new(fetch.await)); // no other caller sets it
            }
            self.close(&caller.1, |open| open.as_ptr() == Arc::as_ptr(&flight)); // callers that come later begin a new one
            guard.stop();
        }
        flight.get().expect("its callers are stopped when it has an outcome").clone()
    }

    /// Lets callers that come later begin a new fetch. Those that have come get the outcome of the present one.
    pub(crate) fn forget(&self, key: &K) {
        self.close(key, |_| true);
    }

    fn join(&self, key: &Arc<K>) -> Arc<Flight<T>> {
        let mut open = self.open();
        let entry = open.entry(key.clone()).or_default();
        let flight = entry.upgrade().unwrap_or_default();
        *entry = Arc::downgrade(&flight);
        flight
    }

    fn close(&self, key: &K, is: impl FnOnce(&Weak<Flight<T>>) -> bool) {
        let mut open = self.open();
        let closed = if open.get(key).is_some_and(is) { open.remove_entry(key) } else { None };
        drop((open, closed)); // in this order: the key's own `drop` may ask for something
    }

    /// A panic of the key, when it is hashed or compared, leaves the map as it was.
    fn open(&self) -> MutexGuard<'_, Open<K, T>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last caller of a flight removes what is left of it.
struct Caller<'a, K: Eq + Hash, T>(&'a Flights<K, T>, Arc<K>);

impl<K: Eq + Hash, T> Drop for Caller<'_, K, T> {
    fn drop(&mut self) {
        // A key that panics here, perhaps while a panic unwinds, must not end the program.
        let closed = catch_unwind(AssertUnwindSafe(|| self.0.close(&self.1, |open| open.strong_count() == 0)));
        closed.unwrap_or_else(|_| self.0.open().retain(|_, open| open.strong_count() > 0)); // neither hashes nor compares
    }
}

impl<K: Eq + Hash, T> Flights<K, T> {
    /// Whether nothing is kept, for tests.
    pub(crate) fn is_empty(&self) -> bool {
        self.open().is_empty() && self.turns.is_empty()
    }
}

#[cfg(not(target_family = "wasm"))] // smol is not built there
pub(crate) fn main() {
    let (version, flights, executor) = (std::cell::Cell::new(1), Flights::new(), smol::LocalExecutor::new());
    let fetch = || async {
        let version = version.get();
        smol::Timer::after(std::time::Duration::from_millis(10)).await; // the server is slow
        version
    };
    let ask = || executor.spawn(flights.get("https://example.org", fetch()));
    smol::block_on(executor.run(async {
        let (first, others) = (ask(), (1..1_000).map(|_| ask()).collect::<Vec<_>>());
        let first = first.await;
        for other in others {
            assert!(Arc::ptr_eq(&first, &other.await));
        }
        assert!(flights.is_empty());
        println!("1,000 callers got the same outcome, and nothing is kept");

        let before = ask();
        smol::future::yield_now().await; // it fetches
        version.set(2); // a write
        flights.forget(&"https://example.org");
        let after = ask();
        let versions = (*before.await, *after.await);
        println!("the caller before a write got version {}, the one after it version {}", versions.0, versions.1);
        assert_eq!(versions, (1, 2));
    }));
}
