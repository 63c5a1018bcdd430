//! The shards of a mutex: how many there are, and which one a hash belongs to.
//!
//! With `std` there are about sixteen for each processor (but one on a single processor, and under the model checker),
//! each on cache lines of its own, so that threads that lock different keys seldom contend. They are made at first use,
//! so that `new` can be a `const fn` that allocates nothing. Without `std`, and with critical sections (which exclude
//! each other whatever they guard), there is one, inside the mutex itself.

use core::sync::atomic::{AtomicBool, Ordering};
#[cfg(all(feature = "std", not(feature = "critical-section")))]
use {alloc::boxed::Box, core::num::NonZero, std::sync::OnceLock};

use super::guarded::Table;
use super::shard::Shard;
use super::wake::each;

#[cfg(all(feature = "std", not(feature = "critical-section")))]
type All<K> = OnceLock<Box<[Shard<K>]>>;
#[cfg(not(all(feature = "std", not(feature = "critical-section"))))]
type All<K> = [Shard<K>; 1];

pub(crate) struct Shards<K> {
    all: All<K>,
    /// Whether [`prepare_sharing`](Self::prepare_sharing) has been called.
    prepared: AtomicBool,
}

#[cfg(all(feature = "std", not(feature = "critical-section")))]
impl<K> Shards<K> {
    pub(crate) const fn new() -> Self {
        Self { all: OnceLock::new(), prepared: AtomicBool::new(false) }
    }

    /// Returns all shards, and makes them if there are none yet.
    pub(crate) fn all(&self) -> &[Shard<K>] {
        self.all.get_or_init(Self::make)
    }

    /// Returns the shards that have been made: none before the first use.
    pub(crate) fn made(&self) -> &[Shard<K>] {
        self.all.get().map_or(&[], |all| all)
    }

    /// Asks the system once for the number of processors: on Linux the answer is read from several files.
    #[cold]
    fn make() -> Box<[Shard<K>]> {
        static COUNT: OnceLock<usize> = OnceLock::new();
        // Two threads on 512 keys each did 0.8 times the work of one thread with 4 shards per processor, 1.2 times with
        // 16, 1.4 times with 64.
        const PER_PROCESSOR: usize = 16;
        // As many as the bits of a hash that [`of`](Self::of) looks at can tell apart.
        const MOST: usize = 1 << 12;
        // Room for a few hundred keys that come and go together stays; half as much, and chance fills a shard now and then.
        const KEPT_BUCKETS: usize = 2048;
        let count = *COUNT.get_or_init(|| match std::thread::available_parallelism().map_or(1, NonZero::get) {
            processors if cfg!(async_mutex_lite_loom) || processors == 1 => 1,
            processors => (PER_PROCESSOR * processors).next_power_of_two().min(MOST),
        });
        let kept = (KEPT_BUCKETS / count).clamp(16, 512);
        (0..count).map(|_| Shard::new(kept)).collect()
    }
}

#[cfg(not(all(feature = "std", not(feature = "critical-section"))))]
impl<K> Shards<K> {
    pub(crate) const fn new() -> Self {
        // Room for 56 keys that come and go together stays.
        Self { all: [Shard::new(64)], prepared: AtomicBool::new(false) }
    }

    pub(crate) fn all(&self) -> &[Shard<K>] {
        &self.all
    }

    pub(crate) fn made(&self) -> &[Shard<K>] {
        &self.all
    }
}

impl<K> Shards<K> {
    /// Returns the shard of a hash. Their number is a power of two; hashbrown uses the bits at both ends, and these are in
    /// between.
    pub(crate) fn of(&self, hash: u32) -> &Shard<K> {
        let all = self.all();
        &all[(hash.wrapping_mul(0x9e37_79b9) >> 20) as usize & (all.len() - 1)]
    }

    /// Prepares all shards for keys that are shared: see [`Table::general`].
    pub(crate) fn prepare_sharing(&self) {
        if !self.prepared.load(Ordering::Acquire) {
            self.prepare();
        }
    }

    #[cold]
    fn prepare(&self) {
        self.all().iter().for_each(|shard| shard.with(|table| table.general = Some(Table::change)));
        self.prepared.store(true, Ordering::Release);
    }

    /// Makes room for `keys` keys and `waiters` waiters in all. Several shards get twice their part each.
    pub(crate) fn reserve(&self, keys: usize, waiters: usize) {
        let shards = self.all().len();
        let part = |room: usize| if shards == 1 { room } else { room.div_ceil(shards) * 2 };
        for shard in self.all() {
            shard.with(|table| {
                table.slots.reserve(part(keys));
                table.nodes.reserve(part(waiters));
            });
        }
    }

    /// Stops the waiters of every key, and wakes them after all have been stopped. Returns how many it stopped.
    pub(crate) fn stop_all(&self) -> usize {
        let stopped = self.all().iter().map(|shard| shard.with(Table::stop_all)).sum();
        each(&mut self.all().iter(), Shard::wake_stopped);
        stopped
    }
}
