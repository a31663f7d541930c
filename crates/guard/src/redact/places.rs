//! Credentials inside URLs and connection strings, and in the schemes of the Authorization header.

use super::fields::{Place, harmless, in_name, is_marker, secretish};

const fn ends_url(byte: u8) -> bool {
    const TABLE: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0_usize;
        while byte < 256 {
            let b = byte as u8;
            table[byte] = b.is_ascii_whitespace() || matches!(b, b'"' | b'\'' | b'`' | b'<' | b'>' | b'\\' | b'|');
            byte += 1;
        }
        table
    };
    TABLE[byte as usize]
}

/// What is found behind `://`: the part to take out, and where the `@` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UserInfo {
    pub(super) secret: Place,
    pub(super) at: usize,
}

/// Bytes of a URL that are looked at for a credential.
pub(super) const LONGEST_URL: usize = 2_048;

/// The credential of a URL whose `://` starts at `colon` (RFC 3986, section 3.2.1, and the DSNs that bend it).
pub(super) fn user_info(bytes: &[u8], colon: usize) -> Option<UserInfo> {
    let start = colon + 3;
    let rest = bytes.get(start..)?;
    let rest = &rest[..rest.len().min(LONGEST_URL - 3)];
    let run = rest.iter().position(|b| ends_url(*b)).unwrap_or(rest.len());
    let rest = &rest[..run];
    let authority = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(run);
    let web = scheme(bytes, colon).is_some_and(|s| s.starts_with(b"http") || s.starts_with(b"ws"));
    // A password of a database may hold '/', which the URL of a web page may not.
    let within = if web { authority } else { rest.iter().position(|b| *b == b'?').unwrap_or(run) };
    let at = rest[..within].iter().rposition(|b| *b == b'@')?;
    let info = &rest[..at];
    if is_marker(info) || info[..info.iter().position(|b| *b == b':').unwrap_or(at)].contains(&b'/') {
        return None;
    }
    let found = |from: usize, to: usize| {
        Some(UserInfo { secret: Place { start: start + from, end: start + to, quoted: false }, at: start + at })
    };
    let Some(colon) = info.iter().position(|b| *b == b':') else {
        // A lone user name is a token when it looks like one.
        return if info.len() >= 16 && secretish(info) { found(0, at) } else { None };
    };
    let (user, password) = (&info[..colon], &info[colon + 1..]);
    if user.len() >= 20 && secretish(user) {
        return found(0, at);
    }
    if harmless(password) { None } else { found(colon + 1, at) }
}

fn scheme(bytes: &[u8], colon: usize) -> Option<&[u8]> {
    let length = bytes[..colon]
        .iter()
        .rev()
        .take(32)
        .take_while(|b| b.is_ascii_alphanumeric() || matches!(**b, b'+' | b'.' | b'-'))
        .count();
    (length > 0).then(|| &bytes[colon - length..colon])
}

/// The password of a Go-style DSN, `user:password@tcp(host)/db`, whose `@` is at `at`.
pub(super) fn driver_password(bytes: &[u8], at: usize) -> Option<Place> {
    let behind = &bytes[at + 1..];
    if !(behind.starts_with(b"tcp(") || behind.starts_with(b"unix(") || behind.starts_with(b"tcp6(")) {
        return None;
    }
    let length = bytes[..at].iter().rev().take(256).take_while(|b| !ends_url(**b)).count();
    let run = &bytes[at - length..at];
    let colon = run.iter().position(|b| *b == b':')?;
    let start = at - length + colon + 1;
    (start < at && !harmless(&bytes[start..at])).then_some(Place { start, end: at, quoted: false })
}

