//! A keyed lease for a fleet of processes that share a Redis or an etcd, behind the mutex, with a fence.
//!
//! Copy one file: [`redis.rs`](redis) or [`etcd.rs`](etcd). They have the same face.
//!
//! ```text
//!   process 1      many tasks ──> key locked here ──> 1 task asks ─┐                        ┌─ still this lease? written
//!   process 2      many tasks ──> key locked here ──> 1 task asks ─┼──> a lease ──> a write ┤
//!   process 3      many tasks ──> key locked here ──> 1 task asks ─┘                        └─ no: nothing, and `Lost`
//! ```
//!
//! `Leases::run(key, work)` locks the key in this process, takes the lease, runs the work, renews the lease meanwhile, gives it
//! up, and unlocks the key: in this order.
//!
//! **A lease is not a lock.** A process that is paused for longer than its lease believes that it has it still, and works on
//! while another has begun. No clock and no renewal helps: the pause may come between the last look and the write. So **the
//! write looks**: lock and write meet in one step of the server, the *fence*. With PostgreSQL that is the transaction
//! (`examples/fleet`), with Redis a script, with etcd a transaction that compares.
//!
//! **What the fence covers** is what is written through it, on that server, by all who write there. It does not cover what the
//! work does elsewhere (sending a mail, calling a bank), nor a write without it.
//!
//! **The lock here is for the queue.** Of all tasks in this process that want a key, one asks the server. They are served in
//! FIFO order, and hold no lease while they wait, which would have to be renewed, and lost in a pause.
//!
//! **A retry must be idempotent**: a write whose answer did not come may have been done (`Unknown`). Give each charge an id,
//! and write both in one step. The next lease sees what became of it: no write comes after that.
//!
//! # What each promises
//!
//! | | PostgreSQL (`examples/fleet`) | Redis | etcd |
//! | --- | --- | --- | --- |
//! | the work excludes others | until its transaction ends | until its lease ends, which it may not notice | the same |
//! | its writes exclude others' | until its transaction ends | always: an old lease writes nothing | the same |
//! | a pause (a signal, swapping, a virtual machine that moves) | others wait for it | others go on after the lease; its next write is `Lost` | the same |
//! | a killed process | others go on at once | others go on after at most the lease | the same, and half a second |
//! | a restart, with the data | lock and work are undone together | leases remain, as far as the append-only file has them | leases remain, and begin anew |
//! | a restart without them, or from a backup | the money is that of the backup | the same; an old lease writes nothing | the same |
//! | a silent network | others wait for `work_limit` | others go on after the lease; a write on its way is `Unknown`, and never late | the same |
//! | a failover | to a synchronous standby: as a restart. To another: what was committed last may be lost | to an asynchronous replica: **what was acknowledged last may be lost, leases and money**, so that two work, and one's writes are gone. `WAIT` makes it rarer | nothing acknowledged is lost; leases begin anew |
//! | the server's wall clock jumps, or it evicts keys | nothing | leases end early, or late; an old one writes nothing | nothing |
//! | order here | FIFO | FIFO | FIFO |
//! | order between processes | PostgreSQL's queue | by chance | that of arrival |
//! | several keys at once | yes | no | no |
//! | a write | all of a transaction | several commands, which Redis does not undo if one fails | all of a transaction |
//! | requests, besides the work's | 6 | 2; one each third of a lease; one each 12 ms while another process has it | 4; one each third of a lease; 2 for each place before it |
//!
//! The work is dropped when the time is up that the lease lasts, since it was asked for, on a monotonic clock. As long as that
//! is in time, it excludes others, too. This saves work; it is the fence that saves money.
//!
//! # What it is worth
//!
//! `cargo run --release`: three processes, each with 150 charges, two in three of them to one account; each process is stopped
//! twice for longer than its lease, in the worst moment. Of 18,975:
//!
//! | | Redis: money lost | requests for each charge | longest wait, quiet accounts | etcd: money lost | requests | wait |
//! | --- | ---: | ---: | ---: | ---: | ---: | ---: |
//! | no lock | 16,109 | 2.0 | 5 ms | 16,597 | 2.0 | 127 ms |
//! | a lease in each task | 7,110 | 33.0 | 65 ms | 6,019 | 28.6 | 2,945 ms |
//! | behind the mutex | 6,489 | 4.4 | 278 ms | 5,234 | 7.3 | 33 ms |
//! | behind the mutex, with the fence | 0 | 4.4 | 256 ms | 0 | 7.8 | 250 ms |
//!
//! A quiet account waits for up to a lease (300 ms on Redis) if a process is stopped while it has that, too.
//!
//! With 100 tasks of each process that wait for one account, and no pause, the mutex takes Redis from 95 requests for each charge
//! to 4.6. It takes etcd from 8.5 to 8.0 only: who waits there has a place in a queue, and does not ask. What it saves there are
//! the leases of the waiters: in a pause they all end, and all begin again (608 of them above, instead of 6).
//!
//! # Dropping the future
//!
//! | dropped while it | then |
//! | --- | --- |
//! | waits for the key here | nothing has happened, and others keep their order |
//! | waits for the lease | it is given up, or the place in etcd's queue |
//! | works | the lease is given up; a write on its way may be done before that, and not after |
//!
//! The key here stays locked until the answer to giving up has come, or for a second: the next task finds the lease free. A
//! spawned task waits for that. A runtime that rests (a function that is frozen between requests) does it late: then the lease
//! ends by itself. So does one whose giving up was lost on the way.
//!
//! Work that blocks its thread keeps its lease from being renewed: use `spawn_blocking`.

#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(feature = "redis")]
pub mod redis;
