//! Holding a key.

use core::fmt;

use crate::claim::Claim;
use crate::{KeyedMutex, RandomState};

/// Holds a key of a borrowed [`KeyedMutex`]. Dropping it unlocks the key.
///
/// Unlocking hands the key to the task that has waited longest, if any, and forgets the key otherwise. It
/// neither hashes nor compares keys. It does not panic, unless the key's own `Drop` does; even then the
/// key is unlocked. The waker of the task that is next runs before `drop` returns.
///
/// A guard may be sent to another thread and dropped there. A guard that is forgotten
/// ([`mem::forget`](core::mem::forget)) locks its key for ever, and no other key.
#[must_use = "the key is unlocked when the guard is dropped"]
#[clippy::has_significant_drop]
pub struct KeyedMutexGuard<'a, K, S = RandomState>(pub(crate) Claim<&'a KeyedMutex<K, S>>);

impl<K, S> KeyedMutexGuard<'_, K, S> {
    /// Unlocks the key, and stops the tasks queued behind it: each [`run`](KeyedMutex::run) and
    /// [`run_or_stop`](KeyedMutex::run_or_stop) that waits for this key now returns
    /// [`Stopped`](crate::Stopped) when its turn comes. Plain locks are not stopped, nor is whoever comes
    /// later, nor any other key.
    pub fn stop(self) {
        self.0.stop();
    }
}

impl<K, S> fmt::Debug for KeyedMutexGuard<'_, K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedMutexGuard").finish_non_exhaustive()
    }
}
