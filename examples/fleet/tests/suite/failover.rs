//! Two servers, of which one is the standby of the other. The fleet reaches them by an address, which leads to one of them,
//! not always the right one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use fleet::{Error, Fleet};
use sqlx::query_scalar;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::bench::{Bench, PATIENCE, TIMES, charge, fleet_at, pay, pay_and_look};
use crate::network::Network;

/// The second server, on a port of its own. COMMIT waits until the other has it, too.
const STANDBY: &str = r#"
"$bin/pg_basebackup" -h "$dir" -U fleet -D "$dir/standby" -c fast &&
touch "$dir/standby/standby.signal" &&
echo "primary_conninfo = 'host=$dir user=fleet port=5433'" >>"$dir/data/postgresql.conf" &&
echo "primary_conninfo = 'host=$dir user=fleet port=5432'
port = 5433" >>"$dir/standby/postgresql.conf" &&
echo "synchronous_standby_names = '*'" | tee -a "$dir/data/postgresql.conf" >>"$dir/standby/postgresql.conf" &&
"$bin/pg_ctl" -D "$dir/standby" -l "$dir/standby.log" -w start &&
"$bin/pg_ctl" -D "$dir/data" reload
"#;

/// The servers' directories and ports.
const SERVERS: [(&str, u16); 2] = [("data", 5432), ("standby", 5433)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_change_places_cost_retries_and_no_money_and_no_pool_stays_with_the_old_one() {
    let bench = Bench::with(STANDBY);
    let network = Network::to(&bench.socket(5432)).await;
    let fleets = ["one", "two"].map(|name| fleet_at(&network.url(), name, 5));
    let refused = Arc::new(AtomicUsize::new(0));
    let mut errors = 0;
    for time in 0..TIMES {
        let [(old, _), (new, new_port)] = if time % 2 == 0 { SERVERS } else { [SERVERS[1], SERVERS[0]] };
        bench.until("SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'").await;
        bench.open(5).await;
        let load = Load::new(&fleets, &refused);
        load.goes_on().await;

        refused.store(0, Relaxed);
        bench.shell(&format!(r#""$bin/pg_ctl" -D "$dir/{old}" -m fast -w stop"#)).await;
        let again =
            format!(r#"touch "$dir/{old}/standby.signal"; "$bin/pg_ctl" -D "$dir/{old}" -l "$dir/{old}.log" -w start"#);
        bench.shell(&again).await;
        bench.shell(&format!(r#""$bin/pg_ctl" -D "$dir/{new}" -w promote"#)).await;
        // The address has not changed yet: it leads to a server that is healthy, and not the primary any more.
        let deadline = Instant::now() + PATIENCE;
        while refused.load(Relaxed) == 0 {
            assert!(Instant::now() < deadline, "the standby refuses nothing");
            sleep(Duration::from_millis(1)).await;
        }
        network.lead_to(&bench.socket(new_port));
        load.goes_on().await;
        let old_url = bench.url();
        bench.lead_to(new_port);
        let (done, undone) = load.stop().await;
        errors += undone;
        let none = "SELECT count(*) FROM pg_stat_activity WHERE application_name IN ('one', 'two')";
        let mut db = bench.connect_to(&old_url).await;
        let stayed: i64 = query_scalar(none).fetch_one(&mut db).await.unwrap();
        assert_eq!(stayed, 0, "connections to the old one are kept");
        bench.settled(&fleets.each_ref(), done as i64).await;
    }
    println!("{TIMES} times the servers changed places: {errors} errors");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_error_empties_a_pool_that_is_connected_to_a_standby() {
    let bench = Bench::with(STANDBY);
    let network = Network::to(&bench.socket(5432)).await;
    let fleet = fleet_at(&network.url(), "fleet", 5);
    bench.open(5).await;
    for time in 0..TIMES {
        network.lead_to(&bench.socket(5433));
        let mut connections = Vec::new();
        for _ in 0..5 {
            connections.push(fleet.pool.acquire().await.unwrap());
        }
        for mut connection in connections {
            connection.return_to_pool().await;
        }
        network.lead_to(&bench.socket(5432));
        let told = pay(&fleet, &charge(format!("{time} first"), 0)).await;
        assert!(told.as_ref().is_err_and(is_read_only), "{told:?}");
        let mut charges = JoinSet::new();
        for account in 0..5 {
            let fleet = fleet.clone();
            charges.spawn(async move { pay(&fleet, &charge(format!("{time} {account}"), account)).await });
        }
        for told in charges.join_all().await {
            told.unwrap();
        }
        while let Some(idle) = fleet.pool.try_acquire() {
            drop(idle.detach());
        }
    }
    bench.settled(&[&fleet], 5 * TIMES as i64).await;
}

fn is_read_only(error: &Error<String>) -> bool {
    matches!(error, Error::Undone(sqlx::Error::Database(error)) if error.code().as_deref() == Some("25006"))
}

/// Tasks that charge one after the other, and try each charge until it is done.
struct Load {
    tasks: JoinSet<(usize, usize)>,
    done: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Load {
    fn new(fleets: &[Fleet; 2], refused: &Arc<AtomicUsize>) -> Self {
        let (done, stop, mut tasks) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)), JoinSet::new());
        for task in 0..10 {
            let (fleet, refused, done, stop) = (fleets[task % 2].clone(), refused.clone(), done.clone(), stop.clone());
            tasks.spawn(async move {
                let (mut charged, mut errors) = (0, 0);
                while !stop.load(Relaxed) {
                    let charge = charge(format!("{task} {charged}"), task as i32 / 2);
                    let unknown = AtomicBool::new(false);
                    // Also when it is told to stop: what is unknown may be in the books.
                    while let Err(error) = pay_and_look(&fleet, &charge, &unknown).await {
                        assert!(error.may_retry(), "{error}");
                        refused.fetch_add(is_read_only(&error).into(), Relaxed);
                        errors += 1;
                        sleep(Duration::from_millis(5)).await;
                    }
                    charged += 1;
                    done.fetch_add(1, Relaxed);
                }
                (charged, errors)
            });
        }
        Self { tasks, done, stop }
    }

    /// Waits until some more charges are done.
    async fn goes_on(&self) {
        let (before, deadline) = (self.done.load(Relaxed), Instant::now() + PATIENCE);
        while self.done.load(Relaxed) < before + 20 {
            assert!(Instant::now() < deadline, "no charges are done");
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Returns how many charges were done, and how many attempts were not.
    async fn stop(self) -> (usize, usize) {
        self.stop.store(true, Relaxed);
        let each = self.tasks.join_all().await;
        each.into_iter().fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1))
    }
}
