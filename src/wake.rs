//! What is done with wakers: under a lock as little as possible, since what they do when they are cloned, woken or
//! dropped is the user's code.

use core::mem;
use core::task::{Poll, Waker};

/// Ready if there is no waker any more. Else it becomes that of this poll: `None` if that must be cloned first, which
/// is for the caller to do, outside the lock. What is left in `spare` is for the caller to drop.
pub(crate) fn keep_waker(own: Option<&mut Waker>, waker: &Waker, spare: &mut Option<Waker>) -> Option<Poll<()>> {
    let Some(own) = own else { return Some(Poll::Ready(())) };
    if !own.will_wake(waker) {
        mem::swap(own, spare.as_mut()?);
    }
    Some(Poll::Pending)
}

/// Runs `poll`, and once more with a clone of the waker if it asks for one.
#[inline]
pub(crate) fn until_cloned<R>(waker: &Waker, mut poll: impl FnMut(&mut Option<Waker>) -> Option<R>) -> R {
    let mut spare = None;
    loop {
        if let Some(polled) = poll(&mut spare) {
            return polled;
        }
        spare = Some(waker.clone());
    }
}

/// Wakes one after another, each outside the lock that `next` takes. If one panics, the others are woken while that
/// unwinds. (Without `std`, if another does, too, the program is aborted.)
pub(crate) fn wake_each(next: &mut dyn FnMut() -> Option<Waker>) {
    struct Rest<'a>(&'a mut dyn FnMut() -> Option<Waker>);

    impl Drop for Rest<'_> {
        fn drop(&mut self) {
            while let Some(waker) = (self.0)() {
                #[cfg(feature = "std")] // one more panic while the first unwinds would abort
                mem::forget(std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| waker.wake())));
                #[cfg(not(feature = "std"))]
                waker.wake();
            }
        }
    }

    while let Some(waker) = next() {
        let rest = Rest(next);
        waker.wake();
        mem::forget(rest);
    }
}
