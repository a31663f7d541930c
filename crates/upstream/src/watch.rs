//! Standing work beside any call: looking at an upstream's definitions, taking over what a person decided, ending what is
//! idle. Guards that whatever is new or changed waits for a person before anybody sees it.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use portcullis_policy::Charter;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::conversation::{Conversation, Era, Manner};
use crate::definition::{Definition, Kind};
use crate::line::{Line, Proof};
use crate::neighbours::Claim;
use crate::pins::{Look, PinBook};
use crate::risk;
use crate::scanner::Finding;
use crate::server::Server;
use crate::settings::{Prefixing, Trust};
use crate::wire::{Incoming, Trouble};

/// How often the store is asked whether a person decided something, and whether who is asked something would be let in.
const DECISIONS: Duration = Duration::from_millis(500);
/// Least time between two looks at everything.
const BETWEEN: Duration = Duration::from_secs(1);

/// Until what nobody decided about and the upstream no longer lists is forgotten.
const FORGOTTEN: Duration = Duration::from_hours(1);

/// What one look at everything found.
struct Found {
    conversation: Arc<Conversation>,
    proof: Arc<Proof>,
}

/// Looks at everything, again and again, until it is stopped.
pub(crate) async fn look_after(server: Arc<Server>, charter: Charter, stop: CancellationToken) {
    loop {
        let looked = tokio::select! {
            () = stop.cancelled() => return,
            looked = server.look(&charter) => looked,
        };
        let found = match looked {
            Ok(found) => {
                server.health.fitness.well();
                Some(found)
            }
            Err(trouble) => {
                server.ear.subscribed_to(BTreeSet::new());
                if server.health.fitness.failed(&trouble.to_string()) {
                    tracing::warn!(target: "portcullis::upstream", upstream = %server.name, %trouble, "it cannot be looked at");
                }
                server.record_failure(&server.health.fitness, &trouble);
                None
            }
        };
        let rest = match &found {
            Some(_) => server.settings.refresh.0,
            None => server.health.fitness.rest().unwrap_or(BETWEEN).max(BETWEEN),
        };
        let begun = tokio::time::Instant::now();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(rest) => {}
            () = server.ear.changed() => {}
            () = listen(&server, &charter, found.as_ref()) => {}
        }
        // An upstream that announces changes all the time is looked at once a second all the same.
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(begun + BETWEEN) => {}
        }
    }
}

/// Takes over what a person decided, and ends what is idle or waits for nobody, until it is stopped.
pub(crate) async fn follow_decisions(server: Arc<Server>, stop: CancellationToken) {
    let mut round = 0_u32;
    while stop.run_until_cancelled(tokio::time::sleep(DECISIONS)).await.is_some() {
        server.end_refused();
        let Some(pins) = server.pins.get() else { continue };
        match pins.refresh().await {
            Ok(true) => {
                server.tell_neighbours();
                server.touch();
            }
            Ok(false) => {}
            Err(error) => tracing::error!(target: "portcullis::upstream", upstream = %server.name, %error, "pins cannot be read"),
        }
        round = round.wrapping_add(1);
        if round.is_multiple_of(20) {
            server.sweep().await;
        }
    }
}

/// Waits for the upstream to say that something changed, where it has a way to say so. Ends when that way ends.
async fn listen(server: &Server, charter: &Charter, found: Option<&Found>) {
    let Some(Found { conversation, proof }) = found else { return std::future::pending().await };
    // Not every server has such a stream, and the regular look finds changes as well.
    let lasting = |ended: Result<(), Trouble>| async move {
        match ended {
            Err(Trouble::Gone(_) | Trouble::Slow(_)) | Ok(()) => {}
            Err(_) => std::future::pending().await,
        }
    };
    match (conversation.era, &conversation.line) {
        (Era::Stateless, Line::Http(_)) => lasting(subscriptions(server, charter, conversation, proof).await).await,
        (Era::Session, Line::Http(http)) => {
            let permit = charter.permit();
            tokio::select! {
                () = async { lasting(http.listen(&permit, proof).await).await } => {}
                () = subscribe(server, charter, conversation, proof) => {}
            }
        }
        _ => subscribe(server, charter, conversation, proof).await,
    }
}

