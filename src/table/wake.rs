//! Calling several wakers, or dropping several guards, one after another, even if some of them panic.

use core::mem;
#[cfg(feature = "std")]
use {core::panic::AssertUnwindSafe, std::panic::catch_unwind};

/// Calls `act` with each item. If it panics, or if the thread is unwinding already, the others follow while that panic
/// unwinds: with `std`, further panics are caught and dropped; without, a second one aborts the program.
pub(crate) fn each<T>(items: &mut dyn Iterator<Item = T>, act: fn(T)) {
    struct Rest<'a, T>(&'a mut dyn Iterator<Item = T>, fn(T));

    impl<T> Drop for Rest<'_, T> {
        fn drop(&mut self) {
            for item in &mut *self.0 {
                #[cfg(not(feature = "std"))]
                (self.1)(item);
                #[cfg(feature = "std")]
                if let Err(payload) = catch_unwind(AssertUnwindSafe(|| (self.1)(item))) {
                    mem::forget(catch_unwind(AssertUnwindSafe(|| drop(payload)))); // it may panic, too
                }
            }
        }
    }

    #[cfg(feature = "std")]
    if std::thread::panicking() {
        return drop(Rest(items, act));
    }
    while let Some(item) = items.next() {
        let rest = Rest(items, act);
        act(item);
        mem::forget(rest);
    }
}
