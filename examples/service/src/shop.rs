//! A shop that ships orders and charges wallets: one request at a time for each order, and for each wallet.
//!
//! A request waits for its key in its handler, and is then carried out by a task of its own. So a client that
//! disconnects gives up its place in the queue, but interrupts no work that has begun: half a charge would be worse
//! than none and than a whole one, and would stop the charges queued behind it.
//!
//! | status | what happened |
//! | --- | --- |
//! | 201 | carried out |
//! | 200 | nothing to do: that order had been shipped before |
//! | 402 | the charge was declined |
//! | 424 | the charge waited behind one that was declined |
//! | 429 | too many were waiting already |
//! | 503 | it waited too long, or the shop is closing |
//!
//! `GET /busy` lists the wallets with the longest queues.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_mutex_lite::{Guard, KeyState, KeyedMutex, Stopped};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, serve};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::outside::Outside;

/// How many requests may wait for a key, besides its holder.
pub const AT_MOST_WAITING: usize = 20;
/// How many wallets `GET /busy` lists.
pub const BUSIEST: usize = 10;

pub struct Shop {
    pub orders: Arc<KeyedMutex<u64>>,
    pub wallets: Arc<KeyedMutex<String>>,
    /// The longest that a request waits for its key. It limits the wait only, not the work after that.
    pub patience: Duration,
    pub outside: Outside,
    closing: AtomicBool,
    books: Mutex<Books>,
}

/// What a database would hold.
#[derive(Default)]
pub struct Books {
    pub balances: HashMap<String, u64>,
    /// The parcel in which an order was shipped.
    pub parcels: HashMap<u64, usize>,
    /// All charges, in the order in which they were made.
    pub charges: Vec<(String, u64)>,
}

impl Books {
    /// Whether no money was lost, if this was in each wallet at first, and no two orders are in one parcel.
    pub fn is_sound(&self, funds: u64) -> bool {
        let spent = |wallet: &str| -> u64 {
            let charges = self.charges.iter().filter(|(whose, _)| whose == wallet);
            charges.map(|(_, cents)| cents).sum()
        };
        let parcels: HashSet<_> = self.parcels.values().collect();
        parcels.len() == self.parcels.len() && self.balances.iter().all(|(wallet, left)| left + spent(wallet) == funds)
    }
}

/// Why a request was not carried out.
enum Refusal {
    Declined { left: u64 },
    BehindDeclined,
    Crowded,
    TooLong,
    Closing,
}

type Answer = Result<(StatusCode, String), Refusal>;

impl Shop {
    pub fn new(patience: Duration) -> Self {
        Self {
            orders: Arc::default(),
            wallets: Arc::default(),
            patience,
            outside: Outside::default(),
            closing: AtomicBool::new(false),
            books: Mutex::default(),
        }
    }

    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("no panic while the books are locked")
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Waits until the request holds its key, unless it is refused.
    async fn lock<K: Eq + Hash>(
        &self,
        mutex: &Arc<KeyedMutex<K>>,
        key: K,
    ) -> Result<Guard<Arc<KeyedMutex<K>>>, Refusal> {
        // `admit` and taking the place are one step: a request that does not see here that the shop is closing is in the
        // queue when `close` stops it.
        let admit = |now: KeyState| now.waiting < AT_MOST_WAITING && !self.is_closing();
        let refused = || if self.is_closing() { Refusal::Closing } else { Refusal::Crowded };
        let ticket = mutex.arc().ticket_if(key, admit).ok_or_else(refused)?;
        match timeout(self.patience, ticket).await {
            Ok(Ok(guard)) => Ok(guard),
            Ok(Err(Stopped)) if self.is_closing() => Err(Refusal::Closing),
            Ok(Err(Stopped)) => Err(Refusal::BehindDeclined),
            Err(_elapsed) => Err(Refusal::TooLong),
        }
    }

