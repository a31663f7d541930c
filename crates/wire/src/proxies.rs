//! Who a request comes from, when proxies stand in between.
//!
//! Guards that nobody chooses its own address: headers are read only from the proxies the operator trusts, from this server
//! outwards, and only as far as each hop is trusted. What cannot be read, contradicts itself or comes from somebody else
//! leaves the other end of the connection as the client, for whom nothing is granted by address (RFC 7239 section 8.1).
//! Headers other than `Forwarded` and `X-Forwarded-For` are never believed; they only show that a proxy stands in between.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::FORWARDED;
use http::{Extensions, HeaderMap, HeaderName};
use portcullis_config::TrustedProxies;
use portcullis_model::{Endpoint, Whence};

use crate::incoming::Visitor;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Proxies between a client and this server at most; a longer chain is refused as unreadable.
const HOPS: usize = 16;
/// Characters of an unbelieved claim that are kept for the record.
const CLAIM: usize = 200;

/// The chain of hops cannot be read, or there are two that contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unreadable;

/// A client and the trusted proxies between it and the other end of the connection, nearest to the client first.
#[derive(Debug, PartialEq, Eq)]
struct Chain {
    client: Endpoint,
    between: Vec<IpAddr>,
}

/// Where a request comes from, by what the listener knows of its connection. Nothing without a connection.
pub fn whence(extensions: &Extensions, headers: &HeaderMap) -> Option<Whence> {
    extensions.get::<Visitor>().map(|visitor| visitor.whence(headers))
}

/// Where a request of `peer` comes from.
pub(crate) fn judge(proxies: &TrustedProxies, peer: SocketAddr, headers: &HeaderMap) -> Whence {
    let says = headers.keys().any(says_forwarded);
    if !proxies.trusts(peer.ip()) {
        if !says {
            return Whence::direct(peer);
        }
        remind(peer);
        return Whence::unplaced(peer, Some(&claim(headers)));
    }
    match client(proxies, peer.ip().to_canonical(), headers) {
        Ok(Some(Chain { client, between })) => {
            let via: Vec<String> = between.into_iter().chain([peer.ip().to_canonical()]).map(|hop| hop.to_string()).collect();
            Whence::relayed(client, via.join(", "))
        }
        // A trusted proxy that does not say whom it speaks for: its own question, or anybody's.
        Ok(None) => Whence::unplaced(peer, says.then(|| claim(headers)).as_deref()),
        Err(Unreadable) => Whence::unplaced(peer, Some(&claim(headers))),
    }
}

/// Whether a trusted proxy says that it was spoken to in TLS.
pub(crate) fn is_secured(proxies: &TrustedProxies, peer: SocketAddr, headers: &HeaderMap) -> bool {
    if !proxies.trusts(peer.ip()) {
        return false;
    }
    let last = |name: &HeaderName| headers.get_all(name).iter().next_back().and_then(|value| value.to_str().ok());
    let standard = last(&FORWARDED).and_then(|value| parameter(elements(value)?.last().copied()?, "proto"));
    let custom = || last(&X_FORWARDED_PROTO).and_then(|value| value.rsplit(',').next()).map(|proto| Cow::from(proto.trim()));
    standard.or_else(custom).is_some_and(|proto| proto.eq_ignore_ascii_case("https"))
}

/// The client, by the headers of a trusted proxy; nothing where it does not say. Two headers must say the same: a proxy
/// keeps one of them, and the other is as its client sent it.
fn client(proxies: &TrustedProxies, peer: IpAddr, headers: &HeaderMap) -> Result<Option<Chain>, Unreadable> {
    let standard = headers.contains_key(FORWARDED).then(|| follow(proxies, peer, &hops(headers, &FORWARDED, by_standard)));
    let custom = headers
        .contains_key(X_FORWARDED_FOR)
        .then(|| follow(proxies, peer, &hops(headers, &X_FORWARDED_FOR, |line| Some(by_custom(line)))));
    match (standard.transpose()?, custom.transpose()?) {
        (Some(one), Some(other)) if one.client.address != other.client.address => Err(Unreadable),
        (Some(chain), _) | (None, Some(chain)) => Ok(Some(chain)),
        (None, None) => Ok(None),
    }
}

