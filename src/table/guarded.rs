//! What the lock of a shard guards: some of the locked keys and their waiters, and what is done to them under that lock.

use core::task::Waker;

use super::queue::{Kind, List, NONE, Nodes, State, Turn};
use super::shard::Shard;
use super::slot::{Id, KeyState, Slot};
use super::slots::{FAST, Slots};

/// Where a claim stands: enough to find its slot without its key, and its node.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) hash: u32,
    pub(crate) turn: Turn,
    pub(crate) id: Id,
}

/// What is done to a locked key under the lock, other than to claim it.
pub(crate) enum Change {
    /// A waiter leaves the queue: this is its node.
    Leave(u32),
    /// A holder unlocks the key.
    Unlock,
    /// The exclusive holder becomes a shared one. (A shared one stays what it is.)
    Downgrade,
    /// The waiters that a stop reaches leave the queue, and the holder unlocks the key.
    StopAndUnlock,
}

/// What is owed after a critical section, outside the lock: it runs user code.
#[repr(u8)] // a separate tag is read in one instruction, one in a niche of the key in four
pub(crate) enum Owed<K> {
    /// The key is free, and its slot gone: to drop the key.
    Key(K),
    /// The key was handed over, or a waiter has left the queue: to call this waker if this is `true`, and else to drop it.
    Waker(Waker, bool),
    /// Several are to be woken: how (so that a program in which this never happens does not link it), and the first of the
    /// batch. Then the key, if it is free, is dropped.
    Batch(fn(&Shard<K>, u32), u32, Option<K>),
    Nothing,
}

type General<K> = fn(&mut Table<K>, u32, Id, Change) -> Owed<K>;

/// What the lock of a shard guards.
pub(crate) struct Table<K> {
    pub(crate) slots: Slots<K>,
    pub(crate) nodes: Nodes,
    /// The id of the next slot. It grows by two, so that it can be odd: then no branch is needed to see that it is not zero.
    pub(crate) next_id: u64,
    /// The batch of a `stop_all`, until its wakers are called.
    pub(crate) stopped: List,
    /// The last of those that wait for the shard to be empty.
    #[cfg(feature = "idle")]
    pub(crate) watchers: u32,
    /// [`Table::change`], once a key has been shared or watched: claims must then be given up by it. The shorter way of
    /// [`Table::pass`] does not mention it, so that a program that does neither does not link it.
    pub(crate) general: Option<General<K>>,
}

impl<K> Table<K> {
    pub(crate) const fn new(kept: usize) -> Self {
        Self {
            slots: Slots::new(kept),
            nodes: Nodes::EMPTY,
            next_id: 0,
            stopped: List::EMPTY,
            #[cfg(feature = "idle")]
            watchers: NONE,
            general: None,
        }
    }

