//! The clock of embassy-time: a timer interrupt each millisecond, which wakes the tasks that are due.

use core::cell::{Cell, RefCell};
use core::task::Waker;

use critical_section::{Mutex, with};
use embassy_time::Timer;
use embassy_time_driver::Driver;
use embassy_time_queue_utils::Queue;

struct Clock {
    now: Mutex<Cell<u64>>,
    queue: Mutex<RefCell<Queue>>,
    also: Mutex<Cell<fn()>>,
}

embassy_time_driver::time_driver_impl!(static CLOCK: Clock = Clock {
    now: Mutex::new(Cell::new(0)),
    queue: Mutex::new(RefCell::new(Queue::new())),
    also: Mutex::new(Cell::new(|| ())),
});

impl Driver for Clock {
    fn now(&self) -> u64 {
        with(|section| self.now.borrow(section).get())
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        with(|section| self.queue.borrow_ref_mut(section).schedule_wake(at, waker));
    }
}

/// What the machine's timer interrupt calls.
pub(crate) fn tick() {
    let also = with(|section| {
        let now = CLOCK.now.borrow(section).get() + 1;
        CLOCK.now.borrow(section).set(now);
        CLOCK.queue.borrow_ref_mut(section).next_expiration(now);
        CLOCK.also.borrow(section).get()
    });
    also();
}

/// Makes the timer interrupt call `work` at each tick from now on.
pub fn on_tick(work: fn()) {
    with(|section| CLOCK.also.borrow(section).set(work));
}

/// Waits until a condition holds, and panics if that takes too long.
pub async fn until(what: &str, so: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if so() {
            return;
        }
        Timer::after_ticks(1).await;
    }
    panic!("waited too long: {what}");
}
