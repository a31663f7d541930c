//! HTTP+SSE, the transport of 2024-11-05: one standing stream of messages, and an address to post to that the server names.
//! Guards that this address is on the upstream's own origin, that the stream is not standing longer than its permit, and that
//! what the server asks is answered one after the other, up to a rate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, header};
use portcullis_egress::{EgressRequest, EgressStream, StreamLimits};
use portcullis_policy::Permit;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::http::{HttpParts, present};
use super::mux::{Mux, MuxCall};
use super::{Ask, Proof};
use crate::events::EventReader;
use crate::wire::{self, Trouble};

/// Answers to the server's own requests that wait to be sent. Beyond it they are dropped.
const REPLIES: usize = 32;
/// Requests of the server in a while before its stream is ended.
const REQUESTS: (u32, Duration) = (600, Duration::from_mins(1));

/// A standing stream and where to post.
pub(crate) struct SseLine {
    parts: HttpParts,
    mux: Arc<Mux>,
    endpoint: String,
    proof: Arc<Proof>,
    stop: CancellationToken,
}

impl SseLine {
    /// Opens the stream and waits for the address.
    pub(crate) async fn connect(parts: HttpParts, proof: Arc<Proof>, private: bool) -> Result<Arc<Self>, Trouble> {
        // The stream outlives the call that needed it first, so it stands under the charter.
        let permit = parts.charter.permit();
        let request = EgressRequest::get(Vec::<String>::new()).header(header::ACCEPT.as_str(), "text/event-stream");
        let limits = StreamLimits { bytes: u64::MAX, idle: parts.charter_idle() };
        let stream = parts.client.open(&permit, present(request, &proof), limits).await?;
        if !stream.status.is_success() {
            return Err(Trouble::Gone(format!("HTTP {}", stream.status)));
        }
        let mux = Mux::new(private, parts.ear.clone(), parts.bounds.message);
        let stop = CancellationToken::new();
        let (told, endpoint) = oneshot::channel();
        let (outgoing, waiting) = mpsc::channel(REPLIES);
        let replies = Replies { outgoing, endpoint: Arc::default(), rate: Rate::default() };
        let (sending, of_replies) = (stop.clone(), (parts.clone(), proof.clone(), replies.endpoint.clone()));
        tokio::spawn(async move { sending.run_until_cancelled(send(waiting, of_replies)).await });
        let most = parts.bounds.message;
        let (reading, ending) = (mux.clone(), stop.clone());
        tokio::spawn(async move {
            let read = ending.run_until_cancelled(read(stream, &reading, told, replies, most)).await;
            reading.close(match read {
                Some(Err(trouble)) => trouble,
                _ => Trouble::Gone("the stream ended".into()),
            });
        });
        match tokio::time::timeout(parts.bounds.idle, endpoint).await {
            Ok(Ok(endpoint)) => Ok(Arc::new(Self { parts, mux, endpoint, proof, stop })),
            Ok(Err(_)) => Err(mux.end().unwrap_or_else(|| Trouble::Gone("the stream ended before it named an address".into()))),
            Err(_elapsed) => {
                stop.cancel();
                Err(Trouble::Slow("the time it has to name an address".into()))
            }
        }
    }

    pub(crate) fn mux(&self) -> &Arc<Mux> {
        &self.mux
    }

    pub(crate) async fn say(&self, permit: &Permit, proof: &Proof, message: Vec<u8>) -> Result<(), Trouble> {
        post(&self.parts, permit, proof, &self.endpoint, message).await
    }

    pub(crate) fn stop(&self) {
        self.stop.cancel();
        self.mux.close(Trouble::Gone("it was stopped".into()));
    }
}

