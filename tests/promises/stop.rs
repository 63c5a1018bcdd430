//! A task that fails lets the queue go on, or stops what is queued behind it.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Wake;
use std::thread;

use crate::common::{Hand, hand, now, waiting};
use async_mutex_lite::{KeyedMutex, Stopped};
use futures_lite::future::{block_on, yield_now};

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
            "a drop midway",
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

/// Every kind of waiter that a stop reaches: what it returns when it is stopped is checked by itself.
fn stoppable<'a>(m: &'a Arc<Mutex>) -> Vec<Hand<'a, Result<(), Stopped>>> {
    vec![
        hand(m.run("key", uncalled)),
        hand(async { m.run_or_stop("key", async || uncalled_too().await).await.map(|_| ()) }),
        hand(m.ticket("key").run(uncalled)),
        hand(async { m.ticket("key").run_or_stop(async || uncalled_too().await).await.map(|_| ()) }),
        hand(async { m.arc().ticket("key").await.map(drop) }),
        hand(m.shared().ticket("key").run(uncalled)),
        hand(async { m.arc().shared().ticket("key").await.map(drop) }),
        hand(m.run("key", uncalled)),
    ]
}

#[test]
fn a_failure_stops_every_job_and_ticket_that_waits_at_once_and_uncalled() {
    for (what, make, fail) in failures() {
        let mutex = Arc::new(Mutex::new());
        let mut failing = make(&mutex);
        failing.pending();
        let mut queue = stoppable(&mutex);
        queue.iter_mut().for_each(Hand::pending);
        fail(failing);
        assert_eq!(queue.iter().map(Hand::wakes).collect::<Vec<_>>(), vec![1; queue.len()], "{what}: each, once");
        assert!(mutex.is_empty(), "{what}: none of them is polled, and none holds anything");
        assert_eq!(now(mutex.run("key", async || "a retry")), Ok("a retry"), "{what}");
        // Polled in any order, or not at all.
        drop(queue.remove(3));
        while let Some(mut stopped) = queue.pop() {
            assert_eq!(stopped.ready(), STOPPED, "{what}");
        }
        assert!(mutex.is_empty(), "{what}");
    }
}

/// Notes its number when it is called.
struct Numbered(usize, Arc<std::sync::Mutex<Vec<usize>>>);

impl Wake for Numbered {
    fn wake(self: Arc<Self>) {
        self.1.lock().unwrap().push(self.0);
    }
}

#[test]
fn they_are_woken_first_come_first() {
    for all in [false, true] {
        let mutex = Arc::new(Mutex::new());
        let order = Arc::default();
        let holder = mutex.ticket("key");
        let mut queue = stoppable(&mutex);
        for (number, waiter) in queue.iter_mut().enumerate() {
            assert!(waiter.poll_with(&Arc::new(Numbered(number, Arc::clone(&order))).into()).is_pending());
        }
        // Two are tickets that were made first; the others took their places just now.
        assert_eq!(if all { mutex.stop_all() } else { mutex.stop("key") }, 8);
        assert_eq!(*order.lock().unwrap(), [2, 5, 0, 1, 3, 4, 6, 7]);
        queue.iter_mut().for_each(|stopped| assert_eq!(stopped.ready(), STOPPED));
        drop(holder);
        assert!(mutex.is_empty());
    }
}

#[test]
fn what_was_stopped_holds_nobody_up_and_is_not_counted() {
    let mutex = Arc::new(Mutex::new());
    let reader = now(mutex.shared().lock("key"));
    let mut writer = waiting(mutex.run("key", uncalled));
    let mut readers: Vec<_> = (0..2).map(|_| waiting(mutex.shared().lock("key"))).collect();
    let mut plain = waiting(mutex.lock("key"));
    let mut behind = waiting(mutex.shared().ticket("key"));
    assert_eq!((mutex.stop("key"), mutex.state("key").waiting), (2, 1), "the plain lock still waits");
    assert_eq!(readers.iter().map(Hand::wakes).collect::<Vec<_>>(), [1, 1], "the writer before them has gone");
    assert_eq!((plain.wakes(), writer.wakes(), behind.wakes()), (0, 1, 1));
    readers.iter_mut().for_each(|reader| drop(reader.ready()));
    assert_eq!(writer.ready(), STOPPED);
    drop(reader);
    drop(plain.ready());
    assert_eq!(behind.ready().map(drop), STOPPED, "however late it is polled");
    assert!(mutex.is_empty());
}

#[test]
fn dropping_what_was_stopped_costs_the_queue_nothing() {
    let mutex = Arc::new(Mutex::new());
    let guard = now(mutex.lock("key"));
    let unpolled = mutex.arc().ticket("key");
    let polled = waiting(mutex.run("key", uncalled));
    let mut plain = waiting(mutex.lock("key"));
    assert_eq!(mutex.stop("key"), 2);
    drop(unpolled);
    drop(polled);
    assert_eq!((mutex.state("key").waiting, plain.wakes()), (1, 0));
    plain.pending();
    drop(guard);
    drop(plain.ready());
    assert!(mutex.is_empty());
}

