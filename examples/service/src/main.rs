//! A shop on axum and tokio that keeps requests apart by order and by wallet, and clients who give it trouble.
//!
//! `cargo run` shows what happened to whom. The service is `src/shop.rs`; the rest is there to try it.

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
/// Of more rows alike than this, one after another, the first and the last are shown.
const ALIKE: usize = 3;

#[tokio::main]
async fn main() -> io::Result<ExitCode> {
    let town = Town::open(PATIENCE).await?;
    let shop = town.shop.clone();
    println!("A shop on http://{}: one request at a time for each order, and for each wallet.", town.address);
    println!("Each wallet has {FUNDS} at first. The bank and the carrier answer when all of a scene have come.");

    show(
        "An order that comes three times is shipped once; one whose client leaves is shipped, too.",
        &town.orders().await?,
    );
    show("A charge that is declined stops those behind it, and none that comes later.", &town.declined().await?);
    show("Clients leave, one at work and one who waits. It stops nobody.", &town.leavers().await?);
    show(&format!("More come than the {AT_MOST_WAITING} who may wait."), &town.crowd().await?);
    let seconds = PATIENCE.as_secs();
    show(
        &format!("The bank hangs. Nobody waits longer than {seconds} s; what is at work goes on."),
        &town.slow().await?,
    );
    show("The shop closes. What is at work is done; all others are turned away.", &town.close().await?);

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
            println!("  {:>42} {} more alike", "…", alike.len() - 2);
            show_row(&alike[alike.len() - 1]);
        }
    }
}

fn show_row(Row { path, status, text, after }: &Row) {
    let status = status.map_or("left".into(), |status| status.to_string());
    let after = after.map_or(String::new(), |after| format!("{} ms", after.as_millis()));
    println!("  POST {path:<19} {status:>4} {after:>8}  {text}");
}
