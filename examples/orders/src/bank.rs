//! Where the money is.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rmom_client::Uuid;
use tokio::time::sleep;

use crate::Order;

/// How long the bank takes for a charge.
const TRANSFER: Duration = Duration::from_millis(150);

/// A bank, as the billing service sees it. Clones are the same bank.
#[derive(Clone, Debug, Default)]
pub struct Bank(Arc<Mutex<Accounts>>);

#[derive(Debug, Default)]
struct Accounts {
    /// By request, what it was answered: a request that was seen before is not a second charge.
    requests: BTreeMap<Uuid, u64>,
    /// By order number, how often it was charged.
    charges: BTreeMap<u64, u32>,
}

impl Bank {
    /// Charges for an order. Banks want a key with each request, and charge once for each key.
    pub async fn charge(&self, key: Uuid, order: &Order) {
        sleep(TRANSFER).await;
        let mut accounts = self.0.lock();
        if accounts.requests.insert(key, order.cents).is_none() {
            *accounts.charges.entry(order.number).or_default() += 1;
        }
    }

    /// How often each order was charged, by its number.
    #[must_use]
    pub fn charges(&self) -> BTreeMap<u64, u32> {
        self.0.lock().charges.clone()
    }
}
