//! Admission of connections: the limits on their number, the reserve beyond them, and the memory that HTTP/2 may fill before
//! it is read.

use std::{
    collections::BTreeMap,
    fmt::Display,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use parking_lot::Mutex;
use rmom_core::{model::Origin, repeat::Repeat};
use tokio_util::sync::CancellationToken;

use super::{ServeSettings, ServeStats};

/// Connections beyond the limits, for the clients that keep the cluster alive: probes and other calls of managers, health
/// checks, metrics.
pub const RESERVED_CONNECTIONS: usize = 64;
/// Limit on the connections in the reserve from one address.
pub const RESERVED_CONNECTIONS_PER_PEER: usize = 8;
/// Bytes that a client may send on a connection before they are read, while there are few connections.
pub const HTTP2_LARGEST_WINDOW_BYTES: u32 = 16 << 20;
/// The lower bound of the same; HTTP/2 does not allow less.
pub const HTTP2_SMALLEST_WINDOW_BYTES: u32 = 65_535;
/// Bytes that a client may send on a stream before they are read: lower and upper bound, and never more than half of its
/// connection's window. Even half of the smallest window lets 4 MiB through within a push's deadline at a round trip of 100
/// ms.
pub const HTTP2_STREAM_WINDOW_BYTES: (u32, u32) = (64 << 10, 512 << 10);
/// A new connection gets this part of what is left of `max_receive_bytes`, so that windows shrink over hundreds of
/// connections.
const WINDOW_SHARE: usize = 128;
/// A stream gets this part of its connection's window.
const STREAM_SHARE: u32 = 16;

/// The limit that a connection reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    All,
    Peer,
    /// TLS handshakes from one address, which the listener counts.
    Handshakes,
}

impl Limit {
    pub(super) const fn setting(self) -> &'static str {
        match self {
            Self::All => "max_connections",
            Self::Peer => "max_connections_per_peer",
            Self::Handshakes => "handshakes_per_peer",
        }
    }
}

/// A connection, for as long as it counts.
pub(super) struct Slot {
    admission: Arc<Admission>,
    origin: Origin,
    /// The limit that it is beyond. Such a connection may do only what the reserve is for.
    pub(super) beyond: Option<Limit>,
    /// Its place in the reserve, if it has one.
    pub(super) place: Option<Place>,
    /// Bytes that its client may send before they are read.
    pub(super) window: u32,
}

/// A place in the reserve. It is *unproven* until a request that the reserve is for has been answered on it. When all places
/// are taken a new connection takes the oldest unproven one, so that strangers cannot keep managers out.
#[derive(Clone)]
pub(super) struct Place {
    admission: Arc<Admission>,
    number: u64,
    displaced: CancellationToken,
}

impl Place {
    /// A request that the reserve is for was answered: the connection keeps its place.
    pub(super) fn prove(&self) {
        self.admission.state.lock().unproven.remove(&self.number);
    }

    /// Waits until another connection has taken this place.
    pub(super) async fn displaced(&self) {
        self.displaced.cancelled().await;
    }
}

impl Slot {
    /// Bytes that the client may send on a stream before they are read.
    pub(super) fn stream_window(&self) -> u32 {
        let share = (self.window / STREAM_SHARE).clamp(HTTP2_STREAM_WINDOW_BYTES.0, HTTP2_STREAM_WINDOW_BYTES.1);
        share.min(self.window / 2)
    }

    /// Limit on the streams that wait before they are read. Their bytes take at most half of the connection's window; if
    /// they took all of it, no bytes could arrive for streams that are being read.
    pub(super) fn waiting_streams(&self) -> usize {
        ((self.window / 2 / self.stream_window()) as usize).max(1)
    }
}

/// Counts connections.
pub(super) struct Admission {
    settings: ServeSettings,
    stats: Arc<ServeStats>,
    state: Mutex<State>,
    refusals: [Repeat; 3],
}

#[derive(Default)]
struct State {
    open: usize,
    reserved: usize,
    /// Total bytes of the windows of all connections.
    windows: usize,
    /// The number of places in the reserve ever given out.
    places: u64,
    /// The places that are unproven now and their origins, the oldest first. Never more entries than places.
    unproven: BTreeMap<u64, (Origin, CancellationToken)>,
    /// Never more entries than connections.
    peers: BTreeMap<Origin, Peer>,
}

#[derive(Clone, Copy, Default)]
struct Peer {
    open: usize,
    reserved: usize,
}

impl Admission {
    pub(super) fn new(settings: ServeSettings, stats: Arc<ServeStats>) -> Arc<Self> {
        stats.limit.store(settings.max_connections, Relaxed);
        Arc::new(Self { settings, stats, state: Mutex::default(), refusals: Default::default() })
    }

