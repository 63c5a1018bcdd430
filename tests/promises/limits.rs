//! The limit of a shared lock belongs to the call: it may differ from caller to caller, and change.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::common::{now, waiting};
use async_mutex_lite::{KeyState, KeyedMutex};

#[track_caller]
fn stands(state: KeyState, holders: usize, shared: bool, waiting: usize) {
    assert_eq!((state.holders, state.shared, state.waiting), (holders, shared, waiting));
}

#[test]
fn a_claim_is_granted_while_fewer_than_its_own_limit_share_the_key() {
    let mutex = KeyedMutex::<u8>::new();
    let first = now(mutex.at_most(1).lock(1));
    assert!(mutex.at_most(1).try_lock(1).is_none(), "one is as many as that");
    let second = mutex.at_most(2).try_lock(1).unwrap();
    assert!(mutex.at_most(2).try_lock(1).is_none());
    let third = mutex.shared().try_lock(1).unwrap();
    stands(mutex.state(&1), 3, true, 0);
    assert!(mutex.at_most(3).try_lock(1).is_none(), "all holders count, whatever their own limits were");
    drop((first, second));
    assert!(mutex.at_most(1).try_lock(1).is_none() && mutex.at_most(2).try_lock(1).is_some());
    drop(third);
    assert!(mutex.is_empty());
}

#[test]
fn a_wide_claim_does_not_overtake_a_narrow_one_that_waits_nor_one_that_is_exclusive() {
    let mutex = KeyedMutex::<u8>::new();
    let held = [now(mutex.shared().lock(1)), now(mutex.shared().lock(1))];
    let mut narrow = waiting(mutex.at_most(2).lock(1));
    assert!(mutex.shared().try_lock(1).is_none() && mutex.at_most(9).try_lock(1).is_none());
    let (mut wide, mut wider) = (waiting(mutex.at_most(3).ticket(1)), waiting(mutex.shared().run(1, async || 7)));
    let mut exclusive = waiting(mutex.lock(1));
    stands(mutex.state(&1), 2, true, 4);
    let [first, second] = held;
    drop(first);
    assert_eq!(
        (narrow.wakes(), wide.wakes(), wider.wakes()),
        (1, 1, 1),
        "now the three can hold it with the other one"
    );
    stands(mutex.state(&1), 4, true, 1);
    let narrow = narrow.ready();
    drop((narrow, wide.ready().unwrap(), second));
    exclusive.pending();
    assert_eq!(wider.ready(), Ok(7));
    assert!(mutex.at_most(5).try_lock(1).is_none(), "it has been granted to the exclusive one");
    drop(exclusive.ready());
    assert!(mutex.is_empty());
}

#[test]
fn a_narrow_claim_that_leaves_lets_in_the_wide_ones_behind_it() {
    let mutex = KeyedMutex::<u8>::new();
    let held = now(mutex.at_most(1).lock(1));
    let narrow = waiting(mutex.at_most(1).lock(1));
    let (mut wide, mut narrow_too) = (waiting(mutex.at_most(2).lock(1)), waiting(mutex.at_most(2).lock(1)));
    drop(narrow);
    assert_eq!((wide.wakes(), narrow_too.wakes()), (1, 0));
    let wide = wide.ready();
    drop(wide);
    drop(narrow_too.ready());
    // A stop that reaches only the narrow one does the same.
    let (ticket, mut wide) = (mutex.at_most(1).ticket(1), waiting(mutex.at_most(2).lock(1)));
    assert_eq!(mutex.stop(&1), 1);
    assert!(!ticket.is_granted());
    drop((wide.ready(), ticket, held));
    assert!(mutex.is_empty());
}

#[test]
fn a_limit_may_differ_by_key_and_change_while_the_program_runs() {
    let (mutex, plan) = (KeyedMutex::<&str>::new(), AtomicU32::new(1));
    let permit = |tenant: &'static str| {
        let limit = if tenant == "free" { 1 } else { plan.load(SeqCst) };
        mutex.at_most(limit).try_lock(tenant)
    };
    let (free, paying) = (permit("free").unwrap(), permit("paying").unwrap());
    assert!(permit("free").is_none() && permit("paying").is_none());
    plan.store(3, SeqCst); // it pays more
    let more = [permit("paying").unwrap(), permit("paying").unwrap()];
    assert!(permit("free").is_none() && permit("paying").is_none());
    plan.store(1, SeqCst); // it pays less: those that hold it keep it
    drop(more);
    assert!(permit("paying").is_none());
    drop((free, paying));
    assert!(permit("paying").is_some() && mutex.is_empty());
}

