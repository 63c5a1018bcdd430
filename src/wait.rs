//! The ways to wait other than `.await`: of `lock`, of tickets, and of `lock_many`.

use core::future::poll_fn;
use core::pin::{Pin, pin};
use core::task::Poll;

use crate::claim::{Handle, Lock};
use crate::guard::Guard;

/// Waits for a future, or for a signal, whichever is ready first.
pub(crate) async fn unless<G, T>(
    lock: impl Future<Output = G> + Unpin,
    signal: impl Future<Output = T>,
) -> Result<G, T> {
    let first; // out here, so that it is not leaked if dropping one of them panics
    {
        let (mut lock, mut signal) = (lock, pin!(signal));
        first = poll_fn(|context| match Pin::new(&mut lock).poll(context) {
            Poll::Ready(guard) => Poll::Ready(Ok(guard)),
            Poll::Pending => signal.as_mut().poll(context).map(Err),
        })
        .await;
    }
    first
}

/// The ways to wait other than `.await`.
macro_rules! ways_to_wait {
    ($future:ident, $output:ty) => {
        impl<H: Handle> $future<H>
        where
            Self: Future<Output = $output>,
        {
            /// Waits, unless `signal` is ready first: a timer, a shutdown, a closed connection.
            ///
            /// The key is asked for first: if it is free, it is locked even if `signal` is ready already. The signal
            /// limits only the wait, not how long the guard is held after that.
            ///
            /// | to give up | signal |
            /// | --- | --- |
            /// | after a timeout, on smol | `smol::Timer::after(timeout)` |
            /// | after a timeout, on async-std | `async_std::task::sleep(timeout)` |
            /// | after a timeout, on tokio | `tokio::time::sleep(timeout)` |
            /// | after a timeout, on embassy | `embassy_time::Timer::after(timeout)` |
            /// | with a cancellation token of tokio-util | `token.cancelled()` |
            /// | when a channel says so | `shutdown.recv()` |
            ///
            /// # Errors
            ///
            /// Returns the output of the signal, if that was ready first. The place in the queue is then given up.
            ///
            /// # Cancel safety
            ///
            /// As without a signal, which is dropped, too.
            #[doc(alias("lock_unless", "lock_arc_unless", "lock_with_timeout", "timeout", "cancel", "abort"))]
            pub fn unless<T>(self, signal: impl Future<Output = T>) -> impl Future<Output = Result<$output, T>> {
                crate::wait::unless(self, signal)
            }

            /// Blocks the thread until it is ready. It waits in the same queue as futures.
            ///
            /// Do not call it from async code: it blocks a thread of the executor, and deadlocks if the holder is a task
            /// that only this thread can run.
            #[cfg(all(feature = "std", not(target_family = "wasm")))]
            #[doc(alias("lock_blocking", "lock_shared_blocking", "lock_arc_blocking", "lock_shared_arc_blocking"))]
            pub fn wait(self) -> $output {
                crate::block::block(self, None).expect("there is no deadline")
            }

            /// Blocks the thread until it is ready, or returns `None` if the time is up first: then the place in the
            /// queue is given up, unless the key has been granted just then.
            ///
            /// A free key is locked even if `timeout` is zero; a `timeout` that the clock cannot represent is as good as
            /// none. Do not call it from async code: see [`wait`](Self::wait).
            #[cfg(all(feature = "std", not(target_family = "wasm")))]
            #[must_use = "bind the guard to a name such as `_guard`; `let _ =` unlocks at once"]
            #[doc(alias("lock_blocking_for", "try_lock_for", "lock_timeout"))]
            pub fn wait_timeout(self, timeout: core::time::Duration) -> Option<$output> {
                crate::block::block(self, std::time::Instant::now().checked_add(timeout))
            }
        }
    };
}
pub(crate) use ways_to_wait;

ways_to_wait!(Lock, Guard<H>);
