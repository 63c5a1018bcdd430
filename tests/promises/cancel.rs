//! A future may be dropped in any state: the others keep their order, and nothing is left behind.

use std::cell::RefCell;
use std::future::pending;
use std::sync::Arc;

use crate::common::{Hand, hand, now, waiting};
use async_mutex_lite::KeyedMutex;

type Mutex = Arc<KeyedMutex<&'static str>>;
type Make = fn(&Mutex) -> Hand<'_, ()>;

/// Every future that waits for a key, as one that says nothing about its guard.
fn kinds() -> Vec<(&'static str, Make)> {
    vec![
        ("lock", |m| hand(async { drop(m.lock("key").await) })),
        ("lock_arc", |m| hand(async { drop(m.arc().lock("key").await) })),
        ("run", |m| {
            hand(async {
                let _ = m.run("key", async || ()).await;
            })
        }),
        ("run_or_stop", |m| {
            hand(async {
                let _ = m.run_or_stop("key", async || Ok::<_, ()>(())).await;
            })
        }),
        ("ticket", |m| hand(async { drop(m.ticket("key").await.unwrap()) })),
        ("ticket_arc", |m| hand(async { drop(m.arc().ticket("key").await.unwrap()) })),
        ("ticket.run", |m| {
            hand(async {
                let _ = m.ticket("key").run(async || ()).await;
            })
        }),
        ("lock_unless", |m| hand(async { drop(m.lock("key").unless(pending::<()>()).await) })),
        ("lock_many", |m| hand(async { drop(m.lock_many(["key"]).await) })),
        ("lock_many_arc", |m| hand(async { drop(m.arc().lock_many(["key"]).await) })),
    ]
}

#[test]
fn a_future_that_was_never_polled_has_done_nothing() {
    for (name, make) in kinds() {
        let mutex = Mutex::default();
        let future = make(&mutex);
        assert!(mutex.is_empty(), "{name}");
        drop(future);
        let guard = mutex.try_lock("key");
        let future = make(&mutex);
        assert_eq!(mutex.state("key").waiting, 0, "{name}");
        drop(future);
        drop(guard);
        assert!(mutex.is_empty(), "{name}");
    }
}

#[test]
fn a_waiter_that_is_dropped_leaves_the_others_their_order() {
    for (name, make) in kinds() {
        for gone in 0..5 {
            let mutex = Mutex::default();
            let guard = mutex.try_lock("key");
            let mut queue: Vec<_> = (0..5).map(|_| make(&mutex)).collect();
            queue.iter_mut().for_each(Hand::pending);
            drop(queue.remove(gone));
            assert_eq!(mutex.state("key").waiting, 4, "{name}");
            drop(guard);
            for next in 0..4 {
                let wakes: Vec<_> = queue.iter().map(Hand::wakes).collect();
                assert_eq!(wakes.iter().sum::<usize>(), next + 1, "{name}: {wakes:?}");
                assert_eq!(wakes[next], 1, "{name}: {wakes:?}");
                queue[next].ready();
            }
            assert!(mutex.is_empty(), "{name}");
        }
    }
}

#[test]
fn a_granted_waiter_dropped_unpolled_passes_the_key_on() {
    for (name, make) in kinds() {
        let mutex = Mutex::default();
        let guard = mutex.try_lock("key");
        let mut granted = make(&mutex);
        let mut next = make(&mutex);
        granted.pending();
        next.pending();
        drop(guard);
        assert_eq!((granted.wakes(), next.wakes()), (1, 0), "{name}");
        drop(granted);
        assert_eq!(next.wakes(), 1, "{name}");
        next.ready();
        assert!(mutex.is_empty(), "{name}");
    }
}

#[test]
fn a_granted_waiter_dropped_unpolled_passes_the_key_on_to_a_newcomer() {
    for (name, make) in kinds() {
        let mutex = Mutex::default();
        let guard = mutex.try_lock("key");
        let mut granted = make(&mutex);
        granted.pending();
        drop(guard);
        let mut newcomer = waiting(mutex.lock("key"));
        drop(granted);
        assert_eq!(newcomer.wakes(), 1, "{name}");
        drop(newcomer.ready());
        assert!(mutex.is_empty(), "{name}");
    }
}

