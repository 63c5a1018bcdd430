//! The same work with this crate and with its rivals, in one process and in turns, so that whatever else
//! the machine does hits all alike. `.ci/peers` runs it and keeps the results.
//!
//! Options: `--quick` (a few short rounds, to see that it runs), `--json`, `--only TEXT` (the groups of
//! works with a name that contains it).

mod bars;
#[path = "../../common/queue.rs"]
mod queue;
mod results;
mod rivals;
mod shared;
mod works;

use results::{Results, Row};
use rivals::*;
use serde_json::json;
use works::Contestant;

/// The names of the works that the bars refer to.
mod work {
    pub const HOT: &str = "one hot u64 key";
    pub const RUN_HOT: &str = "one hot u64 key, `run`";
    pub const CYCLE_1K: &str = "u64 keys, cycling over 1k";
    pub const CYCLE_1M: &str = "u64 keys, cycling over 1M";
    pub const STRINGS: &str = "String keys, cycling over 10k";
    pub const HAND_OVER: &str = "hand-over, 64 tasks on one thread";
    pub const HAND_OVER_2: &str = "hand-over, 2 threads x 32 tasks";
    pub const ZIPF_2: &str = "Zipf over 10k keys, 2 threads x 32 tasks";
    pub const RING_64: &str = "hand-over alone, 64 waiters polled by hand";
    pub const RING_1: &str = "unlock and queue again, 1 waiter";
    pub const RING_1K: &str = "unlock and queue again, 1,000 waiters";
    pub const RING_100K: &str = "unlock and queue again, 100,000 waiters";
    pub const CANCEL_1K: &str = "cancel, 1,000 waiters in random order";
    pub const CANCEL_100K: &str = "cancel, 100,000 waiters in random order";
    pub const FAILS: &str = "1,000 wait, the holder fails, until a newcomer has the key";
    pub const DISJOINT_1: &str = "a key for each thread, 1 thread";
    pub const DISJOINT_2: &str = "a key for each thread, 2 threads";
    pub const DISJOINT_ALL: &str = "a key for each thread, all threads";
    pub const DISJOINT_1_512: &str = "512 keys for each thread, 1 thread";
    pub const DISJOINT_2_512: &str = "512 keys for each thread, 2 threads";
    pub const DISJOINT_ALL_512: &str = "512 keys for each thread, all threads";
    pub const SHARE: &str = "a shared lock of a free key, cycling over 1k";
    pub const NO_SHARE: &str = "the same, exclusive";
    pub const READERS: &str = "64 tasks on one key, nine readers to one writer";
    pub const LIMIT: &str = "64 tasks on one key, at most 4 share it";
    pub const HELD_1K: &str = "lock + unlock while 1k others are held";
    pub const HELD_1M: &str = "lock + unlock while 1M others are held";
}

/// Those that never let a newcomer barge.
const IN_ORDER: &[&str] = &[
    <LockableLockPool<u64> as Rival<u64>>::NAME,
    <KeyedLock<u64> as Rival<u64>>::NAME,
    <DashMapTokio<u64> as Rival<u64>>::NAME,
];

const SHARED_RIVALS: &[&str] = &[
    <shared::DashMapRwLock as shared::Rival>::NAME,
    <shared::DashMapSemaphore as shared::Rival>::NAME,
    <shared::HashMapRwLock as shared::Rival>::NAME,
    <shared::KeyRwLock as shared::Rival>::NAME,
];

const KEYED_RIVALS: &[&str] = &[
    <LockableLockPool<u64> as Rival<u64>>::NAME,
    <KeyedLock<u64> as Rival<u64>>::NAME,
    <DashMapTokio<u64> as Rival<u64>>::NAME,
    <HashMapAsyncLock<u64> as Rival<u64>>::NAME,
];

/// This crate, if nothing is stopped, and each waiter looks at a flag when it holds the key.
const IN_TURN: &str = "async-mutex-lite, told in turn";

/// Sets a work up for each of its contestants.
type SetUp = Box<dyn Fn() -> Vec<Contestant>>;

