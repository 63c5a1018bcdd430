//! An async mutex by key: tasks with the same key run one after another, first come first served; tasks
//! with different keys run at the same time; a key that nobody uses takes no memory.
//!
//! [`KeyedMutex`] is the whole crate. It runs under any executor, or none, on servers, in browsers, and on
//! microcontrollers.
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
//! | you want | you use |
//! | --- | --- |
//! | one at a time | [`lock(key).await`](KeyedMutex::lock), or [`run(key, task).await`](KeyedMutex::run) |
//! | only if nobody is at it | [`try_lock(key)`](KeyedMutex::try_lock) |
//! | to give up waiting after a time, or on any signal | [`lock_unless(key, signal).await`](KeyedMutex::lock_unless) |
//! | at most so many waiting | [`ticket_if(key, \|ahead\| ahead <= 20)`](KeyedMutex::ticket_if) |
//! | work in the order of arrival, though it is spawned | [`ticket(key)`](KeyedMutex::ticket), then [`run`](Ticket::run) |
//! | several keys, without a deadlock | [`lock_many(keys).await`](KeyedMutex::lock_many) |
//! | readers together, or at most n at once | [`lock_shared(key).await`](KeyedMutex::lock_shared), [`with_max_shared(n)`](KeyedMutex::with_max_shared) |
//! | to stop the rest on an error | [`run_or_stop(key, task).await`](KeyedMutex::run_or_stop), [`stop(key)`](KeyedMutex::stop) |
//! | to lock from a thread | [`lock_blocking(key)`](KeyedMutex::lock_blocking), [`try_lock_for(key, time)`](KeyedMutex::try_lock_for) |
//! | to shut down | [`stop_all()`](KeyedMutex::stop_all), [`all_idle().await`](KeyedMutex::all_idle) |
//! | to own what you hold, for `spawn` | [`lock_arc`](KeyedMutex::lock_arc), [`ticket_arc`](KeyedMutex::ticket_arc) and so on, on an `Arc` of the mutex |
//!
//! The guide has the [common mistakes](guide::mistakes), [recipes](guide::recipes), what to know [on a
//! microcontroller](guide::microcontrollers), and the way here [from JavaScript](guide::from_javascript) and [from a map
//! of mutexes](guide::from_a_map).
//!
//! # Features
//!
//! | | `std` (default) | neither | `critical-section` (wins over `std`) |
//! | --- | --- | --- | --- |
//! | the table is guarded by | the standard library's mutex | a spin lock | critical sections |
//! | and split into | shards, about sixteen for each processor | one | one |
//! | exclusion, order, cancellation, memory, stopping | yes | yes | yes |
//! | [`lock_blocking`](KeyedMutex::lock_blocking), [`try_lock_for`](KeyedMutex::try_lock_for) | yes (not on WASM) | no | with `std` |
//! | [`RandomState`] is seeded from | the operating system, if there is one | an address | the same with `std`, else an address |
//! | an interrupt handler may | | not touch the mutex: it would spin for ever | lock, unlock, ask, and drop guards |
//!
//! A critical section lasts as long as a look-up, now and then as long as moving the table to a larger one
//! (with `std`, or a smaller), which allocates unless room was [reserved](KeyedMutex::reserve), or putting it in order;
//! `stop_all` and [`idle`](KeyedMutex::idle) look at each key and each who watches. No waker runs in it: they run after it, in whatever unlocks, an
//! interrupt handler included.
//!
//! `idle` (on by default, also without `std`) adds [`idle`](KeyedMutex::idle) and [`all_idle`](KeyedMutex::all_idle).
//!
//! The methods with an [`Arc`](alloc::sync::Arc) need a target that has one: one that can compare and swap. A Cortex-M0
//! cannot: there, the atomics come from portable-atomic, which asks the final binary how
//! (by its feature `critical-section`, say).
//!
//! On bare metal, one of `critical-section` and `spin` must be on: a spin lock, which an interrupt handler must not
//! touch, has to be asked for there. `critical-section` needs an implementation to link, so no library should turn
//! it on for its users.
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

// In the order in which people need what they have: the page of `KeyedMutex` follows it.
mod mutex;
mod guard;
mod run;
mod ticket;
mod many;
mod share;
#[cfg(all(feature = "std", not(target_family = "wasm")))]
mod block;
#[cfg(feature = "idle")]
mod idle;
mod ask;
#[cfg(target_has_atomic = "ptr")]
mod arc;

// What these are made of, from the top down.
mod claim;
mod table;
mod shards;
mod shard;
mod slots;
mod queue;
mod wake;
#[cfg(feature = "idle")]
mod watch;
mod hash;
mod sync;
#[cfg(any(test, loom, fuzzing))]
#[path = "../tests/model/check.rs"]
mod check;

/// How to use it, beyond the first page. (Only documentation: there is nothing in it.)
#[cfg(any(doc, doctest))]
pub mod guide {
    #[doc = include_str!("guide/mistakes.md")]
    pub mod mistakes {}
    #[doc = include_str!("guide/recipes.md")]
    pub mod recipes {}
    #[doc = include_str!("guide/microcontrollers.md")]
    pub mod microcontrollers {}
    #[doc = include_str!("guide/from_javascript.md")]
    pub mod from_javascript {}
    #[doc = include_str!("guide/from_a_map.md")]
    pub mod from_a_map {}
}

// The reference model once more, with the invariants checked after each critical section.
#[cfg(test)]
extern crate self as async_mutex_lite;
#[cfg(test)]
#[path = "../tests/model.rs"]
#[allow(clippy::std_instead_of_alloc, clippy::module_inception, reason = "tests have the standard library")]
mod model;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../tests/must_use.md")]
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
