//! The verifier: shape, issuer, algorithm, key, signature, claims, in this order. Guards that no claim but `iss` is looked
//! at before the signature is right, and `iss` only to find the issuer whose keys must then verify it.

use std::sync::Arc;

use async_trait::async_trait;
use jsonwebtoken::crypto;
use portcullis_model::{CallerToken, Clock, NameSet, Principal, Secret, Timestamp};
use portcullis_policy::{Charter, CharterGrant, PolicyError};
use serde_json::Value;

use super::claims;
use super::compact::{Compact, SubjectToken, looks_like};
use super::jwks::{EgressFetch, KeyCache, KeyFetch, NoKey};
use super::reason::{TokenReason, TokenRefusal, shown};
use super::resource::ProtectedResource;
use super::settings::{TokenIssuer, TokenSettings, TokenSettingsError};
use crate::door::{Accepted, Term, TokenVerifier};
use crate::refusal::IdentityRefusal;

/// A good token.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Whose it is.
    pub principal: Arc<Principal>,
    /// The token itself, only to be exchanged.
    pub subject_token: SubjectToken,
}

#[derive(Debug)]
struct Issuer {
    settings: TokenIssuer,
    audiences: Vec<String>,
    keys: KeyCache,
}

/// Verifies the tokens of the configured issuers.
#[derive(Debug)]
pub struct Verifier {
    issuers: Vec<Issuer>,
    max_bytes: usize,
    clock: Arc<dyn Clock>,
    resource: Arc<ProtectedResource>,
}

impl Verifier {
    /// From the settings. `own_resource` is the URL of the MCP listener (`http://127.0.0.1:7468/mcp`), used where the
    /// operator names no other; `charter` makes the charter under which each issuer's keys are fetched
    /// ([`Policies::charter`](portcullis_policy::Policies::charter)). Nothing is fetched yet.
    ///
    /// # Errors
    /// When a setting cannot be used. Roles are checked by [`TokenSettings::check`].
    pub fn new(
        settings: &TokenSettings,
        own_resource: &str,
        clock: Arc<dyn Clock>,
        mut charter: impl FnMut(CharterGrant) -> Result<Charter, PolicyError>,
    ) -> Result<Self, TokenSettingsError> {
        let mut fetches = Vec::with_capacity(settings.issuers.len());
        for issuer in &settings.issuers {
            fetches.push(Arc::new(EgressFetch::new(issuer, &mut charter)?) as Arc<dyn KeyFetch>);
        }
        Self::with_fetches(settings, own_resource, clock, fetches)
    }

    /// The same with other ways to the keys, one for each issuer.
    pub(super) fn with_fetches(
        settings: &TokenSettings,
        own_resource: &str,
        clock: Arc<dyn Clock>,
        fetches: Vec<Arc<dyn KeyFetch>>,
    ) -> Result<Self, TokenSettingsError> {
        let resource = ProtectedResource::new(settings, own_resource)?;
        let issuer = |(issuer, fetch): (&TokenIssuer, _)| Issuer {
            audiences: match issuer.audiences.as_slice() {
                [] => vec![resource.resource().to_owned()],
                listed => listed.to_vec(),
            },
            keys: KeyCache::new(Arc::from(issuer.name.as_str()), fetch, clock.clone()),
            settings: issuer.clone(),
        };
        Ok(Self {
            issuers: settings.issuers.iter().zip(fetches).map(issuer).collect(),
            max_bytes: usize::try_from(settings.max_size.0).unwrap_or(usize::MAX),
            clock,
            resource: Arc::new(resource),
        })
    }

    /// This server as a protected resource, for its metadata and challenges.
    pub fn resource(&self) -> &Arc<ProtectedResource> {
        &self.resource
    }

    /// Names of the issuers, for the start-up report.
    pub fn issuer_names(&self) -> impl Iterator<Item = &str> {
        self.issuers.iter().map(|issuer| issuer.settings.name.as_str())
    }

