//! From accepted definitions to what the catalogue takes: tools, prompts, resources. Guards that a tool calls the upstream it
//! was accepted from, with the definition that was accepted. Must not offer anything that waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use portcullis_model::{
    CompletionKind, Fault, FaultCode, PromptArgument, PromptSpec, ResourceSpec, ResourceTemplateSpec, RiskClass, ToolName,
    ToolSpec, WriteCategory,
};
use portcullis_policy::Permit;
use portcullis_ports::{
    Arguments, Change, DRY_RUN, Exchange, Offer, Outcome, Preview, Prompt, PromptOutput, ResourceOutput, ResourceReader, Sight,
    Taken, Tool, Watch, offer_dry_run, wants_dry_run,
};
use regex::Regex;
use serde_json::{Map, Value, json};

use crate::content;
use crate::conversation::mirrored;
use crate::definition::Kind;
use crate::drive::{Answered, Work};
use crate::neighbours::Owner;
use crate::pins::Accepted;
use crate::server::Server;
use crate::settings::Prefixing;
use crate::watch::BY_CONFIGURATION;
use crate::{risk, schema, tasks};

/// The argument by which one of several upstreams of a kind is chosen.
const INSTANCE: &str = "instance";

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

/// Everything these servers offer now. `left_out` gets what could not be offered, in words.
pub(crate) fn offer(servers: &[Arc<Server>], kind: Option<&str>, taken: &Taken, left_out: &mut Vec<String>) -> Offer {
    let mut offer = Offer::default();
    let mut names = Namer::new(servers, Kind::Tool, taken.tools.clone());
    offer.kept.tools = names.kept(servers, kind);
    for (name, holders) in in_use(servers, Kind::Tool) {
        let holders: Vec<_> = holders.into_iter().filter(|(server, _)| server.wants(Kind::Tool, &name)).collect();
        for tool in tools(&name, holders, kind, &mut names, left_out) {
            offer.tools.push(Arc::new(tool));
        }
    }
    let mut names = Namer::new(servers, Kind::Prompt, taken.prompts.clone());
    offer.kept.prompts = names.kept(servers, kind);
    for (name, holders) in in_use(servers, Kind::Prompt) {
        let ambiguous = kind.is_some() && names.are_several(&name);
        for (server, accepted) in holders {
            if let Some(shown) = names.choose(&name, &server.name, prefixed(&server, ambiguous), left_out) {
                offer.prompts.push(Arc::new(UpstreamPrompt::new(server, &name, &shown, accepted)));
            }
        }
    }
    let mut addresses = taken.addresses.clone();
    for server in servers {
        let reader = UpstreamResources::new(server.clone(), &mut addresses, left_out);
        if !reader.is_empty() {
            offer.resources.push(Arc::new(reader));
        }
    }
    offer
}

/// Whether a server's names always have its own in front.
fn prefixed(server: &Server, ambiguous: bool) -> bool {
    server.settings.prefix == Prefixing::Always || ambiguous
}

/// Gives what is offered its names. A name that something was ever accepted under stays its own: rules, approvals and habits
/// are written about it.
struct Namer {
    kind: Kind,
    group: String,
    taken: BTreeSet<String>,
    owners: BTreeMap<String, Owner>,
    /// How many of these servers ever had something of a name.
    holders: BTreeMap<String, usize>,
}

impl Namer {
    fn new(servers: &[Arc<Server>], kind: Kind, taken: BTreeSet<String>) -> Self {
        let first = servers.first();
        let mut holders = BTreeMap::new();
        for (name, _) in servers.iter().filter_map(|server| server.pins.get()).flat_map(|pins| pins.ever_accepted(kind)) {
            *holders.entry(name).or_default() += 1;
        }
        Self {
            kind,
            group: first.map(|server| server.group().to_owned()).unwrap_or_default(),
            taken,
            owners: first.map(|server| server.neighbourhood.owners(kind)).unwrap_or_default(),
            holders,
        }
    }

