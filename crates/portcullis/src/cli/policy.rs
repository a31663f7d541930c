//! What a person types after `portcullis policy` and `portcullis access`. Parsing only.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What to do with the policies.
#[derive(Debug, Subcommand)]
pub enum PolicyAction {
    /// Load the policies and check every rule against the tools and arguments that exist.
    Check {
        /// Policy files to check instead of those of the configuration.
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say who may call what, and which rule decides.
    Explain(ExplainArgs),
    /// Try a table of expectations, in YAML or CSV. Fails when one is not met.
    Test {
        /// The table: a list of {role or principal, tool, args, expect, rule}.
        #[arg(value_name = "FILE")]
        table: PathBuf,
        /// Policy files to try instead of those of the configuration.
        #[arg(long = "policy", value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Decide calls by other policy files, and say what would change.
    DryRun(DryRunArgs),
}

/// Whom a question is about.
#[derive(Debug, Clone, Args)]
pub struct WhoArgs {
    /// A role (repeat for several).
    #[arg(long)]
    pub role: Vec<String>,
    /// A principal: `key:` and a key's id, or `local:` and a user. With --role, its roles are these.
    #[arg(long)]
    pub principal: Option<String>,
    /// Tenant of the principal, where it is not a key's own.
    #[arg(long)]
    pub tenant: Option<String>,
}

/// Options of `policy explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Whom.
    #[command(flatten)]
    pub who: WhoArgs,
    /// Which tool; every tool when absent.
    #[arg(long)]
    pub tool: Option<String>,
    /// An argument of the call as key=value (repeat); values that are JSON are taken as JSON.
    #[arg(long = "arg", value_name = "KEY=VALUE", requires = "tool")]
    pub arguments: Vec<String>,
    /// Decide the call without any argument, rather than whether some arguments could be allowed.
    #[arg(long, requires = "tool")]
    pub no_args: bool,
    /// Policy files to ask instead of those of the configuration.
    #[arg(long = "policy", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Options of `policy dry-run`.
#[derive(Debug, Args)]
pub struct DryRunArgs {
    /// The policy files that would take the place of the configuration's.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Calls to decide: CSV with the columns role or principal, tool, and args (JSON).
    #[arg(long, value_name = "FILE", required_unless_present = "audit", conflicts_with = "audit")]
    pub calls: Option<PathBuf>,
    /// Decide the calls of the audit log. It holds no arguments, so rules about arguments are said to depend on them.
    #[arg(long)]
    pub audit: bool,
    /// With --audit: not before this (RFC 3339 or now-7d).
    #[arg(long, value_name = "TIME", default_value = "now-7d", requires = "audit")]
    pub since: String,
    /// Print every call, not only those that would change.
    #[arg(long)]
    pub all: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What to do with access.
#[derive(Debug, Subcommand)]
pub enum AccessAction {
    /// Every key and role with what it may call, the deciding rule, and when it last did.
    Review {
        /// Also what may not be called.
        #[arg(long)]
        all: bool,
        /// Print JSON.
        #[arg(long, conflicts_with = "csv")]
        json: bool,
        /// Print CSV for a spreadsheet; nothing in it is taken for a formula.
        #[arg(long)]
        csv: bool,
    },
}
