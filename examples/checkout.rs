//! Customers who order several things at the same moment, without and with the mutex.
//!
//! ```text
//! cargo run --release --example checkout             the orders in checkout.txt
//! cargo run --release --example checkout my.txt      your own: "user amount" on each line
//! cargo run --release --example checkout - < my.txt  the same, from standard input
//! ```
//!
//! Each customer starts with exactly the money for all of their orders. To pay for one, a worker reads the balance,
//! and, after an answer from a slow database, writes what is left. If two workers read the same balance before either
//! writes, they spend the same money: the shop ships both orders and is paid for one. The money that is left when all
//! orders have been shipped is what the shop has lost.
//!
//! Blank lines, and everything after a `#`, are skipped. A bad line is reported with its number and the reason, and the
//! rest still runs. The exit status is 1 if money was lost with the mutex, 2 if the input cannot be read or the output
//! cannot be written.
#![allow(clippy::std_instead_of_core)] // examples have the standard library

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use async_mutex_lite::KeyedMutex;
use smol::future::yield_now;
use smol::{Executor, Timer, block_on, channel};

const SAMPLE: &str = include_str!("checkout.txt");
const THREADS: usize = 4;
/// How long the longest queue may take in all.
const PATIENCE: Duration = Duration::from_millis(600);
/// How long one order may take.
const SLOWEST: Duration = Duration::from_millis(40);
/// Timers finer than this are worth less than they cost.
const FINEST: Duration = Duration::from_millis(1);
const LANES: usize = 8;
const COLUMNS: usize = 64;
const NAME: usize = 12;

fn main() -> ExitCode {
    let colour = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none();
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let input = match &arguments[..] {
        [] => Ok(SAMPLE.into()),
        [dash] if dash == "-" => read_all(io::stdin()),
        [help] if help == "-h" || help == "--help" => {
            let usage = "usage: checkout [FILE | -]\n\nEach line of FILE is \"user amount\"; - is standard input.\n";
            return show(&mut io::stdout(), usage, ExitCode::SUCCESS);
        }
        [path] => fs::read(path),
        _ => Err(io::Error::new(ErrorKind::InvalidInput, "one file at most, please")),
    };
    match input {
        Ok(input) => checkout(&input, colour, &mut io::stdout(), &mut io::stderr()),
        Err(error) => {
            let name = arguments.first().map_or("".into(), |name| name.to_string_lossy());
            show(&mut io::stderr(), &format!("checkout: {name}: {error}\n"), ExitCode::from(2))
        }
    }
}

fn read_all(mut from: impl Read) -> io::Result<Vec<u8>> {
    let mut input = Vec::new();
    from.read_to_end(&mut input)?;
    Ok(input)
}

/// The whole job, from the bytes of the input to the exit status.
pub(crate) fn checkout(input: &[u8], colour: bool, out: &mut impl Write, err: &mut impl Write) -> ExitCode {
    let (orders, complaints) = parse(input);
    let _ = show(err, &complaints, ExitCode::SUCCESS);
    if orders.is_empty() {
        return show(out, "no orders\n", ExitCode::SUCCESS);
    }

    let pace = pace(&orders);
    let without = serve(&orders, None, pace, THREADS);
    let with = serve(&orders, Some(&KeyedMutex::new()), pace, THREADS);

    conclude(&orders, &without, &with, colour, out)
}

/// Shows both days. Money that is lost with the mutex is a failure.
pub(crate) fn conclude(orders: &[Order], without: &Day, with: &Day, colour: bool, out: &mut impl Write) -> ExitCode {
    let status = if with.lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    show(out, &report(orders, without, with, colour), status)
}

/// Writes the text. It is not a failure if the reader has closed the pipe (`| head`); any other error is.
fn show(to: &mut impl Write, text: &str, status: ExitCode) -> ExitCode {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => ExitCode::from(2),
        _ => status,
    }
}

// The input.

#[derive(Debug, PartialEq)]
pub(crate) struct Order<'a> {
    pub(crate) user: &'a str,
    /// Cents. Sums are kept in 128 bits, which no file can overflow.
    pub(crate) amount: u64,
}

/// The orders, and a complaint for each bad line.
pub(crate) fn parse(input: &[u8]) -> (Vec<Order<'_>>, String) {
    let input = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
    let (mut orders, mut complaints) = (Vec::new(), String::new());
    for (number, line) in (1..).zip(input.split(|byte| *byte == b'\n')) {
        match parse_line(line) {
            Ok(order) => orders.extend(order),
            Err(reason) => writeln!(complaints, "line {number}: {reason}").unwrap(),
        }
    }
    (orders, complaints)
}

