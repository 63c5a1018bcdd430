//! Waiting until nobody holds a key or waits for it.

use core::borrow::Borrow;
use core::future::poll_fn;
use core::hash::{BuildHasher, Hash};
use core::mem;
use core::task::Poll;

use crate::mutex::KeyedMutex;
use crate::shard::Locked;
use crate::slots::Slots;
use crate::wake::{keep_waker, until_cloned};
use crate::watch::{EVERY, Watcher};

/// Takes a watcher that is dropped out of its shard.
struct Unwatch<'a, K> {
    shard: &'a Locked<K>,
    ticket: u64,
}

impl<K> Drop for Unwatch<'_, K> {
    fn drop(&mut self) {
        drop(self.shard.with(|shard| shard.unwatch(|watcher| watcher.ticket == self.ticket)));
    }
}

/// Asks `busy` what there is to watch in a shard, and waits, if there is something, until it is told.
async fn watch<K>(shard: &Locked<K>, busy: impl Fn(&mut Slots<K>) -> Option<u64>) {
    let mut watching: Option<Unwatch<'_, K>> = None;
    poll_fn(|context| {
        let waker = context.waker();
        until_cloned(waker, |spare| {
            shard.with(|inside| match &watching {
                Some(Unwatch { ticket, .. }) => {
                    let watcher = inside.watchers.iter_mut().find(|watcher| watcher.ticket == *ticket);
                    keep_waker(watcher.map(|watcher| &mut watcher.waker), waker, spare)
                }
                None => {
                    let Some(watched) = busy(&mut inside.slots) else { return Some(Poll::Ready(())) };
                    let (waker, ticket) = (spare.take()?, inside.draw());
                    inside.watchers.push(Watcher { watched, ticket, waker });
                    watching = Some(Unwatch { shard, ticket });
                    Some(Poll::Pending)
                }
            })
        })
    })
    .await;
}

impl<K, S> KeyedMutex<K, S> {
    /// Waits until no key is busy: the last step of a graceful shutdown.
    ///
    /// There was a moment, then, at which nobody held a key or waited for one: also those who were spawned, and whose client
    /// has left, for whom a server's own graceful shutdown does not wait. Whoever keeps the mutex busy for ever,
    /// be it with a different key each time, keeps this waiting. It takes no place in any queue, makes no key
    /// busy, and may be dropped at any time.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// # smol::block_on(async {
    /// let mutex = Arc::new(KeyedMutex::new());
    /// let work = smol::spawn(mutex.ticket_arc("alice").run(async || "done"));
    /// mutex.all_idle().await; // nobody takes new tickets any more
    /// assert_eq!(work.await, Ok("done"));
    /// # });
    /// ```
    #[doc(alias("shutdown", "drain", "quiesce"))]
    pub async fn all_idle(&self) {
        loop {
            for shard in self.table.shards.iter() {
                watch(shard, |slots| (slots.len() > 0).then_some(EVERY)).await;
            }
            // Each has been empty, but when? If all are found empty twice, and no ticket was drawn in between, they
            // were, all of them, between the two.
            let quiet = self.table.quiet();
            if quiet.is_some() && quiet == self.table.quiet() {
                return;
            }
            // Looks again when the executor has had a look at others.
            let mut yielded = false;
            poll_fn(|context| {
                context.waker().wake_by_ref();
                if mem::replace(&mut yielded, true) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    }
}

impl<K: Eq + Hash, S: BuildHasher> KeyedMutex<K, S> {
    /// Waits until nobody holds the key or waits for it.
    ///
    /// While anybody watches, forgetting a key of the same part of the table takes time for each who watches there.
    ///
    /// There was such a moment, then; others may have locked the key since. Whoever keeps it busy for ever keeps
    /// this waiting. It takes no place in the queue, makes no key busy, and may be dropped at any time.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// # smol::block_on(async {
    /// let mutex = KeyedMutex::new();
    /// mutex.idle("alice").await; // nobody is at it
    /// let guard = mutex.lock("alice").await;
    /// assert!(futures_lite::future::poll_once(mutex.idle("alice")).await.is_none());
    /// drop(guard);
    /// # });
    /// ```
    pub async fn idle<Q: ?Sized + Eq + Hash>(&self, key: &Q)
    where
        K: Borrow<Q>,
    {
        let hash = self.table.hash(key);
        let id = |slots: &mut Slots<K>| Some(slots.find(hash, &mut |slot| slot.key.borrow() == key)?.id);
        watch(self.table.shards.of(hash), id).await;
    }
}
