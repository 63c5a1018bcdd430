//! The reference: a map of queues. It is slow, sequential, and meant to be obviously right.

use std::collections::{BTreeMap, VecDeque};

use super::script::{Admit, End, Name, Spare, Standing, Task};

/// Whatever a script made: a future, a ticket, a guard. Numbered in the order in which they were made.
pub(crate) type Id = usize;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Polled {
    Pending,
    /// A guard, or the guards of `lock_many`.
    Guard,
    /// `unless` gave up.
    GaveUp,
    Stopped,
    Idle,
    Finished(Result<(), ()>),
    Panicked,
}

/// Who holds a key, max it, or waits for it.
#[derive(Clone, PartialEq)]
struct Member {
    id: Id,
    /// It is let in while fewer than these share the key; 0: it wants it for itself.
    max: usize,
    /// A job or a ticket: a stop reaches it while it waits.
    stoppable: bool,
    /// The waker of its last poll.
    waker: Option<Spare>,
}

/// A locked key: its holders, of which there is one unless they share it, and its waiters.
#[derive(Clone, Default, PartialEq)]
struct Busy {
    inside: Vec<Member>,
    waiting: VecDeque<Member>,
}

#[derive(Clone, PartialEq)]
enum State {
    Gone,
    Lock {
        key: Name,
        max: usize,
        /// For `unless`: whether its signal is ready.
        signal: Option<bool>,
    },
    Many {
        /// Sorted, and each once, with its limit.
        keys: Vec<(Name, usize)>,
        has: usize,
    },
    Ticket {
        key: Name,
        max: usize,
        /// As of a lock.
        signal: Option<bool>,
    },
    Task {
        key: Name,
        max: usize,
        task: Task,
        /// Once it has been called: how often it still returns pending.
        running: Option<usize>,
    },
    Guard {
        key: Name,
        max: usize,
    },
    Guards,
    /// Watches a key, or all.
    Idle {
        key: Option<Name>,
        /// Once it has been polled: the waker of its last poll, until it is told.
        waker: Option<Spare>,
    },
}

#[derive(Clone, PartialEq)]
struct Actor {
    state: State,
    polled: bool,
    /// A stop has taken it out of its queue.
    stopped: bool,
    calls: usize,
    wakes: [usize; 2],
}

#[derive(Clone, Default, PartialEq)]
pub(crate) struct Reference {
    busy: BTreeMap<Name, Busy>,
    actors: Vec<Actor>,
}

/// What can be asked.
impl Reference {
    pub(crate) fn standing(&self, key: Name) -> Standing {
        self.busy
            .get(&key)
            .map_or((0, false, 0), |busy| (busy.inside.len(), busy.inside[0].max > 0, busy.waiting.len()))
    }

    pub(crate) fn is_locked(&self, key: Name) -> bool {
        self.busy.contains_key(&key)
    }

    pub(crate) fn len(&self) -> usize {
        self.busy.len()
    }

    #[allow(dead_code, reason = "for one test")]
    pub(crate) fn actors(&self) -> usize {
        self.actors.len()
    }

    pub(crate) fn calls(&self, id: Id) -> usize {
        self.actors[id].calls
    }

    pub(crate) fn wakes(&self, id: Id) -> [usize; 2] {
        self.actors[id].wakes
    }

    /// Every busy key has one; futures that have not been polled have theirs still.
    pub(crate) fn keys_alive(&self) -> usize {
        let owned = self.actors.iter().map(|actor| match &actor.state {
            State::Lock { .. } | State::Task { .. } if !actor.polled => 1,
            State::Many { keys, .. } if !actor.polled => keys.len(),
            // The one that it waits for has been dropped: the queue has one.
            State::Many { keys, has } => keys.len() - has - 1,
            _ => 0,
        });
        self.len() + owned.sum::<usize>()
    }

    pub(crate) fn all(&self) -> Vec<Id> {
        self.those(|state| *state != State::Gone)
    }

    pub(crate) fn pollable(&self) -> Vec<Id> {
        self.those(|state| !matches!(state, State::Gone | State::Guard { .. } | State::Guards))
    }

    /// Those of which one can make something else.
    pub(crate) fn guards(&self) -> Vec<Id> {
        self.those(|state| matches!(state, State::Guard { .. }))
    }

    pub(crate) fn tickets(&self) -> Vec<Id> {
        self.those(|state| matches!(state, State::Ticket { signal: None, .. }))
    }

    /// Of a ticket or a guard.
    pub(crate) fn key_of(&self, id: Id) -> Option<Name> {
        match self.actors[id].state {
            State::Ticket { key, .. } | State::Guard { key, .. } => Some(key),
            _ => None,
        }
    }

    pub(crate) fn signals(&self) -> Vec<Id> {
        self.those(|state| matches!(state, State::Lock { signal: Some(_), .. } | State::Ticket { signal: Some(_), .. }))
    }

    fn those(&self, which: impl Fn(&State) -> bool) -> Vec<Id> {
        (0..self.actors.len()).filter(|id| which(&self.actors[*id].state)).collect()
    }
}

