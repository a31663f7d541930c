//! Names of fields and their values in text: `password=x`, `"apiKey": "x"`, `\"token\":\"x\"`, `DB_PASSWORD: x`.
//! Names stay, values go. Guards against the two ways to be wrong: a value cut too early leaks its tail, and prose
//! such as `token: expired` is no secret.

/// How sure a name makes us that its value is a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Strength {
    /// `password`, `passphrase`: also when the value is a number.
    Password,
    /// `token`, `api_key`.
    Strong,
    /// `pass`, `auth`: words with other meanings; the value has to look like a secret.
    Weak,
    /// An authorization header.
    Authorization,
    /// A cookie header.
    Cookie,
}

/// Endings of names, normalised (lower case, no separators), by strength.
const ENDINGS: &[(&str, Strength)] = &[
    ("password", Strength::Password),
    ("passwd", Strength::Password),
    ("passwort", Strength::Password),
    ("motdepasse", Strength::Password),
    ("contrasena", Strength::Password),
    ("pwd", Strength::Password),
    ("passphrase", Strength::Password),
    ("passcode", Strength::Password),
    ("secret", Strength::Strong),
    ("secrets", Strength::Strong),
    ("secretkey", Strength::Strong),
    ("secretkeybase", Strength::Strong),
    ("secretaccesskey", Strength::Strong),
    ("secretstring", Strength::Strong),
    ("token", Strength::Strong),
    ("apikey", Strength::Strong),
    ("appkey", Strength::Strong),
    ("accesskey", Strength::Strong),
    ("accesskeyid", Strength::Strong),
    ("accountkey", Strength::Strong),
    ("sharedkey", Strength::Strong),
    ("storagekey", Strength::Strong),
    ("masterkey", Strength::Strong),
    ("privatekey", Strength::Strong),
    ("signingkey", Strength::Strong),
    ("encryptionkey", Strength::Strong),
    ("licensekey", Strength::Strong),
    ("authkey", Strength::Strong),
    ("sshkey", Strength::Strong),
    ("clientkeydata", Strength::Strong),
    ("connectionstring", Strength::Strong),
    ("connstr", Strength::Strong),
    ("credential", Strength::Strong),
    ("credentials", Strength::Strong),
    ("jwt", Strength::Weak),
    ("authorization", Strength::Authorization),
    ("cookie", Strength::Cookie),
];

/// Names that end like a secret and are none: positions in lists, kinds, places.
const HARMLESS_NAMES: &[&str] =
    &["pagetoken", "nexttoken", "continuationtoken", "synctoken", "starttoken", "endtoken", "eventtoken"];

/// Endings behind a secret's name that do not change what it is: `PASSWORD_OLD`, `token2`, `secret_b64`.
const SUFFIXES: &[&str] = &[
    "old",
    "new",
    "current",
    "previous",
    "prev",
    "backup",
    "value",
    "base64",
    "b64",
    "encoded",
    "plain",
    "plaintext",
    "text",
    "raw",
    "hash",
];

const LONGEST: usize = 32;

/// A normalised name: its last [`LONGEST`] letters and digits, lower case, and where its last word starts.
struct Normal {
    letters: [u8; LONGEST],
    start: usize,
    /// Letters of the last word.
    last_word: usize,
}

impl Normal {
    /// Reads `name` from its end.
    fn of(name: &[u8]) -> Self {
        let mut normal = Self { letters: [0; LONGEST], start: LONGEST, last_word: usize::MAX };
        let mut after: u8 = 0;
        for byte in name.iter().rev() {
            if !byte.is_ascii_alphanumeric() {
                if normal.start < LONGEST {
                    normal.mark_word();
                }
                after = 0;
                continue;
            }
            // A capital behind a small letter starts a word: `dbPass`.
            if byte.is_ascii_lowercase() && after.is_ascii_uppercase() {
                normal.mark_word();
            }
            if normal.start == 0 {
                break;
            }
            normal.start -= 1;
            normal.letters[normal.start] = byte.to_ascii_lowercase();
            after = *byte;
        }
        normal.mark_word();
        normal
    }

    fn mark_word(&mut self) {
        self.last_word = self.last_word.min(LONGEST - self.start);
    }

    fn letters(&self) -> &[u8] {
        &self.letters[self.start..]
    }
}

fn ending(letters: &[u8]) -> Option<Strength> {
    let last = letters.last();
    let found = ENDINGS.iter().find(|(ending, _)| ending.as_bytes().last() == last && letters.ends_with(ending.as_bytes()))?;
    if HARMLESS_NAMES.iter().any(|name| letters.ends_with(name.as_bytes())) {
        return None;
    }
    Some(found.1)
}

/// Pairs of letters a secret's name can end in, by the last one: of every ending, of every suffix and of the short words.
const PAIRS: [u32; 26] = {
    let mut pairs = [0_u32; 26];
    let mut index = 0;
    while index < ENDINGS.len() {
        let word = ENDINGS[index].0.as_bytes();
        pairs[(word[word.len() - 1] - b'a') as usize] |= 1 << (word[word.len() - 2] - b'a');
        index += 1;
    }
    let more: [&[u8]; 15] =
        [b"ss", b"th", b"ld", b"ew", b"xt", b"ue", b"nt", b"us", b"up", b"ed", b"in", b"aw", b"sh", b"ev", b"sw"];
    let mut index = 0;
    while index < more.len() {
        pairs[(more[index][1] - b'a') as usize] |= 1 << (more[index][0] - b'a');
        index += 1;
    }
    pairs
};

