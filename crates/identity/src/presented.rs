//! What a caller presented, and which credential in it decides. Says nothing about whether it is valid.

use std::net::{IpAddr, SocketAddr};

use portcullis_model::Whence;

use crate::basic::NameAndPassword;
use crate::certificate::ClientCertificate;
use crate::format::{CHOSEN_KEY_PREFIX, ChosenText, KEY_PREFIX, KeyText};
use crate::lockout::Claim;
use crate::refusal::{IdentityRefusal, RefusalReason};

/// How the caller came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Standard input and output of a process the user started.
    Stdio,
    /// The network.
    Http,
    /// The admin listener.
    Admin,
    /// Telemetry over HTTP.
    OtlpHttp,
    /// Telemetry over gRPC.
    OtlpGrpc,
}

impl Transport {
    /// The name used in audit records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdio => "stdio",
            Self::Http => "http",
            Self::Admin => "admin",
            Self::OtlpHttp => "otlp-http",
            Self::OtlpGrpc => "otlp-grpc",
        }
    }
}

/// What a caller presented.
#[derive(Clone)]
pub struct Presented<'a> {
    /// How it came in.
    pub transport: Transport,
    /// Value of the one `Authorization` header. A request with several must be refused before this point.
    pub authorization: Option<&'a str>,
    /// The client certificate, where TLS asked for one and verified it.
    pub certificate: Option<&'a ClientCertificate>,
    /// Query of the URL as it came, without `?`. A credential in it refuses the request.
    pub query: Option<&'a str>,
    /// Where it comes from, as far as the listener knows and believes: failures count against that address, and what is
    /// granted for an address is granted by it.
    pub whence: Option<Whence>,
}

impl std::fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presented")
            .field("transport", &self.transport)
            .field("authorization", &self.authorization.map(|_| "***"))
            .field("certificate", &self.certificate.map(ClientCertificate::fingerprint))
            .field("query", &self.query.map(|_| "***"))
            .field("whence", &self.whence)
            .finish()
    }
}

impl<'a> Presented<'a> {
    /// The local user at the standard streams.
    pub fn stdio() -> Self {
        Self { transport: Transport::Stdio, ..Self::http(None, None) }
    }

    /// A request over the network, without a client certificate, straight from `peer`.
    pub fn http(authorization: Option<&'a str>, peer: Option<SocketAddr>) -> Self {
        let whence = peer.map(Whence::direct);
        Self { transport: Transport::Http, authorization, certificate: None, query: None, whence }
    }

    /// The same at the admin listener.
    pub fn admin(authorization: Option<&'a str>, peer: Option<SocketAddr>) -> Self {
        Self { transport: Transport::Admin, ..Self::http(authorization, peer) }
    }

    /// Whether the credential is one that a person chose, which is slow to verify. Cheap; reads only the header.
    pub fn holds_chosen_secret(&self) -> bool {
        self.authorization.is_some_and(|text| Credential::parse(text).is_ok_and(|credential| credential.was_chosen()))
    }

    /// The address everything about this caller counts by, where it is known.
    pub fn address(&self) -> Option<IpAddr> {
        self.whence.as_ref().map(Whence::address)
    }

    /// The address something may be granted by.
    pub(crate) fn place(&self) -> Option<IpAddr> {
        self.whence.as_ref().and_then(Whence::place)
    }

    pub(crate) fn comes_over_loopback(&self) -> bool {
        self.whence.as_ref().is_some_and(Whence::is_near)
    }
}

