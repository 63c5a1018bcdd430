//! The algorithm.

use core::mem;

use event_listener::{Event, IntoNotification};

use crate::shards::Shards;
use crate::slots::Slots;
use crate::sync::Arc;

/// A busy key.
pub(crate) struct Slot<K> {
    pub(crate) key: K,
    pub(crate) hash: u64,
    /// The ticket of the claim that made the slot: no other slot of the shard ever has it.
    pub(crate) id: u64,
    /// Claims on this key: the one that has, or is being given, the token, and all that wait.
    members: u32,
    /// How many of those that wait a stop would turn away: tasks and tickets, not plain locks.
    stoppable: u32,
    /// Tasks with a ticket below this one are stopped.
    stopped: u64,
    /// Where waiters listen, once there has been one.
    event: Option<Arc<Event>>,
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
    #[inline]
    pub(crate) fn is_first(self) -> bool {
        self.ticket == self.id
    }
}

/// The keys of one shard, what its lock guards.
pub(crate) struct Shard<K> {
    slots: Slots<K>,
    /// The next ticket. Tickets count per shard, not per key, so that no two slots share an id.
    next: u64,
    /// The event of a key that is gone, for the next key that has to wait.
    spare: Option<Arc<Event>>,
}

impl<K> Shard<K> {
    pub(crate) const fn new() -> Self {
        Self { slots: Slots::new(), next: 0, spare: None }
    }

    /// Makes a slot for a key that has none. Its first claim has the token.
    #[inline(always)]
    fn open(&mut self, hash: u64, key: &mut Option<K>) -> Option<u64> {
        let ticket = draw(&mut self.next);
        let key = key.take()?;
        self.slots.insert(Slot { key, hash, id: ticket, members: 1, stoppable: 0, stopped: 0, event: None });
        Some(ticket)
    }

    /// Counts a claim out. The short way is for a key that nobody else wants.
    #[inline]
    fn count_out(&mut self, place: Place, stoppable: bool) -> Left<K> {
        match self.slots.take_hot(|slot| slot.id == place.id && slot.members == 1) {
            Some(slot) => self.close(slot),
            None => self.count_out_slow(place, stoppable),
        }
    }

    #[inline(never)]
    fn count_out_slow(&mut self, place: Place, stoppable: bool) -> Left<K> {
        let Some(slot) = self.slots.find(place.hash, |slot| slot.id == place.id) else {
            debug_assert!(false, "a claim without a slot");
            return Left::Nothing;
        };
        if slot.members > 1 {
            if stoppable {
                slot.uncount_stoppable(place);
            }
            slot.members -= 1;
            return slot.event.clone().map_or(Left::Nothing, Left::Others);
        }
        self.slots.take(place).map_or(Left::Nothing, |slot| self.close(slot))
    }

    /// Takes a slot apart. Its key is for the caller to drop, outside the lock.
    #[inline]
    fn close(&mut self, slot: Slot<K>) -> Left<K> {
        if let Some(event) = slot.event {
            self.spare.get_or_insert(event);
        }
        Left::Nobody(slot.key)
    }

    /// The invariants that can be seen from one shard. Large shards are let off.
    #[cfg(any(debug_assertions, loom, fuzzing))]
    fn check(&self) {
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
    /// Takes a claim out of the count of those a stop would turn away, if it still is in there.
    fn uncount_stoppable(&mut self, place: Place) {
        if place.ticket >= self.stopped {
            self.stoppable -= 1;
        }
    }
}

/// Draws the next ticket.
#[inline]
fn draw(next: &mut u64) -> u64 {
    let ticket = *next;
    *next += 1;
    ticket
}

/// Takes the spare event if nobody else knows it. A claim of an earlier key that still listens there
/// might have been given a token, and would hand it on to a key that has one.
fn unused(spare: &mut Option<Arc<Event>>) -> Option<Arc<Event>> {
    let mut event = spare.take()?;
    Arc::get_mut(&mut event).is_some().then_some(event)
}

/// What a claim leaves behind.
enum Left<K> {
    /// Its slot is gone: this was the key.
    Nobody(K),
    /// The slot stays, for those who listen here.
    Others(Arc<Event>),
    /// Nothing to do. (It is not reached, and saves a panic.)
    Nothing,
}

/// Hands the token to the claim that has listened longest.
#[cold]
fn pass(event: Arc<Event>) {
    event.notify(1.additional().relaxed());
}

pub(crate) struct Table<K> {
    shards: Shards<K>,
}

impl<K> Table<K> {
    pub(crate) const fn new() -> Self {
        Self { shards: Shards::new() }
    }

