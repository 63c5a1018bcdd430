//! Three processes charge the same accounts, on Redis and on etcd, in four ways: without a lock, with a lease in each task,
//! with a lease behind the mutex, and with that and a fence. Now and then a process is stopped for longer than its lease.
//!
//! ```text
//! cargo run --release                      on servers of its own
//! cargo run --release -- --redis URL       on a running Redis, under a prefix that is cleared at the end
//! cargo run --release -- --etcd URL        on a running etcd, likewise; both may be given
//! cargo run --release -- --quick           a third of the charges
//! ```
//!
//! Two charges in three go to one hot account, faster than it can be charged. The others go to quiet accounts, each of
//! which could be charged at once. The exit status is 1 if money was lost with the fence.
//!
//! `redis.rs` and `etcd.rs` are what to copy. Here: `bank` charges, `worker` is one process, `server` the server, `report`
//! what is seen.

mod bank;
#[path = "../../common/child.rs"]
mod child;
mod report;
mod server;
mod worker;

use std::process::{self, ExitCode};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use url::Url;

use bank::{Bank, Way};
use child::Worker;
use report::Day;
use server::{Engine, Server};
use worker::{Job, Said};

/// Charge the same accounts from several processes, on Redis and on etcd, in four ways.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    hidden: Option<Hidden>,
    /// A running Redis on this machine, instead of servers that this program starts
    #[cfg(feature = "redis")]
    #[arg(long, value_name = "URL", value_parser = of_this_machine)]
    redis: Option<String>,
    /// A running etcd on this machine, likewise
    #[cfg(feature = "etcd")]
    #[arg(long, value_name = "URL", value_parser = of_this_machine)]
    etcd: Option<String>,
    /// Processes that charge
    #[arg(long, default_value_t = 3)]
    processes: usize,
    /// Charges by each process
    #[arg(long, default_value_t = 150)]
    tasks: usize,
    /// Accounts, of which one is hot
    #[arg(long, default_value_t = 20)]
    accounts: u32,
    /// Milliseconds from one charge to the next, in each process
    #[arg(long, default_value_t = 4)]
    every: u64,
    /// Milliseconds that a charge computes, between read and write
    #[arg(long, default_value_t = 3)]
    compute: u64,
    /// How often each process is stopped, for twice a lease
    #[arg(long, default_value_t = 2)]
    pauses: usize,
    /// A third of the charges, and one stop
    #[arg(long)]
    quick: bool,
}

#[derive(Subcommand)]
enum Hidden {
    #[command(hide = true)]
    Worker(Job),
}

/// How long each way may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// It stops processes and sends thousands of requests: that is nothing for a server that others use.
fn of_this_machine(url: &str) -> Result<String, String> {
    let parsed = Url::parse(url).map_err(|error| error.to_string())?;
    match parsed.host_str() {
        None | Some("" | "localhost") => Ok(url.into()),
        Some(host) => match host.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
            Ok(address) if address.is_loopback() => Ok(url.into()),
            _ => Err("only a server on this machine, at localhost, 127.0.0.1 or a socket".into()),
        },
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if let Some(Hidden::Worker(job)) = arguments.hidden.take() {
        return exit(worker::work(job).map(|()| ExitCode::SUCCESS));
    }
    if arguments.quick {
        arguments.tasks = arguments.tasks.div_ceil(3);
        arguments.pauses = arguments.pauses.min(1);
    }
    if arguments.accounts < 2 {
        return exit(Err("There must be a hot account and a quiet one: --accounts 2 at least".into()));
    }
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string());
    exit(runtime.and_then(|runtime| runtime.block_on(demonstrate(&arguments))))
}

fn exit(outcome: Result<ExitCode, String>) -> ExitCode {
    outcome.unwrap_or_else(|sentence| {
        eprintln!("leases: {sentence}");
        ExitCode::from(2)
    })
}

/// Runs the whole demonstration, and then ends what it started, even after an error or a signal.
async fn demonstrate(arguments: &Arguments) -> Result<ExitCode, String> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let bar = ProgressBar::new(1).with_style(
        ProgressStyle::with_template("{msg:>24} {wide_bar} {pos}/{len} charges").expect("it is a template"),
    );
    let engines = Engine::value_variants();
    let own = engines.iter().all(|engine| arguments.url(*engine).is_none());
    let mut code = ExitCode::SUCCESS;
    for &engine in engines {
        let server = if own { Some(Server::start(engine)?) } else { None };
        let Some(url) = server.as_ref().map(Server::url).or_else(|| arguments.url(engine)) else { continue };
        let outcome = tokio::select! {
            days = four_ways(arguments, engine, &url, &bar) => days,
            _ = interrupt.recv() => Err("interrupted".into()),
            _ = terminate.recv() => Err("terminated".into()),
        };
        if server.is_none() {
            let _ = timeout(Duration::from_secs(10), clear(engine, &url)).await;
        }
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        let days = outcome.map_err(|sentence| match &server {
            Some(server) if !server.log().is_empty() => format!("{sentence}\n{}", server.log()),
            _ => sentence,
        })?;
        bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        print!("{}", report::report(&days));
        if days.iter().any(|day| day.way == Way::Fenced && day.books.lost != 0) {
            code = ExitCode::FAILURE;
        }
    }
    bar.finish_and_clear();
    Ok(code)
}

fn prefix() -> String {
    format!("async-mutex-lite-leases-{}-", process::id())
}

