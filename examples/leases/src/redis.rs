//! A keyed lease on Redis, behind the mutex, with a fence. Copy this file.
//!
//! It needs `async-mutex-lite`, `rand`, `redis` (features `connection-manager`, `script` and `tokio-comp`) and `tokio`
//! (`macros`, `rt`, `sync` and `time`). See the [front page](crate) for what a lease promises, and what it does not.
//!
//! ```text
//!   SET lease:key token NX PX            taken, with a token of its own; tried again after a pause, if it is not free
//!   if it has the token, PEXPIRE         renewed at a third of its time
//!   if it has the token, HSET, XADD …    written, in one step with the comparison: the fence
//!   if it has the token, DEL             given up
//! ```
//!
//! ```no_run
//! # async fn example(leases: &leases::redis::Leases, charge: &str, amount: i64) -> Result<(), leases::redis::Error<&'static str>> {
//! use leases::redis::Error;
//! use redis::Cmd;
//!
//! let work = |fence: leases::redis::Fence| async move {
//!     let read = Cmd::hmget("account 7", &["balance", charge]);
//!     let (balance, done): (i64, Option<i64>) = read.query_async(&mut leases.redis.clone()).await?;
//!     if done.is_some() {
//!         return Ok(()); // an attempt whose answer was lost had done it
//!     }
//!     if balance < amount {
//!         return Err(Error::Task("there is not enough in it"));
//!     }
//!     fence.write([Cmd::hset_multiple("account 7", &[("balance", balance - amount), (charge, amount)])]).await
//! };
//! leases.run("account 7", work).await // once more, after a pause, if the error says `may_retry`
//! # }
//! ```
//!
//! **One server.** The lease and what it guards are on one Redis, which is no cluster. Read within the work, and never from
//! a replica.
//!
//! **Redis undoes nothing.** A write may be several commands. If the first fails, nothing was written. If a later one does
//! (on a key of another type, say), those before it remain written, and you are told [`Error::Unknown`].
//!
//! **A connection that has gone silent** is not replaced by `ConnectionManager`: set `TcpSettings::set_user_timeout`, and
//! leave its `response_timeout` on. At a failover the old connections must be cut (Sentinel does), or they reach a replica.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_mutex_lite::KeyedMutex;
use redis::{Arg, Cmd, ErrorKind, RedisError, RedisResult, Script, aio::ConnectionManager};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

/// Carries out commands, if the lease has this token. The arguments are the token, and then for each command the number of
/// its words, and these. (Lua can unpack about 8,000.)
static FENCED: LazyLock<Script> = LazyLock::new(|| Script::new(LUA));
const LUA: &str = "
    if redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end
    if #ARGV > 7000 then return {err = 'ERR too many words'} end
    local at = 2
    while ARGV[at] do
        local reply = redis.pcall(unpack(ARGV, at + 1, at + ARGV[at]))
        if type(reply) == 'table' and reply.err then return {err = (at > 2 and 'PARTLY ' or '') .. reply.err} end
        at = at + 1 + ARGV[at]
    end
    return true";

/// What a server says that may soon say otherwise.
const PASSING: [&str; 8] = ["BUSY", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "NOSCRIPT", "OOM", "READONLY"];
/// How long an answer is waited for at the end, to a write, and to giving up. (Without that, the lease ends by itself.)
const ANSWER: Duration = Duration::from_secs(1);
/// In place of times that are longer.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Why the work was not done, or may not have been. A write that was told `Ok` has been done, whatever came after it.
#[derive(Debug)]
pub enum Error<E> {
    /// The limit on waiting passed. The work did not begin.
    TimedOut,
    /// The lease ended before the work. The write that was told so did nothing, and no write is in doubt.
    Lost,
    /// The answer to a write did not come, so it may have been done, or be done yet; not any more, though, once the key has
    /// been leased again. So end the work with it: written again within this lease, it might come second. Try again then, if
    /// the work is idempotent.
    Unknown(RedisError),
    /// The server could not be reached, or it refused. This step did nothing.
    Server(RedisError),
    /// The work returned an error of its own.
    Task(E),
}

impl<E> Error<E> {
    /// Whether trying again may help, after a pause that is not the same for all. The work must be idempotent.
    pub fn may_retry(&self) -> bool {
        let passing = |error: &RedisError| error.code().map_or(error.is_io_error(), |code| PASSING.contains(&code));
        matches!(self, Self::Lost | Self::Unknown(_)) || matches!(self, Self::Server(error) if passing(error))
    }
}

