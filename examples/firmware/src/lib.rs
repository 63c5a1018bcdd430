//! What the programs share: a heap that counts, a clock, and a machine.
//!
//! Each program is one of `src/bin`, runs on three machines under QEMU, and ends with an exit status:
//!
//! ```text
//! cargo run --release --target thumbv7m-none-eabi --bin tasks            # a Cortex-M3
//! cargo run --release --target thumbv6m-none-eabi --bin tasks            # a Cortex-M0: no compare-and-swap
//! cargo run --release --target riscv32imac-unknown-none-elf --bin tasks
//! ```
#![no_std]

mod heap;
mod time;

#[cfg(target_arch = "arm")]
#[path = "arm.rs"]
pub mod machine;
#[cfg(target_arch = "riscv32")]
#[path = "riscv.rs"]
pub mod machine;

pub use heap::Heap;
pub use semihosting::{println, process::exit};
pub use time::{on_tick, until};

/// Ends the program with the panic's message and a non-zero exit status when something panics.
#[macro_export]
macro_rules! exit_on_panic {
    () => {
        #[panic_handler]
        fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
            $crate::println!("{info}");
            $crate::exit(1)
        }
    };
}
