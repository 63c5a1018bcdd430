//! Threads and executors that use a few keys for as long as they are asked to, and give up at random: two are
//! never inside, none sleeps forever, and memory stays flat. By command: `.ci/soak`.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use async_mutex_lite::{KeyedMutex, RandomState};
use futures_lite::future::{or, yield_now};

#[path = "../common/mod.rs"]
mod common;
#[path = "../model/mod.rs"]
mod model;

use common::{Cell, Inside};
use model::driver::{OneForAll, run};
use model::script::Script;

const KEYS: usize = 7;

/// Locked keys and, for each, a cell that must be free when it is entered, or have shared holders only.
#[derive(Default)]
struct World {
    mutex: KeyedMutex<usize>,
    inside: [Cell; KEYS],
    done: AtomicU64,
}

impl World {
    fn enter(&self, key: usize) -> Inside<'_> {
        self.inside[key].enter()
    }

    fn share(&self, key: usize) -> Inside<'_> {
        self.inside[key].share()
    }
}

/// A few polls, then over: what races against this is cancelled somewhere on its way.
async fn a_while<T>() -> Option<T> {
    for _ in 0..fastrand::u8(..5) {
        yield_now().await;
    }
    None
}

async fn step(world: &World) {
    let mutex = &world.mutex;
    let key = fastrand::usize(..KEYS);
    let work = async || {
        let inside = world.enter(key);
        if fastrand::u8(..4) == 0 {
            yield_now().await;
        }
        drop(inside);
        if fastrand::u8(..8) == 0 { Err(()) } else { Ok(()) }
    };
    match fastrand::u8(..16) {
        0 | 1 => {
            let _guard = mutex.lock(key).await;
            let _ = work().await;
        }
        2 => {
            if let Some(_guard) = mutex.try_lock(key) {
                let _ = work().await;
            }
        }
        3 => drop(mutex.run(key, work).await),
        4 => drop(mutex.run_or_stop(key, work).await),
        5 => drop(or(a_while(), async { Some(mutex.run_or_stop(key, work).await) }).await),
        6 => {
            if let Some(_guard) = or(a_while(), async { Some(mutex.lock(key).await) }).await {
                let _ = work().await;
            }
        }
        7 => {
            // Polled once and dropped: a waiter, or one that got the key in the meantime.
            let mut lock = pin!(mutex.lock(key));
            if let Poll::Ready(_guard) = lock.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                drop(world.enter(key));
            }
        }
        8 => {
            let ticket = mutex.ticket(key);
            yield_now().await;
            let _ = or(a_while(), async { Some(ticket.run(work).await) }).await;
        }
        9 => {
            if let Some(ticket) = mutex.ticket_if(key, |now| now.holders + now.waiting < 3) {
                if let Ok(guard) = ticket.await {
                    drop(world.enter(key));
                    if fastrand::u8(..4) == 0 {
                        guard.stop();
                    }
                }
            }
        }
        10 => {
            let other = fastrand::usize(..KEYS);
            if let Some(_guards) = or(a_while(), async { Some(mutex.lock_many([key, other]).await) }).await {
                drop((world.enter(key), (other != key).then(|| world.enter(other))));
            }
        }
        11 | 12 => {
            let _share = mutex.shared().lock(key).await;
            let inside = world.share(key);
            yield_now().await;
            drop(inside);
        }
        13 => {
            if let Some(_share) = or(a_while(), async { Some(mutex.shared().lock(key).await) }).await {
                drop(world.share(key));
            }
        }
        14 => {
            let guard = mutex.lock(key).await;
            drop(world.enter(key));
            let _share = guard.downgrade();
            let inside = world.share(key);
            yield_now().await;
            drop(inside);
            #[cfg(feature = "idle")]
            or(a_while(), async {
                mutex.idle(&key).await;
                None::<()>
            })
            .await;
        }
        _ => {
            if let Ok(_guard) = mutex.lock(key).unless(a_while::<()>()).await {
                drop(world.enter(key));
            }
            if fastrand::u8(..) == 0 {
                mutex.stop_all();
            }
            mutex.stop(&key);
            let _ = (mutex.state(&key).waiting, mutex.is_locked(&key), mutex.len());
        }
    }
    world.done.fetch_add(1, Relaxed);
}

