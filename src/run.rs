//! Jobs, and what becomes of those that wait when one of them fails.

use core::borrow::Borrow;
use core::error::Error;
use core::fmt;
use core::hash::{BuildHasher, Hash};

use crate::claim::{Acquire, Claim, Handle};
use crate::guard::Guard;
use crate::mode::Mode;
use crate::mutex::KeyedMutex;
use crate::table::Turn;

/// The wait for a key was [stopped](KeyedMutex#stopping): by a [`run_or_stop`](KeyedMutex::run_or_stop) of the same key
/// that failed, panicked or was dropped midway, or by one of the `stop` methods. The job, if there was one, was not
/// called.
///
/// The error does not say which of these it was. A flag of your own is not exact, since a later stop may have set it by
/// the time you read it: a [recipe](crate::guide::recipes#why-a-wait-was-stopped) shows what is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped while waiting for the key")
    }
}

impl Error for Stopped {}

/// How a wait ended: granted or stopped.
#[inline]
pub(crate) fn outcome<H: Handle>(claim: Claim<H>) -> Result<Guard<H>, Stopped> {
    if claim.place.turn == Turn::STOPPED { Err(Stopped) } else { Ok(Guard(claim)) }
}

impl<H: Handle<Key: Eq + Hash, Hasher: BuildHasher>> Mode<H> {
    /// See [`KeyedMutex::run`].
    ///
    /// # Errors
    ///
    /// [`Stopped`]
    pub async fn run<F: Future>(self, key: H::Key, job: impl FnOnce() -> F) -> Result<F::Output, Stopped> {
        let output; // out here, so that it is not leaked if unlocking panics
        {
            let _guard = outcome(Acquire::<_, true> { start: Some((self, key)), claim: None }.await)?;
            output = job().await;
        }
        Ok(output)
    }

    /// See [`KeyedMutex::run_or_stop`].
    ///
    /// # Errors
    ///
    /// [`Stopped`], or the error of the closure.
    pub async fn run_or_stop<T, E, F: Future<Output = Result<T, E>>>(
        self,
        key: H::Key,
        job: impl FnOnce() -> F,
    ) -> Result<Result<T, E>, Stopped> {
        let guard = StopOnDrop(Some(outcome(Acquire::<_, true> { start: Some((self, key)), claim: None }.await)?));
        let output = job().await;
        guard.end(&output);
        Ok(output)
    }
}

impl<K: Eq + Hash, S: BuildHasher> KeyedMutex<K, S> {
    /// Runs a closure while holding the key exclusively, and returns its output. The queue continues whatever the
    /// output is, an `Err` included.
    ///
    /// The closure is called when the key is granted, and not before.
    ///
    /// # Errors
    ///
    /// Returns [`Stopped`], without calling the closure, if the queue was [stopped](Self#stopping) while this waited in
    /// it.
    ///
    /// # Cancel safety
    ///
    /// While it waits, the same as for [`lock`](Self::lock). If the closure was running, its future is dropped first,
    /// and the key is unlocked after that.
    ///
    /// # Panics
    ///
    /// A panic of the closure propagates after the key has been unlocked.
    ///
    /// # Size
    ///
    /// The future has room for the closure and for its future: a job that owns 4 KB makes it 8 KB, and an `async fn` around
    /// it 12. Where that matters, let the closure *make* what is large, in its async block; or give it a future that is
    /// pinned elsewhere: `let job = pin!(job); mutex.run(key, || job)`.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// # smol::block_on(async {
    /// let mutex = KeyedMutex::new();
    /// let receipt = mutex.run("alice", async || "charged once").await;
    /// assert_eq!(receipt, Ok("charged once"));
    /// # });
    /// ```
    pub fn run<F: Future>(&self, key: K, job: impl FnOnce() -> F) -> impl Future<Output = Result<F::Output, Stopped>> {
        self.exclusive().run(key, job)
    }

    /// Runs a closure while holding the key exclusively. Unless it returns `Ok`, the waiters behind it are stopped.
    ///
    /// If it returns `Err`, panics or is dropped midway, every `run`, `run_or_stop` and ticket that waits for this key
    /// at that moment returns [`Stopped`] at its next poll, without calling its closure. Callers that come later are
    /// served as if nothing had happened: a retry always runs. A call that was itself stopped stops nothing. Plain
    /// [`lock`](Self::lock)s and other keys are unaffected: see [what a stop reaches](Self#stopping).
    ///
    /// # Errors
    ///
    /// The outer error is [`Stopped`], as in [`run`](Self::run); the inner one is that of the closure.
    ///
    /// # Cancel safety
    ///
    /// While it waits, the same as for [`run`](Self::run). **Dropped midway, it stops the queue**: the closure's future
    /// is dropped, then the waiters are stopped and the key is unlocked. A timeout around the whole call can do that,
    /// and so can a client that disconnects, if the server drops its handler. So limit only the wait: await a
    /// [`ticket`](Self::ticket), and call [`run_or_stop`](crate::Guard::run_or_stop) on its guard. Spawn (and detach)
    /// work that should finish without its client: see the
    /// [recipes](crate::guide::recipes#stop-on-error-although-the-client-may-disconnect).
    ///
    /// # Panics
    ///
    /// A panic of the closure propagates after the waiters have been stopped and the key has been unlocked.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::{KeyedMutex, Stopped};
    ///
    /// # smol::block_on(async {
    /// let mutex = KeyedMutex::new();
    /// let first = mutex.run_or_stop("order 7", async || {
    ///     futures_lite::future::yield_now().await;
    ///     Err::<(), _>("card declined")
    /// });
    /// let second = mutex.run("order 7", async || "shipped");
    /// let (first, second) = futures_lite::future::zip(first, second).await;
    /// assert_eq!(first, Ok(Err("card declined")));
    /// assert_eq!(second, Err(Stopped));
    /// assert_eq!(mutex.run("order 7", async || "a retry runs").await, Ok("a retry runs"));
    /// # });
    /// ```
    #[doc(alias("transaction", "abort on error"))]
    pub fn run_or_stop<T, E, F: Future<Output = Result<T, E>>>(
        &self,
        key: K,
        job: impl FnOnce() -> F,
    ) -> impl Future<Output = Result<Result<T, E>, Stopped>> {
        self.exclusive().run_or_stop(key, job)
    }

