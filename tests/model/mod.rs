//! The crate beside a reference model of it.
//!
//! A [`script`] is a list of operations. The [`driver`] carries it out on a real `KeyedMutex`, polling by
//! hand, and on the [`reference`], which is plain and sequential, and compares all that can be observed
//! after every step: what each call and each poll returned, which waker was woken how often, what
//! `waiting`, `is_locked` and `len` say of each key, which tasks were called, how many keys are alive.
//!
//! Random scripts (tests/model.rs), all short ones (exhaust.rs), the fuzzer (fuzz/) and the soak (tests/runtimes/soak.rs) use
//! this one module.
#![allow(clippy::std_instead_of_core, reason = "tests have the standard library")]
#![cfg_attr(not(feature = "idle"), allow(dead_code))]

pub(crate) mod driver;
pub(crate) mod reference;
pub(crate) mod script;
