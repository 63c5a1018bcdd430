//! Tasks and their two error strategies, built on claims alone.

use core::error::Error;
use core::fmt;
use core::hash::{BuildHasher, Hash};

use crate::claim::{Acquire, Handle, Holder};
use crate::mutex::KeyedMutex;
use crate::shard::Task;

/// A task was not run: one before it, with the same key, failed or stopped the queue while it waited; or somebody
/// called [`stop`](KeyedMutex::stop) or [`stop_all`](KeyedMutex::stop_all).
///
/// It is told in the task's turn, and does not say which of these it was: whoever has to know keeps a flag of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the task was not run, because the queue it waited in was stopped")
    }
}

impl Error for Stopped {}

/// What a task holds when its turn has come. One that is stopped passes the key on, here.
pub(crate) fn unless_stopped<M: Handle>(holder: Holder<M>, stopped: bool) -> Result<Holder<M>, Stopped> {
    if stopped { Err(Stopped) } else { Ok(holder) }
}

impl<K: Eq + Hash, S: BuildHasher> KeyedMutex<K, S> {
    /// Runs a task while holding the key, and returns its output. Whatever that is, the queue goes on.
    ///
    /// The task is called when its turn comes, and never before.
    ///
    /// # Errors
    ///
    /// [`Stopped`], and the task was never called, if the queue was stopped while this task waited in it:
    /// by a [`run_or_stop`](Self::run_or_stop) that failed, or by [`stop`](Self::stop), of a guard or of the mutex.
    ///
    /// # Cancellation
    ///
    /// If it was never polled, nothing happens. If it was still waiting, the others keep their order. If it
    /// had been given the key, the next in the queue gets it. If its task was running, the task is
    /// dropped first, and the key is released after that.
    ///
    /// # Panics
    ///
    /// A panic of the task is passed on after the key has been released; the queue goes on.
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
    pub async fn run<T>(&self, key: K, task: impl AsyncFnOnce() -> T) -> Result<T, Stopped> {
        let _holder = Acquire::<_, _, Task>::new(self, key, unless_stopped).await?;
        Ok(task().await)
    }

    /// Runs a task while holding the key. Unless it returns `Ok`, it stops the tasks queued behind it.
    ///
    /// Every [`run`](Self::run) and `run_or_stop` that waits for this key at the moment when the task
    /// returns `Err`, panics or is dropped half-way returns [`Stopped`], in its turn, without calling its
    /// task. Whoever comes later is served as if nothing had happened, after those; so a retry from the
    /// error handler always runs. A task that was stopped stops nobody. Plain
    /// [`lock`](Self::lock)s are not stopped, and other keys are untouched.
    ///
    /// # Errors
    ///
    /// The outer [`Stopped`] as in [`run`](Self::run); the inner error is the task's own.
    ///
    /// # Cancellation
    ///
    /// As in [`run`](Self::run): a task that has not begun stops nobody when it is dropped. **Dropped half-way, it stops
    /// the queue**: the task is dropped, then the queue is stopped, then the key is released. A time limit around the whole
    /// does that, and so does a client who leaves, if his server drops the handler. So limit the wait alone, by awaiting a
    /// [`ticket`](Self::ticket) and then calling [`run_or_stop`](crate::KeyedMutexGuard::run_or_stop) of its guard; and
    /// spawn (and detach) what shall go on without its client: see the [recipes](crate::guide::recipes).
    ///
    /// # Panics
    ///
    /// A panic of the task is passed on after the queue has been stopped and the key released.
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
    pub async fn run_or_stop<T, E>(
        &self,
        key: K,
        task: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<Result<T, E>, Stopped> {
        let holder = Acquire::<_, _, Task>::new(self, key, unless_stopped).await?;
        Ok(holder.run_or_stop(task).await)
    }
}

impl<M: Handle> Holder<M> {
    /// Runs a task and unlocks the key. Unless the task returns `Ok`, it stops those queued behind it.
    pub(crate) async fn run_or_stop<T, E>(self, task: impl AsyncFnOnce() -> Result<T, E>) -> Result<T, E> {
        // Dropped after the task's future: the queue is stopped, and then the key is unlocked.
        let mut unless_ok = StopOnDrop { holder: self, armed: true };
        let output = task().await;
        unless_ok.armed = output.is_err();
        output
    }
}

/// Stops the queue when it is dropped armed: after an error, by a panic, or half-way.
struct StopOnDrop<M: Handle> {
    holder: Holder<M>,
    armed: bool,
}

impl<M: Handle> Drop for StopOnDrop<M> {
    fn drop(&mut self) {
        if self.armed {
            self.holder.stop();
        }
    }
}
