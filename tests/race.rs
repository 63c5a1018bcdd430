//! Threads that race for few keys and give up at random: no overlap, no hang, nothing left behind.

mod common;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread;

use async_mutex_lite::KeyedMutex;
use common::Cell;
use futures_lite::future::{block_on, or, yield_now};

/// Behind a spin lock, four threads on two processors spin until the one that has it is scheduled again.
const OPERATIONS: usize = if cfg!(any(feature = "std", feature = "critical-section")) { 2_000_000 } else { 200_000 };
const THREADS: usize = 4;
const KEYS: usize = 3;

#[derive(Default)]
struct Cells([Cell; KEYS]);

impl Cells {
    fn inside(&self, key: usize) {
        let _inside = self.0[key].enter();
        linger(key);
    }

    fn beside_others(&self, key: usize) {
        let _inside = self.0[key].share();
        linger(key);
    }
}

fn linger(key: usize) {
    std::hint::black_box(key);
    if fastrand::u8(..) < 8 {
        thread::yield_now();
    }
}

/// Gives up after a few turns of the executor.
async fn for_a_while<T>(work: impl Future<Output = T>) -> Option<T> {
    let give_up = async {
        for _ in 0..fastrand::u8(..6) {
            yield_now().await;
        }
        None
    };
    or(give_up, async { Some(work.await) }).await
}

#[test]
fn operations_on_four_threads_with_random_cancellation() {
    // A thread that fails leaves the others waiting forever: end the whole test at once.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    let mutex: KeyedMutex<usize> = KeyedMutex::new();
    let cells = Cells::default();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..OPERATIONS / THREADS {
                    block_on(step(&mutex, &cells));
                }
            });
        }
    });
    assert!(mutex.is_empty());
}

async fn step(mutex: &KeyedMutex<usize>, cells: &Cells) {
    let key = fastrand::usize(..KEYS);
    match fastrand::u8(..13) {
        0 | 1 => {
            let _guard = mutex.lock(key).await;
            cells.inside(key);
        }
        2 => {
            if let Some(_guard) = mutex.try_lock(key) {
                cells.inside(key);
            }
        }
        #[cfg(feature = "std")]
        3 => {
            let _guard = mutex.lock(key).wait();
            cells.inside(key);
        }
        4 => {
            let _ = mutex.run(key, async || cells.inside(key)).await;
        }
        5 => {
            let outcome = mutex.run_or_stop(key, async || {
                cells.inside(key);
                if fastrand::u8(..10) == 0 { Err(()) } else { Ok(()) }
            });
            let _ = outcome.await;
        }
        6 => {
            // Polled once, then dropped: waiting, given the key in the meantime, or holding it.
            let mut lock = pin!(mutex.lock(key));
            if let Poll::Ready(_guard) = lock.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                cells.inside(key);
            }
        }
        7 => {
            // Polled again and again while others come and go, then dropped.
            if let Some(_guard) = for_a_while(mutex.lock(key)).await {
                cells.inside(key);
            }
        }
        8 => {
            let work = mutex.run_or_stop(key, async || {
                cells.inside(key);
                yield_now().await;
                cells.inside(key);
                Ok::<_, ()>(())
            });
            let _ = for_a_while(work).await;
        }
        9 => {
            let _guard = mutex.shared().lock(key).await;
            cells.beside_others(key);
        }
        10 => {
            if let Some(_guard) = for_a_while(mutex.shared().lock(key)).await {
                cells.beside_others(key);
            }
        }
        11 => {
            let guard = mutex.lock(key).await;
            cells.inside(key);
            let _guard = guard.downgrade();
            cells.beside_others(key);
        }
        _ => {
            assert!(mutex.state(&key).waiting < THREADS);
            let _ = mutex.is_locked(&key);
            let _ = mutex.len();
        }
    }
}
