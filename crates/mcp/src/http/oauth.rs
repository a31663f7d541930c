//! This server as an OAuth 2.1 protected resource: its metadata (RFC 9728), the challenges that lead a client there
//! (RFC 6750 section 3), and the step up to a scope that a call needs (MCP, basic/authorization).
//!
//! Guards that clients learn everything from the configuration and nothing from a request's headers. Must not decide:
//! whether a call is allowed is asked of the gate, and here only to say what a client could ask its issuer for.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use portcullis_gateway::{CALL_TOOL, Caller, CompletionReference, Gateway, Sought};
use portcullis_identity::token::{ProtectedResource, WELL_KNOWN};
use portcullis_model::{CredentialKind, Fault, FaultCode, Principal};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::answer::{fault_refusal_with, request_id};

/// Adds the metadata where clients look for it: at the root, at the path of `/mcp`, and at the path of the URL this server
/// is known by.
pub(super) fn with_metadata(routes: Router, resource: Option<&Arc<ProtectedResource>>) -> Router {
    let Some(resource) = resource else { return routes };
    let document = resource.document();
    let answer = move || async move { Json(document) };
    let paths = BTreeSet::from([WELL_KNOWN.to_owned(), format!("{WELL_KNOWN}/mcp"), resource.metadata_path().to_owned()]);
    paths.iter().fold(routes, |routes, path| routes.route(path, get(answer.clone())))
}

/// Puts the address of the metadata and scopes to ask for into the `Bearer` challenge of a refusal that has one. Other
/// challenges stay as they are.
pub(super) fn challenged(mut response: Response, resource: Option<&Arc<ProtectedResource>>) -> Response {
    let Some(resource) = resource else { return response };
    if !matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return response;
    }
    let given: Vec<HeaderValue> = response.headers().get_all(WWW_AUTHENTICATE).iter().cloned().collect();
    response.headers_mut().remove(WWW_AUTHENTICATE);
    for challenge in given {
        let text = challenge.to_str().unwrap_or_default();
        // One that leads to the metadata already says what it must say.
        let plain = text.starts_with("Bearer") && !text.contains("resource_metadata=");
        let better = plain.then(|| resource.challenge(error_of(text), None)).and_then(|text| HeaderValue::from_str(&text).ok());
        response.headers_mut().append(WWW_AUTHENTICATE, better.unwrap_or(challenge));
    }
    response
}

/// The error code of a challenge of ours.
fn error_of(challenge: &str) -> Option<&'static str> {
    let known = ["invalid_request", "invalid_token", INSUFFICIENT_SCOPE];
    known.into_iter().find(|code| challenge.contains(&format!("error=\"{code}\"")))
}

#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    params: Option<Named<'a>>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    arguments: Option<Standing<'a>>,
    #[serde(borrow)]
    uri: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "ref")]
    reference: Option<Reference<'a>>,
    #[serde(borrow)]
    argument: Option<Completed<'a>>,
}

/// The prompt or template an argument of which is completed.
#[derive(Deserialize)]
struct Reference<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    uri: Option<Cow<'a, str>>,
}

/// The argument that is completed.
#[derive(Deserialize)]
struct Completed<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

/// Arguments of a call that may stand for another tool's.
#[derive(Deserialize)]
struct Standing<'a> {
    #[serde(borrow, default)]
    name: Option<Value<'a>>,
}

/// A name, where it is one; anything else is an argument of a tool that happens to be called so.
#[derive(Deserialize)]
#[serde(untagged)]
enum Value<'a> {
    Name(#[serde(borrow)] Cow<'a, str>),
    Other(IgnoredAny),
}

/// What a request wants to use: its method, all of what it needs, and in words what that is.
struct Wanted<'a> {
    method: &'static str,
    sought: Vec<Sought<'a>>,
    words: String,
}

impl Asked<'_> {
    /// Nothing for requests that use nothing by a name.
    fn wanted(&self) -> Option<Wanted<'_>> {
        let params = self.params.as_ref()?;
        Some(match &*self.method {
            "tools/call" => params.call()?,
            "resources/read" => params.resource("resources/read")?,
            "resources/subscribe" => params.resource("resources/subscribe")?,
            "prompts/get" => {
                let name = params.name.as_deref()?;
                Wanted { method: "prompts/get", sought: vec![Sought::Prompt(name)], words: format!("prompt {name}") }
            }
            "completion/complete" => params.completion()?,
            _ => return None,
        })
    }
}

