//! One fetch for all callers: examples/flights.rs keeps its promises, whichever caller is cancelled, and when, and
//! whatever panics.
#![cfg(not(any(async_mutex_lite_loom, miri, target_family = "wasm")))]
#![allow(clippy::std_instead_of_core)] // tests have the standard library

mod common;
#[path = "../examples/flights.rs"]
mod flights;
#[allow(dead_code)]
#[path = "common/once_cells.rs"]
mod once_cells;

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn, ready};
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock};
use std::task::{Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

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

/// A fetch that never ends, and holds this until it is dropped.
async fn stuck(held: Rc<()>) -> &'static str {
    let _held = held;
    pending().await
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
    assert!(others.iter().all(|other| other.wakes() == 1), "all are told at once");
    assert!(others.iter_mut().all(|other| Arc::ptr_eq(&other.ready(), &outcome)));
    assert!(flights.is_empty());
    assert_eq!(*outcome, "first");
    assert_eq!(Arc::strong_count(&outcome), 1);

    let failing = Flights::new();
    let error = || async {
        yield_now().await;
        Err::<(), _>("503")
    };
    let (mut one, mut two) = (waiting(failing.get(1, error())), waiting(failing.get(1, error())));
    assert!(Arc::ptr_eq(&one.ready(), &two.ready()));
    assert_eq!(*now(failing.get(1, ready(Ok(())))), Ok(()), "a later caller begins a new fetch");
    assert!(failing.is_empty());
}

#[test]
fn the_next_caller_runs_its_own_fetch_when_the_one_that_ran_is_cancelled() {
    let flights = Flights::new();
    let mut callers: Vec<_> =
        ["first", "second", "third"].map(|name| waiting(flights.get("url", fetch(name, 2)))).into();
    drop(callers.remove(0)); // polled once
    assert_eq!(callers[0].wakes(), 1, "it is its turn");
    callers[0].pending();
    assert_eq!(*callers[0].ready(), "second");
    assert_eq!(*callers[1].ready(), "second");
    assert!(flights.is_empty());
}

#[test]
fn a_caller_may_be_cancelled_in_any_state() {
    let (flights, held) = (Flights::new(), Rc::new(()));

    // Never polled.
    drop(hand(flights.get("url", stuck(held.clone()))));
    assert!(flights.is_empty());
    assert_eq!(Rc::strong_count(&held), 1);

    // Waiting; fetching; and granted, but not polled since.
    let fetching = waiting(flights.get("url", stuck(held.clone())));
    let waits = waiting(flights.get("url", stuck(held.clone())));
    let granted = waiting(flights.get("url", stuck(held.clone())));
    let mut last = waiting(flights.get("url", fetch("last", 2)));
    drop(waits);
    assert_eq!((granted.wakes(), last.wakes()), (0, 0));
    drop(fetching);
    assert_eq!((granted.wakes(), last.wakes()), (1, 0));
    drop(granted);
    assert_eq!(last.wakes(), 1);
    assert_eq!(Rc::strong_count(&held), 1, "their fetches are gone");
    last.pending();
    assert_eq!(*last.ready(), "last");
    assert!(flights.is_empty());

    // The only one, fetching.
    drop(waiting(flights.get("url", stuck(held.clone()))));
    assert!(flights.is_empty());

    // Told, and not polled since.
    let mut first = waiting(flights.get("url", fetch("first", 2)));
    let told = waiting(flights.get("url", fetch("second", 1)));
    assert_eq!(*first.ready(), "first");
    let mut later = waiting(flights.get("url", fetch("later", 2))); // does not get what is over
    drop(told);
    let mut joins = waiting(flights.get("url", fetch("joins", 1)));
    assert_eq!(*later.ready(), "later");
    assert_eq!(*joins.ready(), "later", "the flight was still there to be joined");
    assert!(flights.is_empty());
}

