#![no_std]
#![no_main]

extern crate alloc;

use alloc::sync::Arc;

use async_mutex_lite::KeyedMutex;
use programs::{everything, string};

programs::program!(|key, length| everything(&Arc::new(KeyedMutex::new()), unsafe { string(key, length) }));
