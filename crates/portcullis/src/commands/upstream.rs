//! `portcullis upstream`: what other MCP servers offer, and a person's yes or no to it. A decision is recorded before it takes
//! effect, and only what was shown can be accepted.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, bail};
use portcullis_audit::{AuditEvent, AuditLog, Decision, EventKind};
use portcullis_gateway::{CALL_TOOL, FIND_TOOLS};
use portcullis_identity::{local_principal, local_user};
use portcullis_model::{Clock, Principal, SystemClock};
use portcullis_ports::{NameKind, Prefixes, THIS_HOUSE, Taken};
use portcullis_state::Store;
use portcullis_upstream::review::{Line, difference, visible};
use portcullis_upstream::{Finding, Kind, Neighbourhood, Neighbours, Pin, PinBook, PinState, UpstreamSettings};
use serde_json::json;

use super::names::owners;
use crate::cli::{OutputArgs, UpstreamAction, UpstreamChoice};
use crate::house::Foundations;
use crate::look;
use crate::names::{NameBook, outsiders};
use crate::settings::Config;
use crate::terminal::{is_seen_by_a_person, paint, say, say_aside, say_heard, say_json, table};

/// Runs `portcullis upstream …`.
pub async fn run(config: &Config, action: UpstreamAction) -> anyhow::Result<()> {
    match &action {
        UpstreamAction::List(output) => return Desk::open(look::state(config).await?, config).await?.list(output),
        // For programs: nobody was shown it, so nothing is noted.
        UpstreamAction::Review { upstream, names, json: true } => {
            return Desk::open(look::state(config).await?, config).await?.review(upstream, names, true).await;
        }
        UpstreamAction::Review { .. } | UpstreamAction::Accept { .. } | UpstreamAction::Reject { .. } => {}
    }
    let foundations = Foundations::open(config).await?;
    let outcome = act(&foundations, config, action).await;
    foundations.close().await;
    outcome
}

async fn act(foundations: &Foundations, config: &Config, action: UpstreamAction) -> anyhow::Result<()> {
    let desk = Desk::open(foundations.store(), config).await?;
    let audit = &foundations.audit;
    match action {
        UpstreamAction::List(output) => desk.list(&output),
        UpstreamAction::Review { upstream, names, json } => desk.review(&upstream, &names, json).await,
        UpstreamAction::Accept { choice, despite_findings } => desk.decide(audit, &choice, Some(despite_findings)).await,
        UpstreamAction::Reject { choice } => desk.decide(audit, &choice, None).await,
    }
}

/// The pins of an upstream, read.
async fn pins(store: &Arc<dyn Store>, upstream: &str) -> anyhow::Result<PinBook> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let book = PinBook::new(store.clone(), clock, upstream);
    book.refresh().await?;
    Ok(book)
}

fn configured<'c>(config: &'c Config, name: &str) -> anyhow::Result<&'c UpstreamSettings> {
    let names = || config.upstreams.iter().map(|u| u.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = config.upstreams.iter().find(|upstream| upstream.name == name);
    found.with_context(|| match names() {
        none if none.is_empty() => format!("there is no upstream '{name}'; the configuration has none"),
        some => format!("there is no upstream '{name}'; upstreams are {some}"),
    })
}

/// Where a person looks and decides.
struct Desk<'c> {
    config: &'c Config,
    /// Of every upstream, in the order of the configuration.
    books: Vec<PinBook>,
    /// Every name there is, also of what waits.
    neighbourhood: Neighbourhood,
    who: Principal,
}

fn group(upstream: &UpstreamSettings) -> &str {
    upstream.kind.as_deref().unwrap_or(&upstream.name)
}

