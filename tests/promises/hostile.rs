//! Keys, hashers, tasks and wakers that panic, or use the mutex when they are least expected to.
//!
//! "Nothing is corrupted" is always shown the same way: afterwards the key goes through a queue of three in
//! order, other keys lock and unlock, and nothing is left in the table.

#![cfg_attr(not(feature = "std"), allow(unused_imports))]
#![allow(unsafe_code)] // a waker that panics when it is cloned cannot be made otherwise

use std::cell::{Cell, RefCell};
use std::hash::{Hash, Hasher};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{RawWaker, RawWakerVTable, Wake, Waker};
use std::thread;

use crate::common::{self, Hand, OneHash, now, waiting};
use async_mutex_lite::{Guard, KeyedMutex};

thread_local! {
    /// What the keys of this thread do when they are hashed, compared or dropped.
    static MISCHIEF: Cell<Mischief> = const { Cell::new(Mischief::None) };
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Mischief {
    None,
    PanicInHash,
    PanicInEq,
    PanicInDrop,
    LockInHash,
    LockInDrop,
}

/// For keys that use it when they are hashed or dropped, and for wakers that do.
static ELSEWHERE: KeyedMutex<Key> = KeyedMutex::new();
static CURIOUS: KeyedMutex<Key> = KeyedMutex::new();

/// Does it, once.
fn mischief(when: Mischief) {
    if MISCHIEF.get() == when {
        MISCHIEF.set(Mischief::None);
        // No message: these panics are expected, and many.
        resume_unwind(Box::new(when));
    }
}

#[derive(Debug)]
struct Key(u32);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        mischief(Mischief::PanicInHash);
        if MISCHIEF.get() == Mischief::LockInHash {
            MISCHIEF.set(Mischief::None);
            same_key_and_others(&ELSEWHERE);
        }
        self.0.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        mischief(Mischief::PanicInEq);
        self.0 == other.0
    }
}

impl Eq for Key {}

impl Drop for Key {
    fn drop(&mut self) {
        if MISCHIEF.get() == Mischief::LockInDrop {
            MISCHIEF.set(Mischief::None);
            same_key_and_others(&ELSEWHERE);
        }
        if !thread::panicking() {
            mischief(Mischief::PanicInDrop);
        }
    }
}

/// Uses all keys of a mutex, the one that is in the middle of something as far as that is possible.
fn same_key_and_others(mutex: &KeyedMutex<Key>) {
    drop(mutex.try_lock(Key(1)));
    let _ = common::hand(mutex.lock(Key(1))).poll();
    let guards: Vec<_> = (100..200).map(|key| mutex.try_lock(Key(key)).unwrap()).collect();
    assert!(mutex.len() >= 100);
    drop(guards);
}

#[track_caller]
fn works<S: std::hash::BuildHasher>(mutex: &KeyedMutex<Key, S>) {
    assert!(mutex.is_empty(), "something was left behind");
    let guard = now(mutex.lock(Key(1)));
    let others: Vec<_> = (2..40).map(|key| now(mutex.lock(Key(key)))).collect();
    let mut queue: Vec<_> = (0..3).map(|_| waiting(mutex.lock(Key(1)))).collect();
    drop(guard);
    for next in 0..3 {
        queue[next + 1..].iter_mut().for_each(Hand::pending);
        drop(queue[next].ready());
    }
    drop(others);
    assert!(mutex.is_empty(), "something was left behind");
}

fn with_mischief<T>(what: Mischief, work: impl FnOnce() -> T) -> Result<T, Mischief> {
    MISCHIEF.set(what);
    let result = catch_unwind(AssertUnwindSafe(work));
    MISCHIEF.set(Mischief::None);
    result.map_err(|panic| *panic.downcast::<Mischief>().expect("another panic"))
}

