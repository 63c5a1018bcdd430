//! Modes: locking keys shared, or with an `Arc` of the mutex.

#[cfg(target_has_atomic = "ptr")]
use alloc::sync::Arc;
use core::hash::{BuildHasher, Hash};
use core::num::NonZero;

use crate::claim::{Acquire, Borrowed, Claim, Handle, Lock, print_name};
use crate::guard::Guard;
use crate::mutex::KeyedMutex;
use crate::table::Sharing;

/// A [`KeyedMutex`], and how its keys are to be locked: exclusively, shared, or by at most n; borrowed, or owned.
///
/// | mode | locks | guards, tickets and futures |
/// | --- | --- | --- |
/// | the mutex itself | exclusively | borrow the mutex |
/// | [`mutex.shared()`](KeyedMutex::shared) | together with other shared holders | borrow the mutex |
/// | [`mutex.at_most(n)`](KeyedMutex::at_most) | while fewer than `n` hold the key shared | borrow the mutex |
/// | [`arc.arc()`](KeyedMutex::arc), `.arc().shared()`, `.arc().at_most(n)` | the same three | own an `Arc` of it, and are `'static` |
///
/// Its methods are those of the mutex, where they are described. They take the mode by value: one that borrows is
/// `Copy`, one that owns an `Arc` is `Clone`.
///
/// # Sharing
///
/// Shared and exclusive waiters wait in one FIFO queue. A shared lock does not barge in: it waits behind an exclusive
/// waiter, even if it could share the key with its present holders; so neither kind can starve the other. Waiters that
/// are next to each other in the queue are granted the key together, as far as the limit of each allows.
///
/// The limit belongs to the call, not to the mutex: it may differ from key to key, and change from call to call. All shared
/// holders count against it, whatever their own limits are. It decides when this call is granted the key, not who comes
/// after it: a later call with a higher limit may share the key with it. (So `at_most(1)` is not the same as exclusive.)
///
/// A shared lock cannot be upgraded: two holders that tried to at the same time would deadlock. Drop it, lock the key
/// exclusively, and check again what the key guards. (With [two keys](crate::guide::recipes#upgrade-from-shared-to-exclusive)
/// it can.)
///
/// # Deadlocks
///
/// A task that takes a second shared lock of the same key can deadlock: an exclusive waiter may be queued in between.
#[must_use = "a mode does nothing by itself: call `lock`, `ticket` or another of its methods"]
pub struct Mode<H: Handle> {
    pub(crate) mutex: H::Mutex,
    pub(crate) sharing: Sharing,
}

impl<K, S> KeyedMutex<K, S> {
    /// Locks keys exclusively, as the methods of the mutex itself do: for code that chooses between this and
    /// [`shared`](Self::shared).
    pub const fn exclusive(&self) -> Mode<Borrowed<'_, K, S>> {
        Mode { mutex: self, sharing: None }
    }

    /// Locks keys shared: together with any number of other shared holders. See [sharing](Mode#sharing).
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// # smol::block_on(async {
    /// let pages = KeyedMutex::new();
    /// let (one, two) = (pages.shared().lock("page").await, pages.shared().lock("page").await);
    /// assert!(pages.try_lock("page").is_none());
    /// drop((one, two));
    /// assert!(pages.try_lock("page").is_some());
    /// # });
    /// ```
    #[doc(alias("lock_shared", "try_lock_shared", "ticket_shared", "ticket_shared_if", "read", "rwlock"))]
    pub fn shared(&self) -> Mode<Borrowed<'_, K, S>> {
        self.exclusive().shared()
    }

    /// Locks keys shared, each while fewer than `n` hold it shared: a semaphore for each key. See
    /// [sharing](Mode#sharing).
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// let requests = KeyedMutex::new();
    /// let two = requests.at_most(2);
    /// let held = [two.try_lock("example.org"), two.try_lock("example.org")];
    /// assert!(two.try_lock("example.org").is_none()); // two at a time
    /// assert!(requests.at_most(3).try_lock("example.org").is_some()); // a customer who pays
    /// # drop(held);
    /// ```
    #[doc(alias("semaphore", "limit", "permits", "rate"))]
    pub fn at_most(&self, n: u32) -> Mode<Borrowed<'_, K, S>> {
        self.exclusive().at_most(n)
    }
}

/// Checks the limit of [`KeyedMutex::at_most`].
pub(crate) const fn limit(n: u32) -> NonZero<u32> {
    NonZero::new(n).expect("`n` must be greater than zero")
}

impl<H: Handle> Mode<H> {
    /// The mutex.
    pub fn mutex(&self) -> &KeyedMutex<H::Key, H::Hasher> {
        &self.mutex
    }

    /// The same, shared: see [`KeyedMutex::shared`].
    pub fn shared(self) -> Self {
        let limit = self.mutex.max_shared;
        self.sharing(limit)
    }

    /// The same, by at most `n`: see [`KeyedMutex::at_most`].
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    pub fn at_most(self, n: u32) -> Self {
        self.sharing(limit(n))
    }

    /// The same, exclusively: see [`KeyedMutex::exclusive`].
    pub fn exclusive(self) -> Self {
        Self { sharing: None, ..self }
    }

    fn sharing(self, limit: NonZero<u32>) -> Self {
        self.mutex.shards.prepare_sharing();
        Self { sharing: Some(limit), ..self }
    }
}

impl<H: Handle<Key: Eq + Hash, Hasher: BuildHasher>> Mode<H> {
    /// See [`KeyedMutex::lock`].
    pub fn lock(self, key: H::Key) -> Lock<H> {
        Lock(Acquire { start: Some((self, key)), claim: None })
    }

    /// See [`KeyedMutex::try_lock`]. A shared lock is possible unless the key is locked exclusively, has waiters, or is
    /// at its limit.
    #[must_use = "bind the guard to a name such as `_guard`; `let _ =` unlocks at once"]
    pub fn try_lock(self, key: H::Key) -> Option<Guard<H>> {
        Claim::at_once(self, false, key, |_| true, || None).map(Guard)
    }
}

impl<H: Handle> Clone for Mode<H> {
    fn clone(&self) -> Self {
        Self { mutex: self.mutex.clone(), sharing: self.sharing }
    }
}

impl<H: Handle<Mutex: Copy>> Copy for Mode<H> {}

print_name!([H: Handle] Mode<H>);

#[cfg(target_has_atomic = "ptr")]
impl<K, S> KeyedMutex<K, S> {
    /// Locks keys with an `Arc` of the mutex: what it returns borrows nothing, and may be spawned. To share as well,
    /// call [`shared`](Mode::shared) or [`at_most`](Mode::at_most) after it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// # smol::block_on(async {
    /// let mutex = Arc::new(KeyedMutex::new());
    /// let guard = mutex.arc().lock("alice").await;
    /// smol::spawn(async move { drop(guard) }).await;
    /// # });
    /// ```
    #[doc(alias("lock_arc", "try_lock_arc", "ticket_arc", "ticket_arc_if"))]
    #[doc(alias("lock_many_arc", "lock_shared_arc", "try_lock_shared_arc", "lock_owned"))]
    #[doc(alias("ticket_shared_arc", "ticket_shared_arc_if"))]
    pub fn arc(self: &Arc<Self>) -> Mode<Arc<Self>> {
        Mode { mutex: self.clone(), sharing: None }
    }
}
