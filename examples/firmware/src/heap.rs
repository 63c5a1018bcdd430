//! A heap that remembers how much of it was ever in use.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::mem::MaybeUninit;

use critical_section::{Mutex, with};
use embedded_alloc::LlffHeap;
use static_cell::StaticCell;

pub struct Heap {
    heap: LlffHeap,
    peak: Mutex<Cell<usize>>,
    exhausted: Mutex<Cell<bool>>,
}

impl Heap {
    #[allow(clippy::new_without_default, reason = "a heap is a static")]
    pub const fn new() -> Self {
        Self { heap: LlffHeap::empty(), peak: Mutex::new(Cell::new(0)), exhausted: Mutex::new(Cell::new(false)) }
    }

    /// Gives the heap its memory: once, and before anything is allocated.
    pub fn init<const SIZE: usize>(&self, memory: &'static StaticCell<[u8; SIZE]>) {
        let memory: *mut MaybeUninit<_> = memory.uninit();
        // SAFETY: the memory is borrowed forever, and the cell gives it out once.
        unsafe { self.heap.init(memory.expose_provenance(), SIZE) }
    }

    /// How many bytes are in use.
    pub fn used(&self) -> usize {
        self.heap.used()
    }

    /// How many bytes were in use at most.
    pub fn peak(&self) -> usize {
        with(|section| self.peak.borrow(section).get())
    }

    /// Whether an allocation has failed.
    pub fn is_exhausted(&self) -> bool {
        with(|section| self.exhausted.borrow(section).get())
    }
}

unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let memory = unsafe { self.heap.alloc(layout) };
        with(|section| {
            let peak = self.peak.borrow(section);
            peak.set(peak.get().max(self.used()));
            if memory.is_null() {
                self.exhausted.borrow(section).set(true);
            }
        });
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { self.heap.dealloc(memory, layout) }
    }
}
