//! Other crates of a program may turn on any feature, of ours and of what we use: `.ci/features` runs this with
//! those that change how threads wait. (One of them once made all events share one lock, in which they slept.)
#![cfg(all(feature = "std", not(any(async_mutex_lite_loom, target_family = "wasm"))))]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::common::{now, waiting};
use async_mutex_lite::KeyedMutex;

/// Long enough that nobody who works takes as long; only who hangs does.
const FOR_EVER: Duration = Duration::from_secs(60);

/// Runs a thread until it waits for the key; what it returns tells when it had the key.
#[track_caller]
fn queue(
    mutex: &Arc<KeyedMutex<&'static str>>,
    key: &'static str,
    lock: fn(&KeyedMutex<&'static str>, &'static str),
) -> Receiver<()> {
    let (sender, receiver) = channel();
    let before = mutex.state(key).waiting;
    let shared = mutex.clone();
    thread::spawn(move || {
        lock(&shared, key);
        sender.send(()).unwrap();
    });
    while mutex.state(key).waiting == before {
        thread::yield_now();
    }
    receiver
}

#[test]
fn a_thread_that_blocks_on_a_key_holds_up_nobody_with_another() {
    let mutex = Arc::new(KeyedMutex::<_>::new());
    let alice = now(mutex.lock("alice"));
    let bob = now(mutex.lock("bob"));
    let blocking = |mutex: &KeyedMutex<_>, key| drop(mutex.lock(key).wait());
    let timed =
        |mutex: &KeyedMutex<_>, key| drop(mutex.lock(key).wait_timeout(FOR_EVER).expect("the key was never free"));
    let for_alice = [queue(&mutex, "alice", blocking), queue(&mutex, "alice", timed)];
    let for_bob = [queue(&mutex, "bob", timed), queue(&mutex, "bob", blocking)];
    let mut task = waiting(mutex.lock("bob"));
    // Meanwhile those threads have gone to sleep, and a third key does not care.
    let free = mutex.clone();
    thread::spawn(move || (0..10_000).for_each(|_| drop(free.lock("carol").wait()))).join().unwrap();

    drop(bob);
    for turn in for_bob {
        turn.recv_timeout(FOR_EVER).expect("who waits for alice keeps bob from going on");
    }
    drop(task.ready());
    assert_eq!(mutex.state("alice").waiting, 2);
    drop(alice);
    for turn in for_alice {
        turn.recv_timeout(FOR_EVER).expect("nobody woke the thread");
    }
    assert!(mutex.is_empty());
}