impl<'c> Desk<'c> {
    async fn open(store: Arc<dyn Store>, config: &'c Config) -> anyhow::Result<Self> {
        let names = NameBook::new(store.clone(), Arc::new(SystemClock));
        names.refresh().await?;
        let entries = names.entries();
        let prefixes = Prefixes::of(owners(config)?.into_iter().chain(outsiders(&entries)));
        let known = entries.into_iter().filter(|((kind, _), _)| *kind == NameKind::Tool);
        let mut known: BTreeMap<String, String> = known.filter_map(|((_, name), entry)| Some((name, entry.owner?))).collect();
        known.extend([FIND_TOOLS, CALL_TOOL].map(|name| (name.to_owned(), THIS_HOUSE.to_owned())));
        let neighbourhood = Neighbourhood::default();
        neighbourhood.learn(&known, &prefixes);
        neighbourhood.hold(&names.round().taken(Taken::default()).held);
        let mut books = Vec::new();
        for upstream in &config.upstreams {
            let book = pins(&store, &upstream.name).await?;
            neighbourhood.tell(group(upstream), &upstream.name, book.tool_names());
            neighbourhood.tell_addresses(group(upstream), &upstream.name, &book);
            books.push(book);
        }
        let who = local_principal(&local_user(), "admin")?;
        Ok(Self { config, books, neighbourhood, who })
    }

    /// The pins of an upstream, and what others have.
    fn book(&self, upstream: &str) -> anyhow::Result<(&PinBook, Neighbours)> {
        let settings = configured(self.config, upstream)?;
        let at = self.config.upstreams.iter().position(|one| one.name == settings.name);
        let book = at.and_then(|at| self.books.get(at)).context("its pins were not read")?;
        Ok((book, self.neighbourhood.of_others(group(settings), &settings.name)))
    }

    fn list(&self, output: &OutputArgs) -> anyhow::Result<()> {
        let (mut rows, mut all) = (Vec::new(), Vec::new());
        for upstream in &self.config.upstreams {
            let (book, neighbours) = self.book(&upstream.name)?;
            for pin in &book.all() {
                let findings = pin.findings(&neighbours);
                let state = match pin.state() {
                    PinState::Accepted => paint::good("accepted"),
                    PinState::Rejected => paint::bad("rejected"),
                    waiting => paint::warn(waiting.as_str()),
                };
                let by = pin.accepted.as_ref().map(|accepted| accepted.by.clone()).unwrap_or_default();
                let found = if findings.is_empty() { String::new() } else { findings.len().to_string() };
                rows.push([upstream.name.clone(), pin.kind.to_string(), visible(&pin.name), state, found, by]);
                all.push(summary(pin, &findings));
            }
        }
        if output.json {
            say_json(&json!(all));
        } else if rows.is_empty() {
            say("No upstream has shown anything yet.");
        } else {
            say(table(["upstream", "kind", "name", "state", "findings", "accepted by"], rows));
        }
        Ok(())
    }

    async fn review(&self, upstream: &str, names: &[String], json: bool) -> anyhow::Result<()> {
        let (book, neighbours) = self.book(upstream)?;
        let wanted = |pin: &Pin| if names.is_empty() { waits(pin) } else { names.contains(&pin.name) };
        let shown: Vec<Pin> = book.all().into_iter().filter(wanted).collect();
        if let Some(missing) = names.iter().find(|name| !shown.iter().any(|pin| pin.name == **name)) {
            bail!("upstream '{upstream}' has shown nothing named '{}'", visible(missing));
        }
        if json {
            let all = shown.iter().map(|pin| as_json(pin, &pin.findings(&neighbours)));
            say_json(&json!(all.collect::<Vec<_>>()));
            return Ok(());
        }
        let mut heard = true;
        for pin in &shown {
            heard &= say_heard(as_text(pin, &pin.findings(&neighbours)));
        }
        if shown.is_empty() {
            say(format!("Nothing of upstream '{upstream}' waits."));
        } else {
            heard &= say_heard(format!(
                "To accept: as it says below each, or portcullis upstream accept {upstream} NAME…, or --all. To reject: \
                 portcullis upstream reject {upstream} NAME…"
            ));
        }
        if !heard {
            bail!("not all of it was read, so none of it counts as shown");
        }
        if !is_seen_by_a_person() {
            say_aside(
                "This did not go to a terminal, so it counts as shown to nobody: accept it as it says below each, NAME@DIGEST.",
            );
            return Ok(());
        }
        for pin in &shown {
            if let Some(seen) = &pin.seen {
                book.reviewed(pin.kind, &pin.name, &seen.digest, self.who.id.as_str()).await?;
            }
        }
        Ok(())
    }

