//! What is known about a key. The secret is in none of these types but [`CreatedKey`]; at rest there is only its hash.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use portcullis_config::Network;
use portcullis_model::{CredentialKind, KeyId, NameSet, Principal, PrincipalId, Scope, Secret, TenantId, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ring::KeyError;

/// Age of a secret after which people are reminded to rotate it.
pub const ROTATE_AFTER: Duration = Duration::from_hours(90 * 24);
/// How long before its end people are reminded of a key. Of one that was made for less than twice this, they are not.
pub const REMIND_BEFORE_END: Duration = Duration::from_hours(14 * 24);

/// A door a key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// Asking questions and calling tools.
    Mcp,
    /// Sending telemetry.
    Ingest,
    /// Administration: the status of controls, keys, approvals, the audit log.
    Admin,
    /// Scraping the server's own metrics.
    Metrics,
}

impl Door {
    /// The name, as in [`Principal::doors`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mcp => "mcp",
            Self::Ingest => "ingest",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
        }
    }

    /// Whether who opens it needs a role: behind these doors rules decide what may be done.
    pub fn needs_role(self) -> bool {
        matches!(self, Self::Mcp | Self::Admin)
    }
}

impl FromStr for Door {
    type Err = KeyError;
    fn from_str(name: &str) -> Result<Self, KeyError> {
        match name {
            "mcp" => Ok(Self::Mcp),
            "ingest" => Ok(Self::Ingest),
            "admin" => Ok(Self::Admin),
            "metrics" => Ok(Self::Metrics),
            _ => Err(KeyError::Request(
                "a door is 'mcp' (asking and calling tools), 'ingest' (sending telemetry), 'admin' (administration) or 'metrics' \
                 (scraping)"
                    .to_owned(),
            )),
        }
    }
}

/// What a new key shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRequest {
    /// For people: what or who the key is for. At most 100 characters.
    pub label: String,
    /// Role names; whether they exist is for the policies. At least one when the key opens `mcp` or `admin`.
    pub roles: BTreeSet<Arc<str>>,
    /// Doors it opens; at least one.
    pub doors: BTreeSet<Door>,
    /// Tenant it belongs to.
    pub tenant: TenantId,
    /// Sources it may ask.
    pub sources: NameSet,
    /// Services it may see.
    pub services: NameSet,
    /// Kubernetes namespaces it may see.
    pub namespaces: NameSet,
    /// How far back it may look, in whole seconds.
    pub look_back: Option<Duration>,
    /// Networks it may come from; anywhere when empty. See [`networks`].
    pub from: BTreeSet<IpNet>,
    /// How long it is valid; `None` until revoked.
    pub expires_in: Option<Duration>,
}

impl KeyRequest {
    /// A key for the `mcp` door with one role and no further restriction, without expiry.
    pub fn new(label: impl Into<String>, role: &str, tenant: TenantId) -> Self {
        Self {
            label: label.into(),
            roles: [Arc::from(role)].into(),
            doors: [Door::Mcp].into(),
            tenant,
            sources: NameSet::All,
            services: NameSet::All,
            namespaces: NameSet::All,
            look_back: None,
            from: BTreeSet::new(),
            expires_in: None,
        }
    }

    pub(crate) fn into_record(self, id: KeyId, now: Timestamp) -> Result<KeyRecord, KeyError> {
        let wrong = |text: String| Err(KeyError::Request(text));
        let label = self.label.trim().to_owned();
        if label.chars().count() > 100 || label.chars().any(char::is_control) {
            return wrong("the label does not fit: use at most 100 characters without control characters".to_owned());
        }
        if self.doors.is_empty() {
            return wrong("the key would open no door: give 'mcp', 'ingest', 'admin' or 'metrics'".to_owned());
        }
        if let Some(door) = self.doors.iter().find(|door| door.needs_role() && self.roles.is_empty()) {
            return wrong(format!("a key for the '{}' door needs at least one role, such as reader", door.as_str()));
        }
        if let Some(role) = self.roles.iter().find(|r| !is_role_name(r)) {
            let shown: String = role.chars().take(40).filter(|c| !c.is_control()).collect();
            return wrong(format!("role '{shown}' is not a role name: use 1 to 64 letters, digits, '_', '-', '.'"));
        }
        for (kind, set) in [("sources", &self.sources), ("services", &self.services), ("namespaces", &self.namespaces)] {
            if !is_restriction(set) {
                return wrong(format!(
                    "the list of {kind} does not fit: name at least one, each 1 to 256 bytes, or leave it out for all"
                ));
            }
        }
        let reads_all = self.sources.is_all() && self.services.is_all() && self.namespaces.is_all() && self.look_back.is_none();
        if self.doors.contains(&Door::Ingest) && !reads_all {
            return wrong(
                "a key that sends telemetry cannot be confined to sources, services, namespaces or a look-back, which say what \
                 is read: make a key of its own for sending"
                    .to_owned(),
            );
        }
        if self.look_back.is_some_and(|d| d.as_secs() == 0 || d.subsec_nanos() != 0) {
            return wrong("the look-back does not fit: use whole seconds, at least one, such as 24h".to_owned());
        }
        if self.expires_in.is_some_and(|d| d.is_zero()) {
            return wrong("the key would be expired from the start: give a validity such as 90d".to_owned());
        }
        Ok(KeyRecord {
            id,
            label,
            roles: self.roles,
            doors: self.doors,
            tenant: self.tenant,
            sources: self.sources,
            services: self.services,
            namespaces: self.namespaces,
            look_back_seconds: self.look_back.map(|d| d.as_secs()),
            from: self.from,
            created_at: now,
            secret_made_at: now,
            expires_at: self.expires_in.map(|d| now.plus(d)),
            revoked_at: None,
        })
    }
}

