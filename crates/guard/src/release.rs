//! Release: the only way out. Everything a client is sent is a [`Released`], and only this file makes one.

use portcullis_model::{Fault, FaultCode};
use portcullis_policy::Permit;
use portcullis_ports::{
    Content, EmbeddedResource, InputRequest, NoticeLevel, Outcome, Output, PromptMessage, PromptOutput, ResourceOutput,
};
use serde_json::Value;

use crate::{Redactions, Redactor};

/// Something that may be sent to a client: redacted, within budget.
#[derive(Debug, Clone, PartialEq)]
pub struct Released<T> {
    inner: T,
    redactions: Redactions,
    bytes: u64,
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

/// Releases outputs: redacts every form, enforces the answer budget of the permit.
#[derive(Debug, Clone)]
pub struct Releaser {
    redactor: Redactor,
}

/// Base64 media is not text: it is bounded by its own limit, not by the text budget.
const MEDIA_BYTES: u64 = 8 << 20;

impl Releaser {
    /// A releaser with `redactor`.
    pub fn new(redactor: Redactor) -> Self {
        Self { redactor }
    }

    /// Releases the outcome of a tool.
    ///
    /// # Errors
    /// [`FaultCode::TooLarge`] when it exceeds the permit's answer budget: nothing is cut silently.
    pub fn outcome(&self, permit: &Permit, outcome: Outcome) -> Result<Released<Outcome>, Fault> {
        let mut work = Work::new(&self.redactor);
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
        let mut work = Work::new(&self.redactor);
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

    /// Releases a rendered prompt.
    ///
    /// # Errors
    /// As [`Releaser::outcome`].
    pub fn prompt(&self, permit: &Permit, output: PromptOutput) -> Result<Released<PromptOutput>, Fault> {
        let mut work = Work::new(&self.redactor);
        let inner = match output {
            PromptOutput::Messages { description, messages } => PromptOutput::Messages {
                description: description.map(|d| work.text(d)),
                messages: messages
                    .into_iter()
                    .map(|m| PromptMessage { role: m.role, content: work.content(m.content) })
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
        let mut work = Work::new(&self.redactor);
        let inner = values.into_iter().map(|v| work.text(v)).collect();
        work.finish(permit, inner)
    }

    /// Releases a progress report.
    pub fn progress(&self, _permit: &Permit, done: f64, total: Option<f64>, message: &str) -> Released<Progress> {
        let mut work = Work::new(&self.redactor);
        let message = work.text(bounded(message, 2_000));
        work.released(Progress { done, total, message })
    }

    /// Releases a log message.
    pub fn notice(&self, _permit: &Permit, level: NoticeLevel, logger: &str, data: Value) -> Released<Notice> {
        let mut work = Work::new(&self.redactor);
        let logger = work.text(bounded(logger, 200));
        let data = work.value(data);
        work.released(Notice { level, logger, data })
    }

    /// Releases a fault. Needs no permit: refusals happen before there is one.
    pub fn fault(&self, fault: &Fault) -> Released<ClientFault> {
        let mut work = Work::new(&self.redactor);
        let message = work.text(bounded(fault.message(), 2_000));
        let hint = fault.hint().map(|h| work.text(bounded(h, 2_000)));
        work.released(ClientFault { code: fault.code(), message, hint, retry_after_seconds: fault.retry_after_seconds() })
    }

    /// Releases a listing of the catalogue: the operator's own words, shown only to those who may use them.
    pub fn listing<T>(&self, entries: Vec<T>) -> Released<Vec<T>> {
        Work::new(&self.redactor).released(entries)
    }
}

fn bounded(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    format!("{}… [{} bytes more]", &text[..end], text.len() - end)
}

struct Work<'r> {
    redactor: &'r Redactor,
    found: Redactions,
    bytes: u64,
    media: u64,
}

impl<'r> Work<'r> {
    fn new(redactor: &'r Redactor) -> Self {
        Self { redactor, found: Redactions::default(), bytes: 0, media: 0 }
    }

    fn text(&mut self, text: String) -> String {
        let clean = match self.redactor.text(&text, &mut self.found) {
            std::borrow::Cow::Owned(clean) => clean,
            std::borrow::Cow::Borrowed(_) => text,
        };
        self.bytes += clean.len() as u64;
        clean
    }

    fn value(&mut self, mut value: Value) -> Value {
        self.redactor.value(&mut value, &mut self.found);
        self.bytes += json_bytes(&value);
        value
    }

    fn requests(&mut self, requests: Vec<(String, InputRequest)>) -> Vec<(String, InputRequest)> {
        requests
            .into_iter()
            .map(|(key, request)| (key, InputRequest { method: request.method, params: self.value(request.params) }))
            .collect()
    }

    fn output(&mut self, output: Output) -> Output {
        Output {
            content: output.content.into_iter().map(|c| self.content(c)).collect(),
            structured: output.structured.map(|v| self.value(v)),
            failed: output.failed,
            sources: output.sources,
        }
    }

    fn content(&mut self, content: Content) -> Content {
        match content {
            Content::Text(text) => Content::Text(self.text(text)),
            Content::Image { data, mime_type } => {
                self.media += data.len() as u64;
                Content::Image { data, mime_type }
            }
            Content::Audio { data, mime_type } => {
                self.media += data.len() as u64;
                Content::Audio { data, mime_type }
            }
            Content::Resource(resource) => Content::Resource(self.resource(resource)),
        }
    }

    fn resource(&mut self, resource: EmbeddedResource) -> EmbeddedResource {
        let EmbeddedResource { uri, mime_type, data, binary } = resource;
        let data = if binary {
            self.media += data.len() as u64;
            data
        } else {
            self.text(data)
        };
        EmbeddedResource { uri: self.text(uri), mime_type, data, binary }
    }

    fn released<T>(self, inner: T) -> Released<T> {
        Released { inner, redactions: self.found, bytes: self.bytes + self.media }
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
