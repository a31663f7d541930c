//! Release: the only way out. Everything a client is sent is a [`Released`], and only this file makes one. Every form takes
//! the same three steps, in this order: hidden characters out, secrets and personal data out, frame around it.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_model::cut::CutRule;
use portcullis_model::{Fault, FaultCode};
use portcullis_policy::{Permit, Purpose};
use portcullis_ports::{
    Content, EmbeddedResource, InputRequest, NoticeLevel, Outcome, Output, PromptMessage, PromptOutput, ResourceOutput, Role,
    Suggestions,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::clean::clean;
use crate::envelope::{Suspicion, frame, nonce};
use crate::redact::Switch;
use crate::{Redactions, Redactor};

/// Key in `_meta` of a result that says its text is data from production and what was seen in it.
pub const META_UNTRUSTED: &str = "portcullis/untrusted";

/// Something that may be sent to a client: redacted, within budget.
#[derive(Debug, Clone, PartialEq)]
pub struct Released<T> {
    inner: T,
    redactions: Redactions,
    bytes: u64,
    signs: Signs,
}

/// What was seen in untrusted text besides secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signs {
    /// The number in the frames of this answer; absent when nothing is framed.
    pub nonce: Option<String>,
    /// Hidden characters that were taken out.
    pub hidden_characters: u64,
    /// Places that read like instructions to a model. They are still there.
    pub suspicious_texts: u64,
    /// Released without redaction, to a principal with that grant.
    pub unredacted: bool,
}

impl Signs {
    /// What was seen, by kind, for the record.
    pub fn counts(&self) -> [(&'static str, u64); 2] {
        [("hidden_characters", self.hidden_characters), ("texts_like_instructions", self.suspicious_texts)]
    }
}

impl<T> Released<T> {
    /// What was released.
    pub fn get(&self) -> &T {
        &self.inner
    }

    /// What was released, to be put on the wire.
    pub fn into_inner(self) -> T {
        self.inner
    }

    /// What was taken out.
    pub fn redactions(&self) -> &Redactions {
        &self.redactions
    }

    /// Bytes of text and JSON in it, for budgets and audit.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What was seen in untrusted text.
    pub fn signs(&self) -> &Signs {
        &self.signs
    }

    /// The member of `_meta` ([`META_UNTRUSTED`]) that says so; `None` when there is nothing to say.
    pub fn untrusted_meta(&self) -> Option<Value> {
        let Signs { nonce, hidden_characters, suspicious_texts, unredacted } = &self.signs;
        let mut said = Map::new();
        if let Some(nonce) = nonce {
            said.insert("nonce".into(), json!(nonce));
        }
        for (name, count) in [("hiddenCharactersRemoved", *hidden_characters), ("textsLikeInstructions", *suspicious_texts)] {
            if count > 0 {
                said.insert(name.into(), json!(count));
            }
        }
        if *unredacted {
            said.insert("unredacted".into(), json!(true));
        }
        (!said.is_empty()).then_some(Value::Object(said))
    }
}

/// A fault as a client sees it: no internal text exists here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFault {
    /// Documented code.
    pub code: FaultCode,
    /// Client-safe sentence.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
    /// Seconds after which a retry may succeed.
    pub retry_after_seconds: Option<u64>,
}

/// A progress report.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Done so far.
    pub done: f64,
    /// Of how much.
    pub total: Option<f64>,
    /// In words.
    pub message: String,
}

/// A log message to the client.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// Level.
    pub level: NoticeLevel,
    /// Who says it.
    pub logger: String,
    /// What.
    pub data: Value,
}

/// How answers are released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReleaseSettings {
    /// Whether the text of tool results and text resources is framed as untrusted data. Costs about 30 tokens an answer.
    pub frame: Switch,
}

/// Releases outputs: cleans, redacts and frames every form, enforces the answer budget of the permit.
#[derive(Debug, Clone)]
pub struct Releaser {
    redactor: Redactor,
    framed: bool,
    /// `None` when the built-in list did not compile: then every framed text is called suspicious.
    suspicion: Option<Suspicion>,
}

