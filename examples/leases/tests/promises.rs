//! What the leases promise when nothing goes wrong, and what they say when a server refuses.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use common::bank::{self, Bank, Kind, Way};
use common::server::Engine;
use common::{Bench, LONG, PATIENCE, balanced, charge, kind, none_left, pay, until};

on_each_engine! {
    one_task_of_a_process_asks_and_the_others_wait_here_in_the_order_of_arrival
    the_limit_is_kept_here_and_there
    a_fence_that_is_kept_writes_nothing_once_its_lease_has_ended
    a_charge_id_that_was_used_for_another_amount_is_refused
    a_hot_account_costs_fewer_requests_behind_the_mutex
}

async fn one_task_of_a_process_asks_and_the_others_wait_here_in_the_order_of_arrival<B: Bank>(engine: Engine) {
    let bench = Bench::new(engine);
    let (other, bank): (B, B) = (bench.bank("", LONG).await, bench.bank("", LONG).await);
    bank.open(1).await.unwrap();
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let holds = tokio::spawn(async move { other.run(0, |_| async move { Ok(gone.await.is_ok()) }).await });
    until("it is held", || async { bank.leases().await == Ok(1) }).await;
    let (mut tasks, order) = (JoinSet::new(), Arc::new(Mutex::new(Vec::new())));
    for number in 0..20 {
        let (mine, order) = (bank.clone(), order.clone());
        tasks.spawn(async move {
            let begins = || async { order.lock().unwrap().push(number) };
            mine.pay(Way::Fenced, &charge(number), begins).await.unwrap();
        });
        until("it is in the queue", || async {
            let mut waiting = None;
            bank.mutex().for_each_locked(|_, state| waiting = Some(state.waiting));
            waiting == Some(number)
        })
        .await;
    }
    assert!(bank.leases().await.unwrap() <= 2, "of twenty, one asks");
    go.send(()).unwrap();
    tasks.join_all().await;
    assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
    assert!(holds.await.unwrap().unwrap());
    balanced(&[&bank], 20).await;
    none_left::<B>(&bench).await;
}

async fn the_limit_is_kept_here_and_there<B: Bank>(engine: Engine) {
    let bench = Bench::new(engine);
    let other: B = bench.bank("", LONG).await;
    let bank = other.apart(Duration::from_millis(200));
    bank.open(1).await.unwrap();
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let holds = tokio::spawn(async move { other.run(0, |_| async move { Ok(gone.await.is_ok()) }).await });
    until("it is held", || async { bank.leases().await == Ok(1) }).await;
    let (one, two) = (charge("there"), charge("here"));
    let both =
        async { tokio::join!(bank.pay(Way::Fenced, &one, || async {}), bank.pay(Way::Fenced, &two, || async {})) };
    let (there, here) = timeout(PATIENCE, both).await.expect("the limit is kept");
    assert_eq!((kind(&there), kind(&here)), (Kind::TimedOut, Kind::TimedOut));
    until("the place there is given up", || async { bank.leases().await == Ok(1) }).await;
    go.send(()).unwrap();
    assert!(holds.await.unwrap().unwrap());
    balanced(&[&bank], 0).await;

    // The ends of the scale: no time, in which it may be had if the server is quick, and all of it.
    let none = bank.apart(Duration::ZERO);
    let outcome = none.pay(Way::Fenced, &one, || async {}).await;
    assert!(outcome.is_ok() || kind(&outcome) == Kind::TimedOut, "{outcome:?}");
    balanced(&[&none], usize::from(outcome.is_ok())).await;
    let all = bank.apart(Duration::MAX);
    pay(&all, Way::Fenced, &one).await;
    // A lease of no time is as short as it can be, and one of all time is given up like any other.
    let shortest: B = bench.bank("", Duration::ZERO).await;
    let outcome = shortest.pay(Way::Fenced, &two, || sleep(Duration::from_secs(5))).await;
    // On etcd it is a second, and it is renewed.
    assert!(outcome.is_ok() || kind(&outcome) == Kind::Lost, "{outcome:?}");
    let longest: B = bench.bank("", Duration::MAX).await;
    pay(&longest, Way::Fenced, &two).await;
    balanced(&[&bank, &none, &all, &shortest, &longest], 2).await;
    none_left::<B>(&bench).await;
}

