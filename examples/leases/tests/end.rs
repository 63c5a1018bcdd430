//! However the demonstration ends, its server, its directory and its workers end with it, also those that are stopped.
#![cfg(target_os = "linux")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

/// Only a test that fails takes so long.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn the_demonstration_loses_money_without_the_fence_alone_and_cleans_up() {
    let place = Place::new("whole");
    let output = place.demonstration().arg("--quick").output().unwrap();
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
    let mut child = place.in_the_midst();
    let sent = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
    assert!(sent.success());
    until(|| child.try_wait().unwrap().is_some());
    assert!(place.is_empty(), "it waits for the server to end");
    until(|| workers(&child).is_empty());
}

#[test]
fn a_kill_in_the_midst_cleans_up_as_well() {
    let place = Place::new("killed");
    let mut child = place.in_the_midst();
    until(|| workers(&child).contains(&'T')); // one is stopped
    child.kill().unwrap(); // SIGKILL: it can do nothing any more
    child.wait().unwrap();
    until(|| place.is_empty());
    until(|| workers(&child).is_empty());
}

#[test]
fn only_servers_of_this_machine_are_charged() {
    let place = Place::new("addresses");
    let option = if cfg!(feature = "redis") { "--redis" } else { "--etcd" };
    for url in
        ["redis://192.0.2.1/", "http://example.org:2379", "http://10.0.0.1", "redis://[2001:db8::1]/", "nonsense"]
    {
        let output = place.demonstration().args([option, url]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{url}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(url), "{url}");
    }
}

/// A directory for temporary files.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("end-{}-{name}", process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn demonstration(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leases"));
        command.env("TMPDIR", &self.0).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// One with workers that charge, for long, and are stopped again and again.
    fn in_the_midst(&self) -> Child {
        let child = self.demonstration().args(["--tasks=100000", "--pauses=1000"]).spawn().unwrap();
        until(|| workers(&child).len() == 3);
        assert!(!self.is_empty());
        child
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(&self.0).unwrap().next().is_none()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
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

#[track_caller]
fn until(mut happens: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happens() {
        assert!(Instant::now() < deadline, "it does not happen");
        thread::sleep(Duration::from_millis(10));
    }
}
