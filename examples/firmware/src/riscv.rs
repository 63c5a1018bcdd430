//! QEMU's RISC-V machine: an executor in the main program, and one in the software interrupt.

use core::ptr::{from_ref, null_mut, without_provenance_mut};

use embassy_executor::raw::Executor;
use embassy_executor::{SendSpawner, Spawner};
use portable_atomic::{AtomicBool, AtomicPtr, Ordering};
use riscv::interrupt::Interrupt;
use riscv::register::mie;
use riscv_rt::core_interrupt;
use static_cell::StaticCell;

pub use riscv_rt::entry;

// The registers of the core-local interruptor.
const SOFTWARE: *mut u32 = without_provenance_mut(0x0200_0000);
const COMPARE: *mut u64 = without_provenance_mut(0x0200_4000);
const TIME: *mut u64 = without_provenance_mut(0x0200_bff8);

/// A millisecond of its clock.
const TICK: u64 = 10_000;

/// Marks the executor of the main program; the other has none.
const IDLE: *mut () = without_provenance_mut(1);

static URGENT_TASKS: StaticCell<Executor> = StaticCell::new();
static URGENT: AtomicPtr<Executor> = AtomicPtr::new(null_mut());
static WOKEN: AtomicBool = AtomicBool::new(false);

/// Starts the clock, and the executor of higher priority. There is only one, so the list has it twice.
pub fn start() -> [SendSpawner; 2] {
    let urgent: &'static Executor = URGENT_TASKS.init(Executor::new(null_mut()));
    URGENT.store(from_ref(urgent).cast_mut(), Ordering::Release);
    next_tick();
    // SAFETY: the handlers are below, and nothing relies on these interrupts being off.
    unsafe {
        mie::set_msoft();
        mie::set_mtimer();
        riscv::interrupt::enable();
    }
    let spawner = urgent.spawner().make_send();
    [spawner, spawner]
}

/// Runs the executor of the main program.
pub fn run(init: impl FnOnce(Spawner)) -> ! {
    static IDLE_TASKS: StaticCell<Executor> = StaticCell::new();
    let executor: &'static Executor = IDLE_TASKS.init(Executor::new(IDLE));
    init(executor.spawner());
    loop {
        // SAFETY: it is polled here, and nowhere else.
        unsafe { executor.poll() };
        // With interrupts off, so that none comes between the question and the sleep; one that is pending
        // ends the sleep all the same.
        critical_section::with(|_| {
            if !WOKEN.swap(false, Ordering::SeqCst) {
                riscv::asm::wfi();
            }
        });
    }
}

/// What embassy calls when an executor has a task to poll.
#[unsafe(export_name = "__pender")]
fn pend(executor: *mut ()) {
    if executor == IDLE {
        WOKEN.store(true, Ordering::SeqCst);
    } else {
        // SAFETY: a register of this machine, in which any value is good.
        unsafe { SOFTWARE.write_volatile(1) };
    }
}

#[core_interrupt(Interrupt::MachineSoft)]
fn software_interrupt() {
    // SAFETY: as above. Cleared first, so that a task woken from here on asks again.
    unsafe { SOFTWARE.write_volatile(0) };
    // SAFETY: `start` stored it before it let this interrupt happen. It is polled here, and nowhere else, and
    // this handler is not interrupted.
    unsafe { (*URGENT.load(Ordering::Acquire)).poll() };
}

#[core_interrupt(Interrupt::MachineTimer)]
fn timer_interrupt() {
    next_tick();
    crate::time::tick();
}

fn next_tick() {
    // SAFETY: registers of this machine, in which any value is good.
    unsafe { COMPARE.write_volatile(TIME.read_volatile() + TICK) };
}