fn parse_line(line: &[u8]) -> Result<Option<Order<'_>>, String> {
    let line = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_string())?;
    let line = line.split('#').next().unwrap_or_default();
    let mut words = line.split_whitespace();
    let Some(user) = words.next() else { return Ok(None) };
    let amount = words.next().ok_or("a user, but no amount")?;
    if let Some(more) = words.next() {
        return Err(format!("{} after the amount", quote(more)));
    }
    if user.contains(char::is_control) {
        return Err(format!("{} is not a name: it has control characters", quote(user)));
    }
    let amount = parse_amount(amount).map_err(|reason| format!("{} {reason}", quote(amount)))?;
    Ok(Some(Order { user, amount }))
}

fn parse_amount(text: &str) -> Result<u64, &'static str> {
    let (units, cents) = text.split_once('.').unwrap_or((text, "00"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(units) || !digits(cents) {
        return Err("is not an amount: write 12 or 12.50");
    }
    let cents = match cents.len() {
        1 => 10 * cents.parse::<u64>().unwrap_or(0),
        2 => cents.parse().unwrap_or(0),
        _ => return Err("is not an amount: it has more than two decimals"),
    };
    let units = units.parse::<u64>().ok().and_then(|units| units.checked_mul(100));
    match units.and_then(|units| units.checked_add(cents)) {
        None => Err("is too much: 184467440737095516.15 is the limit"),
        Some(0) => Err("is not an amount: it must be more than zero"),
        Some(amount) => Ok(amount),
    }
}

/// Makes text from the input safe to print on a terminal.
fn quote(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    if short.len() < text.len() { format!("{short:?}...") } else { format!("{short:?}") }
}

// The shop.

/// What became of an order, in time since the shop opened.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    came: Duration,
    began: Duration,
    ended: Duration,
}

pub(crate) struct Day {
    pub(crate) spans: Vec<Span>,
    pub(crate) shipped: u128,
    pub(crate) lost: u128,
}

/// How long the database takes, so that the longest queue is done in good time.
fn pace(orders: &[Order]) -> Duration {
    let longest = by_user(orders).first().map_or(1, |(_, numbers)| numbers.len());
    let pace = (PATIENCE / u32::try_from(longest).unwrap_or(u32::MAX)).min(SLOWEST);
    if pace < FINEST { Duration::ZERO } else { pace }
}

/// Handles all orders at once, on `threads` threads, with or without the mutex.
pub(crate) fn serve<'a>(
    orders: &[Order<'a>],
    mutex: Option<&KeyedMutex<&'a str>>,
    pace: Duration,
    threads: usize,
) -> Day {
    let mut funds = HashMap::<&'a str, u128>::new();
    for order in orders {
        *funds.entry(order.user).or_default() += u128::from(order.amount);
    }
    let accounts = Mutex::new(funds);
    let accounts = || accounts.lock().unwrap_or_else(PoisonError::into_inner);

    let opened = Instant::now();
    let handle = async |number: usize, order: &Order<'a>| {
        let came = opened.elapsed();
        let guard = match mutex {
            Some(mutex) => Some(mutex.lock(order.user).await),
            None => None,
        };
        let began = opened.elapsed();

        let balance = accounts()[order.user];
        database(pace, number).await;
        let left = balance - u128::from(order.amount);
        accounts().insert(order.user, left);

        let ended = opened.elapsed();
        drop(guard);
        Span { came, began, ended }
    };

    let executor = Executor::new();
    let tasks: Vec<_> = (0..).zip(orders).map(|(number, order)| executor.spawn(handle(number, order))).collect();
    let (open, closed) = channel::bounded::<()>(1);
    let spans = thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| block_on(executor.run(closed.recv())));
        }
        let spans = block_on(async {
            let mut spans = Vec::with_capacity(tasks.len());
            for task in tasks {
                spans.push(task.await);
            }
            spans
        });
        drop(open);
        spans
    });
    let shipped = orders.iter().map(|order| u128::from(order.amount)).sum();
    Day { spans, shipped, lost: accounts().values().sum() }
}

/// Waits for the database's answer, which takes longer for some orders than for others.
async fn database(pace: Duration, number: usize) {
    yield_now().await;
    if !pace.is_zero() {
        Timer::after(pace * (4 + number as u32 % 5) / 8).await;
    }
}

// The picture.

/// The users with the numbers of their orders, the busiest first.
fn by_user<'a>(orders: &[Order<'a>]) -> Vec<(&'a str, Vec<usize>)> {
    let mut places = HashMap::new();
    let mut users: Vec<(&str, Vec<usize>)> = Vec::new();
    for (number, order) in orders.iter().enumerate() {
        let place = *places.entry(order.user).or_insert(users.len());
        if place == users.len() {
            users.push((order.user, Vec::new()));
        }
        users[place].1.push(number);
    }
    users.sort_by_key(|(_, numbers)| std::cmp::Reverse(numbers.len()));
    users
}

