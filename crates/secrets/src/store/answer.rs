//! What a store answers (<https://developer.hashicorp.com/vault/api-docs>). Guards that of a secret only the field that was
//! asked for is taken out, that nothing else of an answer is repeated anywhere, and that its bytes are wiped afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use portcullis_guard::{StrictLimits, check_strict};
use portcullis_model::{Secret, Timestamp, parse_instant};
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroize;

use super::KvVersion;

/// Nesting and members of an answer.
const LIMITS: StrictLimits = StrictLimits { depth: 16, members: 4_096 };

/// An answer that is not what the API says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

/// A field of a secret, and how long the store lets it be used.
pub(super) struct Field {
    pub(super) secret: Secret,
    /// The store's own lease; nothing when it sets none.
    pub(super) lease: Option<Duration>,
    /// When this version is deleted.
    pub(super) ends: Option<Timestamp>,
    /// When this version was written.
    pub(super) since: Option<Timestamp>,
}

/// What a secret holds of a field.
pub(super) enum Found {
    Field(Field),
    /// There is no such field.
    NoField,
    /// It is there and no text.
    NoText,
}

#[derive(Deserialize)]
struct Enveloped<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    lease_duration: u64,
}

type Fields<'a> = BTreeMap<String, &'a RawValue>;

#[derive(Deserialize)]
struct Versioned<'a> {
    #[serde(borrow, default)]
    data: Option<Fields<'a>>,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    created_time: String,
    #[serde(default)]
    deletion_time: String,
    #[serde(default)]
    destroyed: bool,
}

/// A token the store issued, renewed or was asked about.
pub(super) struct Issued {
    /// The token; nothing where it was only asked about.
    pub(super) token: Option<Secret>,
    /// How long it lives; nothing when it does not end.
    pub(super) life: Option<Duration>,
    pub(super) renewable: bool,
}