async fn a_fence_that_is_kept_writes_nothing_once_its_lease_has_ended<B: Bank>(engine: Engine) {
    let bench = Bench::new(engine);
    let bank: B = bench.bank("", LONG).await;
    bank.open(1).await.unwrap();
    let old = bank.run(0, |fence| async { Ok(fence) }).await.unwrap();
    let late = bank.write(Some(&old), &charge("late"), 0).await;
    assert_eq!(kind(&late), Kind::Lost);
    // The same process, the same key, but another lease.
    let within = bank.run(0, |fence| {
        let (bank, old) = (&bank, &old);
        async move {
            assert_eq!(kind(&bank.write(Some(old), &charge("old"), 0).await), Kind::Lost);
            bank.write(Some(&fence), &charge("new"), bank::OPENING - 7).await
        }
    });
    assert_eq!(within.await.unwrap(), None);
    balanced(&[&bank], 1).await;
    none_left::<B>(&bench).await;
}

async fn a_charge_id_that_was_used_for_another_amount_is_refused<B: Bank>(engine: Engine) {
    let bench = Bench::new(engine);
    let bank: B = bench.bank("", LONG).await;
    bank.open(1).await.unwrap();
    pay(&bank, Way::Fenced, &charge("id")).await;
    pay(&bank, Way::Fenced, &charge("id")).await; // once more, and not twice
    let other = bank::Charge { amount: 8, ..charge("id") };
    assert_eq!(kind(&bank.pay(Way::Fenced, &other, || async {}).await), Kind::Task);
    balanced(&[&bank], 1).await;
}

/// Three processes, in each of which a hundred tasks wait for one account.
async fn a_hot_account_costs_fewer_requests_behind_the_mutex<B: Bank>(engine: Engine) {
    async fn requests<B: Bank>(bench: &Bench, way: Way) -> f64 {
        let mut banks = Vec::<B>::new();
        for _ in 0..3 {
            banks.push(bench.bank(&format!("{way:?} "), Duration::from_secs(10)).await);
        }
        banks[0].open(1).await.unwrap();
        let before = banks[0].requests().await.unwrap();
        let mut tasks = JoinSet::new();
        for number in 0..300 {
            let bank = banks[number % 3].clone();
            tasks.spawn(async move {
                let charge = charge(number);
                let attempt = || bank.pay(way, &charge, || sleep(Duration::from_millis(3)));
                bank::retry(u32::MAX, attempt).await.unwrap();
            });
        }
        timeout(PATIENCE, tasks.join_all()).await.expect("all of them are served");
        let after = banks[0].requests().await.unwrap();
        balanced(&banks.iter().collect::<Vec<_>>(), 300).await;
        (after - before) as f64 / 300.0
    }
    let bench = Bench::new(engine);
    let (alone, behind) = (requests::<B>(&bench, Way::Alone).await, requests::<B>(&bench, Way::Fenced).await);
    let times = alone / behind;
    println!(
        "{}: {alone:.1} requests for each charge without the mutex, {behind:.1} behind it: {times:.1} x",
        engine.name()
    );
    match engine {
        #[cfg(feature = "redis")]
        Engine::Redis => assert!(times >= 10.0),
        // Who waits there has a place in a queue, and does not ask again: the mutex saves leases, and hardly any requests.
        #[cfg(feature = "etcd")]
        Engine::Etcd => assert!(behind < 10.0),
    }
}

#[test]
fn no_clock_on_the_wall_is_read() {
    for (file, text) in [("redis.rs", include_str!("../src/redis.rs")), ("etcd.rs", include_str!("../src/etcd.rs"))] {
        for clock in ["SystemTime", "UNIX_EPOCH", "chrono", "PXAT", "EXPIREAT", "'TIME'"] {
            assert!(!text.contains(clock), "{file} has {clock}");
        }
        assert!(text.contains("Instant::now()"), "{file} has another clock");
    }
}

#[cfg(feature = "redis")]
mod on_redis {
    use super::*;
    use leases::redis::{Error, Fence, Leases};
    use redis::{Cmd, RedisError, aio::ConnectionManager, cmd};
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::UnixStream;
    use tokio::time::Instant;

    type Told<T = ()> = Result<T, Error<&'static str>>;

