//! The origin of a connection.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

/// The origin of a connection, for limits that apply to each client: an IPv4 address, the /64 network of an IPv6 address
/// (which a host has to itself), or the transport's name for a peer, without its port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(Place);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Place {
    Address(IpAddr),
    Name(Arc<str>),
}

impl Origin {
    /// The origin of the connection to a peer, which is usually `address:port`.
    #[must_use]
    pub fn of(peer: &str) -> Self {
        Self(match peer.parse() {
            Ok(SocketAddr::V4(v4)) => Place::Address(IpAddr::V4(*v4.ip())),
            Ok(SocketAddr::V6(v6)) => {
                let [a, b, c, d, ..] = v6.ip().segments();
                Place::Address(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)))
            }
            Err(_) => Place::Name(peer.rsplit_once(':').map_or(peer, |(host, _)| host).into()),
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Address(IpAddr::V6(network)) => write!(f, "{network}/64"),
            Place::Address(address) => address.fmt(f),
            Place::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_neighbours_make_no_difference() {
        assert_eq!(Origin::of("10.0.0.1:80"), Origin::of("10.0.0.1:81"));
        assert_ne!(Origin::of("10.0.0.1:80"), Origin::of("10.0.0.2:80"));
        assert_eq!(Origin::of("[2001:db8:1:2::3]:1"), Origin::of("[2001:db8:1:2:ffff::4]:2"));
        assert_ne!(Origin::of("[2001:db8:1:2::3]:1"), Origin::of("[2001:db8:1:3::3]:1"));
        assert_eq!(Origin::of("host:1"), Origin::of("host:2"));
        let shown =
            ["10.0.0.1:80", "[2001:db8:1:2::3]:1", "host:1", "in memory"].map(|peer| Origin::of(peer).to_string());
        assert_eq!(shown, ["10.0.0.1", "2001:db8:1:2::/64", "host", "in memory"]);
    }
}