#[derive(Deserialize)]
struct LoggedIn {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: Secret,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

#[derive(Deserialize)]
struct LookedUp {
    data: TokenData,
}

#[derive(Deserialize)]
struct TokenData {
    ttl: u64,
    #[serde(default)]
    renewable: bool,
}

/// Seconds as the API writes them: zero is no end.
fn life(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

fn strict(body: &[u8]) -> Result<(), Unreadable> {
    check_strict(body, LIMITS).map_err(|_| Unreadable)
}

/// The answer to `POST auth/<method>/login` and `POST auth/token/renew-self`.
pub(super) fn issued(body: &[u8]) -> Result<Issued, Unreadable> {
    strict(body)?;
    let LoggedIn { auth } = serde_json::from_slice(body).map_err(|_| Unreadable)?;
    if auth.client_token.expose().is_empty() {
        return Err(Unreadable);
    }
    Ok(Issued { token: Some(auth.client_token), life: life(auth.lease_duration), renewable: auth.renewable })
}

/// The answer to `GET auth/token/lookup-self`.
pub(super) fn looked_up(body: &[u8]) -> Result<Issued, Unreadable> {
    strict(body)?;
    let LookedUp { data } = serde_json::from_slice(body).map_err(|_| Unreadable)?;
    Ok(Issued { token: None, life: life(data.ttl), renewable: data.renewable })
}

/// The answer to reading a secret.
pub(super) fn field(version: KvVersion, body: &[u8], name: &str) -> Result<Found, Unreadable> {
    strict(body)?;
    let envelope: Enveloped<'_> = serde_json::from_slice(body).map_err(|_| Unreadable)?;
    let data = envelope.data.get();
    let (fields, metadata): (Fields<'_>, Metadata) = match version {
        KvVersion::V1 => (serde_json::from_str(data).map_err(|_| Unreadable)?, Metadata::default()),
        KvVersion::V2 => {
            let Versioned { data, metadata } = serde_json::from_str(data).map_err(|_| Unreadable)?;
            // Of a deleted version nothing but its metadata is left.
            let Some(fields) = data.filter(|_| !metadata.destroyed) else { return Ok(Found::NoField) };
            (fields, metadata)
        }
    };
    let Some(value) = fields.get(name) else { return Ok(Found::NoField) };
    let Ok(secret) = serde_json::from_str::<Secret>(value.get()) else { return Ok(Found::NoText) };
    if secret.expose().is_empty() {
        return Ok(Found::NoField);
    }
    let instant = |text: &str| parse_instant(text, Timestamp::default()).ok().filter(|_| text.contains('T'));
    Ok(Found::Field(Field {
        secret,
        // Version 2 always says zero; version 1 says the ttl of the secret or the mount's.
        lease: life(envelope.lease_duration),
        ends: instant(&metadata.deletion_time),
        since: instant(&metadata.created_time),
    }))
}

/// Overwrites an answer.
pub(super) fn wipe(body: Bytes) {
    if let Ok(mut bytes) = body.try_into_mut() {
        bytes.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // From the examples of the vendor's API documentation, shortened.
    const V2: &str = r#"{"request_id":"x","lease_id":"","renewable":false,"lease_duration":0,"data":{"data":{"foo":"bar","n":1,"empty":""},"metadata":{"created_time":"2018-03-22T02:24:06.945319214Z","custom_metadata":null,"deletion_time":"","destroyed":false,"version":2}},"wrap_info":null,"warnings":null,"auth":null}"#;
    const V1: &str = r#"{"auth":null,"data":{"foo":"bar","ttl":"1h"},"lease_duration":3600,"lease_id":"","renewable":false}"#;

    fn found(version: KvVersion, body: &str, name: &str) -> Result<Option<String>, Unreadable> {
        field(version, body.as_bytes(), name).map(|found| match found {
            Found::Field(field) => Some(field.secret.expose().to_owned()),
            _ => None,
        })
    }

    #[test]
    fn fields_are_taken_out_of_both_versions() {
        assert_eq!(found(KvVersion::V2, V2, "foo"), Ok(Some("bar".into())));
        assert_eq!(found(KvVersion::V1, V1, "foo"), Ok(Some("bar".into())));
        for (version, body, name) in
            [(KvVersion::V2, V2, "none"), (KvVersion::V2, V2, "n"), (KvVersion::V2, V2, "empty"), (KvVersion::V1, V1, "none")]
        {
            assert_eq!(found(version, body, name), Ok(None), "{name}");
        }
        let Found::Field(one) = field(KvVersion::V1, V1.as_bytes(), "foo").unwrap() else { panic!() };
        assert_eq!((one.lease, one.ends, one.since), (Some(Duration::from_hours(1)), None, None));
        let Found::Field(two) = field(KvVersion::V2, V2.as_bytes(), "foo").unwrap() else { panic!() };
        assert!(two.lease.is_none() && two.ends.is_none() && two.since.is_some());
        let ending = V2.replace(r#""deletion_time":"""#, r#""deletion_time":"2030-01-01T00:00:00Z""#);
        let Found::Field(ending) = field(KvVersion::V2, ending.as_bytes(), "foo").unwrap() else { panic!() };
        assert!(ending.ends.is_some());
    }

    #[test]
    fn deleted_and_destroyed_versions_hold_nothing() {
        let deleted = r#"{"data":{"data":null,"metadata":{"deletion_time":"2018-03-22T02:36:43Z","destroyed":false}}}"#;
        assert_eq!(found(KvVersion::V2, deleted, "foo"), Ok(None));
        assert_eq!(found(KvVersion::V2, &V2.replace(r#""destroyed":false"#, r#""destroyed":true"#), "foo"), Ok(None));
    }

    #[test]
    fn what_is_not_the_api_is_unreadable() {
        for body in ["", "null", "[]", "{}", r#"{"data":"x"}"#, r#"{"data":{"data":{"foo":"a","foo":"b"}}}"#, V1] {
            let read = found(KvVersion::V2, body, "foo");
            assert!(matches!(read, Err(Unreadable) | Ok(None)), "{body}");
        }
        for body in ["{}", r#"{"auth":null}"#, r#"{"auth":{"client_token":""}}"#, r#"{"auth":{"client_token":5}}"#] {
            assert!(issued(body.as_bytes()).is_err(), "{body}");
        }
        assert!(looked_up(br#"{"data":{}}"#).is_err());
    }

    #[test]
    fn a_token_without_a_lease_does_not_end() {
        let root = issued(br#"{"auth":{"client_token":"t","lease_duration":0,"renewable":false}}"#).unwrap();
        assert!(root.life.is_none());
        let short = issued(br#"{"auth":{"client_token":"t","lease_duration":60,"renewable":true}}"#).unwrap();
        assert_eq!((short.life, short.renewable), (Some(Duration::from_mins(1)), true));
        assert_eq!(looked_up(br#"{"data":{"ttl":7,"renewable":true}}"#).unwrap().life, Some(Duration::from_secs(7)));
    }
}
