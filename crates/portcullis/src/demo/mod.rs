//! `portcullis demo`: the whole product once, on simulated telemetry. A small shop has an incident, its telemetry comes in
//! through the OTLP door, and an MCP client with an API key asks what an on-call engineer would ask.
//!
//! Guards that nothing is staged: the client and the telemetry take the same doors as everybody's, and the verdict is
//! read from the answers. It must not know, before the answers are in, what is wrong with the shop.

mod guide;
mod interview;
mod otlp;
mod shop;
mod stage;
mod verdict;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use portcullis_audit::EventKind;
use portcullis_model::{Clock, SystemClock};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::cli::DemoArgs;
use crate::commands::serve::run_house;
use crate::shutdown;
use crate::terminal::{paint, say};
use interview::Report;
use shop::Shop;
use stage::{Place, Stage};
use verdict::Verdict;

const OPENING: &str = "A small simulated shop will have an incident on this machine; an MCP client will look for the cause.";

/// Runs `portcullis demo`.
pub(crate) async fn run(args: DemoArgs, data: Option<PathBuf>) -> anyhow::Result<()> {
    say(paint::strong(OPENING));
    let stop = CancellationToken::new();
    shutdown::on_signal(stop.clone());
    // The directory goes when this ends, after everything that writes into it.
    let place = Place::take(data)?;
    let (stage, listeners) = Stage::build(args.port, place.path()).await?;
    let (house, config, ending) = (stage.house.clone(), stage.config.clone(), stop.clone());
    house.audit_life(EventKind::Start, format!("demo on {}", stage.mcp));
    let mut serving = tokio::spawn(async move { run_house(house, &config, listeners, ending, None).await });
    // The play first: when somebody stops the demo both end, and that is no failure of the server.
    let outcome = tokio::select! {
        biased;
        outcome = play(&args, &stage, &stop) => {
            stop.cancel();
            let served = (&mut serving).await.context("the server ended badly").flatten();
            outcome.and(served)
        }
        ended = &mut serving => {
            let early = || anyhow::anyhow!("the server stopped before the demo was over");
            Err(ended.context("the server ended badly").flatten().err().unwrap_or_else(early))
        }
    };
    stop.cancel();
    let Stage { house, .. } = stage;
    house.audit_life(EventKind::Stop, "demo");
    if let Some(house) = Arc::into_inner(house) {
        house.close().await;
    }
    place.leave();
    outcome
}

/// The play itself, from the first record to the last request.
async fn play(args: &DemoArgs, stage: &Stage, stop: &CancellationToken) -> anyhow::Result<()> {
    let Some(played) = Box::pin(stop.run_until_cancelled(open_and_ask(args, stage))).await else {
        bail!("stopped before the questions were asked");
    };
    let (_living, verdict, report) = played?;
    if args.exit {
        return verdict.into_result(report.failed);
    }
    guide::show(stage);
    stop.cancelled().await;
    say("Stopping.");
    Ok(())
}

/// Fills the store, asks, and judges. The shop goes on living for as long as the first value does.
async fn open_and_ask(args: &DemoArgs, stage: &Stage) -> anyhow::Result<(AbortOnDropHandle<()>, Verdict, Report)> {
    let mut shop = Shop::open(args.seed, SystemClock.now())?;
    let truth = shop.truth();
    let loaded = shop.load(&stage.sender).await?;
    say(format!("{loaded}\n"));
    let sender = stage.sender.clone();
    let living = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = shop.live(&sender).await {
            tracing::warn!("the simulated shop fell silent: {error:#}");
        }
    }));
    let client = stage.client().await?;
    let report = interview::hold(&client).await?;
    client.close().await;
    let verdict = verdict::judge(&report.health, &truth);
    say(report.to_string());
    say(verdict.to_string());
    Ok((living, verdict, report))
}
