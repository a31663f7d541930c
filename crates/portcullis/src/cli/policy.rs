//! What a person types after `portcullis policy` and `portcullis access`. Parsing only.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What to do with the policies.
#[derive(Debug, Subcommand)]
pub enum PolicyAction {
    /// Load the policies and check every rule against the tools and arguments that exist.
    Check(CheckArgs),
    /// Say who may call what, and which rule decides.
    Explain(ExplainArgs),
    /// Try a table of expectations, in YAML or CSV. Fails when one is not met.
    Test(TestArgs),
    /// Decide calls by other policy files, and say what would change.
    DryRun(DryRunArgs),
}

/// Options of `policy check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Policy files to check instead of those of the configuration.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Also show what this product bundles; those that exist are named when it is unknown.
    #[arg(long, value_name = "NAME")]
    pub product: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Options of `policy test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// The table: a list of {role or principal, tenant, product, tool, args, expect, rule}.
    #[arg(value_name = "FILE")]
    pub table: PathBuf,
    /// Policy files to try instead of those of the configuration.
    #[arg(long = "policy", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// What rows do not say.
    #[command(flatten)]
    pub through: ThroughArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Through which product somebody comes, and as which tenant, where nothing else says so.
#[derive(Debug, Clone, Args)]
pub struct ThroughArgs {
    /// Decide as for calls at `/mcp/NAME`, where it is not said otherwise: the product's tools, sources, services and limits
    /// decide too.
    #[arg(long, value_name = "NAME")]
    pub product: Option<String>,
    /// Tenant of whoever's tenant the configuration does not say: roles, and tokens with the tenant in a claim.
    #[arg(long)]
    pub tenant: Option<String>,
}

/// Whom a question is about.
#[derive(Debug, Clone, Args)]
pub struct WhoArgs {
    /// A role (repeat for several).
    #[arg(long)]
    pub role: Vec<String>,
    /// A principal: `key:` and a key's id, `user:`, `cert:` or `local:` and a name, `token:ISSUER/SUBJECT`, `anonymous`. With
    /// --role, its roles are these.
    #[arg(long)]
    pub principal: Option<String>,
    /// Tenant of the principal, where its credential does not say it: of a role, or of a token with the tenant in a claim.
    #[arg(long)]
    pub tenant: Option<String>,
}

/// Options of `policy explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Whom.
    #[command(flatten)]
    pub who: WhoArgs,
    /// Decide as for a call at `/mcp/NAME`: the product's tools, sources, services and limits decide too.
    #[arg(long, value_name = "NAME")]
    pub product: Option<String>,
    /// Which tool; every tool when absent.
    #[arg(long)]
    pub tool: Option<String>,
    /// An argument of the call as key=value (repeat). The schema of the tool says whether a value such as 1 is text or JSON.
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
    /// Calls to decide: CSV with the columns role or principal, tool, and where they are wanted tenant, product and args
    /// (JSON).
    #[arg(long, value_name = "FILE", required_unless_present = "audit", conflicts_with = "audit")]
    pub calls: Option<PathBuf>,
    /// Decide the calls of the audit log. It holds no arguments, so rules about arguments are said to depend on them, and no
    /// products, so calls are decided as if they came through none, or through --product.
    #[arg(long)]
    pub audit: bool,
    /// With --audit: not before this (RFC 3339 or now-7d).
    #[arg(long, value_name = "TIME", default_value = "now-7d", requires = "audit")]
    pub since: String,
    /// What rows do not say.
    #[command(flatten)]
    pub through: ThroughArgs,
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
    /// Every key, user, certificate and role with what it may call, the deciding rule, what it is confined to, and when it
    /// last did.
    Review(ReviewArgs),
}

/// Options of `access review`.
#[derive(Debug, Args)]
pub struct ReviewArgs {
    /// Also what may not be called.
    #[arg(long)]
    pub all: bool,
    /// The product through which, and the tenant of roles.
    #[command(flatten)]
    pub through: ThroughArgs,
    /// Print JSON.
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// Print CSV for a spreadsheet; nothing in it is taken for a formula.
    #[arg(long)]
    pub csv: bool,
}
