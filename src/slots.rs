//! The busy keys of a shard, a slot for each: one beside the table, the others in it.
//!
//! The `hot` slot has the newest key. Most keys are unlocked before the same shard sees another, and never
//! touch the table; when one does come, the older moves there. Each slot keeps its hash, so that growing
//! and shrinking never call a user's `Hash`.

use core::mem;

use hashbrown::hash_table::{HashTable, OccupiedEntry};

use crate::queue::List;

/// With `std` there is room for code that saves time. Small machines have no hot slot, a table that shrinks only
/// when it is empty, and no short cut to a free key.
pub(crate) const ROOMY: bool = cfg!(feature = "std");

/// A table of at most this many buckets is kept, so that a few keys coming and going do not allocate.
const KEPT_BUCKETS: usize = 16;

/// A larger one shrinks when fewer than one bucket in this many is in use.
const SPARSE: usize = 8;

/// hashbrown uses both ends of 64 bits where there are 64, else of the lower 32.
fn wide(hash: u32) -> u64 {
    let low = u64::from(hash);
    if cfg!(target_pointer_width = "64") { low << 32 | low } else { low }
}

/// A busy key: somebody holds it, or has its turn.
pub(crate) struct Slot<K> {
    pub(crate) key: K,
    pub(crate) hash: u32,
    /// The ticket of the claim that made the slot: no other slot of the shard ever has it.
    pub(crate) id: u64,
    /// Those that wait.
    pub(crate) queue: List,
    pub(crate) waiting: u32,
    /// How many are inside and share; 0: one has it for itself.
    pub(crate) sharers: u32,
    /// How many of those that have not begun a stop would turn away: tasks and tickets, not plain locks.
    pub(crate) stoppable: u32,
    /// Tasks with a ticket below this one are stopped.
    pub(crate) stopped: u64,
}

impl<K> Slot<K> {
    fn new(hash: u32, id: u64, key: K, sharers: u32) -> Self {
        Self { key, hash, id, queue: List::EMPTY, waiting: 0, sharers, stoppable: 0, stopped: 0 }
    }
}

pub(crate) struct Slots<K> {
    pub(crate) hot: Option<Slot<K>>,
    pub(crate) table: HashTable<Slot<K>>,
    /// So many buckets are never given back, as they were reserved.
    kept: usize,
}

impl<K> Slots<K> {
    pub(crate) const EMPTY: Self = Self { hot: None, table: HashTable::new(), kept: 0 };

    pub(crate) fn len(&self) -> usize {
        usize::from(self.hot.is_some()) + self.table.len()
    }

    /// Finds a slot by its hash and what `is` says of it. `is` may be a user's `Eq`, and may panic:
    /// nothing has changed then. It is `dyn` so that there is one copy of this for each key type.
    pub(crate) fn find(&mut self, hash: u32, is: &mut dyn FnMut(&Slot<K>) -> bool) -> Option<&mut Slot<K>> {
        if ROOMY && self.hot.as_ref().is_some_and(|slot| slot.hash == hash && is(slot)) {
            return self.hot.as_mut();
        }
        self.entry(hash, is).map(OccupiedEntry::into_mut)
    }

    fn entry(&mut self, hash: u32, is: &mut dyn FnMut(&Slot<K>) -> bool) -> Option<OccupiedEntry<'_, Slot<K>>> {
        if ROOMY && self.table.is_empty() {
            return None;
        }
        self.table.find_entry(wide(hash), |slot| slot.hash == hash && is(slot)).ok()
    }

    /// The slot of a claim, which has one.
    pub(crate) fn of(&mut self, hash: u32, id: u64) -> &mut Slot<K> {
        self.find(hash, &mut |slot| slot.id == id).expect("a claimed key has a slot")
    }

    /// Makes a slot for a key that has none.
    pub(crate) fn insert(&mut self, hash: u32, id: u64, key: K, sharers: u32) {
        match &mut self.hot {
            Some(_) if ROOMY => self.spill(Slot::new(hash, id, key, sharers)),
            None if ROOMY => self.hot = Some(Slot::new(hash, id, key, sharers)),
            _ => {
                self.table.insert_unique(wide(hash), Slot::new(hash, id, key, sharers), |slot| wide(slot.hash));
            }
        }
    }

    /// Makes the newer slot the hot one, and moves the older to the table: a key that is held for long goes
    /// there once, and is out of the way of those that come and go. Room is made first, so that running out of
    /// memory loses nothing.
    #[inline(never)]
    fn spill(&mut self, newer: Slot<K>) {
        self.table.reserve(1, |slot| wide(slot.hash));
        if let Some(slot) = self.hot.replace(newer) {
            self.table.insert_unique(wide(slot.hash), slot, |slot| wide(slot.hash));
        }
    }

    /// Takes the slot of a claim if it is the hot one, and nobody else is inside or waits.
    #[inline]
    pub(crate) fn take_hot(&mut self, id: u64) -> Option<Slot<K>> {
        if ROOMY { self.hot.take_if(|slot| slot.id == id && slot.waiting == 0 && slot.sharers < 2) } else { None }
    }

    /// Takes the slot of a claim.
    pub(crate) fn take(&mut self, hash: u32, id: u64) -> Slot<K> {
        if let Some(slot) = self.take_hot(id) {
            return slot;
        }
        let entry = self.entry(hash, &mut |slot| slot.id == id).expect("a claimed key has a slot");
        let (slot, _) = entry.remove();
        self.shrink();
        slot
    }

    /// Makes room for so many keys, and keeps it: twice as much, since a table that is more than half full grows when
    /// the marks of what was removed have filled the rest. A small machine gives nothing back from then on.
    pub(crate) fn reserve(&mut self, keys: usize) {
        let room = keys.saturating_mul(2);
        self.table.reserve(room.saturating_sub(self.table.len()), |slot| wide(slot.hash));
        self.kept = if ROOMY { self.kept.max((room / 7 * 8 + 8).next_power_of_two()) } else { usize::MAX };
    }

    /// Gives memory back after a burst, down to twice what is needed or what was reserved, so that the next move is
    /// as many insertions or removals away as this one costs. If there is no memory for the smaller
    /// table, the larger one stays: unlocking never fails.
    fn shrink(&mut self) {
        let (len, buckets) = (self.table.len(), self.table.num_buckets());
        let dense = if ROOMY { len * SPARSE > buckets } else { len > 0 };
        if dense || buckets <= KEPT_BUCKETS || buckets <= self.kept {
            return;
        }
        if !ROOMY {
            self.table = HashTable::new();
            return;
        }
        let mut smaller = HashTable::new();
        let room = (2 * len).max(self.kept / 8 * 7);
        if smaller.try_reserve(room, |slot: &Slot<K>| wide(slot.hash)).is_ok() {
            for slot in mem::replace(&mut self.table, smaller) {
                self.table.insert_unique(wide(slot.hash), slot, |slot| wide(slot.hash));
            }
        }
    }
}
