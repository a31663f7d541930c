//! Standing work beside any call: looking at an upstream's definitions, taking over what a person decided, ending what is
//! idle. Guards that whatever is new or changed waits for a person before anybody sees it.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use portcullis_policy::Charter;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::conversation::{Conversation, Era};
use crate::definition::{Definition, Kind};
use crate::line::{Line, Proof};
use crate::pins::Look;
use crate::server::Server;
use crate::settings::Trust;
use crate::wire::{Incoming, Trouble};

/// How often the store is asked whether a person decided something.
const DECISIONS: Duration = Duration::from_millis(500);
/// Least time between two looks at everything.
const BETWEEN: Duration = Duration::from_secs(1);

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
                server.health.well();
                Some(found)
            }
            Err(trouble) => {
                let news = server.health.failed(&trouble.to_string());
                if news {
                    tracing::warn!(target: "portcullis::upstream", upstream = %server.name, %trouble, "it cannot be looked at");
                }
                None
            }
        };
        let rest = match &found {
            Some(_) => server.settings.refresh.0,
            None => server.health.rest().unwrap_or(BETWEEN).max(BETWEEN),
        };
        let begun = tokio::time::Instant::now();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(rest) => {}
            () = server.changed.notified() => {}
            () = listen(&charter, found.as_ref()) => {}
        }
        // An upstream that announces changes all the time is looked at once a second all the same.
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(begun + BETWEEN) => {}
        }
    }
}

/// Takes over what a person decided, and ends what is idle, until it is stopped.
pub(crate) async fn follow_decisions(server: Arc<Server>, stop: CancellationToken) {
    let mut round = 0_u32;
    while stop.run_until_cancelled(tokio::time::sleep(DECISIONS)).await.is_some() {
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
async fn listen(charter: &Charter, found: Option<&Found>) {
    let Some(Found { conversation, proof }) = found else { return std::future::pending().await };
    let Line::Http(http) = &conversation.line else { return std::future::pending().await };
    let permit = charter.permit();
    let ended: Result<(), Trouble> = match conversation.era {
        Era::Session => http.listen(&permit, proof).await,
        Era::Stateless => {
            let wanted =
                json!({"notifications": {"toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true}});
            let subscribed = async {
                let mut stream = conversation.call(&permit, proof, "subscriptions/listen", wanted, false, Vec::new()).await?;
                while !matches!(stream.next().await?, Incoming::Answer { .. }) {}
                Ok(())
            };
            subscribed.await
        }
    };
    // Not every server has such a stream, and the regular look finds changes as well.
    match ended {
        Err(Trouble::Gone(_) | Trouble::Slow(_)) | Ok(()) => {}
        Err(_) => std::future::pending().await,
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
        let most = self.settings.limits.definitions as usize;
        let patience = self.settings.limits.time.0;
        let (mut listed, mut oddities, mut all) = (BTreeSet::new(), Vec::new(), Vec::new());
        for kind in Kind::LISTED.into_iter().filter(|kind| conversation.offers(kind.listed().capability)) {
            let listing = tokio::time::timeout(patience, conversation.list(permit, proof, kind.listed(), most)).await;
            let found = listing.unwrap_or_else(|_| Err(Trouble::Slow(portcullis_model::format_duration(patience))))?;
            if found.cut {
                oddities.push(format!("it has more than {most} {kind}s; the rest stays out (limits.definitions)"));
            }
            for body in found.entries {
                match Definition::read(kind, body) {
                    Ok(definition) => {
                        if !listed.insert((kind, definition.name.clone())) {
                            oddities.push(format!("it lists {kind} '{}' twice", shown(&definition.name)));
                        }
                        all.push(definition);
                    }
                    Err(reason) => oddities.push(reason),
                }
            }
        }
        for definition in all {
            self.take_note(definition).await;
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

    /// Compares a definition with what a person accepted. Something else waits from now on.
    pub(crate) async fn take_note(&self, definition: Definition) {
        let Some(pins) = self.pins.get() else { return };
        if pins.knows(&definition) {
            return;
        }
        let neighbours = self.neighbourhood.of_others(self.group());
        let findings = self.scanner.look(&definition, &neighbours);
        let clean = findings.is_empty();
        let subject = format!("{}/{}/{}", self.name, definition.kind, shown(&definition.name));
        let what_is_found = if clean {
            "nothing found".to_owned()
        } else {
            let kinds: BTreeSet<&str> = findings.iter().map(|finding| finding.what.as_str()).collect();
            kinds.into_iter().collect::<Vec<_>>().join(", ")
        };
        let look = match pins.look(&definition, findings.clone()).await {
            Ok(look) => look,
            Err(error) => {
                tracing::error!(target: "portcullis::upstream", upstream = %self.name, %error, "a definition could not be noted; it is out of use");
                self.touch();
                return;
            }
        };
        let note = |word: &str| format!("{word}, sha256 {}; scanner: {what_is_found}", definition.digest);
        match look {
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

    /// The name under which its tools are known to others.
    pub(crate) fn group(&self) -> &str {
        self.settings.kind.as_deref().unwrap_or(&self.name)
    }

    /// Tells the other upstreams which names are taken.
    pub(crate) fn tell_neighbours(&self) {
        if let Some(pins) = self.pins.get() {
            let names = pins.in_use(Kind::Tool).into_iter().map(|(name, _)| name).collect();
            self.neighbourhood.tell(self.group(), &self.name, names);
        }
    }
}

/// Who accepted what nobody looked at.
pub(crate) const BY_CONFIGURATION: &str = "configuration";

/// A name for people.
pub(crate) fn shown(name: &str) -> String {
    name.chars().filter(|c| !portcullis_guard::is_hidden(*c)).take(120).collect()
}
