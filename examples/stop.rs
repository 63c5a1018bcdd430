//! A workflow that ends at its first error, on smol: the steps of an order queue up, and a step that fails stops the
//! steps behind it. The other order is not affected, and a retry runs.
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
    async fn step(&self, order: u32, name: &'static str) -> (&'static str, Outcome) {
        let outcome = self.mutex.run_or_stop(order, async || {
            yield_now().await; // the work
            let declined = order == 7 && name == "charge" && !self.card_works;
            if declined { Err("card declined") } else { Ok(()) }
        });
        (name, outcome.await)
    }

    /// Queues the three steps of an order at once.
    async fn order(&self, order: u32) -> Vec<(&'static str, Outcome)> {
        let (reserve, charge) = (self.step(order, "reserve"), self.step(order, "charge"));
        let ((reserve, charge), ship) = zip(zip(reserve, charge), self.step(order, "ship")).await;
        vec![reserve, charge, ship]
    }
}

/// Two orders at once, one with a card that is declined; then that one again, with another card.
pub(crate) fn outcomes() -> [Vec<(&'static str, Outcome)>; 3] {
    let mut shop = Shop { mutex: KeyedMutex::new(), card_works: false };
    let (first, other) = smol::block_on(zip(shop.order(7), shop.order(8)));
    shop.card_works = true;
    let retry = smol::block_on(shop.order(7));
    assert!(shop.mutex.is_empty());
    [first, other, retry]
}

pub(crate) fn main() -> ExitCode {
    let [first, other, retry] = outcomes();
    let titles = ["order 7, with a card that is declined", "order 8, meanwhile", "order 7 again, with another card"];
    for (title, steps) in titles.iter().zip([&first, &other, &retry]) {
        println!("{title}");
        for (step, outcome) in steps {
            let outcome = match outcome {
                Ok(Ok(())) => "done".to_string(),
                Ok(Err(error)) => format!("failed: {error}"),
                Err(stopped) => stopped.to_string(),
            };
            println!("  {step:<8} {outcome}");
        }
    }
    let shipped_unpaid = first[2].1.is_ok();
    let all_done = other.iter().chain(&retry).all(|(_, outcome)| *outcome == Ok(Ok(())));
    if all_done && !shipped_unpaid { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
