//! Plain memory behind the keys of a `KeyedMutex`. tests/race.rs counts with atomics, which are never a data
//! race; this would be one if a lock let two in, or did not make what the one before wrote visible.

use std::cell::UnsafeCell;
use std::thread;

use async_mutex_lite::KeyedMutex;
use futures_lite::future::{block_on, or, yield_now};

const THREADS: usize = 4;
const OPERATIONS: usize = if cfg!(miri) { 10 } else { 100_000 };
const KEYS: usize = 3;

struct Cell(UnsafeCell<u64>);

// SAFETY: a cell is only used by the holder of its key.
unsafe impl Sync for Cell {}

static MUTEX: KeyedMutex<usize> = KeyedMutex::new();
static CELLS: [Cell; KEYS] = [const { Cell(UnsafeCell::new(0)) }; KEYS];

fn enter(key: usize) {
    // SAFETY: the caller holds the key; if it did not, this is what the sanitizer is to find.
    unsafe { *CELLS[key].0.get() += 1 };
}

fn look(key: usize) {
    // SAFETY: the caller shares the key, so nobody writes; if one did, this is what the sanitizer is to find.
    std::hint::black_box(unsafe { *CELLS[key].0.get() });
}

async fn step() {
    let key = fastrand::usize(..KEYS);
    match fastrand::u8(..10) {
        0 | 1 => {
            let _guard = MUTEX.lock(key).await;
            enter(key);
        }
        2 => {
            if let Some(_guard) = MUTEX.try_lock(key) {
                enter(key);
            }
        }
        3 => {
            let _guard = MUTEX.lock(key).wait();
            enter(key);
        }
        4 => {
            let outcome = MUTEX.run_or_stop(key, async || {
                enter(key);
                if fastrand::u8(..8) == 0 { Err(()) } else { Ok(()) }
            });
            let _ = outcome.await;
        }
        5 => {
            let _guards = MUTEX.lock_many(0..KEYS).await;
            (0..KEYS).for_each(enter);
        }
        6 => {
            let _guard = MUTEX.shared().lock(key).await;
            look(key);
        }
        7 => {
            let guard = MUTEX.lock(key).await;
            enter(key);
            let _guard = guard.downgrade();
            look(key);
        }
        8 => {
            let give_up = async {
                yield_now().await;
                None
            };
            if let Some(_guard) = or(give_up, async { Some(MUTEX.shared().lock(key).await) }).await {
                look(key);
            }
        }
        _ => {
            let ticket = MUTEX.ticket(key);
            let give_up = async {
                yield_now().await;
                None
            };
            if let Some(Ok(_guard)) = or(give_up, async { Some(ticket.await) }).await {
                enter(key);
            }
        }
    }
}

fn main() {
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..OPERATIONS).for_each(|_| block_on(step())));
        }
    });
    assert!(MUTEX.is_empty());
    println!("{} operations on plain memory", THREADS * OPERATIONS);
}
