//! The locked keys of a shard, a slot for each: one beside the map, the others in it.
//!
//! The `hot` slot has the newest key. Most keys are unlocked before the same shard gets another one, and so never enter
//! the map; if another one comes before that, the older one moves to the map. Each slot keeps its hash, so that growing
//! and shrinking never call a user's `Hash`.

use core::mem;

use hashbrown::hash_table::{HashTable, OccupiedEntry};

#[cfg(feature = "idle")]
use super::queue::NONE;
use super::queue::{List, Sharing};
use super::slot::{Id, Slot};

/// Whether speed matters more than code size: with `std`, and without critical sections, which must be short. Then there is
/// a hot slot, a map shrinks before it is empty, and a free key is tried before a waker is cloned.
pub(crate) const FAST: bool = cfg!(all(feature = "std", not(feature = "critical-section")));

/// A map that is larger than what is kept shrinks when at most one bucket out of this many is in use.
const SPARSE: usize = 8;

/// Makes a hash for hashbrown, which uses both ends: of 64 bits where pointers have 64, else of the lower 32.
fn wide(hash: u32) -> u64 {
    if cfg!(target_pointer_width = "64") {
        u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
    } else {
        u64::from(hash.wrapping_mul(0x9e37_79b9).rotate_left(16))
    }
}

/// Returns how many buckets a map has that has room for so many keys: hashbrown fills at most seven out of eight.
fn buckets(keys: usize) -> usize {
    (keys / 7).saturating_mul(8).saturating_add(8).next_power_of_two()
}

pub(crate) struct Slots<K> {
    pub(crate) hot: Option<Slot<K>>,
    pub(crate) map: HashTable<Slot<K>>,
    /// A map of at most this many buckets is kept when it is empty.
    kept: usize,
}

impl<K> Slots<K> {
    pub(crate) const fn new(kept: usize) -> Self {
        Self { hot: None, map: HashTable::new(), kept }
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot<K>> {
        self.hot.iter_mut().chain(&mut self.map)
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.hot.is_some()) + self.map.len()
    }

    /// Finds a slot by its hash and the predicate `is`, which may call a user's `Eq`, and may panic: nothing has
    /// changed by then. It is `dyn` so that this function is compiled once for each key type.
    pub(crate) fn find(&mut self, hash: u32, is: &mut dyn FnMut(&Slot<K>) -> bool) -> Option<&mut Slot<K>> {
        if FAST && self.hot.as_ref().is_some_and(|slot| slot.hash == hash && is(slot)) {
            return self.hot.as_mut();
        }
        if FAST && self.map.is_empty() {
            return None;
        }
        self.entry(hash, is).map(OccupiedEntry::into_mut)
    }

    fn entry(&mut self, hash: u32, is: &mut dyn FnMut(&Slot<K>) -> bool) -> Option<OccupiedEntry<'_, Slot<K>>> {
        self.map.find_entry(wide(hash), |slot| slot.hash == hash && is(slot)).ok()
    }

    /// The slot of a claim, which has one.
    pub(crate) fn of(&mut self, hash: u32, id: Id) -> &mut Slot<K> {
        self.find(hash, &mut |slot| slot.id == id).expect("it has its slot")
    }

    /// Adds a slot for a key that has none.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u32, id: Id, key: K, sharing: Sharing) {
        // It is made where it goes to: to move it there would take seventeen instructions.
        let slot = || Slot {
            key,
            hash,
            sharers: u32::from(sharing.is_some()),
            id,
            queue: List::EMPTY,
            waiting: 0,
            #[cfg(feature = "idle")]
            watchers: NONE,
        };
        match &mut self.hot {
            Some(_) if FAST => self.cool(Some(slot())),
            None if FAST => self.hot = Some(slot()),
            _ => _ = self.map.insert_unique(wide(hash), slot(), |slot| wide(slot.hash)),
        }
    }

    /// Makes the newer slot, if there is one, the hot one, and moves the older, if there is one, to the map: a key that
    /// is held for long goes there once, and is out of the way of those that come and go. Room is made first, so that
    /// running out of memory loses nothing.
    #[inline(never)]
    pub(crate) fn cool(&mut self, newer: Option<Slot<K>>) {
        self.map.reserve(usize::from(self.hot.is_some()), |slot| wide(slot.hash));
        if let Some(slot) = mem::replace(&mut self.hot, newer) {
            self.map.insert_unique(wide(slot.hash), slot, |slot| wide(slot.hash));
        }
    }

    /// Takes the slot of a claim.
    pub(crate) fn take(&mut self, hash: u32, id: Id) -> Slot<K> {
        let hot = if FAST { self.hot.take_if(|slot| slot.id == id) } else { None };
        hot.unwrap_or_else(|| {
            let (slot, _) = self.entry(hash, &mut |slot| slot.id == id).expect("it has its slot").remove();
            self.shrink();
            slot
        })
    }

    /// Makes room for `keys` keys, and keeps it. It makes twice as much, since a map that is more than half full grows
    /// when tombstones have filled the rest. If not `FAST`, the map gives nothing back from then on.
    pub(crate) fn reserve(&mut self, keys: usize) {
        let room = keys.saturating_mul(2);
        if self.map.is_empty() && self.map.capacity() < room {
            self.map = HashTable::new(); // a small heap may not have room for both
        }
        self.map.reserve(room.saturating_sub(self.map.len()), |slot| wide(slot.hash));
        if keys > 0 {
            self.kept = if FAST { self.kept.max(buckets(room)) } else { usize::MAX };
        }
    }

    /// Gives memory back after a burst, down to twice what is needed or what is kept, so that the next move is as many
    /// insertions or removals away as this one costs. If there is no memory for the smaller map, the larger one stays:
    /// unlocking never fails.
    fn shrink(&mut self) {
        let (len, buckets) = (self.map.len(), self.map.num_buckets());
        let dense = if FAST { len * SPARSE > buckets } else { len != 0 };
        if dense || buckets <= self.kept {
            return;
        }
        let mut smaller = HashTable::new();
        if !FAST {
            self.map = smaller;
        } else if smaller.try_reserve((2 * len).max(self.kept / 8 * 7), |slot: &Slot<K>| wide(slot.hash)).is_ok() {
            for slot in mem::replace(&mut self.map, smaller) {
                self.map.insert_unique(wide(slot.hash), slot, |slot| wide(slot.hash));
            }
        }
    }
}
