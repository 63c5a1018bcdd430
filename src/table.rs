//! How a key is claimed, passed on, and forgotten.
//!
//! ```text
//! KeyedMutex ── Table ── Shard (a lock) ── Slot (a busy key) ── Event (once somebody has waited)
//!                                            ▲                    ▲ list of listeners, oldest first
//!          Claim { hash, id, ticket } ───────┘                    │
//!          in a guard, a task, a ticket, a waiting future ── listener, if it had to wait
//! ```
//!
//! A key is busy as long as it has a slot, and has a slot as long as somebody claims it. For each slot there
//! is exactly one **token**: whoever has it may go on, all others wait. A claim finds its slot by hash and
//! id, never by key: `K` need not be `Clone`, and unlocking neither hashes nor compares.
//!
//! | the key is | the token is | owed, and by whom |
//! | --- | --- | --- |
//! | free: no slot | nowhere | nothing |
//! | held | in the claim of a guard or a running task | its `Drop`: [`Table::give_up`] |
//! | being passed | with a thread, between the shard's lock and `notify` | that thread: [`pass`] |
//! | handed over | in a listener that has been notified | its owner: poll it, or drop it, which passes the token on |
//! | forgotten meanwhile: no slot | with that thread or in that listener still | nothing: a token without a slot dies, nobody wants it |
//!
//! # Invariants
//!
//! 1. A slot has as many `members` as there are claims on its key, and at least one. *Kept by*
//!    [`Table::claim`] and [`Shard::count_out`]; *checked by* `Shard::check`, `tests/memory.rs`.
//! 2. A key has at most one slot: looking for it and making it are one critical section. *Kept by*
//!    `claim` and `claim_free`; *checked by* `tests/model.rs` and `tests/loom.rs`.
//! 3. A slot has one token. *Kept by*: the first claim has it from the start, `give_up` passes it to one
//!    listener, event-listener passes it on when a notified listener is dropped. *Checked by*
//!    `tests/exclusion.rs`, `tests/wake.rs`, loom.
//! 4. The list of an event has the order of the tickets: a claim starts to listen under the lock that its
//!    ticket is drawn under. That is all of the fairness. *Checked by* `tests/order.rs`.
//! 5. While a listener is in a list, its claim's share of the event is alive. So an event that nobody
//!    shares has an empty list and no token on its way, and may serve another key. *Kept by*
//!    [`turn`](crate::wait::turn) and [`unused`]; *checked by* `tests/cancel.rs`.
//! 6. Tasks with a ticket below `stopped` are turned away; `stoppable` counts the tasks and tickets not below
//!    it that have not begun. *Kept by* [`Table::stop`], [`Table::begin`], `count_out`; *checked by*
//!    `tests/stop.rs`.
//!
//! `Shard::check` runs after every critical section in debug builds, under loom and in the fuzzer.
//!
//! # The user's code
//!
//! Under a shard's lock run `Eq`, and the closure of `ticket_if`, both before anything has changed, so that
//! their panics change nothing. All else runs outside: `Hash` before; `K::drop` and wakers after, when
//! everything is in order, so that their panics, too, change nothing. (Wakers run under the list lock of
//! event-listener, which would not survive a panic: see [`wait`](crate::wait).)
//!
//! # Why no token is lost
//!
//! A thread that releases counts itself out, drops the lock, and only then notifies. In between, the waiter
//! that it counted on may leave. That waiter, too, counts itself out *first* and leaves the list *second*
//! (its claim is dropped before its listener). So at any time
//!
//! - a claim that is still counted is still in the list, and will find the token;
//! - a claim that is in the list but not counted any more passes on whatever it is given;
//! - a token finds the list empty only if all were counted out, and then the slot is gone.
//!
//! The other way round the token is lost: B leaves the list, A sees B counted and notifies nobody, C joins,
//! B counts itself out, C sleeps for ever. (`tests/faults` has this and other mistakes, and what finds them.)
//!
//! # Cancellation
//!
//! | a future dropped when | does | shown by, in `tests/cancel.rs` |
//! | --- | --- | --- |
//! | it was never polled | nothing: it has no claim | `a_future_that_was_never_polled_…` |
//! | it waits | counts out, leaves the list | `a_waiter_that_is_dropped_…` |
//! | it has been given the key | counts out; its listener passes the token on | `a_granted_waiter_dropped_unpolled_…` |
//! | its task runs | drops the task, then releases | `a_task_that_is_dropped_while_it_runs_…` |
//!
//! # Memory ordering
//!
//! Everything is ordered by locks; the edges that carry a promise are:
//!
//! 1. *release → the next claim of the same key, if it was forgotten*: the shard's lock.
//! 2. *release → the next holder, if it waited*: the list's lock, taken by `notify` and by the poll (or the
//!    wait of a blocked thread) that finds the notification.
//! 3. *a claim listens → somebody else releases*: the shard's lock. So `notify` needs no fence of its own
//!    to see the listener, and is `relaxed`.
//!
//! # Cost
//!
//! Lock and unlock of a free key: one hash, two critical sections, no allocation once the table is warm. A
//! wait: one more, four of the event's list (enter, register a waker, notify, leave), and one allocation if
//! its thread has no spare waker. Unlocking and cancelling are O(1) in the number of waiters. The table is at most
//! eight times as large as needed, or 16 buckets, a shard; without `std` it stays as large as it was until it
//! is empty.
//!
//! # Roads not taken
//!
//! - *A queue of wakers in the slot, without event-listener.* Faster and smaller, but a second
//!   implementation of what event-listener has had years to get right.
//! - *An `Arc<Mutex>` for each key, in a map.* What everybody writes. It needs a clean-up that races with the
//!   next lock, hashes three times, and is as fair as the inner mutex, which often is not.
//! - *Slots and keys apart, so that the table is compiled once for all key types.* A second key type then added a
//!   quarter of the first's WASM, not a half; but the first took a third more, and two types together the same.
//! - *One look-up for free and busy keys alike, in place of a short cut and a long way.* Two in a hundred
//!   instructions less for a wait, fourteen in a hundred more for a free key.
//! - *Unlocking by remembered bucket.* Fewer instructions, but a table that moves entries must then tell their
//!   guards, or check.
//! - *Leaving the list under the shard's lock.* One step instead of two, but it drops wakers, which are the
//!   user's, under a lock of ours.

