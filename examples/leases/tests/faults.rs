//! What goes wrong in a fleet, each twenty times, against real servers. After each: no lease is left, no key is locked, and
//! the books balance. Where the fence is what keeps them, the same test without it loses money.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use common::bank::{self, Bank, Failed, Kind, Way, retry};
use common::server::Engine;
use common::{
    Bench, LONG, PATIENCE, Proxy, TIMES, balanced, charge, connect, kind, none_left, pay, polled::polled, settled,
    short, until,
};

/// What restarts, so many at a time.
const SERVERS: usize = 4;

on_each_engine! {
    a_process_that_is_stopped_beyond_its_lease_loses_nothing_with_the_fence_and_money_without
    a_process_that_is_killed_keeps_the_others_waiting_for_at_most_a_lease
    a_server_that_restarts_with_its_data_costs_retries_and_no_money
    a_server_that_restarts_without_its_data_does_not_let_an_old_lease_write
    a_network_that_goes_silent_between_writes_ends_the_work
    a_network_that_goes_silent_during_a_write_leaves_it_unknown_and_never_late
    a_task_that_is_dropped_at_any_step_leaves_nothing_behind
    a_task_that_panics_gives_up_its_lease
    a_lease_that_the_server_ends_early_loses_nothing_with_the_fence_and_money_without
    a_clock_that_jumps_changes_nothing
}

async fn a_process_that_is_stopped_beyond_its_lease_loses_nothing_with_the_fence_and_money_without<B: Bank>(
    engine: Engine,
) {
    async fn stopped<B: Bank>(bench: &Bench, way: Way) -> Vec<i64> {
        let lease = short(bench.engine);
        let mut times = JoinSet::new();
        for time in 0..TIMES {
            let bench = bench.clone();
            times.spawn(async move {
                let prefix = format!("{way:?} {time} ");
                let bank: B = bench.bank(&prefix, lease).await;
                bank.open(1).await.unwrap();
                let mut worker =
                    bench.worker(way, &prefix, lease, "--tasks=1 --every=0 --compute=1 --pauses=1", &[]).await;
                while !worker.line().await.expect("it stops").starts_with("stops") {}
                pay(&bank, way, &charge("another")).await; // as soon as the lease has ended
                let said = worker.go_on().await;
                assert!(said.last().is_some_and(|line| line.starts_with("done")), "{said:?}");
                settled(&[&bank], 2).await.lost
            });
        }
        times.join_all().await
    }
    let bench = Bench::new(engine);
    let with = stopped::<B>(&bench, Way::Fenced).await;
    let without = stopped::<B>(&bench, Way::Unfenced).await;
    println!("lost with the fence: {with:?}, without: {without:?}");
    assert_eq!(with.iter().sum::<i64>(), 0);
    assert!(without.iter().sum::<i64>() > 0, "this test cannot fail");
    none_left::<B>(&bench).await;
}

async fn a_process_that_is_killed_keeps_the_others_waiting_for_at_most_a_lease<B: Bank>(engine: Engine) {
    const LEASE: Duration = Duration::from_secs(2);
    /// Returns how long another waited after the kill, or `None` if the machine was so busy that it did not wait for it.
    async fn killed<B: Bank>(bench: &Bench, prefix: &str) -> Option<Duration> {
        let bank: B = bench.bank(prefix, LEASE).await;
        bank.open(1).await.unwrap();
        let rest = "--tasks=1 --every=0 --compute=3600000 --pauses=0";
        let mut worker = bench.worker(Way::Fenced, prefix, LEASE, rest, &[]).await;
        until("it has the lease", || async { bank.leases().await == Ok(1) }).await;
        let charge = bank::charges(0, 1, 1).next().unwrap();
        let waiting = tokio::spawn({
            let bank = bank.clone();
            async move { pay(&bank, Way::Fenced, &charge).await }
        });
        sleep(LEASE * 2).await; // it is renewed meanwhile
        let waits = !waiting.is_finished();
        worker.child.kill().await.unwrap(); // SIGKILL
        let killed = Instant::now();
        waiting.await.unwrap();
        balanced(&[&bank], 1).await;
        waits.then(|| killed.elapsed())
    }
    let bench = Bench::new(engine);
    let mut times = JoinSet::new();
    for time in 0..TIMES {
        let bench = bench.clone();
        times.spawn(async move {
            for again in 0..5 {
                if let Some(waited) = killed::<B>(&bench, &format!("{time} {again} ")).await {
                    return waited;
                }
            }
            panic!("its lease is not renewed");
        });
    }
    let longest = times.join_all().await.into_iter().max().unwrap();
    println!("after a kill, the others went on within {} ms, with leases of 2000 ms", longest.as_millis());
    // etcd looks twice a second for leases that have ended. The rest is for a machine that is busy.
    assert!(longest < LEASE + Duration::from_secs(10));
    none_left::<B>(&bench).await;
}

