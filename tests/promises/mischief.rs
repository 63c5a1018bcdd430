//! Random scripts in which wakers and keys do anything: lock, poll, drop, stop, downgrade and panic, when they are called,
//! cloned, dropped, hashed or compared. No two exclusive holders ever meet, no one waits forever, and nothing is left
//! behind. (hostile.rs has each such deed by itself.)
//!
//! `MISCHIEF=200000 cargo test --release --test promises mischief` tries more scripts.
#![cfg(not(any(async_mutex_lite_loom, miri, target_family = "wasm")))]
#![allow(unsafe_code, clippy::std_instead_of_core)] // tests have the standard library

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, Hash, Hasher};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};
use std::thread;

use async_mutex_lite::{Borrowed, Guard, Guards, KeyedMutex};
use fastrand::Rng;
use futures_lite::future::yield_now;

const KEYS: u32 = 3;
const EXCLUSIVE: i64 = 1 << 32;
/// Deeper than this, wakers and keys do no mischief.
const DEPTH: u32 = 3;

/// What the actors of a script share.
struct Shop {
    mutex: KeyedMutex<Key, Pairs>,
    inside: [AtomicI64; KEYS as usize],
    max: u32,
    /// See [`settle`].
    sums: [AtomicU64; 3],
}

/// Hashes two keys alike.
#[derive(Clone, Copy)]
struct Pairs;

struct Pair(u64);

impl BuildHasher for Pairs {
    type Hasher = Pair;

    fn build_hasher(&self) -> Pair {
        Pair(0)
    }
}

impl Hasher for Pair {
    fn write(&mut self, _: &[u8]) {}

