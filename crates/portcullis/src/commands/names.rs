//! `portcullis names`: whose each name is, and an operator's word that it is somebody else's. A decision is recorded before
//! it takes effect, and running servers follow it within a second. Looking changes nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use portcullis_audit::{AuditEvent, Decision, EventKind};
use portcullis_identity::{local_principal, local_user};
use portcullis_model::{Clock, SystemClock, ToolName, format_timestamp};
use portcullis_plugins::PluginStore;
use portcullis_ports::{NameKind, THIS_HOUSE};
use portcullis_state::Store;
use portcullis_upstream::review::visible;
use serde_json::json;

use crate::cli::{NameArgs, NameKindArg, NamesAction};
use crate::house::Foundations;
use crate::look;
use crate::names::{Entry, Name, NameBook};
use crate::settings::Config;
use crate::terminal::{paint, say, say_json, table};

/// Runs `portcullis names …`.
pub async fn run(config: &Config, action: NamesAction) -> anyhow::Result<()> {
    if let NamesAction::List { all, json } = action {
        list(&read(look::state(config).await?).await?, all, json);
        return Ok(());
    }
    let foundations = Foundations::open(config).await?;
    let outcome = act(&foundations, config, action).await;
    foundations.close().await;
    outcome
}

async fn act(foundations: &Foundations, config: &Config, action: NamesAction) -> anyhow::Result<()> {
    let book = read(foundations.store()).await?;
    let desk = Desk { foundations, book: &book, recorded: Mutex::default() };
    match action {
        NamesAction::List { all, json } => {
            list(&book, all, json);
            Ok(())
        }
        NamesAction::Move { name, to } => desk.give(config, &name, &to).await,
        NamesAction::Release(name) => desk.release(&name).await,
        NamesAction::Split(name) => desk.together(&name, false).await,
        NamesAction::Join(name) => desk.together(&name, true).await,
    }
}

async fn read(store: Arc<dyn Store>) -> anyhow::Result<NameBook> {
    let book = NameBook::new(store, Arc::new(SystemClock));
    book.refresh().await?;
    Ok(book)
}

fn list(book: &NameBook, all: bool, as_json: bool) {
    let entries = book.entries().into_iter().filter(|(_, entry)| all || entry.owner.as_deref() != Some(THIS_HOUSE));
    let state = |entry: &Entry| match entry {
        Entry { owner: None, .. } => "released",
        Entry { apart: true, .. } => "apart",
        Entry { used: true, .. } => "used",
        _ => "kept",
    };
    if as_json {
        let entries = entries.map(|((kind, name), entry)| {
            json!({"kind": kind.as_str(), "name": name, "owner": entry.owner, "since": format_timestamp(entry.since),
                "state": state(&entry), "without": entry.denied})
        });
        say_json(&json!(entries.collect::<Vec<_>>()));
        return;
    }
    let rows: Vec<_> = entries
        .map(|((kind, name), entry)| {
            let owner = entry.owner.clone().unwrap_or_default();
            let without = entry.denied.iter().map(|who| visible(who)).collect::<Vec<_>>().join(", ");
            let without = if without.is_empty() { without } else { paint::warn(&without) };
            let since = format_timestamp(entry.since);
            [kind.as_str().to_owned(), visible(&name), owner, state(&entry).to_owned(), since, without]
        })
        .collect();
    if rows.is_empty() {
        say("No name is that of an extension yet.");
    } else {
        say(table(["kind", "name", "owner", "state", "since", "went without it"], rows));
    }
}

/// Everybody who may be given a name.
pub(super) fn owners(config: &Config) -> anyhow::Result<BTreeSet<String>> {
    let upstreams = config.upstreams.iter().flat_map(|upstream| [Some(upstream.name.clone()), upstream.kind.clone()]);
    let upstreams = upstreams.flatten().map(|name| format!("upstream {name}"));
    let apis = config.apis.iter().map(|api| format!("api {}", api.name));
    let installed = PluginStore::at(config.data.join("plugins")).list().context("reading which plugins are installed")?;
    let plugins = installed.iter().map(|plugin| format!("plugin {}", plugin.name));
    Ok(upstreams.chain(apis).chain(plugins).collect())
}

