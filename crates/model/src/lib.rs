//! The words of the house: ids, principals, scopes, tools, calls, time windows and signals.
//!
//! Everything here is plain data and pure functions. Nothing in this crate may know a protocol, a
//! backend, a runtime or a policy engine; every other crate may use it.

mod caller_token;
mod clock;
mod coverage;
pub mod cut;
mod fault;
mod ids;
mod principal;
mod scope;
mod secret;
pub mod secret_name;
mod secret_reference;
mod segment;
mod signal;
mod spec;
mod unseen;
mod whence;
mod window;

pub use caller_token::CallerToken;
pub use clock::{Clock, ManualClock, SystemClock};
pub use coverage::{Coverage, CoverageState};
pub use fault::{Fault, FaultCode};
pub use ids::{InvalidName, KeyId, PrincipalId, SourceName, TenantId, ToolName, TraceContext};
pub use principal::{CredentialKind, Principal};
pub use scope::{NameSet, Scope, ScopeError};
pub use secret::Secret;
pub use secret_reference::{InvalidSecretReference, SecretReference, is_secret_name};
pub use segment::{check_path_segment, is_only_dots};
pub use signal::{
    Alert, AlertState, Exemplar, LogRecord, MetricDescriptor, MetricKind, Sample, Series, Service, Severity, Signal, Span,
    SpanEvent, SpanKind, SpanStatus, Trace, TraceSummary,
};
pub use spec::{
    CompletionKind, PromptArgument, PromptSpec, ResourceSpec, ResourceTemplateSpec, RiskClass, ToolSpec, WriteCategory,
};
pub use unseen::{is_blank, is_unseen};
pub use whence::{Endpoint, InvalidEndpoint, Whence};
pub use window::{TimeWindow, Timestamp, WindowError, format_duration, format_timestamp, parse_duration, parse_instant};