use core::mem;

use event_listener::{Event, IntoNotification};

use crate::shard::{Left, Place, Shard, Slot, draw, unused};
use crate::shards::Shards;
use crate::sync::Arc;

/// Hands the token to the claim that has listened longest.
#[cold]
fn pass(event: Arc<Event>) {
    // Release: edge 2. The listener is there: edge 3.
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
        // Edges 1 and 3.
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
            let Some(slot) = slots.find(hash, &mut |slot| slot.key == *wanted) else {
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
            match shard.slots.find(hash, &mut |slot| slot.key == *wanted) {
                Some(_) => None,
                None => shard.open(hash, &mut key),
            }
        });
        match key {
            Some(key) => Err(key),
            None => Ok(ticket.unwrap_or_default()),
        }
    }

    /// Gives up a claim. If it has the token, passes that to the next in the queue, or forgets the key. If the
    /// token is on its way to it, the listener, which the caller drops after this, passes it on.
    ///
    /// Wakers and `K::drop` are the user's: they run outside the lock, and after everything is in order.
    #[inline]
    pub(crate) fn give_up(&self, place: Place, has_token: bool, stoppable: bool) {
        match self.with(place.hash, |shard| shard.count_out(place, stoppable)) {
            Left::Nobody(key) => drop(key),
            Left::Others(event) if has_token => pass(event),
            Left::Others(event) => drop(event),
            Left::Nothing => {}
        }
    }

    /// A task or ticket that waited has been given the token. Returns whether it is stopped.
    pub(crate) fn begin(&self, place: Place) -> bool {
        self.with(place.hash, |shard| {
            let slot = shard.slots.find(place.hash, &mut |slot| slot.id == place.id);
            slot.is_some_and(|slot| {
                slot.uncount_stoppable(place);
                place.ticket < slot.stopped
            })
        })
    }

    /// Stops the tasks that wait in the slot that `is` finds. Returns how many.
    pub(crate) fn stop(&self, hash: u64, mut is: impl FnMut(&Slot<K>) -> bool) -> usize {
        self.with(hash, |shard| {
            let Shard { slots, next, .. } = shard;
            slots.find(hash, &mut is).map_or(0, |slot| {
                slot.stopped = *next;
                mem::take(&mut slot.stoppable) as usize
            })
        })
    }

    /// How many hold or wait for the key that `is` finds.
    pub(crate) fn members(&self, hash: u64, mut is: impl FnMut(&Slot<K>) -> bool) -> usize {
        self.with(hash, |shard| shard.slots.find(hash, &mut is).map_or(0, |slot| slot.members as usize))
    }

    /// How many keys are busy, one shard after another.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.with(|shard| shard.slots.len())).sum()
    }
}
