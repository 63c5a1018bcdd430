//! Sharing a key: any number of readers, or at most n holders at once.

use core::future::Future;
use core::hash::{BuildHasher, Hash};

use crate::claim::{Acquire, claim_now};
use crate::guard::Guard;
use crate::hash::RandomState;
use crate::mutex::{Borrowed, KeyedMutex};
use crate::table::Shards;

/// Holds a key of a borrowed [`KeyedMutex`] shared. Dropping it gives the share back.
///
/// Other shared holders may hold the key at the same time, up to the limit of
/// [`with_max_shared`](KeyedMutex::with_max_shared), but no exclusive holder may. At the limit, a guard that is dropped
/// gives its share to a shared waiter at the head of the queue. When the last guard is dropped, the key is handed over
/// to the first waiter, or its entry is removed. Otherwise it behaves like [`KeyedMutexGuard`](crate::KeyedMutexGuard).
///
/// It cannot be upgraded: two holders that tried to at the same time would deadlock. Drop it, lock the key exclusively,
/// and check again what the key guards: it may have changed in between.
pub type KeyedMutexSharedGuard<'a, K, S = RandomState> = Guard<Borrowed<'a, K, S>, true>;

impl<K> KeyedMutex<K> {
    /// Creates a mutex that grants at most `n` shared locks per key at a time: a semaphore for each key.
    ///
    /// [`lock`](Self::lock) still locks a key exclusively. The other constructors set no limit but `u32::MAX`.
    ///
    /// # Panics
    ///
    /// If `n` is 0; at compile time where this is a constant.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// static REQUESTS: KeyedMutex<&str> = KeyedMutex::with_max_shared(2);
    ///
    /// let (first, second) = (REQUESTS.try_lock_shared("example.org"), REQUESTS.try_lock_shared("example.org"));
    /// assert!(first.is_some() && second.is_some());
    /// assert!(REQUESTS.try_lock_shared("example.org").is_none()); // two at a time
    /// ```
    #[must_use]
    #[doc(alias("semaphore", "limit", "permits", "rate"))]
    pub const fn with_max_shared(n: u32) -> Self {
        Self::with_max_shared_and_hasher(n, RandomState)
    }
}

impl<K, S> KeyedMutex<K, S> {
    /// Like [`with_max_shared`](KeyedMutex::with_max_shared), with the given hasher.
    ///
    /// # Panics
    ///
    /// If `n` is 0; at compile time where this is a constant.
    #[must_use]
    pub const fn with_max_shared_and_hasher(n: u32, hasher: S) -> Self {
        assert!(n > 0, "`n` must be greater than zero");
        Self { shards: Shards::new(n), hasher }
    }
}

impl<K: Eq + Hash, S: BuildHasher> KeyedMutex<K, S> {
    /// Locks a key shared, together with other shared holders, waiting for it if necessary.
    ///
    /// Shared and exclusive waiters wait in one FIFO queue. Shared waiters that are next to each other in it are
    /// granted the key together, up to the limit of [`with_max_shared`](KeyedMutex::with_max_shared). A shared lock
    /// does not barge in: it waits behind an exclusive waiter, even if it could share the key with its present holders.
    /// So neither kind can starve the other.
    ///
    /// # Deadlocks
    ///
    /// A task that takes a second shared lock of the same key can deadlock: an exclusive waiter may be queued in
    /// between.
    ///
    /// # Cancel safety
    ///
    /// The same as for [`lock`](Self::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// # smol::block_on(async {
    /// let mutex = KeyedMutex::new();
    /// let (one, two) = (mutex.lock_shared("page").await, mutex.lock_shared("page").await);
    /// assert!(mutex.try_lock("page").is_none());
    /// drop((one, two));
    /// assert!(mutex.try_lock("page").is_some());
    /// # });
    /// ```
    #[doc(alias("read", "lock_read", "rwlock", "semaphore", "permit", "acquire"))]
    pub fn lock_shared(&self, key: K) -> impl Future<Output = KeyedMutexSharedGuard<'_, K, S>> + Unpin {
        Acquire::new(self, key)
    }

    /// Locks a key shared if that is possible at once. Returns `None` if the key is locked exclusively, has waiters, or
    /// is at its limit.
    #[must_use = "bind the guard to a name such as `_guard`; `let _ =` unlocks at once"]
    #[doc(alias("try_read", "try_acquire"))]
    pub fn try_lock_shared(&self, key: K) -> Option<KeyedMutexSharedGuard<'_, K, S>> {
        claim_now(self, key)
    }
}
