//! The whole description gone through: which operations are selected, what they are called, which are left out and why.
//!
//! Guards that names are stable and never taken twice, and that what is left out is counted. Must not send anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::Method;
use portcullis_model::{RiskClass, ToolName, ToolSpec, WriteCategory};
use portcullis_ports::{DRY_RUN, Report, Standing};
use serde_json::{Map, Value, json};

use crate::document::Document;
use crate::plan::{Described, Known, Operation, Plan};
use crate::preview::Reader;
use crate::schema::Schemas;
use crate::select::{Candidate, is_named, selected};
use crate::settings::ApiSettings;
use crate::text::tidy;

/// Methods an operation can have; `trace` echoes headers, credentials included, and is never called.
const METHODS: [&str; 7] = ["get", "head", "options", "post", "put", "patch", "delete"];
/// Longest name of a tool: what model providers take.
const LONGEST_NAME: usize = 64;
/// Names shown in one line of a report.
const SHOWN: usize = 5;

/// What came of a description.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) tools: Vec<Surveyed>,
    pub(crate) reports: Vec<Report>,
}

/// One operation as a tool.
#[derive(Debug)]
pub(crate) struct Surveyed {
    pub(crate) spec: Arc<ToolSpec>,
    pub(crate) plan: Plan,
    /// What reads what it changes, where that is offered too.
    pub(crate) reader: Option<Reader>,
}

/// One selected operation before it is made ready.
struct Chosen<'d> {
    described: Described<'d>,
    id: Option<&'d str>,
    /// As an operator calls it.
    called: String,
}

/// Goes through a description.
pub(crate) fn survey(document: &Document, settings: &ApiSettings) -> Survey {
    let about = format!("api {}", settings.name);
    let attention = |detail: String| Report { name: about.clone(), standing: Standing::Attention, detail };
    let mut survey = Survey::default();
    let (chosen, deprecated) = choose(document, settings);
    let (credentials, schemes) = credentials(document);
    if chosen.len() > settings.max_tools {
        let said = format!(
            "{} operations are selected and max_tools is {}: nothing is offered; say less in allow, or more in max_tools",
            chosen.len(),
            settings.max_tools
        );
        survey.reports.push(attention(said));
        return survey;
    }
    let names = names(&chosen, settings);
    let mut schemas = Schemas::new(document);
    let mut paths = Vec::new();
    let mut left_out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut notes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (chosen, name) in chosen.iter().zip(&names) {
        let own = settings.operations.iter().find(|o| chosen.is_called(&o.operation));
        let known = Known { settings: own, credentials: &credentials, max_schema: settings.max_schema.0 };
        match Operation::of(document, chosen.described, known, &mut schemas).and_then(|ready| finished(ready, name, settings)) {
            Ok((spec, plan, said)) => {
                for note in said {
                    notes.entry(note).or_default().push(chosen.called.clone());
                }
                survey.tools.push(Surveyed { spec, plan, reader: None });
                paths.push(chosen.described.path);
            }
            Err(why) => left_out.entry(why).or_default().push(chosen.called.clone()),
        }
    }
    pair(&mut survey.tools, &paths);
    for (what, list) in [("left out", &left_out), ("to know", &notes)] {
        for (why, operations) in list {
            survey.reports.push(attention(format!("{what}: {}: {why}", some(operations))));
        }
    }
    if deprecated > 0 {
        survey.reports.push(attention(format!(
            "left out: {deprecated} operations are deprecated; name them in allow.operations to have them"
        )));
    }
    survey.reports.extend(unmatched(document, settings).into_iter().map(attention));
    if let Some(missing) = schemes.filter(|_| settings.auth.is_none()) {
        survey.reports.push(attention(format!("its operations want a credential ({missing}) and auth is not set")));
    }
    let standing = if survey.tools.is_empty() { Standing::Attention } else { Standing::On };
    let out: usize = left_out.values().map(Vec::len).sum();
    let digest: String = document.digest.chars().take(16).collect();
    let detail =
        format!("{} tools of OpenAPI {} (sha256 {digest}…), {out} operations left out", survey.tools.len(), document.version);
    survey.reports.insert(0, Report { name: about.clone(), standing, detail });
    survey
}

