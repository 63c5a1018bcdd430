//! Sharing a key: readers beside each other, or so many at once.
//!
//! Both kinds wait in one queue. Whoever gives a sharer its turn lets in those behind it who want to share as well, as
//! many as may be inside; so does whoever leaves the queue, or downgrades. They are let in one by one, each under the
//! lock for itself, and woken outside it.
//!
//! A program that never shares does not link this file: the first one that shares leaves [`Shares`] with its shard, where
//! unlocking finds it.

use core::fmt;
use core::future::Future;
use core::hash::{BuildHasher, Hash};
use core::task::Waker;

use crate::claim::{Acquire, Handle, Holder};
use crate::guard::{KeyedMutexGuard, guard};
use crate::hash::RandomState;
use crate::mutex::KeyedMutex;
use crate::queue::{NONE, SHARES};
use crate::shard::{Kind, Left, Locked, Shard, Shares};
use crate::table::Table;
use crate::wake::wake_each;

/// One that wants to share.
pub(crate) enum Share {}

impl<K> Kind<K> for Share {
    const SHARES: Option<Shares<K>> = Some((Shard::unshare, left));
}

/// Wakes the first, and lets in those behind it who may be inside with it.
fn admit<K>(shard: &Locked<K>, hash: u32, id: u64, mut first: Option<Waker>) {
    wake_each(&mut || first.take().or_else(|| shard.with(|shard| shard.admit_next(hash, id))));
}

/// Somebody has left the queue, whose waker this was: sharers may have waited for that.
fn left<K>(shard: &Locked<K>, hash: u32, id: u64, _own: Option<Waker>) {
    admit(shard, hash, id, None);
}

impl<K> Shard<K> {
    /// Gives back a share, or all of a key. If it was the last share, the key goes to the next one, or is forgotten.
    fn unshare(&mut self, hash: u32, id: u64) -> Left<K> {
        let slot = self.slots.of(hash, id);
        let next = slot.queue.head;
        let sharer = next != NONE && self.nodes.ticket(next) == SHARES;
        if slot.sharers > 1 {
            slot.sharers -= 1;
            return if sharer { Left::Shared(admit, None) } else { Left::Nothing };
        }
        slot.sharers = u32::from(sharer);
        match self.pass_all(hash, id) {
            Left::Next(waker) if sharer => Left::Shared(admit, Some(waker)),
            left => left,
        }
    }

    /// Lets in whoever is next, if it wants to share, and may.
    fn admit_next(&mut self, hash: u32, id: u64) -> Option<Waker> {
        let slot = self.slots.find(hash, &mut |slot| slot.id == id)?;
        let next = slot.queue.head;
        if next == NONE || !(1..self.max).contains(&slot.sharers) || self.nodes.ticket(next) != SHARES {
            return None;
        }
        slot.sharers += 1;
        slot.waiting -= 1;
        Some(self.nodes.unlink(&mut slot.queue, next))
    }
}

impl<M: Handle> Holder<M> {
    /// Gives up having the key for itself, and keeps a share of it.
    pub(crate) fn downgrade(&self) {
        let (shard, max) = (self.mutex.table().shards.of(self.hash), self.mutex.table().max);
        shard.with(|shard| {
            shard.note_shares::<Share>(max);
            shard.slots.of(self.hash, self.id).sharers = 1;
        });
        admit(shard, self.hash, self.id, None);
    }
}

guard! {
    /// Holds a share of a key of a borrowed [`KeyedMutex`]. Dropping it gives the share back.
    ///
    /// Others may share the key at the same time, as many as [`with_max_shared`](KeyedMutex::with_max_shared) says, and
    /// nobody has it for itself. When the last share is given back, the key goes to the one that has waited longest, or
    /// is forgotten. For the rest it is as [`KeyedMutexGuard`] is.
    ///
    /// There is no way to make it exclusive: two who try that at the same time would wait for each other for ever. Drop it,
    /// lock the key, and look again at what it guards.
    KeyedMutexSharedGuard<'a, K, S>, Holder<&'a KeyedMutex<K, S>>
}

