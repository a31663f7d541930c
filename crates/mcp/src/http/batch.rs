//! Batches over HTTP, in sessions of 2025-03-26 only. Every message is handed over by itself, in the order it stands,
//! and so is admitted, decided and recorded by itself; the answers leave together as one array.
//!
//! A request that needs more scopes than the caller's token has is answered with an error that says which, beside the answers
//! of the others. Where all of a batch needs more, the reply is what it would be to each alone: 403 with a challenge.
//!
//! The reply is plain JSON, unless a tool speaks or asks before the answers are whole: then it is an event stream that
//! carries those messages as they come, and the array last (2025-03-26, basic/transports, "Sending Messages").

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::pin;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, FuturesOrdered};
use futures::{Stream, StreamExt};
use http_body_util::BodyExt;
use portcullis_gateway::Caller;
use portcullis_identity::token::ProtectedResource;
use serde::Deserialize;
use serde::de::IgnoredAny;
use sse_stream::SseStream;
use tokio::sync::mpsc;

use super::door::Door;
use super::oauth::{Beyond, leading};
use super::places::Place;
use crate::batch::AT_ONCE;

/// Messages of running tools that wait for a slow client.
const QUEUE: usize = 64;

/// What a batch has to say.
enum Said {
    /// A message of a running tool: progress, log, a question to the client.
    Meanwhile(String),
    /// All answers, as one array.
    Answers(String),
}

/// One batch that passed the door.
pub(super) struct Batch {
    pub(super) door: Arc<Door>,
    pub(super) parts: Parts,
    /// Each with what it wants beyond the caller's token.
    pub(super) messages: Vec<(Bytes, Option<Beyond>)>,
    pub(super) caller: Arc<Caller>,
    /// The batch's place in the house, kept until its last answer.
    pub(super) place: Place,
}

impl Batch {
    /// Serves it. Without requests in it, there is nothing to say but that it arrived.
    pub(super) async fn serve(self) -> Response {
        if self.messages.iter().all(|(_, beyond)| beyond.is_some())
            && let Some(resource) = self.door.resource().cloned()
        {
            return self.step_up(&resource).await;
        }
        let (say, mut heard) = mpsc::channel(QUEUE);
        let hearing = stream::poll_fn(move |context| heard.poll_recv(context));
        let mut said = beside(hearing, self.run(say)).boxed();
        match said.next().await {
            None => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::ACCEPTED;
                response
            }
            Some(Said::Answers(answers)) => {
                let mut response = Response::new(Body::from(answers));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            Some(first) => {
                let events = stream::once(ready(first)).chain(said).map(|said| {
                    let (Said::Meanwhile(text) | Said::Answers(text)) = said;
                    Ok::<_, Infallible>(Event::default().data(text))
                });
                Sse::new(events).keep_alive(KeepAlive::default()).into_response()
            }
        }
    }

    /// The reply to a batch of which nothing can be served: every request is refused and recorded by itself, and the challenge
    /// leads to what all of them need.
    async fn step_up(self, resource: &ProtectedResource) -> Response {
        let Self { door, messages, caller, place, .. } = self;
        let (mut answers, mut scopes, mut status) = (Vec::with_capacity(messages.len()), Vec::new(), StatusCode::FORBIDDEN);
        for (message, beyond) in &messages {
            let Some(beyond) = beyond else { continue };
            let (response, leads) = beyond.refuse(door.gateway(), &caller, message).await;
            if leads {
                let missing: Vec<String> = beyond.scopes.iter().filter(|scope| !scopes.contains(*scope)).cloned().collect();
                scopes.extend(missing);
            } else {
                status = response.status();
            }
            answers.extend(whole(response).await);
        }
        drop(place);
        let mut response = Response::new(Body::from(format!("[{}]", answers.join(","))));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if scopes.is_empty() {
            *response.status_mut() = status;
            return response;
        }
        *response.status_mut() = StatusCode::FORBIDDEN;
        leading(response, resource, &scopes)
    }

    async fn run(self, say: mpsc::Sender<Said>) {
        let Self { door, parts, messages, caller, place } = self;
        let (mut answers, mut waiting) = (Vec::new(), FuturesOrdered::new());
        for (message, beyond) in messages {
            if waiting.len() >= AT_ONCE {
                answers.extend(waiting.next().await.flatten());
            }
            if let Some(beyond) = beyond {
                let (refusal, _leads) = beyond.refuse(door.gateway(), &caller, &message).await;
                waiting.push_back(answer(refusal, say.clone()));
                continue;
            }
            // A session hands over and answers in one task: while it takes a message, its answers must be read on.
            let mut handing = pin!(door.hand_over(parts.clone(), message, caller.clone()));
            let response = loop {
                tokio::select! {
                    response = &mut handing => break response,
                    Some(answered) = waiting.next(), if !waiting.is_empty() => answers.extend(answered),
                }
            };
            waiting.push_back(answer(response, say.clone()));
        }
        while let Some(answered) = waiting.next().await {
            answers.extend(answered);
        }
        drop(place);
        if !answers.is_empty() {
            let array = format!("[{}]", answers.join(","));
            if say.send(Said::Answers(array)).await.is_err() {
                tracing::debug!("the client left before its batch was answered");
            }
        }
    }
}

/// What is heard while `work` runs, and the rest of it afterwards. Dropping the stream drops the work.
fn beside<T>(hearing: impl Stream<Item = T>, work: impl Future<Output = ()>) -> impl Stream<Item = T> {
    let working = stream::once(work).filter_map(|()| ready(None));
    stream::select(hearing, working)
}

/// The answer in the reply to one message; what comes before it is said at once. A notification has none.
async fn answer(response: Response, say: mpsc::Sender<Said>) -> Option<String> {
    let streamed = response.headers().get(CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"text/event-stream"));
    if !streamed {
        return whole(response).await;
    }
    let mut events = SseStream::from_bytes_stream(response.into_body().into_data_stream());
    while let Some(Ok(event)) = events.next().await {
        let Some(text) = event.data.filter(|data| !data.trim().is_empty()) else { continue };
        if is_answer(&text) {
            return Some(text);
        }
        if say.send(Said::Meanwhile(text)).await.is_err() {
            tracing::debug!("the client left before its batch was answered");
        }
    }
    // A cancelled request has no answer.
    None
}

/// What a reply says at once; nothing where that is nothing.
async fn whole(response: Response) -> Option<String> {
    let body = response.into_body().collect().await.ok()?.to_bytes();
    String::from_utf8(body.into()).ok().filter(|text| !text.is_empty())
}

/// Requests and notifications name a method, answers do not.
fn is_answer(message: &str) -> bool {
    #[derive(Deserialize)]
    struct Envelope {
        method: Option<IgnoredAny>,
    }
    serde_json::from_str::<Envelope>(message).is_ok_and(|envelope| envelope.method.is_none())
}