/// Names in `_meta` that belong to the protocol or to this house: nobody else's text may speak under them.
fn is_reserved(name: &str) -> bool {
    let prefix = name.split_once('/').map_or("", |(prefix, _)| prefix);
    let protocol = prefix.split('.').any(|label| matches!(label, "modelcontextprotocol" | "mcp"));
    protocol || prefix == "portcullis" || matches!(name, "progressToken" | "traceparent" | "tracestate" | "baggage")
}

/// Base64 media is not text: it is bounded by its own limit, not by the text budget.
const MEDIA_BYTES: u64 = 8 << 20;
/// Bytes of a compressed resource that are looked at.
const UNZIPPED: u64 = 8 << 20;

impl Releaser {
    /// A releaser without frames, for houses whose tools say only what their operator wrote (conformance suites, tests).
    /// Servers that show telemetry use [`Releaser::with_settings`].
    pub fn new(redactor: Redactor) -> Self {
        Self { redactor, framed: false, suspicion: Suspicion::new().ok() }
    }

    /// A releaser with the operator's settings; by default text is framed.
    ///
    /// # Errors
    /// When a built-in list does not compile: a defect of this build, reported instead of ignored.
    pub fn with_settings(redactor: Redactor, settings: ReleaseSettings) -> Result<Self, String> {
        Ok(Self { redactor, framed: settings.frame == Switch::On, suspicion: Some(Suspicion::new()?) })
    }

    /// How texts are cut in the work whose answer is released here: redacted first, for the tenant of the permit. `redact` is
    /// whether the answer will be; without the grant for that it is in any case.
    pub fn cut_rule(&self, permit: &Permit, redact: bool) -> CutRule {
        if !redact && permit.may_see_unredacted() {
            return CutRule::Open;
        }
        let (redactor, tenant) = (self.redactor.clone(), permit.principal().tenant.clone());
        CutRule::Closed(Arc::new(crate::cuts::OfTenant { redactor, tenant }))
    }

    /// Releases the outcome of a tool.
    ///
    /// # Errors
    /// [`FaultCode::TooLarge`] when it exceeds the permit's answer budget: nothing is cut silently.
    pub fn outcome(&self, permit: &Permit, outcome: Outcome) -> Result<Released<Outcome>, Fault> {
        self.released_outcome(permit, outcome, true)
    }

    /// Releases the outcome of a tool with its secrets and personal data in it. Cleaned, framed and bounded all the same;
    /// [`Signs::unredacted`] is set. The gate records the wish before the run and the release after it.
    ///
    /// # Errors
    /// [`FaultCode::Forbidden`] for a permit without that grant; otherwise as [`Releaser::outcome`].
    pub fn outcome_unredacted(&self, permit: &Permit, outcome: Outcome) -> Result<Released<Outcome>, Fault> {
        if !permit.may_see_unredacted() {
            return Err(Fault::new(FaultCode::Forbidden, "you may not see unredacted answers")
                .with_hint("leave the wish for an unredacted answer out; values show as [redacted:kind]"));
        }
        self.released_outcome(permit, outcome, false)
    }

    fn released_outcome(&self, permit: &Permit, outcome: Outcome, redact: bool) -> Result<Released<Outcome>, Fault> {
        let mut work = Work::new(self, permit.principal().tenant.as_str());
        work.redact = redact;
        work.signs.unredacted = !redact;
        work.draw()?;
        let inner = match outcome {
            Outcome::Complete(output) => Outcome::Complete(work.output(output)),
            Outcome::NeedsInput { requests, state } => Outcome::NeedsInput { requests: work.requests(requests), state },
        };
        work.finish(permit, inner)
    }

    /// Releases the contents of a resource.
    ///
    /// # Errors
    /// As [`Releaser::outcome`].
    pub fn resource(&self, permit: &Permit, output: ResourceOutput) -> Result<Released<ResourceOutput>, Fault> {
        let mut work = Work::new(self, permit.principal().tenant.as_str());
        work.draw()?;
        let inner = match output {
            ResourceOutput::Contents(contents) => {
                ResourceOutput::Contents(contents.into_iter().map(|c| work.resource(c)).collect())
            }
            ResourceOutput::NeedsInput { requests, state } => {
                ResourceOutput::NeedsInput { requests: work.requests(requests), state }
            }
        };
        work.finish(permit, inner)
    }

