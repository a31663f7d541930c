//! Which names say that their value is a secret: `password`, `apiKey`, `DB_PASSWORD`, `x-vault-token`. Guards that what is
//! redacted in answers and what is refused in questions follow one rule. Must not look at values.

/// How sure a name makes us that its value is a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strength {
    /// `password`, `passphrase`: also when the value is a number.
    Password,
    /// `token`, `api_key`.
    Strong,
    /// `pass`, `auth`, `session_id`: words with other meanings; the value has to look like a secret.
    Weak,
    /// `tokens`: as often how many there are; each value, also of a list, has to look like a secret and be longer than a count
    /// with its unit.
    Many,
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
    ("kennwort", Strength::Password),
    ("geheimnis", Strength::Strong),
    ("contrasenia", Strength::Password),
    ("clavesecreta", Strength::Strong),
    ("palavrapasse", Strength::Password),
    ("wachtwoord", Strength::Password),
    // `lösenord` and `losenord`.
    ("senord", Strength::Password),
    ("passord", Strength::Password),
    ("adgangskode", Strength::Password),
    ("salasana", Strength::Password),
    ("cvv", Strength::Password),
    ("cvc", Strength::Password),
    ("cardverification", Strength::Password),
    ("cardverificationcode", Strength::Password),
    ("cardsecuritycode", Strength::Password),
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
    // Several of them: a number is how many there are.
    ("passwords", Strength::Strong),
    ("passwds", Strength::Strong),
    ("passphrases", Strength::Strong),
    ("passcodes", Strength::Strong),
    ("apikeys", Strength::Strong),
    ("appkeys", Strength::Strong),
    ("accesskeys", Strength::Strong),
    ("secretkeys", Strength::Strong),
    ("privatekeys", Strength::Strong),
    ("signingkeys", Strength::Strong),
    ("encryptionkeys", Strength::Strong),
    ("masterkeys", Strength::Strong),
    ("accountkeys", Strength::Strong),
    ("authkeys", Strength::Strong),
    ("connectionstrings", Strength::Strong),
    ("cookies", Strength::Strong),
    ("accesstokens", Strength::Strong),
    ("refreshtokens", Strength::Strong),
    ("authtokens", Strength::Strong),
    ("bearertokens", Strength::Strong),
    ("apitokens", Strength::Strong),
    ("tokens", Strength::Many),
    // Sessions, by the names servers give their cookies.
    ("sessionid", Strength::Weak),
    ("sessid", Strength::Weak),
    ("sessionkey", Strength::Weak),
    ("connectsid", Strength::Weak),
    ("jwt", Strength::Weak),
    ("jwts", Strength::Weak),
    ("authorization", Strength::Authorization),
    ("cookie", Strength::Cookie),
];

/// Words that say it where they stand alone or last, and not as the end of another word: `dbPass`, but not `compass`.
pub const WORDS: &[(&str, Strength)] = &[
    ("pass", Strength::Weak),
    ("passw", Strength::Weak),
    ("auth", Strength::Weak),
    ("mdp", Strength::Weak),
    ("senha", Strength::Password),
    ("senhas", Strength::Strong),
    ("haslo", Strength::Password),
    ("parol", Strength::Password),
];

/// The cookie of a session, where it is the whole name: behind another word it is the number of an account or a security
/// identifier.
pub const SESSION: &str = "sid";

/// What telemetry calls a visit (OpenTelemetry, session attributes), and no secret. Only with its dot: `session_id` is as often
/// the cookie itself.
const VISIT: &[u8] = b"session.id";

/// The word for a password in languages whose letters are not all of ASCII: endings of names, lower case. A capital has as many
/// bytes as its small letter in all of them.
const FOREIGN: &[&str] = &[
    "contraseña",
    "lösenord",
    "hasło",
    "şifre",
    "parolă",
    "пароль",
    "סיסמה",
    "密码",
    "密碼",
    "口令",
    "パスワード",
    "暗証番号",
    "비밀번호",
];

/// Bytes of the longest of them, and more.
const LONGEST_FOREIGN: usize = 24;

/// Names that end like a secret and are none: positions in lists, kinds, places.
const HARMLESS_NAMES: &[&str] = &[
    "pagetoken",
    "nexttoken",
    "continuationtoken",
    "synctoken",
    "starttoken",
    "endtoken",
    "eventtoken",
    // What language models count.
    "maxtokens",
    "mintokens",
    "newtokens",
    "totaltokens",
    "inputtokens",
    "outputtokens",
    "prompttokens",
    "completiontokens",
    "reasoningtokens",
    "thinkingtokens",
    "cachedtokens",
    "usedtokens",
    "remainingtokens",
    "budgettokens",
    "numtokens",
    "stoptokens",
    "specialtokens",
];

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
    "temp",
    "tmp",
    "bak",
    "legacy",
    "primary",
    "secondary",
    "confirm",
    "confirmation",
    "repeat",
    "prod",
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
    if name.is_ascii() { spelled(name) } else { foreign(name).or_else(|| spelled(name)) }
}

