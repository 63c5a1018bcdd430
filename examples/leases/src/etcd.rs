//! A keyed lease on etcd, behind the mutex, with a fence. Copy this file.
//!
//! It needs `async-mutex-lite`, `etcd-client`, `rand`, `tokio` (`macros`, `rt`, `sync` and `time`) and `tonic`. See the
//! [front page](crate) for what a lease promises, and what it does not.
//!
//! ```text
//!   LeaseGrant                                   a lease, with an id of its own
//!   Put place, with the lease                    a place in the queue of the key
//!   Range, Watch                                 the place before it: when there is none any more, it is its turn
//!   LeaseKeepAlive                               renewed at a third of its time, also while it waits
//!   Txn: if the place is there, Put, Delete …    written, in one step with the comparison: the fence
//!   LeaseRevoke                                  given up, and the place with it
//! ```
//!
//! ```no_run
//! # async fn example(leases: &leases::etcd::Leases, charge: &str, amount: i64) -> Result<(), leases::etcd::Error<&'static str>> {
//! use etcd_client::TxnOp;
//! use leases::etcd::Error;
//!
//! let work = |fence: leases::etcd::Fence| async move {
//!     let (balance, done) = ("account/7/balance", format!("account/7/charge/{charge}"));
//!     let mut kv = leases.etcd.kv_client();
//!     if !kv.get(&*done, None).await?.kvs().is_empty() {
//!         return Ok(()); // an attempt whose answer was lost had done it
//!     }
//!     let read = kv.get(balance, None).await?;
//!     let has: i64 = read.kvs()[0].value_str()?.parse().map_err(|_| Error::Task("that is no number"))?;
//!     if has < amount {
//!         return Err(Error::Task("there is not enough in it"));
//!     }
//!     fence.write([TxnOp::put(balance, (has - amount).to_string(), None), TxnOp::put(done, "", None)]).await
//! };
//! leases.run("account 7", work).await // once more, after a pause, if the error says `may_retry`
//! # }
//! ```
//!
//! **Time** is in whole seconds, and the server has a minimum, one and a half times its election timeout: two seconds, unless
//! you change that. It looks twice a second for what has ended. After a change of the leader, all leases begin anew.
//!
//! **Set** `ConnectOptions::with_keep_alive`, or a connection that has gone silent is not replaced, and `with_require_leader`.
//!
//! The server's own `Lock` is not used: in etcd 3.4 it stops answering after many of its waiters were dropped at once.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use async_mutex_lite::KeyedMutex;
use etcd_client::{Client, Compare, CompareOp, Error as EtcdError, GetOptions, LeaseGrantOptions, PutOptions};
use etcd_client::{SortOrder, SortTarget, Txn, TxnOp, WatchOptions};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tonic::Code::{self, Aborted, Cancelled, DeadlineExceeded, Internal, ResourceExhausted, Unavailable, Unknown};

/// What may soon be otherwise. It leaves open whether a write was done.
const PASSING: [Code; 7] = [Aborted, Cancelled, DeadlineExceeded, Internal, ResourceExhausted, Unavailable, Unknown];
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
    Unknown(EtcdError),
    /// The server could not be reached, or it refused. This step did nothing.
    Server(EtcdError),
    /// The work returned an error of its own.
    Task(E),
}

impl<E> Error<E> {
    /// Whether trying again may help, after a pause that is not the same for all. The work must be idempotent.
    pub fn may_retry(&self) -> bool {
        matches!(self, Self::Lost | Self::Unknown(_)) || matches!(self, Self::Server(error) if passing(error))
    }
}

fn passing(error: &EtcdError) -> bool {
    matches!(error, EtcdError::GRpcStatus(status) if PASSING.contains(&status.code()))
        || matches!(error, EtcdError::TransportError(_) | EtcdError::IoError(_))
}

