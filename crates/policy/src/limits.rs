//! Limits that rules attach to what they allow: `@max_look_back("24h")`, `@sources("prod-*")`, `@approval("required")`.
//!
//! Every limit of every rule that applies to a call holds, and the narrowest wins: a rule can add a grant, it can never
//! lift the limit of another. Limits are read and checked when rules are loaded; a misspelt one is an error, because a
//! limit nobody reads is an open door.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use portcullis_model::{NameSet, Scope, parse_duration};
use serde::Serialize;

use crate::permit::Budget;
use crate::vocabulary::{Vocabulary, did_you_mean};

/// Annotations with a meaning here, and those that are only for readers.
const KNOWN: [&str; 14] = [
    "id",
    "max_look_back",
    "max_rows",
    "max_bytes",
    "sources",
    "services",
    "namespaces",
    "projects",
    "unredacted",
    "approval",
    "only_limits",
    "description",
    "reason",
    "owner",
];

/// What a rule, or all rules of a call together, confine it to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Limits {
    /// How far back from now questions may reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look_back: Option<Duration>,
    /// Rows or records that may be read from one source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Bytes of the released answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Sources that may be asked.
    #[serde(skip_serializing_if = "NameSet::is_all")]
    pub sources: NameSet,
    /// Services whose signals may be seen.
    #[serde(skip_serializing_if = "NameSet::is_all")]
    pub services: NameSet,
    /// Kubernetes namespaces whose signals may be seen.
    #[serde(skip_serializing_if = "NameSet::is_all")]
    pub namespaces: NameSet,
    /// Projects that may be named.
    #[serde(skip_serializing_if = "NameSet::is_all")]
    pub projects: NameSet,
    /// Whether redaction may be left out: granted by `true`, taken by `false`, and `false` wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unredacted: Option<bool>,
    /// The rule that grants it, the first by name where several do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unredacted_by: Option<Arc<str>>,
    /// Whether a human must approve the call first.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub approval: bool,
}

impl Limits {
    /// Whether there is nothing to confine and nothing to grant.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Both: the narrower of each.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        // `false` is the smaller one.
        let unredacted = least(self.unredacted, other.unredacted);
        Self {
            look_back: least(self.look_back, other.look_back),
            rows: least(self.rows, other.rows),
            bytes: least(self.bytes, other.bytes),
            sources: self.sources.intersect(&other.sources),
            services: self.services.intersect(&other.services),
            namespaces: self.namespaces.intersect(&other.namespaces),
            projects: self.projects.intersect(&other.projects),
            unredacted,
            unredacted_by: least(self.unredacted_by.clone(), other.unredacted_by.clone()).filter(|_| unredacted == Some(true)),
            approval: self.approval || other.approval,
        }
    }

    /// The same as those of the rule `id`.
    pub(crate) fn of_rule(&self, id: &Arc<str>) -> Self {
        Self { unredacted_by: (self.unredacted == Some(true)).then(|| id.clone()), ..self.clone() }
    }

    /// `scope` with these limits.
    pub(crate) fn confine(&self, scope: &Scope) -> Scope {
        Scope {
            sources: scope.sources.intersect(&self.sources),
            services: scope.services.intersect(&self.services),
            namespaces: scope.namespaces.intersect(&self.namespaces),
            look_back: least(scope.look_back, self.look_back),
            ..scope.clone()
        }
    }

    /// `budget` with these limits.
    pub(crate) fn spend(&self, budget: Budget) -> Budget {
        Budget {
            rows: self.rows.map_or(budget.rows, |r| r.min(budget.rows)),
            answer_bytes: self.bytes.map_or(budget.answer_bytes, |b| b.min(budget.answer_bytes)),
            ..budget
        }
    }

    /// Reads the annotations of one rule. The second value says whether the rule only limits and grants nothing.
    pub(crate) fn read<'a>(
        annotations: impl Iterator<Item = (&'a str, &'a str)>,
        is_permit: bool,
        vocabulary: &Vocabulary,
    ) -> Result<(Self, bool), String> {
        let mut limits = Self::default();
        let mut only_limits = false;
        for (name, value) in annotations {
            let at = |reason: String| format!("@{name}(\"{value}\"): {reason}");
            if !KNOWN.contains(&name) {
                let suggestion = did_you_mean(name, KNOWN);
                return Err(format!("there is no annotation @{name}{suggestion}"));
            }
            if matches!(name, "id" | "description" | "reason" | "owner") {
                continue;
            }
            if !is_permit {
                return Err(at("a forbid refuses, so there is nothing left to limit; put it on a permit".into()));
            }
            match name {
                "max_look_back" => limits.look_back = Some(parse_duration(value).map_err(|e| at(e.to_string()))?),
                "max_rows" => limits.rows = Some(rows(value).map_err(at)?),
                "max_bytes" => limits.bytes = Some(bytes(value).map_err(at)?),
                "sources" => limits.sources = names(value, "source", vocabulary.sources.as_ref()).map_err(at)?,
                "services" => limits.services = names(value, "service", vocabulary.services.as_ref()).map_err(at)?,
                "namespaces" => limits.namespaces = names(value, "namespace", None).map_err(at)?,
                "projects" => limits.projects = names(value, "project", None).map_err(at)?,
                "unredacted" => limits.unredacted = Some(flag(value).map_err(at)?),
                "only_limits" => only_limits = flag(value).map_err(at)?,
                "approval" if value == "required" => limits.approval = true,
                _ => return Err(at("the only value is \"required\"".into())),
            }
        }
        if only_limits && limits.is_none() {
            return Err("@only_limits without a limit does nothing".into());
        }
        if only_limits && limits.unredacted == Some(true) {
            return Err("@unredacted(\"true\") is a grant, and @only_limits grants nothing".into());
        }
        Ok((limits, only_limits))
    }
}

fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn flag(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("write \"true\" or \"false\"".into()),
    }
}

fn rows(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "write a number from 1, such as \"10000\"".into())
}

/// `512`, `64KiB`, `1MB`.
fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "write a number and a unit of B, KB, KiB, MB, MiB, GB or GiB, such as \"64KiB\"".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KB" | "kB" => 1_000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).filter(|n| *n > 0).ok_or_else(wrong)
}

/// A list of names. With a known list, `*` stands for anything and each entry must match something.
fn names(text: &str, kind: &str, known: Option<&BTreeSet<String>>) -> Result<NameSet, String> {
    let mut chosen = BTreeSet::new();
    for entry in text.split(',').map(str::trim) {
        if entry.is_empty() {
            return Err(format!("an empty name; write {kind}s with commas between them"));
        }
        match known {
            Some(known) => {
                let matching: Vec<&String> = known.iter().filter(|k| matches_pattern(entry, k)).collect();
                if matching.is_empty() {
                    return Err(format!("there is no {kind} '{entry}'{}", did_you_mean(entry, known.iter().map(String::as_str))));
                }
                chosen.extend(matching.into_iter().cloned());
            }
            None if entry.contains('*') => {
                return Err(format!("{kind}s come and go, so '*' cannot be resolved; write each name"));
            }
            None => {
                chosen.insert(entry.to_owned());
            }
        }
    }
    Ok(NameSet::Only(chosen))
}

