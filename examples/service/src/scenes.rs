//! What clients do to the shop. Events are put in order by waiting for a state of the shop, never by sleeping.

use std::hash::Hash;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_mutex_lite::KeyedMutex;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;

use crate::client::{Sent, send};
use crate::shop::{self, AT_MOST_WAITING, Shop};

/// A timeout for everything that tests and scenes wait for: after it, they fail.
pub const FOREVER: Duration = Duration::from_secs(60);
const WALLETS: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];
/// What there is in each wallet at first.
pub const FUNDS: u64 = 1_000;

/// A shop that is open, on a port of its own.
pub struct Town {
    pub shop: Arc<Shop>,
    pub address: SocketAddr,
    /// How many handlers are running.
    handlers: Arc<AtomicUsize>,
    terminate: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
}

/// What happened to a request.
pub struct Row {
    pub request: String,
    /// `None`: the client disconnected.
    pub status: Option<u16>,
    pub text: String,
    pub after: Option<Duration>,
}

impl Town {
    pub async fn open(patience: Duration) -> io::Result<Self> {
        let shop = Arc::new(Shop::new(patience));
        shop.books().balances.extend(WALLETS.map(|wallet| (wallet.to_string(), FUNDS)));

        let handlers = Arc::new(AtomicUsize::new(0));
        let count = handlers.clone();
        let counted = from_fn(move |request: Request, next: Next| {
            let inside = Inside::new(&count);
            async move {
                let _inside = inside;
                next.run(request).await
            }
        });

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (terminate, terminated) = oneshot::channel();
        let signal = async { terminated.await.unwrap_or(()) };
        let served = tokio::spawn(shop::run(listener, shop::routes(shop.clone()).layer(counted), shop.clone(), signal));
        Ok(Self { shop, address, handlers, terminate, served })
    }

    pub fn post(&self, path: &str) -> Sent {
        send(self.address, format!("POST {path}"))
    }

    pub fn get(&self, path: &str) -> Sent {
        send(self.address, format!("GET {path}"))
    }

    /// Sends a request, and waits until it holds its key or waits for it.
    async fn queue<K: Eq + Hash>(&self, path: &str, mutex: &KeyedMutex<K>, key: K) -> Sent {
        let queued = || usize::from(mutex.is_locked(&key)) + mutex.state(&key).waiting;
        let before = queued();
        let sent = self.post(path);
        until(|| queued() > before).await;
        sent
    }

    pub async fn charge(&self, wallet: &str, cents: u64) -> Sent {
        self.queue(&format!("/wallets/{wallet}/{cents}"), &self.shop.wallets, wallet.into()).await
    }

    async fn order(&self, order: u64) -> Sent {
        self.queue(&format!("/orders/{order}"), &self.shop.orders, order).await
    }

    /// The client disconnects, and the shop has noticed.
    async fn disconnect(&self, sent: Sent) -> String {
        let before = self.handlers.load(Ordering::SeqCst);
        let request = sent.request.clone();
        sent.disconnect().await;
        until(|| self.handlers.load(Ordering::SeqCst) < before).await;
        request
    }

    fn is_charged(&self, wallet: &str, cents: u64) -> bool {
        self.shop.books().charges.contains(&(wallet.into(), cents))
    }

    /// An order is sent three times at once. The client of another one disconnects, and sends it again later.
    pub async fn orders(&self) -> io::Result<Vec<Row>> {
        self.shop.outside.hang("carrier");
        let mut sent = Vec::new();
        for _ in 0..3 {
            sent.push(self.order(7).await);
        }
        let order = self.order(8).await;
        let gone = self.disconnect(order).await;
        self.shop.outside.answer("carrier");
        let mut rows = answers(sent).await?;
        self.shop.orders.idle(&8).await;
        rows.push(gone_row(gone, self.shop.books().parcels.contains_key(&8)));
        rows.push(row(self.post("/orders/8")).await?);
        Ok(rows)
    }

    /// Charges queue up behind one that is declined.
    pub async fn declined(&self) -> io::Result<Vec<Row>> {
        self.shop.outside.hang("alice");
        let mut sent = Vec::new();
        for cents in [200, 300, 900, 50, 60] {
            sent.push(self.charge("alice", cents).await);
        }
        self.shop.outside.answer("alice");
        let mut rows = answers(sent).await?;
        rows.push(row(self.post("/wallets/alice/50")).await?);
        Ok(rows)
    }