impl Named<'_> {
    fn call(&self) -> Option<Wanted<'_>> {
        let tool = self.name.as_deref()?;
        // A call through `call_tool` is the other tool's own call as well, and needs what both of them need.
        let inner = match self.arguments.as_ref().and_then(|arguments| arguments.name.as_ref()) {
            Some(Value::Name(inner)) if tool == CALL_TOOL => Some(&**inner),
            _ => None,
        };
        let sought = [Some(tool), inner].into_iter().flatten().map(Sought::Tool).collect();
        Some(Wanted { method: "tools/call", sought, words: format!("tool {}", inner.unwrap_or(tool)) })
    }

    fn resource(&self, method: &'static str) -> Option<Wanted<'_>> {
        let uri = self.uri.as_deref()?;
        Some(Wanted { method, sought: vec![Sought::Resource(uri)], words: format!("resource {uri}") })
    }

    fn completion(&self) -> Option<Wanted<'_>> {
        let (reference, argument) = (self.reference.as_ref()?, &*self.argument.as_ref()?.name);
        let (of, words) = match &*reference.kind {
            "ref/prompt" => {
                let name = reference.name.as_deref()?;
                (CompletionReference::Prompt(name), format!("completing prompt {name}"))
            }
            "ref/resource" => {
                let uri = reference.uri.as_deref()?;
                (CompletionReference::Template(uri), format!("completing resource {uri}"))
            }
            _ => return None,
        };
        Some(Wanted { method: "completion/complete", sought: vec![Sought::Completion(of, argument)], words })
    }
}

/// A call, a reading, a prompt or a completion that the caller's token does not allow and a token with more scopes would.
pub(super) struct Beyond {
    method: &'static str,
    words: String,
    /// Scopes to ask for.
    pub(super) scopes: Vec<String>,
}

/// What a message wants beyond the caller's token. Nothing when it is allowed, or when no scope would help: then the gate
/// refuses it like every other. Through a product only what the product offers is led to.
pub(super) fn beyond(
    resource: Option<&Arc<ProtectedResource>>,
    gateway: &Gateway,
    caller: &Caller,
    message: &[u8],
) -> Option<Beyond> {
    let resource = resource?;
    let principal = caller.principal();
    if !matches!(principal.credential, CredentialKind::Token { .. }) {
        return None;
    }
    let asked: Asked<'_> = serde_json::from_slice(message).ok()?;
    let Wanted { method, sought, words } = asked.wanted()?;
    let allows = |principal: &Principal| sought.iter().all(|one| gateway.would_allow(caller, principal, *one));
    if allows(principal) {
        return None;
    }
    let step = resource.step_ups(principal).into_iter().find(|step| allows(&step.principal))?;
    Some(Beyond { method, words, scopes: step.scopes })
}

impl Beyond {
    /// Refuses it, and counts it against the caller's rate like a call. Gives the answer, which says the scopes, and whether the
    /// caller is led to them: who asks too often is told that instead.
    pub(super) async fn refuse(&self, gateway: &Gateway, caller: &Caller, message: &[u8]) -> (Response, bool) {
        let (scopes, words) = (self.scopes.join(" "), &self.words);
        let fault =
            Fault::new(FaultCode::Forbidden, format!("the access token does not cover this call; it needs the scopes: {scopes}"))
                .with_internal(format!("{words} needs the scopes {scopes}"));
        let (released, admitted) = gateway.refuse_call(caller, self.method, INSUFFICIENT, fault).await;
        // In the words of the challenge, for a client that reads the answer and no header.
        let lacking = [("error", INSUFFICIENT_SCOPE), ("scope", scopes.as_str())];
        let said = if admitted { &lacking[..] } else { &[] };
        (fault_refusal_with(released, request_id(message), said), admitted)
    }
}

/// The rule in the record.
const INSUFFICIENT: &str = "insufficient-scope";
/// The error of RFC 6750 section 3.1.
const INSUFFICIENT_SCOPE: &str = "insufficient_scope";

/// A refusal with the challenge that leads to these scopes.
pub(super) fn leading(mut response: Response, resource: &ProtectedResource, scopes: &[String]) -> Response {
    if let Ok(challenge) = HeaderValue::from_str(&resource.challenge(Some(INSUFFICIENT_SCOPE), Some(scopes))) {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

/// The refusal of a request that wants more than the caller's token allows, as [`beyond`] finds it.
pub(super) async fn step_up(
    resource: Option<&Arc<ProtectedResource>>,
    gateway: &Gateway,
    caller: &Caller,
    body: &Bytes,
) -> Option<Response> {
    let beyond = beyond(resource, gateway, caller, body)?;
    let (response, leads) = beyond.refuse(gateway, caller, body).await;
    Some(match resource {
        Some(resource) if leads => leading(response, resource, &beyond.scopes),
        _ => response,
    })
}
