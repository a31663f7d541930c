//! MCP over the standard streams of a process: one message per line, nothing else on the output.
//!
//! The same strictness as on HTTP: bounded lines, strict JSON, batches only where 2025-03-26 was agreed upon, and an
//! answer that says what was wrong.
//! The caller is the user who started the process; there is no other credential here.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use portcullis_gateway::{Caller, Gateway};
use portcullis_guard::{StrictLimits, check_strict};
use portcullis_identity::Presented;
use portcullis_model::{Fault, FaultCode};
use portcullis_wire::rules;
use rmcp::RoleServer;
use rmcp::model::{ClientJsonRpcMessage, ClientNotification, ErrorData, JsonRpcError, RequestId, ServerJsonRpcMessage};
use rmcp::service::{QuitReason, ServerInitializeError, serve_server_with_ct};
use rmcp::transport::{Transport, stdio_pipes};
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::batch::{self, AT_ONCE, MOST_MESSAGES, NO_BATCHES, error_message};
use crate::face::{Face, StreamLimits};
use crate::handler::Handler;
use crate::http::{NOT_RPC, request_id, speaks_batches};
use crate::in_flight::{self, InFlight};

/// Largest message, bytes.
const LINE_BYTES: usize = 1 << 20;
/// How long calls in flight may take to end after the input closed or a stop was asked for.
const DRAIN: Duration = Duration::from_secs(5);

/// Why stdio could not be served.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// The local user is not let in.
    #[error("the local user is not let in: {0}")]
    Refused(String),
    /// The client did not speak MCP.
    #[error("the client did not open an MCP conversation: {0}")]
    Handshake(String),
    /// The serving task failed.
    #[error("serving stopped: {0}")]
    Failed(String),
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StdioEnd {
    /// The client closed our input.
    ClientLeft,
    /// We were asked to stop.
    Stopped,
}

/// Serves the client at the standard streams until it leaves or `stop` is cancelled.
///
/// # Errors
/// See [`StdioError`].
pub async fn serve_stdio(gateway: Arc<Gateway>, stop: CancellationToken) -> Result<StdioEnd, StdioError> {
    let (input, output) = stdio_pipes();
    Box::pin(serve_stream(gateway, input, output, stop)).await
}

/// [`serve_stdio`] over any pair of streams.
///
/// # Errors
/// See [`StdioError`].
pub async fn serve_stream(
    gateway: Arc<Gateway>,
    input: impl AsyncRead + Send + Unpin + 'static,
    output: impl AsyncWrite + Send + Unpin + 'static,
    stop: CancellationToken,
) -> Result<StdioEnd, StdioError> {
    let presented = Presented::stdio();
    let owner: Caller = gateway.identify(&presented).await.map_err(|fault| StdioError::Refused(fault.into_inner().message))?;
    let limits = StreamLimits { per_principal: 64, in_all: 64 };
    let (face, owner) = (Arc::new(Face::new(gateway, limits, stop.clone())), Arc::new(owner));
    let handler = Handler::new(face.clone(), Some(owner.clone()));
    let lines = Lines::new(input, output, face, owner);
    let serving = match serve_server_with_ct(handler, lines, stop.clone()).await {
        Ok(serving) => serving,
        Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(StdioEnd::ClientLeft),
        Err(ServerInitializeError::Cancelled) => return Ok(StdioEnd::Stopped),
        Err(ServerInitializeError::ExpectedInitializeRequest(_)) => {
            return Err(StdioError::Handshake("the first request was neither initialize nor one with its own _meta".into()));
        }
        Err(error) => return Err(StdioError::Handshake(error.to_string())),
    };
    let waiting = serving.waiting();
    tokio::pin!(waiting);
    let ended = tokio::select! {
        ended = &mut waiting => ended,
        () = stop.cancelled() => match tokio::time::timeout(DRAIN, waiting).await {
            Ok(ended) => ended,
            Err(_elapsed) => return Ok(StdioEnd::Stopped),
        },
    };
    match ended {
        Ok(QuitReason::Closed) => Ok(StdioEnd::ClientLeft),
        Ok(QuitReason::JoinError(error)) | Err(error) => Err(StdioError::Failed(error.to_string())),
        Ok(_) => Ok(StdioEnd::Stopped),
    }
}

/// Lines in, lines out. Reading can be abandoned at any point and taken up again without losing a byte: rmcp does so.
struct Lines<R, W> {
    input: BufReader<R>,
    /// What was read of the current line.
    partial: Vec<u8>,
    /// The current line is over the limit and thrown away up to its end.
    too_long: bool,
    output: Arc<Mutex<W>>,
    /// Whether the handshake agreed on 2025-03-26, the one revision with batches.
    batches: bool,
    /// Messages of the last batch that were not taken yet.
    queue: VecDeque<ClientJsonRpcMessage>,
    /// Batches whose answers are not whole.
    open: Vec<OpenBatch>,
    /// Requests that are under way.
    ids: InFlight,
    /// For the records of what is refused here.
    face: Arc<Face>,
    owner: Arc<Caller>,
}