/// What is in an `Authorization` header.
pub(crate) enum Credential<'a> {
    /// A generated key, or something that is none of the others.
    Key(&'a str),
    /// A key with a chosen secret.
    ChosenKey(&'a str),
    /// Something that is not a key of ours, for the token verifier to look at.
    Foreign(&'a str),
    /// A name and a password.
    Basic(NameAndPassword),
}

impl<'a> Credential<'a> {
    /// Reads `Bearer <token>` or `Basic <base64>`; the scheme in any case (RFC 9110 section 11.1).
    pub(crate) fn parse(authorization: &'a str) -> Result<Self, IdentityRefusal> {
        let refused = || IdentityRefusal::new(RefusalReason::UnsupportedScheme);
        let (scheme, credential) = authorization.trim().split_once(' ').ok_or_else(refused)?;
        let credential = credential.trim_start_matches(' ');
        if credential.is_empty() || credential.contains(char::is_whitespace) {
            return Err(refused());
        }
        if scheme.eq_ignore_ascii_case("basic") {
            return NameAndPassword::parse(credential)
                .map(Self::Basic)
                .ok_or_else(|| IdentityRefusal::new(RefusalReason::Malformed));
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(refused());
        }
        Ok(if credential.starts_with(CHOSEN_KEY_PREFIX) {
            Self::ChosenKey(credential)
        } else if credential.starts_with(KEY_PREFIX) {
            Self::Key(credential)
        } else {
            Self::Foreign(credential)
        })
    }

    /// Whether a person chose the secret: then it can be guessed, and is slow to verify.
    pub(crate) fn was_chosen(&self) -> bool {
        matches!(self, Self::ChosenKey(_) | Self::Basic(_))
    }

    /// Who it claims to be, where that can be told without verifying.
    pub(crate) fn claim(&self) -> Option<Claim> {
        match self {
            Self::Key(text) => KeyText::parse(text).map(|key| Claim::new("key", &key.id)),
            Self::ChosenKey(text) => ChosenText::parse(text).map(|key| Claim::new("key", &key.id)),
            Self::Basic(given) => Some(Claim::new("user", given.name().as_bytes())),
            Self::Foreign(_) => None,
        }
    }
}

/// Names of query parameters that carry credentials elsewhere, in lower case and without `-`, `_` and `.`.
const CREDENTIAL_NAMES: [&str; 19] = [
    "apikey",
    "xapikey",
    "key",
    "token",
    "accesstoken",
    "idtoken",
    "authtoken",
    "sessiontoken",
    "auth",
    "authorization",
    "bearer",
    "jwt",
    "password",
    "passwd",
    "pwd",
    "secret",
    "clientsecret",
    "credential",
    "credentials",
];

/// Whether a query carries a credential: by the name of a parameter, or because a value is a key of ours or a JWT.
pub(crate) fn query_carries_credential(query: &str) -> bool {
    query.split(['&', ';']).any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(name), decoded(value));
        let plain: String = name.chars().filter(|c| !matches!(c, '-' | '_' | '.')).map(|c| c.to_ascii_lowercase()).collect();
        let looks = |text: &str| {
            text.contains(KEY_PREFIX)
                || text.contains(CHOSEN_KEY_PREFIX)
                || (text.starts_with("eyJ") && text.matches('.').count() == 2)
        };
        CREDENTIAL_NAMES.contains(&plain.as_str()) || looks(&value) || looks(&name)
    })
}

/// Percent-decoded as far as it is well-formed.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%').and_then(|pair| std::str::from_utf8(pair).ok());
        if let Some(byte) = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            out.push(byte);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kind(authorization: &str) -> &'static str {
        match Credential::parse(authorization) {
            Ok(Credential::Key(_)) => "key",
            Ok(Credential::ChosenKey(_)) => "chosen",
            Ok(Credential::Foreign(_)) => "foreign",
            Ok(Credential::Basic(_)) => "basic",
            Err(refusal) if refusal.reason == RefusalReason::UnsupportedScheme => "unsupported",
            Err(_) => "malformed",
        }
    }

    #[test]
    fn one_credential_of_a_known_scheme_is_read() {
        for (authorization, expected) in [
            ("Bearer pcl_x", "key"),
            ("bEARER   pcl_x ", "key"),
            ("Bearer pcli_x", "chosen"),
            ("Bearer abc", "foreign"),
            ("Bearer eyJ.e30.x", "foreign"),
            ("Basic YW5hOng=", "basic"),
            ("basic YW5hOng=", "basic"),
            ("Basic YW5hOng", "malformed"),
            ("Basic pcl_x", "malformed"),
        ] {
            assert_eq!(kind(authorization), expected, "{authorization:?}");
        }
        let wrong =
            ["", "abc", "Bearer", "Bearer ", "Digest abc", "Bearer a b", "Bearer a, Bearer b", "Bearera b", "Bearer\tabc"];
        for wrong in wrong {
            assert_eq!(kind(wrong), "unsupported", "{wrong:?}");
        }
    }

    #[test]
    fn what_was_presented_never_prints() {
        let presented = Presented { query: Some("token=pcl_secret"), ..Presented::http(Some("Bearer pcl_secret"), None) };
        assert!(!format!("{presented:?}").contains("pcl_"));
    }

    #[test]
    fn credentials_in_a_query_are_seen_however_they_are_written() {
        for query in [
            "api_key=x",
            "API-Key=x",
            "apikey",
            "a=b&token=x",
            "a=b;access_token=x",
            "%61pi%5Fkey=x",
            "Authorization=Bearer+x",
            "x=pcl_abc",
            "x=pcli_abc",
            "x=%70cl_abc",
            "pcl_abc",
            "x=Bearer%20pcl_abc",
            "x=eyJhbGciOiJub25lIn0.e30.",
            "password=",
        ] {
            assert!(query_carries_credential(query), "{query}");
        }
        for query in ["", "a=b", "cursor=abc", "tokens=5", "monkey=1", "q=the+key", "v=1.2.3", "%", "a=%zz", "x=%"] {
            assert!(!query_carries_credential(query), "{query}");
        }
    }

    proptest! {
        #[test]
        fn nothing_from_outside_breaks_the_parsers(text in "\\PC{0,80}") {
            let _ = query_carries_credential(&text);
            if let Ok(credential) = Credential::parse(&text) {
                let _ = credential.claim();
            }
        }

        #[test]
        fn a_key_is_seen_behind_any_name(name in "[a-z%0-9]{0,8}", tail in "[A-Za-z0-9]{0,10}") {
            let query = format!("{name}=pcl_{tail}");
            prop_assert!(query_carries_credential(&query));
        }
    }
}
