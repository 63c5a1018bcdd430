//! A keyed lock for a fleet of processes that share a PostgreSQL.
//!
//! Copy this file. It needs `async-mutex-lite`, `sqlx` (features `postgres` and `runtime-tokio`) and `tokio` (`time`).
//!
//! ```text
//!   process 1      many tasks ──> key locked here ──> 1 connection ─┐
//!   process 2      many tasks ──> key locked here ──> 1 connection ─┼──> pg_advisory_xact_lock, the work, COMMIT
//!   process 3      many tasks ──> key locked here ──> 1 connection ─┘
//! ```
//!
//! [`Fleet::run`] locks the key in this process, takes a connection, begins a transaction, takes the advisory lock, runs
//! the work *in that transaction*, commits, gives the connection back, and unlocks the key: in this order.
//!
//! **The database provides the exclusion, and it is exact.** The database releases the advisory lock when the
//! transaction ends, however it ends: a process that loses the connection loses the lock and the work together. There
//! is no lease that the work could outlive. What the work does outside of the database (sending a mail, calling a bank)
//! is neither undone nor excluded.
//!
//! **The lock here is for the queue.** Of all tasks in this process that want a key, only the holder has a connection:
//! a process uses no more connections than it has locked keys, and a hot key cannot take the connections that other
//! keys need. Within a process, tasks are served in FIFO order; between processes PostgreSQL's queue decides, in which
//! each process has at most one task for each key.
//!
//! **Keys are strings.** PostgreSQL hashes them to 64 bits, `hashtextextended(key, 0)`, so that other programs can take
//! the same lock: `SELECT pg_advisory_xact_lock(hashtextextended('account 7', 0))`. All sessions of a server compute
//! the same hash, which is enough: it need not be the same after an upgrade. Two keys that collide wait for each other,
//! needlessly, and nothing else happens; two given keys collide with a probability of 2^-64. Other programs that use
//! advisory locks of one `bigint` in this database share the space, with the same effect.
//!
//! **Several keys** are locked here in their order, then in the database in the order of their hashes. A task that waits in
//! the database holds all its keys here, so there is no deadlock. Do not call [`Fleet::run`] within the work.
//!
//! **READ COMMITTED, always.** A stricter transaction takes its snapshot with its first statement, which is the one that
//! waits for the lock: it would see accounts as they were before the others' work.
//!
//! **The limit** is on waiting, for the key here, for a connection, and for the key there. The server has it too
//! (`lock_timeout`, also for the locks on rows that the work takes), so it does not wait for a caller that has given up.
//!
//! **A retry must be idempotent**, because of [`Error::Unknown`]: give each charge an id, with a unique constraint, and insert
//! it in the same transaction.
//!
//! ```no_run
//! # async fn example(fleet: fleet::Fleet, charge_id: String, amount: i64) {
//! use fleet::{Error, retry};
//!
//! tokio::spawn(async move {
//!     let charge = || fleet.run(["account 7"], async |db| {
//!         let once = "INSERT INTO charges (id) VALUES ($1) ON CONFLICT DO NOTHING";
//!         if sqlx::query(once).bind(&charge_id).execute(&mut *db).await?.rows_affected() == 0 {
//!             return Ok(()); // an attempt whose answer was lost had done it
//!         }
//!         let read = sqlx::query_scalar("SELECT balance FROM accounts WHERE id = 7");
//!         let balance: i64 = read.fetch_one(&mut *db).await?;
//!         if balance < amount {
//!             return Err(Error::Task("there is not enough in it")); // and the charge is not inserted
//!         }
//!         let write = sqlx::query("UPDATE accounts SET balance = $1 WHERE id = 7").bind(balance - amount);
//!         write.execute(&mut *db).await?;
//!         Ok(())
//!     });
//!     retry(5, charge).await
//! });
//! # }
//! ```
//!
//! # Dropping the future
//!
//! | dropped while it | then |
//! | --- | --- |
//! | waits for the key here, or for a connection | nothing has happened, and others keep their order |
//! | waits for the key there | the server keeps waiting until it has the lock, or until its `lock_timeout`; then `ROLLBACK` |
//! | works | `ROLLBACK`, as soon as the statement that runs is over |
//! | commits | unknown, as in [`Error::Unknown`] |
//!
//! The key here stays locked until the answer to `ROLLBACK` has come: no successor takes a second connection meanwhile.
//! A spawned task waits for that answer, so drop the future within a tokio runtime, like any future of sqlx.
//!
//! A process that is killed ends its sessions, and so does a host that shuts down. For a network that fails, set
//! `tcp_keepalives_idle` and `tcp_user_timeout` in the server, or the server's side of the connection keeps the lock.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_mutex_lite::{Guards, KeyedMutex};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// In the order of the hashes, each once: DISTINCT and ORDER BY come before the locks, as they are in a query below.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hash) FROM
    (SELECT DISTINCT hashtextextended(key, 0) AS hash FROM unnest($1::text[]) AS key ORDER BY hash) AS hashes";

