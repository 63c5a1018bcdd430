//! The services that the shop calls: banks, and a carrier. Here they answer at once, unless they are told to hang.

use std::collections::HashSet;

use tokio::sync::watch;

#[derive(Default)]
pub struct Outside(watch::Sender<HashSet<&'static str>>);

impl Outside {
    /// Calls the carrier, or the bank of a wallet, and waits for the answer.
    pub async fn ask(&self, name: &str) {
        let mut hanging = self.0.subscribe();
        hanging.wait_for(|hanging| !hanging.contains(name)).await.expect("the shop owns the sender");
    }

    pub fn hang(&self, name: &'static str) {
        self.0.send_modify(|hanging| assert!(hanging.insert(name)));
    }

    pub fn answer(&self, name: &str) {
        self.0.send_modify(|hanging| assert!(hanging.remove(name)));
    }
}