/// Judges a name by the words of other scripts: only what is not all of ASCII can end in one, before a number at most.
pub fn foreign(name: &[u8]) -> Option<Strength> {
    let behind = name.iter().rev().take_while(|b| b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.')).count();
    foreign_word(&name[..name.len() - behind]).map(|_| Strength::Password)
}

/// Bytes of the word of another script for a password that a text ends with.
pub fn foreign_word(text: &[u8]) -> Option<usize> {
    let mut tail = &text[text.len().saturating_sub(LONGEST_FOREIGN)..];
    // From the first whole character on.
    while let [0x80..=0xbf, rest @ ..] = tail {
        tail = rest;
    }
    let tail = std::str::from_utf8(tail).ok()?.to_lowercase();
    FOREIGN.iter().find(|word| tail.ends_with(**word)).map(|word| word.len()).filter(|length| *length <= text.len())
}

fn spelled(name: &[u8]) -> Option<Strength> {
    let normal = Normal::of(name);
    let mut letters = normal.letters();
    if let Some(found) = ending(letters) {
        let is_visit = found == Strength::Weak && name.last_chunk::<10>().is_some_and(|end| end.eq_ignore_ascii_case(VISIT));
        return (!is_visit).then_some(found);
    }
    if letters == SESSION.as_bytes() {
        return Some(Strength::Weak);
    }
    let word = trim_digits(&letters[letters.len().saturating_sub(normal.last_word)..]);
    if let Some((_, found)) = WORDS.iter().find(|(known, _)| known.as_bytes() == word) {
        return Some(*found);
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
    match &letters[..letters.len() - digits] {
        _ if digits > 4 => letters,
        // `password_v2`
        [name @ .., b'v'] if digits > 0 && name.last() != Some(&b'v') => name,
        name => name,
    }
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
            "password_v2",
            "API_KEY_V3",
            "api_key_2",
            "secret_new",
            "password_old",
            "password_confirmation",
            "DB_PASSWORD_PROD",
            "passwords",
            "apiKeys",
            "api_keys",
            "secrets",
            "refresh_tokens",
            "private-keys",
            "Kennwort",
            "Geheimnis",
            "mot_de_passe",
            "clave_secreta",
            "db_wachtwoord",
            "senha",
            "dbSenha2",
            "haslo",
            "CVV",
            "card.cvc",
            "cvv2",
            "card_verification",
            "cardVerificationValue",
            "contraseña",
            "CONTRASEÑA",
            "Datenbank-Пароль",
            "пароль_2",
            "hasło",
            "lösenord",
            "losenord",
            "数据库密码",
            "密碼",
            "パスワード",
            "비밀번호",
        ] {
            assert!(matches!(judged(name), Some(Strength::Strong | Strength::Password)), "{name}: {:?}", judged(name));
        }
        assert_eq!(judged("Proxy-Authorization"), Some(Strength::Authorization));
        assert_eq!(judged("Set-Cookie"), Some(Strength::Cookie));
        assert_eq!(judged("cookies"), Some(Strength::Strong));
        for name in [
            "DB_PASS",
            "pass",
            "dbPass",
            "auth",
            "REDIS_AUTH",
            "pass2",
            "mdp",
            "sid",
            "SID",
            "connect.sid",
            "session_id",
            "sessionId",
            "JSESSIONID",
            "PHPSESSID",
            "ASP.NET_SessionId",
            "session_key",
        ] {
            assert_eq!(judged(name), Some(Strength::Weak), "{name}");
        }
        for name in ["tokens", "device_tokens", "userTokens", "tokens_v2"] {
            assert_eq!(judged(name), Some(Strength::Many), "{name}");
        }
    }

    #[test]
    fn other_names_are_left_alone() {
        for name in [
            "compass",
            "bypass",
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
            "session.id",
            "app.Session.Id",
            "account_sid",
            "user.sid",
            "max_tokens",
            "tokens_used",
            "prompt_tokens",
            "gen_ai.usage.input_tokens",
            "tokens_per_second",
            "secrets_count",
            "password_count",
            "resenha",
            "svc",
            "ipv4",
            "csv",
            "пароль_сброшен",
            "größe",
        ] {
            assert_eq!(judged(name), None, "{name}");
        }
    }
}
