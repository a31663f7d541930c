//! What exists. Immutable; a change installs a new one. Whether a principal may see an entry is the gate's question.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_guard::{ArgumentSchema, Sanitizer, SchemaFault};
use portcullis_model::{InvalidName, ResourceSpec, ResourceTemplateSpec, ToolSpec};
use portcullis_policy::is_member;
use portcullis_ports::{Completer, HOUSE, Prompt, ResourceReader, Taken, Tool};

use crate::guide::{Exposure, Guide, cost};

/// A registration that cannot be accepted.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Two things carry one name.
    #[error("{kind} '{name}' is registered twice")]
    Duplicate {
        /// `tool` or `prompt`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A tool's schema is not usable.
    #[error(transparent)]
    Schema(#[from] SchemaFault),
    /// A name that cannot be one.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

pub(crate) struct ToolEntry {
    pub tool: Arc<dyn Tool>,
    pub schema: ArgumentSchema,
    /// Estimated tokens of its entry in a listing.
    pub tokens: usize,
    /// Its place among the tools of the house, in the order they were registered; `None` for what came from outside.
    pub own: Option<usize>,
}

/// Everything that can be called, read or rendered.
#[derive(Default)]
pub struct Catalogue {
    tools: BTreeMap<String, ToolEntry>,
    prompts: BTreeMap<Arc<str>, Arc<dyn Prompt>>,
    readers: Vec<Arc<dyn ResourceReader>>,
    completer: Option<Arc<dyn Completer>>,
    instructions: Arc<str>,
    guide: Option<Guide>,
    sanitizer: Sanitizer,
}

impl std::fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalogue")
            .field("tools", &self.tools.keys())
            .field("prompts", &self.prompts.keys())
            .finish_non_exhaustive()
    }
}

/// Collects registrations.
#[derive(Default, Debug)]
pub struct CatalogueBuilder {
    catalogue: Catalogue,
    sanitizer: Sanitizer,
}

impl CatalogueBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the rules for text in arguments: of the tools registered after it, of prompts, of resources and completions.
    #[must_use]
    pub fn sanitizer(mut self, sanitizer: Sanitizer) -> Self {
        self.catalogue.sanitizer = sanitizer.clone();
        self.sanitizer = sanitizer;
        self
    }

    /// Registers a tool.
    ///
    /// # Errors
    /// When the name is taken or the input schema is not usable.
    pub fn tool(mut self, tool: Arc<dyn Tool>) -> Result<Self, CatalogueError> {
        let own = self.catalogue.tools.len();
        self.insert(tool, Some(own))?;
        Ok(self)
    }

    /// Says which tools a listing shows, and registers the tools that find and call the others.
    ///
    /// # Errors
    /// When their names are taken.
    pub fn exposure(mut self, exposure: Exposure) -> Result<Self, CatalogueError> {
        if exposure == Exposure::All {
            return Ok(self);
        }
        let guide = Guide::new(exposure)?;
        for tool in guide.tools() {
            self = self.tool(tool)?;
        }
        self.catalogue.guide = Some(guide);
        Ok(self)
    }

    /// Registers a tool and keeps the builder when it cannot be accepted: for what comes from outside.
    ///
    /// # Errors
    /// When the name is taken or the input schema is not usable; nothing is registered then.
    pub fn add_tool(&mut self, tool: Arc<dyn Tool>) -> Result<(), CatalogueError> {
        self.insert(tool, None)
    }

    fn insert(&mut self, tool: Arc<dyn Tool>, own: Option<usize>) -> Result<(), CatalogueError> {
        let spec = tool.spec().clone();
        let name = spec.name.as_str().to_owned();
        if self.catalogue.tools.contains_key(&name) {
            return Err(CatalogueError::Duplicate { kind: "tool", name });
        }
        let schema = ArgumentSchema::compile_with(&name, &spec.input_schema, self.sanitizer.clone())?;
        let tokens = cost(&spec);
        self.catalogue.tools.insert(name, ToolEntry { tool, schema, tokens, own });
        Ok(())
    }

    /// Registers a prompt.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn prompt(mut self, prompt: Arc<dyn Prompt>) -> Result<Self, CatalogueError> {
        self.add_prompt(prompt)?;
        Ok(self)
    }

    /// Registers a prompt and keeps the builder when it cannot be accepted.
    ///
    /// # Errors
    /// When the name is taken; nothing is registered then.
    pub fn add_prompt(&mut self, prompt: Arc<dyn Prompt>) -> Result<(), CatalogueError> {
        let name = prompt.spec().name.clone();
        if self.catalogue.prompts.contains_key(&name) {
            return Err(CatalogueError::Duplicate { kind: "prompt", name: name.to_string() });
        }
        self.catalogue.prompts.insert(name, prompt);
        Ok(())
    }

    /// The names that are taken so far.
    pub fn taken(&self) -> Taken {
        Taken {
            tools: self.catalogue.tools.keys().cloned().collect(),
            prompts: self.catalogue.prompts.keys().map(ToString::to_string).collect(),
            addresses: {
                let fixed = self.catalogue.resources().into_iter().map(|resource| resource.uri.to_string());
                fixed.chain(self.catalogue.templates().into_iter().map(|family| family.uri_template.to_string())).collect()
            },
            ..Taken::default()
        }
    }

    /// Registers resources.
    #[must_use]
    pub fn resources(mut self, reader: Arc<dyn ResourceReader>) -> Self {
        self.add_resources(reader);
        self
    }

    /// Registers resources in place.
    pub fn add_resources(&mut self, reader: Arc<dyn ResourceReader>) {
        self.catalogue.readers.push(reader);
    }

    /// Sets where completion values come from.
    #[must_use]
    pub fn completer(mut self, completer: Arc<dyn Completer>) -> Self {
        self.catalogue.completer = Some(completer);
        self
    }

    /// Sets the instructions for a model.
    #[must_use]
    pub fn instructions(mut self, text: impl Into<Arc<str>>) -> Self {
        self.catalogue.instructions = text.into();
        self
    }

    /// The finished catalogue.
    pub fn build(mut self) -> Catalogue {
        let Catalogue { tools, guide, .. } = &mut self.catalogue;
        if let Some(guide) = guide {
            guide.learn(tools.values().map(|entry| entry.tool.spec()));
        }
        self.catalogue
    }
}

