//! What the rest of the crate takes from its surroundings: a lock for a shard, a cell that is set once,
//! a shared pointer. Here, and nowhere else, the three ways of guarding a shard differ:
//!
//! | features | a shard is guarded by | an interrupt handler may |
//! | --- | --- | --- |
//! | `critical-section` (with or without `std`) | a critical section | lock, unlock and ask |
//! | `std` | the standard library's mutex | not applicable |
//! | neither | a spin lock | not touch the mutex: it could spin for ever on what it interrupted |
//!
//! event-listener follows the same rule for its own list. A lock is entered with a closure, because a
//! critical section has no guard to hand out. None of them is poisoned by a panic: the only user code
//! that runs inside is `Eq` (and an admission closure), before anything has changed.

#[cfg(all(loom, any(not(feature = "std"), feature = "critical-section")))]
compile_error!("the model checker stands in for the threads of `std`: under `--cfg loom`, use the default features");

#[cfg(target_has_atomic = "ptr")]
pub(crate) use alloc::sync::Arc;
#[cfg(not(target_has_atomic = "ptr"))]
pub(crate) use portable_atomic_util::Arc;

pub(crate) use imp::Lock;

#[cfg(feature = "critical-section")]
mod imp {
    use core::cell::RefCell;
    use critical_section::{Mutex, with};

    pub(crate) struct Lock<T>(Mutex<RefCell<T>>);

    impl<T> Lock<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(Mutex::new(RefCell::new(value)))
        }

        #[inline]
        pub(crate) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
            with(|section| work(&mut self.0.borrow_ref_mut(section)))
        }
    }
}

#[cfg(all(feature = "std", not(feature = "critical-section")))]
mod imp {
    #[cfg(loom)]
    use loom::sync::Mutex;
    #[cfg(not(loom))]
    use std::sync::Mutex;
    use std::sync::PoisonError;

    pub(crate) struct Lock<T>(Mutex<T>);

    impl<T> Lock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(Mutex::new(value))
        }

        #[inline]
        pub(crate) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
            work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }
}

#[cfg(not(any(feature = "std", feature = "critical-section")))]
mod imp {
    pub(crate) struct Lock<T>(spin::Mutex<T>);

    impl<T> Lock<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(spin::Mutex::new(value))
        }

        #[inline]
        pub(crate) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
            work(&mut self.0.lock())
        }
    }
}
