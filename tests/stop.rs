//! A task that fails lets the queue go on, or stops what is queued behind it.

mod common;

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use async_mutex_lite::{KeyedMutex, Stopped};
use common::{Hand, hand, now, waiting};
use futures_lite::future::yield_now;

type Mutex = KeyedMutex<&'static str>;

const STOPPED: Result<(), Stopped> = Err(Stopped);

/// A task that must not be called.
async fn uncalled() {
    panic!("a stopped task was called");
}

async fn uncalled_too() -> Result<(), ()> {
    uncalled().await;
    Ok(())
}

#[test]
fn run_passes_on_whatever_the_task_returns_and_the_queue_goes_on() {
    let mutex = Mutex::new();
    let mut first = waiting(mutex.run("key", async || {
        yield_now().await;
        Err::<(), _>("failed")
    }));
    let mut second = waiting(mutex.run("key", async || Some(2)));
    let mut third = waiting(mutex.run_or_stop("key", async || Ok::<_, ()>(3)));
    assert_eq!(first.ready(), Ok(Err("failed")));
    assert_eq!(second.ready(), Ok(Some(2)));
    assert_eq!(third.ready(), Ok(Ok(3)));
    assert!(mutex.is_empty());
}

#[test]
fn a_panic_in_run_is_passed_on_and_the_queue_goes_on() {
    let mutex = Mutex::new();
    let mut first = waiting(mutex.run("key", async || {
        yield_now().await;
        panic!("boom");
    }));
    let mut second = waiting(mutex.run("key", async || "second"));
    let panic = catch_unwind(AssertUnwindSafe(|| first.ready())).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"boom"));
    assert_eq!(second.ready(), Ok("second"));
    assert!(mutex.is_empty());
}

