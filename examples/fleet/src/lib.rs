//! A keyed lock for a fleet of processes that share a PostgreSQL.
//!
//! Copy this file. It needs `async-mutex-lite`, `sqlx` (features `postgres` and `runtime-tokio`), `thiserror`, `tokio`
//! (`time`), and PostgreSQL 13 or later.
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
//! **The database provides the exclusion, and it is exact.** The advisory lock ends with the transaction, however that ends:
//! a process that loses the connection loses the lock and the work together. What the work does outside of the database
//! (sending a mail, calling a bank) is neither undone nor excluded.
//!
//! **The work never runs without its lock.** The last user of the connection may have left anything in its session:
//! settings, statements under the names that sqlx uses, an open transaction. So the statement that locks has no name,
//! depends on no setting, and returns a number that was drawn for this transaction. Without it the work does not begin, and
//! COMMIT is not sent unless the transaction still has it.
//!
//! **The lock here is for the queue.** Of all tasks in this process that want a key, only the holder has a connection:
//! a process uses no more connections than it has locked keys, and a hot key cannot take those that other keys need. Tasks
//! of a process are served in FIFO order; between processes PostgreSQL's queue decides, in which each has at most one task
//! for each key.
//!
//! **Keys are strings.** PostgreSQL hashes them to 64 bits, so other programs can take the same lock:
//! `SELECT pg_advisory_xact_lock(hashtextextended('account 7', 0))`. Keys that collide (2^-64) wait for each other
//! needlessly, as do programs that use such locks for something else.
//!
//! **Several keys** are locked here in their order, then there in the order of their hashes. A task that waits there
//! holds all its keys here, so there is no deadlock. Do not call [`Fleet::run`] within the work. Without keys
//! nothing is locked. With thousands, the server's table of locks is full (53200).
//!
//! **READ COMMITTED, always.** A stricter transaction would see accounts as they were before it waited for the lock.
//!
//! **A retry must be idempotent**, because of [`Error::Unknown`]: insert an id for each charge, with a unique constraint, in
//! the same transaction. If it is there already, see whether it is the same charge.
//!
//! ```no_run
//! # async fn example(fleet: fleet::Fleet, charge_id: String, amount: i64) {
//! use fleet::{Error, retry};
//! use sqlx::{query, query_scalar};
//!
//! tokio::spawn(async move {
//!     let charge = || fleet.run(["account 7"], async |db| {
//!         let insert = "INSERT INTO charges (id, account, amount) VALUES ($1, 7, $2) ON CONFLICT DO NOTHING";
//!         let insert = query(insert).persistent(false).bind(&charge_id).bind(amount);
//!         if insert.execute(&mut *db).await?.rows_affected() == 0 {
//!             let same = "SELECT account = 7 AND amount = $2 FROM charges WHERE id = $1";
//!             let same = query_scalar(same).persistent(false).bind(&charge_id).bind(amount);
//!             return match same.fetch_one(&mut *db).await? {
//!                 true => Ok(()), // an attempt whose answer was lost had done it
//!                 false => Err(Error::Task("another charge has this id")),
//!             };
//!         }
//!         let read = query_scalar("SELECT balance FROM accounts WHERE id = 7").persistent(false);
//!         let balance: i64 = read.fetch_one(&mut *db).await?;
//!         if balance < amount {
//!             return Err(Error::Task("there is not enough in it")); // and the charge is not inserted
//!         }
//!         let write = query("UPDATE accounts SET balance = $1 WHERE id = 7").persistent(false);
//!         write.bind(balance - amount).execute(&mut *db).await?;
//!         Ok(())
//!     });
//!     retry(5, charge).await
//! });
//! # }
//! ```
//!
//! # Errors
//!
//! | PostgreSQL's code | | waiting for the lock | working | at COMMIT |
//! | --- | --- | --- | --- | --- |
//! | `08`, `57`, `58`, `25P03`, `25P04`, `40003` (1) | the server or the connection is lost | undone | undone | unknown |
//! | `25006` | read only: a standby, since a failover | undone | undone | undone |
//! | `0A000`, `26000`, `42P05` | named statements are outdated, or mixed up | undone | undone | undone |
//! | `57014`, `55P03` | a timeout of the server's, or `pg_cancel_backend` | timed out | undone | undone |
//! | `40`, `53`, `55006`, `72`, `HV001`, `HV00N` | deadlock, no room, in use, too old, no foreign server | undone | undone | undone |
//! | other `25` | an open transaction, or a failed one | undone | final | final |
//! | `XX` | a bug, or damaged data | final | final | unknown |
//! | all others, and `40002` | the database would refuse again | final | final | final |
//!
//! A code counts before its class. (1) And any FATAL or PANIC, in the last two columns.
//!
//! *Timed out* is [`Error::TimedOut`], *final* [`Error::Database`]: after these, and after the work's own error, the
//! connection is kept if it answers ROLLBACK. What is *undone* or *unknown* may be [tried again](retry), on another
//! connection: this one is closed, and after 25006 all idle ones, too.
//!
//! # Limits
//!
//! A network can go away without a word, and sqlx sets no TCP keepalive. So each step has a limit:
//!
//! | silent while it | `run` returns | after | what is known | the key here is unlocked |
//! | --- | --- | --- | --- | --- |
//! | waits for the key here, or for a connection | `TimedOut` | `limit` | nothing was done | at once |
//! | waits for the key there | `TimedOut` | `limit` | nothing was done | after ROLLBACK, or `limit` later |
//! | works | `Undone` | `work_limit` | nothing was done | at once |
//! | commits | `Unknown` | `commit_limit` | it may be done or not | at once |
//! | gives the connection back | what the work did | `limit` | it is done | at once |
//!
//! With `None`, the operating system notices a silent server: a quarter of an hour after something was sent, or never.
//!
//! The server has limits as well. The statement that locks, all keys together, has what is left of `limit`
//! (`statement_timeout`, which the work gets back as it was): the server does not wait for a caller that has given up. A
//! session that hears nothing for `work_limit` is ended (`idle_in_transaction_session_timeout`): a network that went away
//! does not keep the lock. A statement that runs is not cut short: it keeps the lock until it is done.
//!
//! # Dropping the future
//!
//! | dropped while it | then |
//! | --- | --- |
//! | waits for the key here, or for a connection | nothing has happened, and others keep their order |
//! | waits for the key there | the server keeps waiting until it has the lock, or until `limit`; then ROLLBACK |
//! | works, or panics | ROLLBACK, as soon as the statement that runs is over |
//! | commits | unknown, as in [`Error::Unknown`] |
//!
//! A task waits for the answer to ROLLBACK with the key here locked, so that no successor takes a second connection. If it
//! does not come within `limit`, the connection is closed.
//!
//! **A runtime that rests** does none of this: with one `block_on` for each event, or in a function that is frozen between
//! requests, a dropped `run` keeps its transaction, and its lock, until the next event or until `work_limit`. The way out:
//! `fleet.mutex.all_idle().await`, before the runtime rests. (Where there is no runtime, the connection is closed at once.)
//!
//! # Poolers, and what the work leaves in its session
//!
//! | connected | `run` | the work's statements | the work's `SET`, `LISTEN`, temporary tables, locks of the session |
//! | --- | --- | --- | --- |
//! | to the server, or to a pooler in session mode | works | any | reach the next user of the connection |
//! | to a pooler in transaction mode | works | with `.persistent(false)` | reach anyone; use `SET LOCAL` |
//! | to a pooler in statement mode | fails: it has no transactions | | |
//!
//! All clients of a pooler that use sqlx name their statements `sqlx_s_1` and so on. `.persistent(false)` makes one without a
//! name; `raw_sql` has none. (`statement_cache_capacity(0)` does not help. pgbouncer keeps names apart from 1.21, with
//! `max_prepared_statements`; and it wants `ignore_startup_parameters = extra_float_digits` for sqlx.)
//!
//! If any user of the pool changes its session other than by `SET LOCAL`, let the pool clean up. It costs a round trip each
//! time, one more if statements were cached, which are then prepared anew; and what `after_connect` has set is gone. Not
//! with a pooler in transaction mode, where it would clean another session:
//!
//! ```no_run
//! # async fn example() -> sqlx::Result<sqlx::PgPool> {
//! use sqlx::{Connection, Executor};
//!
//! let options = sqlx::postgres::PgPoolOptions::new().after_release(|connection, _| {
//!     Box::pin(async move {
//!         connection.clear_cached_statements().await?; // the server forgets them
//!         connection.execute("DISCARD ALL").await?;
//!         Ok(true)
//!     })
//! });
//! # options.connect("").await
//! # }
//! ```
//!
//! # Round trips
//!
//! `run` takes six beside the work's: BEGIN, two for the lock, one to see whether it is still held, COMMIT, and sqlx's ping of
//! a connection that is given back. (`test_before_acquire(false)` saves a seventh.)

