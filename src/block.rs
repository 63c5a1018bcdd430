//! Blocking a thread: its waker notifies an event, and the thread waits for that event, optionally until a deadline.

use alloc::sync::Arc;
use alloc::task::Wake;
use core::future::Future;
use core::hash::{BuildHasher, Hash};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::time::Instant;

use event_listener::{Event, Listener};

use crate::mutex::{KeyedMutex, KeyedMutexGuard};
use crate::share::KeyedMutexSharedGuard;

struct Thread(Event);

impl Wake for Thread {
    fn wake(self: Arc<Self>) {
        self.0.notify(1);
    }
}

/// Blocks the thread until a future is ready, or drops it at the deadline.
pub(crate) fn block<T>(mut future: impl Future<Output = T> + Unpin, deadline: Option<Instant>) -> Option<T> {
    let mut poll = |waker: &Waker| match Pin::new(&mut future).poll(&mut Context::from_waker(waker)) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    };
    // A free key needs no event.
    if let Some(output) = poll(Waker::noop()) {
        return Some(output);
    }
    let thread = Arc::new(Thread(Event::new()));
    let waker = Waker::from(thread.clone());
    loop {
        // Listen, then poll, then wait: a notification that comes after the poll is not missed.
        let listener = thread.0.listen();
        if let Some(output) = poll(&waker) {
            return Some(output);
        }
        match deadline {
            None => listener.wait(),
            Some(deadline) if listener.wait_deadline(deadline).is_some() => {}
            Some(_) => return poll(&waker),
        }
    }
}

impl<K: Eq + Hash, S: BuildHasher> KeyedMutex<K, S> {
    /// Like [`lock`](Self::lock), but blocks the thread. It waits in the same queue.
    ///
    /// # Blocking
    ///
    /// Do not call it from async code: it blocks a thread of the executor, and deadlocks if the holder is a task that
    /// only this thread can run.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// let mutex = KeyedMutex::new();
    /// let guard = mutex.lock_blocking("alice");
    /// # drop(guard);
    /// ```
    #[doc(alias("blocking_lock"))]
    pub fn lock_blocking(&self, key: K) -> KeyedMutexGuard<'_, K, S> {
        block(self.lock(key), None).expect("there is no deadline")
    }

    /// Like [`lock_shared`](Self::lock_shared), but blocks the thread.
    ///
    /// # Blocking
    ///
    /// As of [`lock_blocking`](Self::lock_blocking).
    pub fn lock_shared_blocking(&self, key: K) -> KeyedMutexSharedGuard<'_, K, S> {
        block(self.lock_shared(key), None).expect("there is no deadline")
    }

    /// Like [`lock_blocking`](Self::lock_blocking), with a timeout. Returns `None` if the time is up first.
    ///
    /// A free key is locked even if `timeout` is zero. When the time is up, the place in the queue is given up, unless
    /// the key has been granted just then: in that case it is locked. In async code, use
    /// [`lock_unless`](Self::lock_unless).
    ///
    /// # Blocking
    ///
    /// As of [`lock_blocking`](Self::lock_blocking).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use async_mutex_lite::KeyedMutex;
    ///
    /// let mutex = KeyedMutex::new();
    /// let guard = mutex.lock_blocking_for("alice", Duration::ZERO).unwrap();
    /// assert!(mutex.lock_blocking_for("alice", Duration::from_millis(10)).is_none());
    /// # drop(guard);
    /// ```
    #[must_use = "bind the guard to a name such as `_guard`; `let _ =` unlocks at once"]
    #[doc(alias("try_lock_for", "lock_timeout"))]
    pub fn lock_blocking_for(&self, key: K, timeout: Duration) -> Option<KeyedMutexGuard<'_, K, S>> {
        // A deadline that the clock cannot represent never comes.
        block(self.lock(key), Instant::now().checked_add(timeout))
    }
}
