//! One process of the fleet: it charges accounts, and reports the results on standard output.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{process, thread};

use clap::{Args, ValueEnum};
use nix::sys::signal::{Signal, raise};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::bank::{self, Bank, Charge, Failed, HOT, Kind, Way, retry};
use crate::server::Engine;

#[derive(Args, Clone)]
pub struct Job {
    #[arg(long)]
    pub engine: Engine,
    #[arg(long)]
    pub url: String,
    #[arg(long)]
    pub prefix: String,
    #[arg(long)]
    pub way: Way,
    #[arg(long)]
    pub process: usize,
    #[arg(long)]
    pub tasks: usize,
    #[arg(long)]
    pub accounts: u32,
    /// Milliseconds that a lease lasts.
    #[arg(long)]
    pub lease: u64,
    /// Milliseconds from one task to the next.
    #[arg(long)]
    pub every: u64,
    /// Milliseconds between read and write.
    #[arg(long)]
    pub compute: u64,
    /// How often this process stops itself, between read and write, in the midst of a charge to the hot account.
    #[arg(long)]
    pub pauses: usize,
}

impl Job {
    /// The arguments that make it this job again.
    pub fn arguments(&self) -> Vec<String> {
        let name = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
            value().expect("none is skipped").get_name().to_string()
        };
        [
            ("engine", name(&|| self.engine.to_possible_value())),
            ("url", self.url.clone()),
            ("prefix", self.prefix.clone()),
            ("way", name(&|| self.way.to_possible_value())),
            ("process", self.process.to_string()),
            ("tasks", self.tasks.to_string()),
            ("accounts", self.accounts.to_string()),
            ("lease", self.lease.to_string()),
            ("every", self.every.to_string()),
            ("compute", self.compute.to_string()),
            ("pauses", self.pauses.to_string()),
        ]
        .map(|(name, value)| format!("--{name}={value}"))
        .into()
    }
}

/// What a worker says, a line each. Times are in microseconds since it was told to go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Said {
    /// A charge came, began, and has been done. Has it overwritten what others wrote meanwhile?
    Done { account: u32, came: u64, began: u64, overwrote: bool, at: u64 },
    /// A lease ended before its charge, which will be tried again.
    Lost { account: u32, at: u64 },
    /// It stops itself now.
    Stops { at: u64 },
    /// It goes on.
    GoesOn { at: u64 },
}

impl Said {
    pub fn print(&self) {
        match self {
            Self::Done { account, came, began, overwrote, at } => {
                println!("done {account} {came} {began} {overwrote} {at}");
            }
            Self::Lost { account, at } => println!("lost {account} {at}"),
            Self::Stops { at } => println!("stops {at}"),
            Self::GoesOn { at } => println!("goes-on {at}"),
        }
    }

    pub fn parse(line: &str) -> Option<Self> {
        let words: Vec<_> = line.split(' ').collect();
        Some(match words[..] {
            ["done", account, came, began, overwrote, at] => Self::Done {
                account: account.parse().ok()?,
                came: came.parse().ok()?,
                began: began.parse().ok()?,
                overwrote: overwrote.parse().ok()?,
                at: at.parse().ok()?,
            },
            ["lost", account, at] => Self::Lost { account: account.parse().ok()?, at: at.parse().ok()? },
            ["stops", at] => Self::Stops { at: at.parse().ok()? },
            ["goes-on", at] => Self::GoesOn { at: at.parse().ok()? },
            _ => return None,
        })
    }
}

/// Does a job. It begins when a line arrives on standard input, and ends at once when that is closed: then the parent
/// is gone.
pub fn work(job: Job) -> Result<(), String> {
    // While it is stopped, it cannot see that.
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| error.to_string())?;
    let (go, going) = oneshot::channel();
    thread::spawn(move || {
        let mut line = String::new();
        if io::stdin().read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            let _ = go.send(());
            let _ = io::stdin().read(&mut [0]);
        }
        process::exit(1);
    });
    // On one thread: so nothing else happens between one `await` and the next.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        match job.engine {
            #[cfg(feature = "redis")]
            Engine::Redis => work_on::<bank::Redis>(job, going).await,
            #[cfg(feature = "etcd")]
            Engine::Etcd => work_on::<bank::Etcd>(job, going).await,
        }
    })
}

async fn work_on<B: Bank>(job: Job, going: oneshot::Receiver<()>) -> Result<(), String> {
    let bank = B::connect(&job.url, &job.prefix, Duration::from_millis(job.lease)).await?;
    println!("ready");
    let _ = going.await;

    let state =
        Arc::new(State { begun: Instant::now(), middles: AtomicUsize::new(0), pauses: AtomicUsize::new(0), job });
    let mut tasks = JoinSet::new();
    for (number, charge) in bank::charges(state.job.process, state.job.tasks, state.job.accounts).enumerate() {
        sleep_until((state.begun + Duration::from_millis(state.job.every) * number as u32).into()).await;
        let (bank, state) = (bank.clone(), state.clone());
        tasks.spawn(async move { state.pay(&bank, &charge).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no task panics").map_err(|failed| failed.text)?;
    }
    Ok(())
}

struct State {
    job: Job,
    begun: Instant,
    /// How often a charge to the hot account was between read and write.
    middles: AtomicUsize,
    /// How often this process has stopped itself.
    pauses: AtomicUsize,
}

impl State {
    fn now(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    async fn pay<B: Bank>(&self, bank: &B, charge: &Charge) -> Result<(), Failed> {
        let came = self.now();
        let began = AtomicU64::new(came);
        let middle = || async {
            began.store(self.now(), Relaxed);
            sleep(Duration::from_millis(self.job.compute)).await;
            if charge.account == HOT {
                self.stop_at_times();
            }
        };
        let attempt = || async {
            let outcome = bank.pay(self.job.way, charge, &middle).await;
            outcome.inspect_err(|failed| {
                if failed.kind == Kind::Lost {
                    Said::Lost { account: charge.account, at: self.now() }.print();
                }
            })
        };
        let overwrote = retry(100, attempt).await?;
        let began = began.load(Relaxed);
        Said::Done { account: charge.account, came, began, overwrote, at: self.now() }.print();
        Ok(())
    }

    /// Stops this process, as a debugger does, or a host that runs out of memory, or moves a virtual machine. The parent lets
    /// it go on after the lease has ended. There is no `await` between this and the write: it is the worst moment.
    fn stop_at_times(&self) {
        let middles = self.middles.fetch_add(1, Relaxed);
        let (hot, pauses, process) = (self.job.tasks - self.job.tasks / 3, self.job.pauses, self.job.process % 3);
        let paused = self.pauses.load(Relaxed);
        // At equal distances, and each process at another time.
        if paused < pauses && middles >= hot * (3 * paused + process + 1) / (3 * pauses + 1) {
            self.pauses.store(paused + 1, Relaxed);
            Said::Stops { at: self.now() }.print();
            raise(Signal::SIGSTOP).expect("a process may stop itself");
            Said::GoesOn { at: self.now() }.print();
        }
    }
}
