//! Where requests come from: nobody chooses its own address, whatever it puts into the headers of proxies.

use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use portcullis_config::{Network, TrustedProxies};
use portcullis_wire::Visitor;

use crate::{Target, Verdict};

pub(crate) const FORWARDED_BY: Target = Target {
    name: "forwarded",
    promise: "a stranger stays where it is, and what comes before a trusted proxy's own word changes nothing",
    seeds: &[
        "198.51.100.7",
        "198.51.100.7, 10.0.0.1",
        "for=198.51.100.7;proto=https",
        "for=\"[2001:db8::1]:4711\", for=10.0.0.1;by=x",
        "for=\"198.51.100.7",
        "for=unknown, for=_hidden",
        "127.0.0.1, ::1, 0.0.0.0",
        "[::ffff:10.0.0.1]:80",
        ",,, ,\"\\\",",
    ],
    words: &["for=", "by=", "proto=https", ",", ";", "\"", "\\", "[", "]", ":", "10.0.0.1", "127.0.0.1", "::1", "unknown", " "],
    run: forwarded,
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 5));
const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9));
const CLIENT: &str = "198.51.100.7";

fn forwarded(bytes: &[u8]) -> Verdict {
    let value = match HeaderValue::from_bytes(bytes) {
        Ok(value) => value,
        Err(error) => return Verdict::refused(error),
    };
    let networks = "10.0.0.0/8".parse::<Network>().ok();
    let Some(proxies) = networks.and_then(|network| TrustedProxies::try_from(vec![network]).ok()) else {
        panic!("the network of the proxies cannot be read");
    };
    let visitor = |address: IpAddr| Visitor {
        peer: SocketAddr::new(address, 4_000),
        secured: false,
        known: Extensions::new(),
        proxies: proxies.clone(),
    };
    let mut said = Verdict::refused("it is the proxy's");
    for name in [FORWARDED, X_FORWARDED_FOR] {
        let mut headers = HeaderMap::new();
        headers.append(&name, value.clone());
        let stranger = visitor(STRANGER).whence(&headers);
        assert!(stranger.address() == STRANGER && stranger.place().is_none() && stranger.via().is_none(), "{stranger:?}");
        let believed = visitor(PROXY).whence(&headers);
        match believed.place() {
            None => assert!(believed.address() == PROXY && believed.via().is_none(), "{believed:?}"),
            Some(place) => {
                let nowhere = place.is_loopback() || place.is_unspecified() || place.is_multicast();
                assert!(!nowhere && !believed.is_near() && believed.via().is_some(), "{believed:?}");
                said = Verdict::accepted();
            }
        }
        // The proxy's own word stands last, on a line of its own.
        let own = if name == FORWARDED { "for=198.51.100.7" } else { CLIENT };
        headers.append(&name, HeaderValue::from_static(own));
        let appended = visitor(PROXY).whence(&headers);
        assert_eq!(appended.client().to_string(), CLIENT, "{appended:?}");
    }
    said
}
