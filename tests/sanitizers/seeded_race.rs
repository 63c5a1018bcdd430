//! A race that the thread sanitizer must find; with an argument, the same behind a lock, where it must not.

use std::cell::UnsafeCell;
use std::sync::{Barrier, Mutex};
use std::thread;

struct Cell(UnsafeCell<u64>);

// SAFETY: none. This is the seeded fault.
unsafe impl Sync for Cell {}

static CELL: Cell = Cell(UnsafeCell::new(0));
static LOCK: Mutex<()> = Mutex::new(());
const THREADS: usize = 4;

fn main() {
    let locked = std::env::args().nth(1).is_some();
    // All must have begun before one ends: else the sanitizer may take one thread for the next.
    let begun = Barrier::new(THREADS);
    let count = || {
        begun.wait();
        for _ in 0..100_000 {
            let _guard = locked.then(|| LOCK.lock());
            // SAFETY: none, if it is not locked.
            unsafe { *CELL.0.get() += 1 };
        }
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(&count);
        }
    });
    // SAFETY: all threads have ended.
    println!("{}", unsafe { *CELL.0.get() });
}
