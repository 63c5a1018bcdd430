//! Guards: granted claims, which unlock their keys when they are dropped.

use alloc::vec::Vec;
use core::iter;

use crate::claim::{Claim, Handle, print_name};
use crate::table::{Change, Turn, each};

/// Holds a key, exclusively or shared. Dropping it unlocks the key, or gives the share back.
///
/// `H` is how it has the mutex: `Guard<Borrowed<'_, K>>` borrows it, `Guard<Arc<KeyedMutex<K>>>` owns an `Arc` of it.
///
/// Unlocking hands the key over to the first waiter in its queue, if there is one; otherwise it removes the key's
/// entry. It neither hashes nor compares keys. It does not panic, unless the key's own `Drop` or a waker that it calls
/// does; even then the key is unlocked. Such a waker runs before the `drop` of the guard returns.
///
/// A guard may be sent to another thread and dropped there. A leaked guard ([`mem::forget`](core::mem::forget)) keeps
/// its key locked forever; other keys are unaffected.
#[must_use = "bind it to a name such as `_guard`; `let _ =` unlocks at once"]
#[clippy::has_significant_drop]
#[doc(alias("release", "unlock", "permit", "KeyedMutexSharedGuard", "KeyedMutexSharedGuardArc"))]
pub struct Guard<H: Handle>(pub(crate) Claim<H>);

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
        self.0.place.turn = Turn::STOPPED; // nothing is left to be given up
        self.0.shard().change(self.0.place, Change::StopAndUnlock);
    }

    /// Atomically downgrades an exclusive lock to a shared one. A lock that is shared already stays as it is.
    ///
    /// The key is not free in between. The shared waiters at the head of the queue are granted the key, as far as the
    /// limit of each allows. There is no way back: a shared lock cannot be upgraded.
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
    /// assert!(mutex.shared().try_lock("page").is_some());
    /// # drop(reader);
    /// # });
    /// ```
    pub fn downgrade(self) -> Self {
        self.0.shard().change(self.0.place, Change::Downgrade);
        self
    }
}

/// Holds several keys. Dropping it unlocks them all, even if a waker that is called meanwhile panics.
///
/// It has no `stop`: to stop the waiters of one of its keys, call [`KeyedMutex::stop`](crate::KeyedMutex::stop) before you
/// drop it. ([`run_or_stop`](crate::KeyedMutex::run_or_stop) on a key that it holds deadlocks.)
#[must_use = "bind it to a name such as `_guard`; `let _ =` unlocks at once"]
#[clippy::has_significant_drop]
#[doc(alias("KeyedMutexGuards", "KeyedMutexGuardsArc"))]
pub struct Guards<H: Handle>(pub(crate) Vec<Claim<H>>);

impl<H: Handle> Drop for Guards<H> {
    fn drop(&mut self) {
        each(&mut iter::from_fn(|| self.0.pop()), drop);
    }
}

/// A guard that borrows the mutex.
pub type KeyedMutexGuard<'a, K, S = crate::RandomState> = Guard<crate::Borrowed<'a, K, S>>;

/// A guard that owns an `Arc` of the mutex.
#[cfg(target_has_atomic = "ptr")]
pub type KeyedMutexGuardArc<K, S = crate::RandomState> = Guard<alloc::sync::Arc<crate::KeyedMutex<K, S>>>;

print_name!([H: Handle] Guard<H>);
print_name!([H: Handle] Guards<H>);
