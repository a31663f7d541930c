//! From one operation of a description to what a tool needs: its specification, and how its arguments become a request.
//!
//! Guards that an operation which cannot be called rightly is left out with a reason, and that nothing but described
//! arguments reaches a request. Must not send anything.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use portcullis_egress::{EgressRequest, PathTemplate, RefusedValue};
use portcullis_guard::ArgumentSchema;
use portcullis_model::{Fault, RiskClass};
use portcullis_ports::{DRY_RUN, dry_run_argument};
use serde_json::{Map, Value, json};

use crate::document::Document;
use crate::parameter::{Fate, Parameter, Place, judge, nested, scalar};
use crate::schema::{SchemaError, Schemas};
use crate::settings::OperationSettings;
use crate::text::{first_sentence, tidy};

/// The argument that carries on an answer; no parameter of an API is called so.
pub(crate) const CURSOR: &str = "answer_cursor";
/// The argument for a body that is more than a list of members.
const BODY: &str = "body";
/// Longest description of a tool, in characters.
const DESCRIPTION: usize = 320;

/// What the body is made of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    /// There is none.
    None,
    /// JSON of the members: argument and name.
    JsonMembers(Vec<(String, String)>),
    /// JSON of one argument.
    JsonWhole,
    /// A form of the members: argument, name, and whether objects are written as `name[key]`.
    Form(Vec<(String, String, bool)>),
}

/// How arguments become a request.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) method: Method,
    path: PathTemplate,
    parameters: Vec<Parameter>,
    body: Body,
    /// Media type of a JSON body, where it is another than `application/json`.
    json_type: Option<String>,
}

/// An operation made ready.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) plan: Plan,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) risk: RiskClass,
    pub(crate) idempotent: bool,
    pub(crate) schema: Value,
    /// What an operator should know.
    pub(crate) notes: Vec<String>,
}

/// An operation as it stands in the description.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Described<'d> {
    pub(crate) method: &'d str,
    pub(crate) path: &'d str,
    pub(crate) members: &'d Map<String, Value>,
    /// Parameters of every operation of the path.
    pub(crate) shared: Option<&'d Value>,
}

/// What is known besides the description.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) settings: Option<&'a OperationSettings>,
    /// Names the security schemes use, in lower case.
    pub(crate) credentials: &'a [String],
    pub(crate) max_schema: u64,
}

/// Arguments while they are gathered.
struct Gathered {
    properties: Map<String, Value>,
    required: Vec<String>,
    taken: BTreeSet<String>,
    notes: Vec<String>,
}

impl Gathered {
    /// A name for a caller, of the letters model providers take.
    fn name(&mut self, wire: &str, otherwise: &str) -> String {
        let plain: String =
            wire.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' }).take(56).collect();
        let plain = plain.trim_matches('_').to_owned();
        let first = if plain.is_empty() { otherwise.to_owned() } else { plain };
        let mut name = first.clone();
        let mut number = 1;
        while !self.taken.insert(name.clone()) {
            name = if number == 1 { format!("{first}_{otherwise}") } else { format!("{first}_{otherwise}{number}") };
            number += 1;
        }
        name
    }
}

