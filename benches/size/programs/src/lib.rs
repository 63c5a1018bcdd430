//! What the programs are made of. A program links what its `run` calls, and nothing else.
#![no_std]

extern crate alloc;

use alloc::string::String;
use alloc::sync::Arc;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::future::Future;
use core::hash::{BuildHasher, Hash, Hasher};
use core::pin::pin;
use core::ptr::null_mut;
use core::task::{Context, Waker};

use async_mutex_lite::KeyedMutex;
#[cfg(target_arch = "arm")]
use cortex_m as _; // the critical section

/// Makes a program of its one function.
#[macro_export]
macro_rules! program {
    (|$key:ident, $length:ident| $run:expr) => {
        #[unsafe(no_mangle)]
        extern "C" fn run($key: usize, $length: usize) -> usize {
            $run as usize
        }
    };
}

/// A lock taken or waited for, given up or unlocked: every path of `lock` and of its guard.
pub fn lock<K: Hash + Eq, S: BuildHasher>(mutex: &KeyedMutex<K, S>, key: K) -> bool {
    poll(mutex.lock(key))
}

pub fn try_lock<K: Hash + Eq, S: BuildHasher>(mutex: &KeyedMutex<K, S>, key: K) -> bool {
    mutex.try_lock(key).is_some()
}

/// The whole of the public interface.
pub fn everything<K: Hash + Ord + Clone>(mutex: &Arc<KeyedMutex<K>>, key: K) -> usize {
    let done = [
        lock(mutex, key.clone()),
        try_lock(mutex, key.clone()),
        poll(mutex.arc().lock(key.clone())),
        mutex.arc().try_lock(key.clone()).is_some(),
        poll(mutex.lock_many([key.clone(), key.clone()])),
        poll(mutex.arc().lock_many([key.clone(), key.clone()])),
        poll(mutex.lock(key.clone()).unless(async { 1 })),
        poll(mutex.arc().lock(key.clone()).unless(async { 1 })),
        poll(mutex.shared().lock(key.clone())),
        poll(mutex.arc().shared().lock(key.clone())),
        mutex.shared().try_lock(key.clone()).is_some(),
        mutex.arc().shared().try_lock(key.clone()).is_some(),
        mutex.try_lock(key.clone()).map(|guard| guard.downgrade()).is_some(),
        poll(mutex.run(key.clone(), async || 1)),
        poll(mutex.run_or_stop(key.clone(), async || Err::<(), _>(1))),
        poll(mutex.ticket(key.clone())),
        poll(mutex.arc().ticket(key.clone())),
        mutex.ticket_if(key.clone(), |now| now.waiting < 2).is_some(),
        mutex.arc().ticket_if(key.clone(), |now| now.waiting < 2).is_some_and(|ticket| poll(ticket.run(async || 1))),
        poll(mutex.shared().ticket(key.clone())),
        poll(mutex.arc().shared().ticket(key.clone())),
        mutex.shared().ticket_if(key.clone(), |now| now.waiting < 2).is_some_and(|ticket| poll(ticket.run(async || 1))),
        mutex.arc().shared().ticket_if(key.clone(), |now| now.waiting < 2).is_some(),
        mutex.try_lock(key.clone()).map(|guard| guard.stop()).is_some(),
        mutex.is_locked(&key),
        mutex.is_empty(),
    ];
    let mut locked = 0;
    mutex.for_each_locked(|_, now| locked += now.holders);
    locked
        + mutex.stop_all()
        + mutex.stop(&key)
        + mutex.state(&key).waiting
        + done.into_iter().filter(|&done| done).count()
}

fn poll<T>(future: impl Future<Output = T>) -> bool {
    pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// # Safety
///
/// `start` and `length` must be those of a string.
pub unsafe fn string(start: usize, length: usize) -> String {
    unsafe { String::from(str::from_utf8_unchecked(core::slice::from_raw_parts(start as *const u8, length))) }
}

/// What is in a program with one thread.
pub struct Alone<T>(pub T);

// SAFETY: the programs have one thread, and are never run.
unsafe impl<T> Sync for Alone<T> {}

/// A hasher that costs next to nothing, for integers that nobody chooses in order to harm us.
#[derive(Default)]
pub struct Cheap(u64);

impl Hasher for Cheap {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u32(byte.into()));
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The smallest allocator that there is: it never takes memory back.
struct Bump {
    memory: Cell<[u128; 256]>,
    used: Cell<usize>,
}

#[global_allocator]
static BUMP: Alone<Bump> = Alone(Bump { memory: Cell::new([0; 256]), used: Cell::new(0) });

// SAFETY: each piece is given out once.
unsafe impl GlobalAlloc for Alone<Bump> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Self(Bump { memory, used }) = self;
        let start = used.get().next_multiple_of(layout.align());
        let end = start.wrapping_add(layout.size());
        if end > size_of_val(memory) {
            return null_mut();
        }
        used.set(end);
        memory.as_ptr().cast::<u8>().wrapping_add(start)
    }

    unsafe fn dealloc(&self, _memory: *mut u8, _layout: Layout) {}
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(target_arch = "arm")]
    cortex_m::asm::udf();
}
