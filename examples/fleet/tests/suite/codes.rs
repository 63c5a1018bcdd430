//! Every error code of PostgreSQL, reported by a server while the fleet waits for the lock, while it works, and at COMMIT.

use fleet::{Error, Fleet};
use sqlx::{AssertSqlSafe, Executor, PgConnection};

use crate::bench::{Bench, Outcome, charge, fleet_at, pay};
use crate::network::{Fate, Network, To};

/// A code in each line, and what it means at each of the three times.
const CODES: &str = include_str!("codes.txt");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_code_means_what_the_table_says_and_the_connection_is_kept_or_closed_accordingly() {
    let (bench, mut db) = raising().await;
    let fleet = bench.fleet("fleet", 1);
    let mut walked = 0;
    for line in CODES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<_> = line.split(' ').collect();
        let [code, waiting, working, commit, _name] = words[..] else { panic!("{line}") };
        for (time, expected) in [("waiting", waiting), ("working", working), ("commit", commit)] {
            let told = told(&fleet, &mut db, time, code).await;
            let (told, sentence) = match &told {
                Err(Error::TimedOut) => ("timed-out", String::new()),
                Err(Error::Undone(error)) => ("undone", error.to_string()),
                Err(Error::Unknown(error)) => ("unknown", error.to_string()),
                Err(Error::Database(error)) => ("final", error.to_string()),
                other => panic!("{code} while {time}: {other:?}"),
            };
            assert_eq!(told, expected, "{code} while {time}: {sentence}");
            assert!(sentence.is_empty() || sentence.contains("as it was told"), "{code} while {time}: {sentence}");
            fleet.mutex.all_idle().await;
            let kept = ["timed-out", "final"].contains(&expected);
            assert_eq!(fleet.pool.num_idle(), kept.into(), "{code} while {time}: whether the connection is kept");
        }
        walked += 1;
    }
    assert_eq!(walked, 262);
    db.execute("TRUNCATE test.raised").await.unwrap();
    pay(&fleet, &charge("after", 0)).await.unwrap();
    bench.settled(&[&fleet], 1).await;
}

/// Twenty times: some codes, in each place, as PANIC and as FATAL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_that_ends_the_session_is_that_of_a_lost_connection_whatever_its_code() {
    let (bench, mut db) = raising().await;
    let network = Network::to(&bench.socket(5432)).await;
    let fleet = fleet_at(&network.url(), "fleet", 1);
    for code in ["42501", "53100", "22000", "40001", "25000"] {
        for severity in [b"PANIC", b"FATAL"] {
            network.rule(move |to, message| {
                let mut message = message.to_vec();
                for at in 0..message.len() {
                    if to == To::Client && message[at..].starts_with(b"VERROR\0") {
                        message[at + 1..at + 6].copy_from_slice(severity);
                    }
                }
                Fate::Replaced(message)
            });
            let working = told(&fleet, &mut db, "working", code).await;
            assert!(matches!(working, Err(Error::Undone(_))), "{code}: {working:?}");
            let committing = told(&fleet, &mut db, "commit", code).await;
            assert!(matches!(committing, Err(Error::Unknown(_))), "{code}: {committing:?}");
            assert_eq!(fleet.pool.size(), 0, "the connection is kept");
        }
    }
    bench.settled(&[&fleet], 0).await;
}

/// What `run` tells when a code is raised.
async fn told(fleet: &Fleet, db: &mut PgConnection, time: &str, code: &str) -> Outcome {
    let raise = format!("TRUNCATE test.raised; INSERT INTO test.raised VALUES ('{time}', '{code}')");
    db.execute(AssertSqlSafe(raise)).await.unwrap();
    let work = async |db: &mut PgConnection| {
        db.execute("INSERT INTO written VALUES (1)").await?;
        db.execute("SELECT raise('working')").await?;
        Ok(())
    };
    fleet.run(["account 0"], work).await
}

/// A server that raises what it is told to.
async fn raising() -> (Bench, PgConnection) {
    let bench = Bench::new();
    bench.open(1).await;
    // The server raises the code that is in a table, for each of the three times: in the function that locks, in a statement
    // of the work, and in a trigger that COMMIT fires.
    let raises = "CREATE TABLE test.raised (time text, code text);
        CREATE FUNCTION test.raise(now text) RETURNS void LANGUAGE plpgsql AS $$
            DECLARE raised text;
            BEGIN
                SELECT code INTO raised FROM test.raised WHERE time = now;
                IF FOUND THEN RAISE EXCEPTION 'as it was told' USING ERRCODE = raised; END IF;
            END $$;
        CREATE FUNCTION test.at_commit() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM test.raise(''commit''); RETURN NULL; END';
        CREATE TABLE test.written (id int);
        CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON test.written DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION test.at_commit();
        SET allow_system_table_mods = on;
        ALTER FUNCTION pg_catalog.pg_advisory_xact_lock(bigint) RENAME TO locks_really;
        CREATE FUNCTION pg_catalog.pg_advisory_xact_lock(key bigint) RETURNS void LANGUAGE plpgsql AS
            'BEGIN PERFORM test.raise(''waiting''); PERFORM pg_catalog.locks_really(key); END'";
    bench.execute(raises).await;
    let db = bench.connect().await;
    (bench, db)
}
