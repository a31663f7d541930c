//! What the store's own conditions and functions may not see: the same that answers lose. Decides nothing itself.

use std::sync::Arc;

use portcullis_guard::{Redactions, Redactor};
use portcullis_model::TenantId;
use portcullis_telemetry::Scrubber;
use serde_json::Value;

/// The redactor of answers, for the store.
#[derive(Debug)]
pub struct AnswerScrubber(pub Redactor);

impl AnswerScrubber {
    /// The same, in the process of a statement.
    pub fn of_recipe(recipe: &str) -> Result<Arc<dyn Scrubber>, String> {
        Ok(Arc::new(Self(Redactor::from_recipe(recipe)?)))
    }
}

impl Scrubber for AnswerScrubber {
    fn text(&self, tenant: &TenantId, text: &str) -> Option<String> {
        // Counted where the answer is released.
        let mut found = Redactions::default();
        match self.0.for_tenant(tenant.as_str()).text(text, &mut found) {
            std::borrow::Cow::Borrowed(_) => None,
            std::borrow::Cow::Owned(clean) => Some(clean),
        }
    }

    fn value(&self, tenant: &TenantId, value: &mut Value) {
        self.0.for_tenant(tenant.as_str()).value(value, &mut Redactions::default());
    }

    fn recipe(&self) -> String {
        self.0.recipe()
    }
}
