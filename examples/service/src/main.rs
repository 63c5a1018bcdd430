//! A shop on axum and tokio that handles one request at a time for each order and for each wallet, and clients that
//! retry, disconnect, and crowd it.
//!
//! `cargo run` shows what happens to each request. The service is `src/shop.rs`; the rest is there to try it.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

mod client;
mod outside;
mod scenes;
mod shop;
#[cfg(test)]
mod tests;

use scenes::{FUNDS, Row, Town};
use shop::AT_MOST_WAITING;

const PATIENCE: Duration = Duration::from_secs(2);
/// If more consecutive rows than this have the same status, only the first and the last of them are shown.
const ALIKE: usize = 3;

#[tokio::main]
async fn main() -> io::Result<ExitCode> {
    let town = Town::open(PATIENCE).await?;
    let shop = town.shop.clone();
    println!("A shop on http://{}: one request at a time for each order, and for each wallet.", town.address);
    println!("Each wallet has {FUNDS} at first. The bank and the carrier answer when all requests of a scene are in.");

    show(
        "An order that is sent three times is shipped once; one whose client disconnects is shipped, too.",
        &town.orders().await?,
    );
    show("A charge that is declined stops the charges queued behind it, and no later one.", &town.declined().await?);
    show(
        "Clients disconnect, one whose charge runs and one whose charge waits. No other is stopped.",
        &town.leavers().await?,
    );
    show(&format!("More requests arrive than the {AT_MOST_WAITING} that may wait."), &town.crowd().await?);
    show("GET /busy lists the wallets with the longest queues.", &town.busy().await?);
    let seconds = PATIENCE.as_secs();
    show(
        &format!("The bank hangs. No request waits longer than {seconds} s for its wallet; the running one continues."),
        &town.slow().await?,
    );
    show("The shop closes. Queued requests are refused at once; running ones finish.", &town.close().await?);

    let books = shop.books();
    let sound = books.is_sound(FUNDS) && shop.orders.is_empty() && shop.wallets.is_empty();
    println!(
        "\n{} parcels, {} charges; the books are {}",
        books.parcels.len(),
        books.charges.len(),
        if sound { "sound" } else { "WRONG" }
    );
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(title: &str, rows: &[Row]) {
    println!("\n{title}");
    for alike in rows.chunk_by(|one, other| one.status == other.status) {
        if alike.len() <= ALIKE {
            alike.iter().for_each(show_row);
        } else {
            show_row(&alike[0]);
            println!("  {:>42} {} more like these", "…", alike.len() - 2);
            show_row(&alike[alike.len() - 1]);
        }
    }
}

fn show_row(Row { request, status, text, after }: &Row) {
    let status = status.map_or("gone".into(), |status| status.to_string());
    let after = after.map_or(String::new(), |after| format!("{} ms", after.as_millis()));
    println!("  {request:<24} {status:>4} {after:>8}  {}", text.replace('\n', "; "));
}
