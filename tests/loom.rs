//! Every order in which threads can meet, within the bounds given: run with `.ci/loom`.
//!
//! Loom runs the crate's own code, and, where threads block, event-listener's, with its own mutex and atomics in place
//! of the real ones, and tries the schedules one after another. It reports a deadlock if a thread sleeps
//! forever. Each model ends with an empty table; the crate checks its invariants after every step.
//!
//! Where a model has no bound, all schedules are tried. A bound is on preemptions: switches away from a
//! thread that could have gone on. Two or three find nearly all faults there are.
#![cfg(async_mutex_lite_loom)]

use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, Hasher};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Wake, Waker};

use async_mutex_lite::{KeyedMutex, LockMany, Stopped};
use loom::future::block_on;
use loom::sync::Arc as LoomArc;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;
use std::sync::Arc;

/// The same hash at each run: loom goes through the schedules by repeating them.
#[derive(Default)]
struct Fixed(u64);

impl BuildHasher for Fixed {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl Hasher for Fixed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(31).wrapping_add(u64::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Mutex = KeyedMutex<u8, Fixed>;
type Guard = async_mutex_lite::Guard<Arc<KeyedMutex<u8, Fixed>>>;

/// Counts entries without a lock of its own. Loads are relaxed, so an entry is lost if two are inside at
/// a time, and also if the key's hand-over does not make the one before visible.
#[derive(Clone)]
struct Cell(LoomArc<AtomicUsize>);

impl Default for Cell {
    fn default() -> Self {
        Self(LoomArc::new(AtomicUsize::new(0)))
    }
}

impl Cell {
    fn entries(&self) -> usize {
        self.0.load(Relaxed)
    }

    fn enter(&self) {
        let before = self.0.load(Relaxed);
        self.0.store(before + 1, Relaxed);
    }
}

/// One mutex, and a cell that its key 1 guards.
#[derive(Clone)]
struct World {
    mutex: Arc<Mutex>,
    cell: Cell,
}

impl World {
    fn held(&self) -> Guard {
        self.mutex.arc().try_lock(1).expect("nobody else is there yet")
    }

    /// Locks, waiting if necessary, and enters.
    fn visit(&self) {
        let guard = block_on(self.mutex.lock(1));
        self.cell.enter();
        drop(guard);
    }

    /// A future that waits.
    fn waiting(&self) -> Pin<Box<dyn Future<Output = Guard> + Send>> {
        let mut lock = Box::pin(self.mutex.arc().lock(1));
        assert!(poll(lock.as_mut()).is_pending());
        lock
    }

    fn spawn(&self, work: impl FnOnce(&Self) + 'static) -> thread::JoinHandle<()> {
        let world = self.clone();
        thread::spawn(move || work(&world))
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Tries `body` with every schedule, or with those of at most `bound` preemptions. It returns how many
/// times key 1 must have been entered in the end.
fn check(bound: Option<usize>, body: impl Fn(&World) -> usize + Sync + Send + 'static) {
    let schedules = explore(bound, None, move || {
        let world = World { mutex: Arc::default(), cell: Cell::default() };
        let entries = body(&world);
        assert!(world.mutex.is_empty(), "an entry is left behind");
        assert_eq!(world.cell.entries(), entries, "two were inside, or one was left out");
        assert_eq!(Arc::strong_count(&world.mutex), 1);
    });
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!("{schedules} schedules: {name}");
    assert!(schedules > 1, "nothing was tried: no two threads met");
}

/// Returns how many schedules were tried. `LOOM_MAX_PREEMPTIONS` overrides `bound`, to look deeper.
fn explore(bound: Option<usize>, most: Option<usize>, body: impl Fn() + Sync + Send + 'static) -> usize {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(bound);
    builder.max_branches = 20_000;
    builder.max_permutations = most;
    // Loom looks at the limit at each checkpoint only.
    builder.checkpoint_interval = most.unwrap_or(builder.checkpoint_interval);
    let schedules = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = schedules.clone();
    builder.check(move || {
        count.fetch_add(1, Relaxed);
        body();
    });
    schedules.load(Relaxed)
}

fn join(threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().expect("a thread panicked");
    }
}

#[test]
fn two_lockers_take_turns() {
    check(None, |world| {
        let other = world.spawn(World::visit);
        world.visit();
        join([other]);
        2
    });
}

#[test]
fn three_lockers_take_turns() {
    check(Some(5), |world| {
        let others = [world.spawn(World::visit), world.spawn(World::visit)];
        world.visit();
        join(others);
        3
    });
}

#[test]
fn two_threads_that_block_take_turns() {
    check(None, |world| {
        let visit = |world: &World| {
            let guard = world.mutex.lock(1).wait();
            world.cell.enter();
            drop(guard);
        };
        let other = world.spawn(visit);
        visit(world);
        join([other]);
        2
    });
}

#[test]
fn try_lock_never_gets_a_key_that_is_held() {
    check(None, |world| {
        let tries = world.cell.clone();
        let other = world.spawn(World::visit);
        let mut entries = 1;
        if let Some(guard) = world.mutex.try_lock(1) {
            tries.enter();
            drop(guard);
            entries += 1;
        }
        join([other]);
        entries
    });
}

#[test]
fn try_lock_does_not_pass_a_waiter() {
    check(None, |world| {
        let guard = world.held();
        let waiting = world.waiting();
        let other = world.spawn(move |_| drop(guard));
        assert!(world.mutex.try_lock(1).is_none(), "the key was promised to the waiter");
        let guard = block_on(waiting);
        world.cell.enter();
        drop(guard);
        join([other]);
        1
    });
}

#[test]
fn a_waiter_cancelled_against_an_unlock_leaves_nothing() {
    check(None, |world| {
        let guard = world.held();
        let waiting = world.waiting();
        let other = world.spawn(move |_| drop(waiting));
        drop(guard);
        join([other]);
        0
    });
}

#[test]
fn a_newcomer_gets_the_key_though_a_waiter_is_cancelled_against_the_unlock() {
    check(None, |world| {
        let guard = world.held();
        let waiting = world.waiting();
        let others = [world.spawn(move |_| drop(waiting)), world.spawn(World::visit)];
        drop(guard);
        join(others);
        1
    });
}

#[test]
fn the_next_waiter_gets_the_key_though_the_first_is_cancelled_against_the_unlock() {
    check(None, |world| {
        let guard = world.held();
        let (first, second) = (world.waiting(), world.waiting());
        let others = [
            world.spawn(move |_| drop(first)),
            world.spawn(move |world| {
                let guard = block_on(second);
                world.cell.enter();
                drop(guard);
            }),
        ];
        drop(guard);
        join(others);
        1
    });
}

#[test]
fn a_granted_waiter_dropped_unpolled_passes_the_key_to_a_newcomer() {
    check(None, |world| {
        let guard = world.held();
        let waiting = world.waiting();
        drop(guard);
        let other = world.spawn(move |_| drop(waiting));
        world.visit();
        join([other]);
        1
    });
}

#[test]
fn a_granted_waiter_dropped_unpolled_passes_the_key_to_one_of_two() {
    check(Some(4), |world| {
        let guard = world.held();
        let (granted, next) = (world.waiting(), world.waiting());
        drop(guard);
        let others = [world.spawn(move |_| drop(granted)), world.spawn(World::visit)];
        let guard = block_on(next);
        world.cell.enter();
        drop(guard);
        join(others);
        2
    });
}

#[test]
fn a_waiter_that_moves_to_another_waker_is_woken_there() {
    check(None, |world| {
        let guard = world.held();
        let waiting = world.waiting();
        let other = world.spawn(move |world| {
            let guard = block_on(waiting);
            world.cell.enter();
            drop(guard);
        });
        drop(guard);
        join([other]);
        1
    });
}

#[test]
fn the_last_unlock_and_a_newcomer_never_make_two_entries() {
    check(None, |world| {
        let guard = world.held();
        let other = world.spawn(move |_| drop(guard));
        let guard = block_on(world.mutex.lock(1));
        assert_eq!(world.mutex.len(), 1);
        assert_eq!(world.mutex.state(&1).waiting, 0);
        world.cell.enter();
        drop(guard);
        join([other]);
        1
    });
}

#[test]
fn a_key_that_is_locked_again_while_a_waiter_dies_is_as_good_as_new() {
    check(None, |world| {
        let guard = world.held();
        let dying = world.waiting();
        let others = [
            world.spawn(move |_| drop(dying)),
            world.spawn(|world| {
                if let Some(guard) = world.mutex.try_lock(1) {
                    let mut next = pin!(world.mutex.lock(1));
                    assert!(poll(next.as_mut()).is_pending(), "two have the key");
                    thread::yield_now();
                    assert!(poll(next.as_mut()).is_pending(), "two have the key");
                    drop(guard);
                    drop(block_on(next));
                }
            }),
        ];
        drop(guard);
        join(others);
        0
    });
}

/// A waker that asks, as for a metric, while it wakes.
struct Asks {
    waker: Waker,
    mutex: Arc<Mutex>,
}

impl Wake for Asks {
    fn wake(self: Arc<Self>) {
        if self.mutex.is_locked(&1) {
            assert!(self.mutex.state(&1).waiting <= 2 && self.mutex.len() <= 2);
        }
        drop(self.mutex.try_lock(2));
        self.waker.wake_by_ref();
    }
}

#[test]
fn a_waker_may_ask_while_another_thread_joins_the_queue() {
    check(Some(4), |world| {
        let guard = world.held();
        let inner = world.clone();
        // The block_on of loom has a waker of its own: this one wraps it.
        let asking = async move {
            let mut lock = pin!(inner.mutex.lock(1));
            poll_fn(|context| {
                let asks = Arc::new(Asks { waker: context.waker().clone(), mutex: inner.mutex.clone() });
                lock.as_mut().poll(&mut Context::from_waker(&asks.into())).map(drop)
            })
            .await;
        };
        let others = [world.spawn(move |_| block_on(asking)), world.spawn(World::visit)];
        drop(guard);
        join(others);
        1
    });
}

#[test]
fn whoever_watches_a_key_is_woken_by_its_last_unlock() {
    check(Some(4), |world| {
        let guard = world.held();
        let waiting = world.waiting();
        let others = [world.spawn(move |_| drop(guard)), world.spawn(move |_| drop(waiting))];
        block_on(world.mutex.idle(&1));
        join(others);
        0
    });
}

#[test]
fn two_who_watch_are_woken_by_one_unlock_and_the_one_who_leaves_takes_nobodys_turn() {
    check(Some(4), |world| {
        let guard = world.held();
        let others = [
            world.spawn(|world| block_on(world.mutex.idle(&1))),
            world.spawn(|world| {
                let mut idle = pin!(world.mutex.idle(&1));
                let _ = poll(idle.as_mut());
            }),
        ];
        drop(guard);
        join(others);
        0
    });
}

#[test]
fn all_idle_is_not_fooled_by_one_who_moves_from_key_to_key() {
    check(None, |world| {
        let (guard, at_work) = (world.held(), LoomArc::new(AtomicUsize::new(1)));
        let works = at_work.clone();
        let other = world.spawn(move |world| {
            let next = world.mutex.try_lock(2).expect("nobody else locks 2");
            drop(guard);
            works.store(0, Relaxed);
            drop(next);
        });
        block_on(world.mutex.all_idle());
        assert_eq!(at_work.load(Relaxed), 0, "it was at work all the time");
        join([other]);
        0
    });
}

/// There is one shard under loom: `all_idle` looks at it once, and does not wait for another look.
#[test]
fn all_idle_looks_once_if_a_key_is_locked_just_then() {
    check(None, |world| {
        drop(world.held()); // makes the shard
        let kept = Arc::new(std::sync::Mutex::new(None));
        let keeps = kept.clone();
        let other = world.spawn(move |world| *keeps.lock().unwrap() = Some(world.held()));
        let calls = Arc::new(Calls::default());
        let mut idle = Box::pin(world.mutex.all_idle());
        let _ = idle.as_mut().poll(&mut Context::from_waker(&calls.clone().into()));
        join([other]);
        assert_eq!(calls.0.load(Relaxed), 0, "it wants to look again");
        drop(idle);
        drop(kept.lock().unwrap().take());
        0
    });
}

/// One that has a share looks at the cell twice: nobody may have entered it in between.
fn look(world: &World) {
    let before = world.cell.entries();
    thread::yield_now();
    assert_eq!(world.cell.entries(), before, "a writer entered while the key was shared");
}

#[test]
fn two_who_share_and_one_who_does_not() {
    check(Some(4), |world| {
        let share = |world: &World| {
            let share = block_on(world.mutex.shared().lock(1));
            look(world);
            drop(share);
        };
        let others = [world.spawn(share), world.spawn(World::visit)];
        share(world);
        join(others);
        1
    });
}

#[test]
fn a_writer_that_leaves_lets_those_behind_it_in() {
    check(Some(3), |world| {
        let share = world.mutex.shared().try_lock(1).expect("nobody else is there yet");
        let writer = world.waiting();
        let mut reader = pin!(world.mutex.arc().shared().lock(1));
        assert!(poll(reader.as_mut()).is_pending());
        let inner = world.clone();
        let another = async move { drop(inner.mutex.arc().shared().lock(1).await) };
        let others = [world.spawn(move |_| drop(writer)), world.spawn(move |_| block_on(another))];
        // The first share is kept until this one has come.
        drop(block_on(reader));
        drop(share);
        join(others);
        0
    });
}

#[test]
fn a_batch_is_let_in_against_a_newcomer_and_one_who_gives_up() {
    check(Some(4), |world| {
        let guard = world.held();
        let mut first = Box::pin(world.mutex.arc().shared().lock(1));
        let mut second = Box::pin(world.mutex.arc().shared().lock(1));
        assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
        let others = [world.spawn(move |_| drop(first)), world.spawn(World::visit)];
        drop(guard);
        let share = block_on(second);
        look(world);
        drop(share);
        join(others);
        1
    });
}

#[test]
fn a_downgrade_lets_in_those_who_share_and_nobody_else() {
    check(Some(4), |world| {
        let guard = world.held();
        let reader = world.spawn(|world| {
            let share = block_on(world.mutex.shared().lock(1));
            look(world);
            drop(share);
        });
        let writer = world.spawn(World::visit);
        world.cell.enter();
        let share = guard.downgrade();
        look(world);
        drop(share);
        join([reader, writer]);
        2
    });
}

#[test]
fn a_limit_of_two_is_kept_by_three() {
    check(Some(3), |world| {
        let mutex: Arc<Mutex> = Arc::new(KeyedMutex::with_hasher(Fixed::default()));
        let inside = LoomArc::new(AtomicUsize::new(0));
        let visit = move |mutex: &Mutex, inside: &AtomicUsize| {
            let share = block_on(mutex.at_most(2).lock(1));
            assert!(inside.fetch_add(1, Relaxed) < 2, "three are inside");
            inside.fetch_sub(1, Relaxed);
            drop(share);
        };
        let others = [(); 2].map(|()| {
            let (mutex, inside) = (mutex.clone(), inside.clone());
            world.spawn(move |_| visit(&mutex, &inside))
        });
        visit(&mutex, &inside);
        join(others);
        assert!(mutex.is_empty());
        0
    });
}

#[test]
fn two_keys_of_one_shard_do_not_meet() {
    check(None, |world| {
        let other = world.spawn(|world| {
            let guard = world.mutex.try_lock(2).expect("nobody else locks 2");
            drop(guard);
        });
        let guard = world.mutex.try_lock(1).expect("nobody else locks 1");
        world.cell.enter();
        drop(guard);
        join([other]);
        1
    });
}

#[test]
fn two_keys_of_one_shard_with_a_waiter_each() {
    check(None, |world| {
        let twos = Cell::default();
        let visit_two = |world: &World, twos: &Cell| {
            let guard = block_on(world.mutex.lock(2));
            twos.enter();
            drop(guard);
        };
        let cell = twos.clone();
        let other = world.spawn(move |world| {
            world.visit();
            visit_two(world, &cell);
        });
        visit_two(world, &twos);
        world.visit();
        join([other]);
        assert_eq!(twos.0.load(Relaxed), 2);
        2
    });
}

#[test]
fn a_stop_reaches_those_that_wait_and_no_newcomer() {
    check(None, |world| {
        let guard = world.held();
        let queued = || {
            let world = world.clone();
            let mut run = Box::pin(async move { world.mutex.run(1, async || ()).await });
            assert!(poll(run.as_mut()).is_pending());
            run
        };
        let (first, second) = (queued(), queued());
        let other = world.spawn(move |_| {
            assert_eq!(block_on(first), Err(Stopped));
            assert_eq!(block_on(second), Err(Stopped));
        });
        guard.stop();
        let newcomer = world.mutex.run(1, async || world.cell.enter());
        assert_eq!(block_on(newcomer), Ok(()));
        join([other]);
        1
    });
}

#[test]
fn a_stop_against_the_drop_of_one_that_it_stops_leaves_nothing() {
    check(None, |world| {
        let guard = world.held();
        let (polled, unpolled) = (world.mutex.arc().ticket(1), world.mutex.arc().shared().ticket(1));
        let mut polled = Box::pin(polled);
        assert!(poll(polled.as_mut()).is_pending());
        let others = [world.spawn(move |_| drop(polled)), world.spawn(move |_| drop(unpolled))];
        assert!(world.mutex.stop(&1) <= 2);
        drop(guard);
        join(others);
        0
    });
}

#[test]
fn a_stop_against_a_hand_over_stops_the_next_one_or_does_not() {
    check(None, |world| {
        let guard = world.held();
        let ticket = world.mutex.arc().ticket(1);
        let other = world.spawn(move |_| drop(guard));
        let stopped = world.mutex.stop_all();
        let ran = block_on(ticket.run(async || world.cell.enter())).is_ok();
        assert_eq!(stopped + usize::from(ran), 1);
        join([other]);
        usize::from(ran)
    });
}

#[test]
fn two_stops_at_once_count_each_waiter_once() {
    check(None, |world| {
        let guard = world.held();
        let tickets = [(); 3].map(|()| world.mutex.arc().ticket(1));
        let mutex = world.mutex.clone();
        let other = thread::spawn(move || mutex.stop(&1));
        let mine = world.mutex.stop_all();
        let theirs = other.join().expect("a thread panicked");
        assert_eq!(mine + theirs, 3);
        for ticket in tickets {
            assert_eq!(block_on(ticket.run(async || ())), Err(Stopped));
        }
        drop(guard);
        0
    });
}

/// Counts calls; no schedule depends on it.
#[derive(Default)]
struct Calls(std::sync::atomic::AtomicUsize);

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn two_stop_alls_at_once_wake_all_that_they_have_stopped() {
    check(None, |world| {
        let calls = Arc::new(Calls::default());
        let queued = || {
            let mut ticket = Box::pin(world.mutex.arc().ticket(1));
            let waits = ticket.as_mut().poll(&mut Context::from_waker(&calls.clone().into())).is_pending();
            (ticket, waits)
        };
        let guard = world.held();
        let first = queued();
        let other = world.spawn(move |world| assert!(world.mutex.stop_all() <= 2));
        let second = queued();
        assert!(world.mutex.stop_all() <= 2);
        join([other]);
        assert_eq!(calls.0.load(Relaxed), [&first, &second].into_iter().filter(|(_, waits)| *waits).count());
        drop((first, second, guard));
        0
    });
}

#[test]
fn a_stopped_writer_lets_the_readers_behind_it_in() {
    check(Some(4), |world| {
        let share = world.mutex.shared().try_lock(1).expect("nobody else is there yet");
        let writer = world.mutex.arc().ticket(1);
        let inner = world.clone();
        let reader = async move { drop(inner.mutex.arc().shared().lock(1).await) };
        let others = [
            world.spawn(move |_| block_on(reader)),
            world.spawn(move |_| assert_eq!(block_on(writer.run(async || ())), Err(Stopped))),
        ];
        assert_eq!(world.mutex.stop(&1), 1);
        // The first share is kept until the reader has come.
        join(others);
        drop(share);
        0
    });
}

#[test]
fn a_task_that_fails_stops_those_that_wait_and_no_retry() {
    check(None, |world| {
        let fail = |world: &World| {
            let outcome = block_on(world.mutex.run_or_stop(1, async || {
                world.cell.enter();
                Err::<(), _>(())
            }));
            if let Ok(error) = outcome {
                assert_eq!(error, Err(()));
                let retry = world.mutex.run(1, async || world.cell.enter());
                assert!(block_on(retry).is_ok() || world.cell.0.load(Relaxed) > 1, "a retry was stopped");
            } else {
                world.visit();
                world.visit();
            }
        };
        let other = world.spawn(move |world| {
            // Stopped or not, it enters key 1 once.
            if block_on(world.mutex.run(1, async || world.cell.enter())).is_err() {
                world.visit();
            }
        });
        fail(world);
        join([other]);
        3
    });
}

#[test]
fn stop_from_outside_says_truly_how_many_it_stopped() {
    check(None, |world| {
        let guard = world.held();
        let inner = world.clone();
        let mut run = Box::pin(async move { inner.mutex.run(1, async || inner.cell.enter()).await });
        assert!(poll(run.as_mut()).is_pending());
        let ran = LoomArc::new(AtomicUsize::new(0));
        let note = ran.clone();
        let others = [
            world.spawn(move |_| drop(guard)),
            world.spawn(move |_| note.store(usize::from(block_on(run).is_ok()), Relaxed)),
        ];
        let stopped = world.mutex.stop(&1);
        join(others);
        let ran = ran.load(Relaxed);
        assert_eq!(stopped + ran, 1);
        ran
    });
}

#[test]
fn a_ticket_that_has_the_key_passes_it_on_when_dropped() {
    check(None, |world| {
        let ticket = world.mutex.arc().ticket(1);
        let other = world.spawn(move |_| drop(ticket));
        world.visit();
        join([other]);
        1
    });
}

#[test]
fn a_ticket_that_waits_may_be_dropped_against_an_unlock_and_a_newcomer() {
    check(None, |world| {
        let guard = world.held();
        let ticket = world.mutex.arc().ticket(1);
        let others = [world.spawn(move |_| drop(ticket)), world.spawn(World::visit)];
        drop(guard);
        join(others);
        1
    });
}

#[test]
fn a_ticket_that_was_polled_may_be_dropped_against_an_unlock_and_a_newcomer() {
    check(None, |world| {
        let guard = world.held();
        let mut ticket = world.mutex.arc().ticket(1);
        assert!(poll(Pin::new(&mut ticket)).is_pending());
        let others = [world.spawn(move |_| drop(ticket)), world.spawn(World::visit)];
        drop(guard);
        join(others);
        1
    });
}

#[test]
fn a_ticket_that_has_its_turn_passes_it_on_when_dropped() {
    check(Some(4), |world| {
        let guard = world.held();
        let (ticket, next) = (world.mutex.arc().ticket(1), world.mutex.arc().ticket(1));
        drop(guard);
        let others = [world.spawn(move |_| drop(ticket)), world.spawn(World::visit)];
        let guard = block_on(next);
        world.cell.enter();
        drop(guard);
        join(others);
        2
    });
}

#[test]
fn admission_sees_the_key_before_an_unlock_or_after_it() {
    check(None, |world| {
        let guard = world.held();
        let other = world.spawn(move |_| drop(guard));
        let mut holders = None;
        let ticket = world.mutex.ticket_if(1, |now| {
            holders = Some(now.holders);
            now.holders == 0
        });
        let entries = match ticket {
            Some(mut ticket) => {
                assert_eq!(holders, Some(0));
                let guard = match poll(Pin::new(&mut ticket)) {
                    Poll::Ready(guard) => guard.expect("nobody stops it"),
                    Poll::Pending => panic!("admitted because the key is free, but it waits"),
                };
                world.cell.enter();
                drop(guard);
                1
            }
            None => {
                assert_eq!(holders, Some(1));
                0
            }
        };
        join([other]);
        entries
    });
}

#[test]
fn admission_lets_in_no_more_than_it_says() {
    check(None, |world| {
        let guard = world.held();
        let admitted = Cell::default();
        let (mutex, count) = (world.mutex.clone(), admitted.clone());
        let other = thread::spawn(move || {
            let ticket = mutex.arc().ticket_if(1, |now| now.waiting < 1);
            count.0.fetch_add(usize::from(ticket.is_some()), Relaxed);
            ticket
        });
        let ticket = world.mutex.arc().ticket_if(1, |now| now.waiting < 1);
        admitted.0.fetch_add(usize::from(ticket.is_some()), Relaxed);
        let theirs = other.join().expect("a thread panicked");
        assert_eq!(admitted.0.load(Relaxed), 1);
        drop((guard, ticket, theirs));
        0
    });
}

/// The number of those that wait is the place in the queue: the key must come in that order.
#[test]
fn the_order_of_arrival_is_the_order_of_service() {
    check(None, |world| {
        let guard = world.held();
        let take = |mutex: &Arc<Mutex>| {
            let mut place = 0;
            let ticket = mutex.arc().ticket_if(1, |now| {
                place = now.waiting;
                true
            });
            (place, ticket.expect("every ticket is admitted"))
        };
        let mutex = world.mutex.clone();
        let other = thread::spawn(move || take(&mutex));
        let mine = take(&world.mutex);
        let theirs = other.join().expect("a thread panicked");
        let (mut first, second) = if mine.0 < theirs.0 { (mine.1, theirs.1) } else { (theirs.1, mine.1) };
        drop(guard);
        match poll(Pin::new(&mut first)) {
            Poll::Ready(guard) => drop(guard),
            Poll::Pending => panic!("the second was served before the first"),
        }
        drop(block_on(second));
        0
    });
}

/// What a thread of the random model does with one of two keys.
#[derive(Clone, Copy, Debug)]
enum Step {
    Lock,
    TryLock,
    Many,
    Run,
    Fail,
    Ticket,
    TicketIfFewer,
    SharedTicket,
    Stop,
    StopAll,
    /// Of a guard.
    StopAndUnlock,
    /// Polled once or twice, with a switch in between, then dropped.
    GiveUp {
        twice: bool,
    },
    DropTicket,
    Idle,
    AllIdle,
    Share,
    TryShare,
    Downgrade,
    /// The first key shared, the second exclusively.
    ManyMixed,
    FailShared,
    /// Of a guard that shares the key.
    StopAndUnshare,
    /// Polled once, then dropped.
    GiveUpShare,
    /// Lets the others go first.
    Yield,
}

const STEPS: [Step; 26] = [
    Step::Lock,
    Step::Lock,
    Step::TryLock,
    Step::Many,
    Step::Run,
    Step::Fail,
    Step::Ticket,
    Step::TicketIfFewer,
    Step::SharedTicket,
    Step::Stop,
    Step::StopAll,
    Step::StopAndUnlock,
    Step::GiveUp { twice: false },
    Step::GiveUp { twice: true },
    Step::DropTicket,
    Step::Idle,
    Step::AllIdle,
    Step::Share,
    Step::Share,
    Step::TryShare,
    Step::Downgrade,
    Step::ManyMixed,
    Step::FailShared,
    Step::StopAndUnshare,
    Step::GiveUpShare,
    Step::Yield,
];

/// Two keys, a cell for each, and how often they must have been entered.
#[derive(Clone)]
struct Pair {
    /// The highest limit in the program.
    widest: u32,
    mutex: Arc<Mutex>,
    cells: [Cell; 2],
    entries: [Arc<std::sync::atomic::AtomicUsize>; 2],
    /// How many share each key.
    sharing: [Arc<std::sync::atomic::AtomicUsize>; 2],
    /// How many were stopped, as the stops said and as those that were stopped saw it.
    said: Arc<std::sync::atomic::AtomicUsize>,
    seen: Arc<std::sync::atomic::AtomicUsize>,
}

impl Pair {
    fn enter(&self, key: u8) {
        assert_eq!(self.sharing[usize::from(key)].load(Relaxed), 0, "others share it");
        self.cells[usize::from(key)].enter();
        self.entries[usize::from(key)].fetch_add(1, Relaxed);
    }

    /// What a job or a ticket has returned.
    fn see(&self, outcome: Result<(), Stopped>) {
        self.seen.fetch_add(usize::from(outcome.is_err()), Relaxed);
    }

    /// Twice: nobody may have entered in between. Those who look at once are as many as the widest limit allows. (One that is
    /// granted the key later, with a wider limit of its own, may look before this one.)
    fn look(&self, key: u8) {
        let (cell, sharing) = (&self.cells[usize::from(key)], &self.sharing[usize::from(key)]);
        assert!(sharing.fetch_add(1, Relaxed) < self.widest as usize, "more share it than anybody allows");
        let before = cell.entries();
        thread::yield_now();
        assert_eq!(cell.entries(), before, "a writer entered while the key was shared");
        sharing.fetch_sub(1, Relaxed);
    }

    /// What shares a key does so with this limit.
    fn step(&self, step: Step, key: u8, max: u32) {
        match step {
            Step::Lock => {
                let _guard = block_on(self.mutex.lock(key));
                self.enter(key);
            }
            Step::TryLock => {
                if let Some(_guard) = self.mutex.try_lock(key) {
                    self.enter(key);
                }
            }
            Step::Many => {
                let _guards = block_on(self.mutex.lock_many([1, 0]));
                self.enter(0);
                self.enter(1);
            }
            Step::Run => self.see(block_on(self.mutex.run(key, async || self.enter(key)))),
            Step::Fail => {
                let failed = block_on(self.mutex.run_or_stop(key, async || {
                    self.enter(key);
                    Err::<(), _>(())
                }));
                self.see(failed.map(|_| ()));
            }
            Step::Ticket => {
                let ticket = self.mutex.ticket(key);
                thread::yield_now();
                self.see(block_on(ticket).map(|_guard| self.enter(key)));
            }
            Step::TicketIfFewer => {
                if let Some(ticket) = self.mutex.ticket_if(key, |now| now.waiting < 1) {
                    self.see(block_on(ticket.run(async || self.enter(key))));
                }
            }
            Step::SharedTicket => self.see(block_on(self.mutex.at_most(max).ticket(key).run(async || self.look(key)))),
            Step::Stop => _ = self.said.fetch_add(self.mutex.stop(&key), Relaxed),
            Step::StopAll => _ = self.said.fetch_add(self.mutex.stop_all(), Relaxed),
            Step::StopAndUnlock => block_on(self.mutex.lock(key)).stop(),
            Step::GiveUp { twice } => {
                let mut lock = pin!(self.mutex.lock(key));
                let mut polled = poll(lock.as_mut());
                if twice && polled.is_pending() {
                    thread::yield_now();
                    polled = poll(lock.as_mut());
                }
                if let Poll::Ready(_guard) = polled {
                    self.enter(key);
                }
            }
            Step::Share => {
                let _share = block_on(self.mutex.at_most(max).lock(key));
                self.look(key);
            }
            Step::TryShare => {
                if let Some(_share) = self.mutex.at_most(max).try_lock(key) {
                    self.look(key);
                }
            }
            Step::Downgrade => {
                let guard = block_on(self.mutex.lock(key));
                self.enter(key);
                let _share = guard.downgrade();
                self.look(key);
            }
            Step::ManyMixed => {
                let _guards = block_on(LockMany::of([self.mutex.lock(1), self.mutex.at_most(max).lock(0)]));
                self.enter(1);
                self.look(0);
            }
            Step::FailShared => {
                let failed = block_on(self.mutex.at_most(max).run_or_stop(key, async || {
                    self.look(key);
                    Err::<(), _>(())
                }));
                self.see(failed.map(|_| ()));
            }
            Step::StopAndUnshare => {
                let share = block_on(self.mutex.at_most(max).lock(key)).downgrade(); // which changes nothing
                self.look(key);
                share.stop();
            }
            Step::GiveUpShare => {
                let mut share = pin!(self.mutex.at_most(max).lock(key));
                if let Poll::Ready(_share) = poll(share.as_mut()) {
                    self.look(key);
                }
            }
            Step::Idle => block_on(self.mutex.idle(&key)),
            Step::AllIdle => block_on(self.mutex.all_idle()),
            Step::DropTicket => drop(self.mutex.ticket(key)),
            Step::Yield => thread::yield_now(),
        }
    }
}

/// Loom goes through schedules one by one from the first, which says little about a model too large to
/// finish. So: many random programs, and the first schedules of each. `LOOM_PROGRAMS` and `LOOM_SEED` ask
/// for more, or others.
#[test]
fn random_programs_of_four_threads_leave_nobody_out_and_nothing_behind() {
    const THREADS: usize = 4;
    const SCHEDULES: usize = 60;
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let (programs, seed) = (number("LOOM_PROGRAMS", 1_000), number("LOOM_SEED", 1));
    let mut schedules = 0;
    for seed in seed..seed + programs {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut steps = || -> Vec<_> {
            let many = random.usize(1..=3);
            let mut step = || (STEPS[random.usize(..STEPS.len())], random.u8(..2), [1, 2, u32::MAX][random.usize(..3)]);
            (0..many).map(|_| step()).collect()
        };
        let program: [_; THREADS] = std::array::from_fn(|_| steps());
        // These do not say how many they stop, or do not look whether they were stopped.
        let not_counted = |step: &Step| {
            let stops = matches!(step, Step::Fail | Step::FailShared | Step::StopAndUnlock | Step::StopAndUnshare);
            stops || matches!(step, Step::DropTicket)
        };
        let uncounted = program.iter().flatten().any(|(step, ..)| not_counted(step));
        let widest = program.iter().flatten().map(|(_, _, max)| *max).max().expect("there are steps");
        // Only a failure is of interest, and then the program is.
        let report = Report(format!("LOOM_SEED={seed} LOOM_PROGRAMS=1: {program:?}"));
        schedules += explore(Some(3), Some(SCHEDULES), move || {
            let mutex = Arc::new(KeyedMutex::with_hasher(Fixed::default()));
            let cells = [(); 2].map(|()| Cell::default());
            let (entries, sharing, said, seen) = Default::default();
            let pair = Pair { widest, mutex, cells, entries, sharing, said, seen };
            let [mine, others @ ..] = &program;
            let threads = others.clone().map(|steps| {
                let pair = pair.clone();
                thread::spawn(move || steps.into_iter().for_each(|(step, key, max)| pair.step(step, key, max)))
            });
            mine.iter().for_each(|(step, key, max)| pair.step(*step, *key, *max));
            join(threads);
            assert!(pair.mutex.is_empty(), "an entry is left behind");
            let entries = pair.entries.each_ref().map(|entries| entries.load(Relaxed));
            assert_eq!(pair.cells.each_ref().map(Cell::entries), entries, "two were inside");
            let (said, seen) = (pair.said.load(Relaxed), pair.seen.load(Relaxed));
            assert!(uncounted || said == seen, "{said} were stopped, it is said, but {seen} have seen it");
        });
        drop(report);
    }
    println!("{schedules} schedules of {programs} programs");
}

/// Says which program failed.
struct Report(String);

impl Drop for Report {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}
