//! Claims on a key, from taking a place to giving it up: what guards, tasks and tickets are made of.

use core::future::Future;
use core::hash::{BuildHasher, Hash};
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll, Waker, ready};

use crate::queue::{NONE, until_cloned};
use crate::shard::Place;
use crate::slots::ROOMY;
use crate::table::Table;

/// How a claim knows its mutex: borrowed, or shared.
pub(crate) trait Handle {
    type Key;
    type Hasher;

    fn table(&self) -> &Table<Self::Key, Self::Hasher>;
}

/// With which a key can be looked for.
pub(crate) trait Finds: Handle<Key: Hash + Eq, Hasher: BuildHasher> {}

impl<M: Handle<Key: Hash + Eq, Hasher: BuildHasher>> Finds for M {}

/// Holds a key. Dropping it is the only way to unlock.
pub(crate) struct Holder<M: Handle> {
    mutex: M,
    hash: u64,
    id: u64,
}

impl<M: Handle> Holder<M> {
    /// Holds the key if it is free.
    pub(crate) fn free(mutex: M, key: M::Key) -> Option<Self>
    where
        M: Finds,
    {
        let hash = mutex.table().hash(&key);
        let id = mutex.table().claim_free(hash, key).ok()?;
        Some(Self { mutex, hash, id })
    }

    /// Stops the tasks queued behind it.
    pub(crate) fn stop(&self) {
        self.mutex.table().with(self.hash, |shard| shard.stop(self.hash, &mut |slot| slot.id == self.id));
    }
}

impl<M: Handle> Drop for Holder<M> {
    fn drop(&mut self) {
        self.mutex.table().unlock(self.hash, self.id);
    }
}

/// Has a place in the queue of a key: as a plain lock or, if `TASK`, as a task or a ticket, which a stop turns away.
/// Dropping it gives up the place, or the key, if its turn has come: there is no other way to cancel.
pub(crate) struct Waiter<M: Handle, const TASK: bool> {
    /// `None` once it has become a holder.
    mutex: Option<M>,
    place: Place,
}

impl<M: Handle, const TASK: bool> Waiter<M, TASK> {
    /// Takes a place, if `admit` says so of those ahead. Its waker is this until it is polled.
    pub(crate) fn join(
        mutex: M,
        hash: u64,
        key: M::Key,
        waker: Waker,
        admit: impl FnOnce(usize) -> bool,
    ) -> Option<Self>
    where
        M: Finds,
    {
        let (mut key, mut waker) = (Some(key), Some(waker));
        let place = mutex.table().with(hash, |shard| shard.claim::<TASK>(hash, &mut key, &mut waker, admit));
        let waiter = place.map(|place| Self { mutex: Some(mutex), place });
        // Here, not at the end of the scope: if one of these panics, the place is given up.
        drop((key, waker));
        waiter
    }

    /// Ready when its turn has come, with the holder that it becomes and with whether it is stopped.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<(Holder<M>, bool)> {
        let (table, place) =
            (self.mutex.as_ref().expect("it was polled after it had given its guard").table(), self.place);
        let mut stopped = false;
        if place.node != NONE {
            let waker = context.waker();
            stopped = ready!(until_cloned(waker, |spare| {
                table.with(place.hash, |shard| shard.poll::<TASK>(place, waker, spare))
            }));
        }
        Poll::Ready((self.holder(), stopped))
    }

    fn holder(&mut self) -> Holder<M> {
        let mutex = self.mutex.take().expect("it was there just now");
        Holder { mutex, hash: self.place.hash, id: self.place.id }
    }
}

impl<M: Handle, const TASK: bool> Drop for Waiter<M, TASK> {
    fn drop(&mut self) {
        if let Some(mutex) = &self.mutex {
            mutex.table().leave::<TASK>(self.place);
        }
    }
}

/// Waits for a key, from the first poll on. `finish` makes of the holder, and of whether it is stopped, what is
/// wanted.
pub(crate) struct Acquire<M: Handle, F, const TASK: bool> {
    /// Before the first poll.
    start: Option<(M, M::Key)>,
    /// While it waits.
    waiter: Option<Waiter<M, TASK>>,
    finish: F,
}

/// Nothing in it is ever pinned.
impl<M: Handle, F, const TASK: bool> Unpin for Acquire<M, F, TASK> {}

impl<M: Finds, T, F: Fn(Holder<M>, bool) -> T, const TASK: bool> Acquire<M, F, TASK> {
    pub(crate) fn new(mutex: M, key: M::Key, finish: F) -> Self {
        Self { start: Some((mutex, key)), waiter: None, finish }
    }

    /// The key was busy just now: takes a place, and need not look again.
    #[inline(never)]
    fn join(&mut self, mutex: M, hash: u64, key: M::Key, context: &Context<'_>) -> Poll<T> {
        let waiter = Waiter::join(mutex, hash, key, context.waker().clone(), |_| true);
        let mut waiter = waiter.expect("everybody is admitted");
        if waiter.place.node == NONE {
            return Poll::Ready((self.finish)(waiter.holder(), false));
        }
        mem::forget(self.waiter.replace(waiter)); // there was none
        Poll::Pending
    }

    #[inline(never)]
    fn poll_again(&mut self, context: &mut Context<'_>) -> Poll<T> {
        let waiter = self.waiter.as_mut().expect("it was polled before");
        waiter.poll(context).map(|(holder, stopped)| (self.finish)(holder, stopped))
    }
}

impl<M: Finds, T, F: Fn(Holder<M>, bool) -> T, const TASK: bool> Future for Acquire<M, F, TASK> {
    type Output = T;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some((mutex, key)) = self.start.take() else { return self.poll_again(context) };
        let hash = mutex.table().hash(&key);
        if !ROOMY {
            return self.join(mutex, hash, key, context);
        }
        match mutex.table().claim_free(hash, key) {
            Ok(id) => Poll::Ready((self.finish)(Holder { mutex, hash, id }, false)),
            Err(key) => self.join(mutex, hash, key, context),
        }
    }
}
