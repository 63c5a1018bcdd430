//! Shared holders hold a key together, up to the limit; both kinds of waiters wait in one FIFO queue.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Wake, Waker};
use std::thread;

use crate::common::{Hand, OneHash, hand, limited, now, waiting};
use async_mutex_lite::{KeyedMutex, LockMany, Stopped};
use futures_lite::future::{block_on, or, yield_now};

type Keyed = Arc<KeyedMutex<&'static str>>;

/// How often each has been woken.
fn wakes<T: std::fmt::Debug>(queue: &[Hand<'_, T>]) -> Vec<usize> {
    queue.iter().map(Hand::wakes).collect()
}

#[test]
fn those_who_share_are_inside_together_and_nobody_else_is() {
    let mutex = Keyed::default();
    let mut shares: Vec<_> = (0..100).map(|_| mutex.shared().try_lock("key").unwrap()).collect();
    shares.push(now(mutex.shared().lock("key")));
    assert!(mutex.is_locked("key") && mutex.try_lock("key").is_none());
    assert_eq!((mutex.len(), mutex.state("key").waiting), (1, 0), "nobody waits");
    let mut exclusive = waiting(mutex.lock("key"));
    drop(shares.split_off(1));
    exclusive.pending();
    assert_eq!(exclusive.wakes(), 0);
    shares.clear();
    assert_eq!(exclusive.wakes(), 1);
    let guard = exclusive.ready();
    assert!(mutex.shared().try_lock("key").is_none());
    drop(now(mutex.shared().lock("other")));
    drop(guard);
    assert!(mutex.is_empty());
}

#[test]
fn nobody_overtakes_so_that_neither_kind_starves() {
    let mutex = Keyed::default();
    let share = now(mutex.shared().lock("key"));
    let mut writer = waiting(mutex.lock("key"));
    assert!(mutex.shared().try_lock("key").is_none(), "a writer waits");
    let mut readers: Vec<_> = (0..2).map(|_| waiting(mutex.arc().shared().lock("key"))).collect();
    let mut task = waiting(mutex.run("key", async || "ran"));
    let mut last = waiting(mutex.shared().lock("key"));
    assert_eq!(mutex.state("key").waiting, 5);
    drop(share);
    let guard = writer.ready();
    readers.iter_mut().for_each(Hand::pending);
    drop(guard);
    assert_eq!(wakes(&readers), [1, 1], "both at once");
    let first = readers[0].ready();
    assert!(mutex.shared().try_lock("key").is_none(), "a task waits");
    task.pending();
    drop(first);
    task.pending();
    drop(readers[1].ready());
    last.pending();
    assert_eq!(task.ready(), Ok("ran"));
    drop(last.ready());
    assert!(mutex.is_empty());
}

#[test]
fn a_writer_that_gives_up_lets_those_behind_it_in() {
    let mutex = Keyed::default();
    for polled in [false, true] {
        let share = now(mutex.shared().lock("key"));
        let first =
            if polled { waiting(async { drop(mutex.ticket("key").await) }) } else { waiting(mutex_lock(&mutex)) };
        let second = mutex.ticket("key");
        let mut readers: Vec<_> = (0..3).map(|_| waiting(mutex.shared().lock("key"))).collect();
        let behind = waiting(mutex.lock("key"));
        drop(first);
        assert_eq!(wakes(&readers), [0; 3], "another writer is before them");
        drop(second);
        assert_eq!(wakes(&readers), [1; 3]);
        assert_eq!(mutex.state("key").waiting, 1);
        readers.iter_mut().for_each(|reader| drop(reader.ready()));
        drop(share);
        assert_eq!(behind.wakes(), 1);
        drop(behind);
        assert!(mutex.is_empty());
    }
}

async fn mutex_lock(mutex: &Keyed) {
    drop(mutex.lock("key").await);
}

#[test]
fn a_reader_that_was_let_in_and_is_dropped_unpolled_gives_its_share_back() {
    for limit in [1, 2, u32::MAX] {
        let mutex = KeyedMutex::new();
        let guard = now(mutex.lock("key"));
        let mut readers: Vec<_> = (0..2).map(|_| waiting(mutex.at_most(limit).lock("key"))).collect();
        let mut writer = waiting(mutex.lock("key"));
        drop(guard);
        assert_eq!(wakes(&readers), [1, usize::from(limit > 1)], "limit {limit}");
        drop(readers.remove(0));
        assert_eq!(wakes(&readers), [1], "limit {limit}");
        writer.pending();
        drop(readers);
        drop(writer.ready());
        assert!(mutex.is_empty());
    }
}

#[test]
fn so_many_are_inside_as_may_be() {
    static MUTEX: KeyedMutex<&str> = KeyedMutex::new();
    let mut inside: Vec<_> = (0..3).map(|_| MUTEX.at_most(3).try_lock("key").unwrap()).collect();
    assert!(MUTEX.at_most(3).try_lock("key").is_none());
    let mut queue: Vec<_> = (0..5).map(|_| waiting(MUTEX.at_most(3).lock("key"))).collect();
    assert_eq!(MUTEX.state("key").waiting, 5);
    assert!(MUTEX.at_most(3).try_lock("other").is_some());
    for next in 0..5 {
        drop(inside.remove(0));
        assert_eq!(wakes(&queue).iter().sum::<usize>(), next + 1, "one for each that leaves");
        inside.push(queue[next].ready());
        queue[next + 1..].iter_mut().for_each(Hand::pending);
    }
    assert_eq!(MUTEX.state("key").waiting, 0);
    drop(inside);
    assert!(MUTEX.is_empty());
    // After an exclusive one, as many at once as may be.
    let guard = now(MUTEX.lock("key"));
    let mut queue: Vec<_> = (0..5).map(|_| waiting(MUTEX.at_most(3).lock("key"))).collect();
    drop(guard);
    assert_eq!(wakes(&queue), [1, 1, 1, 0, 0]);
    drop(queue.remove(3)); // one that waits, and leaves no room
    assert_eq!(wakes(&queue), [1, 1, 1, 0]);
    drop(queue.remove(0));
    assert_eq!(wakes(&queue), [1, 1, 1]);
    drop(queue);
    assert!(MUTEX.is_empty());
}

#[test]
fn a_limit_of_none_is_refused() {
    let mutex = Arc::new(KeyedMutex::<u8>::new());
    let none = catch_unwind(|| _ = mutex.at_most(0)).unwrap_err();
    assert_eq!(none.downcast_ref::<String>().unwrap(), "`n` must be greater than zero");
    assert!(catch_unwind(|| drop(mutex.arc().at_most(0))).is_err());
}

#[test]
fn a_downgraded_key_is_never_free_and_those_who_share_come_in_at_once() {
    for limit in [1, 2, u32::MAX] {
        let mutex = KeyedMutex::new();
        let guard = now(mutex.lock("key"));
        let mut readers: Vec<_> = (0..2).map(|_| waiting(mutex.at_most(limit).lock("key"))).collect();
        let mut writer = waiting(mutex.lock("key"));
        let late = waiting(mutex.at_most(limit).lock("key"));
        let share = guard.downgrade();
        let room = limit as usize - 1;
        assert_eq!(wakes(&readers), [usize::from(room > 0), usize::from(room > 1)], "limit {limit}");
        assert_eq!((writer.wakes(), late.wakes()), (0, 0), "limit {limit}");
        assert!(mutex.try_lock("key").is_none() && mutex.at_most(limit).try_lock("key").is_none());
        drop(share);
        for reader in &mut readers {
            drop(reader.ready());
        }
        drop(writer.ready());
        assert_eq!(late.wakes(), 1);
        drop(late);
        assert!(mutex.is_empty());
    }
    let mutex = Keyed::default();
    let share = now(mutex.arc().lock("key")).downgrade();
    let other = mutex.arc().shared().try_lock("key").unwrap();
    drop(share);
    assert!(mutex.try_lock("key").is_none());
    drop(other);
    drop(now(mutex.lock("key")).downgrade());
    assert!(mutex.is_empty());
}

/// A key that counts how many of its kind are alive.
struct Counted<'a>(&'a Cell<usize>);

