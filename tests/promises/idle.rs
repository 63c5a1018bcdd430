//! A watcher is told of the first moment at which the key is neither held nor waited for; it takes no place in any queue,
//! and locks no key.
#![cfg(feature = "idle")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use crate::common::{self, Hand, OneHash, hand, now, waiting};
use async_mutex_lite::KeyedMutex;
use futures_lite::future::{block_on, yield_now};

#[test]
fn a_key_that_nobody_uses_is_idle_at_once() {
    let mutex = KeyedMutex::<&str>::new();
    now(mutex.idle("key"));
    now(mutex.all_idle());
    let guard = mutex.try_lock("other");
    now(mutex.idle("key"));
    drop(guard);
    now(mutex.idle("other"));
    now(mutex.all_idle());
}

#[test]
fn it_is_told_when_the_last_of_the_queue_has_gone_and_not_before() {
    let mutex = Arc::new(KeyedMutex::<&str>::new());
    let guard = mutex.try_lock("key");
    let mut queued = waiting(mutex.lock("key"));
    let ticket = mutex.arc().ticket("key");
    let mut watchers: Vec<_> = (0..3).map(|_| waiting(mutex.idle("key"))).collect();
    watchers.push(waiting(mutex.all_idle()));
    let told = |watchers: &[Hand<'_, ()>]| watchers.iter().map(Hand::wakes).collect::<Vec<_>>();
    assert_eq!((mutex.len(), mutex.state("key").waiting), (1, 2), "they take no place");
    drop(guard);
    let guard = queued.ready();
    watchers.iter_mut().for_each(Hand::pending);
    drop(guard);
    assert_eq!(told(&watchers), [0; 4], "the ticket has the key");
    drop(ticket);
    assert_eq!(told(&watchers), [1; 4]);
    watchers.iter_mut().for_each(Hand::ready);
    assert!(mutex.is_empty());
}

#[test]
fn a_moment_is_enough_however_soon_the_key_is_locked_again() {
    let mutex = KeyedMutex::<&str>::new();
    let guard = mutex.try_lock("key");
    let mut idle = waiting(mutex.idle("key"));
    drop(guard);
    let _again = mutex.try_lock("key").unwrap();
    let mut later = waiting(mutex.idle("key"));
    idle.ready();
    later.pending();
}

#[test]
fn keys_with_the_same_hash_are_told_apart() {
    let mutex = KeyedMutex::<u32, OneHash>::default();
    let (one, two) = (mutex.try_lock(1), mutex.try_lock(2));
    let (mut idle, mut all) = (waiting(mutex.idle(&1)), waiting(mutex.all_idle()));
    drop(two);
    assert_eq!((idle.wakes(), all.wakes()), (0, 0));
    idle.pending();
    all.pending();
    drop(one);
    assert_eq!((idle.wakes(), all.wakes()), (1, 1));
    idle.ready();
    all.ready();
}

#[test]
fn all_idle_waits_for_every_key_whatever_their_order() {
    for first in [0, 1] {
        let mutex = KeyedMutex::<u32>::new();
        let mut guards: Vec<_> = (0..300).map(|key| mutex.try_lock(key)).collect();
        let mut all = waiting(mutex.all_idle());
        if first == 1 {
            guards.reverse();
        }
        while guards.len() > 1 {
            guards.pop();
            all.pending();
        }
        // One that is locked late, by a caller that holds another.
        guards.push(mutex.try_lock(1_000));
        guards.remove(0);
        all.pending();
        guards.clear();
        assert!((0..2).any(|_| all.poll().is_ready()), "it looks once more at most");
        assert!(mutex.is_empty());
    }
}

#[test]
fn all_idle_wakes_itself_once_if_it_has_to_look_again() {
    let mutex = KeyedMutex::<u32>::new();
    let guards: Vec<_> = (0..300).map(|key| mutex.try_lock(key)).collect();
    let mut all = waiting(mutex.all_idle());
    drop(guards);
    assert_eq!(all.wakes(), 1);
    assert!((0..2).any(|_| all.poll().is_ready()));
    assert!(all.wakes() <= 2, "{} wakes", all.wakes());
}

#[test]
fn a_watcher_may_be_dropped_at_any_time() {
    let mutex = KeyedMutex::<&str>::new();
    drop(mutex.idle("key"));
    let guard = mutex.try_lock("key");
    drop(hand(mutex.idle("key")));
    let (first, mut second, third) =
        (waiting(mutex.idle("key")), waiting(mutex.idle("key")), waiting(mutex.all_idle()));
    drop(first);
    let counter = Arc::new(common::Counter::default());
    let mut fourth = hand(mutex.idle("key"));
    assert!(fourth.poll_with(&counter.clone().into()).is_pending());
    drop(fourth);
    assert_eq!(Arc::strong_count(&counter), 1, "its waker has gone with it");
    drop(guard);
    assert_eq!((second.wakes(), third.wakes()), (1, 1));
    drop(third); // it was told
    second.ready();
    // A slab with the nodes of those that have gone is as good as new.
    let guard = mutex.try_lock("key");
    let mut next = waiting(mutex.lock("key"));
    drop(guard);
    drop(next.ready());
}

#[test]
fn its_waker_is_that_of_the_last_poll() {
    let mutex = KeyedMutex::<&str>::new();
    let guard = mutex.try_lock("key");
    let counter = Arc::new(common::Counter::default());
    let mut idle = hand(mutex.idle("key"));
    assert!(idle.poll_with(&counter.clone().into()).is_pending());
    idle.pending();
    drop(guard);
    assert_eq!((counter.count(), idle.wakes()), (0, 1));
    idle.ready();
    assert_eq!(Arc::strong_count(&counter), 1);
}

#[test]
fn its_future_is_send() {
    fn send<T: Future + Send>(_: T) {}
    let mutex = KeyedMutex::<String>::new();
    send(mutex.idle("key"));
    send(mutex.all_idle());
}

/// Threads that move from key to key, never without one: there is no moment at which all keys are idle until they
/// are done.
#[test]
fn all_idle_is_not_fooled_by_those_who_lock_the_next_key_before_they_unlock_the_last() {
    const ROUNDS: u32 = if cfg!(any(feature = "std", feature = "critical-section")) { 20_000 } else { 2_000 };
    let mutex = &KeyedMutex::<u32>::new();
    let at_work = &AtomicUsize::new(2);
    thread::scope(|scope| {
        let first = [0, 1_000_000].map(|key| mutex.try_lock(key));
        for (thread, first) in first.into_iter().enumerate() {
            scope.spawn(move || {
                let mut held = first;
                for round in 1..ROUNDS {
                    held = mutex.try_lock(thread as u32 * 1_000_000 + round);
                }
                at_work.fetch_sub(1, SeqCst);
                drop(held);
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                block_on(mutex.all_idle());
                assert_eq!(at_work.load(SeqCst), 0, "some key was locked all the time");
            });
        }
    });
}

#[test]
fn threads_that_lock_and_threads_that_watch_come_to_an_end() {
    const ROUNDS: usize = if cfg!(any(feature = "std", feature = "critical-section")) { 5_000 } else { 500 };
    let mutex = &KeyedMutex::<u32, OneHash>::default();
    thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    match thread {
                        0 | 1 => drop(block_on(mutex.lock(round as u32 % 2))),
                        2 => block_on(mutex.idle(&(round as u32 % 2))),
                        _ => {
                            let _ = hand(mutex.idle(&0)).poll(); // and gives up
                        }
                    }
                }
            });
        }
    });
    now(mutex.all_idle());
}

