//! `docs/reference/tools.md`: what each tool is for and what it takes, from the tools' own schemas.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde_json::Value;

use super::cell;

const HEAD: &str = "\
<!-- Written by `cargo xtask generate`. -->
# Tools

What the local user may call with the default configuration. A caller sees only the tools its role and the policies
allow; unknown arguments are refused. How answers are built: [answers](../concepts/answers.md).
";

const REACHING: &str = "
# Where there are more tools than are listed

These two reach the others: [many tools](../guides/many-tools.md). `call_tool` has the risk of what it calls.
";

/// The page. `listed` is what `portcullis tools --json` prints: an array of tools, or an object with one under `tools`;
/// `reaching` the same where every tool but the ones that reach the others is hidden.
pub(super) fn render(listed: &Value, reaching: &Value) -> anyhow::Result<String> {
    let tools = |listed: &Value| -> anyhow::Result<Vec<Value>> {
        let tools = listed.as_array().or_else(|| listed["tools"].as_array());
        tools.cloned().context("`portcullis tools --json` holds no list of tools")
    };
    let mut page = HEAD.to_owned();
    for tool in &tools(listed)? {
        section(&mut page, tool)?;
    }
    page.push_str(REACHING);
    for tool in &tools(reaching)? {
        section(&mut page, tool)?;
    }
    Ok(page)
}

fn section(page: &mut String, tool: &Value) -> anyhow::Result<()> {
    let name = tool["name"].as_str().context("a tool without a name")?;
    let schema =
        tool.get("inputSchema").or_else(|| tool.get("input_schema")).with_context(|| format!("{name} has no input schema"))?;
    let title = tool["title"].as_str().map_or_else(String::new, |title| format!("**{}.** ", title.trim_end_matches('.')));
    let description = tool["description"].as_str().with_context(|| format!("{name} has no description"))?;
    let _ = write!(page, "\n## `{name}`\n\n{title}{}\n", cell(description).replace("\\|", "|"));
    if let Some(risk) = risk(tool) {
        let _ = write!(page, "\nRisk: {risk}.\n");
    }
    let arguments = schema["properties"].as_object().filter(|a| !a.is_empty());
    let Some(arguments) = arguments else {
        page.push_str("\nTakes no arguments.\n");
        return Ok(());
    };
    let required = |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|n| n.as_str() == Some(name)));
    page.push_str("\n| argument | type | default | meaning |\n|---|---|---|---|\n");
    for (argument, own) in arguments {
        let default = match own.get("default") {
            Some(default) => format!("`{}`", plain(default)),
            None if required(argument) => "required".to_owned(),
            None => String::new(),
        };
        let meaning = cell(own["description"].as_str().unwrap_or_default());
        let _ = writeln!(page, "| `{argument}` | {} | {} | {meaning} |", cell(&kind(own)), cell(&default));
    }
    Ok(())
}

/// The risk class, where the tool says it or its annotations do.
fn risk(tool: &Value) -> Option<&str> {
    if let Some(risk) = tool["risk"].as_str() {
        return Some(risk);
    }
    let annotations = tool.get("annotations")?;
    match (annotations["readOnlyHint"].as_bool()?, annotations["destructiveHint"].as_bool()) {
        (true, _) => Some("read"),
        (false, Some(false)) => Some("write"),
        (false, _) => Some("destructive"),
    }
}

/// The type in words: `integer 1 to 500`, `one of a, b`, `list of string`.
fn kind(schema: &Value) -> String {
    if let Some(words) = schema["enum"].as_array() {
        return format!("one of {}", words.iter().map(|w| format!("`{}`", plain(w))).collect::<Vec<_>>().join(", "));
    }
    let base = match &schema["type"] {
        Value::String(one) => one.clone(),
        Value::Array(several) => several.iter().map(plain).collect::<Vec<_>>().join(" or "),
        _ => ["anyOf", "oneOf"]
            .iter()
            .find_map(|key| schema[*key].as_array())
            .map_or_else(|| "any".to_owned(), |forms| forms.iter().map(kind).collect::<Vec<_>>().join(" or ")),
    };
    let base = match (base.as_str(), schema.get("items"), schema.get("additionalProperties").filter(|a| a.is_object())) {
        ("array", Some(items), _) => format!("list of {}", kind(items)),
        ("object", _, Some(values)) => format!("map to {}", kind(values)),
        _ => base,
    };
    let bound = |low: &str, high: &str, what: &str| match (schema.get(low), schema.get(high)) {
        (Some(low), Some(high)) => format!(" {} to {}{what}", plain(low), plain(high)),
        (Some(low), None) => format!(" at least {}{what}", plain(low)),
        (None, Some(high)) => format!(" at most {}{what}", plain(high)),
        (None, None) => String::new(),
    };
    let pattern = schema["pattern"].as_str().map_or_else(String::new, |p| format!(" like `{p}`"));
    format!(
        "{base}{}{}{}{pattern}",
        bound("minimum", "maximum", ""),
        bound("minLength", "maxLength", " characters"),
        bound("minItems", "maxItems", " items")
    )
}

/// A JSON value without the quotes of text.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_tool_becomes_a_table() {
        let listed = json!([{
            "name": "query_logs", "title": "Logs", "description": "Finds records.\nUse it first.",
            "annotations": {"readOnlyHint": true},
            "inputSchema": {"type": "object", "required": ["text"], "properties": {
                "text": {"type": "string", "description": "a|b"},
                "limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 20},
                "level": {"type": "string", "enum": ["info", "error"]},
            }},
        }, {"name": "list_sources", "description": "Lists.", "inputSchema": {"type": "object", "properties": {}}}]);
        let reaching = json!({"tools": [{"name": "find_tools", "description": "Finds.", "inputSchema": {"type": "object"}}]});
        let page = render(&listed, &reaching).unwrap();
        assert!(page.ends_with("## `find_tools`\n\nFinds.\n\nTakes no arguments.\n"), "{page}");
        assert!(page.contains("\n## `query_logs`\n\n**Logs.** Finds records. Use it first.\n\nRisk: read.\n"), "{page}");
        assert!(page.contains("| `text` | string | required | a\\|b |\n"), "{page}");
        assert!(page.contains("| `limit` | integer 1 to 500 | `20` |  |\n"), "{page}");
        assert!(page.contains("| `level` | one of `info`, `error` |  |  |\n"), "{page}");
        assert!(page.contains("## `list_sources`\n\nLists.\n\nTakes no arguments.\n"), "{page}");
    }

    #[test]
    fn types_say_their_bounds() {
        let said = |schema: Value| kind(&schema);
        assert_eq!(said(json!({"type": "array", "items": {"type": "string"}, "maxItems": 8})), "list of string at most 8 items");
        assert_eq!(said(json!({"type": "object", "additionalProperties": {"type": "string"}})), "map to string");
        assert_eq!(said(json!({"anyOf": [{"type": "string"}, {"type": "null"}]})), "string or null");
        assert_eq!(said(json!({"type": ["string", "null"], "pattern": "^a"})), "string or null like `^a`");
        assert_eq!(said(json!({})), "any");
    }

    #[test]
    fn what_is_no_list_of_tools_is_an_error() {
        let none = json!([]);
        assert!(render(&json!({"error": "no"}), &none).is_err());
        assert!(
            render(&json!([{"name": "x", "description": "y"}]), &none).unwrap_err().to_string().contains("x has no input schema")
        );
    }
}
