//! First polled, first served, for each key; and the key is handed over.

#![allow(clippy::unit_arg)]
#![cfg_attr(not(feature = "std"), allow(unused_imports))]

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::thread;

use crate::common::{hand, now, waiting};
use async_mutex_lite::KeyedMutex;
use futures_lite::future::yield_now;

#[test]
fn waiters_are_served_in_the_order_of_their_first_polls_whatever_they_are() {
    let mutex = &Arc::new(KeyedMutex::<_>::new());
    let served = &RefCell::new(Vec::new());
    let wait = |id: usize| -> Pin<Box<dyn Future<Output = ()> + '_>> {
        let done = move || served.borrow_mut().push(id);
        match id % 7 {
            0 => Box::pin(async move { Some(mutex.lock("key").await).iter().for_each(|_| done()) }),
            1 => Box::pin(async move { Some(mutex.arc().lock("key").await).iter().for_each(|_| done()) }),
            2 => Box::pin(async move { mutex.run("key", async || done()).await.unwrap() }),
            3 => {
                Box::pin(async move { mutex.run_or_stop("key", async || Ok::<_, ()>(done())).await.unwrap().unwrap() })
            }
            4 => Box::pin(async move { Some(mutex.lock_many(["key"]).await).iter().for_each(|_| done()) }),
            5 => Box::pin(async move { mutex.ticket("key").run(async || done()).await.unwrap() }),
            _ => Box::pin(async move {
                let guard = mutex.lock("key").unless(std::future::pending::<()>()).await;
                guard.iter().for_each(|_| done());
            }),
        }
    };
    const WAITERS: usize = 28;
    let guard = now(mutex.lock("key"));
    // Made in one order, polled for the first time in another: the polls count.
    let mut hands: Vec<_> = (0..WAITERS).map(|id| hand(wait(id))).collect();
    let polled: Vec<_> = (0..WAITERS).map(|n| (n * 5 + 3) % WAITERS).collect();
    for &id in &polled {
        hands[id].pending();
    }
    assert_eq!(mutex.state("key").waiting, WAITERS);
    drop(guard);
    for _ in 0..WAITERS {
        let woken: Vec<_> =
            (0..WAITERS).filter(|&id| hands[id].wakes() > 0 && !served.borrow().contains(&id)).collect();
        assert_eq!(woken.len(), 1, "one at a time");
        hands[woken[0]].ready();
    }
    assert_eq!(*served.borrow(), polled);
    assert!(mutex.is_empty());
}

#[test]
fn nobody_slips_in_between_an_unlock_and_the_poll_of_the_next_waiter() {
    let mutex = Arc::new(KeyedMutex::<_>::new());
    let guard = now(mutex.lock("key"));
    let mut next = waiting(mutex.lock("key"));
    drop(guard);
    // The key belongs to `next` now, though it has not been polled.
    assert!(mutex.is_locked("key"));
    assert_eq!(mutex.state("key").waiting, 0);
    assert!(mutex.try_lock("key").is_none());
    assert!(mutex.arc().try_lock("key").is_none());
    assert!(mutex.ticket_if("key", |now| now.holders == 0).is_none());
    let mut newcomer = waiting(mutex.lock("key"));
    let mut task = waiting(mutex.run("key", async || "done"));
    let guard = next.ready();
    newcomer.pending();
    drop(guard);
    task.pending();
    drop(newcomer.ready());
    assert_eq!(task.ready(), Ok("done"));
}

#[test]
#[cfg(feature = "std")]
fn blocked_threads_and_tasks_share_one_queue() {
    let mutex = Arc::new(KeyedMutex::<_>::new());
    let guard = now(mutex.lock(0));
    let served = std::sync::Mutex::new(Vec::new());
    thread::scope(|scope| {
        for id in 0..8 {
            let (mutex, served) = (&mutex, &served);
            scope.spawn(move || match id % 3 {
                0 => Some(mutex.lock(0).wait()).iter().for_each(|_| served.lock().unwrap().push(id)),
                1 => Some(mutex.arc().lock(0).wait()).iter().for_each(|_| served.lock().unwrap().push(id)),
                _ => smol::block_on(async {
                    Some(mutex.lock(0).await).iter().for_each(|_| served.lock().unwrap().push(id))
                }),
            });
            // In the queue before the next one comes.
            while mutex.state(&0).waiting <= id {
                thread::yield_now();
            }
        }
        drop(guard);
    });
    assert_eq!(served.into_inner().unwrap(), (0..8).collect::<Vec<_>>());
}

#[test]
fn a_busy_key_goes_round_all_tasks_before_one_has_it_twice() {
    const TASKS: usize = 5;
    const ROUNDS: usize = 20;
    let mutex = &KeyedMutex::<_>::new();
    let turns = &RefCell::new(Vec::new());
    let executor = smol::LocalExecutor::new();
    let tasks: Vec<_> = (0..TASKS)
        .map(|id| {
            executor.spawn(async move {
                for _ in 0..ROUNDS {
                    let _guard = mutex.lock("key").await;
                    turns.borrow_mut().push(id);
                    yield_now().await;
                }
            })
        })
        .collect();
    smol::block_on(executor.run(async {
        for task in tasks {
            task.await;
        }
    }));
    let first: Vec<_> = turns.borrow()[..TASKS].to_vec();
    for round in turns.borrow().chunks(TASKS) {
        assert_eq!(round, first);
    }
}
