//! What a person types after `portcullis secret`. Parsing only.

use clap::{Subcommand, ValueEnum};

use super::OutputArgs;

/// What to make.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum SecretKind {
    /// Letters and digits.
    Token,
    /// Letters, digits and signs, each class present.
    Password,
    /// Hexadecimal digits.
    Key,
}

/// What to do with secrets.
#[derive(Debug, Subcommand)]
pub enum SecretAction {
    /// Print a new random secret once. Nothing is kept.
    Generate {
        /// What to make.
        #[arg(long = "type", value_enum, default_value = "token")]
        kind: SecretKind,
        /// Characters, 16 to 1024.
        #[arg(long, default_value_t = 32)]
        length: usize,
    },
    /// List the secrets of the configuration and how each stands; never a value.
    List(OutputArgs),
    /// The same, and fail when one cannot be used or is overdue for rotation.
    Check(OutputArgs),
}
