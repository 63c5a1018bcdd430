//! What is allocated when, and what is given back. Each test prints what it found as rows of a table
//! (`cargo test --manifest-path tests/alloc/Cargo.toml -- --nocapture`).
//!
//! Allocations are counted for each thread, so tests that run beside each other do not mix.
#![cfg(test)]

#[path = "../common/mod.rs"]
mod common;

use std::collections::hash_map::DefaultHasher;
use std::future::Future;
use std::hash::BuildHasherDefault;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use allocation_counter::{AllocationInfo, measure};
use async_mutex_lite::KeyedMutex;
use common::{Counter, OneHash};

/// The same in every run.
type FixedHash = BuildHasherDefault<DefaultHasher>;

/// Prints a row, and fails if the goal is missed.
#[track_caller]
fn goal(work: &str, goal: &str, figure: f64, limit: f64) {
    println!("| {work} | {goal} | {figure} | {} |", if figure <= limit { "yes" } else { "**no**" });
    assert!(figure <= limit, "{work}: {figure}, should be {goal}");
}

fn once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// A future in a box that was allocated before anything is counted.
type Boxed<F> = Pin<Box<Option<F>>>;

fn boxes<F>(count: usize) -> Vec<Boxed<F>> {
    (0..count).map(|_| Box::pin(None)).collect()
}

/// Sets the futures up and polls each once: they must wait. Returns what that allocated.
fn queue<F: Future>(waiters: &mut [Boxed<F>], waker: &Waker, mut lock: impl FnMut() -> F) -> AllocationInfo {
    measure(|| {
        for waiter in waiters {
            waiter.set(Some(lock()));
            assert!(poll(waiter, waker).is_pending());
        }
    })
}

fn poll<F: Future>(waiter: &mut Boxed<F>, waker: &Waker) -> Poll<F::Output> {
    let future = waiter.as_mut().as_pin_mut().expect("set up before");
    future.poll(&mut Context::from_waker(waker))
}

#[test]
fn locking_a_free_key_allocates_nothing() {
    let mutex = Arc::new(KeyedMutex::<u64>::new());
    drop(mutex.try_lock(0)); // makes the table
    let info = measure(|| {
        for key in 0..1000 {
            assert!(once(mutex.lock(key)).is_ready());
            assert!(mutex.try_lock(key).is_some());
            assert!(once(mutex.arc().lock(key)).is_ready());
            assert!(once(mutex.run(key, async || ())).is_ready());
            assert!(once(mutex.run_or_stop(key, async || Ok::<_, ()>(()))).is_ready());
            assert!(once(mutex.ticket(key)).is_ready());
            #[cfg(feature = "std")]
            drop(mutex.lock(key).wait());
        }
    });
    goal("allocations, nobody waiting", "0", info.count_total as f64, 0.0);
}

#[test]
fn locking_a_free_key_while_others_are_held_allocates_nothing() {
    let mutex = KeyedMutex::<u64, FixedHash>::default();
    let _held = (1000..1064).map(|key| mutex.try_lock(key)).collect::<Vec<_>>();
    let round = || (0..1000).for_each(|key| assert!(once(mutex.lock(key)).is_ready()));
    (0..10).for_each(|_| round()); // the table finds its size
    let info = measure(|| (0..10).for_each(|_| round()));
    goal("allocations, nobody waiting, 64 other keys held", "0", info.count_total as f64, 0.0);
}

#[test]
fn a_few_keys_that_come_and_go_in_one_shard_allocate_nothing_once_it_is_warm() {
    let mutex = KeyedMutex::with_hasher(OneHash);
    let round = || drop([1, 2, 3].map(|key| mutex.try_lock(key).expect("it is free")));
    round();
    let info = measure(|| (0..100).for_each(|_| round()));
    goal("allocations, nobody waiting, three keys of one shard", "0", info.count_total as f64, 0.0);
}

