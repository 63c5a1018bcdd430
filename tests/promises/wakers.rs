//! No waker runs under any lock: it may ask, lock, queue, drop, poll, block, sleep or panic, whatever keys it does
//! it to, and whatever others do meanwhile.
//!
//! All keys have one hash, and so share whatever may be shared. A test that hangs fails: see `limited`.
#![cfg(not(any(async_mutex_lite_loom, target_family = "wasm")))]

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

#[cfg(feature = "idle")]
use crate::common::{Counter, hand};
use crate::common::{OneHash, limited, waiting};
use async_mutex_lite::{Guard, KeyedMutex, Stopped, Ticket};
use futures_lite::future::block_on;

type Keyed = Arc<KeyedMutex<u32, OneHash>>;
type Lock = Pin<Box<dyn Future<Output = Guard<Arc<KeyedMutex<u32, OneHash>>>> + Send>>;

/// A waker that does what it is told.
struct Does<F>(F);

impl<F: Fn() + Send + Sync> Wake for Does<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

fn does(work: impl Fn() + Send + Sync + 'static) -> Waker {
    Arc::new(Does(work)).into()
}

/// What a waker may do to the mutex whose unlock it is woken by.
fn asks(mutex: &Keyed) {
    for key in 0..3 {
        assert!(mutex.state(&key).waiting < 1_000);
        if mutex.is_locked(&key) {
            drop(mutex.try_lock(key));
        }
    }
    assert!(mutex.len() <= 3);
    mutex.stop(&1);
    #[cfg(feature = "idle")]
    let _ = hand(mutex.idle(&1)).poll();
}

fn poll<T>(future: &mut Pin<Box<dyn Future<Output = T> + Send>>, waker: &Waker) -> Poll<T> {
    future.as_mut().poll(&mut Context::from_waker(waker))
}

fn queued(mutex: &Keyed, waker: &Waker) -> Lock {
    let mut lock: Lock = Box::pin(mutex.arc().lock(1));
    assert!(poll(&mut lock, waker).is_pending());
    lock
}

#[test]
fn a_waker_may_ask_while_other_threads_join_and_leave_the_queue() {
    const ROUNDS: usize = if cfg!(feature = "std") { 20_000 } else { 2_000 };
    limited(|| {
        let mutex = Keyed::default();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for round in 0..ROUNDS {
                        let (woken, asked) = (Arc::new(AtomicBool::new(false)), mutex.clone());
                        let wakes = woken.clone();
                        let waker = does(move || {
                            asks(&asked);
                            wakes.store(true, SeqCst);
                        });
                        let mut lock: Lock = Box::pin(mutex.arc().lock(1));
                        if round % 4 > 0 {
                            while poll(&mut lock, &waker).is_pending() {
                                while !woken.load(SeqCst) {
                                    thread::yield_now();
                                }
                            }
                        } else {
                            drop(poll(&mut lock, &waker)); // and gives up
                        }
                    }
                });
            }
        });
        assert!(mutex.is_empty());
    });
}

#[test]
fn a_waker_may_take_and_drop_tickets_of_its_key() {
    limited(|| {
        let mutex = Keyed::default();
        let guard = mutex.try_lock(1);
        let tickets = Arc::new(Mutex::new(Vec::new()));
        let (taken, keyed) = (tickets.clone(), mutex.clone());
        let mut lock = queued(
            &mutex,
            &does(move || {
                drop(keyed.ticket(1));
                taken.lock().unwrap().push(keyed.arc().ticket(1));
            }),
        );
        let mut next = waiting(mutex.lock(1));
        drop(guard);
        assert_eq!((tickets.lock().unwrap().len(), mutex.state(&1).waiting), (1, 2));
        assert!(poll(&mut lock, Waker::noop()).is_ready());
        drop(next.ready());
        drop(tickets.lock().unwrap().pop().map(block_on));
        assert!(mutex.is_empty());
    });
}

