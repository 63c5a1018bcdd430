//! At most one guard or task per key, whatever the mix; different keys never wait for each other.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;

use crate::common::{OneHash, hand, now, waiting};
use async_mutex_lite::KeyedMutex;
use futures_lite::future::pending;

type Mutex = Arc<KeyedMutex<&'static str>>;
type Held = Box<dyn std::any::Any>;
type Hold = fn(&Mutex) -> Held;
type Wait<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Every way to hold a key without waiting: what is returned holds it until it is dropped.
fn ways_to_hold() -> Vec<(&'static str, Hold)> {
    fn leak(mutex: &Mutex) -> &'static KeyedMutex<&'static str> {
        Box::leak(Box::new(mutex.clone()))
    }
    #[cfg(feature = "std")]
    let blocking: [(&str, Hold); 2] = [
        ("lock_blocking", |mutex| Box::new(leak(mutex).lock("key").wait())),
        ("lock_arc_blocking", |mutex| Box::new(mutex.arc().lock("key").wait())),
    ];
    #[cfg(not(feature = "std"))]
    let blocking: [(&str, Hold); 0] = [];
    fn running(task: impl Future<Output = ()> + 'static) -> Held {
        let mut task = hand(task);
        task.pending();
        Box::new(task)
    }
    let ways: Vec<(&str, Hold)> = vec![
        ("lock", |mutex| Box::new(now(leak(mutex).lock("key")))),
        ("lock_arc", |mutex| Box::new(now(mutex.arc().lock("key")))),
        ("try_lock", |mutex| Box::new(leak(mutex).try_lock("key").unwrap())),
        ("try_lock_arc", |mutex| Box::new(mutex.arc().try_lock("key").unwrap())),
        ("run", |mutex| {
            let mutex = leak(mutex);
            running(async { mutex.run("key", async || pending().await).await.unwrap() })
        }),
        ("run_or_stop", |mutex| {
            let mutex = leak(mutex);
            running(async {
                mutex.run_or_stop("key", async || pending::<Result<(), ()>>().await).await.unwrap().unwrap()
            })
        }),
        ("ticket", |mutex| Box::new(leak(mutex).ticket("key"))),
        ("ticket_arc", |mutex| Box::new(now(mutex.arc().ticket("key")).unwrap())),
        ("lock_many", |mutex| Box::new(now(leak(mutex).lock_many(["key", "other"])))),
        ("lock_many_arc", |mutex| Box::new(now(mutex.arc().lock_many(["key"])))),
        ("lock_unless", |mutex| Box::new(now(leak(mutex).lock("key").unless(pending::<()>())).unwrap())),
    ];
    ways.into_iter().chain(blocking).collect()
}

/// Every way to wait for a key in a task.
fn ways_to_wait(mutex: &Mutex) -> Vec<(&'static str, Wait<'_>)> {
    vec![
        ("lock", Box::pin(async { drop(mutex.lock("key").await) })),
        ("lock_arc", Box::pin(async { drop(mutex.arc().lock("key").await) })),
        // (A `run_or_stop` that is dropped while it holds the key stops these two: it is still their turn.)
        (
            "run",
            Box::pin(async {
                let _ = mutex.run("key", async || ()).await;
            }),
        ),
        (
            "run_or_stop",
            Box::pin(async {
                let _ = mutex.run_or_stop("key", async || Ok::<_, ()>(())).await;
            }),
        ),
        ("ticket", Box::pin(async { drop(mutex.ticket("key").await) })),
        ("ticket_arc", Box::pin(async { drop(mutex.arc().ticket("key").await) })),
        ("lock_many", Box::pin(async { drop(mutex.lock_many(["key"]).await) })),
        ("lock_many_arc", Box::pin(async { drop(mutex.arc().lock_many(["key"]).await) })),
        ("lock_unless", Box::pin(async { drop(mutex.lock("key").unless(pending::<()>()).await) })),
    ]
}

