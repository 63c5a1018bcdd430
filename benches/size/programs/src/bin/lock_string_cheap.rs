#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;
use core::hash::BuildHasherDefault;

use async_mutex_lite::KeyedMutex;
use programs::{Cheap, lock, string};

type Hasher = BuildHasherDefault<Cheap>;

static LOCKS: KeyedMutex<String, Hasher> = KeyedMutex::with_hasher(Hasher::new());

programs::program!(|key, length| lock(&LOCKS, unsafe { string(key, length) }));
