//! One shard: some of the busy keys, a slot for each, and what is done to a slot under the lock.

use event_listener::Event;

use crate::slots::Slots;
use crate::sync::Arc;

/// A busy key.
pub(crate) struct Slot<K> {
    pub(crate) key: K,
    pub(crate) hash: u64,
    /// The ticket of the claim that made the slot: no other slot of the shard ever has it.
    pub(crate) id: u64,
    /// Claims on this key: the one that has, or is being given, the token, and all that wait.
    pub(crate) members: u32,
    /// How many of those that wait a stop would turn away: tasks and tickets, not plain locks.
    pub(crate) stoppable: u32,
    /// Tasks with a ticket below this one are stopped.
    pub(crate) stopped: u64,
    /// Where waiters listen, once there has been one.
    pub(crate) event: Option<Arc<Event>>,
}

/// Where a claim stands: enough to find its slot without its key.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) hash: u64,
    pub(crate) id: u64,
    pub(crate) ticket: u64,
}

impl Place {
    /// Whoever makes a slot has the token from the start.
    pub(crate) fn is_first(self) -> bool {
        self.ticket == self.id
    }
}

/// The keys of one shard, what its lock guards.
pub(crate) struct Shard<K> {
    pub(crate) slots: Slots<K>,
    /// The next ticket. Tickets count per shard, not per key, so that no two slots share an id.
    pub(crate) next: u64,
    /// The event of a key that is gone, for the next key that has to wait.
    pub(crate) spare: Option<Arc<Event>>,
}

impl<K> Shard<K> {
    pub(crate) const fn new() -> Self {
        Self { slots: Slots::new(), next: 0, spare: None }
    }

    /// Makes a slot for a key that has none. Its first claim has the token.
    #[inline]
    pub(crate) fn open(&mut self, hash: u64, key: &mut Option<K>) -> Option<u64> {
        let ticket = draw(&mut self.next);
        let key = key.take()?;
        self.slots.insert(hash, ticket, key);
        Some(ticket)
    }

    /// Counts a claim out. The short way is for a key that nobody else wants.
    pub(crate) fn count_out(&mut self, place: Place, stoppable: bool) -> Left<K> {
        match self.slots.take_hot(|slot| slot.id == place.id && slot.members == 1) {
            Some(slot) => self.close(slot),
            None => self.count_out_slow(place, stoppable),
        }
    }

    #[inline(never)]
    fn count_out_slow(&mut self, place: Place, stoppable: bool) -> Left<K> {
        let kept = self.slots.keep_or_take(place, |slot| {
            if slot.members == 1 {
                return None;
            }
            if stoppable {
                slot.uncount_stoppable(place);
            }
            slot.members -= 1;
            Some(slot.event.clone())
        });
        match kept {
            Ok(event) => event.flatten().map_or(Left::Nothing, Left::Others),
            Err(slot) => self.close(slot),
        }
    }

    /// Takes a slot apart. Its key is for the caller to drop, outside the lock.
    fn close(&mut self, slot: Slot<K>) -> Left<K> {
        if let Some(event) = slot.event {
            self.spare.get_or_insert(event);
        }
        Left::Nobody(slot.key)
    }

    /// The invariants that can be seen from one shard. Large shards are let off.
    #[cfg(any(debug_assertions, loom, fuzzing))]
    pub(crate) fn check(&self) {
        const FEW: usize = 32;
        if self.slots.len() > FEW {
            return;
        }
        for slot in self.slots.iter() {
            assert!(slot.members > 0, "a key with no claim has a slot");
            assert!(slot.stoppable <= slot.members, "more to stop than there are");
            assert!(slot.members == 1 || slot.event.is_some(), "somebody waits, but nowhere");
            assert!(slot.id < self.next && slot.stopped <= self.next, "a ticket from the future");
            let same = |other: &&Slot<K>| other.id == slot.id;
            assert_eq!(self.slots.iter().filter(same).count(), 1, "two slots share an id");
        }
    }
}

impl<K> Slot<K> {
    /// With its first claim.
    #[inline]
    pub(crate) fn new(hash: u64, id: u64, key: K) -> Self {
        Self { key, hash, id, members: 1, stoppable: 0, stopped: 0, event: None }
    }

    /// Takes a claim out of the count of those a stop would turn away, if it still is in there.
    pub(crate) fn uncount_stoppable(&mut self, place: Place) {
        if place.ticket >= self.stopped {
            self.stoppable -= 1;
        }
    }
}

/// Draws the next ticket.
pub(crate) fn draw(next: &mut u64) -> u64 {
    let ticket = *next;
    *next += 1;
    ticket
}

/// Takes the spare event if nobody else knows it. A claim of an earlier key that still listens there
/// might have been given a token, and would hand it on to a key that has one.
pub(crate) fn unused(spare: &mut Option<Arc<Event>>) -> Option<Arc<Event>> {
    let mut event = spare.take()?;
    Arc::get_mut(&mut event).is_some().then_some(event)
}

/// What a claim leaves behind.
pub(crate) enum Left<K> {
    /// Its slot is gone: this was the key.
    Nobody(K),
    /// The slot stays, for those who listen here.
    Others(Arc<Event>),
    /// Nothing to do. (It is not reached, and saves a panic.)
    Nothing,
}
