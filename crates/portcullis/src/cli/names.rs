//! `portcullis names`: what a person may say about whose a name is.

use clap::{Args, Subcommand, ValueEnum};

/// What to do with names.
#[derive(Debug, Subcommand)]
pub enum NamesAction {
    /// List whose each name of a tool or prompt and each address of a resource is, and who went without one.
    List {
        /// Also those of this house.
        #[arg(long)]
        all: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give a name to somebody else. What is written about it, rules, keys, approvals, speaks of that one from then on.
    Move {
        /// Which name.
        #[command(flatten)]
        name: NameArgs,
        /// Who gets it, as `list` calls it, such as 'upstream grafana', 'api shop' or 'plugin datadog'.
        #[arg(long, value_name = "OWNER")]
        to: String,
    },
    /// Give up a name: whoever offers something under it next gets it. Look for what is written about it first.
    Release(NameArgs),
    /// Let several upstreams of a kind offer one by one, with their prefixes, what they offer together under a name. Rules
    /// about that name do not speak of the new ones: write theirs first.
    Split(NameArgs),
    /// Let several upstreams of a kind offer a tool together again.
    Join(NameArgs),
}

/// A name.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// The name, the address of a resource, or the template of several.
    pub name: String,
    /// What it is of.
    #[arg(long, value_enum, default_value = "tool")]
    pub kind: NameKindArg,
}

/// What a name is of.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum NameKindArg {
    /// A tool.
    Tool,
    /// A prompt.
    Prompt,
    /// Resources: an address or a template.
    Address,
}
