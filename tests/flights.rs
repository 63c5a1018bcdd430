//! One fetch for all callers: examples/flights.rs keeps its promises, whichever caller is cancelled, and when.
#![cfg(not(any(async_mutex_lite_loom, miri, target_family = "wasm")))]
#![allow(clippy::std_instead_of_core)] // tests have the standard library

mod common;
#[path = "../examples/flights.rs"]
mod flights;
#[allow(dead_code)]
#[path = "common/once_cells.rs"]
mod once_cells;

use std::future::{Future, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::Poll;

use common::{Hand, hand, now, waiting};
use flights::Flights;
use once_cells::OnceCells;
use smol::future::yield_now;

/// A fetch that takes so many polls, and returns its own name.
fn fetch(name: &'static str, polls: usize) -> impl Future<Output = &'static str> + Send {
    let mut left = polls;
    poll_fn(move |_| {
        left -= 1;
        if left == 0 { Poll::Ready(name) } else { Poll::Pending }
    })
}

#[test]
fn the_example_runs() {
    flights::main();
}

#[test]
fn all_callers_get_one_outcome_an_error_too_and_nothing_is_kept() {
    let flights = Flights::new();
    let mut first = waiting(flights.get("url", fetch("first", 2)));
    let mut others: Vec<_> = (0..999).map(|_| waiting(flights.get("url", fetch("another", 1)))).collect();
    let other_url = now(flights.get("other url", fetch("other", 1)));
    assert_eq!(*other_url, "other");
    let outcome = first.ready();
    for other in &mut others {
        assert_eq!(other.wakes(), 1, "all are told at once");
        assert!(Arc::ptr_eq(&other.ready(), &outcome));
    }
    assert!(flights.is_empty());
    assert_eq!(*outcome, "first");
    assert_eq!(Arc::strong_count(&outcome), 1);

    let failing = Flights::new();
    let error =
        || {
            let mut yielded = false;
            poll_fn(move |_| {
                if std::mem::replace(&mut yielded, true) { Poll::Ready(Err::<(), _>("503")) } else { Poll::Pending }
            })
        };
    let (mut one, mut two) = (waiting(failing.get(1, error())), waiting(failing.get(1, error())));
    assert!(Arc::ptr_eq(&one.ready(), &two.ready()));
    assert_eq!(*now(failing.get(1, ready(Ok(())))), Ok(()), "a later caller begins a new fetch");
    assert!(failing.is_empty());
}

#[test]
fn the_next_caller_goes_on_where_a_cancelled_one_left_off() {
    let flights = Flights::new();
    let mut callers: Vec<_> =
        ["first", "second", "third"].map(|name| waiting(flights.get("url", fetch(name, 3)))).into();
    drop(callers.remove(0)); // polled once
    assert_eq!(callers[0].wakes(), 1, "it holds the key now");
    callers[0].pending(); // polled twice
    drop(callers.remove(0));
    assert_eq!(*callers[0].ready(), "first");
    assert!(flights.is_empty());
}

#[test]
fn a_caller_may_be_cancelled_in_any_state() {
    /// Says when it is dropped.
    struct Gone(Arc<AtomicBool>);

    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }

    let flights = Flights::new();
    drop(hand(flights.get("url", fetch("never polled", 1))));
    assert!(flights.is_empty());

    let gone = Arc::new(AtomicBool::new(false));
    let sentinel = Gone(gone.clone());
    let first = waiting(flights.get("url", async move {
        let _sentinel = sentinel;
        std::future::pending().await
    }));
    let waits = waiting(flights.get("url", fetch("second", 1)));
    let granted = waiting(flights.get("url", fetch("third", 1)));
    drop(waits);
    drop(first);
    assert_eq!(granted.wakes(), 1);
    assert!(!gone.load(SeqCst), "the fetch has been handed on");
    drop(granted); // not polled since
    assert!(gone.load(SeqCst));
    assert!(flights.is_empty());

    // Told, and not polled since.
    let mut first = waiting(flights.get("url", fetch("first", 2)));
    let told = waiting(flights.get("url", fetch("second", 1)));
    assert_eq!(*first.ready(), "first");
    let mut later = waiting(flights.get("url", fetch("later", 2))); // does not get what is over
    drop(told);
    assert_eq!(*later.ready(), "later");
    assert!(flights.is_empty());
}

#[test]
fn a_fetch_that_panics_takes_its_caller_with_it_and_the_next_begins_another() {
    let flights = Flights::new();
    let mut polled = false;
    let panics = poll_fn(move |_| if std::mem::replace(&mut polled, true) { panic!("planned") } else { Poll::Pending });
    let mut first: Hand<'_, Arc<&str>> = waiting(flights.get("url", panics));
    let mut second = waiting(flights.get("url", fetch("second", 1)));
    assert!(catch_unwind(AssertUnwindSafe(|| first.poll().is_pending())).is_err());
    drop(first);
    assert_eq!(*second.ready(), "second");
    assert!(flights.is_empty());
}

/// Twenty thousand tasks on four threads ask for few keys and give up at random, whatever state they are in.
#[test]
fn twenty_thousand_tasks_that_give_up_at_random_leave_nothing_behind() {
    const TASKS: usize = 20_000;
    const KEYS: usize = 8;
    struct World {
        flights: Flights<usize, (usize, usize)>,
        fetching: [AtomicUsize; KEYS],
        fetches: AtomicUsize,
    }
    common::limited(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
        let world =
            Arc::new(World { flights: Flights::new(), fetching: Default::default(), fetches: AtomicUsize::new(0) });
        let task = |number: usize| {
            let world = world.clone();
            async move {
                let (key, mut random) = (number % KEYS, fastrand::Rng::with_seed(number as u64));
                let (inner, yields) = (world.clone(), random.usize(..20));
                let get = world.flights.get(key, async move {
                    let id = inner.fetches.fetch_add(1, SeqCst);
                    inner.fetching[key].fetch_add(1, SeqCst);
                    for _ in 0..yields {
                        yield_now().await;
                    }
                    inner.fetching[key].fetch_sub(1, SeqCst);
                    (key, id)
                });
                if random.bool() {
                    let patience = async {
                        for _ in 0..random.usize(..20) {
                            yield_now().await;
                        }
                        None
                    };
                    smol::future::or(async { Some(get.await) }, patience).await
                } else {
                    Some(get.await)
                }
                .map(|outcome| (key, *outcome))
            }
        };
        let told = runtime.block_on(async {
            let tasks: Vec<_> = (0..TASKS).map(|number| tokio::spawn(task(number))).collect();
            let mut told = 0;
            for task in tasks {
                if let Some((key, (of, _))) = task.await.unwrap() {
                    assert_eq!(key, of);
                    told += 1;
                }
            }
            told
        });
        assert!(world.flights.is_empty());
        let fetches = world.fetches.load(SeqCst);
        println!("{told} of {TASKS} tasks were told, {fetches} fetches");
        assert!(told >= TASKS / 2 && fetches <= told, "{fetches} fetches for {told} that were told");
    });
}

/// What a map of `OnceCell` leaves behind when its callers are cancelled, and what it begins again.
#[test]
fn a_map_of_once_cells_keeps_what_cancelled_callers_leave_and_begins_again() {
    let (cells, flights) = (OnceCells::new(), Flights::new());
    for key in 0..100 {
        drop(waiting(cells.get(key, fetch("cells", 2))));
        drop(waiting(flights.get(key, fetch("flights", 2))));
    }
    assert_eq!(cells.len(), 100);
    assert!(flights.is_empty());

    let (first, mut second) = (waiting(cells.get(7, fetch("first", 2))), waiting(cells.get(7, fetch("second", 2))));
    drop(first);
    second.pending();
    assert_eq!(*second.ready(), "second", "what the first has begun is lost");
}