/// What can be done.
impl Reference {
    fn add(&mut self, state: State) -> Id {
        self.actors.push(Actor { state, polled: false, stopped: false, calls: 0, wakes: [0; 2] });
        self.actors.len() - 1
    }

    pub(crate) fn nothing(&mut self) {
        self.add(State::Gone);
    }

    pub(crate) fn lock(&mut self, key: Name, max: usize, unless: bool) {
        self.add(State::Lock { key, max, signal: unless.then_some(false) });
    }

    /// Of two for one key the stronger counts: one that is exclusive, which has the lowest number, or the lower limit.
    pub(crate) fn lock_many(&mut self, keys: &[(Name, usize)]) {
        let mut strongest = BTreeMap::new();
        for &(key, max) in keys {
            let strongest = strongest.entry(key).or_insert(max);
            *strongest = max.min(*strongest);
        }
        self.add(State::Many { keys: strongest.into_iter().collect(), has: 0 });
    }

    pub(crate) fn run(&mut self, key: Name, max: usize, task: Task) {
        self.add(State::Task { key, max, task, running: None });
    }

    /// Whether a key can be had at once.
    pub(crate) fn may_lock(&self, key: Name, max: usize) -> bool {
        self.busy.get(&key).is_none_or(|busy| Self::may_join(busy, max))
    }

    /// Returns whether it got the key.
    pub(crate) fn try_lock(&mut self, key: Name, max: usize) -> bool {
        let may = self.may_lock(key, max);
        if may {
            let id = self.add(State::Guard { key, max });
            self.join(key, id, false, max);
        } else {
            self.nothing();
        }
        may
    }

    /// Returns whether it was admitted.
    pub(crate) fn ticket_if(&mut self, key: Name, max: usize, admit: Admit) -> bool {
        let admitted = admit.decide(self.standing(key)) == Some(true);
        if admitted {
            self.ticket(key, max);
        } else {
            self.nothing();
        }
        admitted
    }

    pub(crate) fn ticket(&mut self, key: Name, max: usize) {
        let id = self.add(State::Ticket { key, max, signal: None });
        self.join(key, id, true, max);
        // It has no key of its own, and it is in the queue.
        self.actors[id].polled = true;
    }

    pub(crate) fn idle(&mut self, key: Option<Name>) {
        self.add(State::Idle { key, waker: None });
    }

    /// It has the key, and runs the task when it is polled.
    pub(crate) fn run_guard(&mut self, id: Id, task: Task) {
        if let State::Guard { key, max } = self.actors[id].state {
            self.actors[id].state = State::Task { key, max, task, running: None };
            self.actors[id].polled = true; // it has no key of its own
        }
    }

    pub(crate) fn run_ticket(&mut self, id: Id, task: Task) {
        if let State::Ticket { key, max, .. } = self.actors[id].state {
            self.actors[id].state = State::Task { key, max, task, running: None };
        }
    }

    pub(crate) fn ticket_unless(&mut self, id: Id) {
        if let State::Ticket { signal, .. } = &mut self.actors[id].state {
            *signal = Some(false);
        }
    }

    pub(crate) fn signal(&mut self, id: Id) {
        if let State::Lock { signal, .. } | State::Ticket { signal, .. } = &mut self.actors[id].state {
            *signal = Some(true);
        }
    }

    /// Returns how many it stopped.
    pub(crate) fn stop(&mut self, key: Name) -> usize {
        let Some(busy) = self.busy.get_mut(&key) else { return 0 };
        let (stopped, waiting): (VecDeque<_>, _) = busy.waiting.drain(..).partition(|member| member.stoppable);
        busy.waiting = waiting;
        for member in &stopped {
            self.actors[member.id].stopped = true;
            if let Some(waker) = member.waker {
                self.actors[member.id].wakes[waker as usize] += 1;
            }
        }
        self.advance(key);
        stopped.len()
    }

    pub(crate) fn stop_guard(&mut self, id: Id) {
        if let State::Guard { key, .. } = self.actors[id].state {
            self.stop(key);
            self.drop(id);
        }
    }

    pub(crate) fn downgrade(&mut self, id: Id) {
        if let State::Guard { key, max } = &mut self.actors[id].state {
            *max = usize::MAX;
            let key = *key;
            let inside = &mut self.busy.get_mut(&key).expect("it has it").inside;
            inside.iter_mut().find(|member| member.id == id).expect("it is inside").max = usize::MAX;
            self.advance(key);
        }
    }

    pub(crate) fn drop(&mut self, id: Id) {
        if let State::Task { key, task: Task { or_stop: true, .. }, running: Some(_), .. } = self.actors[id].state {
            self.stop(key);
        }
        for key in Name::ALL {
            self.leave(key, id);
        }
        self.actors[id].state = State::Gone;
    }