/// The password of Oracle's `user/password@host`, whose `@` is at `at`: behind `jdbc:oracle:thin:`, or as an argument of one
/// of its programs.
pub(super) fn oracle_password(bytes: &[u8], at: usize) -> Option<Place> {
    const PROGRAMS: [&[u8]; 8] = [b"sqlplus", b"sqlldr", b"expdp", b"impdp", b"exp", b"imp", b"rman", b"sqlcl"];
    // Nearly every `@` has no slash in front of it in its word.
    let slash = at - memchr::memrchr(b'/', &bytes[at.saturating_sub(256)..at]).map(|n| at.min(256) - n)?;
    if bytes[slash..at].iter().any(|b| ends_url(*b)) {
        return None;
    }
    let length = bytes[..at].iter().rev().take(256).take_while(|b| !ends_url(**b)).count();
    let start = at - length;
    let run = &bytes[start..at];
    let scheme = memchr::memmem::rfind(run, b"oracle:");
    let user = if let Some(found) = scheme {
        // `thin:`, `oci:`, `oci8:` and `kprb:` name the driver.
        start + found + 7 + run[found + 7..].iter().position(|b| *b == b':').map_or(0, |n| n + 1)
    } else {
        let front = &bytes[start.saturating_sub(64)..start];
        let mut words = front.rsplit(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).take(4);
        let last = |word: &'_ [u8]| word.len() - word.iter().rev().take_while(|b| b.is_ascii_alphanumeric()).count();
        words.any(|word| PROGRAMS.contains(&&word[last(word)..])).then_some(start)?
    };
    let slash = user + bytes[user..at].iter().position(|b| *b == b'/')?;
    let password = slash + 1;
    let sound = slash > user && password < at && !harmless(&bytes[password..at]) && bytes[password] != b'/';
    sound.then_some(Place { start: password, end: at, quoted: false })
}

/// The password of a line of `.pgpass` (PostgreSQL, "The Password File"): `host:port:database:user:password`, the first colon
/// at `at`. A place in a source file (`main.rs:1234:5`) has no such line.
pub(super) fn file_password(bytes: &[u8], at: usize) -> Option<Place> {
    let behind = &bytes[at + 1..];
    let digits = behind.iter().take(6).take_while(|b| b.is_ascii_digit()).count();
    let port = if behind.first() == Some(&b'*') { 1 } else { digits };
    if (port != 1 && !(4..=5).contains(&port)) || behind.get(port) != Some(&b':') || (port == 1 && digits == 1) {
        return None;
    }
    let in_host = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'*' | b'/');
    let host = bytes[..at].iter().rev().take(256).take_while(|b| in_host(**b)).count();
    let before = (at - host).checked_sub(1).map(|i| bytes[i]);
    if host == 0 || before == Some(b':') {
        return None;
    }
    let source =
        [&b".rs"[..], b".go", b".py", b".js", b".ts", b".c", b".cc", b".cpp", b".h", b".java", b".rb", b".php", b".kt", b".sh"];
    if source.iter().any(|ending| bytes[at - host..at].ends_with(ending)) {
        return None;
    }
    let mut from = at + 1 + port + 1;
    for _ in 0..2 {
        let in_field = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'*' | b'.' | b'$');
        let length = bytes[from..].iter().take(64).take_while(|b| in_field(**b)).count();
        let field = &bytes[from..from + length];
        if length == 0 || field.iter().all(u8::is_ascii_digit) || bytes.get(from + length) != Some(&b':') {
            return None;
        }
        from += length + 1;
    }
    let length = bytes[from..].iter().take(512).take_while(|b| !ends_url(**b) || **b == b'\\').count();
    let value = &bytes[from..from + length];
    (length >= 3 && !harmless(value)).then_some(Place { start: from, end: from + length, quoted: false })
}

/// Query parameters that sign or carry a credential: presigned URLs of AWS (Signature V4 and V2), Google Cloud and Azure
/// (shared access signatures).
pub(super) const SIGNS: &[&[u8]] = &[
    b"x-amz-signature",
    b"x-amz-credential",
    b"x-amz-security-token",
    b"x-goog-signature",
    b"x-goog-credential",
    b"signature",
    b"sig",
    b"awsaccesskeyid",
    b"googleaccessid",
    b"x-oss-signature",
    b"x-cos-signature",
    b"hmac",
    b"code_verifier",
    b"client_assertion",
];

