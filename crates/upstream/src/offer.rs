//! From accepted definitions to what the catalogue takes: tools, prompts, resources. Guards that a tool calls the upstream it
//! was accepted from, with the definition that was accepted. Must not offer anything that waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use portcullis_model::{
    CompletionKind, Fault, FaultCode, PrincipalId, PromptArgument, PromptSpec, ResourceSpec, ResourceTemplateSpec, RiskClass,
    Scope, ToolName, ToolSpec, WriteCategory,
};
use portcullis_policy::Permit;
use portcullis_ports::{
    Arguments, Change, DRY_RUN, Exchange, Keeper, Offer, Outcome, Preview, Prompt, PromptOutput, ResourceOutput, ResourceReader,
    Sight, Suggestions, Taken, Tool, Typing, Watch, offer_dry_run, wants_dry_run,
};
use regex::Regex;
use serde_json::{Map, Value, json};

use crate::addresses::{is_no_resource, spellings, usual, with_usual_scheme};
use crate::claims::{Claims, fits_the_book};
use crate::content;
use crate::conversation::mirrored;
use crate::definition::Kind;
use crate::drive::{Answered, Work};
use crate::namer::{Namer, prefixed};
use crate::pins::Accepted;
use crate::server::Server;
use crate::templates::{pattern_of, variables_of};
use crate::watch::BY_CONFIGURATION;
use crate::{risk, schema, tasks};

/// The argument by which one of several upstreams of a kind is chosen.
const INSTANCE: &str = "instance";

/// Most values of a completion (MCP, completion/complete).
const MOST_VALUES: usize = 100;

/// What is accepted of one kind, by name, with who has it.
type ByName = BTreeMap<String, Vec<(Arc<Server>, Accepted)>>;

fn in_use(servers: &[Arc<Server>], kind: Kind) -> ByName {
    let mut all = ByName::new();
    for server in servers {
        let Some(pins) = server.pins.get() else { continue };
        let listed = server.listed.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        for (name, accepted) in pins.in_use(kind) {
            // What the upstream no longer lists is gone; an upstream that cannot be reached keeps what it had.
            if listed.as_ref().is_none_or(|listed| listed.contains(&(kind, name.clone()))) {
                all.entry(name).or_default().push((server.clone(), accepted));
            }
        }
    }
    all
}

/// Everything these servers offer now, whose names are held by `owners`. `left_out` gets what could not be offered, in words.
pub(crate) fn offer(
    servers: &[Arc<Server>],
    kind: Option<&str>,
    owners: &[String],
    taken: &Taken,
    left_out: &mut Vec<String>,
) -> Offer {
    let mut offer = Offer::default();
    let mut names = Namer::new(servers, Kind::Tool, owners, taken);
    offer.kept.tools = names.kept(servers, kind);
    for (name, holders) in in_use(servers, Kind::Tool) {
        let holders: Vec<_> = holders.into_iter().filter(|(server, _)| server.wants(Kind::Tool, &name)).collect();
        for tool in tools(&name, holders, kind.map(|kind| (kind, servers)), &mut names, left_out) {
            offer.tools.push(Arc::new(tool));
        }
    }
    offer.denied = names.denied();
    let mut names = Namer::new(servers, Kind::Prompt, owners, taken);
    offer.kept.prompts = names.kept(servers, kind);
    for (name, holders) in in_use(servers, Kind::Prompt) {
        for (server, accepted) in holders {
            let always = prefixed(&server, kind.is_some() && names.is_ambiguous(&name, &server));
            if let Some(shown) = names.choose(&name, &server.name, always) {
                offer.prompts.push(Arc::new(UpstreamPrompt::new(server, &name, &shown, accepted)));
            }
        }
    }
    offer.denied.extend(names.denied());
    let mut addresses = taken.addresses.clone();
    for server in servers {
        let claims = Claims::of(server, taken);
        let kept = claims.kept(&addresses);
        let reader = UpstreamResources::new(server.clone(), &claims, &kept, &mut addresses, left_out);
        offer.denied.extend(reader.denied.keys().map(|address| claims.denied(address)));
        offer.kept.addresses.extend(Claims::kept_for_others(&reader.denied));
        offer.kept.addresses.extend(kept);
        if !reader.is_empty() {
            offer.resources.push(Arc::new(reader));
        }
    }
    offer
}

