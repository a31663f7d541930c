//! What an IP address is, and whether a source may use it. Guards against requests forged towards the inside:
//! metadata services, the machine itself, the operator's networks. Must look through every form that hides one
//! address in another.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an address is, by the IANA special-purpose registries (RFC 6890 and its successors).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// Reachable from everywhere.
    Public,
    /// This machine.
    Loopback,
    /// Private networks (RFC 1918) and unique local addresses (RFC 4193).
    Private,
    /// Shared address space of carriers (RFC 6598).
    Shared,
    /// One link only.
    LinkLocal,
    /// The instance metadata service of a cloud provider: hands out credentials.
    Metadata,
    /// `0.0.0.0/8` and `::`, which many systems take for this machine.
    Unspecified,
    /// Multicast and broadcast.
    Multicast,
    /// Documentation, benchmarking, discard and unassigned ranges.
    Reserved,
}

impl AddressClass {
    /// The class in words, for a refusal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::Shared => "shared (carrier-grade NAT)",
            Self::LinkLocal => "link-local",
            Self::Metadata => "cloud metadata",
            Self::Unspecified => "unspecified",
            Self::Multicast => "multicast",
            Self::Reserved => "reserved",
        }
    }

    /// Classes that no configuration can open.
    pub fn is_never_allowed(self) -> bool {
        matches!(self, Self::LinkLocal | Self::Metadata | Self::Unspecified | Self::Multicast)
    }

    /// Classifies an address, looking through IPv4-mapped, IPv4-compatible, 6to4, NAT64, Teredo and ISATAP forms.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => of_v4(v4),
            IpAddr::V6(v6) => of_v6(v6),
        }
    }
}

/// Metadata services by address: AWS, GCP, Azure, OpenStack (169.254.169.254), AWS ECS tasks and EKS pod identity,
/// Azure's wire server, Alibaba, Oracle (old).
const METADATA_V4: [Ipv4Addr; 6] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// AWS IMDS, AWS EKS pod identity and the GCP metadata server over IPv6.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

fn of_v4(address: Ipv4Addr) -> AddressClass {
    if METADATA_V4.contains(&address) {
        return AddressClass::Metadata;
    }
    match address.octets() {
        [0, ..] => AddressClass::Unspecified,
        [127, ..] => AddressClass::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => AddressClass::Private,
        [100, 64..=127, ..] => AddressClass::Shared,
        [169, 254, ..] => AddressClass::LinkLocal,
        [224..=239, ..] | [255, 255, 255, 255] => AddressClass::Multicast,
        // IETF assignments, 6to4 relays, documentation, benchmarking, class E.
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] | [240..=255, ..] => {
            AddressClass::Reserved
        }
        _ => AddressClass::Public,
    }
}

fn of_v6(address: Ipv6Addr) -> AddressClass {
    if METADATA_V6.contains(&address) {
        return AddressClass::Metadata;
    }
    let s = address.segments();
    let low = v4_of(s[6], s[7]);
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0] => AddressClass::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => AddressClass::Loopback,
        // IPv4-mapped, IPv4-compatible, IPv4-translated (SIIT), NAT64 well-known prefix.
        [0, 0, 0, 0, 0, 0xffff | 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => of_v4(low),
        // NAT64 local-use prefix (RFC 8215): the network behind it is the operator's own.
        [0x64, 0xff9b, 1, ..] => of_local_nat64(address),
        // Teredo: server in the clear, client inverted.
        [0x2001, 0, ..] => worse(worse(of_v4(v4_of(s[2], s[3])), of_v4(v4_of(!s[6], !s[7]))), AddressClass::Reserved),
        // 6to4.
        [0x2002, a, b, ..] => worse(of_v4(v4_of(a, b)), AddressClass::Reserved),
        // ISATAP interface identifiers.
        [first, _, _, _, 0 | 0x200, 0x5efe, ..] => worse(of_v4(low), of_v6_prefix(first)),
        // IETF protocol assignments (2001::/23) beyond Teredo: none of them is a backend.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] | [0x100, 0, 0, 0, ..] | [0x5f00, ..] => {
            AddressClass::Reserved
        }
        [first, ..] => of_v6_prefix(first),
    }
}

