//! The public type.

use core::fmt;
use core::future::{Future, poll_fn};
use core::hash::{BuildHasher, Hash};
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::pin::{Pin, pin};
use core::task::Poll;

use crate::claim::{Acquire, Handle, Holder};
use crate::guard::KeyedMutexGuard;
use crate::hash::RandomState;
use crate::shard::Plain;
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
/// First polled, first served, for each key, whatever mix of guards, tasks, blocking threads and sharers waits; a
/// [`ticket`](Self::ticket) counts from the call. The key is *handed over*: from the moment of an unlock it
/// belongs to the next in the queue, so neither a newcomer nor [`try_lock`](Self::try_lock) can slip in
/// before that one is polled. One unlock wakes one waiter, with the waker of its last poll (or all sharers who go in
/// together, and those who watch for [`idle`](Self::idle)).
///
/// A waiter that has been given the key and is not polled any more, nor dropped, holds the queue up, just
/// as a guard does. That happens to futures kept in a `select!` loop or a `join` whose task does something
/// else ("futurelock"): poll them, spawn them, or drop them.
///
/// # Sharing
///
/// [`lock_shared`](Self::lock_shared) locks a key together with others who share it: any number, or at most as many as
/// [`with_max_shared`](KeyedMutex::with_max_shared) says. Both kinds wait in the one queue, and nobody overtakes.
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
/// A task that panics unlocks its key, and the mutex is never poisoned. `Hash`, the key's `Drop`, and whatever a
/// waker does when it is woken, cloned or dropped run outside every lock, and may do to the mutex what they like: an
/// executor may run tasks inside `wake`, or block there. (Several that are to be woken at once are woken one after
/// another, and a sharer is let in when it is woken: a waker that blocks holds up those behind it.) `Eq` and `Borrow` run
/// under the lock of a part of the table: they must not touch the mutex. A panic in any of them is passed on to whoever called, and corrupts nothing: a
/// waker's comes out of the unlock that woke it, when that is complete.
///
/// # Memory
///
/// An entry of the table for each busy key, which holds its `K` and some 40 bytes; 32 bytes for each waiter (24 where
/// pointers have 32 bits). Neither a free key nor a waiter allocates anything once the table has had as many. (A thread
/// that blocks does, a little, and so do `lock_many` and `idle`.) After a burst the table gives its memory back by itself:
/// what waiters took, when nobody waits and it was for more than 64; what keys took, as they go (without `std`, when the
/// last one has gone). What an empty table keeps is at most room for 14 keys and 64 waiters a shard, unless
/// [`reserve`](Self::reserve) was called. With `std` the table is made at first use, in shards, sixteen for each processor,
/// rounded up to a power of two: that takes 4 to 8 KiB for each processor (keys of 8 bytes).
///
/// # Without `std`
///
/// Everything above holds, except where it says otherwise; there is no blocking, and
/// [`RandomState`] has little to be random from.
pub struct KeyedMutex<K, S = RandomState> {
    pub(crate) table: Table<K, S>,
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
        Self { table: Table::new(u32::MAX, hasher) }
    }
}

impl<K: Eq + Hash, S: BuildHasher> KeyedMutex<K, S> {
    /// Locks a key, waiting for it if need be, and returns a guard that unlocks it when dropped.
    ///
    /// The place in the queue is taken at the first poll. `key` is dropped as soon as it is not needed:
    /// at the first poll if the key is busy, else when it is unlocked. The future is `Unpin`: a `select!` may poll it by
    /// reference, and keep its place.
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
    #[doc(alias("acquire", "async_lock", "single flight", "singleflight"))]
    pub fn lock(&self, key: K) -> impl Future<Output = KeyedMutexGuard<'_, K, S>> + Unpin {
        Acquire::<_, _, Plain>::new(self, key, |holder, _| KeyedMutexGuard(holder))
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
    #[must_use = "bind the guard to a name such as `_guard`; `let _ =` unlocks at once"]
    #[doc(alias("try_acquire"))]
    pub fn try_lock(&self, key: K) -> Option<KeyedMutexGuard<'_, K, S>> {
        Holder::now::<Plain>(self, key).map(KeyedMutexGuard)
    }

    /// Locks a key, or gives up as soon as `signal` is ready: a timer, a shutdown, a closed connection.
    ///
    /// A free key wins over a signal that has fired. What ends is the wait: how long the key is held after
    /// that is the holder's own affair, and no signal of somebody else takes it away. It is a plain lock, which
    /// nobody stops: for a task that [`run_or_stop`](Self::run_or_stop) may stop, put the limit on a
    /// [`Ticket`](crate::Ticket).
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
    #[doc(alias("timeout", "lock_timeout", "lock_with_timeout", "cancel", "abort"))]
    pub async fn lock_unless<T>(
        &self,
        key: K,
        signal: impl Future<Output = T>,
    ) -> Result<KeyedMutexGuard<'_, K, S>, T> {
        unless(self.lock(key), signal).await
    }
}

/// Waits for a future, or gives it up as soon as `signal` is ready.
pub(crate) async fn unless<G, T>(
    mut lock: impl Future<Output = G> + Unpin,
    signal: impl Future<Output = T>,
) -> Result<G, T> {
    let acquired; // out here, so that a signal that panics when it is dropped unlocks the key
    {
        let mut signal = pin!(signal);
        acquired = poll_fn(|context| match Pin::new(&mut lock).poll(context) {
            Poll::Ready(guard) => Poll::Ready(Ok(guard)),
            Poll::Pending => signal.as_mut().poll(context).map(Err),
        })
        .await;
    }
    acquired
}

impl<K, S> Handle for &KeyedMutex<K, S> {
    type Key = K;
    type Hasher = S;

    fn table(&self) -> &Table<K, S> {
        &self.table
    }
}

impl<K, S: Default> Default for KeyedMutex<K, S> {
    fn default() -> Self {
        Self::with_hasher(S::default())
    }
}

impl<K, S> fmt::Debug for KeyedMutex<K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedMutex").field("len", &self.table.len()).finish_non_exhaustive()
    }
}

// A panic leaves the table in order: see the type's docs.
impl<K, S> UnwindSafe for KeyedMutex<K, S> {}
impl<K, S> RefUnwindSafe for KeyedMutex<K, S> {}

// Nothing in it is ever pinned, whatever the features.
impl<K, S: Unpin> Unpin for KeyedMutex<K, S> {}
