//! What an address is, from IANA's registries alone. Pure; nothing is asked. Guards that an address that is not of the public
//! internet is never sent anywhere: [`Kind::is_public`] is the only way to a look-up.
//!
//! Sources: <https://www.iana.org/assignments/iana-ipv4-special-registry/>,
//! <https://www.iana.org/assignments/iana-ipv6-special-registry/>, <https://www.iana.org/assignments/multicast-addresses/>,
//! <https://www.iana.org/assignments/ipv6-address-space/>.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A block of a registry: first address, length, class, name, where it is said, whether it is reachable from everywhere.
type Block<A> = (A, u8, &'static str, &'static str, &'static str, bool);

const fn four(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

/// The first three groups and the last; the others are zero.
const fn six(a: u16, b: u16, c: u16, last: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, 0, 0, 0, 0, last)
}

const FOUR: &[Block<Ipv4Addr>] = &[
    (four(0, 0, 0, 0), 8, "this-network", "\"This network\"", "RFC 791", false),
    (four(0, 0, 0, 0), 32, "unspecified", "\"This host on this network\"", "RFC 1122", false),
    (four(10, 0, 0, 0), 8, "private", "Private-Use", "RFC 1918", false),
    (four(100, 64, 0, 0), 10, "shared", "Shared Address Space", "RFC 6598", false),
    (four(127, 0, 0, 0), 8, "loopback", "Loopback", "RFC 1122", false),
    (four(169, 254, 0, 0), 16, "link-local", "Link Local", "RFC 3927", false),
    (four(172, 16, 0, 0), 12, "private", "Private-Use", "RFC 1918", false),
    (four(192, 0, 0, 0), 24, "protocol", "IETF Protocol Assignments", "RFC 6890", false),
    (four(192, 0, 0, 0), 29, "protocol", "IPv4 Service Continuity Prefix", "RFC 7335", false),
    (four(192, 0, 0, 8), 32, "protocol", "IPv4 dummy address", "RFC 7600", false),
    (four(192, 0, 0, 9), 32, "anycast", "Port Control Protocol Anycast", "RFC 7723", true),
    (four(192, 0, 0, 10), 32, "anycast", "Traversal Using Relays around NAT Anycast", "RFC 8155", true),
    (four(192, 0, 0, 170), 31, "protocol", "NAT64/DNS64 Discovery", "RFC 8880", false),
    (four(192, 0, 2, 0), 24, "documentation", "Documentation (TEST-NET-1)", "RFC 5737", false),
    (four(192, 31, 196, 0), 24, "anycast", "AS112-v4", "RFC 7535", true),
    (four(192, 52, 193, 0), 24, "anycast", "AMT", "RFC 7450", true),
    (four(192, 88, 99, 0), 24, "deprecated", "Deprecated (6to4 Relay Anycast)", "RFC 7526", false),
    (four(192, 168, 0, 0), 16, "private", "Private-Use", "RFC 1918", false),
    (four(192, 175, 48, 0), 24, "anycast", "Direct Delegation AS112 Service", "RFC 7534", true),
    (four(198, 18, 0, 0), 15, "benchmarking", "Benchmarking", "RFC 2544", false),
    (four(198, 51, 100, 0), 24, "documentation", "Documentation (TEST-NET-2)", "RFC 5737", false),
    (four(203, 0, 113, 0), 24, "documentation", "Documentation (TEST-NET-3)", "RFC 5737", false),
    (four(224, 0, 0, 0), 4, "multicast", "Multicast", "RFC 5771", false),
    (four(240, 0, 0, 0), 4, "reserved", "Reserved", "RFC 1112", false),
    (four(255, 255, 255, 255), 32, "broadcast", "Limited Broadcast", "RFC 8190", false),
];

const SIX: &[Block<Ipv6Addr>] = &[
    (six(0, 0, 0, 1), 128, "loopback", "Loopback Address", "RFC 4291", false),
    (six(0, 0, 0, 0), 128, "unspecified", "Unspecified Address", "RFC 4291", false),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, "mapped", "IPv4-mapped Address", "RFC 4291", false),
    (six(0x64, 0xff9b, 0, 0), 96, "translated", "IPv4-IPv6 Translation", "RFC 6052", true),
    (six(0x64, 0xff9b, 1, 0), 48, "translated", "IPv4-IPv6 Translation (local use)", "RFC 8215", false),
    (six(0x100, 0, 0, 0), 64, "discard", "Discard-Only Address Block", "RFC 6666", false),
    (Ipv6Addr::new(0x100, 0, 0, 1, 0, 0, 0, 0), 64, "protocol", "Dummy IPv6 Prefix", "RFC 9780", false),
    (six(0x2001, 0, 0, 0), 23, "protocol", "IETF Protocol Assignments", "RFC 2928", false),
    (six(0x2001, 0, 0, 0), 32, "teredo", "TEREDO", "RFC 4380", false),
    (six(0x2001, 1, 0, 1), 128, "anycast", "Port Control Protocol Anycast", "RFC 7723", true),
    (six(0x2001, 1, 0, 2), 128, "anycast", "Traversal Using Relays around NAT Anycast", "RFC 8155", true),
    (six(0x2001, 1, 0, 3), 128, "anycast", "DNS-SD Service Registration Protocol Anycast", "RFC 9665", true),
    (six(0x2001, 2, 0, 0), 48, "benchmarking", "Benchmarking", "RFC 5180", false),
    (six(0x2001, 3, 0, 0), 32, "anycast", "AMT", "RFC 7450", true),
    (six(0x2001, 4, 0x112, 0), 48, "anycast", "AS112-v6", "RFC 7535", true),
    (six(0x2001, 0x10, 0, 0), 28, "deprecated", "Deprecated (ORCHID)", "RFC 4843", false),
    (six(0x2001, 0x20, 0, 0), 28, "protocol", "ORCHIDv2", "RFC 7343", true),
    (six(0x2001, 0x30, 0, 0), 28, "protocol", "Drone Remote ID Protocol Entity Tags", "RFC 9374", true),
    (six(0x2001, 0xdb8, 0, 0), 32, "documentation", "Documentation", "RFC 3849", false),
    (six(0x2002, 0, 0, 0), 16, "6to4", "6to4", "RFC 3056", false),
    (six(0x2620, 0x4f, 0x8000, 0), 48, "anycast", "Direct Delegation AS112 Service", "RFC 7534", true),
    (six(0x3fff, 0, 0, 0), 20, "documentation", "Documentation", "RFC 9637", false),
    (six(0x5f00, 0, 0, 0), 16, "protocol", "Segment Routing (SRv6) SIDs", "RFC 9602", false),
    (six(0xfc00, 0, 0, 0), 7, "private", "Unique-Local", "RFC 4193", false),
    (six(0xfe80, 0, 0, 0), 10, "link-local", "Link-Local Unicast", "RFC 4291", false),
    (six(0xfec0, 0, 0, 0), 10, "deprecated", "Deprecated (Site-Local)", "RFC 3879", false),
    (six(0xff00, 0, 0, 0), 8, "multicast", "Multicast", "RFC 4291", false),
];