async fn a_server_that_restarts_with_its_data_costs_retries_and_no_money<B: Bank>(engine: Engine) {
    async fn restarts<B: Bank>(bench: &Bench, time: usize, failed: &Arc<AtomicUsize>) {
        let one: B = bench.bank(&format!("{time} "), short(bench.engine)).await;
        let two: B = bench.bank(&format!("{time} "), short(bench.engine)).await;
        one.open(1).await.unwrap();
        let (mut tasks, done) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        for number in 0..20 {
            let bank = [&one, &two][number % 2].clone();
            let (failed, done) = (failed.clone(), done.clone());
            tasks.spawn(async move {
                let charge = charge(number);
                let attempt = || async {
                    bank.pay(Way::Fenced, &charge, || async {}).await.inspect_err(|told| {
                        assert!(told.may_retry, "not an error that may be retried: {told}");
                        failed.fetch_add(1, Relaxed);
                    })
                };
                timeout(PATIENCE, retry(u32::MAX, attempt)).await.expect("the server is there again").unwrap();
                done.fetch_add(1, Relaxed);
            });
        }
        until("it is in the midst", || async { done.load(Relaxed) > time % 10 }).await;
        bench.restart(true).await;
        tasks.join_all().await;
        balanced(&[&one, &two], 20).await;
    }
    let failed = Arc::new(AtomicUsize::new(0));
    let mut servers = JoinSet::new();
    for server in 0..SERVERS {
        let failed = failed.clone();
        servers.spawn(async move {
            let bench = Bench::new(engine);
            for time in (server..TIMES).step_by(SERVERS) {
                restarts::<B>(&bench, time, &failed).await;
            }
            none_left::<B>(&bench).await;
        });
    }
    servers.join_all().await;
    let failed = failed.load(Relaxed);
    println!("{TIMES} restarts: {failed} failed, and were tried again");
    assert!(failed > 0, "the server was restarted when nothing happened");
}

async fn a_server_that_restarts_without_its_data_does_not_let_an_old_lease_write<B: Bank>(engine: Engine) {
    async fn forgotten<B: Bank>(bench: &Bench, way: Way, time: usize) -> i64 {
        let one: B = bench.bank(&format!("{way:?} {time} "), LONG).await;
        let two: B = bench.bank(&format!("{way:?} {time} "), LONG).await;
        one.open(1).await.unwrap();
        let (middle, paid) = held(&one, way, "one").await;
        bench.restart(false).await;
        // As if from a backup.
        until("the books are open again", || async { two.open(1).await.is_ok() }).await;
        until("both are connected", || async { one.books(1).await.is_ok() }).await;
        pay(&two, way, &charge("two")).await;
        middle.notify_one();
        let told = paid.await.unwrap();
        if way == Way::Fenced {
            assert!(matches!(kind(&told), Kind::Lost | Kind::Unknown), "{told:?}");
        }
        pay(&one, way, &charge("one")).await;
        settled(&[&one, &two], 2).await.lost
    }
    let mut servers = JoinSet::new();
    for server in 0..SERVERS {
        servers.spawn(async move {
            let bench = Bench::new(engine);
            let (mut with, mut without) = (0, 0);
            for time in (server..TIMES).step_by(SERVERS) {
                with += forgotten::<B>(&bench, Way::Fenced, time).await;
            }
            without += forgotten::<B>(&bench, Way::Unfenced, 0).await;
            none_left::<B>(&bench).await;
            (with, without)
        });
    }
    let lost = servers.join_all().await;
    println!("lost with the fence, and without: {lost:?}");
    assert_eq!(lost.iter().map(|(with, _)| with).sum::<i64>(), 0);
    assert!(lost.iter().map(|(_, without)| without).sum::<i64>() > 0, "this test cannot fail");
}

