//! Paths made of templates and arguments: an argument stays inside its segment, whatever it is.

use http::Method;
use portcullis_egress::PathTemplate;

use crate::{Target, Verdict};

const BASE: &str = "https://api.example:8443/v1/";

pub(crate) const URL_PATH: Target = Target {
    name: "url_path",
    promise: "an address has the origin, the segments and the query names that were meant, whatever the arguments are",
    seeds: &[
        // Template, then values of its places in order, then one query value.
        "/users/{id}/posts|42|q",
        "/files/{name}.json|..%2fetc|a&b=c#d",
        "/{a}:{b}/|1|2",
        "/users/{id}|../../admin|x",
        "/users/{id}|\u{ff0e}\u{ff0e}\u{ff0f}|x",
        "/users/{id}|..;|?",
        "/a//b|x|y",
        "/../{id}|x|y",
        "/{id}|a\\..\\b|\r\n",
    ],
    words: &["{id}", "/", "..", "%2f", "%5c", "%00", "\\", ";", "?", "#", "@", ":", "\u{2025}", "\u{2215}", "|", "//", "{", "}"],
    run: url_path,
};

fn url_path(bytes: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split('|');
    let template = match PathTemplate::parse(parts.next().unwrap_or_default()) {
        Ok(template) => template,
        Err(error) => return Verdict::refused(error),
    };
    let values: Vec<&str> = parts.collect();
    let names: Vec<&str> = template.variables().collect();
    let value = |name: &str| names.iter().position(|own| *own == name).and_then(|at| values.get(at)).map(|v| (*v).to_owned());
    let request = match template.request(Method::GET, value) {
        Ok(request) => request,
        Err(error) => return Verdict::refused(error),
    };
    let query = values.get(names.len()).copied().unwrap_or("x");
    let address = request.query("q", query).address(BASE).unwrap_or_else(|e| panic!("{text:?} was taken and is no address: {e}"));
    let rest = address.strip_prefix("https://api.example:8443/v1").unwrap_or_else(|| panic!("another place: {address}"));
    let (path, pairs) = rest.split_once('?').unwrap_or_else(|| panic!("no query: {address}"));
    assert!(pairs.starts_with("q=") && !pairs.contains(['&', '#', ' ']), "another query: {address}");
    let written = text.split('|').next().unwrap_or_default();
    let wanted = if written == "/" { 0 } else { written.matches('/').count() };
    assert_eq!(path.matches('/').count(), wanted, "{written} became {path}");
    let lower = path.to_ascii_lowercase();
    for trick in ["%2f", "%5c", "%00", "%2e", "\\", "//"] {
        assert!(!lower.contains(trick), "{trick} in {address}");
    }
    assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "climbs: {address}");
    Verdict::accepted()
}
