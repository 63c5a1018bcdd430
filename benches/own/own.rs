//! What the mutex costs on its own: `cargo bench --manifest-path benches/own/Cargo.toml`. (How it compares with others:
//! `.ci/peers`. What it costs in instructions: `.ci/callgrind`.)

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_mutex_lite::{Borrowed, Guard, KeyedMutex};
use divan::{Bencher, black_box};
use flights::Flights;
use once_cells::OnceCells;

#[allow(dead_code)] // `main`
#[path = "../../examples/flights.rs"]
mod flights;
#[allow(dead_code)] // `len`
#[path = "../../tests/common/once_cells.rs"]
mod once_cells;

/// Operations in a sample: one takes hardly longer than a look at the clock.
const EACH: u32 = 2000;
const HELD: [u64; 3] = [0, 1000, 1_000_000];
const WAITERS: [usize; 3] = [1, 1000, 100_000];
const WATCHERS: [usize; 3] = [1000, 10_000, 100_000];

fn main() {
    divan::main();
}

/// Polls a future where it is made, as `.await` does.
macro_rules! now {
    ($future:expr) => {
        match pin!($future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("the key is locked"),
        }
    };
}

/// Locks this many keys, none of them below 1000.
fn held(mutex: &KeyedMutex<u64>, count: u64) -> Vec<Guard<Borrowed<'_, u64>>> {
    (1000..1000 + count).filter_map(|key| mutex.try_lock(key)).collect()
}

fn next(key: &mut u64) -> u64 {
    *key = (*key + 1) % 1000;
    *key
}

/// While so many other keys are held.
#[divan::bench(sample_size = EACH, args = HELD)]
fn lock(bencher: Bencher, others: u64) {
    let mutex = KeyedMutex::new();
    let _held = held(&mutex, others);
    let mut key = 0;
    bencher.bench_local(|| drop(black_box(now!(mutex.lock(next(&mut key))))));
}

#[divan::bench(sample_size = EACH, args = HELD)]
fn try_lock(bencher: Bencher, others: u64) {
    let mutex = KeyedMutex::new();
    let _held = held(&mutex, others);
    let mut key = 0;
    bencher.bench_local(|| drop(black_box(mutex.try_lock(next(&mut key)))));
}

#[divan::bench(sample_size = EACH)]
fn lock_arc(bencher: Bencher) {
    let mutex = Arc::new(KeyedMutex::<u64>::new());
    let mut key = 0;
    bencher.bench_local(|| drop(black_box(now!(mutex.arc().lock(next(&mut key))))));
}

#[divan::bench(sample_size = EACH)]
fn lock_blocking(bencher: Bencher) {
    let mutex = KeyedMutex::<u64>::new();
    let mut key = 0;
    bencher.bench_local(|| drop(black_box(mutex.lock(next(&mut key)).wait())));
}

#[divan::bench(sample_size = EACH)]
fn run(bencher: Bencher) {
    let mutex = KeyedMutex::<u64>::new();
    let mut key = 0;
    bencher.bench_local(|| now!(mutex.run(next(&mut key), async || black_box(()))));
}

#[divan::bench(sample_size = EACH)]
fn run_or_stop(bencher: Bencher) {
    let mutex = KeyedMutex::<u64>::new();
    let mut key = 0;
    bencher.bench_local(|| now!(mutex.run_or_stop(next(&mut key), async || Ok::<_, ()>(black_box(7)))));
}

#[divan::bench(sample_size = EACH)]
fn ticket(bencher: Bencher) {
    let mutex = KeyedMutex::<u64>::new();
    let mut key = 0;
    bencher.bench_local(|| drop(black_box(now!(mutex.ticket(next(&mut key))))));
}

#[divan::bench(sample_size = EACH)]
fn lock_many_of_four(bencher: Bencher) {
    let mutex = KeyedMutex::<u64>::new();
    bencher.bench_local(|| drop(black_box(now!(mutex.lock_many(black_box([4, 1, 3, 2]))))));
}

#[divan::bench(sample_size = EACH)]
fn lock_string(bencher: Bencher) {
    let mutex = KeyedMutex::<String>::new();
    let key = || String::from("user-0000001234");
    bencher.with_inputs(key).bench_local_values(|key| drop(black_box(now!(mutex.lock(key)))));
}

