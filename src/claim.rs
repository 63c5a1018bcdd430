//! A claim on a key, from taking a place to giving it up: what guards, tickets and futures are made of; and the future of
//! `lock`.

use core::hash::{BuildHasher, Hash};
use core::marker::PhantomData;
use core::ops::Deref;
use core::pin::Pin;
use core::task::{Context, Poll, Waker, ready};

use crate::guard::Guard;
use crate::hash::RandomState;
use crate::mode::Mode;
use crate::mutex::KeyedMutex;
use crate::table::{FAST, KeyState, Kind, Place, Shard, Sharing, Turn, fill};

/// How guards, tickets, futures and modes refer to their mutex: with a [borrow](Borrowed), or with an
/// `Arc<KeyedMutex<K, S>>`. The latter borrow nothing.
///
/// It cannot be implemented for other types.
pub trait Handle: Sized + core::fmt::Debug + Unpin {
    /// The key of the mutex.
    type Key;
    /// The hasher of the mutex.
    type Hasher;
    #[doc(hidden)]
    type Mutex: Clone + Deref<Target = KeyedMutex<Self::Key, Self::Hasher>>;

    #[doc(hidden)]
    fn new(mutex: Self::Mutex, hash: u32, _: Private) -> Self;
    #[doc(hidden)]
    fn shard(&self, hash: u32, _: Private) -> &Shard<Self::Key>;
}

/// What the hidden methods of [`Handle`] ask for, and only this crate has.
#[derive(Debug)]
pub struct Private(());

const PRIVATE: Private = Private(());

/// How guards, tickets, futures and modes refer to a [`KeyedMutex`] that they borrow.
pub struct Borrowed<'a, K, S = RandomState> {
    /// The shard of the key, so that it need not be looked for again.
    shard: &'a Shard<K>,
    mutex: PhantomData<&'a KeyedMutex<K, S>>,
}

impl<'a, K, S> Handle for Borrowed<'a, K, S> {
    type Key = K;
    type Hasher = S;
    type Mutex = &'a KeyedMutex<K, S>;

    fn new(mutex: &'a KeyedMutex<K, S>, hash: u32, _: Private) -> Self {
        Self { shard: mutex.shards.of(hash), mutex: PhantomData }
    }

    fn shard(&self, _hash: u32, _: Private) -> &Shard<K> {
        self.shard
    }
}

#[cfg(target_has_atomic = "ptr")]
impl<K, S> Handle for alloc::sync::Arc<KeyedMutex<K, S>> {
    type Key = K;
    type Hasher = S;
    type Mutex = Self;

    fn new(mutex: Self, _hash: u32, _: Private) -> Self {
        mutex
    }

    fn shard(&self, hash: u32, _: Private) -> &Shard<K> {
        self.shards.of(hash)
    }
}

impl<K, S: BuildHasher> KeyedMutex<K, S> {
    /// Hashes a key to 32 bits, which are enough: keys with equal hashes are compared. A user's hasher may be the identity,
    /// and keys regular: so the upper half is mixed before the halves are folded. (An even factor: by an odd one, halves
    /// that are equal would lose their lowest bit.)
    pub(crate) fn hash<Q: ?Sized + Hash>(&self, key: &Q) -> u32 {
        let hash = self.hasher.hash_one(key);
        (hash as u32) ^ ((hash >> 32) as u32).wrapping_mul(0x3c6e_f372)
    }
}

/// A place in the queue of a key; or, once it is granted, the key, or a share of it. Dropping it gives that up: there
/// is no other way to unlock, nor to cancel.
pub(crate) struct Claim<H: Handle> {
    handle: H,
    pub(crate) place: Place,
}

impl<H: Handle> Claim<H> {
    pub(crate) fn shard(&self) -> &Shard<H::Key> {
        self.handle.shard(self.place.hash, PRIVATE)
    }
}

impl<H: Handle> Drop for Claim<H> {
    #[inline]
    fn drop(&mut self) {
        self.handle.shard(self.place.hash, PRIVATE).give_up(&self.place);
    }
}

impl<H: Handle<Key: Eq + Hash, Hasher: BuildHasher>> Claim<H> {
    /// Claims a key, if `admit` returns `true` for its state, and if it can be granted at once or `waker` returns one.
    ///
    /// The caller drops the key, if it is still there, and what it has of a waker: outside the lock, and while it has the
    /// claim, which is given up if one of them panics.
    #[inline]
    fn attempt(
        handle: H,
        kind: Kind,
        hash: u32,
        key: &mut Option<H::Key>,
        admit: impl FnOnce(KeyState) -> bool,
        waker: impl FnOnce() -> Option<Waker>,
    ) -> Result<Self, H> {
        match handle.shard(hash, PRIVATE).with(|table| table.claim(kind, hash, key, admit, waker)) {
            Some(place) => Ok(Self { handle, place }),
            None => Err(handle),
        }
    }

    /// The same for a caller that does not wait here: it waits later, with a ticket, or not at all.
    #[inline]
    pub(crate) fn at_once(
        Mode { mutex, sharing }: Mode<H>,
        stoppable: bool,
        key: H::Key,
        admit: impl FnOnce(KeyState) -> bool,
        waker: impl FnOnce() -> Option<Waker>,
    ) -> Option<Self> {
        let hash = mutex.hash(&key);
        let mut key = Some(key);
        let kind = Kind { sharing, stoppable };
        let claim = Self::attempt(H::new(mutex, hash, PRIVATE), kind, hash, &mut key, admit, waker).ok();
        drop(key);
        claim
    }
}

