//! The rulebook: what there is to call and what the rules say about it, put together as the gate has it, for looking at rules.
//!
//! Guards that what is not known here is said. Reads what is kept about other servers and about names, where there is a
//! state; starts nothing, asks nobody, gives out no name and writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use portcullis_gateway::{Catalogue, Inquiry, Prospect, Wish};
use portcullis_model::{Clock, SystemClock, ToolSpec};
use portcullis_policy::{Policies, Products};
use portcullis_ports::Extension;
use portcullis_tools::Sources;
use serde_json::{Map, Value};

use crate::extensions::Extensions;
use crate::furnish::furnished;
use crate::house::{all_sources, budget, load_policies};
use crate::names::{NameBook, Round};
use crate::rules::Rules;
use crate::settings::Config;

/// The tools, the rules and the products, to be asked about.
pub struct Rulebook {
    /// Every tool, by name.
    pub tools: Vec<Arc<ToolSpec>>,
    /// What is not known here, in words.
    pub notes: Vec<String>,
    inquiry: Inquiry,
    /// Names of tools, with whose they are.
    names: BTreeMap<String, String>,
}

impl Rulebook {
    /// Reads `files` and checks them against everything the configuration offers and people have accepted.
    pub async fn open(config: &Config, files: &[PathBuf]) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let secrets = crate::outside::secrets(config, crate::callers::expected(config).as_ref())?;
        let extensions = Extensions::open(config, &secrets)?;
        let sources = Arc::new(Sources::new(all_sources(config, None, &secrets, &extensions)?)?);
        let known = known(config, &sources, &extensions, &clock).await?;
        let held = known.held();
        let Known { catalogue, names, mut notes, upstreams } = known;
        if upstreams {
            notes.push(
                "tools of upstreams are shown as they were accepted; what one does not list any more is not there".to_owned(),
            );
        }
        notes.extend(elsewhere(config));
        let config = Config { policies: files.to_vec(), ..config.clone() };
        let Rules { policies, products, .. } = load_policies(&config, &catalogue, &extensions, &held, 1)?;
        let tools = catalogue.tool_specs().cloned().collect();
        Ok(Self { tools, notes, inquiry: Inquiry::new(catalogue, policies, products, budget(&config)), names })
    }

    /// The rules.
    pub fn policies(&self) -> &Policies {
        self.inquiry.policies()
    }

    /// What can be asked, with its answer.
    pub fn ask(&self, wish: &Wish<'_>) -> Prospect {
        self.inquiry.ask(wish)
    }

    /// How far back a call with these arguments reads, where its tool can tell.
    pub fn reach_back(&self, tool: &str, arguments: &Map<String, Value>) -> Option<Duration> {
        self.inquiry.reach_back(tool, arguments)
    }

    /// The products.
    pub fn products(&self) -> &Products {
        self.inquiry.products()
    }

    /// The name of a product that is there.
    pub fn product<'a>(&self, name: Option<&'a str>) -> anyhow::Result<Option<&'a str>> {
        let Some(wanted) = name else { return Ok(None) };
        let names: Vec<&str> = self.products().all().map(|product| &**product.name()).collect();
        if names.is_empty() {
            bail!("there is no product '{wanted}': the configuration has none");
        }
        if !names.contains(&wanted) {
            bail!("there is no product '{wanted}'; products are {}", names.join(", "));
        }
        Ok(name)
    }

    /// The tool of that name.
    pub fn tool(&self, name: &str) -> anyhow::Result<&Arc<ToolSpec>> {
        let found = self.tools.iter().find(|t| t.name.as_str() == name);
        found.with_context(|| {
            if let Some(owner) = self.names.get(name) {
                return format!(
                    "'{name}' is the name of a tool of {owner}, which is not there now: what it would take is not known, and \
                     rules about it are checked when it is there"
                );
            }
            let names: Vec<&str> = self.tools.iter().map(|t| t.name.as_str()).collect();
            let notes: Vec<String> = self.notes.iter().map(|note| format!("\nnote: {note}")).collect();
            format!("there is no tool '{name}'; tools are {}{}", names.join(", "), notes.concat())
        })
    }
}

/// What there is to call as far as it is known where no server runs: what a start would find before it asks anybody.
pub struct Known {
    /// Everything, with what people accepted of upstreams.
    pub catalogue: Catalogue,
    /// Names of tools, with whose they are.
    pub names: BTreeMap<String, String>,
    /// What is not known here, in words.
    pub notes: Vec<String>,
    /// Whether tools of upstreams are among it.
    pub upstreams: bool,
}

impl Known {
    /// Every name of a tool that is held by somebody, in use or not.
    pub fn held(&self) -> BTreeSet<String> {
        self.names.keys().cloned().collect()
    }
}

/// What there is to call, from the configuration and from what is kept.
pub async fn known(
    config: &Config,
    sources: &Arc<Sources>,
    extensions: &Extensions,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Known> {
    let mut notes = Vec::new();
    let mut round = remembered(config, extensions, clock, &mut notes).await;
    let catalogue = furnished(config, sources, extensions, clock, &mut round)?;
    let names = round.tools();
    let (missing, upstreams) = unknown(extensions, &names, &catalogue.tool_names());
    notes.extend(missing);
    Ok(Known { catalogue, names, notes, upstreams })
}

/// A round of names over what is kept, and in the upstreams what people accepted of them.
async fn remembered(config: &Config, extensions: &Extensions, clock: &Arc<dyn Clock>, notes: &mut Vec<String>) -> Round {
    match recalled(config, extensions, clock).await {
        Ok(round) => round,
        Err(error) => {
            notes.push(format!(
                "what was accepted of upstreams, and whose each name is, could not be read ({error:#}): tools of upstreams are \
                 missing here, and names of extensions may differ from those of the server"
            ));
            Round::unwritten(clock.now())
        }
    }
}

async fn recalled(config: &Config, extensions: &Extensions, clock: &Arc<dyn Clock>) -> anyhow::Result<Round> {
    if !crate::look::state_file(config).is_file() {
        return Ok(Round::unwritten(clock.now()));
    }
    let store = crate::look::state(config).await?;
    extensions.recall(store.clone(), clock).await?;
    let names = NameBook::new(store, clock.clone());
    names.refresh().await?;
    Ok(names.round())
}

/// Upstreams of which no tool is known, and what that means for an answer; and whether tools of others are known.
fn unknown(extensions: &Extensions, names: &BTreeMap<String, String>, there: &BTreeSet<String>) -> (Vec<String>, bool) {
    let mut notes = Vec::new();
    let mut known = false;
    for upstream in extensions.upstreams() {
        let owners = upstream.owners();
        let offers = names.iter().any(|(name, owner)| owners.contains(owner) && there.contains(name));
        known |= offers;
        if !offers {
            let patterns: Vec<String> = upstream.expected_tools().into_iter().collect();
            notes.push(format!(
                "no tool of {} is known here, because none was accepted: a rule that names one ({}) is not tried, and is checked \
                 when the tool is there",
                upstream.name(),
                patterns.join(", ")
            ));
        }
    }
    (notes, known)
}

/// Who can still refuse what is allowed here.
fn elsewhere(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    if config.external_policy.is_some() {
        notes.push("the external policy is asked about each call besides, and can refuse what is allowed here".to_owned());
    }
    if config.profiles.mode == portcullis_config::ProfileMode::Enforce {
        notes.push("behaviour profiles are enforced besides: a call unlike its principal's profile is refused".to_owned());
    }
    notes
}
