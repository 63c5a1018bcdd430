//! Every script of a few operations by up to four actors on one key, on the crate and on the reference model: what chance
//! does not try. `.ci/exhaust` runs it.
//!
//! An operation that changes nothing (a poll of a future that waits, with the waker it has; a stop with nobody to stop) is
//! carried out, and compared, but no script goes on after it: it would be one that is shorter, and is tried as well.
#![cfg(not(any(async_mutex_lite_loom, miri, target_family = "wasm")))]

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use async_mutex_lite::RandomState;

use crate::model::driver::run_quietly;
use crate::model::reference::Reference;
use crate::model::script::{By, End, Max, Mode, Name, Op, Pick, Script, Spare, Start, Task};

const ACTORS: usize = 4;

/// What an actor may be.
const STARTS: [Start; 7] = [
    Start::Lock(Name::A, By::Ref, Mode::Exclusive),
    Start::Lock(Name::A, By::Ref, Mode::Shared(Max::NoLimit)),
    Start::Lock(Name::A, By::Ref, Mode::Shared(Max::Two)),
    Start::Ticket(Name::A, By::Ref, Mode::Exclusive),
    Start::Ticket(Name::A, By::Ref, Mode::Shared(Max::One)),
    Start::Run(Name::A, By::Ref, Mode::Exclusive, FAILS),
    Start::Run(Name::A, By::Ref, Mode::Shared(Max::Two), FAILS),
];

const FAILS: Task = Task { or_stop: true, long: true, end: End::Err };

/// All that can be done next.
fn operations(reference: &Reference) -> Vec<Op> {
    let picks = |those: Vec<_>| (0..those.len() as u8).map(Pick);
    let mut all = Vec::new();
    if reference.actors() < ACTORS {
        all.extend(STARTS.map(Op::Start));
    }
    all.extend(picks(reference.pollable()).map(|pick| Op::Poll(pick, Spare::One)));
    all.extend(picks(reference.all()).map(Op::Drop));
    all.extend(picks(reference.guards()).flat_map(|pick| [Op::StopGuard(pick), Op::Downgrade(pick)]));
    all.push(Op::StopKey(Name::A));
    all
}

/// The same on the reference alone.
fn apply(reference: &mut Reference, op: Op) {
    let pick = |those: Vec<usize>, Pick(number)| those[usize::from(number)];
    match op {
        Op::Start(Start::Lock(key, _, mode)) => reference.lock(key, mode.limit(), false),
        Op::Start(Start::Ticket(key, _, mode)) => reference.ticket(key, mode.limit()),
        Op::Start(Start::Run(key, _, mode, task)) => reference.run(key, mode.limit(), task),
        Op::Poll(which, waker) => _ = reference.poll(pick(reference.pollable(), which), waker),
        Op::Drop(which) => reference.drop(pick(reference.all(), which)),
        Op::StopGuard(which) => reference.stop_guard(pick(reference.guards(), which)),
        Op::Downgrade(which) => reference.downgrade(pick(reference.guards(), which)),
        Op::StopKey(key) => _ = reference.stop(key),
        other => unreachable!("{other:?} is not among the operations"),
    }
}

/// Tries all scripts that begin with this one, and returns how many.
fn explore(reference: &Reference, ops: &mut Vec<Op>, more: usize) -> usize {
    let mut scripts = 0;
    for op in operations(reference) {
        let mut next = reference.clone();
        apply(&mut next, op);
        ops.push(op);
        if more > 1 && next != *reference {
            scripts += explore(&next, ops, more - 1);
        } else {
            if let Err(difference) = run_quietly::<RandomState>(&Script { ops: ops.clone() }) {
                panic!("{difference}");
            }
            scripts += 1;
        }
        ops.pop();
    }
    scripts
}

#[test]
fn every_short_script_agrees_with_the_reference() {
    let length = std::env::var("EXHAUST").map_or(4, |text| text.parse().expect("a number of operations"));
    let scripts = AtomicUsize::new(0);
    {
        // A thread takes the next of the first two operations.
        let empty = Reference::default();
        let mut beginnings = Vec::new();
        for first in operations(&empty) {
            let mut reference = empty.clone();
            apply(&mut reference, first);
            beginnings.extend(operations(&reference).into_iter().map(|second| (first, second)));
        }
        let taken = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    while let Some((first, second)) = beginnings.get(taken.fetch_add(1, Relaxed)) {
                        let mut reference = empty.clone();
                        apply(&mut reference, *first);
                        apply(&mut reference, *second);
                        scripts.fetch_add(explore(&reference, &mut vec![*first, *second], length - 2), Relaxed);
                    }
                });
            }
        });
    }
    println!("{} scripts of up to {length} operations", scripts.into_inner());
}
