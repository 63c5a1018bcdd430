//! The same work under smol, async-std, tokio and no executor at all: the crate knows none of them.
#![cfg(test)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use async_mutex_lite::{KeyedMutex, Stopped};
use futures_lite::future::yield_now;

const TASKS: u64 = 64;
const ROUNDS: u64 = 50;
const KEYS: u64 = 4;

/// A balance for each key, read and written with an `.await` in between: wrong at once without a lock.
#[derive(Default)]
struct Bank {
    mutex: KeyedMutex<u64>,
    balances: [AtomicU64; KEYS as usize],
}

impl Bank {
    async fn deposit(&self, key: u64) {
        let balance = self.balances[key as usize].load(Relaxed);
        yield_now().await;
        self.balances[key as usize].store(balance + 1, Relaxed);
    }

    async fn work(self: Arc<Self>, task: u64) {
        for round in 0..ROUNDS {
            let key = (task + round) % KEYS;
            match round % 3 {
                0 => {
                    let _guard = self.mutex.lock(key).await;
                    self.deposit(key).await;
                }
                1 => self.mutex.run(key, async || self.deposit(key).await).await.unwrap(),
                _ => {
                    let deposit = async || {
                        self.deposit(key).await;
                        Ok::<_, Stopped>(())
                    };
                    self.mutex.run_or_stop(key, deposit).await.unwrap().unwrap();
                }
            }
        }
    }

    #[track_caller]
    fn check(&self) {
        let total: u64 = self.balances.iter().map(|balance| balance.load(Relaxed)).sum();
        assert_eq!(total, TASKS * ROUNDS, "deposits were lost");
        assert!(self.mutex.is_empty());
    }
}

#[test]
fn smol() {
    let bank = Arc::new(Bank::default());
    smol::block_on(async {
        let tasks: Vec<_> = (0..TASKS).map(|task| smol::spawn(bank.clone().work(task))).collect();
        for task in tasks {
            task.await;
        }
    });
    bank.check();
}

#[test]
fn async_std_executor() {
    let bank = Arc::new(Bank::default());
    async_std::task::block_on(async {
        let tasks: Vec<_> = (0..TASKS).map(|task| async_std::task::spawn(bank.clone().work(task))).collect();
        for task in tasks {
            task.await;
        }
    });
    bank.check();
}

fn on_tokio(builder: &mut tokio::runtime::Builder) {
    let bank = Arc::new(Bank::default());
    let runtime = builder.build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..TASKS).map(|task| tokio::spawn(bank.clone().work(task))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    bank.check();
}

#[test]
fn tokio_with_threads() {
    on_tokio(tokio::runtime::Builder::new_multi_thread().worker_threads(4));
}

#[test]
fn tokio_on_one_thread() {
    on_tokio(&mut tokio::runtime::Builder::new_current_thread());
}

#[test]
fn no_executor() {
    let bank = Arc::new(Bank::default());
    std::thread::scope(|scope| {
        for task in 0..TASKS {
            let bank = bank.clone();
            scope.spawn(move || futures_lite::future::block_on(bank.work(task)));
        }
    });
    bank.check();
}

#[test]
fn timers_of_each_runtime_end_a_wait() {
    const SOON: Duration = Duration::from_millis(1);
    let mutex = KeyedMutex::<_>::new();
    let _held = mutex.try_lock("key").unwrap();
    smol::block_on(async {
        assert!(mutex.lock("key").unless(smol::Timer::after(SOON)).await.is_err());
    });
    async_std::task::block_on(async {
        assert!(mutex.lock("key").unless(async_std::task::sleep(SOON)).await.is_err());
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        assert!(mutex.lock("key").unless(tokio::time::sleep(SOON)).await.is_err());
        // Or the other way round, with the runtime's own timeout: dropping a future is always allowed.
        assert!(tokio::time::timeout(SOON, mutex.lock("key")).await.is_err());
    });
    assert_eq!(mutex.state("key").waiting, 0);
}

#[test]
fn a_ticket_is_a_future_for_select_timeout_and_join() {
    let mutex = Arc::new(KeyedMutex::<u32>::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let guard = tokio::time::timeout(Duration::MAX, mutex.ticket(1)).await.expect("in time").unwrap();
        let mut waits = mutex.arc().ticket(1);
        tokio::select! {
            biased;
            _ = &mut waits => panic!("it is held"),
            () = async {} => {}
        }
        let signalled = futures_lite::future::or(async { mutex.ticket(1).await.is_ok() }, async { false });
        assert!(!signalled.await, "and the place is given up");
        assert_eq!(mutex.state(&1).waiting, 1);
        drop(guard);
        assert!(waits.await.is_ok());
    });
    assert!(mutex.is_empty());
}

#[test]
fn a_run_may_be_spawned_on_executors_with_threads() {
    static MUTEX: KeyedMutex<u32> = KeyedMutex::new();
    let task = smol::spawn(MUTEX.run(1, async || 2));
    assert_eq!(smol::block_on(task), Ok(2));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let task = runtime.spawn(async { MUTEX.run_or_stop(1, async || Ok::<_, Stopped>(3)).await });
    assert_eq!(runtime.block_on(task).unwrap(), Ok(Ok(3)));
}
