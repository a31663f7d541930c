//! The command line: what a person types. Parsing only; the work is in `commands`.

mod gate;
mod names;
mod plugin;
mod plugin_source;
mod policy;
mod secret;
mod upstream;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use gate::{ApprovalAction, ProfileAction};
pub use names::{NameArgs, NameKindArg, NamesAction};
pub use plugin::{
    InfoArgs, InstallArgs, KeyAddArgs, PackArgs, PluginAction, PluginFormat, PluginKeyAction, PluginLanguage, VerifyPluginArgs,
};
pub use plugin_source::{FetchArgs, HubBuildArgs, KeyRoleArg, PluginHubAction, PushArgs, ReachArgs};
pub use policy::{AccessAction, CheckArgs, DryRunArgs, ExplainArgs, PolicyAction, TestArgs, WhoArgs};
pub use secret::{SecretAction, SecretKind};
pub use upstream::{UpstreamAction, UpstreamChoice};

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
    /// The policies.
    Policy {
        /// What to do with the policies.
        #[command(subcommand)]
        action: PolicyAction,
    },
    /// Calls that wait for a person's approval.
    Approvals {
        /// What to do with them.
        #[command(subcommand)]
        action: ApprovalAction,
    },
    /// Behaviour profiles: what each caller usually does.
    Profile {
        /// What to do with profiles.
        #[command(subcommand)]
        action: ProfileAction,
    },
    /// Who has access to what.
    Access {
        /// What to do with access.
        #[command(subcommand)]
        action: AccessAction,
    },
    /// Other MCP servers behind the gate: what they offer, and what waits for a person.
    Upstream {
        /// What to do with them.
        #[command(subcommand)]
        action: UpstreamAction,
    },
    /// Names of tools and prompts: whose each is, and who gets one.
    Names {
        /// What to do with them.
        #[command(subcommand)]
        action: NamesAction,
    },
    /// Secrets the configuration refers to.
    Secret {
        /// What to do with them.
        #[command(subcommand)]
        action: SecretAction,
    },
    /// Plugins: make, sign, verify and install them.
    Plugin {
        /// What to do with them.
        #[command(subcommand)]
        action: PluginAction,
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
    /// Arguments as key=value. The schema of the tool says whether a value such as 1 or [..] is text or JSON.
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
    /// Administer over HTTP: status, keys, approvals, the audit log. What it may do, its role says.
    Admin,
    /// Scrape the server's own metrics.
    Metrics,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeyAction {
    /// Make a key. The secret is shown once and never again.
    Create(KeyCreateArgs),
    /// Make a key with a secret of your choice, read from standard input or a file, never from the command line.
    Import(KeyImportArgs),
    /// List keys, with a reminder of secrets older than 90 days and of keys that end within 14.
    List(OutputArgs),
    /// Show one key.
    Show {
        /// The key's id, as `list` shows it.
        id: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give a key a new secret; the old one stays valid for the overlap.
    Rotate(KeyRotateArgs),
    /// Revoke a key; running servers refuse it within a second.
    Revoke {
        /// The key's id, as `list` shows it.
        id: String,
    },
    /// Hash a password for a user in the configuration; read from standard input, or asked for twice at a terminal.
    HashPassword,
}

/// Options of `key create`.
#[derive(Debug, Args)]
pub struct KeyCreateArgs {
    /// What it is and may do.
    #[command(flatten)]
    pub grant: KeyGrantArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Options of `key import`.
#[derive(Debug, Args)]
pub struct KeyImportArgs {
    /// What it is and may do.
    #[command(flatten)]
    pub grant: KeyGrantArgs,
    /// File with the secret; standard input when absent. At least 16 characters of 3 of 4 classes.
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Options of `key rotate`.
#[derive(Debug, Args)]
pub struct KeyRotateArgs {
    /// The key's id, as `list` shows it.
    pub id: String,
    /// How long the old secret stays valid; 0s ends it now.
    #[arg(long, default_value = "24h")]
    pub overlap: String,
    /// New validity of the key from now, such as 90d; the old end stays when absent.
    #[arg(long)]
    pub expires: Option<String>,
    /// Take a secret of your choice from this file, `-` for standard input, instead of generating one.
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What a key is and may do.
#[derive(Debug, Args)]
pub struct KeyGrantArgs {
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
    /// Only these services (repeat); all when absent. What a key that sends telemetry reads is nothing, so it takes none.
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
    /// Only from this network, such as 10.0.0.0/8 (repeat); from anywhere when absent.
    #[arg(long = "from", value_name = "NETWORK")]
    pub from: Vec<String>,
}

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditAction {
    /// Check every hash and signature: finds edits, deletions, reordering and truncation.
    Verify(VerifyArgs),
    /// Print the newest records.
    Tail {
        /// How many.
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Search the records, oldest first.
    Query(QueryArgs),
    /// Count records by principal, tool, decision and code, with latencies and sizes.
    Stats {
        /// Which records.
        #[command(flatten)]
        filter: FilterArgs,
        /// How to print.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Write the records for another program.
    Export(ExportArgs),
    /// Pseudonymise a subject in every record; hashes and signatures still fit. Needs the server to be stopped.
    Erase(EraseArgs),
    /// Print the public key that checks the log's signatures; keep a copy on another machine.
    PublicKey,
    /// Sign chains from before there were signatures, as they are. Recorded. Look at them first: whoever can write in the
    /// directory can also remove signatures, and this makes what is there now count.
    Adopt {
        /// Names of the chains, as 'audit verify' shows them.
        #[arg(required = true, value_name = "CHAIN")]
        chains: Vec<String>,
    },
}

/// Options of `audit verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Public key that must have signed, as digits or as a file; the log's own when absent.
    #[arg(long, value_name = "FILE|HEX")]
    pub public_key: Option<String>,
    /// Accept a log from before signatures existed.
    #[arg(long)]
    pub accept_unsigned: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Which audit records.
#[derive(Debug, Args)]
pub struct FilterArgs {
    /// Not before this: RFC 3339, now-1h, or 1h.
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Before this.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Who acted, such as key:abc.
    #[arg(long)]
    pub principal: Option<String>,
    /// Tool, prompt or resource.
    #[arg(long)]
    pub tool: Option<String>,
    /// allow or deny.
    #[arg(long)]
    pub decision: Option<String>,
    /// How it ended.
    #[arg(long, value_enum)]
    pub outcome: Option<OutcomeArg>,
    /// Error code, such as forbidden.
    #[arg(long)]
    pub code: Option<String>,
    /// Kind of record (repeat), such as call, refused, authentication.
    #[arg(long)]
    pub kind: Vec<String>,
    /// Whose data.
    #[arg(long)]
    pub tenant: Option<String>,
    /// Session.
    #[arg(long)]
    pub session: Option<String>,
    /// This text anywhere in the record.
    #[arg(long)]
    pub text: Option<String>,
}

/// How something ended.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum OutcomeArg {
    /// About to begin; the end has a record of its own.
    Begun,
    /// Well.
    Ok,
    /// Let through, and failed.
    Failed,
    /// Not let through.
    Refused,
}

/// Options of `audit query`.
#[derive(Debug, Args)]
pub struct QueryArgs {
    /// Which records.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Most records printed; what is cut is said.
    #[arg(long, default_value_t = 100)]
    pub limit: usize,
    /// Go on after this record, as an earlier query named it.
    #[arg(long, value_name = "LOG/NUMBER")]
    pub cursor: Option<String>,
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// Formats of `audit export`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ExportFormat {
    /// One JSON object per line.
    Json,
    /// A table for a spreadsheet; nothing in it is taken for a formula.
    Csv,
    /// One event of the Open Cybersecurity Schema Framework per line.
    Ocsf,
}

/// Options of `audit export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Which records.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Format.
    #[arg(long, value_enum, default_value = "json")]
    pub format: ExportFormat,
    /// File to write, mode 0600; standard output when absent.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Options of `audit erase`.
#[derive(Debug, Args)]
pub struct EraseArgs {
    /// The principal, such as key:abc or user:anna.
    #[arg(long, value_name = "PRINCIPAL")]
    pub subject: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
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
