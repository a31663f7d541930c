//! The question asked at every door: who is this? Answered from what was presented and from nothing else.
//!
//! The order: a credential in the URL refuses; then the `Authorization` header decides, if there is one, and a client
//! certificate only if there is none; where a certificate must go along, both must be accepted and open the listener. Nobody
//! is let in because something is missing or broken, and who keeps presenting wrong credentials has to wait. Who shares an
//! address with them, behind a router or a proxy nobody wrote down, is not kept out: what nobody can guess is verified first.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use portcullis_model::{CallerToken, Clock, CredentialKind, InvalidName, Principal, TenantId, Timestamp};

use crate::basic::Users;
use crate::certificate_rules::CertificateRules;
use crate::local::anonymous;
use crate::lockout::Lockout;
use crate::password::Passwords;
use crate::presented::{Credential, Presented, Transport, query_carries_credential};
use crate::record::Door;
use crate::refusal::{IdentityRefusal, RefusalReason};
use crate::ring::{KeyRing, SecretMark};
use crate::settings::{AcceptedCredentials, IdentitySettings, IdentitySettingsError, LockoutSettings};

/// Verifies tokens of an OpenID provider or OAuth authorization server.
#[async_trait]
pub trait TokenVerifier: Send + Sync + std::fmt::Debug {
    /// Whose token this is.
    ///
    /// # Errors
    /// Why it is not accepted; a reason that blames the token counts against the caller's address.
    async fn verify(&self, token: &str) -> Result<Arc<Principal>, IdentityRefusal>;

    /// The same, with the token where it can be exchanged.
    ///
    /// # Errors
    /// As [`TokenVerifier::verify`].
    async fn accept(&self, token: &str) -> Result<Accepted, IdentityRefusal> {
        self.verify(token).await.map(Accepted::from)
    }

    /// Whether the text has the shape of such a token. Cheap, and says nothing about whether it is valid.
    fn looks_like(&self, token: &str) -> bool;
}

/// Somebody who is let in.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Who.
    pub principal: Arc<Principal>,
    /// The token it proved itself with, closed; absent where none can be exchanged.
    pub token: Option<CallerToken>,
    /// What its credential is good for, for what stays open longer than a request.
    pub term: Term,
}

/// How long a credential is good, as far as that is known when it is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Term {
    /// When it ends by itself: a token or a certificate. A key's end is asked of the ring.
    pub ends_at: Option<Timestamp>,
    /// Which secret of a key it was: one that was replaced ends with the overlap, while the key goes on.
    pub secret: Option<SecretMark>,
}

impl From<Arc<Principal>> for Accepted {
    fn from(principal: Arc<Principal>) -> Self {
        Self { principal, token: None, term: Term::default() }
    }
}

impl From<(Arc<Principal>, SecretMark)> for Accepted {
    fn from((principal, mark): (Arc<Principal>, SecretMark)) -> Self {
        Self { principal, token: None, term: Term { ends_at: None, secret: Some(mark) } }
    }
}

/// Knows who may come in.
#[derive(Debug)]
pub struct Identity {
    keys: Option<KeyRing>,
    local: Arc<Principal>,
    tokens: Option<Arc<dyn TokenVerifier>>,
    users: Users,
    passwords: Option<Arc<Passwords>>,
    certificates: CertificateRules,
    mcp: AcceptedCredentials,
    ingest: AcceptedCredentials,
    admin: AcceptedCredentials,
    require_certificate_binding: bool,
    anonymous_loopback: Option<Arc<Principal>>,
    open_ingest_on_loopback: bool,
    failures: Lockout,
    clock: Arc<dyn Clock>,
}

impl Identity {
    /// API keys where there is a ring, `local` on stdio, nobody without a credential, and telemetry from loopback
    /// peers without a key.
    pub fn new(keys: Option<KeyRing>, local: Principal, clock: Arc<dyn Clock>) -> Self {
        Self {
            keys,
            local: Arc::new(local),
            tokens: None,
            users: Users::default(),
            passwords: None,
            certificates: CertificateRules::default(),
            mcp: AcceptedCredentials::default(),
            ingest: AcceptedCredentials::default(),
            admin: AcceptedCredentials::default(),
            require_certificate_binding: false,
            anonymous_loopback: None,
            open_ingest_on_loopback: true,
            failures: Lockout::new(&LockoutSettings::default(), clock.clone()),
            clock,
        }
    }

