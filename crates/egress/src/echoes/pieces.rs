//! Texts that are read one after the other: the blocks of an answer, the messages of a prompt, the items of a list. Guards
//! that what is split between two of them or many is looked at as it is read, without copying what is far from a border. Must
//! not know what is looked for.

use std::ops::Range;

use serde_json::Value;

/// Members that hold what is read of a block or a message.
const BODIES: [&str; 5] = ["text", "content", "resource", "blob", "data"];
/// How deep these are in each other: the text of a resource in the content of a message.
const DEEPEST: usize = 4;

/// The texts of a list, in the order in which they are read.
pub(super) fn texts(items: &mut [Value]) -> Vec<&mut String> {
    let mut found = Vec::new();
    for item in items {
        collect(item, DEEPEST, &mut found);
    }
    found
}

fn collect<'v>(value: &'v mut Value, depth: usize, found: &mut Vec<&'v mut String>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(items) if depth > 0 => {
            for item in items {
                collect(item, depth - 1, found);
            }
        }
        Value::Object(members) if depth > 0 => {
            for (name, member) in members {
                if BODIES.contains(&name.as_str()) {
                    collect(member, depth - 1, found);
                }
            }
        }
        _ => {}
    }
}

/// A part of a text within a stretch.
#[derive(Debug)]
struct Part {
    /// Where it begins in the stretch.
    begins: usize,
    /// Which text it is of.
    text: usize,
    /// Where it begins in that.
    at: usize,
    length: usize,
}

/// Ends and beginnings of texts as they are read, without a gap.
#[derive(Debug, Default)]
pub(super) struct Stretch {
    pub(super) bytes: Vec<u8>,
    parts: Vec<Part>,
}

impl Stretch {
    fn push(&mut self, text: usize, at: usize, bytes: &[u8]) {
        self.parts.push(Part { begins: self.bytes.len(), text, at, length: bytes.len() });
        self.bytes.extend_from_slice(bytes);
    }

    /// Which texts a place is in, and where.
    pub(super) fn within<'s>(&'s self, place: &'s Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> + 's {
        self.parts.iter().filter_map(|part| {
            let (from, to) = (place.start.max(part.begins), place.end.min(part.begins + part.length));
            (from < to).then(|| (part.text, part.at + from - part.begins..part.at + to - part.begins))
        })
    }
}

/// The stretches of these texts in which something can be that crosses a border, if it begins and ends at most `window` bytes
/// away from it.
pub(super) fn stretches(texts: &[&mut String], window: usize) -> Vec<Stretch> {
    let (mut all, mut open) = (Vec::new(), Stretch::default());
    for (index, text) in texts.iter().enumerate() {
        let bytes = text.as_bytes();
        if bytes.len() <= window.saturating_mul(2) {
            open.push(index, 0, bytes);
            continue;
        }
        open.push(index, 0, bytes.get(..window).unwrap_or_default());
        all.push(std::mem::take(&mut open));
        let tail = bytes.len() - window;
        open.push(index, tail, bytes.get(tail..).unwrap_or_default());
    }
    all.push(open);
    all.retain(|stretch| stretch.parts.len() > 1);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_far_from_a_border_is_not_looked_at() {
        let long = format!("{}{}{}", "a".repeat(4), "-".repeat(1_000), "z".repeat(4));
        let mut list = json!(["one", long, {"type": "text", "text": "two"}, 7, {"content": [{"resource": {"text": "three"}}]}]);
        let items = list.as_array_mut().unwrap();
        let texts = texts(items);
        let all = stretches(&texts, 4);
        let read: Vec<_> = all.iter().map(|one| String::from_utf8_lossy(&one.bytes).into_owned()).collect();
        assert_eq!(read, ["oneaaaa", "zzzztwothree"]);
        let within: Vec<_> = all[1].within(&(2..8)).collect();
        assert_eq!(within, [(1, 1_006..1_008), (2, 0..3), (3, 0..1)]);
        assert!(stretches(&texts[1..2], 4).is_empty(), "one text has no border");
    }
}