/// A batch that waits for answers.
#[derive(Default)]
struct OpenBatch {
    waiting: HashSet<RequestId>,
    answers: Vec<Value>,
}

/// What stood on one line.
enum Line {
    Message(Vec<u8>),
    TooLong,
    End,
}

async fn write<W: AsyncWrite + Unpin>(output: &Mutex<W>, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let mut output = output.lock().await;
    output.write_all(&line).await?;
    output.flush().await
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Send + Unpin + 'static> Lines<R, W> {
    fn new(input: R, output: W, face: Arc<Face>, owner: Arc<Caller>) -> Self {
        Self {
            input: BufReader::with_capacity(64 * 1024, input),
            partial: Vec::new(),
            too_long: false,
            output: Arc::new(Mutex::new(output)),
            batches: false,
            queue: VecDeque::new(),
            open: Vec::new(),
            ids: InFlight::default(),
            face,
            owner,
        }
    }

    /// The next line, without ever holding more than the limit.
    async fn line(&mut self) -> io::Result<Line> {
        loop {
            let available = self.input.fill_buf().await?;
            if available.is_empty() {
                // A last line without its end is not a message: the client was cut off in the middle.
                return Ok(Line::End);
            }
            let (used, ended) = match available.iter().position(|b| *b == b'\n') {
                Some(at) => (at + 1, true),
                None => (available.len(), false),
            };
            if !self.too_long && self.partial.len() + used <= LINE_BYTES {
                self.partial.extend_from_slice(&available[..used]);
            } else {
                self.too_long = true;
                self.partial = Vec::new();
            }
            self.input.consume(used);
            if ended {
                let line = std::mem::take(&mut self.partial);
                return Ok(if std::mem::take(&mut self.too_long) { Line::TooLong } else { Line::Message(line) });
            }
        }
    }

    /// Records a refusal, and answers in the background, so that reading stays abandonable.
    fn refuse(&self, line: &[u8], rule: &'static str, error: ErrorData) {
        let error = self.recorded(rule, error);
        self.say(ServerJsonRpcMessage::Error(JsonRpcError::new(request_id(line), error)));
    }

    /// Records a refusal, and gives the error as it may be sent: what it repeats of the message is released.
    fn recorded(&self, rule: &'static str, error: ErrorData) -> ErrorData {
        let fault = Fault::invalid(error.message.into_owned());
        let released = self.face.gateway.refuse_request(&self.owner, "unreadable", rule, fault);
        ErrorData::new(error.code, released.into_inner().message, error.data)
    }

    /// Whether this message may be taken: a request needs an id that is not under way.
    fn may_begin(&self, message: &ClientJsonRpcMessage) -> Result<(), ErrorData> {
        match message {
            ClientJsonRpcMessage::Request(request) if !self.ids.begin(&request.id) => {
                Err(ErrorData::invalid_request(in_flight::sentence(&request.id), None))
            }
            _ => Ok(()),
        }
    }

    fn say(&self, message: impl Serialize + Send + Sync + 'static) {
        let output = self.output.clone();
        tokio::spawn(async move {
            if let Err(error) = write(&output, &message).await {
                tracing::debug!(%error, "standard output failed");
            }
        });
    }

    /// Takes a batch apart: its messages are queued, its answers collected.
    fn unpack(&mut self, text: &[u8]) {
        let messages = match batch::messages(text) {
            Ok(messages) => messages,
            Err(fault) => return self.refuse(b"", "batch", ErrorData::invalid_request(fault.to_string(), None)),
        };
        let mut group = OpenBatch::default();
        for message in messages {
            if let Ok(message) = serde_json::from_str(message.get()) {
                if let Err(error) = self.may_begin(&message) {
                    let error = self.recorded(in_flight::RULE, error);
                    group.answers.push(error_message(&error, None));
                    continue;
                }
                if let ClientJsonRpcMessage::Request(request) = &message {
                    group.waiting.insert(request.id.clone());
                }
                self.queue.push_back(message);
            } else {
                let id = request_id(message.get().as_bytes());
                let error = self.recorded("protocol", ErrorData::invalid_request(NOT_RPC, None));
                group.answers.push(error_message(&error, id.as_ref()));
            }
        }
        self.open.push(group);
        if let Some(answers) = self.whole() {
            self.say(answers);
        }
    }

    /// The answers of a batch that waits for nothing any more. One without requests ends without a word.
    fn whole(&mut self) -> Option<Vec<Value>> {
        let at = self.open.iter().position(|group| group.waiting.is_empty())?;
        let answers = self.open.swap_remove(at).answers;
        (!answers.is_empty()).then_some(answers)
    }

    /// Requests of batches that were taken and not answered.
    fn under_way(&self) -> usize {
        let waiting: usize = self.open.iter().map(|group| group.waiting.len()).sum();
        let queued = self.queue.iter().filter(|message| matches!(message, ClientJsonRpcMessage::Request(_))).count();
        waiting.saturating_sub(queued)
    }

    /// Ends the wait for the answer of this request, when it is part of a batch.
    fn settled(&mut self, id: &RequestId) -> Option<&mut OpenBatch> {
        self.open.iter_mut().find_map(|group| group.waiting.remove(id).then_some(group))
    }

    /// A request that its client cancels gets no answer; its batch must not wait for one.
    fn forget_cancelled(&mut self, message: &ClientJsonRpcMessage) {
        let ClientJsonRpcMessage::Notification(notification) = message else { return };
        let ClientNotification::CancelledNotification(cancelled) = &notification.notification else { return };
        if cancelled.params.request_id.as_ref().is_some_and(|id| self.settled(id).is_some())
            && let Some(answers) = self.whole()
        {
            self.say(answers);
        }
    }

    async fn message(&mut self) -> io::Result<Option<ClientJsonRpcMessage>> {
        loop {
            // Asked again whenever an answer has left, so what is held back here is taken up then.
            if self.under_way() < AT_ONCE
                && let Some(message) = self.queue.pop_front()
            {
                return Ok(Some(message));
            }
            let line = match self.line().await? {
                Line::End => return Ok(self.queue.pop_front()),
                Line::TooLong => {
                    let text = format!("the message is larger than {LINE_BYTES} bytes");
                    let data = serde_json::json!({"code": FaultCode::TooLarge.as_str()});
                    self.refuse(b"", rules::BODY_SIZE, ErrorData::invalid_request(text, Some(data)));
                    continue;
                }
                Line::Message(line) => line,
            };
            let text = line.trim_ascii();
            if text.is_empty() {
                continue;
            }
            if let Err(fault) = check_strict(text, StrictLimits::default()) {
                let sentence = fault.to_string();
                let error = if fault.is_syntax() {
                    ErrorData::parse_error(sentence, None)
                } else {
                    ErrorData::invalid_request(sentence, None)
                };
                self.refuse(text, "strict-json", error);
            } else if batch::is_array(text) && self.queue.len() >= MOST_MESSAGES {
                let sentence = "another batch still waits: send this one when it is answered";
                self.refuse(b"", "batch", ErrorData::invalid_request(sentence, None));
            } else if batch::is_array(text) && self.batches {
                self.unpack(text);
            } else if batch::is_array(text) {
                self.refuse(b"", "batch", ErrorData::invalid_request(NO_BATCHES, None));
            } else if let Ok(message) = serde_json::from_slice(text) {
                match self.may_begin(&message) {
                    Ok(()) => return Ok(Some(message)),
                    // Without the id: with it, this would be taken for the answer to the request that is under way.
                    Err(error) => self.refuse(b"", in_flight::RULE, error),
                }
            } else {
                self.refuse(text, "protocol", ErrorData::invalid_request(NOT_RPC, None));
            }
        }
    }
}

