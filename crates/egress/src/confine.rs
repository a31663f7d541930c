//! Paths made of a template and of arguments: the one piece of code for every connector that is described and not written.
//! Guards that the template decides how many segments a path has and what the literal ones say; each argument stays inside
//! its own segment, whatever decodes the path on the way. Must not know what the arguments mean.
//!
//! The client looks a second time: it reads the finished address and compares it with what was meant
//! ([`EgressRequest::address`]).

use http::Method;
use portcullis_model::{check_path_segment, is_only_dots};

use crate::EgressRequest;

/// Most segments of one template.
const MOST_SEGMENTS: usize = 64;

/// A template that cannot be used. For whoever describes the connector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the path is not usable: {0}; write it as /users/{{id}}/posts")]
pub struct InvalidTemplate(String);

/// An argument that cannot stand in a path. For the caller to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedValue {
    /// There is no value.
    #[error("'{name}' is part of the path and must be given")]
    Missing {
        /// The argument.
        name: String,
    },
    /// The value could mean more than one segment, or another one.
    #[error("'{name}' {why}; it is one segment of a path: give the plain value, not an address or an encoded one")]
    Value {
        /// The argument.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Variable(String),
}

/// A path with named places, such as `/users/{id}/posts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    segments: Vec<Vec<Piece>>,
    /// Whether the path ends with `/`, as some servers insist on.
    trailing_slash: bool,
}

impl PathTemplate {
    /// Reads a template: segments of visible ASCII, with `{name}` where an argument stands, alone or beside literal text.
    ///
    /// # Errors
    /// When it has a query, a fragment, an encoded character, an empty or a dot segment, or a place without an end.
    pub fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        let bad = |why: &str| InvalidTemplate(why.to_owned());
        let path = text.strip_prefix('/').ok_or_else(|| bad("it must begin with '/'"))?;
        let (path, trailing_slash) = match path.strip_suffix('/') {
            Some(shorter) => (shorter, true),
            None => (path, false),
        };
        if path.is_empty() {
            return if trailing_slash {
                Err(bad("it has an empty segment"))
            } else {
                Ok(Self { segments: Vec::new(), trailing_slash: false })
            };
        }
        let segments: Vec<Vec<Piece>> = path.split('/').map(pieces).collect::<Result<_, _>>()?;
        if segments.len() > MOST_SEGMENTS {
            return Err(bad("it has too many segments"));
        }
        let template = Self { segments, trailing_slash };
        let mut names: Vec<&str> = template.variables().collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(bad("it names one argument twice"));
        }
        Ok(template)
    }

    /// The names of the arguments, in order.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().flatten().filter_map(|piece| match piece {
            Piece::Variable(name) => Some(name.as_str()),
            Piece::Literal(_) => None,
        })
    }

    /// The request for these values; `value` gives the one of a name.
    ///
    /// # Errors
    /// When a value is missing or could mean anything but one segment.
    pub fn request(&self, method: Method, value: impl Fn(&str) -> Option<String>) -> Result<EgressRequest, RefusedValue> {
        let mut segments = Vec::with_capacity(self.segments.len());
        for pieces in &self.segments {
            let mut segment = String::new();
            let mut last = None;
            for (index, piece) in pieces.iter().enumerate() {
                match piece {
                    Piece::Literal(text) => segment.push_str(text),
                    Piece::Variable(name) => {
                        let given = value(name).ok_or_else(|| RefusedValue::Missing { name: name.clone() })?;
                        let refused = |why| RefusedValue::Value { name: name.clone(), why };
                        check_path_segment(&given).map_err(refused)?;
                        if let Some(Piece::Literal(end)) = pieces.get(index + 1)
                            && pieces[index + 1..].iter().any(|p| matches!(p, Piece::Variable(_)))
                            && given.contains(end.as_str())
                        {
                            return Err(refused("holds the character that ends it in this path"));
                        }
                        segment.push_str(&given);
                        last = Some(name);
                    }
                }
            }
            // Literal text beside a value must not make a dot segment of it either.
            if let Some(name) = last
                && is_only_dots(&segment)
            {
                return Err(RefusedValue::Value { name: name.clone(), why: "climbs out of the path" });
            }
            segments.push(segment);
        }
        let request = EgressRequest::new(method, segments);
        Ok(if self.trailing_slash { request.trailing_slash() } else { request })
    }
}

