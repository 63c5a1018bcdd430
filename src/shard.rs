//! One shard: some of the busy keys and all who wait for them, and what is done to them under the lock.

#[cfg(feature = "idle")]
use alloc::vec::Vec;
use core::mem;
use core::task::{Poll, Waker};

use crate::queue::{NONE, Nodes};
use crate::slots::{Slot, Slots};
#[cfg(feature = "idle")]
use crate::watch::Watcher;

/// Where a claim stands: enough to find its slot without its key, and its node, if it has had to wait.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) hash: u64,
    pub(crate) id: u64,
    /// `NONE` if it found the key free.
    pub(crate) node: u32,
}

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
}

/// The keys of one shard, what its lock guards.
pub(crate) struct Shard<K> {
    pub(crate) slots: Slots<K>,
    pub(crate) nodes: Nodes,
    #[cfg(feature = "idle")]
    pub(crate) watchers: Vec<Watcher>,
    /// The next ticket. Tickets count per shard, not per key, so that no two slots share an id.
    pub(crate) next: u64,
}

impl<K> Shard<K> {
    pub(crate) const EMPTY: Self = Self {
        slots: Slots::EMPTY,
        nodes: Nodes::EMPTY,
        #[cfg(feature = "idle")]
        watchers: Vec::new(),
        next: 0,
    };

    pub(crate) fn draw(&mut self) -> u64 {
        let ticket = self.next;
        self.next += 1;
        ticket
    }

    /// Makes a slot for a key that has none. Whoever does so holds it.
    pub(crate) fn open(&mut self, hash: u64, key: &mut Option<K>) -> u64 {
        let id = self.draw();
        self.slots.insert(hash, id, key.take().expect("the key is still there"));
        id
    }

    /// Claims a key: makes its slot, if it is free, or joins its queue, if `admit` says so of those ahead.
    #[inline]
    pub(crate) fn claim<const TASK: bool>(
        &mut self,
        hash: u64,
        key: &mut Option<K>,
        waker: &mut Option<Waker>,
        admit: impl FnOnce(usize) -> bool,
    ) -> Option<Place>
    where
        K: Eq,
    {
        let wanted = key.as_ref().expect("the key is still there");
        let Some(slot) = self.slots.find(hash, &mut |slot| slot.key == *wanted) else {
            return admit(0).then(|| Place { hash, id: self.open(hash, key), node: NONE });
        };
        if !admit(slot.waiting as usize + 1) {
            return None;
        }
        let waker = waker.take().expect("whoever may have to wait has a waker");
        let node = self.nodes.append(&mut slot.queue, waker, self.next);
        slot.waiting += 1;
        slot.stoppable += u32::from(TASK);
        self.next += u64::from(TASK);
        Some(Place { hash, id: slot.id, node })
    }

    /// Ready when the turn of a claim has come, with whether it is stopped: see [`Nodes::poll`].
    #[inline]
    pub(crate) fn poll<const TASK: bool>(
        &mut self,
        place: Place,
        waker: &Waker,
        spare: &mut Option<Waker>,
    ) -> Option<Poll<bool>> {
        Some(self.nodes.poll(place.node, waker, spare)?.map(|()| self.begin::<TASK>(place)))
    }

    /// A claim needs its node no more: its turn has come, or it leaves. Returns whether it is stopped.
    #[inline]
    fn begin<const TASK: bool>(&mut self, place: Place) -> bool {
        let ticket = self.nodes.free(place.node);
        if !TASK {
            return false;
        }
        let slot = self.slots.of(place.hash, place.id);
        let stopped = ticket < slot.stopped;
        slot.stoppable -= u32::from(!stopped);
        stopped
    }

    /// Unlocks a key: it is forgotten, or the next one's. The short way is for a key that nobody waits for.
    pub(crate) fn unlock(&mut self, hash: u64, id: u64) -> Left<K> {
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
    fn pass(&mut self, hash: u64, id: u64) -> Left<K> {
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
    pub(crate) fn leave<const TASK: bool>(&mut self, place: Place) -> Left<K> {
        if place.node == NONE {
            return self.pass(place.hash, place.id);
        }
        if self.nodes.has_its_turn(place.node) {
            self.begin::<TASK>(place);
            return self.pass(place.hash, place.id);
        }
        let slot = self.slots.of(place.hash, place.id);
        slot.waiting -= 1;
        let own = self.nodes.unlink(&mut slot.queue, place.node);
        self.begin::<TASK>(place);
        Left::Own(own)
    }

    /// Stops the tasks in the slot that `is` finds. Returns how many.
    pub(crate) fn stop(&mut self, hash: u64, is: &mut dyn FnMut(&Slot<K>) -> bool) -> usize {
        let next = self.next;
        self.slots.find(hash, is).map_or(0, |slot| {
            slot.stopped = next;
            mem::take(&mut slot.stoppable) as usize
        })
    }
}
