//! What an upstream's tool can do at worst. The operator's rules come first; without one, the annotations at their most
//! dangerous reading, and those only when a person saw them. Must not read descriptions.

use portcullis_model::RiskClass;
use serde_json::Value;

use crate::settings::RiskRule;

/// The class of a tool. `reviewed`: whether a person accepted its annotations.
pub(crate) fn class(rules: &[RiskRule], name: &str, definition: &Value, reviewed: bool) -> RiskClass {
    if let Some(rule) = rules.iter().find(|rule| matches(&rule.tools, name)) {
        return rule.class;
    }
    if !reviewed {
        return RiskClass::Destructive;
    }
    let hint = |name: &str| definition.get("annotations").and_then(|a| a.get(name)).and_then(Value::as_bool);
    // What is absent is what the protocol takes it for: not read-only, destructive. What contradicts itself is the worse.
    match (hint("readOnlyHint"), hint("destructiveHint")) {
        (Some(true), None | Some(false)) => RiskClass::Read,
        (None | Some(false), Some(false)) => RiskClass::Write,
        _ => RiskClass::Destructive,
    }
}

/// Whether `name` fits a pattern in which `*` stands for any text.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_most_dangerous_reading_counts() {
        for (annotations, class_of_it) in [
            (json!(null), RiskClass::Destructive),
            (json!({}), RiskClass::Destructive),
            (json!({"readOnlyHint": true}), RiskClass::Read),
            (json!({"readOnlyHint": true, "destructiveHint": false}), RiskClass::Read),
            (json!({"readOnlyHint": true, "destructiveHint": true}), RiskClass::Destructive),
            (json!({"readOnlyHint": false}), RiskClass::Destructive),
            (json!({"destructiveHint": false}), RiskClass::Write),
            (json!({"readOnlyHint": false, "destructiveHint": false}), RiskClass::Write),
            (json!({"readOnlyHint": "yes"}), RiskClass::Destructive),
        ] {
            let definition = json!({"name": "t", "annotations": annotations});
            assert_eq!(class(&[], "t", &definition, true), class_of_it, "{definition}");
            assert_eq!(class(&[], "t", &definition, false), RiskClass::Destructive, "nobody saw it");
        }
    }

    #[test]
    fn the_operators_first_fitting_rule_wins() {
        let rule = |tools: &str, class| RiskRule { tools: tools.into(), class };
        let rules = [rule("get_secret*", RiskClass::Destructive), rule("get_*", RiskClass::Read), rule("*", RiskClass::Write)];
        let harmless = json!({"annotations": {"readOnlyHint": true}});
        assert_eq!(class(&rules, "get_secret_value", &harmless, true), RiskClass::Destructive);
        assert_eq!(class(&rules, "get_pods", &json!({}), false), RiskClass::Read);
        assert_eq!(class(&rules, "apply", &harmless, true), RiskClass::Write);
        assert!(matches("a*b*c", "axxbyyc") && !matches("a*b*c", "axxc") && !matches("ab*b", "ab"));
    }
}