#[test]
fn a_fetch_may_borrow_and_need_not_be_send_and_is_not_run_for_a_caller_that_is_told() {
    let (flights, run) = (Flights::new(), RefCell::new(Vec::new()));
    let fetch = |name| {
        let run = &run;
        async move {
            run.borrow_mut().push(name);
            yield_now().await;
            Rc::new(name)
        }
    };
    let (mut first, mut second) = (waiting(flights.get(1, fetch("first"))), waiting(flights.get(1, fetch("second"))));
    let outcome = first.ready();
    assert!(Arc::ptr_eq(&outcome, &second.ready()));
    assert_eq!((&***outcome, &run.borrow()[..]), ("first", &["first"][..]));

    fn send(_: &impl Send) {}
    send(&Flights::new().get(String::new(), async { String::new() }));
}

#[test]
fn after_a_write_a_caller_that_joins_gets_the_older_outcome_unless_the_flight_is_forgotten() {
    let flights = Flights::new();
    let mut before = waiting(flights.get("url", fetch("older", 2)));
    let mut joins = waiting(flights.get("url", fetch("newer", 1)));
    flights.forget(&"url");
    let mut after = waiting(flights.get("url", fetch("newer", 2))); // they fetch at the same time
    assert_eq!(*before.ready(), "older");
    assert_eq!(*joins.ready(), "older");
    let mut joins = waiting(flights.get("url", fetch("another", 1)));
    assert_eq!(*after.ready(), "newer");
    assert_eq!(*joins.ready(), "newer", "the older flight has left the newer one alone");
    assert!(flights.is_empty());

    // The same, when the older callers are cancelled.
    let before = waiting(flights.get("url", fetch("older", 2)));
    flights.forget(&"url");
    let mut after = waiting(flights.get("url", fetch("newer", 2)));
    drop(before);
    let mut joins = waiting(flights.get("url", fetch("another", 1)));
    assert_eq!((*after.ready(), *joins.ready()), ("newer", "newer"));
    flights.forget(&"url"); // there is none
    assert!(flights.is_empty());
}

#[test]
fn a_caller_that_is_kept_and_not_polled_holds_up_the_others_until_it_is_dropped() {
    let flights = Flights::new();
    let kept = waiting(flights.get("url", fetch("kept", 2)));
    let mut others: Vec<_> = (0..3).map(|_| waiting(flights.get("url", fetch("other", 1)))).collect();
    others.iter_mut().for_each(Hand::pending);
    drop(kept);
    assert!(others.iter_mut().all(|other| *other.ready() == "other"));
    assert!(flights.is_empty());
}

/// The key that the fetch of a key asks for.
type Next = fn(usize) -> usize;

/// Asks for a key, whose fetch asks for the next.
fn ask<'a>(
    flights: &'a Flights<usize, ()>,
    key: usize,
    next: Next,
    held: Rc<()>,
) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
    Box::pin(async move {
        flights
            .get(key, async move {
                ask(flights, next(key), next, held.clone()).await;
                drop(held);
            })
            .await;
    })
}

#[test]
fn fetches_that_wait_for_each_other_leave_nothing_behind_when_their_callers_give_up() {
    let circles: [(&str, Next, usize); 3] = [
        ("its own key", |key| key, 1),
        ("alice for bob, and bob for alice", |key| 1 - key, 2),
        ("a circle of three, and all ask for all", |key| (key + 1) % 3, 9),
    ];
    for (circle, next, callers) in circles {
        let (flights, held) = (Flights::new(), Rc::new(()));
        let mut callers: Vec<_> =
            (0..callers).map(|caller| waiting(ask(&flights, caller % 3, next, held.clone()))).collect();
        let mut random = fastrand::Rng::with_seed(7);
        while !callers.is_empty() {
            callers.iter_mut().for_each(Hand::pending); // those whose turn has come fetch, and wait in turn
            drop(callers.swap_remove(random.usize(..callers.len()))); // its time is up
        }
        assert!(flights.is_empty(), "{circle}");
        assert_eq!(Rc::strong_count(&held), 1, "{circle}: a fetch is leaked");
        now(flights.get(0, ready(())));
    }
}

#[test]
fn a_circle_under_timeouts_ends_and_later_callers_are_served() {
    common::limited(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (flights, held) = (Flights::new(), Rc::new(()));
        runtime.block_on(async {
            let ask =
                |key| tokio::time::timeout(Duration::from_millis(20), ask(&flights, key, |key| 1 - key, held.clone()));
            let (alice, bob, another) = tokio::join!(ask(0), ask(1), ask(0));
            assert!(alice.is_err() && bob.is_err() && another.is_err());
            flights.get(0, ready(())).await;
            flights.get(1, ready(())).await;
        });
        assert!(flights.is_empty());
        assert_eq!(Rc::strong_count(&held), 1);
    });
}

