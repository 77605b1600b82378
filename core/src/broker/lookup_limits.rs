//! Limits on how often clients make the broker look up queues and channels in the store.
//!
//! Looking up a queue that is not hosted here takes from what its caller's address may ask in a second, and from what all may.
//! Looking up a channel takes only if there is none: clients that come back after a failover ask for channels that exist, all
//! at once, and are held up by nothing but [`CHANNELS_AT_ONCE`].

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Duration, Instant, timeout},
};

use super::BrokerError;
use crate::model::Origin;

/// Channels that are looked up in the store at once; so many of its connections they take at most.
pub const CHANNELS_AT_ONCE: usize = 4;
/// How long a look-up of a channel waits for its turn.
pub const CHANNEL_LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// One address may have this part of a broker's look-ups.
pub const PEER_SHARE: u32 = 4;
/// Addresses that are remembered; the one that asked longest ago makes room.
pub const MAX_PEERS: usize = 4_096;

/// The origin of the caller for which something is looked up. `None`: a caller in this process, or one whose address does not
/// count.
pub(super) type CallerOrigin<'c> = Option<&'c Origin>;

#[derive(Debug)]
pub(super) struct LookupLimits {
    per_second: u32,
    channels: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    all: Bucket,
    peers: BTreeMap<Origin, Peer>,
    /// The peers, the one that asked longest ago first.
    order: BTreeMap<u64, Origin>,
    asked: u64,
}

#[derive(Debug)]
struct Peer {
    bucket: Bucket,
    asked: u64,
}

/// Holds a second's worth of tokens. It may owe as many, which it earns back first.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    capacity: f64,
    tokens: f64,
    counted: Instant,
}

impl Bucket {
    fn new(per_second: u32) -> Self {
        Self { capacity: f64::from(per_second), tokens: f64::from(per_second), counted: Instant::now() }
    }

    fn has_token(&mut self, now: Instant) -> bool {
        let earned = now.duration_since(self.counted).as_secs_f64() * self.capacity;
        self.tokens = (self.tokens + earned).min(self.capacity);
        self.counted = now;
        self.tokens >= 1.0
    }

    fn pay(&mut self) {
        self.tokens = (self.tokens - 1.0).max(-self.capacity);
    }
}

impl State {
    /// What a peer may still ask, which is remembered from now on.
    fn of_peer(&mut self, peer: &Origin, per_second: u32) -> &mut Bucket {
        self.asked += 1;
        let asked = self.asked;
        match self.peers.get(peer) {
            Some(known) => {
                self.order.remove(&known.asked);
            }
            None if self.peers.len() >= MAX_PEERS => {
                if let Some((_, oldest)) = self.order.pop_first() {
                    self.peers.remove(&oldest);
                }
            }
            None => {}
        }
        self.order.insert(asked, peer.clone());
        let fresh = || Peer { bucket: Bucket::new(per_second), asked };
        let peer = self.peers.entry(peer.clone()).or_insert_with(fresh);
        peer.asked = asked;
        &mut peer.bucket
    }
}

impl LookupLimits {
    pub(super) fn new(per_second: u32) -> Self {
        let all = Bucket::new(per_second);
        let state = State { all, peers: BTreeMap::new(), order: BTreeMap::new(), asked: 0 };
        Self { per_second, channels: Semaphore::new(CHANNELS_AT_ONCE), state: Mutex::new(state) }
    }

    fn per_peer(&self) -> u32 {
        (self.per_second / PEER_SHARE).max(1)
    }

    fn refusal(what: &'static str, limit: u32) -> BrokerError {
        BrokerError::Overloaded { what, limit: usize::try_from(limit).unwrap_or(usize::MAX) }
    }

    /// Takes a token of the caller's, and one of all.
    ///
    /// # Errors
    /// [`BrokerError::Overloaded`] when there is none.
    pub(super) fn take(&self, caller: CallerOrigin<'_>) -> Result<(), BrokerError> {
        let now = Instant::now();
        let mut state = self.state.lock();
        if let Some(peer) = caller
            && !state.of_peer(peer, self.per_peer()).has_token(now)
        {
            return Err(Self::refusal("look-ups in the store per second for one address", self.per_peer()));
        }
        if !state.all.has_token(now) {
            return Err(Self::refusal("look-ups in the store per second", self.per_second));
        }
        Self::pay(&mut state, caller);
        Ok(())
    }

