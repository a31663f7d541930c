//! `portcullis stdio`: MCP on standard input and output. Nothing but protocol goes to standard output.

use anyhow::Context;
use portcullis_audit::EventKind;
use tokio_util::sync::CancellationToken;

use crate::house::House;
use crate::refused_start;
use crate::settings::Config;
use crate::shutdown;

/// Serves the client at the standard streams until it leaves or we are told to stop.
pub async fn run(config: &Config) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    shutdown::on_signal(stop.clone());
    let house = match House::open(config).await {
        Ok(house) => house,
        Err(error) => {
            refused_start::record(config, &error);
            return Err(error);
        }
    };
    house.rates.join().await;
    house.audit_life(EventKind::Start, "stdio");
    house.look_at_secrets().await?;
    let sinks = house.feed_sinks().await;
    let ended = tokio::select! {
        ended = portcullis_mcp::serve_stdio(house.gateway.clone(), stop) => ended,
        never = house.follow_extensions() => match never {},
        never = house.follow_resources() => match never {},
        never = house.follow_rates() => match never {},
        never = house.follow_secrets() => match never {},
    };
    house.audit_life(EventKind::Stop, "stdio");
    sinks.stop().await;
    house.close().await;
    ended.map(|_| ()).context("serving MCP on standard input and output")
}