    /// Releases a rendered prompt of the house. Its messages are the house's words and not framed; resources in it are.
    ///
    /// # Errors
    /// As [`Releaser::outcome`].
    pub fn prompt(&self, permit: &Permit, output: PromptOutput) -> Result<Released<PromptOutput>, Fault> {
        self.rendered(permit, output, false)
    }

    /// Releases a rendered prompt of somebody else, who may say something else each time: all text in it is framed, and nobody
    /// but the caller's model speaks as the assistant.
    ///
    /// # Errors
    /// As [`Releaser::outcome`].
    pub fn foreign_prompt(&self, permit: &Permit, output: PromptOutput) -> Result<Released<PromptOutput>, Fault> {
        self.rendered(permit, output, true)
    }

    fn rendered(&self, permit: &Permit, output: PromptOutput, foreign: bool) -> Result<Released<PromptOutput>, Fault> {
        let mut work = Work::new(self, permit.principal().tenant.as_str());
        work.draw()?;
        let inner = match output {
            PromptOutput::Messages { description, messages } => PromptOutput::Messages {
                description: description.map(|d| if foreign { work.untrusted(d) } else { work.text(d) }),
                messages: messages
                    .into_iter()
                    .map(|m| PromptMessage {
                        role: if foreign { Role::User } else { m.role },
                        content: work.content(m.content, foreign),
                    })
                    .collect(),
            },
            PromptOutput::NeedsInput { requests, state } => PromptOutput::NeedsInput { requests: work.requests(requests), state },
        };
        work.finish(permit, inner)
    }

    /// Releases completion values.
    ///
    /// # Errors
    /// As [`Releaser::outcome`].
    pub fn values(&self, permit: &Permit, values: Vec<String>) -> Result<Released<Vec<String>>, Fault> {
        let mut work = Work::new(self, permit.principal().tenant.as_str());
        let inner = values.into_iter().map(|v| work.text(v)).collect();
        work.finish(permit, inner)
    }

    /// Releases what would complete an argument.
    ///
    /// # Errors
    /// As [`Releaser::values`].
    pub fn suggestions(&self, permit: &Permit, suggestions: Suggestions) -> Result<Released<Suggestions>, Fault> {
        let mut work = Work::new(self, permit.principal().tenant.as_str());
        let values = suggestions.values.into_iter().map(|value| work.text(value)).collect();
        work.finish(permit, Suggestions { values, ..suggestions })
    }

    /// Releases a progress report.
    pub fn progress(&self, permit: &Permit, done: f64, total: Option<f64>, message: &str) -> Released<Progress> {
        let mut work = Work::new(self, permit.principal().tenant.as_str());
        let message = work.bounded(message, 2_000);
        work.released(Progress { done, total, message })
    }

    /// Releases a log message.
    pub fn notice(&self, permit: &Permit, level: NoticeLevel, logger: &str, data: Value) -> Released<Notice> {
        let mut work = Work::new(self, permit.principal().tenant.as_str());
        let logger = work.bounded(logger, 200);
        let data = work.value(data);
        work.released(Notice { level, logger, data })
    }

    /// Releases the name of a question about a page, as the question itself was released.
    pub fn page_done(&self, permit: &Permit, elicitation: &str) -> Released<String> {
        let mut work = Work::new(self, permit.principal().tenant.as_str());
        let named = work.value(serde_json::json!({ "elicitationId": elicitation }));
        let name = named.get("elicitationId").and_then(Value::as_str).unwrap_or_default().to_owned();
        work.released(name)
    }

    /// What of the client's words goes on to another server: cleaned and redacted like an answer. It is none, so nothing a
    /// client could be sent comes of it.
    pub fn outgoing(&self, permit: &Permit, words: Value) -> Value {
        Work::new(self, permit.principal().tenant.as_str()).value(words)
    }