/// Hands a key from one waiter to the next; each is dropped when it has held it. Each must have been granted it.
fn hand_over<G>(guard: &mut Option<G>, waiters: &mut [Boxed<impl Future<Output = G>>], waker: &Waker) {
    for waiter in waiters {
        *guard = None;
        match poll(waiter, waker) {
            Poll::Ready(next) => *guard = Some(next),
            Poll::Pending => panic!("not its turn"),
        }
        waiter.set(None);
    }
}

#[test]
fn a_waiter_a_ticket_and_a_hand_over_allocate_nothing_once_the_shard_is_warm() {
    const EACH: usize = 32;
    // One hash, so that all keys are of one shard.
    let mutex = KeyedMutex::<u64, OneHash>::default();
    let waker = Waker::from(Arc::new(Counter::default()));
    let (mut waiters, mut tickets) = (boxes(EACH), boxes(EACH));
    let (mut later, mut handing_over) = (0, 0);
    for key in 0..3 {
        let mut guard = mutex.try_lock(key);
        let first = queue(&mut waiters, &waker, || mutex.lock(key));
        let second = queue(&mut tickets, &waker, || {
            let ticket = mutex.ticket(key);
            async { ticket.await.expect("nobody stops it") }
        });
        if key == 0 {
            let bytes = (first.bytes_current + second.bytes_current) as f64;
            goal("bytes for each waiter, the slab full", "32", bytes / (2 * EACH) as f64, 32.0);
        } else {
            later += first.count_total + second.count_total;
        }
        let info = measure(|| {
            hand_over(&mut guard, &mut waiters, &waker);
            hand_over(&mut guard, &mut tickets, &waker);
        });
        handing_over += info.count_total;
        assert!(mutex.is_locked(&key));
        drop(guard);
        assert!(mutex.is_empty());
    }
    goal("allocations for 64 waiters and tickets, once the shard has had as many", "0", later as f64, 0.0);
    goal("allocations for handing a key to 64", "0", handing_over as f64, 0.0);
}

#[test]
fn whoever_gives_up_leaves_no_memory_behind() {
    const MANY: usize = 1_000;
    const FEW: usize = 64; // a slab of so many is kept
    let mutex = KeyedMutex::<u64, OneHash>::default();
    drop(mutex.try_lock(0)); // makes the table
    let waker = Waker::from(Arc::new(Counter::default()));
    let mut waiters = boxes(MANY);
    let mut round = |count: usize| {
        let waiters = &mut waiters[..count];
        for key in 0..10 {
            let guard = mutex.try_lock(key);
            queue(waiters, &waker, || mutex.lock(key));
            // Half of them while they wait; then one that has been given the key, which is passed along.
            waiters.iter_mut().skip(1).step_by(2).for_each(|waiter| waiter.set(None));
            drop(guard);
            waiters.iter_mut().for_each(|waiter| waiter.set(None));
            assert!(mutex.is_empty());
        }
    };
    let info = measure(|| round(MANY));
    goal("bytes left behind by 10,000 that gave up, 1,000 at once", "0", info.bytes_current as f64, 0.0);
    round(FEW);
    let info = measure(|| round(FEW));
    goal("allocations for 640 that gave up after these, 64 at once", "0", info.count_total as f64, 0.0);
}

#[test]
fn a_held_key_takes_few_bytes() {
    const KEYS: u64 = 300_000;
    let mutex = KeyedMutex::<u64>::new();
    drop(mutex.try_lock(0));
    let mut guards = Vec::with_capacity(KEYS as usize);
    let mut bytes = 0;
    let (mut least, mut most) = (f64::MAX, 0_f64);
    for key in 0..KEYS {
        let info = measure(|| guards.push(mutex.try_lock(key).expect("free")));
        bytes += info.bytes_current;
        if key >= KEYS / 10 {
            let each = bytes as f64 / (key + 1) as f64;
            (least, most) = (least.min(each), most.max(each));
        }
    }
    goal("bytes for a held u64 key, its table nearly full", "at most 64 and slack", least.ceil(), 64.0);
    goal("bytes for a held u64 key, its table just grown", "at most 128 and slack", most.ceil(), 128.0);
}