/// Everything that stops a queue: given the mutex, with "key" free, a future that holds it after one poll, and
/// how to make it fail.
type Failure = (&'static str, for<'a> fn(&'a Mutex) -> Hand<'a, ()>, fn(Hand<'_, ()>));

fn failures() -> Vec<Failure> {
    vec![
        (
            "an error",
            |m| {
                hand(async {
                    let failed = m.run_or_stop("key", async || {
                        yield_now().await;
                        Err::<(), _>("failed")
                    });
                    assert_eq!(failed.await, Ok(Err("failed")));
                })
            },
            |mut task| task.ready(),
        ),
        (
            "a panic",
            |m| {
                hand(async {
                    let _ = m
                        .run_or_stop("key", async || -> Result<(), ()> {
                            yield_now().await;
                            panic!("boom")
                        })
                        .await;
                })
            },
            |mut task| drop(catch_unwind(AssertUnwindSafe(|| task.ready())).unwrap_err()),
        ),
        (
            "a drop half-way",
            |m| {
                hand(async {
                    let _ = m.run_or_stop("key", async || pending::<Result<(), ()>>().await).await;
                })
            },
            |task| drop(task),
        ),
        (
            "a ticket's error",
            |m| {
                let ticket = m.ticket("key");
                hand(async {
                    let failed = ticket.run_or_stop(async || {
                        yield_now().await;
                        Err::<(), _>("failed")
                    });
                    assert_eq!(failed.await, Ok(Err("failed")));
                })
            },
            |mut task| task.ready(),
        ),
        (
            "guard.stop()",
            |m| {
                hand(async {
                    let guard = m.lock("key").await;
                    yield_now().await;
                    guard.stop();
                })
            },
            |mut task| task.ready(),
        ),
    ]
}

#[test]
fn a_failure_stops_every_task_that_was_queued_in_its_turn_and_uncalled() {
    for (what, make, fail) in failures() {
        let mutex = Mutex::new();
        let mut failing = make(&mutex);
        failing.pending();
        let mut queue: Vec<Hand<'_, Result<(), Stopped>>> = vec![
            hand(mutex.run("key", uncalled)),
            hand(async { mutex.run_or_stop("key", async || uncalled_too().await).await.map(|_| ()) }),
            hand(async { mutex.ticket("key").run(uncalled).await }),
            hand(async { mutex.ticket("key").run_or_stop(async || uncalled_too().await).await.map(|_| ()) }),
            hand(async { mutex.ticket("key").await.map(drop) }),
            hand(mutex.run("key", uncalled)),
        ];
        queue.iter_mut().for_each(Hand::pending);
        fail(failing);
        for turn in 0..queue.len() {
            let wakes: Vec<_> = queue.iter().map(Hand::wakes).collect();
            assert_eq!(wakes.iter().sum::<usize>(), turn + 1, "{what}: in turn, not at once: {wakes:?}");
            for later in &mut queue[turn + 1..] {
                later.pending();
            }
            assert_eq!(queue[turn].ready(), STOPPED, "{what}");
        }
        assert!(mutex.is_empty(), "{what}");
        assert_eq!(now(mutex.run("key", async || "again")), Ok("again"), "{what}");
    }
}

#[test]
fn whoever_comes_after_a_failure_is_served_however_many_are_still_draining() {
    for (what, make, fail) in failures() {
        let mutex = Mutex::new();
        let mut failing = make(&mutex);
        failing.pending();
        let mut queue: Vec<_> = (0..3).map(|_| waiting(mutex.run("key", uncalled))).collect();
        fail(failing);
        let mut retry = waiting(mutex.run("key", async || what));
        assert_eq!(queue.remove(0).ready(), STOPPED, "{what}");
        let mut retry_of_the_stopped = waiting(mutex.run("key", async || "the stopped one"));
        assert_eq!(queue.remove(0).ready(), STOPPED, "{what}");
        drop(queue); // the last of them is dropped instead: it has its turn, and gives it up
        assert_eq!(retry.ready(), Ok(what));
        assert_eq!(retry_of_the_stopped.ready(), Ok("the stopped one"), "{what}");
        assert!(mutex.is_empty(), "{what}");
    }
}

#[test]
fn plain_locks_and_other_keys_are_not_stopped() {
    for (what, make, fail) in failures() {
        let mutex = Arc::new(Mutex::new());
        let mut failing = make(&mutex);
        failing.pending();
        let other = now(mutex.lock("other"));
        let mut other_task = waiting(mutex.run("other", async || "other"));
        let mut lock = waiting(mutex.lock("key"));
        let mut lock_arc = waiting(mutex.lock_arc("key"));
        let mut task = waiting(mutex.run("key", uncalled));
        fail(failing);
        drop(lock.ready());
        drop(lock_arc.ready());
        assert_eq!(task.ready(), STOPPED, "{what}");
        drop(other);
        assert_eq!(other_task.ready(), Ok("other"), "{what}");
        assert!(mutex.is_empty());
    }
}

#[test]
fn a_task_that_was_stopped_stops_nobody() {
    let mutex = Mutex::new();
    let guard = now(mutex.lock("key"));
    let mut stopped = waiting(mutex.run_or_stop("key", async || Err::<(), _>("not called")));
    guard.stop();
    let mut later = waiting(mutex.run("key", async || "later"));
    assert_eq!(stopped.ready(), Err(Stopped));
    assert_eq!(later.ready(), Ok("later"));
}

#[test]
fn a_task_that_has_not_begun_stops_nobody_when_it_is_dropped() {
    let mutex = Mutex::new();
    let guard = now(mutex.lock("key"));
    let waits = waiting(mutex.run_or_stop("key", async || Err::<(), _>("not called")));
    let granted = waiting(mutex.run_or_stop("key", async || Err::<(), _>("not called")));
    let mut behind = waiting(mutex.run("key", async || "behind"));
    drop(waits);
    drop(guard);
    assert_eq!(granted.wakes(), 1);
    drop(granted);
    assert_eq!(behind.ready(), Ok("behind"));
}

#[test]
fn stopped_callers_that_retry_at_once_come_to_an_end() {
    let mutex = Mutex::new();
    let attempts = Cell::new(0);
    let ran = RefCell::new(Vec::new());
    let retry = async |id: usize| {
        loop {
            attempts.set(attempts.get() + 1);
            let task = async || {
                ran.borrow_mut().push(id);
                yield_now().await;
                if ran.borrow().len() == 1 { Err(()) } else { Ok(()) }
            };
            if let Ok(Ok(())) = mutex.run_or_stop("key", task).await {
                return;
            }
        }
    };
    let executor = smol::LocalExecutor::new();
    let tasks: Vec<_> = (0..4).map(|id| executor.spawn(retry(id))).collect();
    smol::block_on(executor.run(async {
        for task in tasks {
            task.await;
        }
    }));
    assert_eq!(*ran.borrow(), [0, 0, 1, 2, 3], "the first fails, retries, and is first again");
    assert_eq!(attempts.get(), 8);
    assert!(mutex.is_empty());
}

#[test]
fn stop_from_outside_stops_what_is_queued_and_says_how_many() {
    let mutex = Arc::new(Mutex::new());
    assert_eq!(mutex.stop("key"), 0, "nobody there");
    let mut holder = waiting(mutex.run("key", async || {
        yield_now().await;
        "goes on"
    }));
    assert_eq!(mutex.stop("key"), 0, "nobody queued");
    let mut lock = waiting(mutex.lock("key"));
    let mut task = waiting(mutex.run("key", uncalled));
    let gone = waiting(mutex.run("key", uncalled));
    let ticket = mutex.ticket_arc("key");
    let mut other = waiting(mutex.lock_arc("key"));
    drop(gone);
    assert_eq!(mutex.stop("other"), 0);
    assert_eq!(mutex.stop("key"), 2, "the task and the ticket: not the locks, nor the one that is gone");
    assert_eq!(mutex.stop("key"), 0, "they are stopped already");
    let mut later = waiting(mutex.run("key", async || "later"));
    assert_eq!(holder.ready(), Ok("goes on"));
    drop(lock.ready());
    assert_eq!(task.ready(), STOPPED);
    assert_eq!(mutex.stop("key"), 1, "the later one");
    assert_eq!(now(ticket.run(uncalled)), STOPPED);
    drop(other.ready());
    assert_eq!(later.ready(), Err(Stopped));
    assert!(mutex.is_empty());
}

#[test]
fn stop_from_outside_spares_what_has_begun_and_stops_what_has_only_been_given_the_key() {
    let mutex = Mutex::new();
    let guard = now(mutex.lock("key"));
    let mut granted = waiting(mutex.run("key", uncalled));
    drop(guard);
    assert_eq!(mutex.stop("key"), 1);
    assert_eq!(granted.ready(), STOPPED);
    let ticket = mutex.ticket("key"); // free: it holds the key from the start
    assert_eq!(mutex.stop("key"), 0);
    assert_eq!(now(ticket.run(async || "runs")), Ok("runs"));
}

#[test]
fn stopped_says_so_in_a_plain_sentence() {
    let error: &dyn std::error::Error = &Stopped;
    assert_eq!(error.to_string(), "the task was not run, because the queue it waited in was stopped");
    assert_eq!(format!("{Stopped:?}"), "Stopped");
}

#[test]
fn stop_all_stops_what_is_queued_for_every_key_and_those_at_work_go_on() {
    let mutex = Mutex::new();
    let keys = ["a", "b", "c"];
    let mut at_work = keys.map(|key| {
        waiting(mutex.run(key, async || {
            yield_now().await;
            "done"
        }))
    });
    let mut queued = keys.map(|key| [0, 1].map(|_| waiting(mutex.run(key, uncalled))));
    let mut plain = waiting(mutex.lock("a"));
    let mut ticket = waiting(mutex.ticket("b"));
    assert_eq!(mutex.stop_all(), 7, "two tasks for each key, and a ticket");
    assert_eq!(mutex.stop_all(), 0, "those are stopped already");
    let mut later = waiting(mutex.run("c", async || "a newcomer runs"));

    assert_eq!(at_work.each_mut().map(Hand::ready), [Ok("done"); 3]);
    for task in queued.as_flattened_mut() {
        assert_eq!(task.ready(), STOPPED);
    }
    drop(plain.ready());
    assert_eq!(ticket.ready().map(drop), STOPPED);
    assert_eq!(later.ready(), Ok("a newcomer runs"));
    assert!(mutex.is_empty());
    assert_eq!(mutex.stop_all(), 0, "nobody there");
}
