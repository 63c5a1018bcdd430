//! Three mistakes that are made with a map of mutexes by hand, each made with one, and not made here.
#![cfg(not(any(async_mutex_lite_loom, miri, target_arch = "wasm32")))]

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

use crate::common::{now, waiting};
use async_mutex_lite::KeyedMutex;
use smol::lock::{Mutex, MutexGuardArc};

const KEY: &str = "key";

#[derive(Default)]
struct Map(RefCell<HashMap<&'static str, Arc<Mutex<()>>>>);

impl Map {
    fn entry(&self) -> Arc<Mutex<()>> {
        self.0.borrow_mut().entry(KEY).or_default().clone()
    }

    async fn lock(&self) -> MutexGuardArc<()> {
        self.entry().lock_arc().await
    }

    fn remove(&self) {
        self.0.borrow_mut().remove(KEY);
    }

    /// Only if no other task has it: the map and the caller.
    fn remove_if_unused(&self, guard: MutexGuardArc<()>) {
        if Arc::strong_count(MutexGuardArc::source(&guard)) == 2 {
            self.remove();
        }
    }
}

#[test]
fn an_entry_is_removed_that_somebody_still_waits_for_and_two_are_inside() {
    let map = Map::default();
    let holder = now(map.lock());
    let mut waiter = waiting(map.lock());
    drop(holder);
    map.remove(); // by the holder
    let inside = (waiter.ready(), now(map.lock()));
    drop(inside); // both at once

    let mutex = KeyedMutex::<_>::new();
    let holder = now(mutex.lock(KEY));
    let mut waiter = waiting(mutex.lock(KEY));
    drop(holder);
    let mut newcomer = waiting(mutex.lock(KEY));
    let inside = waiter.ready();
    newcomer.pending();
    drop(inside);
    drop(newcomer.ready());
    assert!(mutex.is_empty());
}

#[test]
fn an_entry_is_left_behind_when_a_waiter_is_cancelled_after_the_holder_left() {
    let map = Map::default();
    let holder = now(map.lock());
    let waiter = waiting(map.lock());
    map.remove_if_unused(holder); // it is used: the waiter would do it
    drop(waiter); // but is cancelled
    assert_eq!(map.0.borrow().len(), 1, "and nobody has removed it");

    let mutex = KeyedMutex::<_>::new();
    let holder = now(mutex.lock(KEY));
    let waiter = waiting(mutex.lock(KEY));
    drop(holder);
    drop(waiter);
    assert!(mutex.is_empty());
}

#[test]
fn a_weak_entry_is_gone_between_a_look_and_its_use() {
    let map = RefCell::new(HashMap::<_, Weak<Mutex<()>>>::new());
    let lock = Arc::new(Mutex::new(()));
    map.borrow_mut().insert(KEY, Arc::downgrade(&lock));
    let holder = now(lock.lock_arc());
    let there = map.borrow().contains_key(KEY); // so it is in use, is it not?
    drop((lock, holder)); // they were the last
    let upgraded = catch_unwind(AssertUnwindSafe(|| map.borrow()[KEY].upgrade().unwrap()));
    assert!(there && upgraded.is_err());

    let mutex = KeyedMutex::<_>::new();
    let holder = now(mutex.lock(KEY));
    assert!(mutex.is_locked(KEY));
    drop(holder);
    drop(mutex.try_lock(KEY).expect("a key needs no entry to be locked"));
}