    async fn ship(&self, order: u64) -> (StatusCode, String) {
        if let Some(parcel) = self.books().parcels.get(&order) {
            return (StatusCode::OK, format!("parcel {parcel}, shipped before"));
        }
        self.outside.ask("carrier").await;
        let parcels = &mut self.books().parcels;
        let parcel = parcels.len() + 1;
        parcels.insert(order, parcel);
        (StatusCode::CREATED, format!("parcel {parcel}"))
    }

    async fn withdraw(&self, wallet: String, cents: u64) -> Answer {
        let balance = self.books().balances.get(&wallet).copied().unwrap_or(0);
        self.outside.ask(&wallet).await; // its bank; no other charge of this wallet runs meanwhile
        let Some(left) = balance.checked_sub(cents) else { return Err(Refusal::Declined { left: balance }) };
        let mut books = self.books();
        books.balances.insert(wallet.clone(), left);
        books.charges.push((wallet, cents));
        Ok((StatusCode::CREATED, format!("paid, {left} left")))
    }

    /// The wallets with the longest queues, the longest first.
    fn busiest(&self) -> Vec<(String, KeyState)> {
        let mut wallets = Vec::new();
        self.wallets.for_each_locked(|wallet, now| wallets.push((wallet.clone(), now)));
        wallets.sort_by(|(one, now), (other, then)| then.waiting.cmp(&now.waiting).then_with(|| one.cmp(other)));
        wallets.truncate(BUSIEST);
        wallets
    }

    /// Refuses, at once, the requests that are queued, and those that arrive from now on. Waits until the running ones
    /// are finished, even if their clients have disconnected.
    async fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.orders.stop_all();
        self.wallets.stop_all();
        self.orders.all_idle().await;
        self.wallets.all_idle().await;
    }
}

async fn order(State(shop): State<Arc<Shop>>, Path(order): Path<u64>) -> Answer {
    let guard = shop.lock(&shop.orders, order).await?;
    let work = async move {
        let _guard = guard;
        shop.ship(order).await
    };
    Ok(tokio::spawn(work).await.expect("shipping does not panic"))
}

async fn charge(State(shop): State<Arc<Shop>>, Path((wallet, cents)): Path<(String, u64)>) -> Answer {
    let guard = shop.lock(&shop.wallets, wallet.clone()).await?;
    let work = guard.run_or_stop(async move || shop.withdraw(wallet, cents).await);
    tokio::spawn(work).await.expect("charging does not panic")
}

async fn busy(State(shop): State<Arc<Shop>>) -> String {
    let lines = shop.busiest().into_iter().map(|(wallet, now)| format!("{wallet}: {} waiting", now.waiting));
    lines.collect::<Vec<_>>().join("\n")
}

pub fn routes(shop: Arc<Shop>) -> Router {
    Router::new()
        .route("/orders/{order}", post(order))
        .route("/wallets/{wallet}/{cents}", post(charge))
        .route("/busy", get(busy))
        .with_state(shop)
}

/// Serves until `signal` is ready, closes the shop, and returns when the last answer has been sent.
pub async fn run(
    listener: TcpListener,
    routes: Router,
    shop: Arc<Shop>,
    signal: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let closed = async move {
        signal.await;
        shop.close().await;
    };
    serve(listener, routes).with_graceful_shutdown(closed).await
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::Declined { left } => (StatusCode::PAYMENT_REQUIRED, format!("declined, {left} left")),
            Self::BehindDeclined => (StatusCode::FAILED_DEPENDENCY, "refused: a charge before it was declined".into()),
            Self::Crowded => (StatusCode::TOO_MANY_REQUESTS, "refused: too many are waiting".into()),
            Self::TooLong => (StatusCode::SERVICE_UNAVAILABLE, "refused: it waited too long".into()),
            Self::Closing => (StatusCode::SERVICE_UNAVAILABLE, "refused: the shop is closing".into()),
        };
        (status, text).into_response()
    }
}
