//! One shard: some of the locked keys and their waiters, and what is done to them under its lock.

use core::mem;
use core::task::{Poll, Waker};

use super::lock::Lock;
use super::queue::{GRANTED, Kind, List, NONE, Nodes, STOPPED, State};
use super::slot::{EXCLUSIVE, KeyState, Slot};
use super::slots::Slots;
use super::wake::each;

/// Where a claim stands: enough to find its slot without its key, and its node.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) hash: u32,
    /// [`GRANTED`] or [`STOPPED`] when it has none any more.
    pub(crate) node: u32,
    pub(crate) id: u64,
}

/// What a claim leaves behind, for the caller to deal with outside the lock.
#[repr(u8)] // a separate tag is read in one instruction, one in a niche of the key in four
pub(crate) enum Left<K> {
    Nothing,
    /// The key is free, and its slot gone.
    Key(K),
    /// The key was handed over: the waker of the waiter that has been granted it.
    Next(Waker),
    /// The claim was waiting: its own waker.
    Own(Waker),
    /// How to wake a batch, its start, and the key, if that is free.
    Batch(fn(&Locked<K>, u32), u32, Option<K>),
}

/// A change to a slot, made under the lock. It moves the waiters that leave the queue into the batch, and returns
/// whether the key has no holder left.
pub(crate) type Work<'a, K> = dyn FnMut(&mut Slot<K>, &mut Nodes, &mut List) -> bool + 'a;

/// How to give up a claim where keys are shared or watched. Only the methods that share, stop or watch mention it, so that
/// a program that only locks does not link it.
pub(crate) type Release<K> = fn(&mut Shard<K>, Place) -> Left<K>;

pub(crate) struct Shard<K> {
    pub(crate) slots: Slots<K>,
    pub(crate) nodes: Nodes,
    /// The id of the next slot.
    pub(crate) next_id: u64,
    /// The batch of a `stop_all`, until its wakers are called.
    pub(crate) stopped: List,
    /// The last watcher that waits for the shard to be empty.
    #[cfg(feature = "idle")]
    pub(crate) watchers: u32,
    /// Set before a key is shared or watched.
    pub(crate) release: Option<Release<K>>,
}

impl<K> Shard<K> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Slots::EMPTY,
            nodes: Nodes::EMPTY,
            next_id: 0,
            stopped: List::EMPTY,
            #[cfg(feature = "idle")]
            watchers: NONE,
            release: None,
        }
    }

    /// Claims a key, if `admit` returns `true` for its state. If the key cannot be granted at once, this takes a place
    /// in its queue, provided that there is a waker.
    #[inline]
    pub(crate) fn claim(
        &mut self,
        kind: Kind,
        hash: u32,
        key: &mut Option<K>,
        admit: impl FnOnce(KeyState) -> bool,
        waker: impl FnOnce() -> Option<Waker>,
    ) -> Option<Place>
    where
        K: Eq,
    {
        let wanted = key.as_ref().expect("the key is still there");
        let Some(slot) = self.slots.find(hash, &mut |slot| slot.key == *wanted) else {
            return admit(KeyState::FREE).then(|| {
                let (id, key) = (self.next_id, key.take().expect("the key is still there"));
                self.next_id += 1;
                self.slots.insert(hash, id, key, kind.max.min(1));
                Place { hash, node: GRANTED, id }
            });
        };
        if !admit(slot.state()) {
            return None;
        }
        let mut place = Place { hash, node: GRANTED, id: slot.id };
        if slot.waiting == 0 && slot.has_room(kind.max) {
            slot.holders += 1;
        } else {
            place.node = self.nodes.append(&mut slot.queue, kind, waker()?);
            slot.waiting += 1;
        }
        Some(place)
    }

    /// Gives up a claim. The fast path is for a key without waiters.
    #[inline]
    pub(crate) fn give_up(&mut self, place: Place) -> Left<K> {
        let fast = place.node == GRANTED;
        #[cfg(feature = "idle")]
        let fast = fast && self.watchers == NONE;
        match self.slots.take_hot(|slot| fast && slot.id == place.id && slot.waiting == 0 && slot.holders <= 1) {
            Some(slot) => Left::Key(slot.key),
            None => self.pass(place.hash, place.node, place.id),
        }
    }

    /// Gives up a place in the queue; or the key, which goes to the first in the queue, or is free. (Its arguments are
    /// not a `Place`, so that a program that never waits can do without half of this.)
    #[inline(never)]
    fn pass(&mut self, hash: u32, node: u32, id: u64) -> Left<K> {
        let node = if node < STOPPED { self.nodes.waiting(node).err().unwrap_or(node) } else { node };
        if node == STOPPED {
            return Left::Nothing;
        }
        if let Some(release) = self.release {
            return release(self, Place { hash, node, id });
        }
        let slot = self.slots.of(hash, id);
        let leaves = if node == GRANTED { slot.queue.head } else { node };
        if leaves == NONE {
            return Left::Key(self.slots.take(hash, id).key);
        }
        slot.waiting -= 1;
        let waker = self.nodes.unlink(&mut slot.queue, leaves, State::Granted);
        if node == GRANTED {
            return Left::Next(waker);
        }
        self.nodes.put_back(node);
        Left::Own(waker)
    }

    pub(crate) fn release(&mut self, place: Place) -> Left<K> {
        self.change(place, &mut |slot, nodes, batch| {
            if place.node == GRANTED {
                return slot.unlock();
            }
            slot.waiting -= 1;
            nodes.chain(&mut slot.queue, batch, place.node, State::Abandoned);
            false
        })
    }

    /// Changes the state of a key. `work` returns whether the key has no holder left. After that, the waiters that can
    /// now hold the key are granted it.
    pub(crate) fn change(&mut self, Place { hash, id, .. }: Place, work: &mut Work<'_, K>) -> Left<K> {
        let (slot, mut batch) = (self.slots.of(hash, id), List::EMPTY);
        let free = work(slot, &mut self.nodes, &mut batch);
        if slot.holders != EXCLUSIVE {
            self.release = Some(Self::release); // `work` may be a downgrade
        }
        if slot.grant(&mut self.nodes, free, &mut batch) {
            let slot = self.slots.take(hash, id);
            #[cfg(feature = "idle")]
            self.tell(slot.watchers, &mut batch);
            return match batch.head {
                NONE => Left::Key(slot.key),
                first => Left::Batch(Locked::wake, first, Some(slot.key)),
            };
        }
        if batch.head != batch.tail {
            return Left::Batch(Locked::wake, batch.head, None);
        }
        match self.nodes.unchain(&mut batch.head) {
            None => Left::Nothing,
            Some((waker, true)) => Left::Next(waker),
            Some((waker, false)) => Left::Own(waker),
        }
    }

    /// Stops the waiters of every key, and leaves them for [`Locked::wake_stopped`] to wake.
    pub(crate) fn stop_all(&mut self) -> usize {
        let (nodes, batch, mut stopped) = (&mut self.nodes, &mut self.stopped, 0);
        for slot in self.slots.iter_mut() {
            stopped += slot.stop(nodes, batch);
            slot.grant(nodes, false, batch);
        }
        stopped
    }

    /// Puts the watchers of a removed slot into the batch, and, if that was the last slot, those of the shard.
    #[cfg(feature = "idle")]
    pub(crate) fn tell(&mut self, of_slot: u32, batch: &mut List) {
        let of_all = if self.slots.len() == 0 { mem::replace(&mut self.watchers, NONE) } else { NONE };
        for mut last in [of_all, of_slot] {
            while let Some(node) = self.nodes.all.get_mut(last as usize) {
                node.state = State::Granted;
                node.next = mem::replace(&mut batch.head, last);
                last = node.prev;
            }
        }
    }
}