#[test]
fn a_panic_in_hash_or_eq_changes_nothing() {
    for what in [Mischief::PanicInHash, Mischief::PanicInEq] {
        let mutex = &Arc::new(KeyedMutex::with_hasher(OneHash));
        let guard = now(mutex.lock(Key(1)));
        let mut queued = waiting(mutex.lock(Key(1)));
        let calls: [&dyn Fn(); 12] = [
            &|| drop(mutex.try_lock(Key(1))),
            &|| drop(mutex.try_lock(Key(2))),
            &|| drop(mutex.arc().try_lock(Key(2))),
            &|| drop(waiting(mutex.arc().lock(Key(1)))),
            &|| drop(waiting(mutex.lock(Key(1)))),
            &|| drop(now(mutex.lock(Key(2)))),
            &|| drop(waiting(mutex.run(Key(1), async || ()))),
            &|| drop(mutex.ticket(Key(1))),
            &|| drop(mutex.ticket_if(Key(2), |_| false)),
            &|| assert!(mutex.is_locked(&Key(2))),
            &|| assert_eq!(mutex.state(&Key(1)).waiting, 0),
            &|| assert_eq!(mutex.stop(&Key(1)), 1),
        ];
        for (n, call) in calls.iter().enumerate() {
            assert_eq!(with_mischief(what, call), Err(what), "call {n}");
            assert_eq!((mutex.len(), mutex.state(&Key(1)).waiting), (1, 1), "call {n}");
        }
        drop(guard);
        drop(queued.ready());
        works(mutex);
    }
}

#[test]
fn a_panic_in_the_drop_of_a_key_leaves_its_queue_in_order() {
    let panic = Mischief::PanicInDrop;
    let mutex = KeyedMutex::<_>::new();
    // The key of the slot, when it is unlocked.
    let guard = now(mutex.lock(Key(1)));
    assert_eq!(with_mischief(panic, || drop(guard)), Err(panic));
    works(&mutex);
    // The key of a waiter, which finds a slot with another.
    let guard = now(mutex.lock(Key(1)));
    let mut queued = waiting(mutex.lock(Key(1)));
    assert_eq!(with_mischief(panic, || drop(waiting(mutex.lock(Key(1))))), Err(panic));
    assert_eq!(with_mischief(panic, || drop(waiting(mutex.run(Key(1), async || ())))), Err(panic));
    assert_eq!(with_mischief(panic, || drop(mutex.ticket(Key(1)))), Err(panic));
    assert_eq!(with_mischief(panic, || drop(mutex.try_lock(Key(1)))), Err(panic));
    assert_eq!(mutex.state(&Key(1)).waiting, 1);
    drop(guard);
    drop(queued.ready());
    works(&mutex);
    // The key of the slot, when a waiter that has been given it is dropped.
    let guard = now(mutex.lock(Key(1)));
    let granted = waiting(mutex.lock(Key(1)));
    drop(guard);
    assert_eq!(with_mischief(panic, || drop(granted)), Err(panic));
    works(&mutex);
    // The key of a task: it has run.
    assert_eq!(with_mischief(panic, || now(mutex.run(Key(1), async || "ran")).is_ok()), Err(panic));
    works(&mutex);
    // One of many.
    let many = now(async { [mutex.lock(Key(1)).await, mutex.lock(Key(2)).await, mutex.lock(Key(3)).await] });
    assert_eq!(with_mischief(panic, || drop(many)), Err(panic));
    works(&mutex);
}

#[test]
fn a_waker_may_use_the_mutex_when_it_is_cloned_woken_or_dropped() {
    common::limited(|| {
        let guard = now(CURIOUS.lock(Key(1)));
        let mut ticket = common::hand(CURIOUS.ticket(Key(1)));
        let mut lock = common::hand(CURIOUS.lock(Key(1)));
        assert!(lock.poll_with(&raw::curious()).is_pending()); // clones it, drops the original
        assert!(ticket.poll_with(&raw::curious()).is_pending());
        lock.pending(); // drops the clone
        assert!(lock.poll_with(&raw::curious()).is_pending());
        drop(guard); // wakes the clone
        drop(ticket.ready());
        drop(lock.ready());
        works(&CURIOUS);
    });
}