#[test]
fn a_waker_may_drop_every_future_that_waits_for_its_key() {
    limited(|| {
        let mutex = Keyed::default();
        let guard = mutex.try_lock(1);
        let futures: Arc<Mutex<Vec<Lock>>> = Arc::default();
        let doomed = futures.clone();
        let waker = does(move || drop(taken(&doomed)));
        let all = (0..5).map(|_| queued(&mutex, &waker)).collect();
        *futures.lock().unwrap() = all;
        drop(guard); // its waker drops the one that has its turn, whose waker is the same: it finds nothing to do
        assert!(mutex.is_empty());
    });
}

fn taken<T: Default>(mutex: &Mutex<T>) -> T {
    std::mem::take(&mut mutex.lock().unwrap())
}

/// An executor that runs a task inside `wake`.
struct Inline {
    task: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    /// It was woken while it ran.
    again: AtomicBool,
}

impl Inline {
    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        let inline = Arc::new(Self { task: Mutex::new(Some(Box::pin(task))), again: AtomicBool::new(false) });
        inline.wake_by_ref();
    }
}

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.again.store(true, SeqCst);
        while self.again.load(SeqCst) {
            let Ok(mut task) = self.task.try_lock() else { return };
            self.again.store(false, SeqCst);
            let waker = Waker::from(self.clone());
            if task.as_mut().is_some_and(|task| poll(task, &waker).is_ready()) {
                *task = None;
            }
        }
    }
}

#[test]
fn an_executor_may_run_the_task_inside_wake() {
    limited(|| {
        let (mutex, done) = (Keyed::default(), Arc::new(AtomicUsize::new(0)));
        let guard = mutex.try_lock(1);
        for _ in 0..50 {
            let (mutex, done) = (mutex.clone(), done.clone());
            Inline::spawn(async move {
                for _ in 0..3 {
                    let _guard = mutex.lock(1).await;
                    assert!(mutex.try_lock(1).is_none());
                }
                assert!(mutex.run(1, async || ()).await.is_ok());
                #[cfg(feature = "idle")]
                mutex.idle(&1).await;
                done.fetch_add(1, SeqCst);
            });
        }
        assert_eq!(mutex.state(&1).waiting, 50);
        drop(guard);
        assert_eq!(done.load(SeqCst), 50);
        assert!(mutex.is_empty());
    });
}

/// Unlocks a key whose waiter has a waker that blocks until another thread has done `meanwhile`.
fn meanwhile(meanwhile: impl FnOnce(&Keyed) + Send + 'static) {
    limited(|| {
        let mutex = Keyed::default();
        let guard = mutex.try_lock(1);
        // A run queue with room for one, which is taken: `wake` blocks until there is room.
        let (schedule, run_queue) = sync_channel(1);
        schedule.send("another task").unwrap();
        let (begins, begun) = sync_channel(1);
        let mut lock = queued(
            &mutex,
            &does(move || {
                begins.send(()).unwrap();
                schedule.send("this task").unwrap();
            }),
        );
        let keyed = mutex.clone();
        let executor = thread::spawn(move || {
            begun.recv().unwrap();
            meanwhile(&keyed);
            [run_queue.recv().unwrap(), run_queue.recv().unwrap()]
        });
        drop(guard);
        assert_eq!(executor.join().unwrap(), ["another task", "this task"]);
        assert!(poll(&mut lock, Waker::noop()).is_ready());
        assert!(mutex.is_empty());
    });
}

#[test]
fn a_free_key_is_locked_while_the_waker_of_another_key_blocks() {
    meanwhile(|mutex| {
        let _joins = waiting(mutex.lock(1));
        drop(block_on(mutex.lock(2)));
        drop(mutex.try_lock(3).unwrap());
        #[cfg(feature = "std")]
        drop(mutex.lock(2).wait());
        assert_eq!(block_on(mutex.run(2, async || "ran")), Ok("ran"));
    });
}

#[test]
fn other_threads_join_the_queue_and_leave_it_while_a_waker_of_that_queue_blocks() {
    meanwhile(|mutex| {
        let (lock, ticket) = (waiting(mutex.lock(1)), mutex.ticket(1));
        assert_eq!((mutex.state(&1).waiting, mutex.len()), (2, 1));
        assert_eq!(mutex.stop(&1), 1);
        drop((lock, ticket));
        asks(mutex);
    });
}

