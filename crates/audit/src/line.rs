//! One record as a line of bytes, and the hash that ties it to the one before. Nothing else writes or reads lines.

use portcullis_model::{Timestamp, format_timestamp};
use serde::Deserialize;

use crate::{ChainMark, EventKind};

/// A hash of the chain.
pub(crate) type Hash = [u8; 32];

/// `prev` of the first record.
pub(crate) const GENESIS: Hash = [0; 32];

/// Longest line that is read, in bytes; what this program writes is far below.
pub(crate) const MAX_LINE: u64 = 1 << 20;

const HASH_KEY: &[u8] = b",\"hash\":\"";
const END: &[u8] = b"\"}";
const SUFFIX: usize = HASH_KEY.len() + 64 + END.len();

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

/// Replaces `out` by the line, line feed included, and returns its hash. `event` is a JSON object with at least one
/// member.
pub(crate) fn write_line(out: &mut Vec<u8>, sequence: u64, time: Timestamp, prev: &Hash, event: &[u8]) -> Hash {
    out.clear();
    out.extend_from_slice(b"{\"seq\":");
    out.extend_from_slice(sequence.to_string().as_bytes());
    out.extend_from_slice(b",\"time\":\"");
    out.extend_from_slice(format_timestamp(time).as_bytes());
    out.extend_from_slice(b"\",\"prev\":\"");
    out.extend_from_slice(blake3::Hash::from_bytes(*prev).to_hex().as_bytes());
    out.extend_from_slice(b"\",");
    out.extend_from_slice(event.get(1..event.len().saturating_sub(1)).unwrap_or_default());
    let hash = chained(prev, out);
    out.extend_from_slice(HASH_KEY);
    out.extend_from_slice(blake3::Hash::from_bytes(hash).to_hex().as_bytes());
    out.extend_from_slice(END);
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
}

impl Links {
    /// Whether the line is what it was when it was written.
    pub(crate) fn is_whole(&self) -> bool {
        self.stated == self.computed
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
}

/// Reads a line without its line feed.
pub(crate) fn read_links(line: &[u8]) -> Result<Links, String> {
    let members: Members<'_> = serde_json::from_slice(line).map_err(|e| format!("it is not an audit record: {e}"))?;
    let (body, suffix) = line.split_at_checked(line.len().wrapping_sub(SUFFIX)).ok_or("it is too short")?;
    if !suffix.starts_with(HASH_KEY)
        || !suffix.ends_with(END)
        || suffix.get(HASH_KEY.len()..SUFFIX - END.len()) != Some(members.hash.as_bytes())
    {
        return Err("it does not end with its hash".to_owned());
    }
    let prev = unhex(members.prev)?;
    Ok(Links {
        sequence: members.seq,
        prev,
        stated: unhex(members.hash)?,
        computed: chained(&prev, body),
        kind: members.kind,
        mark: members.chain,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line() -> Vec<u8> {
        let mut out = Vec::new();
        write_line(&mut out, 7, Timestamp::from_seconds(1_800_000_000), &[3; 32], br#"{"kind":"call","tool":"x"}"#);
        out.pop();
        out
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
