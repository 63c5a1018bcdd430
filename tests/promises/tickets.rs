//! A ticket's place is fixed when it is made; admission decides under the lock.

#![allow(clippy::unit_arg)]

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::thread;

use crate::common::{Hand, hand, now, waiting};
use async_mutex_lite::{KeyState, KeyedMutex, Ticket};

#[test]
fn tickets_are_served_in_the_order_in_which_they_were_taken_not_polled() {
    let mutex = &Arc::new(KeyedMutex::<_>::new());
    let served = &RefCell::new(Vec::new());
    let first = mutex.ticket("key");
    let plain = &mut hand(async {
        let _guard = mutex.lock("key").await;
        served.borrow_mut().push(2);
    });
    let second = mutex.arc().ticket("key");
    plain.pending();
    let third = mutex.ticket("key");
    assert_eq!(mutex.state("key").waiting, 3);
    // Polled from the last to the first.
    let mut third = waiting(third.run(async || served.borrow_mut().push(3)));
    plain.pending();
    let mut second = waiting(async {
        let _guard = second.await.unwrap();
        served.borrow_mut().push(1);
    });
    let mut first = hand(first.run_or_stop(async || Ok::<_, ()>(served.borrow_mut().push(0))));
    assert_eq!(first.ready(), Ok(Ok(())));
    second.ready();
    plain.ready();
    assert_eq!(third.ready(), Ok(()));
    assert_eq!(*served.borrow(), [0, 1, 2, 3]);
    assert!(mutex.is_empty());
}

#[test]
fn the_work_of_one_key_runs_in_arrival_order_on_an_executor_with_threads() {
    let mutex = Arc::new(KeyedMutex::<u32>::new());
    let log = Arc::new(std::sync::Mutex::new(Vec::new()));
    let executor = Arc::new(smol::Executor::new());
    let tasks: Vec<_> = (0..4_000_u32)
        .map(|n| {
            let (ticket, log) = (mutex.arc().ticket(n % 7), log.clone());
            executor.spawn(async move {
                for _ in 0..n % 3 {
                    futures_lite::future::yield_now().await;
                }
                ticket.run(async || log.lock().unwrap().push(n)).await
            })
        })
        .collect();
    thread::scope(|scope| {
        let (stop, stopped) = smol::channel::bounded::<()>(1);
        for _ in 0..3 {
            let (executor, stopped) = (executor.clone(), stopped.clone());
            scope.spawn(move || smol::block_on(executor.run(async { stopped.recv().await.unwrap_err() })));
        }
        smol::block_on(async {
            for task in tasks {
                assert_eq!(task.await, Ok(()));
            }
        });
        drop(stop);
    });
    for key in 0..7 {
        let of_key: Vec<_> = log.lock().unwrap().iter().copied().filter(|n| n % 7 == key).collect();
        assert!(of_key.is_sorted() && of_key.len() >= 4_000 / 7);
    }
    assert!(mutex.is_empty());
}

#[test]
fn a_ticket_may_be_dropped_in_any_state() {
    let mutex = Arc::new(KeyedMutex::<_>::new());
    // Has the key, never polled.
    drop(mutex.ticket("key"));
    assert!(mutex.is_empty());
    // Waits: never polled, and polled.
    let guard = now(mutex.lock("key"));
    drop(mutex.ticket("key"));
    drop(waiting(mutex.ticket("key")));
    assert_eq!(mutex.state("key").waiting, 0);
    // Given the key: never polled, and polled.
    let unpolled = mutex.ticket("key");
    let polled = waiting(mutex.arc().ticket("key"));
    let mut last = waiting(mutex.lock("key"));
    drop(guard);
    last.pending();
    drop(unpolled);
    assert_eq!(polled.wakes(), 1);
    last.pending();
    drop(polled);
    assert_eq!(last.wakes(), 1);
    drop(last.ready());
    assert!(mutex.is_empty());
}

#[test]
fn a_ticket_that_has_its_turn_and_is_not_polled_holds_the_queue_up() {
    let mutex = KeyedMutex::<_>::new();
    let ticket = mutex.ticket("key");
    assert!(mutex.is_locked("key"));
    let mut behind = waiting(mutex.lock("key"));
    assert!(mutex.try_lock("key").is_none());
    behind.pending();
    drop(now(ticket).unwrap());
    drop(behind.ready());
}