async fn a_network_that_goes_silent_between_writes_ends_the_work<B: Bank>(engine: Engine) {
    let bench = Bench::new(engine);
    let mut times = JoinSet::new();
    for time in 0..TIMES {
        let bench = bench.clone();
        times.spawn(async move {
            let prefix = format!("{time} ");
            let proxy = Proxy::new(&bench).await;
            let far: B = connect(&proxy.url, &prefix, short(bench.engine)).await;
            let near: B = bench.bank(&prefix, short(bench.engine)).await;
            near.open(1).await.unwrap();
            let (_middle, paid) = held(&far, Way::Fenced, "far").await;
            proxy.pass(time % 2 == 0, false);
            let told = timeout(PATIENCE, paid).await.expect("it does not wait for the network").unwrap();
            assert_eq!(kind(&told), Kind::Lost, "{told:?}");
            pay(&near, Way::Fenced, &charge("near")).await;
            proxy.pass(true, true);
            pay(&far, Way::Fenced, &charge("far")).await;
            balanced(&[&near, &far], 2).await;
        });
    }
    times.join_all().await;
    none_left::<B>(&bench).await;
}

async fn a_network_that_goes_silent_during_a_write_leaves_it_unknown_and_never_late<B: Bank>(engine: Engine) {
    /// Returns what was lost, and whether the write was on its way. Were the machine very busy, the lease might end before.
    async fn silent<B: Bank>(bench: &Bench, way: Way) -> Vec<(i64, bool)> {
        let mut times = JoinSet::new();
        for time in 0..TIMES {
            let bench = bench.clone();
            times.spawn(async move {
                let prefix = format!("{way:?} {time} ");
                let proxy = Proxy::new(&bench).await;
                let far: B = connect(&proxy.url, &prefix, short(bench.engine)).await;
                let near: B = bench.bank(&prefix, short(bench.engine)).await;
                near.open(1).await.unwrap();
                let (middle, paid) = held(&far, way, "far").await;
                // Either the write does not arrive, or its answer.
                proxy.pass(time % 2 == 1, false);
                middle.notify_one();
                let told = timeout(PATIENCE, paid).await.expect("it does not wait for the network").unwrap();
                pay(&near, way, &charge("near")).await;
                proxy.pass(true, true); // now the write arrives
                pay(&far, way, &charge("far")).await;
                (settled(&[&near, &far], 2).await.lost, kind(&told) == Kind::Unknown)
            });
        }
        times.join_all().await
    }
    let bench = Bench::new(engine);
    let with = silent::<B>(&bench, Way::Fenced).await;
    let without = silent::<B>(&bench, Way::Unfenced).await;
    let lost = |times: &[(i64, bool)]| times.iter().map(|(lost, _)| lost).sum::<i64>();
    println!("lost with the fence: {}, without: {}", lost(&with), lost(&without));
    assert_eq!(lost(&with), 0);
    assert!(lost(&without) > 0, "this test cannot fail");
    assert!(with.iter().filter(|(_, unknown)| *unknown).count() > TIMES / 2, "{with:?}");
    none_left::<B>(&bench).await;
}