#[test]
fn a_few_hundred_keys_that_come_and_go_together_allocate_nothing_once_the_table_is_warm() {
    // Without `std`, or with critical sections, less is kept.
    const KEYS: u64 = if cfg!(all(feature = "std", not(feature = "critical-section"))) { 300 } else { 30 };
    let mutex = KeyedMutex::<u64, FixedHash>::default();
    let mut guards = Vec::with_capacity(KEYS as usize);
    let mut round = |_| {
        guards.extend((0..KEYS).map(|key| mutex.try_lock(key)));
        guards.clear();
    };
    (0..3).for_each(&mut round);
    let info = measure(|| (0..1_000).for_each(&mut round));
    goal("allocations for 300 keys together, a thousand times", "0", info.count_total as f64, 0.0);
}

#[test]
fn a_burst_gives_its_memory_back() {
    const KEYS: usize = 1_000_000;
    let mut random = fastrand::Rng::with_seed(7);
    for order in ["in order", "at random"] {
        let mutex = KeyedMutex::<u64>::new();
        let mut guards = Vec::with_capacity(KEYS);
        let mut peak = 0;
        let burst = measure(|| {
            let up = measure(|| guards.extend((0..KEYS as u64).map(|key| mutex.try_lock(key))));
            peak = up.bytes_max;
            match order {
                "in order" => guards.reverse(),
                "at random" => random.shuffle(&mut guards),
                _ => unreachable!(),
            }
            while guards.pop().is_some() {}
        });
        let kept = 100.0 * burst.bytes_current as f64 / peak as f64;
        let work = format!("per cent of the peak kept after 1M keys, unlocked {order}");
        goal(&work, "under 2", (100.0 * kept).ceil() / 100.0, 2.0);
    }
}

#[test]
// Where there is one shard, a table shrinks only when it is empty, and not at all once room was reserved.
#[cfg(all(feature = "std", not(feature = "critical-section")))]
fn a_table_that_has_shrunk_has_room_for_as_many_again() {
    const MANY: u32 = 5_000; // in 8,192 buckets
    const FEW: u32 = 900; // fewer than one bucket in eight
    // One hash, so that all keys are of one shard.
    let mutex = KeyedMutex::<u32, OneHash>::default();
    let mut guards: Vec<_> = (0..MANY).map(|key| mutex.try_lock(key)).collect();
    let more = measure(|| guards.truncate(FEW as usize)).bytes_current;
    let again = measure(|| (MANY..MANY + FEW).for_each(|key| guards.push(mutex.try_lock(key)))).count_total;
    goal("bytes more after a table has shrunk to its eighth", "below 0", more as f64, -1.0);
    goal("allocations for as many keys again after that", "0", again as f64, 0.0);
}

#[test]
fn keys_and_waiters_for_which_room_was_made_allocate_nothing_and_it_is_kept() {
    // So many that on few and on many processors each shard gets at most twice its part.
    const KEYS: u64 = 65_536;
    let mutex = KeyedMutex::<u64, FixedHash>::default();
    let room = measure(|| mutex.reserve(KEYS as usize, KEYS as usize));
    // Twice: five entries with their control bytes, and a waiter.
    goal("bytes for each key and waiter reserved", "at most 480", room.bytes_current as f64 / KEYS as f64, 480.0);
    let waker = Waker::from(Arc::new(Counter::default()));
    let mut guards = Vec::with_capacity(KEYS as usize);
    let mut waiters = boxes(KEYS as usize);
    let info = measure(|| {
        for round in 0..4 {
            for (at, waiter) in waiters.iter_mut().enumerate() {
                let key = round * KEYS / 2 + at as u64;
                guards.push(mutex.try_lock(key).expect("it is free"));
                waiter.set(Some(mutex.lock(key)));
                assert!(poll(waiter, &waker).is_pending());
            }
            waiters.iter_mut().rev().for_each(|waiter| waiter.set(None));
            guards.clear();
        }
    });
    goal(
        "allocations for 65,536 keys, each with a waiter, four times, room made before",
        "0",
        info.count_total as f64,
        0.0,
    );
    goal("bytes given back meanwhile", "0", -info.bytes_current as f64, 0.0);
    let more = measure(|| mutex.reserve(2 * KEYS as usize, 0));
    let both = (more.bytes_max as i64 - more.bytes_current) as f64;
    goal("bytes taken beside the room while more is reserved", "0", both, 0.0);
    let less = measure(|| mutex.reserve(10, 10));
    goal("bytes given back when less is reserved after that", "0", -less.bytes_current as f64, 0.0);
}

