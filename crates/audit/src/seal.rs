//! What a record says about persons, beside the hashed bytes instead of in them: the chain covers a salted commitment,
//! the clear text stands after the hash and can be taken away. Guards that clear text fits its commitment, byte by byte,
//! and that taking it away is told apart from changing it.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_model::{Endpoint, KeyId, PrincipalId};
use portcullis_state::{KeyFile, KeyFileError};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::event::{AuditEvent, EventKind};

const SALT: usize = 16;
/// Digits in the name of one erasure.
pub(crate) const ERASURE_ID: usize = 16;
/// What stands for an erased person, before the name of the erasure.
pub(crate) const PSEUDONYM: &str = "erased:";
/// Principals that are a key are called so, followed by the key's id.
const KEY_PRINCIPAL: &str = "key:";
/// A key id shorter than this is not looked for inside free text: it would be found everywhere.
const SHORTEST_SEARCHED: usize = 4;

/// The three parts that are sealed on their own, in the order in which they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Group {
    /// Who acted, with which key, from where, in which session.
    Who,
    /// Whom or which key the event is about.
    About,
    /// Free text for the operator.
    Note,
}

impl Group {
    pub(crate) const ALL: [Self; 3] = [Self::Who, Self::About, Self::Note];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Who => "who",
            Self::About => "about",
            Self::Note => "note",
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Who => 0,
            Self::About => 1,
            Self::Note => 2,
        }
    }

    /// Its bit in a set of groups.
    pub(crate) fn bit(self) -> u8 {
        1 << self.index()
    }
}

/// The clear text of a group.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Personal<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) principal: Option<Cow<'a, PrincipalId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) about: Option<Cow<'a, PrincipalId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<Cow<'a, KeyId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<Endpoint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) via: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) claimed: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<Cow<'a, str>>,
}

impl<'a> Personal<'a> {
    fn is_empty(&self) -> bool {
        self.principal.is_none()
            && self.about.is_none()
            && self.key.is_none()
            && self.client.is_none()
            && self.via.is_none()
            && self.claimed.is_none()
            && self.session.is_none()
            && self.note.is_none()
    }

    fn of(event: &'a AuditEvent, group: Group) -> Self {
        // A key is what its user acted with, except in the records about keys.
        let key_is_subject = event.kind == EventKind::Key;
        let key = event.key.as_ref().map(Cow::Borrowed);
        match group {
            Group::Who => Self {
                principal: event.principal.as_ref().map(Cow::Borrowed),
                key: key.filter(|_| !key_is_subject),
                client: event.client,
                via: event.via.as_deref().map(Cow::Borrowed),
                claimed: event.claimed.as_deref().map(Cow::Borrowed),
                session: event.session.as_deref().map(Cow::Borrowed),
                ..Self::default()
            },
            Group::About => {
                Self { about: event.about.as_ref().map(Cow::Borrowed), key: key.filter(|_| key_is_subject), ..Self::default() }
            }
            Group::Note => Self { note: event.note.as_deref().map(Cow::Borrowed), ..Self::default() },
        }
    }

    /// Whether it speaks of `subject`.
    pub(crate) fn mentions(&self, subject: &str) -> bool {
        let is = |id: Option<&PrincipalId>| id.is_some_and(|id| id.as_str() == subject);
        let key = subject.strip_prefix(KEY_PRINCIPAL);
        let searched = key.filter(|k| k.len() >= SHORTEST_SEARCHED).unwrap_or(subject);
        is(self.principal.as_deref())
            || is(self.about.as_deref())
            || key.is_some_and(|key| self.key.as_ref().is_some_and(|k| k.as_str() == key))
            || self.note.as_ref().is_some_and(|note| note.contains(searched))
            || self.claimed.as_ref().is_some_and(|claimed| claimed.contains(searched))
            || self.session.as_ref().is_some_and(|session| session.contains(subject))
    }

    pub(crate) fn fill(self, event: &mut AuditEvent) {
        let Self { principal, about, key, client, via, claimed, session, note } = self;
        event.principal = principal.map(Cow::into_owned).or(event.principal.take());
        event.about = about.map(Cow::into_owned).or(event.about.take());
        event.key = key.map(Cow::into_owned).or(event.key.take());
        event.client = client.or(event.client);
        event.via = via.map(|v| Cow::Owned(v.into_owned())).or(event.via.take());
        event.claimed = claimed.map(|c| Cow::Owned(c.into_owned())).or(event.claimed.take());
        event.session = session.map(|s| Cow::Owned(s.into_owned())).or(event.session.take());
        event.note = note.map(|n| Cow::Owned(n.into_owned())).or(event.note.take());
    }
}