#[test]
fn all_idle_sees_every_moment_at_which_the_last_key_is_unlocked_if_there_is_one_shard() {
    // In one shard of several; all keys have the same hash.
    let mutex = KeyedMutex::<u32, OneHash>::default();
    let guards = [1, 2].map(|key| mutex.try_lock(key).unwrap());
    let mut all = waiting(mutex.all_idle());
    drop(guards);
    let again = [2, 3].map(|key| mutex.try_lock(key).unwrap());
    let mut later = waiting(mutex.all_idle());
    all.ready();
    let newer = mutex.try_lock(4).unwrap();
    drop(again);
    later.pending();
    drop(newer);
    later.ready();
}

/// Unlocks a key and locks one again before any other task runs, forever, while `all_idle` waits.
fn all_idle_beside_a_busy_task<S: std::hash::BuildHasher>(mutex: &KeyedMutex<u32, S>, keys: u32) {
    let executor = smol::LocalExecutor::new();
    let busy = executor.spawn(async {
        for round in 0.. {
            let _guard = mutex.try_lock(round % keys).expect("no other task locks it");
            yield_now().await;
        }
    });
    block_on(executor.run(async {
        yield_now().await;
        mutex.all_idle().await;
        busy.cancel().await;
    }));
    assert!(mutex.is_empty());
}

#[test]
fn a_task_that_unlocks_and_locks_again_at_once_does_not_keep_all_idle_waiting() {
    all_idle_beside_a_busy_task(&KeyedMutex::<u32>::new(), 1);
    all_idle_beside_a_busy_task(&KeyedMutex::<u32, OneHash>::default(), 3); // in one shard
}

#[test]
fn very_many_watchers_come_and_go_in_any_order() {
    const WATCHERS: usize = if cfg!(miri) { 50 } else { 10_000 };
    let mutex = KeyedMutex::<u32, OneHash>::default();
    let mut random = fastrand::Rng::with_seed(7);
    let (one, two) = (mutex.try_lock(1), mutex.try_lock(2));
    let mut watchers: Vec<_> = (0..WATCHERS)
        .map(|number| match number % 3 {
            0 => (1, waiting(mutex.idle(&1))),
            1 => (2, waiting(mutex.idle(&2))),
            _ => (0, waiting(mutex.all_idle())),
        })
        .collect();
    random.shuffle(&mut watchers);
    watchers.truncate(WATCHERS * 2 / 3);
    watchers.iter_mut().for_each(|(_, watcher)| watcher.pending());
    let told = |watchers: &[(u32, Hand<'_, ()>)]| {
        watchers.iter().for_each(|(_, watcher)| assert!(watcher.wakes() <= 1));
        [0, 1, 2]
            .map(|key| watchers.iter().filter(|(watched, watcher)| *watched == key && watcher.wakes() == 1).count())
    };
    let of = |watchers: &[(u32, Hand<'_, ()>)], key| watchers.iter().filter(|(watched, _)| *watched == key).count();
    drop(one);
    assert_eq!(told(&watchers), [0, of(&watchers, 1), 0]);
    random.shuffle(&mut watchers);
    watchers.truncate(WATCHERS / 2); // of those that were told, too
    drop(two);
    assert_eq!(told(&watchers), [0, 1, 2].map(|key| of(&watchers, key)));
    watchers.truncate(WATCHERS / 3);
    watchers.iter_mut().for_each(|(_, watcher)| watcher.ready());
    drop(watchers);
    now(mutex.all_idle());
}