#[test]
fn a_key_may_use_the_mutex_when_it_is_hashed_or_dropped() {
    common::limited(|| {
        for what in [Mischief::LockInHash, Mischief::LockInDrop] {
            with_mischief(what, || drop(now(ELSEWHERE.lock(Key(1))))).unwrap();
            assert!(ELSEWHERE.is_empty());
            let guard = now(ELSEWHERE.lock(Key(1)));
            let mut queued = waiting(ELSEWHERE.lock(Key(1)));
            with_mischief(what, || drop(waiting(ELSEWHERE.lock(Key(1))))).unwrap();
            with_mischief(what, || drop(ELSEWHERE.try_lock(Key(1)))).unwrap();
            assert_eq!(ELSEWHERE.state(&Key(1)).waiting, 1);
            drop(guard);
            with_mischief(what, || drop(queued.ready())).unwrap();
            works(&ELSEWHERE);
        }
    });
}

#[test]
fn a_panic_in_an_admission_changes_nothing() {
    let mutex = KeyedMutex::<_>::new();
    let admit = |_| resume_unwind(Box::new(Mischief::None));
    assert!(catch_unwind(AssertUnwindSafe(|| mutex.ticket_if(Key(1), admit))).is_err());
    works(&mutex);
    let guard = now(mutex.lock(Key(1)));
    assert!(catch_unwind(AssertUnwindSafe(|| mutex.ticket_if(Key(1), admit))).is_err());
    assert_eq!(mutex.state(&Key(1)).waiting, 0);
    drop(guard);
    works(&mutex);
}

/// A waker that does something when it is woken, cloned or dropped.
struct Odd {
    woken: AtomicUsize,
    on_wake: Box<dyn Fn() + Send + Sync>,
}

impl Wake for Odd {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, SeqCst);
        (self.on_wake)();
    }
}

fn odd(on_wake: impl Fn() + Send + Sync + 'static) -> Arc<Odd> {
    Arc::new(Odd { woken: AtomicUsize::new(0), on_wake: Box::new(on_wake) })
}

/// Wakers that panic when they are cloned or dropped can only be made by hand.
mod raw {
    use super::*;

    thread_local! {
        pub(super) static PANIC_IN_CLONE: Cell<bool> = const { Cell::new(false) };
        pub(super) static PANIC_IN_DROP: Cell<bool> = const { Cell::new(false) };
        pub(super) static ALIVE: Cell<isize> = const { Cell::new(0) };
        /// Done once, by the next clone.
        pub(super) static IN_CLONE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    }

    static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, |_| ALIVE.set(ALIVE.get() - 1), |_| (), drop);

    fn clone(_: *const ()) -> RawWaker {
        if PANIC_IN_CLONE.replace(false) {
            resume_unwind(Box::new("in clone"));
        }
        if let Some(work) = IN_CLONE.take() {
            work();
        }
        ALIVE.set(ALIVE.get() + 1);
        RawWaker::new(std::ptr::null(), &VTABLE)
    }

    fn drop(_: *const ()) {
        ALIVE.set(ALIVE.get() - 1);
        if PANIC_IN_DROP.get() && !thread::panicking() {
            resume_unwind(Box::new("in drop"));
        }
    }

    /// Asks, and locks and unlocks keys, when it is cloned or dropped.
    pub(super) fn curious() -> Waker {
        const VTABLE: RawWakerVTable = RawWakerVTable::new(
            |_| {
                same_key_and_others(&CURIOUS);
                RawWaker::new(std::ptr::null(), &VTABLE)
            },
            |_| same_key_and_others(&CURIOUS),
            |_| (),
            |_| same_key_and_others(&CURIOUS),
        );
        // SAFETY: the data pointer is never read, and the table's functions may be called from any thread.
        unsafe { Waker::new(std::ptr::null(), &VTABLE) }
    }

    pub(super) fn waker() -> Waker {
        // SAFETY: the data pointer is never read, and the table's functions touch thread-locals only.
        unsafe { Waker::from_raw(clone(std::ptr::null())) }
    }
}

