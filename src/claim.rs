//! A claim on a key, from taking a place to giving it up: what guards, tickets and futures are made of.

use core::fmt;
use core::future::Future;
use core::marker::PhantomData;
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll, Waker, ready};

use crate::table::{GRANTED, KeyState, Kind, Locked, Place, ROOMY, STOPPED};

/// How a guard or a ticket refers to its mutex, so that it can reach the shard of its key.
///
/// It is implemented by [`Borrowed`](crate::Borrowed) and by `Arc<KeyedMutex<K, S>>`, and cannot be implemented
/// elsewhere.
pub trait Handle {
    /// The key of the mutex.
    type Key;

    #[doc(hidden)]
    fn shard(&self, hash: u32) -> &Locked<Self::Key>;
}

/// A mutex as a caller has it, borrowed or in an `Arc`: it finds the shards of keys.
pub(crate) trait Mutex<H: Handle> {
    /// Returns the hash of the key, and a handle to its shard.
    fn find(self, key: &H::Key) -> (u32, H);
}

/// What a claim becomes when its wait is over. Its `KIND` says what is claimed.
pub(crate) trait Claimed<H: Handle> {
    const KIND: Kind;

    fn claimed(claim: Claim<H>) -> Self;
}

/// A place in the queue of a key; or, once it is granted, the key, or a share of it. Dropping it gives that up: there
/// is no other way to unlock, nor to cancel.
pub(crate) struct Claim<H: Handle> {
    pub(crate) handle: H,
    pub(crate) place: Place,
}

impl<H: Handle<Key: Eq>> Claim<H> {
    /// Claims a key, if `admit` returns `true` for its state, and if it can be granted at once or there is a waker.
    #[inline]
    fn try_new(
        handle: H,
        kind: Kind,
        hash: u32,
        key: &mut Option<H::Key>,
        admit: impl FnOnce(KeyState) -> bool,
        waker: impl FnOnce() -> Option<Waker>,
    ) -> Result<Self, H> {
        match handle.shard(hash).with(|shard| shard.claim(kind, hash, key, admit, waker)) {
            Some(place) => Ok(Self { handle, place }),
            None => Err(handle),
        }
    }

    pub(crate) fn new(
        (hash, handle): (u32, H),
        kind: Kind,
        key: H::Key,
        admit: impl FnOnce(KeyState) -> bool,
        waker: impl FnOnce() -> Option<Waker>,
    ) -> Option<Self> {
        let mut key = Some(key);
        let claim = Self::try_new(handle, kind, hash, &mut key, admit, waker).ok();
        drop(key); // if it was not needed: outside the lock, and while `claim` is still here, which a panic gives up
        claim
    }
}

impl<H: Handle> Drop for Claim<H> {
    fn drop(&mut self) {
        self.handle.shard(self.place.hash).give_up(self.place);
    }
}

impl<H: Handle> fmt::Debug for Claim<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// Claims a key if it can be granted at once.
pub(crate) fn claim_now<H: Handle<Key: Eq>, T: Claimed<H>>(mutex: impl Mutex<H>, key: H::Key) -> Option<T> {
    Claim::new(mutex.find(&key), T::KIND, key, |_| true, || None).map(T::claimed)
}

/// Is ready when a claim has been granted or stopped, and returns what the claim becomes.
#[inline(never)]
pub(crate) fn poll_claim<H: Handle, T: Claimed<H>>(claim: &mut Option<Claim<H>>, context: &mut Context<'_>) -> Poll<T> {
    let Claim { handle, place } = claim.as_mut().expect("a `KeyedMutex` future or ticket was polled after completion");
    if place.node < STOPPED {
        ready!(handle.shard(place.hash).poll(place, context.waker()));
    }
    Poll::Ready(T::claimed(claim.take().expect("it was there just now")))
}

/// Claims a key at the first poll, and waits for it.
pub(crate) struct Acquire<M, H: Handle, T> {
    /// Before the first poll.
    start: Option<(M, H::Key)>,
    /// While it waits.
    claim: Option<Claim<H>>,
    becomes: PhantomData<fn() -> T>,
}

/// Nothing in it is ever pinned.
impl<M, H: Handle, T> Unpin for Acquire<M, H, T> {}

impl<M: Mutex<H>, H: Handle<Key: Eq>, T: Claimed<H>> Acquire<M, H, T> {
    pub(crate) fn new(mutex: M, key: H::Key) -> Self {
        Self { start: Some((mutex, key)), claim: None, becomes: PhantomData }
    }

    #[inline(never)]
    fn wait(&mut self, handle: H, hash: u32, key: H::Key, context: &mut Context<'_>) -> Poll<T> {
        let (mut key, mut waker) = (Some(key), Some(context.waker().clone()));
        let claim = Claim::try_new(handle, T::KIND, hash, &mut key, |_| true, || waker.take());
        let claim = claim.unwrap_or_else(|_| unreachable!("it has a waker, and every waiter is admitted"));
        drop((key, waker)); // as above
        if claim.place.node == GRANTED {
            return Poll::Ready(T::claimed(claim));
        }
        mem::forget(self.claim.replace(claim)); // there was none
        Poll::Pending
    }
}

impl<M: Mutex<H>, H: Handle<Key: Eq>, T: Claimed<H>> Future for Acquire<M, H, T> {
    type Output = T;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some((mutex, key)) = self.start.take() else { return poll_claim(&mut self.claim, context) };
        let (hash, handle) = mutex.find(&key);
        if !ROOMY {
            return self.wait(handle, hash, key, context);
        }
        // A free key needs no waker, and to clone one may cost more than all of this.
        let mut key = Some(key);
        match Claim::try_new(handle, T::KIND, hash, &mut key, |_| true, || None) {
            Ok(claim) => {
                drop(key); // as above
                Poll::Ready(T::claimed(claim))
            }
            Err(handle) => self.wait(handle, hash, key.expect("nothing needed it"), context),
        }
    }
}
