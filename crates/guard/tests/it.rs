//! The release stage from outside: what goes in as a tool's output and what comes out for a client.

#[path = "it/canary.rs"]
mod canary;
#[path = "it/corpus.rs"]
mod corpus;
#[path = "it/properties.rs"]
mod properties;
