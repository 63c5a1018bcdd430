//! A workflow like a transaction, on smol: the steps of an order queue up, and one that fails stops those
//! behind it. The other order is not touched, and a retry runs.
//!
//! `cargo run --release --example stop`

use std::process::ExitCode;

use async_mutex_lite::{KeyedMutex, Stopped};
use smol::future::{yield_now, zip};

type Outcome = Result<Result<(), &'static str>, Stopped>;

struct Shop {
    mutex: KeyedMutex<u32>,
    card_works: bool,
}

impl Shop {
    async fn step(&self, order: u32, name: &str) -> (String, Outcome) {
        let outcome = self.mutex.run_or_stop(order, async || {
            yield_now().await; // the work
            let declined = order == 7 && name == "charge" && !self.card_works;
            if declined { Err("card declined") } else { Ok(()) }
        });
        (format!("order {order}: {name}"), outcome.await)
    }

    /// Queues the three steps of an order at once.
    async fn order(&self, order: u32) -> Vec<(String, Outcome)> {
        let (reserve, charge) = (self.step(order, "reserve"), self.step(order, "charge"));
        let ((reserve, charge), ship) = zip(zip(reserve, charge), self.step(order, "ship")).await;
        vec![reserve, charge, ship]
    }
}

/// Two orders at once, one with a card that is declined; then that one again, with another card.
pub(crate) fn outcomes() -> [Vec<(String, Outcome)>; 3] {
    let mut shop = Shop { mutex: KeyedMutex::new(), card_works: false };
    let (first, other) = smol::block_on(zip(shop.order(7), shop.order(8)));
    shop.card_works = true;
    let retry = smol::block_on(shop.order(7));
    assert!(shop.mutex.is_empty());
    [first, other, retry]
}

pub(crate) fn main() -> ExitCode {
    let [first, other, retry] = outcomes();
    for (title, steps) in [("at first", &first), ("meanwhile", &other), ("again", &retry)] {
        for (step, outcome) in steps {
            let outcome = match outcome {
                Ok(Ok(())) => "done".to_string(),
                Ok(Err(error)) => format!("failed: {error}"),
                Err(stopped) => format!("not run: {stopped}"),
            };
            println!("{title:>9}  {step:<16} {outcome}");
        }
    }
    let shipped_unpaid = first[2].1.is_ok();
    let all_done = other.iter().chain(&retry).all(|(_, outcome)| *outcome == Ok(Ok(())));
    if all_done && !shipped_unpaid { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
