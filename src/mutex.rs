//! The mutex itself, and the plain ways to lock a key.

use core::hash::{BuildHasher, Hash};
use core::num::NonZero;
use core::panic::{RefUnwindSafe, UnwindSafe};

use crate::claim::{Acquire, Borrowed, Lock, print_name};
use crate::guard::Guard;
use crate::hash::RandomState;
use crate::mode::{Mode, limit};
use crate::table::{Shard, Shards};

/// A keyed async mutex.
///
/// Callers that lock the same key hold it one at a time, in FIFO order. Callers that lock different keys run
/// concurrently. A key that is neither locked nor waited for has no entry, and takes no memory.
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
///     write_balance(user, balance - amount).await; // no other charge of this user ran in between
/// }
/// # smol::block_on(charge(1, 10));
/// # assert!(ACCOUNTS.is_empty());
/// ```
///
/// **It guards no data.** A key stands for whatever your program says it does: a row, a file, a device. The value
/// itself lives there, or in a map of your own.
///
#[doc = include_str!("guide/methods.md")]
///
/// # Fairness
///
/// Each key has one FIFO queue for all its waiters: futures, tickets and blocking threads, exclusive and shared. A
/// future takes its place at its first poll, a ticket as soon as [`ticket`](Self::ticket) is called. An unlock *hands
/// the key over* to the first waiter: from that moment the waiter has been *granted* the key, even before it is polled
/// again. So no newcomer can barge in, not even by [`try_lock`](Self::try_lock). An unlock calls one waker: the one of
/// the waiter's last poll. (If shared waiters are next, it wakes every one that can share the key now; if the key becomes
/// free, it wakes the pending [`idle`](Self::idle) futures.)
///
/// Callers that lock different keys never wait for each other's keys. They wait for each other's lookups if their keys
/// are in the same *shard*, a part of the table with a lock of its own.
///
/// A waiter that has been granted the key blocks the waiters behind it until it is polled or dropped, as a guard does.
/// That happens to futures that are kept in a `select!` loop or a `join` whose task does something else
/// ([futurelock](https://rfd.shared.oxide.computer/rfd/0609)): poll them, spawn them, or drop them.
///
/// # Sharing
///
/// [`shared()`](Self::shared) locks a key together with any number of other shared holders,
/// [`at_most(n)`](Self::at_most) while fewer than `n` hold it shared: see [`Mode`](crate::Mode#sharing).
///
/// # Stopping
///
/// A *stop* ends the wait of jobs that should no longer run, because a job before them failed, or because the program
/// shuts down. There are four ways to stop: [`stop`](Self::stop), [`stop_all`](Self::stop_all), the
/// [`stop`](crate::Guard::stop) of a guard, and a [`run_or_stop`](Self::run_or_stop) whose closure fails, panics or is
/// dropped midway. Each removes the waiters that it affects from the queue at once, and wakes them in FIFO order. (With
/// several threads, they need not *run* in that order.) At their next poll they return [`Stopped`](crate::Stopped); until
/// then, they block no other waiter, and are not counted. The waiters behind them that can now hold the key are granted
/// it.
///
/// | a stop reaches, if they are waiting at that moment | it does not reach |
/// | --- | --- |
/// | [`run`](Self::run) and [`run_or_stop`](Self::run_or_stop) | the holder, even if it was granted the key and has not been polled since |
/// | tickets, exclusive and shared, awaited or not | [`lock`](Self::lock) and [`lock_many`](Self::lock_many), whatever the mode and the way to wait |
/// | | callers that come later, a retry for example |
///
/// # Cancel safety
///
/// Any future may be dropped in any state:
///
/// - Never polled: it has had no effect. (A ticket has a place since it was made, and gives it up.)
/// - Waiting: it leaves the queue. The other waiters keep their order, and those behind it that can now hold the key
///   are granted it. What is lost is the place: in the sense of tokio's `select!`, locking is *not* cancel safe. To
///   keep the place, poll the future by reference: `&mut future` works in `select!`, since the futures of `lock` and
///   the tickets are `Unpin`.
/// - Granted, but not polled since: the key goes to the next waiter at once.
/// - Running the closure of [`run_or_stop`](Self::run_or_stop): **the queue is stopped**, as by an error.
///
/// *Leaking* a future or a guard ([`mem::forget`](core::mem::forget)) is different: its place, or its key, is never
/// given up.
///
/// # Deadlocks
///
/// The mutex is not reentrant. Locking a key in a task that holds it deadlocks:
///
/// ```
/// # use async_mutex_lite::KeyedMutex;
/// let mutex = KeyedMutex::new();
/// let guard = mutex.try_lock("alice").unwrap();
/// assert!(mutex.try_lock("alice").is_none()); // `lock("alice").await` would never return
/// assert!(mutex.try_lock("bob").is_some());
/// # drop(guard);
/// ```
///
/// Two tasks also deadlock if each holds a key that the other is waiting for. Lock several keys in one order everywhere,
/// which is what [`lock_many`](Self::lock_many) does.
///
/// # Panics and user code
///
/// The mutex is never poisoned: a guard that is dropped by a panic unlocks its key. Some user code runs outside all
/// internal locks, and may use the mutex, block, or panic: `Hash`, the key's `Drop`, and the calls, clones and drops of
/// wakers. An executor may therefore run tasks inside `wake`; if those unlock the same key, the hand-overs nest on the
/// stack. Other code runs under the lock of a shard: `Eq`, `Borrow`, and the closures of [`ticket_if`](Self::ticket_if)
/// and [`for_each_locked`](Self::for_each_locked). It must not use the mutex, or it deadlocks or panics; printing the
/// mutex with `{:?}` is fine, since `Debug` takes no lock. (If an allocation fails, and that unwinds, a key or a waker is
/// dropped under that lock, too.) A panic in any of this code propagates to the caller, and leaves the mutex consistent. A
/// panic of a waker propagates from the unlock or the stop that called it, after that is complete.
///
/// When several wakers are to be called, they are called one after another. One that blocks delays those after it, but
/// their waiters have already been granted the key, or stopped. If one panics, the others are still called; with `std`,
/// further panics are caught and dropped (all of them, if the thread was unwinding already); without it, a second panic
/// aborts the program. The same holds for the keys that one guard, or one future, of `lock_many` holds. Otherwise, a panic
/// that comes while the thread is already unwinding from another one aborts the program, as everywhere in Rust.
///
/// Polling a future of the mutex, or a ticket, after completion panics.
///
/// # Memory ordering
///
/// Everything that happens before an unlock happens before the next lock of the same key, as with any mutex.
///
#[doc = include_str!("guide/complexity.md")]
///
/// # `Send`
///
/// If `K: Send` and `S: Send + Sync`, the mutex is `Sync`, and its guards, tickets and futures are `Send`. What a future is
/// given must be `Send` as well: the signal of [`unless`](crate::Lock::unless), the reference of [`idle`](Self::idle), the
/// closure of [`run`](Self::run) and [`run_or_stop`](Self::run_or_stop), and the future of that closure.
///
/// # Without `std`
///
/// All of this holds, except where stated otherwise. An allocator is needed. There are no methods that block, and
/// [`RandomState`] has nothing but an address as its seed.
pub struct KeyedMutex<K, S = RandomState> {
    pub(crate) shards: Shards<K>,
    /// How many may share a key, unless [`at_most`](Self::at_most) says otherwise.
    pub(crate) max_shared: NonZero<u32>,
    pub(crate) hasher: S,
}

