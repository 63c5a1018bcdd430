//! What the crate promises: a module for each promise.
//!
//! They are one program, because to link a program takes longer than most of them run. So they share a process: what needs one
//! for itself, as a panic hook does, is a program beside this directory.

#[path = "../common/mod.rs"]
mod common;

mod block;
mod cancel;
mod docs;
mod exclusion;
mod hash;
mod hostile;
mod idle;
mod limits;
mod many;
mod map;
mod memory;
mod mischief;
mod must_use;
mod neighbours;
mod order;
mod shared;
mod stop;
mod tickets;
mod traits;
mod unless;
mod wake;
mod wakers;
mod ways;