/// Commitments as they stand in the hashed bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sealed {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    who: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    about: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl Sealed {
    fn of(&self, group: Group) -> Option<&str> {
        match group {
            Group::Who => self.who.as_deref(),
            Group::About => self.about.as_deref(),
            Group::Note => self.note.as_deref(),
        }
    }
}

fn commitment(group: Group, salt: &[u8], text: &[u8]) -> blake3::Hash {
    blake3::Hasher::new().update(group.name().as_bytes()).update(&[0]).update(salt).update(text).finalize()
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

pub(crate) fn hex_of(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len() * 2);
    push_hex(&mut out, bytes);
    String::from_utf8(out).unwrap_or_default()
}

pub(crate) fn bytes_of<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digits = hex.as_bytes();
    let value = |digit: u8| DIGITS.iter().position(|d| *d == digit);
    if digits.len() != 2 * N {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (value(pair[0])? << 4 | value(pair[1])?) as u8;
    }
    Some(out)
}

/// Makes the salts of this process. Its key is forgotten with the process: without the salt beside the clear text
/// nobody can try out names against a commitment.
pub(crate) struct Sealer {
    key: Zeroizing<[u8; 32]>,
    used: AtomicU64,
}

impl Sealer {
    pub(crate) fn new() -> Result<Self, KeyFileError> {
        Ok(Self { key: Zeroizing::new(*KeyFile::in_memory()?.expose()), used: AtomicU64::new(0) })
    }

    fn salt(&self) -> [u8; SALT] {
        let number = self.used.fetch_add(1, Ordering::Relaxed);
        let hash = blake3::keyed_hash(&self.key, &number.to_le_bytes());
        let mut salt = [0; SALT];
        salt.copy_from_slice(&hash.as_bytes()[..SALT]);
        salt
    }

    /// Adds the commitments to `hashed`, the JSON object of everything else, and returns the clear text with its salts;
    /// empty when the event speaks of nobody.
    pub(crate) fn seal(&self, event: &AuditEvent, hashed: &mut Vec<u8>) -> Result<Vec<u8>, serde_json::Error> {
        let mut open = Vec::new();
        for group in Group::ALL {
            let personal = Personal::of(event, group);
            if personal.is_empty() {
                continue;
            }
            let salt = self.salt();
            if open.is_empty() {
                open.reserve(256);
                hashed.pop();
                hashed.extend_from_slice(b",\"sealed\":{");
                open.push(b'{');
            } else {
                hashed.push(b',');
                open.push(b',');
            }
            push_name(&mut open, group);
            open.extend_from_slice(b"[\"");
            push_hex(&mut open, &salt);
            open.extend_from_slice(b"\",");
            let start = open.len();
            serde_json::to_writer(&mut open, &personal)?;
            let hash = commitment(group, &salt, open.get(start..).unwrap_or_default());
            open.push(b']');
            push_name(hashed, group);
            hashed.push(b'"');
            hashed.extend_from_slice(hash.to_hex().as_bytes());
            hashed.push(b'"');
        }
        if !open.is_empty() {
            open.push(b'}');
            hashed.extend_from_slice(b"}}");
        }
        Ok(open)
    }
}

fn push_name(out: &mut Vec<u8>, group: Group) {
    out.push(b'"');
    out.extend_from_slice(group.name().as_bytes());
    out.extend_from_slice(b"\":");
}

/// One group as it stands after the hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// Salt and clear text.
    Open([u8; SALT], &'a str),
    /// Taken away by this erasure.
    Erased(String),
}

/// Everything after the hash.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Opened<'a>([Option<Part<'a>>; 3]);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form<'a> {
    #[serde(default, borrow)]
    who: Option<&'a RawValue>,
    #[serde(default, borrow)]
    about: Option<&'a RawValue>,
    #[serde(default, borrow)]
    note: Option<&'a RawValue>,
}

