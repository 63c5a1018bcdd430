//! What a lock by key on hashbrown cannot do without: one look-up, one insertion and one removal in a table. No lock, no
//! hash, no key that is compared, nobody who waits.
#![no_std]
#![no_main]

use core::cell::RefCell;

use hashbrown::HashTable;
use programs::Alone;

static TABLE: Alone<RefCell<HashTable<(u64, u32)>>> = Alone(RefCell::new(HashTable::new()));

programs::program!(|key, length| floor(key as u32, length as u64));

fn floor(key: u32, hash: u64) -> bool {
    let mut table = TABLE.0.borrow_mut();
    match table.find_entry(hash, |entry| entry.1 == key) {
        Ok(entry) => drop(entry.remove()),
        Err(_) => drop(table.insert_unique(hash, (hash, key), |entry| entry.0)),
    }
    table.is_empty()
}
