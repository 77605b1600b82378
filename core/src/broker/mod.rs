//! A broker: hosts queues, stores what is pushed before it says so, and delivers it.
//!
//! - [`Broker`] (`handle`) is the handle; everything the outside asks goes through it. Requests, answers and errors are in
//!   `api`. What can be asked is in `push`, `subscribe` and `admin`.
//! - `inner` is what the broker's tasks and handles share; `directory` finds the queues that are hosted here, and channels;
//!   `lookup_limits` limits how often that asks the store.
//! - `supervisor` runs a task for each queue that the store assigns to the broker; `look` reads which those are.
//! - `membership` registers the broker, keeps its lease (`lease`) and retires it. `store_clock` estimates the store's clock.
//! - `queue` is that task: claims, accepts pushes (`producers` finds the duplicates), sends batches, recovers, trims.
//! - `logs` is the databases that hold the queues' logs. `committer` joins the batches of all queues of one into appends.
//! - `idle` deletes channels that nobody subscribes to any more, if a setting says so.
//! - `tail` is the cache of a queue's newest batches, `reader` reads it and the store, `subscription` hands over what it reads.

mod admin;
mod api;
mod committer;
mod count;
mod directory;
mod handle;
mod idle;
mod inner;
mod lease;
mod logs;
mod look;
mod lookup_limits;
mod membership;
mod moments;
mod producers;
mod push;
mod queue;
mod reader;
mod room;
mod settings;
mod span;
mod store_clock;
mod subscribe;
mod subscription;
mod supervisor;
mod tail;
#[cfg(feature = "testing")]
pub mod testing;
mod turns;

pub use crate::model::{Header, NewMessage};
pub use api::{
    BrokerError, BrokerExit, BrokerStatus, OpenPush, OpenedProducer, ProducerStamp, PushReceipt, PushRequest, PushRun,
    QueueCounters, QueuePhase, QueueStatus, RunReceipt, SubscribeRequest,
};
pub use handle::Broker;
pub use lookup_limits::{CHANNEL_LOOKUP_TIMEOUT, CHANNELS_AT_ONCE, MAX_PEERS, PEER_SHARE};
pub use push::PushSession;
pub use room::{
    ARRIVING_SHARE, Held, Kept, MAX_AHEAD_BYTES, MAX_EXPANSION, MAX_ROOM_BYTES, MAX_TURNS, MAX_TURNS_OF_QUEUE,
    PushRoom, QUEUE_SHARE, ROOM_TIMEOUT, Turn, WAITING_SHARE,
};
pub use settings::{BrokerSettings, Tuning};
pub use subscription::Subscription;