#[test]
fn a_granted_waiter_dropped_unpolled_with_nobody_behind_leaves_nothing_behind() {
    for (name, make) in kinds() {
        let mutex = Mutex::default();
        for _ in 0..3 {
            let guard = mutex.try_lock("key");
            let mut granted = make(&mutex);
            granted.pending();
            drop(guard);
            assert_eq!(mutex.len(), 1, "{name}");
            drop(granted);
            assert!(mutex.is_empty(), "{name}");
        }
        // The events that were reused carry no key over: the next queue is in order.
        let guard = mutex.try_lock("key");
        let mut first = waiting(mutex.lock("key"));
        let mut second = waiting(mutex.lock("key"));
        drop(guard);
        second.pending();
        let guard = first.ready();
        second.pending();
        drop(guard);
        drop(second.ready());
    }
}

#[test]
fn a_whole_queue_of_granted_waiters_may_go_one_after_another() {
    for (name, make) in kinds() {
        let mutex = Mutex::default();
        let guard = mutex.try_lock("key");
        let mut queue: Vec<_> = (0..10).map(|_| make(&mutex)).collect();
        queue.iter_mut().for_each(Hand::pending);
        let mut last = waiting(mutex.lock("key"));
        drop(guard);
        for granted in queue {
            assert_eq!(granted.wakes(), 1, "{name}");
            drop(granted);
        }
        drop(last.ready());
        assert!(mutex.is_empty(), "{name}");
    }
}

/// Notes when it is dropped, and whether the key was still locked then.
struct Witness<'a> {
    mutex: &'a Mutex,
    locked: &'a RefCell<Vec<bool>>,
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        self.locked.borrow_mut().push(self.mutex.is_locked("key"));
    }
}

#[test]
fn a_task_that_is_dropped_while_it_runs_is_gone_before_its_key_is_released() {
    let mutex = &Mutex::default();
    let locked = &RefCell::new(Vec::new());
    let task = async || {
        let _witness = Witness { mutex, locked };
        pending::<Result<(), ()>>().await
    };
    for run in [true, false] {
        let running = match run {
            true => waiting(async {
                let _ = mutex.run("key", task).await;
            }),
            false => waiting(async {
                let _ = mutex.run_or_stop("key", task).await;
            }),
        };
        let mut next = waiting(mutex.lock("key"));
        drop(running);
        assert_eq!(locked.take(), [true]);
        drop(next.ready());
        assert!(mutex.is_empty());
    }
}

#[test]
fn a_task_that_has_ended_is_gone_before_its_key_is_released() {
    let mutex = &Mutex::default();
    let locked = &RefCell::new(Vec::new());
    now(mutex.run("key", async || {
        let _witness = Witness { mutex, locked };
    }))
    .unwrap();
    assert_eq!(locked.take(), [true]);
}

#[test]
fn a_task_that_never_had_its_turn_is_dropped_uncalled() {
    let mutex = Mutex::default();
    let guard = mutex.try_lock("key");
    let task = async || panic!("called");
    drop(waiting(mutex.run("key", task)));
    drop(waiting(mutex.run_or_stop("key", async || -> Result<(), ()> { panic!("called") })));
    drop(guard);
    assert!(mutex.is_empty());
}

#[test]
fn a_wait_for_several_keys_that_is_dropped_half_way_frees_what_it_had() {
    let mutex = KeyedMutex::<_>::new();
    let guard = now(mutex.lock("b"));
    let half_way = waiting(mutex.lock_many(["c", "a", "b"]));
    assert_eq!((mutex.is_locked("a"), mutex.state("b").waiting, mutex.is_locked("c")), (true, 1, false));
    drop(half_way);
    assert_eq!((mutex.is_locked("a"), mutex.state("b").waiting), (false, 0));
    drop(guard);
    assert!(mutex.is_empty());
}