async fn a_task_that_is_dropped_at_any_step_leaves_nothing_behind<B: Bank>(engine: Engine) {
    let bench = Bench::new(engine);
    let bank: B = bench.bank("", LONG).await;
    let other: B = bench.bank("", LONG).await;
    let mut most = 0;
    for time in 0..TIMES {
        bank.open(1).await.unwrap();
        // From the first poll to the last but one. The lease is so long that one that is left would be noticed.
        let mut polls = 0;
        loop {
            let done = polled(bank.pay(Way::Fenced, &charge(polls), || async {}), polls).await;
            timeout(PATIENCE, bank.mutex().all_idle()).await.expect("the key is given up");
            until("the lease is given up", || async { bank.leases().await == Ok(0) }).await;
            polls += 1;
            match done {
                Some(done) => {
                    done.unwrap();
                    break;
                }
                None => assert!(polls < 1000, "it does not end"),
            }
        }
        most = most.max(polls);

        // While another process has the lease: waiting there, and here.
        let (middle, paid) = held(&other, Way::Fenced, "other").await;
        let waits = |id: &'static str| {
            let bank = bank.clone();
            tokio::spawn(async move { bank.pay(Way::Fenced, &charge(id), || async {}).await })
        };
        let waiting = |tasks: usize| {
            let mut locked = (0, 0);
            bank.mutex().for_each_locked(|_, state| locked = (1, state.waiting));
            locked == (1, tasks)
        };
        let there = waits("there");
        until("it waits there", || async { waiting(0) }).await;
        let here = waits("here");
        until("it waits here", || async { waiting(1) }).await;
        let last = waits("last");
        until("two wait here", || async { waiting(2) }).await;
        for task in if time % 2 == 0 { [here, there] } else { [there, here] } {
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
        middle.notify_one();
        paid.await.unwrap().unwrap();
        last.await.unwrap().unwrap();

        // In the midst of the work.
        let (_middle, paid) = held(&bank, Way::Fenced, "works").await;
        paid.abort();
        pay(&other, Way::Fenced, &charge("after")).await;

        // How far a dropped one came is unknown: all of them are tried again.
        for number in 0..polls {
            pay(&bank, Way::Fenced, &charge(number)).await;
        }
        for id in ["there", "here", "works"] {
            pay(&bank, Way::Fenced, &charge(id)).await;
        }
        balanced(&[&bank, &other], polls + 6).await;
    }
    println!("dropped at up to {most} steps");
    assert!(most >= 5, "fewer steps than there are requests: {most}");
}

async fn a_task_that_panics_gives_up_its_lease<B: Bank>(engine: Engine) {
    let bench = Bench::new(engine);
    let bank: B = bench.bank("", LONG).await;
    let other: B = bench.bank("", LONG).await;
    for time in 0..TIMES {
        bank.open(1).await.unwrap();
        let panicking = bank.clone();
        let task = tokio::spawn(async move {
            if time % 2 == 0 {
                panicking
                    .pay(Way::Fenced, &charge("panics"), || async { std::panic::resume_unwind(Box::new(())) })
                    .await
            } else {
                panicking
                    .run(0, |_| -> std::future::Ready<Result<bool, Failed>> { std::panic::resume_unwind(Box::new(())) })
                    .await
            }
        });
        assert!(task.await.unwrap_err().is_panic());
        pay(&other, Way::Fenced, &charge("other")).await; // it does not wait for the end of a long lease
        pay(&bank, Way::Fenced, &charge("panics")).await;
        balanced(&[&bank, &other], 2).await;
    }
}

async fn a_lease_that_the_server_ends_early_loses_nothing_with_the_fence_and_money_without<B: Bank>(engine: Engine) {
    async fn ended<B: Bank>(bench: &Bench, way: Way, time: usize) -> i64 {
        let prefix = format!("{way:?} {time} ");
        let one: B = bench.bank(&prefix, LONG).await;
        let two: B = bench.bank(&prefix, LONG).await;
        one.open(1).await.unwrap();
        let (middle, paid) = held(&one, way, "one").await;
        one.end_leases().await.unwrap();
        pay(&two, way, &charge("two")).await;
        middle.notify_one();
        let told = paid.await.unwrap();
        if way == Way::Fenced {
            assert_eq!(kind(&told), Kind::Lost, "{told:?}");
        }
        pay(&one, way, &charge("one")).await;
        settled(&[&one, &two], 2).await.lost
    }
    let bench = Bench::new(engine);
    for time in 0..TIMES {
        assert_eq!(ended::<B>(&bench, Way::Fenced, time).await, 0);
        assert!(ended::<B>(&bench, Way::Unfenced, time).await > 0, "this test cannot fail");
    }
    none_left::<B>(&bench).await;
}

