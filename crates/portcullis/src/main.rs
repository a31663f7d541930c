//! The door: reads the command line and the configuration, and hands over to one command.

#![allow(unreachable_pub, reason = "a binary has no outside: `pub` marks what a module offers the others")]

mod acme;
mod callers;
mod cli;
mod commands;
mod demo;
mod extensions;
mod furnish;
mod house;
mod identify;
mod log;
mod look;
mod names;
mod operations;
mod outside;
mod record;
mod refusals;
mod refused_start;
mod replicas;
mod rulebook;
mod rules;
mod scrub;
mod secret_watch;
mod settings;
mod shutdown;
mod steward;
mod terminal;
mod unavailable;
mod wire;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::cli::{Cli, Command};
use crate::settings::{Config, LoadedConfig};
use crate::terminal::{paint, say_aside};

fn main() -> ExitCode {
    // Beside a program of an upstream this binary does nothing else, and reads nothing.
    if let Some(ended) = portcullis_upstream::keep_program(std::env::args_os()) {
        return ended;
    }
    // And so it is for one statement of SQL.
    if let Some(ended) = portcullis_telemetry::answer_statement(std::env::args_os(), scrub::AnswerScrubber::of_recipe) {
        return ended;
    }
    let cli = Cli::parse();
    if let Command::Completions { shell } = cli.command {
        clap_complete::generate(shell, &mut Cli::command(), "portcullis", &mut std::io::stdout());
        return ExitCode::SUCCESS;
    }
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say_aside(format!("{} {error:#}", paint::bad("error:")));
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<()> {
    let starts = matches!(cli.command, Command::Serve(_) | Command::Stdio);
    let mut loaded = match settings::read(cli.config.as_deref(), cli.data.clone()) {
        Ok(loaded) => loaded,
        Err(error) => {
            if starts {
                refused_start::unread(cli.config.as_deref(), cli.data.as_deref(), &error);
            }
            return Err(error.into());
        }
    };
    if matches!(cli.command, Command::Demo(_)) {
        // The demo is quiet about itself and loud about its answers.
        loaded.settings.log.level = "warn".into();
    }
    let quiet = !matches!(cli.command, Command::Serve(_) | Command::Stdio | Command::Demo(_));
    start_log(&loaded.settings, quiet).inspect_err(|error| {
        if starts {
            refused_start::record(&loaded.settings, error);
        }
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(cli, loaded))
}

async fn run(cli: Cli, loaded: LoadedConfig) -> anyhow::Result<()> {
    let config = &loaded.settings;
    match cli.command {
        Command::Serve(args) => commands::serve::run(loaded, &args, cli.data).await,
        Command::Stdio => commands::stdio::run(config).await,
        Command::Demo(args) => Box::pin(demo::run(args, cli.data)).await,
        Command::Call(args) => commands::call::run(config, args).await,
        Command::Tools(output) => commands::tools::run(config, &output).await,
        Command::Key { action } => commands::key::run(config, action).await,
        Command::Audit { action } => commands::audit::run(config, &action),
        Command::Policy { action } => commands::policy::run(config, action).await,
        Command::Approvals { action } => commands::approvals::run(config, action).await,
        Command::Profile { action } => commands::profile::run(config, action).await,
        Command::Access { action } => commands::access::run(config, action).await,
        Command::Upstream { action } => commands::upstream::run(config, action).await,
        Command::Names { action } => commands::names::run(config, action).await,
        Command::Secret { action } => commands::secret::run(config, &action).await,
        Command::Plugin { action } => commands::plugin::run(config, action).await,
        Command::Config { action } => commands::config::run(&loaded, &action).await,
        Command::Doctor(output) => commands::doctor::run(config, &output).await,
        Command::Completions { .. } => Ok(()),
    }
}

/// The log goes to standard error, always: standard output belongs to answers and to the protocol.
fn start_log(config: &Config, quiet: bool) -> anyhow::Result<()> {
    use tracing_subscriber::EnvFilter;
    let level = if quiet { "error" } else { config.log.level.as_str() };
    let filter = EnvFilter::try_new(level)?.add_directive(portcullis_mcp::LOG_DIRECTIVE.parse()?);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(log::Clean::new(&config.redaction)?);
    if config.log.json {
        log.json().init();
    } else {
        log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
    }
    Ok(())
}