    /// Clients disconnect, one whose charge runs, and one whose charge waits.
    pub async fn leavers(&self) -> io::Result<Vec<Row>> {
        self.shop.outside.hang("bob");
        let running = self.charge("bob", 100).await;
        let stays = self.charge("bob", 200).await;
        let waits = self.charge("bob", 400).await;
        let stays_too = self.charge("bob", 50).await;
        let waits = self.disconnect(waits).await;
        let running = self.disconnect(running).await;
        self.shop.outside.answer("bob");
        let (stays, stays_too) = (row(stays).await?, row(stays_too).await?);
        let running = gone_row(running, self.is_charged("bob", 100));
        let waits = gone_row(waits, self.is_charged("bob", 400));
        Ok(vec![running, stays, waits, stays_too])
    }

    /// More requests arrive than may wait.
    pub async fn crowd(&self) -> io::Result<Vec<Row>> {
        self.shop.outside.hang("carol");
        let mut sent = Vec::new();
        for cents in 1..=1 + AT_MOST_WAITING as u64 {
            sent.push(self.charge("carol", cents).await);
        }
        let mut refused = Vec::new();
        for cents in 1..=4 {
            refused.push(row(self.post(&format!("/wallets/carol/{}", 100 + cents))).await?);
        }
        self.shop.outside.answer("carol");
        let mut rows = answers(sent).await?;
        rows.append(&mut refused);
        Ok(rows)
    }

    /// Two wallets have queues, one a longer one.
    pub async fn busy(&self) -> io::Result<Vec<Row>> {
        let mut sent = Vec::new();
        for wallet in ["alice", "bob"] {
            self.shop.outside.hang(wallet);
        }
        for wallet in ["bob", "alice", "bob", "bob"] {
            sent.push(self.charge(wallet, 10).await);
        }
        let mut rows = vec![row(self.get("/busy")).await?];
        for wallet in ["alice", "bob"] {
            self.shop.outside.answer(wallet);
        }
        rows.append(&mut answers(sent).await?);
        Ok(rows)
    }

    /// The bank hangs for longer than the second charge waits.
    pub async fn slow(&self) -> io::Result<Vec<Row>> {
        self.shop.outside.hang("dave");
        let first = self.charge("dave", 100).await;
        let second = row(self.post("/wallets/dave/200")).await?;
        self.shop.outside.answer("dave");
        let first = row(first).await?;
        Ok(vec![first, second, row(self.post("/wallets/dave/300")).await?])
    }

    /// The shop closes while two requests run, one of them without its client, two wait, and one still arrives.
    pub async fn close(self) -> io::Result<Vec<Row>> {
        for who in ["erin", "carrier"] {
            self.shop.outside.hang(who);
        }
        let running = self.charge("erin", 100).await;
        let queued = vec![self.charge("erin", 200).await, self.charge("erin", 300).await];
        let order = self.order(9).await;
        let gone = self.disconnect(order).await;

        let Self { shop, address, served, terminate, .. } = self;
        terminate.send(()).expect("the shop is open");
        until(|| shop.is_closing()).await;
        let mut rows = answers(queued).await?; // while the bank still hangs
        shop.outside.answer("erin");
        rows.push(row(running).await?);
        // Only an order without a client keeps the shop open now.
        rows.push(row(send(address, "POST /wallets/erin/400".into())).await?);
        shop.outside.answer("carrier");
        served.await.expect("the server does not panic")?;
        rows.push(gone_row(gone, shop.books().parcels.contains_key(&9)));
        assert!(send(address, "POST /orders/10".into()).answer().await.is_err(), "the port is closed");
        Ok(rows)
    }
}

async fn row(sent: Sent) -> io::Result<Row> {
    let request = sent.request.clone();
    let answer = timeout(FOREVER, sent.answer()).await??;
    Ok(Row { request, status: Some(answer.status), text: answer.text, after: Some(answer.after) })
}

/// What became of the request of a client that disconnected.
fn gone_row(request: String, carried_out: bool) -> Row {
    let text = if carried_out { "it ran, and was finished" } else { "it waited, and was never run" };
    Row { request, status: None, text: text.into(), after: None }
}

async fn answers(sent: Vec<Sent>) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for sent in sent {
        rows.push(row(sent).await?);
    }
    Ok(rows)
}

/// Waits for a state of the shop.
async fn until(state: impl Fn() -> bool) {
    let reached = async {
        while !state() {
            yield_now().await;
        }
    };
    timeout(FOREVER, reached).await.expect("the shop gets there");
}

/// Counts a handler as running, until dropped.
struct Inside(Arc<AtomicUsize>);

impl Inside {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
