//! `portcullis call`: one tool, as the local user, through the same gate.

use std::sync::Arc;

use anyhow::bail;
use portcullis_gateway::CallRequest;
use portcullis_identity::Presented;
use portcullis_model::{Clock, SystemClock};
use portcullis_ports::{Arguments, Content, Outcome};
use serde_json::{Map, Value};

use crate::cli::CallArgs;
use crate::house::House;
use crate::settings::Config;
use crate::terminal::{say, say_json};

/// Runs `portcullis call`.
pub async fn run(config: &Config, args: CallArgs) -> anyhow::Result<()> {
    let arguments = Arguments(read_arguments(&args.arguments)?);
    let house = House::open(config).await?;
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

/// `key=value`; JSON values are taken as JSON, everything else as text.
pub(super) fn read_arguments(pairs: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut map = Map::new();
    for pair in pairs {
        let Some((key, value)) = pair.split_once('=') else {
            bail!("'{pair}' is not an argument; write key=value, such as service=checkout");
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        if map.insert(key.to_owned(), value).is_some() {
            bail!("the argument '{key}' is given twice");
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_json_where_they_can_be() {
        let pairs = ["service=cart", "limit=5", "points=true", "labels={\"a\":\"b\"}", "filter=a=b"].map(str::to_owned);
        let map = read_arguments(&pairs).unwrap();
        assert_eq!(map["service"], "cart");
        assert_eq!(map["limit"], 5);
        assert_eq!(map["points"], true);
        assert_eq!(map["labels"]["a"], "b");
        assert_eq!(map["filter"], "a=b");
        assert!(read_arguments(&["nonsense".to_owned()]).is_err());
        assert!(read_arguments(&["a=1".to_owned(), "a=2".to_owned()]).is_err());
    }
}