    /// Stops the jobs and tickets that wait for a key, and returns how many it stopped.
    ///
    /// Every [`run`](Self::run), [`run_or_stop`](Self::run_or_stop) and ticket that waits for the key leaves its queue
    /// now, is woken, in FIFO order, and returns [`Stopped`] at its next poll. The holder, plain locks, and callers
    /// that come later are not stopped: see [what a stop reaches](Self#stopping). The number is exact: each waiter that
    /// it counts returns `Stopped`, unless it is dropped first.
    ///
    /// It walks the queue once, under the lock of a shard, without allocating (but for the table, at the first
    /// use of the mutex); the wakers are called after that.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::{KeyedMutex, Stopped};
    ///
    /// # smol::block_on(async {
    /// let mutex = KeyedMutex::new();
    /// let (holder, queued) = (mutex.ticket("alice"), mutex.ticket("alice"));
    /// assert_eq!(mutex.stop("alice"), 1);
    /// assert_eq!(queued.await.unwrap_err(), Stopped); // though the key is still held
    /// assert!(holder.await.is_ok());
    /// # });
    /// ```
    #[doc(alias("cancel", "abort"))]
    pub fn stop<Q: ?Sized + Eq + Hash>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        let hash = self.hash(key);
        self.shards.of(hash).stop(hash, &mut |slot| slot.key.borrow() == key)
    }
}

impl<K, S> KeyedMutex<K, S> {
    /// Stops the jobs and tickets that wait for any key, and returns how many it stopped.
    ///
    /// It does what [`stop`](Self::stop) does, for every key, shard after shard; the wakers are called after all
    /// waiters have been stopped. (Of two calls at the same time, either may call the wakers of what the other has
    /// stopped, in another order.) The holders and plain locks are not stopped, nor are callers that come later; those
    /// that come meanwhile may be. For a shutdown, first stop accepting new work, then call this, then wait for
    /// [`all_idle`](Self::all_idle). A [recipe](crate::guide::recipes#shut-down-gracefully) shows how to leave no gap.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::{KeyedMutex, Stopped};
    ///
    /// # smol::block_on(async {
    /// let mutex = KeyedMutex::new();
    /// let (holder, queued) = (mutex.ticket("alice"), mutex.ticket("alice"));
    /// assert_eq!(mutex.stop_all(), 1);
    /// assert_eq!(queued.run(async || "never called").await, Err(Stopped));
    /// assert!(holder.run(async || "finishes as if nothing had happened").await.is_ok());
    /// # });
    /// ```
    #[doc(alias("shutdown", "cancel", "abort", "close"))]
    pub fn stop_all(&self) -> usize {
        self.shards.stop_all()
    }
}

impl<H: Handle> Guard<H> {
    /// Runs a closure, and unlocks the key. Unless the closure returns `Ok`, the waiters are stopped, as in
    /// [`KeyedMutex::run_or_stop`], even if it panics or is dropped midway. If this future is dropped before its first
    /// poll, it only unlocks the key.
    ///
    /// Use it to limit the wait, but not the work: see [`Ticket`](crate::Ticket) for an example.
    ///
    /// # Errors
    ///
    /// Returns the error of the closure.
    pub async fn run_or_stop<T, E, F: Future<Output = Result<T, E>>>(self, job: impl FnOnce() -> F) -> Result<T, E> {
        let guard = StopOnDrop(Some(self));
        let output = job().await;
        guard.end(&output);
        output
    }
}

/// Holds a key while a job runs. If it is dropped before the end, in a panic or midway, it stops the waiters.
///
/// (Each way to run a job does with it what [`Guard::run_or_stop`] does: to await that would make their futures larger by
/// another copy of the job.)
pub(crate) struct StopOnDrop<H: Handle>(pub(crate) Option<Guard<H>>);

impl<H: Handle> StopOnDrop<H> {
    pub(crate) fn end<T, E>(mut self, output: &Result<T, E>) {
        drop(self.0.take_if(|_| output.is_ok()));
    }
}

impl<H: Handle> Drop for StopOnDrop<H> {
    fn drop(&mut self) {
        if let Some(guard) = self.0.take() {
            guard.stop();
        }
    }
}
