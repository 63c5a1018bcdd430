//! A Cortex-M: an executor in thread mode, and two more in interrupts of higher priority. The interrupts
//! are those of devices that the programs do not use, requested by software.

use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::scb::SystemHandler;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::exception;
use embassy_executor::{Executor, InterruptExecutor, SendSpawner, Spawner};
use static_cell::StaticCell;

pub use cortex_m_rt::entry;

/// Priorities, the most urgent first: the timer, then these.
const URGENT: Irq = Irq { number: 20, priority: 0x40 };
const ORDINARY: Irq = Irq { number: 21, priority: 0x80 };

static URGENT_TASKS: InterruptExecutor = InterruptExecutor::new();
static ORDINARY_TASKS: InterruptExecutor = InterruptExecutor::new();

/// Starts the clock, and the executors of higher priority: urgent, ordinary.
pub fn start() -> [SendSpawner; 2] {
    let mut core = cortex_m::Peripherals::take().expect("the machine is started once");
    // SAFETY: no critical section relies on priorities, only on all interrupts being off.
    unsafe {
        core.SCB.set_priority(SystemHandler::SysTick, 0);
        core.NVIC.set_priority(URGENT, URGENT.priority);
        core.NVIC.set_priority(ORDINARY, ORDINARY.priority);
    }
    core.SYST.set_clock_source(SystClkSource::Core);
    core.SYST.set_reload(12_000);
    core.SYST.clear_current();
    core.SYST.enable_counter();
    core.SYST.enable_interrupt();
    [URGENT_TASKS.start(URGENT), ORDINARY_TASKS.start(ORDINARY)]
}

/// Runs the executor of thread mode, the least urgent.
pub fn run(init: impl FnOnce(Spawner)) -> ! {
    static IDLE_TASKS: StaticCell<Executor> = StaticCell::new();
    IDLE_TASKS.init(Executor::new()).run(init)
}

#[exception]
fn SysTick() {
    crate::time::tick();
}

#[exception]
unsafe fn DefaultHandler(number: i16) {
    // SAFETY: an interrupt is unmasked by starting its executor, and these are their handlers.
    match u16::try_from(number) {
        Ok(number) if number == URGENT.number => unsafe { URGENT_TASKS.on_interrupt() },
        Ok(number) if number == ORDINARY.number => unsafe { ORDINARY_TASKS.on_interrupt() },
        _ => panic!("interrupt {number} has no handler"),
    }
}

#[derive(Clone, Copy)]
struct Irq {
    number: u16,
    priority: u8,
}

// SAFETY: both machines have more than 22 interrupts.
unsafe impl InterruptNumber for Irq {
    fn number(self) -> u16 {
        self.number
    }
}
