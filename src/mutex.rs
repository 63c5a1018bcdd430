//! The public type.

use core::borrow::Borrow;
use core::fmt;
use core::future::Future;
use core::hash::{BuildHasher, Hash};
use core::panic::{RefUnwindSafe, UnwindSafe};

use futures_lite::future::or;

use crate::KeyedMutexGuard;
use crate::claim::Claim;
use crate::hash::RandomState;
use crate::table::Table;

/// An async mutex by key.
///
/// Tasks with the same key run one after another, first come first served. Tasks with different keys run
/// at the same time. A key that nobody holds or waits for has no entry, and takes no memory.
///
/// ```
/// use async_mutex_lite::KeyedMutex;
///
/// static ACCOUNTS: KeyedMutex<u64> = KeyedMutex::new();
///
/// # async fn read_balance(_: u64) -> i64 { 100 }
/// # async fn write_balance(_: u64, _: i64) {}
/// async fn charge(user: u64, amount: i64) {
///     let _guard = ACCOUNTS.lock(user).await;
///     let balance = read_balance(user).await;
///     write_balance(user, balance - amount).await; // nobody else is between these two lines
/// }
/// # smol::block_on(charge(1, 10));
/// # assert!(ACCOUNTS.is_empty());
/// ```
///
/// # Fairness
///
/// First polled, first served, for each key, whatever mix of [`lock`](Self::lock),
/// [`lock_arc`](Self::lock_arc), [`lock_blocking`](Self::lock_blocking), [`run`](Self::run) and
/// [`run_or_stop`](Self::run_or_stop) waits. The key is *handed over*: from the moment of an unlock it
/// belongs to the next in the queue, so neither a newcomer nor [`try_lock`](Self::try_lock) can slip in
/// before that one is polled. One unlock wakes one waiter, with the waker of its last poll.
///
/// A waiter that has been given the key and is not polled any more, nor dropped, holds the queue up, just
/// as a guard does. That happens to futures kept in a `select!` loop or a `join` whose task does something
/// else ("futurelock"): poll them, spawn them, or drop them.
///
/// # Cancellation
///
/// Every future may be dropped in any state, and nothing is lost. Never polled: nothing happened. Waiting:
/// the others keep their order. Already given the key, but not polled since: the next gets it at once.
/// (Forgetting a future is different: what it has or waits for stays claimed.)
///
/// # Deadlocks
///
/// Locking a key again in the task that holds it waits for ever, as with any mutex:
///
/// ```
/// # use async_mutex_lite::KeyedMutex;
/// let mutex = KeyedMutex::new();
/// let guard = mutex.try_lock("alice").unwrap();
/// assert!(mutex.try_lock("alice").is_none()); // `lock("alice").await` would wait for ever
/// assert!(mutex.try_lock("bob").is_some());
/// # drop(guard);
/// ```
///
/// So do two tasks that hold a key each and wait for the other's: lock several keys in one order, the
/// same everywhere.
///
/// # Panics, and the user's own code
///
/// A task that panics unlocks its key, and the mutex is never poisoned. `Hash`, wakers and the key's
/// `Drop` run outside the locks of this crate, and may use the mutex themselves. `Eq` runs under the
/// lock of a part of the table: it must not touch the mutex. A panic in any of them is
/// passed on, or, from a waker, caught and left to the panic hook; it corrupts nothing. (Wakers run under
/// the list lock of event-listener, one for each key: a waker must not drop or poll, there and then, a
/// future that waits for that same key. Without `std` a waker that panics is not contained.)
///
/// # Memory
///
/// An entry of the table for each busy key, which holds its `K` and some 40 bytes; two small allocations
/// for a key that somebody waits for; with `std`, one of 32 bytes for a waiter, of which each thread keeps
/// up to 64 for the next. Locking a free key allocates nothing, once the table is warm. After a burst the
/// table gives its memory back by itself; without `std`, when it is empty. With `std` the table is
/// made at first use, in shards, about sixteen for each processor.
///
/// # Without `std`
///
/// Everything above holds, except where it says otherwise; there is no blocking, and
/// [`RandomState`] has little to be random from.
pub struct KeyedMutex<K, S = RandomState> {
    pub(crate) table: Table<K>,
    hasher: S,
}

impl<K> KeyedMutex<K> {
    /// Creates a mutex in which no key is locked. Allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_hasher(RandomState)
    }
}

impl<K, S> KeyedMutex<K, S> {
    /// Creates a mutex that hashes its keys with the given hasher.
    #[must_use]
    pub const fn with_hasher(hasher: S) -> Self {
        Self { table: Table::new(), hasher }
    }

