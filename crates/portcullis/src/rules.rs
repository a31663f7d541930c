//! Which rules are in force, as the audit log tells it: by a digest over the policy texts, the products, the roles and the
//! writes that are enabled. Guards that a change of what somebody may do leaves a record with what held before and after.

use portcullis_audit::{AuditEvent, EventKind};
use portcullis_policy::{Policies, PolicyText, Products};

use crate::house::known_roles;
use crate::settings::Config;

/// Rules that were loaded and checked.
pub struct Rules {
    /// Who may do what.
    pub policies: Policies,
    /// Named bundles.
    pub products: Products,
    /// What they were made of.
    pub digest: String,
}

/// BLAKE3 over everything rules are made of, hexadecimal.
pub fn digest(texts: &[PolicyText], config: &Config) -> anyhow::Result<String> {
    let mut hasher = blake3::Hasher::new_derive_key("portcullis 2026-11-29 rules in force v1");
    let mut add = |part: &str| {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    };
    for text in texts {
        add(&text.origin);
        add(&text.text);
    }
    add(&serde_json::to_string(&config.products)?);
    add(&serde_json::to_string(&known_roles(config))?);
    add(&serde_json::to_string(&config.write)?);
    add(config.policy_utc_offset.as_deref().unwrap_or_default());
    Ok(hasher.finalize().to_hex().to_string())
}

fn files(config: &Config) -> String {
    let names: Vec<String> = config.policies.iter().map(|path| path.display().to_string()).collect();
    if names.is_empty() { "built-in".to_owned() } else { names.join(", ") }
}

/// The record of the rules a process begins with.
pub fn loaded(config: &Config, digest: &str) -> AuditEvent {
    AuditEvent::operation(EventKind::Policy, "policy.loaded", files(config)).note(format!("rules in force: {digest}"))
}

/// The record of rules that take the place of others.
pub fn changed(config: &Config, before: &str, after: &str) -> AuditEvent {
    let note = format!("rules in force before: {before}; after: {after}");
    AuditEvent::operation(EventKind::Policy, "policy.changed", files(config)).note(note)
}
