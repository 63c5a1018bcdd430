//! Webhooks that are delivered several times at once, on smol: each event is processed once.
//!
//! `cargo run --release --example webhooks`
#![allow(clippy::std_instead_of_core, clippy::std_instead_of_alloc)] // examples have the standard library

use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use async_mutex_lite::KeyedMutex;
use smol::future::yield_now;

const EVENTS: usize = 5;
const DELIVERIES: usize = 4;

#[derive(Default)]
struct Inbox {
    mutex: KeyedMutex<usize>,
    done: Mutex<HashSet<usize>>,
    processed: AtomicUsize,
}

impl Inbox {
    /// Checks whether the event was processed, processes it, and records that it was. Without the lock, other
    /// deliveries of the event run between the check and the record.
    async fn process_unless_done(&self, event: usize) {
        if self.done.lock().unwrap().contains(&event) {
            return;
        }
        for _ in 0..10 {
            yield_now().await; // the work
        }
        self.processed.fetch_add(1, Relaxed);
        self.done.lock().unwrap().insert(event);
    }

    async fn deliver(&self, event: usize, locked: bool) {
        if locked {
            let _guard = self.mutex.lock(event).await;
            self.process_unless_done(event).await;
        } else {
            self.process_unless_done(event).await;
        }
    }
}

/// Delivers every event several times at once. Returns how many times events were processed, in all.
pub(crate) fn processed(locked: bool) -> usize {
    let inbox = Arc::new(Inbox::default());
    let deliveries: Vec<_> = (0..EVENTS * DELIVERIES)
        .map(|number| {
            let inbox = inbox.clone();
            smol::spawn(async move { inbox.deliver(number % EVENTS, locked).await })
        })
        .collect();
    for delivery in deliveries {
        smol::block_on(delivery);
    }
    inbox.processed.load(Relaxed)
}

pub(crate) fn main() -> ExitCode {
    let (without, with) = (processed(false), processed(true));
    println!("{EVENTS} events, each delivered {DELIVERIES} times at once");
    println!("without the mutex: processed {without} times");
    println!("with the mutex:    processed {with} times, each once");
    if with == EVENTS { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
