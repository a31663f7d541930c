//! Kubernetes Secrets inside text: the values under `data` and `stringData`, in YAML and in JSON at any depth of escaping,
//! whole or cut off. Names of entries stay. Where it is not certain whose `data` it is, its values go.

use super::fields::{in_name, quoted_at, word_before};

/// Whether the word and value around a separator at `at` say `kind: Secret`.
pub(super) fn says_secret(bytes: &[u8], at: usize) -> bool {
    word_before(bytes, at).is_some_and(|(a, b)| bytes[a..b].ends_with(b"kind")) && value_is_secret(bytes, at + 1)
}

fn value_is_secret(bytes: &[u8], at: usize) -> bool {
    let skipped = bytes[at..].iter().take(12).take_while(|b| matches!(**b, b' ' | b'\\' | b'"' | b'\'')).count();
    let word = &bytes[at + skipped..];
    let length = word.iter().take(16).take_while(|b| b.is_ascii_alphanumeric()).count();
    matches!(&word[..length], b"Secret" | b"SecretList" | b"SealedSecret")
}

/// How many bytes may be looked at to learn whose `data` is meant, for every byte of the text and in any case. Nobody honest
/// comes near; beyond it every `data` counts as a Secret's.
const LOOKED_AT: (usize, usize) = (32, 1 << 18);

/// The values of every `data` and `stringData` that may belong to a Secret.
pub(super) fn values(bytes: &[u8], mut found: impl FnMut(usize, usize)) {
    let mut left = LOOKED_AT.0 * bytes.len() + LOOKED_AT.1;
    // What is inside a map whose values go, goes with it.
    let mut floor = 0;
    for at in memchr::memmem::find_iter(bytes, b"ata") {
        let Some(start) = at.checked_sub(1).filter(|start| *start >= floor) else { continue };
        let start = match bytes[start] {
            b'd' => start,
            b'D' if bytes[..start].ends_with(b"string") => start - 6,
            _ => continue,
        };
        if start
            .checked_sub(1)
            .is_some_and(|i| in_name(bytes[i]) && !bytes[..start].ends_with(b"\\n") && !bytes[..start].ends_with(b"- "))
        {
            continue;
        }
        let mut cursor = at + 3;
        while matches!(bytes.get(cursor), Some(b'\\' | b'"' | b'\'')) {
            cursor += 1;
        }
        while bytes.get(cursor) == Some(&b' ') {
            cursor += 1;
        }
        if bytes.get(cursor) != Some(&b':') {
            continue;
        }
        cursor += 1;
        let open = cursor + bytes[cursor..].iter().take_while(|b| b.is_ascii_whitespace()).count();
        if bytes.get(open) == Some(&b'{') {
            if owner_in_json(bytes, start, open, &mut left) {
                floor = members(bytes, open + 1, &mut found);
            }
        } else if bytes[cursor..open].contains(&b'\n') && owner_in_yaml(bytes, start, &mut left) {
            entries(bytes, start, &mut found);
        }
    }
}

/// Whether the object around a `data` key is a Secret, or does not say what it is.
fn owner_in_json(bytes: &[u8], key: usize, open: usize, left: &mut usize) -> bool {
    let mut depth = 0_usize;
    let mut said = None;
    for at in (key.saturating_sub(65_536)..key).rev() {
        *left = left.saturating_sub(1);
        if *left == 0 {
            return true;
        }
        match bytes[at] {
            b'}' | b']' => depth += 1,
            b'{' | b'[' if depth == 0 => break,
            b'{' | b'[' => depth -= 1,
            b':' if depth == 0 && kind_key(bytes, at) => said = Some(at),
            _ => {}
        }
    }
    let mut depth = 0_usize;
    for at in open..bytes.len().min(open + 65_536) {
        *left = left.saturating_sub(1);
        if *left == 0 {
            return true;
        }
        match bytes[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => break,
            b'}' | b']' => depth -= 1,
            b':' if depth == 0 && kind_key(bytes, at) => said = Some(at),
            _ => {}
        }
    }
    said.is_none_or(|at| value_is_secret(bytes, at + 1))
}

fn kind_key(bytes: &[u8], at: usize) -> bool {
    word_before(bytes, at).is_some_and(|(a, b)| &bytes[a..b] == b"kind")
}

/// The values of the members of a map, from behind its opening brace to its end or the end of the text. Says where that is.
fn members(bytes: &[u8], from: usize, found: &mut impl FnMut(usize, usize)) -> usize {
    let mut at = from;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'}' => return at,
            b':' => {
                let start = at + 1 + bytes[at + 1..].iter().take_while(|b| b.is_ascii_whitespace()).count();
                if let Some(place) = quoted_at(bytes, start) {
                    found(place.start, place.end);
                    at = place.end;
                    while matches!(bytes.get(at), Some(b'"' | b'\'' | b'\\')) {
                        at += 1;
                    }
                } else {
                    let length = bytes[start..].iter().take_while(|b| !matches!(**b, b',' | b'}' | b'\n')).count();
                    found(start, start + length);
                    at = start + length;
                }
            }
            // A key in quotes: a colon inside it separates nothing.
            b'"' | b'\'' | b'\\' => {
                at = quoted_at(bytes, at).map_or(at + 1, |key| key.end);
                while matches!(bytes.get(at), Some(b'"' | b'\'' | b'\\')) {
                    at += 1;
                }
            }
            _ => at += 1,
        }
    }
    at
}

