//! Takes orders, and sends them to whom they concern.

use std::sync::Arc;

use parking_lot::Mutex;
use rmom_client::{Client, NewMessage};

use crate::{Error, QUEUE};

/// Under this name rmom remembers how many orders were sent, also if this service does not.
const PRODUCER: &str = "order-service";

/// Somebody wants something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The order's number.
    pub number: u64,
    /// What it costs.
    pub cents: u64,
}

impl Order {
    /// As it is sent.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{} {}", self.number, self.cents)
    }

    /// From [`Order::to_text`].
    ///
    /// # Errors
    /// If the text is something else.
    pub fn from_text(text: &str) -> Result<Self, Error> {
        let (number, cents) = text.split_once(' ').ok_or("an order is a number and an amount")?;
        Ok(Self { number: number.parse()?, cents: cents.parse()? })
    }
}

/// The order service's database: all orders, in the order in which they came.
#[derive(Clone, Debug)]
pub struct OrderBook(Arc<Mutex<Vec<Order>>>);

impl OrderBook {
    /// A book with these orders.
    #[must_use]
    pub fn new(orders: Vec<Order>) -> Self {
        Self(Arc::new(Mutex::new(orders)))
    }

    /// All orders.
    #[must_use]
    pub fn orders(&self) -> Vec<Order> {
        self.0.lock().clone()
    }
}

/// Sends all orders of the book, and returns when all are stored. Started again after a crash it goes on where it was: its
/// producer has a name, so the broker knows how many of its messages are stored.
///
/// # Errors
/// If rmom cannot be reached for so long that the client gives up.
pub async fn send_orders(client: Client, book: OrderBook) -> Result<(), Error> {
    let producer = client.producer(QUEUE).named(PRODUCER).open().await?;
    let sent = usize::try_from(producer.stored_before())?;
    for order in book.orders().into_iter().skip(sent) {
        // Returns when it is accepted; that it is stored is known after `close`.
        let _delivery = producer.send(NewMessage::new(order.to_text())).await?;
    }
    producer.close().await?;
    Ok(())
}