    /// Returns how many keys are busy: held or waited for.
    ///
    /// Other threads may lock and unlock while this counts; the figure is exact when none does.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Returns whether no key is busy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Eq + Hash, S: BuildHasher> KeyedMutex<K, S> {
    /// Locks a key, waiting for it if need be, and returns a guard that unlocks it when dropped.
    ///
    /// The place in the queue is taken at the first poll. `key` is dropped as soon as it is not needed:
    /// at the first poll if the key is busy, else when it is unlocked.
    ///
    /// # Cancellation
    ///
    /// If it was never polled, nothing happens. If it was still waiting, the others keep their order. If
    /// it had been given the key, the next in the queue gets it.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// # smol::block_on(async {
    /// let mutex = KeyedMutex::new();
    /// let guard = mutex.lock("alice").await;
    /// assert!(mutex.is_locked("alice"));
    /// drop(guard);
    /// assert!(mutex.is_empty());
    /// # });
    /// ```
    #[doc(alias("acquire", "async_lock", "wait"))]
    pub fn lock(&self, key: K) -> impl Future<Output = KeyedMutexGuard<'_, K, S>> {
        Claim::acquire(self, key, false, KeyedMutexGuard)
    }

    /// Locks a key if it is free: if nobody holds it or waits for it.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// static JOBS: KeyedMutex<&str> = KeyedMutex::new();
    ///
    /// match JOBS.try_lock("nightly report") {
    ///     Some(_guard) => { /* nobody else is at it */ }
    ///     None => { /* it is being done already */ }
    /// }
    /// ```
    pub fn try_lock(&self, key: K) -> Option<KeyedMutexGuard<'_, K, S>> {
        Claim::free(self, key).map(KeyedMutexGuard)
    }

    /// Like [`lock`](Self::lock), but blocks the thread.
    ///
    /// It waits in the same queue. Not for use in async code, where it would block the executor, and may
    /// wait for a task that this very thread should run.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// let mutex = KeyedMutex::new();
    /// let guard = mutex.lock_blocking("alice");
    /// # drop(guard);
    /// ```
    #[cfg(all(feature = "std", not(target_family = "wasm")))]
    pub fn lock_blocking(&self, key: K) -> KeyedMutexGuard<'_, K, S> {
        KeyedMutexGuard(Claim::block(self, key))
    }

    /// Locks a key, or gives up as soon as `signal` is ready: a timer, a shutdown, a closed connection.
    ///
    /// A free key wins over a signal that has fired. What ends is the wait: how long the key is held after
    /// that is the holder's own affair, and no signal of somebody else takes it away.
    ///
    /// | to give up | signal |
    /// | --- | --- |
    /// | after a time, on smol | `smol::Timer::after(timeout)` |
    /// | after a time, on async-std | `async_std::task::sleep(timeout)` |
    /// | after a time, on tokio | `tokio::time::sleep(timeout)` |
    /// | after a time, on embassy | `embassy_time::Timer::after(timeout)` |
    /// | with a cancellation token of tokio-util | `token.cancelled()` |
    /// | when a channel says so | `shutdown.recv()` |
    ///
    /// # Errors
    ///
    /// What the signal returned, if it came first. The place in the queue is given up then.
    ///
    /// # Cancellation
    ///
    /// As in [`lock`](Self::lock); the signal is dropped too.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// # smol::block_on(async {
    /// let mutex = KeyedMutex::new();
    /// let guard = mutex.lock_unless("alice", async { "too late" }).await.unwrap();
    /// assert_eq!(mutex.lock_unless("alice", async { "too late" }).await.unwrap_err(), "too late");
    /// # drop(guard);
    /// # });
    /// ```
    #[doc(alias("timeout", "lock_timeout", "try_lock_for", "lock_with_timeout"))]
    pub async fn lock_unless<T>(
        &self,
        key: K,
        signal: impl Future<Output = T>,
    ) -> Result<KeyedMutexGuard<'_, K, S>, T> {
        // The guard is out here, so that a signal that panics when it is dropped unlocks the key.
        let mut guard = None;
        let lock = async {
            guard = Some(self.lock(key).await);
            None
        };
        let fired = or(lock, async { Some(signal.await) }).await;
        match guard {
            Some(guard) => Ok(guard),
            None => Err(fired.expect("one of the two is ready")),
        }
    }

    /// Stops the tasks that are queued for a key now, and returns how many. The holder goes on.
    ///
    /// It does what [`stop`](KeyedMutexGuard::stop) of a guard does, from outside. A task counts as queued
    /// until it begins, so one that has been given the key but has not been polled since is stopped too. A
    /// [`Ticket`](crate::Ticket) that has to wait counts as well: it may yet run a task. (One that found the
    /// key free holds it, and goes on.)
    pub fn stop<Q: ?Sized + Eq + Hash>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.table.stop(self.hash(key), |slot| slot.key.borrow() == key)
    }

    /// Returns whether somebody holds the key, or is being given it.
    ///
    /// Other tasks may change that at once. To act on it, use [`try_lock`](Self::try_lock).
    #[must_use]
    pub fn is_locked<Q: ?Sized + Eq + Hash>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.members(key) > 0
    }

    /// Returns how many are queued for the key, the one that holds it (or is being given it) not counted.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// let mutex = KeyedMutex::new();
    /// let guard = mutex.try_lock("alice").unwrap();
    /// assert_eq!(mutex.waiting("alice"), 0);
    /// # drop(guard);
    /// ```
    #[must_use]
    pub fn waiting<Q: ?Sized + Eq + Hash>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.members(key).saturating_sub(1)
    }

    fn members<Q: ?Sized + Eq + Hash>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.table.members(self.hash(key), |slot| slot.key.borrow() == key)
    }

    pub(crate) fn hash<Q: ?Sized + Hash>(&self, key: &Q) -> u64 {
        self.hasher.hash_one(key)
    }
}

impl<K, S: Default> Default for KeyedMutex<K, S> {
    fn default() -> Self {
        Self::with_hasher(S::default())
    }
}

impl<K, S> fmt::Debug for KeyedMutex<K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedMutex").field("len", &self.len()).finish_non_exhaustive()
    }
}

// A panic leaves the table in order: see the type's docs.
impl<K, S> UnwindSafe for KeyedMutex<K, S> {}
impl<K, S> RefUnwindSafe for KeyedMutex<K, S> {}