/// Gives each tool that writes the one that reads at the same path, where one is offered.
fn pair(tools: &mut [Surveyed], paths: &[&str]) {
    let mut readers: BTreeMap<&str, Reader> = BTreeMap::new();
    for (tool, path) in tools.iter().zip(paths) {
        if tool.plan.method == Method::GET && tool.spec.risk == RiskClass::Read && tool.plan.needs_path_only() {
            readers.insert(path, Reader { tool: tool.spec.name.to_string(), plan: tool.plan.clone() });
        }
    }
    for (tool, path) in tools.iter_mut().zip(paths).filter(|(tool, _)| tool.spec.risk != RiskClass::Read) {
        tool.reader = readers.get(path).cloned();
    }
}

fn some(names: &[String]) -> String {
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

impl Chosen<'_> {
    fn is_called(&self, name: &str) -> bool {
        Candidate { method: self.described.method, path: self.described.path, id: self.id, tags: &[] }.is_called(name)
    }
}

/// Every operation of the description.
fn operations(document: &Document) -> impl Iterator<Item = (Described<'_>, Option<&str>, Vec<String>)> {
    document.paths().flat_map(|(path, item)| {
        let item = document.object(item).ok();
        METHODS.iter().filter_map(move |method| {
            let members = item?.get(*method)?.as_object()?;
            let upper = match *method {
                "get" => "GET",
                "head" => "HEAD",
                "options" => "OPTIONS",
                "post" => "POST",
                "put" => "PUT",
                "patch" => "PATCH",
                _ => "DELETE",
            };
            let tags = members.get("tags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            let described = Described { method: upper, path, members, shared: item?.get("parameters") };
            Some((described, members.get("operationId").and_then(Value::as_str), tags.map(str::to_owned).collect()))
        })
    })
}

/// The selected operations, and how many more were left out for being deprecated.
fn choose<'d>(document: &'d Document, settings: &ApiSettings) -> (Vec<Chosen<'d>>, usize) {
    let mut chosen = Vec::new();
    let mut deprecated = 0;
    for (described, id, tags) in operations(document) {
        let candidate = Candidate { method: described.method, path: described.path, id, tags: &tags };
        if !selected(candidate, &settings.allow, &settings.deny) {
            continue;
        }
        if described.members.get("deprecated") == Some(&Value::Bool(true)) && !is_named(candidate, &settings.allow) {
            deprecated += 1;
            continue;
        }
        let called = id.map_or_else(|| format!("{} {}", described.method, described.path), str::to_owned);
        chosen.push(Chosen { described, id, called: tidy(&called, 100) });
    }
    (chosen, deprecated)
}

