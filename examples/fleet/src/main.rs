//! Three processes charge the same accounts, in three ways: without a lock, with PostgreSQL's advisory locks, and with
//! advisory locks behind the mutex.
//!
//! ```text
//! cargo run --release                      on a PostgreSQL of its own
//! cargo run --release -- --database URL    on a running one, in a schema that is dropped at the end
//! cargo run --release -- --quick           a third of the charges
//! ```
//!
//! Two charges in three go to one hot account, faster than it can be charged. The others go to quiet accounts, each of
//! which could be charged at once, if there were a connection. The exit status is 1 if money was lost with locks.
//!
//! `lib.rs` is what to copy. Here: `bank` charges, `worker` is one process, `server` the database, `report` what is seen.

mod bank;
#[path = "../../common/child.rs"]
mod child;
mod report;
mod server;
mod worker;

use std::process::{self, ExitCode};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use child::Worker;
use report::{Day, Sample};
use server::Server;
use worker::{Done, Job, Way};

/// Charge the same accounts from several processes, in three ways.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    hidden: Option<Hidden>,
    /// A running PostgreSQL, instead of one that this program starts
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Processes that charge
    #[arg(long, default_value_t = 3)]
    processes: usize,
    /// Charges by each process
    #[arg(long, default_value_t = 300)]
    tasks: usize,
    /// Accounts, of which one is hot
    #[arg(long, default_value_t = 20)]
    accounts: i32,
    /// Connections that each process may have
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Milliseconds from one charge to the next, in each process
    #[arg(long, default_value_t = 4)]
    every: u64,
    /// Milliseconds that a charge computes, between read and write
    #[arg(long, default_value_t = 3)]
    compute: u64,
    /// A third of the charges
    #[arg(long)]
    quick: bool,
}

#[derive(Subcommand)]
enum Hidden {
    #[command(hide = true)]
    Worker(Job),
}

/// How long each of the three ways may take.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if let Some(Hidden::Worker(job)) = arguments.hidden.take() {
        return exit(worker::work(job).map(|()| ExitCode::SUCCESS));
    }
    if arguments.quick {
        arguments.tasks = arguments.tasks.div_ceil(3);
    }
    if arguments.accounts < 2 {
        return exit(Err("There must be a hot account and a quiet one: --accounts 2 at least".into()));
    }
    exit(demonstrate(&arguments))
}

fn exit(outcome: Result<ExitCode, String>) -> ExitCode {
    outcome.unwrap_or_else(|sentence| {
        eprintln!("fleet: {sentence}");
        ExitCode::from(2)
    })
}

/// Runs the whole demonstration, and then ends what it started, even after an error or a signal.
fn demonstrate(arguments: &Arguments) -> Result<ExitCode, String> {
    let bar = ProgressBar::new(1).with_style(
        ProgressStyle::with_template("{msg:>24} {wide_bar} {pos}/{len} charges").expect("it is a template"),
    );
    let server = match &arguments.database {
        Some(_) => None,
        None => {
            bar.set_message("starting PostgreSQL");
            Some(Server::start(None, "")?)
        }
    };
    let url = arguments.database.clone().unwrap_or_else(|| server.as_ref().expect("it was started").url());
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let schema = format!("async_mutex_lite_fleet_{}", process::id());
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
        let outcome = tokio::select! {
            days = three_ways(arguments, &url, &schema, &bar) => days,
            _ = interrupt.recv() => Err("interrupted".into()),
            _ = terminate.recv() => Err("terminated".into()),
        };
        bar.finish_and_clear();
        if server.is_none() {
            drop(timeout(Duration::from_secs(10), leave(&url, &schema)).await);
        }
        let days = outcome?;
        print!("{}", report::report(&days, arguments.processes));
        let lost = days.iter().any(|day| day.way != Way::None && day.lost != 0);
        Ok(if lost { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    })
}

async fn leave(url: &str, schema: &str) -> sqlx::Result<()> {
    let mut db = connect(url, schema).await?;
    db.execute(AssertSqlSafe(format!("DROP SCHEMA IF EXISTS {schema} CASCADE"))).await?;
    db.close().await
}

