//! What a form of an upstream may ask. Guards that a form says whose it is and sets the upstream's own words apart, that it
//! holds nothing but what the protocol lets a form hold (MCP 2025-11-25, elicitation: flat, and of simple fields), and that
//! its words are looked at whole before anybody reads them. Must not decide whether forms are asked at all.

mod words;

use portcullis_guard::is_hidden;
use serde_json::{Map, Value, json};

pub(crate) use self::words::IMITATION;
use self::words::{Said, sounds_like_ours};
use crate::questions::{Refused, UNFIT};

/// Characters of a message that are put to a person; what is longer would push the words of the house out of sight.
const LONGEST: usize = 4_000;
/// Characters of a field's name.
const LONGEST_NAME: usize = 200;
/// Bytes of a schema that are put to a person; nobody fills in more, and every word of it is looked at.
const LARGEST: usize = 64 << 10;
/// Everything that begins a new line somewhere.
const LINE_ENDS: [char; 7] = ['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'];
/// What a text may be said to be.
const FORMATS: [&str; 4] = ["email", "uri", "date", "date-time"];

const NO_SCHEMA: Refused = (UNFIT, "the form has no requestedSchema");
const NOT_OF_AN_OBJECT: Refused = (UNFIT, "the requestedSchema of the form has not the type 'object'");
const NO_PROPERTIES: Refused = (UNFIT, "the requestedSchema of the form has no properties");
const WRONG_REQUIRED: Refused = (UNFIT, "required of the form names what is none of its properties");
const WRONG_NAME: Refused = (UNFIT, "the name of a field is too long, or has several lines");
const WRONG_TYPE: Refused =
    (UNFIT, "the type of a field is none of 'string', 'number', 'integer', 'boolean' and 'array', each alone and without $ref");
const WRONG_TEXT: Refused = (UNFIT, "the title or the description of a field is no text");
const WRONG_LIMIT: Refused = (UNFIT, "a limit or the default of a field does not fit its type");
const WRONG_CHOICE: Refused = (UNFIT, "what is to be chosen from is no list of texts of one line each");

/// A form as a person is shown it: with who asks, in front of the upstream's own words.
///
/// # Errors
/// What the upstream is told instead.
pub(crate) fn form(server: &str, members: &Map<String, Value>) -> Result<Value, Refused> {
    let message = message_of(members)?;
    let schema = given(members, "requestedSchema").ok_or(NO_SCHEMA)?;
    if schema.to_string().len() > LARGEST {
        return Err((UNFIT, "the schema of the form is too large to be shown"));
    }
    let schema = schema.as_object().ok_or((UNFIT, "the schema of the form is no object"))?;
    Said::by(message, schema).judged()?;
    let schema = plain(schema)?;
    let own_words = quoted(message);
    let message = format!(
        "Server '{server}' asks you to fill in a form, and gets what you enter: give it no password, key or other secret. It \
         says:{own_words}"
    );
    let mut shown = Map::from_iter([("message".to_owned(), json!(message)), ("requestedSchema".to_owned(), schema)]);
    if let Some(mode) = members.get("mode") {
        shown.insert("mode".to_owned(), mode.clone());
    }
    Ok(Value::Object(shown))
}

/// The words that come with a page to open. A page may ask for a secret: that is what pages are for.
///
/// # Errors
/// What the upstream is told instead.
pub(crate) fn words_of_a_page(members: &Map<String, Value>) -> Result<&str, Refused> {
    let message = message_of(members)?;
    if sounds_like_ours(message) { Err(IMITATION) } else { Ok(message) }
}

fn message_of(members: &Map<String, Value>) -> Result<&str, Refused> {
    match given(members, "message") {
        None => Ok(""),
        Some(Value::String(message)) if message.chars().count() <= LONGEST => Ok(message),
        Some(Value::String(_)) => Err((UNFIT, "the message of the question is too long to be shown")),
        Some(_) => Err((UNFIT, "the message of the question is no text")),
    }
}

/// Somebody else's words behind those of the house: each of several lines is marked, so that none looks like the house's own.
pub(crate) fn quoted(words: &str) -> String {
    if words.contains(LINE_ENDS) { marked(words) } else { format!(" {words}") }
}