    /// Runs `work` on the shard of `hash`, under its lock.
    #[inline]
    fn with<R>(&self, hash: u64, work: impl FnOnce(&mut Shard<K>) -> R) -> R {
        self.shards.of(hash).with(|shard| {
            let result = work(shard);
            #[cfg(any(debug_assertions, loom, fuzzing))]
            shard.check();
            result
        })
    }

    /// Claims a key: takes a ticket, and either the key itself, if it is free, or a place in its queue.
    ///
    /// `admit` is told how many hold or wait for the key, and may refuse. `enter` must make the claim
    /// listen to the event: under this lock, so that the event's list has the order of the tickets.
    /// `key` is left with its owner, to be dropped outside the lock, unless the table took it.
    #[inline]
    pub(crate) fn claim(
        &self,
        hash: u64,
        key: &mut Option<K>,
        stoppable: bool,
        admit: impl FnOnce(usize) -> bool,
        enter: impl FnOnce(&Arc<Event>),
    ) -> Option<Place>
    where
        K: Eq,
    {
        self.with(hash, |shard| {
            let Shard { slots, next, spare } = shard;
            let wanted = key.as_ref()?;
            let Some(slot) = slots.find(hash, |slot| slot.key == *wanted) else {
                let ticket = if admit(0) { shard.open(hash, key) } else { None };
                return ticket.map(|ticket| Place { hash, id: ticket, ticket });
            };
            if !admit(slot.members as usize) {
                return None;
            }
            let members = slot.members.checked_add(1).expect("too many claims on one key");
            enter(slot.event.get_or_insert_with(|| unused(spare).unwrap_or_default()));
            slot.members = members;
            slot.stoppable += u32::from(stoppable);
            Some(Place { hash, id: slot.id, ticket: draw(next) })
        })
    }

    /// The same for those who want the key only if it is free: no queue, no event. Returns the ticket, or
    /// the key if it is busy.
    #[inline]
    pub(crate) fn claim_free(&self, hash: u64, key: K) -> Result<u64, K>
    where
        K: Eq,
    {
        let mut key = Some(key);
        let ticket = self.with(hash, |shard| {
            let wanted = key.as_ref()?;
            match shard.slots.find(hash, |slot| slot.key == *wanted) {
                Some(_) => None,
                None => shard.open(hash, &mut key),
            }
        });
        match key {
            Some(key) => Err(key),
            None => Ok(ticket.unwrap_or_default()),
        }
    }

    /// Gives up a claim that has the token: hands it to the next in the queue, or forgets the key.
    ///
    /// Wakers and `K::drop` are the user's: they run outside the lock, and after everything is in order.
    #[inline]
    pub(crate) fn release(&self, place: Place) {
        match self.with(place.hash, |shard| shard.count_out(place, false)) {
            Left::Nobody(key) => drop(key),
            Left::Others(event) => pass(event),
            Left::Nothing => {}
        }
    }

    /// Gives up a claim that waits. If the token was on its way to it, the listener, which the caller
    /// drops after this, hands it on.
    pub(crate) fn leave(&self, place: Place, stoppable: bool) {
        drop(self.with(place.hash, |shard| shard.count_out(place, stoppable)));
    }

    /// A task or ticket that waited has been given the token. Returns whether it is stopped.
    pub(crate) fn begin(&self, place: Place) -> bool {
        self.with(place.hash, |shard| {
            let slot = shard.slots.find(place.hash, |slot| slot.id == place.id);
            slot.is_some_and(|slot| {
                slot.uncount_stoppable(place);
                place.ticket < slot.stopped
            })
        })
    }

    /// Stops the tasks that wait in the slot that `is` finds. Returns how many.
    pub(crate) fn stop(&self, hash: u64, is: impl FnMut(&Slot<K>) -> bool) -> usize {
        self.with(hash, |shard| {
            let Shard { slots, next, .. } = shard;
            slots.find(hash, is).map_or(0, |slot| {
                slot.stopped = *next;
                mem::take(&mut slot.stoppable) as usize
            })
        })
    }

    /// How many hold or wait for the key that `is` finds.
    pub(crate) fn members(&self, hash: u64, is: impl FnMut(&Slot<K>) -> bool) -> usize {
        self.with(hash, |shard| shard.slots.find(hash, is).map_or(0, |slot| slot.members as usize))
    }

    /// How many keys are busy, one shard after another.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.with(|shard| shard.slots.len())).sum()
    }
}
