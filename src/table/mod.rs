//! The machinery: how a key is claimed, handed over, and removed.
//!
//! ```text
//! KeyedMutex ── Shards ── Shard ── Table ─┬─ Slots ── Slot (a locked key: its queue, from head to tail) ─┐
//!                      (the lock)         └─ Nodes ── Node ── Node ── Node  ◄───────────────────────────┘
//!                                              ▲        │ waker, state
//!      Place { hash, id, Turn::waits(node) } ──┘  in the claim of a future or a ticket
//!      Place { hash, id, Turn::GRANTED } ── in the claim of a guard
//! ```
//!
//! A key is locked as long as it has a slot. The claim that makes the slot holds the key; a claim that comes later has
//! a node at the end of the slot's queue. All of this state is behind the lock of one shard: which waiter is granted
//! the key is decided under that one lock, and takes effect under it. A claim finds its slot by hash and id, not by
//! key: `K` need not be `Clone`, and unlocking neither hashes nor compares keys.
//!
//! | the key is | there is | what remains to be done, and by what |
//! | --- | --- | --- |
//! | free | no slot | nothing |
//! | locked exclusively | a slot with no `sharers`, and a claim without a node | the claim is dropped: [`Table::give_up`](guarded::Table::give_up) |
//! | shared | a slot that counts its `sharers`, and such a claim for each | the same, for each claim |
//! | handed over | a slot, and a granted node in no list | its waiter is polled, and then holds the key as above; or it is dropped, which gives the key up |
//! | contended (in addition) | a node in the slot's queue for each waiter, with the waker of its last poll | the holders hand the key over |
//! | being removed | no slot any more; the thread that unlocked the key has its `K` | that thread drops the `K`, outside the lock |
//!
//! A waiter that is stopped leaves the queue in the same way as one that is granted the key, and keeps its node until
//! it is polled or dropped: it holds nothing, and blocks no other waiter.
//!
//! # From a lock to an unlock
//!
//! A free key: [`Lock`](crate::Lock) is polled, hashes the key, and finds its shard ([`Shards::of`]); under its lock,
//! [`Table::claim`](guarded::Table::claim) finds no slot, and makes one. The guard is dropped: under the lock,
//! [`Table::give_up`](guarded::Table::give_up) takes the slot; after it, [`Shard`] drops the key.
//!
//! A contended key: `claim` finds the slot, but there is no waker yet, so it claims nothing; the future clones its waker,
//! and tries again; `claim` appends a node to the queue. The guard before it is dropped: `give_up` finds a waiter, and
//! `Table::pass` hands the key over to it, whose waker `Shard` then calls. The future is polled again, and takes its turn:
//! [`Nodes::take_turn`](queue::Nodes::take_turn).
//!
//! Whatever else happens to a locked key is a [`Change`]. What must not happen under the lock is [`Owed`](guarded::Owed)
//! after it.
//!
//! # Invariants
//!
//! 1. A slot's `waiting` is the length of its queue. Its `sharers` is the number of granted claims of its key; if it is
//!    0, there is one, which is exclusive. *Kept by* `Table::claim`, `pass`, `change`, `stop_all`; *checked by*
//!    `Table::check`, `memory`.
//! 2. A key has at most one slot, and no two slots of a shard ever share an id: looking for a slot and making it are
//!    one critical section. *Kept by* `Table::claim`; *checked by* `Table::check`, the reference model, loom.
//! 3. A node waits, in one list, with a waker; or it is granted, stopped or abandoned, in no list, with a waker if it
//!    is in a batch; or it is free. Only its waiter gives it up. The waiter also frees it, unless the node is in a
//!    batch: then the thread that wakes the batch frees it. *Kept by* [`Nodes`](queue::Nodes); *checked by*
//!    `Table::check`, `cancel`, `wakers`.
//! 4. A shared claim is granted while fewer than its own limit share the key, and the first waiter in a queue cannot hold
//!    the key together with its holders: whenever a holder or a waiter leaves, the head of the queue is checked again.
//!    *Kept by* `Table::claim`, which shares a key only if it has no waiters, and `Slot::grant`; *checked by*
//!    `Table::check`, `shared`, the reference model.
//! 5. Watchers are taken out of their list in the critical section that removes the slot, and the hot slot has none.
//!    *Kept by* `Table::tell`, `Slots::cool`; *checked by* `Table::check`, `idle`.
//!
//! (`memory`, `cancel` and so on are modules of `tests/promises`.) `Table::check` runs after every critical section if
//! `cfg(async_mutex_lite_check)` is set: `.ci/checked` runs the tests with it, and so do the fuzzer and the model checker.
//!
//! # User code
//!
//! Some user code runs under a shard's lock: `Eq` and `Borrow` of keys, and the closures of `ticket_if` and
//! `for_each_locked`. They run before anything has changed, so their panics change nothing. (If memory runs out and
//! that unwinds, a waker or a key is dropped under the lock, too.) All other user code runs outside: `Hash` before the
//! lock is taken; `K::drop`, and the calls, clones and drops of wakers, after it is released, when the shard is
//! consistent. So a waker may use the mutex in any way, and its panic only propagates. `Waker::will_wake` compares
//! pointers, and runs no user code. `Debug` takes no lock, and runs none.
//!
//! # Why no wake-up is lost
//!
//! A node has a waker from the moment when it is put in a list: the one of its waiter's last poll (of a ticket or a
//! watcher that has not been polled yet, a no-op waker). Taking it out of the list, granted or stopped, is one step
//! under the lock; the thread that takes that step also takes its waker, or the batch with it, and calls it. So a
//! waiter that is still waiting after a poll has left a waker that will be called, and a waiter whose waker has been
//! called will find itself granted or stopped. A batch is taken by one thread (that of a `stop_all` waits in the shard
//! until it, or another `stop_all`, takes it), which works through to its end even if a waker panics ([`each`]), so a
//! waker that blocks delays no batch but those of a `stop_all` that come after it. To replace a waker, the new one must
//! be cloned, which runs user code: the poll releases the lock, clones, and checks again ([`Shard::poll`]).
//!
//! # Cancellation
//!
//! | a future that is dropped | does this | shown by, in `tests/promises/cancel.rs` and `stop.rs` |
//! | --- | --- | --- |
//! | before its first poll | nothing: it has no claim | `a_future_that_was_never_polled_…` |
//! | while it waits | takes its node out of the queue, and grants the key to the waiters behind it that can now hold it | `a_waiter_that_is_dropped_…` |
//! | when it has been granted the key | unlocks, as a holder does | `a_granted_waiter_dropped_unpolled_…` |
//! | when it has been stopped | frees its node | `dropping_what_was_stopped_…` |
//! | while its job runs | drops the job's future, then unlocks | `a_task_that_is_dropped_while_it_runs_…` |
//!
//! # Memory ordering
//!
//! The shard's lock orders everything: the next holder takes it after the last one has released it, whether it finds no
//! slot or is granted the key. There are two other atomics: the cell in which the shards are made at first use, and the
//! flag that says that keys may be shared, which is set after all shards know it.
//!
//! # Cost
//!
//! Lock and unlock of a free key: one hash, two critical sections, no allocation once the map is warm. A wait: two more
//! (to join the queue, and to be polled when the key is granted; without `std`, or with `critical-section`, only the
//! latter), and 32 bytes of the slab (24 where pointers are half as long). All are amortised O(1) in the number of
//! waiters. The map of a shard is at most eight times as large as needed, or as large as what is always kept; without
//! `std`, or with `critical-section`, it stays as large as it was until it is empty. The slab is freed when it is unused
//! and has more than 64 nodes. The operations that are O(n) are listed in the documentation of `KeyedMutex`.
//!
//! # Rejected designs
//!
//! - *The order of waiters in event-listener's list.* The first version did this. That list has a lock of its own:
//!   wakers run under it, and a claim took it while holding the shard's lock. So two locks were taken in both orders,
//!   and threads deadlocked. It also took twice the instructions, to pass a token from one lock to the other.
//! - *A stop that each waiter sees when its turn comes.* An earlier version did this: stopped waiters kept their
//!   places, each with a ticket number, and the slot kept the number below which tickets were stopped. A newcomer then
//!   waited for a thousand stopped futures to be polled, one after another, and every wait paid for the numbers with a
//!   second lookup.
//! - *A queue of wakers in the slot, a `VecDeque`.* A waiter that leaves from the middle has to be found in it, or
//!   leaves a hole; and each contended key allocates.
//! - *An `Arc<Mutex>` for each key, in a map.* It needs a cleanup that races with the next lock, hashes three times,
//!   and is only as fair as the inner mutex, which often is not fair.
//! - *Slots and keys in separate maps, so that the map of slots is compiled once for all key types.* A second key type
//!   then added only a quarter of the first one's WASM, instead of half; but the first took a third more, so two types
//!   together took as much as before.
//! - *One lookup for free and locked keys alike, instead of a fast and a slow path.* The waker would have to be cloned
//!   before it is known to be needed; or, if a node waits with a no-op waker until it is given another, each wait takes
//!   33 more instructions, and a program that only locks keys is 250 bytes larger.
//! - *One way to unlock, instead of a shorter one for programs that neither share nor watch* (`Table::general`).
//!   Such a program would take 538 more bytes of WASM with gzip, and a hand-over 130 more instructions. So the general way
//!   is called through a function pointer, which all shards are given by the first `shared` or `at_most`, and one shard by
//!   a downgrade or a watcher. (A pointer that travels in the mode, and with each claim, took some 25 more for each lock.)
//! - *All slots in the map, and none beside it* ([`hot`](slots)): lock and unlock would take twice the instructions.
//! - *One list in each shard of all wakers that are yet to be called, instead of batches.* A waker that blocks would
//!   then delay the wake-ups of all keys in the shard, and an executor that runs tasks inside `wake` would nest them.
//! - *Collecting wakers in a `Vec`.* It allocates under the lock, and unlocking must not be able to fail.
//! - *Guards that keep the mutex and look for the shard.* Guards that can borrow keep the shard instead, which saves 57
//!   instructions of a hand-over.
//! - *[`Guards`](crate::Guards) that keep the vector of [`LockMany`](crate::LockMany).* To collect the claims from it takes 80
//!   instructions. But it has a place for keys, without which guards are `Sync` whatever their keys are, and covariant.
//! - *`parking` for threads that block, instead of event-listener.* It has no timeouts in a program that is built with
//!   `--cfg loom`.
//! - *Unlocking by remembered bucket.* It takes fewer instructions, but a table that moves entries must then update
//!   their guards, or each guard must check.

// From the top down: each file uses those below it.
#[cfg(feature = "idle")]
mod watch;
mod shards;
mod shard;
mod guarded;
mod slots;
mod slot;
mod queue;
mod wake;
#[cfg(any(async_mutex_lite_check, async_mutex_lite_loom))]
mod check;

#[allow(unreachable_pub, reason = "a hidden method has it")]
pub use shard::Shard;
pub use slot::KeyState;
pub(crate) use {
    guarded::{Change, Place},
    queue::{Kind, Sharing, Turn, fill},
    shards::Shards,
    slots::FAST,
    wake::each,
};