/// Works that are compared with each other too: their contestants all take turns.
struct Group {
    rounds: usize,
    works: Vec<(&'static str, SetUp)>,
}

/// A work for ours, the keyed rivals, and others: `R => contestant` sets it up for the rival `R`.
macro_rules! against {
    ($name:expr, $K:ty, [$($other:ty),*], $R:ident => $contestant:expr) => {
        against!(@ $name, [Ours<$K>, LockableLockPool<$K>, KeyedLock<$K>, DashMapTokio<$K>, HashMapAsyncLock<$K> $(, $other)*], $R => $contestant)
    };
    (@ $name:expr, [$($rival:ty),*], $R:ident => $contestant:expr) => {
        ($name, Box::new(move || vec![$({
            type $R = $rival;
            $contestant
        }),*]) as SetUp)
    };
}

fn groups(quick: bool) -> Vec<Group> {
    use works::*;
    // Short rounds, shorter than a slice of the scheduler, and many of them.
    let many = if quick { 5_000 } else { 30_000 };
    let million = if quick { 100_000 } else { 1_000_000 };
    let group = |rounds, works| Group { rounds: if quick { 3 } else { rounds }, works };
    let mut apart = vec![
        against!(work::DISJOINT_1, u64, [Floor<u64>, Bare<u64>], R => disjoint::<R>(1, 1, many)),
        against!(work::DISJOINT_2, u64, [Floor<u64>, Bare<u64>], R => disjoint::<R>(2, 1, many)),
        against!(work::DISJOINT_1_512, u64, [Floor<u64>, Bare<u64>], R => disjoint::<R>(1, 512, many)),
        against!(work::DISJOINT_2_512, u64, [Floor<u64>, Bare<u64>], R => disjoint::<R>(2, 512, many)),
    ];
    if all_threads() > 2 {
        apart.extend([
            against!(work::DISJOINT_ALL, u64, [Floor<u64>, Bare<u64>], R => disjoint::<R>(all_threads(), 1, many)),
            against!(work::DISJOINT_ALL_512, u64, [Floor<u64>, Bare<u64>], R => disjoint::<R>(all_threads(), 512, many)),
        ]);
    }
    let shared = |work: &'static str, contestants: fn(usize) -> Vec<Contestant>| {
        (work, Box::new(move || contestants(many)) as SetUp)
    };
    macro_rules! sharing {
        ([$($rival:ident),*], $many:ident, $R:ident => $contestant:expr) => {
            |$many| vec![$({
                type $R = shared::$rival;
                $contestant
            }),*]
        };
    }
    vec![
        group(
            51,
            vec![
                shared(
                    work::SHARE,
                    sharing!([Ours, DashMapRwLock, DashMapSemaphore, HashMapRwLock, KeyRwLock], many, R => shared::cycle::<R>(true, many)),
                ),
                shared(
                    work::NO_SHARE,
                    sharing!([Ours, DashMapRwLock, DashMapSemaphore, HashMapRwLock, KeyRwLock], many, R => shared::cycle::<R>(false, many)),
                ),
            ],
        ),
        group(
            51,
            vec![
                shared(
                    work::READERS,
                    sharing!([Ours, DashMapRwLock, HashMapRwLock, KeyRwLock], many, R => shared::tasks::<R>(64, 1, u32::MAX, many)),
                ),
                shared(work::LIMIT, sharing!([Ours, DashMapSemaphore], many, R => shared::tasks::<R>(64, 0, 4, many))),
            ],
        ),
        group(
            51,
            vec![
                against!(work::HOT, u64, [UnkeyedTokio, UnkeyedAsyncLock, Floor<u64>, Bare<u64>], R => cycle::<_, R>(number, 1, 0, many)),
                against!(work::RUN_HOT, u64, [UnkeyedTokio, UnkeyedAsyncLock, Floor<u64>, Bare<u64>], R => run::<_, R>(number, 1, many)),
            ],
        ),
        group(
            51,
            vec![
                against!(work::CYCLE_1K, u64, [Floor<u64>, Bare<u64>], R => cycle::<_, R>(number, 1000, 0, many)),
                against!("u64 keys, cycling over 1k, `run`", u64, [Floor<u64>, Bare<u64>], R => run::<_, R>(number, 1000, many)),
            ],
        ),
        group(
            15,
            vec![
                against!(work::CYCLE_1M, u64, [Floor<u64>, Bare<u64>], R => cycle::<_, R>(number, 1_000_000, 0, million)),
            ],
        ),
        group(
            51,
            vec![
                against!(work::STRINGS, String, [Floor<String>, Bare<String>], R => cycle::<_, R>(name, 10_000, 0, many)),
            ],
        ),
        group(
            51,
            vec![
                against!(work::HAND_OVER, u64, [UnkeyedTokio, UnkeyedAsyncLock], R => tasks::<R>(1, 64, many, 1, only_one)),
            ],
        ),
        group(
            51,
            vec![
                against!(work::HAND_OVER_2, u64, [UnkeyedTokio, UnkeyedAsyncLock], R => tasks::<R>(2, 32, many / 4, 1, only_one)),
            ],
        ),
        group(
            31,
            vec![
                against!(work::RING_1, u64, [UnkeyedTokio, UnkeyedAsyncLock], R => ring::<R>(1, many)),
                against!(work::RING_64, u64, [UnkeyedTokio, UnkeyedAsyncLock], R => ring::<R>(64, many)),
                against!(work::RING_1K, u64, [UnkeyedTokio, UnkeyedAsyncLock], R => ring::<R>(1000, many)),
                against!(work::RING_100K, u64, [UnkeyedTokio, UnkeyedAsyncLock], R => ring::<R>(100_000, 100_000)),
            ],
        ),
        group(
            21,
            vec![
                against!(work::CANCEL_1K, u64, [UnkeyedTokio, UnkeyedAsyncLock], R => cancel::<R>(1000, many)),
                against!(work::CANCEL_100K, u64, [UnkeyedTokio, UnkeyedAsyncLock], R => cancel::<R>(100_000, 1)),
            ],
        ),
        group(
            51,
            vec![(
                work::FAILS,
                Box::new(|| {
                    let mut contestants = vec![told_at_once(1000), told_in_turn::<Ours<u64>>(IN_TURN, 1000)];
                    macro_rules! rivals {
                        ($($rival:ident),*) => { contestants.extend([$(told_in_turn::<$rival<u64>>(<$rival<u64> as Rival<u64>>::NAME, 1000)),*]) };
                    }
                    rivals!(LockableLockPool, KeyedLock, DashMapTokio, HashMapAsyncLock);
                    contestants
                }) as SetUp,
            )],
        ),
        group(101, apart),
        group(
            51,
            vec![
                against!("Zipf over 10k keys, 64 tasks on one thread", u64, [], R => tasks::<R>(1, 64, many, ZIPF_KEYS, zipf)),
            ],
        ),
        group(51, vec![against!(work::ZIPF_2, u64, [], R => tasks::<R>(2, 32, many / 4, ZIPF_KEYS, zipf))]),
        group(15, vec![against!("lock 1M keys, hold them all, unlock", u64, [Floor<u64>], R => hold::<R>(million))]),
        group(
            31,
            vec![
                against!(work::HELD_1K, u64, [Floor<u64>], R => cycle::<_, R>(number, 1000, 1000, many)),
                against!(work::HELD_1M, u64, [Floor<u64>], R => cycle::<_, R>(number, 1000, 1_000_000, many)),
            ],
        ),
    ]
}

