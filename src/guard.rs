//! Holding a key.

use core::fmt;

use crate::claim::Holder;
use crate::hash::RandomState;
use crate::mutex::KeyedMutex;

/// A guard that holds this.
macro_rules! guard {
    ($(#[$doc:meta])* $Guard:ident <$($a:lifetime,)? K, S>, $holds:ty) => {
        $(#[$doc])*
        #[must_use = "bind it to a name such as `_guard`; `let _ =` unlocks at once"]
        #[clippy::has_significant_drop]
        pub struct $Guard<$($a,)? K, S = RandomState>(
            #[allow(dead_code)] // it is dropped
            pub(crate) $holds,
        );

        impl<$($a,)? K, S> fmt::Debug for $Guard<$($a,)? K, S> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($Guard)).finish_non_exhaustive()
            }
        }
    };
}
pub(crate) use guard;

/// What one can do who has a key for itself.
macro_rules! exclusive {
    ($Guard:ident <$($a:lifetime,)? K, S>) => {
        impl<$($a,)? K, S> $Guard<$($a,)? K, S> {
            /// Unlocks the key, and stops the tasks queued behind it: each [`run`](KeyedMutex::run),
            /// [`run_or_stop`](KeyedMutex::run_or_stop) and [ticket](crate::Ticket) that waits for this key now returns
            /// [`Stopped`](crate::Stopped) when its turn comes. Plain locks are not stopped, nor is whoever
            /// comes later, nor any other key.
            pub fn stop(self) {
                self.0.stop();
            }

            /// Runs a task and unlocks the key. Unless the task returns `Ok`, it stops the tasks queued behind it, as
            /// [`KeyedMutex::run_or_stop`] does: also if it panics, or is dropped half-way. Dropped before its first
            /// poll, it only unlocks the key. For one who waited with a limit of his own; see
            /// [`Ticket`](crate::Ticket) for an example.
            ///
            /// # Errors
            ///
            /// The task's own.
            pub async fn run_or_stop<T, E>(self, task: impl AsyncFnOnce() -> Result<T, E>) -> Result<T, E> {
                self.0.run_or_stop(task).await
            }
        }
    };
}
#[cfg(target_has_atomic = "ptr")]
pub(crate) use exclusive;

guard! {
    #[doc(alias("release", "unlock", "permit"))]
    /// Holds a key of a borrowed [`KeyedMutex`]. Dropping it unlocks the key.
    ///
    /// Unlocking hands the key to the task that has waited longest, if any, and forgets the key otherwise. It
    /// neither hashes nor compares keys. It does not panic, unless the key's own `Drop` or a waker that it wakes
    /// does; even then the key is unlocked. That waker runs before `drop` returns.
    ///
    /// A guard may be sent to another thread and dropped there. A guard that is forgotten
    /// ([`mem::forget`](core::mem::forget)) locks its key for ever, and no other key.
    KeyedMutexGuard<'a, K, S>, Holder<&'a KeyedMutex<K, S>>
}

exclusive!(KeyedMutexGuard<'a, K, S>);
