//! Futures polled by hand, with wakers that count.
#![allow(dead_code, unreachable_pub)] // each test file uses its own part

use std::fmt::Debug;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc::sync_channel;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

/// Counts how often it is woken.
#[derive(Default)]
pub struct Counter(AtomicUsize);

impl Counter {
    pub fn count(&self) -> usize {
        self.0.load(SeqCst)
    }
}

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A future that is polled by hand.
pub struct Hand<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + 'a>>,
    counter: Arc<Counter>,
}

/// Takes a future in hand. It has not been polled yet.
pub fn hand<'a, T>(future: impl Future<Output = T> + 'a) -> Hand<'a, T> {
    Hand { future: Box::pin(future), counter: Arc::default() }
}

/// The same, polled once: it must have to wait.
#[track_caller]
pub fn waiting<'a, T: Debug>(future: impl Future<Output = T> + 'a) -> Hand<'a, T> {
    let mut hand = hand(future);
    hand.pending();
    hand
}

/// Polls a future that must be ready at once.
#[track_caller]
pub fn now<T: Debug>(future: impl Future<Output = T>) -> T {
    hand(future).ready()
}

impl<'a, T: Debug> Hand<'a, T> {
    pub fn poll(&mut self) -> Poll<T> {
        self.poll_with(&self.counter.clone().into())
    }

    pub fn poll_with(&mut self, waker: &Waker) -> Poll<T> {
        self.future.as_mut().poll(&mut Context::from_waker(waker))
    }

    #[track_caller]
    pub fn pending(&mut self) {
        if let Poll::Ready(output) = self.poll() {
            panic!("should have to wait, but got {output:?}");
        }
    }

    #[track_caller]
    pub fn ready(&mut self) -> T {
        match self.poll() {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("should be ready, but has to wait"),
        }
    }

    /// The future itself, to be polled elsewhere.
    pub fn into_inner(self) -> Pin<Box<dyn Future<Output = T> + 'a>> {
        self.future
    }

    /// How often its own waker has been called.
    pub fn wakes(&self) -> usize {
        self.counter.count()
    }
}

/// Runs a test on a thread of its own, and fails if it hangs: if it takes a hundred times as long as any does.
/// `TEST_LIMIT` has another limit, in seconds.
#[cfg(not(target_family = "wasm"))]
#[track_caller]
pub fn limited(test: impl FnOnce() + Send + 'static) {
    let limit = std::env::var("TEST_LIMIT").map_or(120, |text| text.parse().expect("a number of seconds"));
    let (done, ended) = sync_channel(1);
    let thread = thread::spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(test));
        let _ = done.send(());
        outcome
    });
    ended.recv_timeout(Duration::from_secs(limit)).expect("it hangs");
    if let Err(panic) = thread.join().expect("its panic was caught") {
        resume_unwind(panic);
    }
}

/// Proof of who is inside: one who has a key for itself finds nobody there, and one who shares it none of those, neither
/// coming nor going.
#[derive(Default)]
pub struct Cell(AtomicU32);

/// What one who has a key for itself adds to its cell; one who shares it adds 1.
const ALONE: u32 = 1 << 16;

impl Cell {
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    pub fn enter(&self) -> Inside<'_> {
        assert_eq!(self.0.fetch_add(ALONE, Relaxed), 0, "two are inside");
        Inside(&self.0, ALONE)
    }

    pub fn share(&self) -> Inside<'_> {
        self.share_at_most(ALONE)
    }

    /// The same, and fewer than so many are there. (That is the highest limit of all that share it: one that was granted it
    /// later, with a limit of its own, may come first.)
    pub fn share_at_most(&self, limit: u32) -> Inside<'_> {
        let before = self.0.fetch_add(1, Relaxed);
        assert!(before < ALONE, "one shares what another has for itself");
        assert!(before < limit, "{before} share it, and one comes that allows {limit}");
        Inside(&self.0, 1)
    }
}

/// Leaves the cell when it is dropped: also if a task is dropped while it is inside.
pub struct Inside<'a>(&'a AtomicU32, u32);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        match (self.1, self.0.fetch_sub(self.1, Relaxed)) {
            (ALONE, before) => assert_eq!(before, ALONE, "two are inside"),
            (_, before) => assert!(before < ALONE, "one shares what another has for itself"),
        }
    }
}

/// Gives every key the same hash.
#[derive(Clone, Copy, Default, Debug)]
pub struct OneHash;

impl BuildHasher for OneHash {
    type Hasher = OneHash;

    fn build_hasher(&self) -> OneHash {
        OneHash
    }
}

impl Hasher for OneHash {
    fn write(&mut self, _: &[u8]) {}

    fn finish(&self) -> u64 {
        0x1234_5678
    }
}
