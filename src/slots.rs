//! Where a shard keeps its slots: one beside the table, the others in it.
//!
//! Most programs lock a key and unlock it before the same shard sees the next key. The `hot` slot serves
//! them without touching the table at all; whoever comes while it is taken goes to the table. Each slot
//! keeps its hash, so that growing and shrinking never call a user's `Hash`.

use core::mem;

use hashbrown::HashTable;

use crate::table::{Place, Slot};

/// A table of at most this many buckets is kept, so that a few keys coming and going do not allocate.
const KEPT_BUCKETS: usize = 16;

/// A larger one shrinks when fewer than one bucket in this many is in use.
const SPARSE: usize = 8;

pub(crate) struct Slots<K> {
    hot: Option<Slot<K>>,
    table: HashTable<Slot<K>>,
}

impl<K> Slots<K> {
    pub(crate) const fn new() -> Self {
        Self { hot: None, table: HashTable::new() }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        usize::from(self.hot.is_some()) + self.table.len()
    }

    /// Finds a slot by its hash and what `is` says of it. `is` may be a user's `Eq`, and may panic:
    /// nothing has changed then.
    #[inline]
    pub(crate) fn find(&mut self, hash: u64, mut is: impl FnMut(&Slot<K>) -> bool) -> Option<&mut Slot<K>> {
        let mut same = |slot: &Slot<K>| slot.hash == hash && is(slot);
        if self.hot.as_ref().is_some_and(&mut same) {
            self.hot.as_mut()
        } else if self.table.is_empty() {
            None
        } else {
            self.table.find_mut(hash, same)
        }
    }

    /// Makes room for one more slot, before its key is given up by whoever owns it: running out of
    /// memory here (a panic or an abort, as the allocator has it) leaves everything as it was.
    #[inline]
    pub(crate) fn reserve(&mut self) {
        if self.hot.is_some() {
            self.table.reserve(1, |slot| slot.hash);
        }
    }

    #[inline]
    pub(crate) fn insert(&mut self, slot: Slot<K>) {
        if self.hot.is_none() {
            self.hot = Some(slot);
        } else {
            self.table.insert_unique(slot.hash, slot, |slot| slot.hash);
        }
    }

    /// Lets `leave` say of the slot of `place` whether it is done for, and takes it out if so.
    #[inline]
    pub(crate) fn remove_if(&mut self, place: Place, leave: impl FnOnce(&mut Slot<K>) -> bool) -> Option<Slot<K>> {
        if let Some(slot) = self.hot.as_mut().filter(|slot| slot.id == place.id) {
            return if leave(slot) { self.hot.take() } else { None };
        }
        let found = self.table.find_entry(place.hash, |slot| slot.id == place.id);
        debug_assert!(found.is_ok(), "a claim without a slot");
        let mut entry = found.ok()?;
        if !leave(entry.get_mut()) {
            return None;
        }
        let (slot, _) = entry.remove();
        self.shrink();
        Some(slot)
    }

    /// Gives memory back after a burst: to nothing or to twice what is needed, so that the next move is
    /// as many insertions or removals away as this one costs. If there is no memory for the smaller
    /// table, the larger one stays: unlocking never fails.
    fn shrink(&mut self) {
        let (len, buckets) = (self.table.len(), self.table.num_buckets());
        if buckets <= KEPT_BUCKETS || len * SPARSE > buckets {
            return;
        }
        let mut smaller = HashTable::new();
        if len == 0 || smaller.try_reserve(2 * len, |slot: &Slot<K>| slot.hash).is_ok() {
            for slot in mem::take(&mut self.table) {
                smaller.insert_unique(slot.hash, slot, |slot| slot.hash);
            }
            self.table = smaller;
        }
    }

    /// Every slot, for the invariants.
    #[cfg(any(debug_assertions, loom, fuzzing))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot<K>> {
        self.hot.iter().chain(self.table.iter())
    }
}
