//! A server, fleets on it, and what must hold when all is over.
#![allow(dead_code, reason = "each test file uses its part")]

#[path = "../../src/bank.rs"]
pub mod bank;
#[path = "../../src/server.rs"]
mod server;

use std::sync::Arc;
use std::time::Duration;

use async_mutex_lite::KeyedMutex;
use fleet::{Error, Fleet};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::time::{Instant, sleep, timeout};

use bank::Charge;
use server::Server;

/// Each fault happens so many times.
pub const TIMES: usize = 20;
/// Only a test that fails takes so long: this machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);
const SCHEMA: &str = "test";

pub type Outcome = Result<(), Error<String>>;

/// A server of the test's own.
pub struct Bench {
    server: Arc<Server>,
}

impl Bench {
    pub fn new() -> Self {
        Self { server: Arc::new(Server::start().unwrap()) }
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Opens the books anew.
    pub async fn open(&self, accounts: i32) {
        bank::open(&mut self.connect().await, SCHEMA, accounts).await.unwrap();
    }

    /// A connection of the test's own, to look on and to do harm.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect_with(&bank::options(&self.url(), SCHEMA, "test").unwrap()).await.unwrap()
    }

    pub async fn execute(&self, sql: &str) {
        self.connect().await.execute(AssertSqlSafe(sql)).await.unwrap();
    }

    /// What a process would have: a mutex and a pool.
    pub fn fleet(&self, name: &str, connections: u32) -> Fleet {
        let options = bank::options(&self.url(), SCHEMA, name).unwrap();
        let pool = PgPoolOptions::new().max_connections(connections).connect_lazy_with(options);
        Fleet { mutex: Arc::new(KeyedMutex::new()), pool, limit: PATIENCE }
    }

    pub async fn restart(&self, mode: &'static str) {
        let server = self.server.clone();
        tokio::task::spawn_blocking(move || server.restart(mode)).await.unwrap();
    }

    /// Waits until `sql` says so.
    #[track_caller]
    pub fn until(&self, sql: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let mut db = self.connect().await;
            let deadline = Instant::now() + PATIENCE;
            while !sqlx::query_scalar::<_, bool>(AssertSqlSafe(sql)).fetch_one(&mut db).await.unwrap() {
                assert!(Instant::now() < deadline, "{caller}: never came true: {sql}");
                sleep(Duration::from_millis(2)).await;
            }
        }
    }

    /// Waits until an advisory lock is held.
    #[track_caller]
    pub fn until_held(&self) -> impl Future<Output = ()> {
        self.until("SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND granted")
    }

    /// Waits until a connection of a fleet waits for an advisory lock.
    #[track_caller]
    pub fn until_waits(&self, name: &str) -> impl Future<Output = ()> {
        let sql = format!(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = '{name}' AND wait_event = 'advisory'"
        );
        async move { self.until(&sql).await }
    }

    /// Ends the sessions of a fleet, of those that are not idle.
    pub async fn cut(&self, name: &str) {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE application_name = $1 AND state <> 'idle'";
        let cut: i64 = sqlx::query_scalar(sql).bind(name).fetch_one(&mut self.connect().await).await.unwrap();
        assert_eq!(cut, 1, "one session of {name} was to be cut");
    }

    /// When all is over: no advisory lock is left, no transaction is open, no key is busy, and the books balance.
    #[track_caller]
    pub fn settled(&self, fleets: &[&Fleet], charges: i64) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            for fleet in fleets {
                let idle = timeout(PATIENCE, fleet.mutex.all_idle()).await;
                assert!(idle.is_ok() && fleet.mutex.is_empty(), "{caller}: a key is busy");
            }
            self.until("SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory'").await;
            self.until(
                "SELECT count(*) = 0 FROM pg_stat_activity
                WHERE state LIKE 'idle in transaction%' AND application_name <> 'test'",
            )
            .await;
            let (booked, _, lost) = bank::books(&mut self.connect().await).await.unwrap();
            assert_eq!(lost, 0, "{caller}: the books do not balance");
            assert_eq!(booked, charges, "{caller}: not each charge was done once");
        }
    }
}

pub fn charge(id: impl ToString, account: i32) -> Charge {
    Charge { id: id.to_string(), account, amount: 7 }
}

/// Charges once. A retry may call it again.
pub async fn pay(fleet: &Fleet, charge: &Charge) -> Outcome {
    let work = async |db: &mut _| Ok(bank::charge(db, charge, Duration::from_millis(1)).await?);
    fleet.run([charge.key()], work).await
}
