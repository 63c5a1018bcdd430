//! The shards of a table: how many there are, and which one a hash belongs to.
//!
//! With `std` there are about sixteen for each processor, each on cache lines of its own, so that threads
//! on different keys seldom meet; they are made when the first key is locked, which keeps `new` a
//! `const fn` that allocates nothing. Without `std`, with critical sections (which exclude each other
//! whatever they guard), and under the model checker there is one, inside the mutex itself.

use crate::shard::Shard;
use crate::sync::Lock;

#[cfg(not(all(feature = "std", not(feature = "critical-section"))))]
pub(crate) use one::Shards;
#[cfg(all(feature = "std", not(feature = "critical-section")))]
pub(crate) use several::Shards;

#[cfg(all(feature = "std", not(feature = "critical-section")))]
mod several {
    use super::{Lock, Shard};
    use alloc::boxed::Box;
    use std::sync::OnceLock;

    /// On cache lines of its own, two of them: processors fetch them in pairs.
    #[repr(align(128))]
    struct One<K>(Lock<Shard<K>>);

    pub(crate) struct Shards<K> {
        all: OnceLock<Box<[One<K>]>>,
    }

    impl<K> Shards<K> {
        pub(crate) const fn new() -> Self {
            Self { all: OnceLock::new() }
        }

        /// The number of shards is a power of two, and a multiplication carries every bit of the hash
        /// to the top: hashbrown uses the other end, and a user's hasher may be the identity.
        pub(crate) fn of(&self, hash: u64) -> &Lock<Shard<K>> {
            const ODD: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 divided by the golden ratio
            let all = self.all.get_or_init(Self::make);
            let spread = (hash.wrapping_mul(ODD) >> 32) as usize;
            &all[spread & (all.len() - 1)].0
        }

        #[cold]
        fn make() -> Box<[One<K>]> {
            (0..count()).map(|_| One(Lock::new(Shard::new()))).collect()
        }

        pub(crate) fn iter(&self) -> impl Iterator<Item = &Lock<Shard<K>>> {
            self.all.get().into_iter().flatten().map(|shard| &shard.0)
        }
    }

    /// Asks the system once: on Linux the answer is read from several files.
    fn count() -> usize {
        static COUNT: OnceLock<usize> = OnceLock::new();
        // Two threads on 512 keys each did 0.8 times the work of one thread with 4, 1.2 with 16, 1.4 with 64.
        const PER_PROCESSOR: usize = 16;
        *COUNT.get_or_init(|| match std::thread::available_parallelism() {
            Ok(processors) if !cfg!(loom) && processors.get() > 1 => {
                (PER_PROCESSOR * processors.get()).next_power_of_two()
            }
            _ => 1,
        })
    }
}

#[cfg(not(all(feature = "std", not(feature = "critical-section"))))]
mod one {
    use super::{Lock, Shard};

    pub(crate) struct Shards<K> {
        only: Lock<Shard<K>>,
    }

    impl<K> Shards<K> {
        pub(crate) const fn new() -> Self {
            Self { only: Lock::new(Shard::new()) }
        }

        pub(crate) fn of(&self, _hash: u64) -> &Lock<Shard<K>> {
            &self.only
        }

        pub(crate) fn iter(&self) -> impl Iterator<Item = &Lock<Shard<K>>> {
            core::iter::once(&self.only)
        }
    }
}