impl Operation {
    /// Makes an operation ready.
    ///
    /// # Errors
    /// Why it cannot be a tool.
    pub(crate) fn of(
        document: &Document,
        described: Described<'_>,
        known: Known<'_>,
        schemas: &mut Schemas<'_>,
    ) -> Result<Self, String> {
        let method = Method::from_bytes(described.method.as_bytes()).map_err(|_| "its method is none".to_owned())?;
        let path = PathTemplate::parse(described.path).map_err(|e| e.to_string())?;
        let mut gathered = Gathered {
            properties: Map::new(),
            required: Vec::new(),
            taken: BTreeSet::from([CURSOR.to_owned(), DRY_RUN.to_owned()]),
            notes: Vec::new(),
        };
        let parameters = parameters(document, described, known, schemas, &mut gathered)?;
        let inside: BTreeSet<&str> = parameters.iter().filter(|p| p.place == Place::Path).map(|p| p.wire.as_str()).collect();
        if inside != path.variables().collect::<BTreeSet<&str>>() {
            return Err("the arguments in its path and its path parameters are not the same".into());
        }
        let (body, json_type) = body(document, described.members, schemas, &mut gathered)?;
        let risk = known.settings.and_then(|s| s.risk).unwrap_or(match described.method {
            "GET" | "HEAD" | "OPTIONS" => RiskClass::Read,
            "DELETE" => RiskClass::Destructive,
            _ => RiskClass::Write,
        });
        if risk == RiskClass::Read {
            gathered
                .properties
                .insert(CURSOR.into(), json!({"type": "string", "maxLength": 512, "description": "'next' of the last answer"}));
        } else {
            gathered.properties.insert(DRY_RUN.into(), dry_run_argument());
        }
        let (schema, note) =
            schemas.finish(&gathered.properties, &gathered.required, known.max_schema).map_err(|e| e.to_string())?;
        gathered.notes.extend(note.map(str::to_owned));
        let schema = usable(schema, &mut gathered.notes)?;
        let by_method = matches!(described.method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE");
        let said = |key: &str| described.members.get(key).and_then(Value::as_str).unwrap_or_default();
        let own = format!("{} {}", described.method, described.path);
        let title = known.settings.and_then(|s| s.title.clone()).unwrap_or_else(|| {
            let title = tidy(said("summary"), 80);
            if title.is_empty() { own.clone() } else { title }
        });
        let description = known
            .settings
            .and_then(|s| s.description.clone())
            .unwrap_or_else(|| describe(said("summary"), said("description"), &own));
        Ok(Self {
            plan: Plan { method, path, parameters, body, json_type },
            title,
            description,
            risk,
            idempotent: known.settings.and_then(|s| s.idempotent).unwrap_or(by_method),
            schema,
            notes: gathered.notes,
        })
    }
}

/// Summary, first sentence of the description, and what is asked.
fn describe(summary: &str, description: &str, own: &str) -> String {
    let (summary, description) = (tidy(summary, DESCRIPTION), tidy(description, 4_000));
    let more = first_sentence(&description);
    let repeated = more.trim_end_matches('.').eq_ignore_ascii_case(summary.trim_end_matches('.'));
    let mut text = summary.clone();
    if !more.is_empty() && !repeated {
        if !text.is_empty() {
            text.push_str(if text.ends_with(['.', '!', '?']) { " " } else { ". " });
        }
        text.push_str(more);
    }
    let text = tidy(&text, DESCRIPTION);
    let stop = if text.is_empty() || text.ends_with(['.', '!', '?', ')']) { "" } else { "." };
    format!("{text}{stop} ({own})").trim_start().to_owned()
}

fn parameters(
    document: &Document,
    described: Described<'_>,
    known: Known<'_>,
    schemas: &mut Schemas<'_>,
    gathered: &mut Gathered,
) -> Result<Vec<Parameter>, String> {
    // Those of the operation replace those of the path, by name and place.
    let mut by_key: BTreeMap<(String, String), &Map<String, Value>> = BTreeMap::new();
    let mut order = Vec::new();
    for list in [described.shared, described.members.get("parameters")].into_iter().flatten() {
        for parameter in list.as_array().into_iter().flatten() {
            let members = document.object(parameter).map_err(|e| e.to_string())?;
            let text = |key: &str| members.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let key = (text("in"), text("name"));
            if by_key.insert(key.clone(), members).is_none() {
                order.push(key);
            }
        }
    }
    let mut parameters = Vec::new();
    for key in order {
        let Some(members) = by_key.get(&key) else { continue };
        let in_content = members.get("content").and_then(|c| c.get("application/json")).and_then(|c| c.get("schema"));
        let schema = members.get("schema").or(in_content).cloned().unwrap_or_else(|| json!({}));
        let taken = schemas.take(&schema).map_err(|e| e.to_string())?;
        let mut opened = schemas.opened(&taken);
        let kind = kind_of(&opened);
        let mut parameter = match judge(members, kind.as_deref(), known.credentials) {
            Fate::Refused(why) => return Err(why),
            Fate::Dropped(why) => {
                gathered.notes.push(why);
                continue;
            }
            Fate::Taken(parameter) => parameter,
        };
        let otherwise = match parameter.place {
            Place::Path => "path",
            Place::Query => "query",
            Place::Header => "header",
        };
        parameter.argument = gathered.name(&parameter.wire, otherwise);
        let Some(property) = opened.as_object_mut() else { return Err(format!("'{}' takes no value", parameter.wire)) };
        if let Some(said) =
            members.get("description").and_then(Value::as_str).map(|text| tidy(text, 200)).filter(|text| !text.is_empty())
        {
            property.insert("description".into(), said.into());
        }
        say_default(property);
        if parameter.place == Place::Path {
            confine(property);
        }
        if parameter.required {
            gathered.required.push(parameter.argument.clone());
        }
        gathered.properties.insert(parameter.argument.clone(), opened);
        parameters.push(parameter);
    }
    Ok(parameters)
}

/// Says the default in words: rules take a `default` for a value of the call, and what is not sent is the API's to fill in.
fn say_default(property: &mut Map<String, Value>) {
    let Some(default) = property.shift_remove("default").filter(|default| !default.is_null()) else { return };
    let said = property.get("description").and_then(Value::as_str).unwrap_or_default();
    let said = tidy(&format!("{said} (default {default})"), 240);
    property.insert("description".into(), said.into());
}

/// Tells the gate that texts of this property are segments of a path.
fn confine(property: &mut Map<String, Value>) {
    property.insert("x-portcullis-kind".into(), "path_segment".into());
    if let Some(items) = property.get_mut("items").and_then(Value::as_object_mut) {
        items.insert("x-portcullis-kind".into(), "path_segment".into());
    }
}

/// The one type a schema has beside `null`.
fn kind_of(schema: &Value) -> Option<String> {
    match schema.get("type") {
        Some(Value::String(one)) => Some(one.clone()),
        Some(Value::Array(several)) => {
            let named: Vec<&str> = several.iter().filter_map(Value::as_str).filter(|t| *t != "null").collect();
            if let [one] = named.as_slice() { Some((*one).to_owned()) } else { None }
        }
        _ if schema.get("properties").is_some() => Some("object".into()),
        _ if schema.get("items").is_some() => Some("array".into()),
        _ => None,
    }
}

/// The media type of a body this can write, and its description.
fn media(content: &Map<String, Value>) -> Option<(Written, &Value)> {
    let essence = |name: &str| name.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let named = |wanted: &str| content.iter().find(|(name, _)| essence(name) == wanted).map(|(_, media)| media);
    // Plain JSON first, then the patch that says what it does, then whatever is JSON.
    if let Some(media) = named("application/json").or_else(|| named("*/*")) {
        return Some((Written::Json(None), media));
    }
    let merge = "application/merge-patch+json";
    if let Some(media) = named(merge) {
        return Some((Written::Json(Some(merge.into())), media));
    }
    if let Some((name, media)) = content.iter().find(|(name, _)| essence(name).ends_with("+json")) {
        return Some((Written::Json(Some(essence(name))), media));
    }
    named("application/x-www-form-urlencoded").map(|media| (Written::Form, media))
}

/// How a body is written.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Written {
    /// JSON, of the media type where it is no plain JSON.
    Json(Option<String>),
    Form,
}