    /// Releases a fault. Needs no permit: refusals happen before there is one. What others said about it stands behind the
    /// message, framed like every text that is not the house's own; where no frame can be drawn it is left out, and that is
    /// said.
    pub fn fault(&self, fault: &Fault) -> Released<ClientFault> {
        let mut work = Work::new(self, "");
        let mut message = work.bounded(fault.message(), 2_000);
        if let Some(words) = fault.foreign() {
            let drawn = work.draw();
            let words = if drawn.is_ok() { work.foreign(words) } else { "(cannot be framed now, so left out)".to_owned() };
            message = format!("{message}, in its own words:\n{words}");
        }
        let hint = fault.hint().map(|h| work.bounded(h, 2_000));
        work.released(ClientFault { code: fault.code(), message, hint, retry_after_seconds: fault.retry_after_seconds() })
    }

    /// Releases the answer to an administrator's operation, as every other answer: cleaned, redacted and bounded.
    ///
    /// # Errors
    /// [`FaultCode::Forbidden`] for a permit of anything but an operation; otherwise as [`Releaser::outcome`].
    pub fn administration(&self, permit: &Permit, answer: Value) -> Result<Released<Value>, Fault> {
        if !matches!(permit.purpose(), Purpose::Operation(_)) {
            return Err(Fault::new(FaultCode::Forbidden, "this is not an operation of an administrator"));
        }
        let mut work = Work::new(self, permit.principal().tenant.as_str());
        let inner = work.value(answer);
        work.finish(permit, inner)
    }

    /// Releases a listing of the catalogue: the operator's own words, shown only to those who may use them.
    pub fn listing<T>(&self, entries: Vec<T>) -> Released<Vec<T>> {
        Work::new(self, "").released(entries)
    }
}

struct Work<'r> {
    releaser: &'r Releaser,
    tenant: &'r str,
    redact: bool,
    found: Redactions,
    bytes: u64,
    media: u64,
    signs: Signs,
}

impl<'r> Work<'r> {
    fn new(releaser: &'r Releaser, tenant: &'r str) -> Self {
        Self { releaser, tenant, redact: true, found: Redactions::default(), bytes: 0, media: 0, signs: Signs::default() }
    }

    /// Draws the number of this answer's frames.
    fn draw(&mut self) -> Result<(), Fault> {
        if self.releaser.framed {
            let drawn =
                nonce().map_err(|e| Fault::new(FaultCode::Unavailable, "the answer cannot be framed now").with_internal(e))?;
            self.signs.nonce = Some(drawn);
        }
        Ok(())
    }

    /// Cleans and redacts one text. Cleaning comes first, so that a hidden character cannot split a secret.
    fn purify(&mut self, text: String) -> String {
        let visible = match clean(&text, &mut self.signs.hidden_characters) {
            Cow::Owned(visible) => visible,
            Cow::Borrowed(_) => text,
        };
        if !self.redact {
            return visible;
        }
        match self.releaser.redactor.for_tenant(self.tenant).text(&visible, &mut self.found) {
            Cow::Owned(clean) => clean,
            Cow::Borrowed(_) => visible,
        }
    }

    fn text(&mut self, text: String) -> String {
        let clean = self.purify(text);
        self.bytes += clean.len() as u64;
        clean
    }

    /// A text of at most `most` bytes. It is redacted whole and cut then, so that half a secret never looks like none.
    fn bounded(&mut self, text: &str, most: usize) -> String {
        let looked = &text[..boundary(text, LOOKED_AT.max(most))];
        let clean = self.purify(looked.to_owned());
        let end = boundary(&clean, most);
        let left = clean.len() - end + (text.len() - looked.len());
        let cut = if left == 0 { clean } else { format!("{}… [{left} bytes more]", &clean[..end]) };
        self.bytes += cut.len() as u64;
        cut
    }

    /// Words of somebody outside of this house in a fault: bounded like the rest of it, and framed.
    fn foreign(&mut self, words: &str) -> String {
        let (bytes, before) = (self.bytes, self.signs.hidden_characters);
        let clean = self.bounded(words, 2_000);
        let Some(nonce) = self.signs.nonce.clone() else { return clean };
        self.bytes = bytes;
        self.framed(&clean, &nonce, before)
    }

