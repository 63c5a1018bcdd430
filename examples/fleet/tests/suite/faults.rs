//! What goes wrong in a fleet, each twenty times, against a real server. After each: no advisory lock is left, no key is
//! busy, and the books balance.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleet::{Error, Fleet, retry};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};

use crate::bench::{Bench, Outcome, PATIENCE, TIMES, bank, charge, hold, pay, pay_and_look};
use crate::polled::polled;

/// The others go on within a second, is the promise; the figure is printed. A machine that is very busy may take longer.
/// In microseconds, as what the workers say.
const SOON: u64 = 20_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_killed_holds_nobody_up_and_loses_nothing() {
    let bench = Bench::new();
    let fleet = bench.fleet("successor", 4);
    let mut longest = 0;
    for time in 0..TIMES {
        bench.open(5).await;
        let (mut victim, mut orders, mut lines) = worker(&bench.url(), 0).await;
        let (mut survivor, mut other_orders, mut other_lines) = worker(&bench.url(), 1).await;
        orders.write_all(b"go\n").await.unwrap();
        other_orders.write_all(b"go\n").await.unwrap();
        for _ in 0..5 + time {
            lines.next_line().await.unwrap().expect("it is in the middle of its charges");
        }
        victim.kill().await.unwrap(); // SIGKILL
        let (killed, mut before) = (now(), 0);
        while let Some(line) = timeout(PATIENCE, other_lines.next_line()).await.expect("it goes on").unwrap() {
            let Some(ended) = line.strip_prefix("done ").and_then(|line| line.split(' ').nth(4)?.parse().ok()) else {
                continue;
            };
            if ended > killed {
                longest = longest.max(ended - killed.max(before));
            }
            before = ended;
        }
        assert!(before > killed, "the survivor was done too early");
        assert!(survivor.wait().await.unwrap().success());

        // Another process does what it had to do: what it has done is not done again.
        for charge in bank::charges(0, 60, 5) {
            retry(5, || pay(&fleet, &charge)).await.unwrap();
        }
        bench.settled(&[&fleet], 120).await;
    }
    println!("after a kill, the other charged again within {} ms", longest / 1000);
    assert!(longest < SOON);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_under_load_costs_retries_and_no_money() {
    let bench = Bench::new();
    let errors = Arc::new([const { AtomicUsize::new(0) }; 2]);
    for time in 0..TIMES {
        bench.open(5).await;
        let fleets = [bench.fleet("one", 5), bench.fleet("two", 5)];
        let mut tasks = JoinSet::new();
        let done = Arc::new(AtomicUsize::new(0));
        for number in 0..80 {
            let fleet = fleets[number % 2].clone();
            let (errors, done) = (errors.clone(), done.clone());
            tasks.spawn(async move {
                let (charge, unknown) = (charge(number, number as i32 / 2 % 5), AtomicBool::new(false));
                let attempt = || async {
                    pay_and_look(&fleet, &charge, &unknown).await.inspect_err(|error| match error {
                        Error::Undone(_) => _ = errors[0].fetch_add(1, Relaxed),
                        Error::Unknown(_) => _ = errors[1].fetch_add(1, Relaxed),
                        other => panic!("not an error that one may retry: {other}"),
                    })
                };
                retry(40, attempt).await.unwrap();
                done.fetch_add(1, Relaxed);
            });
        }
        let deadline = Instant::now() + PATIENCE;
        while done.load(Relaxed) < 10 + time && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bench.restart(if time % 2 == 0 { "fast" } else { "immediate" }).await;
        tasks.join_all().await;
        bench.settled(&[&fleets[0], &fleets[1]], 80).await;
    }
    let [undone, unknown] = &*errors;
    println!("{TIMES} restarts: {} undone, {} unknown", undone.load(Relaxed), unknown.load(Relaxed));
    assert!(undone.load(Relaxed) > 0, "the server was restarted when nothing happened");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_while_it_waits_is_told_and_tried_again() {
    let bench = Bench::new();
    for _ in 0..TIMES {
        bench.open(1).await;
        let Queue { holder, release, held, waiter, wait } = Queue::new(&bench).await;
        bench.cut("waiter").await;
        let told = wait.await.unwrap();
        assert!(matches!(told, Err(Error::Undone(_))), "{told:?}");
        release.send(()).unwrap();
        held.await.unwrap().unwrap();
        pay(&waiter, &charge("waits", 0)).await.unwrap();
        bench.settled(&[&holder, &waiter], 2).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_while_it_works_loses_the_lock_and_the_work_together() {
    let bench = Bench::new();
    for _ in 0..TIMES {
        bench.open(1).await;
        let Queue { holder, release, held, waiter, wait } = Queue::new(&bench).await;
        bench.cut("holder").await;
        wait.await.unwrap().unwrap(); // while the other still believes that it works
        release.send(()).unwrap();
        let told = held.await.unwrap();
        assert!(matches!(told, Err(Error::Undone(_))), "{told:?}");
        bench.settled(&[&holder, &waiter], 1).await;
        pay(&holder, &charge("holds", 0)).await.unwrap();
        bench.settled(&[&holder, &waiter], 2).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_during_commit_is_unknown_and_a_retry_does_it_once() {
    let bench = Bench::new();
    // A COMMIT that has been done and whose answer does not come, because no standby has confirmed it; and one that takes
    // its time before it is done.
    bench.execute("ALTER SYSTEM SET synchronous_commit = local").await;
    bench.execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await;
    bench.restart("fast").await;
    let slow =
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON charges DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW WHEN (NEW.id = 'slow') EXECUTE FUNCTION slow()";
    for time in 0..TIMES {
        bench.open(1).await;
        bench.execute(slow).await;
        let fleet = bench.fleet("commits", 2);
        let done_before = time % 2 == 0;
        let id = if done_before { "done" } else { "slow" };
        let task = tokio::spawn({
            let fleet = fleet.clone();
            async move {
                let work = async |db: &mut sqlx::PgConnection| {
                    if done_before {
                        sqlx::query("SET LOCAL synchronous_commit = on").execute(&mut *db).await?;
                    }
                    bank::charge(db, &charge(id, 0), Duration::ZERO).await
                };
                fleet.run(["account 0"], work).await as Outcome
            }
        });
        let event = if done_before { "SyncRep" } else { "PgSleep" };
        bench.until(&format!("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = '{event}'")).await;
        bench.cut("commits").await;
        let told = task.await.unwrap();
        assert!(matches!(told, Err(Error::Unknown(_))), "{told:?}");
        bench.settled(&[&fleet], i64::from(done_before)).await;
        if !done_before {
            bench.execute("DROP TRIGGER slow ON charges").await;
        }
        pay(&fleet, &charge(id, 0)).await.unwrap();
        bench.settled(&[&fleet], 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_of_one_connection_is_enough() {
    let bench = Bench::new();
    for time in 0..TIMES {
        bench.open(5).await;
        let fleets = [bench.fleet("one", 1), bench.fleet("two", 1)];
        let mut tasks = JoinSet::new();
        for number in 0..40 {
            let fleet = fleets[number % 2].clone();
            tasks.spawn(async move {
                let first = charge(number, number as i32 / 2 % 5);
                let second = charge(format!("{number} too"), (number + time) as i32 % 5);
                if number % 5 == 0 {
                    drop(polled(pay(&fleet, &first), time % 10).await); // it is given up, somewhere
                }
                let both = async |db: &mut sqlx::PgConnection| {
                    bank::charge(&mut *db, &first, Duration::ZERO).await?;
                    bank::charge(&mut *db, &second, Duration::ZERO).await?;
                    Ok::<_, Error<String>>(())
                };
                retry(5, || fleet.run([first.key(), second.key()], both)).await.unwrap();
                assert!(fleet.pool.size() <= 1);
            });
        }
        tasks.join_all().await;
        bench.settled(&[&fleets[0], &fleets[1]], 80).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_dropped_at_any_step_leaves_nothing_behind() {
    let bench = Bench::new();
    let mut steps = 0;
    for time in 0..TIMES {
        bench.open(1).await;
        let (fleet, other) = (bench.fleet("dropped", 3), bench.fleet("other", 3));
        // On its own, from the first poll to the last but one: connecting, BEGIN, the lock, the work, COMMIT.
        let (mut count, mut polls, mut db) = (0, 0, bench.connect().await);
        loop {
            let done = polled(pay(&fleet, &charge(count, 0)), polls).await;
            fleet.mutex.all_idle().await; // each begins on its own
            let none = "SELECT count(*) = 0 FROM pg_stat_activity WHERE state LIKE 'idle in%' AND application_name = 'dropped'";
            assert!(
                sqlx::query_scalar::<_, bool>(none).fetch_one(&mut db).await.unwrap(),
                "a transaction is left open"
            );
            (count, polls) = (count + 1, polls + 1);
            match done {
                Some(done) => break done.unwrap(),
                None => assert!(polls < 1000, "it does not end"),
            }
        }
        steps = steps.max(polls);
        // While another process has the key, and another task is ahead: waiting there, and here.
        let (release, held) = hold(&other, "holds").await;
        let there = paying(&fleet, "there");
        bench.until_waits("dropped").await;
        let here = paying(&fleet, "here");
        queued(&fleet, 1).await;
        let successor = paying(&fleet, "successor");
        queued(&fleet, 2).await;
        if time % 2 == 0 {
            here.abort();
            there.abort();
        } else {
            there.abort();
            here.abort();
        }
        assert!(there.await.is_err_and(|error| error.is_cancelled()));
        assert!(here.await.is_err_and(|error| error.is_cancelled()));
        assert_eq!(fleet.mutex.state("account 0").waiting, 1, "the key stays locked while the server waits");
        release.send(()).unwrap();
        held.await.unwrap().unwrap();
        successor.await.unwrap().unwrap();

        // In the middle of the work.
        let (release, held) = hold(&fleet, "works").await;
        held.abort();
        drop(release);
        pay(&other, &charge("after", 0)).await.unwrap(); // it does not wait

        // How far a dropped one came is unknown: all of them are tried again.
        for number in 0..count {
            pay(&fleet, &charge(number, 0)).await.unwrap();
        }
        for id in ["there", "here", "works"] {
            pay(&fleet, &charge(id, 0)).await.unwrap();
        }
        bench.settled(&[&fleet, &other], count as i64 + 6).await;
        assert!(fleet.pool.size() <= 1, "one key never needs a second connection");
    }
    println!("dropped at up to {steps} steps");
    assert!(steps >= 8, "fewer steps than there are statements: {steps}");
}

/// One process of the fleet, by its own program, that charges five accounts sixty times, when it is told to go on.
pub async fn worker(url: &str, process: usize) -> (Child, ChildStdin, Lines<BufReader<ChildStdout>>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_fleet"))
        .arg("worker")
        .args([format!("--database={url}"), format!("--process={process}")])
        .args("--schema=test --way=both --tasks=60 --accounts=5 --connections=5 --every=0 --compute=1".split(' '))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (orders, mut lines) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("ready"));
    (child, orders, lines)
}

/// A process that holds the key of account 0, and one that waits for it in the database.
struct Queue {
    holder: Fleet,
    release: oneshot::Sender<()>,
    held: JoinHandle<Outcome>,
    waiter: Fleet,
    wait: JoinHandle<Outcome>,
}

impl Queue {
    async fn new(bench: &Bench) -> Self {
        let (holder, waiter) = (bench.fleet("holder", 2), bench.fleet("waiter", 2));
        let (release, held) = hold(&holder, "holds").await;
        let wait = paying(&waiter, "waits");
        bench.until_waits("waiter").await;
        Self { holder, release, held, waiter, wait }
    }
}

/// Charges account 0 in a task of its own.
fn paying(fleet: &Fleet, id: &'static str) -> JoinHandle<Outcome> {
    let fleet = fleet.clone();
    tokio::spawn(async move { pay(&fleet, &charge(id, 0)).await })
}

/// Waits until so many wait for account 0 in this process.
async fn queued(fleet: &Fleet, tasks: usize) {
    let deadline = Instant::now() + PATIENCE;
    while fleet.mutex.state("account 0").waiting < tasks {
        assert!(Instant::now() < deadline, "nobody waits");
        tokio::task::yield_now().await;
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_micros() as u64
}