    /// What was asked for is not there. A caller that nobody knows is limited by its turns; if it paid, it could take from all
    /// others what they have, as nothing keeps it from asking again.
    pub(super) fn missed(&self, caller: CallerOrigin<'_>) {
        if caller.is_some() {
            Self::pay(&mut self.state.lock(), caller);
        }
    }

    fn pay(state: &mut State, caller: CallerOrigin<'_>) {
        state.all.pay();
        if let Some(peer) = caller.and_then(|peer| state.peers.get_mut(peer)) {
            peer.bucket.pay();
        }
    }

    /// The turn to look for a channel.
    ///
    /// # Errors
    /// [`BrokerError::Overloaded`] if the caller asked for too many that do not exist, or too many wait.
    pub(super) async fn channel(&self, caller: CallerOrigin<'_>) -> Result<SemaphorePermit<'_>, BrokerError> {
        self.may_miss(caller)?;
        let refusal =
            || Self::refusal("look-ups of channels at once", u32::try_from(CHANNELS_AT_ONCE).unwrap_or(u32::MAX));
        let turn = timeout(CHANNEL_LOOKUP_TIMEOUT, self.channels.acquire()).await;
        let turn = turn.map_err(|_| refusal())?.map_err(|_| refusal())?;
        // While it waited others of its kind may have missed.
        self.may_miss(caller)?;
        Ok(turn)
    }

    /// A caller that nobody knows is limited by the turns alone.
    fn may_miss(&self, caller: CallerOrigin<'_>) -> Result<(), BrokerError> {
        let Some(peer) = caller else { return Ok(()) };
        if self.state.lock().of_peer(peer, self.per_peer()).has_token(Instant::now()) {
            return Ok(());
        }
        Err(Self::refusal("look-ups of unknown channels per second for one address", self.per_peer()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn peer(n: usize) -> Origin {
        Origin::of(&format!("peer-{n}:1"))
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_come_back() {
        let lookups = LookupLimits::new(2);
        assert!(lookups.take(None).is_ok() && lookups.take(None).is_ok());
        assert!(lookups.take(None).is_err());
        advance(Duration::from_millis(500)).await;
        assert!(lookups.take(None).is_ok());
        assert!(lookups.take(None).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_leaves_something_to_the_others() {
        let lookups = LookupLimits::new(8);
        for _ in 0..2 {
            lookups.take(Some(&peer(1))).unwrap();
        }
        let error = lookups.take(Some(&peer(1))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "look-ups in the store per second for one address: the limit of 2 is reached; try again later"
        );
        for n in 2..5 {
            lookups.take(Some(&peer(n))).unwrap();
            lookups.take(Some(&peer(n))).unwrap();
        }
        assert!(lookups.take(Some(&peer(9))).is_err(), "all have had theirs");
    }

    #[tokio::test(start_paused = true)]
    async fn channels_that_exist_cost_nothing_and_others_do() {
        let lookups = LookupLimits::new(40);
        for _ in 0..20_000 {
            drop(lookups.channel(Some(&peer(1))).await.unwrap());
        }
        for _ in 0..10 {
            drop(lookups.channel(Some(&peer(2))).await.unwrap());
            lookups.missed(Some(&peer(2)));
        }
        assert!(lookups.channel(Some(&peer(2))).await.is_err());
        drop(lookups.channel(Some(&peer(1))).await.unwrap());
        advance(Duration::from_secs(1)).await;
        drop(lookups.channel(Some(&peer(2))).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_no_address_takes_nothing_from_others_by_asking_at_random() {
        let lookups = LookupLimits::new(8);
        for _ in 0..1_000 {
            drop(lookups.channel(None).await.unwrap());
            lookups.missed(None);
        }
        lookups.take(Some(&peer(1))).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_of_peers_has_a_bound() {
        let lookups = LookupLimits::new(1_000_000);
        for n in 0..MAX_PEERS + 100 {
            lookups.take(Some(&peer(n))).unwrap();
            lookups.take(Some(&peer(0))).unwrap();
        }
        let state = lookups.state.lock();
        assert_eq!((state.peers.len(), state.order.len()), (MAX_PEERS, MAX_PEERS));
        assert!(state.peers.contains_key(&peer(0)), "it asked just now");
        assert!(!state.peers.contains_key(&peer(1)));
    }
}