    /// Text from production: framed, with a word in front about what it holds.
    fn untrusted(&mut self, text: String) -> String {
        let Some(nonce) = self.signs.nonce.clone() else { return self.text(text) };
        let before = self.signs.hidden_characters;
        let clean = self.purify(text);
        self.framed(&clean, &nonce, before)
    }

    /// Frames what is clean. `before`: how many hidden characters had been taken out of what came before it.
    fn framed(&mut self, clean: &str, nonce: &str, before: u64) -> String {
        let removed = self.signs.hidden_characters - before;
        let suspicious = self.releaser.suspicion.as_ref().map_or(1, |s| s.count(clean));
        self.signs.suspicious_texts += suspicious;
        let framed = frame(clean, nonce, suspicious, removed);
        self.bytes += framed.len() as u64;
        framed
    }

    fn value(&mut self, mut value: Value) -> Value {
        visible(&mut value, &mut self.signs.hidden_characters);
        if self.redact {
            self.releaser.redactor.for_tenant(self.tenant).value(&mut value, &mut self.found);
        }
        self.bytes += json_bytes(&value);
        value
    }

    fn requests(&mut self, requests: Vec<(String, InputRequest)>) -> Vec<(String, InputRequest)> {
        requests.into_iter().map(|(key, request)| (key, self.request(request))).collect()
    }

    fn request(&mut self, InputRequest { method, mut params }: InputRequest) -> InputRequest {
        // Half a link leads nowhere, and it is for a person's browser and no model: whoever asks has judged it as a whole.
        let is_link = method == "elicitation/create" && params.get("mode").is_some_and(|mode| mode == "url");
        let link = params.as_object_mut().filter(|_| is_link).and_then(|members| members.remove("url"));
        let mut params = self.value(params);
        if let (Some(Value::String(mut link)), Some(members)) = (link, params.as_object_mut()) {
            link.retain(|character| character.is_ascii_graphic());
            self.bytes += link.len() as u64;
            members.insert("url".to_owned(), Value::String(link));
        }
        InputRequest { method, params }
    }

    fn output(&mut self, output: Output) -> Output {
        Output {
            content: output.content.into_iter().map(|c| self.content(c, true)).collect(),
            structured: output.structured.map(|v| self.value(v)),
            failed: output.failed,
            sources: output.sources,
            meta: output.meta.and_then(|meta| self.meta(meta)),
        }
    }

    /// Members of `_meta` that somebody else wrote: released like any value, without the names that are not theirs to use.
    fn meta(&mut self, meta: Value) -> Option<Value> {
        let Value::Object(members) = meta else { return None };
        let kept: Map<String, Value> = members.into_iter().filter(|(name, _)| !is_reserved(name)).collect();
        (!kept.is_empty()).then(|| self.value(Value::Object(kept)))
    }

    fn content(&mut self, content: Content, untrusted: bool) -> Content {
        match content {
            Content::Text(text) if untrusted => Content::Text(self.untrusted(text)),
            Content::Text(text) => Content::Text(self.text(text)),
            Content::Image { data, mime_type } => Content::Image { data: self.binary(data), mime_type: self.text(mime_type) },
            Content::Audio { data, mime_type } => Content::Audio { data: self.binary(data), mime_type: self.text(mime_type) },
            Content::Resource(resource) => Content::Resource(self.resource(resource)),
            Content::Link(link) => Content::Link(self.value(link)),
            Content::Annotated { block, annotations, meta } => Content::Annotated {
                block: Box::new(self.content(*block, untrusted)),
                annotations: annotations.map(|a| self.value(a)),
                meta: meta.and_then(|m| self.meta(m)),
            },
        }
    }

    fn resource(&mut self, resource: EmbeddedResource) -> EmbeddedResource {
        let EmbeddedResource { uri, mime_type, data, binary, meta } = resource;
        let data = if binary {
            self.binary(data)
        } else if mime_type.as_deref().is_some_and(|m| m.contains("json")) {
            self.document(data)
        } else if mime_type.as_deref().is_none_or(|m| m.starts_with("text/plain") || m.starts_with("text/markdown")) {
            self.untrusted(data)
        } else {
            // Other formats would not survive a frame.
            self.text(data)
        };
        EmbeddedResource {
            uri: self.text(uri),
            mime_type: mime_type.map(|m| self.text(m)),
            data,
            binary,
            meta: meta.and_then(|m| self.meta(m)),
        }
    }

