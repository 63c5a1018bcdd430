//! A shop that ships orders and charges wallets: one request at a time for each order, and for each wallet.
//!
//! A request waits for its turn in its handler, and is then carried out by a task of its own. So a client who
//! leaves gives up a place in the queue, but cuts off no work that has begun: half a charge would be worse than
//! either, and would stop those queued behind it.
//!
//! | status | what happened |
//! | --- | --- |
//! | 201, 200 | carried out; that order was shipped before |
//! | 402 | the charge was declined |
//! | 424 | the charge waited behind one that was declined |
//! | 429 | too many were waiting already |
//! | 503 | it had waited too long; the shop was closing |

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_mutex_lite::{KeyedMutex, KeyedMutexGuardArc, Stopped};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Router, serve};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::outside::Outside;

/// How many wait for one key, besides the one that has it.
pub const AT_MOST_WAITING: usize = 20;

pub struct Shop {
    pub orders: Arc<KeyedMutex<u64>>,
    pub wallets: Arc<KeyedMutex<String>>,
    /// The longest that a request waits for its turn. What it takes after that is its own affair.
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
    /// Each charge, in the order in which they were made.
    pub charges: Vec<(String, u64)>,
}

impl Books {
    /// Whether nobody has lost money, and no order shares its parcel, if this was in each wallet at first.
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
        self.books.lock().expect("nobody panics with the books open")
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Waits for the turn of a request, unless it is turned away.
    async fn turn<K: Eq + Hash>(&self, mutex: &Arc<KeyedMutex<K>>, key: K) -> Result<KeyedMutexGuardArc<K>, Refusal> {
        // Nobody comes between `admit` and the place in the queue, `stop_all` neither: whoever does not see here
        // that the shop is closing is in the queue when `close` stops it.
        let admit = |ahead| ahead <= AT_MOST_WAITING && !self.is_closing();
        let refused = || if self.is_closing() { Refusal::Closing } else { Refusal::Crowded };
        let ticket = mutex.ticket_arc_if(key, admit).ok_or_else(refused)?;
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
        self.outside.ask(&wallet).await; // the bank; nobody else charges this wallet meanwhile
        let Some(left) = balance.checked_sub(cents) else { return Err(Refusal::Declined { left: balance }) };
        let mut books = self.books();
        books.balances.insert(wallet.clone(), left);
        books.charges.push((wallet, cents));
        Ok((StatusCode::CREATED, format!("paid, {left} left")))
    }

    /// Turns away who waits and who comes, and waits until all that has begun is done, also if its client has left.
    async fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.orders.stop_all();
        self.wallets.stop_all();
        self.orders.all_idle().await;
        self.wallets.all_idle().await;
    }
}

async fn order(State(shop): State<Arc<Shop>>, Path(order): Path<u64>) -> Answer {
    let guard = shop.turn(&shop.orders, order).await?;
    let work = async move {
        let _guard = guard;
        shop.ship(order).await
    };
    Ok(tokio::spawn(work).await.expect("shipping does not panic"))
}

async fn charge(State(shop): State<Arc<Shop>>, Path((wallet, cents)): Path<(String, u64)>) -> Answer {
    let guard = shop.turn(&shop.wallets, wallet.clone()).await?;
    let work = guard.run_or_stop(async move || shop.withdraw(wallet, cents).await);
    tokio::spawn(work).await.expect("charging does not panic")
}

pub fn routes(shop: Arc<Shop>) -> Router {
    Router::new()
        .route("/orders/{order}", post(order))
        .route("/wallets/{wallet}/{cents}", post(charge))
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
            Self::BehindDeclined => (StatusCode::FAILED_DEPENDENCY, "turned away: one before it was declined".into()),
            Self::Crowded => (StatusCode::TOO_MANY_REQUESTS, "turned away: too many wait".into()),
            Self::TooLong => (StatusCode::SERVICE_UNAVAILABLE, "turned away: it waited too long".into()),
            Self::Closing => (StatusCode::SERVICE_UNAVAILABLE, "turned away: the shop is closing".into()),
        };
        (status, text).into_response()
    }
}
