//! Waiting until a key, or every key, is unlocked.

use core::borrow::Borrow;
use core::hash::{BuildHasher, Hash};

use crate::mutex::KeyedMutex;

impl<K: Eq + Hash, S: BuildHasher> KeyedMutex<K, S> {
    /// Waits until the key is free, that is, neither held nor waited for, without locking it.
    ///
    /// It completes if the key was free at any moment since the first poll, however briefly; by then, the key may be
    /// locked again. If the key never becomes free, it never completes. It takes no place in the queue, delays no other
    /// caller, and may be dropped at any time.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// # smol::block_on(async {
    /// let mutex = KeyedMutex::new();
    /// mutex.idle("alice").await; // it is free
    /// let guard = mutex.lock("alice").await;
    /// assert!(futures_lite::future::poll_once(mutex.idle("alice")).await.is_none());
    /// drop(guard);
    /// # });
    /// ```
    #[doc(alias("wait_for_unlock"))]
    pub async fn idle<Q: ?Sized + Eq + Hash>(&self, key: &Q)
    where
        K: Borrow<Q>,
    {
        let hash = self.hash(key);
        let shard = self.shards.of(hash);
        shard.watch(hash, |slots| Some(slots.find(hash, &mut |slot| slot.key.borrow() == key)?.id)).await;
    }
}

impl<K, S> KeyedMutex<K, S> {
    /// Waits until no key is locked: the last step of a graceful shutdown.
    ///
    /// If no more keys are locked after the call, it completes when the last one is unlocked. It waits for keys, not
    /// for callers: a caller that was stopped may not have been polled yet, so [await the
    /// callers](crate::guide::recipes#shut-down-gracefully), too. Unlike a server's own graceful shutdown, it also
    /// waits for spawned tasks whose clients have disconnected. It takes no place in any queue, delays no other caller,
    /// and may be dropped at any time.
    ///
    /// If other callers keep locking keys, it completes only if there was a moment, since the first poll, at which no
    /// key was locked. Where there is one shard (without `std`, with `critical-section`, or on a single processor), no
    /// such moment is missed, however short, even if keys are locked again before the future is polled. Several shards
    /// cannot all be checked at the same instant: the future checks them when it is polled, and notices a moment
    /// between two polls only if, at the first, a single shard was in use, and no key of another shard has been locked
    /// since. So callers that keep locking other keys can keep it waiting.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// # smol::block_on(async {
    /// let mutex = Arc::new(KeyedMutex::new());
    /// let work = smol::spawn(mutex.arc().ticket("alice").run(async || "done"));
    /// mutex.all_idle().await; // no new tickets are taken any more
    /// assert_eq!(work.await, Ok("done"));
    /// # });
    /// ```
    #[doc(alias("shutdown", "drain", "quiesce"))]
    pub async fn all_idle(&self) {
        self.shards.idle().await;
    }
}
