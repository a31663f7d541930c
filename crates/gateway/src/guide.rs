//! Too many tools: a listing that shows some of them, one tool that finds the others and one that calls them.
//!
//! Guards that neither is a way around anything: `find_tools` shows what the caller may call, by the question listing and
//! calling ask; a call through `call_tool` becomes the other tool's own call before it is validated, authorized, approved and
//! recorded. The two exist for a caller only while something is hidden from its listing.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use portcullis_guard::without_kinds;
use portcullis_lexicon::{Field, Lexicon};
use portcullis_model::{Fault, FaultCode, InvalidName, RiskClass, ToolName, ToolSpec};
use portcullis_policy::{Asked, Permit, Refusal};
use portcullis_ports::{Arguments, Exchange, Outcome, Output, Tool};
use portcullis_shape::{one_line, tokens};
use serde_json::{Map, Value, json};

use crate::catalogue::ToolEntry;
use crate::gate::{Gateway, House, Stop, not_like_this, unknown};
use crate::reach::Function;
use crate::{CallRequest, Caller};

/// The tool that finds tools.
pub const FIND_TOOLS: &str = "find_tools";
/// The tool that calls another one.
pub const CALL_TOOL: &str = "call_tool";

/// Tools that are shown when `limit` is left out, and at most.
const SHOWN: usize = 5;
const MOST_SHOWN: usize = 20;
/// Longest summary of one tool, in characters.
const SUMMARY: usize = 160;

/// Which tools a listing shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Exposure {
    /// All a caller may call.
    #[default]
    All,
    /// All a caller may call while they cost at most this many tokens (an estimate); beyond it the house's own tools, in the
    /// order they were registered, as far as they fit, and the two that find and call the others.
    Within(usize),
    /// Those whose name fits one of these patterns (`*` stands for any text), and the two that find and call the others.
    Only(Vec<String>),
}

impl Exposure {
    fn names(&self, name: &str) -> bool {
        matches!(self, Self::Only(patterns) if patterns.iter().any(|pattern| fits(pattern, name)))
    }
}

/// Whether a name fits a pattern in which `*` stands for any text.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(first) else { return false };
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

/// What a tool's entry in a listing costs, in estimated tokens.
pub(crate) fn cost(spec: &ToolSpec) -> usize {
    if let Some(shown) = &spec.shown {
        return tokens::estimate(&shown.to_string()) + tokens::estimate(spec.name.as_str());
    }
    let mut entry = json!({
        "name": spec.name.as_str(), "title": &*spec.title, "description": &*spec.description,
        "inputSchema": shown_schema(spec),
        "annotations": {"title": &*spec.title, "readOnlyHint": spec.risk == RiskClass::Read,
            "destructiveHint": spec.risk == RiskClass::Destructive, "idempotentHint": spec.idempotent, "openWorldHint": spec.open_world},
    });
    if let (Some(schema), Some(members)) = (&spec.output_schema, entry.as_object_mut()) {
        members.insert("outputSchema".into(), Value::clone(schema));
    }
    tokens::estimate(&entry.to_string())
}

/// The schema of the arguments as a client is shown it. What came from elsewhere is shown as its maker wrote it, and may say
/// more than what arguments are checked against.
fn shown_schema(spec: &ToolSpec) -> Value {
    let shown = spec.shown.as_ref().and_then(|shown| shown.get("inputSchema")).filter(|schema| schema.is_object());
    shown.cloned().unwrap_or_else(|| Value::Object(without_kinds(&spec.input_schema)))
}

/// A tool the gate answers itself. Its entry carries the description and the schema; nothing runs it.
struct GateTool(Arc<ToolSpec>);

#[async_trait]
impl Tool for GateTool {
    fn spec(&self) -> &Arc<ToolSpec> {
        &self.0
    }

    async fn run(&self, _: &Permit, _: Arguments, _: &dyn Exchange) -> Result<Outcome, Fault> {
        Err(Fault::new(FaultCode::Internal, "this tool is answered by the gate"))
    }
}

/// The two tools, and the words of all others.
pub(crate) struct Guide {
    exposure: Exposure,
    find: Arc<ToolSpec>,
    /// By the worst that can come of it: read, write, destructive.
    call: [Arc<ToolSpec>; 3],
    lexicon: Lexicon,
    /// The tools in the lexicon, in its order.
    known: Vec<Arc<ToolSpec>>,
}