async fn connect(url: &str, schema: &str) -> sqlx::Result<PgConnection> {
    PgConnection::connect_with(&bank::options(url, schema, "fleet")?).await
}

async fn three_ways(arguments: &Arguments, url: &str, schema: &str, bar: &ProgressBar) -> Result<Vec<Day>, String> {
    let mut days = Vec::new();
    for (way, message) in
        [(Way::None, "no locks"), (Way::Advisory, "advisory locks"), (Way::Both, "the mutex before them")]
    {
        bar.set_message(message);
        bar.set_position(0);
        bar.set_length((arguments.processes * arguments.tasks) as u64);
        let day = timeout(PATIENCE, one_way(arguments, way, url, schema, bar));
        days.push(day.await.map_err(|_| format!("{message}: not done within {} s", PATIENCE.as_secs()))??);
    }
    Ok(days)
}

async fn one_way(arguments: &Arguments, way: Way, url: &str, schema: &str, bar: &ProgressBar) -> Result<Day, String> {
    let sentence = |error: sqlx::Error| format!("the database: {error}");
    let mut db = connect(url, schema).await.map_err(sentence)?;
    bank::open(&mut db, schema, arguments.accounts).await.map_err(sentence)?;

    let mut workers = Vec::new();
    for process in 0..arguments.processes {
        let job = Job {
            database: url.into(),
            schema: schema.into(),
            way,
            process,
            tasks: arguments.tasks,
            accounts: arguments.accounts,
            connections: arguments.connections,
            every: arguments.every,
            compute: arguments.compute,
        };
        workers.push(Worker::start(job.arguments())?);
    }
    for worker in &mut workers {
        worker.line().await.filter(|line| line == "ready").ok_or("a worker does not start")?;
    }
    let (say, mut hear) = mpsc::unbounded_channel();
    let mut listeners = JoinSet::new(); // whose end is the end of the workers
    let started = (Instant::now(), worker::now());
    for mut worker in workers {
        worker.orders.write_all(b"go\n").await.map_err(|error| error.to_string())?;
        let say = say.clone();
        listeners.spawn(async move {
            while let Some(line) = worker.line().await {
                let _ = say.send(Ok(line));
            }
            if !worker.child.wait().await.is_ok_and(|status| status.success()) {
                let _ = say.send(Err("a worker failed".to_string()));
            }
        });
    }
    drop(say);

    let mut day = Day::new(way, started.1);
    let mut ticks = interval(Duration::from_millis(20));
    loop {
        tokio::select! {
            line = hear.recv() => match line {
                None => break,
                Some(line) => {
                    let line = line?;
                    if let Some(done) = Done::parse(&line) {
                        day.done.push(done);
                        bar.inc(1);
                    } else if let Some(counts) = line.strip_prefix("connections ") {
                        let mut counts = counts.split(' ').filter_map(|count| count.parse::<i64>().ok());
                        day.connections = day.connections.max(counts.next().unwrap_or(0));
                        day.beyond = day.beyond.max(counts.next().unwrap_or(0));
                    }
                }
            },
            _ = ticks.tick() => day.samples.push(sample(&mut db).await.map_err(sentence)?),
        }
    }
    day.took = started.0.elapsed();
    let (charges, charged, lost) = bank::books(&mut db).await.map_err(sentence)?;
    (day.charged, day.lost) = (charged, lost);
    let expected = arguments.processes * arguments.tasks;
    if charges != expected as i64 || day.done.len() != expected {
        return Err(format!("{charges} charges are in the books, and {} were reported, of {expected}", day.done.len()));
    }
    let _ = db.close().await;
    Ok(day)
}

/// What the workers' connections do now, as the server sees it.
async fn sample(db: &mut PgConnection) -> sqlx::Result<Sample> {
    let sql = "SELECT count(*) FILTER (WHERE wait_event_type IS DISTINCT FROM 'Lock'),
            count(*) FILTER (WHERE wait_event_type = 'Lock')
        FROM pg_stat_activity
        WHERE application_name LIKE 'fleet worker %' AND datname = current_database() AND state <> 'idle'";
    let (work, wait): (i64, i64) = sqlx::query_as(sql).fetch_one(db).await?;
    Ok(Sample { at: worker::now(), work, wait })
}
