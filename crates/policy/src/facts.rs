//! What a condition comes to before any call: with what is written in it, and with what is known of the thing it is about.
//!
//! Guards that a rule whose conditions are false for everything is found when it is loaded. Must not guess, and must not keep
//! a rule from being asked: what can change under a rule only says whether the rule makes sense today.

use std::collections::BTreeMap;

use cedar_policy::pst::{BinaryOp, Expr, Literal, UnaryOp};

use crate::check::parts;
use crate::expression::{Relation, Test, Uses, dotted, pattern_matches, test};
use crate::rule::{Rule, Target};
use crate::vocabulary::Vocabulary;

/// A value that is known before the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Flag(bool),
    Number(i64),
    Text(String),
    /// A thing of this type; its name where that is known.
    Thing(String, Option<String>),
}

impl Value {
    fn of(literal: &Literal) -> Option<Self> {
        Some(match literal {
            Literal::Bool(flag) => Self::Flag(*flag),
            Literal::Long(number) => Self::Number(*number),
            Literal::String(text) => Self::Text(text.to_string()),
            Literal::EntityUID(uid) => Self::Thing(uid.ty.0.id.as_str().to_owned(), Some(uid.eid.to_string())),
            _ => return None,
        })
    }

    fn same(&self, other: &Self) -> Option<bool> {
        match (self, other) {
            (Self::Flag(a), Self::Flag(b)) => Some(a == b),
            (Self::Number(a), Self::Number(b)) => Some(a == b),
            (Self::Thing(a, _), Self::Thing(b, _)) if a != b => Some(false),
            (Self::Text(a), Self::Text(b)) | (Self::Thing(_, Some(a)), Self::Thing(_, Some(b))) => Some(a == b),
            // Values of different types are the type checker's to refuse.
            _ => None,
        }
    }
}

/// What is known of a target, by path.
#[derive(Debug)]
pub(crate) struct Known(pub(crate) BTreeMap<String, Value>);

impl Known {
    /// What the target is.
    fn identity(target: &Target, vocabulary: &Vocabulary) -> Self {
        let text = |word: &str| Value::Text(word.to_owned());
        let name = match target {
            Target::Tool(name) => Some(name.clone()),
            Target::Read | Target::Prompt | Target::Operation => None,
        };
        let mut known = BTreeMap::new();
        // A tool that may come has a name that is not here yet.
        if let Some(name) = name.as_deref().filter(|_| vocabulary.expected.is_empty()) {
            known.insert("resource.name".to_owned(), text(name));
        }
        known.insert("resource".to_owned(), Value::Thing(target.kind().to_owned(), name));
        if matches!(target, Target::Read | Target::Prompt) {
            known.insert("resource.risk".to_owned(), text("read"));
            known.insert("resource.category".to_owned(), text(""));
        }
        Self(known)
    }

    /// The same with what the tool does, where nobody outside can change that.
    fn with_nature(mut self, target: &Target, vocabulary: &Vocabulary) -> Self {
        let Target::Tool(name) = target else { return self };
        if let Some(spec) = vocabulary.spec(name).filter(|_| !vocabulary.may_change(name)) {
            let category = spec.category.as_ref().map_or("", |category| &category.0);
            self.0.insert("resource.risk".to_owned(), Value::Text(spec.risk.as_str().to_owned()));
            self.0.insert("resource.category".to_owned(), Value::Text(category.to_owned()));
        }
        self
    }

    /// Whether the condition is true or false whatever the call; nothing when that depends on the call. What cannot be
    /// evaluated never makes a rule apply, so it may stand for false.
    pub(crate) fn certain(&self, expression: &Expr) -> Option<bool> {
        match self.value(expression)? {
            Value::Flag(flag) => Some(flag),
            _ => None,
        }
    }