#[test]
fn a_ticket_polled_after_it_gave_its_guard_panics_and_holds_nothing() {
    let mutex = KeyedMutex::<_>::new();
    let mut ticket = hand(mutex.ticket("key"));
    drop(ticket.ready());
    assert!(catch_unwind(AssertUnwindSafe(|| ticket.poll().is_ready())).is_err());
    assert!(mutex.is_empty());
}

#[test]
fn a_ticket_may_move_between_polls() {
    let mutex = Arc::new(KeyedMutex::<_>::new());
    let guard = now(mutex.lock("key"));
    let mut ticket = mutex.arc().ticket("key");
    let waker = Waker::noop();
    let poll =
        |ticket: &mut Ticket<Arc<KeyedMutex<&str>>>| Pin::new(ticket).poll(&mut Context::from_waker(waker)).is_ready();
    assert!(!poll(&mut ticket));
    let mut moved = Box::new(ticket);
    assert!(!poll(&mut moved));
    drop(guard);
    let thread = thread::spawn(move || poll(&mut moved));
    assert!(thread.join().unwrap());
    assert!(mutex.is_empty());
}

#[test]
fn admission_is_told_how_the_key_stands_and_decides() {
    let mutex = Arc::new(KeyedMutex::<_>::new());
    let seen = RefCell::new(Vec::new());
    let admit = |at_most: usize| {
        let seen = &seen;
        move |now: KeyState| {
            seen.borrow_mut().push((now.holders, now.shared, now.waiting));
            now.waiting < at_most
        }
    };
    let first = mutex.ticket_if("key", admit(2)).unwrap();
    let second = mutex.arc().ticket_if("key", admit(2)).unwrap();
    let mut plain = waiting(mutex.lock("key"));
    assert!(mutex.ticket_if("key", admit(2)).is_none());
    assert!(mutex.arc().ticket_if("key", admit(2)).is_none());
    assert!(mutex.shared().ticket_if("key", admit(2)).is_none());
    assert!(mutex.arc().shared().ticket_if("key", admit(2)).is_none());
    assert!(mutex.ticket_if("other", admit(0)).is_none());
    let mut expected = vec![(0, false, 0), (1, false, 0)];
    expected.extend([(1, false, 2); 4]);
    expected.push((0, false, 0));
    assert_eq!(seen.take(), expected);
    assert_eq!((mutex.len(), mutex.state("key").waiting), (1, 2), "one that is rejected leaves nothing");
    drop(now(first).unwrap());
    let again = mutex.shared().ticket_if("key", admit(2)).unwrap();
    assert_eq!(seen.take(), [(1, false, 1)], "one that was granted the key counts as its holder");
    drop(now(second).unwrap());
    drop(plain.ready());
    let shares = [now(again).unwrap(), now(mutex.shared().ticket("key")).unwrap()];
    assert!(mutex.arc().shared().ticket_if("key", admit(0)).is_none());
    assert_eq!(seen.take(), [(2, true, 0)]);
    drop(shares);
    assert!(mutex.is_empty());
}

#[test]
fn threads_that_race_for_admission_never_exceed_the_limit() {
    const LIMIT: usize = 3;
    let mutex = KeyedMutex::<u8>::new();
    let admitted = std::sync::atomic::AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    if let Some(ticket) = mutex.ticket_if(0, |now| now.holders + now.waiting < LIMIT) {
                        assert!(mutex.state(&0).waiting < LIMIT);
                        admitted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        match fastrand::bool() {
                            true => drop(ticket),
                            false => drop(futures_lite::future::block_on(ticket)),
                        }
                    }
                }
            });
        }
    });
    assert!(admitted.into_inner() > 0);
    assert!(mutex.is_empty());
}

#[test]
fn all_of_a_queue_of_tickets_is_woken_one_by_one() {
    let mutex = KeyedMutex::<_>::new();
    let first = mutex.ticket("key");
    let mut queue: Vec<_> = (0..5).map(|_| waiting(mutex.ticket("key"))).collect();
    drop(first);
    for next in 0..5 {
        let wakes: usize = queue.iter().map(Hand::wakes).sum();
        assert_eq!(wakes, next + 1);
        drop(queue[next].ready().unwrap());
    }
}
