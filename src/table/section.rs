//! The lock of a shard. The features decide which kind of lock it is; only this file depends on that choice:
//!
//! | features | a shard is guarded by | an interrupt handler may |
//! | --- | --- | --- |
//! | `critical-section` (with or without `std`) | a critical section | lock, unlock, query, and drop guards |
//! | `std` | the standard library's mutex | not applicable |
//! | neither | a spin lock | not touch the mutex: it could spin forever on what it interrupted |
//!
//! A lock is used with a closure, because a critical section has no guard to return. None of the three is poisoned by a
//! panic: the only user code that runs inside is `Eq`, `Borrow`, and the closures of `ticket_if` and
//! `for_each_locked`, before anything has changed.

#[cfg(all(async_mutex_lite_loom, not(all(feature = "std", feature = "_loom", not(feature = "critical-section")))))]
compile_error!(
    "`cfg(async_mutex_lite_loom)` is for this crate's own model checker, which stands in for the threads of `std`"
);

#[cfg(feature = "critical-section")]
type Inner<T> = critical_section::Mutex<core::cell::RefCell<T>>;
#[cfg(all(feature = "std", not(feature = "critical-section"), not(async_mutex_lite_loom)))]
type Inner<T> = std::sync::Mutex<T>;
#[cfg(all(feature = "std", not(feature = "critical-section"), async_mutex_lite_loom))]
type Inner<T> = loom::sync::Mutex<T>;
#[cfg(not(any(feature = "std", feature = "critical-section")))]
type Inner<T> = spin::Mutex<T>;

/// A value behind the lock that this build uses.
pub(crate) struct Section<T>(Inner<T>);

impl<T> Section<T> {
    #[cfg(not(async_mutex_lite_loom))]
    pub(crate) const fn new(value: T) -> Self {
        #[cfg(feature = "critical-section")]
        let value = core::cell::RefCell::new(value);
        Self(Inner::new(value))
    }

    #[cfg(async_mutex_lite_loom)]
    pub(crate) fn new(value: T) -> Self {
        Self(Inner::new(value))
    }

    /// Runs a critical section.
    #[inline]
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        #[cfg(feature = "critical-section")]
        return critical_section::with(|section| work(&mut self.0.borrow_ref_mut(section)));
        #[cfg(all(feature = "std", not(feature = "critical-section")))]
        return work(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        #[cfg(not(any(feature = "std", feature = "critical-section")))]
        return work(&mut self.0.lock());
    }
}