#[test]
fn a_replaced_waker_may_own_a_task_that_waits_for_the_same_key() {
    struct Owns(#[allow(dead_code)] Mutex<Option<Lock>>);

    impl Wake for Owns {
        fn wake(self: Arc<Self>) {}
    }

    limited(|| {
        let mutex = Keyed::default();
        let guard = mutex.try_lock(1);
        for ticket in [false, true] {
            let inner = queued(&mutex, Waker::noop());
            let waker = Waker::from(Arc::new(Owns(Mutex::new(Some(inner)))));
            let mut outer: Lock = match ticket {
                false => queued(&mutex, &waker),
                true => {
                    let ticket = mutex.arc().ticket(1);
                    let mut outer: Lock = Box::pin(async { ticket.await.unwrap() });
                    assert!(poll(&mut outer, &waker).is_pending());
                    outer
                }
            };
            drop(waker);
            assert_eq!(mutex.state(&1).waiting, 2);
            assert!(poll(&mut outer, Waker::noop()).is_pending()); // drops the waker, which drops the task
            assert_eq!(mutex.state(&1).waiting, 1);
        }
        drop(guard);
        assert!(mutex.is_empty());
    });
}

#[test]
fn a_waker_may_wait_for_its_own_key_as_a_thread_does() {
    limited(|| {
        let mutex = Keyed::default();
        let guard = mutex.try_lock(1);
        let keyed = mutex.clone();
        let (begins, begun) = sync_channel(1);
        let mut lock = queued(
            &mutex,
            &does(move || {
                begins.send(()).unwrap();
                drop(block_on(keyed.lock(1))); // until the one that it wakes has had the key
            }),
        );
        let poller = thread::spawn(move || {
            begun.recv().unwrap();
            poll(&mut lock, Waker::noop()).is_ready()
        });
        drop(guard);
        assert!(poller.join().unwrap());
        assert!(mutex.is_empty());
    });
}

#[test]
fn a_panic_of_a_waker_is_passed_on_to_whoever_unlocks_and_stops_nobody() {
    limited(|| {
        let mutex = Keyed::default();
        let panics = does(|| resume_unwind(Box::new("in wake")));
        for first_is_dropped in [false, true] {
            let guard = mutex.try_lock(1);
            let mut first = queued(&mutex, &panics);
            let mut second = queued(&mutex, &panics);
            let mut third = waiting(mutex.lock(1));
            let panic = |work: Box<dyn FnOnce() + '_>| {
                let panic = catch_unwind(AssertUnwindSafe(work)).unwrap_err();
                assert_eq!(panic.downcast_ref(), Some(&"in wake"));
            };
            panic(Box::new(|| drop(guard)));
            assert_eq!(mutex.state(&1).waiting, 2, "the first has its turn");
            if first_is_dropped {
                panic(Box::new(|| drop(first)));
            } else {
                let Poll::Ready(guard) = poll(&mut first, Waker::noop()) else { panic!("not its turn") };
                panic(Box::new(|| drop(guard)));
            }
            third.pending();
            let Poll::Ready(guard) = poll(&mut second, Waker::noop()) else { panic!("not its turn") };
            drop(guard);
            assert_eq!(third.wakes(), 1);
            drop(third.ready());
            assert!(mutex.is_empty());
        }
    });
}

