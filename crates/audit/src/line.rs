//! One record as a line of bytes, and the hash that ties it to the one before. Nothing else writes or reads lines.

use portcullis_model::{Timestamp, format_timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::seal::{Opened, Sealed};
use crate::{ChainMark, EventKind};

/// A hash of the chain.
pub(crate) type Hash = [u8; 32];

/// `prev` of the first record.
pub(crate) const GENESIS: Hash = [0; 32];

/// Longest line that is read, in bytes; what this program writes is far below.
pub(crate) const MAX_LINE: u64 = 1 << 20;

const HASH_KEY: &[u8] = b",\"hash\":\"";
const OPEN_KEY: &[u8] = b"\",\"open\":";
const END: &[u8] = b"\"}";

pub(crate) fn hex(hash: &Hash) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}

pub(crate) fn unhex(text: &str) -> Result<Hash, String> {
    // Upper-case digits would be a second spelling of the same hash.
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("a hash is not written in lower-case digits".to_owned());
    }
    blake3::Hash::from_hex(text).map(|h| *h.as_bytes()).map_err(|e| format!("a hash is not 64 digits: {e}"))
}

fn chained(prev: &Hash, body: &[u8]) -> Hash {
    *blake3::Hasher::new().update(prev).update(body).finalize().as_bytes()
}

/// The bytes of an event: what the hash covers, and what stands after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoded {
    /// A JSON object with at least one member.
    pub(crate) hashed: Vec<u8>,
    /// A JSON object, or nothing.
    pub(crate) open: Vec<u8>,
}

/// Replaces `out` by the line, line feed included, and returns its hash.
pub(crate) fn write_line(out: &mut Vec<u8>, sequence: u64, time: Timestamp, prev: &Hash, event: &Encoded) -> Hash {
    let hashed = &event.hashed;
    out.clear();
    out.extend_from_slice(b"{\"seq\":");
    out.extend_from_slice(sequence.to_string().as_bytes());
    out.extend_from_slice(b",\"time\":\"");
    out.extend_from_slice(format_timestamp(time).as_bytes());
    out.extend_from_slice(b"\",\"prev\":\"");
    out.extend_from_slice(blake3::Hash::from_bytes(*prev).to_hex().as_bytes());
    out.extend_from_slice(b"\",");
    out.extend_from_slice(hashed.get(1..hashed.len().saturating_sub(1)).unwrap_or_default());
    let hash = chained(prev, out);
    out.extend_from_slice(HASH_KEY);
    out.extend_from_slice(blake3::Hash::from_bytes(hash).to_hex().as_bytes());
    if event.open.is_empty() {
        out.extend_from_slice(END);
    } else {
        out.extend_from_slice(OPEN_KEY);
        out.extend_from_slice(&event.open);
        out.push(b'}');
    }
    out.push(b'\n');
    hash
}

/// What ties a line into its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Links {
    pub(crate) sequence: u64,
    pub(crate) prev: Hash,
    /// The hash the line states.
    pub(crate) stated: Hash,
    /// The hash its bytes have.
    pub(crate) computed: Hash,
    pub(crate) kind: EventKind,
    /// What the log says about itself here.
    pub(crate) mark: Option<ChainMark>,
    /// Which groups of personal text were taken away: bit and name of the erasure.
    pub(crate) erased: Vec<(u8, String)>,
    /// Why the personal text does not fit its seal, if it does not.
    pub(crate) unsealed: Option<String>,
}

impl Links {
    /// Whether the line is what it was when it was written, erasures aside.
    pub(crate) fn is_whole(&self) -> bool {
        self.stated == self.computed && self.unsealed.is_none()
    }
}

#[derive(Deserialize)]
struct Members<'a> {
    seq: u64,
    #[serde(borrow)]
    prev: &'a str,
    hash: &'a str,
    kind: EventKind,
    #[serde(default)]
    chain: Option<ChainMark>,
    #[serde(default)]
    sealed: Option<Sealed>,
    #[serde(default, borrow)]
    open: Option<&'a RawValue>,
}

impl Members<'_> {
    fn suffix(&self) -> Vec<u8> {
        let mut suffix = [HASH_KEY, self.hash.as_bytes()].concat();
        match self.open {
            None => suffix.extend_from_slice(END),
            Some(open) => {
                suffix.extend_from_slice(OPEN_KEY);
                suffix.extend_from_slice(open.get().as_bytes());
                suffix.push(b'}');
            }
        }
        suffix
    }
}

/// Reads a line without its line feed.
pub(crate) fn read_links(line: &[u8]) -> Result<Links, String> {
    let members: Members<'_> = serde_json::from_slice(line).map_err(|e| format!("it is not an audit record: {e}"))?;
    let body = line.strip_suffix(members.suffix().as_slice()).ok_or("it does not end with its hash")?;
    let prev = unhex(members.prev)?;
    let opened = members.open.map_or_else(|| Ok(Opened::default()), |open| Opened::read(open.get()))?;
    Ok(Links {
        sequence: members.seq,
        prev,
        stated: unhex(members.hash)?,
        computed: chained(&prev, body),
        kind: members.kind,
        mark: members.chain,
        erased: opened.erased().map(|(group, id)| (group.bit(), id.to_owned())).collect(),
        unsealed: opened.check(&members.sealed.unwrap_or_default()).err(),
    })
}

/// The personal text of a line, and where it stands in it; `None` when it has none.
pub(crate) fn read_open(line: &str) -> Result<Option<(Opened<'_>, std::ops::Range<usize>)>, String> {
    let members: Members<'_> = serde_json::from_str(line).map_err(|e| format!("it is not an audit record: {e}"))?;
    let Some(open) = members.open else { return Ok(None) };
    let end = line.len() - 1;
    let start = end.checked_sub(open.get().len()).ok_or("its personal part is misplaced")?;
    Ok(Some((Opened::read(open.get())?, start..end)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line() -> Vec<u8> {
        let mut out = Vec::new();
        let event = Encoded { hashed: br#"{"kind":"call","tool":"x"}"#.to_vec(), open: Vec::new() };
        write_line(&mut out, 7, Timestamp::from_seconds(1_800_000_000), &[3; 32], &event);
        out.pop();
        out
    }

    #[test]
    fn a_line_written_before_seals_existed_still_fits_its_hash() {
        let old = concat!(
            r#"{"seq":1,"time":"2027-01-15T08:00:00Z","prev":"0000000000000000000000000000000000000000000000000000000000000000","#,
            r#""kind":"call","principal":"user:anna","tool":"x""#
        );
        let hash = blake3::Hasher::new().update(&GENESIS).update(old.as_bytes()).finalize();
        let line = format!(r#"{old},"hash":"{hash}"}}"#);
        assert!(read_links(line.as_bytes()).unwrap().is_whole());
    }

    #[test]
    fn a_line_reads_back_and_is_plain_json() {
        let links = read_links(&line()).unwrap();
        assert_eq!((links.sequence, links.prev, links.is_whole()), (7, [3; 32], true));
        let value: serde_json::Value = serde_json::from_slice(&line()).unwrap();
        assert_eq!((value["tool"].as_str(), value["time"].as_str()), (Some("x"), Some("2027-01-15T08:00:00Z")));
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_noticed(position in 0..300_usize, byte in any::<u8>()) {
            let mut line = line();
            let position = position % line.len();
            prop_assume!(line[position] != byte);
            line[position] = byte;
            prop_assert!(!read_links(&line).is_ok_and(|l| l.is_whole()), "{}", String::from_utf8_lossy(&line));
        }

        #[test]
        fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(read_links(&bytes).is_err());
        }
    }
}