/// What is recorded about a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ruling {
    method: &'static str,
    /// About whom it is.
    owner: String,
    note: String,
}

/// Where a decision is made.
struct Desk<'f> {
    foundations: &'f Foundations,
    book: &'f NameBook,
    /// What was recorded of it last.
    recorded: Mutex<Option<Ruling>>,
}

impl Desk<'_> {
    fn named(args: &NameArgs) -> Name {
        let kind = match args.kind {
            NameKindArg::Tool => NameKind::Tool,
            NameKindArg::Prompt => NameKind::Prompt,
            NameKindArg::Address => NameKind::Address,
        };
        (kind, args.name.clone())
    }

    /// Records a decision, which is not made when that fails. However often it is tried, the same is recorded once.
    fn record(&self, method: &'static str, name: &Name, owner: &str, note: String) -> anyhow::Result<()> {
        let ruling = Ruling { method, owner: owner.to_owned(), note };
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        if recorded.as_ref() != Some(&ruling) {
            self.append(&ruling, name, Decision::Allow).context("the decision cannot be recorded, so it is not made")?;
            *recorded = Some(ruling);
        }
        Ok(())
    }

    fn append(&self, ruling: &Ruling, (kind, name): &Name, decision: Decision) -> anyhow::Result<()> {
        let who = local_principal(&local_user(), "admin")?;
        let of = if ruling.owner.starts_with("upstream ") { EventKind::Upstream } else { EventKind::Plugin };
        let event = AuditEvent::new(of)
            .principal(&who)
            .method(ruling.method)
            .tool(format!("{}/{}", kind.as_str(), visible(name)))
            .decided(decision, "operator")
            .note(ruling.note.clone());
        self.foundations.audit.append(event)?;
        Ok(())
    }

    /// Makes a decision, which `decide` records. What was recorded and did not come about is recorded as that.
    async fn decide(&self, name: &Name, decide: impl Fn(Option<Entry>) -> anyhow::Result<Option<Entry>>) -> anyhow::Result<()> {
        let done = self.book.decide(name, decide).await;
        let recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Err(error), Some(ruling)) = (&done, recorded) {
            self.append(&Ruling { note: format!("{error:#}"), ..ruling }, name, Decision::Deny)?;
        }
        done
    }

    async fn give(&self, config: &Config, args: &NameArgs, to: &str) -> anyhow::Result<()> {
        let name = Self::named(args);
        let known = owners(config)?;
        if !known.contains(to) {
            let all = known.into_iter().collect::<Vec<_>>().join(", ");
            bail!("there is no '{to}' that could have a name; there are: {all}");
        }
        if name.0 == NameKind::Tool {
            ToolName::new(&name.1)?;
        }
        // Resources are not offered by all of a kind together, and by nobody else.
        let servers = || config.upstreams.iter().map(|upstream| format!("upstream {}", upstream.name));
        if name.0 == NameKind::Address && !servers().any(|server| server == to) {
            bail!("'{to}' has no resources; they are of: {}", servers().collect::<Vec<_>>().join(", "));
        }
        let decide = |entry: Option<Entry>| {
            let from = holder(&name, entry.as_ref())?;
            if from == to {
                bail!("'{}' is that of {to} already", visible(&name.1));
            }
            self.record("names.moved", &name, to, format!("from {from} to {to}"))?;
            let used = entry.is_some_and(|entry| entry.used);
            let since = SystemClock.now();
            Ok(Some(Entry { owner: Some(to.to_owned()), since, used, apart: false, denied: BTreeSet::new() }))
        };
        self.decide(&name, decide).await?;
        say(format!("{} '{}' is that of {to} now.", name.0.as_str(), visible(&name.1)));
        Ok(())
    }

    async fn release(&self, args: &NameArgs) -> anyhow::Result<()> {
        let name = Self::named(args);
        let decide = |entry: Option<Entry>| {
            let from = holder(&name, entry.as_ref())?;
            let Some(entry) = entry.filter(|entry| entry.owner.is_some()) else { bail!(nobodys(&name)) };
            self.record("names.released", &name, &from, format!("from {from}"))?;
            Ok(Some(Entry { owner: None, since: SystemClock.now(), apart: false, denied: BTreeSet::new(), ..entry }))
        };
        self.decide(&name, decide).await?;
        say(format!(
            "{} '{}' is for whoever offers something under it next; who offers it now has it again at once.",
            name.0.as_str(),
            visible(&name.1)
        ));
        Ok(())
    }

    async fn together(&self, args: &NameArgs, together: bool) -> anyhow::Result<()> {
        let name = Self::named(args);
        let decide = |entry: Option<Entry>| {
            let owner = holder(&name, entry.as_ref())?;
            let Some(entry) = entry.filter(|_| name.0 != NameKind::Address && owner.starts_with("upstream ")) else {
                bail!(
                    "'{}' is not a name under which upstreams of a kind offer something; see: portcullis names list --all",
                    visible(&name.1)
                )
            };
            let (method, note) = if together {
                ("names.joined", format!("{owner} offers it together"))
            } else {
                ("names.split", format!("each of {owner} offers its own"))
            };
            self.record(method, &name, &owner, note)?;
            Ok(Some(Entry { apart: !together, used: true, ..entry }))
        };
        self.decide(&name, decide).await?;
        let how = if together { "together where they agree" } else { "one by one, with their prefixes" };
        say(format!("What upstreams offer under '{}' they offer {how} now.", visible(&name.1)));
        Ok(())
    }
}