    /// Takes a place for a connection, if there is one.
    pub(super) fn admit(self: &Arc<Self>, peer: &str) -> Option<Slot> {
        let origin = Origin::of(peer);
        let mut state = self.state.lock();
        let of_peer = state.peers.get(&origin).copied().unwrap_or_default();
        let per_peer = self.settings.max_connections_per_peer;
        let beyond = if state.open >= self.settings.max_connections {
            Some(Limit::All)
        } else if per_peer > 0 && of_peer.open >= per_peer {
            Some(Limit::Peer)
        } else {
            None
        };
        let mut place = None;
        if let Some(limit) = beyond {
            let free = (per_peer == 0 || of_peer.reserved < RESERVED_CONNECTIONS_PER_PEER)
                && (state.reserved < RESERVED_CONNECTIONS || state.displace());
            if !free {
                drop(state);
                self.refused(limit, &peer);
                return None;
            }
            place = Some(self.reserve(&mut state, &origin));
        }
        let of_peer = state.peers.entry(origin.clone()).or_default();
        if beyond.is_none() {
            of_peer.open += 1;
            state.open += 1;
        } else {
            of_peer.reserved += 1;
            state.reserved += 1;
        }
        // A connection in the reserve does little and needs little.
        let left = if beyond.is_none() { self.settings.max_receive_bytes.saturating_sub(state.windows) } else { 0 };
        let window = u32::try_from(left / WINDOW_SHARE).unwrap_or(u32::MAX);
        let window = window.clamp(HTTP2_SMALLEST_WINDOW_BYTES, HTTP2_LARGEST_WINDOW_BYTES);
        state.windows += window as usize;
        self.count(&state);
        Some(Slot { admission: self.clone(), origin, beyond, place, window })
    }

    fn reserve(self: &Arc<Self>, state: &mut State, origin: &Origin) -> Place {
        state.places += 1;
        let place = Place { admission: self.clone(), number: state.places, displaced: CancellationToken::new() };
        state.unproven.insert(place.number, (origin.clone(), place.displaced.clone()));
        place
    }

    fn count(&self, state: &State) {
        self.stats.open.store(state.open + state.reserved, Relaxed);
        self.stats.reserved.store(state.reserved, Relaxed);
        self.stats.windows.store(state.windows, Relaxed);
    }

    /// A connection was closed at once.
    pub(super) fn refused(&self, limit: Limit, peer: &dyn Display) {
        self.stats.refused[limit as usize].fetch_add(1, Relaxed);
        if let Some(times) = self.refusals[limit as usize].happened() {
            tracing::warn!(
                %peer,
                times,
                limit = limit.setting(),
                "connections refused: there are too many, also in the reserve"
            );
        }
    }
}

impl State {
    /// Takes the oldest unproven place away from its connection, if there is one. The place is free at once.
    fn displace(&mut self) -> bool {
        let Some((_, (origin, displaced))) = self.unproven.pop_first() else { return false };
        displaced.cancel();
        self.leave(&origin, true);
        true
    }

