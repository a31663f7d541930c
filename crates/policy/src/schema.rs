//! The Cedar schema policies are checked against. It is generated from what exists, so a rule about a
//! tool, role or attribute that does not exist is an error at load.

/// The schema in Cedar's own schema language.
pub(crate) const SCHEMA: &str = r#"
namespace Portcullis {
  entity Role;
  entity Principal in [Role] = { "kind": String, "tenant": String };
  entity Tool = { "risk": String, "category": String, "name": String };
  entity Resource = { "risk": String, "category": String, "name": String };
  entity Prompt = { "risk": String, "category": String, "name": String };
  action "call" appliesTo { principal: Principal, resource: Tool };
  action "read" appliesTo { principal: Principal, resource: Resource };
  action "prompt" appliesTo { principal: Principal, resource: Prompt };
}
"#;
