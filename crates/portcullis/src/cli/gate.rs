//! What a person types after `portcullis approvals` and `portcullis profile`. Parsing only.

use clap::Subcommand;

use super::OutputArgs;

/// What to do with calls that wait for approval.
#[derive(Debug, Subcommand)]
pub enum ApprovalAction {
    /// List requests that have not ended.
    List(OutputArgs),
    /// Show one request: who wants what, and what would change.
    Show {
        /// The request's id, as `list` shows it.
        id: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Say yes: the same call with the same arguments may be made once.
    Grant {
        /// The request's id, as `list` shows it.
        id: String,
    },
    /// Say no.
    Deny {
        /// The request's id, as `list` shows it.
        id: String,
    },
}

/// What to do with behaviour profiles.
#[derive(Debug, Subcommand)]
pub enum ProfileAction {
    /// List principals with what was learned of them, and whether it was accepted.
    List(OutputArgs),
    /// Show what was learned of a principal.
    Show {
        /// The principal, such as `key:3f9a…`.
        principal: String,
    },
    /// Print a rule that refuses a principal the tools it was not seen calling. Resources, prompts, arguments, hours and rates
    /// stay as they are: enforcing a profile confines those. Changes nothing.
    Suggest {
        /// The principal.
        principal: String,
    },
    /// Make what was learned of a principal its profile.
    Accept {
        /// The principal.
        principal: String,
    },
    /// Forget what was learned and accepted of a principal.
    Forget {
        /// The principal.
        principal: String,
    },
}