    /// Accepts (with whether findings are no obstacle) or rejects.
    async fn decide(&self, audit: &AuditLog, choice: &UpstreamChoice, accept: Option<bool>) -> anyhow::Result<()> {
        let (book, neighbours) = self.book(&choice.upstream)?;
        let of_kind = |pin: &Pin| choice.kind.as_deref().is_none_or(|kind| kind == pin.kind.as_str());
        let all: Vec<Pin> = book.all().into_iter().filter(of_kind).collect();
        let chosen = if choice.all {
            all.into_iter().filter(waits).map(|pin| (pin, None)).collect()
        } else {
            chosen(&choice.upstream, &choice.names, &all)?
        };
        if chosen.is_empty() {
            say(format!("Nothing of upstream '{}' waits.", choice.upstream));
            return Ok(());
        }
        let mut held = Vec::new();
        for (pin, digest) in &chosen {
            let obstacle = accept.and_then(|despite| {
                let findings = pin.findings(&neighbours).len();
                let bound = digest.as_ref().is_some_and(|digest| digest.len() >= BINDING);
                obstacle(pin, bound, self.who.id.as_str(), if despite { 0 } else { findings })
            });
            match obstacle {
                Some(reason) => held.push(format!("{} '{}': {reason}", pin.kind, visible(&pin.name))),
                None => self.settle(audit, book, pin, accept.is_some()).await?,
            }
        }
        if !held.is_empty() {
            bail!("not accepted: {}", held.join("; "));
        }
        Ok(())
    }

    async fn settle(&self, audit: &AuditLog, book: &PinBook, pin: &Pin, accept: bool) -> anyhow::Result<()> {
        let Some(digest) = digest_of(pin) else { return Ok(()) };
        let (decision, method) = if accept { (Decision::Allow, "upstream.accept") } else { (Decision::Deny, "upstream.reject") };
        let subject = format!("{}/{}/{}", pin.upstream, pin.kind, visible(&pin.name));
        let event = AuditEvent::new(EventKind::Upstream)
            .principal(&self.who)
            .method(method)
            .tool(subject.clone())
            .decided(decision, "operator")
            .note(format!("sha256 {digest}"));
        audit.append(event).context("the decision cannot be recorded, so it is not made")?;
        if accept {
            book.accept(pin.kind, &pin.name, digest, self.who.id.as_str()).await?;
        } else {
            book.reject(pin.kind, &pin.name, digest).await?;
        }
        let word = if accept { paint::good("accepted") } else { paint::bad("rejected") };
        say(format!("{subject} is {word}."));
        Ok(())
    }
}

fn summary(pin: &Pin, findings: &[Finding]) -> serde_json::Value {
    json!({"upstream": pin.upstream, "kind": pin.kind, "name": pin.name, "state": pin.state(), "digest": digest_of(pin),
        "accepted_by": pin.accepted.as_ref().map(|a| &a.by), "findings": pin.seen.as_ref().map(|_| findings)})
}

/// Digest of what waits, else of what was accepted.
fn digest_of(pin: &Pin) -> Option<&str> {
    let waits = pin.seen.as_ref().map(|seen| seen.digest.as_str());
    waits.or_else(|| pin.accepted.as_ref().map(|accepted| accepted.digest.as_str()))
}

fn waits(pin: &Pin) -> bool {
    matches!(pin.state(), PinState::New | PinState::Changed)
}

fn as_json(pin: &Pin, findings: &[Finding]) -> serde_json::Value {
    let line = |line: &Line| match line {
        Line::Same(text) => json!({"same": text}),
        Line::Gone(text) => json!({"gone": text}),
        Line::New(text) => json!({"new": text}),
    };
    let mut about = summary(pin, findings);
    about["difference"] = json!(difference(pin).iter().map(line).collect::<Vec<_>>());
    about
}

