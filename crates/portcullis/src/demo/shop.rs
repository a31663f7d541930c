//! The simulated shop: an hour of its past at once, then its present as it happens. Guards that what is sent is the
//! simulator's telemetry and nothing else, and that the way it goes is the OTLP door.

use std::fmt;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use portcullis_model::{Clock, SystemClock, Timestamp};
use portcullis_simulator::{Batch, Incident, Simulation, SimulationConfig, encode_protobuf};
use tokio::sync::mpsc;

use super::otlp::{Load, Sender};
use crate::terminal::{paint, say_aside};

/// Simulated time before now.
const PAST: Duration = Duration::from_hours(1);
/// How long before now the incident begins.
const INCIDENT_AGE: Duration = Duration::from_mins(13);
/// How long the shop lives on.
pub(super) const FUTURE: Duration = Duration::from_hours(2);
/// Mean requests per second; the rhythm of the day makes it 0.65 to 1.35 times that.
const REQUESTS_PER_SECOND: f64 = 6.0;
/// Batches are packed into requests of about this size while the past is sent.
const PACK_BYTES: usize = 1 << 20;
/// Batches made ahead of their sending.
const AHEAD: usize = 8;
/// Pause between two lines of progress where no bar can be drawn.
const LINE_EVERY: Duration = Duration::from_secs(3);

/// The shop.
pub(super) struct Shop {
    truth: Incident,
    opened: Timestamp,
    now: Timestamp,
    parts: mpsc::Receiver<Part>,
    /// The first part of the present.
    next: Option<Part>,
}

/// One interval of the shop's life, encoded.
struct Part {
    at: Timestamp,
    load: Load,
    logs: usize,
    spans: usize,
    points: usize,
}

impl From<Batch> for Part {
    fn from(batch: Batch) -> Self {
        let load = Load {
            logs: encode_protobuf(&batch.logs),
            traces: encode_protobuf(&batch.traces),
            metrics: encode_protobuf(&batch.metrics),
        };
        Self { at: batch.at, load, logs: batch.log_count(), spans: batch.span_count(), points: batch.data_point_count() }
    }
}

/// What was loaded.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    logs: usize,
    spans: usize,
    points: usize,
    bytes: usize,
    took: Duration,
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Stored {} minutes of the shop: {} spans, {} log records, {} metric points, {} of OTLP in {:.1} s.",
            PAST.as_secs() / 60,
            HumanCount(self.spans as u64),
            HumanCount(self.logs as u64),
            HumanCount(self.points as u64),
            HumanBytes(self.bytes as u64),
            self.took.as_secs_f64()
        )
    }
}

impl Shop {
    /// Opens the shop some time before `now`; its life is made on a thread of its own as it is taken.
    pub(super) fn open(seed: u64, now: Timestamp) -> anyhow::Result<Self> {
        let opened = now.minus(PAST);
        let mut config = SimulationConfig::new(seed, opened, now.plus(FUTURE));
        config.incident_at = now.minus(INCIDENT_AGE);
        config.requests_per_second = REQUESTS_PER_SECOND;
        let truth = config.incident().context("the scenario has no incident")?;
        let simulation = Simulation::new(config)?;
        let (sender, parts) = mpsc::channel(AHEAD);
        std::thread::Builder::new().name("shop".into()).spawn(move || {
            for batch in simulation {
                if sender.blocking_send(Part::from(batch)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { truth, opened, now, parts, next: None })
    }

    /// What is wrong with it.
    pub(super) fn truth(&self) -> Incident {
        self.truth.clone()
    }

    /// Sends everything up to now.
    pub(super) async fn load(&mut self, sender: &Sender) -> anyhow::Result<Loaded> {
        let begun = Instant::now();
        let mut progress = Progress::new(self.now.since(self.opened));
        let (mut loaded, mut pack) = (Loaded::default(), Load::default());
        while let Some(part) = self.parts.recv().await {
            if part.at > self.now {
                self.next = Some(part);
                break;
            }
            let Part { at, load, logs, spans, points } = part;
            loaded.bytes += load.len();
            loaded.logs += logs;
            loaded.spans += spans;
            loaded.points += points;
            pack.append(load);
            if pack.len() >= PACK_BYTES {
                sender.send(std::mem::take(&mut pack)).await?;
                progress.reached(at.since(self.opened), &loaded);
            }
        }
        sender.send(pack).await?;
        loaded.took = begun.elapsed();
        progress.done();
        Ok(loaded)
    }

    /// Sends every interval when it has passed, until the simulation ends.
    pub(super) async fn live(mut self, sender: &Sender) -> anyhow::Result<()> {
        let mut next = self.next.take();
        loop {
            let part = match next.take() {
                Some(part) => part,
                None => match self.parts.recv().await {
                    Some(part) => part,
                    None => return Ok(()),
                },
            };
            tokio::time::sleep(part.at.since(SystemClock.now())).await;
            sender.send(part.load).await?;
        }
    }
}

/// A bar at a terminal, a line every few seconds elsewhere; on standard error, away from the answers.
struct Progress {
    bar: Option<ProgressBar>,
    begun: Instant,
    said: Instant,
    whole: Duration,
}

impl Progress {
    fn new(whole: Duration) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(whole.as_secs());
            let style = ProgressStyle::with_template("{msg} [{bar:30}] {percent:>3}% {elapsed}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
            bar.set_message("Sending the shop's telemetry over OTLP");
            bar
        });
        let begun = Instant::now();
        if bar.is_none() {
            say_aside("Sending the shop's telemetry over OTLP ...");
        }
        Self { bar, begun, said: begun, whole }
    }

    fn reached(&mut self, at: Duration, loaded: &Loaded) {
        match &self.bar {
            Some(bar) => bar.set_position(at.as_secs()),
            None if self.said.elapsed() >= LINE_EVERY => {
                self.said = Instant::now();
                say_aside(paint::faint(&format!(
                    "  {} of {} minutes, {} spans, {:.0} s",
                    at.as_secs() / 60,
                    self.whole.as_secs() / 60,
                    HumanCount(loaded.spans as u64),
                    self.begun.elapsed().as_secs_f64()
                )));
            }
            None => {}
        }
    }

    fn done(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_past_ends_now_and_the_present_follows() {
        let now = Timestamp::from_seconds(1_772_359_200);
        let mut shop = Shop::open(3, now).unwrap();
        let truth = shop.truth();
        assert_eq!(now.since(truth.onset), INCIDENT_AGE);
        let (mut spans, mut last) = (0, shop.opened);
        while let Some(part) = shop.parts.recv().await {
            assert!(part.at > last, "{} after {last}", part.at);
            last = part.at;
            if part.at > now {
                break;
            }
            spans += part.spans;
        }
        assert!(spans > 10_000, "{spans}");
        assert_eq!(last.since(now), Duration::from_secs(10));
    }
}
