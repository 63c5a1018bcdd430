#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;

use async_mutex_lite::KeyedMutex;
use programs::{lock, string};

static LOCKS: KeyedMutex<String> = KeyedMutex::new();

programs::program!(|key, length| lock(&LOCKS, unsafe { string(key, length) }));