/// RFC 6052 puts the IPv4 address at one of four places behind a prefix, and only the operator's network knows which:
/// every place is read, and an address that must not be reached counts wherever it stands.
fn of_local_nat64(address: Ipv6Addr) -> AddressClass {
    let o = address.octets();
    let places = [[o[6], o[7], o[9], o[10]], [o[7], o[9], o[10], o[11]], [o[9], o[10], o[11], o[12]]];
    let hidden = places.into_iter().map(|octets| of_v4(Ipv4Addr::from(octets)));
    let closed =
        |class: &AddressClass| matches!(class, AddressClass::Metadata | AddressClass::LinkLocal | AddressClass::Loopback);
    let last = of_v4(Ipv4Addr::new(o[12], o[13], o[14], o[15]));
    hidden.filter(closed).fold(worse(last, AddressClass::Private), worse)
}

fn of_v6_prefix(first: u16) -> AddressClass {
    match first {
        0xfc00..=0xfdff => AddressClass::Private,
        // Link-local, and site-local (deprecated, RFC 3879).
        0xfe80..=0xfeff => AddressClass::LinkLocal,
        0xff00..=0xffff => AddressClass::Multicast,
        0x2000..=0x3fff => AddressClass::Public,
        _ => AddressClass::Reserved,
    }
}

fn v4_of(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
}

/// Of two readings of one address, the one that must be treated with more care.
fn worse(a: AddressClass, b: AddressClass) -> AddressClass {
    let weight = |class: AddressClass| match class {
        AddressClass::Public => 0,
        AddressClass::Reserved => 1,
        AddressClass::Shared => 2,
        AddressClass::Private => 3,
        AddressClass::Loopback => 4,
        AddressClass::Multicast => 5,
        AddressClass::Unspecified => 6,
        AddressClass::LinkLocal => 7,
        AddressClass::Metadata => 8,
    };
    if weight(a) >= weight(b) { a } else { b }
}

/// A range that an operator opens for one source: `loopback`, `private`, `shared`, or a network such as
/// `10.20.0.0/16`. Public addresses need no entry; metadata, link-local, unspecified and multicast addresses stay
/// closed whatever is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum AllowedRange {
    /// This machine.
    Loopback,
    /// RFC 1918 networks and unique local addresses.
    Private,
    /// Carrier-grade NAT.
    Shared,
    /// One network.
    Network {
        /// First address; all bits behind the prefix are zero.
        address: IpAddr,
        /// Length of the prefix in bits.
        prefix: u8,
    },
}

/// Text that is not a range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{shown}' is not an address range: {reason}; write loopback, private, shared or a network such as 10.20.0.0/16")]
pub struct InvalidRange {
    shown: String,
    reason: String,
}

impl FromStr for AllowedRange {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        let bad = |reason: &str| InvalidRange {
            shown: text.chars().filter(|c| !c.is_control()).take(60).collect(),
            reason: reason.to_owned(),
        };
        match text {
            "loopback" => return Ok(Self::Loopback),
            "private" => return Ok(Self::Private),
            "shared" => return Ok(Self::Shared),
            _ => {}
        }
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad("it is neither a known word nor an address"))?;
        let bits: u8 = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(digits) => digits.parse().ok().filter(|p| *p <= bits).ok_or_else(|| bad("the prefix length is out of range"))?,
        };
        let network = first_of(address, prefix);
        if network != address {
            return Err(bad(&format!("it has bits behind the prefix; the network is {network}/{prefix}")));
        }
        Ok(Self::Network { address, prefix })
    }
}

fn first_of(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
        }
    }
}

impl TryFrom<String> for AllowedRange {
    type Error = InvalidRange;
    fn try_from(text: String) -> Result<Self, InvalidRange> {
        text.parse()
    }
}

impl From<AllowedRange> for String {
    fn from(range: AllowedRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for AllowedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => f.write_str("loopback"),
            Self::Private => f.write_str("private"),
            Self::Shared => f.write_str("shared"),
            Self::Network { address, prefix } => write!(f, "{address}/{prefix}"),
        }
    }
}

/// Which addresses one client may connect to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressPolicy {
    allowed: Vec<AllowedRange>,
}

