//! Resources: the guide, the sources, the SQL schema, and a health snapshot per service.
//!
//! Guards that a resource shows exactly what the tool behind it would show to the same permit. No second road to data.

use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use portcullis_model::{Clock, CompletionKind, Fault, FaultCode, ResourceSpec, ResourceTemplateSpec, Signal, cut};
use portcullis_policy::Permit;
use portcullis_ports::{
    Arguments, Behind, Content, EmbeddedResource, Exchange, Outcome, Reading, ResourceOutput, ResourceReader, Tool,
};
use serde_json::{Map, Value, json};

use crate::instructions::{GUIDE, SQL_SCHEMA};
use crate::sources::Sources;
use crate::tools::{ListSources, ServiceHealth};

const GUIDE_URI: &str = "portcullis://guide";
const SOURCES_URI: &str = "portcullis://sources";
const SQL_URI: &str = "portcullis://schema/sql";
const SERVICE_PREFIX: &str = "portcullis://service/";
const SERVICE_TEMPLATE: &str = "portcullis://service/{name}";
/// The tool that looks at one service.
const HEALTH: &str = "get_service_health";

/// The resources of this server.
pub struct Library {
    sources: Arc<Sources>,
    list_sources: Option<ListSources>,
    health: Option<ServiceHealth>,
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("sources", &self.sources).finish_non_exhaustive()
    }
}

impl Library {
    /// Resources over `sources`.
    pub fn new(sources: Arc<Sources>, clock: Arc<dyn Clock>) -> Self {
        Self { list_sources: ListSources::new(sources.clone()), health: ServiceHealth::new(sources.clone(), clock), sources }
    }
}

fn resource(uri: &str, name: &str, title: &str, description: &str, mime_type: &str) -> Arc<ResourceSpec> {
    Arc::new(ResourceSpec {
        uri: Arc::from(uri),
        name: Arc::from(name),
        title: Some(Arc::from(title)),
        description: Some(Arc::from(description)),
        mime_type: Some(Arc::from(mime_type)),
        shown: None,
    })
}

fn contents(uri: &str, mime_type: &str, data: impl Into<String>) -> ResourceOutput {
    let resource = EmbeddedResource {
        uri: uri.to_owned(),
        mime_type: Some(mime_type.to_owned()),
        data: data.into(),
        binary: false,
        meta: None,
    };
    ResourceOutput::Contents(vec![resource])
}

fn missing(uri: &str) -> Fault {
    let shown = cut::quoted(uri, 120);
    Fault::new(FaultCode::NotFound, format!("there is no resource '{shown}'"))
        .with_hint(format!("{GUIDE_URI}, {SOURCES_URI}, {SQL_URI}, {SERVICE_PREFIX}NAME"))
}

/// The name in `portcullis://service/NAME`, percent-decoded; `None` when it is not a valid one.
fn service_of(uri: &str) -> Option<String> {
    let encoded = uri.strip_prefix(SERVICE_PREFIX)?;
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'%' => {
                let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &tail[2..];
            }
            b'/' | b'?' | b'#' => return None,
            plain => bytes.push(*plain),
        }
    }
    String::from_utf8(bytes).ok().filter(|name| !name.is_empty() && name.len() <= 256)
}