    async fn leases(bench: &Bench) -> Leases {
        let client = redis::Client::open(bench.url()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let redis = loop {
            match ConnectionManager::new(client.clone()).await {
                Ok(redis) => break redis,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        };
        Leases { mutex: Arc::default(), redis, lease: LONG, limit: PATIENCE }
    }

    /// Has the server do something, or be something.
    async fn ask(leases: &Leases, words: &str) {
        let mut words = words.split(' ');
        let mut command = cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>()).query_async::<()>(&mut leases.redis.clone()).await.unwrap();
    }

    async fn get(leases: &Leases, key: &str) -> Option<String> {
        Cmd::get(key).query_async(&mut leases.redis.clone()).await.unwrap()
    }

    fn code<T: std::fmt::Debug>(told: Told<T>) -> (String, bool) {
        let error = told.unwrap_err();
        let may_retry = error.may_retry();
        match error {
            Error::Server(error) => (error.code().unwrap_or_default().to_string(), may_retry),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_write_is_several_commands_or_none() {
        let bench = Bench::new(Engine::Redis);
        let leases = leases(&bench).await;
        let told: Told<usize> = leases
            .run("", |fence| async move {
                fence.write([]).await?; // is it still mine?
                fence.write([Cmd::set("a", 1), Cmd::rpush("b", &["2", "", "\0\r\n3"]), Cmd::incr("a", 1)]).await?;
                Ok(7)
            })
            .await;
        assert_eq!(told.unwrap(), 7);
        assert_eq!(get(&leases, "a").await.as_deref(), Some("2"));
        let list: Vec<String> = Cmd::lrange("b", 0, -1).query_async(&mut leases.redis.clone()).await.unwrap();
        assert_eq!(list, ["2", "", "\0\r\n3"]);
    }

    #[tokio::test]
    async fn a_command_that_fails_is_told_with_what_was_written_before_it() {
        let bench = Bench::new(Engine::Redis);
        let leases = leases(&bench).await;
        ask(&leases, "SET text x").await;
        let told: Told =
            leases.run("key", |f| async move { f.write([Cmd::rpush("text", 1), Cmd::set("a", 1)]).await }).await;
        assert_eq!(code(told), ("WRONGTYPE".into(), false));
        assert_eq!(get(&leases, "a").await, None);
        let told: Told =
            leases.run("key", |f| async move { f.write([Cmd::set("a", 1), Cmd::rpush("text", 1)]).await }).await;
        assert!(matches!(told, Err(Error::Unknown(_))), "{told:?}");
        assert_eq!(get(&leases, "a").await.as_deref(), Some("1"));
        let told: Told = leases.run("key", |f| async move { f.write([cmd("NONSENSE")]).await }).await;
        assert!(!code(told).1);
        let many = vec!["x"; 7000];
        let many = || [Cmd::set("a", 2), Cmd::rpush("b", &many)];
        let told: Told = leases.run("key", |fence| async move { fence.write(many()).await }).await;
        assert_eq!(code(told), ("ERR".into(), false));
        assert_eq!(get(&leases, "a").await.as_deref(), Some("1"));
        assert!(leases.mutex.is_empty());
        assert_eq!(get(&leases, "lease:key").await, None);
    }

    #[tokio::test]
    async fn what_passes_may_be_retried() {
        let bench = Bench::new(Engine::Redis);
        let leases = leases(&bench).await;
        // In the midst of the work, and before it.
        for (on, off, expected) in [
            ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM"),
            ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "READONLY"),
            ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0", "NOREPLICAS"),
        ] {
            let told: Told = leases
                .run("key", |fence| {
                    let leases = &leases;
                    async move {
                        ask(leases, on).await;
                        fence.write([Cmd::set("a", 1)]).await
                    }
                })
                .await;
            assert_eq!(code(told), (expected.into(), true));
            let told: Told = leases.run("key", |_| async { Ok(()) }).await;
            assert_eq!(code(told), (expected.into(), true));
            ask(&leases, off).await;
            ask(&leases, "DEL lease:key").await; // which could not be given up
            assert_eq!(get(&leases, "a").await, None);
        }
        // A server that has forgotten the script is told it again.
        let told: Told = leases
            .run("key", |fence| {
                let leases = &leases;
                async move {
                    ask(leases, "SCRIPT FLUSH").await;
                    fence.write([Cmd::set("a", 1)]).await?;
                    ask(leases, "SCRIPT FLUSH").await;
                    Ok(())
                }
            })
            .await;
        told.unwrap();
        assert_eq!(get(&leases, "a").await.as_deref(), Some("1"));
        assert_eq!(get(&leases, "lease:key").await, None);
        let told: Told = leases.run("key", |_| async { Err(Error::Task("its own")) }).await;
        assert!(matches!(told, Err(error @ Error::Task("its own")) if !error.may_retry()));
        let read: Told = leases.run("key", |_| async { Err(RedisError::from(std::io::Error::other("cut")))? }).await;
        assert!(read.unwrap_err().may_retry());
    }

    #[tokio::test]
    async fn keys_of_any_kind_are_kept_apart() {
        let bench = Bench::new(Engine::Redis);
        let leases = leases(&bench).await;
        let mut work: Told = Ok(());
        for key in ["", " ", "a", "a:", "lease:a", "a b", "*", "ä\n\0", "{a}"] {
            // Each within the one before: none waits for another.
            let inner = leases.clone();
            let held: Told<Fence> = inner.run(key, |fence| async { Ok(fence) }).await;
            work = work.and(held.map(drop));
        }
        work.unwrap();
        let outer: Told = leases
            .run("a", |_| async {
                leases
                    .run("", |_| async {
                        leases.run("lease:a", |_| async { leases.run("a:", |_| async { Ok(()) }).await }).await
                    })
                    .await
            })
            .await;
        outer.unwrap();
    }

    #[tokio::test]
    async fn processes_do_not_ask_in_step() {
        let bench = Bench::new(Engine::Redis);
        let leases = leases(&bench).await;
        ask(&leases, "SET lease:key another").await;
        let mut monitor = BufReader::new(UnixStream::connect(bench.socket()).await.unwrap());
        monitor.write_all(b"MONITOR\r\n").await.unwrap();
        let waiting = tokio::spawn(async move { leases.run("key", |_| async { Told::Ok(()) }).await });
        let mut lines = monitor.lines();
        let (mut before, mut short, mut long) = (None, 0, 0);
        let differ = async {
            while short < 3 || long < 3 {
                let line = lines.next_line().await.unwrap().unwrap();
                if line.contains("\"SET\"") {
                    let at = line[1..].split(' ').next().unwrap().parse::<f64>().unwrap();
                    let pause = at - before.replace(at).unwrap_or(at - 0.012);
                    (short, long) = (short + i32::from(pause < 0.010), long + i32::from(pause > 0.015));
                }
            }
        };
        assert!(timeout(PATIENCE, differ).await.is_ok(), "the pauses are alike");
        waiting.abort();
    }
}

#[cfg(feature = "etcd")]
mod on_etcd {
    use super::*;
    use etcd_client::{Channel, Client, CompactionOptions, TxnOp};
    use leases::etcd::{Error, Fence, Leases};
    use tonic::transport::Endpoint;

    type Told<T = ()> = Result<T, Error<&'static str>>;

    async fn leases(bench: &Bench) -> Leases {
        let _: bank::Etcd = bench.bank("", LONG).await; // the server is ready
        let channel = Channel::Tonic(Endpoint::from_shared(bench.url()).unwrap().connect_lazy());
        let etcd = Client::from_channel(channel, None).await.unwrap();
        Leases { mutex: Arc::default(), etcd, lease: LONG, limit: PATIENCE }
    }

    async fn get(leases: &Leases, key: &str) -> Option<String> {
        let got = leases.etcd.kv_client().get(key, None).await.unwrap();
        got.kvs().first().map(|kv| kv.value_str().unwrap().to_string())
    }

    #[tokio::test]
    async fn a_write_is_several_operations_or_none_and_all_of_them_or_none() {
        let bench = Bench::new(Engine::Etcd);
        let leases = leases(&bench).await;
        let told: Told<usize> = leases
            .run("", |fence| async move {
                fence.write([]).await?; // is it still mine?
                fence.write([TxnOp::put("a", "1", None), TxnOp::put("b", "2", None)]).await?;
                fence.write([TxnOp::delete("b", None)]).await?;
                Ok(7)
            })
            .await;
        assert_eq!(told.unwrap(), 7);
        assert_eq!((get(&leases, "a").await.as_deref(), get(&leases, "b").await), (Some("1"), None));
        // The same key twice, and too many: both are refused for good.
        for writes in
            [vec![TxnOp::put("a", "2", None); 2], (0..200).map(|n| TxnOp::put(format!("n{n}"), "", None)).collect()]
        {
            let told: Told = leases.run("key", |fence: Fence| async move { fence.write(writes).await }).await;
            assert!(matches!(&told, Err(error @ Error::Server(_)) if !error.may_retry()), "{told:?}");
        }
        assert_eq!(get(&leases, "a").await.as_deref(), Some("1"));
        let told: Told = leases.run("key", |_| async { Err(Error::Task("its own")) }).await;
        assert!(matches!(told, Err(error @ Error::Task("its own")) if !error.may_retry()));
        none_left::<bank::Etcd>(&bench).await;
    }

    #[tokio::test]
    async fn keys_of_any_kind_are_kept_apart() {
        let bench = Bench::new(Engine::Etcd);
        let leases = leases(&bench).await;
        // One holds a key, and none of the others waits for it.
        for held in ["", "/", "a", "a/", "a/b", "1/a", "ä\n\0"] {
            let told: Told = leases
                .run(held, |_| {
                    let leases = &leases;
                    async move {
                        for other in ["", "/", "a", "a/", "a/b", "1/a", "ä\n\0"] {
                            if other != held {
                                leases.run(other, |fence| async move { fence.write([]).await }).await?;
                            }
                        }
                        Ok(())
                    }
                })
                .await;
            told.unwrap();
        }
        none_left::<bank::Etcd>(&bench).await;
    }

    #[tokio::test]
    async fn they_wait_in_the_order_of_revision_and_a_compaction_does_not_disturb_that() {
        let bench = Bench::new(Engine::Etcd);
        let first = leases(&bench).await;
        let (say, mut hear) = tokio::sync::mpsc::unbounded_channel();
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let holds = tokio::spawn({
            let first = first.clone();
            async move { first.run("key", |_| async move { Told::Ok(gone.await.is_ok()) }).await }
        });
        let places = || async {
            let all = etcd_client::GetOptions::new().with_prefix();
            first.etcd.kv_client().get("lease/", Some(all)).await.unwrap().kvs().len()
        };
        until("it is held", || async { places().await == 1 }).await;
        let mut tasks = JoinSet::new();
        for number in 0..10 {
            // Each is another process.
            let other = Leases { mutex: Arc::default(), ..first.clone() };
            let say = say.clone();
            tasks.spawn(async move {
                let work = |_| async move {
                    say.send(number).unwrap();
                    Told::Ok(())
                };
                other.run("key", work).await
            });
            until("it has its place", || async { places().await == 2 + number }).await;
        }
        let revision = first.etcd.kv_client().put("x", "", None).await.unwrap().header().unwrap().revision();
        let physical = Some(CompactionOptions::new().with_physical());
        first.etcd.kv_client().compact(revision, physical).await.unwrap();
        go.send(()).unwrap();
        for number in 0..10 {
            assert_eq!(timeout(PATIENCE, hear.recv()).await.unwrap(), Some(number));
        }
        for told in tasks.join_all().await {
            told.unwrap();
        }
        assert!(holds.await.unwrap().unwrap());
        none_left::<bank::Etcd>(&bench).await;
    }

    #[tokio::test]
    async fn a_lease_that_ends_while_it_waits_in_the_queue_is_lost_and_its_work_does_not_begin() {
        let bench = Bench::new(Engine::Etcd);
        let holder = leases(&bench).await;
        let waiter = Leases { mutex: Arc::default(), lease: Duration::from_secs(3), ..holder.clone() };
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let holds = tokio::spawn({
            let holder = holder.clone();
            async move { holder.run("key", |_| async move { Told::Ok(gone.await.is_ok()) }).await }
        });
        let places = || async {
            let all = etcd_client::GetOptions::new().with_prefix();
            holder.etcd.kv_client().get("lease/", Some(all)).await.unwrap().take_kvs()
        };
        until("it is held", || async { places().await.len() == 1 }).await;
        let waits = tokio::spawn(async move { waiter.run("key", |_| async { Told::Ok(()) }).await });
        until("it waits", || async { places().await.len() == 2 }).await;
        let newest = places().await.into_iter().max_by_key(|kv| kv.create_revision()).unwrap();
        holder.etcd.lease_client().revoke(newest.lease()).await.unwrap();
        let told = timeout(PATIENCE, waits).await.unwrap().unwrap();
        assert!(matches!(told, Err(Error::Lost)), "{told:?}");
        go.send(()).unwrap();
        assert!(holds.await.unwrap().unwrap());
        none_left::<bank::Etcd>(&bench).await;
    }
}