    pub(crate) fn poll(&mut self, id: Id, waker: Spare) -> Polled {
        if self.actors[id].stopped {
            self.actors[id].state = State::Gone;
            return Polled::Stopped;
        }
        let polled_before = std::mem::replace(&mut self.actors[id].polled, true);
        match self.actors[id].state.clone() {
            State::Gone | State::Guard { .. } | State::Guards => unreachable!("not pollable"),
            State::Lock { key, max, signal } | State::Ticket { key, max, signal } => {
                let stoppable = matches!(self.actors[id].state, State::Ticket { .. });
                if self.reach(key, id, stoppable, max, waker) {
                    self.actors[id].state = State::Guard { key, max };
                    Polled::Guard
                } else if signal == Some(true) {
                    self.drop(id);
                    Polled::GaveUp
                } else {
                    Polled::Pending
                }
            }
            State::Idle { key, waker: watching } => {
                let told = polled_before && watching.is_none();
                let free = key.map_or(self.len() == 0, |key| !self.is_locked(key));
                if told || !polled_before && free {
                    self.actors[id].state = State::Gone;
                    Polled::Idle
                } else {
                    self.actors[id].state = State::Idle { key, waker: Some(waker) };
                    Polled::Pending
                }
            }
            State::Many { keys, mut has } => {
                while has < keys.len() && self.reach(keys[has].0, id, false, keys[has].1, waker) {
                    has += 1;
                }
                if has < keys.len() {
                    self.actors[id].state = State::Many { keys, has };
                    Polled::Pending
                } else {
                    self.actors[id].state = State::Guards;
                    Polled::Guard
                }
            }
            State::Task { key, max, task, running } => {
                let mut pending = match running {
                    Some(pending) => pending,
                    None if !self.reach(key, id, true, max, waker) => return Polled::Pending,
                    None => {
                        self.actors[id].calls += 1;
                        usize::from(task.long)
                    }
                };
                if pending > 0 {
                    pending -= 1;
                    self.actors[id].state = State::Task { key, max, task, running: Some(pending) };
                    return Polled::Pending;
                }
                if task.or_stop && task.end != End::Ok {
                    self.stop(key);
                }
                self.leave(key, id);
                self.actors[id].state = State::Gone;
                match task.end {
                    End::Ok => Polled::Finished(Ok(())),
                    End::Err => Polled::Finished(Err(())),
                    End::Panic => Polled::Panicked,
                }
            }
        }
    }

    /// Joins the queue, if it has not yet. Returns whether it has the key; if so, it begins.
    fn reach(&mut self, key: Name, id: Id, stoppable: bool, max: usize, waker: Spare) -> bool {
        let has_joined = |busy: &Busy| busy.inside.iter().chain(&busy.waiting).any(|member| member.id == id);
        if !self.busy.get(&key).is_some_and(has_joined) {
            self.join(key, id, stoppable, max);
        }
        let busy = self.busy.get_mut(&key).expect("it has joined");
        if busy.inside.iter().any(|member| member.id == id) {
            return true;
        }
        let me = busy.waiting.iter_mut().find(|member| member.id == id).expect("it has joined");
        me.waker = Some(waker);
        false
    }

    /// Whether one may go inside a busy key at once: both kinds wait in one queue, and nobody overtakes.
    fn may_join(busy: &Busy, max: usize) -> bool {
        busy.waiting.is_empty() && busy.inside[0].max > 0 && busy.inside.len() < max
    }

    fn join(&mut self, key: Name, id: Id, stoppable: bool, max: usize) {
        let at_once = self.busy.get(&key).is_none_or(|busy| Self::may_join(busy, max));
        let busy = self.busy.entry(key).or_default();
        let member = Member { id, max, stoppable, waker: None };
        if at_once {
            busy.inside.push(member);
        } else {
            busy.waiting.push_back(member);
        }
    }

    /// Gives the key, or a share of it, back, or the place in the queue.
    fn leave(&mut self, key: Name, id: Id) {
        let Some(busy) = self.busy.get_mut(&key) else { return };
        busy.inside.retain(|member| member.id != id);
        busy.waiting.retain(|member| member.id != id);
        self.advance(key);
    }

    /// The waiters that can hold the key now are granted it, in order, and woken. A free key is removed.
    fn advance(&mut self, key: Name) {
        let Some(busy) = self.busy.get_mut(&key) else { return };
        while let Some(next) = busy.waiting.front() {
            let all_share = busy.inside.iter().all(|member| member.max > 0);
            if !(busy.inside.is_empty() || all_share && busy.inside.len() < next.max) {
                break;
            }
            let mut next = busy.waiting.pop_front().expect("it is there");
            if let Some(waker) = next.waker.take() {
                self.actors[next.id].wakes[waker as usize] += 1;
            }
            busy.inside.push(next);
        }
        if busy.inside.is_empty() {
            self.busy.remove(&key);
            let all = self.busy.is_empty();
            for actor in &mut self.actors {
                match &mut actor.state {
                    State::Idle { key: watched, waker } if watched.map_or(all, |watched| watched == key) => {
                        if let Some(waker) = waker.take() {
                            actor.wakes[waker as usize] += 1;
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}
