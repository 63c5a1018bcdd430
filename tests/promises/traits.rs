//! What the types are, at compile time: `Send`, `Sync`, unwind safety, variance, bounds; and how they print.

use std::cell::Cell;
use std::collections::{VecDeque, hash_map};
use std::error::Error;
use std::fmt::Debug;
use std::future::Future;
use std::hash::{BuildHasher, BuildHasherDefault, Hash};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use crate::common::now;
use async_mutex_lite::{
    Borrowed, DefaultHasher, Guard, Guards, Handle, KeyedMutex, Lock, LockMany, Mode, RandomState, Stopped, Ticket,
};

/// A key that cannot be printed.
#[derive(PartialEq, Eq, Hash)]
struct Key(u8);

/// A hasher that is not `Default`, not `Clone`, not unwind safe.
struct Hasher(fn() -> hash_map::DefaultHasher, #[allow(dead_code)] Cell<u8>);

impl BuildHasher for Hasher {
    type Hasher = hash_map::DefaultHasher;

    fn build_hasher(&self) -> Self::Hasher {
        self.0()
    }
}

fn send<T: Send>(value: T) -> T {
    value
}

fn is_static<T: 'static>(value: T) -> T {
    value
}

#[test]
fn a_mutex_and_its_guards_are_send_and_sync_when_the_key_is_send() {
    fn send_sync<T: Send + Sync + Debug>() {}
    type PlainKey = std::cell::Cell<u8>; // `Send`, not `Sync`
    send_sync::<KeyedMutex<PlainKey>>();
    send_sync::<Guard<Borrowed<'_, PlainKey>>>();
    send_sync::<Guard<Arc<KeyedMutex<PlainKey>>>>();
    send_sync::<Guards<Borrowed<'_, PlainKey>>>();
    send_sync::<Guards<Arc<KeyedMutex<PlainKey>>>>();
    send_sync::<Stopped>();
    send_sync::<RandomState>();
    send_sync::<DefaultHasher>();
    send_sync::<Guard<Borrowed<'_, PlainKey>>>();
    send_sync::<Guard<Arc<KeyedMutex<PlainKey>>>>();
    fn ticket<T: Send + Sync + Unpin + Debug>() {}
    ticket::<Ticket<Borrowed<'_, PlainKey>>>();
    ticket::<Ticket<Arc<KeyedMutex<PlainKey>>>>();
}

#[test]
fn a_mutex_may_be_used_after_a_panic_whatever_its_key_and_hasher() {
    fn unwind_safe<T: UnwindSafe + RefUnwindSafe>() {}
    unwind_safe::<KeyedMutex<Rc<Cell<u8>>, Hasher>>();
    unwind_safe::<KeyedMutex<u8>>();
}

#[test]
fn futures_are_send_when_their_parts_are() {
    let mutex = Arc::new(KeyedMutex::<String>::new());
    let key = || String::from("key");
    drop(send(mutex.lock(key())));
    drop(is_static(send(mutex.arc().lock(key()))));
    drop(send(mutex.run(key(), async || futures_lite::future::yield_now().await)));
    drop(send(mutex.run_or_stop(key(), async || Ok::<_, Stopped>(()))));
    drop(send(mutex.ticket(key()).run(async || ())));
    drop(is_static(send(mutex.arc().ticket(key()).run_or_stop(async || Err::<(), _>(())))));
    drop(send(mutex.lock_many([key()])));
    drop(is_static(send(mutex.arc().lock_many([key()]))));
    drop(send(mutex.lock(key()).unless(async {})));
    drop(is_static(send(mutex.arc().lock(key()).unless(async {}))));
    drop(send(mutex.shared().lock(key())));
    drop(is_static(send(mutex.arc().shared().lock(key()))));
    #[cfg(feature = "idle")]
    drop((send(mutex.idle("key")), send(mutex.all_idle())));
    drop(send(mutex.try_lock(key()).unwrap().run_or_stop(async || Ok::<_, Stopped>(()))));
    drop(is_static(send(mutex.arc().try_lock(key()).unwrap().run_or_stop(async || Err::<(), _>(())))));
    // A task that borrows, and one that is not `Send` on an executor of one thread.
    let mut borrowed = 0;
    let task = async || borrowed += 1;
    now(send(mutex.run(key(), task))).unwrap();
    assert_eq!(borrowed, 1);
    let shared = Rc::new(Cell::new(0));
    now(mutex.run(key(), async || shared.set(1))).unwrap();
    assert_eq!(shared.get(), 1);
}