use std::hash::{BuildHasher, RandomState};
use std::{io::ErrorKind, sync::Arc, time::Duration};

use async_mutex_lite::KeyedMutex;
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool, Postgres, Row, pool::PoolConnection};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

/// Locks the hashes in their order, and returns the nonce. Ends the limit of this statement: the next has the session's own.
/// A standby has locks of its own, which exclude nobody: there it fails with 25006. All names are qualified, because
/// of `search_path`; keys are bytes, because `client_encoding` says what a text is.
const LOCK: &str = "SELECT pg_catalog.current_setting('fleet.nonce', true),
        pg_catalog.count(pg_catalog.pg_advisory_xact_lock(hash)),
        pg_catalog.set_config('statement_timeout', pg_catalog.current_setting('fleet.timeout'), true),
        CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_xact_id()::pg_catalog.text END
    FROM (SELECT pg_catalog.hashtextextended(pg_catalog.convert_from(key, 'UTF8'), 0) AS hash
        FROM pg_catalog.unnest($1::pg_catalog.bytea[]) AS key ORDER BY hash) AS hashes";

/// Why the work was not done, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum Error<E> {
    /// A limit on waiting passed, ours or the server's. Nothing was done.
    #[error("waited too long, and nothing was done")]
    TimedOut,
    /// The database aborted the work, or the connection was lost. Nothing was done: try again later.
    #[error("undone, and may be tried again: {0}")]
    Undone(sqlx::Error),
    /// The answer to COMMIT was lost, or did not come, so the work may have been done or not. (Or it has ended its
    /// transaction itself, and may have been done in part.) Try again if the work is idempotent.
    #[error("it may be done or not: {0}")]
    Unknown(sqlx::Error),
    /// The database refused, and would again. Nothing was done.
    #[error("refused: {0}")]
    Database(sqlx::Error),
    /// The work returned an error of its own. Nothing was done.
    #[error("{0}")]
    Task(E),
}