impl Guide {
    pub(crate) fn new(exposure: Exposure) -> Result<Self, InvalidName> {
        let call = |risk| call_spec(risk).map(Arc::new);
        let call = [call(RiskClass::Read)?, call(RiskClass::Write)?, call(RiskClass::Destructive)?];
        Ok(Self { exposure, find: Arc::new(find_spec()?), call, lexicon: Lexicon::default(), known: Vec::new() })
    }

    pub(crate) fn tools(&self) -> [Arc<dyn Tool>; 2] {
        // What rules see of it: a call of `call_tool` alone does nothing, the tool it names is judged for what it is.
        [Arc::new(GateTool(self.find.clone())), Arc::new(GateTool(self.call[0].clone()))]
    }

    /// Takes in the words of the tools there are.
    pub(crate) fn learn<'a>(&mut self, specs: impl Iterator<Item = &'a Arc<ToolSpec>>) {
        self.known = specs.filter(|spec| !is_name_of_guide(spec)).cloned().collect();
        let arguments: Vec<String> = self.known.iter().map(|spec| argument_words(&shown_schema(spec))).collect();
        self.lexicon = Lexicon::build(self.known.iter().zip(&arguments).map(|(spec, arguments)| {
            [
                Field { weight: 2.5, text: spec.name.as_str() },
                Field { weight: 1.5, text: &spec.title },
                Field { weight: 1.0, text: &spec.description },
                Field { weight: 0.6, text: arguments },
            ]
        }));
    }
}

fn is_name_of_guide(spec: &ToolSpec) -> bool {
    matches!(spec.name.as_str(), FIND_TOOLS | CALL_TOOL)
}

fn spec(name: &str, title: &str, description: &str, risk: RiskClass, schema: Value) -> Result<ToolSpec, InvalidName> {
    Ok(ToolSpec {
        name: ToolName::new(name)?,
        title: title.into(),
        description: description.into(),
        risk,
        idempotent: risk == RiskClass::Read,
        open_world: false,
        category: None,
        input_schema: Arc::new(schema),
        output_schema: None,
        completions: Vec::new(),
        shown: None,
    })
}

fn find_spec() -> Result<ToolSpec, InvalidName> {
    let schema = json!({"type": "object", "additionalProperties": false, "properties": {
        "query": {"type": "string", "minLength": 1, "maxLength": 400, "description": "what you want to do, in words"},
        "detail": {"type": "string", "minLength": 1, "maxLength": 128, "description": "name of a tool: its full description and schema"},
        "limit": {"type": "integer", "minimum": 1, "maximum": MOST_SHOWN, "default": SHOWN}}});
    let description = "Not every tool is listed. Finds the ones for a task; call them with call_tool.";
    spec(FIND_TOOLS, "Find tools", description, RiskClass::Read, schema)
}

fn call_spec(risk: RiskClass) -> Result<ToolSpec, InvalidName> {
    let schema = json!({"type": "object", "additionalProperties": false, "required": ["name"], "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 128, "description": "as find_tools says"},
        "arguments": {"type": "object", "default": {}}}});
    spec(CALL_TOOL, "Call tool", "Calls a tool that find_tools found, by the rules of that tool.", risk, schema)
}

/// Names, descriptions and choices of arguments, as text to be searched.
fn argument_words(schema: &Value) -> String {
    let mut text = String::new();
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let _ = write!(text, "{name} {} ", property.get("description").and_then(Value::as_str).unwrap_or_default());
        let of_items = property.get("items").and_then(|items| items.get("enum"));
        for choice in property.get("enum").or(of_items).and_then(Value::as_array).into_iter().flatten() {
            let _ = write!(text, "{} ", choice.as_str().unwrap_or_default());
        }
    }
    text
}

/// What a call through [`CALL_TOOL`] stands for.
pub(crate) struct Inner {
    tool: String,
    arguments: Map<String, Value>,
}

impl House {
    pub(crate) fn is_guide(&self, spec: &ToolSpec) -> bool {
        self.catalogue.guide().is_some() && is_name_of_guide(spec)
    }

    /// Whether the caller may call this tool with some arguments.
    pub(crate) fn visible(&self, caller: &Caller, entry: &ToolEntry) -> bool {
        self.may_use(caller, Function::Tool(entry)).is_ok()
    }

    /// Tools beside the guide's that the rules let this caller call.
    fn others<'h>(&'h self, caller: &'h Caller) -> impl Iterator<Item = &'h ToolEntry> {
        let allowed = |entry: &&ToolEntry| self.permitted(caller, entry).is_ok();
        self.catalogue.entries().filter(|entry| !is_name_of_guide(entry.tool.spec())).filter(allowed)
    }

