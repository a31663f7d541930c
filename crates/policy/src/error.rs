//! What can be wrong with policies. All of it is the operator's to fix, and each sentence says what would be right.

use std::sync::Arc;

/// A policy set that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not Cedar.
    #[error("{origin}: not a valid policy: {reason}")]
    Syntax {
        /// File.
        origin: String,
        /// What the parser said.
        reason: String,
    },
    /// Does not fit what exists, or can never apply.
    #[error("{origin}:{line}: policy '{policy}': {reason}")]
    Invalid {
        /// The policy's id.
        policy: String,
        /// File.
        origin: String,
        /// Line of its `@id`, from 1; 0 when unknown.
        line: usize,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// Names something that does not exist.
    #[error("policy '{policy}' names {kind} '{name}', which does not exist{suggestion}")]
    UnknownName {
        /// The policy's id.
        policy: String,
        /// `tool`, `role`, `product` or `action`.
        kind: &'static str,
        /// The name.
        name: String,
        /// `; did you mean …`, or empty.
        suggestion: String,
    },
    /// Two policies carry one id.
    #[error("policy id '{0}' is used twice; ids appear in audit records and must be unique")]
    DuplicateId(String),
    /// A product that cannot be offered.
    #[error("product '{product}': {reason}")]
    Product {
        /// Its name.
        product: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A charter whose name cannot be one.
    #[error("'{0}' cannot be the name of a charter")]
    Charter(String),
    /// Several mistakes.
    #[error("{} mistakes:\n{}", .0.len(), .0.iter().map(|e| format!("  {e}")).collect::<Vec<_>>().join("\n"))]
    Several(Vec<PolicyError>),
    /// The shipped schema or policies are broken: a defect of this build.
    #[error("the built-in policies are broken: {0}")]
    BuiltIn(String),
}

impl PolicyError {
    /// One error of several; the list must not be empty.
    pub(crate) fn of(mut errors: Vec<Self>) -> Self {
        if errors.len() == 1 { errors.remove(0) } else { Self::Several(errors) }
    }
}

/// Why something was not authorized.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refused by rule '{rule}'")]
pub struct Refusal {
    /// The rule that refused; `no-rule-allows` when nothing permitted it, `write-gate` when writing is not enabled.
    pub rule: Arc<str>,
}
