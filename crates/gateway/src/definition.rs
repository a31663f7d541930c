//! What is called, read or rendered, as a person's yes is bound to it: what it says of itself and whose it is. Guards that a
//! yes does not pass to something else that has taken the name in the meantime.

use portcullis_model::ToolSpec;
use portcullis_ports::{Prompt, ResourceReader, Tool};

use crate::approvals::canonical;

/// What something is.
#[derive(Clone, Copy)]
pub(crate) enum Definition<'a> {
    /// A tool.
    Tool(&'a dyn Tool),
    /// A prompt.
    Prompt(&'a dyn Prompt),
    /// Whoever reads a resource.
    Reader(&'a dyn ResourceReader),
    /// The house alone: values of an argument.
    House,
}

impl Definition<'_> {
    /// Whose it is.
    pub(crate) fn origin(self) -> String {
        match self {
            Self::Tool(tool) => tool.origin(),
            Self::Prompt(prompt) => prompt.origin(),
            Self::Reader(reader) => reader.origin(),
            Self::House => "portcullis".to_owned(),
        }
    }

    /// BLAKE3 over all of it, hexadecimal.
    pub(crate) fn digest(self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("portcullis 2026-11-29 definition v1");
        let mut add = |part: &str| {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        };
        add(&self.origin());
        match self {
            Self::Tool(tool) => parts_of_tool(tool.spec(), add),
            Self::Prompt(prompt) => {
                let spec = prompt.spec();
                add(&spec.name);
                add(&spec.title);
                add(&spec.description);
                for argument in &spec.arguments {
                    add(&argument.name);
                    add(&argument.description);
                }
            }
            Self::Reader(_) | Self::House => {}
        }
        hasher.finalize().to_hex().to_string()
    }
}

fn parts_of_tool(spec: &ToolSpec, mut add: impl FnMut(&str)) {
    add(spec.name.as_str());
    add(&spec.title);
    add(&spec.description);
    add(spec.risk.as_str());
    add(spec.category.as_ref().map_or("", |category| &*category.0));
    add(&canonical(&spec.input_schema));
    add(&spec.shown.as_ref().map(|shown| canonical(shown)).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use portcullis_model::{Fault, RiskClass, ToolName, WriteCategory};
    use portcullis_policy::Permit;
    use portcullis_ports::{Arguments, Exchange, Outcome};
    use serde_json::json;

    use super::*;

    struct Named(Arc<ToolSpec>, &'static str);

    #[async_trait]
    impl Tool for Named {
        fn origin(&self) -> String {
            self.1.to_owned()
        }

        fn spec(&self) -> &Arc<ToolSpec> {
            &self.0
        }

        async fn run(&self, _: &Permit, _: Arguments, _: &dyn Exchange) -> Result<Outcome, Fault> {
            Err(Fault::invalid("not run"))
        }
    }

    fn digest(origin: &'static str, change: impl FnOnce(&mut ToolSpec)) -> String {
        let mut spec = ToolSpec {
            name: ToolName::new("wipe").unwrap(),
            title: "Wipe".into(),
            description: "wipes".into(),
            risk: RiskClass::Destructive,
            idempotent: false,
            open_world: false,
            category: Some(WriteCategory("disks".into())),
            input_schema: Arc::new(json!({"type": "object", "properties": {"disk": {"type": "string"}}})),
            output_schema: None,
            completions: vec![],
            shown: None,
        };
        change(&mut spec);
        Definition::Tool(&Named(Arc::new(spec), origin)).digest()
    }

    #[test]
    fn whatever_changes_about_a_tool_changes_its_digest() {
        let usual = digest("upstream:a", |_| ());
        assert_eq!(usual, digest("upstream:a", |_| ()));
        let reordered = digest("upstream:a", |spec| {
            spec.input_schema = Arc::new(json!({"properties": {"disk": {"type": "string"}}, "type": "object"}));
        });
        assert_eq!(usual, reordered, "the order of members does not matter");
        for other in [
            digest("upstream:b", |_| ()),
            digest("upstream:a", |spec| spec.risk = RiskClass::Write),
            digest("upstream:a", |spec| spec.category = None),
            digest("upstream:a", |spec| spec.description = "wipes everything".into()),
            digest("upstream:a", |spec| spec.input_schema = Arc::new(json!({"type": "object"}))),
            digest("upstream:a", |spec| spec.shown = Some(Arc::new(json!({"name": "wipe"})))),
        ] {
            assert_ne!(usual, other);
        }
    }
}
