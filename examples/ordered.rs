//! Messages from many senders, handled by several threads of smol, in the order of arrival for each sender.
//!
//! A lock alone never runs two messages of one sender at once, but it serves them in the order in which their tasks
//! first poll it, and executors do not guarantee that order. A ticket, taken when the message arrives, fixes its place.
//!
//! `cargo run --release --example ordered`
#![allow(clippy::std_instead_of_core, clippy::std_instead_of_alloc)] // examples have the standard library

use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread;

use async_mutex_lite::{KeyedMutex, Ticket};
use smol::future::yield_now;
use smol::{Executor, block_on, channel};

const SENDERS: usize = 8;
const MESSAGES: usize = 50;
const THREADS: usize = 4;

struct Message {
    sender: usize,
    number: usize,
}

struct Desk {
    mutex: Arc<KeyedMutex<usize>>,
    /// The numbers of the messages that were handled, for each sender, in the order of handling.
    done: [Mutex<Vec<usize>>; SENDERS],
}

impl Desk {
    async fn handle(&self, message: Message, ticket: Option<Ticket<Arc<KeyedMutex<usize>>>>) {
        // Stands for work before the lock, such as decoding. Here it takes longest for the first messages.
        for _ in message.number..MESSAGES {
            yield_now().await;
        }
        let _guard = match ticket {
            Some(ticket) => ticket.await.expect("nothing stops the queue"),
            None => self.mutex.arc().lock(message.sender).await,
        };
        self.done[message.sender].lock().unwrap().push(message.number);
    }
}

/// Handles all messages. Returns how many pairs of messages of one sender were handled in the wrong order.
pub(crate) fn inversions(tickets: bool, threads: usize) -> usize {
    let desk = Desk { mutex: Arc::default(), done: [const { Mutex::new(Vec::new()) }; SENDERS] };
    let executor = Executor::new();
    let arrivals = (0..MESSAGES).flat_map(|number| (0..SENDERS).map(move |sender| Message { sender, number }));
    let tasks: Vec<_> = arrivals
        .map(|message| {
            let ticket = tickets.then(|| desk.mutex.arc().ticket(message.sender));
            executor.spawn(desk.handle(message, ticket))
        })
        .collect();

    let (open, closed) = channel::bounded::<()>(1);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| block_on(executor.run(closed.recv())));
        }
        tasks.into_iter().for_each(block_on);
        drop(open);
    });
    let done = desk.done.iter().map(|done| done.lock().unwrap());
    done.map(|done| (1..MESSAGES).map(|at| done[..at].iter().filter(|one| **one > done[at]).count()).sum::<usize>())
        .sum()
}

pub(crate) fn main() -> ExitCode {
    let (without, with) = (inversions(false, THREADS), inversions(true, THREADS));
    let pairs = SENDERS * MESSAGES * (MESSAGES - 1) / 2;
    println!("{SENDERS} senders, {MESSAGES} messages each, {THREADS} threads, {pairs} pairs of one sender's messages");
    println!("the earlier a message arrives, the longer its decoding takes: they reach the lock in reverse order");
    println!("without tickets: {without} pairs in the wrong order, since the lock serves messages as they reach it");
    println!("with tickets:    {with} pairs, since the place in the queue is taken when a message arrives");
    if with == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