/// Whether a query parameter of this name is one of those.
pub(super) fn signs(name: &[u8]) -> bool {
    SIGNS.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Whether the name that starts at `start` is a query parameter or one of a list of signed fields.
pub(super) fn in_query(bytes: &[u8], start: usize) -> bool {
    let before = start.checked_sub(1).map(|i| bytes[i]);
    matches!(before, Some(b'?' | b'&' | b';')) || (before == Some(b' ') && bytes[..start - 1].ends_with(b","))
}

/// Bytes of a token in the Authorization header (RFC 6750, section 2.1, `b64token`).
pub(super) fn in_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'+' | b'/' | b'=' | b'-')
}

/// The token behind `Bearer ` at `at`. Words of prose are none: a token has a digit, or is long and mixed.
pub(super) fn bearer(bytes: &[u8], at: usize) -> Option<Place> {
    let start = at + bytes[at..].iter().take(4).take_while(|b| **b == b' ').count();
    let length = bytes[start..].iter().take_while(|b| in_token(**b)).count();
    let token = &bytes[start..start + length];
    let trimmed = token.iter().rev().take_while(|b| **b == b'.').count();
    let token = &token[..length - trimmed];
    let digits = token.iter().any(u8::is_ascii_digit);
    let mixed = token.len() >= 16 && token.iter().any(u8::is_ascii_uppercase) && token.iter().any(u8::is_ascii_lowercase);
    let named = token.iter().position(|b| *b == b'=').is_some_and(|i| i + 3 < token.len());
    (token.len() >= 8 && (digits || mixed) && !named).then_some(Place { start, end: start + token.len(), quoted: false })
}

/// The credential behind `Basic ` at `at` (RFC 7617): base64 of `user:password`.
pub(super) fn basic(bytes: &[u8], at: usize) -> Option<Place> {
    let start = at + bytes[at..].iter().take(4).take_while(|b| **b == b' ').count();
    let length = bytes[start..]
        .iter()
        .take_while(|b| b.is_ascii_alphanumeric() || matches!(**b, b'+' | b'/' | b'=' | b'-' | b'_'))
        .count();
    let token = &bytes[start..start + length];
    let decoded =
        super::encoded::decode(token, 1_024).is_some_and(|text| text.contains(&b':') && text.iter().all(|b| *b >= b' '));
    let shaped = token.len() >= 12 && token.iter().any(|b| b.is_ascii_digit() || *b == b'=');
    (token.len() >= 4 && (decoded || shaped)).then_some(Place { start, end: start + length, quoted: false })
}

/// Schemes of the Authorization header, registered (IANA) and in use.
const SCHEMES: &[&str] =
    &["bearer", "basic", "bot", "token", "apikey", "negotiate", "ntlm", "digest", "aws4-hmac-sha256", "genericaccess"];

/// The value of an Authorization header behind its separator: scheme stays, the rest goes.
pub(super) fn authorization(bytes: &[u8], place: Place) -> Option<Place> {
    let value = &bytes[place.start..place.end];
    let word = value.iter().take_while(|b| in_name(**b)).count();
    let known = SCHEMES.iter().any(|s| value[..word].eq_ignore_ascii_case(s.as_bytes()));
    if !known {
        let plausible = place.quoted || value.iter().any(u8::is_ascii_digit) || value.len() >= 20;
        return (value.len() >= 4 && plausible && !harmless(value)).then_some(place);
    }
    let long = value[..word].eq_ignore_ascii_case(b"digest") || value[..word].eq_ignore_ascii_case(b"aws4-hmac-sha256");
    // Without quotes the scheme ended the value: what belongs to it is behind the space, or to the end of the line.
    let from = place.start + word + bytes[place.start + word..].iter().take(3).take_while(|b| **b == b' ').count();
    if from == place.start + word {
        return None;
    }
    let line = || bytes[from..].iter().position(|b| matches!(b, b'\n' | b'\r')).map_or(bytes.len(), |n| from + n);
    let to = match (place.quoted, long) {
        (true, _) => place.end,
        (false, true) => line(),
        (false, false) => from + bytes[from..].iter().take_while(|b| in_token(**b)).count(),
    };
    (to >= from + 4 && from < to && !harmless(&bytes[from..to])).then_some(Place { start: from, end: to, quoted: place.quoted })
}