/// Whether it can be the name of a role.
pub(crate) fn is_role_name(role: &str) -> bool {
    (1..=64).contains(&role.len()) && role.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

/// Whether a set of names restricts to something that can exist.
pub(crate) fn is_restriction(set: &NameSet) -> bool {
    let fits = |name: &String| (1..=256).contains(&name.len()) && !name.chars().any(char::is_control);
    set.names().is_none_or(|names| !names.is_empty() && names.iter().all(fits))
}

/// Reads networks such as `10.0.0.0/8`, or single addresses, into the form keys are compared in: IPv4 written as IPv6
/// (`::ffff:10.0.0.0/104`) is IPv4.
///
/// # Errors
/// Something that is no network, or has bits behind its length: `10.1.2.3/8` could mean two things.
pub fn networks<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Result<BTreeSet<IpNet>, KeyError> {
    let read = |text: S| text.as_ref().parse::<Network>().map(Network::into_inner);
    texts.into_iter().map(|text| read(text).map_err(|error| KeyError::Request(error.to_string()))).collect()
}

/// Whether a key can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyStatus {
    /// It can.
    Active,
    /// Its time is over.
    Expired,
    /// It was taken back.
    Revoked,
}

/// A key as listed: everything but the secret and its hash.
///
/// Unknown fields are refused on reading: a restriction this build does not know must not be dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// The public part.
    pub id: KeyId,
    /// For people.
    pub label: String,
    /// Role names.
    pub roles: BTreeSet<Arc<str>>,
    /// Doors it opens.
    pub doors: BTreeSet<Door>,
    /// Tenant it belongs to.
    pub tenant: TenantId,
    /// Sources it may ask.
    pub sources: NameSet,
    /// Services it may see.
    pub services: NameSet,
    /// Kubernetes namespaces it may see.
    pub namespaces: NameSet,
    /// How far back it may look, in seconds.
    pub look_back_seconds: Option<u64>,
    /// Networks it may come from; anywhere when empty.
    pub from: BTreeSet<IpNet>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its present secret was made.
    pub secret_made_at: Timestamp,
    /// First instant at which it is no longer valid.
    pub expires_at: Option<Timestamp>,
    /// When it was taken back.
    pub revoked_at: Option<Timestamp>,
}

impl KeyRecord {
    /// Whether it can be used at `now`.
    pub fn status(&self, now: Timestamp) -> KeyStatus {
        if self.revoked_at.is_some() {
            KeyStatus::Revoked
        } else if self.expires_at.is_some_and(|at| at <= now) {
            KeyStatus::Expired
        } else {
            KeyStatus::Active
        }
    }

    /// Whether it should be rotated: its secret is old, or its end is near. What is expired or revoked need not be.
    pub fn is_aging(&self, now: Timestamp) -> bool {
        let old = now.since(self.secret_made_at) >= ROTATE_AFTER;
        // A key with the usual validity ends on the day its secret would be old: without this nobody would be reminded of it.
        let ending = self.expires_at.is_some_and(|at| {
            at.since(now) <= REMIND_BEFORE_END && at.since(self.created_at) > REMIND_BEFORE_END.saturating_mul(2)
        });
        self.status(now) == KeyStatus::Active && (old || ending)
    }

    /// What data it is confined to.
    pub fn scope(&self) -> Scope {
        Scope {
            tenant: self.tenant.clone(),
            sources: self.sources.clone(),
            services: self.services.clone(),
            namespaces: self.namespaces.clone(),
            look_back: self.look_back_seconds.map(Duration::from_secs),
        }
    }