fn part(raw: &RawValue) -> Result<Part<'_>, String> {
    if raw.get().starts_with('"') {
        let id: String = serde_json::from_str(raw.get()).map_err(|e| e.to_string())?;
        if id.len() != ERASURE_ID || bytes_of::<{ ERASURE_ID / 2 }>(&id).is_none() {
            return Err("an erasure is not named as erasures are".to_owned());
        }
        return Ok(Part::Erased(id));
    }
    let (salt, text): (&str, &RawValue) = serde_json::from_str(raw.get()).map_err(|e| e.to_string())?;
    let salt = bytes_of(salt).ok_or("a salt is not 32 lower-case digits")?;
    Ok(Part::Open(salt, text.get()))
}

impl<'a> Opened<'a> {
    /// Reads it in the one spelling in which it is written.
    pub(crate) fn read(text: &'a str) -> Result<Self, String> {
        let form: Form<'a> = serde_json::from_str(text).map_err(|e| format!("its personal part cannot be read: {e}"))?;
        let mut opened = Self::default();
        for (group, raw) in Group::ALL.into_iter().zip([form.who, form.about, form.note]) {
            opened.0[group.index()] = raw.map(part).transpose()?;
        }
        if opened.write() != text.as_bytes() {
            return Err("its personal part is not spelt as it was written".to_owned());
        }
        Ok(opened)
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (group, part) in Group::ALL.into_iter().filter_map(|g| self.part(g).map(|p| (g, p))) {
            out.push(if out.is_empty() { b'{' } else { b',' });
            push_name(&mut out, group);
            match part {
                Part::Open(salt, text) => {
                    out.extend_from_slice(b"[\"");
                    push_hex(&mut out, salt);
                    out.extend_from_slice(b"\",");
                    out.extend_from_slice(text.as_bytes());
                    out.push(b']');
                }
                Part::Erased(id) => {
                    out.push(b'"');
                    out.extend_from_slice(id.as_bytes());
                    out.push(b'"');
                }
            }
        }
        if !out.is_empty() {
            out.push(b'}');
        }
        out
    }

