//! A server, banks on it, and what must hold when all is over.
#![allow(dead_code, reason = "each test file uses its part")]

#[path = "../../src/bank/mod.rs"]
pub mod bank;
#[path = "../../../common/polled.rs"]
pub mod polled;
#[path = "../../src/server.rs"]
pub mod server;

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use bank::{Bank, Books, Charge, Failed, Way, retry};
use server::{Engine, Server};

/// Each fault happens so many times.
pub const TIMES: usize = 20;
/// Only a test that fails takes so long: this machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A lease that does not end by itself while a test waits for something.
pub const LONG: Duration = Duration::from_secs(300);

/// A lease that ends soon.
pub fn short(engine: Engine) -> Duration {
    match engine {
        #[cfg(feature = "redis")]
        Engine::Redis => Duration::from_millis(300),
        #[cfg(feature = "etcd")]
        Engine::Etcd => Duration::from_secs(1),
    }
}

/// A test of this name for each engine.
#[macro_export]
macro_rules! on_each_engine {
    ($($test:ident)*) => { $(mod $test {
        #[cfg(feature = "redis")]
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn redis() {
            super::$test::<super::bank::Redis>(super::Engine::Redis).await;
        }

        #[cfg(feature = "etcd")]
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn etcd() {
            super::$test::<super::bank::Etcd>(super::Engine::Etcd).await;
        }
    })* };
}

/// A server of the test's own.
#[derive(Clone)]
pub struct Bench {
    pub engine: Engine,
    server: Arc<Mutex<Server>>,
}

impl Bench {
    pub fn new(engine: Engine) -> Self {
        Self { engine, server: Arc::new(Mutex::new(Server::start(engine).unwrap())) }
    }

    pub fn url(&self) -> String {
        self.server.lock().unwrap().url()
    }

    pub fn socket(&self) -> PathBuf {
        self.server.lock().unwrap().socket()
    }

    /// What a process would have: a mutex, and a connection.
    pub async fn bank<B: Bank>(&self, prefix: &str, lease: Duration) -> B {
        connect(&self.url(), prefix, lease).await
    }

    /// Kills the server, as a crash would, and starts it again, with its data or without.
    pub async fn restart(&self, with_data: bool) {
        let server = self.server.clone();
        let restart = move || {
            let mut server = server.lock().unwrap();
            server.order("kill");
            if !with_data {
                server.order("wipe");
            }
            server.order("start");
        };
        tokio::task::spawn_blocking(restart).await.unwrap();
    }

    /// One process of the fleet, by its own program, which charges the hot account. It begins at once.
    pub async fn worker(
        &self,
        way: Way,
        prefix: &str,
        lease: Duration,
        rest: &str,
        variables: &[(&str, &str)],
    ) -> Worker {
        let mut child = Command::new(env!("CARGO_BIN_EXE_leases"))
            .arg("worker")
            .args([format!("--engine={}", self.engine.name().to_lowercase()), format!("--url={}", self.url())])
            .args([format!("--prefix={prefix}"), format!("--way={way:?}").to_lowercase()])
            .args([format!("--lease={}", lease.as_millis()), "--process=0".into(), "--accounts=1".into()])
            .args(rest.split(' '))
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut worker = Worker { child, orders, lines };
        assert_eq!(worker.line().await.as_deref(), Some("ready"));
        worker.orders.write_all(b"go\n").await.unwrap();
        worker
    }
}

