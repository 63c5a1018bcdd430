#![no_std]
#![no_main]

use core::hash::BuildHasherDefault;

use async_mutex_lite::KeyedMutex;
use programs::{Cheap, lock};

type Hasher = BuildHasherDefault<Cheap>;

static LOCKS: KeyedMutex<u32, Hasher> = KeyedMutex::with_hasher(Hasher::new());

programs::program!(|key, _length| lock(&LOCKS, key as u32));