    /// A connection of this origin no longer counts.
    fn leave(&mut self, origin: &Origin, reserved: bool) {
        let Some(of_peer) = self.peers.get_mut(origin) else { return };
        let (all, of_peer_now) =
            if reserved { (&mut self.reserved, &mut of_peer.reserved) } else { (&mut self.open, &mut of_peer.open) };
        *all -= 1;
        *of_peer_now -= 1;
        if of_peer.open + of_peer.reserved == 0 {
            self.peers.remove(origin);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        if let Some(place) = &self.place {
            state.unproven.remove(&place.number);
        }
        // A place that was taken away counts for the connection that took it.
        if !self.place.as_ref().is_some_and(|place| place.displaced.is_cancelled()) {
            state.leave(&self.origin, self.beyond.is_some());
        }
        state.windows -= self.window as usize;
        self.admission.count(&state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(max_connections: usize, max_connections_per_peer: usize) -> Arc<Admission> {
        let settings = ServeSettings { max_connections, max_connections_per_peer, ..ServeSettings::default() };
        Admission::new(settings, Arc::default())
    }

    fn beyond(slots: &[Option<Slot>]) -> Vec<Option<Option<Limit>>> {
        slots.iter().map(|slot| slot.as_ref().map(|slot| slot.beyond)).collect()
    }

    #[test]
    fn beyond_the_limit_there_is_a_reserve_for_everybody() {
        let admission = admission(2, 100);
        let mut slots: Vec<_> =
            (0..2 + RESERVED_CONNECTIONS_PER_PEER + 1).map(|n| admission.admit(&format!("10.0.0.1:{n}"))).collect();
        assert_eq!(beyond(&slots[..3]), [Some(None), Some(None), Some(Some(Limit::All))]);
        assert!(slots.pop().unwrap().is_none(), "one address has a part of the reserve");
        let other = admission.admit("10.0.0.2:1").expect("a manager finds a place");
        assert_eq!(other.beyond, Some(Limit::All));
        assert_eq!((admission.stats.open(), admission.stats.reserved()), (11, 9));
        assert_eq!(admission.stats.refused(), 1);
        drop(slots.remove(0));
        assert_eq!(admission.admit("10.0.0.9:1").unwrap().beyond, None);
        drop((slots, other));
        assert_eq!((admission.stats.open(), admission.stats.reserved(), admission.stats.windows()), (0, 0, 0));
        assert!(admission.state.lock().peers.is_empty());
    }

    #[test]
    fn behind_a_proxy_one_address_may_have_all_of_the_reserve() {
        let admission = admission(1, 0);
        let slots: Vec<_> = (0..=RESERVED_CONNECTIONS).map(|n| admission.admit(&format!("10.0.0.1:{n}"))).collect();
        assert_eq!(beyond(&slots[..1]), [Some(None)]);
        assert!(slots[1..].iter().all(Option::is_some), "managers come through the proxy too");
        slots[1..].iter().flatten().for_each(|slot| slot.place.as_ref().unwrap().prove());
        assert!(admission.admit("10.0.0.1:1000").is_none(), "the reserve ends all the same");
    }

    #[test]
    fn the_reserve_ends() {
        let admission = admission(0, 0);
        let slots: Vec<_> =
            (0..RESERVED_CONNECTIONS).map(|n| admission.admit(&format!("10.0.0.{n}:1")).unwrap()).collect();
        slots.iter().for_each(|slot| slot.place.as_ref().unwrap().prove());
        assert!(admission.admit("10.0.1.1:1").is_none(), "those who proved themselves stay");
        drop(slots);
        assert!(admission.admit("10.0.1.1:1").is_some());
    }

    #[test]
    fn strangers_leave_the_reserve_to_later_connections() {
        let admission = admission(0, 0);
        let knock = |n: usize| admission.admit(&format!("10.0.{}.{}:1", n / 250, n % 250)).unwrap();
        let displaced = |slot: &Slot| slot.place.as_ref().unwrap().displaced.is_cancelled();
        let manager = knock(0);
        manager.place.as_ref().unwrap().prove();
        let crowd: Vec<_> = (1..1_000).map(knock).collect();
        let late = admission.admit("10.9.9.9:1").expect("a manager finds a place");
        assert!(!displaced(&manager) && !displaced(&late));
        let stay = crowd.iter().filter(|slot| !displaced(slot)).count();
        assert_eq!((stay, admission.stats.reserved()), (RESERVED_CONNECTIONS - 2, RESERVED_CONNECTIONS));
        assert!(displaced(&crowd[0]) && !displaced(&crowd[998]), "the oldest go");
        drop((manager, crowd, late));
        assert_eq!((admission.stats.open(), admission.stats.reserved(), admission.stats.windows()), (0, 0, 0));
        let state = admission.state.lock();
        assert!(state.peers.is_empty() && state.unproven.is_empty());
    }

    #[test]
    fn one_address_has_its_limit_and_others_go_on() {
        let admission = admission(100, 3);
        let slots: Vec<_> = (0..4).map(|n| admission.admit(&format!("[2001:db8::{n}]:1"))).collect();
        assert_eq!(
            beyond(&slots[2..]),
            [Some(None), Some(Some(Limit::Peer))],
            "of one network, as all its addresses are"
        );
        assert_eq!(admission.admit("10.0.0.1:1").unwrap().beyond, None);
    }

    #[test]
    fn windows_shrink_so_that_their_sum_has_a_bound() {
        let admission = admission(100_000, 0);
        let slots: Vec<_> = (0..20_000).map(|n| admission.admit(&format!("h:{n}")).unwrap()).collect();
        assert_eq!((slots[0].window, slots[0].stream_window(), slots[0].waiting_streams()), (2 << 20, 128 << 10, 8));
        assert!(slots[66].window > 1 << 20 && slots[300].window > 128 << 10, "they fall over hundreds");
        assert_eq!((slots[9_999].stream_window(), slots[9_999].waiting_streams()), (32_767, 1));
        for slot in &slots {
            let waiting = slot.waiting_streams() * slot.stream_window() as usize;
            assert!(waiting <= slot.window as usize / 2, "half of {} is left for those that are read", slot.window);
        }
        assert_eq!(slots[9_999].window, HTTP2_SMALLEST_WINDOW_BYTES);
        let bound = ServeSettings::default().max_receive_bytes + slots.len() * HTTP2_SMALLEST_WINDOW_BYTES as usize;
        assert!(admission.stats.windows() <= bound);
        drop(slots);
        assert_eq!(admission.admit("h:1").unwrap().window, 2 << 20);
    }
}