    fn write_u32(&mut self, number: u32) {
        self.0 = u64::from(number / 2) * 0x9e37;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A key, and whether it does mischief.
#[derive(PartialOrd, Ord)]
struct Key(u32, bool);

impl Hash for Key {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        mischief(self.1, 2);
        hasher.write_u32(self.0);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        may_panic(self.1, 3); // and must not use the mutex
        self.0 == other.0
    }
}

impl Eq for Key {}

impl Drop for Key {
    fn drop(&mut self) {
        mischief(self.1, 5);
    }
}

/// Something of the user's whose drop does mischief.
struct Odd;

impl Drop for Odd {
    fn drop(&mut self) {
        mischief(true, 6);
    }
}

/// Somewhere a key is held.
struct Inside(&'static AtomicI64, i64);

impl Inside {
    fn new(shop: &'static Shop, key: u32, exclusive: bool) -> Self {
        let (inside, weight) = (&shop.inside[key as usize], if exclusive { EXCLUSIVE } else { 1 });
        let others = inside.fetch_add(weight, SeqCst);
        if if exclusive { others != 0 } else { others >= i64::from(shop.max) } {
            broken(&format!("{others} others hold {key}"));
        }
        Self(inside, weight)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, SeqCst);
    }
}

/// Ends the test from wherever this is found: a panic would be taken for mischief.
fn broken(what: &str) -> ! {
    let _ = writeln!(std::io::stderr(), "{what}, in script {}", SCRIPT.get()); // `eprintln` would be captured
    std::process::abort();
}

#[allow(dead_code)] // held to be dropped
enum Held {
    Nothing,
    Exclusive(Inside, Guard<Borrowed<'static, Key, Pairs>>, u32),
    Shared(Inside, Guard<Borrowed<'static, Key, Pairs>>),
    Many([Inside; 2], Guards<Borrowed<'static, Key, Pairs>>),
}

/// A future, and its latest waker, which knows whether it was called.
struct Task {
    future: Pin<Box<dyn Future<Output = Held>>>,
    waker: Option<Waker>,
    woken: Arc<AtomicU64>,
    name: &'static str,
}

thread_local! {
    static SCRIPT: Cell<u64> = const { Cell::new(0) };
    static RANDOM: RefCell<Rng> = const { RefCell::new(Rng::with_seed(0)) };
    static SHOP: Cell<Option<&'static Shop>> = const { Cell::new(None) };
    static TASKS: RefCell<Vec<Task>> = const { RefCell::new(Vec::new()) };
    static HELD: RefCell<Vec<Held>> = const { RefCell::new(Vec::new()) };
    /// How many more deeds of mischief there may be, and how deep this one is.
    static LEFT: Cell<u32> = const { Cell::new(0) };
    static NESTED: Cell<u32> = const { Cell::new(0) };
}

fn random(below: u32) -> u32 {
    RANDOM.with_borrow_mut(|random| random.u32(..below))
}

/// Takes a random one out of a thread's list, which is not borrowed any more when that is used or dropped.
fn take<T>(list: &'static thread::LocalKey<RefCell<Vec<T>>>) -> Option<T> {
    let len = list.with_borrow(Vec::len);
    (len > 0).then(|| random(len as u32) as usize).map(|at| list.with_borrow_mut(|list| list.swap_remove(at)))
}

fn may_panic(odd: bool, odds: u32) {
    if odd && LEFT.get() > 0 && !thread::panicking() && random(odds * 4) == 0 {
        resume_unwind(Box::new("mischief"));
    }
}

fn mischief(odd: bool, odds: u32) {
    if odd && LEFT.get() > 0 && NESTED.get() < DEPTH && random(odds) == 0 {
        LEFT.set(LEFT.get() - 1);
        NESTED.set(NESTED.get() + 1);
        let panic = catch_unwind(AssertUnwindSafe(deed));
        NESTED.set(NESTED.get() - 1);
        match panic {
            Err(panic) if !thread::panicking() && random(2) == 0 => resume_unwind(panic),
            _ => {}
        }
    }
    may_panic(odd, odds);
}

/// Wakers whose clones and drops do mischief can only be made by hand. The data is an `Arc` of how often the waker was called.
static VTABLE: RawWakerVTable = RawWakerVTable::new(
    |data| {
        mischief(true, 4);
        // SAFETY: the data of each of these wakers is an `Arc` of this type, of which the waker has one count.
        unsafe { Arc::increment_strong_count(data.cast::<AtomicU64>()) };
        RawWaker::new(data, &VTABLE)
    },
    |data| {
        // SAFETY: as above; the count is taken.
        let woken = unsafe { Arc::from_raw(data.cast::<AtomicU64>()) };
        woken.fetch_add(1, SeqCst);
        mischief(true, 2);
    },
    |data| {
        // SAFETY: as above; the count is left.
        unsafe { &*data.cast::<AtomicU64>() }.fetch_add(1, SeqCst);
        mischief(true, 2);
    },
    |data| {
        // SAFETY: as above; the count is taken.
        let _woken = unsafe { Arc::from_raw(data.cast::<AtomicU64>()) };
        mischief(true, 4);
    },
);

fn start(name: &'static str, future: impl Future<Output = Held> + 'static) {
    let woken = Arc::new(AtomicU64::new(1)); // so it is polled
    TASKS.with_borrow_mut(|tasks| tasks.push(Task { future: Box::pin(future), waker: None, woken, name }));
}

fn hold(held: Held) {
    HELD.with_borrow_mut(|all| all.push(held));
}

/// Polls a task, with the waker it has or with another.
fn poll(mut task: Task, must_wait: bool) {
    if task.waker.is_none() || random(2) == 0 {
        task.woken = Arc::default();
        let data = Arc::into_raw(task.woken.clone());
        // SAFETY: see the table.
        let waker = unsafe { Waker::from_raw(RawWaker::new(data.cast(), &VTABLE)) };
        drop(task.waker.replace(waker));
    }
    task.woken.store(0, SeqCst);
    let waker = task.waker.take().expect("it was just made");
    let polled = task.future.as_mut().poll(&mut Context::from_waker(&waker));
    task.waker = Some(waker);
    match polled {
        Poll::Ready(_) if must_wait => broken(&format!("{} was ready, and had not been woken", task.name)),
        Poll::Ready(held) => hold(held),
        Poll::Pending => TASKS.with_borrow_mut(|tasks| tasks.push(task)),
    }
}

/// Yields a few times, and may panic.
async fn job(shop: &'static Shop, key: u32, exclusive: bool, fails: bool) -> Result<(), ()> {
    let _inside = Inside::new(shop, key, exclusive);
    for _ in 0..random(3) {
        yield_now().await;
        may_panic(true, 3);
    }
    mischief(true, 4);
    if fails { Err(()) } else { Ok(()) }
}

/// One random operation.
fn deed() {
    let Some(shop) = SHOP.get() else { return };
    let (mutex, number, fails) = (&shop.mutex, random(KEYS), random(2) == 0);
    let key = Key(number, random(4) == 0);
    let exclusive = move |guard| Held::Exclusive(Inside::new(shop, number, true), guard, number);
    let shared = move |guard| Held::Shared(Inside::new(shop, number, false), guard);
    match random(31) {
        0 | 1 => start("lock", async move { exclusive(mutex.lock(key).await) }),
        2 => start("lock_shared", async move { shared(mutex.at_most(shop.max).lock(key).await) }),
        3 | 4 => {
            let ticket = mutex.ticket(key);
            start("ticket", async move { ticket.await.map_or(Held::Nothing, exclusive) });
        }
        5 | 6 => {
            let ticket = mutex.at_most(shop.max).ticket(key);
            start("ticket_shared", async move { ticket.await.map_or(Held::Nothing, shared) });
        }
        7 => start("run", async move {
            let odd = Odd;
            let _ = mutex.run(key, async move || drop((job(shop, number, true, fails).await, odd))).await;
            Held::Nothing
        }),
        8 => start("run_or_stop", async move {
            let _ = mutex.run_or_stop(key, async || job(shop, number, true, fails).await).await;
            Held::Nothing
        }),
        9 => start("lock_many", async move {
            let next = (number + 1) % KEYS;
            let guards = mutex.lock_many([key, Key(next, false)]).await;
            Held::Many([Inside::new(shop, number, true), Inside::new(shop, next, true)], guards)
        }),
        10 => start("lock_unless", async move {
            let (mut polls, odd) = (random(4), Odd);
            let signal = poll_fn(move |context| {
                let _odd = &odd;
                context.waker().wake_by_ref();
                polls = polls.saturating_sub(1);
                if polls == 0 { Poll::Ready(()) } else { Poll::Pending }
            });
            mutex.lock(key).unless(signal).await.map_or(Held::Nothing, exclusive)
        }),
        #[cfg(feature = "idle")]
        11 => start("idle", async move {
            mutex.idle(&Key(number, false)).await;
            Held::Nothing
        }),
        #[cfg(feature = "idle")]
        12 => start("all_idle", async move {
            mutex.all_idle().await;
            Held::Nothing
        }),
        13 => drop(mutex.try_lock(key).map(|guard| hold(exclusive(guard)))),
        14 => drop(mutex.at_most(shop.max).try_lock(key).map(|guard| hold(shared(guard)))),
        15 => _ = mutex.stop(&key),
        16 => _ = mutex.stop_all(),
        17 => {
            let ticket = mutex.ticket_if(key, |now| {
                may_panic(true, 3);
                now.waiting < 2
            });
            if let Some(ticket) = ticket {
                start("run_or_stop of a ticket", async move {
                    let _ = ticket.run_or_stop(async || job(shop, number, true, fails).await).await;
                    Held::Nothing
                });
            }
        }
        18 | 19 => drop(take(&TASKS)),
        20..=22 => match take(&HELD) {
            Some(Held::Exclusive(inside, guard, number)) => {
                drop(inside);
                match random(5) {
                    0 => guard.stop(),
                    1 => hold(Held::Shared(Inside::new(shop, number, false), guard.downgrade())),
                    2 => start("run_or_stop of a guard", async move {
                        let _ = guard.run_or_stop(async || job(shop, number, true, fails).await).await;
                        Held::Nothing
                    }),
                    _ => drop(guard),
                }
            }
            held => drop(held),
        },
        _ => drop(take(&TASKS).map(|task| poll(task, false))),
    }
}

/// Polls what was woken, and gives up what is held, in rounds that all threads of a script begin together, until nothing is left.
/// There is no more mischief: if nothing happens in a round, what waits would wait forever.
fn settle(shop: &Shop, threads: usize, barrier: &Barrier) {
    let mut before = [0; 3];
    loop {
        let mut happened = 0;
        let woken = |tasks: &mut Vec<Task>| {
            let at = tasks.iter().position(|task| task.woken.load(SeqCst) > 0)?;
            Some(tasks.remove(at))
        };
        while let Some(task) = TASKS.with_borrow_mut(woken) {
            poll(task, false);
            happened += 1;
        }
        if threads == 1 {
            TASKS.take().into_iter().for_each(|task| poll(task, true));
        }
        if let Some(held) = take(&HELD) {
            drop(held);
            happened += 1;
        }
        let waiting = TASKS.with_borrow(|tasks| tasks.len() as u64);
        let many = TASKS.with_borrow(|tasks| tasks.iter().position(|task| task.name == "lock_many"));
        // The sums of all rounds so far: what comes on top is this round's.
        let mut sums = [happened, waiting, u64::from(many.is_some())];
        sums.iter().zip(&shop.sums).for_each(|(mine, sum)| _ = sum.fetch_add(*mine, SeqCst));
        barrier.wait();
        sums = [0, 1, 2].map(|at| shop.sums[at].load(SeqCst) - before[at]);
        before = [0, 1, 2].map(|at| before[at] + sums[at]);
        barrier.wait(); // before another round adds to the sums
        match sums {
            [0, 0, _] => return,
            [0, _, 0] => broken("a task waits forever"),
            // A `lock_many` deadlocks with a ticket for one of its keys, if that waits for the other.
            [0, _, _] => drop(many.map(|at| TASKS.with_borrow_mut(|tasks| tasks.remove(at)))),
            _ => {}
        }
    }
}

fn script(shop: &'static Shop, script: u64, deeds: u32, threads: usize, barrier: &Barrier) {
    SCRIPT.set(script);
    RANDOM.with_borrow_mut(|random| *random = Rng::with_seed(script));
    SHOP.set(Some(shop));
    LEFT.set(200);
    for _ in 0..deeds {
        let _ = catch_unwind(AssertUnwindSafe(deed));
    }
    LEFT.set(0);
    settle(shop, threads, barrier);
    if !shop.mutex.is_empty() || shop.inside.iter().any(|inside| inside.load(SeqCst) != 0) {
        broken("something is left");
    }
}

/// Runs a script on each of several threads, on one mutex.
fn scripts(first: u64, deeds: u32, threads: usize) {
    let max = [u32::MAX, 1, 2, 3][first as usize % 4];
    let mutex = KeyedMutex::with_hasher(Pairs);
    let shop: &'static Shop =
        Box::leak(Box::new(Shop { mutex, inside: Default::default(), max, sums: Default::default() }));
    let barrier = &Barrier::new(threads);
    thread::scope(|scope| {
        for thread in 0..threads as u64 {
            scope.spawn(move || script(shop, first * 10 + thread, deeds, threads, barrier));
        }
    });
}

fn count(default: u64) -> u64 {
    std::env::var("MISCHIEF").map_or(default, |count| count.parse().expect("a number"))
}

#[test]
fn wakers_and_keys_that_do_anything_break_nothing() {
    (0..count(3_000)).for_each(|first| scripts(first, 80, 1));
}

#[test]
fn nor_on_several_threads() {
    (0..count(3_000) / 10).for_each(|first| scripts(first, 120, 3));
}