#[cfg(feature = "idle")]
#[test]
fn the_same_goes_for_the_wakers_of_those_who_watch_for_idleness() {
    limited(|| {
        let mutex = Keyed::default();
        let watch = |waker: &Waker| {
            let keyed = mutex.clone();
            let mut idle: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move { keyed.idle(&1).await });
            assert!(poll(&mut idle, waker).is_pending());
            idle
        };
        // Asks, locks the key again, and watches it.
        let guard = mutex.try_lock(1);
        let keyed = mutex.clone();
        let mut asking = watch(&does(move || {
            asks(&keyed);
            let guard = keyed.try_lock(1).expect("nobody has it");
            let _ = hand(keyed.idle(&1)).poll();
            drop(guard);
        }));
        // Drops others that watch.
        let futures: Arc<Mutex<Vec<_>>> = Arc::default();
        let doomed = futures.clone();
        let drops = does(move || drop(taken(&doomed)));
        let all = (0..5).map(|_| watch(&drops)).collect();
        *futures.lock().unwrap() = all;
        drop(guard);
        assert!(poll(&mut asking, Waker::noop()).is_ready());
        assert!(mutex.is_empty());
        // Panics, all of them: one panic is passed on, and all are woken.
        let guard = mutex.try_lock(1);
        let woken = Arc::new(AtomicUsize::new(0));
        let mut watchers: Vec<_> = (0..if cfg!(feature = "std") { 5 } else { 1 })
            .map(|_| {
                let woken = woken.clone();
                watch(&does(move || {
                    woken.fetch_add(1, SeqCst);
                    resume_unwind(Box::new("in wake"));
                }))
            })
            .collect();
        let last = Arc::new(Counter::default());
        watchers.push(watch(&last.clone().into()));
        assert!(catch_unwind(AssertUnwindSafe(|| drop(guard))).is_err());
        assert_eq!((woken.load(SeqCst), last.count()), (watchers.len() - 1, 1));
        assert!(watchers.iter_mut().all(|idle| poll(idle, Waker::noop()).is_ready()));
        assert!(mutex.is_empty());
    });
}

/// A ticket of key 1 that waits, with this waker.
fn ticket(mutex: &Keyed, waker: &Waker) -> Ticket<Arc<KeyedMutex<u32, OneHash>>> {
    let mut ticket = mutex.arc().ticket(1);
    assert!(Pin::new(&mut ticket).poll(&mut Context::from_waker(waker)).is_pending());
    ticket
}

fn shared_ticket(mutex: &Keyed, waker: &Waker) -> Ticket<Arc<KeyedMutex<u32, OneHash>>> {
    let mut ticket = mutex.arc().shared().ticket(1);
    assert!(Pin::new(&mut ticket).poll(&mut Context::from_waker(waker)).is_pending());
    ticket
}

fn now<F: Future + Unpin>(mut future: F) -> F::Output {
    let Poll::Ready(output) = Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("not ready")
    };
    output
}

/// Stops the waiters of key 1, of which this is the guard.
type Stop = fn(&Keyed, &mut Option<Guard<Arc<KeyedMutex<u32, OneHash>>>>);

const STOPS: [Stop; 3] = [
    |mutex, _| assert!(mutex.stop(&1) > 0),
    |mutex, _| assert!(mutex.stop_all() > 0),
    |_, guard| guard.take().expect("it holds the key").stop(),
];

#[test]
fn the_waker_of_one_that_is_stopped_may_do_what_it_likes() {
    limited(|| {
        for stop in STOPS {
            let mutex = Keyed::default();
            let mut guard = mutex.arc().try_lock(1);
            // Asks, queues, and stops again.
            let keyed = mutex.clone();
            let queued = Arc::new(Mutex::new(Vec::new()));
            let more = queued.clone();
            let first = ticket(
                &mutex,
                &does(move || {
                    asks(&keyed);
                    more.lock().unwrap().push(keyed.arc().ticket(1));
                    assert!(keyed.stop(&1) <= 1, "the ticket of just now, or none if it holds the key");
                }),
            );
            // Drops others that are stopped, among them one that is woken before it, and one after it.
            let others = Arc::new(Mutex::new(Vec::new()));
            others.lock().unwrap().push(ticket(&mutex, Waker::noop()));
            let doomed = others.clone();
            let second = ticket(&mutex, &does(move || drop(taken(&doomed))));
            let counter = Arc::new(AtomicUsize::new(0));
            let counts = counter.clone();
            others.lock().unwrap().push(ticket(&mutex, &does(move || _ = counts.fetch_add(1, SeqCst))));
            // Polls others.
            let polled = Arc::new(Mutex::new(Vec::<Ticket<Arc<KeyedMutex<_, _>>>>::new()));
            let polls = polled.clone();
            let third = shared_ticket(
                &mutex,
                &does(move || {
                    for ticket in taken(&polls) {
                        assert_eq!(now(ticket).map(drop), Err(Stopped));
                    }
                }),
            );
            polled.lock().unwrap().extend([ticket(&mutex, Waker::noop()), mutex.arc().ticket(1)]);
            let mut plain = waiting(mutex.lock(1));
            stop(&mutex, &mut guard);
            assert_eq!(counter.load(SeqCst), 0, "it was dropped before it could be woken");
            assert!(others.lock().unwrap().is_empty() && polled.lock().unwrap().is_empty());
            for stopped in [first, second] {
                assert_eq!(now(stopped).map(drop), Err(Stopped));
            }
            assert_eq!(now(third).map(drop), Err(Stopped));
            drop(guard);
            drop(plain.ready());
            taken(&queued);
            assert!(mutex.is_empty());
        }
    });
}

