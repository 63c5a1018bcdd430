//! A claim on a key, from taking its ticket to giving it up: what guards, tasks and tickets are made of.

use core::future::Future;
use core::hash::{BuildHasher, Hash};
use core::mem;
use core::ops::Deref;
use core::pin::pin;

use event_listener::Event;
#[cfg(all(feature = "std", not(target_family = "wasm")))]
use event_listener::Listener;

use crate::KeyedMutex;
use crate::shard::Place;
use crate::slots::LARGE;
use crate::sync::Arc;
use crate::wait::{enter, turn};

/// How a claim knows its mutex: borrowed, or shared.
pub(crate) trait Handle: Deref<Target = KeyedMutex<Self::Key, Self::Hasher>> {
    type Key;
    type Hasher;
}

impl<K, S> Handle for &KeyedMutex<K, S> {
    type Key = K;
    type Hasher = S;
}

/// One member of a key's slot. Dropping it counts it out, whatever its state: there is no other unlock,
/// and no other way to cancel.
pub(crate) struct Claim<M: Handle> {
    mutex: M,
    place: Place,
    state: State,
}

/// What a claim owes when it is dropped.
#[derive(Clone, Copy, PartialEq)]
#[repr(usize)] // as wide as its neighbours, so that moving a claim is moving words
enum State {
    /// Has the token: owes it to the next in the queue.
    Holds,
    /// The same, but what it waited for must not happen: a task that was stopped.
    Stopped,
    /// Waits, as a plain lock: owes nothing, its listener passes on a token that comes too late.
    Waits,
    /// Waits, as a task, or as a ticket that may yet run one: a stop turns it away.
    Stoppable,
}

impl<M: Handle> Claim<M> {
    /// The token has come.
    pub(crate) fn begin(&mut self) {
        let stoppable = mem::replace(&mut self.state, State::Holds) == State::Stoppable;
        if stoppable && self.mutex.table.begin(self.place) {
            self.state = State::Stopped;
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state == State::Stopped
    }

    /// Stops the tasks queued behind this claim.
    pub(crate) fn stop(&self) {
        self.mutex.table.stop(self.place.hash, |slot| slot.id == self.place.id);
    }
}

impl<M: Handle> Drop for Claim<M> {
    fn drop(&mut self) {
        let has_token = matches!(self.state, State::Holds | State::Stopped);
        self.mutex.table.give_up(self.place, has_token, self.state == State::Stoppable);
    }
}

impl<M: Handle<Key: Hash + Eq, Hasher: BuildHasher>> Claim<M> {
    /// Claims the key if it is free.
    pub(crate) fn free(mutex: M, key: M::Key) -> Option<Self> {
        let hash = mutex.hash(&key);
        let ticket = mutex.table.claim_free(hash, key).ok()?;
        Some(Self::first(mutex, hash, ticket))
    }

    /// A claim that made its slot.
    fn first(mutex: M, hash: u64, ticket: u64) -> Self {
        Self { mutex, place: Place { hash, id: ticket, ticket }, state: State::Holds }
    }

    /// Claims the key if it is free. On a small machine the long way must do.
    #[inline(always)] // each move of a long key costs time
    fn short_cut(mutex: &M, hash: u64, key: M::Key) -> Result<u64, M::Key> {
        if LARGE { mutex.table.claim_free(hash, key) } else { Err(key) }
    }

    /// Claims the key and waits for it, if need be, from the end of its queue. `wrap` dresses the claim.
    #[allow(clippy::manual_async_fn)] // an `async fn` would keep its arguments twice
    pub(crate) fn acquire<T>(
        mutex: M,
        key: M::Key,
        stoppable: bool,
        wrap: impl FnOnce(Self) -> T,
    ) -> impl Future<Output = T> {
        async move {
            let hash = mutex.hash(&key);
            let key = match Self::short_cut(&mutex, hash, key) {
                Ok(ticket) => return wrap(Self::first(mutex, hash, ticket)),
                Err(key) => key,
            };
            // Declared before the claim, so that it is dropped after it: a claim is counted out first, and
            // only then leaves the list. The other way round, a token given in between would be lost.
            let mut waiting = pin!(None);
            let enter = |event: &Arc<Event>| {
                waiting.set(Some(turn(event.clone())));
                waiting.as_mut().as_pin_mut().map(enter);
            };
            let mut claim = Self::join(mutex, hash, key, stoppable, |_| true, enter).expect("everybody is admitted");
            if let Some(turn) = waiting.as_mut().as_pin_mut() {
                turn.await;
                claim.begin();
            }
            wrap(claim)
        }
    }

    /// Takes a ticket, if `admit` says so of those ahead. If the key is not free, `enter` starts to listen
    /// for the token.
    pub(crate) fn join(
        mutex: M,
        hash: u64,
        key: M::Key,
        stoppable: bool,
        admit: impl FnOnce(usize) -> bool,
        enter: impl FnOnce(&Arc<Event>),
    ) -> Option<Self> {
        let mut key = Some(key);
        let place = mutex.table.claim(hash, &mut key, stoppable, admit, enter)?;
        let state = match stoppable {
            _ if place.is_first() => State::Holds,
            true => State::Stoppable,
            false => State::Waits,
        };
        let claim = Self { mutex, place, state };
        // Here, not at the end of the scope: if this panics, the claim is counted out.
        drop(key);
        Some(claim)
    }

    /// Claims the key and blocks the thread until it has come.
    #[cfg(all(feature = "std", not(target_family = "wasm")))]
    pub(crate) fn block(mutex: M, key: M::Key) -> Self {
        let hash = mutex.hash(&key);
        let key = match mutex.table.claim_free(hash, key) {
            Ok(ticket) => return Self::first(mutex, hash, ticket),
            Err(key) => key,
        };
        let mut waiting = None;
        let enter = |event: &Arc<Event>| waiting = Some((event.listen(), event.clone()));
        let mut claim = Self::join(mutex, hash, key, false, |_| true, enter).expect("everybody is admitted");
        if let Some((listener, _event)) = waiting {
            listener.wait();
            claim.begin();
        }
        claim
    }
}
