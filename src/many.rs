//! Several keys at once.

use alloc::vec::Vec;
use core::hash::{BuildHasher, Hash};
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use crate::claim::{Acquire, Borrowed, Handle, Lock, print_name};
use crate::guard::Guards;
use crate::mode::Mode;
use crate::mutex::KeyedMutex;
use crate::table::{Sharing, each, fill};
use crate::wait::ways_to_wait;

/// Locks several keys, one after another, in one order: the future of [`lock_many`](KeyedMutex::lock_many). It can be
/// waited for in the same ways as a [`Lock`].
#[must_use = "it locks nothing until it is awaited: `.await`, `.unless(signal).await`, `.wait()` or `.wait_timeout(timeout)`"]
pub struct LockMany<H: Handle> {
    /// The first `held` of them are locked. `None`: it has been ready.
    locks: Option<Vec<Acquire<H, false>>>,
    held: usize,
}

impl<H: Handle<Key: Ord>> LockMany<H> {
    /// Puts several locks together, each in a mode of its own: `LockMany::of([mutex.lock(a), mutex.shared().lock(b)])`.
    ///
    /// They are locked one after another, in ascending order of `K`, whose `Ord` must agree with its `Eq`. Of two locks of
    /// one key the stronger counts: the exclusive one, or else that with the lowest limit. The locks may be of several
    /// mutexes: equal keys of these are locked in the order of the mutexes' addresses.
    ///
    /// # Panics
    ///
    /// If one of the locks has been polled.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::{KeyedMutex, LockMany};
    ///
    /// # smol::block_on(async {
    /// let pages = KeyedMutex::new();
    /// let copy = LockMany::of([pages.lock("to"), pages.shared().lock("from")]).await;
    /// assert!(pages.shared().try_lock("from").is_some() && pages.shared().try_lock("to").is_none());
    /// # drop(copy);
    /// # });
    /// ```
    pub fn of(locks: impl IntoIterator<Item = Lock<H>>) -> Self {
        let mut locks: Vec<_> = locks.into_iter().map(|lock| lock.0).collect();
        locks.sort_unstable_by(|a, b| order(a).cmp(&order(b)));
        locks.dedup_by(|b, a| {
            let ((a_key, a, _), (b_key, b, _)) = (order(a), order(b));
            (a_key, a) == (b_key, b)
        });
        Self { locks: Some(locks), held: 0 }
    }
}

/// By what locks are sorted: of two for one key, the stronger comes first.
fn order<H: Handle>(lock: &Acquire<H, false>) -> (&H::Key, *const KeyedMutex<H::Key, H::Hasher>, Sharing) {
    let (mode, key) = lock.start.as_ref().expect("`LockMany::of` is given locks that have not been polled");
    (key, &*mode.mutex, mode.sharing)
}

impl<H: Handle<Key: Eq + Hash, Hasher: BuildHasher>> Future for LockMany<H> {
    type Output = Guards<H>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Guards<H>> {
        let Self { locks, held } = &mut *self;
        let all = locks.as_mut().expect("a `KeyedMutex` future or ticket was polled after completion");
        while let Some(lock) = all.get_mut(*held) {
            let claim = ready!(Pin::new(&mut *lock).poll(context));
            fill(&mut lock.claim, claim);
            *held += 1;
        }
        let locks = locks.take().expect("they were there just now");
        Poll::Ready(Guards(locks.into_iter().filter_map(|lock| lock.claim).collect()))
    }
}

impl<H: Handle> Drop for LockMany<H> {
    fn drop(&mut self) {
        if let Some(locks) = &mut self.locks {
            each(&mut locks.iter_mut().filter_map(|lock| lock.claim.take()), drop);
        }
    }
}

print_name!([H: Handle] LockMany<H>);

ways_to_wait!(LockMany, Guards<H>);

impl<H: Handle<Key: Ord + Hash, Hasher: BuildHasher>> Mode<H> {
    /// See [`KeyedMutex::lock_many`]. To mix modes, use [`LockMany::of`].
    pub fn lock_many(self, keys: impl IntoIterator<Item = H::Key>) -> LockMany<H> {
        LockMany::of(keys.into_iter().map(|key| self.clone().lock(key)))
    }
}

impl<K: Eq + Hash, S: BuildHasher> KeyedMutex<K, S> {
    /// Locks several keys exclusively, one after another, in ascending order of `K`, and returns one guard for all.
    ///
    /// The keys are taken from `keys` at once. The future holds those that it has locked while it waits for the next. A key
    /// that is given twice is locked once; an empty list locks nothing. `Ord` must agree with `Eq`. A stop does not reach
    /// it. To lock each key in a mode of its own, use [`LockMany::of`].
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
    pub fn lock_many(&self, keys: impl IntoIterator<Item = K>) -> LockMany<Borrowed<'_, K, S>>
    where
        K: Ord,
    {
        self.exclusive().lock_many(keys)
    }
}
