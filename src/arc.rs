//! The same again, for those who own an `Arc` of the mutex: guards and tickets that borrow nothing.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::hash::{BuildHasher, Hash};
use core::pin::Pin;
use core::task::{Context, Poll};

#[cfg(all(feature = "std", not(target_family = "wasm")))]
use crate::block::block;
use crate::claim::{Acquire, Handle, Holder, Waiter};
use crate::guard::{exclusive, guard};
use crate::hash::RandomState;
use crate::many::acquire_all;
use crate::mutex::{KeyedMutex, unless};
use crate::run::{Stopped, unless_stopped};
use crate::shard::Plain;
use crate::share::{Share, downgrade};
use crate::table::Table;
use crate::ticket::{join, ticket};

impl<K, S> Handle for Arc<KeyedMutex<K, S>> {
    type Key = K;
    type Hasher = S;

    fn table(&self) -> &Table<K, S> {
        &self.table
    }
}

guard! {
    /// Like [`KeyedMutexGuard`](crate::KeyedMutexGuard), but owns an `Arc` of its [`KeyedMutex`].
    KeyedMutexGuardArc<K, S>, Holder<Arc<KeyedMutex<K, S>>>
}

exclusive!(KeyedMutexGuardArc<K, S>);
downgrade!(KeyedMutexGuardArc<K, S> => KeyedMutexSharedGuardArc);

guard! {
    /// Like [`KeyedMutexSharedGuard`](crate::KeyedMutexSharedGuard), but owns an `Arc` of its [`KeyedMutex`].
    KeyedMutexSharedGuardArc<K, S>, Holder<Arc<KeyedMutex<K, S>>>
}

guard! {
    /// Like [`KeyedMutexGuards`](crate::KeyedMutexGuards), but owns an `Arc` of its [`KeyedMutex`].
    KeyedMutexGuardsArc<K, S>, Vec<Holder<Arc<KeyedMutex<K, S>>>>
}

ticket! {
    /// Like [`Ticket`](crate::Ticket), but owns an `Arc` of its [`KeyedMutex`].
    TicketArc<K, S>, Arc<KeyedMutex<K, S>> => KeyedMutexGuardArc
}

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
    pub fn lock_arc(self: &Arc<Self>, key: K) -> impl Future<Output = KeyedMutexGuardArc<K, S>> + Unpin + use<K, S> {
        Acquire::<_, _, Plain>::new(self.clone(), key, |holder, _| KeyedMutexGuardArc(holder))
    }

    /// Like [`try_lock`](Self::try_lock), but the guard owns an `Arc` of the mutex.
    #[must_use = "bind the guard to a name such as `_guard`; `let _ =` unlocks at once"]
    pub fn try_lock_arc(self: &Arc<Self>, key: K) -> Option<KeyedMutexGuardArc<K, S>> {
        Holder::now::<Plain>(self.clone(), key).map(KeyedMutexGuardArc)
    }

    /// Like [`lock_unless`](Self::lock_unless), but the guard owns an `Arc` of the mutex.
    ///
    /// # Errors
    ///
    /// What the signal returned, if it came first.
    pub fn lock_unless_arc<T, F: Future<Output = T>>(
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
        Acquire::<_, _, Share>::new(self.clone(), key, |holder, _| KeyedMutexSharedGuardArc(holder))
    }

    /// Like [`try_lock_shared`](Self::try_lock_shared), but the guard owns an `Arc` of the mutex.
    #[must_use = "bind the guard to a name such as `_guard`; `let _ =` unlocks at once"]
    pub fn try_lock_shared_arc(self: &Arc<Self>, key: K) -> Option<KeyedMutexSharedGuardArc<K, S>> {
        Holder::now::<Share>(self.clone(), key).map(KeyedMutexSharedGuardArc)
    }

    /// Like [`lock_shared_blocking`](Self::lock_shared_blocking), but the guard owns an `Arc` of the mutex.
    #[cfg(all(feature = "std", not(target_family = "wasm")))]
    pub fn lock_shared_arc_blocking(self: &Arc<Self>, key: K) -> KeyedMutexSharedGuardArc<K, S> {
        block(self.lock_shared_arc(key), None).expect("there is no deadline")
    }

    /// Like [`ticket`](Self::ticket), but the ticket owns an `Arc` of the mutex.
    pub fn ticket_arc(self: &Arc<Self>, key: K) -> TicketArc<K, S> {
        TicketArc(join(self.clone(), key, |_| true).expect("everybody is admitted"))
    }

    /// Like [`ticket_if`](Self::ticket_if), but the ticket owns an `Arc` of the mutex.
    #[must_use = "a ticket that is dropped gives up its place in the queue"]
    pub fn ticket_arc_if(self: &Arc<Self>, key: K, admit: impl FnOnce(usize) -> bool) -> Option<TicketArc<K, S>> {
        join(self.clone(), key, admit).map(TicketArc)
    }

    /// Like [`lock_many`](Self::lock_many), but the guards own an `Arc` of the mutex.
    pub fn lock_many_arc<I: IntoIterator<Item = K>>(
        self: &Arc<Self>,
        keys: I,
    ) -> impl Future<Output = KeyedMutexGuardsArc<K, S>> + use<K, S, I>
    where
        K: Ord,
    {
        acquire_all(self.clone(), keys, KeyedMutexGuardsArc)
    }
}
