//! Giving up on a signal.

use std::future::{pending, ready};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::common::{now, waiting};
use async_mutex_lite::KeyedMutex;

#[test]
fn a_free_key_wins_over_a_signal_that_has_fired() {
    let mutex = KeyedMutex::<_>::new();
    assert!(now(mutex.lock("key").unless(ready(()))).is_ok());
    assert!(mutex.is_empty());
}

#[test]
fn so_does_a_key_that_has_been_handed_over() {
    let mutex = KeyedMutex::<_>::new();
    let guard = now(mutex.lock("key"));
    let (fire, signal) = smol::channel::bounded::<&str>(1);
    let mut waits = waiting(mutex.lock("key").unless(signal.recv()));
    drop(guard);
    fire.try_send("too late").unwrap();
    assert!(waits.ready().is_ok());
}

#[test]
fn a_signal_ends_the_wait_and_gives_up_the_place() {
    let mutex = KeyedMutex::<_>::new();
    let guard = now(mutex.lock("key"));
    assert_eq!(now(mutex.lock("key").unless(ready("at once"))).unwrap_err(), "at once");
    let (fire, signal) = smol::channel::bounded::<&str>(1);
    let mut waits = waiting(mutex.lock("key").unless(signal.recv()));
    let mut behind = waiting(mutex.lock("key"));
    assert_eq!(mutex.state("key").waiting, 2);
    fire.try_send("shutdown").unwrap();
    assert_eq!(waits.wakes(), 1);
    assert_eq!(waits.ready().unwrap_err(), Ok("shutdown"));
    assert_eq!(mutex.state("key").waiting, 1);
    drop(guard);
    drop(behind.ready());
    assert!(mutex.is_empty());
}

#[test]
fn the_arc_twin_does_the_same_and_its_future_borrows_nothing() {
    let mutex = Arc::new(KeyedMutex::<_>::new());
    let free = mutex.arc().lock("key").unless(ready(()));
    let given_up = mutex.arc().lock("key").unless(ready("too late"));
    drop(mutex);
    let guard = now(free).unwrap();
    assert_eq!(now(given_up).unwrap_err(), "too late");
    drop(guard);
}

#[test]
fn without_a_signal_it_waits_in_the_queue_like_any_lock() {
    let mutex = KeyedMutex::<_>::new();
    let guard = now(mutex.lock("key"));
    let mut first = waiting(mutex.lock("key").unless(pending::<()>()));
    let mut second = waiting(mutex.lock("key"));
    drop(guard);
    second.pending();
    drop(first.ready().unwrap());
    drop(second.ready());
}

#[test]
fn a_signal_that_panics_when_it_is_dropped_leaves_the_key_free() {
    struct Signal;

    impl Future for Signal {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }
    }

    impl Drop for Signal {
        fn drop(&mut self) {
            resume_unwind(Box::new("in drop"));
        }
    }

    let mutex = KeyedMutex::<_>::new();
    let guard = now(mutex.lock("key"));
    let mut waits = waiting(mutex.lock("key").unless(Signal));
    drop(guard);
    assert!(catch_unwind(AssertUnwindSafe(|| waits.poll().is_ready())).is_err());
    assert!(mutex.is_empty());
}
