//! Which names say that their value is a secret: `password`, `apiKey`, `DB_PASSWORD`, `x-vault-token`. Guards that what is
//! redacted in answers and what is refused in questions follow one rule. Must not look at values.

/// How sure a name makes us that its value is a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strength {
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
pub const ENDINGS: &[(&str, Strength)] = &[
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
pub const SUFFIXES: &[&str] = &[
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

/// Judges a whole name: a JSON key, a column, an environment variable, a label. `None` for a name that says nothing of
/// the kind.
pub fn strength(name: &[u8]) -> Option<Strength> {
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
}
