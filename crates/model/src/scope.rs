//! What data a principal may see. Scopes only ever get narrower on the road.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::TenantId;

/// Either everything, or exactly these names. An empty list is nothing, not everything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameSet {
    /// No restriction.
    #[default]
    All,
    /// Only these.
    Only(BTreeSet<String>),
}

impl NameSet {
    /// A restriction to `names`.
    pub fn only<I: IntoIterator<Item = S>, S: Into<String>>(names: I) -> Self {
        Self::Only(names.into_iter().map(Into::into).collect())
    }

    /// Whether `name` is inside.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
        }
    }

    /// Whether there is no restriction.
    pub fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// The names both allow.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, x) | (x, Self::All) => x.clone(),
            (Self::Only(a), Self::Only(b)) => Self::Only(a.intersection(b).cloned().collect()),
        }
    }

    /// The names, or `None` when there is no restriction.
    pub fn names(&self) -> Option<&BTreeSet<String>> {
        match self {
            Self::All => None,
            Self::Only(names) => Some(names),
        }
    }
}

/// A question outside the scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// The named thing is not inside the caller's scope (or does not exist: the caller cannot tell).
    #[error("{kind} '{name}' is not available to this credential")]
    Outside {
        /// `source`, `service` or `namespace`.
        kind: &'static str,
        /// The name asked for.
        name: String,
    },
}

/// The confinement of one credential or one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Tenant whose records may be read.
    pub tenant: TenantId,
    /// Sources that may be asked.
    #[serde(default)]
    pub sources: NameSet,
    /// Services whose signals may be seen.
    #[serde(default)]
    pub services: NameSet,
    /// Kubernetes namespaces whose signals may be seen.
    #[serde(default)]
    pub namespaces: NameSet,
    /// How far back from now a question may reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub look_back: Option<Duration>,
}

impl Scope {
    /// All data of one tenant.
    pub fn tenant_wide(tenant: TenantId) -> Self {
        Self { tenant, sources: NameSet::All, services: NameSet::All, namespaces: NameSet::All, look_back: None }
    }

    /// What both allow. The tenant stays this scope's; a different tenant leaves nothing.
    #[must_use]
    pub fn narrow(&self, other: &Self) -> Self {
        let foreign = self.tenant != other.tenant;
        let nothing = || NameSet::Only(BTreeSet::new());
        Self {
            tenant: self.tenant.clone(),
            sources: if foreign { nothing() } else { self.sources.intersect(&other.sources) },
            services: if foreign { nothing() } else { self.services.intersect(&other.services) },
            namespaces: if foreign { nothing() } else { self.namespaces.intersect(&other.namespaces) },
            look_back: match (self.look_back, other.look_back) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
        }
    }

    /// Refuses a service outside the scope.
    pub fn require_service(&self, service: &str) -> Result<(), ScopeError> {
        Self::require(&self.services, "service", service)
    }

    /// Refuses a source outside the scope.
    pub fn require_source(&self, source: &str) -> Result<(), ScopeError> {
        Self::require(&self.sources, "source", source)
    }

    fn require(set: &NameSet, kind: &'static str, name: &str) -> Result<(), ScopeError> {
        if set.contains(name) { Ok(()) } else { Err(ScopeError::Outside { kind, name: name.to_owned() }) }
    }

    /// Whether services or namespaces are restricted, so that raw queries must be confined or refused.
    pub fn restricts_records(&self) -> bool {
        !self.services.is_all() || !self.namespaces.is_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrowing_never_widens() {
        let tenant = TenantId::default_tenant();
        let mut a = Scope::tenant_wide(tenant.clone());
        a.services = NameSet::only(["cart", "checkout"]);
        let mut b = Scope::tenant_wide(tenant);
        b.services = NameSet::only(["checkout", "payment"]);
        b.look_back = Some(Duration::from_mins(1));
        let both = a.narrow(&b);
        assert_eq!(both.services, NameSet::only(["checkout"]));
        assert_eq!(both.look_back, Some(Duration::from_mins(1)));
        assert!(both.require_service("cart").is_err());
    }

    #[test]
    fn another_tenants_scope_leaves_nothing() {
        let a = Scope::tenant_wide(TenantId::default_tenant());
        let b = Scope::tenant_wide(TenantId::new("other").unwrap());
        assert!(!a.narrow(&b).services.contains("cart"));
    }

    #[test]
    fn an_empty_list_is_nothing() {
        assert!(!NameSet::only(Vec::<String>::new()).contains("x"));
    }
}