#[test]
fn a_caller_is_served_by_its_own_runtime_when_that_of_another_has_ended() {
    common::limited(|| {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let flights = Arc::new(Flights::new());
        let get = |name, time| {
            let flights = flights.clone();
            async move {
                let fetch = async {
                    tokio::time::sleep(time).await; // a timer of the runtime that polls it
                    name
                };
                *flights.get("url", fetch).await
            }
        };
        let (first, second) = (runtime(), runtime());
        first.spawn(get("first", Duration::from_secs(3600)));
        first.block_on(tokio::task::yield_now());
        let waits = second.spawn(get("second", Duration::from_millis(1)));
        second.block_on(tokio::task::yield_now());
        drop(first);
        assert_eq!(second.block_on(waits).unwrap(), "second");
        drop(second);
        assert_eq!(runtime().block_on(get("third", Duration::from_millis(1))), "third");
        assert!(flights.is_empty());
    });
}

thread_local! {
    /// How many calls of user code are left until one panics; 0: none will.
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Where user code may panic. (Not while a panic unwinds already: that ends any program.)
fn user_code() {
    let left = LEFT.get();
    if left > 0 && !thread::panicking() {
        LEFT.set(left - 1);
        assert_ne!(left, 1, "planned");
    }
}

/// A key, an outcome, a waker, or what a fetch has. It cannot be cloned.
#[derive(Debug)]
struct Touchy(u8);

impl Drop for Touchy {
    fn drop(&mut self) {
        user_code();
    }
}

impl Hash for Touchy {
    fn hash<H: Hasher>(&self, state: &mut H) {
        user_code();
        self.0.hash(state);
    }
}

impl PartialEq for Touchy {
    fn eq(&self, other: &Self) -> bool {
        user_code();
        self.0 == other.0
    }
}

impl Eq for Touchy {}

impl Wake for Touchy {
    fn wake(self: Arc<Self>) {
        user_code();
    }
}

/// A fetch of two polls, of which any may panic; and it may panic when it is dropped, at whatever point.
async fn touchy_fetch(number: u8) -> Touchy {
    let _until_the_end = Touchy(number);
    user_code();
    yield_now().await;
    user_code();
    Touchy(number)
}

/// Runs a piece of a script, and returns whether it panicked.
fn panics(piece: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(piece)).is_err()
}

#[test]
fn whatever_user_code_panics_only_its_caller_is_lost() {
    for nth in 1.. {
        let (flights, waker) = (Flights::new(), Waker::from(Arc::new(Touchy(0))));
        let mut callers: Vec<_> =
            (0..6).map(|number| Some(hand(flights.get(Touchy(number / 4), touchy_fetch(number))))).collect();
        LEFT.set(nth);
        for round in 0..5 {
            for caller in &mut callers {
                let panicked = panics(|| {
                    let done = caller.as_mut().is_some_and(|caller| caller.poll_with(&waker).is_ready());
                    drop(caller.take_if(|_| done));
                });
                if panicked {
                    assert!(!panics(|| drop(caller.take())), "what a panic has left behind panics again");
                }
            }
            if round == 0 {
                panics(|| drop(callers[0].take())); // it fetches, unless it has panicked
                panics(|| flights.forget(&Touchy(1)));
            }
        }
        let left = LEFT.replace(0);
        assert!(callers.iter().all(Option::is_none), "a caller waits for one that is lost: {nth}");
        assert!(flights.is_empty(), "something is left: {nth}");
        assert_eq!(now(flights.get(Touchy(0), async { Touchy(9) })).0, 9);
        if left > 0 {
            println!("{} calls of user code, each of which has panicked", nth - 1);
            assert!(nth > 40);
            break;
        }
    }
}

