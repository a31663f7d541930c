//! Two JSON documents compared, member by member: what is there and would go, what would come, what would be another.
//!
//! Guards that a difference which is not shown is counted. Must not redact: names stay beside their values, so that whoever
//! does can judge them.

use portcullis_model::cut;
use serde_json::{Map, Value};

use crate::one_line;

/// Longest value that is shown, in characters.
const LONGEST: usize = 300;
/// Longest name in a path that is shown, in characters.
const NAME: usize = 100;

/// One difference.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Where (RFC 6901); the empty path is the whole.
    pub path: Vec<String>,
    /// What is there; absent when nothing is.
    pub before: Option<Value>,
    /// What would be there; absent when nothing would.
    pub after: Option<Value>,
}

/// Every difference of two documents, the first ones in full.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Differences {
    /// The first of them, in the order of the documents.
    pub shown: Vec<Difference>,
    /// How many there are.
    pub total: usize,
}

/// Compares; keeps the first `most` differences and counts all.
pub fn differences(before: Option<&Value>, after: Option<&Value>, most: usize) -> Differences {
    let mut found = Differences::default();
    let mut path = Vec::new();
    compare(before, after, &mut path, most, &mut found);
    found
}

fn compare(before: Option<&Value>, after: Option<&Value>, path: &mut Vec<String>, most: usize, found: &mut Differences) {
    match (before, after) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            for (name, value) in old {
                step(Some(value), new.get(name), name, path, most, found);
            }
            for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                step(None, Some(value), name, path, most, found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for index in 0..old.len().max(new.len()) {
                step(old.get(index), new.get(index), &index.to_string(), path, most, found);
            }
        }
        (before, after) if before == after => {}
        (before, after) => {
            found.total += 1;
            if found.shown.len() < most {
                found.shown.push(Difference { path: path.clone(), before: before.cloned(), after: after.cloned() });
            }
        }
    }
}

fn step(before: Option<&Value>, after: Option<&Value>, name: &str, path: &mut Vec<String>, most: usize, found: &mut Differences) {
    path.push(name.to_owned());
    compare(before, after, path, most, found);
    path.pop();
}

impl Differences {
    /// One line for what goes (`- /path: value`) and one for what comes (`+ /path: value`), and how many are not shown.
    pub fn lines(&self) -> Vec<String> {
        self.lines_within(LONGEST).0
    }

    /// The same with values and names of up to `longest` characters, and whether that is all there is to see.
    pub fn lines_within(&self, longest: usize) -> (Vec<String>, bool) {
        let (mut lines, mut whole) = (Vec::new(), self.shown.len() == self.total);
        for difference in &self.shown {
            whole &= difference.path.iter().all(|name| one_line(name, NAME) == *name);
            let path = pointer(&difference.path);
            for (sign, value) in [('-', &difference.before), ('+', &difference.after)] {
                if let Some(value) = value {
                    let (text, is_all) = short(value, longest);
                    whole &= is_all;
                    lines.push(format!("{sign} {path}: {text}"));
                }
            }
        }
        if self.shown.len() < self.total {
            lines.push(format!("({} of {} differences shown)", self.shown.len(), self.total));
        }
        (lines, whole)
    }

    /// The parts of both documents that differ, under their own names; `None` where nothing of one is left.
    pub fn parts(&self) -> (Option<Value>, Option<Value>) {
        let gather = |of: fn(&Difference) -> &Option<Value>| {
            let mut whole = None;
            for difference in &self.shown {
                if let Some(value) = of(difference) {
                    place(&mut whole, &difference.path, value.clone());
                }
            }
            whole
        };
        (gather(|d| &d.before), gather(|d| &d.after))
    }
}

/// Puts a value at its path; items of lists under their numbers.
fn place(whole: &mut Option<Value>, path: &[String], value: Value) {
    let mut at = whole.get_or_insert_with(|| Value::Object(Map::new()));
    if path.is_empty() {
        *at = value;
        return;
    }
    for name in path {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(members) = at else { return };
        at = members.entry(name.clone()).or_insert(Value::Null);
    }
    *at = value;
}

fn pointer(path: &[String]) -> String {
    if path.is_empty() {
        return "(all of it)".into();
    }
    path.iter().fold(String::new(), |mut pointer, name| {
        pointer.push('/');
        pointer.push_str(&one_line(name, NAME).replace('~', "~0").replace('/', "~1"));
        pointer
    })
}

/// A value, and whether it is all of it.
fn short(value: &Value, longest: usize) -> (String, bool) {
    let text = value.to_string();
    let cut::Beginning { text: start, left } = cut::beginning(&text, longest);
    if left == 0 {
        return (start.into_owned(), true);
    }
    (format!("{start}… ({} characters)", text.chars().count()), false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_goes_what_comes_and_what_changes() {
        let before = json!({"name": "cart", "replicas": 1, "labels": {"a": "1", "b": "2"}, "ports": [80, 81]});
        let after = json!({"name": "cart", "replicas": 3, "labels": {"a": "1", "c": null}, "ports": [80]});
        let found = differences(Some(&before), Some(&after), 10);
        let lines = ["- /replicas: 1", "+ /replicas: 3", "- /labels/b: \"2\"", "+ /labels/c: null", "- /ports/1: 81"];
        assert_eq!(found.lines(), lines);
        let (old, new) = found.parts();
        assert_eq!(old, Some(json!({"replicas": 1, "labels": {"b": "2"}, "ports": {"1": 81}})));
        assert_eq!(new, Some(json!({"replicas": 3, "labels": {"c": null}})));
        let few = differences(Some(&before), Some(&after), 1);
        assert_eq!((few.shown.len(), few.total), (1, 4));
        assert_eq!(few.lines().last().unwrap(), "(1 of 4 differences shown)");
        assert_eq!(differences(Some(&before), None, 5).lines()[0].split(':').next(), Some("- (all of it)"));
        assert_eq!(differences(None, None, 5), Differences::default());
        let long = differences(None, Some(&json!({"a": "x".repeat(5_000)})), 5);
        assert!(long.lines()[0].ends_with("characters)") && long.lines()[0].len() < 400, "{}", long.lines()[0]);
    }

    #[test]
    fn whether_everything_is_shown_is_told() {
        let whole =
            |before: Value, after: Value, most, longest| differences(Some(&before), Some(&after), most).lines_within(longest).1;
        let (old, new) = (json!({"a": 1, "b": "xxxxxxxx"}), json!({"a": 2}));
        assert!(whole(old.clone(), new.clone(), 2, 10));
        assert!(!whole(old.clone(), new.clone(), 1, 10), "one difference is not shown");
        assert!(!whole(old, new, 2, 9), "a value is cut");
        assert!(!whole(json!({}), json!({"n".repeat(NAME + 1): 1}), 9, 9), "a name is cut");
        assert!(!whole(json!({}), json!({"a\nb": 1}), 9, 9), "a name is not shown as it is");
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), (0..4_i32).prop_map(Value::from)];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_is_different_from_itself_and_everything_else_is(a in tree(), b in tree()) {
            prop_assert_eq!(differences(Some(&a), Some(&a), 9).total, 0);
            prop_assert_eq!(differences(Some(&a), Some(&b), 9).total == 0, a == b);
            let turned = differences(Some(&b), Some(&a), 9).total;
            prop_assert_eq!(differences(Some(&a), Some(&b), 9).total, turned);
        }
    }
}
