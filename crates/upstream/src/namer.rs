//! Which names what is offered gets. A name that something was ever accepted under stays its own: rules, approvals and habits
//! are written about it. Guards also that what several servers of a kind offered together under one name is not taken apart,
//! nor put together, because one of them changed: a person decides that, since the names change with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_model::Timestamp;
use portcullis_ports::{Denied, NameKind, Right, Taken};

use crate::definition::Kind;
use crate::neighbours::{Owner, owner_of};
use crate::pins::{Accepted, PinBook};
use crate::server::Server;
use crate::settings::Prefixing;

/// Whether a server's names always have its own in front.
pub(crate) fn prefixed(server: &Server, ambiguous: bool) -> bool {
    server.settings.prefix == Prefixing::Always || ambiguous
}

/// Gives what is offered its names.
pub(crate) struct Namer<'t> {
    named: NameKind,
    kind: Kind,
    group: String,
    owners: Vec<&'t str>,
    taken: &'t Taken,
    given: BTreeSet<String>,
    /// Whose a name is by what was accepted first, where the book does not say it yet.
    claims: BTreeMap<String, Owner>,
    /// Words that stand before names of these servers and of their kind.
    words: BTreeSet<String>,
    /// Which of these servers ever had something of a name, and since when.
    holders: BTreeMap<String, Vec<(Timestamp, Arc<str>)>>,
    denied: Vec<Denied>,
}

impl<'t> Namer<'t> {
    pub(crate) fn new(servers: &[Arc<Server>], kind: Kind, owners: &'t [String], taken: &'t Taken) -> Self {
        let first = servers.first();
        let mut holders: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for server in servers {
            for (name, since) in server.pins.get().map(|pins| pins.ever_accepted(kind)).unwrap_or_default() {
                holders.entry(name).or_default().push((since, server.name.clone()));
            }
        }
        Self {
            named: if kind == Kind::Prompt { NameKind::Prompt } else { NameKind::Tool },
            kind,
            group: first.map(|server| server.group().to_owned()).unwrap_or_default(),
            owners: owners.iter().map(String::as_str).collect(),
            taken,
            given: BTreeSet::new(),
            claims: first.map(|server| server.neighbourhood.owners(kind)).unwrap_or_default(),
            words: servers.iter().flat_map(|server| [server.name.to_string(), server.group().to_owned()]).collect(),
            holders,
            denied: Vec::new(),
        }
    }

    /// Which other server of the kind a name is of, by what stands before it, where it is offered by `who`. The longest of such
    /// words decides.
    fn member_before(&self, name: &str, who: &str) -> Option<&str> {
        let word = name.match_indices('_').rev().find_map(|(at, _)| self.words.get(&name[..at]))?;
        (word != who && *word != self.group).then_some(word.as_str())
    }

    /// Who went without the name it would have had.
    pub(crate) fn denied(self) -> Vec<Denied> {
        self.denied
    }

    /// Whether something of this server needs its prefix because others of its kind have something of that name. Who was
    /// first and is known by the plain name keeps that.
    pub(crate) fn is_ambiguous(&self, name: &str, server: &Server) -> bool {
        let Some(holders) = self.holders.get(name).filter(|holders| holders.len() > 1) else { return false };
        let first = holders.iter().min().is_some_and(|(_, first)| *first == server.name);
        !(first && self.taken.was_used(self.named, name, &self.owners))
    }

    /// Every server of a kind that ever had a tool of this name accepted: the instances callers and rules may name, whatever
    /// becomes of one of them, so that a rule about one goes on to fit.
    pub(crate) fn instances(&self, name: &str) -> Vec<Arc<str>> {
        self.holders.get(name).into_iter().flatten().map(|(_, server)| server.clone()).collect()
    }

    /// The name something would be offered under: its own where that may be had and nothing else is wanted.
    fn free(&self, name: &str, prefix: &str, always: bool) -> Option<String> {
        let with_prefix = format!("{prefix}_{name}");
        let plain = (!always).then_some(name);
        self.taken.choose(self.named, (plain, &with_prefix), &self.owners, |name, right| {
            let claimed = right == Right::Free && self.claims.get(name).is_some_and(|owner| owner.group != self.group);
            !claimed && !self.given.contains(name) && self.member_before(name, prefix).is_none()
        })
    }

