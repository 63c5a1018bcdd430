//! Carries a script out on the crate and on the reference, and compares.

use std::any::{Any, TypeId};
use std::borrow::Borrow;
use std::cell::Cell;
use std::fmt::{Debug, Write as _};
use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

use async_mutex_lite::{Borrowed, Guard, Guards, KeyState, KeyedMutex, LockMany, Mode as View, Stopped, Ticket};

use super::reference::{Id, Polled, Reference};
use super::script::{Admit, By, End, Mode, Name, Op, Pick, Script, Spare, Standing, Start, Task};

/// A key that counts how many of its kind are alive.
struct Key {
    name: Name,
    alive: Arc<AtomicUsize>,
}

impl Key {
    fn new(name: Name, alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Relaxed);
        Self { name, alive: alive.clone() }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Relaxed);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.name.cmp(&other.name)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u8(*self as u8);
    }
}

impl Borrow<Name> for Key {
    fn borrow(&self) -> &Name {
        &self.name
    }
}

/// All keys collide.
#[allow(dead_code, reason = "not for every test")]
#[derive(Default)]
pub(crate) struct OneForAll;

impl BuildHasher for OneForAll {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self
    }
}

impl Hasher for OneForAll {
    fn write(&mut self, _: &[u8]) {}

    fn finish(&self) -> u64 {
        0x5151_5151_5151_5151
    }
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// The panic of a task or of an admission closure, thrown past the panic hook.
struct Planned;

fn panic_as_planned() -> ! {
    resume_unwind(Box::new(Planned))
}

/// Passes on every panic but the planned one.
fn unplanned(payload: Box<dyn Any + Send>) {
    if !payload.is::<Planned>() {
        resume_unwind(payload);
    }
}

type Mutex<S> = KeyedMutex<Key, S>;
type Tasked = Result<Result<(), ()>, Stopped>;

/// What a future returns.
enum Output<'a, S> {
    Held(Held<'a, S>),
    GaveUp,
    #[cfg(feature = "idle")]
    Idle,
    Tasked(Tasked),
}

/// Held, to be dropped; some are to be stopped or downgraded as well.
#[allow(dead_code)]
enum Held<'a, S> {
    Guard(Guard<Borrowed<'a, Key, S>>),
    GuardArc(Guard<Arc<KeyedMutex<Key, S>>>),
    Guards(Guards<Borrowed<'a, Key, S>>),
    GuardsArc(Guards<Arc<KeyedMutex<Key, S>>>),
}

impl<S> Held<'_, S> {
    fn downgrade(self) -> Self {
        match self {
            Self::Guard(guard) => Self::Guard(guard.downgrade()),
            Self::GuardArc(guard) => Self::GuardArc(guard.downgrade()),
            _ => unreachable!("cannot be downgraded"),
        }
    }

    fn stop(self) {
        match self {
            Self::Guard(guard) => guard.stop(),
            Self::GuardArc(guard) => guard.stop(),
            _ => unreachable!("cannot be stopped"),
        }
    }
}

enum Thing<'a, S> {
    Gone,
    Future(Pin<Box<dyn Future<Output = Output<'a, S>> + 'a>>),
    Ticket(Ticket<Borrowed<'a, Key, S>>),
    TicketArc(Ticket<Arc<KeyedMutex<Key, S>>>),
    Held(Held<'a, S>),
}

impl<'a, S> Thing<'a, S> {
    fn future(future: impl Future<Output = Output<'a, S>> + 'a) -> Self {
        Self::Future(Box::pin(future))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Output<'a, S>> {
        match self {
            Self::Future(future) => future.as_mut().poll(context),
            Self::Ticket(ticket) => Pin::new(ticket).poll(context).map(|turn| unless_stopped(turn.map(Held::Guard))),
            Self::TicketArc(ticket) => {
                Pin::new(ticket).poll(context).map(|turn| unless_stopped(turn.map(Held::GuardArc)))
            }
            Self::Gone | Self::Held(_) => unreachable!("not pollable"),
        }
    }
}

/// What is to be known of a thing besides the thing itself.
struct Actor<'a, S> {
    thing: Thing<'a, S>,
    wakers: [Arc<Count>; 2],
    calls: Rc<Cell<usize>>,
    signal: Rc<Cell<bool>>,
}

struct Driver<'a, S> {
    mutex: &'a Arc<Mutex<S>>,
    alive: Arc<AtomicUsize>,
    actors: Vec<Actor<'a, S>>,
    reference: Reference,
    one_shard: bool,
    /// A task was dropped or ended when its key was no longer locked.
    late: Rc<Cell<bool>>,
    trace: Option<String>,
}

