//! Names of fields and their values in text: `password=x`, `"apiKey": "x"`, `\"token\":\"x\"`, `DB_PASSWORD: x`.
//! Names stay, values go. Guards against the two ways to be wrong: a value cut too early leaks its tail, and prose
//! such as `token: expired` is no secret.

use portcullis_model::secret_name::foreign;
pub(super) use portcullis_model::secret_name::{ENDINGS, SESSION, SUFFIXES, Strength, WORDS, foreign_word, strength as judged};

use super::quick;

/// Judges a whole name: a JSON key, a column, an environment variable.
pub(super) fn strength(name: &[u8]) -> Option<Strength> {
    if quick::may_end(name, true) {
        judged(name)
    } else if name.is_ascii() {
        None
    } else {
        foreign(name)
    }
}

/// Bytes of a name in text.
pub(super) const fn in_name(byte: u8) -> bool {
    static TABLE: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0_usize;
        while byte < 256 {
            let b = byte as u8;
            table[byte] = b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/' | b'$');
            byte += 1;
        }
        table
    };
    TABLE[byte as usize]
}

/// A name in front of a separator: its strength and whether it stood in quotes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name {
    pub(super) strength: Strength,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The name that ends in front of `at` (the place of a separator), if it is a secret's.
pub(super) fn name_before(bytes: &[u8], at: usize) -> Option<Name> {
    word_before(bytes, at).and_then(|word| name_of(bytes, word))
}

/// The same where the word is known already.
pub(super) fn name_of(bytes: &[u8], (start, end): (usize, usize)) -> Option<Name> {
    let word = &bytes[start..end];
    if let Some(strength) = strength(word) {
        return Some(Name { strength, start, end });
    }
    // `access key: …`, `api key = …`
    let last = word.last_chunk::<3>()?;
    if !last.eq_ignore_ascii_case(b"key") || word.len() != 3 || start < 3 || bytes[start - 1] != b' ' {
        return None;
    }
    let (earlier, _) = word_before(bytes, start - 1)?;
    let strength = strength(&bytes[earlier..end])?;
    Some(Name { strength, start: earlier, end })
}

/// The word of another script for a password that ends in front of `at`.
pub(super) fn foreign_before(bytes: &[u8], at: usize) -> Option<Name> {
    let end = word_end(bytes, at);
    // Those that are looked for in text end in a letter beyond ASCII, or in one of ASCII behind it.
    if bytes[end.saturating_sub(2)..end].is_ascii() {
        return None;
    }
    let length = foreign_word(&bytes[..end])?;
    Some(Name { strength: Strength::Password, start: end - length, end })
}

/// The word in front of `at`, looking over spaces, a closing bracket, quotes and their backslashes.
pub(super) fn word_before(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let end = word_end(bytes, at);
    let floor = end.saturating_sub(128);
    let mut start = end;
    while start > floor && in_name(bytes[start - 1]) {
        start -= 1;
    }
    (start < end).then_some((start, end))
}

/// Where that word ends.
pub(super) fn word_end(bytes: &[u8], at: usize) -> usize {
    let mut end = at;
    let mut spaces = 0;
    while end > 0 && bytes[end - 1] == b' ' && spaces < 3 {
        end -= 1;
        spaces += 1;
    }
    if end > 1 && bytes[end - 1] == b']' && matches!(bytes[end - 2], b'"' | b'\'') {
        end -= 1;
    }
    if end > 0 && matches!(bytes[end - 1], b'"' | b'\'' | b'`') {
        end -= 1;
        while end > 0 && bytes[end - 1] == b'\\' {
            end -= 1;
        }
    }
    end
}

/// Where a value lies, and how it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) quoted: bool,
}

/// The value behind a separator that ends at `at`.
pub(super) fn value_after(bytes: &[u8], at: usize) -> Option<Place> {
    let mut start = at;
    while start < bytes.len() && start - at < 4 && bytes[start] == b' ' {
        start += 1;
    }
    quoted_at(bytes, start).or_else(|| bare_at(bytes, start))
}

/// A quoted value whose opening quote, with its backslashes, is at `at`.
pub(super) fn quoted_at(bytes: &[u8], at: usize) -> Option<Place> {
    let slashes = bytes[at..].iter().take_while(|b| **b == b'\\').count();
    let quote = *bytes.get(at + slashes)?;
    if !matches!(quote, b'"' | b'\'' | b'`') {
        return None;
    }
    let start = at + slashes + 1;
    let mut run = 0_usize;
    for (offset, byte) in bytes[start..].iter().enumerate() {
        match *byte {
            b'\\' => run += 1,
            b if b == quote => {
                // As many backslashes as the opening had, or fewer: it closes. Where the quote itself is escaped
                // inside the value there are more, and an odd number beyond those of escaped backslashes.
                if run <= slashes || (slashes == 0 && run.is_multiple_of(2)) {
                    return Some(Place { start, end: start + offset - run.min(slashes), quoted: true });
                }
                run = 0;
            }
            b'\n' | b'\r' if slashes == 0 && quote != b'"' => {
                return Some(Place { start, end: start + offset, quoted: true });
            }
            _ => run = 0,
        }
    }
    Some(Place { start, end: bytes.len(), quoted: true })
}