    /// Who acts with it: `key:<id>`.
    pub(crate) fn principal(&self) -> Option<Principal> {
        Some(Principal {
            id: PrincipalId::new(format!("key:{}", self.id)).ok()?,
            credential: CredentialKind::ApiKey { id: self.id.clone() },
            tenant: self.tenant.clone(),
            roles: self.roles.clone(),
            doors: self.doors.iter().map(|d| Arc::from(d.as_str())).collect(),
            scope: self.scope(),
        })
    }
}

/// A key just made.
#[derive(Debug, Clone)]
pub struct CreatedKey {
    /// What is kept of it.
    pub record: KeyRecord,
    /// The key's text. Shown once; it cannot be had again.
    pub secret: Secret,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> KeyRequest {
        KeyRequest::new("ci", "reader", TenantId::default_tenant())
    }

    fn record(request: KeyRequest) -> Result<KeyRecord, KeyError> {
        request.into_record(KeyId::new("abcdefghij").unwrap(), Timestamp::from_seconds(100))
    }

    #[test]
    fn requests_that_make_no_sense_are_refused_with_what_would() {
        type Change = fn(&mut KeyRequest);
        let table: [(Change, &str); 9] = [
            (|r| r.label = "a\nb".into(), "at most 100 characters"),
            (|r| r.doors.clear(), "'mcp', 'ingest', 'admin' or 'metrics'"),
            (|r| r.roles.clear(), "at least one role"),
            (|r| r.roles = [Arc::from("a b")].into(), "not a role name"),
            (|r| r.services = NameSet::only(Vec::<String>::new()), "leave it out for all"),
            (|r| r.sources = NameSet::only([""]), "list of sources"),
            (|r| r.namespaces = NameSet::only(["a\0"]), "list of namespaces"),
            (|r| r.look_back = Some(Duration::from_millis(1500)), "whole seconds"),
            (|r| r.expires_in = Some(Duration::ZERO), "such as 90d"),
        ];
        for (change, says) in table {
            let mut wrong = request();
            change(&mut wrong);
            let error = record(wrong).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let mut ingest = request();
        ingest.roles.clear();
        ingest.doors = [Door::Ingest].into();
        assert!(record(ingest.clone()).is_ok(), "a key that only sends needs no role");
        ingest.services = NameSet::only(["cart"]);
        let error = record(ingest).unwrap_err().to_string();
        assert!(error.contains("make a key of its own for sending"), "{error}");
    }

    #[test]
    fn the_principal_carries_every_restriction() {
        let mut request = request();
        request.services = NameSet::only(["cart"]);
        request.look_back = Some(Duration::from_hours(1));
        let principal = record(request).unwrap().principal().unwrap();
        assert_eq!(principal.id.as_str(), "key:abcdefghij");
        assert!(principal.opens("mcp") && !principal.opens("ingest"));
        assert!(principal.scope.require_service("payment").is_err());
        assert_eq!(principal.scope.look_back, Some(Duration::from_hours(1)));
    }

    #[test]
    fn a_network_that_cannot_be_read_is_a_mistake_of_the_request() {
        assert_eq!(networks(["::ffff:10.0.0.0/104"]).unwrap().first().unwrap().to_string(), "10.0.0.0/8");
        let error = networks(["10.1.2.3/8"]).unwrap_err();
        assert!(matches!(&error, KeyError::Request(text) if text.contains("did you mean 10.0.0.0/8")), "{error}");
    }

    #[test]
    fn a_secret_ages_after_ninety_days_unless_nobody_can_use_it() {
        let made = record(request()).unwrap();
        let later = |days: u64| Timestamp::from_seconds(100).plus(Duration::from_hours(24 * days));
        assert!(!made.is_aging(later(89)) && made.is_aging(later(90)));
        let revoked = KeyRecord { revoked_at: Some(later(1)), ..made.clone() };
        let expired = KeyRecord { expires_at: Some(later(2)), ..made.clone() };
        let rotated = KeyRecord { secret_made_at: later(50), ..made.clone() };
        assert!(!revoked.is_aging(later(100)) && !expired.is_aging(later(100)) && !rotated.is_aging(later(100)));
        // The usual validity ends before a secret is old, and a key for a task of days is no matter for a reminder.
        let usual = KeyRecord { expires_at: Some(later(90)), ..made.clone() };
        assert!(!usual.is_aging(later(75)) && usual.is_aging(later(76)) && usual.is_aging(later(89)));
        assert!(!usual.is_aging(later(90)), "it has ended");
        let brief = KeyRecord { expires_at: Some(later(28)), ..made };
        assert!(!brief.is_aging(later(27)));
    }
}