#[cfg(feature = "std")]
const NO_TIME: std::time::Duration = std::time::Duration::ZERO;

/// Whether all keys are in one shard, whatever their hashes.
const ONE_SHARD: bool = cfg!(any(not(feature = "std"), feature = "critical-section", async_mutex_lite_loom));

/// Carries out a script, then drops what is left. `Err` tells what happened, step by step.
pub(crate) fn run<S: BuildHasher + Default + 'static>(script: &Script) -> Result<(), String> {
    carry_out::<S>(script, true)
}

/// The same, faster: it notes what happens only if something goes wrong.
#[allow(dead_code, reason = "for one test")]
pub(crate) fn run_quietly<S: BuildHasher + Default + 'static>(script: &Script) -> Result<(), String> {
    carry_out::<S>(script, false).or_else(|_| run::<S>(script))
}

fn carry_out<S: BuildHasher + Default + 'static>(script: &Script, noting: bool) -> Result<(), String> {
    let mutex = Arc::new(Mutex::<S>::with_hasher(S::default()));
    let mut driver = Driver {
        mutex: &mutex,
        alive: Arc::default(),
        actors: Vec::new(),
        reference: Reference::default(),
        one_shard: ONE_SHARD || TypeId::of::<S>() == TypeId::of::<OneForAll>(),
        late: Rc::default(),
        trace: noting.then(String::new),
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| driver.whole(script)));
    let outcome = outcome.unwrap_or_else(|_| Err("it panicked, see above".into()));
    outcome.map_err(|difference| format!("{}\n{difference}", driver.trace.unwrap_or_default()))
}

fn same<T: PartialEq + Debug>(what: impl FnOnce() -> String, expected: T, found: T) -> Result<(), String> {
    if expected == found { Ok(()) } else { Err(format!("{}: expected {expected:?}, found {found:?}", what())) }
}

fn pick(those: Vec<Id>, Pick(number): Pick) -> Option<Id> {
    let count = those.len().max(1);
    those.get(usize::from(number) % count).copied()
}

impl<'a, S: BuildHasher> Driver<'a, S> {
    fn whole(&mut self, script: &Script) -> Result<(), String> {
        for op in &script.ops {
            self.step(*op)?;
            self.compare()?;
        }
        while let Some(id) = pick(self.reference.all(), Pick(0)) {
            self.drop(id);
            self.compare()?;
        }
        same(|| "keys in an empty table".into(), 0, self.mutex.len())?;
        same(|| "keys alive at the end".into(), 0, self.alive.load(Relaxed))?;
        same(|| "shares in the mutex at the end".into(), 1, Arc::strong_count(self.mutex))?;
        for (id, actor) in self.actors.iter().enumerate() {
            let shares = actor.wakers.each_ref().map(Arc::strong_count);
            same(|| format!("shares in the wakers of #{id} at the end"), [1, 1], shares)?;
        }
        Ok(())
    }

