//! What a caller is shown. Listing and calling ask the same questions of the same policies, so what is listed is what may
//! be called; a listing itself is admitted and recorded like everything else.

use std::sync::Arc;

use portcullis_model::{Principal, PromptSpec, ResourceSpec, ResourceTemplateSpec, ToolSpec, TraceContext};
use portcullis_ports::{Prompt, ResourceReader};

use crate::Caller;
use crate::gate::{Answer, Gateway, House};
use crate::lookups::CompletionReference;
use crate::reach::Function;

/// What somebody wants to use, by its name.
#[derive(Debug, Clone, Copy)]
pub enum Sought<'a> {
    /// A tool.
    Tool(&'a str),
    /// A resource, by its address.
    Resource(&'a str),
    /// A prompt.
    Prompt(&'a str),
    /// Completions of an argument of this name.
    Completion(CompletionReference<'a>, &'a str),
}

impl Gateway {
    /// The tools this caller may call: exactly those, for listing and calling ask the same question. Where they are too
    /// many, the ones that are shown to everybody, and the two that find and call the others.
    ///
    /// # Errors
    /// When the caller asks too often, or the record of it cannot be written.
    pub async fn tools(&self, caller: &Caller) -> Answer<Vec<Arc<ToolSpec>>> {
        self.list(caller, "tools/list", |house| house.listed(caller)).await
    }

    /// The resources this caller may read.
    ///
    /// # Errors
    /// As [`Gateway::tools`].
    pub async fn resources(&self, caller: &Caller) -> Answer<Vec<Arc<ResourceSpec>>> {
        self.list(caller, "resources/list", |house| {
            let of = |reader: &Arc<dyn ResourceReader>| {
                let mut all = reader.resources();
                all.retain(|spec| house.may_use(caller, Function::Resource(&**reader, &spec.uri)).is_ok());
                all
            };
            house.catalogue.readers().flat_map(of).collect()
        })
        .await
    }

    /// The families of resources this caller may read.
    ///
    /// # Errors
    /// As [`Gateway::tools`].
    pub async fn templates(&self, caller: &Caller) -> Answer<Vec<Arc<ResourceTemplateSpec>>> {
        self.list(caller, "resources/templates/list", |house| {
            let of = |reader: &Arc<dyn ResourceReader>| {
                let mut all = reader.templates();
                all.retain(|spec| house.may_use(caller, Function::Family(&**reader, &spec.uri_template)).is_ok());
                all
            };
            house.catalogue.readers().flat_map(of).collect()
        })
        .await
    }

    /// The prompts this caller may use.
    ///
    /// # Errors
    /// As [`Gateway::tools`].
    pub async fn prompts(&self, caller: &Caller) -> Answer<Vec<Arc<PromptSpec>>> {
        self.list(caller, "prompts/list", |house| {
            let allowed = |prompt: &&Arc<dyn Prompt>| house.may_use(caller, Function::Prompt(&***prompt)).is_ok();
            house.catalogue.prompts().filter(allowed).map(|prompt| prompt.spec().clone()).collect()
        })
        .await
    }

    /// A listing walks the road too: admitted, confined to what the principal may use, released, recorded.
    async fn list<T>(
        &self,
        caller: &Caller,
        method: &'static str,
        entries: impl FnOnce(&House) -> Vec<T> + Send,
    ) -> Answer<Vec<T>> {
        let mut journey = self.begin(caller, method, "", &TraceContext::default());
        let admitted = self.admission.admit_now(&caller.principal.id, &caller.principal.tenant).await;
        let listed = Self::note_admitted(caller, &mut journey, admitted).map(|_place| {
            journey.note(|end| {
                end.allowed = true;
                end.rule = Arc::from("own-catalogue");
            });
            self.releaser.listing(entries(&self.house.load()))
        });
        self.end(caller, journey, listed)
    }

    /// Whether this caller may call `name` (for matching mirrored headers, which call nothing themselves).
    pub fn may_call(&self, caller: &Caller, name: &str) -> bool {
        let house = self.house.load();
        house.catalogue.tool(name).is_some_and(|entry| house.visible(caller, entry))
    }

    /// Whether `principal` in the place of the caller, through the product the caller came through, may use something, by the
    /// question listing and using ask. No permit comes of it: a face uses it to say which scope a client lacks.
    pub fn would_allow(&self, caller: &Caller, principal: &Principal, sought: Sought<'_>) -> bool {
        let house = self.house.load();
        let other = || Caller { principal: Arc::new(principal.clone()), ..caller.clone() };
        match sought {
            Sought::Tool(name) => {
                house.catalogue.tool(name).is_some_and(|entry| house.permitted_to(principal, caller, entry).is_ok())
            }
            Sought::Resource(uri) => {
                let may = |reader: &Arc<dyn ResourceReader>| house.may_use(&other(), Function::Resource(&**reader, uri)).is_ok();
                house.reader_of(uri).is_ok_and(may)
            }
            Sought::Prompt(name) => {
                let may = |prompt: &Arc<dyn Prompt>| house.may_use(&other(), Function::Prompt(&**prompt)).is_ok();
                house.catalogue.prompt(name).is_some_and(may)
            }
            Sought::Completion(reference, argument) => house.may_complete(&other(), reference, argument),
        }
    }

    /// Whether any resource can be watched: where none can, subscriptions are not offered.
    pub fn offers_watching(&self) -> bool {
        self.house.load().catalogue.announces()
    }

    /// Whether this caller may read `uri` and is told when it changes.
    pub fn may_watch(&self, caller: &Caller, uri: &str) -> bool {
        let announced = self.house.load().catalogue.reader(uri).is_some_and(|reader| reader.announces(uri));
        announced && self.may_read(caller, uri)
    }

    /// Whether this caller may read `uri` (for subscriptions, which read nothing themselves).
    pub fn may_read(&self, caller: &Caller, uri: &str) -> bool {
        let house = self.house.load();
        house.reader_of(uri).is_ok_and(|reader| house.may_use(caller, Function::Resource(&**reader, uri)).is_ok())
    }

    /// A tool's own description, whoever asks: only for checking mirrored headers against its schema, and for reading arguments
    /// an operator types by it.
    pub fn tool_spec(&self, name: &str) -> Option<Arc<ToolSpec>> {
        self.house.load().catalogue.tool(name).map(|entry| entry.tool.spec().clone())
    }
}
