//! Does one piece of work a given number of times, for callgrind to count: `callgrind <work> <operations>`.
//! `.ci/callgrind` runs it with two numbers and divides the difference, so that start-up costs nothing.
//!
//! Each operation is a function that is not inlined, as if called from a user's code.

use std::future::Future;
use std::hash::Hash;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use async_mutex_lite::KeyedMutex;
use queue::Queue;

#[allow(dead_code)] // for others
#[path = "../../common/queue.rs"]
mod queue;

/// Enough for the random seed of the hasher not to matter.
const KEYS: usize = 1024;
/// Keys that others hold meanwhile, in the works called `held`; never one of `KEYS`.
const HELD: usize = 64;

type Floor<K> = spin::Mutex<hashbrown::HashMap<K, ()>>;

/// Polls a future once, which must do. A macro, so that the future is made where it is polled, as by
/// `.await`, and not moved into a function.
macro_rules! now {
    ($future:expr) => {
        match pin!($future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("nobody else holds the key"),
        }
    };
}

#[inline(never)]
fn lock<K: Eq + Hash + Clone>(mutex: &KeyedMutex<K>, key: &K) {
    drop(black_box(now!(mutex.lock(key.clone()))));
}

#[inline(never)]
fn share<K: Eq + Hash + Clone>(mutex: &KeyedMutex<K>, key: &K) {
    drop(black_box(now!(mutex.shared().lock(key.clone()))));
}

#[inline(never)]
fn many<K: Ord + Hash + Clone>(mutex: &KeyedMutex<K>, keys: [&K; 3]) {
    drop(black_box(now!(mutex.lock_many(keys.map(K::clone)))));
}

#[inline(never)]
fn try_lock<K: Eq + Hash + Clone>(mutex: &KeyedMutex<K>, key: &K) {
    drop(black_box(mutex.try_lock(key.clone())));
}

#[inline(never)]
fn run<K: Eq + Hash + Clone>(mutex: &KeyedMutex<K>, key: &K) {
    let _ = black_box(now!(mutex.run(key.clone(), async || black_box(()))));
}

/// What no lock by key that keeps its keys in one map can do without.
#[inline(never)]
fn floor<K: Eq + Hash + Clone>(map: &Floor<K>, key: &K) {
    black_box(map.lock().insert(key.clone(), ()));
    black_box(map.lock().remove(key));
}

#[inline(never)]
fn clone<K: Clone>(key: &K) {
    drop(black_box(key.clone()));
}

#[inline(never)]
fn unkeyed_tokio(mutex: &tokio::sync::Mutex<()>) {
    drop(black_box(now!(mutex.lock())));
}

#[inline(never)]
fn unkeyed_async_lock(mutex: &async_lock::Mutex<()>) {
    drop(black_box(now!(mutex.lock())));
}

/// One operation: unlock, which wakes the next, who is polled; the last holder queues up again.
fn hand_over<F: Future>(waiters: usize, first: F::Output, lock: impl Fn() -> F, operations: usize) {
    let mut queue = Queue::new(waiters, &lock);
    let mut guard = first;
    for operation in 0..operations {
        let next = operation % waiters;
        drop(guard);
        guard = queue.served(next);
        queue.join(next, lock());
    }
    drop(queue);
    drop(guard);
}

/// One operation: a waiter somewhere in the queue gives up, and queues again at its end.
fn cancel<F: Future>(waiters: usize, holder: F::Output, lock: impl Fn() -> F, operations: usize) {
    let mut queue = Queue::new(waiters, &lock);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..operations {
        queue.join(random.usize(..waiters), lock());
    }
    drop(queue);
    drop(holder);
}

fn keyed<K: Ord + Hash + Clone>(work: &str, operations: usize, key: impl Fn(usize) -> K) {
    let (work, held) = work.strip_prefix("held_").map_or((work, 0), |work| (work, HELD));
    let keys: Vec<K> = (0..KEYS).map(&key).collect();
    let others: Vec<K> = (KEYS..KEYS + held).map(&key).collect();
    let mutex = KeyedMutex::new();
    let guards: Vec<_> = others.iter().map(|key| mutex.try_lock(key.clone())).collect();
    let map = spin::Mutex::new(others.into_iter().map(|key| (key, ())).collect());
    let repeat = |work: &dyn Fn(&K)| (0..operations).for_each(|index| work(&keys[index % KEYS]));
    match work {
        "loop" => repeat(&|key| _ = black_box(key)),
        "clone" => repeat(&clone),
        "lock" => repeat(&|key| lock(&mutex, key)),
        "share" => repeat(&|key| share(&mutex, key)),
        "many" => (0..operations).for_each(|index| many(&mutex, [5, 3, 1].map(|next| &keys[(index + next) % KEYS]))),
        "try_lock" => repeat(&|key| try_lock(&mutex, key)),
        "run" => repeat(&|key| run(&mutex, key)),
        "floor" => repeat(&|key| floor(&map, key)),
        _ => panic!("unknown work: {work}"),
    }
    drop(guards);
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(work), Some(operations), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        panic!("usage: callgrind <work> <operations>");
    };
    let operations: usize = operations.parse().expect("a number of operations");
    let (mutex, key) = (KeyedMutex::<u64>::new(), 7);
    let tokio = tokio::sync::Mutex::new(());
    let async_lock = async_lock::Mutex::new(());
    let (work, waiters) = match work.rsplit_once('_') {
        Some((work, "1k")) => (work, 1000),
        Some((work, "100k")) => (work, 100_000),
        _ => (work.as_str(), 64),
    };
    match work {
        "unkeyed_tokio" => (0..operations).for_each(|_| unkeyed_tokio(black_box(&tokio))),
        "unkeyed_async_lock" => (0..operations).for_each(|_| unkeyed_async_lock(black_box(&async_lock))),
        "hand_over" => hand_over(waiters, now!(mutex.lock(key)), || mutex.lock(key), operations),
        "hand_over_tokio" => hand_over(waiters, now!(tokio.lock()), || tokio.lock(), operations),
        "hand_over_async_lock" => hand_over(waiters, now!(async_lock.lock()), || async_lock.lock(), operations),
        "cancel" => cancel(waiters, now!(mutex.lock(key)), || mutex.lock(key), operations),
        "cancel_tokio" => cancel(waiters, now!(tokio.lock()), || tokio.lock(), operations),
        "cancel_async_lock" => cancel(waiters, now!(async_lock.lock()), || async_lock.lock(), operations),
        work => match work.strip_suffix("_string") {
            Some(work) => keyed(work, operations, |number| format!("user-{number:010}")),
            None => keyed(work.trim_end_matches("_u64"), operations, |number| number as u64),
        },
    }
}
