//! What clients do to the shop. The order of events is made by waiting for the state of the shop, never by time.

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

use crate::client::{Sent, post};
use crate::shop::{self, AT_MOST_WAITING, Shop};

/// A minute is for ever: what has not come by then is a mistake.
pub const FOR_EVER: Duration = Duration::from_secs(60);
const WALLETS: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];
/// What there is in each wallet at first.
pub const FUNDS: u64 = 1_000;

/// A shop that is open, on a port of its own.
pub struct Town {
    pub shop: Arc<Shop>,
    pub address: SocketAddr,
    /// How many handlers are at work.
    handlers: Arc<AtomicUsize>,
    terminate: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
}

/// What happened to whom.
pub struct Row {
    pub path: String,
    /// `None`: the client left.
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
        post(self.address, path)
    }

    /// Sends a request, and waits until it has its key or waits for it.
    async fn queue<K: Eq + Hash>(&self, path: &str, mutex: &KeyedMutex<K>, key: K) -> Sent {
        let queued = || usize::from(mutex.is_locked(&key)) + mutex.waiting(&key);
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

    /// The client leaves, and the shop has noticed.
    async fn leave(&self, sent: Sent) -> String {
        let before = self.handlers.load(Ordering::SeqCst);
        let path = sent.path.clone();
        sent.leave().await;
        until(|| self.handlers.load(Ordering::SeqCst) < before).await;
        path
    }

    fn is_charged(&self, wallet: &str, cents: u64) -> bool {
        self.shop.books().charges.contains(&(wallet.into(), cents))
    }

    /// An order comes three times at once. Another one's client leaves, and asks again later.
    pub async fn orders(&self) -> io::Result<Vec<Row>> {
        self.shop.outside.hang("carrier");
        let mut sent = Vec::new();
        for _ in 0..3 {
            sent.push(self.order(7).await);
        }
        let leaves = self.order(8).await;
        let left = self.leave(leaves).await;
        self.shop.outside.answer("carrier");
        let mut rows = answers(sent).await?;
        self.shop.orders.idle(&8).await;
        rows.push(left_row(left, self.shop.books().parcels.contains_key(&8)));
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

    /// Clients leave, one whose charge is at work, and one whose charge waits.
    pub async fn leavers(&self) -> io::Result<Vec<Row>> {
        self.shop.outside.hang("bob");
        let at_work = self.charge("bob", 100).await;
        let stays = self.charge("bob", 200).await;
        let waits = self.charge("bob", 400).await;
        let stays_too = self.charge("bob", 50).await;
        let waits = self.leave(waits).await;
        let at_work = self.leave(at_work).await;
        self.shop.outside.answer("bob");
        let (stays, stays_too) = (row(stays).await?, row(stays_too).await?);
        let at_work = left_row(at_work, self.is_charged("bob", 100));
        let waits = left_row(waits, self.is_charged("bob", 400));
        Ok(vec![at_work, stays, waits, stays_too])
    }

    /// More come than may wait.
    pub async fn crowd(&self) -> io::Result<Vec<Row>> {
        self.shop.outside.hang("carol");
        let mut sent = Vec::new();
        for cents in 1..=1 + AT_MOST_WAITING as u64 {
            sent.push(self.charge("carol", cents).await);
        }
        let mut turned_away = Vec::new();
        for cents in 1..=4 {
            turned_away.push(row(self.post(&format!("/wallets/carol/{}", 100 + cents))).await?);
        }
        self.shop.outside.answer("carol");
        let mut rows = answers(sent).await?;
        rows.append(&mut turned_away);
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

    /// The shop closes while some are at work, one without its client, some wait, and one still comes.
    pub async fn close(self) -> io::Result<Vec<Row>> {
        for who in ["erin", "carrier"] {
            self.shop.outside.hang(who);
        }
        let mut sent = Vec::new();
        for cents in [100, 200, 300] {
            sent.push(self.charge("erin", cents).await);
        }
        let leaves = self.order(9).await;
        let left = self.leave(leaves).await;

        let Self { shop, address, served, terminate, .. } = self;
        terminate.send(()).expect("the shop is open");
        until(|| shop.is_closing()).await;
        shop.outside.answer("erin");
        let mut rows = answers(sent).await?;
        // An order without a client is all that keeps the shop open.
        rows.push(row(post(address, "/wallets/erin/400")).await?);
        shop.outside.answer("carrier");
        served.await.expect("the server does not panic")?;
        rows.push(left_row(left, shop.books().parcels.contains_key(&9)));
        assert!(post(address, "/orders/10").answer().await.is_err(), "nobody listens any more");
        Ok(rows)
    }
}

async fn row(sent: Sent) -> io::Result<Row> {
    let path = sent.path.clone();
    let answer = timeout(FOR_EVER, sent.answer()).await??;
    Ok(Row { path, status: Some(answer.status), text: answer.text, after: Some(answer.after) })
}

/// What became of the request of a client who left.
fn left_row(path: String, carried_out: bool) -> Row {
    let text = if carried_out { "it was at work, and done all the same" } else { "it was waiting, and never done" };
    Row { path, status: None, text: text.into(), after: None }
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
    timeout(FOR_EVER, reached).await.expect("the shop gets there");
}

/// One who is in a handler, until dropped.
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