    /// Notes what is done. Scripts are short, so the trace is not in the way.
    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let _ = write!(trace, "\n  {}", line());
        }
    }

    fn key(&self, name: Name) -> Key {
        Key::new(name, &self.alive)
    }

    fn add(&mut self, thing: Thing<'a, S>) {
        let signal = Rc::default();
        self.actors.push(Actor { thing, wakers: Default::default(), calls: Rc::default(), signal });
    }

    fn compare(&self) -> Result<(), String> {
        let mut visited = Vec::new();
        self.mutex.for_each_locked(|key, now| visited.push((key.name, standing(now))));
        visited.sort();
        let locked = Name::ALL.into_iter().filter(|key| self.reference.is_locked(*key));
        same(|| "for_each_locked".into(), locked.map(|key| (key, self.reference.standing(key))).collect(), visited)?;
        for key in Name::ALL {
            same(|| format!("is_locked({key:?})"), self.reference.is_locked(key), self.mutex.is_locked(&key))?;
            same(|| format!("waiting({key:?})"), self.reference.standing(key).2, self.mutex.state(&key).waiting)?;
        }
        same(|| "len()".into(), self.reference.len(), self.mutex.len())?;
        same(|| "is_empty()".into(), self.reference.len() == 0, self.mutex.is_empty())?;
        same(|| "keys alive".into(), self.reference.keys_alive(), self.alive.load(Relaxed))?;
        same(|| "a key was unlocked while its task was there".into(), false, self.late.get())?;
        for (id, actor) in self.actors.iter().enumerate() {
            let wakes = actor.wakers.each_ref().map(|waker| waker.0.load(Relaxed));
            same(|| format!("wake-ups of #{id}"), self.reference.wakes(id), wakes)?;
            same(|| format!("calls of the task of #{id}"), self.reference.calls(id), actor.calls.get())?;
        }
        Ok(())
    }

    fn step(&mut self, op: Op) -> Result<(), String> {
        match op {
            Op::Start(start) => self.start(start),
            Op::Poll(which, waker) => match pick(self.reference.pollable(), which) {
                Some(id) => self.poll(id, waker),
                None => Ok(()),
            },
            Op::Drop(which) => {
                if let Some(id) = pick(self.reference.all(), which) {
                    self.drop(id);
                }
                Ok(())
            }
            Op::StopGuard(which) => {
                if let Some(id) = pick(self.reference.guards(), which) {
                    self.note(|| format!("#{id}: guard.stop()"));
                    self.reference.stop_guard(id);
                    match self.take(id) {
                        Thing::Held(held) => held.stop(),
                        _ => return Err(format!("#{id} is not a guard")),
                    }
                }
                Ok(())
            }
            Op::Downgrade(which) => {
                if let Some(id) = pick(self.reference.guards(), which) {
                    self.note(|| format!("#{id}: guard.downgrade()"));
                    self.reference.downgrade(id);
                    self.actors[id].thing = match self.take(id) {
                        Thing::Held(held) => Thing::Held(held.downgrade()),
                        _ => return Err(format!("#{id} is not a guard")),
                    };
                }
                Ok(())
            }
            Op::StopKey(key) => {
                self.note(|| format!("stop({key:?})"));
                same(|| "stopped".into(), self.reference.stop(key), self.mutex.stop(&key))
            }
            Op::StopAll => {
                self.note(|| "stop_all()".into());
                let expected = Name::ALL.iter().map(|key| self.reference.stop(*key)).sum();
                same(|| "stopped".into(), expected, self.mutex.stop_all())
            }
            Op::Reserve(keys) => {
                self.note(|| format!("reserve({keys}, {keys})"));
                self.mutex.reserve(keys.into(), keys.into());
                Ok(())
            }
            Op::TicketUnless(which) => {
                if let Some(id) = pick(self.reference.tickets(), which) {
                    self.note(|| format!("#{id}: ticket.unless(signal)"));
                    self.reference.ticket_unless(id);
                    let signal = self.signal(id);
                    self.actors[id].thing = match self.take(id) {
                        Thing::Ticket(ticket) => turn_unless(ticket.unless(signal), Held::Guard),
                        Thing::TicketArc(ticket) => turn_unless(ticket.unless(signal), Held::GuardArc),
                        _ => return Err(format!("#{id} is not a ticket")),
                    };
                }
                Ok(())
            }
            Op::Signal(which) => {
                if let Some(id) = pick(self.reference.signals(), which) {
                    self.note(|| format!("#{id}: its signal is ready"));
                    self.reference.signal(id);
                    self.actors[id].signal.set(true);
                }
                Ok(())
            }
            Op::RunTicket(which, task) => {
                if let Some(id) = pick(self.reference.tickets(), which) {
                    self.note(|| format!("#{id}: ticket.run({task:?})"));
                    let name = self.reference.key_of(id).ok_or("not a ticket")?;
                    self.reference.run_ticket(id, task);
                    let body = self.task(name, task, id);
                    let body = move || body();
                    self.actors[id].thing = match (self.take(id), task.or_stop) {
                        (Thing::Ticket(ticket), true) => tasked(ticket.run_or_stop(body)),
                        (Thing::Ticket(ticket), false) => tasked(ticket.run(body)),
                        (Thing::TicketArc(ticket), true) => tasked(ticket.run_or_stop(body)),
                        (Thing::TicketArc(ticket), false) => tasked(ticket.run(body)),
                        _ => return Err(format!("#{id} is not a ticket")),
                    };
                }
                Ok(())
            }
            Op::RunGuard(which, task) => {
                if let Some(id) = pick(self.reference.guards(), which) {
                    let task = Task { or_stop: true, ..task };
                    self.note(|| format!("#{id}: guard.run_or_stop({task:?})"));
                    let name = self.reference.key_of(id).ok_or("not a guard")?;
                    self.reference.run_guard(id, task);
                    let body = self.task(name, task, id);
                    let body = move || body();
                    self.actors[id].thing = match self.take(id) {
                        Thing::Held(Held::Guard(guard)) => tasked(async { Ok(guard.run_or_stop(body).await) }),
                        Thing::Held(Held::GuardArc(guard)) => tasked(async { Ok(guard.run_or_stop(body).await) }),
                        _ => return Err(format!("#{id} is not a guard")),
                    };
                }
                Ok(())
            }
        }
    }

    fn signal(&self, id: Id) -> impl Future<Output = ()> + use<S> {
        let signal = self.actors[id].signal.clone();
        poll_fn(move |_| if signal.get() { Poll::Ready(()) } else { Poll::Pending })
    }

    fn take(&mut self, id: Id) -> Thing<'a, S> {
        std::mem::replace(&mut self.actors[id].thing, Thing::Gone)
    }

    fn drop(&mut self, id: Id) {
        self.note(|| format!("#{id}: drop"));
        self.reference.drop(id);
        drop(self.take(id));
    }

    /// A task's body, and a sentinel in it that must not outlive the lock.
    fn task(&self, name: Name, task: Task, id: Id) -> impl AsyncFnOnce() -> Result<(), ()> + use<'a, S> {
        let calls = self.actors[id].calls.clone();
        let sentinel = Sentinel { mutex: self.mutex, name, late: self.late.clone(), begun: false };
        async move || {
            let mut sentinel = sentinel;
            sentinel.begun = true;
            calls.set(calls.get() + 1);
            let mut pending = task.long;
            poll_fn(|_| if std::mem::take(&mut pending) { Poll::Pending } else { Poll::Ready(()) }).await;
            match task.end {
                End::Ok => Ok(()),
                End::Err => Err(()),
                End::Panic => panic_as_planned(),
            }
        }
    }

    fn start(&mut self, start: Start) -> Result<(), String> {
        let (mutex, id) = (self.mutex, self.actors.len());
        self.note(|| format!("#{id} = {start:?}"));
        match start {
            Start::Lock(name, by, mode) => {
                self.reference.lock(name, mode.limit(), false);
                let key = self.key(name);
                self.add(match by {
                    By::Ref => held(borrowed(mutex, mode).lock(key), Held::Guard),
                    By::Arc => held(arc(mutex, mode).lock(key), Held::GuardArc),
                });
            }
            Start::TryLock(name, by, mode) => {
                let expected = self.reference.try_lock(name, mode.limit());
                let key = self.key(name);
                let found = match by {
                    By::Ref => borrowed(mutex, mode).try_lock(key).map(Held::Guard),
                    By::Arc => arc(mutex, mode).try_lock(key).map(Held::GuardArc),
                };
                let got = found.is_some();
                self.add(found.map_or(Thing::Gone, Thing::Held));
                return same(|| "try_lock got the key".into(), expected, got);
            }
            Start::Wait(name, _, mode) if !self.reference.may_lock(name, mode.limit()) => {
                self.reference.nothing();
                self.add(Thing::Gone);
            }
            Start::Wait(name, by, mode) => {
                self.reference.try_lock(name, mode.limit());
                let key = self.key(name);
                #[cfg(feature = "std")]
                let held = match by {
                    By::Ref => Held::Guard(borrowed(mutex, mode).lock(key).wait()),
                    By::Arc => Held::GuardArc(arc(mutex, mode).lock(key).wait()),
                };
                #[cfg(not(feature = "std"))] // cannot block: the nearest there is
                let held = match by {
                    By::Ref => Held::Guard(borrowed(mutex, mode).try_lock(key).expect("it is free")),
                    By::Arc => Held::GuardArc(arc(mutex, mode).try_lock(key).expect("it is free")),
                };
                self.add(Thing::Held(held));
            }
            Start::Unless(name, by, mode) => {
                self.reference.lock(name, mode.limit(), true);
                self.add(Thing::Gone);
                let (key, signal) = (self.key(name), self.signal(id));
                self.actors[id].thing = match by {
                    By::Ref => held_unless(borrowed(mutex, mode).lock(key).unless(signal), Held::Guard),
                    By::Arc => held_unless(arc(mutex, mode).lock(key).unless(signal), Held::GuardArc),
                };
            }
            Start::LockMany(names, by) => {
                let names: Vec<_> = names.into_iter().flatten().collect();
                self.reference.lock_many(&names.iter().map(|(name, mode)| (*name, mode.limit())).collect::<Vec<_>>());
                let exclusive = names.iter().all(|(_, mode)| *mode == Mode::Exclusive);
                let keys = names.iter().map(|(name, _)| self.key(*name));
                self.add(match (by, exclusive) {
                    (By::Ref, true) => held(mutex.lock_many(keys), Held::Guards),
                    (By::Arc, true) => held(mutex.arc().lock_many(keys), Held::GuardsArc),
                    (By::Ref, false) => {
                        let locks = keys.zip(&names).map(|(key, (_, mode))| borrowed(mutex, *mode).lock(key));
                        held(LockMany::of(locks), Held::Guards)
                    }
                    (By::Arc, false) => {
                        let locks = keys.zip(&names).map(|(key, (_, mode))| arc(mutex, *mode).lock(key));
                        held(LockMany::of(locks), Held::GuardsArc)
                    }
                });
            }
            Start::Run(name, by, mode, task) => {
                self.reference.run(name, mode.limit(), task);
                self.add(Thing::Gone);
                let (key, body) = (self.key(name), self.task(name, task, id));
                let body = move || body();
                self.actors[id].thing = match (by, task.or_stop) {
                    (By::Ref, true) => tasked(borrowed(mutex, mode).run_or_stop(key, body)),
                    (By::Ref, false) => tasked(borrowed(mutex, mode).run(key, body)),
                    (By::Arc, true) => tasked(arc(mutex, mode).run_or_stop(key, body)),
                    (By::Arc, false) => tasked(arc(mutex, mode).run(key, body)),
                };
            }
            Start::Ticket(name, by, mode) => {
                self.reference.ticket(name, mode.limit());
                let key = self.key(name);
                self.add(match by {
                    By::Ref => Thing::Ticket(borrowed(mutex, mode).ticket(key)),
                    By::Arc => Thing::TicketArc(arc(mutex, mode).ticket(key)),
                });
            }
            #[cfg(feature = "idle")]
            Start::Idle(name) => {
                // Of several shards, one cannot say what `all_idle` may miss.
                let name = name.or((!self.one_shard).then_some(Name::A));
                self.reference.idle(name);
                self.add(Thing::future(async move {
                    match name {
                        Some(name) => mutex.idle(&name).await,
                        None => mutex.all_idle().await,
                    }
                    Output::Idle
                }));
            }
            #[cfg(not(feature = "idle"))]
            Start::Idle(_) => {
                self.reference.nothing();
                self.add(Thing::Gone);
            }
            Start::WaitTimeout(name, by, mode) => {
                let expected = self.reference.try_lock(name, mode.limit());
                let key = self.key(name);
                #[cfg(feature = "std")]
                let found = match by {
                    By::Ref => borrowed(mutex, mode).lock(key).wait_timeout(NO_TIME).map(Held::Guard),
                    By::Arc => arc(mutex, mode).lock(key).wait_timeout(NO_TIME).map(Held::GuardArc),
                };
                #[cfg(not(feature = "std"))] // cannot block: the nearest there is
                let found = match by {
                    By::Ref => borrowed(mutex, mode).try_lock(key).map(Held::Guard),
                    By::Arc => arc(mutex, mode).try_lock(key).map(Held::GuardArc),
                };
                let got = found.is_some();
                self.add(found.map_or(Thing::Gone, Thing::Held));
                return same(|| "wait_timeout got the key".into(), expected, got);
            }
            Start::TicketIf(name, by, mode, admit) => return self.ticket_if(name, by, mode, admit),
        }
        Ok(())
    }

    fn ticket_if(&mut self, name: Name, by: By, mode: Mode, admit: Admit) -> Result<(), String> {
        let (mutex, standing_before) = (self.mutex, self.reference.standing(name));
        let expected = self.reference.ticket_if(name, mode.limit(), admit);
        let key = self.key(name);
        let mut seen = None;
        let decide = |now| {
            seen = Some(standing(now));
            admit.decide(standing(now)).unwrap_or_else(|| panic_as_planned())
        };
        let call = AssertUnwindSafe(|| match by {
            By::Ref => borrowed(mutex, mode).ticket_if(key, decide).map(Thing::Ticket),
            By::Arc => arc(mutex, mode).ticket_if(key, decide).map(Thing::TicketArc),
        });
        let found = catch_unwind(call).unwrap_or_else(|payload| {
            unplanned(payload);
            None
        });
        let admitted = found.is_some();
        self.add(found.unwrap_or(Thing::Gone));
        same(|| "how the key stands, as told".into(), Some(standing_before), seen)?;
        same(|| "admitted".into(), expected, admitted)
    }

    fn poll(&mut self, id: Id, waker: Spare) -> Result<(), String> {
        let expected = self.reference.poll(id, waker);
        self.note(|| format!("#{id}: poll with waker {waker:?}: {expected:?}"));
        let actor = &mut self.actors[id];
        let own = Waker::from(actor.wakers[waker as usize].clone());
        let polled = catch_unwind(AssertUnwindSafe(|| actor.thing.poll(&mut Context::from_waker(&own))));
        if !matches!(polled, Ok(Poll::Pending)) {
            actor.thing = Thing::Gone;
        }
        let found = match polled {
            Ok(Poll::Pending) => Polled::Pending,
            Ok(Poll::Ready(Output::Held(held))) => {
                actor.thing = Thing::Held(held);
                Polled::Guard
            }
            Ok(Poll::Ready(Output::GaveUp)) => Polled::GaveUp,
            #[cfg(feature = "idle")]
            Ok(Poll::Ready(Output::Idle)) => Polled::Idle,
            Ok(Poll::Ready(Output::Tasked(Err(Stopped)))) => Polled::Stopped,
            Ok(Poll::Ready(Output::Tasked(Ok(result)))) => Polled::Finished(result),
            Err(payload) => {
                unplanned(payload);
                Polled::Panicked
            }
        };
        same(|| "the poll's result".into(), expected, found)
    }
}

