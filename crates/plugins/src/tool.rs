//! A tool of a plugin. Guards that its result is what it claims: JSON where it says JSON, of the shapes the house has.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_model::{Fault, FaultCode, InvalidName, RiskClass, Scope, ToolName, ToolSpec, WriteCategory};
use portcullis_policy::Permit;
use portcullis_ports::{
    Arguments, Content, DRY_RUN, Exchange, Outcome, Output, Preview, Reading, Sight, Tool, offer_dry_run, wants_dry_run,
};
use serde_json::Value;

use crate::bindings::portcullis::plugin::types;
use crate::plugin::{Described, Plugin};
use crate::preview;
use crate::state::Way;

/// One tool of one plugin.
pub(crate) struct PluginTool {
    plugin: Arc<Plugin>,
    /// What the plugin calls it; the house may have given it another name.
    own_name: String,
    spec: Arc<ToolSpec>,
    foresight: Foresight,
}

/// How it tells what a call would do.
enum Foresight {
    /// It cannot.
    None,
    /// From the arguments alone.
    Blind,
    /// By what another tool of the plugin reads.
    Reading {
        /// Its name in the catalogue.
        tool: String,
        /// Names of its arguments.
        arguments: Vec<String>,
    },
}

impl PluginTool {
    /// Under `name`; `named` tells the names of the plugin's other tools in the catalogue, of those that are there.
    pub(crate) fn new(
        plugin: &Arc<Plugin>,
        tool: &Described,
        name: &str,
        named: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, InvalidName> {
        let foresight = match &tool.preview {
            None => Foresight::None,
            Some(preview) => preview.reads.as_ref().and_then(|reads| Some((reads, named(reads.as_str())?))).map_or(
                Foresight::Blind,
                |(reads, tool)| {
                    let reader = plugin.tools.iter().find(|other| other.name == reads.as_str());
                    let schema = reader.and_then(|reader| reader.input_schema.get("properties")).and_then(Value::as_object);
                    let arguments = schema.map(|properties| properties.keys().cloned().collect()).unwrap_or_default();
                    Foresight::Reading { tool, arguments }
                },
            ),
        };
        let mut input_schema = tool.input_schema.clone();
        if tool.preview.is_some() {
            // That there is room for it was checked when it was loaded.
            offer_dry_run(&mut input_schema);
        }
        let category = (tool.risk != RiskClass::Read).then(|| WriteCategory(format!("plugin-{}", plugin.name).into()));
        let spec = ToolSpec {
            name: ToolName::new(name)?,
            title: tool.title.as_str().into(),
            description: tool.description.as_str().into(),
            risk: tool.risk,
            idempotent: tool.idempotent,
            open_world: tool.open_world,
            category,
            input_schema: Arc::new(input_schema),
            output_schema: tool.output_schema.clone().map(Arc::new),
            completions: Vec::new(),
            shown: None,
        };
        Ok(Self { plugin: plugin.clone(), own_name: tool.name.clone(), spec: Arc::new(spec), foresight })
    }

    /// Whether the caller's scope leaves room for an answer that nobody confines.
    fn may_use(&self, scope: &Scope) -> Result<(), Fault> {
        let grant = &self.plugin.grant;
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

    fn serves(&self, scope: &Scope) -> Result<(), Fault> {
        self.may_use(scope)
    }

    async fn run(&self, permit: &Permit, arguments: Arguments, exchange: &dyn Exchange) -> Result<Outcome, Fault> {
        self.may_use(permit.scope())?;
        let mut arguments = arguments.0;
        if self.previews() {
            if wants_dry_run(&Arguments(arguments.clone())) {
                return Err(Fault::new(FaultCode::Internal, "a dry run reached the work itself, so nothing was done"));
            }
            arguments.shift_remove(DRY_RUN);
        }
        let arguments = Value::Object(arguments).to_string();
        let result = self.plugin.call_tool(permit, exchange, &self.own_name, &arguments).await?;
        Ok(self.output(result)?.into())
    }

    fn previews(&self) -> bool {
        !matches!(self.foresight, Foresight::None)
    }

    fn present_state(&self, arguments: &Arguments) -> Option<Reading> {
        let Foresight::Reading { tool, arguments: taken } = &self.foresight else { return None };
        let shared = arguments.0.iter().filter(|(name, _)| taken.contains(name));
        let arguments = Arguments(shared.map(|(name, value)| (name.clone(), value.clone())).collect());
        Some(Reading { tool: tool.clone(), arguments })
    }

    async fn preview(
        &self,
        permit: &Permit,
        sight: Sight<'_>,
        arguments: Arguments,
        _exchange: &dyn Exchange,
    ) -> Result<Option<Preview>, Fault> {
        self.may_use(permit.scope())?;
        let way = match (&self.foresight, sight) {
            (Foresight::None, _) => return Ok(None),
            (Foresight::Blind, _) => Way::Closed(Arc::from("the manifest names no tool that reads what this one changes")),
            (Foresight::Reading { .. }, Sight::Closed(why)) => Way::Closed(Arc::from(why)),
            (Foresight::Reading { .. }, Sight::Allowed(reading)) => match self.may_use(reading.scope()) {
                Ok(()) => Way::Reading(Box::new(reading.clone())),
                Err(fault) => Way::Closed(Arc::from(fault.message())),
            },
        };
        let arguments = Value::Object(arguments.0).to_string();
        let foreseen = self.plugin.preview_tool(permit, way, &self.own_name, &arguments).await?;
        preview::read(&self.plugin, foreseen).map(Some)
    }
}
