//! The machinery: how a key is claimed, handed over, and removed.
//!
//! ```text
//! KeyedMutex ── Shards ── Locked ── Shard ─┬─ Slots ── Slot (a locked key: its queue, from head to tail) ─┐
//!                       (the lock)         └─ Nodes ── Node ── Node ── Node  ◄───────────────────────────┘
//!                                               ▲        │ waker, state
//!      Claim { hash, id, node } ────────────────┘  in a future or a ticket
//!      Claim { hash, id, GRANTED } ── in a guard
//! ```
//!
//! A key is locked as long as it has a slot. The claim that made the slot holds the key; one that comes later has a node
//! at the end of its queue. All of this is under the lock of one shard, and nothing of it is anywhere else: who is granted
//! the key is decided there, and is never on its way between two locks. A claim finds its slot by hash and id, not by key:
//! `K` need not be `Clone`, and unlocking neither hashes nor compares.
//!
//! | the key is | there is | owed, and by whom |
//! | --- | --- | --- |
//! | free | no slot | nothing |
//! | locked exclusively | a slot with [`EXCLUSIVE`](slot::EXCLUSIVE) for its holders, and a claim without a node | its `Drop`: [`Shard::give_up`](shard::Shard::give_up) |
//! | shared | a slot that counts its holders, and such a claim for each | the same |
//! | handed over | a slot, and a node in no list, granted | its waiter: to be polled, or dropped, which is the same again |
//! | contended, besides | a node in the slot's queue for each waiter, with the waker of its last poll | the holders: to hand the key over |
//! | being removed | no slot any more; its `K` is with the thread that unlocked it | that thread: to drop it, outside the lock |
//!
//! A waiter that is stopped leaves the queue in the same way as one that is granted the key, and keeps its node until it is
//! polled or dropped: it holds nothing, and blocks no other waiter.
//!
//! # Invariants
//!
//! 1. A slot's `waiting` is the length of its queue. There are as many granted claims of its key as it has `holders`,
//!    or one, if that is `EXCLUSIVE`. *Kept by* `Shard::claim`, `pass`, `change`; *checked by* `Shard::check`,
//!    `tests/memory.rs`.
//! 2. A key has at most one slot, and no two slots of a shard ever share an id: looking for a slot and making it are
//!    one critical section. *Kept by* `Shard::claim`; *checked by* `Shard::check`, `tests/model.rs`, loom.
//! 3. A node waits in one list and has a waker; or it is granted, stopped or abandoned, in no list, and has a waker if
//!    it is in a batch; or it is free. Its waiter alone gives it up, and frees it, unless it is in a batch: then the
//!    thread that wakes the batch does. *Kept by* [`Nodes`](queue::Nodes); *checked by* `Shard::check`,
//!    `tests/cancel.rs`, `tests/wakers.rs`.
//! 4. At most `max` share a key, and the first in a queue could not hold the key together with its holders: every way out
//!    of a key or of its queue looks at the head again. *Kept by* `Slot::admit`, which alone grants a key that is shared;
//!    *checked by* `Shard::check`, `tests/shared.rs`, `tests/model.rs`.
//! 5. Watchers are told under the lock under which the slot goes, and the hot slot has none. *Kept by*
//!    `Shard::tell`, `Slots::cool`; *checked by* `Shard::check`, `tests/idle.rs`.
//!
//! `Shard::check` runs after every critical section in our own tests, under loom and in the fuzzer.
//!
//! # The user's code
//!
//! Under a shard's lock run `Eq` and `Borrow` of keys, and the closures of `ticket_if` and `for_each_locked`, all
//! before anything has changed, so that their panics change nothing. (And the drop of a waker or a key, if memory runs
//! out and that unwinds.) All else runs outside: `Hash` before; `K::drop`, and what a waker does when it is called,
//! cloned or dropped, after, when everything is in order. So a waker may do to the mutex what it likes, and its panic
//! only passes through. `Waker::will_wake` compares pointers, and is not the user's.
//!
//! # Why no wake-up is lost
//!
//! A node has a waker from the moment it is in a list, and that of the last poll from then on. Taking it out of the
//! list, granted or stopped, is one step under the lock; the thread that takes that step has its waker, or the batch
//! with it, and calls it. So a waiter that finds itself waiting has left a waker that will be called, and one whose
//! waker has been called finds what it was called for. A batch is known to one thread alone, which goes on to its end
//! even if a waker panics ([`each`]), so that a waker that blocks delays no other batch. (Two `stop_all`s at the same
//! time share theirs: either may wake what the other has stopped.) A waker that is replaced must be cloned, which is
//! the user's code: the poll leaves the lock, clones, and looks again ([`Locked::poll`]).
//!
//! # Cancellation
//!
//! | a future dropped when | does | shown by, in `tests/cancel.rs` and `tests/stop.rs` |
//! | --- | --- | --- |
//! | it was never polled | nothing: it has no claim | `a_future_that_was_never_polled_…` |
//! | it waits | takes its node out of the queue, and grants the key to those behind it who can hold it now | `a_waiter_that_is_dropped_…` |
//! | it was granted the key | what a holder does | `a_granted_waiter_dropped_unpolled_…` |
//! | it was stopped | frees its node | `dropping_what_was_stopped_…` |
//! | its job runs | drops the job, then unlocks | `a_task_that_is_dropped_while_it_runs_…` |
//!
//! # Memory ordering
//!
//! The shard's lock orders everything: the next holder enters it after the last one has left it, whether it finds the
//! slot gone or is granted the key. There are no atomics besides, but the cell in which the shards are made at first use.
//!
//! # Cost
//!
//! Lock and unlock of a free key: one hash, two critical sections, no allocation once the map is warm. A wait: two more
//! (to join the queue, and to be polled when the key is granted), and 32 bytes of the slab (20 where pointers are half
//! as long). All are O(1) in the number of waiters. The map is at most eight times as large as needed, or 16 buckets, a
//! shard; where there is one shard it stays as large as it was until it is empty. The slab is given back when it is
//! unused and has more than 64 nodes. What is O(n) is listed in the documentation of `KeyedMutex`.
//!
//! # Roads not taken
//!
//! - *The order of waiters in event-listener's list.* It was so at first. That list has a lock, under which wakers run
//!   and which a claim entered under the shard's lock: two locks in two orders, and threads that stopped forever. It
//!   cost twice the instructions of this, for a token on its way from one lock to the other.
//! - *A stop that is told in turn.* It was so, too: the stopped kept their places, each with a ticket number, and the
//!   slot a number below which tickets were stopped. A newcomer then waited for a thousand stopped futures to be
//!   polled, one after another, and every wait paid for the numbers with a second look-up.
//! - *A queue of wakers in the slot, a `VecDeque`.* A waiter that leaves from the middle has to be found in it, or leaves a
//!   hole; and each contended key allocates.
//! - *An `Arc<Mutex>` for each key, in a map.* It needs a clean-up that races with the next lock, hashes three times, and
//!   is as fair as the inner mutex, which often is not.
//! - *Slots and keys apart, so that the map is compiled once for all key types.* A second key type then added a
//!   quarter of the first's WASM, not a half; but the first took a third more, and two types together the same.
//! - *One look-up for free and locked keys alike, in place of a short cut and a long way.* The waker would have to be
//!   cloned before it is known to be needed; or, if a node waits with a waker that does nothing until it has another, each
//!   wait takes 33 instructions more, and a program that only locks 250 bytes.
//! - *One way to unlock, in place of a short one for programs that neither share nor watch.* They would take 370 bytes
//!   of WASM more, and a hand-over 130 instructions. So the other way is found by a pointer, which shared locks and
//!   watchers leave behind.
//! - *One list in each shard for all that is yet to be woken, in place of batches.* A waker that blocks, or an executor
//!   that runs tasks inside `wake`, then delays, or nests, the wake-ups of all keys in the shard.
//! - *Wakers collected in a `Vec`.* It allocates, under the lock, where unlocking must not fail.
//! - *Guards that keep the mutex and look for the shard.* They keep the shard, if they can borrow it: 15 of 204
//!   instructions.
//! - *Unlocking by remembered bucket.* Fewer instructions, but a table that moves entries must then tell their
//!   guards, or check.

// From the top down: each file uses those below it.
mod shards;
#[cfg(feature = "idle")]
mod watch;
mod shard;
mod slots;
mod slot;
mod queue;
mod wake;
mod lock;
#[cfg(any(test, loom, fuzzing))]
#[path = "../../tests/model/check.rs"]
mod check;

#[allow(unreachable_pub, reason = "a hidden method has it")]
pub use shard::Locked;
pub use slot::KeyState;
#[cfg(feature = "idle")]
pub(crate) use slots::Slots;
pub(crate) use {
    queue::{GRANTED, Kind, STOPPED},
    shard::Place,
    shards::Shards,
    slots::ROOMY,
    wake::each,
};
