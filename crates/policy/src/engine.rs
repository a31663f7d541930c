//! Loading, checking and asking the policies. The only place where permits are issued.
//!
//! A decision depends on the principal (id, roles, tenant, kind), the action and the thing acted upon.
//! `visible` and `authorize` ask the same question, so what is listed is what may be called.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use cedar_policy::{
    Authorizer, Context, Decision as CedarDecision, Entities, Entity, EntityTypeName, EntityUid, PolicySet, Request,
    RestrictedExpression, Schema, ValidationMode, Validator,
};
use portcullis_model::{CredentialKind, Principal, PrincipalId, Scope, ToolSpec, TraceContext, WriteCategory};

use crate::BUILT_IN_POLICIES;
use crate::permit::{Budget, Charter, CharterGrant, Permit, Purpose};
use crate::schema::SCHEMA;

/// Decisions remembered at most; beyond it the memory starts afresh.
const REMEMBERED: usize = 20_000;

/// One policy file.
#[derive(Debug, Clone)]
pub struct PolicyText {
    /// Where it came from, for error messages.
    pub origin: String,
    /// Cedar source.
    pub text: String,
}

/// What exists: policies may only speak of these.
#[derive(Debug, Clone, Default)]
pub struct Vocabulary {
    /// Every tool of the catalogue.
    pub tools: BTreeSet<String>,
    /// Role names beyond the built-in ones that credentials may carry.
    pub roles: BTreeSet<String>,
    /// Categories of writing tools the operator enabled.
    pub enabled_writes: BTreeSet<WriteCategory>,
}

/// A policy set that cannot be used. All of them are the operator's to fix.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not Cedar.
    #[error("{origin}: not a valid policy: {reason}")]
    Syntax {
        /// File.
        origin: String,
        /// What the parser said.
        reason: String,
    },
    /// Does not fit the schema, or can never apply.
    #[error("policies do not fit what exists: {0}")]
    Invalid(String),
    /// Names something that does not exist.
    #[error("policy '{policy}' names {kind} '{name}', which does not exist{suggestion}")]
    UnknownName {
        /// The policy's id.
        policy: String,
        /// `tool` or `role`.
        kind: &'static str,
        /// The name.
        name: String,
        /// `; did you mean …`, or empty.
        suggestion: String,
    },
    /// Two policies carry one id.
    #[error("policy id '{0}' is used twice; ids appear in audit records and must be unique")]
    DuplicateId(String),
    /// The shipped schema or policies are broken: a defect of this build.
    #[error("the built-in policies are broken: {0}")]
    BuiltIn(String),
}

/// Why a call was not authorized.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refused by rule '{rule}'")]
pub struct Refusal {
    /// The rule that refused; `no-rule-allows` when nothing permitted it, `write-gate` when writing is not enabled.
    pub rule: Arc<str>,
}

/// A decision and the rule that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// The deciding rule's id.
    pub rule: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Act {
    Call,
    Read,
    Prompt,
}

#[derive(PartialEq, Eq, Hash)]
struct Asked {
    principal: PrincipalId,
    roles: Vec<Arc<str>>,
    act: Act,
    name: String,
}

/// A checked policy set.
pub struct Policies {
    set: PolicySet,
    authorizer: Authorizer,
    ids: HashMap<String, Arc<str>>,
    types: Types,
    enabled_writes: BTreeSet<WriteCategory>,
    remembered: RwLock<HashMap<Asked, Decision>>,
    version: u64,
}

struct Types {
    role: EntityTypeName,
    principal: EntityTypeName,
    tool: EntityTypeName,
    resource: EntityTypeName,
    prompt: EntityTypeName,
    call: EntityUid,
    read: EntityUid,
    prompt_action: EntityUid,
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policies").field("rules", &self.ids.len()).field("version", &self.version).finish_non_exhaustive()
    }
}