/// The tools one accepted name becomes: one for all of a kind that offer it together, or one each.
fn tools(
    name: &str,
    holders: Vec<(Arc<Server>, Accepted)>,
    kind: Option<(&str, &[Arc<Server>])>,
    names: &mut Namer<'_>,
    left_out: &mut Vec<String>,
) -> Vec<UpstreamTool> {
    let mut made = Vec::new();
    if let Some((kind, servers)) = kind
        && let Some(together) = names.together(name, kind, servers, &holders)
    {
        let always = together.iter().any(|(server, _)| prefixed(server, false));
        if !together.is_empty()
            && let Some(chosen) = names.choose(name, kind, always)
        {
            made.extend(UpstreamTool::new(name, &chosen, together, Some(names.instances(name)), left_out));
        }
        return made;
    }
    for (server, accepted) in holders {
        let Some(chosen) = names.choose(name, &server.name, prefixed(&server, kind.is_some())) else { continue };
        made.extend(UpstreamTool::new(name, &chosen, vec![(server, accepted)], None, left_out));
    }
    made
}

/// One of the upstreams behind a tool.
struct Route {
    server: Arc<Server>,
    digest: String,
}

/// A tool of one upstream, or of several of a kind.
struct UpstreamTool {
    spec: Arc<ToolSpec>,
    remote: String,
    definition: Value,
    routes: Vec<Route>,
    merged: bool,
    /// The argument that makes a call a dry run of its own, and its value.
    dry: Option<(String, Value)>,
}

fn text(definition: &Value, name: &str) -> Option<Arc<str>> {
    definition.get(name).and_then(Value::as_str).map(Arc::from)
}

impl UpstreamTool {
    fn new(
        remote: &str,
        shown: &str,
        holders: Vec<(Arc<Server>, Accepted)>,
        instances: Option<Vec<Arc<str>>>,
        left_out: &mut Vec<String>,
    ) -> Option<Self> {
        let name = match ToolName::new(shown) {
            Ok(name) => name,
            Err(error) => {
                left_out.push(error.to_string());
                return None;
            }
        };
        let class = |(server, accepted): &(Arc<Server>, Accepted)| {
            risk::class(&server.settings.risk, remote, &accepted.definition, accepted.by != BY_CONFIGURATION)
        };
        let risk = holders.iter().map(class).max()?;
        let (first, accepted) = holders.first()?;
        let definition = accepted.definition.clone();
        let category = (risk != RiskClass::Read).then(|| WriteCategory(Arc::from(first.settings.category())));
        let mut checked =
            schema::checkable(definition.get("inputSchema").unwrap_or(&Value::Null)).unwrap_or_else(|_| schema::anything());
        let mut listed = definition.clone();
        first.bind_definition(&mut listed);
        let mut completions = Vec::new();
        let merged = instances.is_some();
        if let Some(instances) = instances {
            let argument = json!({"type": "string", "enum": instances, "description": "Which of them to ask."});
            add_instance(&mut checked, &argument);
            if let Some(shown) = listed.get_mut("inputSchema") {
                add_instance(shown, &argument);
            }
            completions.push((Arc::from(INSTANCE), CompletionKind::Fixed(instances)));
        }
        let dry = dry_run(&holders, remote, risk, &mut checked, &mut listed).unwrap_or_else(|why| {
            left_out.push(format!("tool '{}': dry_run: {why}", crate::watch::shown(remote)));
            None
        });
        let hint = |name: &str| definition.get("annotations").and_then(|a| a.get(name)).and_then(Value::as_bool);
        let title = text(&definition, "title").or_else(|| definition.get("annotations").and_then(|a| text(a, "title")));
        let spec = ToolSpec {
            title: title.unwrap_or_else(|| Arc::from(remote)),
            description: text(&definition, "description").unwrap_or_else(|| Arc::from("")),
            risk,
            idempotent: hint("idempotentHint") == Some(true),
            open_world: hint("openWorldHint") != Some(false),
            category,
            input_schema: Arc::new(checked),
            output_schema: definition.get("outputSchema").filter(|schema| schema.is_object()).cloned().map(Arc::new),
            completions,
            shown: Some(Arc::new(listed)),
            name,
        };
        let routes = holders.into_iter().map(|(server, accepted)| Route { server, digest: accepted.digest }).collect();
        Some(Self { spec: Arc::new(spec), remote: remote.to_owned(), definition, routes, merged, dry })
    }