/// A value without quotes. It ends at white space or a bracket; at `,`, `;`, `&` and `|` only when another field or
/// white space follows, for passwords hold such characters too.
pub(super) fn bare_at(bytes: &[u8], start: usize) -> Option<Place> {
    let mut end = start;
    while let Some(byte) = bytes.get(end) {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | b'"' | b'\'' | b'`' | b'<' | b'>' | b')' | b']' | b'}' | b'{' | b'[' | b'(' | b'|' => {
                break;
            }
            b'\\' if matches!(bytes.get(end + 1), Some(b'n' | b'r' | b't' | b'"' | b'\'' | b'\\' | b'|') | None) => break,
            b',' | b';' | b'&' if field_follows(bytes, end + 1) => break,
            _ => end += 1,
        }
    }
    (end > start).then_some(Place { start, end, quoted: false })
}

/// Whether what follows a `,`, `;` or `&` is another field, a quote or white space.
fn field_follows(bytes: &[u8], at: usize) -> bool {
    for (offset, byte) in bytes[at..].iter().take(64).enumerate() {
        match byte {
            b'=' | b':' => return true,
            b' ' | b'\n' | b'\r' | b'\t' | b'"' | b'\'' | b'[' | b']' | b'{' | b'}' | b'(' | b')' | b',' | b';' | b'&' | b'<'
            | b'>' | b'|' | b'\\' => return offset == 0,
            _ => {}
        }
    }
    at >= bytes.len()
}

/// Words that stand where a secret could, and say that there is none.
const PLACEHOLDERS: &[&str] = &[
    "null",
    "none",
    "true",
    "false",
    "undefined",
    "nil",
    "empty",
    "string",
    "bool",
    "boolean",
    "int",
    "integer",
    "object",
    "bytes",
    "redacted",
    "masked",
    "hidden",
    "removed",
    "filtered",
    "optional",
    "required",
    "missing",
    "unset",
    "n/a",
    "no",
    "yes",
    "on",
    "off",
    "?",
    "-",
    "%s",
    "%v",
    "%d",
    "%q",
];

/// Values that are plainly no secrets: already replaced, placeholders, words like `null`.
pub(super) fn harmless(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    if value.is_empty() || is_marker(value) {
        return true;
    }
    let openings: [&[u8]; 8] = [b"***", b"${", b"{{", b"$(", b"<", b"%(", b"%{", b"[REDACTED"];
    if openings.iter().any(|o| value.starts_with(o)) {
        return true;
    }
    if value.iter().all(|b| *b == value[0]) && !value[0].is_ascii_alphanumeric() {
        return true;
    }
    if value.len() >= 3 && value.iter().all(|b| matches!(b, b'x' | b'X' | b'*')) {
        return true;
    }
    value.len() <= 10 && PLACEHOLDERS.iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()))
}

/// Whether text starts with a marker this crate writes.
pub(super) fn is_marker(value: &[u8]) -> bool {
    let kinds: [&[u8]; 6] = [b"[redacted", b"[ip:", b"[email:", b"[card:", b"[iban:", b"[phone:"];
    kinds.iter().any(|kind| value.starts_with(kind))
}

/// Whether text ends with such a marker.
pub(super) fn ends_in_marker(value: &[u8]) -> bool {
    value.ends_with(b"]") && memchr::memrchr(b'[', value).is_some_and(|at| is_marker(&value[at..]))
}

/// Words of status and prose that follow `token:` or `password:` without being one.
const PROSE: &[&str] = &[
    "invalid",
    "expired",
    "missing",
    "incorrect",
    "wrong",
    "denied",
    "failed",
    "failure",
    "failing",
    "error",
    "errors",
    "unexpected",
    "unknown",
    "not",
    "cannot",
    "could",
    "must",
    "should",
    "is",
    "was",
    "has",
    "are",
    "the",
    "a",
    "an",
    "for",
    "from",
    "in",
    "of",
    "to",
    "and",
    "or",
    "by",
    "with",
    "unable",
    "unauthorized",
    "forbidden",
    "rejected",
    "accepted",
    "refreshed",
    "revoked",
    "changed",
    "created",
    "updated",
    "deleted",
    "rotated",
    "found",
    "valid",
    "verified",
    "ok",
    "success",
    "successful",
    "enabled",
    "disabled",
    "authentication",
    "authorization",
    "validation",
    "verification",
    "permission",
    "access",
    "too",
    "no",
    "length",
    "required",
    "unsupported",
    "malformed",
    "signature",
    "refresh",
    "bearer",
    "basic",
    "digest",
    "rbac",
    "jwt",
    "oauth2",
    "oidc",
    "webhook",
    "node",
    "alwaysallow",
    "reset",
    "resetting",
    "loading",
    "loaded",
    "reading",
    "read",
    "using",
    "context",
    "connection",
    "timeout",
    "user",
    "granted",
    "pending",
    "unset",
    "present",
    "absent",
    "cached",
    "issued",
    "renewed",
    "exchange",
    "request",
    "response",
    "generated",
    "encrypted",
    "decrypted",
    "rotation",
    "already",
    "send",
    "provide",
    "supply",
];

