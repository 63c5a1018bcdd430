//! Who waits, oldest first: a slab of nodes, and lists that run through it.
//!
//! A node belongs to one waiter, which keeps its index and alone frees it: so an index is never stale. It **waits**,
//! in a list, with the waker of the waiter's last poll; or it **has its turn**, in no list and without a waker. As
//! long as it is a waiter's there is no third state, and only whoever holds the shard's lock sees either.

use alloc::vec::Vec;
use core::mem;
use core::task::{Poll, Waker};

use crate::wake::keep_waker;

/// No node: the end of a list.
pub(crate) const NONE: u32 = u32::MAX;

/// The ticket of one that wants to share. (It is never stopped: a stop reaches those below a ticket.)
pub(crate) const SHARES: u64 = u64::MAX;

/// A slab of at most this many nodes is kept when nobody waits, so that a few that come and go do not allocate.
const KEPT_NODES: usize = 64;

/// Added to the number of nodes in use if the slab is never to be given back.
pub(crate) const KEPT: u32 = 1 << 31;

pub(crate) struct Node {
    /// Whom to wake. `None`: its turn has come, or it is free.
    pub(crate) waker: Option<Waker>,
    ticket: u64,
    pub(crate) prev: u32,
    /// In a list: who is next. In a free node: the next free one.
    pub(crate) next: u32,
}

/// The nodes that wait for one key.
pub(crate) struct List {
    pub(crate) head: u32,
    pub(crate) tail: u32,
}

impl List {
    pub(crate) const EMPTY: Self = Self { head: NONE, tail: NONE };
}

/// The nodes of a shard.
pub(crate) struct Nodes {
    pub(crate) all: Vec<Node>,
    /// The first free one.
    pub(crate) free: u32,
    pub(crate) used: u32,
}

impl Nodes {
    pub(crate) const EMPTY: Self = Self { all: Vec::new(), free: NONE, used: 0 };

    #[inline]
    fn node(&mut self, index: u32) -> &mut Node {
        self.all.get_mut(index as usize).expect("whoever has an index has a node")
    }

    /// Makes room for so many, and keeps it.
    pub(crate) fn reserve(&mut self, waiters: usize) {
        self.all.reserve(waiters.saturating_sub(self.all.len()));
        self.used |= KEPT;
    }

    /// Puts a node at the end of a list. If there is no room for it, nothing has changed.
    pub(crate) fn append(&mut self, list: &mut List, waker: Waker, ticket: u64) -> u32 {
        let mut index = self.free;
        if index == NONE {
            index = u32::try_from(self.all.len()).ok().filter(|&index| index < KEPT - 1).expect("too many wait");
            self.all.push(Node { waker: None, ticket: 0, prev: NONE, next: NONE });
        }
        let last = mem::replace(&mut list.tail, index);
        match last {
            NONE => list.head = index,
            last => self.node(last).next = index,
        }
        let node = self.node(index);
        let next_free = mem::replace(&mut node.next, NONE);
        node.prev = last;
        node.ticket = ticket;
        mem::forget(node.waker.replace(waker)); // it had none
        self.free = next_free;
        self.used += 1;
        index
    }

    /// Takes a node out of its list: it has its turn. Its waker is for the caller to wake or to drop, outside the
    /// lock.
    #[inline]
    pub(crate) fn unlink(&mut self, list: &mut List, index: u32) -> Waker {
        let node = self.node(index);
        let waker = node.waker.take().expect("a node in a list waits");
        let (prev, next) = (node.prev, node.next);
        match prev {
            NONE => list.head = next,
            prev => self.node(prev).next = next,
        }
        match next {
            NONE => list.tail = prev,
            next => self.node(next).prev = prev,
        }
        waker
    }

    pub(crate) fn ticket(&mut self, index: u32) -> u64 {
        self.node(index).ticket
    }

    #[inline]
    pub(crate) fn has_its_turn(&mut self, index: u32) -> bool {
        self.node(index).waker.is_none()
    }

    /// Looks whether a node has its turn: see [`keep_waker`].
    #[inline]
    pub(crate) fn poll(&mut self, index: u32, waker: &Waker, spare: &mut Option<Waker>) -> Option<Poll<()>> {
        keep_waker(self.node(index).waker.as_mut(), waker, spare)
    }

    /// Frees a node that is in no list, and returns its ticket. A large slab that nobody uses is given back.
    pub(crate) fn free(&mut self, index: u32) -> u64 {
        let next_free = mem::replace(&mut self.free, index);
        let node = self.node(index);
        node.next = next_free;
        let ticket = node.ticket;
        self.used -= 1;
        if self.used == 0 && self.all.len() > KEPT_NODES {
            self.free = NONE;
            self.all.drain(..).for_each(mem::forget); // none has a waker
            self.all.shrink_to_fit();
        }
        ticket
    }
}
