//! From a message to its skeleton: numbers, ids, addresses, paths and times become one variable byte.
//!
//! One pass over the bytes, no allocation beyond the output buffer. Guards that words stay words: names such as `ssh2`,
//! error codes and the class of failing HTTP statuses are kept, because they tell messages apart. Must never fail on
//! any input.

/// Stands for a variable in a skeleton; control bytes of the input never reach the output.
pub(super) const VARIABLE: u8 = 1;
/// Bytes of a message that are looked at.
pub(super) const MAX_MASKED: usize = 1024;

const SPACE: u8 = 1;
const DELIMITER: u8 = 2;
const DIGIT: u8 = 4;
const LETTER: u8 = 8;
const COLON: u8 = 16;
const SLASH: u8 = 32;
const JOINT: u8 = 64;
const OTHER: u8 = 128;

/// What each byte is. Bytes beyond ASCII count as letters.
const CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [LETTER; 256];
    let mut byte = 0;
    while byte < 128 {
        let value = byte as u8;
        table[byte] = match value {
            0..=b' ' | 127 => SPACE,
            b'0'..=b'9' => DIGIT,
            b'a'..=b'z' | b'A'..=b'Z' => LETTER,
            b':' => COLON,
            b'/' => SLASH,
            b'-' | b'_' | b'.' => JOINT,
            b'@' | b'%' | b'+' | b'\\' | b'~' | b'*' | b'$' | b'&' | b'!' | b'?' => OTHER,
            _ => DELIMITER,
        };
        byte += 1;
    }
    table
}

/// Writes the skeleton of `text` to `out`, which is cleared first.
pub(super) fn mask(text: &str, out: &mut Vec<u8>) {
    out.clear();
    let bytes = text.as_bytes();
    let bytes = bounded(bytes);
    let mut at = 0;
    while let Some(byte) = bytes.get(at).copied() {
        let class = CLASS[byte as usize];
        if class == SPACE {
            if out.last().is_some_and(|last| *last != b' ') {
                out.push(b' ');
            }
            at += 1;
        } else if class == DELIMITER {
            push_delimiter(byte, out);
            at += 1;
        } else {
            let start = at;
            let mut seen = 0;
            while at < bytes.len() && in_word(bytes, at) {
                seen |= CLASS[bytes[at] as usize];
                at += 1;
            }
            push_word(&bytes[start..at], seen, &bytes[at..], out);
        }
    }
    while out.last() == Some(&b' ') {
        out.pop();
    }
}

/// The first [`MAX_MASKED`] bytes, cut between words where there is a gap: half a word would look like another word.
fn bounded(bytes: &[u8]) -> &[u8] {
    let Some(start) = bytes.get(..MAX_MASKED) else { return bytes };
    start.iter().rposition(|b| CLASS[*b as usize] == SPACE).map_or(start, |gap| &start[..gap])
}

fn in_word(bytes: &[u8], at: usize) -> bool {
    let byte = bytes[at];
    if CLASS[byte as usize] & (SPACE | DELIMITER) == 0 {
        return true;
    }
    // An apostrophe inside a word: can't, user's.
    byte == b'\'' && at > 0 && bytes[at - 1].is_ascii_alphabetic() && bytes.get(at + 1).is_some_and(u8::is_ascii_alphabetic)
}

/// Closing a bracket that holds nothing, or only a variable, right after a variable says the same thing twice:
/// `10.0.0.1 (host.example.com)`, `1190 bytes (1.16 KB)`, `10.0.0.1 ()`.
fn push_delimiter(byte: u8, out: &mut Vec<u8>) {
    if byte == b')' {
        for tail in
            [&[VARIABLE, b' ', b'(', VARIABLE][..], &[VARIABLE, b'(', VARIABLE], &[VARIABLE, b' ', b'('], &[VARIABLE, b'(']]
        {
            if out.ends_with(tail) {
                out.truncate(out.len() - tail.len() + 1);
                return;
            }
        }
    }
    out.push(byte);
}