    fn route(&self, arguments: &mut Map<String, Value>) -> Result<&Route, Fault> {
        let names = || self.routes.iter().map(|route| route.server.name.to_string()).collect::<Vec<_>>().join(", ");
        let chosen = if self.merged { arguments.shift_remove(INSTANCE) } else { None };
        let found = match chosen.as_ref().and_then(Value::as_str) {
            None if self.merged => None,
            None => self.routes.first(),
            Some(name) => {
                let found = self.routes.iter().find(|route| &*route.server.name == name);
                // The schema let the name through, so it is one of those that had it.
                return found.ok_or_else(|| {
                    Fault::new(FaultCode::Forbidden, "this instance does not offer it at the moment, or not as the others do")
                        .with_hint(format!("those that do are {}; the operator sees why with: portcullis doctor", names()))
                });
            }
        };
        found.ok_or_else(|| Fault::invalid("instance says which one is asked").with_hint(format!("it is one of {}", names())))
    }
}

/// The dry run of a tool that writes, by the operator's first rule for it at every server that has it, where the tool has that
/// argument. Adds ours to both schemas.
fn dry_run(
    holders: &[(Arc<Server>, Accepted)],
    remote: &str,
    risk: RiskClass,
    checked: &mut Value,
    listed: &mut Value,
) -> Result<Option<(String, Value)>, String> {
    let rule = |server: &Server| server.settings.dry_run.iter().find(|rule| risk::matches(&rule.tools, remote)).cloned();
    let mut rules = holders.iter().map(|(server, _)| rule(server));
    let Some(first) = rules.next().flatten().filter(|_| risk != RiskClass::Read) else { return Ok(None) };
    if !rules.all(|other| other.as_ref() == Some(&first)) {
        return Err("the servers that have it do not have the same rule".into());
    }
    let has = |schema: &Value, name: &str| schema.get("properties").and_then(|p| p.get(name)).is_some();
    if !has(checked, &first.argument) {
        return Err(format!("it has no argument '{}', so it has no dry run", crate::watch::shown(&first.argument)));
    }
    if first.argument == DRY_RUN && first.value != Value::Bool(true) {
        return Err(format!("its argument '{DRY_RUN}' must be true in a dry run, as callers write it"));
    }
    if first.argument != DRY_RUN {
        if !offer_dry_run(checked) {
            return Err(format!("it has an argument '{DRY_RUN}' that means something else, so it has no dry run"));
        }
        listed.get_mut("inputSchema").map(offer_dry_run);
    }
    Ok(Some((first.argument, first.value)))
}

/// Adds the argument that chooses, and requires it.
fn add_instance(schema: &mut Value, argument: &Value) {
    let Some(members) = schema.as_object_mut() else { return };
    if let Some(properties) = members.entry("properties").or_insert_with(|| json!({})).as_object_mut() {
        properties.insert(INSTANCE.to_owned(), argument.clone());
    }
    if let Some(required) = members.entry("required").or_insert_with(|| json!([])).as_array_mut() {
        required.push(json!(INSTANCE));
    }
}

#[async_trait]
impl Tool for UpstreamTool {
    fn origin(&self) -> String {
        let routes: Vec<String> = self.routes.iter().map(|r| format!("{}@{}", r.server.name, r.digest)).collect();
        format!("upstream:{}", routes.join(","))
    }

    fn spec(&self) -> &Arc<ToolSpec> {
        &self.spec
    }

