//! How a key is claimed, passed on, and forgotten.
//!
//! ```text
//! KeyedMutex ── Table ── Shard (a lock) ─┬─ Slot (a busy key: its queue, from head to tail) ──┐
//!                                        └─ Nodes (a slab) ── Node ── Node ── Node  ◄─────────┘
//!                                              ▲                │ waker, or: has its turn
//!      Holder { hash, id } ── in a guard       │
//!      Waiter { hash, id, node } ──────────────┘  in a future or a ticket
//! ```
//!
//! A key is busy as long as it has a slot. Whoever made the slot holds the key; whoever comes later has a node at the
//! end of its queue. All of this is under the lock of one shard, and nothing of it is anywhere else: who has the turn
//! is decided there, and is never on its way between two locks. A claim finds its slot by hash and id, not by key:
//! `K` need not be `Clone`, and unlocking neither hashes nor compares.
//!
//! | the key is | there is | owed, and by whom |
//! | --- | --- | --- |
//! | free | no slot | nothing |
//! | held | a slot, and a [`Holder`](crate::claim::Holder) | its `Drop`: [`Shard::unlock`] |
//! | shared | a slot with so many `sharers`, and a `Holder` for each | their `Drop`: `unlock`, which finds [`share`](crate::share) |
//! | handed over | a slot, and a node in no list, without a waker: it has its turn | its waiter: poll it, or drop it, which is [`Shard::leave`] |
//! | waited for, besides | a node in the slot's list for each waiter, with the waker of its last poll | whoever has the key: the turn |
//! | being forgotten | no slot any more; its `K` is with the thread that unlocked it | that thread: drop it, outside the lock |
//!
//! # Invariants
//!
//! 1. A slot's `waiting` is the length of its list. One claim of its key is not in that list, or `sharers` are if that
//!    is more: they hold the key, or have their turn. *Kept by* `Shard::claim`, `pass`, `leave`; *checked by*
//!    `Shard::check`, `tests/memory.rs`.
//! 2. A key has at most one slot, and no two slots share an id: looking for a slot and making it are one critical
//!    section. *Kept by* `Shard::claim` and `claim_now`; *checked by* `Shard::check`, `tests/model.rs`, loom.
//! 3. A node is in one list and has a waker, or is in none and has none: it has its turn, or is free. Its owner alone
//!    frees it. *Kept by* [`Nodes`](crate::queue::Nodes); *checked by* `Shard::check`, `tests/cancel.rs`.
//! 4. Tasks with a ticket below `stopped` are turned away; `stoppable` counts the tasks and tickets not below it that
//!    have waited and not begun. *Kept by* `claim`, `begin`, `leave`, [`Shard::stop`]; *checked by* `tests/stop.rs`.
//! 5. At most `max` share a key. When nobody is at work on it, the first in the queue is one who may not be inside with
//!    those who are: every way out of a key or of its queue looks at the head again. *Kept by*
//!    [`share`](crate::share); *checked by* `Shard::check`, `tests/shared.rs`, `tests/model.rs`.
//!
//! `Shard::check` runs after every critical section in our own tests, under loom and in the fuzzer.
//!
//! # The user's code
//!
//! Under a shard's lock run `Eq` and `Borrow` of keys, and the closure of `ticket_if`, all before anything has changed,
//! so that their panics change nothing. (And the drop of a waker or a key, if memory runs out and that unwinds.) All else
//! runs outside: `Hash` before; `K::drop`, and what a waker does when it
//! is woken, cloned or dropped, after, when everything is in order. So a waker may do to the mutex what it likes, and
//! its panic only passes through. `Waker::will_wake` compares pointers, and is not the user's.
//!
//! # Why no wake-up is lost
//!
//! A node has a waker from the moment it is in a list, and that of the last poll from then on. Giving it the turn and
//! taking that waker is one step, under the lock; whoever took it wakes it. So a waiter that finds no turn has left a
//! waker that will be woken, and one whose waker has been taken finds its turn. Of several sharers each is let in by
//! such a step of its own; whoever does it goes on until it finds one who may not be inside, or finds the slot gone, also
//! when a waker panics ([`wake_each`](crate::wake::wake_each)). A waker that is replaced must be
//! cloned, which is the user's code: the poll leaves the lock, clones, and looks again ([`until_cloned`](crate::wake::until_cloned)).
//!
//! # Cancellation
//!
//! | a future dropped when | does | shown by, in `tests/cancel.rs` |
//! | --- | --- | --- |
//! | it was never polled | nothing: it has no claim | `a_future_that_was_never_polled_…` |
//! | it waits | takes its node out of the list | `a_waiter_that_is_dropped_…` |
//! | it has its turn | what a holder does | `a_granted_waiter_dropped_unpolled_…` |
//! | its task runs | drops the task, then unlocks | `a_task_that_is_dropped_while_it_runs_…` |
//!
//! # Memory ordering
//!
//! The shard's lock orders everything: the next holder enters it after the last one has left it, whether it finds the
//! slot gone or its turn come. There are no atomics besides, but the cell in which the shards are made at first use.
//!
//! # Cost
//!
//! Lock and unlock of a free key: one hash, two critical sections, no allocation once the table is warm. A wait: three
//! more (join, unlock, poll), and 32 bytes of the slab (24 where pointers are half as long). All are O(1) in the number
//! of waiters; forgetting a key is O(n) in the number of those who watch for idleness, if there are any. The table is at
//! most eight times as large as needed, or 16 buckets, a shard; without `std` it stays as large as it was until it is
//! empty. The slab is given back when nobody waits and it has more than 64 nodes.
//!
//! # Roads not taken
//!
//! - *The order of waiters in event-listener's list.* It was so at first. That list has a lock, under which wakers run
//!   and which a claim entered under the shard's lock: two locks in two orders, and threads that stopped for ever. It
//!   cost twice the instructions of this, for a token on its way from one lock to the other.
//! - *A queue of wakers in the slot, a `VecDeque`.* Whoever gives up in the middle has to be found in it, or leaves a
//!   hole; and each contended key allocates.
//! - *An `Arc<Mutex>` for each key, in a map.* What everybody writes. It needs a clean-up that races with the
//!   next lock, hashes three times, and is as fair as the inner mutex, which often is not.
//! - *Slots and keys apart, so that the table is compiled once for all key types.* A second key type then added a
//!   quarter of the first's WASM, not a half; but the first took a third more, and two types together the same.
//! - *One look-up for free and busy keys alike, in place of a short cut and a long way.* The waker would have to be
//!   cloned before it is known to be needed: two atomic operations for each free key.
//! - *A kind in each claim, and wakers collected in a `Vec`.* The exclusive paths then cost a fifth to a half more. So
//!   the kind is known where the code is compiled, a slot says whether it is shared, and what sharing adds is found by a
//!   pointer that only those who share leave behind.
//! - *Unlocking by remembered bucket.* Fewer instructions, but a table that moves entries must then tell their
//!   guards, or check.

