//! Tasks that queue for one key, polled by hand: an executor costs more than a hand-over. For the instruction
//! counts and for the comparison alike.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

pub struct Queue<F> {
    tasks: Vec<Task<F>>,
}

struct Task<F> {
    future: Pin<Box<Option<F>>>,
    woken: Arc<Flag>,
    waker: Waker,
}

impl<F: Future> Queue<F> {
    /// Of that many tasks, which all queue. `lock` makes what they wait for.
    pub fn new(tasks: usize, lock: impl Fn() -> F) -> Self {
        let task = |_| {
            let woken = Arc::new(Flag(AtomicBool::new(false)));
            Task { future: Box::pin(None), woken: woken.clone(), waker: woken.into() }
        };
        let mut queue = Self { tasks: (0..tasks).map(task).collect() };
        (0..tasks).for_each(|task| queue.join(task, lock()));
        queue
    }

    /// Drops the task's future, if it has one, and queues it at the end.
    #[inline(never)]
    pub fn join(&mut self, task: usize, lock: F) {
        let Task { future, waker, .. } = &mut self.tasks[task];
        future.set(Some(lock));
        let future = future.as_mut().as_pin_mut().expect("just set");
        assert!(future.poll(&mut Context::from_waker(waker)).is_pending(), "two hold one key");
    }

    /// Polls the task, which must have been woken, and returns its guard.
    #[inline(never)]
    pub fn served(&mut self, task: usize) -> F::Output {
        let Task { future, woken, waker } = &mut self.tasks[task];
        assert!(woken.0.swap(false, Relaxed), "the first in the queue was not woken");
        match future.as_mut().as_pin_mut().expect("queued").poll(&mut Context::from_waker(waker)) {
            Poll::Ready(guard) => guard,
            Poll::Pending => panic!("woken for nothing"),
        }
    }

    /// Drops the task's future.
    pub fn cancel(&mut self, task: usize) {
        self.tasks[task].future.set(None);
    }
}
