//! Pages and cursors: where an answer stopped, in a form the client hands back unread.
//!
//! Guards that a damaged, foreign or future cursor is refused with a reason and never guessed at. A cursor here
//! carries a checksum against damage, not a signature: the gate seals it for the caller and the question before it goes
//! out, opens it when it comes back, and asks the rules about what it reads.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_model::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Layout version, the first byte of every cursor.
const VERSION: u8 = 1;
/// Longest cursor text that is looked at.
const MAX_CURSOR_CHARS: usize = 2048;

/// A cursor that cannot be used; each case is the caller's to fix by asking again without a cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Not something this server made, or damaged on the way.
    #[error("the cursor is damaged; pass 'next' back exactly as it was returned, or leave the cursor out to start again")]
    Damaged,
    /// Made by another version of the layout.
    #[error("the cursor has format {found}, this server uses {VERSION}; leave the cursor out to start again")]
    Version {
        /// Version found.
        found: u8,
    },
    /// Made by another tool or for another question.
    #[error("the cursor belongs to another question; repeat the call that returned it with the same arguments, or leave it out")]
    OtherQuestion,
    /// The position does not fit into a cursor.
    #[error("the position is too large for a cursor ({bytes} bytes)")]
    TooLarge {
        /// Size of the encoded position.
        bytes: usize,
    },
}

/// The positions most tools need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// Skip this many items of a stable order.
    Offset(u64),
    /// Continue at this time, skipping `seen` items that share it.
    Time {
        /// Time stamp of the last item shown.
        at: Timestamp,
        /// How many items with exactly that time stamp were already shown.
        seen: u32,
    },
    /// Continue after this key of a sorted list.
    After(String),
}

/// Encodes a position. `question` names the tool and its arguments (anything equal for the same question); it is
/// stored as a checksum, so that a cursor of one question is refused by another.
pub fn encode_cursor<P: Serialize>(question: &str, position: &P) -> Result<String, CursorError> {
    let body = serde_json::to_vec(position).map_err(|_| CursorError::Damaged)?;
    let mut bytes = Vec::with_capacity(body.len() + 9);
    bytes.push(VERSION);
    bytes.extend_from_slice(&crc32fast::hash(question.as_bytes()).to_be_bytes());
    bytes.extend_from_slice(&body);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    let text = URL_SAFE_NO_PAD.encode(&bytes);
    if text.len() > MAX_CURSOR_CHARS {
        return Err(CursorError::TooLarge { bytes: body.len() });
    }
    Ok(text)
}

/// Decodes what [`encode_cursor`] made for the same `question`.
pub fn decode_cursor<P: DeserializeOwned>(question: &str, cursor: &str) -> Result<P, CursorError> {
    if cursor.len() > MAX_CURSOR_CHARS {
        return Err(CursorError::Damaged);
    }
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| CursorError::Damaged)?;
    let (rest, checksum) = bytes.split_last_chunk::<4>().ok_or(CursorError::Damaged)?;
    if crc32fast::hash(rest).to_be_bytes() != *checksum {
        return Err(CursorError::Damaged);
    }
    let (version, rest) = rest.split_first().ok_or(CursorError::Damaged)?;
    if *version != VERSION {
        return Err(CursorError::Version { found: *version });
    }
    let (fingerprint, body) = rest.split_first_chunk::<4>().ok_or(CursorError::Damaged)?;
    if crc32fast::hash(question.as_bytes()).to_be_bytes() != *fingerprint {
        return Err(CursorError::OtherQuestion);
    }
    serde_json::from_slice(body).map_err(|_| CursorError::Damaged)
}

/// How many items there are in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Total {
    /// Counted.
    Exact(u64),
    /// There are at least this many; the source stopped counting or does not say.
    AtLeast(u64),
}