/// Whether the last letters of a name can end a secret's name. One look instead of forty for nearly every word, and for
/// the numbers in front of the colons of every time stamp.
fn may_end(name: &[u8]) -> bool {
    let Some(last) = name.iter().rposition(u8::is_ascii_alphabetic) else { return false };
    let Some(before) = last.checked_sub(1).map(|at| name[at]) else { return false };
    // `base64` and `b64` are endings themselves.
    if last + 3 == name.len() && &name[last + 1..] == b"64" {
        return true;
    }
    // Separators between letters do not count: `pass-wd`.
    let before = if before.is_ascii_alphanumeric() {
        before
    } else {
        name[..last].iter().rev().copied().find(u8::is_ascii_alphanumeric).unwrap_or(0)
    };
    let (last, before) = (name[last].to_ascii_lowercase(), before.to_ascii_lowercase());
    before.is_ascii_lowercase() && PAIRS[usize::from(last - b'a')] & (1 << (before - b'a')) != 0
}

/// Judges a whole name: a JSON key, a column, an environment variable.
pub(super) fn strength(name: &[u8]) -> Option<Strength> {
    if !may_end(name) {
        return None;
    }
    let normal = Normal::of(name);
    let mut letters = normal.letters();
    if let Some(found) = ending(letters) {
        return Some(found);
    }
    if matches!(&letters[letters.len().saturating_sub(normal.last_word)..], b"pass" | b"auth" | b"jwt" | b"passw") {
        return Some(Strength::Weak);
    }
    for _ in 0..3 {
        let last = letters.last();
        let suffix =
            SUFFIXES.iter().find(|s| s.as_bytes().last() == last && letters.ends_with(s.as_bytes())).map_or(0, |s| s.len());
        let shorter = if suffix > 0 { &letters[..letters.len() - suffix] } else { trim_digits(letters) };
        if shorter.len() == letters.len() {
            return None;
        }
        letters = shorter;
        if let Some(found) = ending(letters) {
            return Some(found);
        }
    }
    None
}

fn trim_digits(letters: &[u8]) -> &[u8] {
    let digits = letters.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    if digits > 4 { letters } else { &letters[..letters.len() - digits] }
}

/// Bytes of a name in text.
pub(super) fn in_name(byte: u8) -> bool {
    const TABLE: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0_usize;
        while byte < 256 {
            let b = byte as u8;
            table[byte] = b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/' | b'$');
            byte += 1;
        }
        table
    };
    TABLE[usize::from(byte)]
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

/// The word in front of `at`, looking over spaces, a closing bracket, quotes and their backslashes.
pub(super) fn word_before(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
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
    let floor = end.saturating_sub(128);
    let mut start = end;
    while start > floor && in_name(bytes[start - 1]) {
        start -= 1;
    }
    (start < end).then_some((start, end))
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
];

/// Whether a value without quotes reads as prose and not as a secret.
pub(super) fn prose(bytes: &[u8], place: Place) -> bool {
    let value = &bytes[place.start..place.end];
    let bare = value.strip_suffix(b".").or_else(|| value.strip_suffix(b":")).unwrap_or(value);
    if bare.len() <= 16 && PROSE.iter().any(|word| bare.eq_ignore_ascii_case(word.as_bytes())) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(name: &str) -> Option<Strength> {
        strength(name.as_bytes())
    }

    #[test]
    fn names_of_secrets_are_known_in_every_spelling() {
        for name in [
            "password",
            "PASSWORD",
            "DB_PASSWORD",
            "db.password",
            "dbPassword",
            "spring.datasource.password",
            "PASSWORD_OLD",
            "password2",
            "x-api-key",
            "apiKey",
            "API_KEY",
            "aws_secret_access_key",
            "AWS_ACCESS_KEY_ID",
            "clientSecret",
            "client-key-data",
            "authToken",
            "X-Vault-Token",
            "SECRET_KEY_BASE",
            "secretString",
            "DD_API_KEY",
            "credentials",
            "signingKey",
            "token_b64",
            "userPwd",
        ] {
            assert!(matches!(judged(name), Some(Strength::Strong | Strength::Password)), "{name}: {:?}", judged(name));
        }
        assert_eq!(judged("Proxy-Authorization"), Some(Strength::Authorization));
        assert_eq!(judged("Set-Cookie"), Some(Strength::Cookie));
        for name in ["DB_PASS", "pass", "dbPass", "auth", "REDIS_AUTH"] {
            assert_eq!(judged(name), Some(Strength::Weak), "{name}");
        }
    }

    #[test]
    fn other_names_are_left_alone() {
        for name in [
            "compass",
            "bypass",
            "tokens",
            "tokens_out",
            "tokenizer",
            "secretName",
            "secretKeyRef",
            "passwordFile",
            "primary_key",
            "partition.key",
            "nextPageToken",
            "continuation_token",
            "author",
            "keyboard",
            "status",
            "message",
            "k",
            "",
            "id",
            "data",
            "token_type",
            "public_key",
            "certificate-authority-data",
            "path",
            "oauth",
        ] {
            assert_eq!(judged(name), None, "{name}");
        }
    }

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
