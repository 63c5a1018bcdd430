//! A keyed async mutex: callers that lock the same key hold it one at a time, in FIFO order; callers that lock
//! different keys run concurrently; an unlocked key takes no memory.
//!
//! You need only [`KeyedMutex`]; the other types are what its methods return. It works under any executor, or none, on
//! servers, in browsers, and on microcontrollers.
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
//! | to … | use |
//! | --- | --- |
//! | hold a key exclusively | [`lock(key).await`](KeyedMutex::lock), or [`run(key, job).await`](KeyedMutex::run) |
//! | lock only if the key is free | [`try_lock(key)`](KeyedMutex::try_lock) |
//! | wait with a timeout, or until any signal | [`lock(key).unless(signal).await`](Lock::unless) |
//! | bound the queue (backpressure) | [`ticket_if(key, \|now\| now.waiting < 20)`](KeyedMutex::ticket_if) |
//! | keep the order of arrival across spawned tasks | [`ticket(key)`](KeyedMutex::ticket), then [`.run(job)`](Ticket::run) |
//! | lock several keys in one global order | [`lock_many(keys).await`](KeyedMutex::lock_many) |
//! | share a key: readers, or at most n | [`shared().lock(key).await`](KeyedMutex::shared), [`at_most(n).lock(key).await`](KeyedMutex::at_most) |
//! | stop the jobs behind one that fails | [`run_or_stop(key, job).await`](KeyedMutex::run_or_stop), [`stop(key)`](KeyedMutex::stop) |
//! | lock from a thread | [`lock(key).wait()`](Lock::wait), [`lock(key).wait_timeout(timeout)`](Lock::wait_timeout) |
//! | shut down gracefully | [`stop_all()`](KeyedMutex::stop_all) for queued jobs and tickets, [`all_idle().await`](KeyedMutex::all_idle) for holders |
//! | see what is locked | [`state(key)`](KeyedMutex::state), [`for_each_locked(\|key, state\| …)`](KeyedMutex::for_each_locked) |
//! | get `'static` guards and tickets to `spawn` | [`arc().lock(key).await`](KeyedMutex::arc), `arc().ticket(key)`, on an `Arc` of the mutex |
//!
//! Modes and ways to wait combine: `arc().at_most(4).ticket(key).wait_timeout(timeout)`.
//!
//! The guide has [common mistakes](guide::mistakes), [recipes](guide::recipes), how to use the crate [on a
//! microcontroller](guide::microcontrollers), how to migrate [from JavaScript](guide::from_javascript) and [from a map
//! of mutexes](guide::from_a_map), and a [comparison](guide::comparison) with other libraries. A table of all [methods,
//! and what they can and cannot be combined with](KeyedMutex#methods-at-a-glance), is on the page of the type.
//!
//! # Features
//!
//! | | `std` (default) | neither | `critical-section` (wins over `std`) |
//! | --- | --- | --- | --- |
//! | internal lock | the standard library's mutex | a spin lock | critical sections |
//! | shards | about sixteen for each processor | one | one |
//! | exclusion, order, cancellation, memory, stopping | yes | yes | yes |
//! | methods that block | yes (not on WASM) | no | with `std` |
//! | [`RandomState`] is seeded from | the operating system, if there is one | an address | the same with `std`, else an address |
//! | an interrupt handler may | (there are none) | not use the mutex: it could spin forever | lock, unlock, query, and drop guards |
//!
//! A critical section normally covers one lookup in the table. The operations that take longer are listed under
//! [complexity and memory](KeyedMutex#complexity-and-memory). Wakers never run in it: they run after it, called by the
//! code that unlocks, even in an interrupt handler.
//!
//! `idle` adds [`idle`](KeyedMutex::idle) and [`all_idle`](KeyedMutex::all_idle). It is on by default, and does not
//! need `std`; with `default-features = false`, enable it explicitly.
//!
//! The dependencies are hashbrown, foldhash and spin; with `std` also event-listener, for threads that block (not in WASM);
//! and with `critical-section` the crate of that name.
//!
//! The methods with an [`Arc`](alloc::sync::Arc) need a target with compare-and-swap. A Cortex-M0 has none: there, the
//! atomics come from portable-atomic, and the final binary must choose how it implements them (by a feature of
//! portable-atomic, such as `critical-section`).
//!
//! In WASM, threads that contend for a shard of a mutex with `std` block, which traps on the main thread of a page. If your
//! module has threads, turn `std` off: then they spin.
//!
//! On bare metal, one of `critical-section` and `spin` must be on. With `spin`, interrupt handlers must not use the
//! mutex, so a spin lock is never chosen by default there. A program with `critical-section` links only if it has an
//! implementation of critical sections, so no library should turn that feature on for its users.
//!
//! When an allocation fails, the allocator's error handler runs (by default: abort with `std`, panic without); the
//! mutex is unchanged. Unlocking and cancelling need no memory.
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::alloc_instead_of_core, clippy::std_instead_of_core, clippy::std_instead_of_alloc)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(all(target_os = "none", feature = "std"))]
compile_error!(
    "async-mutex-lite: this target has no standard library. Write `default-features = false`; and on bare metal, `features = \
     [\"critical-section\"]`, and turn on an implementation of critical sections, which your chip's crate has as a feature."
);
// WASM has no interrupts.
#[cfg(all(target_os = "none", not(target_family = "wasm"), not(any(feature = "critical-section", feature = "spin"))))]
compile_error!(
    "async-mutex-lite: choose how the table is guarded on bare metal. The feature `critical-section` is almost always \
     right; with `spin`, an interrupt handler that uses the mutex may spin forever, waiting for what it interrupted."
);

extern crate alloc;
#[cfg(all(feature = "std", not(target_os = "none")))]
extern crate std;

// In the order in which users need their methods: rustdoc lists the methods of `KeyedMutex` in the order of the
// modules.
mod mutex;
mod mode;
mod wait;
mod guard;
mod run;
mod ticket;
mod many;
#[cfg(all(feature = "std", not(target_family = "wasm")))]
mod block;
mod inspect;
#[cfg(feature = "idle")]
mod idle;
mod hash;

// What these are made of: claims on keys, and the machinery below them.
mod claim;
mod table;

/// A guide to the crate, beyond its front page. (It is documentation only, and exports nothing.)
#[cfg(any(doc, doctest))]
pub mod guide {
    macro_rules! pages {
        ($($page:ident)*) => { $(#[doc = include_str!(concat!("guide/", stringify!($page), ".md"))] pub mod $page {})* };
    }
    // The examples of these use tokio: `tests/guide` runs them, and the README's.
    #[cfg(not(doctest))]
    pages!(mistakes recipes from_a_map);
    pages!(microcontrollers from_javascript comparison);
}

pub use claim::{Borrowed, Handle, Lock};
#[cfg(target_has_atomic = "ptr")]
pub use guard::KeyedMutexGuardArc;
pub use guard::{Guard, Guards, KeyedMutexGuard};
pub use hash::{DefaultHasher, RandomState};
pub use many::LockMany;
pub use mode::Mode;
pub use mutex::KeyedMutex;
pub use run::Stopped;
pub use table::KeyState;
pub use ticket::Ticket;