/// Adds a variable, absorbing one that is only separated by signs.
fn push_variable(out: &mut Vec<u8>) {
    if out.last() == Some(&b'<') && (out.len() == 1 || out[out.len() - 2] == b' ') {
        out.pop();
    }
    let signs = |b: &u8| matches!(b, b' ' | b',' | b':' | b'-' | b'/' | b'.' | b'+' | b';');
    let kept = out.iter().rposition(|b| !signs(b)).map_or(0, |last| last + 1);
    if kept > 0 && out[kept - 1] == VARIABLE {
        out.truncate(kept);
    } else {
        out.push(VARIABLE);
    }
}

fn push_word(word: &[u8], seen: u8, rest: &[u8], out: &mut Vec<u8>) {
    let trimmed = word.iter().rposition(|b| !matches!(b, b'.' | b':' | b'!' | b'?')).map_or(word.len(), |last| last + 1);
    let (core, suffix) = word.split_at(trimmed);
    if seen & DIGIT == 0 {
        push_plain(core, seen, rest, out);
    } else if seen & COLON != 0 && !contains(core, b"://") {
        push_pieces(core, out);
    } else {
        push_numeric(core, out);
    }
    out.extend_from_slice(suffix);
}

/// A word without digits.
fn push_plain(core: &[u8], seen: u8, rest: &[u8], out: &mut Vec<u8>) {
    let only_letters = seen & !LETTER == 0;
    let variable = if only_letters {
        let after_variable = out.last() == Some(&VARIABLE) || out.ends_with(&[VARIABLE, b' ']);
        if after_variable && is_unit(core) {
            out.truncate(out.len() - usize::from(out.last() == Some(&b' ')));
            return;
        }
        core.len() == 3 && is_calendar_word(core, rest) || core.len() >= 32 && mixed_case(core)
    } else {
        let slashes = core.split(|b| *b == b'/').count() - 1;
        core.len() > 1 && core[0] == b'/'
            || slashes >= 2
            || contains(core, b":\\")
            || core.len() > 2 && core[1..core.len() - 1].contains(&b'@')
            || seen & JOINT != 0 && is_host(core)
    };
    if variable { push_variable(out) } else { out.extend_from_slice(core) }
}

/// A word with digits and colons: `10.0.0.1:80`, `sessionid:0x14`, `10:59:53`.
fn push_pieces(core: &[u8], out: &mut Vec<u8>) {
    let pieces = core.split(|b| *b == b':').count();
    if pieces >= 3 && core.iter().all(|b| b.is_ascii_hexdigit() || *b == b':' || *b == b'.') {
        push_variable(out);
        return;
    }
    if pieces == 2 && is_host_and_port(core) {
        push_variable(out);
        return;
    }
    for (index, piece) in core.split(|b| *b == b':').enumerate() {
        if index > 0 {
            out.push(b':');
        }
        if piece.is_empty() {
            continue;
        }
        let seen = piece.iter().fold(0, |seen, b| seen | CLASS[*b as usize]);
        if seen & DIGIT == 0 { push_plain(piece, seen, &[], out) } else { push_numeric(piece, out) }
    }
}

/// A word with digits and without colons.
fn push_numeric(core: &[u8], out: &mut Vec<u8>) {
    if let Some(at) = core.iter().position(|b| *b == b'@')
        && core[..at].contains(&b'.')
        && core[..at].iter().any(u8::is_ascii_uppercase)
        && !core[..at].iter().any(u8::is_ascii_digit)
    {
        out.extend_from_slice(&core[..=at]);
        push_variable(out);
    } else if core.starts_with(b"HTTP/") || is_name_with_digits(core) || is_error_code(core) {
        out.extend_from_slice(core);
    } else if core.len() == 3 && core[0] == b'5' && core.iter().all(u8::is_ascii_digit) && status_expected(out) {
        out.extend_from_slice(b"5xx");
    } else {
        push_variable(out);
    }
}

