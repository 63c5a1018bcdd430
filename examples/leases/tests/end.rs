//! However the demonstration ends, its server, its directory and its workers end with it, also those that are stopped.
#![cfg(target_os = "linux")]

#[path = "../../common/place.rs"]
mod place;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use place::{Place, until};

/// Only a test that fails takes so long.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn the_demonstration_loses_money_without_the_fence_alone_and_cleans_up() {
    let place = Place::new("whole");
    let output = demonstration(&place).arg("--quick").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lost = |way: &str| -> Vec<i64> {
        let rows = text.lines().filter(|line| line.starts_with(&format!("| {way} |")));
        rows.map(|row| row.split('|').nth(2).unwrap().trim().parse().unwrap()).collect()
    };
    let engines = usize::from(cfg!(feature = "redis")) + usize::from(cfg!(feature = "etcd"));
    for way in ["no lock", "a lease in each task", "behind the mutex"] {
        assert!(lost(way).len() == engines && lost(way).iter().all(|lost| *lost > 0), "{way}");
    }
    assert_eq!(lost("behind the mutex, with the fence"), vec![0; engines]);
    assert!(place.is_empty());
}

#[test]
fn ctrl_c_in_the_midst_cleans_up() {
    let place = Place::new("interrupted");
    let mut child = in_the_midst(&place);
    let sent = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
    assert!(sent.success());
    until(PATIENCE, || child.try_wait().unwrap().is_some());
    assert!(place.is_empty(), "it waits for the server to end");
    until(PATIENCE, || workers(&child).is_empty());
}

#[test]
fn a_kill_in_the_midst_cleans_up_as_well() {
    let place = Place::new("killed");
    let mut child = in_the_midst(&place);
    until(PATIENCE, || workers(&child).contains(&'T')); // one is stopped
    child.kill().unwrap(); // SIGKILL: it can do nothing any more
    child.wait().unwrap();
    until(PATIENCE, || place.is_empty());
    until(PATIENCE, || workers(&child).is_empty());
}

#[test]
fn only_servers_of_this_machine_are_charged() {
    let place = Place::new("addresses");
    let option = if cfg!(feature = "redis") { "--redis" } else { "--etcd" };
    for url in
        ["redis://192.0.2.1/", "http://example.org:2379", "http://10.0.0.1", "redis://[2001:db8::1]/", "nonsense"]
    {
        let output = demonstration(&place).args([option, url]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{url}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(url), "{url}");
    }
}

fn demonstration(place: &Place) -> Command {
    place.command(env!("CARGO_BIN_EXE_leases"))
}

/// One with workers that charge, for long, and are stopped again and again.
fn in_the_midst(place: &Place) -> Child {
    let child = demonstration(place).args(["--tasks=100000", "--pauses=1000"]).spawn().unwrap();
    until(PATIENCE, || workers(&child).len() == 3);
    assert!(!place.is_empty());
    child
}

/// The states of the processes that work for a demonstration. They name its prefix, which has its number.
fn workers(child: &Child) -> Vec<char> {
    let prefix = format!("--prefix=async-mutex-lite-leases-{}-", child.id());
    let processes = fs::read_dir("/proc").expect("this is Linux").flatten().map(|process| process.path());
    let ours = processes.filter(|process| {
        let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|word| word == prefix.as_bytes())
    });
    let state = |process: PathBuf| {
        let stat = fs::read_to_string(process.join("stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    };
    ours.filter_map(state).collect()
}
