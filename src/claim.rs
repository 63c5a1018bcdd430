//! A claim on a key, from taking a place to giving it up: what guards, tickets and futures are made of.

use core::fmt;
use core::future::Future;
use core::hash::{BuildHasher, Hash};
use core::mem;
use core::ops::Deref;
use core::pin::Pin;
use core::task::{Context, Poll, Waker, ready};

use crate::mode::Mode;
use crate::mutex::{KeyedMutex, hash};
use crate::table::{GRANTED, KeyState, Kind, Locked, Place, ROOMY, STOPPED};

/// How a caller has a mutex: [`Borrowed`](crate::Borrowed), or in an `Arc<KeyedMutex<K, S>>`.
///
/// Guards, tickets, futures and modes are generic over it: those with an `Arc` borrow nothing. It cannot be implemented
/// for other types.
pub trait Handle: Sized + fmt::Debug {
    /// The key of the mutex.
    type Key;
    /// Its hasher.
    type Hasher;
    #[doc(hidden)]
    type Mutex: Clone + Deref<Target = KeyedMutex<Self::Key, Self::Hasher>>;

    #[doc(hidden)]
    fn new(mutex: Self::Mutex, hash: u32) -> Self;
    #[doc(hidden)]
    fn shard(&self, hash: u32) -> &Locked<Self::Key>;
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
}

impl<H: Handle<Key: Eq + Hash, Hasher: BuildHasher>> Claim<H> {
    #[inline]
    pub(crate) fn new(
        Mode { mutex, max }: Mode<H>,
        stoppable: bool,
        key: H::Key,
        admit: impl FnOnce(KeyState) -> bool,
        waker: impl FnOnce() -> Option<Waker>,
    ) -> Option<Self> {
        let hash = hash(&mutex.hasher, &key);
        let mut key = Some(key);
        let claim = Self::try_new(H::new(mutex, hash), Kind { max, stoppable }, hash, &mut key, admit, waker).ok();
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

/// Is ready when a claim has been granted or stopped: its place says which.
#[inline(never)]
pub(crate) fn poll_claim<H: Handle>(claim: &mut Option<Claim<H>>, context: &mut Context<'_>) -> Poll<Claim<H>> {
    let Claim { handle, place } = claim.as_mut().expect("a `KeyedMutex` future or ticket was polled after completion");
    if place.node < STOPPED {
        ready!(handle.shard(place.hash).poll(place, context.waker()));
    }
    Poll::Ready(claim.take().expect("it was there just now"))
}

/// Claims a key at the first poll, and waits for it.
pub(crate) struct Acquire<H: Handle, const STOPPABLE: bool> {
    /// Before the first poll.
    pub(crate) start: Option<(Mode<H>, H::Key)>,
    /// While it waits.
    claim: Option<Claim<H>>,
}

/// Nothing in it is ever pinned.
impl<H: Handle, const STOPPABLE: bool> Unpin for Acquire<H, STOPPABLE> {}

impl<H: Handle, const STOPPABLE: bool> Acquire<H, STOPPABLE> {
    pub(crate) fn new(mode: Mode<H>, key: H::Key) -> Self {
        Self { start: Some((mode, key)), claim: None }
    }
}

impl<H: Handle<Key: Eq>, const STOPPABLE: bool> Acquire<H, STOPPABLE> {
    #[inline(never)]
    fn wait(&mut self, handle: H, max: u32, hash: u32, key: H::Key, context: &mut Context<'_>) -> Poll<Claim<H>> {
        let (mut key, mut waker) = (Some(key), Some(context.waker().clone()));
        let claim =
            Claim::try_new(handle, Kind { max, stoppable: STOPPABLE }, hash, &mut key, |_| true, || waker.take());
        let claim = claim.unwrap_or_else(|_| unreachable!("it has a waker, and every waiter is admitted"));
        drop((key, waker)); // as above
        if claim.place.node == GRANTED {
            return Poll::Ready(claim);
        }
        mem::forget(self.claim.replace(claim)); // there was none
        Poll::Pending
    }
}

impl<H: Handle<Key: Eq + Hash, Hasher: BuildHasher>, const STOPPABLE: bool> Future for Acquire<H, STOPPABLE> {
    type Output = Claim<H>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Claim<H>> {
        let Some((Mode { mutex, max }, key)) = self.start.take() else { return poll_claim(&mut self.claim, context) };
        let hash = hash(&mutex.hasher, &key);
        let handle = H::new(mutex, hash);
        if !ROOMY {
            return self.wait(handle, max, hash, key, context);
        }
        // A free key needs no waker, and to clone one may cost more than all of this.
        let mut key = Some(key);
        match Claim::try_new(handle, Kind { max, stoppable: STOPPABLE }, hash, &mut key, |_| true, || None) {
            Ok(claim) => {
                drop(key); // as above
                Poll::Ready(claim)
            }
            Err(handle) => self.wait(handle, max, hash, key.expect("nothing needed it"), context),
        }
    }
}
