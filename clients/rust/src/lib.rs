//! The Rust client of rmom: producers, consumers and administration.
//!
//! Create one [`Client`], from the managers' addresses. Producers and consumers find the broker that hosts their queue, stay
//! with it, and find the queue again when it moves or its broker dies.
//!
//! # Producing
//!
//! ```no_run
//! use rmom_client::{Client, NewMessage};
//!
//! # async fn example() -> Result<(), rmom_client::Error> {
//! let client = Client::builder().managers(["http://127.0.0.1:8082"]).build()?;
//! client.admin().create_queue("orders").await?;
//!
//! let producer = client.producer("orders").open().await?;
//! let receipt = producer.push("one coffee").await?; // stored: it survives any crash
//! println!("stored at offset {:?}", receipt.offset);
//!
//! for number in 0..1_000_000 {
//!     // Waits only while too much is in flight.
//!     let _delivery = producer.send(NewMessage::new(format!("order {number}")).topic("bulk")).await?;
//! }
//! producer.close().await?; // waits for the acknowledgements
//! # Ok(())
//! # }
//! ```
//!
//! A retried message is stored once, whatever crashed in between and whichever broker answers, and messages keep their
//! order. See [`Producer`] for the case that a message has to be given up.
//!
//! # Consuming
//!
//! ```no_run
//! use rmom_client::{Client, Start};
//!
//! # async fn example() -> Result<(), rmom_client::Error> {
//! # let saved = None;
//! let client = Client::builder().managers(["http://127.0.0.1:8082"]).build()?;
//! let channel = client.admin().create_channel("orders", None, Start::Earliest).await?;
//!
//! let mut subscription = client.subscribe(channel.id);
//! if let Some(position) = saved {
//!     subscription = subscription.resume_from(position); // from an earlier run
//! }
//! let mut consumer = subscription.build();
//! loop {
//!     let message = consumer.next().await?;
//!     println!("{}: {}", message.offset, String::from_utf8_lossy(&message.content));
//!     let position = consumer.position(); // store it with the result of processing the message
//! }
//! # }
//! ```
//!
//! # Time and randomness
//!
//! The client uses tokio's clock, opens connections only through its [`Connector`], and draws random numbers only from
//! [`ClientBuilder::entropy`]. A simulation that controls these three can replay a run.

mod admin;
mod backoff;
mod client;
mod config;
mod connect;
mod consumer;
mod error;
mod message;
mod names;
mod producer;
mod rest;
mod route;
mod uptime;

pub use tokio_rustls::rustls;
pub use uuid::Uuid;

pub use admin::{
    Admin, Broker, Channel, Counters, LiveQueue, MovedQueue, Place, Problem, Queue, Rebalanced, Start, Status,
    Subscriber,
};
pub use client::Client;
pub use config::{ClientBuilder, DEFAULT_MAX_MESSAGE_BYTES, Entropy};
pub use connect::{Connector, Io, TcpConnector};
pub use consumer::{Consumer, ConsumerBuilder, ParsePositionError, Position};
pub use error::Error;
pub use message::{Header, Message, NewMessage};
pub use producer::{Delivery, Producer, ProducerBuilder, Receipt};
pub use rmom_proto::contract::{
    MAX_NAME_BYTES, NO_TOPIC,
    limits::{MAX_DELIVERY_TIMEOUT, MAX_HEADER_NAME_BYTES, MAX_HEADERS, MAX_PRODUCER_NAME_BYTES, MAX_TTL},
};

/// A random (version 4) UUID.
fn new_id(settings: &config::Settings) -> Uuid {
    uuid::Builder::from_random_bytes((settings.entropy)().to_ne_bytes()).into_uuid()
}