impl<E> Error<E> {
    /// Whether trying again may help: see [`retry`].
    pub fn may_retry(&self) -> bool {
        matches!(self, Self::Undone(_) | Self::Unknown(_))
    }

    fn new(error: sqlx::Error, when: usize) -> Self {
        use Error::{Database, Undone, Unknown};
        // FATAL and PANIC end the session, whatever the code is (42501 for a disk that has become read only). Before it has
        // begun, FATAL means that it was refused.
        let postgres = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
        let gone = when != WAITING && postgres.is_some_and(|error| error.severity() != PgSeverity::Error);
        let code = match &error {
            _ if gone => "08000".into(),
            sqlx::Error::Database(error) => error.code().unwrap_or_default(),
            sqlx::Error::Io(error) if error.kind() == ErrorKind::TimedOut => "limit".into(),
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) => "08000".into(),
            // There was a transaction already, or a failed one.
            sqlx::Error::BeginFailed | sqlx::Error::InvalidSavePointStatement => "25000".into(),
            sqlx::Error::PoolTimedOut => "55P03".into(),
            _ => "".into(),
        };
        // The table of codes: while waiting, while working, at COMMIT. The first row that fits counts.
        let row: [fn(_) -> Self; 3] = match (code.get(..2).unwrap_or_default(), &*code) {
            (_, "limit") => [|_| Self::TimedOut, Undone, Unknown],
            (_, "55P03" | "57014") => [|_| Self::TimedOut, Undone, Undone],
            (_, "25P03" | "25P04" | "40003") | ("08" | "57" | "58", _) => [Undone, Undone, Unknown],
            (_, "0A000" | "25006" | "26000" | "42P05" | "55006" | "HV001" | "HV00N") => [Undone, Undone, Undone],
            ("40" | "53" | "72", _) if code != "40002" => [Undone, Undone, Undone],
            ("25", _) => [Undone, Database, Database],
            ("XX", _) => [Database, Database, Unknown],
            _ => [Database, Database, Database],
        };
        row[when](error)
    }
}