    /// Gives a name, if there is one.
    pub(crate) fn choose(&mut self, name: &str, prefix: &str, always: bool) -> Option<String> {
        let chosen = self.free(name, prefix, always);
        let wanted = if always { format!("{prefix}_{name}") } else { name.to_owned() };
        let released = self.taken.right(self.named, &wanted, &self.owners) == Right::Released;
        if chosen.as_ref() != Some(&wanted) && !released {
            let why = self
                .member_before(&wanted, prefix)
                .map(|member| format!("it begins with '{member}', which stands before names of {}", owner_of(member)));
            self.deny(prefix, wanted, chosen.clone(), why);
        }
        self.given.extend(chosen.clone());
        chosen
    }

    fn deny(&mut self, who: &str, wanted: String, given: Option<String>, why: Option<String>) {
        // Names are the upstream's words.
        let given = given.map(|name| crate::watch::shown(&name));
        self.denied.push(Denied { kind: self.named, owner: owner_of(who), wanted, given, why });
    }

    /// Names of everything that was ever accepted, in use or not.
    pub(crate) fn kept(&self, servers: &[Arc<Server>], kind: Option<&str>) -> BTreeSet<String> {
        let mut kept = BTreeSet::new();
        for server in servers {
            let ever = server.pins.get().map(|pins| pins.ever_accepted(self.kind)).unwrap_or_default();
            for (name, _) in ever.into_iter().filter(|(name, _)| server.wants(self.kind, name)) {
                kept.extend(kind.and_then(|kind| self.free(&name, kind, prefixed(server, false))));
                kept.extend(self.free(&name, &server.name, prefixed(server, kind.is_some())));
            }
        }
        kept
    }

    /// Of those that have a tool of one name, those that offer it together. `None`: each offers its own.
    ///
    /// What was offered first decides until an operator does: whoever has another definition than those who offer it together
    /// goes without, and who offer it one by one go on so when they agree.
    pub(crate) fn together(
        &mut self,
        name: &str,
        kind: &str,
        servers: &[Arc<Server>],
        holders: &[(Arc<Server>, Accepted)],
    ) -> Option<Vec<(Arc<Server>, Accepted)>> {
        let always = holders.iter().any(|(server, _)| prefixed(server, false));
        let shared = self.free(name, kind, always)?;
        let used = self.taken.was_used(self.named, &shared, &self.owners);
        let apart = self.taken.held.of(self.named, &shared).is_some_and(|holding| holding.apart);
        let one_by_one = || servers.iter().any(|s| self.taken.was_used(self.named, &format!("{}_{name}", s.name), &self.owners));
        // The one that was accepted first, of those that are in use as they are.
        let (_, first) = holders.iter().min_by_key(|(_, accepted)| accepted.at)?;
        let chooses = first.definition.pointer("/inputSchema/properties/instance").is_some();
        // Names of one tenant's servers are nothing for another.
        let tenants = servers.iter().any(|server| server.settings.tenant != servers[0].settings.tenant);
        if apart || tenants || (!used && (chooses || one_by_one() || !self.agree(name, servers))) {
            return None;
        }
        let fits = |accepted: &Accepted| accepted.digest == first.digest && !chooses;
        let (with, without): (Vec<_>, Vec<_>) = holders.iter().cloned().partition(|(_, accepted)| fits(accepted));
        for (server, accepted) in without {
            let short = accepted.digest.get(..12).unwrap_or_default();
            let what = if chooses { "has an argument 'instance' of its own" } else { "is another one than that of the others" };
            let why = format!(
                "its definition (sha256 {short}…) {what}, and those of kind '{kind}' offer it together; accept the same for \
                 each, or let each offer its own: portcullis names split {shared}"
            );
            self.deny(&server.name, shared.clone(), None, Some(why));
        }
        Some(with)
    }

    /// Whether a tool is the same everywhere, as far as that is known; also where it still waits for a person.
    fn agree(&self, name: &str, servers: &[Arc<Server>]) -> bool {
        let known = servers.iter().filter_map(|server| server.pins.get()?.current(self.kind, name));
        known.collect::<BTreeSet<String>>().len() <= 1
    }
}

impl PinBook {
    /// Digest of what an upstream has under a name now, unless a person rejected it.
    pub(crate) fn current(&self, kind: Kind, name: &str) -> Option<String> {
        let pin = self.pin(kind, name)?;
        match (pin.seen, pin.accepted) {
            (Some(seen), _) => (pin.rejected.as_deref() != Some(seen.digest.as_str())).then_some(seen.digest),
            (None, accepted) => accepted.map(|accepted| accepted.digest),
        }
    }
}
