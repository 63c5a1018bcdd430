//! The default hasher is seeded at random, once for each process; and whatever the hasher of a user, no regular keys are
//! slow.

use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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

/// A key that counts how often one is compared, and hashes to itself, as users' hashers for numbers often do.
struct Plain(u64);

static COMPARED: AtomicU64 = AtomicU64::new(0);

impl PartialEq for Plain {
    fn eq(&self, other: &Self) -> bool {
        COMPARED.fetch_add(1, Relaxed);
        self.0 == other.0
    }
}

impl Eq for Plain {}

impl Hash for Plain {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers")
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[test]
fn regular_keys_are_hardly_ever_compared_even_if_their_hasher_is_the_identity() {
    const KEYS: u64 = 5_000;
    type Pattern = (&'static str, fn(u64) -> u64);
    let patterns: [Pattern; 18] = [
        ("x", |x| x),
        ("-x", u64::wrapping_neg),
        ("x * 1000", |x| x * 1_000),
        ("x << 16", |x| x << 16),
        ("x << 32", |x| x << 32),
        ("x << 48", |x| x << 48),
        ("x << 32 | x", |x| x << 32 | x),
        ("x << 33 | x", |x| x << 33 | x),
        ("x << 32 | !x", |x| x << 32 | u64::from(!(x as u32))),
        ("x << 32 | x << 16", |x| x << 32 | x << 16),
        ("x << 40 | x << 8", |x| x << 40 | x << 8),
        ("x << 16 | x", |x| x << 16 | x),
        ("x * 0x1_0001_0001", |x| x * 0x1_0001_0001),
        ("x, its bits reversed", u64::reverse_bits),
        ("x, its bytes reversed", u64::swap_bytes),
        ("a grid", |x| (x / 71) << 32 | (x % 71)),
        ("as a float", |x| (x as f64 / 7.0).to_bits()),
        ("as decimal digits", |x| u64::from_le_bytes(format!("{x:08}").into_bytes().try_into().unwrap())),
    ];
    for (pattern, number) in patterns {
        let mutex = KeyedMutex::<Plain, BuildHasherDefault<Identity>>::default();
        COMPARED.store(0, Relaxed);
        let guards: Vec<_> = (0..KEYS).map(|x| mutex.try_lock(Plain(number(x)))).collect();
        let compared = COMPARED.load(Relaxed);
        println!("{pattern}: {compared} comparisons for {KEYS} keys");
        assert!(guards.iter().all(Option::is_some), "{pattern}");
        assert!(compared <= KEYS, "{pattern}: {compared} comparisons");
    }
}
