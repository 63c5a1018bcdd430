//! Tickets: queueing now, and waiting later.

use core::future::Future;
use core::hash::{BuildHasher, Hash};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use crate::claim::{Claim, Claimed, Handle, Mutex, poll_claim};
use crate::guard::Guard;
use crate::hash::RandomState;
use crate::mutex::{Borrowed, KeyedMutex};
use crate::run::Stopped;
use crate::table::KeyState;

/// A place in the queue of a key. [`Ticket`] and its three siblings are aliases of this type.
///
/// `H` is how it refers to the mutex: by a [borrow](crate::Borrowed), or by an `Arc`. With `SHARED`, it waits for a
/// shared lock.
#[derive(Debug)]
#[must_use = "a ticket that is dropped gives up its place in the queue"]
pub struct Queued<H: Handle, const SHARED: bool = false>(Option<Claim<H>>);

/// A place in the queue for an exclusive lock of a key of a borrowed [`KeyedMutex`], taken when the ticket was made.
///
/// Run a closure with it, or await it for a guard; it returns [`Stopped`] if the queue was
/// [stopped](KeyedMutex#stopping) while it waited. A timeout around the ticket limits the wait only, and so does a
/// `select` with any other signal. (`timeout(duration, &mut ticket)` keeps the place when the time is up.)
///
/// ```
/// # use async_mutex_lite::{KeyedMutex, Stopped};
/// # use std::time::Duration;
/// # async fn charge() -> Result<u32, &'static str> { Ok(7) }
/// async fn wallet(mutex: &KeyedMutex<u64>, user: u64) -> Result<u32, &'static str> {
///     match tokio::time::timeout(Duration::from_secs(2), mutex.ticket(user)).await {
///         Ok(Ok(guard)) => guard.run_or_stop(charge).await,
///         Ok(Err(Stopped)) => Err("a charge before this one failed, or the program is shutting down"),
///         Err(_) => Err("busy, try again later"), // the place is given up
///     }
/// }
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
/// # assert_eq!(runtime.block_on(wallet(&KeyedMutex::new(), 1)), Ok(7));
/// ```
///
/// A ticket that has been granted the key and is not polled blocks the waiters behind it, as a guard does. It may be
/// dropped in any state: it gives up its place, or the key. It allocates no more than a plain lock.
///
/// # Panics
///
/// Polling a ticket after completion panics.
pub type Ticket<'a, K, S = RandomState> = Queued<Borrowed<'a, K, S>>;

/// A place in the queue for a shared lock of a key of a borrowed [`KeyedMutex`]; otherwise like [`Ticket`].
///
/// A `run_or_stop` before it that fails stops it, too. To read anyway, take a new ticket, which queues at the end.
pub type SharedTicket<'a, K, S = RandomState> = Queued<Borrowed<'a, K, S>, true>;

/// Takes a place, if `admit` returns `true`. The ticket has no waker until it is polled.
pub(crate) fn ticket<H: Handle<Key: Eq>, const SHARED: bool>(
    mutex: impl Mutex<H>,
    key: H::Key,
    admit: impl FnOnce(KeyState) -> bool,
) -> Option<Queued<H, SHARED>> {
    let kind = <Result<Guard<H, SHARED>, Stopped>>::KIND;
    let claim = Claim::new(mutex.find(&key), kind, key, admit, || Some(Waker::noop().clone()));
    claim.map(|claim| Queued(Some(claim)))
}

/// Takes a place unconditionally.
pub(crate) fn queue<H: Handle<Key: Eq>, const SHARED: bool>(mutex: impl Mutex<H>, key: H::Key) -> Queued<H, SHARED> {
    ticket(mutex, key, |_| true).expect("every ticket is admitted")
}

impl<H: Handle, const SHARED: bool> Queued<H, SHARED> {
    /// Waits for the key, and runs a closure while holding it, as [`KeyedMutex::run`] does.
    ///
    /// # Errors
    ///
    /// Returns [`Stopped`], without calling the closure, if the queue was stopped while the ticket waited in it, polled
    /// or not.
    pub async fn run<T>(self, job: impl AsyncFnOnce() -> T) -> Result<T, Stopped> {
        let output; // out here, so that it is not leaked if unlocking panics
        {
            let _guard = self.await?;
            output = job().await;
        }
        Ok(output)
    }
}

