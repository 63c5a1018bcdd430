//! Accounts, and charges to them that are done once: on Redis, and on etcd.

#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "redis")]
mod redis;

use std::fmt;
use std::time::Duration;

use async_mutex_lite::KeyedMutex;
use clap::ValueEnum;
use tokio::time::sleep;

#[cfg(feature = "etcd")]
pub use etcd::Etcd;
#[cfg(feature = "redis")]
pub use redis::Redis;

/// What is in each account at first.
pub const OPENING: i64 = 1_000_000;
/// The account that most charges go to. The others are quiet.
pub const HOT: u32 = 0;
/// A limit on waiting that nothing reaches but a test of it.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Four ways to charge an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// Without a lock.
    None,
    /// Each task takes a lease, and writes as if that were a lock.
    Alone,
    /// The same, behind the mutex.
    Unfenced,
    /// Behind the mutex, and writes through the fence.
    Fenced,
}

/// A charge. The id, which counts within its account, is what makes a retry harmless.
#[derive(Clone, Debug)]
pub struct Charge {
    pub id: String,
    pub account: u32,
    pub amount: i64,
}

/// The charges of one process, in the order of arrival: two in three go to the hot account.
pub fn charges(process: usize, count: usize, accounts: u32) -> impl Iterator<Item = Charge> {
    (0..count).map(move |number| {
        let quiet = 1 + (number / 3 + 7 * process) as u32 % (accounts - 1).max(1);
        let account = if number % 3 == 2 { quiet.min(accounts - 1) } else { HOT };
        Charge { id: format!("{process}-{number}"), account, amount: 1 + number as i64 % 100 }
    })
}

/// What the books say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub charges: usize,
    pub charged: i64,
    /// By how much the balances differ from the charges, in all.
    pub lost: i64,
}

impl Books {
    fn add(&mut self, balance: i64, charges: &[i64]) {
        let charged: i64 = charges.iter().sum();
        self.charges += charges.len();
        self.charged += charged;
        self.lost += (charged - (OPENING - balance)).abs();
    }
}

/// Why a charge failed, whatever the engine.
#[derive(Clone, Debug)]
pub struct Failed {
    pub kind: Kind,
    pub may_retry: bool,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    TimedOut,
    Lost,
    Unknown,
    Server,
    Task,
}

impl Failed {
    pub fn task(text: impl Into<String>) -> Self {
        Self { kind: Kind::Task, may_retry: false, text: text.into() }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How `leases::redis` and `leases::etcd` say it.
macro_rules! failed {
    ($engine:ident) => {
        impl From<leases::$engine::Error<Failed>> for Failed {
            fn from(error: leases::$engine::Error<Failed>) -> Self {
                use leases::$engine::Error;
                let (may_retry, text) = (error.may_retry(), error.to_string());
                let kind = match error {
                    Error::Task(failed) => return failed,
                    Error::TimedOut => Kind::TimedOut,
                    Error::Lost => Kind::Lost,
                    Error::Unknown(_) => Kind::Unknown,
                    Error::Server(_) => Kind::Server,
                };
                Self { kind, may_retry, text }
            }
        }
    };
}
#[cfg(feature = "etcd")]
failed!(etcd);
#[cfg(feature = "redis")]
failed!(redis);

/// A process's accounts in one engine.
pub trait Bank: Clone + Send + Sync + 'static {
    type Fence: Clone + Send + Sync;

    /// Connects to a server. All keys begin with the prefix.
    fn connect(url: &str, prefix: &str, lease: Duration) -> impl Future<Output = Result<Self, String>> + Send;

    /// The mutex in front of the leases.
    #[allow(dead_code, reason = "the demonstration does not look")]
    fn mutex(&self) -> &KeyedMutex<String>;

    /// The same with a mutex of its own, as another process has it, and with another limit on waiting.
    fn apart(&self, limit: Duration) -> Self;

    /// Runs the work under a lease on the account.
    fn run<T, F>(
        &self,
        account: u32,
        work: impl FnOnce(Self::Fence) -> F + Send,
    ) -> impl Future<Output = Result<T, Failed>> + Send
    where
        T: Send,
        F: Future<Output = Result<T, Failed>> + Send;

    /// Reads the balance, and what this charge has taken already, if it has.
    fn read(&self, charge: &Charge) -> impl Future<Output = Result<(i64, Option<i64>), Failed>> + Send;

    /// Writes the charge and the balance in one step: through the fence, or without one. Then it returns the balance that is
    /// no more.
    fn write(
        &self,
        fence: Option<&Self::Fence>,
        charge: &Charge,
        balance: i64,
    ) -> impl Future<Output = Result<Option<i64>, Failed>> + Send;

    /// Opens the books anew, with accounts that have not been charged.
    fn open(&self, accounts: u32) -> impl Future<Output = Result<(), String>> + Send;

    fn books(&self, accounts: u32) -> impl Future<Output = Result<Books, String>> + Send;

    /// How many leases there are on accounts with the prefix, or places in a queue for one.
    #[allow(dead_code, reason = "the demonstration does not look")]
    fn leases(&self) -> impl Future<Output = Result<usize, String>> + Send;

    /// Ends all leases on accounts with the prefix, as an operator may, or as the clock of a Redis does that goes ahead.
    #[allow(dead_code, reason = "the demonstration does not interfere")]
    fn end_leases(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// How many leases there are in the server.
    #[allow(dead_code, reason = "the demonstration does not look")]
    fn all_leases(&self) -> impl Future<Output = Result<usize, String>> + Send;

    /// How many requests of such programs the server has received.
    fn requests(&self) -> impl Future<Output = Result<u64, String>> + Send;

    /// Removes all that begins with the prefix.
    fn clear(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// Charges an account: reads, does what is to be done in the middle, and writes. Returns whether that has overwritten what
    /// others wrote meanwhile. It is idempotent: a charge that is tried twice is done once.
    fn pay<M, F>(&self, way: Way, charge: &Charge, middle: M) -> impl Future<Output = Result<bool, Failed>> + Send
    where
        M: Fn() -> F + Send + Sync,
        F: Future<Output = ()> + Send,
    {
        async move {
            let middle = &middle;
            let work = |fence: Option<Self::Fence>| async move {
                let (balance, done) = self.read(charge).await?;
                match done {
                    Some(amount) if amount == charge.amount => return Ok(false), // by an attempt whose answer was lost
                    Some(_) => return Err(Failed::task(format!("{} has been used for another charge", charge.id))),
                    None => {}
                }
                middle().await;
                let was = self.write(fence.as_ref(), charge, balance - charge.amount).await?;
                Ok(was.is_some_and(|was| was != balance))
            };
            match way {
                Way::None => work(None).await,
                Way::Alone => self.apart(LIMIT).run(charge.account, |_| work(None)).await,
                Way::Unfenced => self.run(charge.account, |_| work(None)).await,
                Way::Fenced => self.run(charge.account, |fence| work(Some(fence))).await,
            }
        }
    }
}

/// Tries until it succeeds, until trying again would not help, or `tries` times, with pauses that double, and differ.
pub async fn retry<T, F>(tries: u32, mut attempt: impl FnMut() -> F) -> Result<T, Failed>
where
    F: Future<Output = Result<T, Failed>>,
{
    let mut pauses = (1..tries).map(|tried| rand::random_range(1..5 << tried.min(6)));
    loop {
        match (attempt().await, pauses.next()) {
            (Err(failed), Some(pause)) if failed.may_retry => sleep(Duration::from_millis(pause)).await,
            (outcome, _) => return outcome,
        }
    }
}