/// The value of a cookie header without quotes: to the end of the line or of the enclosing quotes.
pub(super) fn cookie(bytes: &[u8], place: Place) -> Place {
    if place.quoted {
        return place;
    }
    let length = bytes[place.start..]
        .iter()
        .position(|b| matches!(b, b'\n' | b'\r' | b'"' | b'\'' | b'|'))
        .unwrap_or(bytes.len() - place.start);
    Place { start: place.start, end: place.start + length, quoted: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(text: &str) -> Option<&str> {
        user_info(text.as_bytes(), text.find("://")?).map(|found| &text[found.secret.start..found.secret.end])
    }

    #[test]
    fn credentials_of_urls_and_dsns() {
        assert_eq!(hidden("postgres://shop:p4ss@db:5432/x"), Some("p4ss"));
        assert_eq!(hidden("redis://:p4ss@cache"), Some("p4ss"));
        assert_eq!(hidden("postgres://u:p@ss/w@db/x"), Some("p@ss/w"));
        assert_eq!(hidden("amqp://u:pa/ss@mq/v"), Some("pa/ss"));
        assert_eq!(hidden("https://0123456789abcdef0123@git.example/x"), Some("0123456789abcdef0123"));
        for text in ["http://a/b", "http://a:80/@x", "http://user@host/", "https://a/b@c:d", "https://u:${PASS}@h/"] {
            assert_eq!(hidden(text), None, "{text}");
        }
        let dsn = "shop:hunter2@tcp(db:3306)/x";
        let place = driver_password(dsn.as_bytes(), dsn.find('@').unwrap()).unwrap();
        assert_eq!(&dsn[place.start..place.end], "hunter2");
    }

    #[test]
    fn passwords_of_oracle_and_postgres() {
        let oracle = |text: &'static str| {
            oracle_password(text.as_bytes(), text.find('@').unwrap()).map(|place| &text[place.start..place.end])
        };
        assert_eq!(oracle("jdbc:oracle:thin:shop/hunter2@db:1521:X"), Some("hunter2"));
        assert_eq!(oracle("jdbc:oracle:oci:shop/h@db"), Some("h"));
        assert_eq!(oracle("sqlplus -s shop/hunter2@//db:1521/x"), Some("hunter2"));
        for none in ["jdbc:oracle:thin:@db:1521:X", "a/b@c", "see docs/x@v2", "jdbc:oracle:thin:shop/${PW}@db"] {
            assert_eq!(oracle(none), None, "{none}");
        }
        let file = |text: &'static str| {
            file_password(text.as_bytes(), text.find(':').unwrap()).map(|place| &text[place.start..place.end])
        };
        assert_eq!(file("db.example:5432:shop:ana:hunter2"), Some("hunter2"));
        assert_eq!(file("*:*:*:ana:a:b"), Some("a:b"));
        for none in ["main.rs:1234:5:error:x", "10:1112:13:14:15", "host:5432:shop:ana", "db:5432/shop", "root:x:0:0:root:/root"]
        {
            assert_eq!(file(none), None, "{none}");
        }
    }

    #[test]
    fn schemes_stay_and_prose_is_prose() {
        assert!(bearer(b"Bearer abcdef123456", 7).is_some());
        assert!(bearer(b"bearer authentication", 7).is_none());
        assert!(basic(b"Basic dXNlcjpwYXNz", 6).is_some());
        assert!(basic(b"Basic understanding of", 6).is_none());
        let header = b"AWS4-HMAC-SHA256 Credential=x/y, Signature=abc";
        let place = authorization(header, Place { start: 0, end: 16, quoted: false }).unwrap();
        assert_eq!((place.start, place.end), (17, header.len()));
    }
}
