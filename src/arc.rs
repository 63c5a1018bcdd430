//! The same again, owning an `Arc` of the mutex: guards and tickets that borrow nothing.

use alloc::sync::Arc;
use core::future::Future;
use core::hash::{BuildHasher, Hash};

#[cfg(all(feature = "std", not(target_family = "wasm")))]
use crate::block::block;
use crate::claim::{Acquire, Handle, Mutex, claim_now};
use crate::guard::{Guard, Guards};
use crate::hash::RandomState;
use crate::many::acquire_all;
use crate::mutex::{KeyedMutex, unless};
use crate::table::{KeyState, Locked};
use crate::ticket::{Queued, queue, ticket};

impl<K, S> Handle for Arc<KeyedMutex<K, S>> {
    type Key = K;

    fn shard(&self, hash: u32) -> &Locked<K> {
        self.shards.of(hash)
    }
}

impl<K: Eq + Hash, S: BuildHasher> Mutex<Self> for Arc<KeyedMutex<K, S>> {
    fn find(self, key: &K) -> (u32, Self) {
        (self.hash(key), self)
    }
}

/// Like [`KeyedMutexGuard`](crate::KeyedMutexGuard), but owns an `Arc` of its [`KeyedMutex`].
#[doc(alias("OwnedMutexGuard"))]
pub type KeyedMutexGuardArc<K, S = RandomState> = Guard<Arc<KeyedMutex<K, S>>>;

/// Like [`KeyedMutexSharedGuard`](crate::KeyedMutexSharedGuard), but owns an `Arc` of its [`KeyedMutex`].
pub type KeyedMutexSharedGuardArc<K, S = RandomState> = Guard<Arc<KeyedMutex<K, S>>, true>;

/// Like [`KeyedMutexGuards`](crate::KeyedMutexGuards), but owns an `Arc` of its [`KeyedMutex`].
pub type KeyedMutexGuardsArc<K, S = RandomState> = Guards<Arc<KeyedMutex<K, S>>>;

/// Like [`Ticket`](crate::Ticket), but owns an `Arc` of its [`KeyedMutex`].
pub type TicketArc<K, S = RandomState> = Queued<Arc<KeyedMutex<K, S>>>;

/// Like [`SharedTicket`](crate::SharedTicket), but owns an `Arc` of its [`KeyedMutex`].
pub type SharedTicketArc<K, S = RandomState> = Queued<Arc<KeyedMutex<K, S>>, true>;

impl<K: Eq + Hash, S: BuildHasher> KeyedMutex<K, S> {
    /// Like [`lock`](Self::lock), but the guard owns an `Arc` of the mutex.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// # smol::block_on(async {
    /// let mutex = Arc::new(KeyedMutex::new());
    /// let guard = mutex.lock_arc("alice").await;
    /// smol::spawn(async move { drop(guard) }).await;
    /// # });
    /// ```
    #[doc(alias("lock_owned"))]
    pub fn lock_arc(self: &Arc<Self>, key: K) -> impl Future<Output = KeyedMutexGuardArc<K, S>> + Unpin + use<K, S> {
        Acquire::new(self.clone(), key)
    }

    /// Like [`try_lock`](Self::try_lock), but the guard owns an `Arc` of the mutex.
    #[must_use = "bind the guard to a name such as `_guard`; `let _ =` unlocks at once"]
    #[doc(alias("try_lock_owned"))]
    pub fn try_lock_arc(self: &Arc<Self>, key: K) -> Option<KeyedMutexGuardArc<K, S>> {
        claim_now(self.clone(), key)
    }

    /// Like [`lock_unless`](Self::lock_unless), but the guard owns an `Arc` of the mutex.
    ///
    /// # Errors
    ///
    /// Returns the output of the signal, if that was ready first.
    pub fn lock_arc_unless<T, F: Future<Output = T>>(
        self: &Arc<Self>,
        key: K,
        signal: F,
    ) -> impl Future<Output = Result<KeyedMutexGuardArc<K, S>, T>> + use<K, S, T, F> {
        unless(self.lock_arc(key), signal)
    }

