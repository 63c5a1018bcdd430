//! Several keys at once.

use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::hash::{BuildHasher, Hash};

use crate::claim::{Acquire, Finds, Holder};
use crate::guard::guard;
use crate::hash::RandomState;
use crate::mutex::KeyedMutex;
use crate::shard::Plain;

/// Locks the keys in their order, the same for everybody, so that no two can wait for each other. `finish` makes of the
/// holders what is wanted: here, since a future around this one would have room for it twice.
pub(crate) async fn acquire_all<M, R>(
    mutex: M,
    keys: impl IntoIterator<Item = M::Key>,
    finish: fn(Vec<Holder<M>>) -> R,
) -> R
where
    M: Finds<Key: Ord> + Clone,
{
    let mut keys: Vec<_> = keys.into_iter().collect();
    keys.sort_unstable();
    keys.dedup();
    let mut holders = Vec::with_capacity(keys.len());
    for key in keys {
        holders.push(Acquire::<_, _, Plain>::new(mutex.clone(), key, |holder, _| holder).await);
    }
    finish(holders)
}

guard! {
    /// Holds several keys of a borrowed [`KeyedMutex`]. Dropping it unlocks them all.
    KeyedMutexGuards<'a, K, S>, Vec<Holder<&'a KeyedMutex<K, S>>>
}

impl<K: Eq + Hash, S: BuildHasher> KeyedMutex<K, S> {
    /// Locks all of the keys, or none: whoever drops the future half-way holds nothing.
    ///
    /// A key that is given twice is locked once; an empty list locks nothing. The keys are locked one after
    /// another in the order of `K`, so callers of `lock_many` never wait for each other in a circle.
    /// (Whoever holds a key already, from another call, can still make one.) The guards stop nobody: for that, run
    /// a task under one of the keys.
    ///
    /// # Cancellation
    ///
    /// The keys that it has are unlocked, and its place in the queue of the one it waits for is given up.
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
        acquire_all(self, keys, KeyedMutexGuards)
    }
}