/// The columns of the table of codes.
const WAITING: usize = 0;
const WORKING: usize = 1;
const COMMIT: usize = 2;

/// An error of a statement within the work, for `?`.
impl<E> From<sqlx::Error> for Error<E> {
    fn from(error: sqlx::Error) -> Self {
        Self::new(error, WORKING)
    }
}

/// One process's access to the keys that it shares with others.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub mutex: Arc<KeyedMutex<String>>,
    pub pool: PgPool,
    /// How long to wait before the work begins.
    pub limit: Duration,
    /// How long the work may take. `None`: as long as it takes.
    pub work_limit: Option<Duration>,
    /// How long COMMIT may take. `None`: as long as it takes.
    pub commit_limit: Option<Duration>,
}

impl Fleet {
    /// Runs the work while it holds the keys, here and in the database, in one transaction with the locks.
    pub async fn run<T, E>(
        &self,
        keys: impl IntoIterator<Item = impl Into<String>>,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error<E>>,
    ) -> Result<T, Error<E>> {
        let keys: Vec<String> = keys.into_iter().map(Into::into).collect();
        let waiting = |error| Error::new(error, WAITING);
        let start = Instant::now();
        let held = async {
            let locked = self.mutex.arc().lock_many(keys.clone()).await;
            Ok(Held { open: Some((self.pool.acquire().await?, locked)), grace: Some(self.limit) })
        };
        let mut held = within(Some(self.limit), held).await.flatten().map_err(waiting)?; // dropped after the transaction
        let outcome: Result<T, Error<E>> = async {
            let (connection, _) = held.open.as_mut().expect("it is taken at the end");
            let (nonce, left) = (random().to_string(), self.limit.saturating_sub(start.elapsed()));
            let millis = |limit: Duration| limit.as_millis().clamp(1, 1 << 30).to_string(); // 0 would be no limit
            let (lock, idle) = (millis(left), self.work_limit.map_or("DEFAULT".into(), millis));
            let begin = format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL fleet.nonce = '{nonce}';
                SELECT pg_catalog.set_config('fleet.timeout', pg_catalog.current_setting('statement_timeout'), true);
                SET LOCAL statement_timeout = {lock}; SET LOCAL idle_in_transaction_session_timeout = {idle}"
            );
            let begun = async {
                let mut transaction = connection.begin_with(AssertSqlSafe(begin)).await?;
                let bytes: Vec<_> = keys.iter().map(String::as_bytes).collect();
                let row = sqlx::query(LOCK).persistent(false).bind(bytes).fetch_optional(&mut *transaction).await?;
                let same = row.and_then(|row| row.try_get(0).ok()) == Some(nonce.clone());
                same.then_some(transaction).ok_or_else(|| sqlx::Error::Protocol("the lock did not answer".into()))
            };
            let mut transaction = within(Some(left), begun).await.flatten().map_err(waiting)?;

            let worked = async {
                let output = work(&mut transaction).await?;
                // To the COMMIT of a transaction in which a statement has failed PostgreSQL answers ROLLBACK, and sqlx
                // takes that for success. This fails then, if the work has kept that error to itself.
                let look = sqlx::raw_sql("SELECT pg_catalog.current_setting('fleet.nonce', true)");
                let same = look.fetch_one(&mut *transaction).await?.try_get(0).ok() == Some(nonce);
                let ended = || Error::Unknown(sqlx::Error::Protocol("the work has ended its transaction".into()));
                same.then_some(output).ok_or_else(ended)
            };
            let output = within(self.work_limit, worked).await??;
            let committing = |error| Error::new(error, COMMIT);
            within(self.commit_limit, transaction.commit()).await.flatten().map_err(committing)?;

            let (mut connection, _locked) = held.open.take().expect("it is taken once");
            // As its `drop` would, but that leaves it to a task.
            let _ = timeout(self.limit, connection.return_to_pool()).await;
            Ok(output)
        }
        .await;
        // After these the connection is closed.
        held.grace = held.grace.filter(|_| !outcome.as_ref().is_err_and(Error::may_retry));
        // The primary is a standby now, and the idle ones are connected to it, too.
        let old = matches!(&outcome, Err(Error::Undone(sqlx::Error::Database(e))) if e.code() == Some("25006".into()));
        while old && let Some(idle) = self.pool.try_acquire() {
            drop(idle.detach());
        }
        outcome
    }
}

