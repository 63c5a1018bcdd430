//! A server, fleets on it, and what must hold when all is over.

#[path = "../../src/bank.rs"]
pub mod bank;
#[path = "../../src/server.rs"]
mod server;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_mutex_lite::KeyedMutex;
use fleet::{Error, Fleet};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use bank::Charge;
use server::Server;

/// Each fault happens so many times.
pub const TIMES: usize = 20;
/// Only a test that fails takes so long: this machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const SCHEMA: &str = "test";

pub type Outcome = Result<(), Error<String>>;

/// A new database, which each test gets a copy of: to make one takes longer than to start a server.
static NEW: LazyLock<Server> =
    LazyLock::new(|| Server::start(None, r#""$bin/pg_ctl" -D "$dir/data" -m fast -w stop"#).unwrap());

/// A server of the test's own.
pub struct Bench {
    server: Arc<Server>,
    port: AtomicU16,
}

impl Bench {
    pub fn new() -> Self {
        Self::with("")
    }

    /// With more than a server: see [`Server::start`].
    pub fn with(more: &str) -> Self {
        Self { server: Arc::new(Server::start(Some(&NEW), more).unwrap()), port: AtomicU16::new(5432) }
    }

    pub fn url(&self) -> String {
        self.url_of(self.port.load(Relaxed))
    }

    /// The address of a server, or of a pooler.
    pub fn url_of(&self, port: u16) -> String {
        self.server.url().replace("@localhost/", &format!("@localhost:{port}/"))
    }

    /// The socket of a server, or of a pooler.
    pub fn socket(&self, port: u16) -> PathBuf {
        self.server.directory().join(format!(".s.PGSQL.{port}"))
    }

    /// From now on another server has the books.
    pub fn lead_to(&self, port: u16) {
        self.port.store(port, Relaxed);
    }

    /// Opens the books anew.
    pub async fn open(&self, accounts: i32) {
        bank::open(&mut self.connect().await, SCHEMA, accounts).await.unwrap();
    }

    /// A connection of the test's own, to look on and to do harm.
    pub async fn connect(&self) -> PgConnection {
        self.connect_to(&self.url()).await
    }

    pub async fn connect_to(&self, url: &str) -> PgConnection {
        PgConnection::connect_with(&bank::options(url, SCHEMA, "test").unwrap()).await.unwrap()
    }

    pub async fn execute(&self, sql: &str) {
        self.connect().await.execute(AssertSqlSafe(sql)).await.unwrap();
    }

    /// What a process would have: a mutex and a pool.
    pub fn fleet(&self, name: &str, connections: u32) -> Fleet {
        fleet_at(&self.url(), name, connections)
    }

    pub async fn restart(&self, mode: &'static str) {
        let server = self.server.clone();
        tokio::task::spawn_blocking(move || server.restart(mode)).await.unwrap();
    }

    pub async fn shell(&self, line: &str) {
        let (server, line) = (self.server.clone(), line.to_owned());
        tokio::task::spawn_blocking(move || server.shell(&line)).await.unwrap();
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

/// The same, by way of something that stands before the server.
pub fn fleet_at(url: &str, name: &str, connections: u32) -> Fleet {
    fleet_with(url, name, PgPoolOptions::new().max_connections(connections))
}

pub fn fleet_with(url: &str, name: &str, pool: PgPoolOptions) -> Fleet {
    let pool = pool.connect_lazy_with(bank::options(url, SCHEMA, name).unwrap());
    let (work_limit, commit_limit) = (Some(PATIENCE), Some(PATIENCE));
    Fleet { mutex: Arc::new(KeyedMutex::new()), pool, limit: PATIENCE, work_limit, commit_limit }
}

pub fn charge(id: impl ToString, account: i32) -> Charge {
    Charge { id: id.to_string(), account, amount: 7 }
}

/// Charges once. A retry may call it again.
pub async fn pay(fleet: &Fleet, charge: &Charge) -> Outcome {
    let work = async |db: &mut _| bank::charge(db, charge, Duration::from_millis(1)).await;
    fleet.run([charge.key()], work).await
}

/// Charges once, and looks: it works on no standby, and what was told as undone was not done.
pub async fn pay_and_look(fleet: &Fleet, charge: &Charge, unknown: &AtomicBool) -> Outcome {
    let work = async |db: &mut PgConnection| {
        let look = "SELECT pg_is_in_recovery(), EXISTS (SELECT FROM charges WHERE id = $1)";
        let look = sqlx::query_as(look).persistent(false).bind(&charge.id);
        let (standby, done): (bool, bool) = look.fetch_one(&mut *db).await?;
        assert!(!standby, "it works with the lock of a standby");
        assert!(!done || unknown.load(Relaxed), "it was told as undone, and was done");
        bank::charge(db, charge, Duration::from_millis(1)).await
    };
    let told = fleet.run([charge.key()], work).await;
    unknown.fetch_or(matches!(told, Err(Error::Unknown(_))), Relaxed);
    told
}

/// Holds the key of account 0 in both layers, in the middle of a charge, until it is told to go on.
pub async fn hold(fleet: &Fleet, id: &str) -> (oneshot::Sender<()>, JoinHandle<Outcome>) {
    holding(fleet, charge(id, 0)).await
}

pub async fn holding(fleet: &Fleet, charge: Charge) -> (oneshot::Sender<()>, JoinHandle<Outcome>) {
    let ((release, released), (say, says)) = (oneshot::channel::<()>(), oneshot::channel());
    let fleet = fleet.clone();
    let task = tokio::spawn(async move {
        let work = async |db: &mut PgConnection| {
            say.send(()).unwrap();
            let _ = released.await;
            bank::charge(db, &charge, Duration::ZERO).await
        };
        fleet.run([charge.key()], work).await
    });
    says.await.unwrap();
    (release, task)
}