#[test]
fn a_key_that_always_panics_takes_its_caller_with_it_and_no_other() {
    /// Panics whenever it is hashed, if that is what it is told.
    #[derive(PartialEq, Eq)]
    struct Key(u8, Rc<Cell<bool>>);

    impl Hash for Key {
        fn hash<H: Hasher>(&self, state: &mut H) {
            assert!(!self.1.get(), "planned");
            self.0.hash(state);
        }
    }

    let (flights, fails) = (Flights::new(), Rc::new(Cell::new(true)));
    let good = Rc::new(Cell::new(false));
    let key = |number, fails: &Rc<Cell<bool>>| Key(number, fails.clone());
    let mut other = waiting(flights.get(key(2, &good), fetch("other", 2)));
    let mut never: Hand<'_, Arc<&str>> = hand(flights.get(key(1, &fails), fetch("never", 1)));
    assert!(panics(|| drop(never.poll())));
    drop(never);

    fails.set(false);
    let never = || async { unreachable!("it is told") };
    let mut first = waiting(flights.get(key(1, &fails), fetch("first", 3)));
    let mut second = waiting(flights.get(key(1, &fails), never()));
    let third = waiting(flights.get(key(1, &fails), never()));
    let alone = waiting(flights.get(key(3, &fails), fetch("alone", 2)));
    fails.set(true);
    drop((third, alone));
    first.pending();
    assert!(panics(|| drop(first.poll())), "when it has its outcome, and again when it is dropped");
    drop(first);
    fails.set(false);
    assert_eq!(*second.ready(), "first");
    assert_eq!(*other.ready(), "other");
    assert!(flights.is_empty());
    assert_eq!(*now(flights.get(key(1, &fails), fetch("later", 1))), "later");
    assert!(flights.is_empty());
}

#[test]
fn a_key_and_an_outcome_may_use_the_flights_when_they_are_dropped() {
    static FLIGHTS: LazyLock<Flights<Asks, Asks>> = LazyLock::new(Flights::new);

    #[derive(Debug, PartialEq, Eq, Hash)]
    struct Asks;

    impl Drop for Asks {
        fn drop(&mut self) {
            FLIGHTS.is_empty();
        }
    }

    common::limited(|| {
        let fetch = || async {
            yield_now().await;
            Asks
        };
        let first = waiting(FLIGHTS.get(Asks, fetch()));
        let (mut second, third) = (waiting(FLIGHTS.get(Asks, fetch())), waiting(FLIGHTS.get(Asks, fetch())));
        drop(first); // the flight has its key
        second.pending();
        drop(second.ready());
        drop(third); // and this the last of the outcome
        drop(waiting(FLIGHTS.get(Asks, fetch())));
        assert!(FLIGHTS.is_empty());
    });
}

/// Twenty thousand tasks on four threads ask for few keys and give up at random, whatever state they are in.
#[test]
fn twenty_thousand_tasks_that_give_up_at_random_leave_nothing_behind() {
    const TASKS: usize = 20_000;
    const KEYS: usize = 8;
    struct World {
        flights: Flights<usize, (usize, usize)>,
        fetching: [common::Cell; KEYS],
        fetched: AtomicUsize,
    }
    common::limited(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
        let world =
            Arc::new(World { flights: Flights::new(), fetching: Default::default(), fetched: AtomicUsize::new(0) });
        let task = |number: usize| {
            let world = world.clone();
            async move {
                let (key, mut random) = (number % KEYS, fastrand::Rng::with_seed(number as u64));
                let yields = random.usize(..20);
                let get = world.flights.get(key, async {
                    let inside = world.fetching[key].enter();
                    for _ in 0..yields {
                        yield_now().await;
                    }
                    drop(inside);
                    (key, world.fetched.fetch_add(1, SeqCst))
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
        let fetched = world.fetched.load(SeqCst);
        println!("{told} of {TASKS} tasks were told, {fetched} fetches");
        assert!(told >= TASKS / 2 && fetched <= told, "{fetched} fetches for {told} that were told");
    });
}

#[test]
fn a_map_of_once_cells_keeps_what_cancelled_callers_leave() {
    let (cells, flights) = (OnceCells::new(), Flights::new());
    for key in 0..100 {
        drop(waiting(cells.get(key, fetch("cells", 2))));
        drop(waiting(flights.get(key, fetch("flights", 2))));
    }
    assert_eq!(cells.len(), 100);
    assert!(flights.is_empty());
}
