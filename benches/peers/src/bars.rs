//! The goals of this crate, each as a ratio, and whether it is met.

use std::fs;

use crate::results::Results;
use crate::rivals::*;
use crate::{IN_ORDER, IN_TURN, KEYED_RIVALS, SHARED_RIVALS, work};

pub struct Bar {
    pub work: String,
    pub goal: String,
    pub figure: String,
    /// `None` if this machine or this run cannot tell.
    pub met: Option<bool>,
}

impl Bar {
    fn at_most(work: impl Into<String>, limit: f64, than: &str, ratio: Option<f64>) -> Self {
        Self {
            work: work.into(),
            goal: format!("at most {limit} x {than}"),
            figure: ratio.map_or("not measured".into(), |ratio| format!("{ratio:.2} x")),
            met: ratio.map(|ratio| ratio <= limit),
        }
    }

    fn at_least(work: impl Into<String>, limit: f64, than: &str, ratio: Option<f64>) -> Self {
        let bar = Self::at_most(work, limit, than, ratio);
        Self { goal: format!("at least {limit} x {than}"), met: ratio.map(|ratio| ratio >= limit), ..bar }
    }
}

/// Instructions of two works, as `.ci/callgrind` recorded them, under one of its two profiles.
fn instructions(work: &str, than: &str, column: usize) -> Option<f64> {
    let counts = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../callgrind/counts.txt")).ok()?;
    let count = |work: &str| -> Option<f64> {
        let line = counts.lines().find(|line| line.split_whitespace().next() == Some(work))?;
        line.split_whitespace().nth(column)?.parse().ok()
    };
    // What the loop of the measuring program takes is nobody's.
    let own = count("loop")?;
    Some((count(work)? - own) / (count(than)? - own))
}