/// Follows the hops from this server outwards, to the first that is not trusted; to the last where all are.
fn follow(proxies: &TrustedProxies, peer: IpAddr, hops: &[Option<Endpoint>]) -> Result<Chain, Unreadable> {
    let mut between = Vec::new();
    let mut outwards = hops.iter().rev();
    // A header without a hop says nothing that could be followed.
    let mut hop = outwards.next().ok_or(Unreadable)?;
    loop {
        let endpoint = hop.ok_or(Unreadable)?;
        let address = endpoint.address;
        // This machine, to another machine, is nobody that could be placed.
        if address.is_unspecified() || address.is_multicast() || (address.is_loopback() && !peer.is_loopback()) {
            return Err(Unreadable);
        }
        match outwards.next() {
            Some(further) if proxies.trusts(address) => {
                if between.len() == HOPS {
                    return Err(Unreadable);
                }
                between.insert(0, address);
                hop = further;
            }
            _ => return Ok(Chain { client: endpoint, between }),
        }
    }
}

/// The hops of a header, over all its lines, the nearest last; a hop that is no address is there as nothing.
fn hops(headers: &HeaderMap, name: &HeaderName, read: fn(&str) -> Option<Vec<Option<Endpoint>>>) -> Vec<Option<Endpoint>> {
    let mut all = Vec::new();
    for line in headers.get_all(name) {
        // Bytes that are no text make every hop of their line unreadable, but not those of later lines.
        match line.to_str().ok().and_then(read) {
            Some(hops) => all.extend(hops),
            None => all.push(None),
        }
    }
    all
}

/// `X-Forwarded-For`: addresses, some proxies add a port.
fn by_custom(line: &str) -> Vec<Option<Endpoint>> {
    line.split(',').map(|hop| node(hop.trim_matches([' ', '\t']))).collect()
}

/// `Forwarded` (RFC 7239 section 4): elements of parameters, of which `for` is the hop.
fn by_standard(line: &str) -> Option<Vec<Option<Endpoint>>> {
    let elements = elements(line)?;
    Some(elements.into_iter().map(|element| parameter(element, "for").and_then(|text| node(&text))).collect())
}

/// Splits a line at `separator`s outside of quotes; nothing when a quote is left open.
fn apart(line: &str, separator: u8) -> Option<Vec<&str>> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            other if other == separator && !quoted => {
                parts.push(line.get(start..at)?.trim_matches([' ', '\t']));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(line.get(start..)?.trim_matches([' ', '\t']));
    (!quoted).then_some(parts)
}

fn elements(line: &str) -> Option<Vec<&str>> {
    apart(line, b',')
}

/// The value of a parameter of an element, without its quotes; nothing where it is not there, twice there or badly quoted.
fn parameter<'a>(element: &'a str, wanted: &str) -> Option<Cow<'a, str>> {
    let pairs = apart(element, b';')?;
    let mut found =
        pairs.into_iter().filter_map(|pair| pair.split_once('=')).filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let (_, value) = found.next()?;
    if found.next().is_some() {
        return None;
    }
    let Some(inner) = value.strip_prefix('"') else {
        return (!value.contains('"')).then_some(Cow::Borrowed(value));
    };
    let inner = inner.strip_suffix('"')?;
    Some(if inner.contains('\\') { Cow::Owned(inner.replace('\\', "")) } else { Cow::Borrowed(inner) })
}

/// `192.0.2.7`, `192.0.2.7:80`, `2001:db8::1`, `[2001:db8::1]` and `[2001:db8::1]:80`. Names that hide the address
/// (`unknown`, `_hidden`) are none.
fn node(text: &str) -> Option<Endpoint> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let read = match bare {
        Some(inner) => Endpoint::from(IpAddr::V6(inner.parse().ok()?)),
        None => text.parse().ok()?,
    };
    Some(Endpoint { address: read.address.to_canonical(), ..read })
}

/// Whether a proxy on the way adds this header. Then the near end of the connection is the proxy's, which may stand on this
/// machine, and being near grants nothing.
fn says_forwarded(name: &HeaderName) -> bool {
    const ADDED: [&str; 6] = ["forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"];
    ADDED.contains(&name.as_str()) || name.as_str().starts_with("x-forwarded")
}

/// What the headers say about where the request comes from, for the record, with their own end kept: that is the hop
/// nearest to this server.
fn claim(headers: &HeaderMap) -> String {
    let chains = [FORWARDED, X_FORWARDED_FOR];
    let other = || headers.keys().filter(|name| says_forwarded(name)).take(1);
    let names: Vec<&HeaderName> = chains.iter().filter(|name| headers.contains_key(*name)).collect();
    let names = if names.is_empty() { other().collect() } else { names };
    let said: Vec<String> = names
        .into_iter()
        .map(|name| {
            let lines: Vec<_> = headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
            format!("{name}: {}", lines.join(", "))
        })
        .collect();
    let said: String = said.join("; ").chars().filter(|c| !c.is_control()).collect();
    let more = said.chars().count().saturating_sub(CLAIM);
    match more {
        0 => said,
        more => format!("[{more} characters]…{}", said.chars().skip(more).collect::<String>()),
    }
}

