//! A PostgreSQL of our own, for as long as this process lives, however it ends.
//!
//! A shell starts the server, and stops it when the pipe to this process closes: at the end of [`Server`], or when this
//! process is killed. It has its own process group, so that ctrl-c at the terminal does not reach it first. The server
//! listens on a socket in its directory, and nowhere else. It does not flush to the disk: the data is not needed later.

use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

const SCRIPT: &str = r#"
bin=$1 dir=$2 like=$3 more=$4
{
  if [ -n "$like" ]; then
    cp -r "$like/data" "$dir/data"
  else
    "$bin/initdb" -D "$dir/data" -U fleet -A trust -E UTF8 --locale=C --wal-segsize=1 --no-sync --no-instructions
  fi &&
  cat >>"$dir/data/postgresql.conf" <<CONF &&
listen_addresses = ''
unix_socket_directories = '$dir'
unix_socket_permissions = 0700
max_connections = 60
shared_buffers = 16MB
fsync = off
CONF
  "$bin/pg_ctl" -D "$dir/data" -l "$dir/data.log" -w start &&
  eval "$more"
} >"$dir/setup.log" 2>&1 </dev/null && echo ready || { cat "$dir/setup.log" "$dir"/*.log; exec >&-; }
read -r _ # until the other end is closed
for data in "$dir"/*/PG_VERSION; do
  "$bin/pg_ctl" -D "${data%/*}" -m immediate -w stop >/dev/null 2>&1
done
rm -rf "$dir"
kill -9 0 # and what runs beside the servers
"#;

pub struct Server {
    shell: Child,
    bin: PathBuf,
    directory: PathBuf,
    user: Option<(u32, u32)>,
}

impl Server {
    /// Makes a database and starts it, or begins with a copy of another one, which must not be running.
    ///
    /// There may be `more` to the script, in which `$bin` and `$dir` are where PostgreSQL's programs and the server's files
    /// are. What it starts ends with the server: other servers whose files are in `$dir`, and what runs in the background.
    pub fn start(like: Option<&Self>, more: &str) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let bin = programs()?;
        let user = if is_root() { Some(unprivileged_user()?) } else { None };
        let name = format!("fleet-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = env::temp_dir().join(name);
        let sentence = |error: io::Error| format!("cannot start PostgreSQL in {}: {error}", directory.display());
        fs::DirBuilder::new().mode(0o700).create(&directory).map_err(sentence)?;
        if let Some((uid, gid)) = user {
            chown(&directory, Some(uid), Some(gid)).map_err(sentence)?;
        }
        let shell = command("sh", user)
            .args(["-c", SCRIPT, "sh"])
            .args([&bin, &directory, &like.map_or(PathBuf::new(), |like| like.directory.clone())])
            .arg(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn();
        let shell = shell.inspect_err(|_| drop(fs::remove_dir(&directory))).map_err(sentence)?;
        let mut server = Self { shell, bin, directory, user };
        let mut said = String::new();
        for line in BufReader::new(server.shell.stdout.take().expect("it is piped")).lines().map_while(Result::ok) {
            if line == "ready" {
                return Ok(server);
            }
            said += &line;
            said.push('\n');
        }
        Err(format!("PostgreSQL does not start:\n{said}"))
    }

    /// For clients, in the form that they all know.
    pub fn url(&self) -> String {
        format!("postgres://fleet@localhost/postgres?host={}", self.directory.display())
    }

    /// Where its sockets are.
    #[allow(dead_code, reason = "the demonstration has no need of it")]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs a line of the shell as the server's user, with `$bin` and `$dir` as above.
    #[allow(dead_code, reason = "the demonstration does not")]
    pub fn shell(&self, line: &str) {
        let mut shell = command("sh", self.user);
        shell.args(["-euc", &format!("bin=$1 dir=$2; {line}"), "sh"]).args([&self.bin, &self.directory]);
        let status = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.is_ok_and(|status| status.success()), "this fails: {line}");
    }

    /// Restarts the server: `fast` disconnects all clients, `immediate` is like a crash.
    #[allow(dead_code, reason = "the demonstration does not")]
    pub fn restart(&self, mode: &str) {
        self.shell(&format!(r#""$bin/pg_ctl" -D "$dir/data" -l "$dir/data.log" -m {mode} -w restart"#));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
        let _ = fs::remove_dir_all(&self.directory); // where its user may not remove it
    }
}

fn command(program: impl AsRef<std::ffi::OsStr>, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/"); // one that any user may enter
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// Where `initdb` and `pg_ctl` are: on the PATH, or in Debian's place, the newest.
fn programs() -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let version = |path: &Path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut debian: Vec<_> = debian.collect();
    debian.sort_by_key(|path| std::cmp::Reverse(version(path)));
    let mut places = env::split_paths(&path).chain(debian.into_iter().map(|path| path.join("bin")));
    let found = places.find(|place| place.join("initdb").is_file() && place.join("pg_ctl").is_file());
    // On the PATH there may be links to these two alone.
    let found = found.and_then(|place| Some(place.join("initdb").canonicalize().ok()?.parent()?.to_owned()));
    found.ok_or_else(|| {
        "There is no PostgreSQL here. Install the package `postgresql` (apt install postgresql), or name a running \
         database: --database URL"
            .into()
    })
}

fn is_root() -> bool {
    // What `id -u` says: std does not tell.
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Finds a user to run PostgreSQL as, which refuses to run as root.
fn unprivileged_user() -> Result<(u32, u32), String> {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |name: &str| {
        let fields: Vec<_> =
            users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|user| user[0] == name)?;
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody")).ok_or_else(|| {
        "PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody` to run it as".into()
    })
}