impl Policies {
    /// Loads the built-in roles and the operator's `texts`, and checks every rule against `vocabulary`.
    ///
    /// `version` must differ between loads: cache keys contain it.
    pub fn load(texts: &[PolicyText], vocabulary: &Vocabulary, version: u64) -> Result<Self, PolicyError> {
        let built_in = |e: &dyn std::fmt::Display| PolicyError::BuiltIn(e.to_string());
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA).map_err(|e| built_in(&e))?;
        let name = |n: &str| n.parse::<EntityTypeName>().map_err(|e| PolicyError::BuiltIn(e.to_string()));
        let action = |n: &str| {
            format!("Portcullis::Action::\"{n}\"").parse::<EntityUid>().map_err(|e| PolicyError::BuiltIn(e.to_string()))
        };
        let types = Types {
            role: name("Portcullis::Role")?,
            principal: name("Portcullis::Principal")?,
            tool: name("Portcullis::Tool")?,
            resource: name("Portcullis::Resource")?,
            prompt: name("Portcullis::Prompt")?,
            call: action("call")?,
            read: action("read")?,
            prompt_action: action("prompt")?,
        };

        let mut set = PolicySet::new();
        let mut ids = HashMap::new();
        let own = PolicyText { origin: "built-in".into(), text: BUILT_IN_POLICIES.into() };
        for text in std::iter::once(&own).chain(texts) {
            Self::add_text(&mut set, &mut ids, text, vocabulary, &types)?;
        }
        let checked = Validator::new(schema).validate(&set, ValidationMode::Strict);
        // A warning that a policy can never apply is an error here: a dead rule is a false promise.
        let complaints: Vec<String> = checked
            .validation_errors()
            .map(ToString::to_string)
            .chain(checked.validation_warnings().map(ToString::to_string))
            .collect();
        if !complaints.is_empty() {
            return Err(PolicyError::Invalid(complaints.join("; ")));
        }
        Ok(Self {
            set,
            authorizer: Authorizer::new(),
            ids,
            types,
            enabled_writes: vocabulary.enabled_writes.clone(),
            remembered: RwLock::new(HashMap::new()),
            version,
        })
    }

    fn add_text(
        set: &mut PolicySet,
        ids: &mut HashMap<String, Arc<str>>,
        text: &PolicyText,
        vocabulary: &Vocabulary,
        types: &Types,
    ) -> Result<(), PolicyError> {
        let syntax = |reason: String| PolicyError::Syntax { origin: text.origin.clone(), reason };
        let parsed: PolicySet = text.text.parse().map_err(|e: cedar_policy::ParseErrors| syntax(e.to_string()))?;
        if parsed.templates().next().is_some() {
            return Err(syntax("templates are not supported; write the policy out".into()));
        }
        for policy in parsed.policies() {
            let id = policy
                .annotation("id")
                .map(str::to_owned)
                .ok_or_else(|| syntax("a policy has no @id(\"…\") annotation; ids appear in audit records".into()))?;
            for literal in policy.entity_literals() {
                Self::check_literal(&id, &literal, vocabulary, types)?;
            }
            if ids.insert(id.clone(), Arc::from(id.as_str())).is_some() {
                return Err(PolicyError::DuplicateId(id));
            }
            set.add(policy.new_id(cedar_policy::PolicyId::new(&id))).map_err(|e| syntax(e.to_string()))?;
        }
        Ok(())
    }

    fn check_literal(id: &str, literal: &EntityUid, vocabulary: &Vocabulary, types: &Types) -> Result<(), PolicyError> {
        let name: &str = literal.id().unescaped();
        let built_in_roles = ["reader", "operator", "admin", "anonymous"];
        let (kind, known): (_, Vec<&str>) = if *literal.type_name() == types.tool {
            ("tool", vocabulary.tools.iter().map(String::as_str).collect())
        } else if *literal.type_name() == types.role {
            ("role", vocabulary.roles.iter().map(String::as_str).chain(built_in_roles).collect())
        } else {
            return Ok(());
        };
        if known.contains(&name) {
            return Ok(());
        }
        let suggestion = known
            .iter()
            .filter(|k| k.contains(name) || name.contains(**k) || shared_prefix(k, name) >= 3)
            .max_by_key(|k| shared_prefix(k, name))
            .map(|k| format!("; did you mean '{k}'?"))
            .unwrap_or_default();
        Err(PolicyError::UnknownName { policy: id.to_owned(), kind, name: name.to_owned(), suggestion })
    }

    /// The load this set came from; belongs into every cache key.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether `principal` may call `tool`, and which rule says so. Listing and calling both ask this.
    pub fn decide_call(&self, principal: &Principal, tool: &ToolSpec) -> Decision {
        if let Some(category) = &tool.category
            && !self.enabled_writes.contains(category)
        {
            return Decision { allowed: false, rule: Arc::from("write-gate") };
        }
        if tool.category.is_none() && tool.risk != portcullis_model::RiskClass::Read {
            return Decision { allowed: false, rule: Arc::from("write-gate") };
        }
        let category = tool.category.as_ref().map_or("", |c| &c.0);
        self.decide(principal, Act::Call, tool.name.as_str(), tool.risk.as_str(), category)
    }

    /// Whether `principal` may read the resource `uri`.
    pub fn decide_read(&self, principal: &Principal, uri: &str) -> Decision {
        self.decide(principal, Act::Read, uri, "read", "")
    }

    /// Whether `principal` may get the prompt `name`.
    pub fn decide_prompt(&self, principal: &Principal, name: &str) -> Decision {
        self.decide(principal, Act::Prompt, name, "read", "")
    }

    /// Authorizes one call of one tool.
    pub fn authorize_call(
        &self,
        principal: &Principal,
        tool: &ToolSpec,
        deadline: Instant,
        budget: Budget,
        trace: TraceContext,
    ) -> Result<Permit, Refusal> {
        let purpose = Purpose::Call { tool: tool.name.clone(), risk: tool.risk };
        Self::issue(self.decide_call(principal, tool), purpose, principal, deadline, budget, trace)
    }

    /// Authorizes reading a resource.
    pub fn authorize_read(
        &self,
        principal: &Principal,
        uri: &str,
        deadline: Instant,
        budget: Budget,
        trace: TraceContext,
    ) -> Result<Permit, Refusal> {
        let purpose = Purpose::Lookup { what: Arc::from(format!("resource:{uri}")) };
        Self::issue(self.decide_read(principal, uri), purpose, principal, deadline, budget, trace)
    }

    /// Authorizes getting a prompt.
    pub fn authorize_prompt(
        &self,
        principal: &Principal,
        name: &str,
        deadline: Instant,
        budget: Budget,
        trace: TraceContext,
    ) -> Result<Permit, Refusal> {
        let purpose = Purpose::Lookup { what: Arc::from(format!("prompt:{name}")) };
        Self::issue(self.decide_prompt(principal, name), purpose, principal, deadline, budget, trace)
    }

    fn issue(
        decision: Decision,
        purpose: Purpose,
        principal: &Principal,
        deadline: Instant,
        budget: Budget,
        trace: TraceContext,
    ) -> Result<Permit, Refusal> {
        if decision.allowed {
            Ok(Permit::issue(purpose, principal.clone(), decision.rule, deadline, budget, trace))
        } else {
            Err(Refusal { rule: decision.rule })
        }
    }

    /// Makes the charter of one piece of standing work from the operator's configuration.
    ///
    /// # Errors
    /// When the name is not a valid purpose.
    pub fn charter(&self, grant: CharterGrant) -> Result<Charter, PolicyError> {
        let id = PrincipalId::new(format!("charter:{}", grant.name)).map_err(|e| PolicyError::Invalid(e.to_string()))?;
        let principal = Principal {
            id,
            credential: CredentialKind::Local,
            tenant: grant.scope.tenant.clone(),
            roles: BTreeSet::new(),
            doors: BTreeSet::new(),
            scope: Scope::clone(&grant.scope),
        };
        Ok(Charter::new(grant, principal))
    }

    fn decide(&self, principal: &Principal, act: Act, name: &str, risk: &str, category: &str) -> Decision {
        let asked = Asked {
            principal: principal.id.clone(),
            roles: principal.roles.iter().cloned().collect(),
            act,
            name: name.to_owned(),
        };
        if let Some(known) = self.remembered.read().unwrap_or_else(PoisonError::into_inner).get(&asked) {
            return known.clone();
        }
        // Fails closed: a request that cannot even be built is refused.
        let decision = self
            .ask(principal, act, name, risk, category)
            .unwrap_or_else(|| Decision { allowed: false, rule: Arc::from("policy-error") });
        let mut remembered = self.remembered.write().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(asked, decision.clone());
        decision
    }

    fn ask(&self, principal: &Principal, act: Act, name: &str, risk: &str, category: &str) -> Option<Decision> {
        let (action, kind) = match act {
            Act::Call => (&self.types.call, &self.types.tool),
            Act::Read => (&self.types.read, &self.types.resource),
            Act::Prompt => (&self.types.prompt_action, &self.types.prompt),
        };
        let uid = |t: &EntityTypeName, id: &str| EntityUid::from_type_name_and_id(t.clone(), cedar_policy::EntityId::new(id));
        let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
        let who = uid(&self.types.principal, principal.id.as_str());
        let what = uid(kind, name);
        let roles = principal.roles.iter().map(|r| uid(&self.types.role, r)).collect();
        let credential = match principal.credential {
            CredentialKind::Local => "local",
            CredentialKind::ApiKey { .. } => "api-key",
            CredentialKind::Password { .. } => "password",
            CredentialKind::Token { .. } => "token",
            CredentialKind::Certificate { .. } => "certificate",
            CredentialKind::Anonymous => "anonymous",
        };
        let who_attributes = [("kind".into(), text(credential)), ("tenant".into(), text(principal.tenant.as_str()))];
        let what_attributes = [("risk".into(), text(risk)), ("category".into(), text(category)), ("name".into(), text(name))];
        let entities = Entities::from_entities(
            [
                Entity::new(who.clone(), who_attributes.into(), roles).ok()?,
                Entity::new(what.clone(), what_attributes.into(), std::collections::HashSet::new()).ok()?,
            ],
            None,
        )
        .ok()?;
        let request = Request::new(who, action.clone(), what, Context::empty(), None).ok()?;
        let response = self.authorizer.is_authorized(&request, &self.set, &entities);
        let allowed = response.decision() == CedarDecision::Allow;
        // A rule that errors could have been the one that forbids: refuse.
        if response.diagnostics().errors().next().is_some() {
            return Some(Decision { allowed: false, rule: Arc::from("policy-error") });
        }
        let rule = response
            .diagnostics()
            .reason()
            .map(ToString::to_string)
            .min()
            .and_then(|id| self.ids.get(&id).cloned())
            .unwrap_or_else(|| Arc::from("no-rule-allows"));
        Some(Decision { allowed, rule })
    }
}

