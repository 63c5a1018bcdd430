//! A Redis or an etcd of our own, for as long as this process lives, however it ends.
//!
//! A shell starts the server, and kills it when the pipe to this process closes: at the end of [`Server`], or when this
//! process is killed. It has its own process group, so that ctrl-c at the terminal does not reach it first. The server
//! listens on a socket in its directory, and nowhere else.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

use clap::ValueEnum;

/// Does what it is told line by line, and says it when it is done. The arguments are a directory, and the server's command.
const SCRIPT: &str = r#"
trap '' PIPE # the directory is removed even if nobody hears any more
cd "$1" || exit 1
shift
mkdir data
while read -r order; do
  case $order in
    start) "$@" >>log 2>&1 </dev/null & ;;
    kill) kill -9 $!; wait; find . -type s -exec rm {} + ;; # etcd does not start where its socket is
    wipe) rm -rf data; mkdir data ;;
  esac
  echo "$order"
done
kill -9 $! 2>/dev/null
wait
rm -rf "$PWD"
"#;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    #[cfg(feature = "redis")]
    Redis,
    #[cfg(feature = "etcd")]
    Etcd,
}

impl Engine {
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "redis")]
            Self::Redis => "Redis",
            #[cfg(feature = "etcd")]
            Self::Etcd => "etcd",
        }
    }

    /// The server's command, in its directory. Its data survives a kill, but no power cut.
    fn command(self) -> &'static str {
        match self {
            #[cfg(feature = "redis")]
            Self::Redis => {
                "redis-server --port 0 --unixsocket server.sock --unixsocketperm 700 --dir data --save  --appendonly yes \
                 --appendfsync no"
            }
            // It wants a port, even in the name of a file. Its shortest lease is one second, with such elections.
            #[cfg(feature = "etcd")]
            Self::Etcd => {
                "etcd --name one --data-dir data --logger zap --log-level error --log-outputs stderr --heartbeat-interval 10 \
                 --election-timeout 100 --listen-client-urls unix://client:1 --advertise-client-urls unix://client:1 \
                 --listen-peer-urls unix://peer:1 --initial-advertise-peer-urls unix://peer:1 \
                 --initial-cluster one=unix://peer:1"
            }
        }
    }

    fn socket(self) -> &'static str {
        match self {
            #[cfg(feature = "redis")]
            Self::Redis => "data/server.sock", // it enters that first
            #[cfg(feature = "etcd")]
            Self::Etcd => "client:1",
        }
    }

    /// In the form that clients know.
    pub fn url(self, socket: &Path) -> String {
        match self {
            #[cfg(feature = "redis")]
            Self::Redis => format!("redis+unix://{}", socket.display()),
            #[cfg(feature = "etcd")]
            Self::Etcd => format!("unix:{}", socket.display()),
        }
    }
}

pub struct Server {
    engine: Engine,
    shell: Child,
    answers: BufReader<ChildStdout>,
    directory: PathBuf,
}

impl Server {
    /// Starts a server. It may not answer yet.
    pub fn start(engine: Engine) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let program = engine.command().split(' ').next().expect("it has a name");
        let path = env::var_os("PATH").unwrap_or_default();
        if !env::split_paths(&path).any(|place| place.join(program).is_file()) {
            let (name, option) = (engine.name(), engine.name().to_lowercase());
            return Err(format!(
                "There is no {name} here. Install the package `{option}-server` (apt install {option}-server), or name a \
                 running server: --{option} URL"
            ));
        }
        let name = format!("leases-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = env::temp_dir().join(name);
        let sentence = |error: io::Error| format!("cannot start {} in {}: {error}", engine.name(), directory.display());
        fs::DirBuilder::new().mode(0o700).create(&directory).map_err(sentence)?;
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(&directory)
            .args(engine.command().split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()) // where it would say that the server was killed
            .process_group(0)
            .spawn();
        let mut shell = shell.inspect_err(|_| drop(fs::remove_dir(&directory))).map_err(sentence)?;
        let answers = BufReader::new(shell.stdout.take().expect("it is piped"));
        let mut server = Self { engine, shell, answers, directory };
        server.order("start");
        Ok(server)
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join(self.engine.socket())
    }

    pub fn url(&self) -> String {
        self.engine.url(&self.socket())
    }

    /// What the server said, to be told when it does not answer.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Has the shell `start` the server, `kill` it, or `wipe` its data.
    pub fn order(&mut self, order: &str) {
        let orders = self.shell.stdin.as_mut().expect("it is piped");
        writeln!(orders, "{order}").expect("the shell reads");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the shell answers");
        assert_eq!(answer.trim(), order);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