/// What an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    /// One word; `public` for what is in no registry of special addresses.
    pub(crate) class: &'static str,
    /// Name of the block in its registry.
    pub(crate) name: &'static str,
    /// First address and length of the block; none for `public` and `unassigned`.
    pub(crate) block: Option<(IpAddr, u8)>,
    /// The document that says so.
    pub(crate) reference: &'static str,
    /// Whether it means the same host from everywhere.
    pub(crate) reachable: bool,
}

impl Kind {
    /// Whether registries of the internet can know whose it is.
    pub(crate) fn is_public(&self) -> bool {
        self.class == "public"
    }
}

/// Whether the first `length` bits are the same.
pub(crate) fn within(address: IpAddr, first: IpAddr, length: u8) -> bool {
    let same = |a: u128, b: u128, bits: u8| length <= bits && (length == 0 || (a ^ b) >> (bits - length) == 0);
    match (address, first) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

fn find<A: Copy + Into<IpAddr>>(address: IpAddr, blocks: &'static [Block<A>]) -> Option<Kind> {
    let inside = blocks.iter().filter(|(first, length, ..)| within(address, (*first).into(), *length));
    let (first, length, class, name, reference, reachable) = *inside.max_by_key(|(_, length, ..)| *length)?;
    Some(Kind { class, name, block: Some((first.into(), length)), reference, reachable })
}

/// What `address` is; the most exact block counts.
pub(crate) fn classify(address: IpAddr) -> Kind {
    let found = match address {
        IpAddr::V4(_) => find(address, FOUR),
        IpAddr::V6(_) => find(address, SIX),
    };
    let public = Kind { class: "public", name: "Global Unicast", block: None, reference: "RFC 7249", reachable: true };
    match (found, address) {
        (Some(kind), _) => kind,
        // Only 2000::/3 has been given out.
        (None, IpAddr::V6(six)) if six.segments()[0] & 0xe000 != 0x2000 => {
            Kind { class: "unassigned", name: "Reserved by IETF", block: None, reference: "RFC 4291", reachable: false }
        }
        (None, _) => public,
    }
}

/// The IPv4 address inside of an IPv6 address, and how it is put there.
pub(crate) fn embedded(address: IpAddr) -> Option<(Ipv4Addr, &'static str)> {
    let IpAddr::V6(six) = address else { return None };
    let groups = six.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match classify(address).class {
        "mapped" => Some((of(groups[6], groups[7]), "mapped")),
        "translated" if groups[2] == 0 => Some((of(groups[6], groups[7]), "translated")),
        "6to4" => Some((of(groups[1], groups[2]), "6to4")),
        // The client's address is written inverted (RFC 4380, section 4).
        "teredo" => Some((of(!groups[6], !groups[7]), "teredo")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(text: &str) -> &'static str {
        classify(text.parse().unwrap()).class
    }

    #[test]
    fn edges_of_blocks_are_where_the_registries_say() {
        for (inside, expected, outside) in [
            ("10.255.255.255", "private", "11.0.0.0"),
            ("172.31.255.255", "private", "172.32.0.0"),
            ("172.16.0.0", "private", "172.15.255.255"),
            ("192.168.0.0", "private", "192.167.255.255"),
            ("100.127.255.255", "shared", "100.128.0.0"),
            ("100.64.0.0", "shared", "100.63.255.255"),
            ("198.19.255.255", "benchmarking", "198.20.0.0"),
            ("203.0.113.255", "documentation", "203.0.114.0"),
            ("2001:db8:ffff::", "documentation", "2001:db9::"),
            ("3fff:fff::", "documentation", "3ffe::"),
            ("2001:1ff::", "protocol", "2001:200::"),
        ] {
            assert_eq!((class(inside), class(outside)), (expected, "public"), "{inside} {outside}");
        }
        for (address, expected) in [
            ("0.0.0.0", "unspecified"),
            ("0.0.0.1", "this-network"),
            ("127.1.2.3", "loopback"),
            ("169.254.169.254", "link-local"),
            ("192.0.0.9", "anycast"),
            ("192.0.0.11", "protocol"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.254", "reserved"),
            ("255.255.255.255", "broadcast"),
            ("8.8.8.8", "public"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::2", "unassigned"),
            ("fd00::1", "private"),
            ("febf::", "link-local"),
            ("ff02::1", "multicast"),
            ("4000::", "unassigned"),
            ("2001:4860:4860::8888", "public"),
            ("2001:1::1", "anycast"),
            ("100:0:0:1::", "protocol"),
        ] {
            assert_eq!(class(address), expected, "{address}");
        }
    }

    #[test]
    fn an_address_inside_another_is_found() {
        for (text, inner, how) in [
            ("::ffff:10.0.0.1", "10.0.0.1", "mapped"),
            ("64:ff9b::8.8.8.8", "8.8.8.8", "translated"),
            ("2002:c000:0204::", "192.0.2.4", "6to4"),
            // The example of RFC 4380, section 4: the client 192.0.2.45.
            ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "192.0.2.45", "teredo"),
        ] {
            assert_eq!(embedded(text.parse().unwrap()), Some((inner.parse().unwrap(), how)), "{text}");
        }
        assert_eq!(embedded("2001:4860::1".parse().unwrap()), None);
        assert_eq!(embedded("8.8.8.8".parse().unwrap()), None);
    }
}
