//! `portcullis call`: one tool, as the local user, through the same gate.

use std::sync::Arc;

use anyhow::bail;
use portcullis_gateway::CallRequest;
use portcullis_identity::Presented;
use portcullis_model::{Clock, SystemClock};
use portcullis_ports::{Arguments, Content, Outcome};
use serde_json::Value;

use super::arguments;
use crate::cli::CallArgs;
use crate::house::House;
use crate::settings::Config;
use crate::terminal::{say, say_json};

/// Runs `portcullis call`.
pub async fn run(config: &Config, args: CallArgs) -> anyhow::Result<()> {
    let given = arguments::pairs(&args.arguments)?;
    let house = House::open(config).await?;
    let spec = house.gateway.tool_spec(&args.tool);
    let arguments = Arguments(arguments::typed(&given, spec.as_deref()));
    house.sinks.hold(&house.foundations.audit, SystemClock.now());
    let outcome = call(&house, args.tool, arguments, args.json).await;
    house.close().await;
    outcome
}

async fn call(house: &House, tool: String, arguments: Arguments, json: bool) -> anyhow::Result<()> {
    let presented = Presented::stdio();
    let caller = match house.gateway.identify(&presented).await {
        Ok(caller) => caller,
        Err(fault) => bail!("{}", fault.get().message),
    };
    let request = CallRequest { tool, arguments, ..CallRequest::default() };
    let answer = match house.gateway.call(&caller, request, Arc::new(())).await {
        Ok(answer) => answer.into_inner(),
        Err(fault) => {
            let fault = fault.into_inner();
            let hint = fault.hint.map(|h| format!("\n{h}")).unwrap_or_default();
            bail!("{}: {}{hint}", fault.code.as_str(), fault.message)
        }
    };
    let Outcome::Complete(output) = answer else {
        bail!("the tool asks for input, which this command cannot give; use an MCP client");
    };
    match (&output.structured, json) {
        (Some(structured), true) => say_json(structured),
        _ => {
            for content in &output.content {
                say_content(content);
            }
        }
    }
    if output.failed {
        bail!("the tool reports a failure");
    }
    Ok(())
}

fn say_content(content: &Content) {
    match content {
        Content::Text(text) => say(text),
        Content::Image { mime_type, data } | Content::Audio { mime_type, data } => {
            say(format!("[{mime_type}, {} bytes of base64]", data.len()));
        }
        Content::Resource(resource) => say(format!("[{}]", resource.uri)),
        Content::Link(link) => say(format!("[{}]", link.get("uri").and_then(Value::as_str).unwrap_or("a link without address"))),
        Content::Annotated { block, .. } => say_content(block),
    }
}