impl Drop for SseLine {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl HttpParts {
    /// Silence that is no sign of anything on a standing stream.
    fn charter_idle(&self) -> Duration {
        self.bounds.idle.max(Duration::from_mins(5))
    }
}

async fn post(parts: &HttpParts, permit: &Permit, proof: &Proof, endpoint: &str, message: Vec<u8>) -> Result<(), Trouble> {
    let request = EgressRequest::new(Method::POST, Vec::<String>::new())
        .at_reference(endpoint)
        .bytes("application/json", Bytes::from(message));
    let limits = StreamLimits { bytes: 64 << 10, idle: parts.bounds.idle };
    let stream = parts.client.open(permit, present(request, proof), limits).await?;
    if stream.status.is_success() { Ok(()) } else { Err(Trouble::Gone(format!("HTTP {} to a message", stream.status))) }
}

/// Makes a request.
pub(crate) async fn open(line: &Arc<SseLine>, permit: &Permit, proof: &Proof, ask: Ask<'_>) -> Result<MuxCall, Trouble> {
    let weak = Arc::downgrade(line);
    let cancel = move |message: Vec<u8>| {
        let (Some(line), Ok(runtime)) = (weak.upgrade(), tokio::runtime::Handle::try_current()) else { return };
        runtime.spawn(async move {
            let permit = line.parts.charter.permit();
            let _ = line.say(&permit, &line.proof, message).await;
        });
    };
    let call = line.mux.expect(&ask, line.parts.bounds.idle, Box::new(cancel))?;
    // Why the stream ended says more than what became of a message to it.
    let said = line.say(permit, proof, wire::request(ask.id, ask.method, ask.params)).await;
    said.map_err(|trouble| line.mux.end().unwrap_or(trouble))?;
    Ok(call)
}

/// Where the server wants to be posted to.
type Endpoint = Arc<Mutex<Option<String>>>;

/// Where our answers to the server's own requests go.
struct Replies {
    outgoing: mpsc::Sender<Vec<u8>>,
    endpoint: Endpoint,
    rate: Rate,
}

impl Replies {
    fn send(&mut self, message: Vec<u8>) -> Result<(), Trouble> {
        if !self.rate.counts_one(Instant::now()) {
            let (most, within) = REQUESTS;
            return Err(Trouble::TooLarge(format!(
                "{most} requests of its own within {}",
                portcullis_model::format_duration(within)
            )));
        }
        // A server that does not take its answers as fast as it asks goes without.
        let _ = self.outgoing.try_send(message);
        Ok(())
    }
}

/// How often the server asked something of its own.
#[derive(Default)]
struct Rate {
    since: Option<Instant>,
    count: u32,
}

impl Rate {
    /// Counts one more. Whether there are not too many.
    fn counts_one(&mut self, now: Instant) -> bool {
        let (most, within) = REQUESTS;
        if self.since.is_none_or(|since| now.duration_since(since) >= within) {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count = self.count.saturating_add(1);
        self.count <= most
    }
}

/// Sends what waits, one after the other.
async fn send(mut waiting: mpsc::Receiver<Vec<u8>>, (parts, proof, endpoint): (HttpParts, Arc<Proof>, Endpoint)) {
    while let Some(message) = waiting.recv().await {
        let Some(endpoint) = endpoint.lock().unwrap_or_else(PoisonError::into_inner).clone() else { continue };
        let permit = parts.charter.permit();
        let _ = post(&parts, &permit, &proof, &endpoint, message).await;
    }
}

async fn read(
    mut stream: EgressStream,
    mux: &Mux,
    told: oneshot::Sender<String>,
    mut replies: Replies,
    most: u64,
) -> Result<(), Trouble> {
    let (mut reader, mut events, mut told) = (EventReader::new(most as usize), Vec::new(), Some(told));
    while let Some(chunk) = stream.next().await? {
        reader.push(&chunk, &mut events).map_err(|_| Trouble::TooLarge(format!("{most} bytes in one message")))?;
        for event in events.drain(..) {
            match event.kind.as_str() {
                "endpoint" => {
                    let endpoint =
                        String::from_utf8(event.data).map_err(|_| Trouble::Garbage("an address that is no text".into()))?;
                    *replies.endpoint.lock().unwrap_or_else(PoisonError::into_inner) = Some(endpoint.clone());
                    if let Some(told) = told.take() {
                        let _ = told.send(endpoint);
                    }
                }
                _ if !event.data.is_empty() => {
                    if let Some(reply) = mux.deliver(wire::read(&event.data)?) {
                        replies.send(reply)?;
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_requests_is_too_many_and_a_steady_few_are_not() {
        let (mut rate, begun) = (Rate::default(), Instant::now());
        assert!((0..REQUESTS.0).all(|_| rate.counts_one(begun)));
        assert!(!rate.counts_one(begun + Duration::from_secs(1)));
        assert!(rate.counts_one(begun + REQUESTS.1), "another while");
        let mut rate = Rate::default();
        assert!((0..10_000).all(|n| rate.counts_one(begun + Duration::from_secs(n))));
    }
}
