//! Asking, stopping, and making room.

use core::borrow::Borrow;
use core::hash::{BuildHasher, Hash};

use crate::mutex::KeyedMutex;
use crate::shard::Shard;

impl<K: Eq + Hash, S: BuildHasher> KeyedMutex<K, S> {
    /// Stops the tasks that are queued for a key now, and returns how many. The holder goes on.
    ///
    /// It does what [`stop`](crate::KeyedMutexGuard::stop) of a guard does, from outside. A task counts as queued
    /// until it begins, so one that has been given the key but has not been polled since is stopped too. A
    /// [`Ticket`](crate::Ticket) that has to wait counts as well: it may yet run a task. (One that found the
    /// key free holds it, and goes on.)
    ///
    /// Whoever is stopped is told so in its turn, not at once: until then it waits, and counts as one who waits, in
    /// [`waiting`](Self::waiting) and for [`ticket_if`](Self::ticket_if).
    pub fn stop<Q: ?Sized + Eq + Hash>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        let hash = self.table.hash(key);
        self.table.with(hash, |shard| shard.stop(hash, &mut |slot| slot.key.borrow() == key))
    }

    /// Returns whether somebody holds the key, or shares it, or is being given it.
    ///
    /// Other tasks may change that at once. To act on it, use [`try_lock`](Self::try_lock).
    #[must_use]
    pub fn is_locked<Q: ?Sized + Eq + Hash>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.queued(key).is_some()
    }

    /// Returns how many are queued for the key, not counting those inside: the one that holds it (or is being given it), or
    /// all who share it.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// let mutex = KeyedMutex::new();
    /// let guard = mutex.try_lock("alice").unwrap();
    /// assert_eq!(mutex.waiting("alice"), 0);
    /// # drop(guard);
    /// ```
    #[must_use]
    pub fn waiting<Q: ?Sized + Eq + Hash>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.queued(key).unwrap_or(0)
    }

    fn queued<Q: ?Sized + Eq + Hash>(&self, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
    {
        let hash = self.table.hash(key);
        self.table
            .with(hash, |shard| Some(shard.slots.find(hash, &mut |slot| slot.key.borrow() == key)?.waiting as usize))
    }
}

impl<K, S> KeyedMutex<K, S> {
    /// Stops the tasks that are queued now, for whatever key, and returns how many. Those that have begun go on.
    ///
    /// It is [`stop`](Self::stop) for one key after another. Keys that are locked meanwhile may be missed: for a
    /// shutdown, see first that nobody comes any more, then call this, then wait for [`all_idle`](Self::all_idle). How that
    /// is done without a gap is one of the [recipes](crate::guide::recipes#shut-down-gracefully).
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::{KeyedMutex, Stopped};
    ///
    /// # smol::block_on(async {
    /// let mutex = KeyedMutex::new();
    /// let (at_work, queued) = (mutex.ticket("alice"), mutex.ticket("alice"));
    /// assert_eq!(mutex.stop_all(), 1);
    /// assert_eq!(at_work.run(async || "ends as if nothing had happened").await.is_ok(), true);
    /// assert_eq!(queued.run(async || "never begins").await, Err(Stopped));
    /// # });
    /// ```
    #[doc(alias("shutdown", "cancel", "abort", "close"))]
    pub fn stop_all(&self) -> usize {
        // Made if need be: one whose shard is not there yet would otherwise be missed, though it came before a flag.
        self.table.shards.all().iter().map(|shard| shard.with(Shard::stop_all)).sum()
    }

    /// Returns how many keys are busy: held or waited for.
    ///
    /// Other threads may lock and unlock while this counts; the figure is exact when none does.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Returns whether no key is busy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room now for that many keys that are busy at once, and as many waiters, and keeps it for good.
    ///
    /// Where there is one table (without `std`, or with `critical-section`), that many keys allocate nothing from then on,
    /// however often they come and go, and the table moves to no other place, in an interrupt either. (Now and
    /// then its entries are put in order within it, which takes time for each of them.)
    ///
    /// With `std` the table is in shards, and each gets twice its part of the keys and waiters. A shard to which the
    /// hashes bring more may still allocate: that is unlikely if there are sixty keys or more to a shard, and likely
    /// if there are few. All who wait for one key are in one shard.
    ///
    /// For each key it takes two to five entries of the table, since tables come in powers of two, and there must be room
    /// for twice as many; an entry is a `K` and some 40 bytes. For each waiter it takes 32 bytes (24 where pointers have 32
    /// bits). In shards it is twice that. From then on the table never takes less; nor is memory given back that more
    /// waiters have taken since, nor, without `std`, that more keys have.
    ///
    /// # Panics
    ///
    /// If more is asked for than can be addressed. If there is not so much memory, the allocator's error handler is called.
    /// Nothing that is locked or waits is lost.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// static SENSORS: KeyedMutex<u8> = KeyedMutex::new();
    ///
    /// // Early in main, before interrupts are enabled.
    /// SENSORS.reserve(16);
    /// ```
    #[doc(alias("capacity", "with_capacity", "preallocate"))]
    pub fn reserve(&self, keys: usize) {
        let part = match self.table.shards.all().len() {
            1 => keys,
            shards => keys.div_ceil(shards) * 2,
        };
        self.table.shards.iter().for_each(|shard| shard.with(|shard| shard.reserve(part)));
    }

    /// Returns the hasher of the keys.
    pub const fn hasher(&self) -> &S {
        &self.table.hasher
    }
}