/// An error of a request that writes nothing, for `?`.
impl<E> From<EtcdError> for Error<E> {
    fn from(error: EtcdError) -> Self {
        match &error {
            EtcdError::GRpcStatus(status) if status.message().contains("lease not found") => Self::Lost,
            _ => Self::Server(error),
        }
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => write!(f, "waited too long, and nothing was done"),
            Self::Lost => write!(f, "the lease ended before the work"),
            Self::Unknown(error) => write!(f, "the answer to a write did not come, it may be done or not: {error}"),
            Self::Server(error) => write!(f, "etcd: {error}"),
            Self::Task(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for Error<E> {}

/// One process's access to the keys that it shares with others.
#[derive(Clone)]
pub struct Leases {
    pub mutex: Arc<KeyedMutex<String>>,
    pub etcd: Client,
    /// How long a lease lasts that is not renewed, and others wait if this process is killed: in whole seconds.
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
        let guard = timeout_at(deadline, self.mutex.arc().lock(key.clone())).await.map_err(late)?;
        let (etcd, lease) = (self.etcd.clone(), rand::random_range(1..=i64::MAX));

        // However this ends: the lease is given up, and then the key here, so that the next task here finds the lease free.
        let (over, end) = tokio::sync::oneshot::channel::<()>();
        let given_up = tokio::spawn(async move {
            let _ = end.await; // `over` is dropped
            let _ = timeout(ANSWER, etcd.lease_client().revoke(lease)).await;
            drop(guard);
        });
        let asked = Instant::now();
        let seconds = self.lease.min(YEAR).as_millis().div_ceil(1000) as i64;
        let grant = Some(LeaseGrantOptions::new().with_id(lease));
        let granted = timeout_at(deadline, self.etcd.lease_client().grant(seconds, grant)).await.map_err(late)??;
        // The key's length comes first, so that no queue is within another.
        let (queue, unanswered) = (format!("lease/{}/{key}/", key.len()), Arc::<AtomicUsize>::default());
        let begin = async {
            let (etcd, place) = (self.etcd.clone(), format!("{queue}{lease:x}"));
            let revision = timeout_at(deadline, wait(&etcd, &queue, &place, lease)).await.map_err(late)??;
            work(Fence { etcd, place, revision, unanswered: unanswered.clone() }).await
        };
        let outcome = tokio::select! {
            biased; // after a pause, the time is looked at before the work goes on
            () = keep(&self.etcd, lease, granted.ttl(), asked, &unanswered) => match unanswered.load(Relaxed) {
                0 => Err(Error::Lost),
                _ => Err(Error::Unknown(EtcdError::Internal("the lease ended before the answer came".into()))),
            },
            outcome = begin => outcome,
        };
        drop(over);
        let _ = given_up.await;
        outcome
    }
}

/// Takes a place in the queue, and waits until there is none before it. Returns the revision at which the place was taken.
async fn wait(etcd: &Client, queue: &str, place: &str, lease: i64) -> Result<i64, EtcdError> {
    let put = etcd.kv_client().put(place, "", Some(PutOptions::new().with_lease(lease))).await?;
    let revision = put.header().expect("an answer has a revision").revision();
    loop {
        let before = GetOptions::new().with_prefix().with_max_create_revision(revision - 1).with_limit(1);
        let before = before.with_sort(SortTarget::Create, SortOrder::Descend);
        let answer = etcd.kv_client().get(queue, Some(before)).await?;
        let Some(before) = answer.kvs().first() else { return Ok(revision) };
        let later = WatchOptions::new().with_start_revision(answer.header().expect("it has one").revision() + 1);
        let mut watch = etcd.watch_client().watch(before.key(), Some(later)).await?;
        // The only event is that it leaves. Then there may be another, which was before that.
        while watch.message().await?.is_some_and(|answer| answer.events().is_empty() && !answer.canceled()) {}
    }
}

/// Renews a lease at a third of its time. Returns when it has ended, or could not be renewed in time.
async fn keep(etcd: &Client, lease: i64, seconds: i64, mut asked: Instant, unanswered: &AtomicUsize) {
    let time = Duration::from_secs(seconds as u64);
    let renew = async |since| {
        sleep_until(since + time / 3).await;
        loop {
            let asked = Instant::now();
            match timeout(time / 3, etcd.lease_client().keep_alive(lease)).await {
                Ok(Ok(_)) => return Some(asked),
                Ok(Err(EtcdError::LeaseKeepAliveError(_))) => return None,
                _ => sleep(time / 12).await, // there is time to try again
            }
        }
    };
    while let Ok(Some(renewed)) = timeout_at(asked + time, renew(asked)).await {
        asked = renewed;
    }
    // A write that has been sent may be done, and its answer may still come.
    let patience = Instant::now() + ANSWER;
    while unanswered.load(Relaxed) > 0 && Instant::now() < patience {
        sleep(Duration::from_millis(1)).await;
    }
}

/// What the work writes through. It may be kept, but once the lease has ended, it writes nothing any more.
#[derive(Clone)]
pub struct Fence {
    etcd: Client,
    place: String,
    revision: i64,
    unanswered: Arc<AtomicUsize>,
}

impl Fence {
    /// Writes, in one step of the server, if the lease is still this one. Otherwise it writes nothing: [`Error::Lost`].
    pub async fn write<E>(&self, writes: impl IntoIterator<Item = TxnOp>) -> Result<(), Error<E>> {
        let mine = Compare::create_revision(&*self.place, CompareOp::Equal, self.revision);
        let step = Txn::new().when([mine]).and_then(writes.into_iter().collect::<Vec<_>>());
        self.unanswered.fetch_add(1, Relaxed);
        let outcome = match self.etcd.kv_client().txn(step).await {
            Ok(answer) if answer.succeeded() => Ok(()),
            Ok(_) => Err(Error::Lost),
            Err(error) if passing(&error) => return Err(Error::Unknown(error)),
            Err(error) => Err(Error::Server(error)),
        };
        self.unanswered.fetch_sub(1, Relaxed);
        outcome
    }
}