/// Somebody else's words, each line marked. Of several blank lines one is left, so that none pushes another out of sight.
pub(crate) fn marked(words: &str) -> String {
    let mut told = String::with_capacity(words.len() + 16);
    let mut was_blank = false;
    for line in words.split(LINE_ENDS) {
        let blank = line.chars().all(|character| character.is_whitespace() || is_hidden(character));
        if !(blank && was_blank) {
            told.push_str("\n> ");
            told.push_str(line);
        }
        was_blank = blank;
    }
    told
}

/// Words of an upstream that stand where none of the house can be put in front of them: in one line.
fn one_line(words: &str) -> String {
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A schema with what the protocol knows of it, and nothing else.
fn plain(schema: &Map<String, Value>) -> Result<Value, Refused> {
    if given(schema, "type").is_none_or(|kind| kind != "object") {
        return Err(NOT_OF_AN_OBJECT);
    }
    let fields = given(schema, "properties").and_then(Value::as_object).ok_or(NO_PROPERTIES)?;
    let mut shown = Map::new();
    for (name, field) in fields {
        if name.chars().count() > LONGEST_NAME || name.contains(LINE_ENDS) {
            return Err(WRONG_NAME);
        }
        shown.insert(name.clone(), plain_field(field)?);
    }
    let mut whole = Map::from_iter([("type".to_owned(), json!("object")), ("properties".to_owned(), Value::Object(shown))]);
    if let Some(required) = given(schema, "required") {
        let names = texts(required).ok_or(WRONG_REQUIRED)?;
        if names.iter().any(|name| !fields.contains_key(*name)) {
            return Err(WRONG_REQUIRED);
        }
        whole.insert("required".to_owned(), json!(names));
    }
    Ok(Value::Object(whole))
}

fn plain_field(field: &Value) -> Result<Value, Refused> {
    let field = field.as_object().ok_or(WRONG_TYPE)?;
    let kind = given(field, "type").and_then(Value::as_str).ok_or(WRONG_TYPE)?;
    let mut shown = Map::from_iter([("type".to_owned(), json!(kind))]);
    for name in ["title", "description"] {
        if let Some(words) = given(field, name) {
            shown.insert(name.to_owned(), json!(one_line(words.as_str().ok_or(WRONG_TEXT)?)));
        }
    }
    match kind {
        "boolean" => take(field, &mut shown, &["default"], Value::is_boolean)?,
        "integer" => take(field, &mut shown, &["minimum", "maximum", "default"], Value::is_i64)?,
        "number" => take(field, &mut shown, &["minimum", "maximum", "default"], Value::is_number)?,
        "string" if given(field, "oneOf").is_some() || given(field, "enum").is_some() => {
            shown.extend(choice(field, "oneOf")?);
            take(field, &mut shown, &["default"], Value::is_string)?;
        }
        "string" => {
            take(field, &mut shown, &["minLength", "maxLength"], is_length)?;
            take(field, &mut shown, &["default"], Value::is_string)?;
            if let Some(format) = given(field, "format").and_then(Value::as_str).filter(|format| FORMATS.contains(format)) {
                shown.insert("format".to_owned(), json!(format));
            }
        }
        "array" => {
            let items = given(field, "items").and_then(Value::as_object).ok_or(WRONG_CHOICE)?;
            let mut each = choice(items, "anyOf")?;
            if each.contains_key("enum") {
                each.insert("type".to_owned(), json!("string"));
            }
            shown.insert("items".to_owned(), Value::Object(each));
            take(field, &mut shown, &["minItems", "maxItems"], is_length)?;
            take(field, &mut shown, &["default"], is_texts)?;
        }
        _ => return Err(WRONG_TYPE),
    }
    Ok(Value::Object(shown))
}

/// What can be chosen: texts, or texts with a title under the keyword the protocol has for that.
fn choice(field: &Map<String, Value>, titled: &str) -> Result<Map<String, Value>, Refused> {
    let mut shown = Map::new();
    if let Some(all) = given(field, "oneOf").or_else(|| given(field, "anyOf")) {
        let all = all.as_array().filter(|all| !all.is_empty()).ok_or(WRONG_CHOICE)?;
        let each: Option<Vec<Value>> = all.iter().map(titled_choice).collect();
        shown.insert(titled.to_owned(), Value::Array(each.ok_or(WRONG_CHOICE)?));
        return Ok(shown);
    }
    let all = given(field, "enum").and_then(texts).ok_or(WRONG_CHOICE)?;
    if all.is_empty() || all.iter().any(|one| one.contains(LINE_ENDS)) {
        return Err(WRONG_CHOICE);
    }
    if let Some(names) = given(field, "enumNames") {
        let names = texts(names).filter(|names| names.len() == all.len()).ok_or(WRONG_CHOICE)?;
        let names: Vec<String> = names.into_iter().map(one_line).collect();
        shown.insert("enumNames".to_owned(), json!(names));
    }
    shown.insert("enum".to_owned(), json!(all));
    Ok(shown)
}

fn titled_choice(one: &Value) -> Option<Value> {
    let value = one.get("const")?.as_str().filter(|value| !value.contains(LINE_ENDS))?;
    let title = one.get("title").map_or(Some(value), Value::as_str)?;
    Some(json!({"const": value, "title": one_line(title)}))
}

/// Takes over what fits.
fn take(
    field: &Map<String, Value>,
    shown: &mut Map<String, Value>,
    names: &[&str],
    fits: fn(&Value) -> bool,
) -> Result<(), Refused> {
    for name in names {
        if let Some(value) = given(field, name) {
            if !fits(value) {
                return Err(WRONG_LIMIT);
            }
            shown.insert((*name).to_owned(), value.clone());
        }
    }
    Ok(())
}

/// A member that is there and says something.
fn given<'v>(members: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    members.get(name).filter(|value| !value.is_null())
}

