//! What rmcp asks us, answered through the gate. Everything is decided on the parsed request; features the
//! catalogue does not offer answer "method not found" instead of an empty list.
#![expect(deprecated, reason = "log levels and resource subscriptions of the session revisions are deprecated in rmcp")]

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use portcullis_gateway::gate::Answer;
use portcullis_gateway::{CallRequest, Caller, CompletionReference, GetPrompt, LookupRequest, Voice};
use portcullis_guard::{ClientFault, Released};
use portcullis_model::{Fault, FaultCode, cut};
use portcullis_ports::{Answers, Arguments, InputRequest};
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult, ConstString, CustomRequest,
    CustomResult, DiscoverResult, ErrorCode, ErrorData, GetPromptRequestParams, GetPromptResponse, InputRequiredResult,
    InputResponses, JsonObject, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    LoggingLevel, PaginatedRequestParams, PromptsCapability, ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse,
    Reference, ResourcesCapability, ServerCapabilities, ServerConfig, SetLevelRequestMethod, SetLevelRequestParams,
    SubscribeRequestMethod, SubscribeRequestParams, SubscriptionFilter, Tool, ToolsCapability, UnsubscribeRequestMethod,
    UnsubscribeRequestParams,
};
use rmcp::service::{NotificationContext, RequestContext, SubscriptionContext};
use rmcp::{RoleServer, ServerHandler, model as wire};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::watch as channel;

use crate::convert::{self, Ending};
use crate::face::Face;
use crate::faults::{Asked, rpc_error, tool_fault};
use crate::pages::page;
use crate::rounds::{self, Binding, MOST_ROUNDS};
use crate::turn::{self, Turn};
use crate::voice::line;
use crate::watch::{self, Session};

/// Protocol revisions served, oldest first.
pub(crate) const REVISIONS: &[ProtocolVersion] =
    &[ProtocolVersion::V_2025_03_26, ProtocolVersion::V_2025_06_18, ProtocolVersion::V_2025_11_25, ProtocolVersion::V_2026_07_28];

/// Key in a request's `_meta` that asks for an answer without redaction; refused without the grant for it.
const UNREDACTED: &str = "portcullis/unredacted";

/// Characters of the caller's words that are repeated in an error.
const REPEATED: usize = 512;

/// How long a list may be taken as fresh by the one who asked for it.
const LIST_TTL_MS: u64 = 30_000;

/// Serves one request of the stateless revision, or one session.
pub(crate) struct Handler {
    face: Arc<Face>,
    /// Who the connection belongs to, where that is known before a request is read.
    owner: Option<Arc<Caller>>,
    session: OnceLock<Arc<Session>>,
    /// Serves one request of an older era without a session: what only a session could keep is not offered.
    alone: bool,
    /// Receivers made before a subscription is acknowledged, so that no change falls between the two.
    ahead: Mutex<VecDeque<channel::Receiver<u64>>>,
}

/// How a call of one or more rounds ended.
enum Settled<R> {
    Done(R),
    Ask(InputRequiredResult),
}

/// Why a call has no result.
enum Trouble {
    Fault(Released<ClientFault>),
    Error(ErrorData),
}

/// What a retried request brought along.
struct Retry {
    responses: Option<InputResponses>,
    state: Option<String>,
}

impl Handler {
    pub(crate) fn new(face: Arc<Face>, owner: Option<Arc<Caller>>) -> Self {
        Self { face, owner, session: OnceLock::new(), alone: false, ahead: Mutex::default() }
    }

    /// The same for a single request of an older era.
    pub(crate) fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    fn session(&self) -> &Arc<Session> {
        self.session.get_or_init(|| Arc::new(Session::new()))
    }

