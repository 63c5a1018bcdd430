//! A key that nobody holds or waits for has no entry, and its `K` is dropped at that moment.
//! (What is allocated when is counted in `alloc.rs`.)

use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::common::{self, now, waiting};
use async_mutex_lite::KeyedMutex;

/// A key that counts how many of its kind are alive.
#[derive(Debug)]
struct Counted<'a>(u32, &'a Cell<usize>);

impl<'a> Counted<'a> {
    fn new(id: u32, alive: &'a Cell<usize>) -> Self {
        alive.set(alive.get() + 1);
        Self(id, alive)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.1.set(self.1.get() - 1);
    }
}

impl PartialEq for Counted<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Counted<'_> {}

impl Hash for Counted<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

#[test]
fn a_key_is_dropped_when_its_last_claim_goes() {
    let alive = Cell::new(0);
    let mutex = KeyedMutex::<_>::new();
    let key = |id| Counted::new(id, &alive);

    let guard = now(mutex.lock(key(1)));
    assert_eq!(alive.get(), 1, "the table has it");
    assert!(mutex.try_lock(key(1)).is_none());
    assert_eq!(alive.get(), 1, "the one that found the key busy is gone");
    let mut next = waiting(mutex.lock(key(1)));
    assert_eq!(alive.get(), 1, "a waiter keeps no key");
    drop(guard);
    assert_eq!(alive.get(), 1, "the next one has it");
    let guard = next.ready();
    let other = now(mutex.run(key(2), async || alive.get()));
    assert_eq!((other, alive.get()), (Ok(2), 1));
    drop(guard);
    assert_eq!((alive.get(), mutex.len()), (0, 0));

    let unpolled = mutex.lock(key(3));
    assert_eq!(alive.get(), 1);
    drop(unpolled);
    assert_eq!(alive.get(), 0);

    let guard = mutex.try_lock(key(4)).unwrap();
    let granted = waiting(mutex.lock(key(4)));
    drop(guard);
    assert_eq!(alive.get(), 1);
    drop(granted);
    assert_eq!((alive.get(), mutex.len()), (0, 0));
}

#[test]
fn dropping_a_mutex_drops_the_keys_of_forgotten_guards() {
    let alive = Cell::new(0);
    let mutex = KeyedMutex::<_>::new();
    for id in 0..100 {
        std::mem::forget(mutex.try_lock(Counted::new(id, &alive)));
    }
    assert_eq!((alive.get(), mutex.len()), (100, 100));
    drop(mutex);
    assert_eq!(alive.get(), 0);
}

#[test]
fn len_counts_busy_keys_and_waiting_counts_the_queue() {
    let mutex = Arc::new(KeyedMutex::<u32>::new());
    assert!(mutex.is_empty());
    let guards: Vec<_> = (0..1000).map(|key| mutex.try_lock(key).unwrap()).collect();
    assert_eq!(mutex.len(), 1000);
    let queue: Vec<_> = (0..10).map(|_| waiting(mutex.lock(500))).collect();
    let tickets: Vec<_> = (0..10).map(|_| mutex.arc().ticket(500)).collect();
    assert_eq!(
        (mutex.len(), mutex.state(&500).waiting, mutex.state(&501).waiting, mutex.state(&1000).waiting),
        (1000, 20, 0, 0)
    );
    assert!(mutex.is_locked(&500) && mutex.is_locked(&501) && !mutex.is_locked(&1000));
    drop(guards);
    assert_eq!((mutex.len(), mutex.state(&500).waiting), (1, 19), "the first of the queue has the key now");
    drop(queue);
    assert_eq!((mutex.len(), mutex.state(&500).waiting), (1, 9));
    drop(tickets);
    assert_eq!((mutex.len(), mutex.state(&500).waiting), (0, 0));
}

#[test]
fn thousands_of_held_keys_with_one_hash_are_slow_and_right() {
    let mutex = KeyedMutex::with_hasher(common::OneHash);
    let mut guards: Vec<_> = (0..3_000_u32).map(|key| mutex.try_lock(key)).collect();
    assert!(guards.iter().all(Option::is_some));
    assert!((0..3_000).step_by(97).all(|key| mutex.is_locked(&key) && mutex.try_lock(key).is_none()));
    assert!(!mutex.is_locked(&3_000));
    while let Some(guard) = guards.pop() {
        drop(guard);
        assert_eq!(mutex.len(), guards.len());
    }
}

#[test]
fn a_table_grows_and_shrinks_under_keys_that_come_and_go_in_any_order() {
    // Every key can still be found after each move of the table.
    let mutex = KeyedMutex::<u32>::new();
    for rounds in 0..3 {
        let mut guards: Vec<_> = (0..5_000).map(|key| mutex.try_lock(key)).collect();
        fastrand::seed(rounds);
        let mut order: Vec<usize> = (0..guards.len()).collect();
        fastrand::shuffle(&mut order);
        for (gone, &key) in order.iter().enumerate() {
            assert!(mutex.try_lock(key as u32).is_none());
            guards[key] = None;
            assert!(mutex.try_lock(key as u32).is_some());
            if let Some(&held) = order.get(gone + 1) {
                assert!(mutex.try_lock(held as u32).is_none());
            }
        }
        assert!(mutex.is_empty());
    }
}
