//! Those who watch for keys that nobody holds or waits for, beside every queue.
//!
//! A watcher watches the slot of a busy key, by its id. Whoever forgets the key tells those who watch it, under the lock
//! under which the slot goes: so no moment at which a key is idle is missed, however short. After the lock, the told are
//! taken out one by one, and woken. A watcher that is not in here any more has been told.

use alloc::vec::Vec;
use core::task::Waker;

use crate::shard::Shard;

/// What is watched in place of one slot: every key of the shard.
pub(crate) const EVERY: u64 = u64::MAX;

/// What is watched by one that is told.
const NOTHING: u64 = u64::MAX - 1;

pub(crate) struct Watcher {
    pub(crate) watched: u64,
    pub(crate) ticket: u64,
    pub(crate) waker: Waker,
}

impl<K> Shard<K> {
    /// A key is forgotten. Returns whether somebody is to be woken for that.
    pub(crate) fn tell(&mut self, id: u64) -> bool {
        let last = self.slots.len() == 0;
        let told = |watcher: &&mut Watcher| watcher.watched == id || last && watcher.watched == EVERY;
        self.watchers.iter_mut().filter(told).map(|watcher| watcher.watched = NOTHING).count() > 0
    }

    /// Takes out one that is told.
    pub(crate) fn told(&mut self) -> Option<Waker> {
        self.unwatch(|watcher| watcher.watched == NOTHING)
    }

    /// Takes one out.
    pub(crate) fn unwatch(&mut self, is: impl Fn(&Watcher) -> bool) -> Option<Waker> {
        let at = self.watchers.iter().position(is)?;
        let watcher = self.watchers.swap_remove(at);
        if self.watchers.is_empty() {
            self.watchers = Vec::new();
        }
        Some(watcher.waker)
    }
}
