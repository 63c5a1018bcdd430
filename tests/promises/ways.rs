//! Each mode goes with each operation and each way to wait.
#![cfg(all(feature = "std", not(any(async_mutex_lite_loom, target_family = "wasm"))))]

use std::future::{pending, ready};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::common::{now, waiting};
use async_mutex_lite::{Handle, KeyedMutex, LockMany, Mode, Stopped};

const NO_TIME: Duration = Duration::ZERO;

fn all<H: Handle<Key = u8, Hasher = async_mutex_lite::RandomState>>(mode: Mode<H>, mutex: &KeyedMutex<u8>)
where
    Mode<H>: Clone,
{
    let mode = || mode.clone();
    drop(now(mode().lock(1)));
    drop(now(mode().lock(1).unless(pending::<()>())).unwrap());
    drop(mode().lock(1).wait());
    drop(mode().lock(1).wait_timeout(NO_TIME).unwrap());
    drop(mode().try_lock(1).unwrap());
    drop(now(mode().ticket(1)).unwrap());
    drop(now(mode().ticket(1).unless(pending::<()>())).unwrap().unwrap());
    drop(mode().ticket(1).wait().unwrap());
    drop(mode().ticket_if(1, |now| now.holders == 0).unwrap().wait_timeout(NO_TIME).unwrap().unwrap());
    drop(now(mode().lock_many([2, 1])));
    drop(now(mode().lock_many([2, 1]).unless(pending::<()>())).unwrap());
    drop(mode().lock_many([2, 1]).wait());
    drop(mode().lock_many([2, 1]).wait_timeout(NO_TIME).unwrap());
    assert_eq!(now(mode().run(1, async || 3)), Ok(3));
    assert_eq!(now(mode().run_or_stop(1, async || Err::<(), _>(3))), Ok(Err(3)));
    // While another holds it.
    let guard = now(mutex.lock(2));
    assert!(now(mode().lock(2).unless(ready(()))).is_err());
    assert!(mode().lock(2).wait_timeout(NO_TIME).is_none());
    assert!(mode().try_lock(2).is_none());
    assert!(now(mode().ticket(2).unless(ready(()))).is_err());
    assert!(mode().ticket(2).wait_timeout(NO_TIME).is_none());
    assert!(mode().lock_many([2, 1]).wait_timeout(NO_TIME).is_none());
    assert!(now(mode().lock_many([2, 1]).unless(ready(()))).is_err());
    let ticket = mode().ticket(2);
    assert!(!ticket.is_granted());
    let next = mode().ticket(2);
    guard.stop();
    assert!(!ticket.is_granted() && !next.is_granted(), "they were stopped");
    assert_eq!((ticket.wait().map(drop), now(next).map(drop)), (Err(Stopped), Err(Stopped)));
    let guard = now(mutex.lock(2));
    let ticket = mode().ticket(2);
    drop(guard);
    assert!(ticket.is_granted() && mode().ticket(3).is_granted());
    drop(ticket);
    thread::scope(|scope| {
        let guard = now(mutex.lock(2));
        scope.spawn(|| drop(mutex.lock(2).wait()));
        let ticket = mode().ticket(2);
        drop(guard);
        drop(ticket.wait().unwrap());
    });
    assert!(mutex.is_empty());
}

#[test]
fn every_mode_goes_with_every_operation_and_every_way_to_wait() {
    let mutex = Arc::new(KeyedMutex::<u8>::new());
    all(mutex.exclusive(), &mutex);
    all(mutex.shared(), &mutex);
    all(mutex.at_most(1), &mutex);
    all(mutex.arc(), &mutex);
    all(mutex.arc().shared(), &mutex);
    all(mutex.arc().at_most(2), &mutex);
}

#[test]
fn several_locks_are_put_together_in_one_order_the_stronger_of_two_counts() {
    let mutex = KeyedMutex::<u8>::new();
    let held = now(mutex.lock(2));
    let mut many = waiting(LockMany::of([mutex.shared().lock(3), mutex.at_most(2).lock(2), mutex.lock(1)]));
    assert_eq!([1, 2, 3].map(|key| mutex.is_locked(&key)), [true, true, false], "in ascending order");
    drop(held);
    let guards = many.ready();
    assert_eq!([1, 2, 3].map(|key| mutex.state(&key).shared), [false, true, true]);
    drop(guards);
    let guards = now(LockMany::of([mutex.shared().lock(1), mutex.at_most(2).lock(1), mutex.shared().lock(1)]));
    assert!(mutex.at_most(2).try_lock(1).is_some(), "it is held once");
    drop(guards);
    assert!(mutex.is_empty());
}
