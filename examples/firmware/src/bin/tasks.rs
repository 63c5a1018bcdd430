//! Tasks of several priorities and an interrupt handler lock the same keys: no two hold a key at once, waiters are
//! granted it in FIFO order, and nothing is left on the heap.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Waker};

use async_mutex_lite::KeyedMutex;
use critical_section::{Mutex, with};
use embassy_executor::{SendSpawner, Spawner};
use embassy_time::Timer;
use firmware::{Heap, exit, exit_on_panic, machine, on_tick, println, until};
use portable_atomic_util::Arc;
use static_cell::StaticCell;

exit_on_panic!();

#[global_allocator]
static HEAP: Heap = Heap::new();

type Locks = Arc<KeyedMutex<u8>>;

const KEYS: u8 = 2;
const ROUNDS: usize = 25;

/// The key for which tasks queue up in `in_order`.
const QUEUE: u8 = 9;

/// What all of them share, the interrupt handler included.
struct Shared {
    locks: RefCell<Option<Locks>>,
    inside: [Cell<bool>; KEYS as usize],
    entered: Cell<usize>,
    entered_by_interrupt: Cell<usize>,
    refused_to_interrupt: Cell<usize>,
    tasks: Cell<usize>,
    enough: Cell<bool>,
    served: RefCell<Vec<char>>,
}

static SHARED: Mutex<Shared> = Mutex::new(Shared {
    locks: RefCell::new(None),
    inside: [const { Cell::new(false) }; KEYS as usize],
    entered: Cell::new(0),
    entered_by_interrupt: Cell::new(0),
    refused_to_interrupt: Cell::new(0),
    tasks: Cell::new(0),
    enough: Cell::new(false),
    served: RefCell::new(Vec::new()),
});

fn shared<R>(look: impl FnOnce(&Shared) -> R) -> R {
    with(|section| look(SHARED.borrow(section)))
}

fn add(counter: &Cell<usize>) {
    counter.set(counter.get() + 1);
}

/// Proof that no other holder has a key.
struct Inside(u8);

impl Inside {
    fn enter(key: u8) -> Self {
        let other = shared(|shared| shared.inside[key as usize].replace(true));
        assert!(!other, "two are inside key {key}");
        Self(key)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        shared(|shared| shared.inside[self.0 as usize].set(false));
    }
}

/// Counts the tasks that have not ended.
struct Alive;

impl Alive {
    fn new() -> Self {
        shared(|shared| add(&shared.tasks));
        Self
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        shared(|shared| shared.tasks.set(shared.tasks.get() - 1));
    }
}

#[embassy_executor::task(pool_size = 6)]
async fn worker(locks: Locks, key: u8, _alive: Alive) {
    for round in 0..ROUNDS {
        let _guard = locks.lock(key).await;
        let _inside = Inside::enter(key);
        shared(|shared| add(&shared.entered));
        Timer::after_ticks(1 + round as u64 % 2).await;
    }
}

/// Runs in the timer interrupt, in the midst of whatever it interrupts.
fn interrupt() {
    let Some(locks) = shared(|shared| shared.locks.borrow().clone()) else { return };
    for key in 0..KEYS {
        if let Some(_guard) = locks.try_lock(key) {
            let _inside = Inside::enter(key);
            shared(|shared| add(&shared.entered_by_interrupt));
        } else {
            shared(|shared| add(&shared.refused_to_interrupt));
        }
    }
}

#[embassy_executor::task(pool_size = 3)]
async fn queues(locks: Locks, name: char, _alive: Alive) {
    let _guard = locks.lock(QUEUE).await;
    shared(|shared| shared.served.borrow_mut().push(name));
}

#[embassy_executor::task]
async fn gives_up(locks: Locks, _alive: Alive) {
    let signal = until("it is told to give up", || shared(|shared| shared.enough.get()));
    assert!(locks.lock(QUEUE).unless(signal).await.is_err(), "the key is held for longer than that");
}

/// Checks that waiters are served in FIFO order, whatever their priorities, and that waiters that leave the queue do
/// not change it.
async fn in_order(locks: &Locks, idle: Spawner, [urgent, ordinary]: [SendSpawner; 2]) {
    let queued = async |count| until("they queue up", || locks.state(&QUEUE).waiting == count).await;
    let guard = locks.lock(QUEUE).await;
    assert!(locks.lock(QUEUE).unless(Timer::after_ticks(2)).await.is_err(), "it is held for longer than that");
    idle.spawn(queues(locks.clone(), 'a', Alive::new()).unwrap());
    queued(1).await;
    {
        let mut never_polled_again = pin!(locks.lock(QUEUE));
        assert!(never_polled_again.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        queued(2).await;
        urgent.spawn(gives_up(locks.clone(), Alive::new()).unwrap());
        queued(3).await;
        ordinary.spawn(queues(locks.clone(), 'b', Alive::new()).unwrap());
        queued(4).await;
        urgent.spawn(queues(locks.clone(), 'c', Alive::new()).unwrap());
        queued(5).await;
        shared(|shared| shared.enough.set(true));
        queued(4).await;
        drop(guard);
        until("the first is served", || shared(|shared| shared.served.borrow().len() == 1)).await;
        assert!(locks.try_lock(QUEUE).is_none(), "the key belongs to the next in the queue");
        Timer::after_ticks(5).await;
        shared(|shared| assert_eq!(*shared.served.borrow(), ['a'], "a waiter was overtaken"));
    }
    until("all are served", || shared(|shared| shared.tasks.get() == 0)).await;
    let served = shared(|shared| shared.served.take());
    assert_eq!(served, ['a', 'b', 'c'], "served in this order");
    println!("order: served {served:?} in FIFO order; one waiter gave up, one was granted the key and dropped");
}

#[embassy_executor::task]
async fn program(idle: Spawner, more_urgent: [SendSpawner; 2]) {
    assert_eq!(HEAP.used(), 0);
    let locks = Arc::new(KeyedMutex::new());
    shared(|shared| shared.locks.replace(Some(locks.clone())));
    on_tick(interrupt);
    for key in 0..KEYS {
        idle.spawn(worker(locks.clone(), key, Alive::new()).unwrap());
        for executor in more_urgent {
            executor.spawn(worker(locks.clone(), key, Alive::new()).unwrap());
        }
    }
    until("the workers end", || shared(|shared| shared.tasks.get() == 0)).await;
    let entered = shared(|shared| shared.entered.get());
    assert_eq!(entered, 3 * KEYS as usize * ROUNDS);
    until("the interrupt finds a free key", || shared(|shared| shared.entered_by_interrupt.get() > 0)).await;
    let refused = shared(|shared| shared.refused_to_interrupt.get());
    assert!(refused > 0, "the interrupt handler never found a key locked");
    println!("exclusion: {KEYS} keys locked {entered} times; the timer interrupt found one locked {refused} times");

    in_order(&locks, idle, more_urgent).await;

    assert!(locks.is_empty());
    on_tick(|| ());
    shared(|shared| shared.locks.take());
    let warm = HEAP.used();
    assert_eq!(Arc::strong_count(&locks), 1, "a task has not ended");
    drop(locks);
    println!("heap: {} bytes at the peak, {warm} with no key locked, {} at the end", HEAP.peak(), HEAP.used());
    assert_eq!(HEAP.used(), 0, "something is left");
    exit(0);
}

#[machine::entry]
fn main() -> ! {
    static MEMORY: StaticCell<[u8; 4096]> = StaticCell::new();
    HEAP.init(&MEMORY);
    let more_urgent = machine::start();
    machine::run(|idle| idle.spawn(program(idle, more_urgent).unwrap()))
}
