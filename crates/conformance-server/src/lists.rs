//! Resources, prompts and completions of the suite.

use std::sync::Arc;

use async_trait::async_trait;
use portcullis_model::{CompletionKind, Fault, FaultCode, PromptArgument, PromptSpec, ResourceSpec, ResourceTemplateSpec};
use portcullis_policy::Permit;
use portcullis_ports::{
    Arguments, Completer, Content, EmbeddedResource, Exchange, Prompt, PromptMessage, PromptOutput, ResourceOutput,
    ResourceReader, Role,
};
use serde_json::{Value, json};

use crate::questions::{filled, form};
use crate::tools::PNG;

const TEXT: &str = "test://static-text";
const BINARY: &str = "test://static-binary";
const WATCHED: &str = "test://watched-resource";
const TEMPLATE: &str = "test://template/{id}/data";

/// Three fixed resources and one template.
pub(crate) struct Resources {
    /// Of the catalogue they stand in; the watched resource changes with it.
    version: u64,
    fixed: Vec<Arc<ResourceSpec>>,
    templates: Vec<Arc<ResourceTemplateSpec>>,
}

impl Resources {
    pub(crate) fn new(version: u64) -> Self {
        let fixed =
            [(TEXT, "Static text", "text/plain"), (BINARY, "Static picture", "image/png"), (WATCHED, "Watched", "text/plain")]
                .into_iter()
                .map(|(uri, name, mime_type)| {
                    Arc::new(ResourceSpec {
                        uri: uri.into(),
                        name: name.into(),
                        title: Some(name.into()),
                        description: Some("A fixture".into()),
                        mime_type: Some(mime_type.into()),
                        shown: None,
                    })
                })
                .collect();
        let template = ResourceTemplateSpec {
            uri_template: TEMPLATE.into(),
            name: "Template".into(),
            title: Some("Template".into()),
            description: Some("Data by id".into()),
            mime_type: Some("application/json".into()),
            completions: vec![("id".into(), CompletionKind::Fixed(vec!["1".into(), "12".into(), "123".into()]))],
            shown: None,
        };
        Self { version, fixed, templates: vec![Arc::new(template)] }
    }
}

fn id_of(uri: &str) -> Option<&str> {
    let id = uri.strip_prefix("test://template/")?.strip_suffix("/data")?;
    (!id.is_empty() && !id.contains('/')).then_some(id)
}

fn one(uri: &str, mime_type: &str, data: String, binary: bool) -> ResourceOutput {
    let mime_type = Some(mime_type.to_owned());
    ResourceOutput::Contents(vec![EmbeddedResource { uri: uri.into(), mime_type, data, binary, meta: None }])
}

#[async_trait]
impl ResourceReader for Resources {
    fn resources(&self) -> Vec<Arc<ResourceSpec>> {
        self.fixed.clone()
    }

    fn templates(&self) -> Vec<Arc<ResourceTemplateSpec>> {
        self.templates.clone()
    }

    fn owns(&self, uri: &str) -> bool {
        matches!(uri, TEXT | BINARY | WATCHED) || id_of(uri).is_some()
    }

    fn announces(&self, uri: &str) -> bool {
        uri == WATCHED
    }

    async fn read(&self, _permit: &Permit, uri: &str, _exchange: &dyn Exchange) -> Result<ResourceOutput, Fault> {
        match uri {
            TEXT => Ok(one(uri, "text/plain", "This is the content of the static text resource.".into(), false)),
            BINARY => Ok(one(uri, "image/png", PNG.into(), true)),
            WATCHED => Ok(one(uri, "text/plain", format!("Version {} of the lists.", self.version), false)),
            _ => match id_of(uri) {
                Some(id) => {
                    let data = json!({"id": id, "templateTest": true, "data": format!("Data for ID: {id}")});
                    Ok(one(uri, "application/json", data.to_string(), false))
                }
                None => Err(Fault::new(FaultCode::NotFound, "unknown resource")),
            },
        }
    }
}

type Render = fn(&Arguments, &dyn Exchange) -> PromptOutput;

