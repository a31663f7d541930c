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
