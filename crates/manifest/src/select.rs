//! Which operations become tools. Guards that what is not selected does not exist, and that only reading is selected by
//! default.

use crate::settings::Selector;

/// An operation as a selector sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'a> {
    /// Upper case.
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) id: Option<&'a str>,
    pub(crate) tags: &'a [String],
}

impl Candidate<'_> {
    /// Whether a setting means this operation: its `operationId`, or method and path.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.id == Some(name)
            || name
                .split_once(' ')
                .is_some_and(|(method, path)| method.eq_ignore_ascii_case(self.method) && path.trim() == self.path)
    }

    fn only_reads(&self) -> bool {
        matches!(self.method, "GET" | "HEAD")
    }
}

impl Selector {
    fn fits(&self, candidate: Candidate<'_>, all_methods: bool) -> bool {
        let by_method = if self.methods.is_empty() {
            all_methods || !self.operations.is_empty() || candidate.only_reads()
        } else {
            self.methods.iter().any(|method| method == "*" || method.eq_ignore_ascii_case(candidate.method))
        };
        let or_all = |list: &[String], fits: &dyn Fn(&str) -> bool| list.is_empty() || list.iter().any(|one| fits(one));
        by_method
            && or_all(&self.tags, &|tag| candidate.tags.iter().any(|own| own == tag))
            && or_all(&self.paths, &|pattern| is_like(pattern, candidate.path))
            && or_all(&self.operations, &|name| candidate.is_called(name))
    }
}

/// Whether the operation is selected.
pub(crate) fn selected(candidate: Candidate<'_>, allow: &[Selector], deny: &[Selector]) -> bool {
    let allowed = if allow.is_empty() { candidate.only_reads() } else { allow.iter().any(|one| one.fits(candidate, false)) };
    allowed && !deny.iter().any(|one| one.fits(candidate, true))
}

/// Whether the operation was asked for by its own name.
pub(crate) fn is_named(candidate: Candidate<'_>, allow: &[Selector]) -> bool {
    allow.iter().any(|one| one.operations.iter().any(|name| candidate.is_called(name)))
}

/// Whether a text is like a pattern in which `*` stands for any text.
fn is_like(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reading_is_selected_unless_something_is_said() {
        let tags = ["pets".to_owned()];
        let candidate = |method, id| Candidate { method, path: "/pets/{id}", id, tags: &tags };
        let list = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let none = Selector::default();
        assert!(selected(candidate("GET", None), &[], &[]) && !selected(candidate("DELETE", None), &[], &[]));
        let by_tag = Selector { tags: list(&["pets"]), ..none.clone() };
        assert!(selected(candidate("GET", None), std::slice::from_ref(&by_tag), &[]));
        assert!(!selected(candidate("POST", None), std::slice::from_ref(&by_tag), &[]));
        let writes = Selector { methods: list(&["post"]), paths: list(&["/pets/*"]), ..none.clone() };
        assert!(selected(candidate("POST", None), std::slice::from_ref(&writes), &[]));
        assert!(!selected(candidate("GET", None), std::slice::from_ref(&writes), &[]));
        let named = Selector { operations: list(&["dropPet", "PUT /pets/{id}"]), ..none.clone() };
        for (method, id) in [("DELETE", Some("dropPet")), ("PUT", None)] {
            assert!(
                selected(candidate(method, id), std::slice::from_ref(&named), &[])
                    && is_named(candidate(method, id), std::slice::from_ref(&named))
            );
        }
        assert!(!selected(candidate("POST", Some("other")), std::slice::from_ref(&named), &[]));
        assert!(!selected(candidate("GET", None), std::slice::from_ref(&none), std::slice::from_ref(&by_tag)), "deny wins");
        assert!(selected(candidate("GET", None), &[none], &[Selector { methods: list(&["POST"]), ..Selector::default() }]));
        assert!(is_like("/a/*/c", "/a/b/c") && !is_like("/a/*/c", "/a/c") && is_like("*", "/x"));
    }
}