/// Locks a key: the future of [`lock`](crate::KeyedMutex::lock), or another way to wait for it.
///
/// | to wait | use | you get |
/// | --- | --- | --- |
/// | for the key | `.await` | the guard |
/// | until a signal | [`.unless(signal).await`](Self::unless) | `Ok(guard)`, or `Err` with what the signal returned |
/// | in a thread | [`.wait()`](Self::wait) | the guard |
/// | in a thread, with a timeout | [`.wait_timeout(timeout)`](Self::wait_timeout) | `Some(guard)` or `None` |
///
/// It takes its place in the queue at its first poll. It has a name, so that a struct of yours can have it; with
/// `type Locks = Arc<KeyedMutex<u64>>`, it is a `Lock<Locks>`, and its guard a `Guard<Locks>`:
///
/// ```
/// use std::sync::Arc;
/// use async_mutex_lite::{Guard, KeyedMutex, Lock};
///
/// type Locks = Arc<KeyedMutex<u64>>;
///
/// enum Connection {
///     Waiting(Lock<Locks>),
///     Working(Guard<Locks>),
/// }
///
/// # smol::block_on(async {
/// let locks = Locks::default();
/// let mut connection = Connection::Waiting(locks.arc().lock(7));
/// if let Connection::Waiting(lock) = connection {
///     connection = Connection::Working(lock.await);
/// }
/// assert!(matches!(connection, Connection::Working(_)) && locks.is_locked(&7));
/// # });
/// ```
#[must_use = "it locks nothing until it is awaited: `.await`, `.unless(signal).await`, `.wait()` or `.wait_timeout(timeout)`"]
pub struct Lock<H: Handle>(pub(crate) Acquire<H, false>);

impl<H: Handle<Key: Eq + Hash, Hasher: BuildHasher>> Future for Lock<H> {
    type Output = Guard<H>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Guard<H>> {
        Poll::Ready(Guard(ready!(Pin::new(&mut self.0).poll(context))))
    }
}

/// Claims a key at the first poll, and waits for it: what [`Lock`]s and jobs are made of.
pub(crate) struct Acquire<H: Handle, const STOPPABLE: bool> {
    /// Before the first poll.
    pub(crate) start: Option<(Mode<H>, H::Key)>,
    /// While it waits; in a `LockMany`, also when it holds the key.
    pub(crate) claim: Option<Claim<H>>,
}

/// Nothing in it is ever pinned.
impl<H: Handle, const STOPPABLE: bool> Unpin for Acquire<H, STOPPABLE> {}

impl<H: Handle<Key: Eq + Hash, Hasher: BuildHasher>, const STOPPABLE: bool> Acquire<H, STOPPABLE> {
    /// Joins the queue, unless the key has become free meanwhile.
    #[cold]
    fn wait(
        &mut self,
        handle: H,
        sharing: Sharing,
        hash: u32,
        key: H::Key,
        context: &mut Context<'_>,
    ) -> Poll<Claim<H>> {
        let (mut key, mut waker) = (Some(key), Some(context.waker().clone()));
        let kind = Kind { sharing, stoppable: STOPPABLE };
        let claim = Claim::attempt(handle, kind, hash, &mut key, |_| true, || waker.take());
        let claim = claim.unwrap_or_else(|_| unreachable!("it has a waker, and every waiter is admitted"));
        drop((key, waker));
        if claim.place.turn == Turn::GRANTED {
            return Poll::Ready(claim);
        }
        fill(&mut self.claim, claim);
        Poll::Pending
    }
}

impl<H: Handle<Key: Eq + Hash, Hasher: BuildHasher>, const STOPPABLE: bool> Future for Acquire<H, STOPPABLE> {
    type Output = Claim<H>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Claim<H>> {
        let Some((Mode { mutex, sharing }, key)) = self.start.take() else {
            return poll_claim(&mut self.claim, context);
        };
        let hash = mutex.hash(&key);
        let handle = H::new(mutex, hash, PRIVATE);
        if !FAST {
            return self.wait(handle, sharing, hash, key, context);
        }
        // A free key needs no waker, and to clone one may cost more than all of this.
        let (mut key, kind) = (Some(key), Kind { sharing, stoppable: STOPPABLE });
        match Claim::attempt(handle, kind, hash, &mut key, |_| true, || None) {
            Ok(claim) => {
                drop(key);
                Poll::Ready(claim)
            }
            Err(handle) => self.wait(handle, sharing, hash, key.expect("it was not claimed"), context),
        }
    }
}

/// Is ready when a claim has been granted or stopped: its place says which.
#[inline(never)]
pub(crate) fn poll_claim<H: Handle>(claim: &mut Option<Claim<H>>, context: &mut Context<'_>) -> Poll<Claim<H>> {
    let Claim { handle, place } = claim.as_mut().expect("a `KeyedMutex` future or ticket was polled after completion");
    ready!(handle.shard(place.hash, PRIVATE).poll(place, context.waker()));
    Poll::Ready(claim.take().expect("it was there just now"))
}

/// Prints guards, tickets and futures by their names: what they hold may be without `Debug`, or behind a lock.
macro_rules! print_name {
    ([$($parameters:tt)*] $type:ident $($arguments:tt)*) => {
        impl<$($parameters)*> core::fmt::Debug for $type $($arguments)* {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(concat!(stringify!($type), "(..)"))
            }
        }
    };
}
pub(crate) use print_name;

print_name!([H: Handle] Lock<H>);
print_name!([K, S] Borrowed<'_, K, S>);
