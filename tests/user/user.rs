//! What a user's program gets, whatever it sets for all that it builds: `.ci/user` builds this plainly, with `--cfg fuzzing`, as
//! cargo-fuzz does, and with `--cfg loom`, as programs do that model code of their own. Neither may turn on what only the tests of
//! this crate want: the check of a whole table after each step, which allocates, or the mutexes of a model checker, which cannot
//! be used outside of it.
#![cfg(test)]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use async_mutex_lite::KeyedMutex;

#[test]
fn lock_and_unlock_allocate_nothing_however_many_keys_are_held() {
    let mutex = KeyedMutex::new();
    let held: Vec<_> = (1..=1_000).map(|key| mutex.try_lock(key).expect("it is free")).collect();
    let lock = || {
        let lock = pin!(mutex.lock(0)).poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(lock, Poll::Ready(_)));
    };
    lock(); // makes room
    let info = allocation_counter::measure(|| (0..100).for_each(|_| lock()));
    assert_eq!(info.count_total, 0);
    drop(held);
    assert!(mutex.is_empty());
}

/// In a model of the user's own, which does not see into the mutex: it is locked and handed over, but what one thread has
/// stored before it unlocks, another may miss. (A read-modify-write misses nothing.)
#[cfg(loom)]
#[test]
fn a_model_may_lock() {
    use loom::future::block_on;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use loom::thread;

    loom::model(|| {
        let shared = Arc::new((KeyedMutex::new(), AtomicU32::new(0)));
        let enter = |(mutex, inside): &(KeyedMutex<u32>, AtomicU32)| {
            let _guard = block_on(mutex.lock(7));
            assert_eq!(inside.fetch_add(1, Relaxed), 0, "two are inside");
            inside.fetch_sub(1, Relaxed);
        };
        let other = thread::spawn({
            let shared = shared.clone();
            move || enter(&shared)
        });
        enter(&shared);
        other.join().unwrap();
        assert!(shared.0.is_empty());
    });
}
