//! Which sources an answer stands on: absent is not zero, failed is not absent.

use serde::{Deserialize, Serialize};

use crate::SourceName;

/// What one source contributed to a fanned-out answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// The source that was asked, or would have been.
    pub source: SourceName,
    /// How it ended.
    pub state: CoverageState,
    /// Client-safe reason, present unless the source answered with data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How one source ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoverageState {
    /// It answered with data.
    Answered,
    /// It answered, and has nothing for this question.
    Empty,
    /// It answered with a part; the reason says which part is missing.
    Partial,
    /// It failed or ran into its deadline; nothing may be concluded from its silence.
    Failed,
    /// It was not asked (outside the scope, or cannot answer this signal).
    Skipped,
}

impl Coverage {
    /// A source that answered, or had nothing.
    pub fn answered(source: SourceName, has_data: bool) -> Self {
        if has_data {
            Self { source, state: CoverageState::Answered, reason: None }
        } else {
            Self { source, state: CoverageState::Empty, reason: Some("no matching data in this window".into()) }
        }
    }

    /// A source that failed; `reason` must be client-safe.
    pub fn failed(source: SourceName, reason: impl Into<String>) -> Self {
        Self { source, state: CoverageState::Failed, reason: Some(reason.into()) }
    }
}