fn shared_prefix(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::{RiskClass, TenantId, ToolName};

    fn principal(role: &str) -> Principal {
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

    fn tool(name: &str, risk: RiskClass, category: Option<&str>) -> ToolSpec {
        ToolSpec {
            name: ToolName::new(name).unwrap(),
            title: "t".into(),
            description: "d".into(),
            risk,
            idempotent: true,
            open_world: false,
            category: category.map(|c| WriteCategory(c.into())),
            input_schema: Arc::new(serde_json::json!({"type": "object"})),
            output_schema: None,
            completions: vec![],
        }
    }

    fn vocabulary() -> Vocabulary {
        Vocabulary { tools: ["query_logs".to_owned(), "restart".to_owned()].into(), ..Vocabulary::default() }
    }

    fn load(text: &str) -> Result<Policies, PolicyError> {
        Policies::load(&[PolicyText { origin: "own.cedar".into(), text: text.into() }], &vocabulary(), 1)
    }

    #[test]
    fn roles_and_the_write_gate() {
        let mut vocabulary = vocabulary();
        let read = tool("query_logs", RiskClass::Read, None);
        let write = tool("restart", RiskClass::Write, Some("workloads"));
        let destroy = tool("restart", RiskClass::Destructive, Some("workloads"));
        let closed = Policies::load(&[], &vocabulary, 1).unwrap();
        for role in ["reader", "operator", "admin"] {
            assert!(closed.decide_call(&principal(role), &read).allowed);
            assert_eq!(&*closed.decide_call(&principal(role), &write).rule, "write-gate");
        }
        assert_eq!(&*closed.decide_call(&principal("nobody"), &read).rule, "no-rule-allows");
        vocabulary.enabled_writes.insert(WriteCategory("workloads".into()));
        let open = Policies::load(&[], &vocabulary, 2).unwrap();
        assert!(!open.decide_call(&principal("reader"), &write).allowed);
        assert!(open.decide_call(&principal("operator"), &write).allowed);
        let fresh = Policies::load(&[], &vocabulary, 3).unwrap();
        assert!(!fresh.decide_call(&principal("operator"), &destroy).allowed);
        assert!(open.decide_call(&principal("admin"), &destroy).allowed);
    }

    #[test]
    fn a_writing_tool_without_a_category_cannot_be_enabled() {
        let policies = Policies::load(&[], &vocabulary(), 1).unwrap();
        assert!(!policies.decide_call(&principal("admin"), &tool("restart", RiskClass::Write, None)).allowed);
    }

    #[test]
    fn forbid_beats_permit_and_is_named() {
        let policies = load(
            r#"@id("no-logs") forbid(principal, action == Portcullis::Action::"call", resource == Portcullis::Tool::"query_logs");"#,
        )
        .unwrap();
        let decision = policies.decide_call(&principal("admin"), &tool("query_logs", RiskClass::Read, None));
        assert_eq!((decision.allowed, &*decision.rule), (false, "no-logs"));
    }

    #[test]
    fn rules_about_what_does_not_exist_are_errors() {
        let unknown = load(r#"@id("x") permit(principal, action, resource == Portcullis::Tool::"query_log");"#).unwrap_err();
        assert!(unknown.to_string().contains("did you mean 'query_logs'"), "{unknown}");
        let role = load(r#"@id("x") permit(principal in Portcullis::Role::"boss", action, resource);"#).unwrap_err();
        assert!(role.to_string().contains("role 'boss'"), "{role}");
        let dead = load(
            r#"@id("x") permit(principal, action == Portcullis::Action::"call", resource) when { resource.colour == "red" };"#,
        );
        assert!(matches!(dead, Err(PolicyError::Invalid(_))), "{dead:?}");
        let never = load(r#"@id("x") permit(principal, action, resource) when { false };"#);
        assert!(matches!(never, Err(PolicyError::Invalid(_))), "{never:?}");
        assert!(matches!(load("permit(principal, action, resource);"), Err(PolicyError::Syntax { .. })));
        assert!(matches!(load("not cedar"), Err(PolicyError::Syntax { .. })));
        let twice = load(r#"@id("reader-may-look") permit(principal, action, resource);"#);
        assert!(matches!(twice, Err(PolicyError::DuplicateId(_))), "{twice:?}");
    }

    #[test]
    fn a_charter_reaches_only_what_it_names() {
        let policies = Policies::load(&[], &vocabulary(), 1).unwrap();
        let charter = policies
            .charter(CharterGrant {
                name: "source-health".into(),
                destinations: ["http://127.0.0.1:9090".to_owned()].into(),
                scope: Scope::tenant_wide(TenantId::default_tenant()),
                time_limit: std::time::Duration::from_secs(5),
                budget: Budget::default(),
            })
            .unwrap();
        let permit = charter.permit();
        assert!(permit.may_reach("http://127.0.0.1:9090"));
        assert!(!permit.may_reach("http://127.0.0.1:9091"));
        assert_eq!(permit.principal_id().as_str(), "charter:source-health");
    }
}