/// Why the work was not done, or may not have been.
#[derive(Debug)]
pub enum Error<E> {
    /// The limit on waiting passed. Nothing was done.
    TimedOut,
    /// The database aborted the work: a deadlock, a serialization failure, a lost connection, a full disk, or too
    /// little memory. Nothing was done: try again later.
    Undone(sqlx::Error),
    /// The connection was lost during COMMIT, so the work may have been done or not. Try again if the work is
    /// idempotent.
    Unknown(sqlx::Error),
    /// The database refused, and would again. Nothing was done.
    Database(sqlx::Error),
    /// The work returned an error of its own. Nothing was done.
    Task(E),
}

impl<E> Error<E> {
    /// Whether trying again may help: see [`retry`].
    pub fn may_retry(&self) -> bool {
        matches!(self, Self::Undone(_) | Self::Unknown(_))
    }
}

/// An error of a statement within the work, for `?`.
impl<E> From<sqlx::Error> for Error<E> {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        match code.as_deref() {
            Some("55P03") => Self::TimedOut, // lock_timeout
            // Rolled back; or out of disk, memory or connections, which may pass.
            Some(code) if code.starts_with("40") || code.starts_with("53") => Self::Undone(error),
            _ if matches!(error, sqlx::Error::PoolTimedOut) => Self::TimedOut,
            _ if lost(&error) => Self::Undone(error),
            _ => Self::Database(error),
        }
    }
}

/// Returns whether the error ended the connection, or prevented it.
fn lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => true,
        // Connection exceptions, shutdowns, sessions that idled for too long.
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| ["08", "57P", "25P03", "25P04"].iter().any(|class| code.starts_with(class)))
        }
        _ => false,
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => write!(f, "waited too long, and nothing was done"),
            Self::Undone(error) => write!(f, "undone, and may be tried again: {error}"),
            Self::Unknown(error) => write!(f, "the connection was lost during COMMIT, it may be done or not: {error}"),
            Self::Database(error) => write!(f, "refused: {error}"),
            Self::Task(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for Error<E> {}

/// One process's access to the keys that it shares with others.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub mutex: Arc<KeyedMutex<String>>,
    pub pool: PgPool,
    /// How long to wait before the work begins.
    pub limit: Duration,
}

impl Fleet {
    /// Runs the work while it holds the keys, here and in the database, in one transaction with the locks.
    pub async fn run<T, E>(
        &self,
        keys: impl IntoIterator<Item = impl Into<String>>,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error<E>>,
    ) -> Result<T, Error<E>> {
        let keys: Vec<String> = keys.into_iter().map(Into::into).collect();
        let deadline = Instant::now() + self.limit;
        let late = |_| Error::TimedOut;
        let held = async {
            let guards = self.mutex.arc().lock_many(keys.clone()).await;
            Ok::<_, Error<E>>(Held(Some((self.pool.acquire().await?, guards))))
        };
        let mut held = timeout_at(deadline, held).await.map_err(late)??; // dropped after the transaction

        let begun = async {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis().clamp(1, 1 << 30); // 0: no limit
            let begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {left}");
            let (connection, _) = held.0.as_mut().expect("it is taken at the end");
            let mut transaction = connection.begin_with(AssertSqlSafe(begin)).await?;
            sqlx::query(LOCK).bind(keys).execute(&mut *transaction).await?;
            Ok::<_, Error<E>>(transaction)
        };
        let mut transaction = timeout_at(deadline, begun).await.map_err(late)??;
        let output = work(&mut transaction).await?;
        // To the COMMIT of a transaction in which a statement has failed PostgreSQL answers ROLLBACK, and sqlx takes that
        // for success. This fails then, if the work has kept that error to itself.
        transaction.execute("SELECT 1").await?;
        match transaction.commit().await {
            Err(error) if lost(&error) => return Err(Error::Unknown(error)),
            outcome => outcome?,
        }
        let (mut connection, _guards) = held.0.take().expect("it is not taken yet");
        connection.return_to_pool().await; // as its `drop` would, but that leaves it to a task
        Ok(output)
    }
}

/// What is given back in the end: the connection, then the keys here, so that the next one finds it in the pool.
struct Held(Option<(PoolConnection<Postgres>, Keys)>);

/// The keys that are locked here.
type Keys = Guards<Arc<KeyedMutex<String>>>;

impl Drop for Held {
    /// Rolls back what was given up midway, even if sqlx has done so: it forgets a BEGIN that was not answered yet.
    fn drop(&mut self) {
        let Some((mut connection, guards)) = self.0.take() else { return };
        tokio::spawn(async move {
            // The answer comes after that to the statement that was given up. If either is an error, nothing is sure but
            // the end of the session.
            match timeout(Duration::from_secs(60), connection.execute("ROLLBACK")).await {
                Ok(Ok(_)) => connection.return_to_pool().await,
                _ => drop(timeout(Duration::from_secs(5), connection.close()).await),
            }
            drop(guards);
        });
    }
}

/// Tries until it succeeds, until trying again would not help, or `tries` times, with pauses that double.
///
/// What is tried must be idempotent: see [`Error::Unknown`].
pub async fn retry<T, E, F>(tries: u32, mut attempt: impl FnMut() -> F) -> Result<T, Error<E>>
where
    F: Future<Output = Result<T, Error<E>>>,
{
    let mut pauses = (1..tries).map(|tried| Duration::from_millis(5 << tried.min(7)));
    loop {
        match (attempt().await, pauses.next()) {
            (Err(error), Some(pause)) if error.may_retry() => sleep(pause).await,
            (outcome, _) => return outcome,
        }
    }
}
