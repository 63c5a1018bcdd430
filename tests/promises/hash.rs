//! The default hasher is seeded at random, once for each process.

use std::hash::{BuildHasher, Hasher};
use std::process::Command;

use async_mutex_lite::{KeyedMutex, RandomState};

const CHILD: &str = "ASYNC_MUTEX_LITE_PRINT_HASH";

#[test]
fn two_processes_do_not_hash_alike() {
    let hash = RandomState::new().hash_one("key");
    if std::env::var_os(CHILD).is_some() {
        println!("hash={hash}");
        return;
    }
    let child = || {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "hash::two_processes_do_not_hash_alike", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let hash = output.split("hash=").nth(1).and_then(|rest| rest.split_whitespace().next());
        hash.expect("the child prints its hash").parse::<u64>().unwrap()
    };
    let hashes = [hash, child(), child(), child()];
    for (n, hash) in hashes.iter().enumerate() {
        assert!(!hashes[n + 1..].contains(hash), "{hashes:?}");
    }
}

#[test]
fn all_hashers_of_a_process_hash_alike_and_different_keys_differently() {
    let states = [RandomState, RandomState::new(), Default::default()];
    assert!(states.iter().all(|state| state.hash_one("key") == states[0].hash_one("key")));
    let mut hashes: Vec<_> = (0..10_000_u64).map(|key| RandomState.hash_one(key)).collect();
    hashes.extend((0..10_000_u32).map(|key| RandomState.hash_one(format!("user-{key}"))));
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 20_000);
}

#[test]
fn every_kind_of_number_counts() {
    let finish = |write: &dyn Fn(&mut async_mutex_lite::DefaultHasher)| {
        let mut hasher = RandomState.build_hasher();
        write(&mut hasher);
        hasher.finish()
    };
    let hashes = [
        finish(&|_| ()),
        finish(&|hasher| hasher.write_u8(1)),
        finish(&|hasher| hasher.write_u8(2)),
        finish(&|hasher| hasher.write_u16(3)),
        finish(&|hasher| hasher.write_u32(4)),
        finish(&|hasher| hasher.write_u64(5)),
        finish(&|hasher| hasher.write_u128(6)),
        finish(&|hasher| hasher.write_usize(7)),
        finish(&|hasher| hasher.write_i64(-8)),
        finish(&|hasher| hasher.write(b"bytes")),
        finish(&|hasher| hasher.write(b"other")),
    ];
    for (n, hash) in hashes.iter().enumerate() {
        assert!(!hashes[n + 1..].contains(hash), "{n}");
    }
}

#[test]
fn a_mutex_hands_out_its_hasher() {
    let mutex = KeyedMutex::<u32, _>::with_hasher(RandomState);
    assert_eq!(mutex.hasher().hash_one(7), RandomState.hash_one(7));
}
