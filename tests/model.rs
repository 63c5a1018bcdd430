//! The crate does what the reference model does, whatever it is asked to do: see tests/model/mod.rs.
//!
//! Scripts are drawn from numbers, the same ones in each run. `MODEL=100000 cargo test --test model` draws that many,
//! `MODEL_SEED=7` others than from 1 on: a script that fails prints its number.

#[path = "model/exhaust.rs"]
mod exhaust;
#[path = "model/mod.rs"]
mod model;

use std::env;
use std::iter::repeat_with;

use arbitrary::{Arbitrary, Unstructured};
use async_mutex_lite::RandomState;
use fastrand::Rng;

use model::driver::{OneForAll, run};
use model::script::Script;

/// Scripts tried by each test, unless `MODEL` says otherwise.
const SCRIPTS: u64 = 1_500;

fn drawn(seed: u64) -> Script {
    let mut random = Rng::with_seed(seed);
    let length = random.usize(..400);
    let bytes: Vec<u8> = repeat_with(|| random.u8(..)).take(length).collect();
    Script::arbitrary(&mut Unstructured::new(&bytes)).expect("any bytes are a script")
}

/// Leaves out one operation after another, while it still fails without it.
fn shortened(mut script: Script, run: fn(&Script) -> Result<(), String>) -> Script {
    let mut at = 0;
    while at < script.ops.len() {
        let op = script.ops.remove(at);
        if run(&script).is_ok() {
            script.ops.insert(at, op);
            at += 1;
        } else {
            at = 0;
        }
    }
    script
}

fn try_scripts(run: fn(&Script) -> Result<(), String>) {
    let number = |name, default| env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let first = number("MODEL_SEED", 1);
    for seed in first..first + number("MODEL", SCRIPTS) {
        let script = drawn(seed);
        if run(&script).is_err() {
            let script = shortened(script, run);
            panic!("MODEL_SEED={seed} MODEL=1, shortened:{script:?}\n{}", run(&script).unwrap_err());
        }
    }
}

#[test]
fn the_crate_and_the_reference_agree_after_every_step() {
    try_scripts(run::<RandomState>);
}

#[test]
fn they_agree_when_all_keys_have_the_same_hash() {
    try_scripts(run::<OneForAll>);
}