fn is_length(value: &Value) -> bool {
    value.as_u64().is_some_and(|length| u32::try_from(length).is_ok())
}

fn is_texts(value: &Value) -> bool {
    texts(value).is_some()
}

fn texts(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::words::SECRET;
    use super::*;

    fn asked(message: &str, properties: Value) -> Result<Value, Refused> {
        let schema = Map::from_iter([("type".to_owned(), json!("object")), ("properties".to_owned(), properties)]);
        let members = json!({"message": message, "requestedSchema": schema, "_meta": {"a": 1}, "task": {}, "title": "x"});
        form("up", members.as_object().unwrap())
    }

    fn field(name: &str) -> Value {
        json!({ name: {"type": "string"} })
    }

    #[test]
    fn a_form_says_who_asks_and_sets_the_upstreams_words_apart() {
        let shown = asked("Who?", field("name")).unwrap();
        let house = "Server 'up' asks you to fill in a form, and gets what you enter: give it no password, key or other secret. \
                     It says:";
        assert_eq!(shown["message"], format!("{house} Who?"));
        assert_eq!(shown["requestedSchema"]["properties"], field("name"));
        assert_eq!(shown.as_object().unwrap().len(), 2, "nothing else of it: {shown}");
        let several = asked("Who?\r\nServer 'other' says\u{2028}hello", field("name")).unwrap();
        assert_eq!(several["message"], format!("{house}\n> Who?\n> \n> Server 'other' says\n> hello"));
        assert!(asked(&"x".repeat(LONGEST + 1), field("name")).is_err());
        let large = json!({"name": {"type": "string", "description": "x ".repeat(LARGEST / 2)}});
        assert_eq!(asked("Who?", large).unwrap_err().1, "the schema of the form is too large to be shown");
        for bad in [json!({"message": 1}), json!({"message": "x", "requestedSchema": "y"})] {
            assert!(form("up", bad.as_object().unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_form_that_looks_like_the_gates_own_is_refused() {
        let ours = "key:abc of tenant default wants to call wipe (destructive, of upstream:up, definition 0123) with {}";
        for (message, properties) in [
            (ours, field("name")),
            ("This needs your approval and is good for this call only.", field("name")),
            ("This ne\u{200b}eds y\u{43e}ur\n\u{ff41}pproval", field("name")),
            ("Portcullis asks", field("name")),
            ("Go on?", json!({"approve": {"type": "boolean"}})),
            ("Go on?", json!({"\u{430}pprove": {"type": "boolean"}})),
            ("Go on?", json!({"yes": {"type": "boolean", "title": "Approve this call"}})),
            ("Go on?", json!({"yes": {"type": "boolean", "description": "It needs your approval."}})),
            ("Go on?", json!({"yes": {"type": "string", "enum": ["Approve this call", "Decline"]}})),
            ("Go on?", json!({"yes": {"type": "string", "enum": ["a"], "enumNames": [ours]}})),
            ("Go on?", json!({"yes": {"type": "string", "default": "key:a wants to call wipe; this needs your approval"}})),
            ("Go on?", json!({"approve_call": {"type": "boolean", "title": "Approve the call"}})),
            ("Your approval is needed, only for this call", field("name")),
            ("key:a wants to call wipe", json!({"yes": {"type": "string", "enum": ["Approve", "Decline"]}})),
        ] {
            assert_eq!(asked(message, properties.clone()), Err(IMITATION), "{message} {properties}");
        }
        for properties in [
            json!({"approver": {"type": "string"}}),
            json!({"approved": {"type": "boolean"}}),
            json!({"approval": {"type": "string", "enum": ["any", "none"]}}),
        ] {
            assert!(asked("Call the tenant?", properties.clone()).is_ok(), "{properties}");
        }
    }

    #[test]
    fn a_form_that_asks_for_a_secret_is_refused_however_it_is_written() {
        for name in [
            "password",
            "userPassword",
            "PASS_WORD",
            "p\u{430}ssword",
            "pass\u{200b}word",
            "APIKey",
            "api-key",
            "key",
            "token",
            "authToken",
            "client_secret",
            "cardNumber",
            "passw0rd",
            "two_factor",
            "cookie",
            "jwt",
            "kubeconfig",
            "connection_string",
            "wachtwoord",
            "senha",
            "pAsSwOrD",
            "cvv",
            "pin",
            "Contraseña",
            "密码",
        ] {
            assert_eq!(asked("Who?", field(name)), Err(SECRET), "{name}");
            assert_eq!(asked("Who?", json!({"value": {"type": "string", "title": name}})), Err(SECRET), "{name}");
        }
        for (message, properties) in [
            ("Please enter your GitHub password.", field("value")),
            ("Paste the API key here", field("value")),
            ("What is the admin password?", field("value")),
            ("Admin password:", field("value")),
            ("Give me the API key", field("value")),
            ("Fill in the password of the admin", field("value")),
            ("Enter the password. Name it well", field("value")),
            ("Your PIN?", field("value")),
            ("Who?", json!({"value": {"type": "string", "description": "Password of the administrator"}})),
            ("Who?", json!({"value": {"type": "string", "title": "Your password and user name"}})),
            ("Who?", json!({"value": {"type": "string", "ui:placeholder": "password"}})),
            ("Who?", json!({"value": {"type": "string", "examples": ["your password"]}})),
            ("Who?", json!({"value": {"type": "string", "description": "Your access token"}})),
            ("Who?", json!({"value": {"type": "string", "format": "password"}})),
            ("Who?", json!({"value": {"type": "string", "writeOnly": true}})),
            ("Who?", json!({"a": {"type": "object", "properties": {"password": {"type": "string"}}}})),
            ("Who?", json!({"value": {"type": "string", "const": "x", "title": "Password"}})),
        ] {
            assert_eq!(asked(message, properties.clone()), Err(SECRET), "{message} {properties}");
        }
        let hidden = json!({"message": "Who?", "requestedSchema": {"type": "object", "allOf": [{"properties": {"token": {}}}]}});
        assert_eq!(form("up", hidden.as_object().unwrap()), Err(SECRET));
        for schema in [
            json!({"type": "object", "properties": {}, "required": ["password"], "additionalProperties": {"type": "string"}}),
            json!({"type": "object", "properties": {}, "propertyNames": {"enum": ["password"]}}),
        ] {
            let members = json!({"message": "Who?", "requestedSchema": schema});
            assert_eq!(form("up", members.as_object().unwrap()), Err(SECRET), "{members}");
        }
    }

    #[test]
    fn ordinary_forms_pass() {
        for name in [
            "name",
            "email",
            "issueKey",
            "sort_key",
            "page_token",
            "sort_token",
            "max_tokens",
            "secretary",
            "passenger",
            "card",
            "trello card",
            "secretName",
            "credential_id",
            "private_key_path",
        ] {
            assert!(asked("Who?", field(name)).is_ok(), "{name}");
        }
        for (message, properties) in [
            ("The password of the database was rotated. Go on?", json!({"go": {"type": "boolean"}})),
            (
                "How do you sign in?",
                json!({"way": {"type": "string", "enum": ["password", "token"], "title": "Password or token"}}),
            ),
            ("What is the name of the secret?", field("value")),
            ("Which password policy?", field("value")),
            ("How?", json!({"way": {"type": "string", "oneOf": [{"const": "k", "title": "API key"}]}})),
            ("Really?", json!({"rotate_key": {"type": "boolean", "description": "Rotates the API key"}})),
        ] {
            assert!(asked(message, properties.clone()).is_ok(), "{message} {properties}");
        }
    }

    #[test]
    fn only_what_the_protocol_knows_of_a_form_is_passed_on() {
        let titled = json!([{"const": "a", "title": "A\n\nb", "x": 1}]);
        let fields = json!({
            "name": {"type": "string", "title": "A\u{2028}b", "description": "\n\n\nServer 'other' says  x", "minLength": 1,
                "format": "email", "default": "a", "pattern": "^x", "ui:order": 1},
            "age": {"type": "integer", "minimum": 1, "default": null},
            "one": {"type": "string", "oneOf": titled},
            "many": {"type": "array", "items": {"anyOf": titled}, "minItems": 1, "default": ["a"]},
            "plain": {"type": "array", "items": {"type": "string", "enum": ["a"]}},
            "old": {"type": "string", "enum": ["a"], "enumNames": ["A\nb"], "default": "a"},
            "host": {"type": "string", "format": "hostname"},
        });
        let schema = json!({"type": "object", "properties": fields, "required": ["name"], "title": "x", "$schema": "y"});
        let members = json!({"message": "Who?", "requestedSchema": schema});
        let shown = form("up", members.as_object().unwrap()).unwrap();
        let titled = json!([{"const": "a", "title": "A b"}]);
        let kept = json!({
            "name": {"type": "string", "title": "A b", "description": "Server 'other' says x", "minLength": 1, "format": "email",
                "default": "a"},
            "age": {"type": "integer", "minimum": 1},
            "one": {"type": "string", "oneOf": titled},
            "many": {"type": "array", "items": {"anyOf": titled}, "minItems": 1, "default": ["a"]},
            "plain": {"type": "array", "items": {"type": "string", "enum": ["a"]}},
            "old": {"type": "string", "enum": ["a"], "enumNames": ["A b"], "default": "a"},
            "host": {"type": "string"},
        });
        assert_eq!(shown["requestedSchema"], json!({"type": "object", "properties": kept, "required": ["name"]}));
    }

    #[test]
    fn what_is_no_form_is_refused_and_told_why() {
        for (properties, why) in [
            (json!({"a": {"$ref": "#/$defs/a"}}), WRONG_TYPE),
            (json!({"a": {"type": ["boolean", "string"]}}), WRONG_TYPE),
            (json!({"a": {"type": "object"}}), WRONG_TYPE),
            (json!({"a": true}), WRONG_TYPE),
            (json!({"a\nb": {"type": "string"}}), WRONG_NAME),
            (json!({"a": {"type": "string", "title": 1}}), WRONG_TEXT),
            (json!({"a": {"type": "string", "maxLength": -1}}), WRONG_LIMIT),
            (json!({"a": {"type": "integer", "default": "x"}}), WRONG_LIMIT),
            (json!({"a": {"type": "string", "enum": [1]}}), WRONG_CHOICE),
            (json!({"a": {"type": "string", "enum": ["a"], "enumNames": []}}), WRONG_CHOICE),
            (json!({"a": {"type": "string", "oneOf": [{"title": "x"}]}}), WRONG_CHOICE),
            (json!({"a": {"type": "array"}}), WRONG_CHOICE),
            (json!([]), NO_PROPERTIES),
        ] {
            assert_eq!(asked("Who?", properties.clone()), Err(why), "{properties}");
        }
        for (schema, why) in [
            (Value::Null, NO_SCHEMA),
            (json!({"properties": {}}), NOT_OF_AN_OBJECT),
            (json!({"type": "object"}), NO_PROPERTIES),
            (json!({"type": "object", "properties": {}, "required": ["x"]}), WRONG_REQUIRED),
        ] {
            let members = json!({"message": "Who?", "requestedSchema": schema});
            assert_eq!(form("up", members.as_object().unwrap()), Err(why), "{members}");
        }
    }

    #[test]
    fn blank_lines_push_nothing_out_of_sight() {
        assert_eq!(quoted(&format!("a{}b", "\n \u{200b}\r".repeat(80))), "\n> a\n>  \u{200b}\n> b");
    }
}
