//! One process of the fleet: it charges accounts, and reports the results on standard output.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{process, thread};

use async_mutex_lite::KeyedMutex;
use clap::{Args, ValueEnum};
use fleet::{Error, Fleet, retry};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgPool};
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, sleep_until};

use crate::bank::{self, Charge};

/// A limit that no demonstration reaches.
const LIMIT: Duration = Duration::from_secs(60);

/// Three ways to charge an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    None,
    Advisory,
    Both,
}

#[derive(Args, Clone)]
pub struct Job {
    #[arg(long)]
    pub database: String,
    #[arg(long)]
    pub schema: String,
    #[arg(long)]
    pub way: Way,
    #[arg(long)]
    pub process: usize,
    #[arg(long)]
    pub tasks: usize,
    #[arg(long)]
    pub accounts: i32,
    #[arg(long)]
    pub connections: u32,
    /// Milliseconds from one task to the next.
    #[arg(long)]
    pub every: u64,
    /// Milliseconds between read and write.
    #[arg(long)]
    pub compute: u64,
}

impl Job {
    /// The arguments that make it this job again.
    pub fn arguments(&self) -> Vec<String> {
        let way = self.way.to_possible_value().expect("none is skipped");
        [
            ("database", self.database.clone()),
            ("schema", self.schema.clone()),
            ("way", way.get_name().into()),
            ("process", self.process.to_string()),
            ("tasks", self.tasks.to_string()),
            ("accounts", self.accounts.to_string()),
            ("connections", self.connections.to_string()),
            ("every", self.every.to_string()),
            ("compute", self.compute.to_string()),
        ]
        .map(|(name, value)| format!("--{name}={value}"))
        .into()
    }
}

/// What became of a charge. Times are in microseconds since 1970, the same clock for all processes.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    pub process: usize,
    pub account: i32,
    pub came: u64,
    pub began: u64,
    pub ended: u64,
}

impl Done {
    fn print(&self) {
        println!("done {} {} {} {} {}", self.process, self.account, self.came, self.began, self.ended);
    }

    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("done ")?.split(' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        Some(Self {
            process: number()? as usize,
            account: number()? as i32,
            came: number()?,
            began: number()?,
            ended: number()?,
        })
    }
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_micros() as u64
}

/// Does a job. It begins when a line arrives on standard input, and ends at once when that is closed: then the parent
/// is gone.
pub fn work(job: Job) -> Result<(), String> {
    let (go, going) = oneshot::channel();
    thread::spawn(move || {
        let mut line = String::new();
        if io::stdin().read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            let _ = go.send(());
            let _ = io::stdin().read(&mut [0]);
        }
        process::exit(1);
    });
    // On one thread, so that what is counted is true: nothing else happens between one await and the next.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let _context = runtime.enter(); // also needed while tasks that an error leaves behind are dropped
    LocalSet::new().block_on(&runtime, work_on(job, going)).map_err(|error| error.to_string())
}

async fn work_on(job: Job, going: oneshot::Receiver<()>) -> Result<(), Error<String>> {
    let options = bank::options(&job.database, &job.schema, &format!("fleet worker {}", job.process))?;
    let pool = PgPoolOptions::new()
        .max_connections(job.connections)
        .acquire_timeout(LIMIT)
        .test_before_acquire(false)
        .connect_with(options)
        .await?;
    let fleet = Fleet {
        mutex: Arc::new(KeyedMutex::new()),
        pool: pool.clone(),
        limit: LIMIT,
        work_limit: Some(LIMIT),
        commit_limit: Some(LIMIT),
    };
    println!("ready");
    let _ = going.await;

    let counts = Rc::new(Counts { pool, keys: RefCell::default(), most: Cell::new(0), beyond: Cell::new(i64::MIN) });
    let ticks = spawn_local({
        let counts = counts.clone();
        async move {
            loop {
                counts.look();
                sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let start = Instant::now();
    let mut tasks = Vec::new();
    for (number, charge) in bank::charges(job.process, job.tasks, job.accounts).enumerate() {
        sleep_until(start + Duration::from_millis(job.every) * number as u32).await;
        let (fleet, counts, job) = (fleet.clone(), counts.clone(), job.clone());
        tasks.push(spawn_local(async move {
            let came = now();
            counts.enter(charge.account);
            let began = pay(&fleet, &charge, &job, &counts).await;
            counts.leave(charge.account);
            began.map(|began| Done { process: job.process, account: charge.account, came, began, ended: now() }.print())
        }));
    }
    for task in tasks {
        task.await.expect("no task panics")?;
    }
    ticks.abort();
    println!("connections {} {}", counts.most.get(), counts.beyond.get());
    Ok(())
}

/// Charges an account in the given way, and returns when the work began.
async fn pay(fleet: &Fleet, charge: &Charge, job: &Job, counts: &Counts) -> Result<u64, Error<String>> {
    let compute = Duration::from_millis(job.compute);
    let began = Cell::new(0);
    let begin = || {
        counts.look();
        began.set(now());
    };
    match job.way {
        Way::Both => {
            retry(9, || async {
                let work = async |db: &mut _| {
                    begin();
                    bank::charge(db, charge, compute).await
                };
                fleet.run([charge.key()], work).await
            })
            .await?;
        }
        way => {
            let mut connection = fleet.pool.acquire().await?;
            let mut transaction = connection.begin().await?;
            if way == Way::Advisory {
                let lock = sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))").persistent(false);
                lock.bind(charge.key()).execute(&mut *transaction).await?;
            }
            begin();
            bank::charge(&mut transaction, charge, compute).await?;
            transaction.commit().await?;
        }
    }
    Ok(began.get())
}

/// What this process has in use.
struct Counts {
    pool: PgPool,
    keys: RefCell<HashMap<i32, usize>>,
    most: Cell<i64>,
    beyond: Cell<i64>,
}

impl Counts {
    fn enter(&self, account: i32) {
        *self.keys.borrow_mut().entry(account).or_default() += 1;
    }

    fn leave(&self, account: i32) {
        let mut keys = self.keys.borrow_mut();
        let tasks = keys.get_mut(&account).expect("it was entered");
        *tasks -= 1;
        if *tasks == 0 {
            keys.remove(&account);
        }
    }

    /// Counts the connections in use, and how many more they are than the keys in use.
    fn look(&self) {
        let used = i64::from(self.pool.size()) - self.pool.num_idle() as i64;
        self.most.set(self.most.get().max(used));
        self.beyond.set(self.beyond.get().max(used - self.keys.borrow().len() as i64));
    }
}
