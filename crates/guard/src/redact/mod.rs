//! Secrets go, keys stay; people become pseudonyms. The one place where text on its way out is looked through. Works on text
//! and on JSON, in time linear in both. Must never make text that it would change again.

mod commands;
mod encoded;
mod events;
mod fields;
mod kinds;
mod manifest;
#[cfg(test)]
mod naive;
mod numbers;
mod personal;
mod places;
mod pseudonyms;
mod quick;
mod recipe;
mod rounds;
mod runs;
mod scan;
mod settings;
mod signs;
mod tables;
#[cfg(test)]
mod thorough;
mod tokens;
mod told;
mod value;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use rand::TryRng;
use regex::Regex;
use serde_json::Value;

pub(crate) use encoded::unzip;
use rounds::Work;
use scan::{Look, Mark, Tables};
pub use settings::{ALLOW_SECRETS, AddressMode, ExtraPattern, PersonalSettings, RedactionFault, RedactionSettings, Switch};

/// How many values of each category were taken out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redactions(BTreeMap<&'static str, u64>);

impl Redactions {
    pub(crate) fn add(&mut self, kind: &'static str) {
        *self.0.entry(kind).or_default() += 1;
    }

    /// Category and count, by category.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(k, n)| (*k, *n))
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (kind, count) in &other.0 {
            *self.0.entry(kind).or_default() += count;
        }
    }
}

/// Finds and replaces secrets and personal data in text and JSON. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Redactor {
    inner: Arc<Inner>,
}

struct Inner {
    tables: Tables,
    settings: RedactionSettings,
    extra: Vec<(String, Regex)>,
    /// Key of the pseudonyms.
    key: [u8; 32],
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Separates this use of the pepper from every other (BLAKE3, key derivation mode).
const CONTEXT: &str = "portcullis 2026-11 pseudonyms of personal data in answers";

impl Redactor {
    /// Default settings, with pseudonyms that hold for the life of this process.
    ///
    /// # Errors
    /// When a built-in table does not compile or the system gives no random key: reported instead of ignored.
    pub fn new() -> Result<Self, String> {
        let mut pepper = [0_u8; 32];
        rand::rngs::SysRng.try_fill_bytes(&mut pepper).map_err(|e| format!("no random key for pseudonyms: {e}"))?;
        Self::with_settings(&RedactionSettings::default(), &pepper)
    }

    /// Settings of the operator's. `pepper` is the installation's secret: replicas that share it write the same
    /// pseudonyms, and nobody without it can find the value behind one by trying.
    ///
    /// # Errors
    /// A sentence naming the setting that is wrong and what would be right.
    pub fn with_settings(settings: &RedactionSettings, pepper: &[u8]) -> Result<Self, String> {
        let extra = settings.compile().map_err(|e| e.to_string())?;
        let key = blake3::derive_key(CONTEXT, pepper);
        Ok(Self { inner: Arc::new(Inner { tables: Tables::new(), settings: settings.clone(), extra, key }) })
    }

    /// What it was built from.
    pub fn settings(&self) -> &RedactionSettings {
        &self.inner.settings
    }

    /// Replaces secrets in `text` by `[redacted:kind]` and personal data by pseudonyms of no tenant.
    pub fn text<'t>(&self, text: &'t str, found: &mut Redactions) -> Cow<'t, str> {
        self.for_tenant("").text(text, found)
    }

    /// Redacts every string of a JSON value, keys included; a field whose name says it is a secret loses its value.
    pub fn value(&self, value: &mut Value, found: &mut Redactions) {
        self.for_tenant("").value(value, found);
    }

    /// The same with the pseudonyms of one tenant: equal values of two tenants get different marks.
    pub fn for_tenant<'r>(&'r self, tenant: &'r str) -> TenantRedactor<'r> {
        TenantRedactor { redactor: self, tenant }
    }

    fn look(&self) -> Look<'_> {
        Look {
            tables: &self.inner.tables,
            settings: &self.inner.settings,
            random: true,
            decoded: false,
            unescaped: 0,
            thorough: false,
        }
    }
}

/// A [`Redactor`] for the data of one tenant.
#[derive(Debug, Clone, Copy)]
pub struct TenantRedactor<'r> {
    redactor: &'r Redactor,
    tenant: &'r str,
}

impl TenantRedactor<'_> {
    /// As [`Redactor::text`].
    pub fn text<'t>(&self, text: &'t str, found: &mut Redactions) -> Cow<'t, str> {
        Work::new(*self).scrub(text, true, found)
    }

    /// As [`Redactor::value`].
    pub fn value(&self, value: &mut Value, found: &mut Redactions) {
        Work::new(*self).json(value, found);
    }

    /// Whether bytes that are no text hold a secret. Random strings count for nothing there; personal data neither.
    pub(crate) fn holds_a_secret(&self, text: &str, compressed: bool) -> bool {
        let look = Look { random: compressed, ..self.redactor.look() };
        scan::find(look, text).spans.iter().any(|span| matches!(span.mark, Mark::Secret(_)))
            || self.redactor.inner.extra.iter().any(|(_, pattern)| pattern.is_match(text))
    }
}
