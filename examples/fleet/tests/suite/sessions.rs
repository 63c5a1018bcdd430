//! What others leave in a session, and what the work does to its own.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleet::{Error, Fleet, retry};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, query, query_as, query_scalar, raw_sql};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::bench::{Bench, Outcome, PATIENCE, TIMES, charge, fleet_with, pay};
use crate::network::{Fate, Network, To, has};

/// What the last user of a connection may have done to its session.
const LEFT: [&str; 22] = [
    "SET search_path = evil, pg_catalog, test",
    "SET client_encoding = 'LATIN1'",
    "SET standard_conforming_strings = off",
    "SET default_transaction_isolation = 'serializable'",
    "SET default_transaction_read_only = on",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY, DEFERRABLE",
    "SET statement_timeout = '5s'",
    "SET idle_in_transaction_session_timeout = '20ms'",
    "SET ROLE guest",
    "SET SESSION AUTHORIZATION guest",
    "SET fleet.nonce = '42'",
    "SET fleet.timeout = '20ms'",
    "BEGIN",
    "BEGIN; SELECT 1",
    "BEGIN ISOLATION LEVEL SERIALIZABLE",
    "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT 1",
    "BEGIN; SELECT 1; SAVEPOINT one",
    "BEGIN; SELECT 1 / 0",
    "PREPARE sqlx_s_1 (text[]) AS SELECT $1; PREPARE sqlx_s_2 (bytea[]) AS SELECT $1",
    "CREATE TEMP TABLE accounts (id int, balance bigint); CREATE TEMP TABLE pg_locks (id int)",
    "SET plan_cache_mode = force_generic_plan; SET enable_sort = off; SET enable_hashagg = off",
    "SET DateStyle = 'SQL, DMY'; SET bytea_output = 'escape'; SET lc_messages = 'C'; SET TimeZone = 'Asia/Kabul'",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_others_have_left_in_a_session_the_work_has_its_lock() {
    let bench = Bench::new();
    bench.open(1).await;
    let evil = "CREATE ROLE guest; CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil, test TO guest;
        CREATE FUNCTION evil.pg_advisory_xact_lock(bigint) RETURNS void LANGUAGE sql AS '';
        CREATE FUNCTION evil.hashtextextended(text, bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint';
        CREATE FUNCTION evil.current_setting(text, bool) RETURNS text LANGUAGE sql AS 'SELECT ''x''';
        CREATE FUNCTION evil.set_config(text, text, bool) RETURNS text LANGUAGE sql AS 'SELECT ''x''';
        CREATE FUNCTION evil.unnest(bytea[]) RETURNS SETOF bytea LANGUAGE sql AS 'SELECT ''x''::bytea WHERE false';
        CREATE FUNCTION evil.convert_from(bytea, name) RETURNS text LANGUAGE sql AS 'SELECT ''x''';
        CREATE DOMAIN evil.bytea AS text; CREATE DOMAIN evil.text AS bytea";
    bench.execute(evil).await;
    let mut observer = bench.connect().await;
    let key = "Zoë’s account";
    let expected: i64 =
        query_scalar("SELECT hashtextextended($1, 0)").bind(key).fetch_one(&mut observer).await.unwrap();
    for left in LEFT {
        let fleet = bench.fleet("fleet", 1);
        // One that fails at the end is rolled back, and has left a failed transaction.
        let _ = fleet.pool.acquire().await.unwrap().execute(left).await;
        let works = Arc::new(tokio::sync::Mutex::new(bench.connect().await));
        let run = || async {
            let observer = works.clone();
            let work = async |db: &mut PgConnection| {
                let pid: i32 =
                    query_scalar("SELECT pg_catalog.pg_backend_pid()").persistent(false).fetch_one(db).await?;
                let locked = "SELECT classid::bigint << 32 | objid::bigint FROM pg_catalog.pg_locks
                    WHERE locktype = 'advisory' AND granted AND pid = $1";
                let observer = &mut *observer.lock().await;
                let locked: Vec<i64> = query_scalar(locked).bind(pid).fetch_all(observer).await.unwrap();
                assert_eq!(locked, [expected], "after {left}");
                Ok(())
            };
            fleet.run([key], work).await as Outcome
        };
        // Where there was a transaction, another connection may be needed.
        let outcome = timeout(PATIENCE, retry(1, run)).await.unwrap();
        outcome.unwrap_or_else(|error| panic!("after {left}: {error}"));
        bench.settled(&[&fleet], 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_ends_its_transaction_is_not_told_that_it_was_done() {
    let bench = Bench::new();
    bench.open(1).await;
    let fleet = bench.fleet("fleet", 1);
    for end in ["COMMIT", "ROLLBACK", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "COMMIT; BEGIN", "ROLLBACK; BEGIN"] {
        let work = async |db: &mut PgConnection| {
            db.execute(AssertSqlSafe(end)).await?;
            Ok(())
        };
        let told: Outcome = fleet.run(["account 0"], work).await;
        assert!(matches!(told, Err(Error::Unknown(_))), "{end}: {told:?}");
        bench.settled(&[&fleet], 0).await;
    }
    pay(&fleet, &charge("after", 0)).await.unwrap();
    bench.settled(&[&fleet], 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_has_a_name_and_a_run_takes_six_round_trips() {
    let bench = Bench::new();
    bench.open(1).await;
    let network = Network::to(&bench.socket(5432)).await;
    let fleet = fleet_with(&network.url(), "fleet", PgPoolOptions::new().max_connections(1).test_before_acquire(false));
    let seen = Arc::new(Mutex::new(Vec::new()));
    network.rule({
        let seen = seen.clone();
        move |to, bytes| {
            if to == To::Server {
                seen.lock().unwrap().extend(messages(bytes));
            }
            Fate::Forwarded
        }
    });
    pay(&fleet, &charge("first", 0)).await.unwrap();
    pay(&fleet, &charge("again", 0)).await.unwrap();
    {
        let seen = seen.lock().unwrap();
        assert!(
            seen.iter().any(|(kind, text)| *kind == b'P' && has(text, b"pg_advisory_xact_lock")),
            "it was not seen"
        );
        for (kind, text) in seen.iter() {
            let named = match kind {
                b'P' => text[0] != 0,                 // Parse: the name of the statement comes first
                b'B' => text[0] != 0 || text[1] != 0, // Bind: that of the portal, then that of the statement
                b'Q' => has(text, b"PREPARE") || has(text, b"EXECUTE"), // a simple query
                _ => false,
            };
            assert!(!named, "{} {}", *kind as char, String::from_utf8_lossy(text));
        }
    }
    let before = network.round_trips();
    fleet.run(["account 0"], async |_: &mut PgConnection| Ok::<_, Error<String>>(())).await.unwrap();
    assert_eq!(network.round_trips() - before, 6);
    bench.settled(&[&fleet], 2).await;
}

/// What a client sent: the kind of each message, and what is in it.
fn messages(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut messages = Vec::new();
    // The first one of a connection has no kind, but begins with its length.
    while let Some((header, rest)) = bytes.split_first_chunk::<5>().filter(|(header, _)| header[0] != 0) {
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize - 4;
        messages.push((header[0], rest[..length].to_vec()));
        bytes = &rest[length..];
    }
    messages
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_as_new_for_the_next_if_the_pool_discards_what_was_left() {
    let bench = Bench::new();
    bench.open(1).await;
    // As on the page of `lib.rs`.
    let discards = PgPoolOptions::new().max_connections(1).after_release(|connection, _| {
        Box::pin(async move {
            connection.clear_cached_statements().await?;
            connection.execute("DISCARD ALL").await?;
            Ok(true)
        })
    });
    let discards = fleet_with(&bench.url(), "discards", discards);
    let keeps = bench.fleet("keeps", 1);
    for (fleet, expected) in [(&keeps, [1, 1, 1, 1]), (&discards, [0, 0, 0, 0])] {
        for time in 0..TIMES {
            let work = async |db: &mut PgConnection| {
                let traces = "SELECT (current_setting('work_mem') = '77MB')::int,
                        (SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) - 1,
                        (SELECT count(*)::int FROM pg_listening_channels()),
                        (SELECT count(*)::int FROM pg_class WHERE relnamespace = pg_my_temp_schema())";
                let found: (i32, i32, i32, i32) = query_as(traces).fetch_one(&mut *db).await?; // with a name
                if found == (0, 0, 0, 0) {
                    let leave = "SET work_mem = '77MB'; SELECT pg_advisory_lock(7); LISTEN channel;
                        CREATE TEMP TABLE left_behind (id int)";
                    raw_sql(leave).execute(db).await?;
                }
                Ok::<_, Error<String>>(found.into())
            };
            let found: [i32; 4] = fleet.run(["account 0"], work).await.unwrap();
            assert_eq!(found, if time == 0 { [0; 4] } else { expected });
        }
        assert_eq!(fleet.pool.size(), 1, "it was the same session");
        fleet.pool.close().await;
    }
    bench.settled(&[&keeps, &discards], 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_was_prepared_before_a_migration_costs_a_retry() {
    let bench = Bench::new();
    bench.open(1).await;
    let fleet = bench.fleet("fleet", 1);
    let read = || async {
        let work = async |db: &mut PgConnection| {
            Ok::<_, Error<String>>(query("SELECT * FROM accounts").fetch_all(db).await?.len()) // with a name
        };
        fleet.run(["account 0"], work).await
    };
    let undone = AtomicUsize::new(0);
    for time in 0..TIMES {
        read().await.unwrap();
        bench.execute(&format!("ALTER TABLE test.accounts ADD COLUMN new_{time} int")).await;
        let outcome = retry(1, || async {
            read().await.inspect_err(|error| _ = undone.fetch_add(error.may_retry().into(), Relaxed))
        });
        assert_eq!(outcome.await.unwrap(), 1);
    }
    assert_eq!(undone.into_inner(), TIMES, "nothing was outdated");
    bench.settled(&[&fleet], 0).await;
}

/// A runtime for the server and the observers, and one that only runs while it is told to.
fn two_runtimes() -> (Runtime, Runtime, Bench) {
    let others = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let rests = Builder::new_current_thread().enable_all().build().unwrap();
    let bench = others.block_on(async {
        let bench = Bench::new();
        bench.open(1).await;
        bench
    });
    (others, rests, bench)
}

const LOCKED: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";

#[test]
fn a_runtime_that_rests_keeps_a_dropped_run_open_unless_it_waits_before() {
    let (others, rests, bench) = two_runtimes();
    let locked = || -> i64 {
        others.block_on(async { query_scalar(LOCKED).fetch_one(&mut bench.connect().await).await.unwrap() })
    };
    let fleet = rests.block_on(async { bench.fleet("rests", 1) });
    let dropped = async |fleet: &Fleet| {
        let works = Notify::new();
        let run = fleet.run(["account 0"], async |_: &mut PgConnection| -> Outcome {
            works.notify_one();
            pending().await
        });
        tokio::select! {
            told = run => panic!("{told:?}"),
            () = works.notified() => {}
        }
    };
    for _ in 0..TIMES {
        rests.block_on(dropped(&fleet));
        assert_eq!(locked(), 1, "the server cannot know");
        rests.block_on(async { timeout(PATIENCE, fleet.mutex.all_idle()).await }).unwrap();
        assert_eq!(locked(), 0);
        assert_eq!(fleet.pool.num_idle(), 1);
    }
    // If it never wakes, the server ends the session, and loses the lock with it.
    let brief = Fleet { work_limit: Some(Duration::from_secs(2)), ..fleet.clone() };
    rests.block_on(dropped(&brief));
    others.block_on(bench.until("SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory'"));
    rests.block_on(async {
        timeout(PATIENCE, fleet.mutex.all_idle()).await.unwrap();
        pay(&fleet, &charge(1, 0)).await.unwrap();
        bench.settled(&[&fleet], 1).await;
    });
}

#[test]
fn a_run_that_is_dropped_without_a_runtime_closes_its_connection_at_once() {
    let (others, rests, bench) = two_runtimes();
    let fleet = rests.block_on(async { bench.fleet("rests", 1) });
    for _ in 0..TIMES {
        let works = Notify::new();
        let mut run = Box::pin(fleet.run(["account 0"], async |_: &mut PgConnection| -> Outcome {
            works.notify_one();
            pending().await
        }));
        rests.block_on(async {
            tokio::select! {
                told = &mut run => panic!("{told:?}"),
                () = works.notified() => {}
            }
        });
        drop(run);
        assert!(fleet.mutex.is_empty());
        assert_eq!(fleet.pool.size(), 0);
        others.block_on(bench.until("SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory'"));
    }
    rests.block_on(bench.settled(&[&fleet], 0));
}
