//! A shop: the order service takes orders and pushes them into a queue, the billing service takes them out and charges
//! each customer, once.
//!
//! Both are ordinary users of `rmom-client`; nothing in here knows of a simulation. What they keep, they keep in databases
//! of their own ([`OrderBook`], [`Ledger`]), and the money is with a [`Bank`]. `tests/` runs them against a cluster whose
//! brokers die, and lets them die too.
//!
//! The billing service comes in two versions, one of which has a bug that tests with a healthy broker do not find.

mod bank;
mod billing_service;
mod ledger;
mod order_service;

pub use bank::Bank;
pub use billing_service::{Version, bill};
pub use ledger::Ledger;
pub use order_service::{Order, OrderBook, send_orders};

/// The queue between the two services.
pub const QUEUE: &str = "orders";

/// What can stop a service; whoever runs it starts it again.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
