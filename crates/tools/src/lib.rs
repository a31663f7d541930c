//! The normalised tools: questions an engineer on call asks, answered over whatever sources are configured.
//!
//! Guards the truths every answer keeps: absent is not zero, failed is not absent, nothing is cut silently. Must not know
//! any backend; it meets them through [`portcullis_ports::Source`] and asks them through [`Sources`].

mod answer;
mod arguments;
mod completer;
mod instructions;
mod patterns;
mod prompts;
mod resources;
mod schema;
mod sources;
mod time;
mod tools;

use std::sync::Arc;

use portcullis_model::Clock;
use portcullis_ports::Tool;

pub use completer::SourceCompleter;
pub use instructions::INSTRUCTIONS;
pub use prompts::default_prompts;
pub use resources::Library;
pub use sources::{Ask, DuplicateSource, FanOut, Found, SOURCE_PATIENCE, Sources, merge_coverage};

/// The default tools over `sources`, in the order a reader meets them.
pub fn default_tools(sources: &Arc<Sources>, clock: &Arc<dyn Clock>) -> Vec<Arc<dyn Tool>> {
    fn shared<T: Tool + 'static>(tool: Option<T>) -> Option<Arc<dyn Tool>> {
        tool.map(|tool| Arc::new(tool) as Arc<dyn Tool>)
    }
    let (s, c) = (|| sources.clone(), || clock.clone());
    let tools = [
        shared(tools::ServiceHealth::new(s(), c())),
        shared(tools::LogPatterns::new(s(), c())),
        shared(tools::QueryLogs::new(s(), c())),
        shared(tools::QueryMetrics::new(s(), c())),
        shared(tools::FindMetrics::new(s(), c())),
        shared(tools::QueryTraces::new(s(), c())),
        shared(tools::GetTrace::new(s())),
        shared(tools::ListAlerts::new(s(), c())),
        shared(tools::ListServices::new(s(), c())),
        shared(tools::ListSources::new(s())),
        shared(tools::Sql::new(s())),
    ];
    tools.into_iter().flatten().collect()
}
