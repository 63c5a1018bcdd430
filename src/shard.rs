//! One shard: some of the busy keys and all who wait for them, and what is done to them under the lock.

#[cfg(feature = "idle")]
use alloc::vec::Vec;
use core::mem;
use core::task::{Poll, Waker};

use crate::queue::{NONE, Nodes, SHARES};
use crate::slots::{Slot, Slots};
use crate::sync::Lock;
#[cfg(feature = "idle")]
use crate::watch::Watcher;

/// Where a claim stands: enough to find its slot without its key, and its node, if it has had to wait.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) hash: u32,
    pub(crate) id: u64,
    /// `NONE` if it found the key free.
    pub(crate) node: u32,
}

/// What is claimed, known where the code is compiled.
pub(crate) trait Kind<K> {
    /// A task or a ticket, which a stop turns away.
    const TASK: bool = false;
    /// One share of a key, not all of it; and what unlocking and leaving the queue mean where keys are shared.
    const SHARES: Option<Shares<K>> = None;
}

/// A plain lock.
pub(crate) enum Plain {}

impl<K> Kind<K> for Plain {}

/// A task or a ticket.
pub(crate) enum Task {}

impl<K> Kind<K> for Task {
    const TASK: bool = true;
}

/// Code that a program links if it shares keys: how to unlock, and what to do when somebody has left the queue. See
/// [`share`](crate::share).
pub(crate) type Shares<K> = (fn(&mut Shard<K>, u32, u64) -> Left<K>, After<K>);

/// What is to be done outside the lock, with a waker, for the slot with this hash and this id.
pub(crate) type After<K> = fn(&Locked<K>, u32, u64, Option<Waker>);

/// What a claim leaves behind, for the caller to deal with outside the lock.
pub(crate) enum Left<K> {
    /// Its slot is gone: this was the key.
    Key(K),
    /// The same, and some who watched for that are to be woken.
    #[cfg(feature = "idle")]
    Watched(K),
    /// The key is the next one's: this wakes it.
    Next(Waker),
    /// It still waited: this was its own waker.
    Own(Waker),
    /// Keys are shared here, and this is to be done.
    Shared(After<K>, Option<Waker>),
    Nothing,
}

impl<K> Left<K> {
    /// Wakers and `K::drop` are the user's: they run outside the lock, and after everything is in order.
    #[inline]
    pub(crate) fn settle(self, shard: &Locked<K>, hash: u32, id: u64) {
        match self {
            Self::Key(key) => drop(key),
            Self::Next(waker) => waker.wake(),
            Self::Own(waker) => drop(waker),
            rest => rest.settle_rest(shard, hash, id),
        }
    }

    /// What is rare, out of the way.
    #[cold]
    fn settle_rest(self, shard: &Locked<K>, hash: u32, id: u64) {
        match self {
            Self::Shared(after, waker) => after(shard, hash, id, waker),
            #[cfg(feature = "idle")]
            Self::Watched(_key) => crate::wake::wake_each(&mut || shard.with(Shard::told)),
            _ => {}
        }
    }
}

/// The keys of one shard, what its lock guards.
pub(crate) struct Shard<K> {
    pub(crate) slots: Slots<K>,
    pub(crate) nodes: Nodes,
    #[cfg(feature = "idle")]
    pub(crate) watchers: Vec<Watcher>,
    /// Whether keys have been shared here, and then how.
    shares: Option<Shares<K>>,
    /// How many may share a key, where keys have been shared.
    pub(crate) max: u32,
    /// The next ticket. Tickets count per shard, not per key, so that no two slots share an id.
    pub(crate) next: u64,
}

impl<K> Shard<K> {
    pub(crate) const EMPTY: Self = Self {
        slots: Slots::EMPTY,
        nodes: Nodes::EMPTY,
        #[cfg(feature = "idle")]
        watchers: Vec::new(),
        shares: None,
        max: 0,
        next: 0,
    };

    pub(crate) fn draw(&mut self) -> u64 {
        let ticket = self.next;
        self.next += 1;
        ticket
    }

    /// Makes a slot for a key that has none. Whoever does so holds it.
    fn open<T: Kind<K>>(&mut self, hash: u32, key: &mut Option<K>, max: u32) -> u64 {
        let id = self.draw();
        self.slots.insert(hash, id, key.take().expect("the key is still there"), T::SHARES.is_some().into());
        self.note_shares::<T>(max);
        id
    }

    pub(crate) fn note_shares<T: Kind<K>>(&mut self, max: u32) {
        if T::SHARES.is_some() {
            (self.shares, self.max) = (T::SHARES, max);
        }
    }

    /// Claims a key if it can be had at once. Returns the id of its slot.
    #[inline]
    pub(crate) fn claim_now<T: Kind<K>>(&mut self, hash: u32, key: &mut Option<K>, max: u32) -> Option<u64>
    where
        K: Eq,
    {
        let wanted = key.as_ref().expect("the key is still there");
        match self.slots.find(hash, &mut |slot| slot.key == *wanted) {
            Some(slot) => slot.share::<T>(max).then_some(slot.id),
            None => Some(self.open::<T>(hash, key, max)),
        }
    }

