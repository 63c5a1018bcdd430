//! Futures polled by hand, with wakers that count.
#![allow(dead_code, unreachable_pub)] // each test file uses its own part

use std::fmt::Debug;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

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

    /// The future itself, to be polled by somebody else.
    pub fn into_inner(self) -> Pin<Box<dyn Future<Output = T> + 'a>> {
        self.future
    }

    /// How often its own waker has been called.
    pub fn wakes(&self) -> usize {
        self.counter.count()
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