/// On each thread, keys of its own.
#[divan::bench(sample_size = EACH, threads = [1, 2, 0])]
fn lock_on_threads(bencher: Bencher) {
    static MUTEX: KeyedMutex<u64> = KeyedMutex::new();
    static THREADS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    std::thread_local! {
        static KEY: u64 = THREADS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    bencher.bench(|| drop(black_box(now!(MUTEX.lock(KEY.with(|key| *key))))));
}

/// A future that waits in its place.
type Waiter<F> = Pin<Box<Option<F>>>;

/// Futures that queue for a locked key.
fn queue<F: Future>(waiters: usize, lock: impl Fn() -> F) -> Vec<Waiter<F>> {
    let mut queue: Vec<_> = (0..waiters).map(|_| Box::pin(Some(lock()))).collect();
    for waiter in &mut queue {
        assert!(poll(waiter).is_pending());
    }
    queue
}

fn poll<F: Future>(waiter: &mut Waiter<F>) -> Poll<F::Output> {
    let future = waiter.as_mut().as_pin_mut().expect("queued");
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Unlock, hand over, queue again: with this many in the queue.
#[divan::bench(sample_size = EACH, args = WAITERS)]
fn hand_over(bencher: Bencher, waiters: usize) {
    let mutex = KeyedMutex::new();
    let mut guard = mutex.try_lock(7);
    let mut queue = queue(waiters, || mutex.lock(7));
    let mut at = 0;
    bencher.bench_local(|| {
        guard = None;
        let waiter = &mut queue[at];
        guard = match poll(waiter) {
            Poll::Ready(guard) => Some(guard),
            Poll::Pending => panic!("not its turn"),
        };
        waiter.set(Some(mutex.lock(7)));
        assert!(poll(waiter).is_pending());
        at = (at + 1) % waiters;
    });
}

/// One of the waiters gives up, and queues again.
#[divan::bench(sample_size = EACH, args = WAITERS)]
fn cancel(bencher: Bencher, waiters: usize) {
    let mutex = KeyedMutex::new();
    let _guard = mutex.try_lock(7);
    let mut queue = queue(waiters, || mutex.lock(7));
    let mut random = fastrand::Rng::with_seed(7);
    bencher.bench_local(|| {
        let waiter = &mut queue[random.usize(..waiters)];
        waiter.set(Some(mutex.lock(7)));
        assert!(poll(waiter).is_pending());
    });
}

/// One unlock that tells this many watchers, each of which is then polled.
#[divan::bench(args = WATCHERS, sample_size = 1)]
fn tell_watchers(bencher: Bencher, watchers: usize) {
    let mutex = KeyedMutex::new();
    let watch = || {
        let guard = mutex.try_lock(7).expect("the key is free");
        (guard, queue(watchers, || mutex.idle(&7)))
    };
    bencher.with_inputs(watch).bench_local_values(|(guard, mut queue)| {
        drop(guard);
        queue.iter_mut().for_each(|watcher| assert!(poll(watcher).is_ready()));
        queue
    });
}

/// This many watchers of a locked key are dropped.
#[divan::bench(args = WATCHERS, sample_size = 1)]
fn drop_watchers(bencher: Bencher, watchers: usize) {
    let mutex = KeyedMutex::new();
    let _guard = mutex.try_lock(7);
    bencher.with_inputs(|| queue(watchers, || mutex.idle(&7))).bench_local_values(|mut queue| {
        queue.iter_mut().for_each(|watcher| watcher.set(None));
        queue
    });
}

/// This many callers ask for one key: one fetches, and all get the outcome.
#[divan::bench(args = [1, 1000], sample_size = 1)]
fn flight(bencher: Bencher, callers: usize) {
    let flights = Flights::new();
    bencher.bench_local(|| all(callers, || flights.get(7, fetch())));
    assert!(flights.is_empty());
}

/// The same with a map of tokio's `OnceCell`.
#[divan::bench(args = [1, 1000], sample_size = 1)]
fn once_cell(bencher: Bencher, callers: usize) {
    let cells = OnceCells::new();
    bencher.bench_local(|| all(callers, || cells.get(7, fetch())));
    assert_eq!(cells.len(), 0);
}

async fn fetch() -> u64 {
    smol::future::yield_now().await;
    7
}

/// Runs this many tasks on one thread.
fn all<F: Future>(tasks: usize, task: impl Fn() -> F) {
    let executor = smol::LocalExecutor::new();
    let tasks: Vec<_> = (0..tasks).map(|_| executor.spawn(task())).collect();
    smol::block_on(executor.run(async {
        for task in tasks {
            task.await;
        }
    }));
}
