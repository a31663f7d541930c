//! How one argument is written into a request: its place, its style (OpenAPI 3.1 section 4.8.12, the style values), and what
//! may not be an argument at all.
//!
//! Guards that credentials, connection headers and method overrides are never arguments, and that a style which is not
//! written here leaves its operation out. Must not build addresses; that is done by egress.

use portcullis_egress::FORBIDDEN_HEADERS;
use serde_json::{Map, Value};

/// Where an argument goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Path,
    Query,
    Header,
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Lists with commas (path and header).
    Simple,
    /// `name=a&name=b`, or `name=a,b` without explode.
    Form,
    /// `name=a%20b`.
    SpaceDelimited,
    /// `name=a|b`.
    PipeDelimited,
    /// `name[key]=a`.
    DeepObject,
    /// The value as JSON text (`content: application/json`).
    Json,
}

/// One argument of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// Its name for the API.
    pub(crate) wire: String,
    /// Its name for a caller.
    pub(crate) argument: String,
    pub(crate) place: Place,
    pub(crate) required: bool,
    pub(crate) style: Style,
    pub(crate) explode: bool,
}

/// What becomes of a parameter of a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// An argument.
    Taken(Parameter),
    /// Not an argument, and the operation works without it; or it is said elsewhere.
    Dropped(String),
    /// The operation cannot be called.
    Refused(String),
}

/// Query parameters and headers that make another request of a request.
const OVERRIDES: &[&str] = &[
    "_method",
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
];

/// Whether a header may be set by an argument. The description's security schemes are asked besides.
fn header_is_closed(lower: &str) -> bool {
    FORBIDDEN_HEADERS.contains(&lower)
        || OVERRIDES.contains(&lower)
        || ["proxy-", "sec-", "x-forwarded-", "x-real-ip", "x-client-cert", "cf-connecting-", "true-client-"]
            .iter()
            .any(|p| lower.starts_with(p))
        || ["x-api-key", "api-key", "apikey", "x-auth-token", "x-access-token", "x-csrf-token", "private-token", "x-vault-token"]
            .contains(&lower)
}

/// Judges one parameter. `credentials` are the names the description's security schemes use, in lower case.
pub(crate) fn judge(members: &Map<String, Value>, schema_type: Option<&str>, credentials: &[String]) -> Fate {
    let text = |key: &str| members.get(key).and_then(Value::as_str);
    let (Some(wire), Some(place)) = (text("name"), text("in")) else {
        return Fate::Refused("a parameter has no name or no place".into());
    };
    let required = members.get("required") == Some(&Value::Bool(true)) || place == "path";
    let shown: String = wire.chars().filter(|c| !c.is_control()).take(60).collect();
    let unless_required = |why: String| if required { Fate::Refused(why) } else { Fate::Dropped(why) };
    let lower = wire.to_ascii_lowercase();
    if credentials.contains(&lower) {
        return Fate::Dropped(format!("'{shown}' is a credential and comes from the configuration"));
    }
    let place = match place {
        "path" => Place::Path,
        "query" => Place::Query,
        "header" => Place::Header,
        "cookie" => return unless_required(format!("'{shown}' is a cookie, and none are sent")),
        other => return unless_required(format!("'{shown}' is in '{other}', which is no place for a parameter")),
    };
    if place == Place::Header {
        // These three are said by the description elsewhere, and are ignored as parameters (OpenAPI 3.1, Parameter Object).
        if matches!(lower.as_str(), "accept" | "content-type" | "authorization") {
            return Fate::Dropped(format!("header '{shown}' is not set by arguments"));
        }
        if header_is_closed(&lower) || wire.is_empty() || !wire.bytes().all(|b| b.is_ascii_graphic()) {
            return unless_required(format!("header '{shown}' may not be set by an argument"));
        }
    }
    if place == Place::Query && (wire.is_empty() || OVERRIDES.contains(&lower.as_str()) || wire.chars().any(char::is_control)) {
        return unless_required(format!("query parameter '{shown}' may not be set by an argument"));
    }
    let style = match (place, text("style"), members.contains_key("content")) {
        (Place::Query, None, true) if members.get("content").and_then(|c| c.get("application/json")).is_some() => Style::Json,
        (_, _, true) => return unless_required(format!("'{shown}' is written in a media type that is not known for parameters")),
        (Place::Path | Place::Header, None | Some("simple"), _) => Style::Simple,
        (Place::Query, None | Some("form"), _) => Style::Form,
        (Place::Query, Some("spaceDelimited"), _) => Style::SpaceDelimited,
        (Place::Query, Some("pipeDelimited"), _) => Style::PipeDelimited,
        (Place::Query, Some("deepObject"), _) => Style::DeepObject,
        (_, Some(other), _) => {
            return unless_required(format!("'{shown}' has style '{}', which is not written", other.escape_debug()));
        }
    };
    let explode = members.get("explode").and_then(Value::as_bool).unwrap_or(matches!(style, Style::Form | Style::DeepObject));
    let is_object = schema_type == Some("object");
    let is_list = schema_type == Some("array");
    let unwritten = match style {
        // An object would make names of parameters out of arguments.
        Style::Simple | Style::Form => is_object,
        Style::SpaceDelimited | Style::PipeDelimited => is_object || (is_list && explode),
        Style::DeepObject => !explode || is_list,
        Style::Json => false,
    };
    if unwritten {
        let kind = schema_type.unwrap_or("value");
        return unless_required(format!("'{shown}' is an {kind} in a style that is not written for it"));
    }
    Fate::Taken(Parameter { wire: wire.to_owned(), argument: String::new(), place, required, style, explode })
}

