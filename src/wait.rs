//! Waiting for the token of a key: a claim's place in the queue is its listener's place in the list of
//! the key's event.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Waker};

use event_listener::{Event, listener};
use futures_lite::future::yield_now;

use crate::sync::Arc;
use contain::contained;

/// Waits for the token. The first poll enters the event's list and does nothing else.
///
/// The listener lives in the future itself. The event outlives it: the table takes an event for unused,
/// and gives it to another key, once nobody else has a share in it.
#[allow(clippy::manual_async_fn)] // an `async fn` would keep its argument twice
pub(crate) fn turn(event: Arc<Event>) -> impl Future<Output = ()> {
    async move {
        listener!(event => listener);
        yield_now().await;
        contained(listener).await;
    }
}

/// Polls a fresh [`turn`], so that it enters the list now, under the lock of the shard.
pub(crate) fn enter(turn: Pin<&mut impl Future<Output = ()>>) {
    let entered = turn.poll(&mut Context::from_waker(Waker::noop()));
    debug_assert!(entered.is_pending());
}

/// event-listener calls wakers in the middle of its own book-keeping, which does not survive a panic:
/// the queue would stand still. So, where panics unwind, it gets a waker of ours, which calls the user's
/// and catches what it throws. That costs an allocation for each waiter.
#[cfg(all(feature = "std", panic = "unwind"))]
mod contain {
    use alloc::sync::Arc;
    use alloc::task::Wake;
    use core::future::{Future, poll_fn};
    use core::mem;
    use core::panic::AssertUnwindSafe;
    use core::pin::Pin;
    use core::task::{Context, Waker};
    use std::panic::catch_unwind;

    struct Contained(Option<Waker>);

    impl Contained {
        fn wakes(&self, waker: &Waker) -> bool {
            self.0.as_ref().is_some_and(|own| own.will_wake(waker))
        }
    }

    impl Wake for Contained {
        fn wake(self: Arc<Self>) {
            self.wake_by_ref();
        }

        fn wake_by_ref(self: &Arc<Self>) {
            if let Some(waker) = &self.0 {
                contain(|| waker.wake_by_ref());
            }
        }
    }

    impl Drop for Contained {
        fn drop(&mut self) {
            let waker = self.0.take();
            contain(|| drop(waker));
        }
    }

    /// The panic hook has had its say when this returns. The payload is leaked: its `Drop` may panic too.
    fn contain(call: impl FnOnce()) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(call)) {
            mem::forget(payload);
        }
    }

    /// Waits for a listener behind a contained waker.
    pub(super) fn contained(mut listener: impl Future<Output = ()> + Unpin) -> impl Future<Output = ()> {
        let mut last: Option<(Arc<Contained>, Waker)> = None;
        poll_fn(move |context| {
            if !last.as_ref().is_some_and(|(own, _)| own.wakes(context.waker())) {
                let own = Arc::new(Contained(Some(context.waker().clone())));
                last = Some((own.clone(), own.into()));
            }
            let waker = last.as_ref().map_or(Waker::noop(), |(_, waker)| waker);
            Pin::new(&mut listener).poll(&mut Context::from_waker(waker))
        })
    }
}

/// Where a panic ends the program, or cannot be caught for want of `std`, there is nothing to contain.
#[cfg(not(all(feature = "std", panic = "unwind")))]
mod contain {
    pub(super) fn contained(listener: impl Future<Output = ()>) -> impl Future<Output = ()> {
        listener
    }
}