    /// Runs a request through the gate, in as many rounds as it needs answers from the client.
    async fn settle<T, R, F>(
        &self,
        context: Option<&RequestContext<RoleServer>>,
        turn: &Turn,
        place: (&'static str, &str, &Map<String, Value>),
        retry: Retry,
        run: impl Fn(Option<Answers>, Arc<dyn Voice>) -> F,
        convert: impl Fn(Released<T>) -> Ending<R>,
    ) -> Result<Settled<R>, Trouble>
    where
        F: Future<Output = Answer<T>>,
    {
        let (method, target, arguments) = place;
        let binding = || Binding::new(&turn.caller.principal().id, method, target, arguments);
        let mut answers = self
            .face
            .rounds
            .open(binding, retry.responses, retry.state.as_deref())
            .map_err(|fault| Trouble::Error(rpc_error(self.refuse(turn, method, "request-state", fault), Asked::Other)))?;
        // However this ends: who waits for an answer that does not come is told.
        let mut waits = Waits::on(self, turn, answers.as_ref().and_then(|answers| answers.state.clone()));
        for _ in 0..MOST_ROUNDS {
            let (voice, pump) = match context {
                Some(context) => {
                    let level = if turn.modern { context.meta.log_level() } else { Some(self.level()) };
                    line(&context.peer, context.meta.get_progress_token(), level, !turn.modern)
                }
                None => (Arc::new(()) as Arc<dyn Voice>, None),
            };
            let work = run(answers.take(), voice);
            let answer = async {
                match pump {
                    Some(pump) => pump.beside(work).await,
                    None => work.await,
                }
            };
            // Dropping the work is how it is cancelled: the backend request goes with it.
            let answer = tokio::select! {
                biased;
                answer = answer => answer,
                () = cancelled(context) => {
                    let fault = Fault::new(FaultCode::Cancelled, "the request was cancelled");
                    return Err(Trouble::Fault(self.face.gateway.release_fault(&fault)));
                }
            };
            let (requests, state) = match convert(answer.map_err(Trouble::Fault)?) {
                Ending::Complete(result) => return Ok(Settled::Done(result)),
                Ending::Questions(requests, state) => (requests, state),
            };
            waits.now_on(state.clone());
            let refused = |fault| Trouble::Fault(self.refuse(turn, method, "question", fault));
            if let Some(required) = rounds::missing(&requests, turn.abilities) {
                if turn.modern {
                    return Err(Trouble::Error(rounds::missing_error(required)));
                }
                return Err(refused(undeclared(&requests)));
            }
            if turn.modern {
                let state = state.map(|state| self.face.rounds.seal(binding(), state)).transpose().map_err(refused)?;
                let questions = rounds::wire(requests).map_err(refused)?;
                let mut result = InputRequiredResult::new(Some(questions), state);
                self.face.stamp(true, &mut result.meta);
                waits.put();
                return Ok(Settled::Ask(result));
            }
            let Some(context) = context.filter(|_| turn.reachable) else {
                return Err(refused(unreachable()));
            };
            let responses = self.put(context, turn, method, requests).await?;
            answers = Some(Answers { responses, state });
        }
        let fault = Fault::new(FaultCode::Internal, format!("the call asked for answers more than {MOST_ROUNDS} times"));
        Err(Trouble::Fault(self.refuse(turn, method, "rounds", fault)))
    }

    /// Puts questions to the client of a session and waits for its answers, as long as it would still be let in.
    async fn put(
        &self,
        context: &RequestContext<RoleServer>,
        turn: &Turn,
        method: &'static str,
        requests: Vec<(String, InputRequest)>,
    ) -> Result<BTreeMap<String, Value>, Trouble> {
        let refused = |fault| Trouble::Fault(self.refuse(turn, method, "question", fault));
        let ended = || {
            let fault = Fault::new(FaultCode::Unauthenticated, "the credential this call was made with has ended");
            Trouble::Fault(self.refuse(turn, method, "credential-ended", fault))
        };
        let responses = tokio::select! {
            responses = rounds::ask(&context.peer, requests) => responses.map_err(refused)?,
            () = context.ct.cancelled() => {
                return Err(refused(Fault::new(FaultCode::Cancelled, "the request was cancelled")));
            }
            () = self.face.gateway.until_refused(&turn.caller) => return Err(ended()),
        };
        // It may have ended since it was last looked.
        if self.face.gateway.still_admits(&turn.caller) { Ok(responses) } else { Err(ended()) }
    }

    /// Calls a tool. Without a context there is nobody to report to while it runs, and dropping the future cancels it.
    pub(crate) async fn call(
        &self,
        context: Option<&RequestContext<RoleServer>>,
        turn: &Turn,
        request: CallToolRequestParams,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let (gateway, caller, name) = (&self.face.gateway, &turn.caller, request.name.as_ref());
        let retry = Retry { responses: request.input_responses, state: request.request_state };
        let unredacted = context.is_some_and(|c| c.meta.get(UNREDACTED) == Some(&Value::Bool(true)));
        let run = |answers, voice| {
            let call = CallRequest {
                unredacted,
                tool: name.to_owned(),
                arguments: Arguments(arguments.clone()),
                trace: turn.trace.clone(),
                answers,
                abilities: turn.abilities,
            };
            // On the heap: everything that waits for a call would be as large as it.
            Box::pin(gateway.call(caller, call, voice))
        };
        let place = ("tools/call", name, &arguments);
        // In a box: it holds a whole call, and so would everything that waits for it.
        let mut result = match Box::pin(self.settle(context, turn, place, retry, run, convert::outcome)).await {
            Ok(Settled::Done(result)) => result,
            Ok(Settled::Ask(questions)) => return Ok(questions.into()),
            Err(Trouble::Fault(fault)) => tool_fault(fault)?,
            Err(Trouble::Error(error)) => return Err(error),
        };
        self.face.stamp(turn.modern, &mut result.meta);
        Ok(result.into())
    }

    /// Records and releases a refusal of the face itself.
    fn refuse(&self, turn: &Turn, method: &'static str, rule: &str, fault: Fault) -> Released<ClientFault> {
        self.face.gateway.refuse_request(&turn.caller, method, rule, fault)
    }

    /// Words of the caller's, as they may be repeated: released like those of every error, in one line and short.
    fn repeated(&self, words: &str) -> String {
        self.face.gateway.release_fault(&Fault::invalid(cut::quoted(words, REPEATED))).into_inner().message
    }

    /// The page of a list that was asked for, and the cursor of the next one. A cursor that was not given to this caller for
    /// this list is refused and recorded.
    fn page_of<T>(
        &self,
        turn: &Turn,
        method: &'static str,
        entries: Vec<T>,
        key: impl Fn(&T) -> &str,
        request: Option<&PaginatedRequestParams>,
    ) -> Result<(Vec<T>, Option<String>), ErrorData> {
        let (gateway, caller) = (&self.face.gateway, &turn.caller);
        let cursor = request.and_then(|request| request.cursor.as_deref());
        let last = cursor.map(|cursor| gateway.open_page(caller, method, cursor)).transpose();
        let last = last.map_err(|fault| rpc_error(fault, Asked::Other))?;
        let (entries, next) = page(entries, key, last.as_deref());
        Ok((entries, next.map(|next| gateway.seal_page(caller, method, &next))))
    }

    fn level(&self) -> LoggingLevel {
        self.session.get().map_or(LoggingLevel::Info, |session| session.level())
    }

    async fn turn(&self, context: &RequestContext<RoleServer>) -> Result<Turn, ErrorData> {
        Turn::of(&self.face.gateway, context).await
    }
}

/// A question without its answer. Dropped before it was put or answered, it is given up.
struct Waits<'w> {
    handler: &'w Handler,
    turn: &'w Turn,
    state: Option<Value>,
}