/// A scalar as text; `None` for what is none.
pub(crate) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A list or scalar with `separator` between the items.
fn joined(value: &Value, separator: char) -> Result<String, String> {
    let Some(items) = value.as_array() else {
        return scalar(value).ok_or_else(|| "must be text, a number or a truth value".to_owned());
    };
    let mut text = String::new();
    for (index, item) in items.iter().enumerate() {
        let item = scalar(item).ok_or("must be a list of plain values")?;
        if items.len() > 1 && item.contains(separator) {
            return Err(format!("has an item that holds '{separator}', which separates the items"));
        }
        if index > 0 {
            text.push(separator);
        }
        text.push_str(&item);
    }
    Ok(text)
}

impl Parameter {
    /// The text of a path or header parameter.
    ///
    /// # Errors
    /// What is wrong with the value, to follow the argument's name.
    pub(crate) fn text(value: &Value) -> Result<String, String> {
        joined(value, ',')
    }

    /// The pairs of a query parameter.
    ///
    /// # Errors
    /// As [`Parameter::text`].
    pub(crate) fn pairs(&self, value: &Value) -> Result<Vec<(String, String)>, String> {
        let one = |text: String| vec![(self.wire.clone(), text)];
        let pairs = match (self.style, value) {
            (Style::Json, value) => one(value.to_string()),
            (Style::DeepObject, Value::Object(members)) => {
                let mut pairs = Vec::new();
                for (name, value) in members {
                    nested(&format!("{}[{}]", self.wire, bracketed(name)?), value, &mut pairs, 0)?;
                }
                pairs
            }
            (Style::DeepObject, _) => return Err("must be an object".into()),
            (Style::Form, Value::Array(items)) if self.explode => items
                .iter()
                .map(|item| scalar(item).map(|text| (self.wire.clone(), text)).ok_or("must be a list of plain values"))
                .collect::<Result<_, _>>()?,
            (Style::SpaceDelimited, value) => one(joined(value, ' ')?),
            (Style::PipeDelimited, value) => one(joined(value, '|')?),
            (_, value) => one(joined(value, ',')?),
        };
        // The address holds them encoded; servers and the logs behind them decode.
        let odd = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
        if pairs.iter().any(|(key, text)| key.contains(char::is_control) || text.contains(odd)) {
            return Err("holds control characters".into());
        }
        Ok(pairs)
    }
}

/// Deepest nesting of `name[a][b]`.
const DEEPEST: usize = 6;

/// `a[b][0]=c`, as PHP, Rails and others read it.
pub(crate) fn nested(name: &str, value: &Value, pairs: &mut Vec<(String, String)>, depth: usize) -> Result<(), String> {
    if depth > DEEPEST {
        return Err("is nested too deep for this style".into());
    }
    match value {
        Value::Object(members) => {
            members.iter().try_for_each(|(key, value)| nested(&format!("{name}[{}]", bracketed(key)?), value, pairs, depth + 1))
        }
        Value::Array(items) => {
            items.iter().enumerate().try_for_each(|(index, value)| nested(&format!("{name}[{index}]"), value, pairs, depth + 1))
        }
        Value::Null => Ok(()),
        plain => {
            pairs.push((name.to_owned(), scalar(plain).unwrap_or_default()));
            Ok(())
        }
    }
}

