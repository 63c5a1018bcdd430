//! Tells the linker where each machine has its memory.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let target = env::var("TARGET").unwrap();
    let memory = match target.as_str() {
        // Texas Instruments' LM3S6965
        "thumbv7m-none-eabi" => "FLASH : ORIGIN = 0, LENGTH = 256K\nRAM : ORIGIN = 0x20000000, LENGTH = 64K",
        // Nordic's nRF51822, on a micro:bit
        "thumbv6m-none-eabi" => "FLASH : ORIGIN = 0, LENGTH = 256K\nRAM : ORIGIN = 0x20000000, LENGTH = 16K",
        // QEMU's own `virt`
        "riscv32imac-unknown-none-elf" => "RAM : ORIGIN = 0x80000000, LENGTH = 1M",
        _ => panic!("no machine for {target}: .cargo/config.toml lists the supported targets"),
    };
    let mut script = format!("MEMORY {{\n{memory}\n}}\n");
    if target.starts_with("riscv") {
        for region in ["TEXT", "RODATA", "DATA", "BSS", "HEAP", "STACK"] {
            script += &format!("REGION_ALIAS(\"REGION_{region}\", RAM);\n");
        }
    } else {
        println!("cargo:rustc-link-arg-bins=--nmagic");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap());
    fs::write(out.join("memory.x"), script).unwrap();
    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
    println!("cargo:rerun-if-changed=build.rs");
}
