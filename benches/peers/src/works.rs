//! The work that each lock does, and how it is timed. Every work checks exclusion while it measures.

use std::cell::Cell;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::atomic::{
    AtomicU8, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::thread;
use std::time::{Duration, Instant};

use async_executor::LocalExecutor;
use async_mutex_lite::KeyedMutex;
use cpu_time::ThreadTime;
use futures_lite::future::{block_on, yield_now};

use crate::queue::Queue;
use crate::rivals::*;

/// One measurement.
#[derive(Clone, Copy)]
pub struct Sample {
    /// Nanoseconds for each operation.
    pub nanos: f64,
    /// Nanoseconds of processor time for each operation, of all threads, where `nanos` is by the wall clock.
    pub busy: Option<f64>,
    /// How many operations in a hundred went to another task than the one before: few, where a lock lets
    /// newcomers pass those that wait.
    pub handed: f64,
}

/// A lock, set up for a work, ready to be measured again and again.
pub struct Contestant {
    pub name: &'static str,
    pub measure: Box<dyn FnMut() -> Sample>,
}

/// Contestants live as long as the program: their futures may be kept between measurements.
pub fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// Times work on this thread, in processor time: so others that want the processor too do not count.
pub fn sample(operations: usize, work: impl FnOnce()) -> Sample {
    let start = ThreadTime::now();
    work();
    Sample { nanos: start.elapsed().as_nanos() as f64 / operations as f64, busy: None, handed: 100.0 }
}

/// Lets all threads begin at once.
struct Start {
    missing: AtomicUsize,
    /// Each thread has a processor of its own and keeps it busy until all are there: so all of them do run
    /// at that moment, even if others want the processors too.
    pinned: bool,
}

impl Start {
    fn wait(&self) {
        self.missing.fetch_sub(1, SeqCst);
        while self.missing.load(SeqCst) > 0 {
            if self.pinned {
                std::hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }
}

/// When a thread began: by the wall clock, and by its own.
type Begin = (Instant, ThreadTime);

fn begin() -> Begin {
    (Instant::now(), ThreadTime::now())
}

/// Runs threads that measure themselves, from the first to begin to the last to end. `work` waits for the
/// start once it is set up. Returns what it counted, with the time: of several threads by the wall clock,
/// because one that has to wait takes no processor time.
fn on_threads(
    threads: usize,
    pinned: bool,
    work: impl Fn(usize, &Start) -> (Begin, usize) + Sync,
) -> (Duration, Duration, usize) {
    let start = Start { missing: AtomicUsize::new(threads), pinned };
    let processors = core_affinity::get_core_ids().unwrap_or_default();
    thread::scope(|scope| {
        let (start, work, processors) = (&start, &work, &processors);
        let thread = |at: usize| {
            scope.spawn(move || {
                if let (true, Some(&processor)) = (pinned, processors.get(at)) {
                    core_affinity::set_for_current(processor);
                }
                let ((begin, own), count) = work(at, start);
                (begin, Instant::now(), own.elapsed(), count)
            })
        };
        let running: Vec<_> = (0..threads).map(thread).collect();
        let done: Vec<_> = running.into_iter().map(|thread| thread.join().expect("exclusion")).collect();
        let count = done.iter().map(|(.., count)| count).sum();
        let busy = done.iter().map(|(_, _, own, _)| *own).sum();
        if done.len() == 1 {
            return (busy, busy, count);
        }
        let begin = done.iter().map(|(begin, ..)| *begin).min().expect("some thread");
        let end = done.iter().map(|(_, end, ..)| *end).max().expect("some thread");
        (end - begin, busy, count)
    })
}

fn contestant(name: &'static str, measure: impl FnMut() -> Sample + 'static) -> Contestant {
    Contestant { name, measure: Box::new(measure) }
}

/// A cell for each key, taken while the key is held. Loads and stores alone, to add little: two that are
/// inside at once may be missed now and then, but not a million times.
struct Cells(Box<[AtomicU8]>);

impl Cells {
    fn new(keys: usize) -> Self {
        Self((0..keys).map(|_| AtomicU8::new(0)).collect())
    }

    #[inline]
    fn enter(&self, key: usize) {
        assert_eq!(self.0[key].load(Relaxed), 0, "two hold one key");
        self.0[key].store(1, Relaxed);
    }

    #[inline]
    fn leave(&self, key: usize) {
        assert_eq!(self.0[key].load(Relaxed), 1, "two held one key");
        self.0[key].store(0, Relaxed);
    }
}

pub fn number(index: usize) -> u64 {
    index as u64
}

pub fn name(index: usize) -> String {
    format!("user-{index:010}")
}

/// The keys of a work, in the order in which they are used.
fn keys<K: Key>(keys: usize, key: fn(usize) -> K) -> &'static [K] {
    leak((0..keys).map(key).collect::<Vec<_>>())
}

/// The loop that `cycle` and `disjoint` time.
#[inline(always)]
fn lock_in_turn<K: Key, R: Rival<K>>(rival: &R, keys: &[K], cells: &Cells, operations: usize) {
    block_on(async {
        let mut at = 0;
        for _ in 0..operations {
            let guard = rival.lock(&keys[at]).await;
            cells.enter(at);
            black_box(&guard);
            cells.leave(at);
            drop(guard);
            at = if at + 1 == keys.len() { 0 } else { at + 1 };
        }
    });
}

/// Locks and unlocks `count` keys in turn, on one thread, while `held` others are held.
pub fn cycle<K: Key, R: Rival<K>>(key: fn(usize) -> K, count: usize, held: usize, operations: usize) -> Contestant {
    let rival: &R = leak(R::new());
    let keys = keys(count + held, key);
    let cells = Cells::new(count);
    let guards: Vec<_> = keys[count..].iter().map(|key| block_on(rival.lock(key))).collect();
    contestant(R::NAME, move || {
        black_box(&guards);
        sample(operations, || {
            lock_in_turn(rival, &keys[..count], &cells, operations);
        })
    })
}

/// The same, running a trivial task under the key.
pub fn run<K: Key, R: Rival<K>>(key: fn(usize) -> K, count: usize, operations: usize) -> Contestant {
    let rival: &R = leak(R::new());
    let keys = keys(count, key);
    let cells = Cells::new(count);
    contestant(R::NAME, move || {
        sample(operations, || {
            block_on(async {
                let mut at = 0;
                for _ in 0..operations {
                    let task = async || {
                        cells.enter(at);
                        black_box(at);
                        cells.leave(at);
                    };
                    rival.run(&keys[at], task).await;
                    at = if at + 1 == count { 0 } else { at + 1 };
                }
            });
        })
    })
}

/// Locks as many keys as that, then unlocks them all. One operation is both.
pub fn hold<R: Rival<u64>>(count: usize) -> Contestant {
    let rival: &R = leak(R::new());
    let keys = keys(count, number);
    let cells = Cells::new(count);
    let mut guards = Vec::with_capacity(count);
    contestant(R::NAME, move || {
        sample(count, || {
            block_on(async {
                for (at, key) in keys.iter().enumerate() {
                    guards.push(rival.lock(key).await);
                    cells.enter(at);
                }
            });
            for (at, guard) in guards.drain(..).enumerate() {
                cells.leave(at);
                drop(guard);
            }
        })
    })
}

/// Threads with `tasks` tasks each, which hold the keys that `pick` gives them across a yield.
pub fn tasks<R: Rival<u64>>(
    threads: usize,
    tasks: usize,
    operations: usize,
    key_count: usize,
    pick: fn(&mut fastrand::Rng) -> usize,
) -> Contestant {
    let rival: &R = leak(R::new());
    let keys = keys(key_count, number);
    let cells = Cells::new(key_count);
    let each = operations / threads / tasks;
    contestant(R::NAME, move || {
        let one_thread = |thread: usize, start: &Start| {
            let (last, handed) = (Cell::new(usize::MAX), Cell::new(0));
            let executor = LocalExecutor::new();
            let work = |task: usize| {
                let (cells, last, handed) = (&cells, &last, &handed);
                let mut random = fastrand::Rng::with_seed((thread * tasks + task) as u64);
                async move {
                    for _ in 0..each {
                        let at = pick(&mut random);
                        let guard = rival.lock(&keys[at]).await;
                        cells.enter(at);
                        handed.set(handed.get() + usize::from(last.replace(task) != task));
                        yield_now().await;
                        cells.leave(at);
                        drop(guard);
                    }
                }
            };
            let tasks: Vec<_> = (0..tasks).map(|task| executor.spawn(work(task))).collect();
            start.wait();
            let begin = begin();
            block_on(executor.run(async {
                for task in tasks {
                    task.await;
                }
            }));
            (begin, handed.get())
        };
        let (time, busy, handed) = on_threads(threads, false, one_thread);
        let operations = (each * threads * tasks) as f64;
        let [nanos, busy] = [time, busy].map(|time| time.as_nanos() as f64 / operations);
        Sample { nanos, busy: (threads > 1).then_some(busy), handed: 100.0 * handed as f64 / operations }
    })
}

pub fn only_one(_: &mut fastrand::Rng) -> usize {
    0
}

pub const ZIPF_KEYS: usize = 10_000;

/// The n-th most frequent of the keys comes 1/n as often as the first.
pub fn zipf(random: &mut fastrand::Rng) -> usize {
    static SUMS: std::sync::LazyLock<Vec<f64>> = std::sync::LazyLock::new(|| {
        let mut sum = 0.0;
        let mut add = |share| {
            sum += share;
            sum
        };
        (1..=ZIPF_KEYS).map(|rank| add(1.0 / rank as f64)).collect()
    });
    let point = random.f64() * SUMS[ZIPF_KEYS - 1];
    SUMS.partition_point(|&sum| sum < point).min(ZIPF_KEYS - 1)
}

/// Threads that cycle through `each` keys of their own, others in every round: two keys may happen to share
/// a part of the lock. One operation is one lock and unlock on any thread, in wall-clock time: half as
/// long on two threads if nothing is shared.
pub fn disjoint<R: Rival<u64>>(threads: usize, each: usize, operations: usize) -> Contestant {
    let rival: &R = leak(R::new());
    let mut round = 0;
    contestant(R::NAME, move || {
        round += 1;
        let one_thread = |thread: usize, start: &Start| {
            let first = (round * threads + thread) * each;
            let keys: Vec<u64> = (first..first + each).map(number).collect();
            let cells = Cells::new(each);
            start.wait();
            let begin = begin();
            lock_in_turn(rival, &keys, &cells, operations);
            (begin, 0)
        };
        let (time, ..) = on_threads(threads, threads > 1, one_thread);
        Sample { nanos: time.as_nanos() as f64 / (operations * threads) as f64, busy: None, handed: 100.0 }
    })
}

pub fn all_threads() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Hands one key round a queue of that length: unlock, poll the next, let it queue again.
pub fn ring<R: Rival<u64>>(waiters: usize, operations: usize) -> Contestant {
    let rival: &R = leak(R::new());
    let key: &u64 = leak(7);
    let mut guard = Some(block_on(rival.lock(key)));
    let mut queue = Queue::new(waiters, || rival.lock(key));
    let mut at = 0;
    contestant(R::NAME, move || {
        sample(operations, || {
            for _ in 0..operations {
                drop(guard.take());
                guard = Some(queue.served(at));
                queue.join(at, rival.lock(key));
                at = if at + 1 == waiters { 0 } else { at + 1 };
            }
        })
    })
}

/// Waiters that give up, in random order. One operation is one of them.
pub fn cancel<R: Rival<u64>>(waiters: usize, operations: usize) -> Contestant {
    let rival: &R = leak(R::new());
    let key: &u64 = leak(7);
    let guard = block_on(rival.lock(key));
    let mut queue = Queue::new(waiters, || rival.lock(key));
    let mut order: Vec<usize> = (0..waiters).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut order);
    contestant(R::NAME, move || {
        black_box(&guard);
        let rounds = operations.div_ceil(waiters);
        let mut nanos = 0.0;
        for _ in 0..rounds {
            (0..waiters).for_each(|task| queue.join(task, rival.lock(key)));
            nanos += sample(waiters, || order.iter().for_each(|&task| queue.cancel(task))).nanos;
        }
        Sample { nanos: nanos / rounds as f64, busy: None, handed: 100.0 }
    })
}

/// A holder that fails while others wait, until a newcomer that is queued behind them has the key. They are told at once.
pub fn told_at_once(waiters: usize) -> Contestant {
    let mutex: &KeyedMutex<u64> = leak(KeyedMutex::new());
    contestant(OURS, move || {
        let guard = mutex.try_lock(7).expect("the key is free");
        let _told = Queue::new(waiters, || mutex.ticket(7));
        let mut newcomer = Queue::new(1, || mutex.lock(7));
        sample(1, || {
            guard.stop();
            drop(newcomer.served(0));
        })
    })
}

/// The same, if each is told in its turn, when it holds the key: by a flag, say.
pub fn told_in_turn<R: Rival<u64>>(name: &'static str, waiters: usize) -> Contestant {
    let rival: &R = leak(R::new());
    let key: &u64 = leak(7);
    contestant(name, move || {
        let guard = block_on(rival.lock(key));
        let mut told = Queue::new(waiters, || rival.lock(key));
        let mut newcomer = Queue::new(1, || rival.lock(key));
        sample(1, || {
            drop(guard);
            (0..waiters).for_each(|task| drop(told.served(task)));
            drop(newcomer.served(0));
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Locks nothing.
    struct Broken;

    impl Rival<u64> for Broken {
        const NAME: &'static str = "broken";
        type Guard<'a> = ();

        fn new() -> Self {
            Self
        }

        async fn lock<'a>(&'a self, _: &'a u64) {}
    }

    #[test]
    #[should_panic = "two hold one key"]
    fn a_queue_behind_a_lock_that_does_not_exclude_is_noticed() {
        ring::<Broken>(3, 10);
    }

    #[test]
    #[should_panic = "exclusion"]
    fn tasks_that_overlap_are_noticed() {
        (tasks::<Broken>(1, 3, 100, 1, only_one).measure)();
    }
}
