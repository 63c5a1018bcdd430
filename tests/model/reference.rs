//! The reference: a map of queues. It is slow, sequential, and meant to be obviously right.

use std::collections::{BTreeMap, VecDeque};

use super::script::{Admit, End, Name, Spare, Task};

/// Whatever a script made: a future, a ticket, a guard. Numbered in the order in which they were made.
pub(crate) type Id = usize;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Polled {
    Pending,
    /// A guard, or the guards of `lock_many`.
    Guard,
    /// `lock_unless` gave up.
    GaveUp,
    Stopped,
    Idle,
    Finished(Result<(), ()>),
    Panicked,
}

/// Who holds a key or waits for it. The first in the queue has the key.
struct Member {
    id: Id,
    /// A task or a ticket that waits, or has waited and has not begun: a stop turns it away.
    stoppable: bool,
    stopped: bool,
    /// The waker of its last poll.
    waker: Option<Spare>,
}

#[derive(Clone, PartialEq)]
enum State {
    Gone,
    Lock {
        key: Name,
        /// For `lock_unless`: whether its signal is ready.
        signal: Option<bool>,
    },
    Many {
        /// Before the first poll: as given. After it: sorted, and each once.
        keys: Vec<Name>,
        has: usize,
    },
    Ticket {
        key: Name,
    },
    Task {
        key: Name,
        task: Task,
        /// Once it has been called: how often it still returns pending.
        running: Option<usize>,
    },
    Guard {
        key: Name,
    },
    Guards,
    /// Watches a key.
    Idle {
        key: Name,
        /// Once it has been polled: the waker of its last poll, until it is told.
        waker: Option<Spare>,
    },
}

struct Actor {
    state: State,
    polled: bool,
    calls: usize,
    wakes: [usize; 2],
}

#[derive(Default)]
pub(crate) struct Reference {
    queues: BTreeMap<Name, VecDeque<Member>>,
    actors: Vec<Actor>,
}

/// What can be asked.
impl Reference {
    pub(crate) fn members(&self, key: Name) -> usize {
        self.queues.get(&key).map_or(0, VecDeque::len)
    }

    pub(crate) fn is_locked(&self, key: Name) -> bool {
        self.members(key) > 0
    }

    pub(crate) fn waiting(&self, key: Name) -> usize {
        self.members(key).saturating_sub(1)
    }

    pub(crate) fn len(&self) -> usize {
        self.queues.len()
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

    pub(crate) fn guards(&self) -> Vec<Id> {
        self.those(|state| matches!(state, State::Guard { .. }))
    }

    pub(crate) fn tickets(&self) -> Vec<Id> {
        self.those(|state| matches!(state, State::Ticket { .. }))
    }

    /// Of a ticket or a guard.
    pub(crate) fn key_of(&self, id: Id) -> Option<Name> {
        match self.actors[id].state {
            State::Ticket { key } | State::Guard { key } => Some(key),
            _ => None,
        }
    }

    pub(crate) fn signals(&self) -> Vec<Id> {
        self.those(|state| matches!(state, State::Lock { signal: Some(_), .. }))
    }

    fn those(&self, which: impl Fn(&State) -> bool) -> Vec<Id> {
        (0..self.actors.len()).filter(|id| which(&self.actors[*id].state)).collect()
    }
}

/// What can be done.
impl Reference {
    fn add(&mut self, state: State) -> Id {
        self.actors.push(Actor { state, polled: false, calls: 0, wakes: [0; 2] });
        self.actors.len() - 1
    }

    pub(crate) fn nothing(&mut self) {
        self.add(State::Gone);
    }

    pub(crate) fn lock(&mut self, key: Name, unless: bool) {
        self.add(State::Lock { key, signal: unless.then_some(false) });
    }

    pub(crate) fn lock_many(&mut self, keys: &[Name]) {
        self.add(State::Many { keys: keys.to_vec(), has: 0 });
    }

    pub(crate) fn run(&mut self, key: Name, task: Task) {
        self.add(State::Task { key, task, running: None });
    }

    /// Returns whether it got the key.
    pub(crate) fn try_lock(&mut self, key: Name) -> bool {
        if self.is_locked(key) {
            self.nothing();
            return false;
        }
        let id = self.add(State::Guard { key });
        self.join(key, id, false);
        true
    }

    /// Returns whether it was admitted.
    pub(crate) fn ticket_if(&mut self, key: Name, admit: Admit) -> bool {
        let admitted = admit.limit().is_some_and(|limit| self.members(key) < limit);
        if admitted {
            self.ticket(key);
        } else {
            self.nothing();
        }
        admitted
    }

    pub(crate) fn ticket(&mut self, key: Name) {
        let id = self.add(State::Ticket { key });
        self.join(key, id, true);
        // It has no key of its own, and it is in the queue.
        self.actors[id].polled = true;
    }

    pub(crate) fn idle(&mut self, key: Name) {
        self.add(State::Idle { key, waker: None });
    }

