//! The mutex itself, and the plain ways to lock a key.

use core::future::{Future, poll_fn};
use core::hash::{BuildHasher, Hash};
use core::marker::PhantomData;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::{fmt, pin::pin, task::Poll};

use crate::claim::{Acquire, Handle, Mutex, claim_now};
use crate::guard::Guard;
use crate::hash::RandomState;
use crate::table::{Locked, Shards};

/// A keyed async mutex.
///
/// Callers that lock the same key hold it one at a time, in FIFO order. Callers that lock different keys run concurrently.
/// A key that is neither locked nor waited for has no entry, and takes no memory.
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
/// future takes its place at its first poll, a [`ticket`](Self::ticket) by the call. An unlock *hands the key over* to
/// the first waiter: from that moment the waiter has been *granted* the key, though it has not been polled since. So no
/// newcomer can barge in, not even by [`try_lock`](Self::try_lock). An unlock calls one waker, that of the waiter's
/// last poll (or those of all shared waiters that can now hold the key together, and of pending [`idle`](Self::idle)s).
///
/// A waiter that has been granted the key blocks the waiters behind it until it is polled or dropped, as a guard does.
/// That happens to futures that are kept in a `select!` loop or a `join` whose task does something else
/// ([futurelock](https://rfd.shared.oxide.computer/rfd/0609)): poll them, spawn them, or drop them.
///
/// # Sharing
///
/// [`lock_shared`](Self::lock_shared) locks a key together with other shared holders: any number of them, or at most
/// `n` if the mutex was made by [`with_max_shared(n)`](KeyedMutex::with_max_shared).
///
/// # Stopping
///
/// A *stop* ends the wait of jobs that should not run any more: because a job before them failed, or because the
/// program shuts down. [`stop`](Self::stop), [`stop_all`](Self::stop_all), the [`stop`](crate::Guard::stop) of a guard,
/// and a [`run_or_stop`](Self::run_or_stop) whose closure fails, panics or is dropped midway, take the waiters that it
/// reaches out of the queue at once, and wake them in FIFO order. At their next poll they return
/// [`Stopped`](crate::Stopped); until then, they block no other waiter, and are not counted. Those behind them that can
/// now hold the key are granted it.
///
/// | a stop reaches, if they are waiting at that moment | it does not reach |
/// | --- | --- |
/// | [`run`](Self::run) and [`run_or_stop`](Self::run_or_stop) | the holder, also one that was granted the key and has not been polled since |
/// | tickets, exclusive and shared, awaited or not | [`lock`](Self::lock), [`lock_shared`](Self::lock_shared), [`lock_many`](Self::lock_many), [`lock_unless`](Self::lock_unless), and blocking threads |
/// | | callers that come later, a retry for example |
///
/// # Cancel safety
///
/// Any future may be dropped in any state:
///
/// - Never polled: it has had no effect. (A ticket has taken its place by the call, and gives it up.)
/// - Waiting: it leaves the queue. The other waiters keep their order, and those behind it that can now hold the key
///   are granted it. What is lost is the place: in the sense of tokio's `select!`, locking is *not* cancel safe. To
///   keep the place, poll the future by reference: `&mut future` works in `select!`, since the futures of `lock` and
///   the tickets are `Unpin`.
/// - Granted, but not polled since: the key goes to the next waiter at once.
/// - Running the closure of [`run_or_stop`](Self::run_or_stop): **the queue is stopped**, as by an error.
///
/// To *leak* a future or a guard ([`mem::forget`](core::mem::forget)) is different: its place, or its key, is never
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
/// Two tasks that each hold a key and wait for the other's deadlock, too. Lock several keys in one order everywhere,
/// which is what [`lock_many`](Self::lock_many) does.
///
/// # Panics and user code
///
/// The mutex is never poisoned: a guard that is dropped by a panic unlocks its key. `Hash`, the key's `Drop`, and
/// whatever a waker does when it is called, cloned or dropped run outside all internal locks, and may use the mutex,
/// block, or panic. An executor may run tasks inside `wake`; if those unlock the same key in turn, each hand-over needs
/// stack on top of the one before it. (If an allocation fails, and that unwinds, a key or a waker is dropped under a
/// lock.) `Eq` and `Borrow` run under the lock of a *shard*, a part of the table, and so do the closures of
/// [`ticket_if`](Self::ticket_if) and [`for_each_locked`](Self::for_each_locked): they must not use the mutex, or they
/// deadlock or panic. A panic in any of these propagates to the caller, and leaves the mutex consistent; that of a
/// waker comes out of the unlock, or the stop, that called it, when that is complete.
///
/// Several wakers that are to be called at once are called one after another: one that blocks delays those behind it,
/// but their waiters have been granted the key, or stopped, already. If one panics, the others are called all the same;
/// with `std`, the panics of those are caught and dropped, without it, a second one aborts. The same goes for the keys
/// behind one guard, or one future, of `lock_many`. Otherwise a panic that comes while the thread is already unwinding
/// from another aborts the program, as everywhere in Rust.
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
/// Guards, tickets and the futures of the mutex are `Send`, and the mutex is `Sync`, if `K` is `Send`, and the hasher
/// `Send` and `Sync`, as hashers are. What a future is given must be `Send` as well: the signal of
/// [`lock_unless`](Self::lock_unless), the iterator of [`lock_many`](Self::lock_many), the reference of
/// [`idle`](Self::idle), the closure of [`run`](Self::run) and [`run_or_stop`](Self::run_or_stop), and its future,
/// which the compiler finds out where it sees the closure. A *generic* closure cannot be bounded so: see the
/// [recipe](crate::guide::recipes#calloncefuture-cannot-be-sent-between-threads).
///
/// # Without `std`
///
/// All of this holds, except where it says otherwise. There are no methods that block, and [`RandomState`] has little to be
/// random from.
pub struct KeyedMutex<K, S = RandomState> {
    pub(crate) shards: Shards<K>,
    pub(crate) hasher: S,
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
        Self { shards: Shards::new(u32::MAX), hasher }
    }

    /// Half of the bits of a hash are enough, since keys are compared.
    pub(crate) fn hash<Q: ?Sized + Hash>(&self, key: &Q) -> u32
    where
        S: BuildHasher,
    {
        let hash = self.hasher.hash_one(key);
        (hash ^ hash >> 32) as u32
    }
}

