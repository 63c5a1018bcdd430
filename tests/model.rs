//! The crate does what the reference model does, whatever it is asked to do: see tests/model/mod.rs.
//!
//! `PROPTEST_CASES=100000 cargo test --test model` tries more scripts than the default.

#[path = "model/mod.rs"]
mod model;

use async_mutex_lite::RandomState;
use proptest::prelude::*;

use model::driver::{OneForAll, run};
use model::script::Script;

/// Scripts tried by each test, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 1_500;

fn config() -> ProptestConfig {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_crate_and_the_reference_agree_after_every_step(script: Script) {
        run::<RandomState>(&script).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn they_agree_when_all_keys_have_the_same_hash(script: Script) {
        run::<OneForAll>(&script).map_err(TestCaseError::fail)?;
    }
}