async fn a_clock_that_jumps_changes_nothing<B: Bank>(engine: Engine) {
    // A library that shows programs another wall clock. Monotonic clocks are left as they are.
    let faketime = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
    assert!(std::fs::exists(&faketime).unwrap(), "libfaketime is missing: apt install libfaketime");
    let bench = Bench::new(engine);
    let bank: B = bench.bank("", LONG).await;
    let socket = bench.socket();
    let directory = socket.parent().expect("it is in one"); // which is removed in the end
    let clock = directory.join("clock");
    let set = |offset: &str| {
        // In one step, or a half of it would be read.
        std::fs::write(directory.join("new"), offset).unwrap();
        std::fs::rename(directory.join("new"), &clock).unwrap();
    };
    set("+0");
    let variables = [
        ("LD_PRELOAD", faketime.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let says = || {
        let date = std::process::Command::new("date").arg("+%s").envs(variables).output().unwrap();
        String::from_utf8_lossy(&date.stdout).trim().parse::<i64>().unwrap()
    };
    let before = says();
    set("+1d");
    assert!(says() - before > 80_000, "it does not jump");
    // The process charges, and its clock goes a day ahead, and a day back.
    bank.open(1).await.unwrap();
    let mut worker =
        bench.worker(Way::Fenced, "", LONG, "--tasks=100 --every=10 --compute=5 --pauses=0", &variables).await;
    let mut said = Vec::new();
    while let Some(line) = worker.line().await {
        if said.len() < 2 * TIMES {
            set(if said.len() % 2 == 0 { "+1d" } else { "-1d" });
        }
        said.push(line);
    }
    assert!(worker.child.wait().await.unwrap().success());
    assert!(said.len() == 100 && said.iter().all(|line| line.starts_with("done")), "a lease was lost: {said:?}");
    balanced(&[&bank], 100).await;
    none_left::<B>(&bench).await;
}

/// Charges in a task of its own, which waits in the middle of it until it is notified. Returns when it is there.
async fn held<B: Bank>(bank: &B, way: Way, id: &str) -> (Arc<Notify>, tokio::task::JoinHandle<Result<bool, Failed>>) {
    let (go_on, there, is_there) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let (bank, charge, waits, says) = (bank.clone(), charge(id), go_on.clone(), there.clone());
    let task = tokio::spawn(async move {
        let middle = || async {
            is_there.store(true, Relaxed);
            says.notify_one();
            waits.notified().await;
        };
        loop {
            let outcome = bank.pay(way, &charge, middle).await;
            if is_there.load(Relaxed) {
                return outcome;
            }
        }
    });
    there.notified().await;
    (go_on, task)
}

/// What no lock can promise. The page says so.
#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_to_an_asynchronous_replica_loses_what_was_acknowledged_fence_or_not() {
    let (first, second) = (Bench::new(Engine::Redis), Bench::new(Engine::Redis));
    let (master, replica): (bank::Redis, bank::Redis) = (first.bank("", LONG).await, second.bank("", LONG).await);
    let wire = Proxy::new(&first).await;
    let follow = async |words: [&str; 2]| {
        let client = redis::Client::open(second.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        redis::cmd("REPLICAOF").arg(&words).exec_async(&mut connection).await.unwrap();
    };
    master.open(1).await.unwrap();
    pay(&master, Way::Fenced, &charge("before")).await;
    follow(["127.0.0.1", wire.url.rsplit(':').next().unwrap()]).await;
    let copied = || async { replica.books(1).await.is_ok_and(|books| books.charges == 1) };
    until("it is copied", copied).await;
    wire.pass(true, false);
    pay(&master, Way::Fenced, &charge("acknowledged")).await;
    drop(first);
    follow(["NO", "ONE"]).await;
    let books = replica.books(1).await.unwrap();
    assert_eq!((books.charges, books.lost), (1, 0), "the charge is not there, and the books know nothing of it");
}