#[test]
fn whatever_holds_a_key_keeps_everybody_else_out() {
    for (holder, hold) in ways_to_hold() {
        let mutex = Mutex::default();
        let held = hold(&mutex);
        assert!(mutex.try_lock("key").is_none(), "{holder} lets try_lock in");
        assert!(mutex.arc().try_lock("key").is_none(), "{holder} lets try_lock_arc in");
        assert!(mutex.ticket_if("key", |now| now.holders == 0).is_none(), "{holder} lets ticket_if in");
        let mut waiters: Vec<_> = ways_to_wait(&mutex).into_iter().map(|(name, wait)| (name, hand(wait))).collect();
        for (waiter, future) in &mut waiters {
            assert!(future.poll().is_pending(), "{holder} lets {waiter} in");
        }
        assert_eq!(mutex.state("key").waiting, waiters.len());
        drop(held);
        for (waiter, future) in &mut waiters {
            assert!(future.poll().is_ready(), "{waiter} does not get the key after {holder}");
        }
        assert!(mutex.is_empty(), "{holder} leaves something behind");
    }
}

#[test]
#[cfg(feature = "std")]
fn a_blocked_thread_waits_for_a_task_and_a_task_for_a_blocked_thread() {
    let mutex = Mutex::default();
    let guard = now(mutex.lock("key"));
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| drop(mutex.lock("key").wait()));
        let blocked_arc = scope.spawn(|| drop(mutex.arc().lock("key").wait()));
        while mutex.state("key").waiting < 2 {
            std::thread::yield_now();
        }
        assert!(!blocked.is_finished() && !blocked_arc.is_finished());
        let behind = waiting(mutex.lock("key"));
        drop(guard);
        futures_lite::future::block_on(async move { drop({ behind }.into_inner().await) });
    });
    assert!(mutex.is_empty());
}

#[test]
fn different_keys_do_not_wait_for_each_other_even_when_their_hashes_are_equal() {
    let mutex = KeyedMutex::with_hasher(OneHash);
    let guards: Vec<_> = (0..100).map(|key| now(mutex.lock(key))).collect();
    assert_eq!(mutex.len(), 100);
    let mut waiters: Vec<_> = (0..100).map(|key| waiting(mutex.lock(key))).collect();
    // Unlock from the middle out: each unlock lets in the waiter of its own key, and no other.
    let mut guards: Vec<_> = guards.into_iter().map(Some).collect();
    for step in 0..100 {
        let key = (step * 37 + 50) % 100;
        guards[key] = None;
        let guard = waiters[key].ready();
        assert_eq!(waiters.iter().map(|waiter| waiter.wakes()).sum::<usize>(), step + 1);
        drop(guard);
        assert_eq!(mutex.len(), 99 - step);
    }
}

#[test]
fn locking_a_key_again_in_the_task_that_holds_it_waits_for_ever() {
    let mutex = KeyedMutex::<_>::new();
    let mut task = waiting(async {
        let _guard = mutex.lock("alice").await;
        assert!(mutex.try_lock("alice").is_none());
        drop(mutex.lock("alice").await);
    });
    task.pending();
    assert_eq!(task.wakes(), 0);
    drop(task);
    assert!(mutex.is_empty());
}

#[test]
fn a_forgotten_guard_locks_its_own_key_for_ever_and_no_other() {
    let mutex = KeyedMutex::with_hasher(OneHash);
    mem::forget(mutex.try_lock("lost"));
    assert!(mutex.try_lock("lost").is_none());
    let mut waiter = waiting(mutex.lock("lost"));
    for _ in 0..100 {
        drop(now(mutex.lock("other")));
    }
    waiter.pending();
    drop(waiter);
    assert_eq!((mutex.len(), mutex.state("lost").waiting), (1, 0));
}

#[test]
fn a_static_mutex_needs_no_initialisation() {
    static MUTEX: KeyedMutex<u32> = KeyedMutex::new();
    let guard = MUTEX.try_lock(1);
    assert!(guard.is_some() && MUTEX.is_locked(&1) && !MUTEX.is_locked(&2));
    let other = MUTEX.try_lock(2);
    assert_eq!(MUTEX.len(), 2);
    drop((guard, other));
    assert!(MUTEX.is_empty());
}