    /// Claims a key, if `admit` returns `true` for its state. If the key cannot be granted at once, this takes a place
    /// in its queue, provided that there is a waker; without one, it claims nothing.
    ///
    /// The key and the waker stay with the caller until they are needed: should `Eq` or `admit` panic, they are dropped
    /// outside the lock.
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
        let wanted = key.as_ref().expect("it has its key");
        let Some(slot) = self.slots.find(hash, &mut |slot| slot.key == *wanted) else {
            return admit(KeyState::default()).then(|| {
                let (id, key) = (Id::new(self.next_id | 1).unwrap(), key.take().expect("it has its key"));
                self.next_id += 2;
                self.slots.insert(hash, id, key, kind.sharing);
                Place { hash, turn: Turn::GRANTED, id }
            });
        };
        if !admit(slot.state()) {
            return None;
        }
        let mut place = Place { hash, turn: Turn::GRANTED, id: slot.id };
        if slot.waiting == 0 && slot.may_share(kind.sharing) {
            slot.sharers += 1;
        } else {
            place.turn = Turn::waits(self.nodes.append(&mut slot.queue, kind, waker()?));
            slot.waiting += 1;
        }
        Some(place)
    }

    /// Gives up a claim. The fast path is for a key without waiters.
    #[inline]
    pub(crate) fn give_up(&mut self, place: &Place) -> Owed<K> {
        let fast = FAST && place.turn == Turn::GRANTED;
        #[cfg(feature = "idle")]
        let fast = fast && self.watchers == NONE;
        let alone = |slot: &mut Slot<K>| fast && slot.id == place.id && slot.waiting == 0 && slot.sharers <= 1;
        if let Some(slot) = self.slots.hot.take_if(alone) {
            return Owed::Key(slot.key);
        }
        self.pass(place.hash, place.id, place.turn)
    }

    /// Gives up a place in the queue; or the key, which goes to the first in the queue, or is free.
    #[inline(never)]
    fn pass(&mut self, hash: u32, id: Id, mut turn: Turn) -> Owed<K> {
        if let Some(node) = turn.node() {
            turn = self.nodes.take_turn(node).unwrap_or(turn);
        }
        if turn == Turn::STOPPED {
            return Owed::Nothing;
        }
        if let Some(change) = self.general {
            return change(self, hash, id, turn.node().map_or(Change::Unlock, Change::Leave));
        }
        let slot = self.slots.of(hash, id);
        // The waiter that leaves the queue: the one that gives up, or the one that gets the key.
        let leaves = turn.node().unwrap_or(slot.queue.head);
        if leaves == NONE {
            return Owed::Key(self.slots.take(hash, id).key);
        }
        slot.waiting -= 1;
        let waker = self.nodes.unlink(&mut slot.queue, leaves, State::Granted);
        let call = turn == Turn::GRANTED;
        if !call {
            self.nodes.free(leaves);
        }
        Owed::Waker(waker, call)
    }

    /// Changes the state of a key. After that, the waiters that can now hold the key are granted it; if it is free, its
    /// slot is removed.
    pub(crate) fn change(&mut self, hash: u32, id: Id, change: Change) -> Owed<K> {
        let (slot, nodes, mut batch) = (self.slots.of(hash, id), &mut self.nodes, List::EMPTY);
        let mut free = false;
        match change {
            Change::Leave(node) => slot.take_out(nodes, &mut batch, node, State::Abandoned),
            Change::Unlock => free = slot.unlock(),
            Change::Downgrade => {
                slot.sharers = slot.sharers.max(1);
                self.general = Some(Self::change);
            }
            Change::StopAndUnlock => {
                slot.stop(nodes, &mut batch);
                free = slot.unlock();
            }
        }
        if slot.grant(nodes, free, &mut batch) {
            let slot = self.slots.take(hash, id);
            #[cfg(feature = "idle")]
            self.tell(slot.watchers, &mut batch);
            return match batch.head {
                NONE => Owed::Key(slot.key),
                first => Owed::Batch(Shard::wake, first, Some(slot.key)),
            };
        }
        if batch.head != batch.tail {
            return Owed::Batch(Shard::wake, batch.head, None);
        }
        match nodes.unchain(&mut batch.head) {
            None => Owed::Nothing,
            Some((waker, call)) => Owed::Waker(waker, call),
        }
    }

    /// Stops the waiters of every key, and leaves them for [`Shard::wake_stopped`] to wake.
    pub(crate) fn stop_all(&mut self) -> usize {
        self.slots.iter_mut().map(|slot| slot.stop(&mut self.nodes, &mut self.stopped)).sum()
    }

    /// Puts the watchers of a removed slot into the batch, and, if that was the last slot, those of the shard.
    #[cfg(feature = "idle")]
    fn tell(&mut self, of_slot: u32, batch: &mut List) {
        let of_all = if self.slots.len() == 0 { core::mem::replace(&mut self.watchers, NONE) } else { NONE };
        for mut last in [of_all, of_slot] {
            while last != NONE {
                let node = self.nodes.node(last);
                node.state = State::Granted;
                node.next = core::mem::replace(&mut batch.head, last);
                last = node.prev;
            }
        }
    }
}