fn bracketed(name: &str) -> Result<&str, String> {
    let fits = !name.is_empty() && !name.contains(['[', ']', '&', '=']) && !name.contains(char::is_control);
    fits.then_some(name).ok_or_else(|| "has a member whose name cannot be written in this style".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[allow(clippy::needless_pass_by_value, reason = "JSON is built where it is passed")]
    fn fate(parameter: Value, kind: Option<&str>) -> Fate {
        judge(parameter.as_object().unwrap(), kind, &["x-shop-key".into(), "api_key".into()])
    }

    fn taken(parameter: Value, kind: Option<&str>) -> Parameter {
        match fate(parameter, kind) {
            Fate::Taken(parameter) => parameter,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn styles_are_written_as_the_specification_says() {
        // The examples of OpenAPI 3.1 section 4.8.12.4, as far as they are written here.
        let list = json!(["blue", "black", "brown"]);
        let pairs = |parameter: Value, kind: &str, value: &Value| {
            taken(parameter, Some(kind))
                .pairs(value)
                .unwrap()
                .into_iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect::<Vec<_>>()
                .join("&")
        };
        let query = |style: &str, explode: bool| json!({"name": "color", "in": "query", "style": style, "explode": explode});
        assert_eq!(pairs(json!({"name": "color", "in": "query"}), "array", &list), "color=blue&color=black&color=brown");
        assert_eq!(pairs(query("form", false), "array", &list), "color=blue,black,brown");
        assert_eq!(pairs(query("spaceDelimited", false), "array", &list), "color=blue black brown");
        assert_eq!(pairs(query("pipeDelimited", false), "array", &list), "color=blue|black|brown");
        assert_eq!(
            pairs(query("deepObject", true), "object", &json!({"R": 100, "G": {"x": [1]}})),
            "color[R]=100&color[G][x][0]=1"
        );
        assert_eq!(
            pairs(json!({"name": "q", "in": "query", "content": {"application/json": {}}}), "object", &json!({"a": 1})),
            r#"q={"a":1}"#
        );
        assert_eq!(pairs(query("form", true), "boolean", &json!(true)), "color=true");
        assert_eq!(Parameter::text(&json!([3, 4])).unwrap(), "3,4");
    }

    #[test]
    fn what_is_no_argument() {
        for (parameter, word) in [
            (json!({"name": "Authorization", "in": "header"}), "not set by arguments"),
            (json!({"name": "Accept", "in": "header", "required": true}), "not set by arguments"),
            (json!({"name": "X-Shop-Key", "in": "header", "required": true}), "credential"),
            (json!({"name": "api_key", "in": "query", "required": true}), "credential"),
            (json!({"name": "session", "in": "cookie"}), "cookie"),
            (json!({"name": "X-Forwarded-Host", "in": "header"}), "may not be set"),
            (json!({"name": "X-HTTP-Method-Override", "in": "header"}), "may not be set"),
            (json!({"name": "_method", "in": "query"}), "may not be set"),
            (json!({"name": "X-Api-Key", "in": "header"}), "may not be set"),
        ] {
            match fate(parameter.clone(), Some("string")) {
                Fate::Dropped(why) => assert!(why.contains(word), "{why}"),
                other => panic!("{parameter}: {other:?}"),
            }
        }
        for parameter in [
            json!({"name": "Host", "in": "header", "required": true}),
            json!({"name": "session", "in": "cookie", "required": true}),
            json!({"name": "id", "in": "path", "style": "label"}),
            json!({"name": "id", "in": "path", "style": "matrix", "explode": true}),
            json!({"in": "query"}),
        ] {
            assert!(matches!(fate(parameter.clone(), Some("string")), Fate::Refused(_)), "{parameter}");
        }
        assert!(matches!(fate(json!({"name": "o", "in": "path"}), Some("object")), Fate::Refused(_)));
        assert!(matches!(fate(json!({"name": "o", "in": "query"}), Some("object")), Fate::Dropped(_)));
    }

    #[test]
    fn values_that_would_be_read_otherwise_are_refused() {
        let form = taken(json!({"name": "a", "in": "query", "explode": false}), Some("array"));
        assert!(form.pairs(&json!(["x,y", "z"])).unwrap_err().contains("','"));
        assert!(form.pairs(&json!([["x"]])).is_err());
        assert!(form.pairs(&json!({"x": 1})).is_err());
        let text = taken(json!({"name": "a", "in": "query"}), Some("string"));
        assert!(text.pairs(&json!("a\0b")).unwrap_err().contains("control"));
        assert!(text.pairs(&json!("a\r\nHost: x")).is_err());
        assert_eq!(text.pairs(&json!("a\nb")).unwrap()[0].1, "a\nb");
        let deep = taken(json!({"name": "f", "in": "query", "style": "deepObject"}), Some("object"));
        assert!(deep.pairs(&json!({"a]&admin=1[": 1})).is_err());
    }
}
