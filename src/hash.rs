//! The default hasher: foldhash, with a seed that is taken at first use.

use core::hash::{BuildHasher, Hasher};
#[cfg(feature = "std")]
use std::sync::OnceLock;

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;

/// The default hasher of a [`KeyedMutex`](crate::KeyedMutex), seeded when it is first used.
///
/// It resists HashDoS: attackers who choose keys cannot make them all collide. (Collisions would only make locking
/// slow; keys with equal hashes are never mixed up.) There is one seed per process:
///
/// - With the feature `std` it has 128 bits, from the same source as the seeds of the standard library's maps: the
///   operating system, if there is one. On `wasm32-unknown-unknown` there is none.
/// - Without `std` there is no portable source of randomness. The seed is then the address of a static: different in
///   each process where the address space is randomized, but the same at every start on a microcontroller.
///
/// **In a browser and on a microcontroller the seed is predictable.** If keys are untrusted there, pass a hasher that
/// you seeded to [`with_hasher`](crate::KeyedMutex::with_hasher).
///
/// The hash function is foldhash, as in hashbrown's maps: fast and of good quality, but not cryptographic.
///
/// ```
/// use async_mutex_lite::{KeyedMutex, RandomState};
///
/// static MUTEX: KeyedMutex<u32, RandomState> = KeyedMutex::with_hasher(RandomState::new());
/// assert!(MUTEX.try_lock(1).is_some());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomState;

impl RandomState {
    /// Returns the hasher. The seed is taken when it is first used, not here.
    pub const fn new() -> Self {
        Self
    }
}

impl BuildHasher for RandomState {
    type Hasher = DefaultHasher;

    #[inline]
    fn build_hasher(&self) -> DefaultHasher {
        #[cfg(feature = "std")]
        {
            static SEED: OnceLock<(u64, SharedSeed)> = OnceLock::new();
            // The standard library seeds its maps from the operating system, and gives access to those seeds in no other way.
            let system = || std::hash::RandomState::new().hash_one(0);
            let (own, shared) = SEED.get_or_init(|| (system(), SharedSeed::from_u64(system())));
            DefaultHasher(FoldHasher::with_seed(*own, shared))
        }
        // No better source of randomness exists on every target, and none needs less code.
        #[cfg(not(feature = "std"))]
        {
            static SOMEWHERE: u8 = 0;
            let address = core::ptr::from_ref(&SOMEWHERE).addr() as u64;
            DefaultHasher(FoldHasher::with_seed(address, SharedSeed::global_fixed()))
        }
    }
}

/// The [`Hasher`] that [`RandomState`] makes.
#[derive(Clone)]
pub struct DefaultHasher(FoldHasher<'static>);

/// Forwards each call, so that integers and strings keep their fast paths.
macro_rules! forward {
    ($($write:ident: $number:ty),*) => {
        impl Hasher for DefaultHasher {
            #[inline]
            fn write(&mut self, bytes: &[u8]) {
                self.0.write(bytes);
            }

            $(#[inline]
            fn $write(&mut self, number: $number) {
                self.0.$write(number);
            })*

            fn finish(&self) -> u64 {
                self.0.finish()
            }
        }
    };
}

forward!(write_u8: u8, write_u16: u16, write_u32: u32, write_u64: u64, write_u128: u128, write_usize: usize);

crate::claim::print_name!([] DefaultHasher);