fn pieces(segment: &str) -> Result<Vec<Piece>, InvalidTemplate> {
    let bad = |why: &str| InvalidTemplate(why.to_owned());
    if segment.is_empty() {
        return Err(bad("it has an empty segment"));
    }
    let mut found = Vec::new();
    let mut rest = segment;
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('{') {
            let (name, after) = inside.split_once('}').ok_or_else(|| bad("a '{' has no '}'"))?;
            if name.is_empty() || name.contains('{') || name.chars().any(|c| !c.is_ascii_graphic()) {
                return Err(bad("the name of an argument is empty or holds odd characters"));
            }
            if matches!(found.last(), Some(Piece::Variable(_))) {
                return Err(bad("two arguments stand side by side, so nobody could tell where one ends"));
            }
            found.push(Piece::Variable(name.to_owned()));
            rest = after;
        } else {
            let end = rest.find('{').unwrap_or(rest.len());
            let (literal, after) = rest.split_at(end);
            if literal.chars().any(|c| !c.is_ascii_graphic() || matches!(c, '}' | '?' | '#' | '\\' | '%')) {
                return Err(bad("its literal text may hold visible ASCII but '?', '#', '%', '\\' and '}'"));
            }
            found.push(Piece::Literal(literal.to_owned()));
            rest = after;
        }
    }
    if let [Piece::Literal(only)] = found.as_slice()
        && is_only_dots(only)
    {
        return Err(bad("it has a segment of dots"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: &str = "https://api.example:8443/v1/";

    fn address(template: &str, values: &[(&str, &str)]) -> Result<String, String> {
        let template = PathTemplate::parse(template).map_err(|e| e.to_string())?;
        let value = |name: &str| values.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let request = template.request(Method::GET, value).map_err(|e| e.to_string())?;
        request.address(BASE).map_err(|e| e.to_string())
    }

    #[test]
    fn values_stand_in_their_segments() {
        for (template, values, expected) in [
            ("/", vec![], "https://api.example:8443/v1"),
            ("/users", vec![], "https://api.example:8443/v1/users"),
            ("/users/", vec![], "https://api.example:8443/v1/users/"),
            ("/users/{id}/posts", vec![("id", "a b#c?d&é")], "https://api.example:8443/v1/users/a%20b%23c%3Fd&%C3%A9/posts"),
            ("/files/{name}.json", vec![("name", "a.b")], "https://api.example:8443/v1/files/a.b.json"),
            ("/Users('{id}')", vec![("id", "7")], "https://api.example:8443/v1/Users('7')"),
            ("/{a}:{b}/{c}/", vec![("a", "1"), ("b", "2"), ("c", "100%")], "https://api.example:8443/v1/1:2/100%25/"),
        ] {
            assert_eq!(address(template, &values).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn what_could_mean_another_path_is_refused() {
        for value in [
            "",
            ".",
            "..",
            "...",
            " .. ",
            "a/b",
            "/etc/passwd",
            "a\\b",
            "..\\..",
            "%2e%2e",
            "a%2fb",
            "a%2Fb",
            "a%5cb",
            "%00",
            "%252f",
            "%u002f",
            "a\0b",
            "a\nb",
            "a\rb",
            "a\u{7f}",
            "a\u{85}b",
            "..;",
            "a;b",
            "a\u{ff0f}b",
            "a\u{2215}b",
            "a\u{2044}b",
            "\u{ff0e}\u{ff0e}",
            "\u{2025}",
            "\u{2024}\u{2024}",
            "\u{3002}\u{3002}",
            "a\u{ff3c}b",
            "\u{ff05}2f",
            "a\u{202e}b",
            "a\u{200b}",
            ".\u{200b}.",
            "a\u{a0}b",
            "a\u{2028}b",
            "\u{feff}",
            "a\u{e0041}",
            "\u{bd}",
            "\u{2105}",
        ] {
            assert!(address("/users/{id}/posts", &[("id", value)]).is_err(), "{value:?}");
        }
        assert!(address("/users/{id}", &[]).unwrap_err().contains("'id' is part of the path"));
        assert!(address("/users/{id}", &[("id", &"x".repeat(3_000))]).is_err());
        assert!(address("/x/.{id}", &[("id", ".")]).is_err());
        assert!(address("/{a}:{b}", &[("a", "1:2"), ("b", "3")]).is_err(), "nobody could tell where a ends");
    }

    #[test]
    fn templates_that_leave_room_are_refused() {
        for template in [
            "", "users", "//", "/a//b", "/../x", "/./x", "/a/..", "/a?b=c", "/a#b", "/a\\b", "/a%2fb", "/{a", "/a}", "/{}",
            "/{a}{b}", "/{a}/{a}", "/{a b}", "/\u{e9}", "/a b", "/{{a}}", "/a\0",
        ] {
            assert!(PathTemplate::parse(template).is_err(), "{template:?}");
        }
        assert!(PathTemplate::parse(&"/x".repeat(65)).is_err());
    }

    proptest! {
        #[test]
        fn a_path_has_the_segments_of_its_template(a in "\\PC{0,12}", b in ".{0,12}", key in "[a-z]{1,5}", query in ".{0,12}") {
            let template = PathTemplate::parse("/x/{a}/y/{b}.z").unwrap();
            let value = |name: &str| Some(if name == "a" { a.clone() } else { b.clone() });
            let Ok(request) = template.request(Method::GET, value) else { return Ok(()) };
            let address = request.query(&key, &query).address(BASE).unwrap();
            let rest = address.strip_prefix("https://api.example:8443/v1/x/").unwrap();
            let (path, pairs) = rest.split_once('?').unwrap();
            let parts: Vec<&str> = path.split('/').collect();
            prop_assert_eq!(parts.len(), 3, "{}", address);
            prop_assert_eq!(parts[1], "y");
            prop_assert_eq!(&parts[2][parts[2].len() - 2..], ".z");
            let begins = format!("{key}=");
            prop_assert!(pairs.starts_with(&begins) && !pairs.contains(['&', '#']));
            for trick in ["%2f", "%5c", "%00", "..", "%2e", "\\", "%c0%af"] {
                let found = path.to_ascii_lowercase().contains(trick);
                // Dots inside of a longer text climb nowhere.
                prop_assert!(!found || trick == "..", "{}", address);
            }
            prop_assert!(parts.iter().all(|part| *part != ".." && *part != "."));
        }
    }
}
