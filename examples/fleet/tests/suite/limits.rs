//! Limits, and every public parameter at its ends.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use fleet::{Error, Fleet, retry};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Executor, PgConnection, query, query_as, query_scalar};
use tokio::time::{Instant, sleep, timeout};

use crate::bench::{Bench, Outcome, PATIENCE, TIMES, charge, fleet_at, fleet_with, hold, holding, pay};
use crate::network::Network;

#[tokio::test]
async fn the_limit_is_kept_in_both_layers() {
    let bench = Bench::new();
    bench.open(1).await;
    let other = bench.fleet("other", 1);
    let fleet = Fleet { limit: Duration::from_millis(200), ..bench.fleet("fleet", 2) };
    let (release, held) = hold(&other, "holds").await;
    let (charge, too) = (charge("there", 0), charge("here", 0));
    let (there, here) = tokio::join!(pay(&fleet, &charge), pay(&fleet, &too));
    assert!(matches!(there, Err(Error::TimedOut)), "{there:?}");
    assert!(matches!(here, Err(Error::TimedOut)), "{here:?}");
    // The server has given up as well, though the key is still held.
    bench.until("SELECT count(*) = 0 FROM pg_stat_activity WHERE wait_event = 'advisory'").await;
    fleet.mutex.all_idle().await;
    release.send(()).unwrap();
    held.await.unwrap().unwrap();
    bench.settled(&[&fleet, &other], 1).await;
}

#[tokio::test]
async fn the_server_has_one_limit_for_all_keys_not_one_for_each() {
    const LIMIT: Duration = Duration::from_secs(10);
    let bench = Bench::new();
    bench.open(2).await;
    // In the order in which the server locks them.
    let order = "SELECT id FROM test.accounts ORDER BY hashtextextended('account ' || id, 0)";
    let order: Vec<i32> = query_scalar(order).fetch_all(&mut bench.connect().await).await.unwrap();
    let (one, two) = (bench.fleet("one", 1), bench.fleet("two", 1));
    let (first, first_held) = holding(&one, charge("first", order[0])).await;
    let (second, second_held) = holding(&two, charge("second", order[1])).await;
    let fleet = Fleet { limit: LIMIT, ..bench.fleet("fleet", 1) };
    let run = tokio::spawn({
        let fleet = fleet.clone();
        async move {
            let work = async |_: &mut PgConnection| -> Outcome { panic!("it was too late") };
            fleet.run(["account 0", "account 1"], work).await
        }
    });
    bench.until_waits("fleet").await;
    sleep(LIMIT * 3 / 5).await;
    first.send(()).unwrap();
    let now = Instant::now(); // the wait for the second key begins
    let told = run.await.unwrap();
    assert!(matches!(told, Err(Error::TimedOut)), "{told:?}");
    fleet.mutex.all_idle().await; // the server has answered
    assert!(now.elapsed() < LIMIT, "the server began to count anew, and kept the first key meanwhile");
    second.send(()).unwrap();
    first_held.await.unwrap().unwrap();
    second_held.await.unwrap().unwrap();
    bench.settled(&[&fleet, &one, &two], 2).await;
}

