//! Waiting for the token of a key: a claim's place in the queue is its listener's place in the list of
//! the key's event.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Waker};

use event_listener::{Event, listener};
use futures_lite::future::yield_now;

use crate::sync::Arc;
use contain::{Own, contained};

/// Waits for the token. The first poll enters the event's list and does nothing else.
///
/// The listener lives in the future itself. The event outlives it: the table takes an event for unused,
/// and gives it to another key, once nobody else has a share in it.
#[allow(clippy::manual_async_fn)] // an `async fn` would keep its argument twice
pub(crate) fn turn(event: Arc<Event>) -> impl Future<Output = ()> {
    async move {
        let mut own = Own::default(); // before the listener, which has a share in it, and so is dropped first
        listener!(event => listener);
        yield_now().await;
        contained(listener, &mut own).await;
    }
}

/// Polls a fresh [`turn`], so that it enters the list now, under the lock of the shard.
pub(crate) fn enter(turn: Pin<&mut impl Future<Output = ()>>) {
    let entered = turn.poll(&mut Context::from_waker(Waker::noop()));
    debug_assert!(entered.is_pending());
}

/// event-listener calls wakers in the middle of its own book-keeping, which does not survive a panic:
/// the queue would stand still. So, where panics unwind, it gets a waker of ours, which calls the user's
/// and catches what it throws. Each thread keeps some of these, so that most waiters allocate nothing.
#[cfg(all(feature = "std", panic = "unwind"))]
mod contain {
    use super::{Arc, Context, Future, Pin, Waker};
    use alloc::task::Wake;
    use alloc::vec::Vec;
    use core::cell::RefCell;
    use core::future::poll_fn;
    use core::mem;
    use core::panic::AssertUnwindSafe;
    use std::panic::catch_unwind;

    /// How many a thread keeps, of 32 bytes each.
    const SPARES: usize = 64;

    std::thread_local! {
        // With room from the start: to grow would be to allocate while a key is handed over.
        static SPARE: RefCell<Vec<Arc<Contained>>> = RefCell::new(Vec::with_capacity(SPARES));
    }

    #[derive(Default)]
    struct Contained(Option<Waker>);

    impl Wake for Contained {
        fn wake(self: Arc<Self>) {
            self.wake_by_ref();
        }

        fn wake_by_ref(self: &Arc<Self>) {
            if let Some(user) = &self.0 {
                contain(|| user.wake_by_ref());
            }
        }
    }

    impl Drop for Contained {
        fn drop(&mut self) {
            let user = self.0.take();
            contain(|| drop(user));
        }
    }

    /// The panic hook has had its say when this returns. The payload is leaked: its `Drop` may panic too.
    fn contain(call: impl FnOnce()) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(call)) {
            mem::forget(payload);
        }
    }

    /// The contained waker of one waiter, once it has been polled.
    #[derive(Default)]
    pub(super) struct Own(Option<Arc<Contained>>);

    impl Own {
        /// Returns a waker that wakes this one: the same as before, if it does.
        fn containing(&mut self, waker: &Waker) -> Waker {
            let wakes = |own: &&Arc<Contained>| own.0.as_ref().is_some_and(|user| user.will_wake(waker));
            if let Some(own) = self.0.as_ref().filter(wakes) {
                return own.clone().into();
            }
            let user = waker.clone();
            let spare = SPARE.try_with(|spare| spare.borrow_mut().pop());
            let mut own = spare.ok().flatten().unwrap_or_default();
            if let Some(own) = Arc::get_mut(&mut own) {
                own.0 = Some(user);
            }
            *self = Self(Some(own.clone()));
            own.into()
        }
    }

    /// Leaves the waker to the thread's next waiter, unless event-listener still has a share in it.
    impl Drop for Own {
        fn drop(&mut self) {
            let Some(mut own) = self.0.take() else { return };
            let Some(contained) = Arc::get_mut(&mut own) else { return };
            drop(mem::take(contained));
            let _ = SPARE.try_with(|spare| {
                let mut spare = spare.borrow_mut();
                if spare.len() < SPARES {
                    spare.push(own);
                }
            });
        }
    }

    /// Waits for a listener behind a contained waker.
    pub(super) fn contained(mut listener: impl Future<Output = ()> + Unpin, own: &mut Own) -> impl Future<Output = ()> {
        poll_fn(move |context| {
            let waker = own.containing(context.waker());
            Pin::new(&mut listener).poll(&mut Context::from_waker(&waker))
        })
    }
}

/// Where a panic ends the program, or cannot be caught for want of `std`, there is nothing to contain.
#[cfg(not(all(feature = "std", panic = "unwind")))]
mod contain {
    use super::Future;

    #[derive(Default)]
    pub(super) struct Own {}

    pub(super) fn contained(listener: impl Future<Output = ()>, _: &mut Own) -> impl Future<Output = ()> {
        listener
    }
}
