//! Principals and tools for the unit tests of this crate. Must not be built outside of tests.

use std::collections::BTreeSet;
use std::sync::Arc;

use portcullis_model::{CredentialKind, Principal, PrincipalId, RiskClass, Scope, TenantId, ToolName, ToolSpec, WriteCategory};
use serde_json::{Value, json};

pub(crate) fn principal(role: &str) -> Principal {
    let tenant = TenantId::default_tenant();
    Principal {
        id: PrincipalId::new(format!("key:{role}")).unwrap(),
        credential: CredentialKind::Anonymous,
        tenant: tenant.clone(),
        roles: [Arc::from(role)].into(),
        doors: BTreeSet::new(),
        scope: Scope::tenant_wide(tenant),
    }
}

pub(crate) fn tool(name: &str, risk: RiskClass, category: Option<&str>) -> ToolSpec {
    ToolSpec {
        name: ToolName::new(name).unwrap(),
        title: "t".into(),
        description: "d".into(),
        risk,
        idempotent: true,
        open_world: false,
        category: category.map(|c| WriteCategory(c.into())),
        input_schema: Arc::new(json!({"type": "object"})),
        output_schema: None,
        completions: vec![],
        shown: None,
    }
}

/// A reading tool with these properties.
pub(crate) fn tool_with(name: &str, properties: &Value, required: &[&str]) -> ToolSpec {
    let schema = json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    ToolSpec { input_schema: Arc::new(schema), ..tool(name, RiskClass::Read, None) }
}
