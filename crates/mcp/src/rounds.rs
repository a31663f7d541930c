//! Calls of several rounds: a tool asks the client's user or model, and is run again with the answers.
//!
//! In the stateless revision the tool's state travels through the client (SEP-2322): sealed with a key of this
//! process, bound to principal, method, target and arguments, valid for ten minutes and once. In sessions the
//! questions are sent as requests of their own. A question whose capability the client did not declare is never sent.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use portcullis_model::{Fault, FaultCode, PrincipalId};
use portcullis_ports::{Answers, ClientAbilities, InputRequest};
use rmcp::RoleServer;
use rmcp::model::{
    ClientCapabilities, CustomRequest, ElicitationCapability, ErrorData, InputRequests, InputResponses, RequestStateCodec,
    RootsCapabilities, SamplingCapability, SealOptions, ServerRequest, UrlElicitationCapability,
};
use rmcp::service::{Peer, PeerRequestOptions, ServiceError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How long a client may take to come back with answers.
const LIFETIME: Duration = Duration::from_mins(10);
/// Largest state a tool may send through the client, bytes of JSON.
const STATE_BYTES: usize = 16 * 1024;
/// States remembered as used. They expire, so the set is bounded by the rate of calls; beyond it nothing is opened.
const REMEMBERED: usize = 100_000;
/// Rounds of one call within a session.
pub(crate) const MOST_ROUNDS: usize = 8;
/// How long one question within a session may stay open.
const PATIENCE: Duration = Duration::from_mins(5);

/// Elicitation, sampling, roots: the questions MCP knows.
const ELICIT: &str = "elicitation/create";
const SAMPLE: &str = "sampling/createMessage";
const ROOTS: &str = "roots/list";

#[derive(Serialize, Deserialize)]
struct Sealed {
    /// Makes every state different, and names it once used.
    nonce: u128,
    state: Value,
}

/// What a state belongs to: a digest of principal, method, target and arguments.
#[derive(Clone, Copy)]
pub(crate) struct Binding([u8; 32]);

impl Binding {
    pub(crate) fn new(principal: &PrincipalId, method: &str, target: &str, arguments: &Map<String, Value>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [principal.as_str(), method, target] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        digest_map(&mut hasher, arguments);
        Self(*hasher.finalize().as_bytes())
    }
}

/// Digests JSON by content: members in the order of their names, so that a client may send them in another order.
fn digest(hasher: &mut blake3::Hasher, value: &Value) {
    match value {
        Value::Object(map) => digest_map(hasher, map),
        Value::Array(items) => {
            hasher.update(b"[");
            hasher.update(&(items.len() as u64).to_be_bytes());
            for item in items {
                digest(hasher, item);
            }
        }
        scalar => {
            let text = scalar.to_string();
            hasher.update(b"=");
            hasher.update(&(text.len() as u64).to_be_bytes());
            hasher.update(text.as_bytes());
        }
    }
}

fn digest_map(hasher: &mut blake3::Hasher, map: &Map<String, Value>) {
    hasher.update(b"{");
    hasher.update(&(map.len() as u64).to_be_bytes());
    let mut members: Vec<_> = map.iter().collect();
    members.sort_unstable_by_key(|(name, _)| *name);
    for (name, value) in members {
        hasher.update(&(name.len() as u64).to_be_bytes());
        hasher.update(name.as_bytes());
        digest(hasher, value);
    }
}

/// Seals and opens the states of calls that wait for answers.
pub(crate) struct Rounds {
    codec: RequestStateCodec,
    lifetime: Duration,
    used: Mutex<HashMap<u128, Instant>>,
}

impl Rounds {
    /// With a key that lives as long as this process.
    pub(crate) fn new() -> Self {
        Self::lasting(LIFETIME)
    }

    fn lasting(lifetime: Duration) -> Self {
        let key: [u8; 32] = rand::random();
        Self { codec: RequestStateCodec::new_unchecked(key), lifetime, used: Mutex::new(HashMap::new()) }
    }

    /// Seals what a tool wants back.
    pub(crate) fn seal(&self, binding: Binding, state: Value) -> Result<String, Fault> {
        let sealed = Sealed { nonce: rand::random(), state };
        let payload = serde_json::to_vec(&sealed)
            .map_err(|e| Fault::new(FaultCode::Internal, "the question could not be prepared").with_internal(e.to_string()))?;
        if payload.len() > STATE_BYTES {
            return Err(Fault::new(FaultCode::Internal, "the question could not be prepared")
                .with_internal(format!("the tool's state has {} bytes, at most {STATE_BYTES} may travel", payload.len())));
        }
        Ok(self.codec.seal_with(&payload, &SealOptions::new().associated_data(&binding.0).ttl(self.lifetime)))
    }

    /// The answers of a retried call. A state that was changed, is too old, was used before or belongs to another
    /// principal, method, target or arguments is refused; which of these it was is for the log.
    pub(crate) fn open(
        &self,
        binding: impl FnOnce() -> Binding,
        responses: Option<InputResponses>,
        state: Option<&str>,
    ) -> Result<Option<Answers>, Fault> {
        let state = match state {
            None => None,
            Some(sealed) => Some(self.open_state(binding(), sealed)?),
        };
        if responses.is_none() && state.is_none() {
            return Ok(None);
        }
        Ok(Some(Answers { responses: responses.unwrap_or_default(), state }))
    }

    fn open_state(&self, binding: Binding, sealed: &str) -> Result<Value, Fault> {
        let refused = |internal: String| {
            Fault::invalid("the requestState is not valid for this request")
                .with_hint("it is good for ten minutes, once, and only with the arguments it was made for; call again without it")
                .with_internal(internal)
        };
        if sealed.len() > 2 * STATE_BYTES {
            return Err(refused("longer than any state of ours".into()));
        }
        let opened: Sealed = self.codec.open_json_with(sealed, &binding.0).map_err(|e| refused(e.to_string()))?;
        let now = Instant::now();
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= REMEMBERED {
            used.retain(|_, until| *until > now);
            if used.len() >= REMEMBERED {
                return Err(Fault::new(FaultCode::Unavailable, "too many calls are waiting for answers").with_retry_after(10));
            }
        }
        match used.insert(opened.nonce, now + self.lifetime) {
            None => Ok(opened.state),
            Some(_) => Err(refused("used before".into())),
        }
    }
}

/// What the client must have declared for these questions and did not.
pub(crate) fn missing(requests: &[(String, InputRequest)], abilities: ClientAbilities) -> Option<ClientCapabilities> {
    let asks = |method: &str| requests.iter().any(|(_, request)| request.method == method);
    let mut required = ClientCapabilities::default();
    let mut any = false;
    let (links, forms): (Vec<_>, Vec<_>) =
        requests.iter().filter(|(_, request)| request.method == ELICIT).partition(|r| is_link(&r.1));
    if !forms.is_empty() && !abilities.elicitation {
        required.elicitation = Some(ElicitationCapability::default());
        any = true;
    }
    if !links.is_empty() && !abilities.links {
        let elicitation = required.elicitation.get_or_insert_default();
        elicitation.url = Some(UrlElicitationCapability::default());
        any = true;
    }
    if asks(SAMPLE) && !abilities.sampling {
        required.sampling = Some(SamplingCapability::default());
        any = true;
    }
    if asks(ROOTS) && !abilities.roots {
        required.roots = Some(RootsCapabilities::default());
        any = true;
    }
    any.then_some(required)
}

/// Whether a question wants a person to open a page, rather than to fill in a form.
fn is_link(request: &InputRequest) -> bool {
    request.params.get("mode").is_some_and(|mode| mode == "url")
}

/// The questions as the stateless revision carries them.
pub(crate) fn wire(requests: Vec<(String, InputRequest)>) -> Result<InputRequests, Fault> {
    requests
        .into_iter()
        .map(|(key, request)| {
            known(&request)?;
            let InputRequest { method, params } = request;
            let whole = Value::Object(Map::from_iter([("method".into(), method.into()), ("params".into(), params)]));
            let question = serde_json::from_value(whole).map_err(|e| malformed(&e.to_string()))?;
            Ok((key, question))
        })
        .collect()
}

fn known(request: &InputRequest) -> Result<(), Fault> {
    match request.method.as_str() {
        ELICIT | SAMPLE | ROOTS => Ok(()),
        other => Err(malformed(&format!("a question by the method '{other}' does not exist"))),
    }
}

fn malformed(internal: &str) -> Fault {
    Fault::new(FaultCode::Internal, "the question could not be prepared").with_internal(internal)
}

/// Sends the questions to the client of a session, one after the other, and collects the answers.
pub(crate) async fn ask(
    peer: &Peer<RoleServer>,
    requests: Vec<(String, InputRequest)>,
) -> Result<BTreeMap<String, Value>, Fault> {
    let mut responses = BTreeMap::new();
    for (key, request) in requests {
        known(&request)?;
        let InputRequest { method, params } = request;
        let question = ServerRequest::CustomRequest(CustomRequest::new(method.clone(), Some(params)));
        let options = PeerRequestOptions::with_timeout(PATIENCE);
        let answer = match peer.send_cancellable_request(question, options).await {
            Ok(handle) => handle.await_response().await,
            Err(error) => Err(error),
        };
        let answer = answer.map_err(|error| unanswered(&method, &error))?;
        let answer = serde_json::to_value(answer).map_err(|e| malformed(&e.to_string()))?;
        responses.insert(key, answer);
    }
    Ok(responses)
}

fn unanswered(method: &str, error: &ServiceError) -> Fault {
    let (code, message) = match error {
        ServiceError::Timeout { .. } => {
            (FaultCode::DeadlineExceeded, format!("the client did not answer {method} within {}s", PATIENCE.as_secs()))
        }
        ServiceError::McpError(_) => (FaultCode::InvalidArgument, format!("the client refused {method}")),
        _ => (FaultCode::Cancelled, format!("the client went away before it answered {method}")),
    };
    Fault::new(code, message).with_internal(error.to_string())
}

/// The error of the stateless revision for a question the client cannot be asked.
pub(crate) fn missing_error(required: ClientCapabilities) -> ErrorData {
    ErrorData::missing_required_client_capability(required)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn binding(principal: &str, arguments: &Value) -> Binding {
        Binding::new(&PrincipalId::new(principal).unwrap(), "tools/call", "t", arguments.as_object().unwrap())
    }

    #[test]
    fn a_state_is_good_once_and_only_where_it_belongs() {
        let rounds = Rounds::new();
        let arguments = json!({"a": 1, "b": [true, null]});
        let sealed = rounds.seal(binding("key:a", &arguments), json!({"step": 2})).unwrap();
        for wrong in [
            binding("key:b", &arguments),
            binding("key:a", &json!({"a": 1, "b": [true]})),
            Binding::new(&PrincipalId::new("key:a").unwrap(), "prompts/get", "t", arguments.as_object().unwrap()),
            Binding::new(&PrincipalId::new("key:a").unwrap(), "tools/call", "u", arguments.as_object().unwrap()),
            binding("key:a", &json!({"a": 1.0, "b": [true, null]})),
            binding("key:a", &json!({"a": "1", "b": [true, null]})),
            binding("key:a", &json!({"a": 1, "b": [true, null], "c": null})),
        ] {
            let fault = rounds.open(|| wrong, None, Some(&sealed)).unwrap_err();
            assert_eq!(fault.code(), FaultCode::InvalidArgument);
        }
        assert!(rounds.open(|| binding("key:a", &arguments), None, Some(&format!("{sealed}x"))).is_err());
        let reordered = json!({"b": [true, null], "a": 1});
        let answers = rounds.open(|| binding("key:a", &reordered), None, Some(&sealed)).unwrap().unwrap();
        assert_eq!(answers.state, Some(json!({"step": 2})));
        assert!(rounds.open(|| binding("key:a", &arguments), None, Some(&sealed)).is_err(), "used twice");
        assert!(Rounds::new().open(|| binding("key:a", &arguments), None, Some(&sealed)).is_err(), "another process");
        assert_eq!(rounds.open(|| unreachable!(), None, None).unwrap(), None);
    }

    #[test]
    fn a_state_expires() {
        let rounds = Rounds::lasting(Duration::from_millis(1));
        let arguments = json!({});
        let sealed = rounds.seal(binding("key:a", &arguments), json!(1)).unwrap();
        // The seal carries the time of the system, in milliseconds, and asks it again when it is opened.
        std::thread::sleep(Duration::from_millis(5));
        let fault = rounds.open(|| binding("key:a", &arguments), None, Some(&sealed)).unwrap_err();
        assert!(fault.internal().unwrap().contains("expired"), "{fault:?}");
        assert!(rounds.used.lock().unwrap().is_empty());
    }

    #[test]
    fn only_declared_capabilities_are_used() {
        let ask = |method: &str| vec![("q".to_owned(), InputRequest { method: method.into(), params: json!({}) })];
        let required = missing(&ask(SAMPLE), ClientAbilities { elicitation: true, ..Default::default() }).unwrap();
        assert_eq!(serde_json::to_value(required).unwrap(), json!({"sampling": {}}));
        let link = |params: Value| vec![("q".to_owned(), InputRequest { method: ELICIT.into(), params })];
        let forms = ClientAbilities { elicitation: true, ..Default::default() };
        let required = missing(&link(json!({"mode": "url", "url": "https://a.example"})), forms).unwrap();
        assert_eq!(serde_json::to_value(required).unwrap(), json!({"elicitation": {"url": {}}}));
        let links = ClientAbilities { links: true, ..Default::default() };
        assert!(missing(&link(json!({"mode": "url"})), links).is_none());
        assert!(missing(&link(json!({"mode": "form"})), links).is_some());
        assert!(missing(&ask(ROOTS), ClientAbilities { roots: true, ..Default::default() }).is_none());
        assert_eq!(wire(ask("tools/list")).unwrap_err().code(), FaultCode::Internal);
        assert!(wire(ask(ROOTS)).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_forged_state_opens(forged in "\\PC{0,120}") {
            let rounds = Rounds::new();
            let opened = rounds.open(|| binding("key:a", &json!({})), None, Some(&forged));
            proptest::prop_assert!(opened.is_err());
        }
    }
}