#[test]
fn futures_are_send_in_generic_code() {
    async fn locked<K: Eq + Hash + Send, S: BuildHasher + Sync + Send>(mutex: &KeyedMutex<K, S>, key: K) -> usize {
        let _guard = mutex.lock(key).await;
        futures_lite::future::yield_now().await;
        mutex.len()
    }
    fn boxed<'a, K, F>(mutex: &'a KeyedMutex<K>, key: K, job: F) -> Pin<Box<dyn Future<Output = u32> + Send + 'a>>
    where
        K: Eq + Hash + Send,
        F: Future<Output = u32> + Send + 'a,
    {
        Box::pin(async move { mutex.run(key, async move || job.await).await.unwrap() })
    }
    type Job = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = u32> + Send>> + Send>;
    async fn work(mutex: Arc<KeyedMutex<u32>>, job: Job) -> Result<u32, Stopped> {
        mutex.arc().ticket(7).run(async move || job().await).await
    }
    let mutex = Arc::new(KeyedMutex::<u32>::new());
    assert_eq!(smol::block_on(async { send(locked(&mutex, 7)).await }), 1);
    assert_eq!(smol::block_on(boxed(&mutex, 7, async { 8 })), 8);
    assert_eq!(smol::block_on(smol::spawn(work(mutex, Box::new(|| Box::pin(async { 9 }))))), Ok(9));
}

type Locks = Arc<KeyedMutex<String>>;
type Borrow = Borrowed<'static, String>;

/// All that has a name, in a struct of a crate that is not this one.
#[derive(Debug)]
#[allow(dead_code, reason = "it is printed")]
struct Named<H: Handle> {
    mode: Mode<H>,
    lock: Lock<H>,
    ticket: Ticket<H>,
    many: LockMany<H>,
    guard: Guard<H>,
    guards: Guards<H>,
}

fn named<H: Handle<Key = String, Hasher = RandomState>>(mode: Mode<H>) -> Named<H> {
    let m = || mode.clone();
    Named {
        mode: m(),
        lock: m().lock("waits".into()),
        ticket: m().ticket("waits".into()),
        many: m().lock_many(["waits".into()]),
        guard: now(m().lock("one".into())),
        guards: now(m().lock_many(["two".into()])),
    }
}

#[test]
fn each_type_can_be_named_and_printed_by_code_that_is_generic_over_how_it_has_the_mutex() {
    fn print<H: Handle>(named: &Named<H>) -> String {
        format!("{named:?}")
    }
    static MUTEX: KeyedMutex<String> = KeyedMutex::new();
    let printed = "Named { mode: Mode(..), lock: Lock(..), ticket: Ticket(..), many: LockMany(..), guard: Guard(..), \
                   guards: Guards(..) }";
    assert_eq!(print(&named(MUTEX.shared())), printed);
    assert_eq!(print(&named(Locks::default().arc().shared())), printed);
}

#[test]
fn all_are_unpin_send_and_sync_but_what_holds_a_key_that_is_not_sync() {
    fn all<T: Unpin + Send + Sync + UnwindSafe>() {}
    fn movable<T: Unpin + Send>() {}
    type PlainKey = Cell<u8>; // `Send`, not `Sync`
    all::<(Mode<Locks>, Lock<Locks>, Ticket<Locks>, LockMany<Locks>, Guard<Locks>, Guards<Locks>)>();
    all::<(Mode<Borrow>, Lock<Borrow>, Ticket<Borrow>, LockMany<Borrow>, Guard<Borrow>, Guards<Borrow>)>();
    all::<Mode<Arc<KeyedMutex<PlainKey>>>>();
    movable::<(Lock<Arc<KeyedMutex<PlainKey>>>, LockMany<Arc<KeyedMutex<PlainKey>>>)>();
    movable::<(Lock<Borrowed<'_, PlainKey>>, LockMany<Borrowed<'_, PlainKey>>)>();
}

#[test]
fn a_guard_may_live_in_a_struct_and_a_ticket_in_a_collection() {
    struct Session<'a> {
        name: String,
        _guard: Guard<Borrowed<'a, String>>,
    }
    struct Owned {
        _guard: Guard<Arc<KeyedMutex<String>>>,
    }
    let mutex = Arc::new(KeyedMutex::<String>::new());
    let session = Session { name: "alice".into(), _guard: now(mutex.lock("alice".into())) };
    let owned = Owned { _guard: now(mutex.arc().lock("bob".into())) };
    let mut queue: VecDeque<_> = (0..3).map(|_| mutex.arc().ticket(session.name.clone())).collect();
    assert_eq!((mutex.len(), mutex.state(&session.name).waiting), (2, 3));
    drop((session, owned));
    while let Some(ticket) = queue.pop_front() {
        drop(now(ticket).unwrap());
    }
    assert!(mutex.is_empty());
}