pub fn bars(results: &Results) -> Vec<Bar> {
    let ours = |work: &'static str| (work, OURS);
    let ratio = |of, than| results.ratio(of, than);
    let mut bars = Vec::new();
    for (profile, column) in [("release", 1), ("fat LTO", 2)] {
        let count = |work, than| instructions(work, than, column);
        let name = |work: &str| format!("{work}, instructions, {profile}");
        bars.push(Bar::at_most(name("lock + unlock, u64"), 1.2, "the floor", count("lock_u64", "floor_u64")));
        bars.push(Bar::at_most(name("stretch: lock + unlock, u64"), 1.0, "the floor", count("lock_u64", "floor_u64")));
        bars.push(Bar::at_most(
            name("lock + unlock, u64, 64 other keys held"),
            1.2,
            "the floor",
            count("held_lock_u64", "held_floor_u64"),
        ));
        bars.push(Bar::at_most(name("lock + unlock, String"), 1.2, "the floor", count("lock_string", "floor_string")));
        bars.push(Bar::at_most(name("run"), 1.15, "lock", count("run_u64", "lock_u64")));
        let hand_over = count("hand_over", "hand_over_tokio");
        bars.push(Bar::at_most(name("hand-over"), 1.15, "tokio's Mutex", hand_over));
        bars.push(Bar::at_most(name("stretch: hand-over"), 1.0, "tokio's Mutex", hand_over));
        bars.push(Bar::at_most(name("cancel"), 1.6, "tokio's Mutex", count("cancel", "cancel_tokio")));
        for (work, more, less) in [("unlock", "hand_over_100k", "hand_over_1k"), ("cancel", "cancel_100k", "cancel_1k")]
        {
            let work = name(&format!("{work}, 100,000 waiters"));
            bars.push(Bar::at_most(work, 1.5, "1,000", count(more, less)));
        }
    }
    let hot = ratio(ours(work::HOT), (work::HOT, UNKEYED_TOKIO));
    bars.push(Bar::at_most("lock + unlock, u64, time", 1.2, "tokio's Mutex", hot));
    bars.push(Bar::at_most("stretch: lock + unlock, u64, time", 1.0, "tokio's Mutex", hot));
    let hot = ratio(ours(work::HOT), (work::HOT, FLOOR));
    bars.push(Bar::at_most("stretch: lock + unlock, u64, time", 1.0, "the floor", hot));
    let strings = ratio(ours(work::STRINGS), (work::STRINGS, FLOOR));
    bars.push(Bar::at_most("lock + unlock, String, time", 1.2, "the floor", strings));
    bars.push(Bar::at_most("run, time", 1.15, "lock", ratio(ours(work::RUN_HOT), ours(work::HOT))));
    for name in [work::HOT, work::CYCLE_1K, work::CYCLE_1M, work::STRINGS] {
        let best = results.best_ratio(name, KEYED_RIVALS);
        let mut bar = Bar::at_least(format!("best keyed rival, {name}"), 3.0, "ours", best);
        if let Some(net) = results.best_net_ratio(name, KEYED_RIVALS, BARE) {
            bar.figure += &format!(" ({net:.2} x without the key's clone and the loop)");
        }
        bars.push(bar);
    }
    for (name, tokios, rivals) in [(work::HAND_OVER, 1.0, 1.25), (work::RING_64, 1.2, 1.5)] {
        bars.push(Bar::at_most(name, tokios, "tokio's Mutex", ratio(ours(name), (name, UNKEYED_TOKIO))));
        let best = results.best_ratio(name, KEYED_RIVALS);
        bars.push(Bar::at_least(format!("best keyed rival, {name}"), rivals, "ours", best));
    }
    for (name, limit) in [(work::SHARE, 2.5), (work::READERS, 1.2), (work::LIMIT, 1.2)] {
        let best = results.best_ratio(name, SHARED_RIVALS);
        bars.push(Bar::at_least(format!("best rival, {name}"), limit, "ours", best));
    }
    bars.push(Bar::at_most(work::SHARE, 1.1, "an exclusive one", ratio(ours(work::SHARE), ours(work::NO_SHARE))));
    let cancel = results.best_ratio(work::CANCEL_1K, KEYED_RIVALS);
    bars.push(Bar::at_least(format!("best keyed rival, {}", work::CANCEL_1K), 0.8, "ours", cancel));
    bars.push(Bar::at_least(
        "told in turn, ".to_owned() + work::FAILS,
        2.0,
        "at once",
        ratio((work::FAILS, IN_TURN), ours(work::FAILS)),
    ));
    for name in [work::HAND_OVER_2, work::ZIPF_2] {
        let mut bar = Bar::at_least(
            format!("best keyed rival that hands over in order, {name}"),
            1.0,
            "ours",
            results.best_ratio(name, IN_ORDER),
        );
        let busy = |lock| results.row((name, lock))?.busy();
        let best = IN_ORDER.iter().filter_map(|name| Some(busy(name)? / busy(OURS)?)).min_by(f64::total_cmp);
        if let Some(best) = best {
            bar.figure += &format!(" (in processor time: {best:.2} x)");
        }
        bars.push(bar);
    }
    for (keys, one, two) in [
        ("a key each", work::DISJOINT_1, work::DISJOINT_2),
        ("512 keys each", work::DISJOINT_1_512, work::DISJOINT_2_512),
    ] {
        let speed = |lock| results.ratio((one, lock), (two, lock));
        let mut bar = Bar::at_least(format!("work of 2 threads, {keys}"), 1.8, "one thread", speed(OURS));
        if let Some(machine) = speed(BARE) {
            bar.figure += &format!(" (without any lock: {machine:.2} x)");
        }
        bars.push(bar);
    }
    for (work, more, less, limit) in [
        ("lock + unlock, 1M keys held", work::HELD_1M, work::HELD_1K, 2.0),
        ("unlock, 100,000 waiters", work::RING_100K, work::RING_1K, 1.5),
        ("cancel, 100,000 waiters", work::CANCEL_100K, work::CANCEL_1K, 1.5),
    ] {
        let than = if limit == 2.0 { "1k held" } else { "1,000" };
        let mut bar = Bar::at_most(work, limit, than, ratio(ours(more), ours(less)));
        // The same for what takes no more steps either way: that is what memory itself costs.
        let other = if limit == 2.0 { FLOOR } else { UNKEYED_TOKIO };
        if let Some(memory) = ratio((more, other), (less, other)) {
            bar.figure += &format!(" ({other}: {memory:.2} x)");
        }
        bars.push(bar);
    }
    bars
}