/// How many spans are open at once, at the most, in each column of the picture; and whether the last one
/// seen there is an even one.
fn columns(spans: impl Iterator<Item = (Duration, Duration)>, end: Duration) -> Vec<(usize, bool)> {
    let mut changes: Vec<_> = spans.filter(|(a, b)| a < b).flat_map(|(a, b)| [(a, true), (b, false)]).collect();
    changes.sort_unstable(); // an end comes before a beginning at the same time
    let mut columns = vec![(0, false); COLUMNS];
    let column = |at: Duration| (at.as_nanos() * COLUMNS as u128 / end.as_nanos().max(1)) as usize;
    let (mut open, mut even) = (0_usize, false);
    for (change, next) in changes.iter().zip(changes.iter().skip(1)) {
        if change.1 {
            open += 1;
            even = !even;
        } else {
            open -= 1;
        }
        if open > 0 {
            let first = column(change.0).min(COLUMNS - 1);
            let last = column(next.0).saturating_sub(1).clamp(first, COLUMNS - 1);
            for column in &mut columns[first..=last] {
                *column = (column.0.max(open), even);
            }
        }
    }
    columns
}

fn most_at_once(day: &Day, numbers: &[usize]) -> usize {
    let mut changes: Vec<_> = numbers
        .iter()
        .flat_map(|number| [(day.spans[*number].began, true), (day.spans[*number].ended, false)])
        .collect();
    changes.sort_unstable();
    let (mut open, mut most) = (0_isize, 0);
    for (_, begins) in changes {
        open += if begins { 1 } else { -1 };
        most = most.max(open);
    }
    most.unsigned_abs()
}

const RED: &str = "31";
const GREEN: &str = "32";
const DIM: &str = "2";

fn paint(colour: bool, code: &str, text: &str) -> String {
    if colour && !text.trim().is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() }
}

fn money(cents: u128) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn report(orders: &[Order], without: &Day, with: &Day, colour: bool) -> String {
    let users = by_user(orders);
    let ended = |day: &Day| day.spans.iter().map(|span| span.ended).max().unwrap_or_default();
    let end = ended(without).max(ended(with));
    let mut text = String::new();
    let count = |number: usize, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
    let _ = writeln!(text, "{} by {}, all at once", count(orders.len(), "order"), count(users.len(), "user"));
    let _ = writeln!(text, "both charts have the same scale: {} ms from edge to edge", end.as_millis());

    for (title, day) in [("WITHOUT the mutex", without), ("WITH the mutex", with)] {
        let took = ended(day).as_millis();
        let _ = writeln!(text, "\n{title}, {took} ms");
        for (user, numbers) in users.iter().take(LANES) {
            lane(&mut text, colour, user, numbers.iter().map(|number| day.spans[*number]), end);
        }
        if users.len() > LANES {
            let _ = writeln!(text, "{:>NAME$}   and {}", "", count(users.len() - LANES, "more user"));
        }
        let at_once = users.iter().map(|(_, numbers)| most_at_once(day, numbers)).max().unwrap_or(0);
        let paid = day.shipped - day.lost;
        let verdict = format!("lost {}", money(day.lost));
        let _ = writeln!(
            text,
            "  shipped {}, paid {}, {}   (orders of one user at once: {at_once})",
            money(day.shipped),
            money(paid),
            paint(colour, if day.lost == 0 { GREEN } else { RED }, &verdict),
        );
    }
    let _ = writeln!(
        text,
        "\n  {} one order runs, {} orders run at once on the same money; wait: {} orders wait for the key",
        paint(colour, GREEN, "█ ▒"),
        paint(colour, RED, "2-9+"),
        paint(colour, DIM, "1-9+"),
    );
    text
}

/// A line for the orders of one user that run, and, if any of them wait, one below for those that do.
fn lane(text: &mut String, colour: bool, user: &str, spans: impl Iterator<Item = Span> + Clone, end: Duration) {
    let name: String =
        if user.chars().count() > NAME { user.chars().take(NAME - 1).chain(['…']).collect() } else { user.into() };
    let digit = |number: usize| char::from_digit(number as u32, 10).filter(|_| number < 10).unwrap_or('+');

    let runs = columns(spans.clone().map(|span| (span.began, span.ended)), end);
    let _ = write!(text, "{name:>NAME$} │");
    for same in runs.chunk_by(|one, other| (one.0 > 1) == (other.0 > 1)) {
        let cells: String = same
            .iter()
            .map(|cell| match cell {
                (0, _) => ' ',
                (1, true) => '█',
                (1, false) => '▒',
                (number, _) => digit(*number),
            })
            .collect();
        text.push_str(&paint(colour, if same[0].0 > 1 { RED } else { GREEN }, &cells));
    }
    text.push_str("│\n");

    // Waits too short to see are not drawn: there, the key was free.
    let shortest = end / COLUMNS as u32;
    let waits = spans.map(|span| (span.came, span.began)).filter(|(came, began)| *began - *came > shortest);
    let waits = columns(waits, end);
    if waits.iter().any(|(number, _)| *number > 0) {
        let cells: String = waits.iter().map(|(number, _)| if *number > 0 { digit(*number) } else { ' ' }).collect();
        let _ = writeln!(text, "{:>NAME$} │{}│ wait", "", paint(colour, DIM, &cells));
    }
}
