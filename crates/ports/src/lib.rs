//! The joints of the house: the traits rooms meet through, and nothing else.
//!
//! Pure: no runtime, no sockets. Cancellation is the drop of the future: whoever implements these traits
//! must stop its work when the future it returned is dropped (spawned work included).

mod exchange;
mod extension;
mod names;
mod output;
mod preview;
mod source;
mod tool;

pub use exchange::{Answers, ClientAbilities, Exchange, InputRequest, NoExchange, NoticeLevel, StillAdmitted};
pub use extension::{Extension, Happening, Offer, Report, Standing, Witness};
pub use names::{Denied, Held, Holding, Keeper, LONGEST_NAME, NameKind, Names, Prefixes, Right, THIS_HOUSE, Taken};
pub use output::{Content, EmbeddedResource, Outcome, Output, PromptMessage, PromptOutput, ResourceOutput, Role};
pub use preview::{
    Change, DRY_RUN, Preview, PreviewedBody, PreviewedRequest, Reading, Sight, dry_run_argument, offer_dry_run, wants_dry_run,
};
pub use source::{
    Aggregation, AlertAnswer, AlertRequest, LabelMatch, LabelValuesRequest, LogAnswer, LogCount, LogCountAnswer, LogCountRequest,
    LogFilter, LogLine, LogPosition, LogRequest, MatchOperator, MetricAnswer, MetricCatalogueAnswer, MetricCatalogueRequest,
    MetricRequest, MetricSelector, ScanEnd, SemanticMetric, ServiceAnswer, Source, SourceHealth, SpanFilter, SqlAnswer,
    SqlColumn, SqlRequest, TextFilter, Total, TraceAnswer, TraceOrder, TraceRequest,
};
pub use tool::{Arguments, Behind, Completer, HOUSE, Prompt, ResourceReader, Suggestions, Tool, Typing, Watch};