#[test]
fn a_panic_in_the_clone_or_drop_of_a_waker_leaves_the_queue_in_order() {
    let mutex = KeyedMutex::<_>::new();
    // Clone: the poll panics, and the future can still be dropped, or has been given the key.
    for granted in [false, true] {
        let guard = now(mutex.lock(Key(1)));
        let mut first = common::hand(mutex.lock(Key(1)));
        let waker = raw::waker();
        raw::PANIC_IN_CLONE.set(true);
        assert!(catch_unwind(AssertUnwindSafe(|| first.poll_with(&waker).is_pending())).is_err());
        let mut second = waiting(mutex.lock(Key(1)));
        if granted {
            drop(guard);
            drop(first);
        } else {
            drop(first);
            drop(guard);
        }
        drop(second.ready());
        drop(waker);
        works(&mutex);
    }
    // Drop: the call that drops the copy in the queue gets the panic, and has done what it should all the same.
    for case in ["replaced", "cancelled", "granted"] {
        let guard = now(mutex.lock(Key(1)));
        let mut first = common::hand(mutex.lock(Key(1)));
        let waker = raw::waker();
        assert!(first.poll_with(&waker).is_pending());
        let mut second = waiting(mutex.lock(Key(1)));
        raw::PANIC_IN_DROP.set(true);
        match case {
            "replaced" => {
                assert!(catch_unwind(AssertUnwindSafe(|| first.poll().is_pending())).is_err());
                drop(guard);
                assert_eq!(first.wakes(), 1);
                drop(first.ready());
            }
            "cancelled" => {
                assert!(catch_unwind(AssertUnwindSafe(|| drop(first))).is_err());
                assert_eq!(mutex.state(&Key(1)).waiting, 1);
                drop(guard);
            }
            _ => {
                drop(guard); // waking consumes it
                drop(first.ready());
            }
        }
        drop(second.ready());
        raw::PANIC_IN_DROP.set(false);
        drop(waker);
        works(&mutex);
    }
    assert_eq!(raw::ALIVE.get(), 0, "as many wakers dropped as made");
}

#[test]
fn a_key_that_panics_when_it_is_dropped_takes_no_share_with_it() {
    let mutex = KeyedMutex::<_>::new();
    for wait in [false, true] {
        let first = mutex.shared().try_lock(Key(1)).unwrap();
        let key = Key(1); // is dropped when the share is had, since the table has one
        let second = with_mischief(Mischief::PanicInDrop, || match wait {
            false => drop(mutex.shared().try_lock(key)),
            true => drop(now(mutex.shared().lock(key))),
        });
        assert!(second.is_err());
        drop(first);
        works(&mutex);
    }
}

#[test]
#[cfg(feature = "std")] // without, the second panic while the first unwinds aborts
fn many_wakers_that_panic_need_no_more_stack_than_one() {
    const MANY: usize = 10_000;
    let work = || {
        let mutex = KeyedMutex::<u32>::new();
        let guard = mutex.try_lock(1);
        let waker = Waker::from(odd(|| resume_unwind(Box::new("in wake"))));
        let mut queue: Vec<_> = (0..MANY).map(|_| common::hand(mutex.shared().lock(1))).collect();
        queue.iter_mut().for_each(|waits| assert!(waits.poll_with(&waker).is_pending()));
        assert!(catch_unwind(AssertUnwindSafe(|| drop(guard))).is_err());
        queue.iter_mut().for_each(|waits| drop(waits.ready()));
        assert!(mutex.is_empty());
    };
    thread::Builder::new().stack_size(128 * 1024).spawn(work).unwrap().join().unwrap();
}

#[test]
fn a_turn_that_comes_while_a_waker_is_cloned_is_not_lost_when_the_clone_panics_as_it_is_dropped() {
    static MUTEX: KeyedMutex<u32, OneHash> = KeyedMutex::with_hasher(OneHash);
    let guard = MUTEX.try_lock(1).unwrap();
    let mut first = common::hand(MUTEX.lock(1));
    assert!(first.poll().is_pending());
    let held = MUTEX.try_lock(2).unwrap();
    let other = MUTEX.try_lock(3).unwrap();
    // Polled with another waker, it must be cloned; meanwhile the turn comes, and the clone is not needed.
    let waker = raw::waker();
    raw::IN_CLONE.set(Some(Box::new(|| drop(guard))));
    raw::PANIC_IN_DROP.set(true);
    assert!(catch_unwind(AssertUnwindSafe(|| first.poll_with(&waker).is_pending())).is_err());
    raw::PANIC_IN_DROP.set(false);
    // Its node is free, and soon another's.
    let mut waits = waiting(MUTEX.lock(2));
    let mut waits_too = waiting(MUTEX.lock(3));
    drop(first);
    assert!(MUTEX.try_lock(1).is_some(), "the turn has been passed on");
    waits.pending();
    drop(held);
    drop(waits.ready());
    waits_too.pending();
    drop(other);
    drop(waits_too.ready());
    drop(waker);
    assert_eq!(raw::ALIVE.get(), 0);
    assert!(MUTEX.is_empty());
}

