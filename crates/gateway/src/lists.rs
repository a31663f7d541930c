//! What a caller is shown. Listing and calling ask the same questions of the same policies, so what is listed is what may
//! be called; a listing itself is admitted and recorded like everything else.

use std::sync::Arc;

use portcullis_model::{Principal, PromptSpec, ResourceSpec, ResourceTemplateSpec, ToolSpec, TraceContext};

use crate::Caller;
use crate::gate::{Answer, Gateway, House};

impl Gateway {
    /// The tools this caller may call: exactly those, for listing and calling ask the same question. Where they are too
    /// many, the ones that are shown to everybody, and the two that find and call the others.
    ///
    /// # Errors
    /// When the caller asks too often, or the record of it cannot be written.
    pub fn tools(&self, caller: &Caller) -> Answer<Vec<Arc<ToolSpec>>> {
        self.list(caller, "tools/list", |house| house.listed(caller))
    }

    /// The resources this caller may read.
    ///
    /// # Errors
    /// As [`Gateway::tools`].
    pub fn resources(&self, caller: &Caller) -> Answer<Vec<Arc<ResourceSpec>>> {
        self.list(caller, "resources/list", |house| {
            let mut all = house.catalogue.resources();
            all.retain(|r| house.policies.decide_read(&caller.principal, &r.uri).allowed);
            all
        })
    }

    /// The families of resources this caller may read.
    ///
    /// # Errors
    /// As [`Gateway::tools`].
    pub fn templates(&self, caller: &Caller) -> Answer<Vec<Arc<ResourceTemplateSpec>>> {
        self.list(caller, "resources/templates/list", |house| {
            let mut all = house.catalogue.templates();
            all.retain(|t| house.policies.decide_family(&caller.principal, &t.uri_template).allowed);
            all
        })
    }

    /// The prompts this caller may use.
    ///
    /// # Errors
    /// As [`Gateway::tools`].
    pub fn prompts(&self, caller: &Caller) -> Answer<Vec<Arc<PromptSpec>>> {
        self.list(caller, "prompts/list", |house| {
            let allowed = |spec: &&Arc<PromptSpec>| house.policies.decide_prompt(&caller.principal, &spec.name).allowed;
            house.catalogue.prompt_specs().filter(allowed).cloned().collect()
        })
    }

    /// A listing walks the road too: admitted, confined to what the principal may use, released, recorded.
    fn list<T>(&self, caller: &Caller, method: &'static str, entries: impl FnOnce(&House) -> Vec<T>) -> Answer<Vec<T>> {
        let mut journey = self.begin(caller, method, "", &TraceContext::default());
        let admitted = self.admission.admit_now(&caller.principal.id, &caller.principal.tenant);
        let listed = Self::note_rate(caller, admitted).map(|_place| {
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
        house.catalogue.tool(name).is_some_and(|entry| house.visible(caller, entry.tool.spec()))
    }

    /// Whether `principal` in the place of the caller, through the product the caller came through, may call a tool, by the
    /// question listing and calling ask. No permit comes of it: a face uses it to say which scope a client lacks.
    pub fn would_allow(&self, caller: &Caller, principal: &Principal, tool: &str) -> bool {
        let house = self.house.load();
        let decide = |spec| house.policies.decide_call_within(caller.product.as_deref(), principal, spec);
        house.catalogue.tool(tool).is_some_and(|entry| decide(entry.tool.spec()).allowed)
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
        house.catalogue.reader(uri).is_some() && house.policies.decide_read(&caller.principal, uri).allowed
    }

    /// A tool's own description, whoever asks: only for checking mirrored headers against its schema.
    pub fn tool_spec(&self, name: &str) -> Option<Arc<ToolSpec>> {
        self.house.load().catalogue.tool(name).map(|entry| entry.tool.spec().clone())
    }
}