impl<K: Eq + Hash, S: BuildHasher> KeyedMutex<K, S> {
    /// Locks a key exclusively, waiting for it if necessary, and returns a guard that unlocks it when dropped.
    ///
    /// The future takes its place in the queue at its first poll. It drops `key` as soon as it does not need it: at the
    /// first poll if the key is locked, else when it is unlocked. See the type for [fairness](Self#fairness), [cancel
    /// safety](Self#cancel-safety) and [deadlocks](Self#deadlocks).
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
        Acquire::new(self, key)
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
    pub fn try_lock(&self, key: K) -> Option<KeyedMutexGuard<'_, K, S>> {
        claim_now(self, key)
    }

    /// Locks a key exclusively, unless `signal` is ready first: a timer, a shutdown, a closed connection.
    ///
    /// The lock is polled first: a free key is locked even if `signal` is ready already. The signal bounds the wait
    /// only, not how long the guard is then held. A stop does not reach this lock: if it should, put a `select` with
    /// the signal around a [ticket](Self::ticket).
    ///
    /// | to give up | signal |
    /// | --- | --- |
    /// | after a timeout, on smol | `smol::Timer::after(timeout)` |
    /// | after a timeout, on async-std | `async_std::task::sleep(timeout)` |
    /// | after a timeout, on tokio | `tokio::time::sleep(timeout)` |
    /// | after a timeout, on embassy | `embassy_time::Timer::after(timeout)` |
    /// | with a cancellation token of tokio-util | `token.cancelled()` |
    /// | when a channel says so | `shutdown.recv()` |
    ///
    /// # Errors
    ///
    /// Returns what the signal returned, if it was ready first. The place in the queue is given up then.
    ///
    /// # Cancel safety
    ///
    /// As of [`lock`](Self::lock); the signal is dropped, too.
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

/// Waits for a future, or for a signal, whichever is ready first.
pub(crate) async fn unless<G, T>(lock: impl Future<Output = G>, signal: impl Future<Output = T>) -> Result<G, T> {
    let first; // out here, so that it is not leaked if dropping one of them panics
    {
        let (mut lock, mut signal) = (pin!(lock), pin!(signal));
        first = poll_fn(|context| match lock.as_mut().poll(context) {
            Poll::Ready(guard) => Poll::Ready(Ok(guard)),
            Poll::Pending => signal.as_mut().poll(context).map(Err),
        })
        .await;
    }
    first
}

/// Holds a key of a borrowed [`KeyedMutex`] exclusively. Dropping it unlocks the key.
///
/// Unlocking hands the key over to the first waiter in its queue, if there is one; otherwise it removes the key's
/// entry. It neither hashes nor compares keys. It does not panic, unless the key's own `Drop` or a waker that it calls
/// does; even then the key is unlocked. Such a waker runs before the `drop` of the guard returns.
///
/// A guard may be sent to another thread and dropped there. A leaked guard ([`mem::forget`](core::mem::forget)) keeps its
/// key locked forever; other keys are unaffected.
#[doc(alias("release", "unlock", "permit"))]
pub type KeyedMutexGuard<'a, K, S = RandomState> = Guard<Borrowed<'a, K, S>>;

/// What a guard or a ticket keeps of a [`KeyedMutex`] that it borrows: the shard of its key.
pub struct Borrowed<'a, K, S> {
    shard: &'a Locked<K>,
    mutex: PhantomData<&'a KeyedMutex<K, S>>,
}

impl<K, S> Handle for Borrowed<'_, K, S> {
    type Key = K;

    fn shard(&self, _hash: u32) -> &Locked<K> {
        self.shard
    }
}

impl<K, S> fmt::Debug for Borrowed<'_, K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Borrowed(..)")
    }
}

impl<'a, K: Eq + Hash, S: BuildHasher> Mutex for &'a KeyedMutex<K, S> {
    type Key = K;
    type Handle = Borrowed<'a, K, S>;

    fn find(self, key: &K) -> (u32, Borrowed<'a, K, S>) {
        let hash = self.hash(key);
        (hash, Borrowed { shard: self.shards.of(hash), mutex: PhantomData })
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

// A panic leaves the shards consistent: see the type's docs.
impl<K, S> UnwindSafe for KeyedMutex<K, S> {}
impl<K, S> RefUnwindSafe for KeyedMutex<K, S> {}
impl<K> RefUnwindSafe for Locked<K> {}

// Nothing in it is ever pinned, whatever the features.
impl<K, S: Unpin> Unpin for KeyedMutex<K, S> {}