/// Measures a group, each contestant once in every round, beginning with another one each time.
fn measure(group: Group, results: &mut Results) {
    let mut running = Vec::new();
    for (work, contestants) in group.works {
        for mut contestant in contestants() {
            (contestant.measure)(); // to warm up
            running.push((contestant.measure, Row { work, contestant: contestant.name, samples: Vec::new() }));
        }
    }
    for round in 0..group.rounds {
        let len = running.len();
        for at in 0..len {
            let (measure, row) = &mut running[(at + round) % len];
            row.samples.push(measure());
        }
    }
    results.0.extend(running.into_iter().map(|(_, row)| row));
}

fn figure(nanos: f64) -> String {
    if nanos < 100.0 { format!("{nanos:.1}") } else { format!("{nanos:.0}") }
}

fn print_table(results: &Results) {
    println!("Nanoseconds of processor time for each operation (with several threads: of wall-clock time):");
    println!("the median of all rounds. In brackets: how many times as long as ours,");
    println!("the median of the ratios within a round. *: let newcomers barge, and so hardly ever handed");
    println!("the key over.\n");
    let mut columns = Vec::new();
    for row in &results.0 {
        if !columns.contains(&row.contestant) {
            columns.push(row.contestant);
        }
    }
    println!("| work | {} |", columns.join(" | "));
    println!("| --- |{}", " ---: |".repeat(columns.len()));
    let mut last = "";
    for row in &results.0 {
        if row.work == last {
            continue;
        }
        last = row.work;
        print!("| {last} |");
        for &name in &columns {
            match results.row((last, name)) {
                None => print!(" |"),
                Some(row) if name == OURS => print!(" **{}** |", figure(row.nanos())),
                Some(row) => {
                    let star = if row.keeps() { "*" } else { "" };
                    let ratio = results.ratio((last, name), (last, OURS)).unwrap_or(f64::NAN);
                    print!(" {}{star} ({ratio:.2}) |", figure(row.nanos()));
                }
            }
        }
        println!();
    }
}