impl Catalogue {
    /// The instructions for a model.
    pub fn instructions(&self) -> &Arc<str> {
        &self.instructions
    }

    /// Names of all tools, for the policy vocabulary.
    pub fn tool_names(&self) -> BTreeSet<String> {
        self.tools.keys().cloned().collect()
    }

    /// Names of all prompts, for the policy vocabulary.
    pub fn prompt_names(&self) -> BTreeSet<String> {
        self.prompts.keys().map(ToString::to_string).collect()
    }

    /// Addresses and templates of the house's own resources, for the policy vocabulary.
    pub fn own_addresses(&self) -> BTreeSet<String> {
        let own = || self.readers.iter().filter(|reader| reader.origin() == HOUSE);
        let fixed = own().flat_map(|reader| reader.resources()).map(|resource| resource.uri.to_string());
        let families = own().flat_map(|reader| reader.templates()).map(|family| family.uri_template.to_string());
        fixed.chain(families).collect()
    }

    pub(crate) fn tool(&self, name: &str) -> Option<&ToolEntry> {
        self.tools.get(name)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &ToolEntry> {
        self.tools.values()
    }

    pub(crate) fn guide(&self) -> Option<&Guide> {
        self.guide.as_ref()
    }

    /// Every tool, by name.
    pub fn tool_specs(&self) -> impl Iterator<Item = &Arc<ToolSpec>> {
        self.tools.values().map(|entry| entry.tool.spec())
    }

    pub(crate) fn prompt(&self, name: &str) -> Option<&Arc<dyn Prompt>> {
        self.prompts.get(name)
    }

    /// The rules for text from callers that no schema speaks about.
    pub(crate) fn sanitizer(&self) -> &Sanitizer {
        &self.sanitizer
    }

    pub(crate) fn reader(&self, uri: &str) -> Option<&Arc<dyn ResourceReader>> {
        // A fixed address is its maker's, whosever template would fit it too.
        self.readers.iter().find(|r| r.keeps(uri)).or_else(|| self.readers.iter().find(|r| r.owns(uri)))
    }

    /// Whether somebody has this fixed address, to the letter.
    pub(crate) fn keeps(&self, uri: &str) -> bool {
        self.readers.iter().any(|r| r.keeps(uri))
    }

    /// Everybody who has resources.
    pub(crate) fn readers(&self) -> impl Iterator<Item = &Arc<dyn ResourceReader>> {
        self.readers.iter()
    }

    /// Every prompt, by name.
    pub(crate) fn prompts(&self) -> impl Iterator<Item = &Arc<dyn Prompt>> {
        self.prompts.values()
    }

    pub(crate) fn reader_of_template(&self, template: &str) -> Option<&Arc<dyn ResourceReader>> {
        self.readers.iter().find(|r| r.templates().iter().any(|t| &*t.uri_template == template))
    }

    pub(crate) fn resources(&self) -> Vec<Arc<ResourceSpec>> {
        self.readers.iter().flat_map(|r| r.resources()).collect()
    }

    pub(crate) fn templates(&self) -> Vec<Arc<ResourceTemplateSpec>> {
        self.readers.iter().flat_map(|r| r.templates()).collect()
    }

    /// The family a resource belongs to: its template, or its own fixed address. Bounded in number, whatever is asked for.
    pub(crate) fn family(&self, uri: &str) -> String {
        if let Some(fixed) = self.resources().into_iter().find(|resource| &*resource.uri == uri) {
            return fixed.uri.to_string();
        }
        let template = self.templates().into_iter().find(|template| is_member(&template.uri_template, uri));
        template.map_or_else(|| "*".to_owned(), |template| template.uri_template.to_string())
    }

    pub(crate) fn completer(&self) -> Option<&Arc<dyn Completer>> {
        self.completer.as_ref()
    }

    /// Whether there are prompts at all.
    pub fn has_prompts(&self) -> bool {
        !self.prompts.is_empty()
    }

    /// Whether there is a resource whose changes are announced.
    pub(crate) fn announces(&self) -> bool {
        self.readers.iter().any(|reader| reader.announces_any())
    }

    /// Whether there are resources at all.
    pub fn has_resources(&self) -> bool {
        !self.readers.is_empty()
    }
}
