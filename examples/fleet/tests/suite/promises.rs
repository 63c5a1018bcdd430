//! What the fleet promises when nothing goes wrong.

use std::time::Duration;

use fleet::{Error, retry};
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::bench::{Bench, Outcome, TIMES, bank, charge, pay};

#[tokio::test]
async fn only_the_head_of_the_queue_of_a_key_has_a_connection_and_the_order_is_that_of_arrival() {
    let bench = Bench::new();
    bench.open(2).await;
    let (other, fleet) = (bench.fleet("other", 1), bench.fleet("fleet", 10));
    let (go, gone) = watch::channel(false);
    let held = tokio::spawn({
        let (other, mut gone) = (other.clone(), gone.clone());
        async move {
            let work = async |_: &mut PgConnection| {
                gone.wait_for(|go| *go).await.unwrap();
                Ok(())
            };
            other.run(["account 0"], work).await as Outcome
        }
    });
    bench.until_held().await;
    let mut tasks = JoinSet::new();
    for number in 0..20 {
        let fleet = fleet.clone();
        tasks.spawn(async move { (number, pay(&fleet, &charge(number, 0)).await) });
        tokio::task::yield_now().await; // each comes after the one before
    }
    bench.until_waits("fleet").await;
    pay(&fleet, &charge("quiet", 1)).await.unwrap(); // nobody keeps it waiting
    assert_eq!(fleet.mutex.state("account 0").waiting, 19);
    assert_eq!(fleet.pool.size(), 2, "one for each key in work");
    go.send(true).unwrap();
    let mut expected = 0..20;
    while let Some(done) = tasks.join_next().await {
        let (number, outcome) = done.unwrap();
        outcome.unwrap();
        assert_eq!(Some(number), expected.next());
    }
    held.await.unwrap().unwrap();
    assert_eq!(fleet.pool.size(), 2);
    bench.settled(&[&fleet, &other], 21).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_keys_make_no_circle_in_either_layer() {
    let bench = Bench::new();
    bench.open(6).await;
    let fleets = [bench.fleet("one", 4), bench.fleet("two", 4), bench.fleet("three", 4)];
    let mut tasks = JoinSet::new();
    for number in 0..150 {
        let fleet = fleets[number % 3].clone();
        tasks.spawn(async move {
            let accounts = [1, 7, 5].map(|step| (step * number / 3 + number % 3) as i32 % 6);
            let charges = accounts.map(|account| charge(format!("{number} {account}"), account));
            let work = async |db: &mut PgConnection| {
                for charge in &charges {
                    bank::charge(&mut *db, charge, Duration::ZERO).await?;
                }
                Ok(())
            };
            let outcome: Outcome = fleet.run(charges.iter().map(|charge| charge.key()), work).await;
            outcome.map(|()| accounts.into_iter().collect::<std::collections::BTreeSet<_>>().len())
        });
    }
    let mut charges = 0;
    while let Some(done) = tasks.join_next().await {
        charges += done.unwrap().unwrap() as i64; // no deadlock, so no retry
    }
    bench.settled(&fleets.each_ref(), charges).await;
}

#[tokio::test]
async fn the_tasks_own_error_undoes_the_work_and_an_error_it_keeps_to_itself_is_no_success() {
    let bench = Bench::new();
    bench.open(1).await;
    let fleet = bench.fleet("fleet", 1);
    let own = fleet.run(["account 0"], async |db: &mut PgConnection| {
        bank::charge(&mut *db, &charge("own", 0), Duration::ZERO).await?;
        Err::<(), _>(Error::Task("not enough".to_string()))
    });
    let own = own.await;
    assert!(matches!(&own, Err(Error::Task(said)) if said == "not enough"), "{own:?}");
    let kept = fleet.run(["account 0"], async |db: &mut PgConnection| {
        bank::charge(&mut *db, &charge("kept", 0), Duration::ZERO).await?;
        let _ = sqlx::query("SELECT 1 / 0").execute(&mut *db).await;
        Ok(())
    });
    let kept: Outcome = kept.await;
    assert!(matches!(kept, Err(Error::Database(_))), "{kept:?}");
    bench.settled(&[&fleet], 0).await;
}

#[tokio::test]
async fn whatever_error_the_work_returns_is_told_as_it_is_and_nothing_was_done() {
    let bench = Bench::new();
    bench.open(1).await;
    let fleet = bench.fleet("fleet", 1);
    let lost = || sqlx::Error::Protocol("of another database".into());
    // As from a `run` of another fleet.
    let errors: [fn(sqlx::Error) -> Error<String>; 5] =
        [|_| Error::TimedOut, Error::Undone, Error::Unknown, Error::Database, |_| Error::Task("own".into())];
    for error in errors {
        let told = fleet.run(["account 0"], async |db: &mut PgConnection| {
            bank::charge(&mut *db, &charge("returned", 0), Duration::ZERO).await?;
            Err::<(), _>(error(lost()))
        });
        let told = told.await.unwrap_err();
        assert_eq!(format!("{told:?}"), format!("{:?}", error(lost())));
        fleet.mutex.all_idle().await;
        assert_eq!(fleet.pool.num_idle(), (!told.may_retry()).into(), "{told:?}: whether the connection is kept");
        bench.settled(&[&fleet], 0).await;
    }
    pay(&fleet, &charge("returned", 0)).await.unwrap();
    bench.settled(&[&fleet], 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_panics_is_undone_and_its_panic_is_that_of_run() {
    let bench = Bench::new();
    bench.open(1).await;
    let fleet = bench.fleet("fleet", 1);
    for _ in 0..TIMES {
        let panics = tokio::spawn({
            let fleet = fleet.clone();
            async move {
                let work = async |db: &mut PgConnection| -> Outcome {
                    bank::charge(db, &charge("panics", 0), Duration::ZERO).await?;
                    panic!("on purpose")
                };
                fleet.run(["account 0"], work).await
            }
        });
        let panicked = panics.await.unwrap_err().into_panic();
        assert_eq!(panicked.downcast_ref(), Some(&"on purpose"));
        bench.settled(&[&fleet], 0).await;
        assert_eq!(fleet.pool.num_idle(), 1, "the connection is kept");
    }
    pay(&fleet, &charge("panics", 0)).await.unwrap();
    bench.settled(&[&fleet], 1).await;
}

#[tokio::test]
async fn a_disk_that_is_full_undoes_the_work_and_may_have_room_at_the_next_try() {
    let bench = Bench::new();
    bench.open(1).await;
    let fleet = bench.fleet("fleet", 1);
    for code in ["53100", "53200", "53300"] {
        let mut tries = 0;
        let work = || {
            tries += 1;
            let full = (tries < 3).then(|| format!("DO $$ BEGIN RAISE 'no room' USING ERRCODE = '{code}'; END $$"));
            fleet.run(["account 0"], async move |db: &mut PgConnection| {
                bank::charge(&mut *db, &charge(code, 0), Duration::ZERO).await?;
                if let Some(full) = full {
                    sqlx::raw_sql(AssertSqlSafe(full)).execute(db).await?;
                }
                Ok(())
            })
        };
        let outcome: Outcome = retry(3, work).await;
        outcome.unwrap();
        assert_eq!(tries, 3, "{code}");
    }
    bench.settled(&[&fleet], 3).await;
}

#[tokio::test]
async fn a_transaction_within_the_work_is_a_savepoint() {
    use sqlx::Connection;

    let bench = Bench::new();
    bench.open(1).await;
    let fleet = bench.fleet("fleet", 1);
    let outcome = fleet.run(["account 0"], async |db: &mut PgConnection| {
        let mut within = db.begin().await?;
        bank::charge(&mut within, &charge("rolled back", 0), Duration::ZERO).await?;
        within.rollback().await?;
        let mut within = db.begin().await?;
        bank::charge(&mut within, &charge("committed", 0), Duration::ZERO).await?;
        within.commit().await?;
        let held = "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory'";
        assert!(sqlx::query_scalar::<_, bool>(held).fetch_one(db).await?);
        Ok(())
    });
    let outcome: Outcome = outcome.await;
    outcome.unwrap();
    bench.settled(&[&fleet], 1).await;
}

#[tokio::test]
async fn what_was_written_before_the_lock_was_had_is_seen_whatever_the_server_prefers() {
    let bench = Bench::new();
    bench.execute("ALTER SYSTEM SET default_transaction_isolation = 'serializable'").await;
    bench.restart("fast").await;
    bench.open(1).await;
    let fleets = [bench.fleet("one", 1), bench.fleet("two", 1)];
    for number in 0..20 {
        let (one, two) = (charge(format!("{number} one"), 0), charge(format!("{number} two"), 0));
        let (one, two) = tokio::join!(pay(&fleets[0], &one), pay(&fleets[1], &two));
        one.and(two).unwrap(); // no serialization failure, so no retry
    }
    bench.settled(&fleets.each_ref(), 40).await;
}
