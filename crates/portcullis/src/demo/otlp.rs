//! Sends OTLP over HTTP as any sender does, and as the specification asks: what was refused for now is sent again after
//! the pause the server named, what was refused for good is an error.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use portcullis_egress::{EgressClient, EgressRequest};
use portcullis_policy::Charter;

/// How often one request is sent before giving up.
const TRIES: u32 = 20;
/// Pause when the server names none.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Characters of a refusal that are repeated in the error.
const SHOWN: usize = 200;

/// A sender bound to one OTLP door.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    egress: EgressClient,
    charter: Charter,
}

/// The encoded requests of one signal each.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub(super) logs: Vec<u8>,
    pub(super) traces: Vec<u8>,
    pub(super) metrics: Vec<u8>,
}

impl Load {
    /// Bytes in all.
    pub(super) fn len(&self) -> usize {
        self.logs.len() + self.traces.len() + self.metrics.len()
    }

    /// Adds later records. Requests consist of one repeated field, and encoded protobuf messages are merged by putting
    /// one behind the other (<https://protobuf.dev/programming-guides/encoding/#last-one-wins>).
    pub(super) fn append(&mut self, mut later: Self) {
        self.logs.append(&mut later.logs);
        self.traces.append(&mut later.traces);
        self.metrics.append(&mut later.metrics);
    }
}

impl Sender {
    /// A sender over `egress`, whose base URL is the door's origin.
    pub(super) fn new(egress: EgressClient, charter: Charter) -> Self {
        Self { egress, charter }
    }

    /// Sends everything; when this returns, the server keeps it.
    pub(super) async fn send(&self, load: Load) -> anyhow::Result<()> {
        tokio::try_join!(
            self.send_one("logs", load.logs),
            self.send_one("traces", load.traces),
            self.send_one("metrics", load.metrics)
        )?;
        Ok(())
    }

    async fn send_one(&self, signal: &'static str, body: Vec<u8>) -> anyhow::Result<()> {
        if body.is_empty() {
            return Ok(());
        }
        let request = EgressRequest::post(["v1", signal]).bytes("application/x-protobuf", Bytes::from(body));
        for _ in 0..TRIES {
            let answer = self.egress.send(&self.charter.permit(), request.clone()).await;
            let answer = answer.with_context(|| format!("sending {signal} over OTLP"))?;
            match answer.status.as_u16() {
                // A message without fields is full success; a partial one names what was refused.
                200 if answer.body.is_empty() => return Ok(()),
                200 => bail!("the OTLP door took only a part of the {signal}: {}", excerpt(&answer.body)),
                429 | 502..=504 => {
                    let pause = answer.retry_after_seconds().map_or(PAUSE, Duration::from_secs);
                    tokio::time::sleep(pause.min(LONGEST_PAUSE)).await;
                }
                status => bail!("the OTLP door refused {signal} with HTTP {status}: {}", excerpt(&answer.body)),
            }
        }
        bail!("the OTLP door was too busy for {signal} {TRIES} times in a row")
    }
}

fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}
