//! The face towards agents: MCP over stdio and Streamable HTTP, for the stateless revision 2026-07-28 and for the
//! session revisions 2025-11-25, 2025-06-18 and 2025-03-26.
//!
//! The one adapter over rmcp: no rmcp type leaves this crate. It turns requests into gateway calls and
//! [`Released`](portcullis_guard::Released) answers into messages; the conversions take nothing else, so what was
//! not released cannot be sent. It decides nothing: who may do what is the gate's question, asked on the parsed
//! body, never on a header.
//!
//! JSON-RPC batches, which only 2025-03-26 knew, are served in its sessions, message by message, and refused in every
//! other era with a sentence that says so.

mod batch;
mod client;
mod convert;
mod face;
mod faults;
mod handler;
mod http;
mod in_flight;
mod pages;
mod rounds;
mod stdio;
mod turn;
mod voice;
mod watch;

pub use client::{ListedTool, McpClient, McpClientError, ToolAnswer};
pub use http::{
    ConnectionSettings, HostPolicy, HttpSettings, SessionCount, SessionLimits, SessionsFor, host_checked, router, serve,
    serve_with,
};
pub use stdio::{StdioEnd, StdioError, serve_stdio, serve_stream};

/// Directive for the log filter: rmcp reports three INFO events per request, which cost more than the request, and a
/// WARN event per refused one, which a client could fill a disk with. What was refused stands in the audit log.
pub const LOG_DIRECTIVE: &str = "rmcp=error";
