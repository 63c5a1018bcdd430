//! A static mutex and a heap of 4 KiB: how many keys can be locked at once, how much memory stays in use afterwards,
//! how many more keys there is room for if it is reserved, and what happens when the heap is exhausted.
#![no_std]
#![no_main]

use core::future::Future;
use core::mem::forget;
use core::panic::PanicInfo;
use core::pin::pin;
use core::task::{Context, Waker};

use async_mutex_lite::{Borrowed, Guard, KeyedMutex};
use firmware::{Heap, exit, machine, println};
use portable_atomic::{AtomicU32, Ordering::Relaxed};
use static_cell::StaticCell;

#[global_allocator]
static HEAP: Heap = Heap::new();

static LOCKS: KeyedMutex<u32> = KeyedMutex::new();
static FITTED: AtomicU32 = AtomicU32::new(0);

const SIZE: usize = 4096;

/// This number must fit. Beyond 28 the table doubles, and the heap has no room for the new one beside the old one, and
/// the gaps that smaller ones have left.
const KEYS: usize = 24;

/// If room for this number of keys is reserved, they can be locked any number of times, each with a waiter; the first
/// time, twice this number can, without waiters.
const RESERVED: usize = 28;

#[machine::entry]
fn main() -> ! {
    static MEMORY: StaticCell<[u8; SIZE]> = StaticCell::new();
    HEAP.init(&MEMORY);
    let mut guards: [Option<Guard<Borrowed<'_, u32>>>; KEYS] = [const { None }; KEYS];
    for (key, guard) in (0..).zip(&mut guards) {
        *guard = LOCKS.try_lock(key);
        assert!(guard.is_some());
    }
    println!("{} keys locked: {} of {SIZE} bytes in use", LOCKS.len(), HEAP.used());
    drop(guards);
    assert!(LOCKS.is_empty());
    println!("no key locked: {} bytes in use, {} at the peak", HEAP.used(), HEAP.peak());

    LOCKS.reserve(RESERVED, RESERVED);
    let reserved = HEAP.used();
    let mut guards: [Option<Guard<Borrowed<'_, u32>>>; 2 * RESERVED] = [const { None }; 2 * RESERVED];
    for (key, guard) in (0..).zip(&mut guards) {
        *guard = LOCKS.try_lock(key);
    }
    assert_eq!(HEAP.used(), reserved);
    drop(guards);
    for round in 0..1_000 {
        let mut guards: [Option<Guard<Borrowed<'_, u32>>>; RESERVED] = [const { None }; RESERVED];
        for (key, guard) in (round * 7..).zip(&mut guards) {
            *guard = LOCKS.try_lock(key);
            let mut wait = pin!(LOCKS.lock(key));
            assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        assert_eq!(HEAP.used(), reserved);
    }
    println!("room for {RESERVED} keys: {reserved} bytes in use, no more with {} locked at first,", 2 * RESERVED);
    println!("nor with {RESERVED} locked, each with a waiter, in 1,000 rounds, with other keys in each round");

    for key in 0.. {
        forget(LOCKS.try_lock(key).expect("nothing else locks"));
        FITTED.store(key + 1, Relaxed);
    }
    unreachable!("the heap has an end");
}

/// Without `std`, an allocation that fails is a panic, and a panic does not return. The key that found no
/// room is not locked, and all others are as they were; but a handler that does not want to halt must restart.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let fitted = FITTED.load(Relaxed);
    println!("{fitted} keys fitted; then: {}", info.message());
    let as_foretold = HEAP.is_exhausted() && fitted as usize >= RESERVED;
    exit(if as_foretold { 0 } else { 1 })
}