    fn are_several(&self, name: &str) -> bool {
        self.holders.get(name).is_some_and(|holders| *holders > 1)
    }

    /// The name something would be offered under: its own where that is free and nothing else is wanted.
    fn free(&self, name: &str, prefix: &str, always: bool) -> Option<String> {
        let plain = (!always).then(|| name.to_owned());
        let free =
            |name: &String| !self.taken.contains(name) && self.owners.get(name).is_none_or(|owner| owner.group == self.group);
        plain.into_iter().chain([format!("{prefix}_{name}")]).find(free)
    }

    fn choose(&mut self, name: &str, prefix: &str, always: bool, left_out: &mut Vec<String>) -> Option<String> {
        let chosen = self.free(name, prefix, always);
        match &chosen {
            Some(chosen) => {
                self.taken.insert(chosen.clone());
            }
            None => left_out.push(format!(
                "{} '{}' has a name that is taken, also with a prefix",
                self.kind,
                crate::watch::shown(name)
            )),
        }
        chosen
    }

    /// Names of everything that was ever accepted, in use or not.
    fn kept(&self, servers: &[Arc<Server>], kind: Option<&str>) -> BTreeSet<String> {
        let mut kept = BTreeSet::new();
        for server in servers {
            let ever = server.pins.get().map(|pins| pins.ever_accepted(self.kind)).unwrap_or_default();
            for (name, _) in ever.into_iter().filter(|(name, _)| server.wants(self.kind, name)) {
                kept.extend(kind.and_then(|kind| self.free(&name, kind, prefixed(server, false))));
                kept.extend(self.free(&name, &server.name, prefixed(server, kind.is_some())));
            }
        }
        kept
    }
}

