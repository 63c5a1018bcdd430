//! Guards: granted claims, which unlock their keys when they are dropped.

use alloc::vec::Vec;

use crate::claim::{Claim, Claimed, Handle};
use crate::table::{Kind, STOPPED, each};

/// Holds a key. [`KeyedMutexGuard`](crate::KeyedMutexGuard) and its three siblings are aliases of this type.
///
/// `H` is how it refers to the mutex: by a [borrow](crate::Borrowed), or by an `Arc`. With `SHARED`, it is a shared
/// holder.
#[derive(Debug)]
#[must_use = "bind it to a name such as `_guard`; `let _ =` unlocks at once"]
#[clippy::has_significant_drop]
pub struct Guard<H: Handle, const SHARED: bool = false>(pub(crate) Claim<H>);

impl<H: Handle, const SHARED: bool> Claimed<H> for Guard<H, SHARED> {
    const KIND: Kind = Kind { shared: SHARED, stoppable: false };

    fn claimed(claim: Claim<H>) -> Self {
        Self(claim)
    }
}

impl<H: Handle> Guard<H> {
    /// Stops the waiters of the key, and unlocks it. Each [`run`](crate::KeyedMutex::run),
    /// [`run_or_stop`](crate::KeyedMutex::run_or_stop) and ticket that waits for this key at that moment leaves the
    /// queue, is woken, and returns [`Stopped`](crate::Stopped). Plain locks, callers that come later, and waiters of
    /// other keys are not stopped: see [what a stop reaches](crate::KeyedMutex#stopping).
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::{KeyedMutex, Stopped};
    ///
    /// # smol::block_on(async {
    /// let mutex = KeyedMutex::new();
    /// let guard = mutex.lock("order 7").await;
    /// let queued = mutex.ticket("order 7");
    /// guard.stop(); // the order was cancelled
    /// assert_eq!(queued.await.unwrap_err(), Stopped);
    /// assert!(mutex.is_empty());
    /// # });
    /// ```
    pub fn stop(mut self) {
        let Claim { handle, place } = &mut self.0;
        place.node = STOPPED; // nothing is left to be given up
        handle.shard(place.hash).change(*place, &mut |slot, nodes, batch| {
            slot.stop(nodes, batch);
            slot.unlock()
        });
    }

    /// Atomically downgrades to a shared lock, and returns its guard.
    ///
    /// The key is not free in between. The shared waiters at the head of the queue are granted the key, as far as the
    /// limit allows. There is no way back: a shared lock cannot be upgraded.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// # smol::block_on(async {
    /// let mutex = KeyedMutex::new();
    /// let writer = mutex.lock("page").await;
    /// let reader = writer.downgrade(); // no other writer can change the page in between
    /// assert!(mutex.try_lock_shared("page").is_some());
    /// # drop(reader);
    /// # });
    /// ```
    pub fn downgrade(self) -> Guard<H, true> {
        let Claim { handle, place } = &self.0;
        handle.shard(place.hash).change(*place, &mut |slot, _, _| {
            slot.holders = 1;
            false
        });
        Guard(self.0)
    }
}

/// Holds several keys. Dropping it unlocks them all. [`KeyedMutexGuards`](crate::KeyedMutexGuards) is an alias of this
/// type.
#[derive(Debug)]
#[must_use = "bind it to a name such as `_guard`; `let _ =` unlocks at once"]
#[clippy::has_significant_drop]
pub struct Guards<H: Handle>(pub(crate) Vec<Guard<H>>);

impl<H: Handle> Drop for Guards<H> {
    fn drop(&mut self) {
        let mut guards = self.0.drain(..);
        each(&mut || guards.next(), drop);
    }
}
