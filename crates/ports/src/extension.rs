//! Whatever brings tools, prompts, resources or sources into the house that this repository does not hold: plugins,
//! other MCP servers, described APIs. All of it ends in the same traits and walks the same road.
//!
//! Guards that offering is cheap and that standing work has a charter. An extension decides nothing about callers, writes
//! no audit record itself, and never keeps a listing waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use portcullis_policy::{Charter, CharterGrant};

use crate::{Denied, Names, Prefixes, Prompt, ResourceReader, Source, Taken, Tool};

/// What an extension has to offer at the moment.
#[derive(Clone, Default)]
pub struct Offer {
    /// Tools, with names that were free.
    pub tools: Vec<Arc<dyn Tool>>,
    /// Prompts, with names that were free.
    pub prompts: Vec<Arc<dyn Prompt>>,
    /// Resources.
    pub resources: Vec<Arc<dyn ResourceReader>>,
    /// Sources that answer the tools of the house.
    pub sources: Vec<Arc<dyn Source>>,
    /// Names that stay its own while what had them is not offered: nobody else's tool may answer to them.
    pub kept: Names,
    /// Whose the offered tools are, by their names, where they are not all the extension's own.
    pub owners: BTreeMap<String, Arc<str>>,
    /// What did not get the name it would have had.
    pub denied: Vec<Denied>,
}

/// How a part of an extension stands, for whoever runs the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// In use, and well.
    On,
    /// Not in use, on purpose.
    Off,
    /// In use, and somebody should look at it; or kept out until somebody does.
    Attention,
    /// Not working.
    Broken,
}

/// One line about an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What it is about, such as `plugin datadog`.
    pub name: String,
    /// How it stands.
    pub standing: Standing,
    /// In words, with the mend where there is one.
    pub detail: String,
}

/// Something that happened to an extension outside of any call, for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// What happened, a stable name such as `plugin.loaded` or `upstream.quarantined`.
    pub what: &'static str,
    /// To whom: the plugin, server or tool.
    pub subject: String,
    /// Whether something was let in (`true`) or kept out (`false`).
    pub admitted: bool,
    /// In words: digests, reasons. Never a secret.
    pub note: String,
}

/// Who writes down what happened.
pub trait Witness: Send + Sync {
    /// Writes it into the audit log.
    ///
    /// # Errors
    /// Why it could not be written; what was about to be let in must then stay out.
    fn record(&self, happening: &Happening) -> Result<(), String>;
}

/// A room whose offer comes from outside of this repository and may change while the server runs.
#[async_trait]
pub trait Extension: Send + Sync {
    /// Its name, such as `upstream grafana`; unique in the house.
    fn name(&self) -> &str;

    /// The names under which it may hold names of tools and prompts, its own first.
    fn owners(&self) -> Vec<String> {
        vec![self.name().to_owned()]
    }

    /// Who goes by a word that stands before names of it; see [`Prefixes`].
    fn bearers(&self) -> Vec<String> {
        self.owners()
    }

    /// What it may do on its own, beside any call.
    fn charter(&self) -> CharterGrant;

    /// Begins its standing work. Called once, before the first offer is used by a caller.
    fn start(&self, charter: Charter, witness: Arc<dyn Witness>);

    /// What it offers now. Returns at once, whatever state the other side is in.
    fn offer(&self, taken: &Taken) -> Offer;

    /// Is told every name of a tool in the house and whose it is, and who goes by which prefix, for whoever looks for
    /// imitations.
    fn learn(&self, names: &BTreeMap<String, String>, prefixes: &Prefixes) {
        let _ = (names, prefixes);
    }

    /// Counts the changes of the offer.
    fn revision(&self) -> u64;

    /// Waits until the offer is another one than at revision `seen`, and gives its revision.
    async fn changed(&self, seen: u64) -> u64;

    /// Waits for resources of it that changed while somebody watched them, and gives their addresses. One caller at a time.
    async fn updated(&self) -> BTreeSet<String> {
        std::future::pending().await
    }

    /// How it stands, for the report of the controls.
    fn report(&self) -> Vec<Report>;

    /// Ends its standing work and everything it started.
    async fn stop(&self);
}
