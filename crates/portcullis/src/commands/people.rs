//! Whom a question about rules is asked for: keys, users, certificates, tokens, the local user, or somebody with a role.
//!
//! Guards that a principal is asked about with the tenant and the confinement its credential gives it, and with no other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, bail};
use portcullis_identity::token::{TenantMapping, TokenIssuer};
use portcullis_identity::{KeyStatus, local_principal, local_user};
use portcullis_model::{Clock, CredentialKind, Principal, PrincipalId, SystemClock, TenantId};

use crate::cli::WhoArgs;
use crate::house::known_roles;
use crate::look;
use crate::settings::Config;

/// The principals that tables and options speak of.
pub struct People {
    known: BTreeMap<String, Principal>,
    /// Keys that are let in nowhere any more.
    ended: BTreeMap<String, &'static str>,
    issuers: Vec<TokenIssuer>,
    roles: Vec<String>,
    local_role: String,
    tenant: Option<TenantId>,
}

/// Who says which tenant somebody has.
enum Tenancy {
    /// The credential.
    Settled,
    /// Whoever asks; the default one otherwise.
    Open,
    /// A claim of the token, which maps to one of these.
    Claimed(String, BTreeSet<String>),
}

impl People {
    /// Reads the keys.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let keys = look::keys(config).await?.list().await?;
        let mut people = Self::without_keys(config)?;
        let now = SystemClock.now();
        for record in keys {
            let id = PrincipalId::new(format!("key:{}", record.id))?;
            let ended = match record.status(now) {
                KeyStatus::Active => None,
                KeyStatus::Expired => Some("expired"),
                KeyStatus::Revoked => Some("revoked"),
            };
            if let Some(how) = ended {
                people.ended.insert(id.to_string(), how);
            }
            let principal = Principal {
                id: id.clone(),
                credential: CredentialKind::ApiKey { id: record.id.clone() },
                tenant: record.tenant.clone(),
                roles: record.roles.clone(),
                doors: record.doors.iter().map(|d| Arc::from(d.as_str())).collect(),
                scope: record.scope(),
            };
            people.known.insert(id.to_string(), principal);
        }
        Ok(people)
    }

    /// Everybody but keys: what is written in the configuration.
    pub fn without_keys(config: &Config) -> anyhow::Result<Self> {
        let mut known = BTreeMap::new();
        for principal in config.identity.principals().context("identity")? {
            known.insert(principal.id.to_string(), principal);
        }
        if let Some(role) = &config.listen.anonymous_role {
            let id = PrincipalId::new("anonymous")?;
            let local = local_principal("anonymous", role)?;
            known.insert(id.to_string(), Principal { id, credential: CredentialKind::Anonymous, ..local });
        }
        let roles = known_roles(config).into_iter().chain(["anonymous".to_owned()]).collect();
        let issuers = config.identity.tokens.issuers.clone();
        Ok(Self { known, ended: BTreeMap::new(), issuers, roles, local_role: config.stdio.role.clone(), tenant: None })
    }

    /// Keys are read only when one is spoken of: explaining a role needs no data directory.
    pub async fn named<'a>(config: &Config, mut named: impl Iterator<Item = &'a str>) -> anyhow::Result<Self> {
        if named.any(|id| id.starts_with("key:")) { Self::open(config).await } else { Self::without_keys(config) }
    }

    /// The same, where whoever's tenant the configuration does not say has this one.
    pub fn in_tenant(self, tenant: Option<&str>) -> anyhow::Result<Self> {
        Ok(Self { tenant: tenant.map(TenantId::new).transpose()?, ..self })
    }

    /// Every key, user, certificate rule, and the anonymous caller where there is one.
    pub fn known(&self) -> impl Iterator<Item = &Principal> {
        self.known.values()
    }

    /// Every role there is.
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// What there is to say about somebody that no rule says.
    pub fn notes(&self, principal: &Principal) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(how) = self.ended(principal) {
            notes.push(format!("{} is {how}, so it is let in nowhere: this is what it could do otherwise", principal.id));
        }
        let issuer = principal.id.as_str().strip_prefix("token:").and_then(|rest| self.issuer(rest));
        let claims = issuer.into_iter().flat_map(|issuer| {
            [(issuer.services_claim.is_some(), "services"), (issuer.namespaces_claim.is_some(), "namespaces")]
        });
        for (_, what) in claims.filter(|(claimed, _)| *claimed) {
            notes.push(format!("a claim of its token confines it to some {what} besides; which, is not known here"));
        }
        notes
    }

    /// `expired` or `revoked`, for a key that is.
    pub fn ended(&self, principal: &Principal) -> Option<&'static str> {
        self.ended.get(principal.id.as_str()).copied()
    }

    /// Somebody with this role and nothing else.
    pub fn with_role(&self, role: &str) -> anyhow::Result<Principal> {
        self.find(&WhoArgs { role: vec![role.to_owned()], principal: None, tenant: None })
    }

    /// The principal that was asked for.
    pub fn find(&self, who: &WhoArgs) -> anyhow::Result<Principal> {
        if let Some(unknown) = who.role.iter().find(|r| !self.roles.contains(r)) {
            bail!("there is no role '{unknown}'; roles are {}", self.roles.join(", "));
        }
        let (mut principal, tenancy) = match &who.principal {
            Some(id) => self.by_id(id, !who.role.is_empty())?,
            None if who.role.is_empty() => (local_principal(&local_user(), &self.local_role)?, Tenancy::Settled),
            None => (Principal { id: PrincipalId::new("role")?, ..local_principal("role", &self.local_role)? }, Tenancy::Open),
        };
        if !who.role.is_empty() {
            principal.roles = who.role.iter().map(|r| Arc::from(r.as_str())).collect();
        }
        let named = who.tenant.as_deref().map(TenantId::new).transpose()?;
        let wanted = match tenancy {
            Tenancy::Settled => named,
            Tenancy::Open | Tenancy::Claimed(..) => named.or_else(|| self.tenant.clone()),
        };
        match (&tenancy, wanted) {
            (Tenancy::Settled, Some(wanted)) if wanted != principal.tenant => bail!(
                "the tenant of {} is '{}' and never '{wanted}'; a tenant is named for roles, and for tokens whose claims say it",
                principal.id,
                principal.tenant
            ),
            (Tenancy::Claimed(claim, tenants), None) => bail!(
                "the tenant of {} comes with its token, by the claim '{claim}'; name one: {}",
                principal.id,
                listed(tenants)
            ),
            (Tenancy::Claimed(claim, tenants), Some(wanted)) if !tenants.contains(wanted.as_str()) => {
                bail!("the claim '{claim}' of {} never means the tenant '{wanted}'; it means {}", principal.id, listed(tenants))
            }
            (_, Some(wanted)) => {
                principal.scope.tenant = wanted.clone();
                principal.tenant = wanted;
            }
            (_, None) => {}
        }
        Ok(principal)
    }

    fn issuer(&self, name_and_subject: &str) -> Option<&TokenIssuer> {
        let (name, _) = name_and_subject.split_once('/')?;
        self.issuers.iter().find(|issuer| issuer.name == name)
    }

    fn by_id(&self, id: &str, roles_given: bool) -> anyhow::Result<(Principal, Tenancy)> {
        if let Some(known) = self.known.get(id) {
            return Ok((known.clone(), Tenancy::Settled));
        }
        if let Some(user) = id.strip_prefix("local:") {
            return Ok((local_principal(user, &self.local_role)?, Tenancy::Settled));
        }
        if !roles_given {
            bail!(
                "nothing is known about '{id}'; name its roles with --role, or a key as key:ID (`portcullis key list` shows them)"
            );
        }
        let somebody = Principal { id: PrincipalId::new(id)?, ..local_principal("somebody", &self.local_role)? };
        let Some(token) = id.strip_prefix("token:") else { return Ok((somebody, Tenancy::Open)) };
        let Some(issuer) = self.issuer(token) else {
            let names: Vec<&str> = self.issuers.iter().map(|issuer| issuer.name.as_str()).collect();
            bail!("'{id}' is of no configured issuer; write token:ISSUER/SUBJECT, issuers are {}", names.join(", "));
        };
        let subject = token.split_once('/').map_or(token, |(_, subject)| subject);
        let credential = CredentialKind::Token { issuer: Arc::from(issuer.issuer.as_str()), subject: Arc::from(subject) };
        let mut principal = Principal { credential, ..somebody };
        Ok(match &issuer.tenant {
            TenantMapping::Fixed(tenant) => {
                principal.tenant = tenant.clone();
                principal.scope.tenant = tenant.clone();
                (principal, Tenancy::Settled)
            }
            TenantMapping::By(mapping) => {
                let tenants = mapping.map.values().cloned().collect();
                (principal, Tenancy::Claimed(mapping.claim.to_string(), tenants))
            }
        })
    }
}

fn listed(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