/// Where an answer stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Items in this answer.
    pub shown: u64,
    /// Items there are; absent when nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Total>,
    /// Whether something was left out of this answer.
    pub truncated: bool,
    /// Cursor of the next page, when there is one to be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Page {
    /// An answer that shows everything there is.
    pub fn complete(shown: u64) -> Self {
        Self { shown, total: Some(Total::Exact(shown)), truncated: false, next: None }
    }

    /// An answer that stopped early; `total` as far as known, `next` if it can be continued.
    pub fn partial(shown: u64, total: Option<Total>, next: Option<String>) -> Self {
        Self { shown, total, truncated: true, next }
    }

    /// One line for people: `20 of 153 shown`, `20 of at least 1000 shown, more with the cursor`.
    pub fn describe(&self) -> String {
        let mut text = match self.total {
            Some(Total::Exact(total)) if !self.truncated && total == self.shown => format!("{total} shown, that is all"),
            Some(Total::Exact(total)) => format!("{} of {total} shown", self.shown),
            Some(Total::AtLeast(total)) => format!("{} of at least {total} shown", self.shown),
            None if self.truncated => format!("{} shown, there are more", self.shown),
            None => format!("{} shown", self.shown),
        };
        if self.next.is_some() {
            text.push_str(", more with the cursor");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn another_question_and_another_version_are_named() {
        let cursor = encode_cursor("query_logs|a", &Position::Offset(20)).unwrap();
        assert_eq!(decode_cursor::<Position>("query_logs|b", &cursor), Err(CursorError::OtherQuestion));
        let mut bytes = URL_SAFE_NO_PAD.decode(&cursor).unwrap();
        bytes[0] = 9;
        let end = bytes.len() - 4;
        let checksum = crc32fast::hash(&bytes[..end]).to_be_bytes();
        bytes[end..].copy_from_slice(&checksum);
        let future = URL_SAFE_NO_PAD.encode(&bytes);
        assert_eq!(decode_cursor::<Position>("query_logs|a", &future), Err(CursorError::Version { found: 9 }));
    }

    #[test]
    fn an_oversized_position_is_refused() {
        let huge = Position::After("x".repeat(4000));
        assert!(matches!(encode_cursor("q", &huge), Err(CursorError::TooLarge { .. })));
    }

    #[test]
    fn pages_say_what_they_left_out() {
        assert_eq!(Page::complete(3).describe(), "3 shown, that is all");
        assert_eq!(
            Page::partial(20, Some(Total::AtLeast(1000)), Some("c".into())).describe(),
            "20 of at least 1000 shown, more with the cursor"
        );
        assert_eq!(Page::partial(20, None, None).describe(), "20 shown, there are more");
    }

    fn position() -> impl Strategy<Value = Position> {
        prop_oneof![
            any::<u64>().prop_map(Position::Offset),
            (any::<i64>(), any::<u32>()).prop_map(|(at, seen)| Position::Time { at: Timestamp::from_nanos(at), seen }),
            "\\PC{0,60}".prop_map(Position::After),
        ]
    }

    proptest! {
        #[test]
        fn cursors_round_trip(position in position(), question in "\\PC{0,40}") {
            let cursor = encode_cursor(&question, &position).unwrap();
            prop_assert!(cursor.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            prop_assert_eq!(decode_cursor::<Position>(&question, &cursor), Ok(position));
        }

        #[test]
        fn arbitrary_text_is_refused_without_panic(text in "\\PC{0,200}") {
            prop_assert!(decode_cursor::<Position>("q", &text).is_err());
        }

        #[test]
        fn a_changed_character_is_noticed(position in position(), at in any::<prop::sample::Index>(), with in "[A-Za-z0-9_-]") {
            let cursor = encode_cursor("q", &position).unwrap();
            let at = at.index(cursor.len());
            let mut changed = cursor.clone();
            changed.replace_range(at..=at, &with);
            if changed != cursor {
                prop_assert!(decode_cursor::<Position>("q", &changed).is_err());
            }
            prop_assert!(decode_cursor::<Position>("q", &cursor[..at]).is_err());
        }
    }
}
