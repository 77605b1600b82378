//! Who may connect, and what that takes: the limits on connections, the reserve beyond them, and the memory that HTTP/2 may
//! fill before anybody reads.

use std::{
    collections::BTreeMap,
    fmt::Display,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use parking_lot::Mutex;
use rmom_core::{model::Origin, repeat::Repeat};

use super::{ServeSettings, ServeStats};

/// Connections beyond the limits, for those who see to it that the cluster lives: life probes and other calls of managers,
/// health checks, metrics.
pub const RESERVED_CONNECTIONS: usize = 64;
/// As many of them may come from one address.
pub const RESERVED_CONNECTIONS_PER_PEER: usize = 8;
/// What a client may send on a connection before it is read, as long as there are few connections.
pub const HTTP2_LARGEST_WINDOW_BYTES: u32 = 16 << 20;
/// The same at least; HTTP/2 knows no less.
pub const HTTP2_SMALLEST_WINDOW_BYTES: u32 = 65_535;
/// What a client may send on a stream before it is read, at most and at least.
pub const HTTP2_STREAM_WINDOW_BYTES: (u32, u32) = (32 << 10, 512 << 10);
/// A new connection gets this part of what is left of `max_receive_bytes`, and a stream this part of its connection's.
const WINDOW_SHARE: u32 = 32;

/// Which limit a connection met.
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

/// A connection, as long as it counts.
pub(super) struct Slot {
    admission: Arc<Admission>,
    origin: Origin,
    /// The limit that it is beyond: then it may do what the reserve is for, and nothing else.
    pub(super) beyond: Option<Limit>,
    /// What its client may send before it is read.
    pub(super) window: u32,
}

impl Slot {
    /// What the client may send on a stream before it is read.
    pub(super) fn stream_window(&self) -> u32 {
        (self.window / WINDOW_SHARE).clamp(HTTP2_STREAM_WINDOW_BYTES.0, HTTP2_STREAM_WINDOW_BYTES.1)
    }

    /// Streams that may wait before they are read. What they were sent takes half of the connection's window at most: with all
    /// of it taken, nothing could arrive for those that are read.
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
    /// Bytes of windows given out.
    windows: usize,
    /// No more entries than connections.
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

    /// A place for a connection, if there is one.
    pub(super) fn admit(self: &Arc<Self>, peer: &str) -> Option<Slot> {
        let origin = Origin::of(peer);
        let mut state = self.state.lock();
        let State { open, reserved, windows, peers } = &mut *state;
        let of_peer = peers.entry(origin.clone()).or_default();
        let per_peer = self.settings.max_connections_per_peer;
        let beyond = if *open >= self.settings.max_connections {
            Some(Limit::All)
        } else if per_peer > 0 && of_peer.open >= per_peer {
            Some(Limit::Peer)
        } else {
            None
        };
        match beyond {
            None => {
                *open += 1;
                of_peer.open += 1;
            }
            Some(limit) => {
                if *reserved >= RESERVED_CONNECTIONS || of_peer.reserved >= RESERVED_CONNECTIONS_PER_PEER {
                    if of_peer.open + of_peer.reserved == 0 {
                        peers.remove(&origin);
                    }
                    drop(state);
                    self.refused(limit, &peer);
                    return None;
                }
                *reserved += 1;
                of_peer.reserved += 1;
            }
        }
        // Whoever may do little needs little.
        let left = if beyond.is_none() { self.settings.max_receive_bytes.saturating_sub(*windows) } else { 0 };
        let window = u32::try_from(left / WINDOW_SHARE as usize).unwrap_or(u32::MAX);
        let window = window.clamp(HTTP2_SMALLEST_WINDOW_BYTES, HTTP2_LARGEST_WINDOW_BYTES);
        *windows += window as usize;
        self.count(&state);
        Some(Slot { admission: self.clone(), origin, beyond, window })
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

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        let State { open, reserved, windows, peers } = &mut *state;
        if let Some(of_peer) = peers.get_mut(&self.origin) {
            let (all, of_peer_now) =
                if self.beyond.is_none() { (open, &mut of_peer.open) } else { (reserved, &mut of_peer.reserved) };
            *all -= 1;
            *of_peer_now -= 1;
            if of_peer.open + of_peer.reserved == 0 {
                peers.remove(&self.origin);
            }
        }
        *windows -= self.window as usize;
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
        let admission = admission(2, 0);
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
    fn the_reserve_ends() {
        let admission = admission(0, 0);
        let slots: Vec<_> =
            (0..RESERVED_CONNECTIONS).map(|n| admission.admit(&format!("10.0.0.{n}:1")).unwrap()).collect();
        assert!(admission.admit("10.0.1.1:1").is_none());
        drop(slots);
        assert!(admission.admit("10.0.1.1:1").is_some());
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
        assert_eq!((slots[0].window, slots[0].stream_window(), slots[0].waiting_streams()), (8 << 20, 256 << 10, 16));
        assert!(slots[64].window > 1 << 20);
        assert_eq!((slots[9_999].stream_window(), slots[9_999].waiting_streams()), (32 << 10, 1));
        assert_eq!(slots[9_999].window, HTTP2_SMALLEST_WINDOW_BYTES);
        let bound = ServeSettings::default().max_receive_bytes + slots.len() * HTTP2_SMALLEST_WINDOW_BYTES as usize;
        assert!(admission.stats.windows() <= bound);
        drop(slots);
        assert_eq!(admission.admit("h:1").unwrap().window, 8 << 20);
    }
}