/// The one address of a service: everything but letters, digits and `-._~` is encoded.
fn address_of(service: &str) -> String {
    let mut uri = SERVICE_PREFIX.to_owned();
    for byte in service.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

/// The text of a tool's answer, run under the same permit.
async fn text_of(tool: &dyn Tool, permit: &Permit, arguments: Value, exchange: &dyn Exchange) -> Result<String, Fault> {
    let arguments = match arguments {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    match tool.run(permit, Arguments(arguments), exchange).await? {
        Outcome::Complete(output) => {
            let texts = output.content.into_iter().filter_map(|content| match content {
                Content::Text(text) => Some(text),
                _ => None,
            });
            Ok(texts.collect::<Vec<_>>().join("\n"))
        }
        Outcome::NeedsInput { .. } => Err(Fault::new(FaultCode::Internal, "this resource cannot ask questions")),
    }
}

#[async_trait]
impl ResourceReader for Library {
    fn resources(&self) -> Vec<Arc<ResourceSpec>> {
        vec![
            resource(GUIDE_URI, "guide", "Guide", "How to work with these tools", "text/markdown"),
            resource(SOURCES_URI, "sources", "Sources", "The sources in your scope and their state", "text/plain"),
            resource(SQL_URI, "sql_schema", "SQL schema", "Tables and columns for the sql tool", "text/plain"),
        ]
    }

    fn templates(&self) -> Vec<Arc<ResourceTemplateSpec>> {
        vec![Arc::new(ResourceTemplateSpec {
            uri_template: Arc::from(SERVICE_TEMPLATE),
            name: Arc::from("service"),
            title: Some(Arc::from("Service health")),
            description: Some(Arc::from("Health of one service right now, with what is wrong and likely causes")),
            mime_type: Some(Arc::from("text/plain")),
            completions: vec![(Arc::from("name"), CompletionKind::Service)],
            shown: None,
        })]
    }

    fn behind(&self, address: &str) -> Option<Behind> {
        let call = |tool: &str, arguments: Map<String, Value>| {
            Some(Behind::Call(Reading { tool: tool.to_owned(), arguments: Arguments(arguments) }))
        };
        match address {
            GUIDE_URI => None,
            SOURCES_URI => call("list_sources", Map::new()),
            SQL_URI => Some(Behind::Tool("sql".to_owned())),
            SERVICE_TEMPLATE => Some(Behind::Tool(HEALTH.to_owned())),
            _ => {
                let service = service_of(address)?;
                call(HEALTH, Map::from_iter([("service".to_owned(), Value::String(service))]))
            }
        }
    }

    fn proper(&self, uri: &str) -> Option<String> {
        service_of(uri).map(|service| address_of(&service))
    }

    fn owns(&self, uri: &str) -> bool {
        matches!(uri, GUIDE_URI | SOURCES_URI | SQL_URI) || service_of(uri).is_some()
    }

    async fn read(&self, permit: &Permit, uri: &str, exchange: &dyn Exchange) -> Result<ResourceOutput, Fault> {
        let broken = || Fault::new(FaultCode::Internal, "this resource is not available");
        match uri {
            GUIDE_URI => Ok(contents(uri, "text/markdown", GUIDE)),
            SOURCES_URI => {
                let tool = self.list_sources.as_ref().ok_or_else(broken)?;
                Ok(contents(uri, "text/plain", text_of(tool, permit, json!({}), exchange).await?))
            }
            SQL_URI if self.sources.answers(permit, Signal::Sql) => Ok(contents(uri, "text/plain", SQL_SCHEMA)),
            SQL_URI => Ok(contents(uri, "text/plain", "No source available to this credential speaks SQL.")),
            _ => {
                let service = service_of(uri).ok_or_else(|| missing(uri))?;
                let tool = self.health.as_ref().ok_or_else(broken)?;
                Ok(contents(uri, "text/plain", text_of(tool, permit, json!({"service": service}), exchange).await?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_addresses() {
        assert_eq!(service_of("portcullis://service/checkout").as_deref(), Some("checkout"));
        assert_eq!(service_of("portcullis://service/a%20b%2Fc").as_deref(), Some("a b/c"));
        for bad in [
            "portcullis://service/",
            "portcullis://service/a/b",
            "portcullis://service/%zz",
            "portcullis://service/%2",
            "file:///etc/passwd",
        ] {
            assert_eq!(service_of(bad), None, "{bad}");
        }
        for name in ["checkout", "a b/c", "a:b", "café", "p%61y", "100%"] {
            assert_eq!(service_of(&address_of(name)).as_deref(), Some(name), "{name}");
        }
        assert_eq!(address_of("a:b/c"), "portcullis://service/a%3Ab%2Fc");
    }
}
