//! What happens to each request, judged by its status and the books. All tests but one open a shop whose requests wait
//! for so long that no machine is too slow.

use std::time::Duration;

use crate::scenes::{FOREVER, FUNDS, Row, Town};
use crate::shop::{AT_MOST_WAITING, BUSIEST};

async fn open(patience: Duration) -> Town {
    Town::open(patience).await.unwrap()
}

/// 0 for a client that disconnected.
fn statuses(rows: &[Row]) -> Vec<u16> {
    rows.iter().map(|row| row.status.unwrap_or(0)).collect()
}

/// Checks what a wallet was charged, in this order, and that nothing is left of the queue.
#[track_caller]
fn charged(town: &Town, wallet: &str, expected: &[u64]) {
    let books = town.shop.books();
    let charges = books.charges.iter().filter(|(whose, _)| whose == wallet).map(|(_, cents)| *cents);
    assert_eq!(charges.collect::<Vec<_>>(), expected);
    assert!(books.is_sound(FUNDS));
    assert!(town.shop.wallets.is_empty() && town.shop.orders.is_empty());
}

#[tokio::test]
async fn an_order_that_comes_again_is_shipped_once_and_gets_the_same_answer() {
    let town = open(2 * FOREVER).await;
    let rows = town.orders().await.unwrap();
    assert_eq!(statuses(&rows), [201, 200, 200, 0, 200]);
    let parcel = town.shop.books().parcels[&7];
    for row in &rows[..3] {
        assert!(row.text.starts_with(&format!("parcel {parcel}")), "{}", row.text);
    }
    assert_eq!(town.shop.books().parcels.len(), 2);
}

#[tokio::test]
async fn a_declined_charge_stops_the_charges_behind_it_and_no_later_one() {
    let town = open(2 * FOREVER).await;
    assert_eq!(statuses(&town.declined().await.unwrap()), [201, 201, 402, 424, 424, 201]);
    charged(&town, "alice", &[200, 300, 50]);
}

#[tokio::test]
async fn a_client_that_disconnects_stops_no_other_and_is_charged_only_if_its_charge_ran() {
    let town = open(2 * FOREVER).await;
    assert_eq!(statuses(&town.leavers().await.unwrap()), [0, 201, 0, 201]);
    charged(&town, "bob", &[100, 200, 50]);
}

#[tokio::test]
async fn twenty_wait_and_the_next_is_refused_at_once() {
    let town = open(2 * FOREVER).await;
    let rows = town.crowd().await.unwrap();
    let served = 1 + AT_MOST_WAITING;
    assert_eq!(statuses(&rows), [vec![201; served], vec![429; 4]].concat());
    charged(&town, "carol", &(1..=served as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_given_up_and_the_work_before_it_is_not() {
    let town = open(Duration::from_millis(50)).await;
    // The third does not wait: its wallet is free.
    assert_eq!(statuses(&town.slow().await.unwrap()), [201, 503, 201]);
    charged(&town, "dave", &[100, 300]);
}

#[tokio::test]
async fn a_shop_that_closes_tells_the_queued_at_once_and_finishes_what_runs() {
    let town = open(2 * FOREVER).await;
    let shop = town.shop.clone();
    let rows = town.close().await.unwrap();
    assert_eq!(statuses(&rows), [503, 503, 201, 503, 0], "queued requests are answered while the first charge runs");
    assert_eq!(shop.books().charges, [("erin".to_string(), 100)]);
    assert!(shop.books().parcels.contains_key(&9), "shipped, though its client had disconnected");
    assert!(shop.wallets.is_empty() && shop.orders.is_empty());
}

#[tokio::test]
async fn the_busiest_wallets_are_listed_the_longest_queue_first() {
    let town = open(2 * FOREVER).await;
    let rows = town.busy().await.unwrap();
    assert_eq!(rows[0].text, "bob: 2 waiting\nalice: 0 waiting");
    assert_eq!(statuses(&rows), [200, 201, 201, 201, 201]);
    assert_eq!(town.get("/busy").answer().await.unwrap().text, "");

    let wallets = (0..BUSIEST + 2).map(|number| format!("wallet {number:02}"));
    let guards: Vec<_> = wallets.map(|wallet| town.shop.wallets.arc().try_lock(wallet)).collect();
    let text = town.get("/busy").answer().await.unwrap().text;
    assert_eq!(text.lines().count(), BUSIEST);
    assert!(text.starts_with("wallet 00: 0 waiting\n"), "{text}");
    drop(guards);
}

#[tokio::test]
async fn wallets_do_not_wait_for_each_other() {
    let town = open(2 * FOREVER).await;
    town.shop.outside.hang("alice");
    let running = town.charge("alice", 100).await;
    assert_eq!(town.post("/wallets/bob/200").answer().await.unwrap().status, 201);
    assert!(town.shop.wallets.is_locked("alice"));
    town.shop.outside.answer("alice");
    assert_eq!(running.answer().await.unwrap().status, 201);
    assert_eq!(town.shop.books().charges, [("bob".to_string(), 200), ("alice".to_string(), 100)]);
}
