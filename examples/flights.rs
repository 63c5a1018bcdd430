//! One fetch for all callers, also known as single flight: callers that ask for the same key while its fetch runs share
//! that fetch, and get the same [`Arc`] of its outcome, whether that is a success or an error. Nothing is kept once the
//! last of them has its outcome: this is not a cache. A caller may be cancelled in any state. If it was the one that
//! polled the fetch, the next caller resumes it.
//!
//! Written to be copied. `cargo run --release --example flights`
#![allow(clippy::std_instead_of_core)] // examples have the standard library

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::hash::Hash;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use async_mutex_lite::KeyedMutex;
use smol::stream::{self, StreamExt};

pub(crate) struct Flights<K, T> {
    /// The caller that holds the key polls the fetch. The others wait for the key, until they are stopped.
    keys: KeyedMutex<K>,
    /// The flight of each locked key: that of its holder, and of all its waiters.
    flights: Mutex<HashMap<K, Weak<Flight<T>>>>,
}

struct Flight<T> {
    begun: Mutex<Option<Pin<Box<dyn Future<Output = T> + Send>>>>,
    outcome: OnceLock<Arc<T>>,
}

/// A caller; the last one removes the flight.
struct Caller<'a, K: Eq + Hash, T>(&'a Flights<K, T>, K, Option<Arc<Flight<T>>>);

impl<K: Clone + Eq + Hash, T> Flights<K, T> {
    pub(crate) fn new() -> Self {
        Self { keys: KeyedMutex::new(), flights: Mutex::default() }
    }

    /// Whether nothing is kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.flights.lock().unwrap().is_empty()
    }

    /// Returns the outcome of the fetch that runs for this key, or else of `fetch`, which must not ask for the same key.
    pub(crate) async fn get(&self, key: K, fetch: impl Future<Output = T> + Send + 'static) -> Arc<T> {
        let mut caller = Caller(self, key.clone(), None); // first, so that it is dropped after the ticket and the guard
        // Joining a flight and queueing for its key are one step.
        let ticket = self.keys.ticket_if(key, |now| {
            let mut flights = self.flights.lock().unwrap();
            let flight = flights.entry(caller.1.clone()).or_default();
            caller.2 = if now.holders > 0 { flight.upgrade() } else { None }; // the holder of the key keeps it alive
            let new = || Arc::new(Flight { begun: Mutex::new(None), outcome: OnceLock::new() });
            *flight = Arc::downgrade(caller.2.get_or_insert_with(new));
            true
        });
        let flight = caller.2.as_ref().expect("it has joined one");
        if let Ok(guard) = ticket.expect("every caller is admitted").await {
            let mut fetch = Some(fetch);
            let outcome = poll_fn(|context| {
                let begun = flight.begun.lock().unwrap().take(); // if it panics, the next caller begins a new one
                let mut work = begun.unwrap_or_else(|| Box::pin(fetch.take().expect("it is begun once")));
                let outcome = work.as_mut().poll(context);
                *flight.begun.lock().unwrap() = outcome.is_pending().then_some(work);
                outcome
            });
            let _ = flight.outcome.set(Arc::new(outcome.await));
            guard.stop(); // all waiters have joined this flight; callers that come later begin a new one
        }
        flight.outcome.get().expect("a stopped caller has an outcome").clone()
    }
}

impl<K: Eq + Hash, T> Drop for Caller<'_, K, T> {
    fn drop(&mut self) {
        drop(self.2.take());
        let mut flights = self.0.flights.lock().unwrap();
        if flights.get(&self.1).is_some_and(|flight| flight.strong_count() == 0) {
            flights.remove(&self.1);
        }
    }
}

pub(crate) fn main() {
    let (flights, executor) = (Flights::new(), smol::LocalExecutor::new());
    let fetch = || smol::Timer::after(Duration::from_millis(10)); // from a slow server
    let callers: Vec<_> = (0..1_000).map(|_| executor.spawn(flights.get("https://example.org", fetch()))).collect();
    let outcomes: Vec<_> = smol::block_on(executor.run(stream::iter(callers).then(|caller| caller).collect()));
    assert!(outcomes.iter().all(|outcome| Arc::ptr_eq(outcome, &outcomes[0])) && flights.is_empty());
    println!("{} callers got the same outcome, {:?}, and nothing is kept", outcomes.len(), outcomes[0]);
}
