//! An async mutex by key: tasks with the same key run one after another, first come first served; tasks
//! with different keys run at the same time; a key that nobody uses takes no memory.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod claim;
mod guard;
mod hash;
mod many;
mod mutex;
mod run;
mod shards;
mod slots;
mod sync;
mod table;
mod ticket;
mod wait;

pub use guard::KeyedMutexGuard;
#[cfg(target_has_atomic = "ptr")]
pub use guard::KeyedMutexGuardArc;
pub use hash::{DefaultHasher, RandomState};
pub use many::KeyedMutexGuards;
#[cfg(target_has_atomic = "ptr")]
pub use many::KeyedMutexGuardsArc;
pub use mutex::KeyedMutex;
pub use run::Stopped;
pub use ticket::Ticket;
#[cfg(target_has_atomic = "ptr")]
pub use ticket::TicketArc;