#[test]
fn callers_that_come_after_a_failure_are_served_at_once() {
    for (what, make, fail) in failures() {
        let mutex = Mutex::new();
        let mut failing = make(&mutex);
        failing.pending();
        let mut queue: Vec<_> = (0..3).map(|_| waiting(mutex.run("key", uncalled))).collect();
        fail(failing);
        assert_eq!(now(mutex.run("key", async || what)), Ok(what), "though nobody has polled those that were stopped");
        assert_eq!(queue.remove(1).ready(), STOPPED, "{what}");
        let retry = now(mutex.run("key", async || "a stopped one tries again"));
        assert_eq!(retry, Ok("a stopped one tries again"), "{what}");
        assert_eq!(queue.remove(1).ready(), STOPPED, "{what}");
        drop(queue);
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
        let mut lock_arc = waiting(mutex.arc().lock("key"));
        let mut share = waiting(mutex.shared().lock("key"));
        let mut many = waiting(mutex.lock_many(["key"]));
        let mut unless = waiting(mutex.lock("key").unless(pending::<()>()));
        let mut task = waiting(mutex.run("key", uncalled));
        assert_eq!(mutex.state("key").waiting, 6);
        fail(failing);
        assert_eq!(task.ready(), STOPPED, "{what}");
        assert_eq!(mutex.state("key").waiting, 4, "{what}: the first has the key now, and four still wait");
        drop(lock.ready());
        drop(lock_arc.ready());
        drop(share.ready());
        drop(many.ready());
        drop(unless.ready());
        drop(other);
        assert_eq!(other_task.ready(), Ok("other"), "{what}");
        assert!(mutex.is_empty());
    }
}

#[test]
fn a_job_that_was_stopped_stops_nobody() {
    let mutex = Mutex::new();
    let guard = now(mutex.lock("key"));
    let mut stopped = waiting(mutex.run_or_stop("key", async || Err::<(), _>("not called")));
    assert_eq!(mutex.stop("key"), 1);
    let mut later = waiting(mutex.run("key", async || "later"));
    assert_eq!(stopped.ready(), Err(Stopped));
    drop(stopped);
    drop(guard);
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
    let ticket = mutex.arc().ticket("key");
    let mut other = waiting(mutex.arc().lock("key"));
    drop(gone);
    assert_eq!(mutex.stop("other"), 0);
    assert_eq!(mutex.stop("key"), 2, "the task and the ticket: not the locks, nor the one that is gone");
    assert_eq!(mutex.stop("key"), 0, "they are stopped already");
    assert_eq!(mutex.state("key").waiting, 2, "the locks");
    let mut later = waiting(mutex.run("key", async || "later"));
    assert_eq!(mutex.stop("key"), 1, "the later one");
    assert_eq!(holder.ready(), Ok("goes on"));
    assert_eq!(task.ready(), STOPPED);
    assert_eq!(now(ticket.run(uncalled)), STOPPED);
    drop(lock.ready());
    drop(other.ready());
    assert_eq!(later.ready(), Err(Stopped));
    assert!(mutex.is_empty());
}

#[test]
fn one_that_has_been_granted_the_key_is_its_holder_polled_or_not() {
    let mutex = Mutex::new();
    let guard = now(mutex.lock("key"));
    let mut granted = waiting(mutex.run("key", async || "runs"));
    let mut behind = waiting(mutex.run("key", uncalled));
    drop(guard);
    assert_eq!(mutex.stop("key"), 1, "the one behind it");
    assert_eq!(behind.ready(), STOPPED);
    assert_eq!(granted.ready(), Ok("runs"));
    let ticket = mutex.ticket("key"); // free: it holds the key from the start
    assert_eq!(mutex.stop("key"), 0);
    assert_eq!(now(ticket.run(async || "runs")), Ok("runs"));
    // The same with shared locks: those that were let in together are not stopped, the others are.
    let mutex = KeyedMutex::<&str>::new();
    let guard = now(mutex.lock("key"));
    let mut readers: Vec<_> = (0..3).map(|_| waiting(mutex.at_most(2).ticket("key"))).collect();
    drop(guard);
    assert_eq!(mutex.stop_all(), 1);
    assert_eq!(readers.pop().unwrap().ready().map(drop), STOPPED);
    readers.iter_mut().for_each(|reader| drop(reader.ready().unwrap()));
    assert!(mutex.is_empty());
}

#[test]
fn with_threads_the_numbers_returned_are_those_that_were_stopped() {
    const ROUNDS: usize = if cfg!(miri) { 20 } else { 20_000 };
    let mutex = Arc::new(KeyedMutex::<u32>::new());
    let (said, seen) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for thread in 0..4 {
            let (mutex, said, seen) = (&mutex, &said, &seen);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(thread);
                for _ in 0..ROUNDS {
                    let key = random.u32(..3);
                    let stopped = match random.u8(..8) {
                        0 => {
                            said.fetch_add(mutex.stop(&key), Relaxed);
                            continue;
                        }
                        1 => {
                            said.fetch_add(mutex.stop_all(), Relaxed);
                            continue;
                        }
                        2 | 3 => block_on(mutex.shared().ticket(key)).is_err(),
                        4 => block_on(mutex.arc().ticket(key).run(async || yield_now().await)).is_err(),
                        _ => block_on(mutex.run(key, async || yield_now().await)).is_err(),
                    };
                    seen.fetch_add(usize::from(stopped), Relaxed);
                }
            });
        }
    });
    assert_eq!(said.into_inner(), seen.into_inner());
    assert!(mutex.is_empty());
}

#[test]
fn stopped_says_so_in_a_plain_sentence() {
    let error: &dyn std::error::Error = &Stopped;
    assert_eq!(error.to_string(), "stopped while waiting for the key");
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

    for task in queued.as_flattened_mut() {
        assert_eq!((task.wakes(), task.ready()), (1, STOPPED), "at once");
    }
    assert_eq!(ticket.ready().map(drop), STOPPED);
    assert_eq!(at_work.each_mut().map(Hand::ready), [Ok("done"); 3]);
    drop(plain.ready());
    assert_eq!(later.ready(), Ok("a newcomer runs"));
    assert!(mutex.is_empty());
    assert_eq!(mutex.stop_all(), 0, "nobody there");
}