#[test]
fn a_waker_may_lock_and_unlock_other_keys() {
    static MUTEX: KeyedMutex<u32> = KeyedMutex::new();
    let held = std::sync::Mutex::new(Some(MUTEX.try_lock(2).unwrap()));
    let waker = odd(move || {
        drop(held.lock().unwrap().take()); // unlocks another key, whose waiter is woken from in here
        for key in 3..200 {
            assert!(MUTEX.try_lock(key).is_some());
        }
        assert!(MUTEX.try_lock(1).is_none(), "the key itself is on its way");
        assert!(MUTEX.is_locked(&1));
    });
    let guard = MUTEX.try_lock(1);
    let mut waits = common::hand(MUTEX.lock(1));
    assert!(waits.poll_with(&waker.clone().into()).is_pending());
    let mut behind = waiting(MUTEX.lock(1));
    let mut other = waiting(MUTEX.lock(2));
    drop(guard);
    assert_eq!((waker.woken.load(SeqCst), other.wakes()), (1, 1));
    drop(other.ready());
    drop(waits.ready());
    drop(behind.ready());
    assert!(MUTEX.is_empty());
}

#[test]
fn guards_and_futures_may_be_dropped_while_a_panic_unwinds() {
    let mutex = KeyedMutex::<_>::new();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _held = now(mutex.lock(Key(1)));
        let _waits = waiting(mutex.lock(Key(1)));
        let _ticket = mutex.ticket(Key(1));
        let _task = waiting(mutex.run_or_stop(Key(2), async || std::future::pending::<Result<(), ()>>().await));
        let _queued = waiting(mutex.run(Key(2), async || ()));
        let granted = waiting(mutex.lock(Key(3)));
        let _granted = granted;
        resume_unwind(Box::new("unwinding"));
    }));
    assert!(panic.is_err());
    works(&mutex);
}

#[test]
#[cfg(feature = "std")]
fn a_blocked_thread_is_let_in_though_the_one_before_it_panics() {
    let mutex = Arc::new(KeyedMutex::<u32>::new());
    let entered = AtomicBool::new(false);
    thread::scope(|scope| {
        let guard = mutex.try_lock(1).unwrap();
        let blocked = scope.spawn(|| {
            let _guard = mutex.lock(1).wait();
            entered.store(true, SeqCst);
        });
        while mutex.state(&1).waiting == 0 {
            thread::yield_now();
        }
        let _ = catch_unwind(AssertUnwindSafe(move || {
            let _guard = guard;
            resume_unwind(Box::new("holder"));
        }));
        blocked.join().unwrap();
    });
    assert!(entered.load(SeqCst) && mutex.is_empty());
}

#[test]
#[cfg(feature = "std")]
fn keys_can_be_locked_and_unlocked_when_the_thread_locals_are_gone() {
    static MUTEX: KeyedMutex<u32> = KeyedMutex::new();
    static DONE: AtomicUsize = AtomicUsize::new(0);

    /// Dropped as one of the last thread-locals of its thread: it was made first.
    struct AtExit(RefCell<Option<Guard<Arc<KeyedMutex<u32>>>>>);

    impl Drop for AtExit {
        fn drop(&mut self) {
            drop(self.0.take());
            drop(MUTEX.try_lock(1));
            drop(MUTEX.lock(2).wait()); // blocks: the main thread has it
            let blocker = MUTEX.try_lock(6);
            mem::drop(waiting(MUTEX.lock(6))); // finds no spare waker of ours, and cannot leave one
            drop(blocker);
            DONE.fetch_add(1, SeqCst);
        }
    }

    thread_local!(static AT_EXIT: AtExit = const { AtExit(RefCell::new(None)) });

    let shared = Arc::new(KeyedMutex::<u32>::new());
    let held = MUTEX.try_lock(2).unwrap();
    let exits = {
        let shared = shared.clone();
        thread::spawn(move || {
            AT_EXIT.with(|at_exit| *at_exit.0.borrow_mut() = shared.arc().try_lock(3));
            drop(smol::block_on(shared.lock(4))); // makes the thread-locals of the crates below
            let blocker = shared.try_lock(5).unwrap();
            mem::drop(waiting(shared.lock(5)));
            drop(blocker);
        })
    };
    while MUTEX.state(&2).waiting == 0 {
        thread::yield_now();
    }
    drop(held);
    exits.join().unwrap();
    assert_eq!(DONE.load(SeqCst), 1);
    assert!(shared.is_empty() && MUTEX.is_empty());
}