impl AddressPolicy {
    /// Public addresses, and what is listed.
    pub fn new(allowed: impl IntoIterator<Item = AllowedRange>) -> Self {
        Self { allowed: allowed.into_iter().collect() }
    }

    /// Lets an address pass, or says what it is.
    ///
    /// # Errors
    /// The class of the address when it is not allowed.
    pub fn check(&self, address: IpAddr) -> Result<(), AddressClass> {
        let class = AddressClass::of(address);
        let listed = |range: &AllowedRange| match range {
            AllowedRange::Loopback => class == AddressClass::Loopback,
            AllowedRange::Private => class == AddressClass::Private,
            AllowedRange::Shared => class == AddressClass::Shared,
            AllowedRange::Network { address: network, prefix } => {
                network.is_ipv4() == address.is_ipv4() && first_of(address, *prefix) == *network
            }
        };
        let passes = !class.is_never_allowed() && (class == AddressClass::Public || self.allowed.iter().any(listed));
        if passes { Ok(()) } else { Err(class) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn class(text: &str) -> AddressClass {
        AddressClass::of(text.parse().unwrap())
    }

    #[test]
    fn every_form_is_looked_through() {
        use AddressClass::{LinkLocal, Loopback, Metadata, Multicast, Private, Public, Reserved, Shared, Unspecified};
        for (text, expected) in [
            ("93.184.216.34", Public),
            ("127.0.0.1", Loopback),
            ("127.255.255.254", Loopback),
            ("10.0.0.1", Private),
            ("172.16.0.1", Private),
            ("172.32.0.1", Public),
            ("192.168.1.1", Private),
            ("100.64.0.1", Shared),
            ("100.128.0.1", Public),
            ("169.254.1.1", LinkLocal),
            ("169.254.169.254", Metadata),
            ("169.254.170.2", Metadata),
            ("100.100.100.200", Metadata),
            ("168.63.129.16", Metadata),
            ("0.0.0.0", Unspecified),
            ("0.1.2.3", Unspecified),
            ("224.0.0.1", Multicast),
            ("255.255.255.255", Multicast),
            ("192.0.2.1", Reserved),
            ("198.18.0.1", Reserved),
            ("240.0.0.1", Reserved),
            ("2606:4700::1111", Public),
            ("::1", Loopback),
            ("::", Unspecified),
            ("fd00:ec2::254", Metadata),
            ("fd20:ce::254", Metadata),
            ("fd12:3456::1", Private),
            ("fe80::1", LinkLocal),
            ("fec0::1", LinkLocal),
            ("ff02::1", Multicast),
            ("2001:db8::1", Reserved),
            ("::ffff:127.0.0.1", Loopback),
            ("::ffff:169.254.169.254", Metadata),
            ("::ffff:8.8.8.8", Public),
            ("::127.0.0.1", Loopback),
            ("::ffff:0:169.254.169.254", Metadata),
            ("64:ff9b::169.254.169.254", Metadata),
            ("64:ff9b::10.0.0.1", Private),
            ("64:ff9b::8.8.8.8", Public),
            ("64:ff9b:1::8.8.8.8", Private),
            ("64:ff9b:1::169.254.169.254", Metadata),
            ("64:ff9b:1:a9fe:a9:fe00::", Metadata),
            ("64:ff9b:1:2a9:fe:a9fe::", Metadata),
            ("64:ff9b:1:2:a9:fea9:fe00:0", Metadata),
            ("64:ff9b:1:7f00:0:100:808:808", Loopback),
            ("192.0.0.192", Metadata),
            ("169.254.170.23", Metadata),
            ("192.0.0.8", Reserved),
            ("192.88.99.1", Reserved),
            ("198.51.100.7", Reserved),
            ("203.0.113.7", Reserved),
            ("198.19.255.255", Reserved),
            ("172.31.255.255", Private),
            ("172.15.255.255", Public),
            ("100.63.255.255", Public),
            ("100.127.255.255", Shared),
            ("239.255.255.255", Multicast),
            ("126.255.255.255", Public),
            ("128.0.0.1", Public),
            ("1.0.0.1", Public),
            ("fd00:ec2::23", Metadata),
            ("100::1", Reserved),
            ("3fff:fff::1", Reserved),
            ("5f00::1", Reserved),
            ("2001:2::1", Reserved),
            ("2001:20::1", Reserved),
            ("2001:1::1", Reserved),
            ("2001:200::1", Public),
            ("2001:4860:4860::8888", Public),
            ("2002:a00:1::1", Private),
            ("::ffff:100.100.100.200", Metadata),
            ("::ffff:0.0.0.0", Unspecified),
            ("::ffff:255.255.255.255", Multicast),
            ("fc00::1", Private),
            ("febf::1", LinkLocal),
            ("4000::1", Reserved),
            ("2002:7f00:1::", Loopback),
            ("2002:a9fe:a9fe::1", Metadata),
            ("2002:808:808::1", Reserved),
            ("2001:0:4136:e378:8000:63bf:80ff:fffe", Loopback),
            ("2001:0:4136:e378:8000:63bf:f5ff:fffe", Private),
            ("2001:4860::5efe:a9fe:a9fe", Metadata),
            ("fe80::5efe:808:808", LinkLocal),
            ("1::1", Reserved),
        ] {
            assert_eq!(class(text), expected, "{text}");
        }
    }

    #[test]
    fn ranges_are_read_and_nonsense_is_refused() {
        for text in ["loopback", "private", "shared", "10.20.0.0/16", "fd00::/8", "0.0.0.0/0", "::/0", "10.0.0.7/32"] {
            assert_eq!(text.parse::<AllowedRange>().unwrap().to_string(), text);
        }
        assert_eq!("10.0.0.7".parse::<AllowedRange>().unwrap().to_string(), "10.0.0.7/32");
        for text in ["", "public", "10.20.0.1/16", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0/8", "a/b", "0x7f000001"] {
            let error = text.parse::<AllowedRange>().expect_err(text).to_string();
            assert!(error.contains("10.20.0.0/16"), "{error}");
        }
        assert!("10.20.0.1/16".parse::<AllowedRange>().unwrap_err().to_string().contains("10.20.0.0/16;"));
    }

    #[test]
    fn only_what_is_listed_passes_and_some_never_do() {
        let nothing = AddressPolicy::default();
        let everything = AddressPolicy::new(["0.0.0.0/0", "::/0", "loopback", "private", "shared"].map(|t| t.parse().unwrap()));
        for text in ["127.0.0.1", "10.1.2.3", "100.64.0.1", "::1", "fd12::1", "192.0.2.1"] {
            assert!(nothing.check(text.parse().unwrap()).is_err(), "{text}");
            assert!(everything.check(text.parse().unwrap()).is_ok(), "{text}");
        }
        for text in
            ["169.254.169.254", "fd00:ec2::254", "169.254.0.1", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "2002:a9fe:a9fe::"]
        {
            assert!(everything.check(text.parse().unwrap()).is_err(), "{text}");
        }
        let one = AddressPolicy::new(["10.20.0.0/16".parse().unwrap()]);
        assert!(one.check("10.20.255.255".parse().unwrap()).is_ok());
        assert_eq!(one.check("10.21.0.0".parse().unwrap()), Err(AddressClass::Private));
        assert!(one.check("8.8.8.8".parse().unwrap()).is_ok());
    }

    proptest! {
        #[test]
        fn wrapping_an_address_never_makes_it_public(bits in any::<u32>()) {
            let v4 = Ipv4Addr::from(bits);
            let [a, b] = [(bits >> 16) as u16, bits as u16];
            let inner = AddressClass::of(IpAddr::V4(v4));
            for wrapped in [
                v4.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a, b),
                Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, a, b),
                Ipv6Addr::new(0x2002, a, b, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x2001, 0, 0x4136, 0xe378, 0, 0, !a, !b),
                Ipv6Addr::new(0x2001, 0x4860, 0, 0, 0, 0x5efe, a, b),
            ] {
                let outer = AddressClass::of(IpAddr::V6(wrapped));
                prop_assert!(inner == AddressClass::Public || outer != AddressClass::Public, "{wrapped}");
                prop_assert!(!inner.is_never_allowed() || outer.is_never_allowed(), "{wrapped}");
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = text.parse::<AllowedRange>();
        }
    }
}