#[test]
#[cfg(all(feature = "std", not(feature = "critical-section")))]
fn a_burst_beyond_what_was_reserved_gives_its_memory_back_as_far_as_that() {
    const MANY: u32 = 3_000;
    // One hash, so that all keys are of one shard.
    let mutex = KeyedMutex::<u32, OneHash>::default();
    mutex.reserve(2_000, 100); // more than is kept anyway
    let mut guards = Vec::with_capacity(MANY as usize);
    let burst = measure(|| {
        guards.extend((0..MANY).map(|key| mutex.try_lock(key)));
        guards.clear();
    });
    goal("bytes more after a burst of 3,000 keys, 2,000 reserved", "0", burst.bytes_current as f64, 0.0);
    goal("bytes less", "0", -burst.bytes_current as f64, 0.0);
}

#[test]
fn an_empty_table_keeps_little() {
    // With `std`, the shards: about sixteen for each processor, but one if there is one processor.
    let mutex = KeyedMutex::<u64, OneHash>::default();
    let first = measure(|| drop(mutex.try_lock(0)));
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
    let each = first.bytes_current as f64 / processors as f64;
    goal("bytes of the first use for each processor, u64", "at most 8,192", each, 8192.0);
    // One shard, after a few keys with a few waiters.
    let waker = Waker::from(Arc::new(Counter::default()));
    let mut waiters = boxes(64);
    let info = measure(|| {
        let guards: [_; 14] = std::array::from_fn(|key| mutex.try_lock(key as u64));
        queue(&mut waiters, &waker, || mutex.lock(1));
        waiters.iter_mut().for_each(|waiter| waiter.set(None));
        drop(guards);
    });
    assert!(mutex.is_empty());
    goal("bytes that an empty shard keeps at most, u64", "3,000", info.bytes_current as f64, 3000.0);
}

#[test]
#[cfg(feature = "idle")]
fn those_who_watched_leave_no_memory_behind() {
    let mutex = KeyedMutex::<u64, OneHash>::default();
    let guard = mutex.try_lock(1);
    assert!(once(mutex.idle(&1)).is_pending()); // a small table and slab are kept
    let mut watchers = boxes(1_000);
    let info = measure(|| {
        queue(&mut watchers, Waker::noop(), || mutex.idle(&1));
        watchers.iter_mut().for_each(|watcher| watcher.set(None));
    });
    drop(guard);
    goal("bytes left behind by 1,000 that watched", "0", info.bytes_current as f64, 0.0);
}

#[test]
#[cfg(all(feature = "std", not(feature = "critical-section")))]
fn what_is_reserved_in_a_burst_is_what_was_asked_for() {
    let mutex = KeyedMutex::<u32, OneHash>::default();
    let mut guards: Vec<_> = (0..3_000).map(|key| mutex.try_lock(key)).collect();
    mutex.reserve(1, 1);
    let info = measure(|| guards.clear());
    let more = info.bytes_current as f64;
    goal("bytes more after a burst in which one key was reserved", "below -50,000", more, -50_000.0);
}

