#![no_std]
#![no_main]

use async_mutex_lite::KeyedMutex;
use programs::lock;

static LOCKS: KeyedMutex<u32> = KeyedMutex::new();
static OTHERS: KeyedMutex<(u16, u64)> = KeyedMutex::new();

programs::program!(|key, length| lock(&LOCKS, key as u32) | lock(&OTHERS, (key as u16, length as u64)));
