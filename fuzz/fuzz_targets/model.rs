//! Bytes to operations, on the crate and on the reference model: see tests/model/mod.rs.
#![no_main]

#[path = "../../tests/model/mod.rs"]
mod model;

use async_mutex_lite::RandomState;
use libfuzzer_sys::fuzz_target;

use model::driver::{OneForAll, run};
use model::script::Script;

fuzz_target!(|script: Script| {
    // Every other script with keys that collide; the choice must depend on the input alone.
    let outcome = if script.ops.len() % 2 == 0 { run::<RandomState>(&script) } else { run::<OneForAll>(&script) };
    if let Err(difference) = outcome {
        panic!("{difference}");
    }
});
