//! What an operator configures for this plugin. Guards that nothing is asked of anybody who is not named here.

use serde_json::Value;

/// Where to ask.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Settings {
    /// A resolver over HTTPS (RFC 8484), such as `https://dns.google/dns-query`; absent: no origins and no names.
    pub(crate) dns: Option<String>,
    /// Registries.
    pub(crate) rdap: Rdap,
}

/// How the registry of an address is found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Rdap {
    /// Not at all.
    #[default]
    Off,
    /// By the bootstrap files of IANA (RFC 9224).
    Bootstrap,
    /// Always this one, without a slash at the end.
    At(String),
}

impl Settings {
    /// Reads the operator's JSON object; says what is wrong with it.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let parsed: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        let members = parsed.as_object().ok_or("they are no JSON object")?;
        let mut settings = Self::default();
        for (key, value) in members {
            let text = value.as_str().unwrap_or_default();
            let is_url = (text.starts_with("https://") || text.starts_with("http://")) && !text.contains(['?', '#', ' ']);
            match key.as_str() {
                "dns" if is_url => settings.dns = Some(text.to_owned()),
                "dns" => return Err("dns must be the address of a resolver, such as https://dns.google/dns-query".to_owned()),
                "rdap" if text == "bootstrap" => settings.rdap = Rdap::Bootstrap,
                "rdap" if is_url => settings.rdap = Rdap::At(text.trim_end_matches('/').to_owned()),
                "rdap" => return Err("rdap must be 'bootstrap' or the address of a server".to_owned()),
                _ => return Err(format!("'{key}' is not known; there are dns and rdap")),
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_asked_unless_it_is_named() {
        assert_eq!(Settings::read("{}").unwrap(), Settings { dns: None, rdap: Rdap::Off });
        let both = Settings::read(r#"{"dns": "https://dns.google/dns-query", "rdap": "bootstrap"}"#).unwrap();
        assert_eq!((both.dns.as_deref(), both.rdap), (Some("https://dns.google/dns-query"), Rdap::Bootstrap));
        assert_eq!(Settings::read(r#"{"rdap": "https://r.example/x/"}"#).unwrap().rdap, Rdap::At("https://r.example/x".into()));
        for (text, says) in [
            (r#"{"dns": "dns.google"}"#, "dns must be"),
            (r#"{"rdap": true}"#, "rdap must be"),
            (r#"{"whois": "x"}"#, "'whois' is not known"),
            ("7", "no JSON object"),
        ] {
            assert!(Settings::read(text).unwrap_err().contains(says), "{text}");
        }
    }
}
