//! One locked key: its holders, its waiters, and which waiters are granted it next.

use super::queue::{List, Node, Nodes, State};

/// The value of `holders` for one exclusive holder.
pub(crate) const EXCLUSIVE: u32 = 0;

/// The state of a key at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyState {
    /// The number of its holders: 0 if it is free, 1 if it is locked exclusively. A waiter that has been granted the
    /// key counts as a holder, whether or not it has been polled since.
    pub holders: usize,
    /// `true` if it is locked shared.
    pub shared: bool,
    /// The number of its waiters: futures, tickets and blocking threads, exclusive and shared. (Pending `idle`s, and
    /// the caller about which the closure of `ticket_if` decides, are not counted.)
    pub waiting: usize,
}

impl KeyState {
    pub(crate) const FREE: Self = Self { holders: 0, shared: false, waiting: 0 };
}

/// A locked key.
pub(crate) struct Slot<K> {
    pub(crate) key: K,
    pub(crate) hash: u32,
    /// The number of shared holders, including waiters that have been granted the key; or [`EXCLUSIVE`].
    pub(crate) holders: u32,
    /// An id that no other slot of the shard ever has.
    pub(crate) id: u64,
    pub(crate) queue: List,
    /// The number of waiters in the queue.
    pub(crate) waiting: u32,
    /// The last of its watchers: see [`watch`](super::watch).
    #[cfg(feature = "idle")]
    pub(crate) watchers: u32,
}

impl<K> Slot<K> {
    pub(crate) fn new(hash: u32, id: u64, key: K, holders: u32) -> Self {
        Self {
            key,
            hash,
            holders,
            id,
            queue: List::EMPTY,
            waiting: 0,
            #[cfg(feature = "idle")]
            watchers: super::queue::NONE,
        }
    }

    pub(crate) fn state(&self) -> KeyState {
        let shared = self.holders != EXCLUSIVE;
        KeyState { holders: self.holders.max(1) as usize, shared, waiting: self.waiting as usize }
    }

    /// Removes one holder. Returns whether it was the last one.
    pub(crate) fn unlock(&mut self) -> bool {
        self.holders = self.holders.saturating_sub(1);
        self.holders == 0
    }

    /// Returns whether a claim with this limit may join the holders of a key that is held.
    pub(crate) fn has_room(&self, max: u32) -> bool {
        (1..max).contains(&self.holders)
    }

    /// Grants the key to the first waiters in the queue, as far as they can hold it. Returns whether it is still free.
    pub(crate) fn grant(&mut self, nodes: &mut Nodes, mut free: bool, batch: &mut List) -> bool {
        while let Some(&Node { max, .. }) = nodes.all.get(self.queue.head as usize) {
            if !free && !self.has_room(max) {
                break;
            }
            free = false;
            self.holders = if max == 0 { EXCLUSIVE } else { self.holders + 1 };
            self.waiting -= 1;
            let first = self.queue.head;
            nodes.chain(&mut self.queue, batch, first, State::Granted);
        }
        free
    }

    /// Takes the waiters that a stop reaches out of the queue, and returns how many.
    pub(crate) fn stop(&mut self, nodes: &mut Nodes, batch: &mut List) -> usize {
        let (before, mut at) = (self.waiting, self.queue.head);
        while let Some(&Node { stoppable, next, .. }) = nodes.all.get(at as usize) {
            if stoppable {
                self.waiting -= 1;
                nodes.chain(&mut self.queue, batch, at, State::Stopped);
            }
            at = next;
        }
        (before - self.waiting) as usize
    }
}