/// How long a lease lasts: on etcd, as short as possible.
fn lease(engine: Engine) -> Duration {
    match engine {
        #[cfg(feature = "redis")]
        Engine::Redis => Duration::from_millis(300),
        #[cfg(feature = "etcd")]
        Engine::Etcd => Duration::from_secs(1),
    }
}

async fn clear(engine: Engine, url: &str) -> Result<(), String> {
    match engine {
        #[cfg(feature = "redis")]
        Engine::Redis => bank::Redis::connect(url, &prefix(), lease(engine)).await?.clear().await,
        #[cfg(feature = "etcd")]
        Engine::Etcd => bank::Etcd::connect(url, &prefix(), lease(engine)).await?.clear().await,
    }
}

async fn four_ways(arguments: &Arguments, engine: Engine, url: &str, bar: &ProgressBar) -> Result<Vec<Day>, String> {
    let mut days = Vec::new();
    for &way in Way::value_variants() {
        let name = way.to_possible_value().expect("none is skipped").get_name().to_string();
        bar.set_message(format!("{}: {name}", engine.name()));
        bar.set_position(0);
        bar.set_length((arguments.processes * arguments.tasks) as u64);
        let job = Job {
            engine,
            url: url.into(),
            prefix: prefix(),
            way,
            process: 0,
            tasks: arguments.tasks,
            accounts: arguments.accounts,
            lease: lease(engine).as_millis() as u64,
            every: arguments.every,
            compute: arguments.compute,
            pauses: arguments.pauses,
        };
        let day = async {
            match engine {
                #[cfg(feature = "redis")]
                Engine::Redis => one_way::<bank::Redis>(arguments.processes, job, bar).await,
                #[cfg(feature = "etcd")]
                Engine::Etcd => one_way::<bank::Etcd>(arguments.processes, job, bar).await,
            }
        };
        days.push(timeout(PATIENCE, day).await.map_err(|_| format!("not done within {} s", PATIENCE.as_secs()))??);
    }
    Ok(days)
}

async fn one_way<B: Bank>(processes: usize, job: Job, bar: &ProgressBar) -> Result<Day, String> {
    let bank = connected::<B>(&job).await?;
    bank.open(job.accounts).await?;
    let mut workers = Vec::new();
    for process in 0..processes {
        workers.push(Worker::start(Job { process, ..job.clone() }.arguments())?);
    }
    for worker in &mut workers {
        worker.line().await.filter(|line| line == "ready").ok_or("a worker does not start")?;
    }
    let (say, mut hear) = mpsc::unbounded_channel();
    let mut listeners = JoinSet::new(); // whose end is the end of the workers
    let stopped = Duration::from_millis(2 * job.lease) + Duration::from_millis(500); // etcd looks twice a second
    let began = Instant::now();
    let now = || began.elapsed().as_micros() as u64;
    for (process, mut worker) in workers.into_iter().enumerate() {
        worker.orders.write_all(b"go\n").await.map_err(|error| error.to_string())?;
        let say = say.clone();
        listeners.spawn(async move {
            let mut line = worker.line().await;
            while let Some(words) = line {
                let said = Said::parse(&words).ok_or_else(|| format!("a worker says: {words}"));
                let stops = matches!(said, Ok(Said::Stops { .. }));
                let _ = say.send(said.map(|said| (process, said)));
                line = if stops { worker.go_on(stopped).await } else { worker.line().await };
            }
            if !worker.child.wait().await.is_ok_and(|status| status.success()) {
                let _ = say.send(Err("a worker failed".to_string()));
            }
        });
    }
    drop(say);

    let mut said = vec![Vec::new(); processes];
    let mut requests = vec![(0, bank.requests().await?)];
    let mut ticks = interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            heard = hear.recv() => match heard {
                None => break,
                Some(heard) => {
                    let (process, heard) = heard?;
                    said[process].push(heard);
                    bar.inc(u64::from(matches!(heard, Said::Done { .. })));
                }
            },
            _ = ticks.tick() => requests.push((now(), bank.requests().await?)),
        }
    }
    let took = now();
    requests.push((took, bank.requests().await?));
    let books = bank.books(job.accounts).await?;
    if books.charges != processes * job.tasks {
        return Err(format!("{} charges are in the books, of {}", books.charges, processes * job.tasks));
    }
    Ok(Day { engine: job.engine, way: job.way, took, said, requests, books })
}

/// Connects to a server that may not be ready yet.
async fn connected<B: Bank>(job: &Job) -> Result<B, String> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let connecting =
            timeout(Duration::from_secs(5), B::connect(&job.url, &job.prefix, Duration::from_millis(job.lease)));
        match connecting.await.unwrap_or_else(|_| Err(format!("{} does not answer", job.engine.name()))) {
            Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(20)).await,
            outcome => return outcome,
        }
    }
}

impl Arguments {
    fn url(&self, engine: Engine) -> Option<String> {
        match engine {
            #[cfg(feature = "redis")]
            Engine::Redis => self.redis.clone(),
            #[cfg(feature = "etcd")]
            Engine::Etcd => self.etcd.clone(),
        }
    }
}

impl Worker {
    /// Lets a process go on that stops itself, after some time. Returns what it says next.
    async fn go_on(&mut self, after: Duration) -> Option<String> {
        let pid = Pid::from_raw(self.child.id()? as i32);
        sleep(after).await;
        loop {
            kill(pid, Signal::SIGCONT).ok()?;
            // It may have said that it stops, and not done it yet.
            if let Ok(line) = timeout(Duration::from_millis(50), self.line()).await {
                return line;
            }
        }
    }
}