#[test]
fn keys_need_neither_clone_nor_static_and_hashers_not_default() {
    let text = String::from("borrowed");
    let mutex = KeyedMutex::with_hasher(Hasher(hash_map::DefaultHasher::new, Cell::new(0)));
    drop(now(mutex.lock(text.as_str())));
    assert!(!mutex.is_locked("borrowed"));
    let owned: KeyedMutex<Box<dyn FnOnce()>, Hasher> =
        KeyedMutex::with_hasher(Hasher(hash_map::DefaultHasher::new, Cell::new(0)));
    assert_eq!(owned.len(), 0); // `len` asks nothing of the key
}

#[test]
fn keys_can_be_asked_for_by_what_they_borrow_as() {
    let mutex = KeyedMutex::<String>::new();
    let guard = now(mutex.lock(String::from("alice")));
    assert!(mutex.is_locked("alice") && !mutex.is_locked("bob"));
    assert_eq!((mutex.state("alice").waiting, mutex.stop("alice")), (0, 0));
    drop(guard);
}

#[test]
fn a_guard_of_a_longer_life_may_stand_for_one_of_a_shorter() {
    fn shorten<'a>(guard: Guard<Borrowed<'static, &'static str>>) -> Guard<Borrowed<'a, &'static str>> {
        guard
    }
    static MUTEX: KeyedMutex<&str> = KeyedMutex::new();
    drop(shorten(MUTEX.try_lock("key").unwrap()));
    fn all<'a>(
        guards: Guards<Borrowed<'static, &'static str>>,
        ticket: Ticket<Borrowed<'static, &'static str>>,
    ) -> (Guards<Borrowed<'a, &'static str>>, Ticket<Borrowed<'a, &'static str>>) {
        (guards, ticket)
    }
    drop(all(now(MUTEX.lock_many(["key"])), MUTEX.ticket("other")));
}

/// `Debug` is called where nobody expects a lock: under one of a shard, say.
#[test]
fn a_mutex_may_be_printed_under_the_lock_of_its_shard() {
    let mutex = KeyedMutex::<u8>::new();
    let _guard = mutex.try_lock(1);
    mutex.for_each_locked(|key, state| {
        assert_eq!(format!("{mutex:?} {key} {state:?}").find("KeyedMutex(..) 1"), Some(0))
    });
    assert!(mutex.ticket_if(1, |_| format!("{mutex:?}").is_empty()).is_none());
}

#[test]
fn default_and_new_are_the_same() {
    let mutex: KeyedMutex<u8, BuildHasherDefault<hash_map::DefaultHasher>> = KeyedMutex::default();
    assert!(mutex.is_empty());
    static NEW: KeyedMutex<u8> = KeyedMutex::new();
    assert!(NEW.is_empty());
    static WITH: KeyedMutex<u8, RandomState> = KeyedMutex::with_hasher(RandomState::new());
    assert!(WITH.is_empty());
}

#[test]
fn they_print_without_asking_anything_of_the_key() {
    let mutex = Arc::new(KeyedMutex::<Key>::new());
    let key = || Key(1);
    let guard = mutex.try_lock(key()).unwrap();
    assert_eq!(format!("{mutex:?}"), "KeyedMutex(..)");
    assert_eq!(format!("{guard:?}"), "Guard(..)");
    assert_eq!(format!("{:?}", mutex.ticket(key())), "Ticket(..)");
    assert_eq!(format!("{:?}", mutex.arc().shared().ticket(key())), "Ticket(..)");
    drop(guard);
    assert_eq!(format!("{:?}", mutex.arc().shared().try_lock(key()).unwrap()), "Guard(..)");
    let many = Arc::new(KeyedMutex::<u8>::new());
    assert_eq!(format!("{:?}", now(many.lock_many([1, 2, 1]))), "Guards(..)");
    assert_eq!(format!("{:?}", now(many.arc().lock_many([1]))), "Guards(..)");
    assert_eq!(format!("{RandomState:?}"), "RandomState");
}

#[test]
fn stopped_is_an_error_like_others() {
    fn error<T: Error + Copy + Eq + Send + Sync + 'static>(_: T) {}
    error(Stopped);
    fn question_mark() -> Result<(), Box<dyn Error>> {
        Err(Stopped)?
    }
    assert!(question_mark().unwrap_err().is::<Stopped>());
}

#[test]
fn a_future_of_lock_is_small() {
    let mutex = KeyedMutex::<u64>::new();
    let size = size_of_val(&mutex.lock(0));
    println!("the future of lock(0_u64) takes {size} bytes");
    assert!(size < 200);
    fn output<T>(_: impl Future<Output = T>) -> usize {
        size_of::<T>()
    }
    assert!(output(mutex.lock(0)) <= 40);
}
