//! Threads wait in the same queue as tasks do, and may give up after a time. No test depends on how long anything
//! takes: a timeout must run out, may run out, or is longer than the test.
#![cfg(all(feature = "std", not(any(async_mutex_lite_loom, target_family = "wasm"))))]

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::common::{now, waiting};
use async_mutex_lite::KeyedMutex;

const NO_TIME: Duration = Duration::ZERO;
const FOR_EVER: Duration = Duration::MAX;
const AN_HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn a_free_key_is_locked_even_if_there_is_no_time() {
    let mutex = Arc::new(KeyedMutex::<_>::new());
    drop(mutex.lock("key").wait_timeout(NO_TIME).unwrap());
    drop(mutex.lock("key").wait_timeout(FOR_EVER).unwrap());
    drop(mutex.lock("key").wait());
    drop(mutex.arc().lock("key").wait());
    assert!(mutex.is_empty());
}

#[test]
fn when_the_time_is_up_the_place_is_given_up() {
    let mutex = KeyedMutex::<_>::new();
    let guard = now(mutex.lock("key"));
    let mut before = waiting(mutex.lock("key"));
    for time in [NO_TIME, Duration::from_millis(1)] {
        assert!(mutex.lock("key").wait_timeout(time).is_none());
        assert_eq!(mutex.state("key").waiting, 1);
    }
    let mut behind = waiting(mutex.lock("key"));
    drop(guard);
    drop(before.ready());
    drop(behind.ready());
    assert!(mutex.is_empty());
}

#[test]
fn a_thread_is_let_in_when_its_turn_comes_and_others_keep_their_order() {
    let mutex = &KeyedMutex::<_>::new();
    let guard = now(mutex.lock("key"));
    thread::scope(|scope| {
        let mut queued = 0;
        let mut queue = |block: fn(&KeyedMutex<&'static str>) -> bool| {
            let thread = scope.spawn(move || block(mutex));
            queued += 1;
            while mutex.state("key").waiting < queued {
                thread::yield_now();
            }
            thread
        };
        let first = queue(|mutex| {
            mutex.lock("key").wait_timeout(AN_HOUR).is_some_and(|_guard| mutex.state("key").waiting == 3)
        });
        let second = queue(|mutex| {
            let _guard = mutex.lock("key").wait();
            mutex.state("key").waiting == 2
        });
        let third = queue(|mutex| {
            mutex.lock("key").wait_timeout(FOR_EVER).is_some_and(|_guard| mutex.state("key").waiting == 1)
        });
        let mut fourth = waiting(mutex.lock("key"));
        drop(guard);
        assert!([first, second, third].map(|thread| thread.join().unwrap()) == [true; 3]);
        drop(fourth.ready());
    });
    assert!(mutex.is_empty());
}

#[test]
fn threads_that_give_up_at_the_moment_of_their_turn_lose_nothing() {
    let mutex = &KeyedMutex::<u32>::new();
    let inside = &std::sync::atomic::AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for round in 0..3_000 {
                    let time = Duration::from_micros(if thread == 0 { 1_000_000 } else { round % 50 });
                    if let Some(_guard) = mutex.lock(0).wait_timeout(time) {
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0, "two are inside");
                        if round % 8 == 0 {
                            thread::yield_now();
                        }
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert!(mutex.is_empty());
}
