//! Tickets: queueing now, and waiting later.

use core::hash::{BuildHasher, Hash};
use core::pin::Pin;
use core::task::{Context, Poll, Waker, ready};

use crate::claim::{Borrowed, Claim, Handle, poll_claim, print_name};
use crate::guard::Guard;
use crate::mode::Mode;
use crate::mutex::KeyedMutex;
use crate::run::{StopOnDrop, Stopped, outcome};
use crate::table::KeyState;
use crate::wait::ways_to_wait;

/// A place in the queue of a key, taken when the ticket was made. It waits in the same ways as a [`Lock`](crate::Lock).
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
///     match mutex.ticket(user).unless(smol::Timer::after(Duration::from_secs(2))).await {
///         Ok(Ok(guard)) => guard.run_or_stop(charge).await,
///         Ok(Err(Stopped)) => Err("a charge before this one failed, or the program is shutting down"),
///         Err(_) => Err("busy, try again later"), // the place is given up
///     }
/// }
/// # assert_eq!(smol::block_on(wallet(&KeyedMutex::new(), 1)), Ok(7));
/// ```
///
/// A ticket that has been granted the key and is not polled blocks the waiters behind it, as a guard does. It may be
/// dropped in any state: it gives up its place, or the key. It allocates no more than a plain lock.
///
/// # Panics
///
/// Polling a ticket after completion panics.
#[must_use = "a ticket that is dropped gives up its place in the queue"]
#[doc(alias("Queued", "SharedTicket", "TicketArc", "SharedTicketArc"))]
pub struct Ticket<H: Handle>(Option<Claim<H>>);

impl<H: Handle> Ticket<H> {
    /// Waits for the key, and runs a closure while holding it, as [`KeyedMutex::run`] does.
    ///
    /// # Errors
    ///
    /// Returns [`Stopped`], without calling the closure, if the queue was stopped while the ticket waited in it, polled
    /// or not.
    pub async fn run<F: Future>(self, job: impl FnOnce() -> F) -> Result<F::Output, Stopped> {
        let output; // out here, so that it is not leaked if unlocking panics
        {
            let _guard = self.await?;
            output = job().await;
        }
        Ok(output)
    }

    /// Waits for the key, and runs a closure while holding it, as [`KeyedMutex::run_or_stop`] does.
    ///
    /// # Errors
    ///
    /// The outer error is [`Stopped`], as in [`run`](Self::run); the inner one is that of the closure.
    pub async fn run_or_stop<T, E, F: Future<Output = Result<T, E>>>(
        self,
        job: impl FnOnce() -> F,
    ) -> Result<Result<T, E>, Stopped> {
        let guard = StopOnDrop(Some(self.await?));
        let output = job().await;
        guard.end(&output);
        Ok(output)
    }

    /// Returns `true` if the key has been granted to the ticket, whether or not it has been polled since.
    #[must_use]
    pub fn is_granted(&self) -> bool {
        self.0.as_ref().is_some_and(|claim| claim.shard().is_granted(claim.place.turn))
    }
}

impl<H: Handle> Future for Ticket<H> {
    type Output = Result<Guard<H>, Stopped>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(outcome(ready!(poll_claim(&mut self.0, context))))
    }
}

print_name!([H: Handle] Ticket<H>);
ways_to_wait!(Ticket, Result<Guard<H>, Stopped>);

impl<H: Handle<Key: Eq + Hash, Hasher: BuildHasher>> Mode<H> {
    /// See [`KeyedMutex::ticket`].
    pub fn ticket(self, key: H::Key) -> Ticket<H> {
        self.ticket_if(key, |_| true).expect("every ticket is outcome")
    }

    /// See [`KeyedMutex::ticket_if`]. `now.waiting` counts shared and exclusive waiters together.
    #[must_use = "a ticket that is dropped gives up its place in the queue"]
    pub fn ticket_if(self, key: H::Key, admit: impl FnOnce(KeyState) -> bool) -> Option<Ticket<H>> {
        // It has no waker until it is polled.
        Claim::at_once(self, true, key, admit, || Some(Waker::noop().clone())).map(|claim| Ticket(Some(claim)))
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
    /// let (first, second) = (mutex.arc().ticket("alice"), mutex.arc().ticket("alice"));
    /// let work = smol::spawn(second.run(async || "runs second"));
    /// assert_eq!(first.run(async || "runs first").await, Ok("runs first"));
    /// assert_eq!(work.await, Ok("runs second"));
    /// # });
    /// ```
    #[doc(alias("enqueue"))]
    pub fn ticket(&self, key: K) -> Ticket<Borrowed<'_, K, S>> {
        self.exclusive().ticket(key)
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
    /// let outcome = (0..5).filter_map(|_| mutex.ticket_if("alice", |now| now.waiting < 2)).collect::<Vec<_>>();
    /// assert_eq!(outcome.len(), 3); // one holder, and two waiters; the others are rejected at once
    /// ```
    #[must_use = "a ticket that is dropped gives up its place in the queue"]
    #[doc(alias("limit", "admission", "max_pending", "backpressure"))]
    pub fn ticket_if(&self, key: K, admit: impl FnOnce(KeyState) -> bool) -> Option<Ticket<Borrowed<'_, K, S>>> {
        self.exclusive().ticket_if(key, admit)
    }
}