use core::hash::{BuildHasher, Hash};
use core::mem;

use crate::shard::{Kind, Place, Shard};
use crate::shards::Shards;

/// What a mutex is made of.
pub(crate) struct Table<K, S> {
    pub(crate) shards: Shards<K>,
    pub(crate) hasher: S,
    /// How many may share a key.
    pub(crate) max: u32,
}

impl<K, S> Table<K, S> {
    pub(crate) const fn new(max: u32, hasher: S) -> Self {
        Self { shards: Shards::new(), hasher, max }
    }

    /// Runs `work` on the shard of `hash`, under its lock.
    #[inline]
    pub(crate) fn with<R>(&self, hash: u32, work: impl FnOnce(&mut Shard<K>) -> R) -> R {
        self.shards.of(hash).with(work)
    }

    /// Claims a key if it can be had at once. Returns the id of its slot, or the key.
    #[inline]
    pub(crate) fn claim_now<T: Kind<K>>(&self, hash: u32, key: K) -> Result<u64, K>
    where
        K: Eq,
    {
        // Out here, so that the closure does not move it, and that it is dropped outside the lock.
        let mut key = Some(key);
        let id = self.with(hash, |shard| shard.claim_now::<T>(hash, &mut key, self.max));
        if let (Some(_), Some(id)) = (T::SHARES, id) {
            let share = Unheld { table: self, hash, id };
            drop(key.take()); // the slot has one already: if this panics, the share is given back
            mem::forget(share);
        }
        id.ok_or_else(|| key.expect("the shard took no key"))
    }

    /// Unlocks a key.
    #[inline]
    pub(crate) fn unlock(&self, hash: u32, id: u64) {
        let shard = self.shards.of(hash);
        shard.with(|shard| shard.unlock(hash, id)).settle(shard, hash, id);
    }

    /// Gives up a claim that is not a holder yet.
    #[inline(never)]
    pub(crate) fn leave<T: Kind<K>>(&self, place: Place) {
        let shard = self.shards.of(place.hash);
        shard.with(|shard| shard.leave::<T>(place)).settle(shard, place.hash, place.id);
    }

    /// Half as many bits as a hash has are enough, since keys are compared.
    pub(crate) fn hash<Q: ?Sized + Hash>(&self, key: &Q) -> u32
    where
        S: BuildHasher,
    {
        let hash = self.hasher.hash_one(key);
        (hash ^ hash >> 32) as u32
    }

    /// How many keys are busy, one shard after another.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.with(|shard| shard.slots.len())).sum()
    }
}

/// A share that has no [`Holder`](crate::claim::Holder) yet, which is made of more than a table. (A holder of a table alone
/// in its place cost three instructions on each lock of a free key.)
struct Unheld<'a, K, S> {
    table: &'a Table<K, S>,
    hash: u32,
    id: u64,
}

impl<K, S> Drop for Unheld<'_, K, S> {
    fn drop(&mut self) {
        self.table.unlock(self.hash, self.id);
    }
}

#[cfg(feature = "idle")]
impl<K, S> Table<K, S> {
    /// How many tickets have been drawn, one shard after another, if none has a busy key.
    pub(crate) fn quiet(&self) -> Option<u64> {
        self.shards.iter().map(|shard| shard.with(|shard| (shard.slots.len() == 0).then_some(shard.next))).sum()
    }
}
