//! An Open Policy Agent as the external policy, asked over its Data API
//! (<https://www.openpolicyagent.org/docs/rest-api#get-a-document-with-input>). Guards that only a clear `true` lets a call
//! go on: an error, a late answer, an undefined or another document refuses. Must not keep an answer longer than configured.

mod cache;
mod settings;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use portcullis_egress::{
    AddressPolicy, EgressClient, EgressConfig, EgressConfigError, EgressRequest, SecretFault, SecretResolver,
};
use portcullis_model::{Clock, Scope, TenantId};
use portcullis_policy::{Budget, Charter, CharterGrant, ExternalDecision, ExternalInput, ExternalPolicy, Permit, PolicyError};
use serde_json::{Value, json};

use crate::cache::Cache;
pub use crate::settings::{DecisionCacheSettings, OpaSettings};

/// Largest answer: a decision is a word.
const MOST_BYTES: u64 = 64 << 10;
/// A sidecar that restarts is asked again soon; until then calls are refused.
const REST: Duration = Duration::from_secs(1);

/// Settings that cannot work. For the operator to fix.
#[derive(Debug, thiserror::Error)]
pub enum OpaConfigError {
    /// The connection.
    #[error("external_policy: {0}")]
    Egress(#[from] EgressConfigError),
    /// The secret.
    #[error("external_policy: auth: {0}")]
    Secret(#[from] SecretFault),
    /// The charter.
    #[error("external_policy: {0}")]
    Charter(#[from] PolicyError),
    /// The path or a limit.
    #[error("external_policy: {0}")]
    Setting(&'static str),
}

/// The policy service.
#[derive(Debug)]
pub struct OpaPolicy {
    client: EgressClient,
    charter: Charter,
    path: Vec<String>,
    cache: Cache,
    clock: Arc<dyn Clock>,
    version: AtomicU64,
}

impl OpaPolicy {
    /// Makes the client; asks nothing yet. `charter` makes the permit under which it is asked.
    ///
    /// # Errors
    /// See [`OpaConfigError`].
    pub fn new(
        settings: &OpaSettings,
        secrets: &dyn SecretResolver,
        clock: Arc<dyn Clock>,
        charter: impl FnOnce(CharterGrant) -> Result<Charter, PolicyError>,
    ) -> Result<Self, OpaConfigError> {
        let path: Vec<String> = settings.path.split('/').map(str::to_owned).collect();
        if path.iter().any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(OpaConfigError::Setting("path must name a rule, such as portcullis/allow"));
        }
        if settings.timeout.0 > Duration::from_secs(30) || settings.cache.ttl.0 > Duration::from_mins(1) {
            return Err(OpaConfigError::Setting("timeout can be 30s at most, and cache.ttl 1m"));
        }
        let mut egress = EgressConfig::new("external-policy", &settings.url);
        if let Some(auth) = &settings.auth {
            egress.authentication = auth.authentication(secrets)?;
        }
        egress.tls = settings.tls.clone().into();
        egress.addresses = AddressPolicy::new(settings.allow_addresses.iter().copied());
        egress.connect_timeout = settings.timeout.0;
        egress.read_timeout = settings.timeout.0;
        egress.max_response_bytes = MOST_BYTES;
        egress.concurrency = 256;
        egress.breaker_rest = REST;
        let client = EgressClient::new(egress)?;
        let charter = charter(CharterGrant {
            name: Arc::from("external-policy"),
            destinations: [client.origin().to_owned()].into(),
            scope: Scope::tenant_wide(TenantId::default_tenant()),
            time_limit: settings.timeout.0,
            budget: Budget::default(),
        })?;
        let cache = Cache::new(settings.cache.entries, settings.cache.ttl.0);
        Ok(Self { client, charter, path, cache, clock, version: AtomicU64::new(1) })
    }

    /// The rules of the house changed: what was answered under the old ones no longer counts.
    pub fn rules_changed(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether it answers with a decision, for the doctor. The probe allows nothing.
    ///
    /// # Errors
    /// What is wrong, for the operator.
    pub async fn check(&self) -> Result<(), String> {
        match self.ask(&json!({"probe": true}), None).await {
            ExternalDecision::Unavailable { reason } => Err(reason),
            _ => Ok(()),
        }
    }

    async fn ask(&self, input: &Value, deadline: Option<Instant>) -> ExternalDecision {
        let permit = self.charter.permit();
        let permit = deadline.map_or_else(|| permit.clone(), |deadline| permit.with_deadline_at_most(deadline));
        let segments = ["v1", "data"].into_iter().map(str::to_owned).chain(self.path.iter().cloned());
        // A decision changes nothing, so it may be asked again: a connection the service closed while idle denies nobody.
        let request = EgressRequest::post(segments).json(json!({"input": input})).idempotent();
        match self.client.send(&permit, request).await {
            Ok(response) => decision(response.status.as_u16(), &response.body),
            Err(error) => ExternalDecision::Unavailable { reason: error.to_string() },
        }
    }
}

/// Reads an answer; everything but a clear one is none.
fn decision(status: u16, body: &[u8]) -> ExternalDecision {
    let unclear = |reason: String| ExternalDecision::Unavailable { reason };
    if status != 200 {
        return unclear(format!("it answered with status {status}"));
    }
    let Ok(answer) = serde_json::from_slice::<Value>(body) else { return unclear("its answer is not JSON".into()) };
    // Such as a missing input: the decision would be one about nothing.
    if let Some(warning) = answer.get("warning") {
        return unclear(format!("it warns: {}", warning.get("message").and_then(Value::as_str).unwrap_or("?")));
    }
    match answer.get("result") {
        Some(Value::Bool(true)) => ExternalDecision::Allow,
        Some(Value::Bool(false)) => ExternalDecision::Deny { reason: "its decision is false".into() },
        Some(_) => unclear("its decision is neither true nor false; path must name a rule that is".into()),
        None => unclear("its decision is undefined; give the rule a default, and check path".into()),
    }
}

#[async_trait]
impl ExternalPolicy for OpaPolicy {
    fn name(&self) -> &'static str {
        "opa"
    }

    async fn decide(&self, permit: &Permit, input: &ExternalInput) -> ExternalDecision {
        let Ok(document) = serde_json::to_value(input) else {
            return ExternalDecision::Unavailable { reason: "the input cannot be written".into() };
        };
        let key = key(&document, self.version.load(Ordering::SeqCst));
        if let Some(known) = self.cache.get(&key, self.clock.now()) {
            return known;
        }
        let asked = self.clock.now();
        let decision = self.ask(&document, Some(permit.deadline())).await;
        self.cache.put(key, &decision, asked);
        decision
    }
}

/// The digest of everything that is asked but the time of day: a rule about the time follows within the cache's `ttl`.
fn key(document: &Value, version: u64) -> [u8; 32] {
    let mut timeless = document.clone();
    if let Some(members) = timeless.as_object_mut() {
        members.remove("time");
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&version.to_be_bytes());
    hasher.update(timeless.to_string().as_bytes());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests;
