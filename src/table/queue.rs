//! The waiters of a shard: a slab of nodes, and the lists that run through it.
//!
//! A waiter keeps the index of its node, and alone gives it up. A node is **waiting**, in a list, with the waker of its
//! waiter's last poll; or it has been **granted** what it waits for, or **stopped**, and is in no list. Several nodes
//! that are granted or stopped at once form a **batch** until their wakers have been called: a chain whose start only
//! the thread that calls them knows (or the shard, during a `stop_all`). A waiter that is polled or dropped meanwhile
//! gives its node up. Such a node is **abandoned**: it stays in its batch, and that thread frees it when it reaches it.

use alloc::vec::Vec;
use core::mem;
use core::task::Waker;

/// No node: the end of a list, or of a batch.
pub(crate) const NONE: u32 = u32::MAX;

/// What a claim that has been granted has instead of the index of a node.
pub(crate) const GRANTED: u32 = u32::MAX;

/// What a claim that has been stopped has instead of the index of a node.
pub(crate) const STOPPED: u32 = u32::MAX - 1;

/// How many nodes are kept when they are unused, so that a few waiters that come and go do not allocate.
const KEPT_NODES: usize = 64;

/// What is claimed, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// The key is granted while fewer than this many hold it shared; 0 for an exclusive claim.
    pub(crate) max: u32,
    /// Whether a stop ends the wait.
    pub(crate) stoppable: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Waiting,
    Granted,
    Stopped,
    Abandoned,
}

pub(crate) struct Node {
    /// There is one in each node of a list or of a batch, and in no other.
    pub(crate) waker: Option<Waker>,
    pub(crate) prev: u32,
    /// The next node: of the list, of the batch, or of those that are free.
    pub(crate) next: u32,
    pub(crate) state: State,
    // Of its kind, whose padding would cost 8 bytes.
    pub(crate) stoppable: bool,
    pub(crate) max: u32,
}

/// A queue; or a batch, which uses only the `next` links.
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
    /// A slab of at most this many nodes is kept when it is unused: of any number, if room was reserved.
    kept: usize,
}

impl Nodes {
    pub(crate) const EMPTY: Self = Self { all: Vec::new(), free: NONE, used: 0, kept: KEPT_NODES };

    #[inline]
    pub(crate) fn node(&mut self, index: u32) -> &mut Node {
        self.all.get_mut(index as usize).expect("a node in use is in the slab")
    }

    pub(crate) fn reserve(&mut self, waiters: usize) {
        self.all.reserve(waiters.saturating_sub(self.all.len()));
        self.kept = usize::MAX;
    }

    /// Puts a node at the end of a list. If there is no memory for it, nothing has changed.
    pub(crate) fn append(&mut self, list: &mut List, kind: Kind, waker: Waker) -> u32 {
        let index = self.free;
        if index == NONE {
            return self.grow(list, kind, waker);
        }
        let last = mem::replace(&mut list.tail, index);
        match last {
            NONE => list.head = index,
            last => self.node(last).next = index,
        }
        let node = self.node(index);
        let next_free = mem::replace(&mut node.next, NONE);
        (node.prev, node.state) = (last, State::Waiting);
        (node.max, node.stoppable) = (kind.max, kind.stoppable);
        mem::forget(node.waker.replace(waker)); // it had none
        self.free = next_free;
        self.used += 1;
        index
    }

    /// The slow path of `append`, for when no node is free. It is a function of its own, which saves the fast path a
    /// dozen instructions.
    #[cold]
    fn grow(&mut self, list: &mut List, kind: Kind, waker: Waker) -> u32 {
        let index = u32::try_from(self.all.len()).ok().filter(|&index| index < STOPPED).expect("too many waiters");
        let Kind { max, stoppable } = kind;
        self.all.push(Node { waker: None, prev: NONE, next: NONE, state: State::Waiting, stoppable, max });
        self.free = index;
        self.append(list, kind, waker)
    }

    /// Takes a node out of its list, and its waker, to be called or dropped outside the lock.
    #[inline]
    pub(crate) fn unlink(&mut self, list: &mut List, index: u32, state: State) -> Waker {
        let free = self.free; // where its link has to lead if it is put back
        let node = self.node(index);
        let (prev, next) = (node.prev, mem::replace(&mut node.next, free));
        node.state = state;
        let waker = node.waker.take().expect("a node in a list has a waker");
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

    /// Moves a node from its list to the end of a batch.
    pub(crate) fn chain(&mut self, list: &mut List, batch: &mut List, index: u32, state: State) {
        let waker = self.unlink(list, index, state);
        let node = self.node(index);
        node.next = NONE;
        mem::forget(node.waker.replace(waker)); // it had none
        match mem::replace(&mut batch.tail, index) {
            NONE => batch.head = index,
            last => self.node(last).next = index,
        }
    }

    /// Takes the first waker out of a batch, and says whether it is to be called, or only dropped.
    pub(crate) fn unchain(&mut self, batch: &mut u32) -> Option<(Waker, bool)> {
        let index = *batch;
        let node = self.all.get_mut(index as usize)?; // none: the end
        *batch = node.next;
        let (waker, waits) = (node.waker.take(), node.state != State::Abandoned);
        if !waits {
            self.free(index);
        }
        Some((waker.expect("a node in a batch has a waker"), waits))
    }

    /// Returns the waker of a waiter that still waits. If it no longer waits, this gives up its node, and returns what
    /// its claim has from then on instead of a node: [`GRANTED`] or [`STOPPED`].
    #[inline]
    pub(crate) fn waiting(&mut self, index: u32) -> Result<&mut Waker, u32> {
        let end = match self.node(index).state {
            State::Waiting => return Ok(self.node(index).waker.as_mut().expect("a node in a list has a waker")),
            State::Stopped => STOPPED,
            _ => GRANTED,
        };
        match &mut self.node(index).waker {
            None => self.free(index),
            Some(_) => self.node(index).state = State::Abandoned, // in a batch: the thread that wakes it frees it
        }
        Err(end)
    }

    pub(crate) fn is_granted(&mut self, index: u32) -> bool {
        self.node(index).state == State::Granted
    }

    #[inline]
    pub(crate) fn free(&mut self, index: u32) {
        let free = self.free;
        self.node(index).next = free;
        self.put_back(index);
    }

    /// Frees a node whose link is set.
    #[inline]
    pub(crate) fn put_back(&mut self, index: u32) {
        self.free = index;
        self.used -= 1;
        if self.used == 0 && self.all.len() > self.kept {
            self.shrink();
        }
    }

    /// Gives back a large slab that is unused. (To drop the nodes would be a loop, though none has a waker.)
    #[cold]
    fn shrink(&mut self) {
        self.free = NONE;
        mem::take(&mut self.all).into_iter().for_each(mem::forget);
    }
}
