//! What the address sanitizer must find: a leak, a use after free. Without an argument, nothing.

use std::hint::black_box;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("leak") => std::mem::forget(black_box(vec![1_u8; 1000])),
        Some("free") => {
            let boxed = Box::into_raw(Box::new(black_box(1_u64)));
            // SAFETY: none. This is the seeded fault.
            unsafe {
                drop(Box::from_raw(boxed));
                println!("{}", std::ptr::read_volatile(boxed));
            }
        }
        _ => println!("{}", black_box(vec![1_u8; 1000]).len()),
    }
}
