//! Several keys at once.

use alloc::vec::Vec;
use core::future::Future;
use core::hash::{BuildHasher, Hash};

use crate::claim::{Acquire, Handle, Mutex};
use crate::guard::{Guard, Guards};
use crate::hash::RandomState;
use crate::mutex::{Borrowed, KeyedMutex};

/// Holds several keys of a borrowed [`KeyedMutex`] exclusively. Dropping it unlocks them all, even if a waker that is
/// called meanwhile panics.
///
/// It has no `stop`: to stop the waiters of one of its keys, call [`KeyedMutex::stop`] before you drop it.
/// ([`run_or_stop`](KeyedMutex::run_or_stop) on a key that it holds deadlocks.)
pub type KeyedMutexGuards<'a, K, S = RandomState> = Guards<Borrowed<'a, K, S>>;

pub(crate) async fn acquire_all<H: Handle<Key: Ord>>(
    mutex: impl Mutex<H> + Clone,
    keys: impl IntoIterator<Item = H::Key>,
) -> Guards<H> {
    let mut keys: Vec<_> = keys.into_iter().collect();
    keys.sort_unstable();
    keys.dedup();
    let mut guards = Guards(Vec::with_capacity(keys.len()));
    for key in keys {
        guards.0.push(Acquire::<_, _, Guard<_>>::new(mutex.clone(), key).await);
    }
    guards
}

impl<K: Eq + Hash, S: BuildHasher> KeyedMutex<K, S> {
    /// Locks several keys exclusively, one after another, in ascending order of `K`, and returns one guard for all.
    ///
    /// It holds the keys that it has locked while it waits for the next. A key that is given twice is locked once; an
    /// empty list locks nothing. A stop does not reach it.
    ///
    /// # Deadlocks
    ///
    /// Calls of `lock_many` cannot deadlock with each other, since all lock in the same order. A caller that already
    /// holds another key of the mutex can still deadlock.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future unlocks the keys that it holds, and gives up its place in the queue of the one it waits for.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// # smol::block_on(async {
    /// let mutex = KeyedMutex::new();
    /// let transfer = mutex.lock_many(["bob", "alice"]).await;
    /// assert!(mutex.is_locked("alice") && mutex.is_locked("bob"));
    /// drop(transfer);
    /// assert!(mutex.is_empty());
    /// # });
    /// ```
    pub fn lock_many(&self, keys: impl IntoIterator<Item = K>) -> impl Future<Output = KeyedMutexGuards<'_, K, S>>
    where
        K: Ord,
    {
        acquire_all(self, keys)
    }
}