    /// Like [`lock_blocking`](Self::lock_blocking), but the guard owns an `Arc` of the mutex.
    #[cfg(all(feature = "std", not(target_family = "wasm")))]
    pub fn lock_arc_blocking(self: &Arc<Self>, key: K) -> KeyedMutexGuardArc<K, S> {
        block(self.lock_arc(key), None).expect("there is no deadline")
    }

    /// Like [`lock_shared`](Self::lock_shared), but the guard owns an `Arc` of the mutex.
    pub fn lock_shared_arc(
        self: &Arc<Self>,
        key: K,
    ) -> impl Future<Output = KeyedMutexSharedGuardArc<K, S>> + Unpin + use<K, S> {
        Acquire::new(self.clone(), key)
    }

    /// Like [`try_lock_shared`](Self::try_lock_shared), but the guard owns an `Arc` of the mutex.
    #[must_use = "bind the guard to a name such as `_guard`; `let _ =` unlocks at once"]
    pub fn try_lock_shared_arc(self: &Arc<Self>, key: K) -> Option<KeyedMutexSharedGuardArc<K, S>> {
        claim_now(self.clone(), key)
    }

    /// Like [`lock_shared_blocking`](Self::lock_shared_blocking), but the guard owns an `Arc` of the mutex.
    #[cfg(all(feature = "std", not(target_family = "wasm")))]
    pub fn lock_shared_arc_blocking(self: &Arc<Self>, key: K) -> KeyedMutexSharedGuardArc<K, S> {
        block(self.lock_shared_arc(key), None).expect("there is no deadline")
    }

    /// Like [`ticket`](Self::ticket), but the ticket owns an `Arc` of the mutex.
    pub fn ticket_arc(self: &Arc<Self>, key: K) -> TicketArc<K, S> {
        queue(self.clone(), key)
    }

    /// Like [`ticket_if`](Self::ticket_if), but the ticket owns an `Arc` of the mutex.
    #[must_use = "a ticket that is dropped gives up its place in the queue"]
    pub fn ticket_arc_if(self: &Arc<Self>, key: K, admit: impl FnOnce(KeyState) -> bool) -> Option<TicketArc<K, S>> {
        ticket(self.clone(), key, admit)
    }

    /// Like [`ticket_shared`](Self::ticket_shared), but the ticket owns an `Arc` of the mutex.
    pub fn ticket_shared_arc(self: &Arc<Self>, key: K) -> SharedTicketArc<K, S> {
        queue(self.clone(), key)
    }

    /// Like [`ticket_shared_if`](Self::ticket_shared_if), but the ticket owns an `Arc` of the mutex.
    #[must_use = "a ticket that is dropped gives up its place in the queue"]
    pub fn ticket_shared_arc_if(
        self: &Arc<Self>,
        key: K,
        admit: impl FnOnce(KeyState) -> bool,
    ) -> Option<SharedTicketArc<K, S>> {
        ticket(self.clone(), key, admit)
    }

    /// Like [`lock_many`](Self::lock_many), but the guards own an `Arc` of the mutex.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// # smol::block_on(async {
    /// let mutex = Arc::new(KeyedMutex::new());
    /// let transfer = mutex.lock_many_arc(["bob", "alice"]).await;
    /// smol::spawn(async move { drop(transfer) }).await;
    /// assert!(mutex.is_empty());
    /// # });
    /// ```
    pub fn lock_many_arc<I: IntoIterator<Item = K>>(
        self: &Arc<Self>,
        keys: I,
    ) -> impl Future<Output = KeyedMutexGuardsArc<K, S>> + use<K, S, I>
    where
        K: Ord,
    {
        acquire_all(self.clone(), keys)
    }
}