impl<H: Handle> Queued<H> {
    /// Waits for the key, and runs a closure while holding it, as [`KeyedMutex::run_or_stop`] does.
    ///
    /// # Errors
    ///
    /// The outer error is [`Stopped`], as in [`run`](Self::run); the inner one is that of the closure.
    pub async fn run_or_stop<T, E>(self, job: impl AsyncFnOnce() -> Result<T, E>) -> Result<Result<T, E>, Stopped> {
        Ok(self.await?.run_or_stop(job).await)
    }
}

/// Nothing in it is ever pinned.
impl<H: Handle, const SHARED: bool> Unpin for Queued<H, SHARED> {}

impl<H: Handle, const SHARED: bool> Future for Queued<H, SHARED> {
    type Output = Result<Guard<H, SHARED>, Stopped>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        poll_claim(&mut self.0, context)
    }
}

impl<K: Eq + Hash, S: BuildHasher> KeyedMutex<K, S> {
    /// Takes a place in the queue of a key now, and returns it as a ticket, to wait later.
    ///
    /// The place is fixed when this returns, not at the first poll. So a loop that receives messages can take a ticket
    /// for each and spawn the work; whatever the executor does, the work of one key runs in the order in which it
    /// arrived.
    ///
    /// **If the key is free, the ticket locks it at once**, before it is polled: await or drop it soon.
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
    #[doc(alias("enqueue"))]
    pub fn ticket(&self, key: K) -> Ticket<'_, K, S> {
        queue(self, key)
    }

    /// Takes a place in the queue of a key if `admit` returns `true` for the key's [state](KeyState), and returns
    /// `None` if it returns `false`.
    ///
    /// `|now| now.waiting < 20` bounds the queue: it admits one holder and at most 20 waiters. The decision is atomic:
    /// the state cannot change between the decision and the queueing. `admit` is called even if the key is free
    /// (`now.holders == 0`). It runs under the lock of a shard: it must be short (reading an atomic flag is fine), must
    /// not use the mutex, and must not capture a value whose `Drop` uses the mutex. A panic in it propagates, and
    /// changes nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// let mutex = KeyedMutex::new();
    /// let admitted = (0..5).filter_map(|_| mutex.ticket_if("alice", |now| now.waiting < 2)).collect::<Vec<_>>();
    /// assert_eq!(admitted.len(), 3); // one holder, and two waiters; the others are rejected at once
    /// ```
    #[must_use = "a ticket that is dropped gives up its place in the queue"]
    #[doc(alias("limit", "admission", "max_pending", "backpressure"))]
    pub fn ticket_if(&self, key: K, admit: impl FnOnce(KeyState) -> bool) -> Option<Ticket<'_, K, S>> {
        ticket(self, key, admit)
    }

    /// Like [`ticket`](Self::ticket), for a shared lock.
    ///
    /// **If the key can be shared at once, the ticket holds it at once**, before it is polled: await or drop it soon.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// # smol::block_on(async {
    /// let mutex = KeyedMutex::new();
    /// let (writer, reader) = (mutex.ticket("page"), mutex.ticket_shared("page"));
    /// assert_eq!(writer.run(async || "written first").await, Ok("written first"));
    /// assert_eq!(reader.run(async || "read after that").await, Ok("read after that"));
    /// # });
    /// ```
    pub fn ticket_shared(&self, key: K) -> SharedTicket<'_, K, S> {
        queue(self, key)
    }

    /// Like [`ticket_if`](Self::ticket_if), for a shared lock: `|now| now.waiting < 20` admits any number of holders,
    /// and at most 20 waiters, shared and exclusive ones together.
    #[must_use = "a ticket that is dropped gives up its place in the queue"]
    pub fn ticket_shared_if(&self, key: K, admit: impl FnOnce(KeyState) -> bool) -> Option<SharedTicket<'_, K, S>> {
        ticket(self, key, admit)
    }
}
