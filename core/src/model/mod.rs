//! The words of rmom as types. A value of one of these types has been checked.
//!
//! Everything here is parsed once, at the edge (a gRPC request, a REST path, a row of the store). Past the edge no code
//! handles a raw label, topic or id.

mod code;
mod counters;
mod ids;
pub mod limits;
mod message;
mod name;
mod origin;
mod position;
mod time;

pub use code::{Code, Coded};
pub use counters::{Assignment, Epoch, Generation, Offset, ProducerEpoch, Renewals, Sequence, Term};
pub use ids::{
    BrokerAddr, BrokerId, ChannelId, ClaimId, IdError, Incarnation, ManagerId, MessageId, MessageIds, ProducerId,
    ProducerKey, QueueId,
};
pub use message::{Header, NewMessage};
pub use name::{NO_TOPIC, NameError, QueueLabel, Topic};
pub use origin::Origin;
pub use position::{Position, Start};
pub use time::StoreTime;