/// Everything about a definition, and at its end how to accept exactly that.
fn as_text(pin: &Pin, findings: &[Finding]) -> String {
    let mut lines = vec![paint::strong(&format!("{} {} ({})", pin.kind, visible(&pin.name), pin.state().as_str()))];
    if let Some(seen) = &pin.seen {
        lines.push(format!("  sha256 {}", seen.digest));
        for finding in findings {
            let text = format!("  {} in {}: {}", finding.what, visible(&finding.place), visible(&finding.detail));
            lines.push(paint::bad(&text));
        }
    }
    lines.extend(difference(pin).into_iter().map(|line| match line {
        Line::Same(text) => format!("    {text}"),
        Line::Gone(text) => paint::bad(&format!("  - {text}")),
        Line::New(text) => paint::good(&format!("  + {text}")),
    }));
    if let Some(seen) = &pin.seen {
        let digest = seen.digest.get(..BINDING).unwrap_or(&seen.digest);
        lines.push(match quoted(&format!("{}@{digest}", pin.name)) {
            Some(word) => format!("  accept it: portcullis upstream accept {} {word}", pin.upstream),
            None => "  its name cannot be typed as it is shown: it holds characters nobody sees or tells apart".to_owned(),
        });
    }
    lines.push(String::new());
    lines.join("\n")
}

/// A word as a shell takes it to the letter. `None` where what is shown would not be what is meant.
fn quoted(word: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/' | '@');
    if visible(word) != word || word.contains(['\n', '\t']) {
        return None;
    }
    let is_plain = word.chars().all(plain) && !word.starts_with('-');
    Some(if is_plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) })
}

/// Digits of a digest that bind a decision to one definition, whoever made it and others.
const BINDING: usize = 32;
/// Fewest digits of a digest that choose one of those that were shown.
const CHOOSING: usize = 8;

/// A name, and the beginning of a digest behind it: `plain@1f0c44a9`.
fn parts(word: &str) -> Option<(&str, String)> {
    let (name, digest) = word.rsplit_once('@')?;
    let digits = (CHOOSING..=64).contains(&digest.len()) && digest.bytes().all(|digit| digit.is_ascii_hexdigit());
    (digits && !name.is_empty()).then(|| (name, digest.to_ascii_lowercase()))
}

/// What was named, each with the digest that was named with it. A digest goes before a name that only looks like one with a
/// digest: nobody chooses one definition and gets another.
fn chosen(upstream: &str, words: &[String], all: &[Pin]) -> anyhow::Result<Vec<(Pin, Option<String>)>> {
    let mut chosen: Vec<(Pin, Option<String>)> = Vec::new();
    for word in words {
        let named = |name: &str| all.iter().filter(|pin| pin.name == name).cloned().collect::<Vec<_>>();
        let with_digest = parts(word).map(|(name, digest)| (named(name), digest)).filter(|(pins, _)| !pins.is_empty());
        let found: Vec<_> = match with_digest {
            Some((pins, digest)) => {
                let fits = |pin: &Pin| digest_of(pin).is_some_and(|whole| whole.starts_with(&digest));
                let fitting: Vec<Pin> = pins.into_iter().filter(fits).collect();
                if fitting.is_empty() {
                    bail!("'{}' has another digest now; look at: portcullis upstream review {upstream}", visible(word));
                }
                fitting.into_iter().map(|pin| (pin, Some(digest.clone()))).collect()
            }
            None => named(word).into_iter().map(|pin| (pin, None)).collect(),
        };
        if found.is_empty() {
            bail!("upstream '{upstream}' has shown nothing named '{}'; look at: portcullis upstream list", visible(word));
        }
        // Named twice, it is decided about once.
        let is_new = |(pin, _): &(Pin, _)| !chosen.iter().any(|(known, _)| (known.kind, &known.name) == (pin.kind, &pin.name));
        let found: Vec<_> = found.into_iter().filter(is_new).collect();
        chosen.extend(found);
    }
    Ok(chosen)
}

/// Why a definition cannot be accepted now: by somebody who names its digest (`bound`), or was shown it last.
fn obstacle(pin: &Pin, bound: bool, who: &str, findings: usize) -> Option<String> {
    let Some(seen) = &pin.seen else { return Some("it is accepted already".into()) };
    let shown = pin.shown_to(who);
    if !bound && shown != Some(seen.digest.as_str()) {
        let what = if shown.is_some() { "it changed since it was shown to you" } else { "it was not shown yet" };
        let review = format!("portcullis upstream review {}", pin.upstream);
        return Some(format!(
            "{what}; look at: {review}, at a terminal, or accept it as that prints it, NAME@DIGEST with all its digits"
        ));
    }
    (findings > 0 && pin.kind != Kind::Protocol)
        .then(|| format!("the scanner found {findings} things; accept it by itself with --despite-findings"))
}

