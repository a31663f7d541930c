//! `portcullis tools`: what the local user may call.

use anyhow::bail;
use portcullis_identity::Presented;
use serde_json::json;

use crate::cli::OutputArgs;
use crate::house::House;
use crate::settings::Config;
use crate::terminal::{paint, say, say_json};

/// Runs `portcullis tools`.
pub async fn run(config: &Config, output: &OutputArgs) -> anyhow::Result<()> {
    let house = House::open(config).await?;
    let listed = list(&house, output).await;
    house.close().await;
    listed
}

async fn list(house: &House, output: &OutputArgs) -> anyhow::Result<()> {
    let presented = Presented::stdio();
    let caller = match house.gateway.identify(&presented).await {
        Ok(caller) => caller,
        Err(fault) => bail!("{}", fault.get().message),
    };
    let tools = match house.gateway.tools(&caller).await {
        Ok(tools) => tools,
        Err(fault) => bail!("{}", fault.get().message),
    };
    if output.json {
        let all: Vec<_> = tools
            .get()
            .iter()
            .map(|t| {
                json!({"name": t.name.as_str(), "title": &*t.title, "description": &*t.description, "risk": t.risk.as_str(),
                       "inputSchema": &*t.input_schema, "outputSchema": t.output_schema.as_deref()})
            })
            .collect();
        say_json(&json!({"tools": all}));
        return Ok(());
    }
    for tool in tools.get() {
        let arguments = tool.input_schema.get("properties").and_then(|p| p.as_object());
        let required = tool.input_schema.get("required").and_then(|r| r.as_array());
        let names: Vec<String> = arguments
            .into_iter()
            .flat_map(|p| p.keys())
            .map(|name| {
                let needed = required.is_some_and(|r| r.iter().any(|v| v == name));
                if needed { name.clone() } else { format!("[{name}]") }
            })
            .collect();
        say(format!("{} {}", paint::strong(tool.name.as_str()), paint::faint(&names.join(" "))));
        say(format!("    {}", tool.description));
    }
    Ok(())
}