fn body(
    document: &Document,
    members: &Map<String, Value>,
    schemas: &mut Schemas<'_>,
    gathered: &mut Gathered,
) -> Result<(Body, Option<String>), String> {
    let Some(described) = members.get("requestBody") else { return Ok((Body::None, None)) };
    let described = document.object(described).map_err(|e| e.to_string())?;
    let needed = described.get("required") == Some(&Value::Bool(true));
    let content = described.get("content").and_then(Value::as_object);
    let Some((written, media)) = content.and_then(media) else {
        let kinds: Vec<String> = content.into_iter().flatten().map(|(name, _)| tidy(name, 60)).collect();
        let why = format!("its body is {}, which is not written", kinds.join(" or "));
        if needed {
            return Err(why);
        }
        gathered.notes.push(why);
        return Ok((Body::None, None));
    };
    let (is_form, json_type) = match written {
        Written::Form => (true, None),
        Written::Json(kind) => (false, kind),
    };
    let whole = json!({});
    let taken = schemas.take(media.get("schema").unwrap_or(&whole)).map_err(|e: SchemaError| e.to_string())?;
    let opened = schemas.opened(&taken);
    let deep = |name: &str| {
        media.get("encoding").and_then(|e| e.get(name)).and_then(|e| e.get("style")).and_then(Value::as_str) == Some("deepObject")
    };
    let Some(flat) = flat(&opened).filter(|_| needed || is_form) else {
        if is_form {
            return Err("its form is no list of members".into());
        }
        gathered.taken.insert(BODY.into());
        if gathered.properties.contains_key(BODY) {
            return Err("a parameter is called 'body'".into());
        }
        gathered.properties.insert(BODY.into(), opened);
        if needed {
            gathered.required.push(BODY.into());
        }
        return Ok((Body::JsonWhole, json_type));
    };
    let wanted: BTreeSet<&str> =
        opened.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let mut names = Vec::new();
    for (wire, schema) in flat {
        let argument = gathered.name(wire, "body");
        let mut property = schemas.opened(schema);
        property.as_object_mut().map(say_default);
        gathered.properties.insert(argument.clone(), property);
        if needed && wanted.contains(wire.as_str()) {
            gathered.required.push(argument.clone());
        }
        names.push((argument, wire.clone()));
    }
    let body = if is_form {
        Body::Form(
            names
                .into_iter()
                .map(|(argument, wire)| {
                    let deep = deep(&wire);
                    (argument, wire, deep)
                })
                .collect(),
        )
    } else {
        Body::JsonMembers(names)
    };
    Ok((body, json_type))
}

