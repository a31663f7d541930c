//! The server the official MCP conformance suite is run against: the product's own router, layers, gate and
//! registration, with the suite's fixtures in the catalogue.
//!
//! Never shipped: a crate of its own, so that no fixture can exist in the product's binary. Everything that could
//! make it pass where the product would not is a defect.

mod house;
mod lists;
mod questions;
mod tools;

use std::net::SocketAddr;

use anyhow::Context as _;
use clap::Parser;
use portcullis_mcp::{HttpSettings, LOG_DIRECTIVE, router, serve};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Serves the conformance fixtures over Streamable HTTP at /mcp.
#[derive(Debug, Parser)]
struct Options {
    /// Loopback address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    anyhow::ensure!(options.listen.ip().is_loopback(), "the fixtures are served on loopback only");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("warn,{LOG_DIRECTIVE}")));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();

    let audit = tempfile::tempdir().context("a directory for the audit log")?;
    let gateway = house::build(audit.path())?;
    let closing = CancellationToken::new();
    let settings = HttpSettings { closing: closing.clone(), ..HttpSettings::default() };
    let listener = TcpListener::bind(options.listen).await.with_context(|| format!("cannot listen on {}", options.listen))?;
    tracing::warn!(address = %listener.local_addr()?, "serving conformance fixtures");

    let stop = closing.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    serve(listener, router(gateway, settings), closing).await?;
    Ok(())
}
