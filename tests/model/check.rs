//! The invariants that can be seen from one shard: after every critical section in our own tests, under loom and in
//! the fuzzer. The numbers are those of [`table`](crate::table).

use alloc::collections::BTreeSet;

use crate::queue::{KEPT, List, NONE, Nodes};
use crate::shard::Shard;

impl<K> Shard<K> {
    pub(crate) fn check(&self) {
        let mut ids = BTreeSet::new();
        let mut listed = 0;
        for slot in self.slots.hot.iter().chain(self.slots.table.iter()) {
            let queued = self.nodes.check_list(&slot.queue);
            assert_eq!(slot.waiting as usize, queued, "1: the queue is not as long as it says");
            assert!(slot.sharers < 2 || self.max >= slot.sharers, "5: more inside than there may be");
            assert!(slot.stoppable as usize <= queued + 1, "4: more to stop than there are");
            assert!(slot.id < self.next && slot.stopped <= self.next, "4: a ticket from the future");
            assert!(ids.insert(slot.id), "2: two slots share an id");
            listed += queued;
        }
        self.nodes.check_slab(listed);
    }
}

impl Nodes {
    /// Returns how many are in it.
    fn check_list(&self, list: &List) -> usize {
        let mut count = 0;
        let (mut before, mut at) = (NONE, list.head);
        while let Some(node) = self.all.get(at as usize) {
            assert!(node.waker.is_some(), "3: one in a list does not wait");
            assert_eq!(node.prev, before, "3: a list is not linked both ways");
            (before, at) = (at, node.next);
            count += 1;
            assert!(count <= self.all.len(), "3: a list without end");
        }
        assert_eq!(list.tail, before, "3: the last in a list is not its tail");
        count
    }

    /// Every node is in a list, has its turn, or is free.
    fn check_slab(&self, listed: usize) {
        let waiting = self.all.iter().filter(|node| node.waker.is_some()).count();
        assert_eq!(waiting, listed, "3: one that waits is in no list");
        let (mut free, mut at) = (0, self.free);
        while let Some(node) = self.all.get(at as usize) {
            assert!(node.waker.is_none(), "3: a free node waits");
            free += 1;
            at = node.next;
            assert!(free <= self.all.len(), "3: a node is freed twice");
        }
        assert_eq!(free + (self.used & !KEPT) as usize, self.all.len(), "3: a node is lost");
    }
}