/// Something that counts how many of its kind are alive.
struct Counted(#[allow(dead_code)] Arc<()>);

#[test]
fn the_output_of_a_job_is_not_leaked_if_unlocking_its_key_panics() {
    let mutex = Arc::new(KeyedMutex::<u32>::new());
    let alive = Arc::new(());
    let job = async || Counted(alive.clone());
    let fallible = async || Ok::<_, ()>(Counted(alive.clone()));
    let jobs = [
        ("run", common::hand(async { mutex.run(1, job).await.is_ok() })),
        ("run_or_stop", common::hand(async { mutex.run_or_stop(1, fallible).await.is_ok() })),
        ("run of a ticket", common::hand(async { mutex.ticket(1).run(job).await.is_ok() })),
        ("run of a shared ticket", common::hand(async { mutex.shared().ticket(1).run(job).await.is_ok() })),
        ("run_or_stop of a ticket", common::hand(async { mutex.arc().ticket(1).run_or_stop(fallible).await.is_ok() })),
        (
            "run_or_stop of a guard",
            common::hand(async { mutex.arc().lock(1).await.run_or_stop(fallible).await.is_ok() }),
        ),
    ];
    for (what, mut job) in jobs {
        let guard = mutex.try_lock(1);
        job.pending();
        let panics = Waker::from(odd(|| resume_unwind(Box::new("in wake"))));
        let mut next = common::hand(mutex.lock(1));
        assert!(next.poll_with(&panics).is_pending());
        drop(guard);
        let panic = catch_unwind(AssertUnwindSafe(|| job.ready())).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"in wake"), "{what}");
        drop(job);
        assert_eq!(Arc::strong_count(&alive), 1, "{what}: its output is still there");
        drop(next.ready());
        assert!(mutex.is_empty(), "{what}");
    }
}

#[test]
fn the_output_of_a_signal_is_not_leaked_if_giving_up_the_place_panics() {
    let mutex = KeyedMutex::<u32>::new();
    let alive = Arc::new(());
    let guard = mutex.try_lock(1);
    let ready = Cell::new(false);
    let signal = std::future::poll_fn(|_| match ready.get() {
        true => std::task::Poll::Ready(Counted(alive.clone())),
        false => std::task::Poll::Pending,
    });
    let mut lock = common::hand(async { mutex.lock(1).unless(signal).await.is_ok() });
    let waker = raw::waker();
    assert!(lock.poll_with(&waker).is_pending());
    ready.set(true);
    raw::PANIC_IN_DROP.set(true); // the copy that the queue has is dropped when the place is given up
    assert!(catch_unwind(AssertUnwindSafe(|| lock.poll_with(&waker).is_ready())).is_err());
    raw::PANIC_IN_DROP.set(false);
    drop(lock);
    assert_eq!(Arc::strong_count(&alive), 1, "its output is still there");
    drop((guard, waker));
    assert!(mutex.is_empty());
}

