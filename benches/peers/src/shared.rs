//! Sharing by key: readers and writers, and at most so many at once, against what people write today.

use std::cell::Cell;
use std::collections::HashMap;
use std::future::Future;
use std::hint::black_box;
use std::sync::{Arc, Mutex};

use async_executor::LocalExecutor;
use async_mutex_lite::{Borrowed, KeyedMutex};
use dashmap::DashMap;
use futures_lite::future::{block_on, yield_now};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, OwnedSemaphorePermit, RwLock, Semaphore};

use crate::rivals::OURS;
use crate::works::{Contestant, leak, number, sample};

/// A lock by key that can be shared. The guards of maps of locks forget the key if nobody else knows its lock, which is
/// what users of such maps forget, and what key-rwlock does every thousand accesses only.
pub trait Rival: Sync + 'static {
    const NAME: &'static str;
    type Shared<'a>;
    type Exclusive<'a>;

    /// Of which at most so many share a key, where that can be said.
    fn new(limit: u32) -> Self;
    fn shared(&self, key: u64) -> impl Future<Output = Self::Shared<'_>>;
    fn exclusive(&self, key: u64) -> impl Future<Output = Self::Exclusive<'_>>;
}

pub struct Ours(KeyedMutex<u64>, u32);

impl Rival for Ours {
    const NAME: &'static str = OURS;
    type Shared<'a> = async_mutex_lite::Guard<Borrowed<'a, u64>>;
    type Exclusive<'a> = async_mutex_lite::Guard<Borrowed<'a, u64>>;

    fn new(limit: u32) -> Self {
        Self(KeyedMutex::new(), limit)
    }

    fn shared(&self, key: u64) -> impl Future<Output = Self::Shared<'_>> {
        self.0.at_most(self.1).lock(key)
    }

    fn exclusive(&self, key: u64) -> impl Future<Output = Self::Exclusive<'_>> {
        self.0.lock(key)
    }
}

/// A map from keys to locks.
pub trait Map<L>: Sync + 'static {
    fn get(&self, key: u64, make: impl FnOnce() -> L) -> Arc<L>;
    fn forget(&self, key: u64);
}

impl<L: Send + Sync + 'static> Map<L> for DashMap<u64, Arc<L>> {
    fn get(&self, key: u64, make: impl FnOnce() -> L) -> Arc<L> {
        self.entry(key).or_insert_with(|| Arc::new(make())).clone()
    }

    fn forget(&self, key: u64) {
        self.remove_if(&key, |_, lock| Arc::strong_count(lock) == 1);
    }
}

impl<L: Send + Sync + 'static> Map<L> for Mutex<HashMap<u64, Arc<L>>> {
    fn get(&self, key: u64, make: impl FnOnce() -> L) -> Arc<L> {
        self.lock().unwrap().entry(key).or_insert_with(|| Arc::new(make())).clone()
    }

    fn forget(&self, key: u64) {
        let mut map = self.lock().unwrap();
        if map.get(&key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            map.remove(&key);
        }
    }
}

/// A guard, and then the clean-up.
pub struct Guard<'a, M: Map<L>, L: 'static, G> {
    _guard: G,
    _forget: Forget<'a, M, L>,
}

pub struct Forget<'a, M: Map<L>, L: 'static>(&'a M, u64, std::marker::PhantomData<fn() -> L>);

impl<M: Map<L>, L> Drop for Forget<'_, M, L> {
    fn drop(&mut self) {
        self.0.forget(self.1);
    }
}

async fn locked<'a, M: Map<L>, L: 'static, G>(
    map: &'a M,
    key: u64,
    make: impl FnOnce() -> L,
    lock: impl AsyncFnOnce(Arc<L>) -> G,
) -> Guard<'a, M, L, G> {
    let forget = Forget(map, key, std::marker::PhantomData);
    let lock = lock(map.get(key, make)).await;
    Guard { _guard: lock, _forget: forget }
}

type TokioMap = DashMap<u64, Arc<RwLock<()>>>;

pub struct DashMapRwLock(TokioMap);

impl Rival for DashMapRwLock {
    const NAME: &'static str = "DashMap + Arc<tokio RwLock>";
    type Shared<'a> = Guard<'a, TokioMap, RwLock<()>, OwnedRwLockReadGuard<()>>;
    type Exclusive<'a> = Guard<'a, TokioMap, RwLock<()>, OwnedRwLockWriteGuard<()>>;

    fn new(_: u32) -> Self {
        Self(DashMap::new())
    }

    fn shared(&self, key: u64) -> impl Future<Output = Self::Shared<'_>> {
        locked(&self.0, key, || RwLock::new(()), async |lock| lock.read_owned().await)
    }

    fn exclusive(&self, key: u64) -> impl Future<Output = Self::Exclusive<'_>> {
        locked(&self.0, key, || RwLock::new(()), async |lock| lock.write_owned().await)
    }
}

type SemaphoreMap = DashMap<u64, Arc<Semaphore>>;

pub struct DashMapSemaphore(SemaphoreMap, u32);