/// The tools one accepted name becomes: one for all who agree, or one each.
fn tools(
    name: &str,
    holders: Vec<(Arc<Server>, Accepted)>,
    kind: Option<&str>,
    names: &mut Namer,
    left_out: &mut Vec<String>,
) -> Vec<UpstreamTool> {
    let agreed = holders.first().is_some_and(|(_, first)| holders.iter().all(|(_, other)| other.digest == first.digest));
    let has_instance = |definition: &Value| definition.pointer("/inputSchema/properties/instance").is_some();
    let mut made = Vec::new();
    if let Some(kind) = kind
        && agreed
        && holders.first().is_some_and(|(_, accepted)| !has_instance(&accepted.definition))
    {
        let always = holders.iter().any(|(server, _)| prefixed(server, false));
        if let Some(chosen) = names.choose(name, kind, always, left_out) {
            made.extend(UpstreamTool::new(name, &chosen, holders, true, left_out));
        }
        return made;
    }
    for (server, accepted) in holders {
        let Some(chosen) = names.choose(name, &server.name, prefixed(&server, kind.is_some()), left_out) else { continue };
        made.extend(UpstreamTool::new(name, &chosen, vec![(server, accepted)], false, left_out));
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
        merged: bool,
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
        let mut completions = Vec::new();
        if merged {
            let instances: Vec<Arc<str>> = holders.iter().map(|(server, _)| server.name.clone()).collect();
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
            Some(name) => self.routes.iter().find(|route| &*route.server.name == name),
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
                Ok(Some(Preview { request: None, change, answer: Some((format!("{argument}: {value}"), output)), sources }))
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
            shown: Some(Arc::new(definition.clone())),
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

    async fn complete(
        &self,
        permit: &Permit,
        argument: &str,
        prefix: &str,
        exchange: &dyn Exchange,
    ) -> Result<Vec<String>, Fault> {
        let reference = json!({"type": "ref/prompt", "name": self.remote});
        let of = (Kind::Prompt, self.remote.as_str(), self.digest.as_str());
        complete(&self.server, permit, of, &reference, (argument, prefix), exchange).await
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
    (argument, prefix): (&str, &str),
    exchange: &dyn Exchange,
) -> Result<Vec<String>, Fault> {
    let params = json!({"ref": reference, "argument": {"name": argument, "value": prefix}});
    let work = Work { kind, name, digest, method: "completion/complete", params, headers: Vec::new(), task: false };
    match server.work(permit, work, exchange).await? {
        Answered::Done(result) => {
            let values = result.get("completion").and_then(|c| c.get("values")).and_then(Value::as_array);
            Ok(values.into_iter().flatten().filter_map(Value::as_str).take(100).map(str::to_owned).collect())
        }
        Answered::Asks(..) => Ok(Vec::new()),
    }
}

/// The resources of an upstream.
struct UpstreamResources {
    server: Arc<Server>,
    fixed: BTreeMap<String, (Arc<ResourceSpec>, String)>,
    families: Vec<(Arc<ResourceTemplateSpec>, String, Regex)>,
    /// Fixed addresses that were ever accepted and not left out. While one is held it is nobody else's.
    kept: BTreeSet<String>,
}

impl UpstreamResources {
    fn new(server: Arc<Server>, addresses: &mut BTreeSet<String>, left_out: &mut Vec<String>) -> Self {
        let (mut fixed, mut families) = (BTreeMap::new(), Vec::new());
        let owners = [Kind::Resource, Kind::Template].map(|kind| server.neighbourhood.owners(kind));
        let is_own = |of: usize, name: &str| owners[of].get(name).is_none_or(|owner| *owner.server == *server.name);
        let ever = server.pins.get().map(|pins| pins.ever_accepted(Kind::Resource)).unwrap_or_default();
        let mut kept: BTreeSet<String> = ever.into_iter().map(|(uri, _)| uri).filter(|uri| !is_of_the_house(uri)).collect();
        kept.retain(|uri| is_own(0, uri) && !addresses.contains(uri));
        let one = [server.clone()];
        for (uri, holders) in in_use(&one, Kind::Resource) {
            for (_, Accepted { definition, digest, .. }) in holders {
                if is_of_the_house(&uri) || !is_own(0, &uri) || !addresses.insert(uri.clone()) {
                    left_out.push(format!("resource '{}' has an address that is taken", crate::watch::shown(&uri)));
                    continue;
                }
                let spec = ResourceSpec {
                    uri: Arc::from(uri.as_str()),
                    name: text(&definition, "name").unwrap_or_else(|| Arc::from(uri.as_str())),
                    title: text(&definition, "title"),
                    description: text(&definition, "description"),
                    mime_type: text(&definition, "mimeType"),
                    shown: Some(Arc::new(definition)),
                };
                fixed.insert(uri.clone(), (Arc::new(spec), digest));
            }
        }
        for (template, holders) in in_use(&one, Kind::Template) {
            for (_, Accepted { definition, digest, .. }) in holders {
                let Some(pattern) = pattern_of(&template).filter(|_| !is_of_the_house(&template)) else {
                    left_out.push(format!("resource template '{}' cannot be matched", crate::watch::shown(&template)));
                    continue;
                };
                if !is_own(1, &template) || !addresses.insert(template.clone()) {
                    left_out
                        .push(format!("resource template '{}' is another upstream's already", crate::watch::shown(&template)));
                    continue;
                }
                let variables = variables_of(&template).map(|name| (Arc::from(name), CompletionKind::Own)).collect();
                let spec = ResourceTemplateSpec {
                    uri_template: Arc::from(template.as_str()),
                    name: text(&definition, "name").unwrap_or_else(|| Arc::from(template.as_str())),
                    title: text(&definition, "title"),
                    description: text(&definition, "description"),
                    mime_type: text(&definition, "mimeType"),
                    completions: variables,
                    shown: Some(Arc::new(definition)),
                };
                families.push((Arc::new(spec), digest, pattern));
            }
        }
        Self { server, fixed, families, kept }
    }

    fn is_empty(&self) -> bool {
        self.fixed.is_empty() && self.families.is_empty() && self.kept.is_empty()
    }
}

/// Addresses of the house itself.
fn is_of_the_house(uri: &str) -> bool {
    uri.get(..11).is_some_and(|scheme| scheme.eq_ignore_ascii_case("portcullis:"))
}

/// The variables of a template (RFC 6570).
fn variables_of(template: &str) -> impl Iterator<Item = &str> {
    template.split('{').skip(1).filter_map(|part| part.split_once('}')).flat_map(|(inside, _)| {
        let names = inside.trim_start_matches(['+', '#', '.', '/', ';', '?', '&']);
        names.split(',').map(|name| name.trim_end_matches('*').split(':').next().unwrap_or_default()).filter(|n| !n.is_empty())
    })
}

/// Which addresses belong to a template. A template that begins with a variable would take every address, so it is none.
fn pattern_of(template: &str) -> Option<Regex> {
    let scheme = template.split_once(':')?.0;
    if scheme.is_empty() || scheme.contains('{') || template.len() > 1_024 {
        return None;
    }
    let mut pattern = String::from("^");
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, after) = after.split_once('}')?;
        pattern.push_str(&regex::escape(before));
        pattern.push_str(match inside.chars().next()? {
            '+' | '/' => ".+",
            '#' => "(?:#.*)?",
            '?' => r"(?:\?[^#]*)?",
            '&' | ';' => "[^#]*",
            _ => "[^/?#]+",
        });
        rest = after;
    }
    pattern.push_str(&regex::escape(rest));
    pattern.push('$');
    Regex::new(&pattern).ok()
}

#[async_trait]
impl ResourceReader for UpstreamResources {
    fn origin(&self) -> String {
        format!("upstream:{}", self.server.name)
    }

    fn resources(&self) -> Vec<Arc<ResourceSpec>> {
        self.fixed.values().map(|(spec, _)| spec.clone()).collect()
    }

    fn templates(&self) -> Vec<Arc<ResourceTemplateSpec>> {
        self.families.iter().map(|(spec, ..)| spec.clone()).collect()
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

    fn keeps(&self, uri: &str) -> bool {
        self.fixed.contains_key(uri) || self.kept.contains(uri)
    }

    fn owns(&self, uri: &str) -> bool {
        self.fixed.contains_key(uri) || self.families.iter().any(|(_, _, pattern)| pattern.is_match(uri))
    }

    async fn complete(
        &self,
        permit: &Permit,
        template: &str,
        argument: &str,
        prefix: &str,
        exchange: &dyn Exchange,
    ) -> Result<Vec<String>, Fault> {
        let Some((_, digest, _)) = self.families.iter().find(|(spec, ..)| &*spec.uri_template == template) else {
            return Ok(Vec::new());
        };
        let reference = json!({"type": "ref/resource", "uri": template});
        let of = (Kind::Template, template, digest.as_str());
        complete(&self.server, permit, of, &reference, (argument, prefix), exchange).await
    }

    async fn read(&self, permit: &Permit, uri: &str, exchange: &dyn Exchange) -> Result<ResourceOutput, Fault> {
        let of_family = || self.families.iter().find(|(_, _, pattern)| pattern.is_match(uri));
        let (kind, name, digest) = if let Some((_, digest)) = self.fixed.get(uri) {
            (Kind::Resource, uri, digest)
        } else {
            let missing = || Fault::new(FaultCode::NotFound, "there is no such resource");
            let (spec, digest, _) = of_family().ok_or_else(missing)?;
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
        assert!(is_of_the_house("PORTCULLIS://services") && !is_of_the_house("portculli"));
    }

    #[test]
    fn the_argument_that_chooses_is_required() {
        let mut schema = json!({"type": "object", "required": ["q"]});
        add_instance(&mut schema, &json!({"enum": ["a", "b"]}));
        assert_eq!(schema["required"], json!(["q", "instance"]));
        assert_eq!(schema["properties"]["instance"]["enum"], json!(["a", "b"]));
    }
}