    pub(crate) fn part(&self, group: Group) -> Option<&Part<'a>> {
        self.0.get(group.index()).and_then(Option::as_ref)
    }

    /// Takes the groups in `bits` away. Returns whether anything changed.
    pub(crate) fn erase(&mut self, bits: u8, id: &str) -> bool {
        let mut changed = false;
        for (group, slot) in Group::ALL.into_iter().zip(&mut self.0) {
            if bits & group.bit() != 0 && matches!(slot, Some(Part::Open(..))) {
                *slot = Some(Part::Erased(id.to_owned()));
                changed = true;
            }
        }
        changed
    }

    /// The clear groups that speak of `subject`, as bits.
    pub(crate) fn mentions(&self, subject: &str) -> u8 {
        let mut bits = 0;
        for group in Group::ALL {
            if let Some(Part::Open(_, text)) = self.part(group)
                && serde_json::from_str::<Personal<'_>>(text).is_ok_and(|p| p.mentions(subject))
            {
                bits |= group.bit();
            }
        }
        bits
    }

    /// The groups that were taken away and by which erasure.
    pub(crate) fn erased(&self) -> impl Iterator<Item = (Group, &str)> {
        Group::ALL.into_iter().filter_map(|group| match self.part(group) {
            Some(Part::Erased(id)) => Some((group, id.as_str())),
            _ => None,
        })
    }

    /// Whether every clear text fits its commitment, and every commitment has a clear text or an erasure.
    pub(crate) fn check(&self, sealed: &Sealed) -> Result<(), String> {
        for group in Group::ALL {
            match (self.part(group), sealed.of(group)) {
                (None, None) | (Some(Part::Erased(_)), Some(_)) => {}
                (Some(Part::Open(salt, text)), Some(stated)) => {
                    if *commitment(group, salt, text.as_bytes()).to_hex() != *stated {
                        return Err(format!("'{}' was changed: it does not fit its seal", group.name()));
                    }
                }
                (Some(_), None) => return Err(format!("'{}' was added: no seal covers it", group.name())),
                (None, Some(_)) => return Err(format!("'{}' was taken away, and not by an erasure", group.name())),
            }
        }
        Ok(())
    }

    /// Puts what is known of persons into an event read from the hashed bytes.
    pub(crate) fn fill(&self, event: &mut AuditEvent) -> Result<(), String> {
        for group in Group::ALL {
            match self.part(group) {
                None => {}
                Some(Part::Open(_, text)) => {
                    let personal: Personal<'_> = serde_json::from_str(text).map_err(|e| e.to_string())?;
                    personal.fill(event);
                }
                Some(Part::Erased(id)) => {
                    let pseudonym = || PrincipalId::new(format!("{PSEUDONYM}{id}")).map_err(|e| e.to_string());
                    match group {
                        Group::Who => event.principal = Some(pseudonym()?),
                        Group::About => event.about = Some(pseudonym()?),
                        Group::Note => event.note = Some(Cow::Borrowed("[erased]")),
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use portcullis_model::Whence;

    use super::*;
    use proptest::prelude::*;

    fn sealed(event: &AuditEvent) -> (Sealed, String) {
        let mut hashed = br#"{"kind":"call"}"#.to_vec();
        let open = Sealer::new().unwrap().seal(event, &mut hashed).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&hashed).unwrap();
        (serde_json::from_value(value["sealed"].clone()).unwrap(), String::from_utf8(open).unwrap())
    }

    fn anna() -> AuditEvent {
        AuditEvent::new(EventKind::Call)
            .principal_id(PrincipalId::new("user:anna").unwrap())
            .whence(Some(&Whence::direct("192.0.2.7:5000".parse().unwrap())))
            .note("asked for \"more\"")
    }

    #[test]
    fn what_is_sealed_reads_back_and_is_not_in_the_hashed_bytes() {
        let (seal, open) = sealed(&anna());
        let opened = Opened::read(&open).unwrap();
        assert_eq!(opened.check(&seal), Ok(()));
        let mut event = AuditEvent::new(EventKind::Call);
        opened.fill(&mut event).unwrap();
        assert_eq!(event, anna());
        assert_ne!(sealed(&anna()).0, seal, "the same person gives another commitment each time");
    }

    #[test]
    fn erasing_leaves_the_seal_and_a_pseudonym() {
        let (seal, open) = sealed(&anna());
        let mut opened = Opened::read(&open).unwrap();
        assert_eq!(opened.mentions("user:anna"), Group::Who.bit());
        assert_eq!(opened.mentions("user:ann"), 0);
        assert!(opened.erase(Group::Who.bit(), "00112233445566ff"));
        let text = String::from_utf8(opened.write()).unwrap();
        assert!(!text.contains("anna") && !text.contains("192.0.2.7"), "{text}");
        let again = Opened::read(&text).unwrap();
        assert_eq!(again.check(&seal), Ok(()));
        let mut event = AuditEvent::new(EventKind::Call);
        again.fill(&mut event).unwrap();
        assert_eq!(event.principal.unwrap().as_str(), "erased:00112233445566ff");
        assert_eq!((event.client, event.note.as_deref()), (None, Some("asked for \"more\"")));
    }

    #[test]
    fn adding_and_taking_away_are_told() {
        let (seal, open) = sealed(&anna());
        let (more, with_about) = sealed(&anna().about(PrincipalId::new("user:ben").unwrap()));
        assert!(Opened::read(&with_about).unwrap().check(&seal).unwrap_err().contains("changed"));
        assert!(Opened::read(&open).unwrap().check(&more).unwrap_err().contains("changed"));
        assert!(Opened::default().check(&seal).unwrap_err().contains("taken away"));
        assert!(Opened::read(&open).unwrap().check(&Sealed::default()).unwrap_err().contains("added"));
    }

    #[test]
    fn a_key_is_found_by_its_principal_name() {
        let event = AuditEvent::new(EventKind::Key)
            .principal_id(PrincipalId::new("local:root").unwrap())
            .key(KeyId::new("abcdef").unwrap());
        let (_, open) = sealed(&event);
        assert_eq!(Opened::read(&open).unwrap().mentions("key:abcdef"), Group::About.bit());
        assert_eq!(Opened::read(&open).unwrap().mentions("local:root"), Group::Who.bit());
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_noticed(position in 0..400_usize, byte in any::<u8>()) {
            let (seal, open) = sealed(&anna());
            let mut bytes = open.into_bytes();
            let position = position % bytes.len();
            prop_assume!(bytes[position] != byte);
            bytes[position] = byte;
            let unnoticed = std::str::from_utf8(&bytes)
                .is_ok_and(|text| Opened::read(text).is_ok_and(|opened| opened.check(&seal).is_ok()));
            prop_assert!(!unnoticed, "{}", String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn hexadecimal_reads_back(bytes in any::<[u8; 16]>()) {
            prop_assert_eq!(bytes_of::<16>(&hex_of(&bytes)), Some(bytes));
        }
    }
}