/// Connects to a server that may not be ready.
pub async fn connect<B: Bank>(url: &str, prefix: &str, lease: Duration) -> B {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match timeout(Duration::from_secs(5), B::connect(url, prefix, lease)).await {
            Ok(Ok(bank)) => return bank,
            outcome => assert!(Instant::now() < deadline, "{:?}", outcome.map(|outcome| outcome.err())),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

pub struct Worker {
    pub child: Child,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    pub async fn line(&mut self) -> Option<String> {
        timeout(PATIENCE, self.lines.next_line()).await.expect("it says something, or ends").unwrap()
    }

    /// Lets it go on after it has stopped itself, and returns all that it says until it ends.
    pub async fn go_on(mut self) -> Vec<String> {
        let pid = Pid::from_raw(self.child.id().expect("it is stopped") as i32);
        let mut said = Vec::new();
        while said.is_empty() {
            kill(pid, Signal::SIGCONT).unwrap();
            // It may have said that it stops, and not done it yet.
            if let Ok(line) = timeout(Duration::from_millis(50), self.line()).await {
                said.push(line.expect("it goes on"));
            }
        }
        while let Some(line) = self.line().await {
            said.push(line);
        }
        assert!(timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap().success(), "{said:?}");
        said
    }
}

pub fn charge(id: impl ToString) -> Charge {
    Charge { id: id.to_string(), account: 0, amount: 7 }
}

/// Charges, and does nothing in the middle. Tries again as often as it takes.
pub async fn pay<B: Bank>(bank: &B, way: Way, charge: &Charge) {
    let attempt = || bank.pay(way, charge, || async {});
    timeout(PATIENCE, retry(u32::MAX, attempt)).await.expect("it can be charged").unwrap();
}

/// Waits until it is so.
#[track_caller]
pub fn until<F: Future<Output = bool>>(what: &str, mut so: impl FnMut() -> F) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + PATIENCE;
        while !so().await {
            assert!(Instant::now() < deadline, "{caller}: never came true: {what}");
            sleep(Duration::from_millis(2)).await;
        }
    }
}

/// When all is over: no key is locked here, no lease is left on an account, and each charge was done once. Returns what
/// the books say.
#[track_caller]
pub fn settled<B: Bank>(banks: &[&B], charges: usize) -> impl Future<Output = Books> {
    let caller = std::panic::Location::caller();
    async move {
        for bank in banks {
            let idle = timeout(PATIENCE, bank.mutex().all_idle()).await;
            assert!(idle.is_ok() && bank.mutex().is_empty(), "{caller}: a key is locked");
        }
        let bank = banks[0];
        until("no lease is left", || async { bank.leases().await == Ok(0) }).await;
        let books = bank.books(1).await.unwrap();
        assert_eq!(books.charges, charges, "{caller}: not each charge was done once");
        books
    }
}

/// The same, and the books balance.
#[track_caller]
pub fn balanced<B: Bank>(banks: &[&B], charges: usize) -> impl Future<Output = ()> {
    let (caller, settled) = (std::panic::Location::caller(), settled(banks, charges));
    async move { assert_eq!(settled.await.lost, 0, "{caller}: money was lost") }
}

/// Waits until no lease is left in the server.
pub async fn none_left<B: Bank>(bench: &Bench) {
    let bank: B = bench.bank("", LONG).await;
    until("no lease is left in the server", || async { bank.all_leases().await == Ok(0) }).await;
}

/// What a network between a client and the server may do: nothing is lost, but it may stand still.
pub struct Proxy {
    pub url: String,
    /// Whether requests pass, and answers.
    passes: watch::Sender<(bool, bool)>,
}

impl Proxy {
    pub async fn new(bench: &Bench) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = match bench.engine {
            #[cfg(feature = "redis")]
            Engine::Redis => "redis",
            #[cfg(feature = "etcd")]
            Engine::Etcd => "http",
        };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (passes, _) = watch::channel((true, true));
        let (socket, changes) = (bench.socket(), passes.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = UnixStream::connect(&socket).await {
                    tokio::spawn(between(client, server, changes.subscribe()));
                }
            }
        });
        Self { url, passes }
    }

    pub fn pass(&self, requests: bool, answers: bool) {
        self.passes.send_replace((requests, answers));
    }
}

async fn between(client: TcpStream, server: UnixStream, passes: watch::Receiver<(bool, bool)>) {
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = forward(from_client, to_server, passes.clone(), |(requests, _)| *requests) => {}
        () = forward(from_server, to_client, passes, |(_, answers)| *answers) => {}
    }
}

async fn forward(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut passes: watch::Receiver<(bool, bool)>,
    passing: impl Fn(&(bool, bool)) -> bool,
) {
    let mut buffer = [0; 4096];
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        if passes.wait_for(&passing).await.is_err() || to.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
    }
}

/// The kind of an error, to be compared.
pub fn kind<T: std::fmt::Debug>(outcome: &Result<T, Failed>) -> bank::Kind {
    outcome.as_ref().expect_err("it fails").kind
}