/// Settings that mean no operation at all.
fn unmatched(document: &Document, settings: &ApiSettings) -> Vec<String> {
    let all: Vec<(Described<'_>, Option<&str>, Vec<String>)> = operations(document).collect();
    let candidates = || all.iter().map(|(d, id, tags)| Candidate { method: d.method, path: d.path, id: *id, tags });
    let mut said = Vec::new();
    for (index, selector) in settings.allow.iter().enumerate() {
        if !candidates().any(|candidate| selected(candidate, std::slice::from_ref(selector), &[])) {
            said.push(format!("allow.{index} fits no operation"));
        }
    }
    let named = settings.operations.iter().map(|o| ("operations", &o.operation));
    let selected_by_name = settings.allow.iter().flat_map(|s| &s.operations).map(|o| ("allow", o));
    let denied = settings.deny.iter().flat_map(|s| &s.operations).map(|o| ("deny", o));
    for (place, name) in named.chain(selected_by_name).chain(denied) {
        if !candidates().any(|candidate| candidate.is_called(name)) {
            said.push(format!("{place}: there is no operation '{}'", tidy(name, 80)));
        }
    }
    said
}

/// The names security schemes use for parameters, in lower case, and the schemes in words.
fn credentials(document: &Document) -> (Vec<String>, Option<String>) {
    let schemes = document.root().get("components").and_then(|c| c.get("securitySchemes")).and_then(Value::as_object);
    let mut names = Vec::new();
    let mut words = Vec::new();
    for scheme in schemes.into_iter().flatten().filter_map(|(_, scheme)| document.object(scheme).ok()) {
        let text = |key: &str| scheme.get(key).and_then(Value::as_str).unwrap_or_default();
        match text("type") {
            "apiKey" => {
                names.push(text("name").to_ascii_lowercase());
                words.push(format!("{} '{}'", text("in"), tidy(text("name"), 40)));
            }
            "http" => words.push(tidy(text("scheme"), 20)),
            other => words.push(tidy(other, 20)),
        }
    }
    let wanted = document.root().get("security").and_then(Value::as_array).is_some_and(|s| !s.is_empty())
        || operations(document).any(|(d, ..)| d.members.get("security").and_then(Value::as_array).is_some_and(|s| !s.is_empty()));
    words.dedup();
    (names, (wanted && !words.is_empty()).then(|| words.join(", ")))
}

/// One name for each operation, in the same order: of its id where that is one, else of method and path.
fn names(chosen: &[Chosen<'_>], settings: &ApiSettings) -> Vec<String> {
    let set = |one: &Chosen<'_>| settings.operations.iter().find(|o| one.is_called(&o.operation)).and_then(|o| o.name.clone());
    let by_place = |one: &Chosen<'_>| snake(&format!("{} {}", one.described.method, one.described.path));
    let mut wanted: Vec<String> = chosen
        .iter()
        .map(|one| {
            set(one).map(|n| snake(&n)).or_else(|| one.id.map(snake)).filter(|n| !n.is_empty()).unwrap_or_else(|| by_place(one))
        })
        .collect();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for name in &wanted {
        *counts.entry(name.clone()).or_default() += 1;
    }
    let mut taken = BTreeSet::new();
    for (name, one) in wanted.iter_mut().zip(chosen) {
        // Two of one name: both are called by what they are, so that neither depends on the order.
        if counts.get(name).is_some_and(|count| *count > 1) {
            *name = by_place(one);
        }
        let mut full = format!("{}_{name}", settings.name);
        if full.len() > LONGEST_NAME || taken.contains(&full) {
            let mark = crate::document::digest(format!("{} {}", one.described.method, one.described.path).as_bytes());
            let room = LONGEST_NAME - 7;
            full = format!("{}_{}", full.chars().take(room).collect::<String>().trim_end_matches('_'), &mark[..6]);
        }
        taken.insert(full.clone());
        *name = full;
    }
    wanted
}

/// `listPets` and `GET /pets/{id}` as `list_pets` and `get_pets_id`.
fn snake(text: &str) -> String {
    let mut name = String::new();
    let mut before = ' ';
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            if c.is_ascii_uppercase() && before.is_ascii_lowercase() {
                name.push('_');
            }
            name.push(c.to_ascii_lowercase());
        } else if !name.ends_with('_') && !name.is_empty() {
            name.push('_');
        }
        before = c;
    }
    name.trim_end_matches('_').to_owned()
}

/// The tool's specification.
fn finished(ready: Operation, name: &str, settings: &ApiSettings) -> Result<(Arc<ToolSpec>, Plan, Vec<String>), String> {
    let category = (ready.risk != RiskClass::Read).then(|| WriteCategory(Arc::from(format!("api:{}", settings.name))));
    let mut output = json!({"type": "object", "properties": Map::from_iter([("status".to_owned(), json!({"type": "integer"}))])});
    if ready.risk == RiskClass::Read {
        output["required"] = json!(["status"]);
    } else {
        output["properties"][DRY_RUN] = json!({"type": "object"});
        output["anyOf"] = json!([{"required": ["status"]}, {"required": [DRY_RUN]}]);
    }
    let spec = ToolSpec {
        name: ToolName::new(name).map_err(|e| e.to_string())?,
        title: Arc::from(ready.title.as_str()),
        description: Arc::from(ready.description.as_str()),
        risk: ready.risk,
        idempotent: ready.idempotent,
        open_world: true,
        category,
        input_schema: Arc::new(ready.schema),
        output_schema: Some(Arc::new(output)),
        completions: Vec::new(),
        shown: None,
    };
    Ok((Arc::new(spec), ready.plan, ready.notes))
}

#[cfg(test)]
mod tests;
