//! Charges for orders.

use rmom_client::{Client, Start};

use crate::{Bank, Error, Ledger, Order, QUEUE};

/// Which version of the billing service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Notes that an order was taken, then charges: an order that it took just before a crash is never charged.
    First,
    /// Charges, then notes that it did. After a crash it may be given an order again that it has charged, and asks the bank
    /// again, with the same key.
    Second,
}

/// Charges for each order that comes, until it crashes. Started again it goes on where it was.
///
/// # Errors
/// If rmom cannot be reached for so long that the client gives up, or a message is no order.
pub async fn bill(client: Client, ledger: Ledger, bank: Bank, version: Version) -> Result<(), Error> {
    let channel = match ledger.channel() {
        Some(channel) => channel,
        None => {
            let channel = client.admin().create_channel(QUEUE, None, Start::Earliest).await?.id;
            ledger.save_channel(channel);
            channel
        }
    };
    let mut subscription = client.subscribe(channel);
    if let Some(position) = ledger.position() {
        subscription = subscription.resume_from(position);
    }
    let mut consumer = subscription.build();
    loop {
        let message = consumer.next().await?;
        let order = Order::from_text(str::from_utf8(&message.content)?)?;
        match version {
            Version::First => {
                ledger.save_position(consumer.position());
                bank.charge(message.id, &order).await;
            }
            Version::Second => {
                bank.charge(message.id, &order).await;
                ledger.save_position(consumer.position());
            }
        }
    }
}