impl<'a> Counted<'a> {
    fn new(alive: &'a Cell<usize>) -> Self {
        alive.set(alive.get() + 1);
        Self(alive)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl PartialEq for Counted<'_> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Counted<'_> {}

impl std::hash::Hash for Counted<'_> {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}

#[test]
fn the_entry_goes_with_the_last_share_whatever_the_order() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let alive = Cell::new(0);
        let mutex = KeyedMutex::<_>::new();
        let mut shares: Vec<_> = (0..3).map(|_| mutex.shared().try_lock(Counted::new(&alive))).collect();
        assert_eq!(alive.get(), 1, "the table has it");
        for share in order {
            assert_eq!((mutex.len(), alive.get()), (1, 1));
            shares[share] = None;
        }
        assert_eq!((mutex.len(), alive.get()), (0, 0), "{order:?}");
    }
}

#[test]
fn tasks_tickets_and_several_keys_want_a_key_for_themselves() {
    let mutex = Keyed::default();
    let shares = [now(mutex.shared().lock("a")), now(mutex.shared().lock("a"))];
    let mut seen = Vec::new();
    let ticket = mutex.ticket_if("a", |now| {
        seen.push((now.holders, now.shared, now.waiting));
        true
    });
    let mut many = waiting(mutex.lock_many(["b", "a"]));
    let mut task = waiting(mutex.run("a", async || "ran"));
    let mut reader = waiting(mutex.shared().lock("a"));
    mutex.for_each_locked(|_, now| seen.push((now.holders, now.shared, now.waiting)));
    assert_eq!(seen, [(2, true, 0), (2, true, 4)]);
    assert_eq!(mutex.stop("a"), 2, "the ticket and the job; shared locks are not stopped");
    assert_eq!(task.ready(), Err(Stopped));
    assert!(matches!(now(ticket.unwrap()), Err(Stopped)));
    drop(shares);
    drop(many.ready());
    drop(reader.ready());
    assert!(mutex.is_empty());
}

