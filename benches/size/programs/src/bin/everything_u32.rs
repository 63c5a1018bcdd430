#![no_std]
#![no_main]

extern crate alloc;

use alloc::sync::Arc;

use async_mutex_lite::KeyedMutex;
use programs::everything;

programs::program!(|key, _length| everything(&Arc::new(KeyedMutex::new()), key as u32));
