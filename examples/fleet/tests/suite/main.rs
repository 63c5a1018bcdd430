//! The tests of the fleet, against real servers. One program, because that builds in less time, and runs in less.

mod bench;
mod network;
#[cfg(target_os = "linux")]
#[path = "../../../common/place.rs"]
mod place;
#[path = "../../../common/polled.rs"]
mod polled;

// What is promised, when nothing goes wrong and when something does.
mod end;
mod faults;
mod promises;
mod sessions;
mod codes;
mod limits;
mod silence;
mod pooler;
mod failover;