fn nobodys((kind, name): &Name) -> String {
    format!("{} '{}' is nobody's; see: portcullis names list --all", kind.as_str(), visible(name))
}

/// Whose a name is, if it may be given to somebody else at all.
fn holder(name: &Name, entry: Option<&Entry>) -> anyhow::Result<String> {
    match entry.and_then(|entry| entry.owner.clone()) {
        Some(owner) if owner == THIS_HOUSE => bail!("'{}' is a name of this house, which stays its own", visible(&name.1)),
        owner => Ok(owner.unwrap_or_else(|| "nobody".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_audit::AuditFilter;
    use portcullis_state::MAX_VALUE_BYTES;

    use super::*;

    #[tokio::test]
    async fn a_decision_is_recorded_once_and_so_is_that_it_did_not_come_about() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config { data: directory.path().join("data"), ..Config::default() };
        let foundations = Foundations::open(&config).await.unwrap();
        let book = NameBook::new(foundations.store(), Arc::new(SystemClock));
        let desk = Desk { foundations: &foundations, book: &book, recorded: Mutex::default() };
        let name = (NameKind::Tool, "search".to_owned());
        let entry = |owner: String| Entry {
            owner: Some(owner),
            since: SystemClock.now(),
            used: false,
            apart: false,
            denied: BTreeSet::new(),
        };
        let give = |owner: String| {
            let (desk, name) = (&desk, &name);
            move |_: Option<Entry>| -> anyhow::Result<Option<Entry>> {
                // As often as another process writes in between.
                for _ in 0..3 {
                    desk.record("names.moved", name, "api shop", "from nobody to api shop".to_owned())?;
                }
                Ok(Some(entry(owner.clone())))
            }
        };
        let records = || {
            let tail = portcullis_audit::tail(foundations.audit.directory(), 10, &AuditFilter::default()).unwrap();
            let of = tail.records.iter().map(portcullis_audit::Record::to_json).filter(|r| r["method"] == "names.moved");
            of.map(|r| (r["decision"].clone(), r["note"].clone())).collect::<Vec<_>>()
        };
        let moved = (json!("allow"), json!("from nobody to api shop"));
        desk.decide(&name, give("api shop".to_owned())).await.unwrap();
        assert_eq!(records(), std::slice::from_ref(&moved));
        // More than the store takes.
        assert!(desk.decide(&name, give("x".repeat(MAX_VALUE_BYTES))).await.is_err());
        let all = records();
        let [first, second, failed] = &all[..] else { panic!("{all:?}") };
        assert_eq!((first, second, &failed.0), (&moved, &moved, &json!("deny")));
        assert!(failed.1.as_str().unwrap().contains("cannot be written"), "{failed:?}");
        foundations.close().await;
    }
}
