//! The invariants that can be seen from one shard. The numbers are those of [`table`](super). This is compiled for our own
//! tests only: with `--cfg async_mutex_lite_check`, and under the model checker.

use alloc::collections::BTreeSet;

use super::guarded::Table;
use super::queue::{NONE, Nodes, State};

impl<K> Table<K> {
    pub(crate) fn check(&self) {
        let mut ids = BTreeSet::new();
        let mut listed = 0;
        for slot in self.slots.hot.iter().chain(self.slots.map.iter()) {
            let (head, queued) = self.nodes.check_list(slot.queue.tail);
            assert_eq!(slot.queue.head, head, "3: the first in a list is not its head");
            assert_eq!(slot.waiting as usize, queued, "1: the queue is not as long as it says");
            assert!(slot.id.get() < self.next_id, "2: an id from the future");
            assert!(ids.insert(slot.id), "2: two slots share an id");
            let first = self.nodes.get(slot.queue.head);
            assert!(
                !first.is_some_and(|node| slot.may_share(node.sharing)),
                "4: the first in the queue could hold the key"
            );
            listed += queued;
            #[cfg(feature = "idle")]
            {
                listed += self.nodes.check_list(slot.watchers).1;
            }
        }
        #[cfg(feature = "idle")]
        {
            let last = self.watchers;
            listed += self.nodes.check_list(last).1;
            assert!(last == NONE || self.slots.hot.is_some() || !self.slots.map.is_empty(), "5: told too late");
            let hot = self.slots.hot.as_ref();
            assert!(hot.is_none_or(|slot| slot.watchers == NONE), "5: the hot slot is watched");
        }
        self.nodes.check_slab(listed);
    }
}

impl Nodes {
    /// Returns the first of the list of which this is the last, and how many are in it.
    fn check_list(&self, last: u32) -> (u32, usize) {
        let (mut count, mut after, mut at) = (0, NONE, last);
        while let Some(node) = self.get(at) {
            assert!(
                node.waker.is_some() && matches!(node.state, State::Waiting { .. }),
                "3: one in a list does not wait"
            );
            assert_eq!(node.next, after, "3: a list is not linked both ways");
            (after, at) = (at, node.prev);
            count += 1;
            assert!(count <= self.all.len(), "3: a list without end");
        }
        (after, count)
    }

    /// Every node waits in a list, has a waker that is yet to be called, has none any more, or is free.
    fn check_slab(&self, listed: usize) {
        let waiting = |node: &&super::queue::Node| matches!(node.state, State::Waiting { .. }) && node.waker.is_some();
        assert_eq!(self.all.iter().filter(waiting).count(), listed, "3: one that waits is in no list");
        let (mut free, mut at) = (0, self.free);
        while let Some(node) = self.get(at) {
            assert!(node.waker.is_none(), "3: a free node has a waker");
            free += 1;
            at = node.next;
            assert!(free <= self.all.len(), "3: a node is freed twice");
        }
        assert_eq!(free + self.used as usize, self.all.len(), "3: a node is lost");
    }
}
