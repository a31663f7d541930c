//! One order, from the account to the certificate (RFC 8555 section 7.4).
//!
//! Guards that only the names of the settings are ever proved, and that what comes back is looked at before it is kept.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, ExternalAccountKey, Identifier, NewAccount, NewOrder, Order, OrderStatus,
    Problem, RetryPolicy,
};
use portcullis_config::{AcmeChallenge, AcmeSettings};
use portcullis_egress::Credential;
use portcullis_model::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use zeroize::Zeroizing;

use crate::answers::{Answers, Held};
use crate::error::{AttemptError, bounded};
use crate::paper::Paper;
use crate::store::{KeptAccount, Store};
use crate::transport::Transport;

/// What the authority says when it does not know an account (RFC 8555 section 6.7).
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";
/// How long the authority may take to look at proofs, and to issue.
const PATIENCE: Duration = Duration::from_secs(90);

/// What one order needs.
pub(crate) struct Ordering<'a> {
    pub(crate) settings: &'a AcmeSettings,
    pub(crate) transport: &'a Transport,
    pub(crate) store: &'a Store,
    pub(crate) external_key: Option<&'a Credential>,
    pub(crate) answers: &'a Answers,
}

/// A certificate that may be kept.
pub(crate) struct Issued {
    pub(crate) key: Zeroizing<String>,
    pub(crate) chain: String,
    pub(crate) paper: Paper,
}