/// With `std`, on cache lines of its own, two of them: processors fetch them in pairs.
#[cfg_attr(all(feature = "std", not(feature = "critical-section")), repr(align(128)))]
#[allow(missing_debug_implementations, reason = "it cannot be named outside")]
pub struct Locked<K>(pub(crate) Lock<Shard<K>>);

impl<K> Locked<K> {
    /// Runs `work` under the lock.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Shard<K>) -> R) -> R {
        self.0.with(|shard| {
            let result = work(shard);
            #[cfg(any(async_mutex_lite_check, async_mutex_lite_loom))]
            shard.check();
            result
        })
    }

    /// Is ready when a claim has been granted or stopped: its place says which. Otherwise it stores this waker, to be
    /// called when that happens.
    #[inline]
    pub(crate) fn poll(&self, place: &mut Place, waker: &Waker) -> Poll<()> {
        match self.with(|shard| shard.nodes.waiting(place.node).map(|own| own.will_wake(waker))) {
            Ok(true) => return Poll::Pending,
            Ok(false) => return self.poll_with_another(place, waker),
            Err(end) => place.node = end,
        }
        Poll::Ready(())
    }

    /// The same, with a waker that differs from the stored one. It is cloned outside the lock, so the state must be
    /// checked again.
    #[cold]
    fn poll_with_another(&self, place: &mut Place, waker: &Waker) -> Poll<()> {
        let mut spare = waker.clone();
        match self.with(|shard| shard.nodes.waiting(place.node).map(|own| mem::swap(own, &mut spare))) {
            Ok(()) => return Poll::Pending,
            Err(end) => place.node = end, // before `spare` is dropped, which may panic
        }
        Poll::Ready(())
    }

    #[inline]
    pub(crate) fn give_up(&self, place: Place) {
        self.settle(self.with(|shard| shard.give_up(place)));
    }

    fn settle(&self, left: Left<K>) {
        match left {
            Left::Key(key) => drop(key),
            Left::Next(waker) => waker.wake(),
            Left::Own(waker) => drop(waker),
            rest => self.settle_batch(rest),
        }
    }

    #[cold]
    fn settle_batch(&self, left: Left<K>) {
        if let Left::Batch(wake, batch, _key) = left {
            wake(self, batch);
        }
    }

    /// Calls the wakers of a batch, in FIFO order.
    pub(crate) fn wake(&self, mut batch: u32) {
        let call = |(waker, waits): (Waker, bool)| {
            if waits {
                waker.wake()
            }
        };
        each(&mut || self.with(|shard| shard.nodes.unchain(&mut batch)), call);
    }

    /// Wakes the waiters that [`Shard::stop_all`] has stopped.
    pub(crate) fn wake_stopped(&self) {
        self.wake(self.with(|shard| mem::replace(&mut shard.stopped, List::EMPTY).head));
    }

    /// Changes the state of a key: see [`Shard::change`].
    pub(crate) fn change(&self, place: Place, work: &mut Work<'_, K>) {
        self.settle(self.with(|shard| shard.change(place, work)));
    }

    /// Stops the waiters of the key whose slot `is` finds, and returns how many.
    pub(crate) fn stop(&self, hash: u32, is: &mut dyn FnMut(&Slot<K>) -> bool) -> usize {
        let mut stopped = 0;
        let left = self.with(|shard| {
            let Some(id) = shard.slots.find(hash, is).map(|slot| slot.id) else { return Left::Nothing };
            shard.change(Place { hash, node: GRANTED, id }, &mut |slot, nodes, batch| {
                stopped = slot.stop(nodes, batch);
                false
            })
        });
        self.settle(left);
        stopped
    }
}