#[test]
fn what_shared_means_is_said_by_the_mutex_and_at_most_says_otherwise() {
    static MUTEX: KeyedMutex<u8> = KeyedMutex::with_max_shared(2);
    let held = [MUTEX.shared().try_lock(1).unwrap(), MUTEX.shared().try_lock(1).unwrap()];
    assert!(MUTEX.shared().try_lock(1).is_none());
    let third = MUTEX.at_most(3).try_lock(1).unwrap();
    drop(held);
    assert!(MUTEX.at_most(1).try_lock(1).is_none() && MUTEX.shared().try_lock(1).is_some());
    assert!(MUTEX.at_most(7).exclusive().try_lock(1).is_none(), "a mode can be taken back");
    drop(third);
    assert!(MUTEX.shared().exclusive().shared().try_lock(1).is_some());
}

#[test]
fn to_downgrade_what_is_shared_changes_nothing() {
    let mutex = KeyedMutex::<u8>::new();
    let [first, second] = [(); 2].map(|()| mutex.at_most(2).try_lock(1).unwrap());
    let mut waits = waiting(mutex.at_most(2).lock(1));
    let first = first.downgrade();
    stands(mutex.state(&1), 2, true, 1);
    drop(first);
    stands(mutex.state(&1), 2, true, 0);
    drop((second, waits.ready()));
    assert!(mutex.is_empty());
}

#[test]
fn what_a_shared_holder_stops_leaves_the_queue_and_the_other_holders_stay() {
    let mutex = KeyedMutex::<u8>::new();
    let [first, second] = [(); 2].map(|()| mutex.shared().try_lock(1).unwrap());
    let (queued, mut plain) = (mutex.ticket(1), waiting(mutex.lock(1)));
    let failed = now(first.run_or_stop(async || Err::<(), _>("it failed")));
    assert_eq!(failed, Err("it failed"));
    assert!(now(queued).is_err());
    stands(mutex.state(&1), 1, true, 1);
    drop(second);
    drop(plain.ready());
    assert!(mutex.is_empty());
}

/// Threads, with modes and limits at random.
#[test]
#[cfg(all(feature = "std", not(target_family = "wasm")))]
fn as_many_share_a_key_as_the_widest_claim_allows_and_none_beside_an_exclusive_one() {
    use crate::common::{Cell, limited};
    use futures_lite::future::{block_on, or};
    use std::thread;

    const KEYS: usize = 3;
    limited(|| {
        let (mutex, inside) = (&KeyedMutex::<usize>::new(), &[const { Cell::new() }; KEYS]);
        let work = |seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            for _ in 0..5_000 {
                // Exclusively, or with a limit of up to one, two, or three.
                let key = random.usize(..KEYS);
                let (widest, limit) = (key as u32 + 1, random.u32(..key as u32 + 2));
                let mode = if limit == 0 { mutex.exclusive() } else { mutex.at_most(limit) };
                let enter = || if limit == 0 { inside[key].enter() } else { inside[key].share_at_most(widest) };
                let held = match random.u8(..4) {
                    0 => mode.try_lock(key).map(|guard| (enter(), guard)),
                    1 => mode.ticket(key).wait().ok().map(|guard| (enter(), guard)),
                    2 => {
                        block_on(or(async { Some(mode.lock(key).await) }, async { None })).map(|guard| (enter(), guard))
                    }
                    _ => Some(mode.lock(key).wait()).map(|guard| (enter(), guard)),
                };
                match held {
                    Some((inside, guard)) if random.u8(..8) == 0 => {
                        drop(inside);
                        guard.stop();
                    }
                    _ => {}
                }
            }
        };
        thread::scope(|scope| (0..4).for_each(|seed| drop(scope.spawn(move || work(seed)))));
        assert!(mutex.is_empty());
    });
}