    /// Whether the listing of this caller leaves tools out. Never where it may not use the two tools that reach them.
    pub(crate) fn hides(&self, caller: &Caller) -> bool {
        let Some(guide) = self.catalogue.guide() else { return false };
        let permitted = |name: &str| self.catalogue.tool(name).is_some_and(|entry| self.permitted(caller, entry).is_ok());
        if !permitted(FIND_TOOLS) || !permitted(CALL_TOOL) {
            return false;
        }
        match &guide.exposure {
            Exposure::All => false,
            Exposure::Only(_) => self.others(caller).any(|entry| !guide.exposure.names(entry.tool.spec().name.as_str())),
            Exposure::Within(most) => {
                let mut tokens = 0;
                self.others(caller).any(|entry| {
                    tokens += entry.tokens;
                    tokens > *most
                })
            }
        }
    }

    /// The listing of this caller.
    pub(crate) fn listed(&self, caller: &Caller) -> Vec<Arc<ToolSpec>> {
        let spec = |entry: &ToolEntry| entry.tool.spec().clone();
        let Some(guide) = self.catalogue.guide().filter(|_| self.hides(caller)) else {
            let all = self.catalogue.entries().filter(|entry| self.visible(caller, entry));
            return all.map(spec).collect();
        };
        let others: Vec<&ToolEntry> = self.others(caller).collect();
        let worst = others.iter().map(|entry| entry.tool.spec().risk).max().unwrap_or(RiskClass::Read);
        let call = &guide.call[worst as usize];
        let mut listed = vec![guide.find.clone(), call.clone()];
        match &guide.exposure {
            Exposure::Within(most) => {
                let mut own: Vec<&ToolEntry> = others.into_iter().filter(|entry| entry.own.is_some()).collect();
                own.sort_by_key(|entry| entry.own);
                // The two themselves come on top: what fits alone stays listed when something is added from outside.
                let mut left = *most;
                for entry in own {
                    let Some(rest) = left.checked_sub(entry.tokens) else { break };
                    left = rest;
                    listed.push(spec(entry));
                }
            }
            exposure => {
                let named = |entry: &&ToolEntry| exposure.names(entry.tool.spec().name.as_str());
                listed.extend(others.into_iter().filter(named).map(spec));
            }
        }
        listed
    }

    /// Runs a tool, or answers for it where it is the guide's own.
    pub(crate) async fn perform(
        &self,
        caller: &Caller,
        entry: &ToolEntry,
        permit: &Permit,
        arguments: &Arguments,
        exchange: &dyn Exchange,
    ) -> Result<Outcome, Fault> {
        match self.catalogue.guide() {
            Some(guide) if self.is_guide(entry.tool.spec()) => self.answer(caller, guide, &arguments.0).map(Outcome::Complete),
            _ => entry.tool.run(permit, arguments.clone(), exchange).await,
        }
    }

    fn answer(&self, caller: &Caller, guide: &Guide, arguments: &Map<String, Value>) -> Result<Output, Fault> {
        let text = |name: &str| arguments.get(name).and_then(Value::as_str);
        match (text("query"), text("detail")) {
            (_, Some(name)) => self.detail(caller, name),
            (Some(query), None) => Ok(self.search(caller, guide, query, arguments.get("limit").and_then(Value::as_u64))),
            (None, None) => Err(Fault::invalid("neither query nor detail is given")
                .with_hint("query: what you want to do; detail: the name of a tool whose schema you want")),
        }
    }

    fn search(&self, caller: &Caller, guide: &Guide, query: &str, limit: Option<u64>) -> Output {
        let most = limit.and_then(|l| usize::try_from(l).ok()).unwrap_or(SHOWN).clamp(1, MOST_SHOWN);
        let entry = |number: usize| guide.known.get(number).and_then(|spec| self.catalogue.tool(spec.name.as_str()));
        let may_call = |number: usize| entry(number).is_some_and(|entry| self.visible(caller, entry));
        let found = guide.lexicon.find(query, may_call);
        let total = found.len();
        let shown: Vec<&Arc<ToolSpec>> = found.iter().take(most).filter_map(|f| guide.known.get(f.document)).collect();
        let mut text = String::new();
        for spec in &shown {
            let risk = if spec.risk == RiskClass::Read { String::new() } else { format!(" [{}]", spec.risk.as_str()) };
            let _ = writeln!(text, "{}({}){risk}: {}", spec.name, required(spec).join(", "), summary(spec));
        }
        if shown.is_empty() {
            text.push_str("no tool you may call has words of this task; say it in other words\n");
        } else {
            let _ = write!(text, "{} of {total} that share words with the task", shown.len());
            text.push_str(if shown.len() < total { "; narrow the words, or raise limit. " } else { ". " });
            text.push_str("detail shows the whole schema of one, call_tool calls it\n");
        }
        let tools: Vec<Value> = shown
            .iter()
            .map(|spec| {
                json!({"name": spec.name.as_str(), "summary": summary(spec), "required": required(spec), "risk": spec.risk.as_str()})
            })
            .collect();
        let structured = json!({"tools": tools, "shown": shown.len(), "total": total, "truncated": shown.len() < total});
        Output::structured(structured, text.trim_end())
    }

