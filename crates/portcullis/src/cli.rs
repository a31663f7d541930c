//! The command line: what a person types. Parsing only; the work is in `commands`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// An MCP server and gateway through which agents see production, and touch it only when a human raised the gate.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, about, max_term_width = 110)]
pub struct Cli {
    /// Configuration file. Without it: `portcullis.yaml` in the current directory if there is one, else the defaults.
    #[arg(long, short, global = true, env = "PORTCULLIS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory for everything that is kept; wins over the configuration.
    #[arg(long, global = true, env = "PORTCULLIS_DATA_DIR", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve MCP over HTTP and take telemetry in over OTLP.
    Serve(ServeArgs),
    /// Serve MCP on standard input and output, for a client that starts this process.
    Stdio,
    /// Show the whole thing: a small simulated shop has an incident, and an MCP client finds the cause.
    Demo(DemoArgs),
    /// Call one tool as the local user, through the same gate.
    Call(CallArgs),
    /// List the tools the local user may call.
    Tools(OutputArgs),
    /// API keys.
    Key {
        /// What to do with keys.
        #[command(subcommand)]
        action: KeyAction,
    },
    /// The audit log.
    Audit {
        /// What to do with the log.
        #[command(subcommand)]
        action: AuditAction,
    },
    /// The configuration.
    Config {
        /// What to do with it.
        #[command(subcommand)]
        action: ConfigAction,
    },
    /// Check every control and every source, and say what to mend.
    Doctor(OutputArgs),
    /// Print shell completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address of the MCP listener; wins over the configuration.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<std::net::SocketAddr>,
}

/// Options of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Stop after the answers; fails when the cause was not found.
    #[arg(long)]
    pub exit: bool,
    /// Seed of the simulation; the same seed gives the same telemetry.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Port of the MCP listener; 0 picks a free one.
    #[arg(long, default_value_t = 7468)]
    pub port: u16,
}

/// Options of `call`.
#[derive(Debug, Args)]
pub struct CallArgs {
    /// Tool name; `portcullis tools` lists them.
    pub tool: String,
    /// Arguments as key=value; values that are JSON (numbers, true, [..], {..}) are taken as JSON.
    #[arg(value_name = "KEY=VALUE")]
    pub arguments: Vec<String>,
    /// Print the structured result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// How to print.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Doors a key can open.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum DoorArg {
    /// Call tools over MCP.
    Mcp,
    /// Send telemetry over OTLP.
    Ingest,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeyAction {
    /// Make a key. The secret is shown once and never again.
    Create(KeyCreateArgs),
    /// List keys.
    List(OutputArgs),
    /// Revoke a key; running servers refuse it within a second.
    Revoke {
        /// The key's id, as `list` shows it.
        id: String,
    },
}

/// Options of `key create`.
#[derive(Debug, Args)]
pub struct KeyCreateArgs {
    /// Who or what the key is for.
    #[arg(long)]
    pub label: String,
    /// Role: reader, operator, admin, or one of the configuration's `roles`.
    #[arg(long, default_value = "reader")]
    pub role: Vec<String>,
    /// What the key opens.
    #[arg(long = "scope", value_enum, default_value = "mcp")]
    pub doors: Vec<DoorArg>,
    /// Tenant whose data it sees or sends.
    #[arg(long, default_value = "default")]
    pub tenant: String,
    /// Only these sources (repeat); all when absent.
    #[arg(long = "source")]
    pub sources: Vec<String>,
    /// Only these services (repeat); all when absent.
    #[arg(long = "service")]
    pub services: Vec<String>,
    /// Only these namespaces (repeat); all when absent.
    #[arg(long = "namespace")]
    pub namespaces: Vec<String>,
    /// How far back questions may reach, such as 7d.
    #[arg(long)]
    pub look_back: Option<String>,
    /// When the key ends, such as 90d.
    #[arg(long, default_value = "90d")]
    pub expires: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditAction {
    /// Check the hash chain of every file: finds edits, deletions, reordering and truncation.
    Verify(OutputArgs),
    /// Print the newest records.
    Tail {
        /// How many.
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// Check the file, its policies and its sources' settings.
    Check,
    /// Print the JSON Schema of the file.
    Schema,
    /// Print the settings in force, secrets masked.
    Show,
}
