//! What is looked up and not called: resources, families of them, prompts, as rules and products see them. Must not decide
//! anything.

/// What kind of thing is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LookupKind {
    /// A resource, by its URI.
    Resource,
    /// A family of resources, by its URI template: its listing, and completions of its variables.
    Family,
    /// A prompt, by its name; its completions too.
    Prompt,
}

/// One thing that is looked up.
#[derive(Debug, Clone, Copy)]
pub struct Lookup<'a> {
    /// What kind it is.
    pub kind: LookupKind,
    /// URI, URI template or name.
    pub name: &'a str,
    /// Whether it is the house's own, and of no extension.
    pub own: bool,
    /// Tools whose work it shows, or that it tells to call.
    pub tools: &'a [String],
}

impl<'a> Lookup<'a> {
    /// A resource of the house with no tool behind it.
    pub fn resource(uri: &'a str) -> Self {
        Self { kind: LookupKind::Resource, name: uri, own: true, tools: &[] }
    }

    /// A family of such resources.
    pub fn family(uri_template: &'a str) -> Self {
        Self { kind: LookupKind::Family, name: uri_template, own: true, tools: &[] }
    }

    /// A prompt of the house that names no tool.
    pub fn prompt(name: &'a str) -> Self {
        Self { kind: LookupKind::Prompt, name, own: true, tools: &[] }
    }

    /// What a permit for it says it is for.
    pub(crate) fn purpose(&self) -> String {
        let kind = if self.kind == LookupKind::Prompt { "prompt" } else { "resource" };
        format!("{kind}:{}", self.name)
    }
}