#[cfg(feature = "idle")]
#[test]
fn a_key_that_is_shared_is_not_idle() {
    let mutex = Keyed::default();
    let shares = [now(mutex.shared().lock("key")), now(mutex.shared().lock("key"))];
    let (mut idle, mut all) = (waiting(mutex.idle("key")), waiting(mutex.all_idle()));
    let [first, last] = shares;
    drop(first);
    idle.pending();
    all.pending();
    drop(last);
    idle.ready();
    all.ready();
}

#[cfg(feature = "std")]
#[test]
fn threads_share_as_well() {
    let mutex = Keyed::default();
    drop([mutex.shared().lock("key").wait(), mutex.shared().lock("key").wait()]);
    drop([mutex.arc().shared().lock("key").wait(), mutex.arc().shared().lock("key").wait()]);
    let guard = now(mutex.lock("key"));
    let inside = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let _share = mutex.shared().lock("key").wait();
                inside.fetch_add(1, SeqCst);
                while inside.load(SeqCst) < 2 {
                    thread::yield_now(); // until both are inside
                }
            });
        }
        while mutex.state("key").waiting < 2 {
            thread::yield_now();
        }
        drop(guard);
    });
    assert!(mutex.is_empty());
}

struct Does<F>(F);

impl<F: Fn() + Send + Sync> Wake for Does<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

fn does(work: impl Fn() + Send + Sync + 'static) -> Waker {
    Arc::new(Does(work)).into()
}

#[test]
fn everybody_is_let_in_though_the_wakers_of_some_panic() {
    let panics = does(|| resume_unwind(Box::new("in wake")));
    // Without `std`, a second panic while the first unwinds ends the program.
    let several = if cfg!(feature = "std") { 3 } else { 1 };
    for how in ["unlock", "leave", "downgrade"] {
        let mutex = Keyed::default();
        let guard = now(mutex.lock("key"));
        let mut readers: Vec<_> = (0..5).map(|_| hand(mutex.shared().lock("key"))).collect();
        let writer = mutex.ticket("key");
        let (share, guard) = if how == "leave" { (Some(guard.downgrade()), None) } else { (None, Some(guard)) };
        for (n, reader) in readers.iter_mut().enumerate() {
            assert!(if n < several { reader.poll_with(&panics) } else { reader.poll() }.is_pending());
        }
        let panic = catch_unwind(AssertUnwindSafe(|| match (how, guard) {
            ("unlock", guard) => drop((guard, writer)),
            ("leave", _) => drop(writer),
            (_, guard) => {
                drop(writer);
                drop(guard.map(|guard| guard.downgrade()));
            }
        }));
        assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"in wake"), "{how}");
        assert!(wakes(&readers)[several..].iter().all(|wakes| *wakes == 1), "{how}");
        readers.iter_mut().for_each(|reader| drop(reader.ready()));
        drop(share);
        assert!(mutex.is_empty(), "{how}");
    }
}

#[test]
fn no_waker_of_a_batch_runs_under_a_lock() {
    limited(|| {
        let mutex = Arc::new(KeyedMutex::<u32, OneHash>::default());
        let guard = mutex.try_lock(1);
        let keyed = mutex.clone();
        let asks = does(move || {
            assert!(keyed.is_locked(&1) && keyed.len() == 1 && keyed.state(&1).waiting < 3);
            assert!(keyed.try_lock(1).is_none());
            drop(keyed.shared().try_lock(1));
            drop(keyed.try_lock(2).unwrap());
            drop(hand(keyed.shared().lock(1)).poll());
        });
        let mut readers: Vec<_> = (0..3).map(|_| hand(mutex.shared().lock(1))).collect();
        readers.iter_mut().for_each(|reader| assert!(reader.poll_with(&asks).is_pending()));
        drop(guard);
        readers.iter_mut().for_each(|reader| drop(reader.ready()));
        assert!(mutex.is_empty());
    });
}