impl<R, W> Transport<RoleServer> for Lines<R, W>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    type Error = io::Error;

    fn send(&mut self, message: ServerJsonRpcMessage) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.batches |= speaks_batches(&message);
        self.ids.said(&message);
        let output = self.output.clone();
        let id = match &message {
            ServerJsonRpcMessage::Response(response) => Some(&response.id),
            ServerJsonRpcMessage::Error(error) => error.id.as_ref(),
            _ => None,
        };
        let mut grouped = None;
        if let Some(group) = id.and_then(|id| self.settled(id)) {
            grouped = Some(serde_json::to_value(&message).map(|answer| group.answers.push(answer)));
        }
        let whole = grouped.is_some().then(|| self.whole()).flatten();
        async move {
            match (grouped, whole) {
                (None, _) => write(&output, &message).await,
                (Some(Err(error)), _) => Err(error.into()),
                (Some(Ok(())), Some(answers)) => write(&output, &answers).await,
                (Some(Ok(())), None) => Ok(()),
            }
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        match self.message().await {
            Ok(message) => {
                if let Some(message) = &message {
                    self.ids.heard(message);
                    self.forget_cancelled(message);
                }
                message
            }
            Err(error) => {
                tracing::debug!(%error, "standard input failed");
                None
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.output.lock().await.flush().await
    }
}