    /// Whose token this is. Waits only for keys that are not at hand.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub async fn verify_token(&self, token: &str) -> Result<Verified, TokenRefusal> {
        let compact = Compact::read(token, self.max_bytes)?;
        let issuer = self.issuer(&compact)?;
        let settings = &issuer.settings;
        let algorithm = compact.header.algorithm;
        if !settings.algorithms.contains(&algorithm) {
            let detail = format!("{} is not on the list of issuer '{}'", algorithm.as_str(), settings.name);
            return Err(TokenRefusal::new(TokenReason::AlgorithmRefused, detail));
        }
        check_type(compact.header.kind.as_deref(), settings)?;
        let key = issuer.keys.key(compact.header.key.as_deref(), algorithm).await.map_err(|no| no_key(no, &compact, settings))?;
        let verified = crypto::verify(compact.signature, compact.signed.as_bytes(), &key, algorithm.into_library());
        if !verified.unwrap_or(false) {
            let detail = format!("no signature of issuer '{}'", settings.name);
            return Err(TokenRefusal::new(TokenReason::SignatureInvalid, detail));
        }
        let kind = compact.header.kind.as_deref();
        let expires = claims::check(&compact.claims, settings, &issuer.audiences, kind, self.clock.now())?;
        let principal = Arc::new(claims::principal(&compact.claims, settings)?);
        Ok(Verified {
            principal,
            subject_token: SubjectToken { text: Secret::new(token), expires, issuer: Arc::from(settings.name.as_str()) },
        })
    }

    fn issuer(&self, compact: &Compact<'_>) -> Result<&Issuer, TokenRefusal> {
        let named = compact.claims.get("iss").and_then(Value::as_str);
        let found = named.and_then(|name| self.issuers.iter().find(|issuer| issuer.settings.issuer == name));
        found.ok_or_else(|| {
            let detail = named.map_or("it names no issuer".to_owned(), |name| format!("'{}' is not trusted", shown(name)));
            TokenRefusal::new(TokenReason::UnknownIssuer, detail)
        })
    }
}

/// What a token says of itself, before anybody asked who signed it. Good for trying the reader with hostile tokens; no
/// [`Principal`], so that nothing can be called with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The id the principal would have.
    pub id: String,
    /// The roles it would have.
    pub roles: Vec<String>,
    /// The services it would see.
    pub services: NameSet,
}

/// Reads a token as [`Verifier::verify_token`] does, without its signature: form, type, times, audience and what the
/// claims map to. Must not decide anything.
///
/// # Errors
/// The first thing that is wrong.
pub fn read_unsigned(token: &str, issuer: &TokenIssuer, audiences: &[String], now: Timestamp) -> Result<Claimed, TokenRefusal> {
    let compact = Compact::read(token, 16 << 10)?;
    let kind = compact.header.kind.as_deref();
    check_type(kind, issuer)?;
    claims::check(&compact.claims, issuer, audiences, kind, now)?;
    let principal = claims::principal(&compact.claims, issuer)?;
    Ok(Claimed {
        id: principal.id.to_string(),
        roles: principal.roles.iter().map(ToString::to_string).collect(),
        services: principal.scope.services,
    })
}

/// `typ`, compared without case and without `application/` (RFC 7515 section 4.1.9). `JWT` on the list also means none.
fn check_type(kind: Option<&str>, settings: &TokenIssuer) -> Result<(), TokenRefusal> {
    let kind_or_jwt = kind.unwrap_or("jwt");
    let accepted = settings.types.iter().map(|listed| {
        let listed = listed.to_ascii_lowercase();
        listed.strip_prefix("application/").map_or_else(|| listed.clone(), str::to_owned)
    });
    if accepted.into_iter().any(|listed| listed == kind_or_jwt) {
        return Ok(());
    }
    let detail = format!("'{}' is not a type issuer '{}' may use", shown(kind.unwrap_or("none")), settings.name);
    Err(TokenRefusal::new(TokenReason::TypeRefused, detail))
}

fn no_key(no: NoKey, compact: &Compact<'_>, settings: &TokenIssuer) -> TokenRefusal {
    let name = compact.header.key.as_deref().map_or("without a name".to_owned(), |kid| format!("'{}'", shown(kid)));
    let algorithm = compact.header.algorithm.as_str();
    let (reason, detail) = match no {
        NoKey::Unknown => (TokenReason::UnknownKey, format!("issuer '{}' has no {algorithm} key {name}", settings.name)),
        NoKey::Ambiguous => {
            (TokenReason::AmbiguousKey, format!("issuer '{}' has several {algorithm} keys {name}", settings.name))
        }
        NoKey::Unavailable => (TokenReason::KeysUnavailable, format!("the keys of issuer '{}' cannot be had", settings.name)),
    };
    TokenRefusal::new(reason, detail)
}

#[async_trait]
impl TokenVerifier for Verifier {
    async fn verify(&self, token: &str) -> Result<Arc<Principal>, IdentityRefusal> {
        Ok(self.verify_token(token).await?.principal)
    }

    async fn accept(&self, token: &str) -> Result<Accepted, IdentityRefusal> {
        let Verified { principal, subject_token } = self.verify_token(token).await?;
        let term = Term { ends_at: Some(Timestamp::from_seconds(subject_token.expires)), secret: None };
        // Kept only where it can be of use: at an issuer that exchanges tokens.
        let exchanges = |issuer: &Issuer| *issuer.settings.name == *subject_token.issuer && issuer.settings.exchange.is_some();
        let token = self.issuers.iter().any(exchanges).then(|| CallerToken::seal(subject_token));
        Ok(Accepted { principal, token, term })
    }

    fn looks_like(&self, token: &str) -> bool {
        looks_like(token)
    }
}