/// Whether `name` fits `pattern`, in which `*` stands for any text.
pub(crate) fn matches_pattern(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Whether some text fits both patterns.
pub(crate) fn patterns_meet(one: &str, other: &str) -> bool {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    // `row[j]`: whether what is left of `one` and `other[j..]` can be the same text; from the end to the beginning.
    let mut row = vec![false; other.len() + 1];
    for i in (0..=one.len()).rev() {
        let below = row.clone();
        for j in (0..=other.len()).rev() {
            row[j] = match (one.get(i), other.get(j)) {
                (None, None) => true,
                (Some('*'), None) => below[j],
                (None, Some('*')) => row[j + 1],
                (Some('*'), Some(_)) => below[j] || row[j + 1],
                (Some(_), Some('*')) => row[j + 1] || below[j],
                (Some(a), Some(b)) => a == b && below[j + 1],
                _ => false,
            };
        }
    }
    row[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(annotations: &[(&str, &str)]) -> Result<(Limits, bool), String> {
        let vocabulary =
            Vocabulary { sources: Some(["prod-eu", "prod-us", "lab"].map(str::to_owned).into()), ..Vocabulary::default() };
        Limits::read(annotations.iter().copied(), true, &vocabulary)
    }

    #[test]
    fn limits_people_write() {
        let (limits, only) = read(&[
            ("id", "x"),
            ("max_look_back", "24h"),
            ("max_rows", "10000"),
            ("max_bytes", "64KiB"),
            ("sources", "prod-*"),
            ("services", "cart, payment"),
            ("approval", "required"),
        ])
        .unwrap();
        assert!(!only);
        assert_eq!(limits.look_back, Some(Duration::from_hours(24)));
        assert_eq!((limits.rows, limits.bytes), (Some(10_000), Some(65_536)));
        assert_eq!(limits.sources, NameSet::only(["prod-eu", "prod-us"]));
        assert_eq!(limits.services, NameSet::only(["cart", "payment"]));
        assert!(limits.approval);
    }

    #[test]
    fn mistakes_are_errors_that_say_what_is_right() {
        for (name, value, expected) in [
            ("max_look_bak", "1h", "did you mean 'max_look_back'"),
            ("max_look_back", "1 day", "15m"),
            ("max_rows", "0", "10000"),
            ("max_rows", "many", "10000"),
            ("max_bytes", "64KB!", "64KiB"),
            ("max_bytes", "99999999999GiB", "64KiB"),
            ("sources", "prod-ue", "did you mean 'prod-eu'"),
            ("sources", "stage-*", "there is no source"),
            ("services", "cart*", "come and go"),
            ("services", "cart,,x", "empty name"),
            ("unredacted", "yes", "true"),
            ("approval", "maybe", "required"),
        ] {
            let error = read(&[(name, value)]).expect_err(name);
            assert!(error.contains(expected), "{error}");
        }
        assert!(Limits::read([("max_rows", "5")].into_iter(), false, &Vocabulary::default()).is_err());
        assert!(read(&[("only_limits", "true")]).is_err());
    }

    #[test]
    fn the_narrowest_wins() {
        let a = read(&[("max_rows", "10"), ("unredacted", "true"), ("services", "a,b")]).unwrap().0;
        let b = read(&[("max_rows", "20"), ("unredacted", "false"), ("services", "b,c"), ("approval", "required")]).unwrap().0;
        let both = a.and(&b);
        assert_eq!(both, b.and(&a));
        assert_eq!((both.rows, both.unredacted, both.approval), (Some(10), Some(false), true));
        assert_eq!(both.services, NameSet::only(["b"]));
        assert_eq!(a.and(&Limits::default()), a);
    }

    #[test]
    fn a_grant_keeps_the_name_of_its_rule_unless_it_is_taken() {
        let rule = |text: &str, id: &str| read(&[("unredacted", text)]).unwrap().0.of_rule(&Arc::from(id));
        let (first, second, taken) = (rule("true", "a"), rule("true", "b"), rule("false", "c"));
        let named = |limits: &Limits| limits.unredacted_by.as_deref().map(str::to_owned);
        assert_eq!(named(&second.and(&Limits::default())).as_deref(), Some("b"));
        assert_eq!(named(&second.and(&first)).as_deref(), Some("a"));
        assert_eq!(named(&second.and(&taken)), None);
        assert_eq!(named(&taken.and(&first)), None);
    }

    #[test]
    fn patterns_that_meet() {
        for (one, other, meet) in [
            ("", "", true),
            ("*", "", true),
            ("a", "b", false),
            ("note://*", "note://by-id/*", true),
            ("note://by-id/7", "note://by-id/*", true),
            ("note://by-id/*/x", "note://by-id/*", true),
            ("*cart", "note://*", true),
            ("other://*", "note://*", false),
            ("a*b", "*c", false),
            ("a*c", "*b*", true),
        ] {
            assert_eq!((patterns_meet(one, other), patterns_meet(other, one)), (meet, meet), "{one} {other}");
        }
    }

    #[test]
    fn patterns() {
        for (pattern, name, fits) in [
            ("prod-*", "prod-eu", true),
            ("prod-*", "prod-", true),
            ("*-eu", "prod-eu", true),
            ("p*d*u", "prod-eu", true),
            ("*", "", true),
            ("ab*ab", "ab", false),
            ("prod", "prod-eu", false),
            ("p*x", "prod", false),
        ] {
            assert_eq!(matches_pattern(pattern, name), fits, "{pattern} {name}");
        }
    }
}