#[tokio::test]
async fn timeouts_of_the_role_do_not_shorten_the_wait_and_come_back_for_the_work() {
    let bench = Bench::new();
    bench.open(1).await;
    bench.execute("ALTER ROLE fleet SET statement_timeout = '3s'").await;
    bench.execute("ALTER ROLE fleet SET idle_in_transaction_session_timeout = '77s'").await;
    let other = bench.fleet("other", 1);
    // One has the role's, one has its own.
    let options = PgPoolOptions::new().max_connections(1).after_connect(|connection, _| {
        Box::pin(async move { connection.execute("SET statement_timeout = '2900ms'").await.map(drop) })
    });
    let own = Fleet { work_limit: None, ..fleet_with(&bench.url(), "own", options) };
    let fleet = Fleet { work_limit: Some(Duration::from_secs(88)), ..bench.fleet("fleet", 1) };
    for (fleet, name, statement, idle) in [(&fleet, "fleet", "3s", "88s"), (&own, "own", "2900ms", "77s")] {
        let (release, held) = hold(&other, name).await;
        let run = tokio::spawn({
            let fleet = fleet.clone();
            async move {
                let work = async |db: &mut PgConnection| {
                    let settings = "SELECT current_setting('statement_timeout'),
                        current_setting('idle_in_transaction_session_timeout')";
                    Ok::<(String, String), Error<String>>(query_as(settings).persistent(false).fetch_one(db).await?)
                };
                fleet.run(["account 0"], work).await
            }
        });
        bench.until_waits(name).await;
        sleep(Duration::from_secs(4)).await; // longer than the role's
        release.send(()).unwrap();
        held.await.unwrap().unwrap();
        assert_eq!(run.await.unwrap().unwrap(), (statement.into(), idle.into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_the_server_ends_is_told_as_one_that_was_too_long() {
    let bench = Bench::new();
    bench.open(1).await;
    let (other, fleet) = (bench.fleet("other", 1), bench.fleet("fleet", 1));
    let (release, held) = hold(&other, "holds").await;
    for time in 0..TIMES {
        if time == TIMES / 2 {
            fleet.pool.acquire().await.unwrap().execute("SET lock_timeout = '50ms'").await.unwrap();
        }
        let run = tokio::spawn({
            let fleet = fleet.clone();
            async move { pay(&fleet, &charge("waits", 0)).await }
        });
        if time < TIMES / 2 {
            bench.until_waits("fleet").await;
            bench.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'advisory'").await;
        }
        let told = run.await.unwrap();
        assert!(matches!(told, Err(Error::TimedOut)), "{told:?}");
        fleet.mutex.all_idle().await;
        assert_eq!(fleet.pool.num_idle(), 1, "the connection is kept");
    }
    release.send(()).unwrap();
    held.await.unwrap().unwrap();
    pay(&fleet, &charge("waits", 0)).await.unwrap();
    bench.settled(&[&fleet, &other], 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_may_be_as_long_as_there_are() {
    let bench = Bench::new();
    bench.open(1).await;
    let longest = Some(Duration::MAX);
    let fleet = Fleet { limit: Duration::MAX, work_limit: longest, commit_limit: longest, ..bench.fleet("fleet", 1) };
    pay(&fleet, &charge("longest", 0)).await.unwrap();
    let other = bench.fleet("other", 1);
    let (release, held) = hold(&other, "holds").await;
    let waits = tokio::spawn({
        let fleet = fleet.clone();
        async move { pay(&fleet, &charge("waits", 0)).await }
    });
    bench.until_waits("fleet").await;
    release.send(()).unwrap();
    held.await.unwrap().unwrap();
    waits.await.unwrap().unwrap();
    let unlimited = Fleet { work_limit: None, commit_limit: None, ..fleet.clone() };
    pay(&unlimited, &charge("unlimited", 0)).await.unwrap();
    bench.settled(&[&fleet, &other], 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_may_be_zero() {
    let bench = Bench::new();
    bench.open(1).await;
    let fleet = bench.fleet("fleet", 1);
    // A timer has milliseconds, and some is done within one.
    let hasty = Fleet { limit: Duration::ZERO, ..fleet.clone() };
    let told = pay(&hasty, &charge("hasty", 0)).await;
    assert!(matches!(told, Ok(()) | Err(Error::TimedOut)), "{told:?}");
    let lazy = Fleet { work_limit: Some(Duration::ZERO), ..fleet.clone() };
    let told = pay(&lazy, &charge("lazy", 0)).await;
    assert!(matches!(told, Ok(()) | Err(Error::Undone(_))), "{told:?}");
    let blind = Fleet { commit_limit: Some(Duration::ZERO), ..fleet.clone() };
    let told = pay(&blind, &charge("blind", 0)).await;
    assert!(matches!(told, Ok(()) | Err(Error::Unknown(_))), "{told:?}");
    for id in ["hasty", "lazy", "blind"] {
        pay(&fleet, &charge(id, 0)).await.unwrap();
    }
    bench.settled(&[&fleet], 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_may_be_none_many_the_same_and_of_any_kind() {
    let bench = Bench::new();
    bench.open(1).await;
    let fleet = Fleet { limit: PATIENCE, ..bench.fleet("fleet", 2) };
    let locks = async |keys: Vec<String>| -> Result<i64, Error<String>> {
        let work = async |db: &mut PgConnection| {
            let count = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
            Ok(query_scalar(count).fetch_one(db).await?)
        };
        fleet.run(keys, work).await
    };
    assert_eq!(locks(vec![]).await.unwrap(), 0);
    assert_eq!(locks(vec!["a".into(); 1000]).await.unwrap(), 1);
    let kinds = ["", " ", "Zoë", "'; DROP TABLE accounts; --", "{\"a\",null}", "\\x00", "a\nb"];
    assert_eq!(locks(kinds.map(String::from).into()).await.unwrap(), 7);
    assert_eq!(locks(vec!["long".repeat(1 << 20)]).await.unwrap(), 1);
    assert_eq!(locks((0..1000).map(|key| key.to_string()).collect()).await.unwrap(), 1000);
    // More than there is room for.
    let told = locks((0..100_000).map(|key| key.to_string()).collect()).await;
    assert!(matches!(told, Err(Error::Undone(_))), "{told:?}");
    // What a text of PostgreSQL cannot be.
    let told = locks(vec!["a\0b".into()]).await;
    assert!(matches!(told, Err(Error::Database(_))), "{told:?}");
    bench.settled(&[&fleet], 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_is_exhausted_or_closed_is_told() {
    let bench = Bench::new();
    bench.open(1).await;
    let options = PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(2));
    let fleet = fleet_with(&bench.url(), "fleet", options);
    let mut only = fleet.pool.acquire().await.unwrap();
    let told = pay(&fleet, &charge(1, 0)).await;
    assert!(matches!(told, Err(Error::TimedOut)), "{told:?}");
    only.return_to_pool().await;
    let charges = [charge(1, 0), charge(2, 0)];
    retry(5, || pay(&fleet, &charges[0])).await.unwrap();
    fleet.pool.close().await;
    let told = pay(&fleet, &charges[1]).await;
    assert!(matches!(told, Err(Error::Database(_))), "{told:?}");
    bench.settled(&[&fleet], 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_cannot_be_made_may_be_tried_again_and_one_that_the_server_refuses_not() {
    let bench = Bench::new();
    bench.open(1).await;
    let network = Network::to(&bench.socket(1)).await; // no server is there, and each connection is closed at once
    // The second asks for TLS, and gets an error as when a handshake fails.
    for url in [network.url(), bench.url() + "&sslmode=require"] {
        let fleet = fleet_at(&url, "fleet", 1);
        let told = pay(&fleet, &charge(1, 0)).await;
        assert!(matches!(told, Err(Error::Undone(_))), "{url}: {told:?}");
        bench.settled(&[&fleet], 0).await;
    }
    let fleet = fleet_at(&bench.url().replace("/postgres?", "/missing?"), "fleet", 1);
    let told = pay(&fleet, &charge(1, 0)).await;
    assert!(matches!(told, Err(Error::Database(_))), "{told:?}");
    bench.settled(&[&fleet], 0).await;
}

/// The clock is the test's own: a pause takes no time.
#[tokio::test(start_paused = true)]
async fn a_retry_tries_once_and_then_as_often_as_it_is_told_and_not_in_step_with_others() {
    let undone = || Error::<String>::Undone(sqlx::Error::PoolClosed);
    for more in [0, 1, 7] {
        let tries = AtomicUsize::new(0);
        let job = || {
            tries.fetch_add(1, Relaxed);
            async { Err::<(), _>(undone()) }
        };
        assert!(matches!(retry(more, job).await, Err(Error::Undone(_))));
        assert_eq!(tries.into_inner(), 1 + more as usize);
    }
    let tries = AtomicUsize::new(0);
    let job = || {
        let tried = tries.fetch_add(1, Relaxed);
        async move { if tried < 100 { Err(undone()) } else { Ok(tried) } }
    };
    assert_eq!(retry(u32::MAX, job).await.unwrap(), 100);
    for last in [Error::TimedOut, Error::Database(sqlx::Error::PoolClosed), Error::Task("no".to_string())] {
        let mut last = Some(last);
        let job = || std::future::ready(Err::<(), _>(last.take().expect("it is not tried again")));
        assert!(retry(5, job).await.is_err());
    }

    // When each of twenty processes comes back that met the same fault at the same time. Each draws eight pauses, of up to
    // 10, 20, 40 ... 1280 ms: hardly two of them come back in the same millisecond.
    let mut backs = HashSet::new();
    for _ in 0..TIMES {
        let start = Instant::now();
        let _ = retry(8, || async { Err::<(), _>(undone()) }).await;
        let back = start.elapsed();
        assert!(back <= Duration::from_millis(2550 + 8), "the pauses are too long: {back:?}"); // a timer rounds up
        backs.insert(back);
    }
    assert!(backs.len() > TIMES / 2, "they come in step: {backs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_whose_id_was_used_for_another_is_refused() {
    let bench = Bench::new();
    bench.open(2).await;
    let fleet = bench.fleet("fleet", 2);
    pay(&fleet, &charge("id", 0)).await.unwrap();
    pay(&fleet, &charge("id", 0)).await.unwrap(); // the same
    let mut dearer = charge("id", 0);
    dearer.amount += 1;
    for other in [dearer, charge("id", 1)] {
        let told = pay(&fleet, &other).await;
        assert!(
            matches!(&told, Err(Error::Task(said)) if said.contains("id has charged account 0 with 7")),
            "{told:?}"
        );
    }
    bench.settled(&[&fleet], 1).await;
}

/// As in `lib.rs`, where it is only compiled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_charges_once_and_refuses_what_it_should() {
    let bench = Bench::new();
    bench.open(8).await;
    let fleet = bench.fleet("fleet", 1);
    let charge = async |charge_id: &str, amount: i64| -> Result<(), Error<&'static str>> {
        let charge = || {
            fleet.run(["account 7"], async |db| {
                let insert = "INSERT INTO charges (id, account, amount) VALUES ($1, 7, $2) ON CONFLICT DO NOTHING";
                let insert = query(insert).persistent(false).bind(charge_id).bind(amount);
                if insert.execute(&mut *db).await?.rows_affected() == 0 {
                    let same = "SELECT account = 7 AND amount = $2 FROM charges WHERE id = $1";
                    let same = query_scalar(same).persistent(false).bind(charge_id).bind(amount);
                    return match same.fetch_one(&mut *db).await? {
                        true => Ok(()),
                        false => Err(Error::Task("another charge has this id")),
                    };
                }
                let read = query_scalar("SELECT balance FROM accounts WHERE id = 7").persistent(false);
                let balance: i64 = read.fetch_one(&mut *db).await?;
                if balance < amount {
                    return Err(Error::Task("there is not enough in it"));
                }
                let write = query("UPDATE accounts SET balance = $1 WHERE id = 7").persistent(false);
                write.bind(balance - amount).execute(&mut *db).await?;
                Ok(())
            })
        };
        timeout(PATIENCE, retry(5, charge)).await.unwrap()
    };
    charge("one", 10).await.unwrap();
    charge("one", 10).await.unwrap();
    assert!(matches!(charge("one", 11).await, Err(Error::Task("another charge has this id"))));
    assert!(matches!(charge("two", 1 << 40).await, Err(Error::Task("there is not enough in it"))));
    bench.settled(&[&fleet], 1).await;
}
