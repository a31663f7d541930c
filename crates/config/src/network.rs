//! Networks as people write them in a file, and the list of proxies that are believed.
//!
//! Guards that a network has one meaning: nothing behind its length, and IPv4 written as IPv6 is IPv4.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A network such as `10.0.0.0/8`, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(IpNet);

impl Network {
    /// Whether the address is in it.
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Whether every address of its family is in it.
    pub fn is_everything(self) -> bool {
        self.0.prefix_len() == 0
    }

    /// The network in the form of the crate that calculates with it.
    pub fn into_inner(self) -> IpNet {
        self.0
    }
}

/// What is no network, and what would be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetwork {
    /// Something else.
    #[error("'{0}' is not a network: write an address and a length, such as 10.0.0.0/8")]
    Unreadable(String),
    /// `10.1.2.3/8` could mean two things.
    #[error("'{given}' has bits behind its length: did you mean {meant}?")]
    Bits {
        /// What was written.
        given: String,
        /// The network it is in.
        meant: IpNet,
    },
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let shown = || text.chars().take(64).filter(|c| !c.is_control()).collect::<String>();
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let net = net.map_err(|_| InvalidNetwork::Unreadable(shown()))?;
        if net.addr() != net.network() {
            return Err(InvalidNetwork::Bits { given: shown(), meant: net.trunc() });
        }
        let mapped = match net {
            IpNet::V6(v6) if v6.prefix_len() >= 96 => v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96)),
            _ => None,
        };
        Ok(Self(mapped.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(net, IpNet::V4)))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Network {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A network in the form address/length, or a single address.",
            "examples": ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]
        })
    }
}

/// Networks of the proxies in front of a listener. They alone are believed when they say whom they speak for. A network of
/// every address is refused: it would believe everybody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedProxies(Arc<[Network]>);

impl TrustedProxies {
    /// Whether nobody is believed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a proxy at this address is believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

impl fmt::Display for TrustedProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, network) in self.0.iter().enumerate() {
            write!(f, "{}{network}", if index > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

impl TryFrom<Vec<Network>> for TrustedProxies {
    type Error = String;

    fn try_from(networks: Vec<Network>) -> Result<Self, String> {
        match networks.iter().find(|network| network.is_everything()) {
            Some(all) => Err(format!("{all} is every address, so that everybody would be believed: name the proxies themselves")),
            None => Ok(Self(networks.into())),
        }
    }
}

impl Serialize for TrustedProxies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter())
    }
}

impl JsonSchema for TrustedProxies {
    fn schema_name() -> Cow<'static, str> {
        "TrustedProxies".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Vec::<Network>::json_schema(generator)
    }
}

impl<'de> Deserialize<'de> for TrustedProxies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(Vec::<Network>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn networks_have_one_form() {
        for (text, form) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), form);
        }
        for (wrong, says) in [
            ("10.1.2.3/8", "did you mean 10.0.0.0/8"),
            ("10.0.0.0/33", "not a network"),
            ("office", "not a network"),
            ("", "not a network"),
            ("10.0.0/8", "not a network"),
        ] {
            let error = wrong.parse::<Network>().unwrap_err().to_string();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }

    #[test]
    fn nobody_is_believed_by_default_and_everybody_never() {
        let read = |value| serde_json::from_value::<TrustedProxies>(value).map_err(|error| error.to_string());
        let near: IpAddr = "127.0.0.1".parse().unwrap();
        assert!(!TrustedProxies::default().trusts(near));
        let proxies = read(json!(["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"])).unwrap();
        for trusted in ["127.0.0.1", "::ffff:127.0.0.1", "10.9.8.7", "2001:db8::7"] {
            assert!(proxies.trusts(trusted.parse().unwrap()), "{trusted}");
        }
        for other in ["127.0.0.2", "11.0.0.1", "::1", "2001:db9::1", "::10.9.8.7"] {
            assert!(!proxies.trusts(other.parse().unwrap()), "{other}");
        }
        assert_eq!(serde_json::to_value(&proxies).unwrap(), json!(["127.0.0.1/32", "10.0.0.0/8", "2001:db8::/32"]));
        for (wrong, says) in [
            (json!(["10.0.0.0/8", "0.0.0.0/0"]), "everybody would be believed"),
            (json!(["::/0"]), "everybody would be believed"),
            (json!(["::ffff:0.0.0.0/96"]), "everybody would be believed"),
            (json!(["proxy.example"]), "not a network"),
            (json!("10.0.0.0/8"), "invalid type"),
        ] {
            let error = read(wrong.clone()).unwrap_err();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
