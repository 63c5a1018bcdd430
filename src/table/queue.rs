//! The waiters of a shard: a slab of nodes, and the lists that run through it.
//!
//! A waiter keeps the index of its node, and alone gives it up. A node is **waiting**, in a list, with the waker of its
//! waiter's last poll; or it has been **granted** what it waits for, or **stopped**, and is in no list. Several nodes
//! that are granted or stopped at once form a **batch** until their wakers have been called: a chain whose start only
//! the thread that calls them knows (or the shard, during a `stop_all`). A waiter that is polled or dropped meanwhile
//! gives its node up. Such a node is **abandoned**: it stays in its batch, and that thread frees it when it reaches it.

use alloc::vec::Vec;
use core::mem;
use core::num::NonZero;
use core::task::Waker;

/// No node: the end of a list, or of a batch.
pub(crate) const NONE: u32 = u32::MAX;

/// How many nodes are kept when they are unused, so that a few waiters that come and go do not allocate.
const KEPT_NODES: usize = 64;

/// With how many others a key may be shared: while fewer than so many hold it. `None`: it is locked exclusively.
pub(crate) type Sharing = Option<NonZero<u32>>;

/// How a key is claimed.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) sharing: Sharing,
    /// Whether a stop ends the wait.
    pub(crate) stoppable: bool,
}

/// What a claim knows of its turn: it waits, with a node (whose [`State`] may say more by now); or it was granted, or stopped,
/// and has none any more.
///
/// This is an enum in four bytes: an index of a node, or one of two values that are none. (A real one took thirteen
/// instructions more for each `run`.)
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn(u32);

impl Turn {
    pub(crate) const GRANTED: Self = Self(u32::MAX);
    pub(crate) const STOPPED: Self = Self(u32::MAX - 1);

    pub(crate) fn waits(node: u32) -> Self {
        Self(node)
    }

    /// Returns its node, if it waits.
    pub(crate) fn node(self) -> Option<u32> {
        (self.0 < Self::STOPPED.0).then_some(self.0)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Whether a stop ends the wait.
    Waiting {
        stoppable: bool,
    },
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
    /// This and whether it is stoppable are its [`Kind`], whose padding would make a node larger.
    pub(crate) sharing: Sharing,
    pub(crate) state: State,
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
    pub(super) all: Vec<Node>,
    /// The first free one.
    pub(super) free: u32,
    pub(super) used: u32,
    /// A slab of at most this many nodes is kept when it is unused: of any number, if room was reserved.
    kept: usize,
}

impl Nodes {
    pub(crate) const EMPTY: Self = Self { all: Vec::new(), free: NONE, used: 0, kept: KEPT_NODES };

    /// Returns a node, or nothing at the end of a list.
    pub(crate) fn get(&self, index: u32) -> Option<&Node> {
        self.all.get(index as usize)
    }

    #[inline]
    pub(crate) fn node(&mut self, index: u32) -> &mut Node {
        self.all.get_mut(index as usize).expect("it has its node")
    }

    pub(crate) fn reserve(&mut self, waiters: usize) {
        if waiters > 0 {
            self.all.reserve(waiters.saturating_sub(self.all.len()));
            self.kept = usize::MAX;
        }
    }

    /// Puts a node at the end of a list. If there is no memory for it, nothing has changed.
    #[inline]
    pub(crate) fn append(&mut self, list: &mut List, kind: Kind, waker: Waker) -> u32 {
        if self.free == NONE {
            self.grow();
        }
        let index = self.free;
        let prev = mem::replace(&mut list.tail, index);
        match prev {
            NONE => list.head = index,
            prev => self.node(prev).next = index,
        }
        let state = State::Waiting { stoppable: kind.stoppable };
        let node = Node { waker: Some(waker), prev, next: NONE, sharing: kind.sharing, state };
        let blank = mem::replace(self.node(index), node);
        self.free = blank.next;
        mem::forget(blank); // a free node has no waker to be dropped
        self.used += 1;
        index
    }

    /// Makes a free node.
    #[cold]
    fn grow(&mut self) {
        let index = u32::try_from(self.all.len()).ok().filter(|&index| Turn::waits(index).node().is_some());
        let index = index.expect("too many waiters");
        self.all.push(Node { waker: None, prev: NONE, next: NONE, sharing: None, state: State::Granted });
        self.free = index;
    }

    /// Takes a node out of its list, and its waker, to be called or dropped outside the lock.
    #[inline]
    pub(crate) fn unlink(&mut self, list: &mut List, index: u32, state: State) -> Waker {
        let node = self.node(index);
        let (prev, next) = (node.prev, node.next);
        node.state = state;
        let waker = node.waker.take().expect("it has its waker");
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
        fill(&mut node.waker, waker);
        match mem::replace(&mut batch.tail, index) {
            NONE => batch.head = index,
            last => self.node(last).next = index,
        }
    }

    /// Takes the first waker out of a batch, and says whether it is to be called, or only dropped.
    pub(crate) fn unchain(&mut self, batch: &mut u32) -> Option<(Waker, bool)> {
        let index = *batch;
        let node = self.all.get_mut(index as usize)?;
        *batch = node.next;
        let (waker, call) = (node.waker.take(), node.state != State::Abandoned);
        if !call {
            self.free(index);
        }
        Some((waker.expect("it has its waker"), call))
    }

    /// Takes the turn of a waiter, if it has come: its node is given up then, and this says how the wait has ended.
    /// Otherwise it returns the waker.
    #[inline]
    pub(crate) fn take_turn(&mut self, index: u32) -> Result<Turn, &mut Waker> {
        let turn = match self.node(index).state {
            State::Waiting { .. } => return Err(self.node(index).waker.as_mut().expect("it has its waker")),
            State::Stopped => Turn::STOPPED,
            _ => Turn::GRANTED,
        };
        match &mut self.node(index).waker {
            None => self.free(index),
            Some(_) => self.node(index).state = State::Abandoned, // in a batch: the thread that wakes it frees it
        }
        Ok(turn)
    }

    #[inline]
    pub(crate) fn free(&mut self, index: u32) {
        let free = mem::replace(&mut self.free, index);
        self.node(index).next = free;
        self.used -= 1;
        if self.used == 0 && self.all.len() > self.kept {
            self.shrink();
        }
    }

    /// Gives back a large slab that is unused. Its nodes are forgotten, not dropped, which would be a loop under the lock:
    /// none has a waker.
    #[cold]
    fn shrink(&mut self) {
        self.free = NONE;
        mem::forget(self.all.drain(..));
        self.all = Vec::new();
    }
}

/// Fills what is empty, and so has nothing to drop.
#[inline]
pub(crate) fn fill<T>(empty: &mut Option<T>, value: T) {
    mem::forget(empty.replace(value));
}