/// One stream for everything an upstream of the stateless revision announces; another one whenever somebody watches
/// something else.
async fn subscriptions(
    server: &Server,
    charter: &Charter,
    conversation: &Conversation,
    proof: &Arc<Proof>,
) -> Result<(), Trouble> {
    loop {
        let permit = charter.permit();
        let watched = server.ear.watched();
        let mut wanted = json!({"toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true});
        if let (false, Some(members)) = (watched.is_empty(), wanted.as_object_mut()) {
            members.insert("resourceSubscriptions".into(), json!(watched));
        }
        let params = json!({ "notifications": wanted });
        let mut stream = conversation.call(&permit, proof, "subscriptions/listen", params, Manner::default()).await?;
        loop {
            let message = tokio::select! {
                () = server.ear.watching() => break,
                message = stream.next() => message?,
            };
            match message {
                Incoming::Answer { .. } => return Ok(()),
                Incoming::Notification { method, .. } if method == "notifications/subscriptions/acknowledged" => {
                    server.ear.subscribed_to(watched.clone());
                }
                _ => {}
            }
        }
    }
}

/// Keeps a session subscribed to what somebody watches. Never ends.
async fn subscribe(server: &Server, charter: &Charter, conversation: &Conversation, proof: &Arc<Proof>) {
    // What it was asked for stays asked for when this begins anew over the same session.
    let known = || conversation.subscribed.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let subscribed = known().clone();
        let wanted = if conversation.announces_resources() { server.ear.watched() } else { BTreeSet::new() };
        let news: Vec<(&str, String)> = wanted
            .difference(&subscribed)
            .map(|uri| ("resources/subscribe", uri.clone()))
            .chain(subscribed.difference(&wanted).map(|uri| ("resources/unsubscribe", uri.clone())))
            .collect();
        for (method, uri) in news {
            let permit = charter.permit();
            let asked = conversation.ask(&permit, proof, method, json!({ "uri": uri }));
            let told = tokio::time::timeout(server.settings.limits.idle.0, asked).await;
            match (method, told) {
                ("resources/subscribe", Ok(Ok(_))) => {
                    known().insert(uri);
                }
                ("resources/subscribe", _) => {}
                // Whether it understood or not, what it still says of this is no news to anybody.
                _ => {
                    known().remove(&uri);
                }
            }
        }
        server.ear.subscribed_to(known().clone());
        server.ear.watching().await;
    }
}

impl Server {
    /// Looks at everything the upstream has.
    async fn look(&self, charter: &Charter) -> Result<Found, Trouble> {
        let permit = charter.permit();
        let (proof, owner) = self.present(&permit, None).await.map_err(Trouble::House)?;
        let slot = self.slot(&owner).map_err(Trouble::House)?;
        let conversation = self.conversation(&permit, &proof, &owner, &slot).await?;
        let looked = self.look_at_all(&permit, &proof, &conversation).await;
        // A program that does one thing at a time and is busy with a call is not hung.
        if matches!(looked, Err(Trouble::Slow(_))) && conversation.line.is_busy() {
            return Ok(Found { conversation, proof });
        }
        if looked.is_err() {
            slot.give_up(&conversation).await;
            if !matches!(looked, Err(Trouble::House(_))) {
                conversation.line.close().await;
            }
        }
        looked.map(|()| Found { conversation, proof })
    }

    async fn look_at_all(
        &self,
        permit: &portcullis_policy::Permit,
        proof: &Arc<Proof>,
        conversation: &Conversation,
    ) -> Result<(), Trouble> {
        self.check_revision(conversation).await.map_err(Trouble::House)?;
        self.announces.store(conversation.announces_resources(), Ordering::Relaxed);
        let most = self.settings.limits.definitions as usize;
        let patience = self.settings.limits.time.0;
        let (mut listed, mut oddities, mut all, mut cut) = (BTreeSet::new(), Vec::new(), Vec::new(), BTreeSet::new());
        let mut unfit = Vec::new();
        for kind in Kind::LISTED.into_iter().filter(|kind| conversation.offers(kind.listed().capability)) {
            let asked = Instant::now();
            let listing = tokio::time::timeout(patience, conversation.list(permit, proof, kind.listed(), most)).await;
            let found = listing.unwrap_or_else(|_| Err(Trouble::Slow(portcullis_model::format_duration(patience))))?;
            if found.cut {
                cut.insert(kind);
                oddities.push(format!("it has more than {most} {kind}s; the rest stays out (limits.definitions)"));
            }
            for body in found.entries {
                match Definition::read(kind, body) {
                    Ok(definition) => {
                        if !listed.insert((kind, definition.name.clone())) {
                            oddities.push(format!("it lists {kind} '{}' twice", shown(&definition.name)));
                        }
                        all.push((definition, asked));
                    }
                    Err(reason) => unfit.push(reason),
                }
            }
        }
        if let Some(first) = unfit.first().filter(|_| self.notes.tells_of_unfit(Instant::now())) {
            let note = format!("{} definitions cannot be kept, so they stay out, as {first}", unfit.len());
            self.record("upstream.quarantined", self.name.to_string(), false, note);
        }
        oddities.extend(unfit);
        for (definition, asked) in all {
            self.take_note(definition, asked).await;
        }
        // What waits is a name among others too.
        self.tell_neighbours();
        oddities.extend(self.sum_up());
        if let Some(pins) = self.pins.get() {
            let complete = |kind| Kind::LISTED.contains(&kind) && !cut.contains(&kind);
            if let Err(error) = pins.forget(&listed, complete, FORGOTTEN).await {
                tracing::error!(target: "portcullis::upstream", upstream = %self.name, %error, "old pins cannot be forgotten");
            }
        }
        let news = {
            let mut known = self.listed.write().unwrap_or_else(PoisonError::into_inner);
            let news = known.as_ref() != Some(&listed);
            *known = Some(listed);
            news
        };
        oddities.truncate(20);
        *self.oddities.lock().unwrap_or_else(PoisonError::into_inner) = oddities;
        if news {
            self.touch();
        }
        Ok(())
    }

    /// Compares a definition, which the upstream was asked for at that time, with what a person accepted. Something else waits
    /// from now on.
    pub(crate) async fn take_note(&self, definition: Definition, asked: Instant) {
        let Some(pins) = self.pins.get() else { return };
        if pins.knows(&definition) {
            return;
        }
        let mut order = self.order.lock().await;
        // Somebody else may have written it down meanwhile.
        if pins.knows(&definition) || order.is_overtaken(&definition, asked) {
            return;
        }
        // Looking takes a while. What is no longer what was accepted is out of use before that, and stays so if it is broken off.
        if pins.distrust(&definition) {
            order.note(&definition, asked);
            self.touch();
        }
        // More than anybody could look at is not written down: it stays out, and so does what it changed.
        if pins.is_one_too_many(&definition, self.notes.most()) || !self.notes.takes(definition.kind, Instant::now()) {
            self.notes.leaves_out();
            return;
        }
        order.note(&definition, asked);
        let definition = Arc::new(definition);
        let findings = self.examiner.look(&definition, self.neighbourhood.of_others(self.group(), &self.name)).await;
        self.write_down(pins, &definition, findings).await;
    }

    /// Writes down what a definition is and what was found in it.
    async fn write_down(&self, pins: &PinBook, definition: &Definition, findings: Vec<Finding>) {
        let clean = findings.is_empty();
        let was_in_use = pins.fits(definition);
        let subject = format!("{}/{}/{}", self.name, definition.kind, shown(&definition.name));
        let what_is_found = if clean {
            "nothing found".to_owned()
        } else {
            let kinds: BTreeSet<&str> = findings.iter().map(|finding| finding.what.as_str()).collect();
            kinds.into_iter().collect::<Vec<_>>().join(", ")
        };
        let look = match pins.look(definition, findings).await {
            Ok(look) => look,
            Err(error) => {
                tracing::error!(target: "portcullis::upstream", upstream = %self.name, %error, "a definition could not be noted; it is out of use");
                self.touch();
                return;
            }
        };
        let note = |word: &str| format!("{word}, sha256 {}; scanner: {what_is_found}", definition.digest);
        match look {
            // Also where an earlier look, which put it out of use, was broken off.
            Look::Accepted if !was_in_use => {}
            Look::Accepted | Look::Waiting => return,
            Look::Restored => {
                self.record("upstream.restored", subject, true, note("as it was accepted again"));
            }
            Look::New if self.settings.trust == Trust::AcceptFirstSight && clean => {
                let recorded =
                    self.record("upstream.accepted", subject, true, note("by trust: accept_first_sight, no person saw it"));
                if recorded
                    && let Err(error) = pins.accept(definition.kind, &definition.name, &definition.digest, BY_CONFIGURATION).await
                {
                    tracing::error!(target: "portcullis::upstream", upstream = %self.name, %error, "a definition was not accepted");
                }
                self.tell_neighbours();
            }
            Look::New => {
                self.record("upstream.quarantined", subject, false, note("new"));
            }
            Look::Changed => {
                tracing::warn!(target: "portcullis::upstream", upstream = %self.name, %subject, "a definition changed and is held");
                self.record("upstream.quarantined", subject, false, note("changed"));
            }
        }
        self.touch();
    }

    /// Says in one sentence, and now and then in one record, what was left out of the notes.
    fn sum_up(&self) -> Option<String> {
        let (count, news) = self.notes.left_out(Instant::now());
        let most = self.notes.most();
        let note = format!(
            "{count} new or changed definitions are not kept: at most {most} of a kind wait, and as many are written in an hour"
        );
        if news {
            tracing::warn!(target: "portcullis::upstream", upstream = %self.name, "{note}");
            self.record("upstream.quarantined", self.name.to_string(), false, note.clone());
        }
        (count > 0).then_some(note)
    }

    /// The name under which its tools are known to others.
    pub(crate) fn group(&self) -> &str {
        self.settings.kind.as_deref().unwrap_or(&self.name)
    }

    /// Tells the other upstreams which names are taken.
    pub(crate) fn tell_neighbours(&self) {
        if let Some(pins) = self.pins.get() {
            self.neighbourhood.tell(self.group(), &self.name, pins.tool_names());
            self.neighbourhood.claim(self.group(), &self.name, self.claims(pins));
        }
    }
}

impl Server {
    /// Every name that what was ever accepted of it may be offered under.
    fn claims(&self, pins: &PinBook) -> Vec<Claim> {
        let plain = self.settings.prefix != Prefixing::Always;
        let prefixes = || std::iter::once(&*self.name).chain(self.settings.kind.as_deref());
        let addresses = [Kind::Resource, Kind::Template].into_iter();
        let mut claims: Vec<Claim> = addresses
            .flat_map(|kind| pins.ever_accepted(kind).into_iter().map(move |(name, since)| Claim { kind, name, since }))
            .collect();
        for kind in [Kind::Tool, Kind::Prompt] {
            for (name, since) in pins.ever_accepted(kind).into_iter().filter(|(name, _)| self.wants(kind, name)) {
                let prefixed = prefixes().map(|prefix| format!("{prefix}_{name}"));
                claims.extend(prefixed.map(|name| Claim { kind, name, since }));
                if plain {
                    claims.push(Claim { kind, name, since });
                }
            }
        }
        claims
    }

    /// Whether the operator wants this of it.
    pub(crate) fn wants(&self, kind: Kind, name: &str) -> bool {
        let patterns = &self.settings.tools;
        kind != Kind::Tool || patterns.is_empty() || patterns.iter().any(|pattern| risk::matches(pattern, name))
    }
}

/// Who accepted what nobody looked at.
pub(crate) const BY_CONFIGURATION: &str = "configuration";

/// A name for people.
pub(crate) fn shown(name: &str) -> String {
    name.chars().filter(|c| portcullis_guard::is_seen(*c)).take(120).collect()
}
