//! One shard: a part of the table, and the lock that guards it. The features decide which kind of lock that is; only this
//! file depends on that choice:
//!
//! | features | a shard is guarded by | an interrupt handler may |
//! | --- | --- | --- |
//! | `critical-section` (with or without `std`) | a critical section | lock, unlock, query, and drop guards |
//! | `std` | the standard library's mutex | not applicable |
//! | neither | a spin lock | not touch the mutex: it could spin forever on what it interrupted |
//!
//! A lock is used with a closure, because a critical section has no guard to return. None of the three is poisoned by a
//! panic: the only user code that runs inside is `Eq`, `Borrow`, and the closures of `ticket_if` and
//! `for_each_locked`, before anything has changed. What is owed to other user code is settled after it.

use core::task::{Poll, Waker};
use core::{iter, mem};

use super::guarded::{Change, Owed, Place, Table};
use super::queue::{List, NONE, State, Turn};
use super::slot::Slot;
use super::wake::each;

#[cfg(all(async_mutex_lite_loom, not(all(feature = "std", feature = "_loom", not(feature = "critical-section")))))]
compile_error!(
    "`cfg(async_mutex_lite_loom)` is for this crate's own model checker, which stands in for the threads of `std`"
);

#[cfg(feature = "critical-section")]
type Lock<T> = critical_section::Mutex<core::cell::RefCell<T>>;
#[cfg(all(feature = "std", not(feature = "critical-section"), not(async_mutex_lite_loom)))]
type Lock<T> = std::sync::Mutex<T>;
#[cfg(all(feature = "std", not(feature = "critical-section"), async_mutex_lite_loom))]
type Lock<T> = loom::sync::Mutex<T>;
#[cfg(not(any(feature = "std", feature = "critical-section")))]
type Lock<T> = spin::Mutex<T>;

/// A part of the table, behind a lock of its own. With `std`, on cache lines of its own, two of them: processors fetch
/// them in pairs.
#[cfg_attr(all(feature = "std", not(feature = "critical-section")), repr(align(128)))]
#[allow(missing_debug_implementations, reason = "it cannot be named outside")]
pub struct Shard<K>(Lock<Table<K>>);

impl<K> Shard<K> {
    #[cfg(not(async_mutex_lite_loom))]
    pub(crate) const fn new(kept: usize) -> Self {
        let table = Table::new(kept);
        #[cfg(feature = "critical-section")]
        let table = core::cell::RefCell::new(table);
        Self(Lock::new(table))
    }

    #[cfg(async_mutex_lite_loom)]
    pub(crate) fn new(kept: usize) -> Self {
        Self(Lock::new(Table::new(kept)))
    }

    /// Runs `work` under the lock.
    #[inline]
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Table<K>) -> R) -> R {
        #[cfg(any(async_mutex_lite_check, async_mutex_lite_loom))]
        let work = |table: &mut Table<K>| {
            let result = work(table);
            table.check();
            result
        };
        #[cfg(feature = "critical-section")]
        return critical_section::with(|section| work(&mut self.0.borrow_ref_mut(section)));
        #[cfg(all(feature = "std", not(feature = "critical-section")))]
        return work(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        #[cfg(not(any(feature = "std", feature = "critical-section")))]
        return work(&mut self.0.lock());
    }

    /// Is ready when a claim has been granted or stopped: its place says which. Otherwise it stores this waker, to be
    /// called when that happens.
    #[inline]
    pub(crate) fn poll(&self, place: &mut Place, waker: &Waker) -> Poll<()> {
        let Some(node) = place.turn.node() else { return Poll::Ready(()) };
        match self.with(|table| table.nodes.take_turn(node).map_err(|own| own.will_wake(waker))) {
            Ok(turn) => place.turn = turn,
            Err(true) => return Poll::Pending,
            Err(false) => return self.poll_with_another(place, node, waker),
        }
        Poll::Ready(())
    }

    /// The same, with a waker that differs from the stored one. It is cloned outside the lock, so the state must be
    /// checked again.
    #[cold]
    fn poll_with_another(&self, place: &mut Place, node: u32, waker: &Waker) -> Poll<()> {
        let mut spare = waker.clone();
        match self.with(|table| table.nodes.take_turn(node).map_err(|own| mem::swap(own, &mut spare))) {
            Ok(turn) => place.turn = turn, // before `spare` is dropped, which may panic
            Err(()) => return Poll::Pending,
        }
        Poll::Ready(())
    }

    #[inline]
    pub(crate) fn give_up(&self, place: &Place) {
        match self.with(|table| table.give_up(place)) {
            Owed::Key(key) => drop(key),
            other => self.settle(other),
        }
    }

    /// Returns whether a claim has been granted.
    pub(crate) fn is_granted(&self, turn: Turn) -> bool {
        match turn.node() {
            None => turn == Turn::GRANTED,
            Some(node) => self.with(|table| table.nodes.node(node).state == State::Granted),
        }
    }

    /// Changes the state of a key: see [`Table::change`].
    pub(crate) fn change(&self, place: Place, change: Change) {
        self.settle(self.with(|table| table.change(place.hash, place.id, change)));
    }

    /// Stops the waiters of the key whose slot `is` finds, and returns how many.
    pub(crate) fn stop(&self, hash: u32, is: &mut dyn FnMut(&Slot<K>) -> bool) -> usize {
        let mut batch = List::EMPTY;
        let stopped =
            self.with(|Table { slots, nodes, .. }| slots.find(hash, is).map_or(0, |slot| slot.stop(nodes, &mut batch)));
        self.wake(batch.head);
        stopped
    }

    fn settle(&self, owed: Owed<K>) {
        match owed {
            Owed::Key(key) => drop(key),
            Owed::Waker(waker, call) => settle_waker((waker, call)),
            Owed::Batch(wake, first, key) => {
                wake(self, first);
                drop(key);
            }
            Owed::Nothing => {}
        }
    }

    /// Calls the wakers of a batch, in FIFO order.
    pub(crate) fn wake(&self, mut batch: u32) {
        let next = || if batch == NONE { None } else { self.with(|table| table.nodes.unchain(&mut batch)) };
        each(&mut iter::from_fn(next), settle_waker);
    }

    /// Wakes the waiters that [`Table::stop_all`] has stopped.
    pub(crate) fn wake_stopped(&self) {
        self.wake(self.with(|table| mem::replace(&mut table.stopped, List::EMPTY).head));
    }
}

/// Calls a waker, or drops it if nobody waits any more.
#[inline]
fn settle_waker((waker, call): (Waker, bool)) {
    if call {
        waker.wake();
    }
}