#[test]
#[cfg(feature = "std")] // without, the second panic while the first unwinds aborts
fn all_keys_behind_one_guard_or_future_are_unlocked_though_several_wakers_panic() {
    let mutex = Arc::new(KeyedMutex::<u32>::new());
    #[derive(PartialEq)]
    enum What {
        Guard,
        Waiting,
        Granted,
    }
    for what in [What::Guard, What::Waiting, What::Granted] {
        let blocker = (what != What::Guard).then(|| mutex.try_lock(9).unwrap());
        let mut many = common::hand(mutex.arc().lock_many([1, 2, 3, 4, 9]));
        let guards = if blocker.is_none() {
            Some(many.ready())
        } else {
            many.pending();
            None
        };
        let waker = Waker::from(odd(|| resume_unwind(Box::new("in wake"))));
        let mut waiters: Vec<_> = [1, 2, 3, 4, 9].map(|key| common::hand(mutex.lock(key))).into();
        waiters.iter_mut().for_each(|waiter| assert!(waiter.poll_with(&waker).is_pending()));
        let blocker = blocker.filter(|_| what == What::Waiting);
        let panic = catch_unwind(AssertUnwindSafe(|| drop((guards, many)))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"in wake"));
        drop(catch_unwind(AssertUnwindSafe(|| drop(blocker))));
        waiters.iter_mut().for_each(|waiter| drop(waiter.ready()));
        assert!(mutex.is_empty());
    }
}

#[test]
#[cfg(feature = "std")]
fn the_payloads_of_panics_that_are_caught_are_dropped() {
    /// A payload; some panic again when they are dropped.
    struct Payload(#[allow(dead_code)] Arc<()>, bool);

    impl Drop for Payload {
        fn drop(&mut self) {
            if self.1 {
                resume_unwind(Box::new("in the payload's drop"));
            }
        }
    }

    let mutex = KeyedMutex::<u32>::new();
    let alive = Arc::new(());
    for again in [false, true] {
        let guard = mutex.try_lock(1);
        let mut readers: Vec<_> = (0..100).map(|_| common::hand(mutex.shared().lock(1))).collect();
        for (number, reader) in readers.iter_mut().enumerate() {
            let payload = alive.clone();
            let waker = odd(move || resume_unwind(Box::new(Payload(payload.clone(), again && number > 0))));
            assert!(reader.poll_with(&waker.into()).is_pending());
        }
        drop(catch_unwind(AssertUnwindSafe(|| drop(guard))).unwrap_err());
        readers.iter_mut().for_each(|reader| drop(reader.ready()));
        drop(readers);
        assert!(mutex.is_empty());
        assert_eq!(Arc::strong_count(&alive), 1, "payloads are still there");
    }
}

#[test]
fn a_stop_that_comes_while_a_waker_is_cloned_is_not_lost_when_the_clone_panics_as_it_is_dropped() {
    static MUTEX: KeyedMutex<u32, OneHash> = KeyedMutex::with_hasher(OneHash);
    let guard = MUTEX.try_lock(1).unwrap();
    let mut ticket = MUTEX.ticket(1);
    let mut poll = |waker: &Waker| {
        let mut context = std::task::Context::from_waker(waker);
        catch_unwind(AssertUnwindSafe(|| std::future::Future::poll(std::pin::Pin::new(&mut ticket), &mut context)))
    };
    assert!(poll(Waker::noop()).unwrap().is_pending());
    let waker = raw::waker();
    raw::IN_CLONE.set(Some(Box::new(|| assert_eq!(MUTEX.stop(&1), 1))));
    raw::PANIC_IN_DROP.set(true);
    assert!(poll(&waker).is_err());
    raw::PANIC_IN_DROP.set(false);
    // Its node is free, and soon another's.
    let mut waits = waiting(MUTEX.lock(1));
    let std::task::Poll::Ready(Err(async_mutex_lite::Stopped)) = poll(&waker).unwrap() else { panic!("it goes on") };
    waits.pending();
    drop(ticket);
    waits.pending();
    drop(guard);
    drop(waits.ready());
    drop(waker);
    assert_eq!(raw::ALIVE.get(), 0);
    assert!(MUTEX.is_empty());
}

#[test]
fn polling_after_completion_panics_and_says_so() {
    let mutex = KeyedMutex::<u32>::new();
    let mut lock = mutex.lock(1);
    let mut ticket = mutex.ticket(2);
    let says = |panic: Box<dyn std::any::Any + Send>| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        assert_eq!(message, Some("a `KeyedMutex` future or ticket was polled after completion"));
    };
    drop(now(&mut lock));
    says(catch_unwind(AssertUnwindSafe(|| drop(now(&mut lock)))).unwrap_err());
    drop(now(&mut ticket));
    says(catch_unwind(AssertUnwindSafe(|| drop(now(&mut ticket)))).unwrap_err());
    assert!(mutex.is_empty());
}