    fn detail(&self, caller: &Caller, name: &str) -> Result<Output, Fault> {
        let found = self.catalogue.tool(name).filter(|entry| self.visible(caller, entry));
        let Some(spec) = found.map(|entry| entry.tool.spec()) else { return Err(unknown("tool", name)) };
        let mut card = json!({"name": name, "title": &*spec.title, "description": &*spec.description,
            "risk": spec.risk.as_str(), "inputSchema": shown_schema(spec)});
        if let (Some(schema), Some(members)) = (&spec.output_schema, card.as_object_mut()) {
            members.insert("outputSchema".into(), Value::clone(schema));
        }
        let text = card.to_string();
        Ok(Output::structured(json!({"tool": card}), text))
    }
}

impl Gateway {
    /// Checks the call of [`CALL_TOOL`] itself, and turns the request into the one it stands for. The permit that comes of it
    /// confines the other tool's; it allows nothing alone.
    pub(crate) fn stand_in(
        &self,
        house: &House,
        caller: &Caller,
        entry: &ToolEntry,
        request: &mut CallRequest,
        deadline: Instant,
    ) -> Result<Permit, Stop> {
        let given = Value::Object(request.arguments.0.clone());
        // Texts inside are judged by the schema of the tool they are for, and only there.
        entry.schema.check_shape(&given).map_err(|fault| Stop::refused("argument-schema", fault))?;
        let (product, trace) = (caller.product.as_deref(), request.trace.clone());
        let (principal, tool) = (&*caller.principal, entry.tool.spec());
        let asked = Asked { principal, tool, arguments: &request.arguments.0, product, reach: None };
        let outer = house.policies.authorize_call(asked, deadline, self.budget, trace).map_err(|Refusal { rule }| {
            let fault = not_like_this(&rule);
            Stop::Refused(rule, fault)
        })?;
        let inner = inner(&request.arguments.0);
        if inner.tool == CALL_TOOL {
            let fault = Fault::invalid("call_tool does not call itself").with_hint("name: a tool that find_tools found");
            return Err(Stop::refused("argument-schema", fault));
        }
        request.tool = inner.tool;
        request.arguments = Arguments(inner.arguments);
        Ok(outer)
    }
}

fn inner(arguments: &Map<String, Value>) -> Inner {
    let tool = arguments.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    Inner { tool, arguments: arguments.get("arguments").and_then(Value::as_object).cloned().unwrap_or_default() }
}

fn required(spec: &ToolSpec) -> Vec<&str> {
    spec.input_schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The first sentence of the description, or its beginning.
fn summary(spec: &ToolSpec) -> String {
    let first = spec.description.split_inclusive(". ").next().unwrap_or_default().trim_end();
    one_line(if first.is_empty() { &spec.title } else { first }, SUMMARY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names() {
        for (pattern, name, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*", "", true),
            ("query_*", "list_x", false),
            ("*_logs", "query_logs", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "ac", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_shown_is_what_it_costs() {
        let mut tool = find_spec().unwrap();
        let before = cost(&tool);
        // Arguments are checked against next to nothing, and the listing holds all of it.
        tool.input_schema = Arc::new(json!({"type": "object"}));
        let large = json!({"type": "object", "properties": {"a": {"$ref": "#/nowhere", "description": "word ".repeat(40_000)}}});
        tool.shown = Some(Arc::new(json!({"name": "far", "inputSchema": large})));
        assert!(cost(&tool) > before + 20_000, "{} tokens", cost(&tool));
        assert_eq!(shown_schema(&tool), large);
    }

    #[test]
    fn the_two_tools_are_cheap() {
        let both = cost(&find_spec().unwrap()) + cost(&call_spec(RiskClass::Destructive).unwrap());
        assert!(both <= 400, "{both} tokens");
    }
}