impl Ordering<'_> {
    /// Orders, proves and fetches.
    pub(crate) async fn place(&self, now: impl Fn() -> Timestamp) -> Result<Issued, AttemptError> {
        let mut order = match self.order(self.account().await?).await {
            // The authority lost it or closed it; nothing was ordered yet.
            Err(Error::Api(problem)) if problem.r#type.as_deref() == Some(NO_ACCOUNT) => {
                tracing::warn!("the authority does not know the account that is kept; a new one is made");
                self.store.retire_account(&self.settings.directory)?;
                self.order(self.account().await?).await
            }
            other => other,
        }
        .map_err(|error| AttemptError::of("the order", error))?;
        let policy = RetryPolicy::new().initial_delay(Duration::from_millis(300)).backoff(1.5).timeout(PATIENCE);
        // Answered until the authority has looked, whatever it finds.
        let held = self.prove(&mut order).await?;
        if order.state().status != OrderStatus::Ready {
            let looked = order.poll_ready(&policy).await;
            if !matches!(looked, Ok(OrderStatus::Ready)) {
                return Err(self.explain(&mut order, looked).await);
            }
        }
        drop(held);
        let local = |error: rcgen::Error| AttemptError::Local(error.to_string());
        let key = KeyPair::generate().map_err(local)?;
        let mut request = CertificateParams::new(self.settings.domains.clone()).map_err(local)?;
        request.distinguished_name = DistinguishedName::new();
        let request = request.serialize_request(&key).map_err(local)?;
        let issue = |error| AttemptError::of("to issue", error);
        order.finalize_csr(request.der()).await.map_err(issue)?;
        let chain = order.poll_certificate(&policy).await.map_err(issue)?;
        let paper = Paper::read(chain.as_bytes()).map_err(AttemptError::Certificate)?;
        paper.check(&self.settings.domains, now()).map_err(AttemptError::Certificate)?;
        if paper.public_key != key.public_key_raw() {
            return Err(AttemptError::Certificate("it is for another key than the one it was ordered for".into()));
        }
        Ok(Issued { key: Zeroizing::new(key.serialize_pem()), chain, paper })
    }

    async fn order(&self, account: Account) -> Result<Order, Error> {
        let names: Vec<Identifier> = self.settings.domains.iter().cloned().map(Identifier::Dns).collect();
        let mut order = NewOrder::new(&names);
        if let Some(profile) = &self.settings.profile {
            order = order.profile(profile);
        }
        account.new_order(&order).await
    }

    /// The account that is kept, or a new one.
    async fn account(&self) -> Result<Account, AttemptError> {
        let settings = self.settings;
        let refused = |error| AttemptError::of("the account", error);
        let contact: Vec<String> =
            settings.contact.iter().map(|c| format!("mailto:{}", c.trim_start_matches("mailto:"))).collect();
        let urls: Vec<&str> = contact.iter().map(String::as_str).collect();
        let builder = Account::builder_with_http(Box::new(self.transport.clone()));
        if let Some(kept) = self.store.account(&settings.directory)? {
            let again = serde_json::to_vec(&kept.credentials).map(Zeroizing::new);
            let account = builder.from_credentials(kept.credentials).await.map_err(refused)?;
            if kept.contact != contact {
                account.update_contacts(&urls).await.map_err(refused)?;
                let credentials =
                    again.and_then(|text| serde_json::from_slice(&text)).map_err(|e| AttemptError::Local(e.to_string()))?;
                self.store.save_account(&settings.directory, &KeptAccount { contact, credentials })?;
            }
            return Ok(account);
        }
        let wanted =
            NewAccount { contact: &urls, terms_of_service_agreed: settings.terms_of_service_agreed, only_return_existing: false };
        let external = self.external().await?;
        let (account, credentials) =
            builder.create(&wanted, settings.directory.clone(), external.as_ref()).await.map_err(refused)?;
        self.store.save_account(&settings.directory, &KeptAccount { contact, credentials })?;
        Ok(account)
    }

    async fn external(&self) -> Result<Option<ExternalAccountKey>, AttemptError> {
        let (Some(external), Some(key)) = (&self.settings.external_account, self.external_key) else { return Ok(None) };
        let secret = key.current().await?;
        let text = secret.expose().trim().trim_end_matches('=');
        let decoded = URL_SAFE_NO_PAD.decode(text).or_else(|_| STANDARD.decode(secret.expose().trim()));
        let bytes = decoded.map(Zeroizing::new).map_err(|_| AttemptError::ExternalKey)?;
        if bytes.is_empty() {
            return Err(AttemptError::ExternalKey);
        }
        Ok(Some(ExternalAccountKey::new(external.key_id.clone(), &bytes)))
    }

    /// Puts up the answers to every pending challenge and asks the authority to look.
    async fn prove(&self, order: &mut Order) -> Result<Vec<Held>, AttemptError> {
        let kind = self.settings.challenge;
        let refused = |error| AttemptError::of("the proof", error);
        let mut held = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(refused)?;
            let name = match authorization.identifier().identifier {
                Identifier::Dns(name) if self.settings.domains.contains(name) => name.clone(),
                _ => return Err(AttemptError::Answer("it wants a proof for a name that was not ordered".into())),
            };
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                other => return Err(AttemptError::Answer(format!("{name} is {other:?}, so it cannot be proved").to_lowercase())),
            }
            let Some(mut challenge) = authorization.challenge(challenge_type(kind)) else {
                return Err(AttemptError::NotOffered { name, challenge: kind.as_str() });
            };
            held.push(self.answers.answer(&name, &challenge.token, &challenge.key_authorization())?);
            challenge.set_ready().await.map_err(refused)?;
        }
        Ok(held)
    }

    /// Finds what the authority says about the proofs: the order itself only says that it came to nothing.
    async fn explain(&self, order: &mut Order, looked: Result<OrderStatus, Error>) -> AttemptError {
        let kind = self.settings.challenge;
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let name = authorization.identifier().to_string();
            let Ok(state) = authorization.refresh().await else { break };
            let said = state.challenges.iter().find_map(|challenge| challenge.error.as_ref());
            if let Some(problem) = said {
                return AttemptError::Unproved { name, challenge: kind.as_str(), reason: bounded(&words(problem)) };
            }
        }
        match looked {
            Err(error) => AttemptError::of("the proof", error),
            Ok(_) => AttemptError::Answer("the order came to nothing, and it does not say why".into()),
        }
    }
}

fn challenge_type(kind: AcmeChallenge) -> ChallengeType {
    match kind {
        AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        AcmeChallenge::Http01 => ChallengeType::Http01,
    }
}

fn words(problem: &Problem) -> String {
    let detail = problem.detail.as_deref().unwrap_or("no detail");
    match &problem.r#type {
        Some(kind) => format!("{detail} ({kind})"),
        None => detail.to_owned(),
    }
}