/// Whether what was written last announces an HTTP status.
fn status_expected(out: &[u8]) -> bool {
    let end = out.iter().rposition(|b| !matches!(b, b' ' | b'=' | b':' | b'"' | b'(')).map_or(0, |last| last + 1);
    let start = out[..end].iter().rposition(|b| CLASS[*b as usize] & (SPACE | DELIMITER | COLON) != 0).map_or(0, |last| last + 1);
    let word = &out[start..end];
    let named = ["status", "code", "status_code", "statuscode", "http_status", "http.status_code", "http.response.status_code"];
    word.starts_with(b"HTTP/") || named.iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
}

/// A name that happens to carry a digit or two: `ssh2`, `SOCKS5`, `jk2_init`, `utf8`, `Slf4jLogger`.
fn is_name_with_digits(core: &[u8]) -> bool {
    let wordlike = |part: &[u8]| {
        let digits = part.iter().filter(|b| b.is_ascii_digit()).count();
        let letters = part.iter().filter(|b| b.is_ascii_alphabetic()).count();
        let hex = part.len() >= 4 && part.iter().all(u8::is_ascii_hexdigit);
        digits == 0 || digits <= 2 && letters >= 2 && part[0].is_ascii_alphabetic() && !hex && digits + letters == part.len()
    };
    let parts = || core.split(|b| matches!(b, b'.' | b'_' | b'-'));
    core[0].is_ascii_alphabetic()
        && parts().all(|part| !part.is_empty() && wordlike(part))
        && !(core.contains(&b'.') && is_host(core))
}

/// Codes that name an error: `ORA-01017`, `E11000`, `SQLSTATE23505`, `CVE-2021-44228`.
fn is_error_code(core: &[u8]) -> bool {
    let letters = core.iter().take_while(|b| b.is_ascii_uppercase()).count();
    let prefix = &core[..letters];
    let known: [&[u8]; 7] = [b"E", b"ERR", b"ORA", b"SQLSTATE", b"CVE", b"PGRST", b"KB"];
    let tail = &core[letters..];
    let digits = tail.iter().filter(|b| b.is_ascii_digit()).count();
    known.contains(&prefix) && (3..=10).contains(&digits) && tail.iter().all(|b| b.is_ascii_digit() || *b == b'-')
}

/// A dotted lower-case name with a port: whatever the domain, it is a host.
fn is_host_and_port(core: &[u8]) -> bool {
    let Some(colon) = core.iter().position(|b| *b == b':') else { return false };
    let (host, port) = (&core[..colon], &core[colon + 1..]);
    let hostlike = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    host.contains(&b'.') && host.iter().all(hostlike) && (1..=5).contains(&port.len()) && port.iter().all(u8::is_ascii_digit)
}

/// A lower-case dotted name under a domain that hosts are under.
fn is_host(core: &[u8]) -> bool {
    const DOMAINS: [&[u8]; 24] = [
        b"com",
        b"net",
        b"org",
        b"edu",
        b"gov",
        b"mil",
        b"info",
        b"biz",
        b"arpa",
        b"local",
        b"internal",
        b"lan",
        b"svc",
        b"cloud",
        b"dev",
        b"de",
        b"uk",
        b"fr",
        b"nl",
        b"jp",
        b"cn",
        b"hk",
        b"ru",
        b"br",
    ];
    let Some(dot) = core.iter().rposition(|b| *b == b'.') else { return false };
    let hostlike = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
    dot > 0 && DOMAINS.contains(&&core[dot + 1..]) && core.iter().all(hostlike)
}

fn is_unit(word: &[u8]) -> bool {
    const UNITS: [&[u8]; 34] = [
        b"ms", b"us", b"ns", b"s", b"sec", b"secs", b"second", b"seconds", b"min", b"mins", b"minute", b"minutes", b"h", b"hour",
        b"hours", b"day", b"days", b"b", b"byte", b"bytes", b"kb", b"mb", b"gb", b"tb", b"kib", b"mib", b"gib", b"k", b"m", b"g",
        b"am", b"pm", b"utc", b"gmt",
    ];
    word.len() <= 7 && UNITS.iter().any(|unit| word.eq_ignore_ascii_case(unit))
}

