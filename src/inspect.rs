//! Seeing what is locked, and making room.

use core::borrow::Borrow;
use core::hash::{BuildHasher, Hash};

use crate::mutex::KeyedMutex;
use crate::table::KeyState;

impl<K: Eq + Hash, S: BuildHasher> KeyedMutex<K, S> {
    /// Returns `true` if the key is locked, exclusively or shared, or has been granted to a waiter.
    ///
    /// The answer may be outdated by the time you see it. To act on it, use [`try_lock`](Self::try_lock).
    #[must_use]
    pub fn is_locked<Q: ?Sized + Eq + Hash>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.state(key).holders > 0
    }

    /// Returns the state of the key: its holders, and its waiters.
    ///
    /// The answer may be outdated by the time you see it. To bound the queue, use [`ticket_if`](Self::ticket_if).
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// let mutex = KeyedMutex::new();
    /// let (holder, waiter) = (mutex.ticket("alice"), mutex.ticket("alice"));
    /// assert_eq!(mutex.state("alice").waiting, 1);
    /// # drop((holder, waiter));
    /// ```
    #[must_use]
    #[doc(alias("waiting", "queue_len", "waiters"))]
    pub fn state<Q: ?Sized + Eq + Hash>(&self, key: &Q) -> KeyState
    where
        K: Borrow<Q>,
    {
        let hash = self.hash(key);
        self.shards.of(hash).with(|table| {
            let slot = table.slots.find(hash, &mut |slot| slot.key.borrow() == key);
            slot.map(|slot| slot.state()).unwrap_or_default()
        })
    }
}

impl<K, S> KeyedMutex<K, S> {
    /// Calls `visit` with every locked key and its state, one shard after another, each shard under its lock.
    ///
    /// No key is visited twice. What `visit` sees is exact if no other thread locks or unlocks meanwhile; otherwise it
    /// was true of each shard at the moment when that shard was visited. `visit` runs under the lock of a shard: it
    /// must be short (it may allocate), must not use the mutex, and must not drop a value whose `Drop` uses the mutex,
    /// such as a guard. A panic in it propagates, and changes nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// # smol::block_on(async {
    /// let mutex = KeyedMutex::new();
    /// let (alice, bob) = (mutex.lock("alice").await, mutex.shared().lock("bob").await);
    /// let queued = mutex.ticket("alice");
    ///
    /// let mut busiest = Vec::new();
    /// mutex.for_each_locked(|key, now| busiest.push((now.waiting, *key)));
    /// busiest.sort();
    /// assert_eq!(busiest, [(0, "bob"), (1, "alice")]);
    /// # drop((alice, bob, queued));
    /// # });
    /// ```
    #[doc(alias("query", "keys", "iter", "metrics"))]
    pub fn for_each_locked(&self, mut visit: impl FnMut(&K, KeyState)) {
        for shard in self.shards.made() {
            shard.with(|table| table.slots.iter_mut().for_each(|slot| visit(&slot.key, slot.state())));
        }
    }

    /// Returns the number of locked keys.
    ///
    /// It is exact if no other thread locks or unlocks meanwhile.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.made().iter().map(|shard| shard.with(|table| table.slots.len())).sum()
    }

    /// Returns `true` if no key is locked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Preallocates room for `keys` keys that are locked at the same time, and for `waiters` that wait at the same time,
    /// in total, not in addition. The mutex never shrinks below that.
    ///
    /// Where there is one shard (without `std`, with `critical-section`, or on a single processor), up to `keys` keys
    /// and `waiters` waiters allocate nothing from then on, however often they come and go, and the table never moves, not even
    /// in an interrupt. (Occasionally its entries are rehashed in place.)
    ///
    /// With several shards each gets room for twice its part. A shard that gets more keys than that, by the accident of
    /// their hashes, may still allocate: that is unlikely with sixty keys or more per shard, and likely with few. All
    /// waiters of one key are in one shard.
    ///
    /// Each key reserved takes two to five entries of the table, since tables come in powers of two, and there must be
    /// room for twice as many keys; an entry is a `K` and some 32 bytes. Each waiter takes 32 bytes (24 where pointers
    /// have 32 bits). With several shards it is twice as much. From then on, if more waiters come than were reserved,
    /// the memory that they take is never given back; nor, without `std` or with `critical-section`, is that of more
    /// keys.
    ///
    /// # Panics
    ///
    /// Panics if more is asked for than can be addressed. If there is not enough memory, the allocator's error handler
    /// runs. No locked key and no waiter is lost.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// static SENSORS: KeyedMutex<u8> = KeyedMutex::new();
    ///
    /// // Early in main, before interrupts are enabled.
    /// SENSORS.reserve(16, 4);
    /// ```
    #[doc(alias("capacity", "with_capacity", "preallocate"))]
    pub fn reserve(&self, keys: usize, waiters: usize) {
        self.shards.reserve(keys, waiters);
    }

    /// Returns the hasher of the keys.
    pub const fn hasher(&self) -> &S {
        &self.hasher
    }
}
