//! Each mode goes with each operation and each way to wait.
#![cfg(all(feature = "std", not(any(async_mutex_lite_loom, target_family = "wasm"))))]

use std::future::{pending, ready};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::common::{now, waiting};
use async_mutex_lite::{Handle, KeyedMutex, LockMany, Mode, RandomState, Stopped};

const NO_TIME: Duration = Duration::ZERO;

fn all<H: Handle<Key = u8, Hasher = RandomState>>(mode: Mode<H>, mutex: &KeyedMutex<u8>) {
    assert!(std::ptr::eq(mode.mutex(), mutex));
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
    drop(now(LockMany::of([mode().lock(2), mode().lock(1)])));
    drop(LockMany::of([mode().lock(2), mode().exclusive().lock(1)]).wait());
    drop(mode().ticket_if(1, |now| now.holders == 0).unwrap().wait().unwrap());
    drop(now(mode().ticket_if(1, |_| true).unwrap().unless(pending::<()>())).unwrap().unwrap());
    assert!(mode().ticket_if(1, |_| false).is_none());
    assert_eq!(now(mode().ticket(1).run(async || 3)), Ok(3));
    assert_eq!(now(mode().ticket(1).run_or_stop(async || Ok::<_, ()>(3))), Ok(Ok(3)));
    assert_eq!(now(now(mode().lock(1)).run_or_stop(async || Ok::<_, ()>(3))), Ok(3));
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
    all(mutex.shared().exclusive(), &mutex);
    all(mutex.arc(), &mutex);
    all(mutex.arc().shared().exclusive(), &mutex);
    all(mutex.arc().shared(), &mutex);
    all(mutex.arc().at_most(2), &mutex);
}

#[test]
fn a_mode_that_borrows_is_copied_and_one_that_owns_an_arc_outlives_its_mutex_variable() {
    let mutex = Arc::new(KeyedMutex::<u8>::new());
    let two = mutex.at_most(2);
    let held = [two.try_lock(1), two.try_lock(1)];
    assert!(two.try_lock(1).is_none());
    drop(held);
    let owned = mutex.arc().at_most(1);
    drop(mutex);
    let guard = owned.clone().lock(1).wait();
    assert!(owned.clone().try_lock(1).is_none());
    let (mutex, ticket) = (guard, owned.ticket(1));
    drop(mutex);
    assert!(ticket.is_granted());
    assert!(thread::spawn(move || ticket.wait().is_ok()).join().unwrap());
}

#[test]
#[should_panic(expected = "`LockMany::of` is given locks that have not been polled")]
fn a_lock_that_waits_already_is_not_put_together_with_others() {
    let mutex = KeyedMutex::<u8>::new();
    let _held = now(mutex.lock(1));
    let mut lock = mutex.lock(1);
    assert!(now(futures_lite::future::poll_once(&mut lock)).is_none());
    drop(LockMany::of([lock, mutex.lock(2)]));
}

#[test]
fn equal_keys_of_several_mutexes_are_locked_in_one_order() {
    let mutexes = [KeyedMutex::<u8>::new(), KeyedMutex::new()];
    let held = now(mutexes[0].lock(2));
    for (first, second) in [(0, 1), (1, 0)] {
        let mut many = waiting(LockMany::of(
            [2, 1].into_iter().flat_map(|key| [mutexes[first].lock(key), mutexes[second].shared().lock(key)]),
        ));
        assert!(mutexes.iter().all(|mutex| mutex.is_locked(&1)) && !mutexes[1].is_locked(&2));
        many.pending();
    }
    drop(held);
    assert!(mutexes.iter().all(KeyedMutex::is_empty));
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
    let exclusive = now(LockMany::of([mutex.shared().lock(1), mutex.lock(1), mutex.at_most(2).lock(1)]));
    assert!(!mutex.state(&1).shared);
    drop(exclusive);
    let other = mutex.shared().try_lock(1);
    let mut narrow = waiting(LockMany::of([mutex.shared().lock(1), mutex.at_most(1).lock(1)]));
    assert_eq!(mutex.state(&1).waiting, 1, "the lower limit counts");
    drop(other);
    drop(narrow.ready());
    assert!(mutex.is_empty());
}
