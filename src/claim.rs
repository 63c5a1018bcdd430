//! Claims on a key, from taking a place to giving it up: what guards, tasks and tickets are made of.

use core::future::Future;
use core::hash::{BuildHasher, Hash};
use core::marker::PhantomData;
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll, Waker, ready};

use crate::queue::NONE;
use crate::shard::{Kind, Place};
use crate::slots::ROOMY;
use crate::table::Table;
use crate::wake::until_cloned;

/// How a claim knows its mutex: borrowed, or shared.
pub(crate) trait Handle {
    type Key;
    type Hasher;

    fn table(&self) -> &Table<Self::Key, Self::Hasher>;
}

/// With which a key can be looked for.
pub(crate) trait Finds: Handle<Key: Hash + Eq, Hasher: BuildHasher> {}

impl<M: Handle<Key: Hash + Eq, Hasher: BuildHasher>> Finds for M {}

/// Holds a key, or a share of one. Dropping it is the only way to unlock.
pub(crate) struct Holder<M: Handle> {
    pub(crate) mutex: M,
    pub(crate) hash: u32,
    pub(crate) id: u64,
}

impl<M: Handle> Holder<M> {
    /// Holds the key if it can be had at once.
    pub(crate) fn now<T: Kind<M::Key>>(mutex: M, key: M::Key) -> Option<Self>
    where
        M: Finds,
    {
        let hash = mutex.table().hash(&key);
        let id = mutex.table().claim_now::<T>(hash, key).ok()?;
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

/// Has a place in the queue of a key, for what `T` says. Dropping it gives up the place, or the key, if its turn has
/// come: there is no other way to cancel.
pub(crate) struct Waiter<M: Handle, T: Kind<M::Key>> {
    /// `None` once it has become a holder.
    mutex: Option<M>,
    place: Place,
    kind: PhantomData<fn() -> T>,
}

impl<M: Handle, T: Kind<M::Key>> Waiter<M, T> {
    /// Takes a place, if `admit` says so of those ahead. Its waker is this until it is polled.
    pub(crate) fn join(
        mutex: M,
        hash: u32,
        key: M::Key,
        waker: Waker,
        admit: impl FnOnce(usize) -> bool,
    ) -> Option<Self>
    where
        M: Finds,
    {
        let (mut key, mut waker) = (Some(key), Some(waker));
        let max = mutex.table().max;
        let place = mutex.table().with(hash, |shard| shard.claim::<T>(hash, &mut key, &mut waker, max, admit));
        let waiter = place.map(|place| Self { mutex: Some(mutex), place, kind: PhantomData });
        // Here, not at the end of the scope: if one of these panics, the place is given up.
        drop((key, waker));
        waiter
    }

    /// Ready when its turn has come, with the holder that it becomes and with whether it is stopped.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<(Holder<M>, bool)> {
        let Self { mutex, place, .. } = self;
        let table = mutex.as_ref().expect("it was polled after it had given its guard").table();
        let mut stopped = false;
        if place.node != NONE {
            let waker = context.waker();
            stopped = ready!(until_cloned(waker, |spare| {
                let polled = table.with(place.hash, |shard| shard.poll::<T>(*place, waker, spare));
                if let Some(Poll::Ready(_)) = polled {
                    place.node = NONE; // it is free: if dropping `spare` panics, the key is passed on
                }
                polled
            }));
        }
        Poll::Ready((self.holder(), stopped))
    }

    fn holder(&mut self) -> Holder<M> {
        let mutex = self.mutex.take().expect("it was there just now");
        Holder { mutex, hash: self.place.hash, id: self.place.id }
    }
}

impl<M: Handle, T: Kind<M::Key>> Drop for Waiter<M, T> {
    fn drop(&mut self) {
        if let Some(mutex) = &self.mutex {
            mutex.table().leave::<T>(self.place);
        }
    }
}

/// Waits for a key, from the first poll on. `finish` makes of the holder, and of whether it is stopped, what is
/// wanted.
pub(crate) struct Acquire<M: Handle, F, T: Kind<M::Key>> {
    /// Before the first poll.
    start: Option<(M, M::Key)>,
    /// While it waits.
    waiter: Option<Waiter<M, T>>,
    finish: F,
}

/// Nothing in it is ever pinned.
impl<M: Handle, F, T: Kind<M::Key>> Unpin for Acquire<M, F, T> {}

impl<M: Finds, R, F: Fn(Holder<M>, bool) -> R, T: Kind<M::Key>> Acquire<M, F, T> {
    pub(crate) fn new(mutex: M, key: M::Key, finish: F) -> Self {
        Self { start: Some((mutex, key)), waiter: None, finish }
    }

    /// The key was busy just now: takes a place, and need not look again.
    #[inline(never)]
    fn join(&mut self, mutex: M, hash: u32, key: M::Key, context: &Context<'_>) -> Poll<R> {
        let waiter = Waiter::join(mutex, hash, key, context.waker().clone(), |_| true);
        let mut waiter = waiter.expect("everybody is admitted");
        if waiter.place.node == NONE {
            return Poll::Ready((self.finish)(waiter.holder(), false));
        }
        mem::forget(self.waiter.replace(waiter)); // there was none
        Poll::Pending
    }

    #[inline(never)]
    fn poll_again(&mut self, context: &mut Context<'_>) -> Poll<R> {
        let waiter = self.waiter.as_mut().expect("it was polled before");
        waiter.poll(context).map(|(holder, stopped)| (self.finish)(holder, stopped))
    }
}

impl<M: Finds, R, F: Fn(Holder<M>, bool) -> R, T: Kind<M::Key>> Future for Acquire<M, F, T> {
    type Output = R;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<R> {
        let Some((mutex, key)) = self.start.take() else { return self.poll_again(context) };
        let hash = mutex.table().hash(&key);
        if !ROOMY {
            return self.join(mutex, hash, key, context);
        }
        match mutex.table().claim_now::<T>(hash, key) {
            Ok(id) => Poll::Ready((self.finish)(Holder { mutex, hash, id }, false)),
            Err(key) => self.join(mutex, hash, key, context),
        }
    }
}
