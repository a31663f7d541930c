//! Base URLs and origins. Guards the binding of a client to one `scheme://host:port`. Must not accept credentials,
//! queries or fragments in a base URL.

use reqwest::Url;

/// A base URL that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the URL is not usable: {0}; write http://host:port/path or https://host/path")]
pub struct InvalidBaseUrl(pub(crate) String);

/// The origin (`scheme://host:port`, the port always written) of a base URL, as charters name their destinations.
pub fn origin_of(base_url: &str) -> Result<String, InvalidBaseUrl> {
    parse_base(base_url).map(|url| origin(&url))
}

/// Reads and checks a base URL.
pub(crate) fn parse_base(text: &str) -> Result<Url, InvalidBaseUrl> {
    let bad = |why: &str| InvalidBaseUrl(why.to_owned());
    let url = Url::parse(text).map_err(|e| InvalidBaseUrl(e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("only http and https are spoken"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("it holds credentials, which belong in the authentication settings"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("it has a query or a fragment"));
    }
    if url.host_str().is_none_or(str::is_empty) || url.port() == Some(0) {
        return Err(bad("it has no host, or port 0"));
    }
    Ok(url)
}

/// `scheme://host:port` of a URL.
pub(crate) fn origin(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    format!("{}://{host}:{}", url.scheme(), url.port_or_known_default().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_always_name_the_port() {
        for (url, expected) in [
            ("http://localhost", "http://localhost:80"),
            ("https://Prom.Example/prometheus/", "https://prom.example:443"),
            ("http://[::1]:9090", "http://[::1]:9090"),
            ("http://2130706433:9090", "http://127.0.0.1:9090"),
            ("http://0x7f.1", "http://127.0.0.1:80"),
        ] {
            assert_eq!(origin_of(url).unwrap(), expected);
        }
    }

    #[test]
    fn every_spelling_of_an_address_is_that_address() {
        for (url, expected) in [
            ("http://2852039166", "http://169.254.169.254:80"),
            ("http://0xa9fea9fe", "http://169.254.169.254:80"),
            ("http://0xA9.0xFE.0xA9.0xFE", "http://169.254.169.254:80"),
            ("http://0251.0376.0251.0376", "http://169.254.169.254:80"),
            ("http://025177524776", "http://169.254.169.254:80"),
            ("http://169.254.43518", "http://169.254.169.254:80"),
            ("http://169.16689662", "http://169.254.169.254:80"),
            ("http://169.254.169.254.", "http://169.254.169.254:80"),
            ("http://127.1", "http://127.0.0.1:80"),
            ("http://0177.1", "http://127.0.0.1:80"),
            ("http://0", "http://0.0.0.0:80"),
            ("http://%31%32%37.0.0.1", "http://127.0.0.1:80"),
            ("http://１２７.０.０.１", "http://127.0.0.1:80"),
            ("http://127。0。0。1", "http://127.0.0.1:80"),
            ("http://①②⑦.⓪.⓪.①", "http://127.0.0.1:80"),
            ("http://[::FFFF:169.254.169.254]", "http://[::ffff:a9fe:a9fe]:80"),
            ("http://[0:0:0:0:0:0:0:1]", "http://[::1]:80"),
            ("http:\\\\127.0.0.1\\x", "http://127.0.0.1:80"),
            ("http:127.0.0.1", "http://127.0.0.1:80"),
        ] {
            assert_eq!(origin_of(url).unwrap(), expected, "{url}");
            let host = expected.strip_prefix("http://").unwrap().strip_suffix(":80").unwrap();
            let address = host.trim_start_matches('[').trim_end_matches(']').parse().unwrap();
            assert!(crate::AddressPolicy::default().check(address).is_err(), "{url}");
            // A client is not even built for it.
            assert!(crate::EgressClient::new(crate::EgressConfig::new("x", url)).is_err(), "{url}");
        }
    }

    #[test]
    fn names_keep_their_own_origin() {
        for (url, expected) in [
            ("http://prometheus.example.", "http://prometheus.example.:80"),
            ("http://bücher.example", "http://xn--bcher-kva.example:80"),
            ("http://XN--BCHER-KVA.example", "http://xn--bcher-kva.example:80"),
            // A Cyrillic letter that looks like a Latin one is another host, and is seen to be.
            ("http://prоmetheus.example", "http://xn--prmetheus-0dk.example:80"),
            ("http://prometheus.example:80\\@evil.example", "http://prometheus.example:80"),
            ("http://prometheus.example/@evil.example", "http://prometheus.example:80"),
        ] {
            match origin_of(url) {
                Ok(origin) if url.contains("prо") => assert!(origin.starts_with("http://xn--"), "{origin}"),
                other => assert_eq!(other.as_deref(), Ok(expected), "{url}"),
            }
        }
        for url in [
            "http://prometheus.example@evil.example",
            "http://prometheus.example%40evil.example",
            "http://prometheus.example:80@evil.example",
            "http://@evil.example:x",
            "http://256.256.256.256",
            "http://1.2.3.4.5",
            "http://0x1ffffffff",
            "http://[::1%25eth0]",
            "http://[fe80::1%eth0]",
            "http://a b",
            "http://a\0b",
        ] {
            assert!(origin_of(url).is_err(), "{url}");
        }
    }

    proptest::proptest! {
        #[test]
        fn an_origin_names_one_host_and_nothing_else(text in "(http|https|HTTP)://[\\PC]{0,40}") {
            if let Ok(origin) = origin_of(&text) {
                let again = origin_of(&origin).unwrap();
                proptest::prop_assert_eq!(&again, &origin, "an origin is its own origin");
                let rest = origin.split_once("://").unwrap().1;
                proptest::prop_assert!(!rest.contains(['@', '/', '\\', '?', '#', ' ']), "{}", origin);
            }
        }

        #[test]
        fn every_number_is_read_as_the_address_it_means(bits in proptest::prelude::any::<u32>()) {
            let plain = std::net::Ipv4Addr::from(bits);
            let [a, b, c, d] = plain.octets();
            let (low16, low24) = (bits & 0xffff, bits & 0x00ff_ffff);
            for host in [
                format!("{bits}"),
                format!("0x{bits:x}"),
                format!("0{bits:o}"),
                format!("{a}.{low24}"),
                format!("{a}.{b}.{low16}"),
                format!("0x{a:x}.0{b:o}.{c}.{d}."),
                format!("[::ffff:{plain}]"),
            ] {
                let built = crate::EgressClient::new(crate::EgressConfig::new("x", format!("http://{host}")));
                let allowed = crate::AddressPolicy::default().check(plain.into()).is_ok();
                proptest::prop_assert_eq!(built.is_ok(), allowed, "{} is {}", host, plain);
            }
        }
    }

    #[test]
    fn what_cannot_be_a_base_is_refused() {
        for url in [
            "",
            "localhost:9090",
            "ftp://host",
            "file:///etc/passwd",
            "http://u:p@host",
            "http://u@host",
            "http://host?q=1",
            "http://host#f",
            "http://",
            "http://host:0",
            "unix:/run/x",
        ] {
            assert!(origin_of(url).is_err(), "{url}");
        }
        assert!(!origin_of("http://user:hunter2@host").unwrap_err().to_string().contains("hunter2"));
    }
}