#[cfg(feature = "std")] // without, a second panic while the first unwinds aborts
#[test]
fn a_waker_that_panics_in_a_stop_keeps_nobody_from_being_stopped() {
    limited(|| {
        for stop in STOPS {
            let mutex = Keyed::default();
            let mut guard = mutex.arc().try_lock(1);
            let woken = Arc::new(AtomicUsize::new(0));
            let wakes = woken.clone();
            let panics = does(move || {
                wakes.fetch_add(1, SeqCst);
                resume_unwind(Box::new("in wake"));
            });
            let tickets: Vec<_> = (0..5).map(|_| ticket(&mutex, &panics)).collect();
            let mut plain = waiting(mutex.lock(1));
            let panic = catch_unwind(AssertUnwindSafe(|| stop(&mutex, &mut guard))).unwrap_err();
            assert_eq!((panic.downcast_ref(), woken.load(SeqCst)), (Some(&"in wake"), 5));
            tickets.into_iter().for_each(|ticket| assert_eq!(now(ticket).map(drop), Err(Stopped)));
            drop(guard);
            drop(plain.ready());
            assert!(mutex.is_empty());
        }
    });
}

#[test]
fn all_who_are_let_in_together_hold_the_key_before_the_first_of_them_is_woken() {
    limited(|| {
        for downgrade in [false, true] {
            let mutex = Keyed::default();
            let guard = mutex.arc().try_lock(1).unwrap();
            let readers = Arc::new(Mutex::new(Vec::<Ticket<Arc<KeyedMutex<_, _>>>>::new()));
            let (keyed, others) = (mutex.clone(), readers.clone());
            let first = shared_ticket(
                &mutex,
                &does(move || {
                    assert_eq!(keyed.state(&1).waiting, 0);
                    let mut holders = 0;
                    keyed.for_each_locked(|_, now| holders += now.holders);
                    for reader in taken(&others) {
                        drop(now(reader).expect("it was not stopped"));
                        holders -= 1;
                    }
                    assert_eq!(holders, 1 + usize::from(downgrade), "the first, and the one that has downgraded");
                }),
            );
            let others = Arc::new(AtomicUsize::new(0));
            let counts = others.clone();
            let counting = does(move || {
                counts.fetch_add(1, SeqCst);
            });
            readers.lock().unwrap().extend((0..3).map(|_| shared_ticket(&mutex, &counting)));
            if downgrade {
                drop(guard.downgrade());
            } else {
                drop(guard);
            }
            assert!(readers.lock().unwrap().is_empty());
            assert_eq!(others.load(SeqCst), 0, "they have gone");
            drop(now(first).unwrap());
            assert!(mutex.is_empty());
        }
    });
}

#[test]
fn very_many_readers_that_an_executor_runs_inside_wake_need_no_more_stack_than_one() {
    const READERS: usize = if cfg!(miri) { 100 } else { 100_000 };
    for downgrade in [false, true] {
        let work = move || {
            let (mutex, done) = (Keyed::default(), Arc::new(AtomicUsize::new(0)));
            let guard = mutex.arc().try_lock(1).unwrap();
            for _ in 0..READERS {
                let (mutex, done) = (mutex.clone(), done.clone());
                Inline::spawn(async move {
                    let _guard = mutex.shared().lock(1).await;
                    done.fetch_add(1, SeqCst);
                });
            }
            assert_eq!(mutex.state(&1).waiting, READERS);
            if downgrade {
                drop(guard.downgrade());
            } else {
                drop(guard);
            }
            assert_eq!(done.load(SeqCst), READERS);
            assert!(mutex.is_empty());
        };
        let small = thread::Builder::new().stack_size(2 * 1024 * 1024);
        limited(move || small.spawn(work).unwrap().join().unwrap());
    }
}
