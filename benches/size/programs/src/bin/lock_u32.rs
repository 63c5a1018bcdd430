#![no_std]
#![no_main]

use async_mutex_lite::KeyedMutex;
use programs::lock;

static LOCKS: KeyedMutex<u32> = KeyedMutex::new();

programs::program!(|key, _length| lock(&LOCKS, key as u32));