/// The members of an object that says which it has and nothing else about them.
fn flat(schema: &Value) -> Option<&Map<String, Value>> {
    let members = schema.as_object()?;
    let known = ["type", "properties", "required", "description", "additionalProperties"];
    let plain = members.keys().all(|key| known.contains(&key.as_str()));
    let closed = matches!(members.get("additionalProperties"), None | Some(Value::Bool(false)));
    let object = members.get("type").is_none_or(|kind| kind == "object");
    let properties = members.get("properties").and_then(Value::as_object).filter(|p| !p.is_empty() && p.len() <= 40)?;
    (plain && closed && object).then_some(properties)
}

/// A schema the gate can compile. Patterns of another dialect are left to the API to judge.
fn usable(mut schema: Value, notes: &mut Vec<String>) -> Result<Value, String> {
    let Err(fault) = ArgumentSchema::compile("operation", &schema) else { return Ok(schema) };
    without_patterns(&mut schema);
    match ArgumentSchema::compile("operation", &schema) {
        Ok(_) => {
            notes.push("its patterns are not checked here".into());
            Ok(schema)
        }
        Err(_) => Err(tidy(&fault.to_string(), 300)),
    }
}

fn without_patterns(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if members.get("pattern").is_some_and(Value::is_string) {
                members.shift_remove("pattern");
            }
            members.shift_remove("patternProperties");
            members.values_mut().for_each(without_patterns);
        }
        Value::Array(items) => items.iter_mut().for_each(without_patterns),
        _ => {}
    }
}

impl Plan {
    fn json(&self, request: EgressRequest, value: Value) -> EgressRequest {
        match &self.json_type {
            None => request.json(value),
            Some(kind) => request.bytes(kind, value.to_string().into_bytes().into()),
        }
    }

    /// The parts of the path: name and argument.
    pub(crate) fn places(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters.iter().filter(|p| p.place == Place::Path).map(|p| (p.wire.as_str(), p.argument.as_str()))
    }