    fn number(&self, expression: &Expr) -> Option<i64> {
        match self.value(expression)? {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    fn value(&self, expression: &Expr) -> Option<Value> {
        match expression {
            Expr::Literal(literal) => Value::of(literal),
            Expr::Var(_) | Expr::GetAttr { .. } => self.0.get(&dotted(expression)?).cloned(),
            Expr::UnaryOp { op: UnaryOp::Not, expr } => self.certain(expr).map(|flag| Value::Flag(!flag)),
            Expr::UnaryOp { op: UnaryOp::Neg, expr } => self.number(expr)?.checked_neg().map(Value::Number),
            Expr::BinaryOp { op: op @ (BinaryOp::And | BinaryOp::Or), left, right } => {
                let decides = *op == BinaryOp::Or;
                match (self.certain(left), self.certain(right)) {
                    (Some(flag), _) | (_, Some(flag)) if flag == decides => Some(Value::Flag(decides)),
                    (Some(_), Some(_)) => Some(Value::Flag(!decides)),
                    _ => None,
                }
            }
            Expr::BinaryOp { op, left, right } => self.compared(*op, left, right),
            Expr::IfThenElse { cond, then_expr, else_expr } => {
                let taken = if self.certain(cond)? { then_expr } else { else_expr };
                self.value(taken)
            }
            Expr::Like { expr, pattern } => match self.value(expr)? {
                Value::Text(text) => Some(Value::Flag(pattern_matches(pattern, &text))),
                _ => None,
            },
            Expr::Is { expr, entity_type, in_expr: None } => match self.value(expr)? {
                Value::Thing(kind, _) => Some(Value::Flag(kind == entity_type.0.id.as_str())),
                _ => None,
            },
            _ => None,
        }
    }

    fn compared(&self, op: BinaryOp, left: &Expr, right: &Expr) -> Option<Value> {
        let numbers = || Some((self.number(left)?, self.number(right)?));
        match op {
            BinaryOp::Eq => self.value(left)?.same(&self.value(right)?).map(Value::Flag),
            BinaryOp::NotEq => self.value(left)?.same(&self.value(right)?).map(|same| Value::Flag(!same)),
            BinaryOp::Less => numbers().map(|(a, b)| Value::Flag(a < b)),
            BinaryOp::LessEq => numbers().map(|(a, b)| Value::Flag(a <= b)),
            BinaryOp::Greater => numbers().map(|(a, b)| Value::Flag(a > b)),
            BinaryOp::GreaterEq => numbers().map(|(a, b)| Value::Flag(a >= b)),
            BinaryOp::Add => numbers().and_then(|(a, b)| a.checked_add(b)).map(Value::Number),
            BinaryOp::Sub => numbers().and_then(|(a, b)| a.checked_sub(b)).map(Value::Number),
            BinaryOp::Mul => numbers().and_then(|(a, b)| a.checked_mul(b)).map(Value::Number),
            // A tool is in itself and in products; other things are in themselves only.
            BinaryOp::In => match (self.value(left)?, self.value(right)?) {
                (Value::Thing(..), Value::Thing(kind, _)) if kind == "Product" || kind == "Role" => None,
                (what, place) => what.same(&place).map(Value::Flag),
            },
            BinaryOp::Contains => {
                let Expr::Set(items) = left else { return None };
                let wanted = self.value(right)?;
                let mut all = true;
                for item in items {
                    match self.value(item).and_then(|item| item.same(&wanted)) {
                        Some(true) => return Some(Value::Flag(true)),
                        Some(false) => {}
                        None => all = false,
                    }
                }
                all.then_some(Value::Flag(false))
            }
            _ => None,
        }
    }
}

/// Why the conditions of a rule are false for a target whatever the call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Never {
    /// They name something else: no mistake by itself.
    pub(crate) elsewhere: bool,
    pub(crate) reason: String,
}

/// Whether the conditions can hold for the target at all, as it is known today.
pub(crate) fn never(rule: &Rule, target: &Target, vocabulary: &Vocabulary) -> Option<Never> {
    let parts = parts(rule.template.clauses());
    let known = Known::identity(target, vocabulary);
    for (expression, positive) in &parts {
        if known.certain(expression) == Some(!positive) {
            let elsewhere = Uses::of(expression).identity;
            return Some(Never { elsewhere, reason: format!("'{expression}' is {} whatever the call", !positive) });
        }
    }
    // A rule about whatever writes makes sense where nothing writes yet; one about a tool by its name says which.
    if rule.pinned().is_none() && !parts.iter().any(|(expression, positive)| *positive && names(expression)) {
        return None;
    }
    let known = known.with_nature(target, vocabulary);
    let (expression, positive) = parts.iter().find(|(expression, positive)| known.certain(expression) == Some(!positive))?;
    let word = |path: &str| match known.0.get(path) {
        Some(Value::Text(word)) if !word.is_empty() => format!("'{word}'"),
        _ => "none".to_owned(),
    };
    let (risk, category) = (word("resource.risk"), word("resource.category"));
    let reason = format!(
        "for {target}: '{expression}' is {} whatever the call: its risk is {risk} and its category is {category}; ask for these, or \
         for nothing",
        !positive
    );
    Some(Never { elsewhere: false, reason })
}

/// Whether a condition says by name what the rule is about.
fn names(expression: &Expr) -> bool {
    let Some(Test::Compared(path, Relation::Equal, _) | Test::OneOf(path, _)) = test(expression) else { return false };
    path == "resource" || path == "resource.name"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use portcullis_model::{RiskClass, ToolSpec, WriteCategory};
    use serde_json::json;

    use crate::testing::{principal, tool, tool_with};
    use crate::{Policies, PolicyText, Vocabulary};

    fn vocabulary() -> Vocabulary {
        let logs = tool_with("query_logs", &json!({"limit": {"type": "integer", "minimum": 1, "maximum": 500}}), &["limit"]);
        let tools: [ToolSpec; 3] =
            [logs, tool("sql", RiskClass::Read, None), tool("restart", RiskClass::Write, Some("workloads"))];
        let tools = tools.map(Arc::new);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        Vocabulary {
            enabled_writes: [WriteCategory("workloads".into())].into(),
            prompts: Some(names(&["triage"])),
            addresses: Some(names(&["portcullis://guide", "portcullis://service/{name}"])),
            ..Vocabulary::of_tools(&tools)
        }
    }

    fn loaded(scope: &str, condition: &str, vocabulary: &Vocabulary) -> Result<Policies, String> {
        let text = format!("@id(\"x\") {scope} when {{ {condition} }};");
        Policies::load(&[PolicyText { origin: "own.cedar".into(), text }], vocabulary, 1).map_err(|error| error.to_string())
    }

    const ANY: &str = "forbid(principal, action, resource)";
    const CALLS: &str = r#"forbid(principal, action == Portcullis::Action::"call", resource)"#;
    const LOGS: &str = r#"forbid(principal, action == Portcullis::Action::"call", resource == Portcullis::Tool::"query_logs")"#;
    const RESTART: &str = r#"forbid(principal, action == Portcullis::Action::"call", resource == Portcullis::Tool::"restart")"#;

    #[test]
    fn conditions_that_nothing_fits_are_errors_that_say_why() {
        for (scope, condition, says) in [
            (ANY, r#""a" == "b" || 1 > 2"#, "whatever the call"),
            (ANY, "!(2 * 3 - 1 == 5)", "whatever the call"),
            (LOGS, r#"if 1 == 1 then "a" like "b*" else true"#, "whatever the call"),
            (LOGS, r#"resource.risk == "write""#, "its risk is 'read'"),
            (LOGS, r#"resource.risk == "write" || resource.category == "workloads""#, "its category is none"),
            (RESTART, r#"resource.category == """#, "its category is 'workloads'"),
            (CALLS, r#"resource == Portcullis::Tool::"sql" && resource.risk == "write""#, "tool 'sql'"),
            (CALLS, r#"resource.name == "sql" && !(resource.risk == "read")"#, "tool 'sql'"),
            (LOGS, r#"resource == Portcullis::Tool::"sql""#, "name one thing"),
            (ANY, r#"resource == Portcullis::Tool::"sql" && resource == Portcullis::Tool::"query_logs""#, "name one thing"),
            (
                r#"forbid(principal, action == Portcullis::Action::"read", resource)"#,
                r#"resource == Portcullis::Resource::"a:b" && resource == Portcullis::Resource::"a:c""#,
                "two different things",
            ),
            (r#"forbid(principal, action == Portcullis::Action::"read", resource)"#, r#"resource.risk == "write""#, "whatever"),
            (LOGS, "context.hour == 3 && context.hour + 1 == 3", "wherever the other conditions hold"),
            (LOGS, "context.arguments.limit == 7 && context.arguments.limit * 2 > 20", "wherever the other conditions hold"),
            (ANY, r#"principal in Portcullis::Role::"anonymous" && principal.kind == "api-key""#, "anonymous or local"),
            (
                r#"forbid(principal in Portcullis::Role::"anonymous", action, resource)"#,
                r#"principal.kind == "token""#,
                "anonymous or local",
            ),
            (
                r#"forbid(principal == Portcullis::Principal::"user:ana", action, resource)"#,
                r#"principal.kind == "api-key""#,
                "has the kind password",
            ),
        ] {
            let error = loaded(scope, condition, &vocabulary()).map(drop).expect_err(condition);
            assert!(error.contains("never match") && error.contains(says), "{condition}: {error}");
        }
    }

    #[test]
    fn conditions_that_something_fits_are_taken() {
        for (scope, condition) in [
            (ANY, r#""a" == "a" && 1 < 2"#),
            // Nothing destroys here yet, and the rule is about whatever will.
            (CALLS, r#"resource.risk == "destructive""#),
            (LOGS, r#"resource.risk != "write""#),
            (CALLS, r#"[Portcullis::Tool::"sql", Portcullis::Tool::"restart"].contains(resource) && resource.risk == "write""#),
            (CALLS, r#"resource.name like "query_*""#),
            (LOGS, "context.hour == 3 && context.hour + 1 == 4"),
            (LOGS, "context.arguments.limit == 7 && context.arguments.limit * 2 == 14"),
            (ANY, r#"principal in Portcullis::Role::"anonymous" && principal.kind == "anonymous""#),
            (
                r#"forbid(principal == Portcullis::Principal::"key:abcdefghij", action, resource)"#,
                r#"principal.kind == "api-key""#,
            ),
        ] {
            loaded(scope, condition, &vocabulary()).unwrap_or_else(|error| panic!("{condition}: {error}"));
        }
    }

    #[test]
    fn what_a_tool_of_another_server_does_today_is_no_mistake_and_decides_nothing() {
        let arrives = Vocabulary { expected: ["query_*".to_owned(), "up_*".to_owned()].into(), ..vocabulary() };
        let writing = r#"resource.risk == "write""#;
        let policies = loaded(LOGS, writing, &arrives).unwrap();
        loaded(CALLS, r#"resource == Portcullis::Tool::"up_new" && resource.risk == "write""#, &arrives).unwrap();
        assert!(loaded(CALLS, r#"resource == Portcullis::Tool::"sql" && resource.risk == "write""#, &arrives).is_err());
        // The rule stays for the day on which it does write.
        let spec = |risk| tool("query_logs", risk, Some("workloads"));
        let arguments = |limit: u64| json!({ "limit": limit }).as_object().cloned().unwrap_or_default();
        let decided = |risk| policies.decide_arguments(&principal("admin"), &spec(risk), &arguments(5));
        assert!(decided(RiskClass::Read).allowed);
        assert_eq!((decided(RiskClass::Write).allowed, &*decided(RiskClass::Write).rule), (false, "x"));
    }

    #[test]
    fn prompts_and_own_resources_that_are_not_there_are_errors() {
        let rule = |action: &str, thing: &str| {
            let text = format!(
                "@id(\"x\") forbid(principal, action == Portcullis::Action::\"{action}\", resource == Portcullis::{thing});"
            );
            Policies::load(&[PolicyText { origin: "own.cedar".into(), text }], &vocabulary(), 1).map_err(|e| e.to_string())
        };
        for (action, thing, says) in [
            ("prompt", r#"Prompt::"triag""#, "did you mean 'triage'"),
            ("prompt", r#"Prompt::"nosuch""#, "there is no prompt 'nosuch'"),
            ("read", r#"Resource::"portcullis://nosuch""#, "there is no resource 'portcullis://nosuch'"),
        ] {
            let error = rule(action, thing).map(drop).expect_err(thing);
            assert!(error.contains("never match") && error.contains(says), "{thing}: {error}");
        }
        for (action, thing) in [
            ("prompt", r#"Prompt::"triage""#),
            ("read", r#"Resource::"portcullis://guide""#),
            ("read", r#"Resource::"portcullis://service/{name}""#),
            ("read", r#"Resource::"portcullis://service/cart""#),
            // Somebody else's may come and go.
            ("read", r#"Resource::"runbook://nosuch""#),
        ] {
            rule(action, thing).unwrap_or_else(|error| panic!("{thing}: {error}"));
        }
        let anybodys = Vocabulary { prompts: None, addresses: None, ..vocabulary() };
        let text = r#"@id("x") forbid(principal, action, resource == Portcullis::Prompt::"nosuch");"#.to_owned();
        Policies::load(&[PolicyText { origin: "own.cedar".into(), text }], &anybodys, 1).unwrap();
    }
}
