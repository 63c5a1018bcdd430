//! The same work with this crate and with its rivals, in one process and in turns, so that whatever else
//! the machine does hits all alike. `.ci/peers` runs it and keeps the results.
//!
//! Options: `--quick` (a few short rounds, to see that it runs), `--json`, `--only TEXT` (the groups of
//! works with a name that contains it).

mod bars;
mod results;
mod rivals;
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
    pub const RING_64: &str = "hand-over alone, 64 waiters polled by hand";
    pub const RING_1: &str = "unlock and queue again, 1 waiter";
    pub const RING_1K: &str = "unlock and queue again, 1,000 waiters";
    pub const RING_100K: &str = "unlock and queue again, 100,000 waiters";
    pub const CANCEL_1K: &str = "cancel, 1,000 waiters in random order";
    pub const CANCEL_100K: &str = "cancel, 100,000 waiters in random order";
    pub const DISJOINT_1: &str = "disjoint keys, 1 thread";
    pub const DISJOINT_2: &str = "disjoint keys, 2 threads";
    pub const DISJOINT_ALL: &str = "disjoint keys, all threads";
    pub const HELD_1K: &str = "lock + unlock while 1k others are held";
    pub const HELD_1M: &str = "lock + unlock while 1M others are held";
}

const KEYED_RIVALS: &[&str] = &[
    <LockableLockPool<u64> as Rival<u64>>::NAME,
    <KeyedLock<u64> as Rival<u64>>::NAME,
    <DashMapTokio<u64> as Rival<u64>>::NAME,
    <HashMapAsyncLock<u64> as Rival<u64>>::NAME,
];

/// Works that are compared with each other too: their contestants all take turns.
type Group = Vec<(&'static str, Box<dyn Fn() -> Vec<Contestant>>)>;

/// A work for ours, the keyed rivals, and others: `R => contestant` sets it up for the rival `R`.
macro_rules! against {
    ($name:expr, $K:ty, [$($other:ty),*], $R:ident => $contestant:expr) => {
        against!(@ $name, [Ours<$K>, LockableLockPool<$K>, KeyedLock<$K>, DashMapTokio<$K>, HashMapAsyncLock<$K> $(, $other)*], $R => $contestant)
    };
    (@ $name:expr, [$($rival:ty),*], $R:ident => $contestant:expr) => {
        ($name, Box::new(move || vec![$({
            type $R = $rival;
            $contestant
        }),*]) as Box<dyn Fn() -> Vec<Contestant>>)
    };
}

fn groups(scale: usize) -> Vec<Group> {
    use works::*;
    let many = 100_000 / scale;
    let million = 1_000_000 / scale;
    let mut apart = vec![
        against!(work::DISJOINT_1, u64, [Floor<u64>], R => disjoint::<R>(1, 3 * many)),
        against!(work::DISJOINT_2, u64, [Floor<u64>], R => disjoint::<R>(2, 3 * many)),
    ];
    if all_threads() > 2 {
        let all = against!(work::DISJOINT_ALL, u64, [Floor<u64>], R => disjoint::<R>(all_threads(), 3 * many));
        apart.push(all);
    }
    vec![
        vec![
            against!(work::HOT, u64, [UnkeyedTokio, UnkeyedAsyncLock, Floor<u64>], R => cycle::<_, R>(number, 1, 0, many)),
            against!(work::RUN_HOT, u64, [UnkeyedTokio, UnkeyedAsyncLock, Floor<u64>], R => run::<_, R>(number, 1, many)),
        ],
        vec![
            against!(work::CYCLE_1K, u64, [Floor<u64>], R => cycle::<_, R>(number, 1000, 0, many)),
            against!("u64 keys, cycling over 1k, `run`", u64, [Floor<u64>], R => run::<_, R>(number, 1000, many)),
        ],
        vec![against!(work::CYCLE_1M, u64, [Floor<u64>], R => cycle::<_, R>(number, 1_000_000, 0, million))],
        vec![against!(work::STRINGS, String, [Floor<String>], R => cycle::<_, R>(name, 10_000, 0, many))],
        vec![
            against!(work::HAND_OVER, u64, [UnkeyedTokio, UnkeyedAsyncLock], R => tasks::<R>(1, 64, many, 1, only_one)),
        ],
        vec![
            against!("hand-over, 2 threads x 32 tasks", u64, [UnkeyedTokio, UnkeyedAsyncLock], R => tasks::<R>(2, 32, many / 4, 1, only_one)),
        ],
        vec![
            against!(work::RING_1, u64, [UnkeyedTokio, UnkeyedAsyncLock], R => ring::<R>(1, many)),
            against!(work::RING_64, u64, [UnkeyedTokio, UnkeyedAsyncLock], R => ring::<R>(64, many)),
            against!(work::RING_1K, u64, [UnkeyedTokio, UnkeyedAsyncLock], R => ring::<R>(1000, many)),
            against!(work::RING_100K, u64, [UnkeyedTokio, UnkeyedAsyncLock], R => ring::<R>(100_000, 2 * many)),
        ],
        vec![
            against!(work::CANCEL_1K, u64, [UnkeyedTokio, UnkeyedAsyncLock], R => cancel::<R>(1000, many / 2)),
            against!(work::CANCEL_100K, u64, [UnkeyedTokio, UnkeyedAsyncLock], R => cancel::<R>(100_000, 1)),
        ],
        apart,
        vec![
            against!("Zipf over 10k keys, 64 tasks on one thread", u64, [], R => tasks::<R>(1, 64, many, ZIPF_KEYS, zipf)),
        ],
        vec![
            against!("Zipf over 10k keys, 2 threads x 32 tasks", u64, [], R => tasks::<R>(2, 32, many / 2, ZIPF_KEYS, zipf)),
        ],
        vec![against!("lock 1M keys, hold them all, unlock", u64, [Floor<u64>], R => hold::<R>(million))],
        vec![
            against!(work::HELD_1K, u64, [Floor<u64>], R => cycle::<_, R>(number, 1000, 1000, many)),
            against!(work::HELD_1M, u64, [Floor<u64>], R => cycle::<_, R>(number, 1000, 1_000_000, many)),
        ],
    ]
}

/// Measures a group, each contestant once in every round, beginning with another one each time.
fn measure(group: Group, rounds: usize, results: &mut Results) {
    let mut running = Vec::new();
    for (work, contestants) in group {
        for mut contestant in contestants() {
            (contestant.measure)(); // to warm up
            running.push((contestant.measure, Row { work, contestant: contestant.name, samples: Vec::new() }));
        }
    }
    for round in 0..rounds {
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
    println!("Nanoseconds for each operation: the median of all rounds. In brackets: how many times as long as ours,");
    println!(
        "the median of the ratios within a round. *: let newcomers pass those that wait, and so hardly ever handed"
    );
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
    let (scale, rounds) = if quick { (10, 3) } else { (1, 15) };
    let mut results = Results::default();
    for group in groups(scale) {
        if group.iter().any(|(work, _)| work.contains(&only)) {
            eprintln!("{} ...", group[0].0);
            measure(group, rounds, &mut results);
        }
    }
    if as_json {
        return print_json(&results);
    }
    print_table(&results);
    println!("\n### Goals\n");
    print_bars(&results);
}
