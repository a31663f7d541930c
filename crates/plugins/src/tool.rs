//! A tool of a plugin. Guards that its result is what it claims: JSON where it says JSON, of the shapes the house has.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_model::{Fault, FaultCode, InvalidName, RiskClass, ToolName, ToolSpec, WriteCategory};
use portcullis_policy::Permit;
use portcullis_ports::{Arguments, Content, Exchange, Outcome, Output, Tool};
use serde_json::Value;

use crate::bindings::portcullis::plugin::types;
use crate::plugin::{Described, Plugin};

/// One tool of one plugin.
pub(crate) struct PluginTool {
    plugin: Arc<Plugin>,
    /// What the plugin calls it; the house may have given it another name.
    own_name: String,
    spec: Arc<ToolSpec>,
}

impl PluginTool {
    /// Under `name`.
    pub(crate) fn new(plugin: &Arc<Plugin>, tool: &Described, name: &str) -> Result<Self, InvalidName> {
        let category = (tool.risk != RiskClass::Read).then(|| WriteCategory(format!("plugin-{}", plugin.name).into()));
        let spec = ToolSpec {
            name: ToolName::new(name)?,
            title: tool.title.as_str().into(),
            description: tool.description.as_str().into(),
            risk: tool.risk,
            idempotent: tool.idempotent,
            open_world: tool.open_world,
            category,
            input_schema: Arc::new(tool.input_schema.clone()),
            output_schema: tool.output_schema.clone().map(Arc::new),
            completions: Vec::new(),
            shown: None,
        };
        Ok(Self { plugin: plugin.clone(), own_name: tool.name.clone(), spec: Arc::new(spec) })
    }

    /// Whether the caller's scope leaves room for an answer that nobody confines.
    fn may_use(&self, permit: &Permit) -> Result<(), Fault> {
        let (scope, grant) = (permit.scope(), &self.plugin.grant);
        let source = grant.source.as_ref().map_or(self.plugin.name.as_str(), |name| name.as_str());
        let refused = |message: String| Fault::new(FaultCode::Forbidden, message);
        if scope.tenant != grant.tenant || !scope.sources.contains(source) {
            return Err(refused(format!("'{source}' is not available to this credential")));
        }
        if (scope.restricts_records() || scope.look_back.is_some()) && !grant.open_to_confined {
            let said = format!("this credential is confined to a part of the data, and tools of '{source}' cannot be confined");
            return Err(
                refused(said).with_hint("use a credential without that limit, or ask the operator about open_to_confined")
            );
        }
        Ok(())
    }

    fn output(&self, result: types::ToolResult) -> Result<Output, Fault> {
        let not_json = |error: serde_json::Error| {
            let text = format!("plugin {} tool {}: the structured result is no JSON: {error}", self.plugin.name, self.own_name);
            Fault::backend(format!("plugin '{}' gave a result that cannot be read", self.plugin.name), text)
        };
        let structured: Option<Value> = result.structured.as_deref().map(serde_json::from_str).transpose().map_err(not_json)?;
        let mut content: Vec<Content> = result
            .content
            .into_iter()
            .map(|content| match content {
                types::Content::Text(text) => Content::Text(text),
                types::Content::Image(media) => Content::Image { data: STANDARD.encode(media.data), mime_type: media.mime_type },
                types::Content::Audio(media) => Content::Audio { data: STANDARD.encode(media.data), mime_type: media.mime_type },
            })
            .collect();
        if content.is_empty()
            && let Some(structured) = &structured
        {
            content.push(Content::Text(structured.to_string()));
        }
        let sources = vec![Arc::from(self.plugin.name.as_str())];
        Ok(Output { content, structured, failed: result.failed, sources, ..Output::default() })
    }
}

#[async_trait]
impl Tool for PluginTool {
    fn origin(&self) -> String {
        self.plugin.mark().to_owned()
    }

    fn spec(&self) -> &Arc<ToolSpec> {
        &self.spec
    }

    async fn run(&self, permit: &Permit, arguments: Arguments, exchange: &dyn Exchange) -> Result<Outcome, Fault> {
        self.may_use(permit)?;
        let arguments = Value::Object(arguments.0).to_string();
        let result = self.plugin.call_tool(permit, exchange, &self.own_name, &arguments).await?;
        Ok(self.output(result)?.into())
    }
}
