//! Several keys, each in its own mode, without deadlock.

use std::sync::Arc;
use std::thread;

use crate::common::{Cell, now, waiting};
use async_mutex_lite::{KeyedMutex, LockMany};
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
fn three_way_circles_on_four_threads_do_not_deadlock_whatever_the_modes() {
    let mutex = Arc::new(KeyedMutex::<usize>::new());
    let inside = [const { Cell::new() }; 3];
    let pairs = [[0, 1], [1, 2], [2, 0]];
    let work = |seed| {
        fastrand::seed(seed);
        for _ in 0..20_000 {
            let pair = pairs[fastrand::usize(..3)];
            // Exclusively, or with a limit.
            let limits = if fastrand::bool() { [0; 2] } else { [(); 2].map(|()| fastrand::u32(..3)) };
            let enter = || {
                let enter = |(key, limit): (usize, u32)| {
                    if limit == 0 { inside[key].enter() } else { inside[key].share_at_most(2) }
                };
                drop([(pair[0], limits[0]), (pair[1], limits[1])].map(enter));
            };
            let all = async {
                let mode = |limit| if limit == 0 { mutex.exclusive() } else { mutex.at_most(limit) };
                match fastrand::u8(..3) {
                    0 if limits == [0, 0] => drop((mutex.lock_many(pair).await, enter())),
                    1 if limits == [0, 0] => drop((mutex.arc().lock_many(pair).await, enter())),
                    _ => {
                        let locks = [mode(limits[0]).lock(pair[0]), mode(limits[1]).lock(pair[1])];
                        let guards = LockMany::of(locks).await;
                        enter();
                        drop(guards);
                    }
                }
            };
            let give_up = async {
                for _ in 0..fastrand::u8(..4) {
                    yield_now().await;
                }
            };
            block_on(async {
                match fastrand::bool() {
                    true => all.await,
                    false => or(give_up, all).await,
                }
            });
        }
    };
    thread::scope(|scope| (0..4).for_each(|seed| drop(scope.spawn(move || work(seed)))));
    assert!(mutex.is_empty());
}
