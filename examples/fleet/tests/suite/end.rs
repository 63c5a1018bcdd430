//! However the demonstration ends, its server, its directory and its workers end with it.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, process, thread};

/// Only a test that fails takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn the_demonstration_loses_money_without_a_lock_alone_and_cleans_up() {
    let place = Place::new("whole");
    let output = place.demonstration().arg("--quick").output().unwrap();
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
    let mut child = place.in_the_middle();
    let sent = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
    assert!(sent.success());
    until(|| child.try_wait().unwrap().is_some());
    assert!(place.is_empty(), "it waits for the server to end");
    until(|| workers(&child) == 0);
}

#[test]
fn a_kill_in_the_middle_cleans_up_as_well() {
    let place = Place::new("killed");
    let mut child = place.in_the_middle();
    child.kill().unwrap(); // SIGKILL: it can do nothing any more
    child.wait().unwrap();
    until(|| place.is_empty());
    until(|| workers(&child) == 0);
}

/// A directory for temporary files, which any user may use.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("end-{}-{name}", process::id()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)).unwrap();
        Self(path)
    }

    fn demonstration(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
        command.env("TMPDIR", &self.0).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// One with workers that charge, for long.
    fn in_the_middle(&self) -> Child {
        let child = self.demonstration().arg("--tasks=100000").spawn().unwrap();
        until(|| workers(&child) == 3);
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

/// How many processes work for a demonstration. They name its schema, which has its number.
fn workers(child: &Child) -> usize {
    let schema = format!("--schema=async_mutex_lite_fleet_{}", child.id());
    let processes = fs::read_dir(Path::new("/proc")).expect("this is Linux").flatten();
    let arguments = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    arguments.filter(|arguments| arguments.split(|byte| *byte == 0).any(|word| word == schema.as_bytes())).count()
}

#[track_caller]
fn until(mut happens: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happens() {
        assert!(Instant::now() < deadline, "it does not happen");
        thread::sleep(Duration::from_millis(10));
    }
}