struct Rendered {
    spec: Arc<PromptSpec>,
    render: Render,
}

/// Every prompt; `extra` adds the one that comes and goes.
pub(crate) fn prompts(extra: bool) -> Vec<Arc<dyn Prompt>> {
    let mut table: Vec<(&str, &[&str], Render)> = vec![
        ("test_simple_prompt", &[], simple),
        ("test_prompt_with_arguments", &["arg1", "arg2"], with_arguments),
        ("test_prompt_with_embedded_resource", &["resourceUri"], with_resource),
        ("test_prompt_with_image", &[], with_image),
        ("test_input_required_result_prompt", &[], asking),
    ];
    if extra {
        table.push(("test_extra_prompt", &[], simple));
    }
    let made = table.into_iter().map(|(name, arguments, render)| {
        let arguments = arguments
            .iter()
            .map(|argument| PromptArgument {
                name: (*argument).into(),
                description: "A test argument".into(),
                required: true,
                completion: (*argument == "arg1").then_some(CompletionKind::Service),
            })
            .collect();
        let spec = PromptSpec { name: name.into(), title: name.into(), description: "A fixture".into(), arguments, shown: None };
        Arc::new(Rendered { spec: Arc::new(spec), render }) as Arc<dyn Prompt>
    });
    made.collect()
}

#[async_trait]
impl Prompt for Rendered {
    fn spec(&self) -> &Arc<PromptSpec> {
        &self.spec
    }

    async fn render(&self, _permit: &Permit, arguments: Arguments, exchange: &dyn Exchange) -> Result<PromptOutput, Fault> {
        Ok((self.render)(&arguments, exchange))
    }
}

fn messages(contents: impl IntoIterator<Item = Content>) -> PromptOutput {
    let messages = contents.into_iter().map(|content| PromptMessage { role: Role::User, content }).collect();
    PromptOutput::Messages { description: Some("A fixture".into()), messages }
}

fn given<'a>(arguments: &'a Arguments, name: &str) -> &'a str {
    arguments.0.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn simple(_: &Arguments, _: &dyn Exchange) -> PromptOutput {
    messages([Content::Text("This is a simple prompt for testing.".into())])
}

fn with_arguments(arguments: &Arguments, _: &dyn Exchange) -> PromptOutput {
    let (one, two) = (given(arguments, "arg1"), given(arguments, "arg2"));
    messages([Content::Text(format!("Prompt with arguments: arg1='{one}', arg2='{two}'"))])
}

fn with_resource(arguments: &Arguments, _: &dyn Exchange) -> PromptOutput {
    let resource = EmbeddedResource {
        uri: given(arguments, "resourceUri").to_owned(),
        mime_type: Some("text/plain".into()),
        data: "Embedded resource content for testing.".into(),
        binary: false,
        meta: None,
    };
    messages([Content::Resource(resource), Content::Text("Please process the embedded resource above.".into())])
}

fn with_image(_: &Arguments, _: &dyn Exchange) -> PromptOutput {
    let image = Content::Image { data: PNG.into(), mime_type: "image/png".into() };
    messages([image, Content::Text("Please analyze the image above.".into())])
}

fn asking(_: &Arguments, exchange: &dyn Exchange) -> PromptOutput {
    if let Some(context) = filled(exchange, "user_context", "context") {
        return messages([Content::Text(format!("Context: {context}"))]);
    }
    let question = form("What context should the prompt use?", json!({"context": {"type": "string"}}), &["context"]);
    PromptOutput::NeedsInput { requests: vec![("user_context".into(), question)], state: None }
}

/// Completes service names from a fixed list, through the same joint as the product's sources.
pub(crate) struct Completions;

#[async_trait]
impl Completer for Completions {
    async fn complete(&self, _permit: &Permit, _kind: &CompletionKind, prefix: &str) -> Result<Vec<String>, Fault> {
        Ok(["paris", "park", "party"].into_iter().filter(|value| value.starts_with(prefix)).map(str::to_owned).collect())
    }
}