impl<'w> Waits<'w> {
    fn on(handler: &'w Handler, turn: &'w Turn, state: Option<Value>) -> Self {
        Self { handler, turn, state }
    }

    /// What waited is taken up or given up; now this waits.
    fn now_on(&mut self, state: Option<Value>) {
        self.give_up();
        self.state = state;
    }

    fn give_up(&mut self) {
        // What was taken up again in the meantime waits no more, and giving it up does nothing.
        if let Some(state) = self.state.take() {
            self.handler.face.gateway.give_up(&self.turn.caller, &state);
        }
    }

    /// The client has it, and may come back with an answer.
    fn put(mut self) {
        self.state = None;
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Ends when the client cancels. Without a context it never does: then the future is dropped.
async fn cancelled(context: Option<&RequestContext<RoleServer>>) {
    match context {
        Some(context) => context.ct.cancelled().await,
        None => std::future::pending().await,
    }
}

/// Questions a client of a session did not say it can answer.
fn undeclared(requests: &[(String, InputRequest)]) -> Fault {
    let methods: Vec<&str> = requests.iter().map(|(_, request)| request.method.as_str()).collect();
    Fault::invalid(format!("this call needs answers from the client, which did not declare that it can: {}", methods.join(", ")))
        .with_hint("use a client with these capabilities")
}

/// Questions to a client that cannot be reached: asking would only wait for an answer that cannot come.
fn unreachable() -> Fault {
    Fault::invalid("this call needs answers from the client, which cannot be reached without a session")
        .with_hint("open a session with initialize, or use protocol version 2026-07-28")
}

fn method_not_found<T>(method: &str) -> Result<T, ErrorData> {
    Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, method.to_owned(), None))
}

