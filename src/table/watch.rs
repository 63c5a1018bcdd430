//! Watchers: nodes that wait for a key, or for all keys of a shard, to be unlocked, and not to lock it.
//!
//! They are taken out in the critical section that removes the slot, so that no moment at which the key is free is
//! missed, however short. A slot and a shard know their last watcher, which is linked to the others, so keys that are
//! not watched cost nothing.

use core::future::poll_fn;
use core::mem;
use core::ptr;
use core::task::{Poll, Waker};

use super::guarded::{Place, Table};
use super::queue::{Kind, List, NONE, Nodes, State, Turn};
use super::shard::Shard;
use super::shards::Shards;
use super::slot::Id;
use super::slots::Slots;

/// What a watcher of all keys of a shard has instead of the id of a slot, which never grows so far.
const ALL: Id = Id::MAX;

/// Takes a watcher that is dropped out of its shard.
struct Watch<'a, K> {
    shard: &'a Shard<K>,
    place: Place,
}

impl<K> Drop for Watch<'_, K> {
    fn drop(&mut self) {
        if let Some(node) = self.place.turn.node() {
            drop(self.shard.with(|table| table.unwatch(self.place, node)));
        }
    }
}

impl<K> Shard<K> {
    /// Waits until the slot that `find` finds has been removed. If it finds none, this does not wait.
    pub(crate) async fn watch(&self, hash: u32, find: impl FnOnce(&mut Slots<K>) -> Option<Id>) {
        let Some(place) = self.with(|table| find(&mut table.slots).map(|id| table.watch(hash, id))) else { return };
        let mut watch = Watch { shard: self, place };
        poll_fn(|context| self.poll(&mut watch.place, context.waker())).await;
    }
}

impl<K> Table<K> {
    /// Adds a watcher. It has no waker until it is polled.
    fn watch(&mut self, hash: u32, id: Id) -> Place {
        self.general = Some(Self::change);
        self.slots.cool(None); // the fast path of unlocking does not check the hot slot for watchers
        let kind = Kind { sharing: None, stoppable: false };
        let node = self.watchers(hash, id, |nodes, list| nodes.append(list, kind, Waker::noop().clone()));
        Place { hash, turn: Turn::waits(node), id }
    }

    /// Takes a watcher out, and returns its waker, unless that is in a batch, and about to be called.
    fn unwatch(&mut self, Place { hash, id, .. }: Place, node: u32) -> Option<Waker> {
        self.nodes.take_turn(node).err()?;
        let own = self.watchers(hash, id, |nodes, list| nodes.unlink(list, node, State::Abandoned));
        self.nodes.free(node);
        Some(own)
    }

    /// Changes a list of watchers. Only its tail is kept: what changes a list writes its head, and does not read it.
    fn watchers<T>(&mut self, hash: u32, id: Id, change: impl FnOnce(&mut Nodes, &mut List) -> T) -> T {
        let last = if id == ALL { &mut self.watchers } else { &mut self.slots.of(hash, id).watchers };
        let mut list = List { head: NONE, tail: *last };
        let result = change(&mut self.nodes, &mut list);
        *last = list.tail;
        result
    }
}

impl<K> Shards<K> {
    /// Waits until all keys are unlocked.
    pub(crate) async fn idle(&self) {
        loop {
            let Some((last, rest)) = self.made().split_last() else { return };
            let shard = rest.iter().find(|shard| shard.with(|table| table.slots.len() != 0)).unwrap_or(last);
            // Of the other shards, if they are empty: a number that has grown with each slot that they have had.
            let others = || -> Option<u64> {
                let others = self.made().iter().filter(|other| !ptr::eq(*other, shard));
                others.map(|shard| shard.with(|table| (table.slots.len() == 0).then_some(table.next_id))).sum()
            };
            let before = others();
            shard.watch(0, |slots| (slots.len() != 0).then_some(ALL)).await;
            // The others were empty before this one was, and are, and had no slot in between: so all were, at that
            // moment. (If it is the only one, this looks once: no moment at which it is empty is missed.)
            if before.is_some() && before == others() {
                return;
            }
            // Checks again after the executor has had a chance to poll other tasks.
            let mut yielded = false;
            poll_fn(|context| {
                if mem::replace(&mut yielded, true) {
                    return Poll::Ready(());
                }
                context.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
    }
}
