//! Blocking a thread: its waker notifies an event, and the thread waits for that event, optionally until a deadline.

use alloc::sync::Arc;
use alloc::task::Wake;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::time::Instant;

use event_listener::{Event, Listener};

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