/// Says once that requests are forwarded by somebody who is not believed: mostly a proxy nobody wrote down.
fn remind(peer: SocketAddr) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        let address = peer.ip().to_canonical();
        tracing::warn!(
            "a request of {address} says that it was forwarded, and that is not believed: it counts for {address}. If that is a \
             proxy of yours, name it under trusted_proxies of this listener"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn proxies() -> TrustedProxies {
        TrustedProxies::try_from(vec!["10.0.0.0/8".parse().unwrap(), "127.0.0.1".parse().unwrap()]).unwrap()
    }

    fn headers(given: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn from(peer: &str, given: &[(&str, &str)]) -> Whence {
        judge(&proxies(), peer.parse().unwrap(), &headers(given))
    }

    const PROXY: &str = "10.0.0.5:4000";
    const STRANGER: &str = "203.0.113.9:4000";
    const XFF: &str = "X-Forwarded-For";

    #[test]
    fn the_client_is_the_nearest_hop_that_is_not_trusted() {
        for (given, client, via) in [
            (vec![(XFF, "198.51.100.7")], "198.51.100.7", "10.0.0.5"),
            (vec![(XFF, "1.2.3.4, 198.51.100.7")], "198.51.100.7", "10.0.0.5"),
            (vec![(XFF, "rubbish, \", 198.51.100.7:55")], "198.51.100.7:55", "10.0.0.5"),
            (vec![(XFF, "1.2.3.4"), (XFF, "198.51.100.7")], "198.51.100.7", "10.0.0.5"),
            (vec![(XFF, "1.2.3.4, 198.51.100.7, 10.1.1.1, 10.2.2.2")], "198.51.100.7", "10.1.1.1, 10.2.2.2, 10.0.0.5"),
            (vec![(XFF, "10.3.3.3, 10.1.1.1")], "10.3.3.3", "10.1.1.1, 10.0.0.5"),
            (vec![(XFF, "10.1.1.1")], "10.1.1.1", "10.0.0.5"),
            (vec![(XFF, "::ffff:198.51.100.7")], "198.51.100.7", "10.0.0.5"),
            (vec![(XFF, "[2001:db8::1]:44")], "[2001:db8::1]:44", "10.0.0.5"),
            (vec![("Forwarded", "for=198.51.100.7")], "198.51.100.7", "10.0.0.5"),
            (vec![("Forwarded", "for=unknown, For=\"[2001:db8::1]:4711\";proto=https")], "[2001:db8::1]:4711", "10.0.0.5"),
            (
                vec![("Forwarded", "by=x;FOR=\"198.51.100.7\" , for=10.1.1.1;by=\"a,b;for=9.9.9.9\"")],
                "198.51.100.7",
                "10.1.1.1, 10.0.0.5",
            ),
            (vec![("Forwarded", "for=198.51.100.7"), (XFF, "198.51.100.7:9")], "198.51.100.7", "10.0.0.5"),
        ] {
            let whence = from(PROXY, &given);
            assert_eq!((whence.client().to_string().as_str(), whence.via()), (client, Some(via)), "{given:?}");
            assert_eq!(whence.place(), Some(whence.address()), "{given:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_or_contradicts_itself_leaves_the_peer() {
        for given in [
            vec![],
            vec![(XFF, "")],
            vec![(XFF, "198.51.100.7,")],
            vec![(XFF, "198.51.100.7, unknown")],
            vec![(XFF, "198.51.100.7, 10.1.1.1, _hidden, 10.2.2.2")],
            vec![(XFF, "198.51.100.7"), (XFF, "nobody")],
            vec![(XFF, "198.51.100.7 10.1.1.1")],
            vec![(XFF, "0.0.0.0")],
            vec![(XFF, "127.0.0.1")],
            vec![(XFF, "::1")],
            vec![(XFF, "224.0.0.1")],
            vec![(XFF, "198.51.100.7\u{e9}")],
            vec![("Forwarded", "for=_secret")],
            vec![("Forwarded", "proto=https")],
            vec![("Forwarded", "for=\"198.51.100.7")],
            vec![("Forwarded", "for=198.51.100.7;for=198.51.100.8")],
            vec![("Forwarded", "for=198.51.100.7"), (XFF, "198.51.100.8")],
            vec![("Forwarded", "for=198.51.100.7"), (XFF, "x")],
            vec![("X-Real-IP", "198.51.100.7")],
        ] {
            let whence = from(PROXY, &given);
            let seen = (whence.client().to_string(), whence.place(), whence.via());
            assert_eq!(seen, (PROXY.to_owned(), None, None), "{given:?}");
            assert_eq!(whence.claimed().is_some(), !given.is_empty(), "{given:?}");
        }
        let long = vec!["10.1.1.1"; HOPS + 2].join(", ");
        assert_eq!(from(PROXY, &[(XFF, &long)]).place(), None);
    }

    #[test]
    fn nobody_else_is_believed_and_being_forwarded_only_takes_away() {
        let plain = from(STRANGER, &[]);
        assert_eq!((plain.place(), plain.claimed()), (Some(plain.address()), None));
        for given in [(XFF, "10.0.0.1"), ("Forwarded", "for=10.0.0.1"), ("Via", "1.1 x"), ("X-Forwarded-Proto", "https")] {
            let whence = from(STRANGER, &[given]);
            assert_eq!((whence.client().to_string().as_str(), whence.place(), whence.via()), (STRANGER, None, None), "{given:?}");
            let said = format!("{}: {}", given.0.to_lowercase(), given.1);
            assert_eq!(whence.claimed(), Some(said.as_str()));
        }
        let near = judge(&TrustedProxies::default(), "127.0.0.1:1".parse().unwrap(), &headers(&[(XFF, "127.0.0.1")]));
        assert!(!near.is_near() && near.address().is_loopback());
        assert!(!from("127.0.0.1:1", &[]).is_near(), "a trusted proxy that says nothing may speak for anybody");
        let local = from("127.0.0.1:1", &[(XFF, "127.0.0.1")]);
        assert_eq!((local.is_near(), local.via()), (false, Some("127.0.0.1")), "nearness is never relayed");
        assert!(from("[::ffff:10.0.0.5]:1", &[(XFF, "198.51.100.7")]).via().is_some(), "the proxy written as IPv6");
    }

    #[test]
    fn a_long_claim_keeps_its_end() {
        let whence = from(STRANGER, &[(XFF, &format!("{}198.51.100.7", "9.9.9.9, ".repeat(1_000)))]);
        let claimed = whence.claimed().unwrap();
        assert!(claimed.ends_with("198.51.100.7") && claimed.starts_with('[') && claimed.chars().count() < 240, "{claimed}");
    }

    #[test]
    fn the_protocol_in_front_is_told_by_trusted_proxies_alone() {
        let secured = |peer: &str, given: &[(&str, &str)]| is_secured(&proxies(), peer.parse().unwrap(), &headers(given));
        for given in [("X-Forwarded-Proto", "https"), ("X-Forwarded-Proto", "http, HTTPS"), ("Forwarded", "for=x;proto=https")] {
            assert!(secured(PROXY, &[given]), "{given:?}");
            assert!(!secured(STRANGER, &[given]), "{given:?}");
        }
        for given in [("X-Forwarded-Proto", "https, http"), ("X-Forwarded-Proto", ""), ("Forwarded", "proto=https, proto=http")] {
            assert!(!secured(PROXY, &[given]), "{given:?}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_a_stranger_of_another_address(value in "[ -~]{0,60}", custom in any::<bool>()) {
            let name = if custom { XFF } else { "Forwarded" };
            let whence = from(STRANGER, &[(name, value.as_str())]);
            prop_assert_eq!((whence.client().to_string(), whence.place()), (STRANGER.to_owned(), None));
        }

        #[test]
        fn what_a_client_sends_before_its_proxy_adds_to_it_changes_nothing(before in "[ -~]{0,60}") {
            let chained = format!("{before}, 198.51.100.7");
            let whence = from(PROXY, &[(XFF, chained.as_str())]);
            prop_assert_eq!(whence.client().to_string(), "198.51.100.7");
            let whence = from(PROXY, &[(XFF, before.as_str()), (XFF, "198.51.100.7")]);
            prop_assert_eq!(whence.client().to_string(), "198.51.100.7");
            // A header of the standard may hold an open quote; then nothing of its line is believed.
            let chained = format!("{before}, for=198.51.100.7");
            let whence = from(PROXY, &[("Forwarded", chained.as_str())]);
            prop_assert!(["198.51.100.7", PROXY].contains(&whence.client().to_string().as_str()), "{}", whence.client());
        }
    }
}
