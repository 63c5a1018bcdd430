//! The locks that are compared, behind one trait.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::{Future, ready};
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

use async_mutex_lite::{Borrowed, KeyedMutex};
use dashmap::DashMap;
use lockable::{LockPool, Lockable};

pub trait Key: Clone + Debug + Eq + Hash + Send + Sync + 'static {}
impl<K: Clone + Debug + Eq + Hash + Send + Sync + 'static> Key for K {}

pub trait Rival<K: Key>: Sync + 'static {
    const NAME: &'static str;
    type Guard<'a>;

    fn new() -> Self;

    /// Locks a key. Each clones it as often as it must.
    fn lock<'a>(&'a self, key: &'a K) -> impl Future<Output = Self::Guard<'a>>;

    /// Runs a task under the key.
    fn run<F: Future<Output = ()>>(&self, key: &K, task: impl FnOnce() -> F) -> impl Future<Output = ()> {
        async {
            let _guard = self.lock(key).await;
            task().await;
        }
    }
}

pub const OURS: &str = "async-mutex-lite";

pub struct Ours<K>(KeyedMutex<K>);

impl<K: Key> Rival<K> for Ours<K> {
    const NAME: &'static str = OURS;
    type Guard<'a> = async_mutex_lite::Guard<Borrowed<'a, K>>;

    fn new() -> Self {
        Self(KeyedMutex::new())
    }

    fn lock<'a>(&'a self, key: &'a K) -> impl Future<Output = Self::Guard<'a>> {
        self.0.lock(key.clone())
    }

    async fn run<F: Future<Output = ()>>(&self, key: &K, task: impl FnOnce() -> F) {
        self.0.run(key.clone(), task).await.expect("nobody stops the queue");
    }
}

pub struct LockableLockPool<K: Key>(LockPool<K>);

impl<K: Key> Rival<K> for LockableLockPool<K> {
    const NAME: &'static str = "lockable::LockPool";
    type Guard<'a> = <LockPool<K> as Lockable<K, ()>>::Guard<'a>;

    fn new() -> Self {
        Self(LockPool::new())
    }

    fn lock<'a>(&'a self, key: &'a K) -> impl Future<Output = Self::Guard<'a>> {
        self.0.async_lock(key.clone())
    }
}

pub struct KeyedLock<K: Key>(keyed_lock::r#async::KeyedLock<K>);

impl<K: Key> Rival<K> for KeyedLock<K> {
    const NAME: &'static str = "keyed-lock";
    type Guard<'a> = keyed_lock::r#async::Guard<'a, K>;

    fn new() -> Self {
        Self(keyed_lock::r#async::KeyedLock::new())
    }

    fn lock<'a>(&'a self, key: &'a K) -> impl Future<Output = Self::Guard<'a>> {
        self.0.lock(key.clone())
    }
}

/// What people write, with the clean-up that they forget.
pub struct DashMapTokio<K: Key>(DashMap<K, Arc<tokio::sync::Mutex<()>>>);

/// Unlocks first, then forgets the key if nobody else knows its lock.
pub struct DashMapTokioGuard<'a, K: Key> {
    _guard: tokio::sync::OwnedMutexGuard<()>,
    _forget: DashMapForget<'a, K>,
}

pub struct DashMapForget<'a, K: Key>(&'a DashMapTokio<K>, K);

impl<K: Key> Drop for DashMapForget<'_, K> {
    fn drop(&mut self) {
        self.0.0.remove_if(&self.1, |_, lock| Arc::strong_count(lock) == 1);
    }
}

impl<K: Key> Rival<K> for DashMapTokio<K> {
    const NAME: &'static str = "DashMap + Arc<tokio Mutex>";
    type Guard<'a> = DashMapTokioGuard<'a, K>;

    fn new() -> Self {
        Self(DashMap::new())
    }

    async fn lock<'a>(&'a self, key: &'a K) -> Self::Guard<'a> {
        // Before the wait, so that one who gives up cleans up too.
        let forget = DashMapForget(self, key.clone());
        let lock = self.0.entry(key.clone()).or_default().clone();
        DashMapTokioGuard { _guard: lock.lock_owned().await, _forget: forget }
    }
}

