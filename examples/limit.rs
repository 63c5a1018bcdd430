//! At most two requests at a time to each host, on smol: real servers on this machine, which reject a third one.
//!
//! `cargo run --release --example limit` shows when each request waited and when it was served.
#![allow(clippy::std_instead_of_core)] // examples have the standard library

use std::cell::Cell;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_mutex_lite::KeyedMutex;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::{SocketAddr, TcpListener, TcpStream};
use smol::{LocalExecutor, Timer};

const HOSTS: usize = 3;
const REQUESTS: usize = 6;
/// How many a host answers at a time.
const LIMIT: u32 = 2;
/// How long it takes to answer.
const WORK: Duration = Duration::from_millis(20);

/// Answers `ok`, or `busy` if too many clients are connected at the same time.
async fn serve(listener: TcpListener, executor: Rc<LocalExecutor<'_>>) {
    let inside = Rc::new(Cell::new(0));
    while let Ok((mut stream, _)) = listener.accept().await {
        let inside = inside.clone();
        let answer = async move {
            inside.set(inside.get() + 1);
            let answer: &[u8] = if inside.get() <= LIMIT { b"ok" } else { b"busy" };
            Timer::after(WORK).await;
            inside.set(inside.get() - 1);
            let _ = stream.write_all(answer).await;
        };
        executor.spawn(answer).detach();
    }
}

async fn fetch(host: SocketAddr) -> io::Result<String> {
    let mut answer = String::new();
    TcpStream::connect(host).await?.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// One request: when it was sent, after waiting for a permit if there is a limit; when it was answered; and whether it
/// was served.
pub(crate) struct Request {
    host: usize,
    from: Duration,
    to: Duration,
    pub(crate) served: bool,
}

/// Sends all requests at once; if `limited`, no more run to a host at a time than it answers.
pub(crate) fn send_all(limited: bool) -> io::Result<Vec<Request>> {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        let mut hosts = Vec::new();
        for _ in 0..HOSTS {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            hosts.push(listener.local_addr()?);
            executor.spawn(serve(listener, executor.clone())).detach();
        }
        let limit = Arc::new(KeyedMutex::new());
        let start = Instant::now();
        let requests = (0..HOSTS * REQUESTS).map(|number| {
            let (limit, host) = (limit.clone(), number % HOSTS);
            let address = hosts[host];
            executor.spawn(async move {
                let share = if limited { Some(limit.arc().at_most(LIMIT).lock(address).await) } else { None };
                let from = start.elapsed();
                let served = fetch(address).await? == "ok";
                let to = start.elapsed();
                drop(share);
                io::Result::Ok(Request { host, from, to, served })
            })
        });
        let mut done = Vec::new();
        for request in requests.collect::<Vec<_>>() {
            done.push(request.await?);
        }
        done.sort_by_key(|request| (request.host, request.from));
        io::Result::Ok(done)
    }))
}

/// Prints a line for each request: when it waited, and when it was served.
fn draw(requests: &[Request]) {
    const COLUMNS: u32 = 60;
    let end = requests.iter().map(|request| request.to).max().unwrap_or(WORK);
    let column = |time: Duration| (time.as_secs_f64() / end.as_secs_f64() * f64::from(COLUMNS)).round() as usize;
    for request in requests {
        let (from, to) = (column(request.from), column(request.to));
        let inside = if request.served { "█" } else { "×" };
        println!("  host {}  {}{}", request.host + 1, "·".repeat(from), inside.repeat((to - from).max(1)));
    }
    println!("  · waits   █ is served   × is rejected      {:.0} ms in all", end.as_secs_f64() * 1e3);
}

pub(crate) fn main() -> io::Result<ExitCode> {
    let rejected = |requests: &[Request]| requests.iter().filter(|request| !request.served).count();
    let without = send_all(false)?;
    println!("{REQUESTS} requests to each of {HOSTS} hosts, which answer {LIMIT} at a time\n");
    println!("without a limit of our own: {} rejected", rejected(&without));
    draw(&without);
    let with = send_all(true)?;
    println!("\nat most {LIMIT} requests to a host at a time: {} rejected", rejected(&with));
    draw(&with);
    Ok(if rejected(&with) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
