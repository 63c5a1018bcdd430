//! The shards of a mutex: how many there are, and which one a hash belongs to.
//!
//! With `std` there are about sixteen for each processor (but one on a single processor, and under the model checker),
//! each on cache lines of its own, so that threads that lock different keys seldom contend. They are made at first use,
//! so that `new` can be a `const fn` that allocates nothing. Without `std`, and with critical sections (which exclude
//! each other whatever they guard), there is one, inside the mutex itself.

#[cfg(all(feature = "std", not(feature = "critical-section")))]
use {alloc::boxed::Box, core::num::NonZero, std::sync::OnceLock};

use core::sync::atomic::{AtomicBool, Ordering};

use super::lock::Lock;
use super::shard::{Locked, Shard};
use super::wake::each;

#[cfg(all(feature = "std", not(feature = "critical-section")))]
pub(crate) struct Shards<K> {
    all: OnceLock<Box<[Locked<K>]>>,
    shared: AtomicBool,
}

#[cfg(all(feature = "std", not(feature = "critical-section")))]
impl<K> Shards<K> {
    pub(crate) const fn new() -> Self {
        Self { all: OnceLock::new(), shared: AtomicBool::new(false) }
    }

    /// Returns all shards, and makes them if there are none yet.
    pub(crate) fn all(&self) -> &[Locked<K>] {
        self.all.get_or_init(Self::make)
    }

    /// Returns the shards that have been made: none before the first use.
    pub(crate) fn made(&self) -> &[Locked<K>] {
        self.all.get().map_or(&[], |all| all)
    }

    /// Asks the system once for the number of processors: on Linux the answer is read from several files.
    #[cold]
    fn make() -> Box<[Locked<K>]> {
        static COUNT: OnceLock<usize> = OnceLock::new();
        // Two threads on 512 keys each did 0.8 times the work of one thread with 4 shards per processor, 1.2 times with
        // 16, 1.4 times with 64.
        const PER_PROCESSOR: usize = 16;
        let count = *COUNT.get_or_init(|| match std::thread::available_parallelism().map_or(1, NonZero::get) {
            processors if cfg!(async_mutex_lite_loom) || processors == 1 => 1,
            processors => (PER_PROCESSOR * processors).next_power_of_two(),
        });
        (0..count).map(|_| Locked(Lock::new(Shard::new()))).collect()
    }
}

#[cfg(not(all(feature = "std", not(feature = "critical-section"))))]
pub(crate) struct Shards<K> {
    all: [Locked<K>; 1],
    shared: AtomicBool,
}

#[cfg(not(all(feature = "std", not(feature = "critical-section"))))]
impl<K> Shards<K> {
    pub(crate) const fn new() -> Self {
        Self { all: [Locked(Lock::new(Shard::new()))], shared: AtomicBool::new(false) }
    }

    pub(crate) fn all(&self) -> &[Locked<K>] {
        &self.all
    }

    pub(crate) fn made(&self) -> &[Locked<K>] {
        &self.all
    }
}

impl<K> Shards<K> {
    /// Returns the shard of a hash. The number of shards is a power of two, and a multiplication carries every bit of
    /// the hash to the middle bits, which choose the shard: hashbrown uses both ends, and a user's hasher may be the
    /// identity.
    pub(crate) fn of(&self, hash: u32) -> &Locked<K> {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 divided by the golden ratio
        let all = self.all();
        let spread = (u64::from(hash).wrapping_mul(ODD) >> 32) as usize;
        &all[spread & (all.len() - 1)]
    }

    /// Tells the shards, once, that keys are going to be shared: only then do they need the general way to unlock.
    #[inline]
    pub(crate) fn share(&self) {
        if !self.shared.load(Ordering::Acquire) {
            self.share_now();
        }
    }

    #[cold]
    fn share_now(&self) {
        self.all().iter().for_each(|shard| shard.with(|shard| shard.release = Some(Shard::release)));
        self.shared.store(true, Ordering::Release);
    }

    /// Stops the waiters of every key, and wakes them after all have been stopped. Returns how many it stopped.
    pub(crate) fn stop_all(&self) -> usize {
        let stopped = self.all().iter().map(|shard| shard.with(Shard::stop_all)).sum();
        let mut shards = self.all().iter();
        each(&mut || shards.next(), Locked::wake_stopped);
        stopped
    }
}
