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

    /// Returns whether somebody holds the key, or is being given it.
    ///
    /// Other tasks may change that at once. To act on it, use [`try_lock`](Self::try_lock).
    #[must_use]
    pub fn is_locked<Q: ?Sized + Eq + Hash>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.queued(key).is_some()
    }

    /// Returns how many are queued for the key, the one that holds it (or is being given it) not counted.
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
    /// however often they come and go, and the table moves to no other place: in an interrupt, too, locking takes the
    /// time of a look-up. Where the table is in shards, with `std`, each gets its part, twice: so it holds for
    /// all shards to which the hashes bring at most twice their part, which is nearly certain from some sixty
    /// keys a shard on, and needs luck for a few keys.
    ///
    /// What it takes is some 100 bytes for each key and 32 for each waiter (less where pointers have 32 bits; four and two
    /// times that in shards).
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
