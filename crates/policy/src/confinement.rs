//! What a call would be confined to, for people: read off the permit the gate would issue, so that it cannot say anything
//! else. Must not decide anything, and lets no permit out.

use std::sync::Arc;
use std::time::Instant;

use portcullis_model::{NameSet, Principal, Scope, ToolSpec, TraceContext};
use serde::Serialize;

use crate::engine::Policies;
use crate::limits::Limits;
use crate::permit::{Budget, Permit, Purpose};
use crate::products::Product;

/// What one call sees and spends at most: its credential, every rule that applies and the product together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Confinement {
    /// Tenant, sources, services, namespaces and look-back.
    #[serde(flatten)]
    pub scope: Scope,
    /// Projects that may be named.
    pub projects: NameSet,
    /// Rows or records that may be read from one source.
    pub rows: u64,
    /// Bytes of the released answer.
    pub answer_bytes: u64,
    /// Bytes of one answer of a backend.
    pub backend_bytes: u64,
    /// Whether a person must approve it first.
    pub approval: bool,
    /// The rule that lets its answer go out without redaction, where it asks for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unredacted_by: Option<Arc<str>>,
    /// The product it comes through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<Arc<str>>,
}

impl From<&Permit> for Confinement {
    fn from(permit: &Permit) -> Self {
        let budget = permit.budget();
        Self {
            scope: permit.scope().clone(),
            projects: permit.projects().clone(),
            rows: budget.rows,
            answer_bytes: budget.answer_bytes,
            backend_bytes: budget.backend_bytes,
            approval: permit.needs_approval(),
            unredacted_by: permit.unredacted_rule().cloned(),
            product: permit.product().cloned(),
        }
    }
}

impl Policies {
    /// What calls of `tool` would be confined to while their arguments are not known: each of these is what some call would
    /// be. None where no call would be allowed. Limits of rules that ask for arguments are in it as far as they are known.
    pub fn confinements(
        &self,
        product: Option<&Product>,
        principal: &Principal,
        tool: &ToolSpec,
        budget: Budget,
    ) -> Vec<Confinement> {
        let verdict = self.judge_listing(product, principal, tool);
        if !verdict.decision.allowed {
            return Vec::new();
        }
        let confined = |limits: &Limits| {
            let purpose = Purpose::Call { tool: tool.name.clone(), risk: tool.risk };
            let rule = verdict.decision.rule.clone();
            let permit = Permit::issue(purpose, principal.clone(), rule, limits, Instant::now(), budget, TraceContext::default());
            Confinement::from(&product.map_or_else(|| permit.clone(), |product| product.narrow(&permit)))
        };
        let mut all: Vec<Confinement> = Vec::new();
        let known = std::slice::from_ref(&*verdict.limits);
        for limits in verdict.ways.as_ref().map_or(known, |ways| ways.as_slice()) {
            let one = confined(limits);
            if !all.contains(&one) {
                all.push(one);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Map, json};

    use super::*;
    use crate::testing::{principal, tool_with};
    use crate::{Asked, PolicyText, ProductSettings, Products, Vocabulary};

    #[test]
    fn what_is_told_of_a_call_is_what_its_permit_says() {
        let logs = Arc::new(tool_with("query_logs", &json!({"service": {"type": "string"}}), &[]));
        let vocabulary = Vocabulary::of_tools([&logs]);
        let rules = r#"@id("an-hour") @only_limits("true") @max_look_back("1h") @max_rows("9") @projects("shop")
            permit(principal, action == Portcullis::Action::"call", resource == Portcullis::Tool::"query_logs");"#;
        let text = PolicyText { origin: "own.cedar".into(), text: rules.into() };
        let policies = Policies::load(&[text], &vocabulary, 1).unwrap();
        let settings: ProductSettings =
            serde_json::from_value(json!({"name": "oncall", "tools": ["*"], "services": ["cart"], "limits": {"max_rows": 5}}))
                .unwrap();
        let products = Products::load(&[settings], &vocabulary).unwrap();
        let reader = principal("reader");
        let product = products.open("oncall", &reader).unwrap();
        for product in [None, Some(&*product)] {
            let asked = Asked { principal: &reader, tool: &logs, arguments: &Map::new(), product, reach: None };
            let permit = policies.authorize_call(asked, Instant::now(), Budget::default(), TraceContext::default()).unwrap();
            let told = policies.confinements(product, &reader, &logs, Budget::default());
            assert_eq!(told, [Confinement::from(&permit)]);
            assert_eq!(told[0].scope.look_back, Some(Duration::from_hours(1)));
            assert_eq!(
                (told[0].rows, told[0].scope.services.contains("payment")),
                if product.is_some() { (5, false) } else { (9, true) }
            );
            let written = serde_json::to_value(&told[0]).unwrap();
            assert_eq!((&written["tenant"], &written["projects"]), (&json!("default"), &json!({"only": ["shop"]})));
        }
        assert!(policies.confinements(None, &principal("nobody"), &logs, Budget::default()).is_empty());
    }
}