impl<K> KeyedMutex<K> {
    /// Creates a mutex of which at most `n` may share a key at a time: a semaphore for each key.
    ///
    /// Otherwise there is no limit short of `u32::MAX`, beyond which [`lock_shared`](Self::lock_shared) panics.
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
    /// let (first, second) = (REQUESTS.try_lock_shared("example.org"), REQUESTS.try_lock_shared("example.org"));
    /// assert!(first.is_some() && second.is_some());
    /// assert!(REQUESTS.try_lock_shared("example.org").is_none()); // two are inside
    /// ```
    #[must_use]
    #[doc(alias("semaphore", "limit", "permits", "rate"))]
    pub const fn with_max_shared(n: u32) -> Self {
        Self::with_max_shared_and_hasher(n, RandomState)
    }
}

impl<K, S> KeyedMutex<K, S> {
    /// Like [`with_max_shared`](KeyedMutex::with_max_shared), with the given hasher.
    #[must_use]
    pub const fn with_max_shared_and_hasher(n: u32, hasher: S) -> Self {
        assert!(n > 0, "at least one must be able to share a key");
        Self { table: Table::new(n, hasher) }
    }
}

impl<K: Eq + Hash, S: BuildHasher> KeyedMutex<K, S> {
    /// Locks a key together with others who share it, waiting for it if need be.
    ///
    /// Sharers and those who want the key for themselves ([`lock`](Self::lock), tasks, tickets) wait in one queue, first
    /// come, first served. Sharers who are next to each other in it go in together, as many as
    /// [`with_max_shared`](KeyedMutex::with_max_shared) says. Nobody overtakes: a sharer queues behind one who waits for
    /// the key for itself, though it could share with those inside. So neither kind can starve the other.
    ///
    /// Locking a key again in a task that shares it may wait for ever: behind somebody who waits for the first
    /// share to be given back.
    ///
    /// To give up on a signal, `select` one with this future: dropping it gives up the place.
    ///
    /// # Cancellation
    ///
    /// As in [`lock`](Self::lock). If it was waiting for others, those behind it who may be inside now go in.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// # smol::block_on(async {
    /// let mutex = KeyedMutex::new();
    /// let (one, two) = (mutex.lock_shared("page").await, mutex.lock_shared("page").await);
    /// assert!(mutex.try_lock("page").is_none());
    /// drop((one, two));
    /// assert!(mutex.try_lock("page").is_some());
    /// # });
    /// ```
    #[doc(alias("read", "rwlock", "semaphore", "acquire"))]
    pub fn lock_shared(&self, key: K) -> impl Future<Output = KeyedMutexSharedGuard<'_, K, S>> + Unpin {
        Acquire::<_, _, Share>::new(self, key, |holder, _| KeyedMutexSharedGuard(holder))
    }

    /// Locks a key together with others who share it, if that can be had at once: if nobody has it for itself, nobody
    /// waits, and there is room.
    #[must_use = "bind the guard to a name such as `_guard`; `let _ =` unlocks at once"]
    #[doc(alias("try_read", "try_acquire"))]
    pub fn try_lock_shared(&self, key: K) -> Option<KeyedMutexSharedGuard<'_, K, S>> {
        Holder::now::<Share>(self, key).map(KeyedMutexSharedGuard)
    }
}

/// Adds `downgrade` to a guard.
macro_rules! downgrade {
    ($Guard:ident <$($a:lifetime,)? K, S> => $SharedGuard:ident) => {
        impl<$($a,)? K, S> $Guard<$($a,)? K, S> {
            /// Shares the key from now on. At no moment is it free; those at the head of the queue who want to share
            /// go in at once. There is no way back: see the guard that this returns.
            pub fn downgrade(self) -> $SharedGuard<$($a,)? K, S> {
                self.0.downgrade();
                $SharedGuard(self.0)
            }
        }
    };
}
#[cfg(target_has_atomic = "ptr")]
pub(crate) use downgrade;

downgrade!(KeyedMutexGuard<'a, K, S> => KeyedMutexSharedGuard);
