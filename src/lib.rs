//! An async mutex by key: tasks with the same key run one after another, first come first served; tasks
//! with different keys run at the same time; a key that nobody uses takes no memory.
//!
//! [`KeyedMutex`] is the whole crate: [`lock`](KeyedMutex::lock) for a guard, [`run`](KeyedMutex::run) and
//! [`run_or_stop`](KeyedMutex::run_or_stop) for a task, [`ticket`](KeyedMutex::ticket) to queue now and wait
//! later. It runs under any executor, or none, on servers, in browsers, and on microcontrollers.
//!
//! ```
//! use async_mutex_lite::KeyedMutex;
//!
//! static ORDERS: KeyedMutex<u64> = KeyedMutex::new();
//!
//! # async fn ship(_: u64) {}
//! async fn webhook(order: u64) {
//!     // Delivered twice at once? The second waits here until the first is done.
//!     let _guard = ORDERS.lock(order).await;
//!     ship(order).await;
//! }
//! # smol::block_on(webhook(1));
//! ```
//!
//! # Features
//!
//! | | `std` (default) | neither | `critical-section` (wins over `std`) |
//! | --- | --- | --- | --- |
//! | the table is guarded by | the standard library's mutex | a spin lock | critical sections |
//! | and split into | shards, about sixteen for each processor | one | one |
//! | exclusion, order, cancellation, memory, stopping | yes | yes | yes |
//! | [`lock_blocking`](KeyedMutex::lock_blocking), [`try_lock_for`](KeyedMutex::try_lock_for) | yes (not on WASM) | no | with `std` |
//! | [`RandomState`] is seeded from | the operating system | an address | the system with `std`, else an address |
//! | an interrupt handler may | | not touch the mutex: it would spin for ever | lock, unlock, ask, and drop guards |
//!
//! A critical section lasts as long as a look-up, now and then as long as moving the table to a larger one
//! (with `std`, or a smaller), which allocates. No waker runs in it: they run after it, in whatever unlocks, an
//! interrupt handler included.
//!
//! `idle` (on by default, also without `std`) adds [`idle`](KeyedMutex::idle) and [`all_idle`](KeyedMutex::all_idle).
//!
//! The methods with an [`Arc`](alloc::sync::Arc) need a target that has one, which is all that can compare and
//! swap. A Cortex-M0 cannot: there, the atomics come from portable-atomic, which asks the final binary how
//! (by its feature `critical-section`, say).
//!
//! When memory runs out, the allocator's error handler decides (by default, abort with `std`, panic
//! without). Nothing has been changed then. Unlocking and cancelling need no memory.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![warn(clippy::alloc_instead_of_core, clippy::std_instead_of_core, clippy::std_instead_of_alloc)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(all(target_os = "none", feature = "std"))]
compile_error!(
    "async-mutex-lite: this target has no standard library. Write `default-features = false, features = \
     [\"critical-section\"]`, and turn on an implementation of critical sections, which your chip's crate has as a feature."
);
#[cfg(all(target_os = "none", not(any(feature = "std", feature = "critical-section", feature = "spin"))))]
compile_error!(
    "async-mutex-lite: say how the table is to be guarded on bare metal. The feature `critical-section` is right almost \
     always; with `spin`, an interrupt handler that touches the mutex may spin for ever on what it has interrupted."
);

extern crate alloc;
#[cfg(all(feature = "std", not(target_os = "none")))]
extern crate std;

#[cfg(target_has_atomic = "ptr")]
mod arc;
mod ask;
#[cfg(all(feature = "std", not(target_family = "wasm")))]
mod block;
#[cfg(any(test, loom, fuzzing))]
#[path = "../tests/model/check.rs"]
mod check;
mod claim;
mod guard;
mod hash;
#[cfg(feature = "idle")]
mod idle;
mod many;
mod mutex;
mod queue;
mod run;
mod shard;
mod shards;
mod share;
mod slots;
mod sync;
mod table;
mod ticket;
mod wake;
#[cfg(feature = "idle")]
mod watch;

// The reference model once more, with the invariants checked after each critical section.
#[cfg(test)]
extern crate self as async_mutex_lite;
#[cfg(test)]
#[path = "../tests/model.rs"]
#[allow(clippy::std_instead_of_alloc, clippy::module_inception, reason = "tests have the standard library")]
mod model;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(target_has_atomic = "ptr")]
pub use arc::{KeyedMutexGuardArc, KeyedMutexGuardsArc, KeyedMutexSharedGuardArc, TicketArc};
pub use guard::KeyedMutexGuard;
pub use hash::{DefaultHasher, RandomState};
pub use many::KeyedMutexGuards;
pub use mutex::KeyedMutex;
pub use run::Stopped;
pub use share::KeyedMutexSharedGuard;
pub use ticket::Ticket;