/// Counts who is inside, and checks that nobody is who must not be.
#[derive(Default)]
struct Inside {
    sharers: AtomicUsize,
    exclusive: AtomicUsize,
}

impl Inside {
    fn share(&self, limit: usize) {
        assert!(self.sharers.fetch_add(1, SeqCst) < limit, "more are inside than may be");
        assert_eq!(self.exclusive.load(SeqCst), 0, "it has an exclusive holder");
    }

    fn leave(&self) {
        self.sharers.fetch_sub(1, SeqCst);
    }

    fn exclude(&self) {
        assert_eq!(self.exclusive.fetch_add(1, SeqCst), 0, "two have it for themselves");
        assert_eq!(self.sharers.load(SeqCst), 0, "it has a shared holder");
        self.exclusive.fetch_sub(1, SeqCst);
    }
}

#[test]
fn threads_that_race_and_give_up_at_random_never_meet_who_they_must_not() {
    const ROUNDS: usize = if cfg!(any(feature = "std", feature = "critical-section")) { 30_000 } else { 3_000 };
    for limit in [1, 2, u32::MAX] {
        let mutex = &KeyedMutex::<usize>::new();
        let inside: &[Inside] = &[Inside::default(), Inside::default()];
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(move || {
                    for _ in 0..ROUNDS {
                        block_on(step(mutex, inside, limit));
                    }
                });
            }
        });
        assert!(mutex.is_empty());
    }
}

async fn a_while<T>() -> Option<T> {
    for _ in 0..fastrand::u8(..3) {
        yield_now().await;
    }
    None
}

async fn step(mutex: &KeyedMutex<usize>, inside: &[Inside], limit: u32) {
    let key = fastrand::usize(..2);
    let share = async {
        inside[key].share(limit as usize);
        yield_now().await;
        inside[key].leave();
    };
    match fastrand::u8(..8) {
        0..3 => {
            let _share = mutex.at_most(limit).lock(key).await;
            share.await;
        }
        3 => {
            if let Some(_share) = mutex.at_most(limit).try_lock(key) {
                share.await;
            }
        }
        4 => {
            if let Some(_share) = or(a_while(), async { Some(mutex.at_most(limit).lock(key).await) }).await {
                share.await;
            }
        }
        5 => {
            if let Some(guard) = or(a_while(), async { Some(mutex.lock(key).await) }).await {
                inside[key].exclude();
                let _share = guard.downgrade();
                share.await;
            }
        }
        6 => {
            if let Some(Ok(_guard)) = or(a_while(), async { Some(mutex.ticket(key).await) }).await {
                inside[key].exclude();
            }
        }
        _ => {
            let _guard = mutex.lock(key).await;
            inside[key].exclude();
        }
    }
}

#[test]
fn each_brings_its_own_limit_and_still_nobody_overtakes() {
    let mutex = KeyedMutex::<&str>::new();
    let mut inside: Vec<_> = (0..2).map(|_| mutex.at_most(2).try_lock("key").unwrap()).collect();
    assert!(mutex.at_most(2).try_lock("key").is_none());
    inside.push(mutex.at_most(3).try_lock("key").unwrap());
    assert!(mutex.at_most(3).try_lock("key").is_none());
    inside.push(mutex.shared().try_lock("key").unwrap());
    let mut narrow = waiting(mutex.at_most(2).lock("key"));
    let mut wide = waiting(mutex.shared().lock("key"));
    assert!(mutex.shared().try_lock("key").is_none(), "two wait");
    inside.pop();
    inside.pop();
    assert_eq!((narrow.wakes(), wide.wakes()), (0, 0), "two are inside, and the first may be the second only");
    inside.pop();
    assert_eq!((narrow.wakes(), wide.wakes()), (1, 1), "with the first, the one behind it");
    drop((narrow.ready(), wide.ready(), inside));
    assert!(mutex.is_empty());
}

#[test]
fn several_keys_are_locked_each_in_a_mode_of_its_own() {
    let mutex = KeyedMutex::<u8>::new();
    let reader = now(mutex.shared().lock(1));
    let many =
        now(LockMany::of([mutex.lock(3), mutex.shared().lock(1), mutex.at_most(2).lock(2), mutex.shared().lock(3)]));
    assert_eq!([1, 2, 3].map(|key| mutex.state(&key).shared), [true, true, false], "3 is locked once, exclusively");
    assert!(mutex.at_most(2).try_lock(2).is_some() && mutex.shared().try_lock(3).is_none());
    drop((many, reader));
    assert!(mutex.is_empty());
}