impl Trouble {
    fn error(self, asked: Asked) -> ErrorData {
        match self {
            Self::Fault(fault) => rpc_error(fault, asked),
            Self::Error(error) => error,
        }
    }
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        let gateway = &self.face.gateway;
        let (tools, resources, prompts, completions) = gateway.offers();
        let mut capabilities = ServerCapabilities::default();
        let listens = !self.alone;
        capabilities.logging = listens.then(JsonObject::new);
        capabilities.completions = completions.then(JsonObject::new);
        if tools {
            let mut offered = ToolsCapability::default();
            offered.list_changed = listens.then_some(true);
            capabilities.tools = Some(offered);
        }
        if prompts {
            let mut offered = PromptsCapability::default();
            offered.list_changed = listens.then_some(true);
            capabilities.prompts = Some(offered);
        }
        if resources {
            let mut offered = ResourcesCapability::default();
            offered.subscribe = (listens && gateway.offers_watching()).then_some(true);
            offered.list_changed = listens.then_some(true);
            capabilities.resources = Some(offered);
        }
        let info = ServerConfig::new(capabilities)
            .with_server_info(self.face.implementation.clone())
            .with_protocol_version(ProtocolVersion::V_2025_11_25);
        let instructions = gateway.instructions();
        if instructions.is_empty() { info } else { info.with_instructions(instructions.to_string()) }
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(REVISIONS)
    }

    async fn discover(&self, context: RequestContext<RoleServer>) -> Result<DiscoverResult, ErrorData> {
        turn::caller(&self.face.gateway, &context.extensions).await?;
        Ok(DiscoverResult::from_server_info(REVISIONS.to_vec(), self.get_info())
            .with_ttl_ms(LIST_TTL_MS)
            .with_cache_scope(CacheScope::Private))
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let turn = self.turn(&context).await?;
        let tools = self.face.cards.list(listed(self.face.gateway.tools(&turn.caller).await)?);
        let (tools, next) = self.page_of(&turn, "tools/list", tools, |t| &t.name, request.as_ref())?;
        let mut result = ListToolsResult::with_all_items(tools).with_ttl_ms(LIST_TTL_MS).with_cache_scope(CacheScope::Private);
        result.next_cursor = next;
        self.face.stamp(turn.modern, &mut result.meta);
        Ok(result)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let turn = self.turn(&context).await?;
        self.call(Some(&context), &turn, request).await
    }

    /// Only tools whose arguments are mirrored into headers are described here: rmcp compares the two with it.
    /// A tool the caller may not see is not described, so its schema cannot be felt out with headers.
    fn get_tool(&self, name: &str) -> Option<Tool> {
        let spec = self.face.gateway.tool_spec(name)?;
        let schema = self.face.cards.mirrored(&spec)?;
        let owner = self.owner.as_ref()?;
        let visible = self.face.gateway.may_call(owner, spec.name.as_str());
        visible.then(|| Tool::new_with_raw(name.to_owned(), None, schema))
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let turn = self.turn(&context).await?;
        if !self.face.gateway.offers().2 {
            return method_not_found(wire::ListPromptsRequestMethod::VALUE);
        }
        let prompts = convert::prompts(listed(self.face.gateway.prompts(&turn.caller).await)?);
        let (prompts, next) = self.page_of(&turn, "prompts/list", prompts, |p| &p.name, request.as_ref())?;
        let mut result =
            ListPromptsResult::with_all_items(prompts).with_ttl_ms(LIST_TTL_MS).with_cache_scope(CacheScope::Private);
        result.next_cursor = next;
        self.face.stamp(turn.modern, &mut result.meta);
        Ok(result)
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let turn = self.turn(&context).await?;
        if !self.face.gateway.offers().2 {
            return method_not_found(wire::GetPromptRequestMethod::VALUE);
        }
        let arguments = request.arguments.unwrap_or_default();
        let (gateway, caller, name) = (&self.face.gateway, &turn.caller, request.name.as_str());
        let retry = Retry { responses: request.input_responses, state: request.request_state };
        let run = |answers, voice| {
            let get = GetPrompt {
                name: name.to_owned(),
                arguments: Arguments(arguments.clone()),
                trace: turn.trace.clone(),
                answers,
                abilities: turn.abilities,
            };
            gateway.prompt(caller, get, voice)
        };
        let place = ("prompts/get", name, &arguments);
        match self.settle(Some(&context), &turn, place, retry, run, convert::prompt).await {
            Ok(Settled::Done(mut result)) => {
                self.face.stamp(turn.modern, &mut result.meta);
                Ok(result.into())
            }
            Ok(Settled::Ask(questions)) => Ok(questions.into()),
            Err(trouble) => Err(trouble.error(Asked::Other)),
        }
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let turn = self.turn(&context).await?;
        if !self.face.gateway.offers().1 {
            return method_not_found(wire::ListResourcesRequestMethod::VALUE);
        }
        let listed = convert::resources(listed(self.face.gateway.resources(&turn.caller).await)?);
        let (listed, next) = self.page_of(&turn, "resources/list", listed, |r| &r.uri, request.as_ref())?;
        let mut result =
            ListResourcesResult::with_all_items(listed).with_ttl_ms(LIST_TTL_MS).with_cache_scope(CacheScope::Private);
        result.next_cursor = next;
        self.face.stamp(turn.modern, &mut result.meta);
        Ok(result)
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let turn = self.turn(&context).await?;
        if !self.face.gateway.offers().1 {
            return method_not_found(wire::ListResourceTemplatesRequestMethod::VALUE);
        }
        let listed = convert::templates(listed(self.face.gateway.templates(&turn.caller).await)?);
        let (listed, next) = self.page_of(&turn, "resources/templates/list", listed, |t| &t.uri_template, request.as_ref())?;
        let mut result =
            ListResourceTemplatesResult::with_all_items(listed).with_ttl_ms(LIST_TTL_MS).with_cache_scope(CacheScope::Private);
        result.next_cursor = next;
        self.face.stamp(turn.modern, &mut result.meta);
        Ok(result)
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let turn = self.turn(&context).await?;
        if !self.face.gateway.offers().1 {
            return method_not_found(wire::ReadResourceRequestMethod::VALUE);
        }
        let none = Map::new();
        let (gateway, caller, uri) = (&self.face.gateway, &turn.caller, request.uri.as_str());
        let retry = Retry { responses: request.input_responses, state: request.request_state };
        let run = |answers, voice| {
            let look = LookupRequest { uri: uri.to_owned(), trace: turn.trace.clone(), answers, abilities: turn.abilities };
            gateway.read(caller, look, voice)
        };
        let place = ("resources/read", uri, &none);
        match self.settle(Some(&context), &turn, place, retry, run, convert::resource).await {
            Ok(Settled::Done(mut result)) => {
                result.ttl_ms = Some(0);
                result.cache_scope = Some(CacheScope::Private);
                self.face.stamp(turn.modern, &mut result.meta);
                Ok(result.into())
            }
            Ok(Settled::Ask(questions)) => Ok(questions.into()),
            Err(trouble) => {
                let mut error = trouble.error(Asked::Resource);
                // The specification asks for the URI back; it is the caller's own text.
                if let (ErrorCode::RESOURCE_NOT_FOUND, Some(data)) = (error.code, &mut error.data) {
                    data["uri"] = self.repeated(uri).into();
                }
                Err(error)
            }
        }
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let turn = self.turn(&context).await?;
        if !self.face.gateway.offers().3 {
            return method_not_found(wire::CompleteRequestMethod::VALUE);
        }
        let reference = match &request.r#ref {
            Reference::Prompt(prompt) => CompletionReference::Prompt(&prompt.name),
            Reference::Resource(resource) => CompletionReference::Template(&resource.uri),
            _ => return Err(ErrorData::invalid_params("the reference must be ref/prompt or ref/resource", None)),
        };
        let chosen = request.context.and_then(|context| context.arguments).unwrap_or_default();
        let chosen = chosen.into_iter().map(|(name, value)| (name, Value::String(value))).collect::<BTreeMap<_, _>>();
        let typed = (request.argument.name.as_str(), request.argument.value.as_str());
        let work = self.face.gateway.complete(&turn.caller, reference, typed, Arguments(chosen.into_iter().collect()));
        let answer = tokio::select! {
            answer = work => answer,
            () = context.ct.cancelled() => {
                let fault = Fault::new(FaultCode::Cancelled, "the request was cancelled");
                Err(self.face.gateway.release_fault(&fault))
            }
        };
        let mut result = CompleteResult::new(convert::completions(answer.map_err(|fault| rpc_error(fault, Asked::Other))?));
        self.face.stamp(turn.modern, &mut result.meta);
        Ok(result)
    }

    async fn set_level(&self, request: SetLevelRequestParams, context: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        let turn = self.turn(&context).await?;
        if turn.modern {
            return Err(ErrorData::method_not_found::<SetLevelRequestMethod>());
        }
        if !turn.reachable {
            return Err(ErrorData::invalid_request("a log level can only be set in a session; open one with initialize", None));
        }
        self.session().set_level(request.level);
        Ok(())
    }

    async fn subscribe(&self, request: SubscribeRequestParams, context: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        let turn = self.turn(&context).await?;
        if !self.face.gateway.offers_watching() {
            return Err(ErrorData::method_not_found::<SubscribeRequestMethod>());
        }
        let refuse = |fault| Err(rpc_error(self.refuse(&turn, "resources/subscribe", "subscription", fault), Asked::Resource));
        if !turn.reachable {
            return refuse(unreachable());
        }
        if !self.face.gateway.may_read(&turn.caller, &request.uri) {
            return refuse(Fault::new(FaultCode::NotFound, "there is no such resource"));
        }
        if !self.face.gateway.may_watch(&turn.caller, &request.uri) {
            return refuse(
                Fault::invalid("changes of this resource are not announced").with_hint("read it again when you need it"),
            );
        }
        if let Err(fault) = self.session().has_room(&request.uri) {
            return refuse(fault);
        }
        let watch = self.face.gateway.watch(&turn.caller, &request.uri).await;
        let watch = watch.map_err(|fault| rpc_error(fault, Asked::Resource))?;
        self.session().watch(request.uri, watch).or_else(refuse)
    }

    async fn unsubscribe(&self, request: UnsubscribeRequestParams, context: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.turn(&context).await?;
        if !self.face.gateway.offers_watching() {
            return Err(ErrorData::method_not_found::<UnsubscribeRequestMethod>());
        }
        if let Some(session) = self.session.get() {
            session.unwatch(&request.uri);
        }
        Ok(())
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        if let Ok(caller) = turn::caller(&self.face.gateway, &context.extensions).await
            && !self.alone
        {
            watch::follow(&self.face, caller, context.peer, self.session());
        }
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        let granted = watch::granted(&self.face, self.owner.as_deref(), requested);
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.face.gateway.changes());
        Some(granted)
    }

    async fn listen(&self, subscription: SubscriptionContext) -> Result<(), ErrorData> {
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let changes = ahead.unwrap_or_else(|| self.face.gateway.changes());
        watch::listen(&self.face, changes, subscription).await
    }

    /// Where requests end whose method rmcp does not know, or whose parameters do not fit the method.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let turn = self.turn(&context).await?;
        let method = request.method;
        let (_, resources, prompts, completions) = self.face.gateway.offers();
        let watching = !turn.modern && self.face.gateway.offers_watching();
        let params = request.params.unwrap_or_else(|| Value::Object(Map::new()));
        let reason = match method.as_str() {
            "tools/call" => misfit::<CallToolRequestParams>(params),
            "tools/list" => misfit::<PaginatedRequestParams>(params),
            "prompts/get" if prompts => misfit::<GetPromptRequestParams>(params),
            "prompts/list" if prompts => misfit::<PaginatedRequestParams>(params),
            "resources/read" if resources => misfit::<ReadResourceRequestParams>(params),
            "resources/list" | "resources/templates/list" if resources => misfit::<PaginatedRequestParams>(params),
            "resources/subscribe" if watching => misfit::<SubscribeRequestParams>(params),
            "resources/unsubscribe" if watching => misfit::<UnsubscribeRequestParams>(params),
            "logging/setLevel" if !turn.modern => misfit::<SetLevelRequestParams>(params),
            "completion/complete" if completions => misfit::<CompleteRequestParams>(params),
            "subscriptions/listen" if turn.modern => misfit::<wire::SubscriptionsListenRequestParams>(params),
            _ => return method_not_found(&self.repeated(&method)),
        };
        let fault = Fault::invalid(format!("the parameters of {method} do not fit: {reason}"));
        Err(rpc_error(self.refuse(&turn, "unreadable", "parameters", fault), Asked::Other))
    }
}

/// What is wrong with parameters that could not be read.
fn misfit<T: DeserializeOwned>(params: Value) -> String {
    match serde_json::from_value::<T>(params) {
        Err(error) => error.to_string(),
        Ok(_) => "they must be an object".to_owned(),
    }
}

/// A listing the gate gave, or its refusal.
fn listed<T>(answer: Answer<Vec<T>>) -> Result<Released<Vec<T>>, ErrorData> {
    answer.map_err(|fault| rpc_error(fault, Asked::Other))
}