async fn steps(world: Arc<World>, until: u64) {
    while world.done.load(Relaxed) < until {
        step(&world).await;
        // A task that never returns pending would keep the others from running.
        if fastrand::u8(..16) == 0 {
            yield_now().await;
        }
    }
}

/// Scripts on one thread, beside the reference model.
fn scripts(until: &dyn Fn() -> bool) -> u64 {
    let mut count = 0;
    let mut bytes = vec![0; 300];
    while !until() {
        bytes.fill_with(|| fastrand::u8(..));
        let script = Script::arbitrary(&mut Unstructured::new(&bytes)).expect("any bytes are a script");
        let outcome = if fastrand::bool() { run::<RandomState>(&script) } else { run::<OneForAll>(&script) };
        if let Err(difference) = outcome {
            panic!("{difference}");
        }
        count += script.ops.len() as u64;
    }
    count
}

/// Memory in use, in pages.
fn resident() -> Option<u64> {
    std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()
}

fn soak(operations: u64) {
    // A thread that fails leaves the others waiting forever: end the whole test at once.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));

    const TASKS: usize = 8;
    let world = Arc::new(World::default());
    let started = Instant::now();
    let mut pages = Vec::new();
    let mut checked = 0;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let world = world.clone();
            scope.spawn(|| futures_lite::future::block_on(steps(world, operations)));
        }
        let (smol, tokio, async_std) = (world.clone(), world.clone(), world.clone());
        scope.spawn(move || {
            let tasks: Vec<_> = (0..TASKS).map(|_| smol::spawn(steps(smol.clone(), operations))).collect();
            tasks.into_iter().for_each(smol::block_on);
        });
        scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
            let tasks: Vec<_> = (0..TASKS).map(|_| runtime.spawn(steps(tokio.clone(), operations))).collect();
            tasks.into_iter().for_each(|task| runtime.block_on(task).expect("a task panicked"));
        });
        scope.spawn(move || {
            let spawn = |_| async_std::task::spawn(steps(async_std.clone(), operations));
            let tasks: Vec<_> = (0..TASKS).map(spawn).collect();
            tasks.into_iter().for_each(async_std::task::block_on);
        });
        // This thread looks on, and tries scripts a tenth of the time.
        let interval = operations.div_ceil(20);
        let mut next = interval;
        let (mut last, mut moved) = (0, Instant::now());
        while next <= operations {
            checked += scripts(&|| fastrand::u8(..) == 0);
            std::thread::sleep(Duration::from_millis(20));
            let done = world.done.load(Relaxed);
            if done > last {
                (last, moved) = (done, Instant::now());
            }
            assert!(moved.elapsed() < Duration::from_secs(60), "all sleep after {done} operations");
            if done >= next {
                let page = resident().unwrap_or_default();
                println!("{:>7.1} s  {done:>12} operations  {page:>7} pages resident", started.elapsed().as_secs_f64());
                pages.push(page);
                next = (done / interval + 1) * interval;
            }
        }
    });
    assert!(world.mutex.is_empty(), "an entry is left behind");
    println!("and {checked} operations of scripts beside the reference model");

    // Flat: the most of the second half is not above the most of the first by more than the allocators of
    // so many threads may keep for themselves. A short run ends while they still warm up, and may see one sample only.
    const SLACK: u64 = 256;
    if operations < 10_000_000 {
        return;
    }
    let (early, late) = pages.split_at(pages.len() / 2);
    let most = |pages: &[u64]| pages.iter().copied().max().unwrap_or_default();
    assert!(most(late) <= most(early) + SLACK, "memory grows: {pages:?}");
}

#[test]
fn threads_and_executors_that_give_up_at_random_leave_nothing_behind() {
    let operations = std::env::var("SOAK").map_or(200_000, |text| text.parse().expect("a number of operations"));
    soak(operations);
}
