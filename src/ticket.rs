//! Queueing now and waiting later.

use core::fmt;
use core::future::Future;
use core::hash::{BuildHasher, Hash};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use crate::claim::{Finds, Waiter};
use crate::guard::KeyedMutexGuard;
use crate::hash::RandomState;
use crate::mutex::KeyedMutex;
use crate::run::{Stopped, unless_stopped};
use crate::shard::Task;

/// Takes a place, if `admit` says so. It gets its waker when it is polled.
pub(crate) fn join<M: Finds>(mutex: M, key: M::Key, admit: impl FnOnce(usize) -> bool) -> Option<Waiter<M, Task>> {
    let hash = mutex.table().hash(&key);
    Waiter::join(mutex, hash, key, Waker::noop().clone(), admit)
}

/// A ticket with the given handle.
macro_rules! ticket {
    ($(#[$doc:meta])* $Ticket:ident <$($a:lifetime,)? K, S>, $handle:ty => $Guard:ident) => {
        $(#[$doc])*
        #[must_use = "a ticket that is dropped gives up its place in the queue"]
        pub struct $Ticket<$($a,)? K, S = RandomState>(pub(crate) Waiter<$handle, $crate::shard::Task>);

        impl<$($a,)? K, S> $Ticket<$($a,)? K, S> {
            /// Waits for the ticket's turn and runs a task, as [`KeyedMutex::run`] does.
            ///
            /// # Errors
            ///
            /// [`Stopped`] if the queue was stopped while the ticket waited in it, polled or not.
            pub async fn run<T>(self, task: impl AsyncFnOnce() -> T) -> Result<T, Stopped> {
                let _guard = self.await?;
                Ok(task().await)
            }

            /// Waits for the ticket's turn and runs a task, as [`KeyedMutex::run_or_stop`] does.
            ///
            /// # Errors
            ///
            /// [`Stopped`] if the queue was stopped while the ticket waited in it, polled or not; the inner
            /// error is the task's own.
            pub async fn run_or_stop<T, E>(
                self,
                task: impl AsyncFnOnce() -> Result<T, E>,
            ) -> Result<Result<T, E>, Stopped> {
                Ok(self.await?.run_or_stop(task).await)
            }
        }

        impl<$($a,)? K, S> Future for $Ticket<$($a,)? K, S> {
            type Output = Result<$Guard<$($a,)? K, S>, Stopped>;

            fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
                self.0.poll(context).map(|(holder, stopped)| unless_stopped(holder, stopped).map($Guard))
            }
        }

        impl<$($a,)? K, S> fmt::Debug for $Ticket<$($a,)? K, S> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($Ticket)).finish_non_exhaustive()
            }
        }
    };
}
#[cfg(target_has_atomic = "ptr")]
pub(crate) use ticket;

ticket! {
    /// A place in the queue for a key, taken when the ticket was made. Run a task with it, or await it for a guard, or for
    /// [`Stopped`] if the queue was stopped while it waited.
    ///
    /// So a limit on the wait alone is the runtime's `timeout` around the ticket, and any other signal is a `select` with
    /// it; what has begun is not cut off. (`timeout(time, &mut ticket)` keeps the place when the time is up.)
    ///
    /// ```
    /// # use async_mutex_lite::{KeyedMutex, Stopped};
    /// # use std::time::Duration;
    /// # async fn charge() -> Result<u32, &'static str> { Ok(7) }
    /// async fn wallet(mutex: &KeyedMutex<u64>, user: u64) -> Result<u32, &'static str> {
    ///     match tokio::time::timeout(Duration::from_secs(2), mutex.ticket(user)).await {
    ///         Ok(Ok(guard)) => guard.run_or_stop(charge).await,
    ///         Ok(Err(Stopped)) => Err("one before this failed"),
    ///         Err(_) => Err("busy, try again later"), // the place is given up
    ///     }
    /// }
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    /// # assert_eq!(runtime.block_on(wallet(&KeyedMutex::new(), 1)), Ok(7));
    /// ```
    ///
    /// A ticket that has its turn and is not polled holds the queue up, as a guard does. It may be dropped
    /// in any state, and gives up its place (or the key, if it was its turn) then. A ticket allocates no more
    /// than a plain lock.
    ///
    /// # Panics
    ///
    /// Polling a ticket again after it has given its guard panics.
    Ticket<'a, K, S>, &'a KeyedMutex<K, S> => KeyedMutexGuard
}

impl<K: Eq + Hash, S: BuildHasher> KeyedMutex<K, S> {
    /// Queues for a key now, to wait later.
    ///
    /// The place in the queue is fixed when this returns, not at the first poll. So a loop that receives
    /// messages can take a ticket for each and spawn the work; whatever the executor does, the work
    /// of one key runs in the order in which it arrived.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// # smol::block_on(async {
    /// let mutex = Arc::new(KeyedMutex::new());
    /// let (first, second) = (mutex.ticket_arc("alice"), mutex.ticket_arc("alice"));
    /// let work = smol::spawn(second.run(async || "runs second"));
    /// assert_eq!(first.run(async || "runs first").await, Ok("runs first"));
    /// assert_eq!(work.await, Ok("runs second"));
    /// # });
    /// ```
    pub fn ticket(&self, key: K) -> Ticket<'_, K, S> {
        Ticket(join(self, key, |_| true).expect("everybody is admitted"))
    }

    /// Queues for a key now, if `admit` says so of how many hold it or wait for it (0: the key is free).
    ///
    /// `|ahead| ahead <= 20` is one at work, and at most 20 that wait. That is decided atomically: nobody comes or goes
    /// between the count and the queueing. `admit` runs under the lock of a part of the table: it must be short (to look
    /// at an atomic flag is fine), and must not touch the mutex, nor own what does when it is dropped. A panic in it is
    /// passed on, and changes nothing. Of a key that is shared, all who share it count as ahead.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// let mutex = KeyedMutex::new();
    /// let admitted = (0..5).filter_map(|_| mutex.ticket_if("alice", |ahead| ahead <= 2)).collect::<Vec<_>>();
    /// assert_eq!(admitted.len(), 3); // one at work, and two that wait; the others are turned away at once
    /// ```
    #[must_use = "a ticket that is dropped gives up its place in the queue"]
    #[doc(alias("limit", "admission", "max_pending"))]
    pub fn ticket_if(&self, key: K, admit: impl FnOnce(usize) -> bool) -> Option<Ticket<'_, K, S>> {
        join(self, key, admit).map(Ticket)
    }
}
