//! Templates of resources (RFC 6570): which addresses belong to one, and whether two could have one in common. Guards that no
//! template takes every address. Must not know whose they are.

use std::collections::BTreeSet;

use regex::Regex;

/// Longest template.
const LONGEST: usize = 1_024;

/// The variables of a template.
pub(crate) fn variables_of(template: &str) -> impl Iterator<Item = &str> {
    template.split('{').skip(1).filter_map(|part| part.split_once('}')).flat_map(|(inside, _)| {
        let names = inside.trim_start_matches(['+', '#', '.', '/', ';', '?', '&']);
        names.split(',').map(|name| name.trim_end_matches('*').split(':').next().unwrap_or_default()).filter(|n| !n.is_empty())
    })
}

/// A piece of a template.
enum Piece<'t> {
    Text(&'t str),
    /// An expression, by its first character.
    Expression(char),
}

/// A template in pieces. One that begins with a variable would take every address, so it is none.
fn pieces(template: &str) -> Option<Vec<Piece<'_>>> {
    let scheme = template.split_once(':')?.0;
    if scheme.is_empty() || scheme.contains('{') || template.len() > LONGEST {
        return None;
    }
    let (mut pieces, mut rest) = (Vec::new(), template);
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, after) = after.split_once('}')?;
        pieces.extend([Piece::Text(before), Piece::Expression(inside.chars().next()?)]);
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    Some(pieces)
}

/// Which addresses belong to a template.
pub(crate) fn pattern_of(template: &str) -> Option<Regex> {
    let mut pattern = String::from("^");
    for piece in pieces(template)? {
        match piece {
            Piece::Text(text) => pattern.push_str(&regex::escape(text)),
            Piece::Expression(first) => pattern.push_str(match first {
                '+' | '/' => ".+",
                '#' => "(?:#.*)?",
                '?' => r"(?:\?[^#]*)?",
                '&' | ';' => "[^#]*",
                _ => "[^/?#]+",
            }),
        }
    }
    pattern.push('$');
    Regex::new(&pattern).ok()
}

/// What may stand at one place of an address.
#[derive(Clone, Copy)]
enum Place {
    One(char),
    /// Any number of characters but these.
    Many(&'static str),
    /// One character but these.
    Some(&'static str),
}

impl Place {
    fn takes(self, character: char) -> bool {
        match self {
            Self::One(own) => own == character,
            Self::Many(but) | Self::Some(but) => !but.contains(character),
        }
    }

    fn meets(self, other: Self) -> bool {
        match (self, other) {
            (Self::One(character), place) | (place, Self::One(character)) => place.takes(character),
            // There are always characters that neither leaves out.
            _ => true,
        }
    }
}

/// The places of a template. Of `{#…}`, `{?…}`, `{&…}` and `{;…}` a little more than really fits.
fn places(template: &str) -> Option<Vec<Place>> {
    let mut places = Vec::new();
    for piece in pieces(template)? {
        match piece {
            Piece::Text(text) => places.extend(text.chars().map(Place::One)),
            Piece::Expression('+' | '/') => places.extend([Place::Some(""), Place::Many("")]),
            Piece::Expression('#') => places.push(Place::Many("")),
            Piece::Expression('?' | '&' | ';') => places.push(Place::Many("#")),
            Piece::Expression(_) => places.extend([Place::Some("/?#"), Place::Many("/?#")]),
        }
    }
    Some(places)
}

/// Whether an address could belong to both.
pub(crate) fn overlap(one: &str, other: &str) -> bool {
    let (Some(one), Some(other)) = (places(one), places(other)) else { return false };
    let (mut seen, mut open) = (BTreeSet::new(), vec![(0, 0)]);
    while let Some((left, right)) = open.pop() {
        if !seen.insert((left, right)) {
            continue;
        }
        let (a, b) = (one.get(left).copied(), other.get(right).copied());
        if a.is_none() && b.is_none() {
            return true;
        }
        // Any number may be none.
        if matches!(a, Some(Place::Many(_))) {
            open.push((left + 1, right));
        }
        if matches!(b, Some(Place::Many(_))) {
            open.push((left, right + 1));
        }
        if let (Some(a), Some(b)) = (a, b)
            && a.meets(b)
        {
            let next = |place, at| if matches!(place, Place::Many(_)) { at } else { at + 1 };
            open.push((next(a, left), next(b, right)));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_takes_its_own_addresses_only() {
        let fits = |template: &str, uri: &str| pattern_of(template).is_some_and(|pattern| pattern.is_match(uri));
        assert!(fits("demo://resource/{id}", "demo://resource/7"));
        assert!(!fits("demo://resource/{id}", "demo://resource/7/8"));
        assert!(!fits("demo://resource/{id}", "other://resource/7"));
        assert!(fits("file:///{+path}", "file:///a/b/c"));
        assert!(fits("x://y{?q,r}", "x://y?q=1") && fits("x://y{?q,r}", "x://y"));
        assert!(!fits("x://y.z/{a}", "x://yAz/1"), "a dot is a dot");
        for bad in ["{+everything}", "{scheme}://x", "no scheme", "x://{open"] {
            assert!(pattern_of(bad).is_none(), "{bad}");
        }
        assert_eq!(variables_of("a://{x}/{+y*}{?q,r:3}").collect::<Vec<_>>(), ["x", "y", "q", "r"]);
    }

    #[test]
    fn two_templates_overlap_where_an_address_fits_both_and_nowhere_else() {
        for (one, other, address) in [
            ("note://{id}", "note://{+path}", Some("note://7")),
            ("note://a/{id}", "note://{+path}", Some("note://a/7")),
            ("note://{id}/tail", "note://head/{id}", Some("note://head/tail")),
            ("x://y{?q}", "x://{name}", Some("x://y")),
            ("x://y{#part}", "x://y{?q}", Some("x://y")),
            ("note://{id}", "note://{id}", Some("note://7")),
            ("note://{id}", "note://a/b", None),
            ("note://a/{id}", "note://b/{id}", None),
            ("note://{id}", "other://{id}", None),
            ("note://{id}/x", "note://{id}/y", None),
            ("note://{a}/{b}", "note://{a}", None),
            ("note://{id}", "{+everything}", None),
        ] {
            assert_eq!(overlap(one, other), address.is_some(), "{one} {other}");
            assert_eq!(overlap(other, one), address.is_some(), "{other} {one}");
            if let Some(address) = address {
                let fits = |template: &str| pattern_of(template).unwrap().is_match(address);
                assert!(fits(one) && fits(other), "{one} {other}");
            }
        }
        // What takes two steps at each place is still quick.
        let long = format!("x://{}", "{a}{+b}".repeat(140));
        assert!(overlap(&long, &long));
    }
}