#[cfg(test)]
mod tests {
    use portcullis_model::Timestamp;
    use portcullis_upstream::{Seen, Shown};

    use super::*;

    fn pin(name: &str, digest: &str) -> Pin {
        let (digest, at) = (digest.repeat(8), Timestamp::from_nanos(0));
        let seen = Seen { digest, definition: json!({ "name": name }), at, findings: Vec::new() };
        Pin {
            upstream: "evil".into(),
            kind: Kind::Tool,
            name: name.into(),
            accepted: None,
            seen: Some(seen),
            rejected: None,
            shown: Vec::new(),
            since: None,
        }
    }

    #[test]
    fn a_digest_goes_before_a_name_that_looks_like_one_and_binds() {
        let all = [pin("plain", "aaaa1111"), pin("plain@aaaa1111", "bbbb2222"), pin("mailto:x@deadbeef", "cccc3333")];
        let names = |word: &str| {
            let found = chosen("evil", &[word.to_owned()], &all).map_err(|error| error.to_string())?;
            Ok::<_, String>(found.into_iter().map(|(pin, digest)| (pin.name, digest)).collect::<Vec<_>>())
        };
        assert_eq!(names("plain").unwrap(), [("plain".to_owned(), None)]);
        assert_eq!(names("plain@AAAA1111").unwrap(), [("plain".to_owned(), Some("aaaa1111".to_owned()))]);
        let odd = "plain@aaaa1111@bbbb2222";
        assert_eq!(names(odd).unwrap(), [("plain@aaaa1111".to_owned(), Some("bbbb2222".to_owned()))]);
        assert_eq!(names("mailto:x@deadbeef").unwrap(), [("mailto:x@deadbeef".to_owned(), None)]);
        assert!(names("plain@bbbb2222").unwrap_err().contains("another digest"));
        let twice = ["plain", "plain@aaaa1111"].map(str::to_owned);
        assert_eq!(chosen("evil", &twice, &all).unwrap().len(), 1, "decided about once");
        assert!(names("plain@aaaa").unwrap_err().contains("nothing named"), "too short to be one");
    }

    #[test]
    fn who_was_shown_something_else_must_look_again_or_name_the_digest() {
        let mut one = pin("plain", "aaaa1111");
        let told = |one: &Pin, bound| obstacle(one, bound, "local:anna", 0).unwrap_or_default();
        assert!(told(&one, false).contains("was not shown yet") && told(&one, true).is_empty());
        one.shown.push(Shown { to: "local:script".into(), digest: "aaaa1111".repeat(8) });
        assert!(told(&one, false).contains("was not shown yet"), "somebody else was");
        one.shown.push(Shown { to: "local:anna".into(), digest: "bbbb2222".repeat(8) });
        assert!(told(&one, false).contains("changed since") && told(&one, false).contains("NAME@DIGEST"));
        one.shown[1].digest = "aaaa1111".repeat(8);
        assert!(told(&one, false).is_empty());
        assert!(obstacle(&one, true, "local:anna", 2).is_some_and(|reason| reason.contains("--despite-findings")));
    }

    #[test]
    fn what_is_printed_to_be_typed_is_one_word_of_a_shell() {
        assert_eq!(quoted("plain@1f0c").as_deref(), Some("plain@1f0c"));
        assert_eq!(quoted("a b;$(id)'@1").as_deref(), Some(r"'a b;$(id)'\''@1'"));
        assert_eq!(quoted("-x@1").as_deref(), Some("'-x@1'"));
        assert_eq!(quoted("a\u{200b}@1"), None);
        assert!(as_text(&pin("plain", "aaaa1111"), &[]).contains("accept evil plain@aaaa1111aaaa1111aaaa1111aaaa1111\n"));
    }
}