    /// Users, certificate rules, what the listeners accept, and lockout, as the operator configured them.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn with_settings(mut self, settings: &IdentitySettings) -> Result<Self, IdentitySettingsError> {
        settings.check()?;
        self.users = Users::new(&settings.users)?;
        self.certificates = CertificateRules::new(&settings.certificates)?;
        (self.mcp, self.ingest, self.admin) = (settings.mcp, settings.ingest, settings.admin);
        self.require_certificate_binding = settings.require_certificate_binding;
        self.failures = Lockout::new(&settings.lockout, self.clock.clone());
        if !self.users.is_empty() {
            let unusable = |error: &_| IdentitySettingsError::hash("users", error);
            let passwords = match &self.keys {
                Some(ring) => Arc::clone(ring.passwords()),
                None => Arc::new(Passwords::new(self.clock.clone()).map_err(|e| unusable(&e))?),
            };
            for hash in self.users.hashes() {
                passwords.cost_as(hash).map_err(|e| unusable(&e))?;
            }
            self.passwords = Some(passwords);
        }
        Ok(self)
    }

    /// Lets loopback peers without a credential ask, with `role`.
    ///
    /// # Errors
    /// A role that does not make a principal.
    pub fn with_anonymous_loopback(mut self, role: &str) -> Result<Self, InvalidName> {
        self.anonymous_loopback = Some(Arc::new(anonymous(role)?));
        Ok(self)
    }

    /// Whether loopback peers may send telemetry without a key. Switch it off for listeners beyond loopback.
    #[must_use]
    pub fn with_open_ingest_on_loopback(mut self, open: bool) -> Self {
        self.open_ingest_on_loopback = open;
        self
    }

    /// Accepts tokens that `verifier` verifies.
    #[must_use]
    pub fn with_token_verifier(mut self, verifier: Arc<dyn TokenVerifier>) -> Self {
        self.tokens = Some(verifier);
        self
    }

    /// The key ring, where there is one.
    pub fn keys(&self) -> Option<&KeyRing> {
        self.keys.as_ref()
    }

    /// Whether somebody without a credential is let in from loopback, for the start-up report.
    pub fn allows_anonymous(&self) -> bool {
        self.anonymous_loopback.is_some()
    }

    /// Who wants to ask.
    ///
    /// # Errors
    /// Why nobody is let in.
    pub async fn identify(&self, presented: &Presented<'_>) -> Result<Arc<Principal>, IdentityRefusal> {
        self.accept(presented).await.map(|accepted| accepted.principal)
    }

    /// The same, with the token where it can be exchanged.
    ///
    /// # Errors
    /// Why nobody is let in.
    pub async fn accept(&self, presented: &Presented<'_>) -> Result<Accepted, IdentityRefusal> {
        if presented.transport == Transport::Stdio {
            return Ok(Arc::clone(&self.local).into());
        }
        match (self.credential(presented, &[Door::Mcp]).await?, &self.anonymous_loopback) {
            (Some(accepted), _) => Ok(accepted),
            (None, Some(anonymous)) if presented.comes_over_loopback() => Ok(Arc::clone(anonymous).into()),
            _ => Err(IdentityRefusal::new(RefusalReason::NoCredential)),
        }
    }

    /// Whose telemetry this is.
    ///
    /// # Errors
    /// Why nobody is let in.
    pub async fn identify_ingest(&self, presented: &Presented<'_>) -> Result<TenantId, IdentityRefusal> {
        match self.credential(presented, &[Door::Ingest]).await? {
            Some(accepted) => Ok(accepted.principal.tenant.clone()),
            None if self.open_ingest_on_loopback && presented.comes_over_loopback() => Ok(TenantId::default_tenant()),
            None => Err(IdentityRefusal::new(RefusalReason::NoCredential)),
        }
    }

    /// Who wants to administer or to scrape, by a credential that opens one of `doors`. Nobody is let in without one,
    /// from wherever.
    ///
    /// # Errors
    /// Why nobody is let in.
    pub async fn identify_admin(&self, presented: &Presented<'_>, doors: &[Door]) -> Result<Arc<Principal>, IdentityRefusal> {
        let known = self.credential(presented, doors).await?;
        known.map(|accepted| accepted.principal).ok_or_else(|| IdentityRefusal::new(RefusalReason::NoCredential))
    }

    /// Whether the credential somebody was let in with would still be accepted: its key is neither taken back nor over, its
    /// secret not replaced for longer than the overlap, and can be verified at all; a token or certificate has not ended. For
    /// streams and open questions, which outlive the request they began with.
    pub fn still_accepts(&self, principal: &Principal, term: Term) -> bool {
        if term.ends_at.is_some_and(|at| at <= self.clock.now()) {
            return false;
        }
        match &principal.credential {
            CredentialKind::ApiKey { id } => self.keys.as_ref().is_some_and(|ring| ring.is_good(id, term.secret)),
            _ => true,
        }
    }

    /// Who the presented credential belongs to, when it opens one of `doors`; `None` when none was presented. The doors
    /// belong to one listener.
    async fn credential(&self, presented: &Presented<'_>, doors: &[Door]) -> Result<Option<Accepted>, IdentityRefusal> {
        if presented.query.is_some_and(query_carries_credential) {
            return Err(IdentityRefusal::new(RefusalReason::CredentialInUrl));
        }
        let Some(first) = doors.first() else { return Err(IdentityRefusal::new(RefusalReason::WrongDoor)) };
        let accepted = match first {
            Door::Mcp => self.mcp,
            Door::Ingest => self.ingest,
            Door::Admin | Door::Metrics => self.admin,
        };
        // A certificate on a listener that does not accept them is part of the connection, not a credential.
        let certificate = presented.certificate.filter(|_| accepted.certificate);
        let by_certificate = |certificate| self.certificates.verify(certificate, self.clock.now());
        let accepted_as = match (presented.authorization, certificate) {
            (None, None) => return Ok(None),
            (None, Some(certificate)) => {
                let term = Term { ends_at: Some(certificate.not_after), secret: None };
                Accepted { term, ..by_certificate(certificate)?.into() }
            }
            (Some(authorization), certificate) => {
                if self.require_certificate_binding {
                    let certificate = certificate.ok_or_else(|| IdentityRefusal::new(RefusalReason::CertificateRequired))?;
                    let bound = by_certificate(certificate)?;
                    // A certificate of another listener proves nothing here.
                    if !doors.iter().any(|door| bound.opens(door.as_str())) {
                        let detail = format!("the certificate of {} at {}", bound.id, first.as_str());
                        return Err(IdentityRefusal::new(RefusalReason::WrongDoor).with_detail(detail));
                    }
                }
                self.authorization(authorization, presented, accepted).await?
            }
        };
        let principal = &accepted_as.principal;
        if doors.iter().any(|door| principal.opens(door.as_str())) {
            return Ok(Some(accepted_as));
        }
        let key = match &principal.credential {
            CredentialKind::ApiKey { id } => Some(id.clone()),
            _ => None,
        };
        Err(IdentityRefusal::of_key(RefusalReason::WrongDoor, key).with_detail(format!("{} at {}", principal.id, first.as_str())))
    }

    /// Who the header says, counting what is wrong.
    async fn authorization(
        &self,
        authorization: &str,
        presented: &Presented<'_>,
        accepted: AcceptedCredentials,
    ) -> Result<Accepted, IdentityRefusal> {
        // Failures count against an address that nobody can choose; a grant needs one that is the caller's own.
        let address = presented.address();
        let credential = Credential::parse(authorization);
        // Reading the claim costs a checksum; only needed while somebody is watched.
        let claim = || credential.as_ref().ok().and_then(Credential::claim);
        let watching = self.failures.is_watching();
        let locked = if watching { self.failures.check(address, claim()).map_err(IdentityRefusal::locked).err() } else { None };
        // What a person chose can be guessed and is slow to verify: not while somebody has to wait. What nobody can guess
        // is verified before the wait is looked at, or one guesser would keep out everybody of its address.
        if let Some(locked) = &locked
            && credential.as_ref().is_ok_and(Credential::was_chosen)
        {
            return Err(locked.clone());
        }
        let mut verified = match &credential {
            Ok(credential) => self.verify(credential, presented.place(), accepted).await,
            Err(refusal) => Err(refusal.clone()),
        };
        match &mut verified {
            Err(refusal) if refusal.reason.counts_as_failure() => {
                if let Some(locked) = locked {
                    return Err(locked);
                }
                refusal.lockout = self.failures.failed(address, claim().filter(|_| refusal.reason.is_wrong_secret()));
            }
            Ok(_) if self.failures.is_watching() => {
                if let Some(claim) = claim() {
                    self.failures.proven(address, claim);
                }
            }
            _ => {}
        }
        verified
    }

    async fn verify(
        &self,
        credential: &Credential<'_>,
        from: Option<IpAddr>,
        accepted: AcceptedCredentials,
    ) -> Result<Accepted, IdentityRefusal> {
        let refused = |reason| Err(IdentityRefusal::new(reason));
        let ring = || self.keys.as_ref().ok_or_else(|| IdentityRefusal::new(RefusalReason::NoKeyRing));
        match credential {
            Credential::Foreign(token) => match self.tokens.as_ref().filter(|tokens| tokens.looks_like(token)) {
                Some(tokens) if accepted.token => tokens.accept(token).await,
                Some(_) => refused(RefusalReason::NotAcceptedHere),
                None => refused(RefusalReason::Malformed),
            },
            Credential::Key(_) | Credential::ChosenKey(_) if !accepted.key => refused(RefusalReason::NotAcceptedHere),
            Credential::Key(key) => ring()?.accept(key, from).map(Accepted::from),
            Credential::ChosenKey(key) => ring()?.accept_chosen(key, from).await.map(Accepted::from),
            Credential::Basic(given) => match &self.passwords {
                Some(passwords) if accepted.basic => self.users.verify(given, passwords).await.map(Accepted::from),
                // Without a single user there is nobody to find out about.
                _ => refused(RefusalReason::NotAcceptedHere),
            },
        }
    }
}