async fn within<T>(limit: Option<Duration>, future: impl Future<Output = T>) -> sqlx::Result<T> {
    timeout(limit.unwrap_or(Duration::MAX), future).await.map_err(|_| sqlx::Error::Io(ErrorKind::TimedOut.into()))
}

/// What a transaction has, and how long to wait for the answer to its ROLLBACK. `None`: do not ask, close the connection.
struct Held<G: Send + 'static> {
    open: Option<(PoolConnection<Postgres>, G)>,
    grace: Option<Duration>,
}

impl<G: Send + 'static> Drop for Held<G> {
    /// Rolls back what was given up midway, even if sqlx has done so: it forgets a BEGIN that was not answered yet. Gives
    /// back the connection, then the keys here, so that the next one finds it in the pool.
    fn drop(&mut self) {
        let Some((mut connection, locked)) = self.open.take() else { return };
        let (Some(grace), Ok(runtime)) = (self.grace, Handle::try_current()) else { return drop(connection.detach()) };
        runtime.spawn(async move {
            // The answer comes after that to the statement that was given up. If either is an error, nothing is sure but
            // the end of the session.
            match timeout(grace, connection.execute("ROLLBACK")).await {
                Ok(Ok(_)) => _ = timeout(grace, connection.return_to_pool()).await,
                _ => drop(connection.detach()),
            }
            drop(locked);
        });
    }
}

/// Tries, and then up to `more` times more, until it succeeds or trying again would not help. With 0 it tries once.
///
/// The pauses are drawn at random, so that the processes of a fleet do not come back in step; the longest possible one
/// doubles, up to 1.28 s. What is tried must be idempotent: see [`Error::Unknown`].
pub async fn retry<T, E, F: Future<Output = Result<T, Error<E>>>>(more: u32, mut job: impl FnMut() -> F) -> F::Output {
    for tried in 0..more {
        let longest = Duration::from_millis(10 << tried.min(7));
        match job().await {
            Err(error) if error.may_retry() => sleep(longest.mul_f64(random() as f64 / u64::MAX as f64)).await,
            outcome => return outcome,
        }
    }
    job().await
}

/// The keys of the standard library's hashers are drawn at random, and it offers nothing else that is.
fn random() -> u64 {
    RandomState::new().hash_one(())
}