impl Rival for DashMapSemaphore {
    const NAME: &'static str = "DashMap + Arc<tokio Semaphore>";
    type Shared<'a> = Guard<'a, SemaphoreMap, Semaphore, OwnedSemaphorePermit>;
    type Exclusive<'a> = Self::Shared<'a>;

    fn new(limit: u32) -> Self {
        Self(DashMap::new(), limit.min(1 << 20))
    }

    fn shared(&self, key: u64) -> impl Future<Output = Self::Shared<'_>> {
        let make = || Semaphore::new(self.1 as usize);
        locked(&self.0, key, make, async |lock| lock.acquire_owned().await.expect("it is never closed"))
    }

    fn exclusive(&self, key: u64) -> impl Future<Output = Self::Exclusive<'_>> {
        let (make, all) = (|| Semaphore::new(self.1 as usize), self.1);
        locked(&self.0, key, make, async move |lock| lock.acquire_many_owned(all).await.expect("it is never closed"))
    }
}

type AsyncLockMap = Mutex<HashMap<u64, Arc<async_lock::RwLock<()>>>>;

/// Not fair: async-lock's lets newcomers in before those that wait.
pub struct HashMapRwLock(AsyncLockMap);

impl Rival for HashMapRwLock {
    const NAME: &'static str = "Mutex<HashMap> + Arc<async-lock RwLock>";
    type Shared<'a> = Guard<'a, AsyncLockMap, async_lock::RwLock<()>, async_lock::RwLockReadGuardArc<()>>;
    type Exclusive<'a> = Guard<'a, AsyncLockMap, async_lock::RwLock<()>, async_lock::RwLockWriteGuardArc<()>>;

    fn new(_: u32) -> Self {
        Self(Mutex::default())
    }

    fn shared(&self, key: u64) -> impl Future<Output = Self::Shared<'_>> {
        locked(&self.0, key, || async_lock::RwLock::new(()), async |lock| lock.read_arc().await)
    }

    fn exclusive(&self, key: u64) -> impl Future<Output = Self::Exclusive<'_>> {
        locked(&self.0, key, || async_lock::RwLock::new(()), async |lock| lock.write_arc().await)
    }
}

/// Forgets keys every thousand accesses.
pub struct KeyRwLock(key_rwlock::KeyRwLock<u64>);

impl Rival for KeyRwLock {
    const NAME: &'static str = "key-rwlock";
    type Shared<'a> = OwnedRwLockReadGuard<()>;
    type Exclusive<'a> = OwnedRwLockWriteGuard<()>;

    fn new(_: u32) -> Self {
        Self(key_rwlock::KeyRwLock::new())
    }

    fn shared(&self, key: u64) -> impl Future<Output = Self::Shared<'_>> {
        self.0.read(key)
    }

    fn exclusive(&self, key: u64) -> impl Future<Output = Self::Exclusive<'_>> {
        self.0.write(key)
    }
}

/// Locks and unlocks free keys in turn, to share or for oneself.
pub fn cycle<R: Rival>(share: bool, operations: usize) -> Contestant {
    const KEYS: u64 = 1_000;
    let rival: &R = leak(R::new(u32::MAX));
    Contestant {
        name: R::NAME,
        measure: Box::new(move || {
            sample(operations, || {
                block_on(async {
                    for at in 0..operations {
                        let key = number(at) % KEYS;
                        match share {
                            true => drop(black_box(rival.shared(key).await)),
                            false => drop(black_box(rival.exclusive(key).await)),
                        }
                    }
                });
            })
        }),
    }
}

/// Who is inside.
#[derive(Default)]
struct Inside {
    sharers: Cell<u32>,
    exclusive: Cell<bool>,
}

/// Tasks on one key that hold it across a yield; `writers` in ten want it for themselves, and at most `limit` share it.
pub fn tasks<R: Rival>(tasks: usize, writers: u8, limit: u32, operations: usize) -> Contestant {
    let rival: &R = leak(R::new(limit));
    let each = operations / tasks;
    let run = move || {
        let inside = Inside::default();
        let executor = LocalExecutor::new();
        let work = |task: usize| {
            let inside = &inside;
            let mut random = fastrand::Rng::with_seed(task as u64);
            async move {
                for _ in 0..each {
                    if random.u8(..10) < writers {
                        let _guard = rival.exclusive(7).await;
                        assert!(!inside.exclusive.replace(true) && inside.sharers.get() == 0, "two are inside");
                        yield_now().await;
                        inside.exclusive.set(false);
                    } else {
                        let _share = rival.shared(7).await;
                        inside.sharers.set(inside.sharers.get() + 1);
                        assert!(
                            !inside.exclusive.get() && inside.sharers.get() <= limit,
                            "more than may be are inside"
                        );
                        yield_now().await;
                        inside.sharers.set(inside.sharers.get() - 1);
                    }
                }
            }
        };
        let tasks: Vec<_> = (0..tasks).map(|task| executor.spawn(work(task))).collect();
        block_on(executor.run(async {
            for task in tasks {
                task.await;
            }
        }));
    };
    Contestant { name: R::NAME, measure: Box::new(move || sample(each * tasks, run)) }
}
