//! A network that goes away without a word, twenty times in each step. What is known is told in time, others of the process
//! go on, the server does not keep the lock, and nothing is lost or done twice.

use std::time::Duration;

use fleet::{Error, Fleet};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::bench::{Bench, Outcome, PATIENCE, TIMES, bank, charge, fleet_at, pay};
use crate::network::{Fate, Network, To, has};

/// After this a silent server is given up. What happens before must not take so long, though this machine may be busy.
const WAIT: Duration = Duration::from_secs(10);
const WORK: Duration = Duration::from_secs(4);
const COMMIT: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_connects_nothing_was_done() {
    let scene = Scene::new().await;
    scene.network.cut();
    let fleet = Fleet { limit: COMMIT, ..scene.fleet.clone() };
    for told in told(scene.pay(&fleet)).await {
        assert!(matches!(told, Err(Error::TimedOut)), "{told:?}");
    }
    scene.ends(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_waits_for_the_lock_nothing_was_done_and_the_server_gives_up_too() {
    let scene = Scene::new().await;
    let (release, held) = scene.hold().await;
    let fleet = Fleet { limit: WAIT, ..scene.fleet.clone() };
    let paying = scene.pay(&fleet);
    let waiting = format!("SELECT count(*) = {TIMES} FROM pg_stat_activity WHERE wait_event = 'advisory'");
    scene.bench.until(&waiting).await;
    scene.network.cut();
    for told in told(paying).await {
        assert!(matches!(told, Err(Error::TimedOut)), "{told:?}");
    }
    scene.gone().await; // while the lock is still held elsewhere
    release.send(()).unwrap();
    held.await.unwrap().unwrap();
    scene.ends(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_works_nothing_was_done() {
    let scene = Scene::new().await;
    scene.lose(To::Server, b"UPDATE accounts");
    for told in told(scene.pay(&scene.fleet)).await {
        assert!(matches!(told, Err(Error::Undone(_))), "{told:?}");
    }
    scene.ends(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_does_not_arrive_is_unknown_and_a_retry_does_it() {
    let scene = Scene::new().await;
    scene.lose(To::Server, b"COMMIT\0");
    for told in told(scene.pay(&scene.fleet)).await {
        assert!(matches!(told, Err(Error::Unknown(_))), "{told:?}");
    }
    scene.ends(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_does_not_arrive_is_unknown_and_a_retry_does_it_once() {
    let scene = Scene::new().await;
    scene.lose(To::Client, b"COMMIT\0");
    for told in told(scene.pay(&scene.fleet)).await {
        assert!(matches!(told, Err(Error::Unknown(_))), "{told:?}");
    }
    scene.ends(TIMES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_connection_is_given_back_all_is_done_and_that_is_told() {
    let scene = Scene::new().await;
    scene.network.rule(|to, message| match message {
        b"S\0\0\0\x04" if to == To::Server => Fate::Lost, // a ping
        _ => Fate::Forwarded,
    });
    let fleet = Fleet { limit: WAIT, ..scene.fleet.clone() };
    for told in told(scene.pay(&fleet)).await {
        told.unwrap();
    }
    scene.ends(TIMES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_dropped_meanwhile_does_not_keep_the_key() {
    let scene = Scene::new().await;
    scene.lose(To::Server, b"UPDATE accounts");
    let fleet = Fleet { limit: WAIT, work_limit: Some(WAIT), ..scene.fleet.clone() };
    let paying = scene.pay(&fleet);
    let deadline = Instant::now() + PATIENCE;
    while scene.network.lost() < TIMES {
        assert!(Instant::now() < deadline, "not all of them work");
        sleep(Duration::from_millis(2)).await;
    }
    for task in paying {
        task.abort();
        let _ = task.await;
    }
    scene.ends(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_not_that_of_the_lock_does_not_let_the_work_begin() {
    let scene = Scene::new().await;
    // Another statement is executed than the one that was sent. (It has as many bytes.)
    scene.network.rule(|to, message| {
        let (lock, other) = (&b"pg_catalog.current_setting('fleet.nonce', true),"[..], b"'42'");
        let Some(at) = message.windows(lock.len()).position(|window| window == lock).filter(|_| to == To::Server)
        else {
            return Fate::Forwarded;
        };
        let mut message = message.to_vec();
        message[at..at + lock.len()].fill(b' ');
        message[at..at + other.len()].copy_from_slice(other);
        message[at + lock.len() - 1] = b',';
        Fate::Replaced(message)
    });
    let mut runs = JoinSet::new();
    for account in 0..TIMES {
        let fleet = scene.fleet.clone();
        runs.spawn(async move {
            let work = async |_: &mut _| -> Outcome { panic!("it works without its lock") };
            fleet.run([charge("", account as i32).key()], work).await
        });
    }
    for told in runs.join_all().await {
        assert!(matches!(told, Err(Error::Undone(_))), "{told:?}");
    }
    scene.ends(0).await;
}

/// Twenty accounts, and a process whose server is at the other end of a network.
struct Scene {
    bench: Bench,
    network: Network,
    fleet: Fleet,
    direct: Fleet,
}

impl Scene {
    async fn new() -> Self {
        let bench = Bench::new();
        bench.open(TIMES as i32).await;
        let network = Network::to(&bench.socket(5432)).await;
        let connections = TIMES as u32;
        let fleet = Fleet {
            work_limit: Some(WORK),
            commit_limit: Some(COMMIT),
            ..fleet_at(&network.url(), "behind the network", connections)
        };
        let direct = bench.fleet("direct", connections);
        Self { bench, network, fleet, direct }
    }

    /// Loses each message with this in it, and what would come after that.
    fn lose(&self, towards: To, part: &'static [u8]) {
        self.network.rule(move |to, message| match to == towards && has(message, part) {
            true => Fate::Lost,
            false => Fate::Forwarded,
        });
    }

    /// Charges each account.
    fn pay(&self, fleet: &Fleet) -> Vec<JoinHandle<Outcome>> {
        let pay = |account| {
            let fleet = fleet.clone();
            tokio::spawn(async move { pay(&fleet, &charge(account, account as i32)).await })
        };
        (0..TIMES).map(pay).collect()
    }

    /// Holds the locks of all accounts, by way of another network.
    async fn hold(&self) -> (tokio::sync::oneshot::Sender<()>, JoinHandle<Outcome>) {
        let ((release, released), (say, says)) =
            (tokio::sync::oneshot::channel::<()>(), tokio::sync::oneshot::channel());
        let fleet = self.direct.clone();
        let held = tokio::spawn(async move {
            let work = async |_: &mut _| {
                say.send(()).unwrap();
                let _ = released.await;
                Ok(())
            };
            fleet.run((0..TIMES).map(|account| charge("", account as i32).key()), work).await
        });
        says.await.unwrap();
        (release, held)
    }

    /// Waits until nothing is locked, here or there, though neither has heard of the other.
    async fn gone(&self) {
        let idle = timeout(PATIENCE, self.fleet.mutex.all_idle()).await;
        idle.expect("the keys here are unlocked");
        assert_eq!(self.fleet.pool.size(), 0, "the connections are closed, not given back");
        let none = "SELECT count(*) = 0 FROM pg_locks JOIN pg_stat_activity USING (pid)
            WHERE locktype = 'advisory' AND application_name = 'behind the network'";
        self.bench.until(none).await;
    }

    /// So many charges were done. Tried again, each is done once: by others meanwhile, and by these when they are back.
    async fn ends(&self, done: usize) {
        self.gone().await;
        let (booked, _, lost) = bank::books(&mut self.bench.connect().await).await.unwrap();
        assert_eq!((booked, lost), (done as i64, 0));
        for told in told(self.pay(&self.direct)).await {
            told.unwrap();
        }
        self.network.mend();
        let patient = Fleet { limit: PATIENCE, work_limit: None, commit_limit: None, ..self.fleet.clone() };
        for told in told(self.pay(&patient)).await {
            told.unwrap();
        }
        self.bench.settled(&[&self.fleet, &self.direct], TIMES as i64).await;
    }
}

async fn told(tasks: Vec<JoinHandle<Outcome>>) -> Vec<Outcome> {
    let mut told = Vec::new();
    for task in tasks {
        told.push(timeout(PATIENCE, task).await.expect("it is told in time").unwrap());
    }
    told
}
