//! Who is calling, after the credential was verified.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{KeyId, PrincipalId, Scope, TenantId};

/// How the principal proved itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum CredentialKind {
    /// The user who started the process (stdio, `portcullis call`).
    Local,
    /// An API key.
    ApiKey {
        /// The key's public id.
        id: KeyId,
    },
    /// A user name and password (HTTP Basic).
    Password {
        /// The user name.
        user: Arc<str>,
    },
    /// A token of an OpenID provider or OAuth authorization server (JWT).
    Token {
        /// Who issued it (`iss`).
        issuer: Arc<str>,
        /// Whom it speaks of (`sub`).
        subject: Arc<str>,
    },
    /// A client certificate (mutual TLS).
    Certificate {
        /// The subject alternative name that was matched.
        subject: Arc<str>,
    },
    /// Nobody; only where the operator opened a loopback listener on purpose.
    Anonymous,
}

/// A verified caller. Made by `identity`, read by everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Stable id used in audit, limits and cache keys.
    pub id: PrincipalId,
    /// How it proved itself.
    pub credential: CredentialKind,
    /// Tenant whose data it may see.
    pub tenant: TenantId,
    /// Role names (`reader`, `operator`, `admin`, or the operator's own).
    pub roles: BTreeSet<Arc<str>>,
    /// Doors this credential opens (`mcp`, `ingest`).
    pub doors: BTreeSet<Arc<str>>,
    /// What data the credential is confined to; policies can only narrow it.
    pub scope: Scope,
}

impl Principal {
    /// Whether the credential carries the door scope `door`.
    pub fn opens(&self, door: &str) -> bool {
        self.doors.contains(door)
    }
}
