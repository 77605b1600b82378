//! The billing service's database.

use std::sync::Arc;

use parking_lot::Mutex;
use rmom_client::{Position, Uuid};

/// What the billing service has to remember when it is started again: its channel, and how far it is. Clones are the same
/// ledger, which survives crashes of the service.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<(Option<Uuid>, Option<Position>)>>);

impl Ledger {
    /// The channel, if there is one already.
    #[must_use]
    pub fn channel(&self) -> Option<Uuid> {
        self.0.lock().0
    }

    /// Remembers the channel.
    pub fn save_channel(&self, channel: Uuid) {
        self.0.lock().0 = Some(channel);
    }

    /// How far it is.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.0.lock().1
    }

    /// Remembers how far it is.
    pub fn save_position(&self, position: Option<Position>) {
        self.0.lock().1 = position;
    }
}
