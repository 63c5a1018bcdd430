//! Where the test of a demonstration runs it, and what it waits for.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

/// A directory for temporary files, which any user may use: a server may run as one of its own.
pub struct Place(PathBuf);

impl Place {
    pub fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("end-{}-{name}", process::id()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)).unwrap();
        Self(path)
    }

    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("TMPDIR", &self.0).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn is_empty(&self) -> bool {
        fs::read_dir(&self.0).unwrap().next().is_none()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
pub fn until(patience: Duration, mut happens: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !happens() {
        assert!(Instant::now() < deadline, "it does not happen");
        thread::sleep(Duration::from_millis(10));
    }
}