    /// Whether it changes what is at its own address.
    pub(crate) fn changes_a_place(&self) -> bool {
        [Method::PUT, Method::PATCH, Method::DELETE].contains(&self.method)
    }

    /// Whether a request can be made of the path alone.
    pub(crate) fn needs_path_only(&self) -> bool {
        self.body == Body::None && self.parameters.iter().all(|p| p.place == Place::Path || !p.required)
    }

    /// The argument that is this part of the path.
    pub(crate) fn place_of(&self, wire: &str) -> Option<&str> {
        self.parameters.iter().find(|p| p.place == Place::Path && p.wire == wire).map(|p| p.argument.as_str())
    }

    /// The request for these arguments.
    ///
    /// # Errors
    /// [`FaultCode::InvalidArgument`](portcullis_model::FaultCode) naming the argument and what is wrong with it.
    pub(crate) fn request(&self, arguments: &Map<String, Value>) -> Result<EgressRequest, Fault> {
        let given = |name: &str| arguments.get(name).filter(|value| !value.is_null());
        let wrong = |argument: &str, why: String| Fault::invalid(format!("{argument} {why}"));
        let mut in_path: BTreeMap<&str, String> = BTreeMap::new();
        for parameter in self.parameters.iter().filter(|p| p.place == Place::Path) {
            if let Some(value) = given(&parameter.argument) {
                let text = Parameter::text(value).map_err(|why| wrong(&parameter.argument, why))?;
                in_path.insert(&parameter.wire, text);
            }
        }
        let mut request = self.path.request(self.method.clone(), |name| in_path.get(name).cloned()).map_err(|refused| {
            let fault = Fault::invalid(refused.to_string());
            match refused {
                RefusedValue::Missing { .. } => fault,
                RefusedValue::Value { .. } => fault.with_internal("an argument would have left its segment of the path"),
            }
        })?;
        for parameter in &self.parameters {
            let Some(value) = given(&parameter.argument) else { continue };
            match parameter.place {
                Place::Path => {}
                Place::Query => {
                    request = request.query_pairs(parameter.pairs(value).map_err(|why| wrong(&parameter.argument, why))?);
                }
                Place::Header => {
                    let text = Parameter::text(value).map_err(|why| wrong(&parameter.argument, why))?;
                    if text.chars().any(|c| !c.is_ascii() || c.is_ascii_control()) {
                        return Err(wrong(&parameter.argument, "goes into a header, which holds visible ASCII only".into()));
                    }
                    request = request.header(&parameter.wire, text);
                }
            }
        }
        Ok(match &self.body {
            Body::None => request,
            Body::JsonWhole => match given(BODY) {
                Some(value) => self.json(request, value.clone()),
                None => request,
            },
            Body::JsonMembers(names) => {
                // A member that is null was given on purpose: it is sent.
                let members = names.iter().filter_map(|(argument, wire)| Some((wire.clone(), arguments.get(argument)?.clone())));
                self.json(request, Value::Object(members.collect()))
            }
            Body::Form(names) => {
                let mut pairs = Vec::new();
                for (argument, wire, deep) in names {
                    let Some(value) = given(argument) else { continue };
                    form_pairs(wire, value, *deep, &mut pairs).map_err(|why| wrong(argument, why))?;
                }
                request.form(pairs)
            }
        })
    }
}

fn form_pairs(wire: &str, value: &Value, deep: bool, pairs: &mut Vec<(String, String)>) -> Result<(), String> {
    match value {
        Value::Array(_) | Value::Object(_) if deep => nested(wire, value, pairs, 0),
        Value::Array(items) => items.iter().try_for_each(|item| {
            pairs.push((wire.to_owned(), scalar(item).unwrap_or_else(|| item.to_string())));
            Ok(())
        }),
        Value::Object(_) => {
            pairs.push((wire.to_owned(), value.to_string()));
            Ok(())
        }
        plain => {
            pairs.extend(scalar(plain).map(|text| (wire.to_owned(), text)));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
