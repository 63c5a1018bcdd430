//! One unlock wakes one waiter, with the waker of its last poll; spurious polls change nothing.

use std::sync::Arc;
use std::task::Waker;

use crate::common::{Counter, now, waiting};
use async_mutex_lite::KeyedMutex;

#[test]
fn one_unlock_wakes_one_waiter() {
    let mutex = KeyedMutex::<_>::new();
    let mut guard = Some(now(mutex.lock("key")));
    let mut queue: Vec<_> = (0..5).map(|_| waiting(mutex.lock("key"))).collect();
    let mut other = waiting(async {
        let _guard = mutex.lock("other").await;
        std::future::pending::<()>().await
    });
    for next in 0..5 {
        drop(guard.take());
        let wakes: Vec<_> = queue.iter().map(|waiter| waiter.wakes()).collect();
        assert!(wakes.iter().enumerate().all(|(n, &wakes)| wakes == usize::from(n <= next)), "{wakes:?}");
        guard = Some(queue[next].ready());
    }
    assert_eq!(other.wakes(), 0);
    other.pending();
}

#[test]
fn an_unlock_with_nobody_waiting_wakes_nobody() {
    let mutex = KeyedMutex::<_>::new();
    let guard = now(mutex.lock("key"));
    let gone = waiting(mutex.lock("key"));
    let other = now(mutex.lock("other"));
    let waits_for_other = waiting(mutex.lock("other"));
    drop(gone);
    drop(guard);
    assert_eq!(waits_for_other.wakes(), 0);
    drop(other);
    assert_eq!(waits_for_other.wakes(), 1);
}

#[test]
fn the_waker_of_the_last_poll_is_the_one_that_is_called() {
    let mutex = Arc::new(KeyedMutex::<_>::new());
    let guard = now(mutex.lock("key"));
    let counters: Vec<_> = (0..3).map(|_| Arc::new(Counter::default())).collect();
    let wakers: Vec<Waker> = counters.iter().map(|counter| counter.clone().into()).collect();
    let mut lock = waiting(mutex.lock("key"));
    let mut ticket = waiting(mutex.arc().ticket("key"));
    for waker in &wakers {
        assert!(lock.poll_with(waker).is_pending());
    }
    for waker in wakers.iter().rev() {
        assert!(ticket.poll_with(waker).is_pending());
    }
    let wakes = || counters.iter().map(|counter| counter.count()).collect::<Vec<_>>();
    drop(guard);
    assert_eq!((lock.wakes(), wakes()), (0, vec![0, 0, 1]));
    drop(lock.ready());
    assert_eq!((ticket.wakes(), wakes()), (0, vec![1, 0, 1]));
    drop(ticket.ready().unwrap());
}

#[test]
fn spurious_polls_change_nothing() {
    let mutex = KeyedMutex::<_>::new();
    let guard = now(mutex.lock("key"));
    let mut first = waiting(mutex.lock("key"));
    let mut second = waiting(mutex.run("key", async || "second"));
    let mut ticket = waiting(mutex.ticket("key"));
    for _ in 0..10 {
        ticket.pending();
        second.pending();
        first.pending();
        assert_eq!(mutex.state("key").waiting, 3);
    }
    drop(guard);
    for _ in 0..10 {
        ticket.pending();
        second.pending();
    }
    assert_eq!((first.wakes(), second.wakes(), ticket.wakes()), (1, 0, 0));
    drop(first.ready());
    ticket.pending();
    assert_eq!((second.wakes(), ticket.wakes()), (1, 0));
    assert_eq!(second.ready(), Ok("second"));
    assert_eq!(ticket.wakes(), 1);
    drop(ticket.ready().unwrap());
    assert!(mutex.is_empty());
}

#[test]
fn a_waker_is_let_go_when_the_wait_is_over() {
    let mutex = KeyedMutex::<_>::new();
    let counter = Arc::new(Counter::default());
    let waker = Waker::from(counter.clone());
    for granted in [false, true] {
        let guard = now(mutex.lock("key"));
        let mut lock = waiting(mutex.lock("key"));
        assert!(lock.poll_with(&waker).is_pending());
        if granted {
            drop(guard);
            drop(lock.ready());
        } else {
            drop(lock);
            drop(guard);
        }
        assert_eq!(Arc::strong_count(&counter), 2, "granted: {granted}");
    }
}
