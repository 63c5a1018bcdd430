//! All of the keys or none, without deadlock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;

use crate::common::{now, waiting};
use async_mutex_lite::KeyedMutex;
use futures_lite::future::{block_on, or, yield_now};

#[test]
fn it_locks_each_key_once_whatever_their_order_and_number() {
    let mutex = Arc::new(KeyedMutex::<u32>::new());
    assert_eq!(format!("{:?}", now(mutex.lock_many([]))), "Guards(..)");
    assert!(mutex.is_empty());
    let guards = now(mutex.lock_many([3, 1, 2, 3, 3, 1]));
    assert_eq!(mutex.len(), 3);
    let owned = now(mutex.arc().lock_many(vec![9, 8, 9]));
    assert_eq!(mutex.len(), 5);
    drop(guards);
    assert_eq!(mutex.len(), 2);
    drop(owned);
    assert!(mutex.is_empty());
}

#[test]
fn it_waits_for_each_key_in_turn_and_holds_none_that_comes_after() {
    let mutex = Arc::new(KeyedMutex::<u32>::new());
    let (two, four) = (now(mutex.lock(2)), now(mutex.lock(4)));
    let mut many = waiting(mutex.arc().lock_many([5, 4, 3, 2, 1]));
    let held = |key| mutex.is_locked(&key);
    assert_eq!([1, 2, 3, 4, 5].map(held), [true, true, false, true, false]);
    drop(two);
    many.pending();
    assert_eq!([1, 2, 3, 4, 5].map(held), [true, true, true, true, false]);
    drop(four);
    let guards = many.ready();
    assert_eq!(mutex.len(), 5);
    drop(guards);
    assert!(mutex.is_empty());
}

#[test]
fn three_way_circles_on_four_threads_do_not_deadlock() {
    let mutex = Arc::new(KeyedMutex::<usize>::new());
    let cells = [const { AtomicU32::new(0) }; 3];
    let pairs = [[0, 1], [1, 2], [2, 0]];
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let pair = pairs[fastrand::usize(..3)];
                    let enter = || {
                        for key in pair {
                            assert_eq!(cells[key].fetch_add(1, Relaxed), 0, "two are inside");
                        }
                        for key in pair {
                            cells[key].fetch_sub(1, Relaxed);
                        }
                    };
                    block_on(async {
                        let all = async {
                            if fastrand::bool() {
                                let _guards = mutex.lock_many(pair).await;
                                enter();
                            } else {
                                let _guards = mutex.arc().lock_many(pair).await;
                                enter();
                            }
                        };
                        let give_up = async {
                            for _ in 0..fastrand::u8(..4) {
                                yield_now().await;
                            }
                        };
                        match fastrand::bool() {
                            true => all.await,
                            false => or(give_up, all).await,
                        }
                    });
                }
            });
        }
    });
    assert!(mutex.is_empty());
}
