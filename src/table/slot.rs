//! One locked key: its holders, its waiters, and which waiters are granted it next.

use super::queue::{List, Node, Nodes, Sharing, State};

/// The state of a key at one moment; by default, that of a free one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

pub(crate) type Id = core::num::NonZero<u64>;

/// A locked key.
pub(crate) struct Slot<K> {
    pub(crate) key: K,
    pub(crate) hash: u32,
    /// How many share it, waiters that have been granted it included; 0 if it is locked exclusively.
    pub(crate) sharers: u32,
    /// An id that no other slot of the shard ever has.
    pub(crate) id: Id,
    pub(crate) queue: List,
    /// The number of waiters in the queue.
    pub(crate) waiting: u32,
    /// The last of its watchers: see [`watch`](super::watch).
    #[cfg(feature = "idle")]
    pub(crate) watchers: u32,
}

impl<K> Slot<K> {
    pub(crate) fn state(&self) -> KeyState {
        let (holders, shared) = (self.sharers.max(1) as usize, self.sharers > 0);
        KeyState { holders, shared, waiting: self.waiting as usize }
    }

    /// Returns whether a claim may be granted the key in addition to its holders.
    pub(crate) fn may_share(&self, sharing: Sharing) -> bool {
        sharing.is_some_and(|limit| (1..limit.get()).contains(&self.sharers))
    }

    /// Removes one holder. Returns whether it was the last one.
    pub(crate) fn unlock(&mut self) -> bool {
        self.sharers = self.sharers.saturating_sub(1);
        self.sharers == 0
    }

    /// Grants the key to the first waiters in the queue, as far as they can hold it. Returns whether it is still free.
    pub(crate) fn grant(&mut self, nodes: &mut Nodes, mut free: bool, batch: &mut List) -> bool {
        while let Some(&Node { sharing, .. }) = nodes.get(self.queue.head) {
            if !free && !self.may_share(sharing) {
                break;
            }
            self.sharers = if sharing.is_some() { self.sharers + 1 } else { 0 };
            free = false;
            self.take_out(nodes, batch, self.queue.head, State::Granted);
        }
        free
    }

    /// Takes the waiters that a stop reaches out of the queue, and returns how many. Those behind them that can now hold
    /// the key are granted it.
    pub(crate) fn stop(&mut self, nodes: &mut Nodes, batch: &mut List) -> usize {
        let (before, mut at) = (self.waiting, self.queue.head);
        while let Some(&Node { state, next, .. }) = nodes.get(at) {
            if state == (State::Waiting { stoppable: true }) {
                self.take_out(nodes, batch, at, State::Stopped);
            }
            at = next;
        }
        let stopped = before - self.waiting;
        self.grant(nodes, false, batch);
        stopped as usize
    }

    /// Moves a waiter from the queue to a batch.
    pub(crate) fn take_out(&mut self, nodes: &mut Nodes, batch: &mut List, node: u32, state: State) {
        self.waiting -= 1;
        nodes.chain(&mut self.queue, batch, node, state);
    }
}
