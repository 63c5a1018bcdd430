//! The mutex for JavaScript. The keys, the tasks and the promises stay there, in `mutex.js`: only numbers come here, that of
//! a key, and that of a place in its queue. (A key is an `f64`, as JavaScript's numbers are: it counts to 2^53.)
#![no_std]

extern crate alloc;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::task::Wake;
use core::panic::PanicInfo;
use core::pin::Pin;
use core::task::{Context, Poll, Waker, ready};

use async_mutex_lite::{Borrowed, KeyedMutex, KeyedMutexGuard, Stopped, Ticket};
use dlmalloc::GlobalDlmalloc;
use slab::Slab;
use spin::Mutex;

// There is one thread, and each is locked for a moment: none of them is ever contended.
static MUTEX: KeyedMutex<u64> = KeyedMutex::new();
static PLACES: Mutex<Slab<Place>> = Mutex::new(Slab::new());
/// The places whose wait has ended, in that order, until JavaScript asks for them.
static ENDED: Mutex<VecDeque<usize>> = Mutex::new(VecDeque::new());

enum Place {
    Waits(Ticket<Borrowed<'static, u64>>),
    Holds(KeyedMutexGuard<'static, u64>),
}

/// Takes a place in the queue of a key.
#[unsafe(no_mangle)]
extern "C" fn queue(key: f64) -> usize {
    let place = PLACES.lock().insert(Place::Waits(MUTEX.ticket(key.to_bits())));
    if poll(place).is_ready() {
        ENDED.lock().push_back(place); // the key was free
    }
    place
}

/// Returns the places whose wait has ended, one at a time, and -1 after the last.
#[unsafe(no_mangle)]
extern "C" fn ended() -> isize {
    ENDED.lock().pop_front().map_or(-1, |place| place as isize)
}

/// Whether a place whose wait has ended holds its key. If not, it was stopped, and is no place any more.
#[unsafe(no_mangle)]
extern "C" fn holds(place: usize) -> bool {
    let holds = poll(place) == Poll::Ready(Ok(()));
    if !holds {
        leave(place, false);
    }
    holds
}

/// Gives up a place. If it holds its key, this unlocks it, and stops the places that wait for it if `stop` says so.
#[unsafe(no_mangle)]
extern "C" fn leave(place: usize, stop: bool) {
    let place = PLACES.lock().remove(place); // the lock is released here: what follows calls wakers
    match place {
        Place::Holds(guard) if stop => guard.stop(),
        place => drop(place),
    }
}

/// Stops the places that wait for a key, and returns how many.
#[unsafe(no_mangle)]
extern "C" fn stop(key: f64) -> usize {
    MUTEX.stop(&key.to_bits())
}

/// The number of places that wait for a key, or -1 if it is free.
#[unsafe(no_mangle)]
extern "C" fn waiting(key: f64) -> isize {
    let now = MUTEX.state(&key.to_bits());
    if now.holders > 0 { now.waiting as isize } else { -1 }
}

fn poll(place: usize) -> Poll<Result<(), Stopped>> {
    struct End(usize);

    impl Wake for End {
        fn wake(self: Arc<Self>) {
            ENDED.lock().push_back(self.0);
        }
    }

    let mut places = PLACES.lock();
    let Place::Waits(ticket) = &mut places[place] else { return Poll::Ready(Ok(())) };
    let waker = Waker::from(Arc::new(End(place)));
    let outcome = ready!(Pin::new(ticket).poll(&mut Context::from_waker(&waker)));
    Poll::Ready(outcome.map(|guard| places[place] = Place::Holds(guard)))
}

#[global_allocator]
static ALLOCATOR: GlobalDlmalloc = GlobalDlmalloc;

/// Without a message: the code that formats one would be a large part of the program.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