struct Line {
    start: usize,
    end: usize,
    indent: usize,
}

fn line_at(bytes: &[u8], at: usize) -> Line {
    let start = memchr::memrchr(b'\n', &bytes[..at]).map_or(0, |n| n + 1);
    let end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |n| at + n);
    // An entry of a list is indented by its dash as well.
    let indent = bytes[start..end].iter().take_while(|b| matches!(**b, b' ' | b'-')).count();
    Line { start, end, indent }
}

fn blank(line: &Line) -> bool {
    line.start + line.indent >= line.end
}

/// Whether the YAML map around a `data:` line is a Secret, or does not say what it is.
fn owner_in_yaml(bytes: &[u8], key: usize, left: &mut usize) -> bool {
    let own = line_at(bytes, key);
    if key != own.start + own.indent {
        return false;
    }
    let kind_of = |line: &Line| {
        let text = &bytes[line.start + line.indent..line.end];
        (line.indent == own.indent && text.starts_with(b"kind:")).then(|| value_is_secret(bytes, line.start + line.indent + 5))
    };
    let starts_item = |line: &Line| bytes[line.start..line.start + line.indent].contains(&b'-');
    let mut above = if starts_item(&own) { 0 } else { own.start };
    while above > 0 {
        let line = line_at(bytes, above - 1);
        *left = left.saturating_sub(line.end - line.start + 16);
        if *left == 0 {
            return true;
        }
        let separator = bytes[line.start..line.end].starts_with(b"---");
        if separator || (line.indent < own.indent && !blank(&line)) {
            break;
        }
        if let Some(secret) = kind_of(&line) {
            return secret;
        }
        // The first line of the entry of a list.
        if line.indent == own.indent && starts_item(&line) {
            break;
        }
        above = line.start;
    }
    let mut below = own.end;
    while below < bytes.len() {
        let line = line_at(bytes, below + 1);
        *left = left.saturating_sub(line.end - line.start + 16);
        if *left == 0 {
            return true;
        }
        let separator = bytes[line.start..line.end].starts_with(b"---");
        if separator || (line.indent < own.indent && !blank(&line)) || (line.indent == own.indent && starts_item(&line)) {
            break;
        }
        if let Some(secret) = kind_of(&line) {
            return secret;
        }
        below = line.end.max(below + 1);
    }
    true
}

/// The values of the lines indented deeper than the `data:` line at `key`.
fn entries(bytes: &[u8], key: usize, found: &mut impl FnMut(usize, usize)) {
    let own = line_at(bytes, key);
    let mut child = None;
    let mut at = own.end + 1;
    while at < bytes.len() {
        let line = line_at(bytes, at);
        at = line.end + 1;
        if blank(&line) {
            continue;
        }
        if line.indent <= own.indent {
            return;
        }
        let child = *child.get_or_insert(line.indent);
        let text = line.start + line.indent;
        let colon = memchr::memchr(b':', &bytes[text..line.end]).filter(|_| line.indent == child);
        let from = match colon {
            Some(colon) => text + colon + 1,
            None => text,
        };
        let from = from + bytes[from..line.end].iter().take_while(|b| b.is_ascii_whitespace()).count();
        let header = matches!(&bytes[from..line.end], b"|" | b">" | b"|-" | b">-" | b"|+" | b">+");
        if from < line.end && !header {
            found(from, line.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        values(text.as_bytes(), |a, b| found.push(&text[a..b]));
        found
    }

    #[test]
    fn yaml_of_a_secret_and_not_of_its_neighbours() {
        let text = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: a\ndata:\n  user: dQ==\n  x.y: |\n    cA==\ntype: Opaque\n---\nkind: ConfigMap\ndata:\n  a: b\n";
        assert_eq!(hidden(text), ["dQ==", "cA=="]);
        let list = "kind: List\nitems:\n- data:\n    a: b\n  kind: ConfigMap\n- stringData:\n    c: d\n  kind: Secret\n";
        assert_eq!(hidden(list), ["d"]);
    }

    #[test]
    fn json_of_a_secret_escaped_or_cut() {
        assert_eq!(hidden(r#"{"kind":"Secret","data":{"a":"eA==","b:c":"eQ=="},"type":"x"}"#), ["eA==", "eQ=="]);
        assert_eq!(hidden(r#"{\"data\":{\"a\":\"eA==\"},\"kind\":\"Secret\"}"#), ["eA=="]);
        assert_eq!(hidden(r#"{"kind":"Secret","data":{"a":"eA"#), ["eA"]);
        assert_eq!(hidden(r#"{"items":[{"kind":"ConfigMap","data":{"a":"b"}}],"kind":"List"}"#), Vec::<&str>::new());
        assert!(says_secret(br#"{"kind":"Secret"}"#, 7) && says_secret(b"kind: Secret", 4) && !says_secret(b"kind: Service", 4));
    }
}