/// Month and weekday names in front of a number or of each other.
fn is_calendar_word(word: &[u8], rest: &[u8]) -> bool {
    const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    const DAYS: &[u8] = b"MonTueWedThuFriSatSun";
    let listed = |list: &[u8], word: &[u8]| list.chunks_exact(3).any(|name| name == word);
    let gap = rest.iter().take_while(|b| matches!(b, b' ' | b',')).count();
    let next = &rest[gap..];
    if gap == 0 {
        return false;
    }
    let number_next = next.first().is_some_and(u8::is_ascii_digit);
    (listed(MONTHS, word) || listed(DAYS, word)) && number_next
        || listed(DAYS, word) && next.get(..3).is_some_and(|month| listed(MONTHS, month))
}

fn mixed_case(word: &[u8]) -> bool {
    word.iter().any(u8::is_ascii_uppercase) && word.iter().any(u8::is_ascii_lowercase) && word.is_ascii()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// A skeleton as people read it.
pub(super) fn readable(skeleton: &[u8]) -> String {
    String::from_utf8_lossy(skeleton).replace(char::from(VARIABLE), "<*>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> String {
        let mut out = Vec::new();
        mask(text, &mut out);
        readable(&out)
    }

    #[test]
    fn variables_go_and_words_stay() {
        for (text, expected) in [
            ("connection from 24.54.76.216 (24-54-76-216.example.com) at Fri Jun 17 07:07:00 2005", "connection from <*> at <*>"),
            ("connection from 218.38.58.3 () at Wed Jul 27 10:59:53 2005", "connection from <*> at <*>"),
            ("PacketResponder 1 for block blk_38865049064139660 terminating", "PacketResponder <*> for block <*> terminating"),
            (
                "10.251.30.85:50010:Got exception while serving blk_-29 to /10.1.9.64:",
                "<*>:Got exception while serving <*> to <*>:",
            ),
            (
                "q1.cnzz.com:80 close, 403 bytes sent, 1190 bytes (1.16 KB) received, lifetime <1 sec",
                "<*> close, <*> sent, <*> received, lifetime <*>",
            ),
            ("open through proxy proxy.example.hk:5070 SOCKS5", "open through proxy <*> SOCKS5"),
            ("jk2_init() Found child 6725 in scoreboard slot 10", "jk2_init() Found child <*> in scoreboard slot <*>"),
            ("GET /api/products/17 HTTP/1.1\" 503 12", "GET <*> HTTP/1.1\" 5xx <*>"),
            ("status=200 took 15ms", "status=<*> took <*>"),
            ("ORA-01017: invalid username", "ORA-01017: invalid username"),
            (
                "Exception in org.example.Peer$Server@5d3f: user can't log in",
                "Exception in org.example.Peer$Server@<*>: user can't log in",
            ),
            ("order 550e8400-e29b-41d4-a716-446655440000 failed", "order <*> failed"),
            ("mapred.job.id is deprecated", "mapred.job.id is deprecated"),
            ("sent to bob@example.com via C:\\temp\\x", "sent to <*> via <*>"),
            ("fe80::1ff:fe23 joined", "<*> joined"),
            ("CPU#0 is 100% busy", "CPU#<*> is <*> busy"),
            ("", ""),
        ] {
            assert_eq!(masked(text), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_a_bounded_printable_skeleton(text in "\\PC{0,200}", raw in proptest::collection::vec(proptest::char::any(), 0..300)) {
            for text in [text, raw.into_iter().collect()] {
                let mut out = Vec::new();
                mask(&text, &mut out);
                proptest::prop_assert!(out.len() <= text.len().min(MAX_MASKED));
                proptest::prop_assert!(out.iter().all(|b| *b >= b' ' || *b == VARIABLE));
            }
        }
    }
}
