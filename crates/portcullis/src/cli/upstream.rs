//! What a person types after `portcullis upstream`. Parsing only.

use clap::{Args, Subcommand};

use super::OutputArgs;

/// What to do with other MCP servers.
#[derive(Debug, Subcommand)]
pub enum UpstreamAction {
    /// List the upstreams with what is accepted and what waits.
    List(OutputArgs),
    /// Show what waits: the scanner's findings and every changed line, and with which digest to accept it. Without a digest
    /// only what was printed to your terminal last can be accepted.
    Review {
        /// The upstream.
        upstream: String,
        /// Only these; everything that waits when absent.
        names: Vec<String>,
        /// Print JSON, for programs: it does not count as shown to anybody.
        #[arg(long)]
        json: bool,
    },
    /// Say yes to what was reviewed; running servers offer it within a second or two.
    Accept {
        /// Which.
        #[command(flatten)]
        choice: UpstreamChoice,
        /// Also what the scanner found something in.
        #[arg(long)]
        despite_findings: bool,
    },
    /// Say no to what waits, or take back what was accepted.
    Reject {
        /// Which.
        #[command(flatten)]
        choice: UpstreamChoice,
    },
}

/// Which definitions.
#[derive(Debug, Args)]
pub struct UpstreamChoice {
    /// The upstream.
    pub upstream: String,
    /// Names of tools, prompts or templates, or addresses of resources, as `review` shows them; NAME@DIGEST means that one
    /// definition and no other: 32 digits or more of its digest bind by themselves, for programs too; 8 or more choose what
    /// you were shown at your terminal.
    #[arg(required_unless_present = "all")]
    pub names: Vec<String>,
    /// Everything that waits.
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
    /// Only of this kind: tool, prompt, resource, template, protocol.
    #[arg(long)]
    pub kind: Option<String>,
}
