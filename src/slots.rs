//! Where a shard keeps its slots: one beside the table, the others in it.
//!
//! The `hot` slot has the newest key. Most keys are unlocked before the same shard sees another, and never
//! touch the table; when one does come, the older moves there. Each slot keeps its hash, so that growing
//! and shrinking never call a user's `Hash`.

use core::mem;

use hashbrown::HashTable;

use crate::shard::{Place, Slot};

/// Whether this is a machine with room for code: small ones have no hot slot, a table that shrinks only when it
/// is empty, and no short cut to a free key.
pub(crate) const LARGE: bool = cfg!(feature = "std");

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

    pub(crate) fn len(&self) -> usize {
        usize::from(self.hot.is_some()) + self.table.len()
    }

    /// Finds a slot by its hash and what `is` says of it. `is` may be a user's `Eq`, and may panic:
    /// nothing has changed then. It is `dyn` so that there is one copy of this for each key type.
    pub(crate) fn find(&mut self, hash: u64, is: &mut dyn FnMut(&Slot<K>) -> bool) -> Option<&mut Slot<K>> {
        let mut same = |slot: &Slot<K>| slot.hash == hash && is(slot);
        if LARGE && self.hot.as_ref().is_some_and(&mut same) {
            self.hot.as_mut()
        } else if self.table.is_empty() {
            None
        } else {
            self.table.find_mut(hash, same)
        }
    }

    /// Makes a slot for a key that has none.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, id: u64, key: K) {
        match &mut self.hot {
            Some(_) if LARGE => self.spill(hash, id, key),
            None if LARGE => self.hot = Some(Slot::new(hash, id, key)),
            _ => {
                self.table.insert_unique(hash, Slot::new(hash, id, key), |slot| slot.hash);
            }
        }
    }

    /// Makes the newer slot the hot one, and moves the older to the table: a key that is held for long goes
    /// there once, and is out of the way of those that come and go. Room is made first, so that running out of
    /// memory loses nothing.
    #[inline(never)]
    fn spill(&mut self, hash: u64, id: u64, key: K) {
        self.table.reserve(1, |slot| slot.hash);
        if let Some(slot) = self.hot.replace(Slot::new(hash, id, key)) {
            self.table.insert_unique(slot.hash, slot, |slot| slot.hash);
        }
    }

    /// Takes the hot slot, if it is that one.
    pub(crate) fn take_hot(&mut self, is: impl FnOnce(&mut Slot<K>) -> bool) -> Option<Slot<K>> {
        if LARGE { self.hot.take_if(is) } else { None }
    }

    /// Lets `keep` have the slot of a place, and takes the slot out if it says `None`.
    pub(crate) fn keep_or_take<R>(
        &mut self,
        place: Place,
        keep: impl FnOnce(&mut Slot<K>) -> Option<R>,
    ) -> Result<Option<R>, Slot<K>> {
        if let Some(slot) = self.hot.as_mut().filter(|slot| LARGE && slot.id == place.id) {
            let kept = keep(slot);
            return if kept.is_none() { self.hot.take().map_or(Ok(None), Err) } else { Ok(kept) };
        }
        let found = self.table.find_entry(place.hash, |slot| slot.id == place.id);
        debug_assert!(found.is_ok(), "a claim without a slot");
        let Ok(mut entry) = found else { return Ok(None) };
        let kept = keep(entry.get_mut());
        if kept.is_some() {
            return Ok(kept);
        }
        let (slot, _) = entry.remove();
        self.shrink();
        Err(slot)
    }

    /// Gives memory back after a burst: to nothing or to twice what is needed, so that the next move is
    /// as many insertions or removals away as this one costs. If there is no memory for the smaller
    /// table, the larger one stays: unlocking never fails.
    fn shrink(&mut self) {
        let (len, buckets) = (self.table.len(), self.table.num_buckets());
        if buckets <= KEPT_BUCKETS || len * SPARSE > buckets {
            return;
        }
        if len == 0 {
            self.table = HashTable::new();
        } else if LARGE {
            let mut smaller = HashTable::new();
            if smaller.try_reserve(2 * len, |slot: &Slot<K>| slot.hash).is_ok() {
                for slot in mem::replace(&mut self.table, smaller) {
                    self.table.insert_unique(slot.hash, slot, |slot| slot.hash);
                }
            }
        }
    }

    /// Every slot, for the invariants.
    #[cfg(any(debug_assertions, loom, fuzzing))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot<K>> {
        self.hot.iter().chain(self.table.iter())
    }
}