    /// It has the key, and runs the task when it is polled.
    pub(crate) fn run_guard(&mut self, id: Id, task: Task) {
        if let State::Guard { key } = self.actors[id].state {
            self.actors[id].state = State::Task { key, task, running: None };
            self.actors[id].polled = true; // it has no key of its own
        }
    }

    pub(crate) fn run_ticket(&mut self, id: Id, task: Task) {
        if let State::Ticket { key } = self.actors[id].state {
            self.actors[id].state = State::Task { key, task, running: None };
        }
    }

    pub(crate) fn signal(&mut self, id: Id) {
        if let State::Lock { signal: Some(ready), .. } = &mut self.actors[id].state {
            *ready = true;
        }
    }

    /// Returns how many it stopped.
    pub(crate) fn stop(&mut self, key: Name) -> usize {
        let mut count = 0;
        for member in self.queues.get_mut(&key).into_iter().flatten() {
            if member.stoppable && !member.stopped {
                member.stopped = true;
                count += 1;
            }
        }
        count
    }

    pub(crate) fn stop_guard(&mut self, id: Id) {
        if let State::Guard { key } = self.actors[id].state {
            self.stop(key);
            self.drop(id);
        }
    }

    pub(crate) fn drop(&mut self, id: Id) {
        if let State::Task { key, task: Task { or_stop: true, .. }, running: Some(_) } = self.actors[id].state {
            self.stop(key);
        }
        for key in Name::ALL {
            self.leave(key, id);
        }
        self.actors[id].state = State::Gone;
    }

    pub(crate) fn poll(&mut self, id: Id, waker: Spare) -> Polled {
        let polled_before = std::mem::replace(&mut self.actors[id].polled, true);
        match self.actors[id].state.clone() {
            State::Gone | State::Guard { .. } | State::Guards => unreachable!("not pollable"),
            State::Lock { key, signal } => {
                if self.reach(key, id, false, waker) {
                    self.actors[id].state = State::Guard { key };
                    Polled::Guard
                } else if signal == Some(true) {
                    self.drop(id);
                    Polled::GaveUp
                } else {
                    Polled::Pending
                }
            }
            State::Ticket { key } => {
                if !self.reach(key, id, true, waker) {
                    Polled::Pending
                } else if self.queues[&key][0].stopped {
                    self.drop(id);
                    Polled::Stopped
                } else {
                    self.actors[id].state = State::Guard { key };
                    Polled::Guard
                }
            }
            State::Idle { key, waker: watching } => {
                let told = polled_before && watching.is_none();
                if told || !polled_before && !self.is_locked(key) {
                    self.actors[id].state = State::Gone;
                    Polled::Idle
                } else {
                    self.actors[id].state = State::Idle { key, waker: Some(waker) };
                    Polled::Pending
                }
            }
            State::Many { mut keys, mut has } => {
                if !polled_before {
                    keys.sort();
                    keys.dedup();
                }
                while has < keys.len() && self.reach(keys[has], id, false, waker) {
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
            State::Task { key, task, running } => {
                let mut pending = match running {
                    Some(pending) => pending,
                    None if !self.reach(key, id, true, waker) => return Polled::Pending,
                    None if self.queues[&key][0].stopped => {
                        self.drop(id);
                        return Polled::Stopped;
                    }
                    None => {
                        self.actors[id].calls += 1;
                        usize::from(task.long)
                    }
                };
                if pending > 0 {
                    pending -= 1;
                    self.actors[id].state = State::Task { key, task, running: Some(pending) };
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
    fn reach(&mut self, key: Name, id: Id, stoppable: bool, waker: Spare) -> bool {
        if !self.queues.get(&key).is_some_and(|queue| queue.iter().any(|member| member.id == id)) {
            self.join(key, id, stoppable);
        }
        let queue = self.queues.get_mut(&key).expect("it has joined");
        if queue[0].id == id {
            queue[0].stoppable = false;
            queue[0].waker = None;
            return true;
        }
        let me = queue.iter_mut().find(|member| member.id == id).expect("it has joined");
        me.waker = Some(waker);
        false
    }

    /// Whoever finds the key free has begun: it never waited.
    fn join(&mut self, key: Name, id: Id, stoppable: bool) {
        let queue = self.queues.entry(key).or_default();
        let stoppable = stoppable && !queue.is_empty();
        queue.push_back(Member { id, stoppable, stopped: false, waker: None });
    }

    /// Leaves the queue. If it had the key, the next one has it now, and is woken. An empty queue goes.
    fn leave(&mut self, key: Name, id: Id) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        let Some(position) = queue.iter().position(|member| member.id == id) else { return };
        queue.remove(position);
        if let (0, Some(next)) = (position, queue.front_mut()) {
            if let Some(waker) = next.waker.take() {
                self.actors[next.id].wakes[waker as usize] += 1;
            }
        }
        if queue.is_empty() {
            self.queues.remove(&key);
            for actor in &mut self.actors {
                match &mut actor.state {
                    State::Idle { key: watched, waker } if *watched == key => {
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