/// What is not spent waiting for the other thread.
fn print_processor_time(results: &Results) {
    println!("\nProcessor time of the works in which tasks on two threads wait for each other, of both threads, in");
    println!(
        "nanoseconds for each operation. The rest of the time one of the threads sleeps: all of its tasks are queued"
    );
    println!("behind one of the other's. The less a lock itself takes, the sooner they are.\n");
    let busy = results.0.iter().filter_map(|row| Some((row, row.busy()?)));
    println!("| work | lock | processor time |\n| --- | --- | ---: |");
    busy.for_each(|(row, busy)| println!("| {} | {} | {} |", row.work, row.contestant, figure(busy)));
}

fn print_bars(results: &Results) {
    println!("| work | goal | figure | met |");
    println!("| --- | --- | ---: | --- |");
    for bar in bars::bars(results) {
        let met = bar.met.map_or("not measured", |met| if met { "yes" } else { "**no**" });
        println!("| {} | {} | {} | {met} |", bar.work, bar.goal, bar.figure);
    }
}

fn print_json(results: &Results) {
    let rows = results.0.iter().map(|row| {
        json!({
            "work": row.work,
            "lock": row.contestant,
            "nanoseconds": row.nanos(),
            "ratio": results.ratio((row.work, row.contestant), (row.work, OURS)),
            "hands_over": !row.keeps(),
            "rounds": row.samples.iter().map(|sample| sample.nanos).collect::<Vec<_>>(),
        })
    });
    let bars = bars::bars(results).into_iter();
    let bars = bars.map(|bar| json!({ "work": bar.work, "goal": bar.goal, "figure": bar.figure, "met": bar.met }));
    println!("{:#}", json!({ "results": rows.collect::<Vec<_>>(), "bars": bars.collect::<Vec<_>>() }));
}

fn main() {
    let (mut quick, mut as_json, mut only) = (false, false, String::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => quick = true,
            "--json" => as_json = true,
            "--only" => only = arguments.next().expect("--only needs a text"),
            _ => panic!("usage: peers [--quick] [--json] [--only TEXT]"),
        }
    }
    let mut results = Results::default();
    for group in groups(quick) {
        if group.works.iter().any(|(work, _)| work.contains(&only)) {
            eprintln!("{} ...", group.works[0].0);
            measure(group, &mut results);
        }
    }
    if as_json {
        return print_json(&results);
    }
    print_table(&results);
    print_processor_time(&results);
    println!("\n### Goals\n");
    print_bars(&results);
}
