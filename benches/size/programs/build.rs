//! Links each program around its one function, `run`.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    if env::var("TARGET").unwrap().starts_with("wasm") {
        println!("cargo:rustc-link-arg-bins=--no-entry");
        println!("cargo:rustc-link-arg-bins=--export=run");
    } else {
        let out = PathBuf::from(env::var_os("OUT_DIR").unwrap());
        fs::write(
            out.join("size.x"),
            "ENTRY(run)
            MEMORY { FLASH : ORIGIN = 0, LENGTH = 256K RAM : ORIGIN = 0x20000000, LENGTH = 64K }
            SECTIONS {
                .text : { *(.text .text.*) } > FLASH
                .rodata : { *(.rodata .rodata.*) } > FLASH
                .data : { *(.data .data.*) } > RAM AT> FLASH
                .bss (NOLOAD) : { *(.bss .bss.*) } > RAM
                /DISCARD/ : { *(.ARM.exidx .ARM.exidx.* .ARM.extab .ARM.extab.*) }
            }",
        )
        .unwrap();
        println!("cargo:rustc-link-search={}", out.display());
        println!("cargo:rustc-link-arg-bins=-Tsize.x");
        println!("cargo:rustc-link-arg-bins=--nmagic");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