/// An error of a command that writes nothing, for `?`.
impl<E> From<RedisError> for Error<E> {
    fn from(error: RedisError) -> Self {
        Self::Server(error)
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => write!(f, "waited too long, and nothing was done"),
            Self::Lost => write!(f, "the lease ended before the work"),
            Self::Unknown(error) => write!(f, "the answer to a write did not come, it may be done or not: {error}"),
            Self::Server(error) => write!(f, "Redis: {error}"),
            Self::Task(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for Error<E> {}

/// One process's access to the keys that it shares with others.
#[derive(Clone, Debug)]
pub struct Leases {
    pub mutex: Arc<KeyedMutex<String>>,
    pub redis: ConnectionManager,
    /// How long a lease lasts that is not renewed, and others wait if this process is killed: a millisecond at least.
    pub lease: Duration,
    /// How long to wait before the work begins, for the key here and for the lease together.
    pub limit: Duration,
}

impl Leases {
    /// Runs the work while it holds the key here and the lease there. Drops it midway if the lease cannot be renewed.
    pub async fn run<T, E, F>(&self, key: impl Into<String>, work: impl FnOnce(Fence) -> F) -> Result<T, Error<E>>
    where
        F: Future<Output = Result<T, Error<E>>>,
    {
        let (key, late) = (key.into(), |_| Error::TimedOut);
        let deadline = Instant::now() + self.limit.min(YEAR);
        let lease = self.lease.clamp(Duration::from_millis(1), YEAR);
        let guard = timeout_at(deadline, self.mutex.arc().lock(key.clone())).await.map_err(late)?;
        let (redis, token) = (self.redis.clone(), rand::random::<u128>().to_string());
        let fence = Fence { redis, key: format!("lease:{key}"), token, unanswered: Arc::default() };

        // However this ends: the lease is given up, and then the key here, so that the next task here finds the lease free.
        let (over, end) = tokio::sync::oneshot::channel::<()>();
        let ending = fence.clone();
        let given_up = tokio::spawn(async move {
            let _ = end.await; // `over` is dropped
            let _ = timeout(ANSWER.min(lease), ending.step([Cmd::del(&ending.key)])).await;
            drop(guard);
        });
        let asked = timeout_at(deadline, fence.take(lease)).await.map_err(late)??;
        let outcome = tokio::select! {
            biased; // after a pause, the time is looked at before the work goes on
            () = fence.keep(lease, asked) => match fence.unanswered.load(Relaxed) {
                0 => Err(Error::Lost),
                _ => Err(Error::Unknown((ErrorKind::Io, "the lease ended before the answer came").into())),
            },
            outcome = work(fence.clone()) => outcome,
        };
        drop(over);
        let _ = given_up.await;
        outcome
    }
}

/// What the work writes through. It may be kept, but once the lease has ended, it writes nothing any more.
#[derive(Clone, Debug)]
pub struct Fence {
    redis: ConnectionManager,
    key: String,
    token: String,
    unanswered: Arc<AtomicUsize>,
}

impl Fence {
    /// Writes, in one step of the server, if the lease is still this one. Otherwise it writes nothing: [`Error::Lost`].
    pub async fn write<E>(&self, commands: impl IntoIterator<Item = Cmd>) -> Result<(), Error<E>> {
        self.unanswered.fetch_add(1, Relaxed);
        let outcome = match self.step(commands).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Lost),
            Err(error) if matches!(error.code(), None | Some("PARTLY")) => return Err(Error::Unknown(error)),
            Err(error) => Err(Error::Server(error)),
        };
        self.unanswered.fetch_sub(1, Relaxed);
        outcome
    }

    /// Carries out commands, and returns `true`, if the lease is still this one.
    async fn step(&self, commands: impl IntoIterator<Item = Cmd>) -> RedisResult<bool> {
        let mut script = FENCED.key(&self.key);
        script.arg(&self.token);
        for command in commands {
            let words = command.args_iter().map(|word| if let Arg::Simple(word) = word { word } else { b"0" });
            script.arg(words.len()).arg(words.collect::<Vec<_>>());
        }
        script.invoke_async(&mut self.redis.clone()).await
    }

    /// Takes the lease as soon as it is free. Returns a moment from which on it lasts for all its time.
    async fn take(&self, lease: Duration) -> RedisResult<Instant> {
        let mut set = redis::cmd("SET");
        set.arg(&self.key).arg(&self.token).arg("NX").arg("PX").arg(lease.as_millis() as u64);
        let mut asked = Instant::now();
        while set.query_async::<Option<()>>(&mut self.redis.clone()).await?.is_none() {
            sleep(Duration::from_millis(rand::random_range(5..20))).await; // at random: processes must not ask in step
            asked = Instant::now();
        }
        Ok(asked)
    }

    /// Renews the lease at a third of its time. Returns when it has ended, or could not be renewed in time.
    async fn keep(&self, lease: Duration, mut asked: Instant) {
        let renew = async |since| {
            sleep_until(since + lease / 3).await;
            loop {
                let asked = Instant::now();
                match timeout(lease / 3, self.step([Cmd::pexpire(&self.key, lease.as_millis() as i64)])).await {
                    Ok(Ok(renewed)) => return renewed.then_some(asked),
                    _ => sleep(lease / 12).await, // there is time to try again
                }
            }
        };
        while let Ok(Some(renewed)) = timeout_at(asked + lease, renew(asked)).await {
            asked = renewed;
        }
        // A write that has been sent may be done, and its answer may still come.
        let patience = Instant::now() + ANSWER.min(lease);
        while self.unanswered.load(Relaxed) > 0 && Instant::now() < patience {
            sleep(Duration::from_millis(1)).await;
        }
    }
}
