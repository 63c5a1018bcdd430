#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;

use async_mutex_lite::KeyedMutex;
use programs::{string, try_lock};

static LOCKS: KeyedMutex<String> = KeyedMutex::new();

programs::program!(|key, length| try_lock(&LOCKS, unsafe { string(key, length) }));
