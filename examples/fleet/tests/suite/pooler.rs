//! pgbouncer in transaction mode between the fleet and the server, with other clients whose statements have the names that
//! sqlx gives to its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use fleet::{Error, Fleet, retry};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, query_scalar};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::bench::{Bench, Outcome, PATIENCE, SCHEMA, TIMES, bank, charge, fleet_at, pay_and_look};
use crate::faults::worker;

/// pgbouncer, on a socket beside the server's, again and again: when it is killed, it comes back. It has four connections to
/// the server in transaction mode, and none in statement mode, which has its own database.
const POOLER: &str = r#"
pgbouncer=$(PATH=$PATH:/usr/sbin command -v pgbouncer) || { echo "pgbouncer is missing: apt install pgbouncer"; false; } &&
cat >"$dir/pgbouncer.ini" <<CONF &&
[databases]
postgres = host=$dir port=5432 user=fleet
statements = host=$dir port=5432 user=fleet dbname=postgres pool_mode=statement
[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = $dir
pidfile = $dir/pgbouncer.pid
logfile = $dir/pgbouncer.log
auth_type = any
pool_mode = transaction
default_pool_size = 4
max_client_conn = 200
ignore_startup_parameters = extra_float_digits,options
CONF
{ while [ -d "$dir" ]; do "$pgbouncer" -q "$dir/pgbouncer.ini"; sleep 0.01; done & } &&
until [ -S "$dir/.s.PGSQL.6432" ]; do sleep 0.01; done
"#;

/// By the names that sqlx gives, and with as many parameters as the fleet's statements have.
const NAMES: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_work_runs_without_its_lock_and_all_charges_are_done() {
    let scene = Scene::new().await;
    for time in 0..TIMES {
        scene.bench.open(5).await;
        let fleets = [0, 1].map(|number| scene.fleet(&format!("pooled {number}"), 5));
        let others = scene.others(time);
        // As real processes...
        let mut workers = [worker(&scene.url(), 0).await, worker(&scene.url(), 1).await];
        for (_, orders, _) in &mut workers {
            orders.write_all(b"go\n").await.unwrap();
        }
        // ... and where it can be seen who has what.
        let held = Arc::new([const { AtomicBool::new(false) }; 5]);
        let mut charges = JoinSet::new();
        for number in 0..60 {
            let (fleet, held) = (fleets[number % 2].clone(), held.clone());
            let charge = charge(format!("here {number}"), number as i32 / 2 % 5);
            charges.spawn(async move {
                let work = async |db: &mut PgConnection| {
                    let key = &held[charge.account as usize];
                    assert!(!key.swap(true, Relaxed), "two work on one account");
                    let locked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
                        AND classid::bigint << 32 | objid::bigint = hashtextextended($1, 0)";
                    let locked = query_scalar::<_, i64>(locked).persistent(false).bind(charge.key());
                    assert_eq!(locked.fetch_one(&mut *db).await?, 1, "it works without its lock");
                    bank::charge(db, &charge, Duration::from_millis(1)).await?;
                    key.store(false, Relaxed);
                    Ok(())
                };
                fleet.run([charge.key()], work).await as Outcome
            });
        }
        for told in charges.join_all().await {
            told.unwrap(); // not even a retry
        }
        for (mut worker, _orders, mut lines) in workers {
            while let Some(_line) = lines.next_line().await.unwrap() {}
            assert!(worker.wait().await.unwrap().success());
        }
        others.stop().await;
        scene.bench.settled(&[&fleets[0], &fleets[1]], 60 + 2 * 60).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_is_killed_costs_retries_and_no_money() {
    let scene = Scene::new().await;
    let errors = Arc::new(AtomicUsize::new(0));
    for time in 0..TIMES {
        scene.bench.open(5).await;
        let fleets = [0, 1].map(|number| scene.fleet(&format!("pooled {number}"), 5));
        let (mut charges, done) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        for number in 0..60 {
            let (fleet, errors, done) = (fleets[number % 2].clone(), errors.clone(), done.clone());
            charges.spawn(async move {
                let (charge, unknown) = (charge(number, number as i32 / 2 % 5), AtomicBool::new(false));
                let attempt = || async {
                    pay_and_look(&fleet, &charge, &unknown).await.inspect_err(|error| {
                        assert!(error.may_retry(), "{error}");
                        errors.fetch_add(1, Relaxed);
                    })
                };
                retry(40, attempt).await.unwrap();
                done.fetch_add(1, Relaxed);
            });
        }
        let deadline = Instant::now() + PATIENCE;
        while done.load(Relaxed) < 5 + time {
            assert!(Instant::now() < deadline, "no charges are done");
            sleep(Duration::from_millis(1)).await;
        }
        scene.bench.shell(r#"kill -9 "$(cat "$dir/pgbouncer.pid")""#).await;
        charges.join_all().await;
        scene.bench.settled(&[&fleets[0], &fleets[1]], 60).await;
    }
    println!("{TIMES} poolers were killed: {} errors", errors.load(Relaxed));
    assert!(errors.load(Relaxed) > 0, "the pooler was killed when nothing happened");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_in_statement_mode_is_refused() {
    let scene = Scene::new().await;
    scene.bench.open(1).await;
    let url = scene.url().replace("/postgres?", "/statements?");
    let fleet = fleet_at(&url, "pooled", 2);
    for _ in 0..TIMES {
        let work = async |_: &mut PgConnection| -> Outcome { panic!("it works without its lock") };
        let told = fleet.run(["account 0"], work).await;
        assert!(matches!(told, Err(Error::Undone(_))), "{told:?}");
    }
    scene.bench.settled(&[&fleet], 0).await;
}

struct Scene {
    bench: Bench,
}

impl Scene {
    async fn new() -> Self {
        let bench = Bench::with(POOLER);
        bench.execute(&format!("ALTER ROLE fleet SET search_path = {SCHEMA}")).await; // the pooler ignores ours
        Self { bench }
    }

    fn url(&self) -> String {
        self.bench.url_of(6432)
    }

    fn fleet(&self, name: &str, connections: u32) -> Fleet {
        fleet_at(&self.url(), name, connections)
    }

    /// Clients of the same pooler, which prepare statements on each of its connections, use them, and remove them.
    fn others(&self, time: usize) -> Others {
        let (url, mut tasks, stop) = (self.url(), JoinSet::new(), Arc::new(AtomicBool::new(false)));
        for client in 0..4 {
            let (url, stop) = (url.clone(), stop.clone());
            tasks.spawn(async move {
                let mut db = PgConnection::connect(&url).await.unwrap();
                let mut round = time + client;
                while !stop.load(Relaxed) {
                    for name in 1..=NAMES {
                        let parameter = ["text[]", "bytea[]", "text"][round % 3];
                        let prepare = format!("PREPARE sqlx_s_{name} ({parameter}) AS SELECT $1");
                        let _ = db.execute(AssertSqlSafe(prepare)).await; // if it is not there
                    }
                    sleep(Duration::from_millis(2)).await;
                    if round.is_multiple_of(5) {
                        let _ = db.execute("DEALLOCATE ALL").await;
                    }
                    round += 1;
                }
                round
            });
        }
        Others { tasks, stop }
    }
}

struct Others {
    tasks: JoinSet<usize>,
    stop: Arc<AtomicBool>,
}

impl Others {
    async fn stop(self) {
        self.stop.store(true, Relaxed);
        self.tasks.join_all().await;
    }
}