    /// Claims a key: at once, if it can be had, or a place in its queue, if `admit` says so of those ahead.
    #[inline]
    pub(crate) fn claim<T: Kind<K>>(
        &mut self,
        hash: u32,
        key: &mut Option<K>,
        waker: &mut Option<Waker>,
        max: u32,
        admit: impl FnOnce(usize) -> bool,
    ) -> Option<Place>
    where
        K: Eq,
    {
        let wanted = key.as_ref().expect("the key is still there");
        let Some(slot) = self.slots.find(hash, &mut |slot| slot.key == *wanted) else {
            return admit(0).then(|| Place { hash, id: self.open::<T>(hash, key, max), node: NONE });
        };
        let (id, ahead) = (slot.id, slot.waiting as usize + slot.sharers.max(1) as usize);
        if slot.share::<T>(max) {
            return Some(Place { hash, id, node: NONE });
        }
        if !admit(ahead) {
            return None;
        }
        let waker = waker.take().expect("whoever may have to wait has a waker");
        let ticket = if T::SHARES.is_some() { SHARES } else { self.next };
        let node = self.nodes.append(&mut slot.queue, waker, ticket);
        slot.waiting += 1;
        slot.stoppable += u32::from(T::TASK);
        self.next += u64::from(T::TASK);
        self.note_shares::<T>(max);
        Some(Place { hash, id, node })
    }

    /// Ready when the turn of a claim has come, with whether it is stopped: see [`Nodes::poll`].
    #[inline]
    pub(crate) fn poll<T: Kind<K>>(
        &mut self,
        place: Place,
        waker: &Waker,
        spare: &mut Option<Waker>,
    ) -> Option<Poll<bool>> {
        Some(self.nodes.poll(place.node, waker, spare)?.map(|()| self.begin::<T>(place)))
    }

    /// A claim needs its node no more: its turn has come, or it leaves. Returns whether it is stopped.
    #[inline]
    fn begin<T: Kind<K>>(&mut self, place: Place) -> bool {
        let ticket = self.nodes.free(place.node);
        if !T::TASK {
            return false;
        }
        let slot = self.slots.of(place.hash, place.id);
        let stopped = ticket < slot.stopped;
        slot.stoppable -= u32::from(!stopped);
        stopped
    }

    /// Unlocks a key: it is forgotten, or the next one's. The short way is for a key that nobody waits for.
    pub(crate) fn unlock(&mut self, hash: u32, id: u64) -> Left<K> {
        #[cfg(feature = "idle")]
        if !self.watchers.is_empty() {
            return self.pass(hash, id);
        }
        match self.slots.take_hot(id) {
            Some(slot) => Left::Key(slot.key),
            None => self.pass(hash, id),
        }
    }

    #[inline(never)]
    fn pass(&mut self, hash: u32, id: u64) -> Left<K> {
        match self.shares {
            Some((unlock, _)) => unlock(self, hash, id),
            None => self.pass_all(hash, id),
        }
    }

    /// A key that one has had for itself, or the last share of it, goes to the next one, or is forgotten.
    pub(crate) fn pass_all(&mut self, hash: u32, id: u64) -> Left<K> {
        let slot = self.slots.of(hash, id);
        let next = slot.queue.head;
        if next == NONE {
            let slot = self.slots.take(hash, id);
            #[cfg(feature = "idle")]
            if self.tell(id) {
                return Left::Watched(slot.key);
            }
            return Left::Key(slot.key);
        }
        slot.waiting -= 1;
        Left::Next(self.nodes.unlink(&mut slot.queue, next))
    }

    /// Gives up a claim: its place in the queue, or the key, if its turn has come.
    #[inline]
    pub(crate) fn leave<T: Kind<K>>(&mut self, place: Place) -> Left<K> {
        if place.node == NONE {
            return self.pass(place.hash, place.id);
        }
        if self.nodes.has_its_turn(place.node) {
            self.begin::<T>(place);
            return self.pass(place.hash, place.id);
        }
        let slot = self.slots.of(place.hash, place.id);
        slot.waiting -= 1;
        let own = self.nodes.unlink(&mut slot.queue, place.node);
        self.begin::<T>(place);
        match self.shares {
            Some((_, left)) => Left::Shared(left, Some(own)),
            None => Left::Own(own),
        }
    }

    /// Stops the tasks in the slot that `is` finds. Returns how many.
    pub(crate) fn stop(&mut self, hash: u32, is: &mut dyn FnMut(&Slot<K>) -> bool) -> usize {
        self.slots.find(hash, is).map_or(0, |slot| slot.stop(self.next))
    }

    /// Stops every task. Returns how many.
    pub(crate) fn stop_all(&mut self) -> usize {
        self.slots.hot.iter_mut().chain(&mut self.slots.table).map(|slot| slot.stop(self.next)).sum()
    }

    /// Makes room for so many keys, and as many waiters, and keeps it.
    pub(crate) fn reserve(&mut self, keys: usize) {
        self.slots.reserve(keys);
        self.nodes.reserve(keys);
    }
}

impl<K> Slot<K> {
    /// Stops the tasks with a ticket below the next one.
    fn stop(&mut self, next: u64) -> usize {
        self.stopped = next;
        mem::take(&mut self.stoppable) as usize
    }

    /// Lets one more in who wants to share, if it may: nobody waits, and those inside share as well.
    fn share<T: Kind<K>>(&mut self, max: u32) -> bool {
        let unlimited = max == u32::MAX;
        let may = T::SHARES.is_some() && self.waiting == 0 && self.sharers > 0 && (self.sharers < max || unlimited);
        if may {
            self.sharers = self.sharers.checked_add(1).expect("too many share one key");
        }
        may
    }
}

/// A shard behind its lock. With `std`, on cache lines of its own, two of them: processors fetch them in pairs.
#[cfg_attr(all(feature = "std", not(feature = "critical-section")), repr(align(128)))]
pub(crate) struct Locked<K>(pub(crate) Lock<Shard<K>>);

impl<K> Locked<K> {
    /// Runs `work` under the lock.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Shard<K>) -> R) -> R {
        self.0.with(|shard| {
            let result = work(shard);
            #[cfg(any(test, loom, fuzzing))]
            shard.check();
            result
        })
    }
}
