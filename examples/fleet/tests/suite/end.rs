//! However the demonstration ends, its server, its directory and its workers end with it.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use crate::place::{Place, until};

/// Only a test that fails takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn the_demonstration_loses_money_without_a_lock_alone_and_cleans_up() {
    let place = Place::new("whole");
    let output = demonstration(&place).arg("--quick").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let lost = |way: &str| {
        let row = text.lines().find(|line| line.starts_with(&format!("| {way} |")));
        row.and_then(|row| row.split('|').nth(2)?.trim().parse::<i64>().ok()).expect("there is such a row")
    };
    assert!(lost("no locks") > 0);
    assert_eq!(lost("advisory locks"), 0);
    assert_eq!(lost("both layers"), 0);
    assert!(place.is_empty());
}

#[test]
fn ctrl_c_in_the_middle_cleans_up() {
    let place = Place::new("interrupted");
    let mut child = in_the_middle(&place);
    let sent = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
    assert!(sent.success());
    until(PATIENCE, || child.try_wait().unwrap().is_some());
    assert!(place.is_empty(), "it waits for the server to end");
    until(PATIENCE, || workers(&child) == 0);
}

#[test]
fn a_kill_in_the_middle_cleans_up_as_well() {
    let place = Place::new("killed");
    let mut child = in_the_middle(&place);
    child.kill().unwrap(); // SIGKILL: it can do nothing any more
    child.wait().unwrap();
    until(PATIENCE, || place.is_empty());
    until(PATIENCE, || workers(&child) == 0);
}

fn demonstration(place: &Place) -> Command {
    place.command(env!("CARGO_BIN_EXE_fleet"))
}

/// One with workers that charge, for long.
fn in_the_middle(place: &Place) -> Child {
    let child = demonstration(place).arg("--tasks=100000").spawn().unwrap();
    until(PATIENCE, || workers(&child) == 3);
    assert!(!place.is_empty());
    child
}

/// How many processes work for a demonstration. They name its schema, which has its number.
fn workers(child: &Child) -> usize {
    let schema = format!("--schema=async_mutex_lite_fleet_{}", child.id());
    let processes = fs::read_dir(Path::new("/proc")).expect("this is Linux").flatten();
    let arguments = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    arguments.filter(|arguments| arguments.split(|byte| *byte == 0).any(|word| word == schema.as_bytes())).count()
}