/// The same with a plain map. async-lock's mutex lets newcomers pass a waiter, so this one is not fair.
pub struct HashMapAsyncLock<K: Key>(std::sync::Mutex<HashMap<K, Arc<async_lock::Mutex<()>>>>);

pub struct HashMapAsyncLockGuard<'a, K: Key> {
    _guard: async_lock::MutexGuardArc<()>,
    _forget: HashMapForget<'a, K>,
}

pub struct HashMapForget<'a, K: Key>(&'a HashMapAsyncLock<K>, &'a K);

impl<K: Key> Drop for HashMapForget<'_, K> {
    fn drop(&mut self) {
        let mut map = self.0.0.lock().unwrap();
        if map.get(self.1).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            map.remove(self.1);
        }
    }
}

impl<K: Key> Rival<K> for HashMapAsyncLock<K> {
    const NAME: &'static str = "Mutex<HashMap> + Arc<async-lock Mutex>";
    type Guard<'a> = HashMapAsyncLockGuard<'a, K>;

    fn new() -> Self {
        Self(Default::default())
    }

    async fn lock<'a>(&'a self, key: &'a K) -> Self::Guard<'a> {
        let forget = HashMapForget(self, key);
        let lock = self.0.lock().unwrap().entry(key.clone()).or_default().clone();
        HashMapAsyncLockGuard { _guard: lock.lock_arc().await, _forget: forget }
    }
}

/// One lock for all keys: what a lock without keys costs.
pub struct UnkeyedTokio(tokio::sync::Mutex<()>);

pub const UNKEYED_TOKIO: &str = "tokio Mutex, no key";

impl<K: Key> Rival<K> for UnkeyedTokio {
    const NAME: &'static str = UNKEYED_TOKIO;
    type Guard<'a> = tokio::sync::MutexGuard<'a, ()>;

    fn new() -> Self {
        Self(Default::default())
    }

    fn lock<'a>(&'a self, _: &'a K) -> impl Future<Output = Self::Guard<'a>> {
        self.0.lock()
    }
}

pub struct UnkeyedAsyncLock(async_lock::Mutex<()>);

pub const UNKEYED_ASYNC_LOCK: &str = "async-lock Mutex, no key";

impl<K: Key> Rival<K> for UnkeyedAsyncLock {
    const NAME: &'static str = UNKEYED_ASYNC_LOCK;
    type Guard<'a> = async_lock::MutexGuard<'a, ()>;

    fn new() -> Self {
        Self(Default::default())
    }

    fn lock<'a>(&'a self, _: &'a K) -> impl Future<Output = Self::Guard<'a>> {
        self.0.lock()
    }
}

/// No lock at all: what any lock by key that keeps its keys in one map must do, an insertion and a removal.
pub struct Floor<K>(spin::Mutex<hashbrown::HashMap<K, ()>>);

pub const FLOOR: &str = "floor: spin lock + hashbrown";

pub struct FloorGuard<'a, K: Key>(&'a Floor<K>, &'a K);

impl<K: Key> Drop for FloorGuard<'_, K> {
    fn drop(&mut self) {
        self.0.0.lock().remove(self.1);
    }
}

impl<K: Key> Rival<K> for Floor<K> {
    const NAME: &'static str = FLOOR;
    type Guard<'a> = FloorGuard<'a, K>;

    fn new() -> Self {
        Self(Default::default())
    }

    fn lock<'a>(&'a self, key: &'a K) -> impl Future<Output = Self::Guard<'a>> {
        self.0.lock().insert(key.clone(), ());
        ready(FloorGuard(self, key))
    }
}

/// Not even that: what is measured along with every lock by key.
pub struct Bare<K>(PhantomData<fn() -> K>);

pub const BARE: &str = "no lock, the key cloned and dropped";

impl<K: Key> Rival<K> for Bare<K> {
    const NAME: &'static str = BARE;
    type Guard<'a> = K;

    fn new() -> Self {
        Self(PhantomData)
    }

    fn lock<'a>(&'a self, key: &'a K) -> impl Future<Output = Self::Guard<'a>> {
        ready(key.clone())
    }
}
