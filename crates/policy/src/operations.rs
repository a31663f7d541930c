//! What an administrator does to a running installation. The list is fixed here, so that rules can name each operation and a
//! misspelt one is an error at load.
//!
//! Words only: what an operation does is for the faces and the door.

use portcullis_model::RiskClass;

/// One operation of an administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// See the state of every control and source.
    ReadStatus,
    /// See the sources and how they are.
    ReadSources,
    /// See the calls that wait for a yes.
    ReadApprovals,
    /// Say yes or no to one of them.
    DecideApproval,
    /// Search the audit log.
    ReadAudit,
    /// See the API keys, never their secrets.
    ReadKeys,
    /// Take a key back.
    RevokeKey,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 7] = [
        Self::ReadStatus,
        Self::ReadSources,
        Self::ReadApprovals,
        Self::DecideApproval,
        Self::ReadAudit,
        Self::ReadKeys,
        Self::RevokeKey,
    ];

    /// The name in rules: `Portcullis::Operation::"keys.revoke"`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadStatus => "status.read",
            Self::ReadSources => "sources.read",
            Self::ReadApprovals => "approvals.read",
            Self::DecideApproval => "approvals.decide",
            Self::ReadAudit => "audit.read",
            Self::ReadKeys => "keys.read",
            Self::RevokeKey => "keys.revoke",
        }
    }

    /// The method in audit records.
    pub fn method(self) -> &'static str {
        match self {
            Self::ReadStatus => "admin/status.read",
            Self::ReadSources => "admin/sources.read",
            Self::ReadApprovals => "admin/approvals.read",
            Self::DecideApproval => "admin/approvals.decide",
            Self::ReadAudit => "admin/audit.read",
            Self::ReadKeys => "admin/keys.read",
            Self::RevokeKey => "admin/keys.revoke",
        }
    }

    /// What it can do at worst.
    pub fn risk(self) -> RiskClass {
        match self {
            Self::DecideApproval | Self::RevokeKey => RiskClass::Write,
            _ => RiskClass::Read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{principal, tool};
    use crate::{Policies, PolicyText, Vocabulary};
    use std::sync::Arc;

    fn load(text: &str) -> Result<Policies, String> {
        let tools = [Arc::new(tool("query_logs", RiskClass::Read, None))];
        let vocabulary = Vocabulary { roles: ["intern".to_owned()].into(), ..Vocabulary::of_tools(&tools) };
        let text = PolicyText { origin: "own.cedar".into(), text: text.into() };
        Policies::load(&[text], &vocabulary, 1).map_err(|error| error.to_string())
    }

    /// The operations a role may do.
    fn may(policies: &Policies, role: &str) -> Vec<&'static str> {
        let allowed = |operation: &Operation| policies.decide_operation(&principal(role), *operation).allowed;
        Operation::ALL.into_iter().filter(allowed).map(Operation::as_str).collect()
    }

    #[test]
    fn the_method_is_the_name_behind_the_door() {
        for operation in Operation::ALL {
            assert_eq!(operation.method(), format!("admin/{}", operation.as_str()));
        }
    }

    #[test]
    fn only_the_role_admin_administers_by_itself() {
        let policies = load("").unwrap();
        assert_eq!(may(&policies, "admin").len(), Operation::ALL.len());
        for role in ["anonymous", "reader", "operator", "plugin-admin", "intern"] {
            assert!(may(&policies, role).is_empty(), "{role}");
        }
    }

    #[test]
    fn who_may_everything_else_does_not_administer() {
        for broad in [
            "permit(principal, action, resource);",
            r#"permit(principal in Portcullis::Role::"intern", action, resource);"#,
            r#"permit(principal, action, resource) when { resource.risk == "read" };"#,
            r#"permit(principal, action in [Portcullis::Action::"call", Portcullis::Action::"read"], resource);"#,
        ] {
            let policies = load(&format!("@id(\"broad\") {broad}")).unwrap();
            let tool = tool("query_logs", RiskClass::Read, None);
            assert!(policies.decide_call(&principal("intern"), &tool).allowed, "{broad}");
            for role in ["intern", "reader"] {
                let decision = policies.decide_operation(&principal(role), Operation::ReadKeys);
                assert_eq!((decision.allowed, &*decision.rule), (false, "no-rule-allows"), "{broad}");
                assert!(may(&policies, role).is_empty(), "{broad}");
            }
        }
        let error = load(r#"@id("x") permit(principal, action, resource is Portcullis::Operation);"#).err().unwrap();
        assert!(error.contains(r#"operations done by "administer""#), "{error}");
    }

    #[test]
    fn a_rule_that_names_the_action_grants_one_operation_or_all() {
        let one = r#"@id("one") permit(principal in Portcullis::Role::"intern", action == Portcullis::Action::"administer",
            resource == Portcullis::Operation::"audit.read");"#;
        assert_eq!(may(&load(one).unwrap(), "intern"), ["audit.read"]);
        let reading = r#"@id("r") permit(principal in Portcullis::Role::"intern",
            action in [Portcullis::Action::"call", Portcullis::Action::"administer"], resource) when { resource.risk == "read" };"#;
        assert_eq!(
            may(&load(reading).unwrap(), "intern"),
            ["status.read", "sources.read", "approvals.read", "audit.read", "keys.read"]
        );
        let misspelt = one.replace("audit.read", "audit.raed");
        let error = load(&misspelt).err().unwrap();
        assert!(error.contains("did you mean 'audit.read'"), "{error}");
    }

    #[test]
    fn what_is_forbidden_altogether_is_forbidden_here_too() {
        let policies = load(r#"@id("out") forbid(principal in Portcullis::Role::"admin", action, resource);"#).unwrap();
        assert!(may(&policies, "admin").is_empty());
        let one = r#"@id("keep") forbid(principal, action, resource == Portcullis::Operation::"keys.revoke");"#;
        let policies = load(one).unwrap();
        assert!(!may(&policies, "admin").contains(&"keys.revoke") && may(&policies, "admin").contains(&"keys.read"));
    }
}