impl<K> KeyedMutex<K> {
    /// Creates a mutex in which no key is locked. Allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_hasher(RandomState)
    }

    /// Creates a mutex in which [`shared`](Self::shared) means at most `n`, so that no caller can forget the limit: a
    /// semaphore for each key. ([`at_most`](Self::at_most) can still say otherwise.)
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
    /// let held = [REQUESTS.shared().try_lock("example.org"), REQUESTS.shared().try_lock("example.org")];
    /// assert!(held.iter().all(Option::is_some));
    /// assert!(REQUESTS.shared().try_lock("example.org").is_none()); // two at a time
    /// ```
    #[must_use]
    #[doc(alias("semaphore", "permits"))]
    pub const fn with_max_shared(n: u32) -> Self {
        Self::with_max_shared_and_hasher(n, RandomState)
    }
}

impl<K, S> KeyedMutex<K, S> {
    /// Creates a mutex that hashes its keys with the given hasher.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    /// use std::hash::{BuildHasherDefault, DefaultHasher};
    ///
    /// let mutex: KeyedMutex<u64, _> = KeyedMutex::with_hasher(BuildHasherDefault::<DefaultHasher>::new());
    /// assert!(mutex.try_lock(7).is_some());
    /// ```
    #[must_use]
    pub const fn with_hasher(hasher: S) -> Self {
        Self { shards: Shards::new(), max_shared: NonZero::<u32>::MAX, hasher }
    }

    /// The same as [`with_max_shared`](KeyedMutex::with_max_shared), with the given hasher.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    #[must_use]
    pub const fn with_max_shared_and_hasher(n: u32, hasher: S) -> Self {
        Self { shards: Shards::new(), max_shared: limit(n), hasher }
    }
}

impl<K: Eq + Hash, S: BuildHasher> KeyedMutex<K, S> {
    /// Locks a key exclusively, waiting for it if necessary, and returns a guard that unlocks it when dropped.
    ///
    /// The future takes its place in the queue at its first poll. Your `key` value is dropped then if another caller holds
    /// that key, and otherwise when the key is unlocked. Besides `.await`, there are [other ways to wait](Lock). See the
    /// type for [fairness](Self#fairness), [cancel safety](Self#cancel-safety) and [deadlocks](Self#deadlocks).
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
    pub fn lock(&self, key: K) -> Lock<Borrowed<'_, K, S>> {
        let exclusive = Mode { mutex: self, sharing: None };
        Lock(Acquire { start: Some((exclusive, key)), claim: None })
    }

    /// Locks a key exclusively if it is free. Returns `None` if it is locked, or was handed over to a waiter.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// static JOBS: KeyedMutex<&str> = KeyedMutex::new();
    ///
    /// match JOBS.try_lock("nightly report") {
    ///     Some(_guard) => { /* nothing else makes the report now */ }
    ///     None => { /* it is being made already */ }
    /// }
    /// ```
    #[must_use = "bind the guard to a name such as `_guard`; `let _ =` unlocks at once"]
    #[doc(alias("try_acquire"))]
    pub fn try_lock(&self, key: K) -> Option<Guard<Borrowed<'_, K, S>>> {
        self.exclusive().try_lock(key)
    }
}

impl<K, S: Default> Default for KeyedMutex<K, S> {
    fn default() -> Self {
        Self::with_hasher(S::default())
    }
}

// It takes no lock: the caller that prints it may hold one.
print_name!([K, S] KeyedMutex<K, S>);

// A panic leaves the shards consistent: see the type's docs.
impl<K, S> UnwindSafe for KeyedMutex<K, S> {}
impl<K, S> RefUnwindSafe for KeyedMutex<K, S> {}
impl<K> RefUnwindSafe for Shard<K> {}

// Nothing in it is ever pinned, whatever the features.
impl<K, S: Unpin> Unpin for KeyedMutex<K, S> {}
