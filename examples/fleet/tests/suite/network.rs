//! A network between clients and a server, which can go silent: it forwards nothing any more, and tells no end that the
//! other has closed.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Where a message goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum To {
    Server,
    Client,
}

/// What happens to a message.
pub enum Fate {
    Forwarded,
    /// It is lost, and its connection is silent from then on.
    Lost,
    /// This is forwarded instead.
    Replaced(Vec<u8>),
}

type Rule = Box<dyn Fn(To, &[u8]) -> Fate + Send>;

pub struct Network {
    port: u16,
    state: Arc<State>,
    listener: AbortHandle,
}

struct State {
    /// Where new connections lead.
    socket: Mutex<PathBuf>,
    /// Whether the connections that are made now are silent. Those that were made before keep the one they had.
    silent: Mutex<watch::Sender<bool>>,
    rule: Mutex<Rule>,
    connections: Mutex<JoinSet<()>>,
    round_trips: AtomicUsize,
    lost: AtomicUsize,
}

impl Network {
    pub async fn to(socket: &Path) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            socket: Mutex::new(socket.to_owned()),
            silent: Mutex::new(watch::Sender::new(false)),
            rule: Mutex::new(Box::new(|_, _| Fate::Forwarded)),
            connections: Mutex::default(),
            round_trips: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
        });
        let listener = tokio::spawn(listen(listener, state.clone())).abort_handle();
        Self { port, state, listener }
    }

    pub fn url(&self) -> String {
        format!("postgres://fleet@127.0.0.1:{}/postgres", self.port)
    }

    /// Leads new connections elsewhere.
    pub fn lead_to(&self, socket: &Path) {
        *self.state.socket.lock().unwrap() = socket.to_owned();
    }

    /// Makes all connections silent, and those that come.
    pub fn cut(&self) {
        self.state.silent.lock().unwrap().send_replace(true);
    }

    /// New connections work again, and have no rule. The old ones are closed at last, as by a keepalive.
    pub fn mend(&self) {
        self.state.connections.lock().unwrap().abort_all();
        *self.state.silent.lock().unwrap() = watch::Sender::new(false);
        self.rule(|_, _| Fate::Forwarded);
    }

    pub fn rule(&self, rule: impl Fn(To, &[u8]) -> Fate + Send + 'static) {
        *self.state.rule.lock().unwrap() = Box::new(rule);
    }

    /// How many connections have lost a message, by the rule.
    pub fn lost(&self) -> usize {
        self.state.lost.load(Relaxed)
    }

    /// How often a client has sent something after the server had.
    pub fn round_trips(&self) -> usize {
        self.state.round_trips.load(Relaxed)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.listener.abort();
        self.state.connections.lock().unwrap().abort_all();
    }
}

async fn listen(listener: TcpListener, state: Arc<State>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let (silent, socket) = (state.silent.lock().unwrap().subscribe(), state.socket.lock().unwrap().clone());
        let this = state.clone();
        state.connections.lock().unwrap().spawn(async move {
            let state = this;
            // A server that is not there refuses the connection.
            let Ok(server) = UnixStream::connect(socket).await else { return };
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            let (lost, client_asked) = (watch::Sender::new(false), AtomicBool::new(false));
            tokio::join!(
                pump(from_client, to_server, To::Server, &state, silent.clone(), &lost, &client_asked),
                pump(from_server, to_client, To::Client, &state, silent, &lost, &client_asked),
            );
        });
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: To,
    state: &State,
    mut silent: watch::Receiver<bool>,
    lost: &watch::Sender<bool>,
    client_asked: &AtomicBool,
) {
    let (mut chunk, mut lost_here) = (vec![0; 1 << 16], lost.subscribe());
    loop {
        let length = tokio::select! {
            biased;
            () = set(&mut silent) => pending().await,
            () = set(&mut lost_here) => pending().await,
            length = from.read(&mut chunk) => length.unwrap_or(0),
        };
        if length == 0 {
            let _ = to.shutdown().await;
            return;
        }
        if client_asked.swap(way == To::Server, Relaxed) != (way == To::Server) && way == To::Server {
            state.round_trips.fetch_add(1, Relaxed);
        }
        let fate = state.rule.lock().unwrap()(way, &chunk[..length]);
        let forwarded = match &fate {
            Fate::Forwarded => &chunk[..length],
            Fate::Replaced(other) => other,
            Fate::Lost => {
                lost.send_replace(true);
                state.lost.fetch_add(1, Relaxed);
                pending().await
            }
        };
        if to.write_all(forwarded).await.is_err() {
            return;
        }
    }
}

async fn set(flag: &mut watch::Receiver<bool>) {
    if flag.wait_for(|set| *set).await.is_err() {
        pending().await // it never will be
    }
}

/// Whether a message has this in it.
pub fn has(message: &[u8], part: &[u8]) -> bool {
    message.windows(part.len()).any(|window| window == part)
}