#[test]
fn futures_are_small() {
    let numbers = KeyedMutex::<u64>::new();
    let names = KeyedMutex::<String>::new();
    let size = size_of_val(&numbers.lock(0_u64));
    goal("bytes of the future of `lock`, u64", "under 200", size as f64, 199.0);
    // Three keys and the places for them, and no second time.
    let mutex = Arc::new(KeyedMutex::<u64>::new());
    let size = size_of_val(&mutex.arc().lock_many([1, 2, 3]));
    goal("bytes of the future of `arc().lock_many`, three u64 keys", "at most 360", size as f64, 360.0);
    for (what, size) in [
        ("the future of `lock_many`, three u64 keys", size_of_val(&mutex.lock_many([1, 2, 3]))),
        ("the future of `lock`, `unless` an empty signal", size_of_val(&mutex.lock(1).unless(async {}))),
        ("the future of `arc().lock`, the same", size_of_val(&mutex.arc().lock(1).unless(async {}))),
        ("the future of `lock`, String", size_of_val(&names.lock(String::new()))),
        ("the future of `run` of an empty task, u64", size_of_val(&numbers.run(0, async || ()))),
        ("a ticket, u64", size_of_val(&numbers.ticket(0))),
        ("a guard, u64", size_of_val(&numbers.try_lock(0))),
        ("a mutex", size_of_val(&numbers)),
    ] {
        println!("| bytes of {what} | | {size} | |");
    }
}

/// A future holds what it is given once as it is given it, and once as it is used.
#[test]
fn a_future_that_is_given_something_large_holds_it_no_more_often_than_twice() {
    const LARGE: usize = 4_100;
    let mutex = KeyedMutex::<u64>::new();
    let large = [7_u8; LARGE];
    // What a job owns as long as it runs.
    let job = move || async move {
        std::future::ready(()).await;
        Ok::<_, ()>(large[0])
    };
    async fn locked(mutex: &KeyedMutex<u64>, large: [u8; LARGE]) -> u8 {
        let _guard = mutex.lock(1).await;
        std::future::ready(()).await;
        large[0]
    }
    async fn ran(mutex: &KeyedMutex<u64>, large: [u8; LARGE]) -> u8 {
        let job = move || async move {
            std::future::ready(()).await;
            large[0]
        };
        mutex.run(1, job).await.unwrap()
    }
    let guard = mutex.try_lock(2).unwrap();
    for (what, goal_of, size) in [
        ("an `async fn` with a job of 4.1 KB, around `lock`", 8_400, size_of_val(&locked(&mutex, large))),
        ("the same around `run`", 12_600, size_of_val(&ran(&mutex, large))),
        ("`run` of such a job", 8_400, size_of_val(&mutex.run(1, job))),
        ("`run_or_stop` of it", 8_400, size_of_val(&mutex.run_or_stop(1, job))),
        ("`run` of it with a ticket", 8_400, size_of_val(&mutex.ticket(1).run(job))),
        ("`run_or_stop` of it with a ticket", 8_400, size_of_val(&mutex.ticket(1).run_or_stop(job))),
        ("`run_or_stop` of it with a guard", 8_400, size_of_val(&guard.run_or_stop(job))),
        ("`lock`, `unless` such a signal", 8_400, size_of_val(&mutex.lock(1).unless(job()))),
        ("`run` of a job that makes it", 4_300, {
            let job = || async {
                let large = [7_u8; LARGE];
                std::future::ready(()).await;
                large[0]
            };
            size_of_val(&mutex.run(1, job))
        }),
        ("`run` of a job that is pinned elsewhere", 200, {
            let job = std::pin::pin!(job());
            size_of_val(&mutex.run(1, || job))
        }),
    ] {
        goal(&format!("bytes of {what}"), &format!("at most {goal_of}"), size as f64, f64::from(goal_of));
    }
}