/// Lives in a task's body: when it goes, its key must still be locked.
struct Sentinel<'a, S: BuildHasher> {
    mutex: &'a Arc<Mutex<S>>,
    name: Name,
    late: Rc<Cell<bool>>,
    begun: bool,
}

impl<S: BuildHasher> Drop for Sentinel<'_, S> {
    fn drop(&mut self) {
        if self.begun && !self.mutex.is_locked(&self.name) {
            self.late.set(true);
        }
    }
}

/// A view of the mutex.
fn borrowed<S>(mutex: &Mutex<S>, mode: Mode) -> View<Borrowed<'_, Key, S>> {
    match mode.limit() {
        0 => mutex.exclusive(),
        usize::MAX => mutex.shared(),
        max => mutex.at_most(max as u32),
    }
}

fn arc<S>(mutex: &Arc<Mutex<S>>, mode: Mode) -> View<Arc<Mutex<S>>> {
    match mode.limit() {
        0 => mutex.arc(),
        usize::MAX => mutex.arc().shared(),
        max => mutex.arc().at_most(max as u32),
    }
}

fn standing(KeyState { holders, shared, waiting, .. }: KeyState) -> Standing {
    (holders, shared, waiting)
}

fn held<'a, S, G: 'a>(future: impl Future<Output = G> + 'a, wrap: fn(G) -> Held<'a, S>) -> Thing<'a, S> {
    Thing::future(async move { Output::Held(wrap(future.await)) })
}

fn held_unless<'a, S, G: 'a>(
    future: impl Future<Output = Result<G, ()>> + 'a,
    wrap: fn(G) -> Held<'a, S>,
) -> Thing<'a, S> {
    Thing::future(async move { future.await.map_or(Output::GaveUp, |guard| Output::Held(wrap(guard))) })
}

fn turn_unless<'a, S, G: 'a>(
    future: impl Future<Output = Result<Result<G, Stopped>, ()>> + 'a,
    wrap: fn(G) -> Held<'a, S>,
) -> Thing<'a, S> {
    Thing::future(async move { future.await.map_or(Output::GaveUp, |turn| unless_stopped(turn.map(wrap))) })
}

fn unless_stopped<S>(turn: Result<Held<'_, S>, Stopped>) -> Output<'_, S> {
    turn.map_or_else(|stopped| Output::Tasked(Err(stopped)), Output::Held)
}

fn tasked<'a, S>(future: impl Future<Output = Tasked> + 'a) -> Thing<'a, S> {
    Thing::future(async move { Output::Tasked(future.await) })
}