    fn given_up(&self, principal: &PrincipalId, state: &Value) {
        self.routes.iter().for_each(|route| route.server.given_up(principal, state));
    }

    /// One of those behind it is enough.
    fn serves(&self, scope: &Scope) -> Result<(), Fault> {
        let mut refusal = None;
        for route in &self.routes {
            match route.server.serves(scope) {
                Ok(()) => return Ok(()),
                Err(fault) => refusal = refusal.or(Some(fault)),
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    async fn run(&self, permit: &Permit, arguments: Arguments, exchange: &dyn Exchange) -> Result<Outcome, Fault> {
        if self.dry.is_some() && wants_dry_run(&arguments) {
            return Err(Fault::new(FaultCode::Internal, "a dry run reached the work itself, so nothing was sent"));
        }
        let mut arguments = arguments.0;
        if self.dry.as_ref().is_some_and(|(argument, _)| argument != DRY_RUN) {
            arguments.shift_remove(DRY_RUN);
        }
        self.call(permit, arguments, exchange).await
    }

    fn previews(&self) -> bool {
        self.dry.is_some()
    }

    async fn preview(
        &self,
        permit: &Permit,
        _sight: Sight<'_>,
        arguments: Arguments,
        exchange: &dyn Exchange,
    ) -> Result<Option<Preview>, Fault> {
        let Some((argument, value)) = &self.dry else { return Ok(None) };
        let mut arguments = arguments.0;
        arguments.insert(argument.clone(), value.clone());
        match self.call(permit, arguments, exchange).await? {
            Outcome::Complete(output) => {
                let sources = output.sources.clone();
                let change = Change::Unknown("it is in the answer of the other server".into());
                Ok(Some(Preview {
                    requests: Vec::new(),
                    change,
                    answer: Some((format!("{argument}: {value}"), output)),
                    sources,
                }))
            }
            Outcome::NeedsInput { .. } => {
                Err(Fault::new(FaultCode::Unavailable, "the other server asks a question in its dry run, which is not passed on"))
            }
        }
    }
}

impl UpstreamTool {
    async fn call(&self, permit: &Permit, mut arguments: Map<String, Value>, exchange: &dyn Exchange) -> Result<Outcome, Fault> {
        let Route { server, digest } = self.route(&mut arguments)?;
        let headers = self.definition.get("inputSchema").map(|schema| mirrored(schema, &arguments)).unwrap_or_default();
        let work = Work {
            kind: Kind::Tool,
            name: &self.remote,
            digest,
            method: "tools/call",
            params: json!({"name": self.remote, "arguments": arguments}),
            headers,
            task: tasks::required(&self.definition),
        };
        match server.work(permit, work, exchange).await? {
            Answered::Done(result) => content::output(result, server.name.clone()).map(Outcome::Complete),
            Answered::Asks(requests, state) => Ok(Outcome::NeedsInput { requests, state: Some(state) }),
        }
    }
}

/// A prompt of an upstream.
struct UpstreamPrompt {
    spec: Arc<PromptSpec>,
    remote: String,
    digest: String,
    server: Arc<Server>,
}

impl UpstreamPrompt {
    fn new(server: Arc<Server>, remote: &str, shown: &str, accepted: Accepted) -> Self {
        let definition = accepted.definition;
        let mut shown_as = definition.clone();
        server.bind_definition(&mut shown_as);
        let arguments = definition.get("arguments").and_then(Value::as_array).into_iter().flatten().filter_map(|argument| {
            Some(PromptArgument {
                name: text(argument, "name")?,
                description: text(argument, "description").unwrap_or_else(|| Arc::from("")),
                required: argument.get("required").and_then(Value::as_bool).unwrap_or(false),
                completion: Some(CompletionKind::Own),
            })
        });
        let spec = PromptSpec {
            name: Arc::from(shown),
            title: text(&definition, "title").unwrap_or_else(|| Arc::from(remote)),
            description: text(&definition, "description").unwrap_or_else(|| Arc::from("")),
            arguments: arguments.collect(),
            shown: Some(Arc::new(shown_as)),
        };
        Self { spec: Arc::new(spec), remote: remote.to_owned(), digest: accepted.digest, server }
    }
}

#[async_trait]
impl Prompt for UpstreamPrompt {
    fn origin(&self) -> String {
        format!("upstream:{}@{}", self.server.name, self.digest)
    }

    fn spec(&self) -> &Arc<PromptSpec> {
        &self.spec
    }

    fn serves(&self, scope: &Scope) -> Result<(), Fault> {
        self.server.serves(scope)
    }

    async fn complete(&self, permit: &Permit, typing: &Typing<'_>, exchange: &dyn Exchange) -> Result<Suggestions, Fault> {
        let reference = json!({"type": "ref/prompt", "name": self.remote});
        let of = (Kind::Prompt, self.remote.as_str(), self.digest.as_str());
        complete(&self.server, permit, of, &reference, typing, exchange).await
    }

    fn given_up(&self, principal: &PrincipalId, state: &Value) {
        self.server.given_up(principal, state);
    }

    async fn render(&self, permit: &Permit, arguments: Arguments, exchange: &dyn Exchange) -> Result<PromptOutput, Fault> {
        let work = Work {
            kind: Kind::Prompt,
            name: &self.remote,
            digest: &self.digest,
            method: "prompts/get",
            params: json!({"name": self.remote, "arguments": arguments.0}),
            headers: Vec::new(),
            task: false,
        };
        match self.server.work(permit, work, exchange).await? {
            Answered::Done(result) => content::messages(result),
            Answered::Asks(requests, state) => Ok(PromptOutput::NeedsInput { requests, state: Some(state) }),
        }
    }
}

/// Values an upstream has for an argument. One that has none to give has none.
async fn complete(
    server: &Server,
    permit: &Permit,
    (kind, name, digest): (Kind, &str, &str),
    reference: &Value,
    typing: &Typing<'_>,
    exchange: &dyn Exchange,
) -> Result<Suggestions, Fault> {
    let mut params = json!({"ref": reference, "argument": {"name": typing.argument, "value": typing.prefix}});
    if !typing.context.is_empty() {
        params["context"] = json!({ "arguments": typing.context });
    }
    let work = Work { kind, name, digest, method: "completion/complete", params, headers: Vec::new(), task: false };
    match server.work(permit, work, exchange).await? {
        Answered::Done(result) => {
            let completion = result.get("completion");
            let of = |name: &str| completion.and_then(|completion| completion.get(name));
            let all = of("values").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            let mut values: Vec<String> = all.take(MOST_VALUES + 1).map(str::to_owned).collect();
            let cut = values.len() > MOST_VALUES;
            values.truncate(MOST_VALUES);
            let total = of("total").and_then(Value::as_u64).and_then(|total| u32::try_from(total).ok());
            let more = if cut { Some(true) } else { of("hasMore").and_then(Value::as_bool) };
            Ok(Suggestions { values, total, more })
        }
        Answered::Asks(..) => Ok(Suggestions::default()),
    }
}

/// The resources of an upstream.
struct UpstreamResources {
    server: Arc<Server>,
    fixed: BTreeMap<String, (Arc<ResourceSpec>, String)>,
    families: Vec<Family>,
    /// Fixed addresses that were ever accepted and not left out. While one is held it is nobody else's.
    kept: BTreeSet<String>,
    /// Addresses of others, in their usual spelling.
    foreign: BTreeSet<String>,
    /// What is accepted of it and is somebody else's, with whose a fixed address is.
    denied: BTreeMap<String, Option<Keeper>>,
}

/// A family of resources.
struct Family {
    spec: Arc<ResourceTemplateSpec>,
    digest: String,
    pattern: Regex,
    /// Templates of others that were accepted before and have addresses in common with it: those are theirs.
    before: Vec<Regex>,
}

impl Family {
    fn owns(&self, uri: &str) -> bool {
        if !self.pattern.is_match(uri) || self.before.is_empty() {
            return self.pattern.is_match(uri);
        }
        let spellings = spellings(uri);
        !self.before.iter().any(|earlier| spellings.iter().any(|spelling| earlier.is_match(spelling)))
    }
}

impl UpstreamResources {
    fn new(
        server: Arc<Server>,
        claims: &Claims<'_>,
        kept: &BTreeMap<String, Keeper>,
        addresses: &mut BTreeSet<String>,
        left_out: &mut Vec<String>,
    ) -> Self {
        let (mut fixed, mut families, mut denied) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        let one = [server.clone()];
        for (uri, holders) in in_use(&one, Kind::Resource) {
            for (_, Accepted { definition, digest, .. }) in holders {
                if let Some(keeper) = claims.keeper_of(&uri) {
                    denied.insert(uri.clone(), Some(keeper));
                    continue;
                }
                if is_no_resource(Kind::Resource, &uri) {
                    left_out.push(format!("resource '{}' has a script for its address", crate::watch::shown(&uri)));
                    continue;
                }
                if !fits_the_book(&uri) {
                    let why = "has blanks or hidden characters in its address, or more bytes of it than are kept";
                    left_out.push(format!("resource '{}' {why}", crate::watch::shown(&uri)));
                    continue;
                }
                if !kept.contains_key(&uri) || !addresses.insert(uri.clone()) {
                    left_out.push(format!("resource '{}' has an address that is taken", crate::watch::shown(&uri)));
                    continue;
                }
                let mut shown = definition.clone();
                server.bind_definition(&mut shown);
                let spec = ResourceSpec {
                    uri: Arc::from(uri.as_str()),
                    name: text(&definition, "name").unwrap_or_else(|| Arc::from(uri.as_str())),
                    title: text(&definition, "title"),
                    description: text(&definition, "description"),
                    mime_type: text(&definition, "mimeType"),
                    shown: Some(Arc::new(shown)),
                };
                fixed.insert(uri.clone(), (Arc::new(spec), digest));
            }
        }
        for (template, holders) in in_use(&one, Kind::Template) {
            for (_, Accepted { definition, digest, .. }) in holders {
                if claims.is_anothers(Kind::Template, &template) {
                    denied.insert(template.clone(), None);
                    continue;
                }
                let fit = |template: &str| {
                    fits_the_book(template) && !is_of_the_house(template) && !is_no_resource(Kind::Template, template)
                };
                let Some(pattern) = pattern_of(&template).filter(|_| fit(&template)) else {
                    left_out.push(format!("resource template '{}' cannot be matched", crate::watch::shown(&template)));
                    continue;
                };
                if !kept.contains_key(&template) || !addresses.insert(template.clone()) {
                    left_out.push(format!("resource template '{}' is taken", crate::watch::shown(&template)));
                    continue;
                }
                let variables = variables_of(&template).map(|name| (Arc::from(name), CompletionKind::Own)).collect();
                let mut shown = definition.clone();
                server.bind_definition(&mut shown);
                let spec = ResourceTemplateSpec {
                    uri_template: Arc::from(template.as_str()),
                    name: text(&definition, "name").unwrap_or_else(|| Arc::from(template.as_str())),
                    title: text(&definition, "title"),
                    description: text(&definition, "description"),
                    mime_type: text(&definition, "mimeType"),
                    completions: variables,
                    shown: Some(Arc::new(shown)),
                };
                let before = claims.before(&template, left_out);
                families.push(Family { spec: Arc::new(spec), digest, pattern, before });
            }
        }
        let foreign = if families.is_empty() { BTreeSet::new() } else { claims.of_others() };
        let ever = server.pins.get().map(|pins| pins.ever_accepted(Kind::Resource)).unwrap_or_default();
        let kept = ever.into_iter().map(|(uri, _)| uri).filter(|uri| kept.contains_key(uri)).collect();
        Self { server, fixed, families, kept, foreign, denied }
    }

    fn is_empty(&self) -> bool {
        self.fixed.is_empty() && self.families.is_empty() && self.kept.is_empty()
    }

    /// The family an address belongs to. One that was ever somebody else's belongs to none, in whatever spelling.
    fn family(&self, uri: &str) -> Option<&Family> {
        let family = self.families.iter().find(|family| family.owns(uri))?;
        (!self.foreign.contains(&usual(uri))).then_some(family)
    }
}

/// Addresses of the house itself, however they are written.
pub(crate) fn is_of_the_house(uri: &str) -> bool {
    with_usual_scheme(uri).starts_with("portcullis:")
}

#[async_trait]
impl ResourceReader for UpstreamResources {
    fn origin(&self) -> String {
        format!("upstream:{}", self.server.name)
    }

    fn serves(&self, scope: &Scope) -> Result<(), Fault> {
        self.server.serves(scope)
    }

    fn resources(&self) -> Vec<Arc<ResourceSpec>> {
        self.fixed.values().map(|(spec, _)| spec.clone()).collect()
    }

    fn templates(&self) -> Vec<Arc<ResourceTemplateSpec>> {
        self.families.iter().map(|family| family.spec.clone()).collect()
    }

    fn announces(&self, uri: &str) -> bool {
        self.announces_any() && self.owns(uri)
    }

    /// What is asked for in the names of callers is announced to nobody: the standing work that would hear it has another.
    fn announces_any(&self) -> bool {
        self.server.announces.load(Ordering::Relaxed) && !self.server.settings.is_private()
    }

    async fn watch(&self, permit: &Permit, uri: &str) -> Result<Watch, Fault> {
        self.server.watch(permit, uri).await
    }

    fn given_up(&self, principal: &PrincipalId, state: &Value) {
        self.server.given_up(principal, state);
    }

    fn keeps(&self, uri: &str) -> bool {
        self.fixed.contains_key(uri) || self.kept.contains(uri)
    }

    fn owns(&self, uri: &str) -> bool {
        self.fixed.contains_key(uri) || self.family(uri).is_some()
    }

    async fn complete(
        &self,
        permit: &Permit,
        template: &str,
        typing: &Typing<'_>,
        exchange: &dyn Exchange,
    ) -> Result<Suggestions, Fault> {
        let Some(Family { digest, .. }) = self.families.iter().find(|family| &*family.spec.uri_template == template) else {
            return Ok(Suggestions::default());
        };
        let reference = json!({"type": "ref/resource", "uri": template});
        let of = (Kind::Template, template, digest.as_str());
        complete(&self.server, permit, of, &reference, typing, exchange).await
    }

    async fn read(&self, permit: &Permit, uri: &str, exchange: &dyn Exchange) -> Result<ResourceOutput, Fault> {
        let (kind, name, digest) = if let Some((_, digest)) = self.fixed.get(uri) {
            (Kind::Resource, uri, digest)
        } else {
            let missing = || Fault::new(FaultCode::NotFound, "there is no such resource");
            let Family { spec, digest, .. } = self.family(uri).ok_or_else(missing)?;
            (Kind::Template, &*spec.uri_template, digest)
        };
        let work = Work {
            kind,
            name,
            digest,
            method: "resources/read",
            params: json!({ "uri": uri }),
            headers: Vec::new(),
            task: false,
        };
        match self.server.work(permit, work, exchange).await? {
            Answered::Done(result) => content::contents(result),
            Answered::Asks(requests, state) => Ok(ResourceOutput::NeedsInput { requests, state: Some(state) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_house_are_known_however_they_are_written() {
        for own in ["PORTCULLIS://services", " portcullis://guide", "\u{ff50}ortcullis://x", "port\u{200b}cullis://b"] {
            assert!(is_of_the_house(own), "{own:?}");
        }
        assert!(!is_of_the_house("portculli") && !is_of_the_house("portcullis-notes://x"));
    }

    #[test]
    fn the_argument_that_chooses_is_required() {
        let mut schema = json!({"type": "object", "required": ["q"]});
        add_instance(&mut schema, &json!({"enum": ["a", "b"]}));
        assert_eq!(schema["required"], json!(["q", "instance"]));
        assert_eq!(schema["properties"]["instance"]["enum"], json!(["a", "b"]));
    }
}
