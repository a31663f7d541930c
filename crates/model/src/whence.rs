//! Where a request comes from: the other end of its connection, or whom a proxy the operator trusts says it speaks for.
//!
//! Guards that what counts, what is granted by, and what is merely claimed are three things. Must not read a header: who may
//! be believed is decided at the listener.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An address, with its port where that is known: proxies mostly tell the address alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// The port; absent is not zero.
    pub port: Option<u16>,
}

impl From<SocketAddr> for Endpoint {
    fn from(socket: SocketAddr) -> Self {
        Self { address: socket.ip(), port: Some(socket.port()) }
    }
}

impl From<IpAddr> for Endpoint {
    fn from(address: IpAddr) -> Self {
        Self { address, port: None }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).fmt(f),
            None => self.address.fmt(f),
        }
    }
}

/// What is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is neither an address nor an address with a port")]
pub struct InvalidEndpoint;

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    /// Reads `192.0.2.7`, `192.0.2.7:80`, `2001:db8::1` and `[2001:db8::1]:80`.
    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let socket = text.parse::<SocketAddr>().map(Self::from);
        socket.or_else(|_| text.parse::<IpAddr>().map(Self::from)).map_err(|_| InvalidEndpoint)
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Where a request comes from. Everything that counts by address counts by [`Whence::address`]; everything that grants by
/// address grants by [`Whence::place`], which is the same or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Whence {
    client: Endpoint,
    via: Option<Arc<str>>,
    claimed: Option<Arc<str>>,
    placed: bool,
}

impl Whence {
    /// Straight from the other end of the connection, which says nothing else.
    pub fn direct(peer: SocketAddr) -> Self {
        Self { client: peer.into(), via: None, claimed: None, placed: true }
    }

    /// From a client, as trusted proxies tell: `via` are they, from the client to here.
    pub fn relayed(client: Endpoint, via: impl Into<Arc<str>>) -> Self {
        Self { client, via: Some(via.into()), claimed: None, placed: true }
    }

    /// From the other end of the connection, which speaks for somebody nobody can place: it is counted and recorded as the
    /// client, and nothing is granted for where it is. `claimed` is what it says, for the record.
    pub fn unplaced(peer: SocketAddr, claimed: Option<&str>) -> Self {
        Self { client: peer.into(), via: None, claimed: claimed.map(Arc::from), placed: false }
    }

    /// The client.
    pub fn client(&self) -> Endpoint {
        self.client
    }

    /// The address everything counts by, in one form: IPv4 written as IPv6 is IPv4.
    pub fn address(&self) -> IpAddr {
        self.client.address.to_canonical()
    }

    /// The address something may be granted by; nothing where the client is not known.
    pub fn place(&self) -> Option<IpAddr> {
        self.placed.then(|| self.address())
    }

    /// Whether it comes straight from this machine. Never so through a proxy, whatever that says.
    pub fn is_near(&self) -> bool {
        self.placed && self.via.is_none() && self.address().is_loopback()
    }

    /// The trusted proxies in between, from the client to here, separated by commas.
    pub fn via(&self) -> Option<&str> {
        self.via.as_deref()
    }

    /// What the request says about where it comes from, where that is not believed.
    pub fn claimed(&self) -> Option<&str> {
        self.claimed.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_granted_to_who_cannot_be_placed_and_nearness_is_never_relayed() {
        let near: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let straight = Whence::direct("[::ffff:127.0.0.1]:9".parse().unwrap());
        assert!(straight.is_near() && straight.place() == Some(near.ip()) && straight.address() == near.ip());
        let unplaced = Whence::unplaced(near, Some("for=10.0.0.1"));
        assert_eq!((unplaced.is_near(), unplaced.place(), unplaced.address()), (false, None, near.ip()));
        assert_eq!(unplaced.claimed(), Some("for=10.0.0.1"));
        let relayed = Whence::relayed(Endpoint::from(near.ip()), "10.0.0.5");
        assert_eq!((relayed.is_near(), relayed.place(), relayed.via()), (false, Some(near.ip()), Some("10.0.0.5")));
    }

    #[test]
    fn a_port_that_is_not_known_is_not_zero() {
        for text in ["192.0.2.7", "192.0.2.7:0", "2001:db8::1", "[2001:db8::1]:443"] {
            let read: Endpoint = text.parse().unwrap();
            assert_eq!((read.to_string().as_str(), read.port.is_some()), (text, text.contains(".7:") || text.contains(']')));
            assert_eq!(serde_json::to_value(read).unwrap(), text);
        }
        for wrong in ["", "office", "192.0.2", "192.0.2.7:x", "[2001:db8::1]", "192.0.2.7:99999", "192.0.2.7 "] {
            assert_eq!(wrong.parse::<Endpoint>(), Err(InvalidEndpoint), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_reads_back(bits in any::<u128>(), port in any::<Option<u16>>()) {
            let endpoint = Endpoint { address: IpAddr::V6(bits.into()), port };
            prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
        }
    }
}