    /// A JSON document as text: redacted by its structure, so that it stays JSON.
    fn document(&mut self, data: String) -> String {
        match serde_json::from_str::<Value>(&data) {
            Ok(parsed) => {
                let before = parsed.clone();
                let bytes = self.bytes;
                let clean = self.value(parsed);
                self.bytes = bytes;
                let text = if clean == before { data } else { clean.to_string() };
                self.bytes += text.len() as u64;
                text
            }
            Err(_) => self.text(data),
        }
    }

    /// Base64 of bytes. What is text inside is redacted as text; compressed and other bytes with a secret in them go whole.
    fn binary(&mut self, data: String) -> String {
        let clean = if self.redact { self.redacted_binary(&data) } else { None };
        let data = clean.unwrap_or(data);
        self.media += data.len() as u64;
        data
    }

    fn redacted_binary(&mut self, data: &str) -> Option<String> {
        let redactor = self.releaser.redactor.for_tenant(self.tenant);
        let compact: String = data.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let Ok(bytes) = STANDARD.decode(&compact) else {
            // Not base64 after all: looked at as the text it is.
            return match redactor.text(data, &mut self.found) {
                Cow::Owned(clean) => Some(STANDARD.encode(clean)),
                Cow::Borrowed(_) => None,
            };
        };
        if let Ok(text) = std::str::from_utf8(&bytes) {
            return match redactor.text(text, &mut self.found) {
                Cow::Owned(clean) => Some(STANDARD.encode(clean)),
                Cow::Borrowed(_) => None,
            };
        }
        let unzipped = crate::redact::unzip(&bytes, UNZIPPED);
        let text = String::from_utf8_lossy(unzipped.as_deref().unwrap_or(&bytes));
        if !redactor.holds_a_secret(&text, unzipped.is_some()) {
            return None;
        }
        self.found.add("encoded-secret");
        Some(STANDARD.encode("[redacted:encoded-secret]"))
    }

    fn released<T>(self, inner: T) -> Released<T> {
        Released { inner, redactions: self.found, bytes: self.bytes + self.media, signs: self.signs }
    }

    fn finish<T>(self, permit: &Permit, inner: T) -> Result<Released<T>, Fault> {
        let budget = permit.budget().answer_bytes;
        if self.bytes > budget || self.media > MEDIA_BYTES {
            return Err(Fault::new(
                FaultCode::TooLarge,
                format!("the answer has {} bytes, the budget of one answer is {budget}", self.bytes + self.media),
            )
            .with_hint("narrow the question: a shorter window, one service, a filter, or a smaller limit"));
        }
        Ok(self.released(inner))
    }
}

/// Bytes of a bounded text that are looked at before it is cut.
const LOOKED_AT: usize = 64 << 10;

/// The last character boundary of `text` at or before `most`.
fn boundary(text: &str, most: usize) -> usize {
    if text.len() <= most { text.len() } else { (0..=most).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0) }
}

/// Takes hidden characters out of every string and key of a JSON value.
fn visible(value: &mut Value, removed: &mut u64) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(clean) = clean(text, removed) {
                *text = clean;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| visible(item, removed)),
        Value::Object(members) => {
            let dirty = members.keys().any(|key| matches!(clean(key, &mut 0), Cow::Owned(_)));
            if dirty {
                for (key, member) in std::mem::take(members) {
                    let mut name = clean(&key, removed).into_owned();
                    while members.contains_key(&name) {
                        name.push('_');
                    }
                    members.insert(name, member);
                }
            }
            members.values_mut().for_each(|member| visible(member, removed));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Bytes of the compact JSON form.
fn json_bytes(value: &Value) -> u64 {
    struct Count(u64);
    impl std::io::Write for Count {
        fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
            self.0 += buffer.len() as u64;
            Ok(buffer.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting cannot fail; were it to, the answer would count as too large, not as empty.
    serde_json::to_writer(&mut count, value).map_or(u64::MAX / 4, |()| count.0)
}