fn without_stop(value: &[u8]) -> &[u8] {
    value.strip_suffix(b".").or_else(|| value.strip_suffix(b":")).unwrap_or(value)
}

/// Whether a value is a word that says how a credential fared, or one of prose.
pub(super) fn is_prose_word(value: &[u8]) -> bool {
    let bare = without_stop(value);
    bare.len() <= 16 && PROSE.iter().any(|word| bare.eq_ignore_ascii_case(word.as_bytes()))
}

/// Whether a value without quotes reads as prose and not as a secret.
pub(super) fn prose(bytes: &[u8], place: Place) -> bool {
    let value = &bytes[place.start..place.end];
    let bare = without_stop(value);
    if is_prose_word(value) {
        return true;
    }
    // A small-letter word with another word behind it is a sentence.
    let word = !bare.is_empty() && bare.iter().all(|b| b.is_ascii_lowercase() || *b == b'\'');
    let next = bytes.get(place.end) == Some(&b' ') && bytes.get(place.end + 1).is_some_and(u8::is_ascii_alphabetic);
    let another_field = next && {
        let rest = &bytes[place.end + 1..];
        let length = rest.iter().take(64).take_while(|b| in_name(**b)).count();
        matches!(rest.get(length), Some(b'=' | b':'))
    };
    word && next && !another_field
}

/// Whether a value looks like a secret on its own: letters mixed with digits or signs, and not a path or a duration.
pub(super) fn secretish(value: &[u8]) -> bool {
    if value.len() < 6 || value[0] == b'/' || is_marker(value) {
        return false;
    }
    let letters = value.iter().filter(|b| b.is_ascii_alphabetic()).count();
    let digits = value.iter().filter(|b| b.is_ascii_digit()).count();
    let signs = value.iter().filter(|b| matches!(b, b'!' | b'@' | b'#' | b'$' | b'%' | b'^' | b'*' | b'+' | b'~' | b'?')).count();
    letters > 0 && ((digits > 0 && letters >= 2) || signs > 0)
}

/// Shortest value under `tokens` that is none of a count with its unit.
const SHORTEST_OF_MANY: usize = 12;

/// Whether a name says enough by itself, or the value has to look like a secret as well.
pub(super) fn is_sure(strength: Strength) -> bool {
    !matches!(strength, Strength::Weak | Strength::Many)
}

/// Whether a value looks as much like a secret as the name in front of it wants.
pub(super) fn fits(strength: Strength, value: &[u8]) -> bool {
    match strength {
        Strength::Weak => secretish(value),
        Strength::Many => value.len() >= SHORTEST_OF_MANY && secretish(value),
        Strength::Password | Strength::Strong | Strength::Authorization | Strength::Cookie => true,
    }
}

/// Whether a value is how many there are: in the column `api_keys`, and not one of them.
pub(super) fn is_count(strength: Strength, value: &[u8]) -> bool {
    strength != Strength::Password && (1..=4).contains(&value.len()) && value.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_end_where_they_end() {
        let value = |text: &str, at: usize| {
            let place = value_after(text.as_bytes(), at).unwrap();
            text[place.start..place.end].to_owned()
        };
        assert_eq!(value("p=ab,cd!x z", 2), "ab,cd!x");
        assert_eq!(value("p=ab,q=cd", 2), "ab");
        assert_eq!(value("p=ab&q=cd", 2), "ab");
        assert_eq!(value("p=ab; q=cd", 2), "ab");
        assert_eq!(value(r#"p="a\"b" q"#, 2), r#"a\"b"#);
        assert_eq!(value(r#"p="a\\" q"#, 2), r"a\\");
        assert_eq!(value(r#"\"p\":\"a b\",\"q\""#, 6), "a b");
        assert_eq!(value(r#"\"p\":\"a\\\"b\",\"q\""#, 6), r#"a\\\"b"#);
        assert_eq!(value("p='a b", 2), "a b");
        assert_eq!(value("p: ab)", 2), "ab");
    }

    #[test]
    fn prose_is_not_a_secret() {
        let is = |text: &str| prose(text.as_bytes(), value_after(text.as_bytes(), text.find(':').unwrap() + 1).unwrap());
        assert!(is("token: expired"));
        assert!(is("token: unexpected end of input"));
        assert!(is("password: bad luck"));
        assert!(!is("password: correcthorse"));
        assert!(!is("password: swordfish user=bob"));
        assert!(!is("password: hunter2 for bob"));
    }
}
