//! Personal data in text: e-mail and IP addresses, card and account numbers, telephone numbers. What is found becomes a
//! pseudonym: the same value gives the same mark within a tenant, so grouping still works, and nobody without the key can go back.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::settings::AddressMode;

/// Kinds of personal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Personal {
    Email,
    Ip,
    Card,
    Iban,
    Phone,
}

impl Personal {
    /// As written in the mark and counted.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Ip => "ip",
            Self::Card => "card",
            Self::Iban => "iban",
            Self::Phone => "phone",
        }
    }
}

/// The same value in every spelling: what the pseudonym is computed from.
pub(super) fn canonical(kind: Personal, text: &str) -> Cow<'_, str> {
    match kind {
        Personal::Email if text.bytes().any(|b| b.is_ascii_uppercase()) => text.to_ascii_lowercase().into(),
        // What was recognised as IPv4 has one spelling.
        Personal::Ip if text.contains(':') => {
            text.parse::<IpAddr>().map_or_else(|_| text.to_ascii_lowercase(), |ip| ip.to_canonical().to_string()).into()
        }
        Personal::Email | Personal::Ip => text.into(),
        Personal::Card | Personal::Phone => text.chars().filter(char::is_ascii_digit).collect::<String>().into(),
        Personal::Iban => {
            text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect::<String>().into()
        }
    }
}

/// Endings that look like a domain's and are file or unit names.
const NOT_TOP_LEVEL: &[&str] = &[
    "service", "socket", "timer", "mount", "scope", "slice", "target", "device", "swap", "path", "json", "yaml", "yml", "js",
    "ts", "py", "rs", "go", "java", "class", "jar", "log", "conf", "png", "jpg", "svg", "html", "css", "so", "dll", "exe", "txt",
    "tgz", "gz", "zip", "whl",
];

fn in_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'%' | b'+' | b'-')
}

/// The address around the `@` at `at`.
pub(super) fn email(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    // The domain tells sooner that it is none.
    let rest = &bytes[at + 1..];
    let mut length = rest.iter().take(255).take_while(|b| b.is_ascii_alphanumeric() || matches!(**b, b'-' | b'.')).count();
    while length > 0 && !rest[length - 1].is_ascii_alphanumeric() {
        length -= 1;
    }
    let domain = &rest[..length];
    let last_dot = domain.iter().rposition(|b| *b == b'.')?;
    let top = &domain[last_dot + 1..];
    let named = top.len() >= 2 && top.iter().all(u8::is_ascii_alphabetic);
    let whole = named
        && !domain.starts_with(b".")
        && !domain.windows(2).any(|w| w == b"..")
        && !NOT_TOP_LEVEL.iter().any(|t| top.eq_ignore_ascii_case(t.as_bytes()));
    if !whole {
        return None;
    }
    let floor = at.saturating_sub(64);
    let mut start = at;
    while start > floor && in_local(bytes[start - 1]) {
        start -= 1;
    }
    // The letter of an escape such as `\n` is no part of it.
    if start > 0 && bytes[start - 1] == b'\\' && start < at && matches!(bytes[start], b'n' | b't' | b'r') {
        start += 1;
    }
    while start < at && !bytes[start].is_ascii_alphanumeric() && bytes[start] != b'_' {
        start += 1;
    }
    (start < at && !bytes[start..at].eq_ignore_ascii_case(b"git")).then_some((start, at + 1 + length))
}

/// Whether an address is hidden under `mode`.
pub(super) fn hidden(mode: AddressMode, ip: IpAddr) -> bool {
    match (mode, ip.to_canonical()) {
        (AddressMode::Off, _) => false,
        (AddressMode::All, ip) => !ip.is_unspecified(),
        (AddressMode::Public, IpAddr::V4(ip)) => public_v4(ip),
        (AddressMode::Public, IpAddr::V6(ip)) => public_v6(ip),
    }
}

/// Addresses of the internet. Those reserved for examples (RFC 5737) count as such, so that examples show what happens.
fn public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let reserved = a == 0 || a >= 224;
    let network = ip.octets()[1..] == [0, 0, 0];
    !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared || reserved || network)
}

fn public_v6(ip: Ipv6Addr) -> bool {
    // Global unicast as assigned by IANA (RFC 4291, 2000::/3), and the translated addresses of RFC 6052.
    ip.segments()[0] & 0xe000 == 0x2000 || ip.segments()[..2] == [0x64, 0xff9b]
}

/// The IPv4 address whose first dot is at `at`: bounds and value, if it is one that `mode` hides.
pub(super) fn ipv4(bytes: &[u8], at: usize, mode: AddressMode) -> Option<(usize, usize, Ipv4Addr)> {
    let start = at - bytes[..at].iter().rev().take(4).take_while(|b| b.is_ascii_digit()).count();
    let mut octets = [0_u8; 4];
    let mut cursor = start;
    for (index, octet) in octets.iter_mut().enumerate() {
        let (first, mut value) = (cursor, 0_u32);
        while let Some(digit) = bytes.get(cursor).map(|b| b.wrapping_sub(b'0')).filter(|digit| *digit < 10)
            && cursor - first < 4
        {
            value = value * 10 + u32::from(digit);
            cursor += 1;
        }
        if cursor == first || (cursor - first > 1 && bytes[first] == b'0') {
            return None;
        }
        *octet = u8::try_from(value).ok()?;
        if index < 3 {
            if bytes.get(cursor) != Some(&b'.') {
                return None;
            }
            cursor += 1;
        }
    }
    let address = Ipv4Addr::from(octets);
    if !hidden(mode, address.into()) {
        return None;
    }
    let after = bytes.get(cursor);
    let longer = after.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
        || (after == Some(&b'.') && bytes.get(cursor + 1).is_some_and(u8::is_ascii_digit));
    if longer || version_in_front(bytes, start, after) {
        return None;
    }
    Some((start, cursor, address))
}

/// Whether four numbers are a version: `Chrome/120.0.0.1`, `v1.2.3.4`, `version 1.2.3.4`, `lib-1.2.3.4`.
fn version_in_front(bytes: &[u8], start: usize, after: Option<&u8>) -> bool {
    let Some(before) = start.checked_sub(1).map(|i| bytes[i]) else { return false };
    let escaped = matches!(before, b'n' | b't' | b'r') && start >= 2 && bytes[start - 2] == b'\\';
    if (before.is_ascii_alphabetic() && !escaped) || matches!(before, b'.' | b'_') {
        return true;
    }
    let product = start >= 2 && bytes[start - 2].is_ascii_alphabetic();
    if matches!(before, b'/' | b'-') && product && after != Some(&b':') {
        return true;
    }
    let words = &bytes[start.saturating_sub(12)..start];
    let words = memchr::memrchr(b'\n', words).map_or(words, |n| &words[n + 1..]);
    let tail = words.trim_ascii_end();
    let tail = tail.strip_suffix(b":").or_else(|| tail.strip_suffix(b"=")).or_else(|| tail.strip_suffix(b"\"")).unwrap_or(tail);
    let tail = tail.strip_suffix(b"\":").unwrap_or(tail);
    let names: [&[u8]; 4] = [b"version", b"release", b"build", b" ver"];
    let may_be = matches!(tail.last(), Some(b'n' | b'N' | b'e' | b'E' | b'd' | b'D' | b'r' | b'R'));
    (may_be && names.iter().any(|name| tail.len() >= name.len() && tail[tail.len() - name.len()..].eq_ignore_ascii_case(name)))
        || package_in_front(bytes, start)
}

/// Whether a line speaks of packages and the word in front of the numbers names one: `Upgraded libfoo 1.2.3.4`,
/// `Unpacking openssl (1.1.1.2)`. A word that leads to an address (`from`, `host`) does not.
fn package_in_front(bytes: &[u8], start: usize) -> bool {
    const VERBS: [&[u8]; 10] = [
        b"installed",
        b"installing",
        b"upgraded",
        b"upgrading",
        b"updated",
        b"unpacking",
        b"package",
        b"dependency",
        b"library",
        b"downgraded",
    ];
    const LEADS: [&[u8]; 22] = [
        b"from", b"at", b"by", b"on", b"to", b"for", b"via", b"host", b"ip", b"addr", b"address", b"client", b"peer", b"server",
        b"node", b"remote", b"source", b"src", b"dst", b"user", b"with", b"and",
    ];
    let line = &bytes[start.saturating_sub(80)..start];
    let line = memchr::memrchr(b'\n', line).map_or(line, |n| &line[n + 1..]);
    let Some(line) = line.strip_suffix(b" ").or_else(|| line.strip_suffix(b" (")) else { return false };
    let name = line.rsplit(|b| *b == b' ').next().unwrap_or_default();
    let named = name.len() >= 2
        && name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'+'))
        && name.iter().any(u8::is_ascii_lowercase)
        && !LEADS.iter().any(|lead| name.eq_ignore_ascii_case(lead));
    let before = &line[..line.len() - name.len()];
    named && before.split(|b| !b.is_ascii_alphabetic()).any(|word| VERBS.iter().any(|verb| word.eq_ignore_ascii_case(verb)))
}

/// Bytes an IPv6 address is written with.
pub(super) const fn in_ipv6(byte: u8) -> bool {
    const INSIDE: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0_usize;
        while byte < 256 {
            let b = byte as u8;
            table[byte] = b.is_ascii_hexdigit() || matches!(b, b':' | b'.');
            byte += 1;
        }
        table
    };
    INSIDE[byte as usize]
}

/// The IPv6 address around the colon at `at`: bounds and value. `Err` is where the run that holds no address ends.
pub(super) fn ipv6(bytes: &[u8], at: usize) -> Result<(usize, usize, Ipv6Addr), usize> {
    let inside = |b: &u8| in_ipv6(*b);
    let (mut colons, mut dots, mut compressed) = (0, false, false);
    let mut count = |byte: u8, neighbour: u8| {
        colons += usize::from(byte == b':');
        dots |= byte == b'.';
        compressed |= byte == b':' && neighbour == b':';
    };
    let mut start = at;
    while start > 0 && at - start < 46 && inside(&bytes[start - 1]) {
        start -= 1;
        count(bytes[start], bytes[start + 1]);
    }
    let mut end = at;
    while end < bytes.len() && end - at < 46 && inside(&bytes[end]) {
        count(bytes[end], if end > at { bytes[end - 1] } else { b' ' });
        end += 1;
    }
    let skip = end;
    // A sentence or a separator behind it.
    while end > start && (bytes[end - 1] == b'.' || (bytes[end - 1] == b':' && !bytes[..end].ends_with(b"::"))) {
        end -= 1;
    }
    // A time of day has two colons and a dot at most: told before anything is parsed.
    if colons < 2 || (!compressed && colons < 7 && !dots) {
        return Err(skip.max(at + 1));
    }
    let run = &bytes[start..end];
    let bounded = !start.checked_sub(1).is_some_and(|i| bytes[i].is_ascii_alphanumeric() || bytes[i] == b'_')
        && !bytes.get(end).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    if !bounded {
        return Err(skip.max(at + 1));
    }
    let parsed = std::str::from_utf8(run).ok().and_then(|text| text.parse::<Ipv6Addr>().ok());
    parsed.map(|ip| (start, end, ip)).ok_or(skip.max(at + 1))
}

/// Luhn's check digit (ISO/IEC 7812-1, annex B).
pub(super) fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| {
            let value = u32::from(digit - b'0');
            if index % 2 == 0 { value } else { value * 2 / 10 + value * 2 % 10 }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Whether issuer and length fit together (ISO/IEC 7812 issuer ranges as the networks publish them).
fn issued(digits: &[u8]) -> bool {
    let prefix = |n: usize| digits[..n].iter().fold(0_u32, |sum, d| sum * 10 + u32::from(d - b'0'));
    let (one, two, four) = (prefix(1), prefix(2), prefix(4));
    match digits.len() {
        13 => one == 4,
        14 => matches!(two, 36 | 38 | 39) || (300..=305).contains(&prefix(3)),
        15 => matches!(two, 34 | 37),
        16 => {
            one == 4
                || (51..=55).contains(&two)
                || (2221..=2720).contains(&four)
                || four == 6011
                || two == 65
                || (644..=649).contains(&prefix(3))
                || (3528..=3589).contains(&four)
                || two == 62
        }
        17..=19 => (one == 4 && digits.len() == 19) || two == 62 || four == 6011 || matches!(two, 50 | 56 | 57 | 58),
        _ => false,
    }
}

/// Whether these digits are a card number.
pub(super) fn is_card(digits: &[u8]) -> bool {
    (13..=19).contains(&digits.len()) && issued(digits) && luhn(digits) && digits.iter().any(|d| *d != digits[0])
}

/// Digits of the shortest card number.
pub(super) const SHORTEST_CARD: usize = 13;

/// Whether the number of at least [`SHORTEST_CARD`] digits at `start` can be a card's: those begin with 2 to 6, stand alone and
/// have at most 19 digits. A time in milliseconds begins with 1.
pub(super) fn may_be_card(bytes: &[u8], start: usize) -> bool {
    let edge = start.checked_sub(1).map(|i| bytes[i]);
    matches!(bytes[start], b'2'..=b'6')
        && !edge.is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'+'))
        && bytes[start..].iter().take(20).take_while(|b| b.is_ascii_digit()).count() < 20
}

/// A card number that starts at the digit at `at`: where it ends. What ends at `border` will be a mark.
pub(super) fn card(bytes: &[u8], at: usize, border: usize) -> Option<usize> {
    let edge = at.checked_sub(1).filter(|_| at != border).map(|i| bytes[i]);
    if edge.is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'+')) {
        return None;
    }
    // Told by the first group already: four of more than one, or all of them.
    let first = bytes[at..].iter().take(20).take_while(|b| b.is_ascii_digit()).count();
    let grouped = matches!(bytes.get(at + first), Some(b' ' | b'-')) && bytes.get(at + first + 1).is_some_and(u8::is_ascii_digit);
    if if grouped { first != 4 } else { !(13..=19).contains(&first) } {
        return None;
    }
    let mut digits = [0_u8; 19];
    let mut count = 0;
    let mut cursor = at;
    let mut groups: [usize; 8] = [0; 8];
    let mut group = 0;
    let mut separator = None;
    while let Some(byte) = bytes.get(cursor) {
        if byte.is_ascii_digit() {
            if count == 19 {
                return None;
            }
            digits[count] = *byte;
            count += 1;
            groups[group] += 1;
        } else if matches!(byte, b' ' | b'-')
            && separator.is_none_or(|s| s == *byte)
            && group < 7
            && bytes.get(cursor + 1).is_some_and(u8::is_ascii_digit)
        {
            // A card printed in groups is complete after four of four; what follows a space may be another number.
            if groups[..=group] == [4, 4, 4, 4] && is_card(&digits[..count]) {
                break;
            }
            separator = Some(*byte);
            group += 1;
        } else {
            break;
        }
        cursor += 1;
    }
    let shaped = group == 0 || matches!(groups[..=group], [4, 4, 4, 4] | [4, 4, 4, 4, 3] | [4, 6, 5 | 4]);
    let after = bytes.get(cursor);
    let open = after.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
        || (after == Some(&b'.') && bytes.get(cursor + 1).is_some_and(u8::is_ascii_digit));
    (shaped && !open && is_card(&digits[..count])).then_some(cursor)
}

/// Lengths of account numbers by country (SWIFT IBAN registry).
pub(super) fn iban_length(country: &[u8]) -> Option<usize> {
    const LENGTHS: &[(&[u8], usize)] = &[
        (b"AD", 24),
        (b"AE", 23),
        (b"AL", 28),
        (b"AT", 20),
        (b"AZ", 28),
        (b"BA", 20),
        (b"BE", 16),
        (b"BG", 22),
        (b"BH", 22),
        (b"BR", 29),
        (b"BY", 28),
        (b"CH", 21),
        (b"CR", 22),
        (b"CY", 28),
        (b"CZ", 24),
        (b"DE", 22),
        (b"DK", 18),
        (b"DO", 28),
        (b"EE", 20),
        (b"EG", 29),
        (b"ES", 24),
        (b"FI", 18),
        (b"FO", 18),
        (b"FR", 27),
        (b"GB", 22),
        (b"GE", 22),
        (b"GI", 23),
        (b"GL", 18),
        (b"GR", 27),
        (b"GT", 28),
        (b"HR", 21),
        (b"HU", 28),
        (b"IE", 22),
        (b"IL", 23),
        (b"IQ", 23),
        (b"IS", 26),
        (b"IT", 27),
        (b"JO", 30),
        (b"KW", 30),
        (b"KZ", 20),
        (b"LB", 28),
        (b"LC", 32),
        (b"LI", 21),
        (b"LT", 20),
        (b"LU", 20),
        (b"LV", 21),
        (b"MC", 27),
        (b"MD", 24),
        (b"ME", 22),
        (b"MK", 19),
        (b"MR", 27),
        (b"MT", 31),
        (b"MU", 30),
        (b"NL", 18),
        (b"NO", 15),
        (b"PK", 24),
        (b"PL", 28),
        (b"PS", 29),
        (b"PT", 25),
        (b"QA", 29),
        (b"RO", 24),
        (b"RS", 22),
        (b"SA", 24),
        (b"SC", 31),
        (b"SE", 24),
        (b"SI", 19),
        (b"SK", 24),
        (b"SM", 27),
        (b"ST", 25),
        (b"SV", 28),
        (b"TL", 23),
        (b"TN", 24),
        (b"TR", 26),
        (b"UA", 29),
        (b"VA", 22),
        (b"VG", 24),
        (b"XK", 20),
    ];
    LENGTHS.iter().find(|(code, _)| *code == country).map(|(_, length)| *length)
}

/// An account number that starts at `at`, in one run or with single spaces: where it ends (ISO 13616, ISO 7064 mod 97-10).
pub(super) fn iban(bytes: &[u8], at: usize) -> Option<usize> {
    let [a, b, c, d, ..] = bytes.get(at..)? else { return None };
    let head = a.is_ascii_uppercase() && b.is_ascii_uppercase() && c.is_ascii_digit() && d.is_ascii_digit();
    if !head || !super::tokens::starts_word(bytes, at) {
        return None;
    }
    let wanted = iban_length(&[*a, *b])?;
    let mut symbols = [0_u8; 34];
    let mut count = 0;
    let mut cursor = at;
    while count < wanted {
        let byte = *bytes.get(cursor)?;
        if byte.is_ascii_uppercase() || byte.is_ascii_digit() {
            symbols[count] = byte;
            count += 1;
        } else if byte != b' ' || bytes[cursor - 1] == b' ' {
            return None;
        }
        cursor += 1;
    }
    if bytes.get(cursor).is_some_and(u8::is_ascii_alphanumeric) {
        return None;
    }
    let rearranged = symbols[4..wanted].iter().chain(&symbols[..4]);
    let rest = rearranged.fold(0_u32, |rest, symbol| match symbol {
        b'0'..=b'9' => (rest * 10 + u32::from(symbol - b'0')) % 97,
        _ => (rest * 100 + u32::from(symbol - b'A') + 10) % 97,
    });
    (rest == 1).then_some(cursor)
}

/// A telephone number that starts at `at` (`+`, `(` or a digit): where it ends. What ends at `border` will be a mark.
pub(super) fn phone(bytes: &[u8], at: usize, border: usize) -> Option<usize> {
    let edge = at.checked_sub(1).filter(|_| at != border).map(|i| bytes[i]);
    if edge.is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'+' | b'/' | b'%' | b'#')) {
        return None;
    }
    if bytes[at] == b'+' { international(bytes, at) } else { american(bytes, at) }
}

/// `+49 30 1234567`, `+14155550123` (ITU-T E.164: at most 15 digits, none of them a leading zero).
fn international(bytes: &[u8], at: usize) -> Option<usize> {
    if !matches!(bytes.get(at + 1), Some(b'1'..=b'9')) {
        return None;
    }
    let (mut digits, mut cursor, mut end) = (0, at + 1, at + 1);
    while let Some(byte) = bytes.get(cursor) {
        match byte {
            b'0'..=b'9' => {
                digits += 1;
                end = cursor + 1;
            }
            b' ' | b'-' | b'(' | b')' => {
                // One sign between groups, two around brackets.
                let last = bytes[cursor - 1];
                if !(last.is_ascii_digit() || matches!((last, *byte), (b' ' | b'-', b'(') | (b')', b' ' | b'-'))) {
                    break;
                }
            }
            _ => break,
        }
        cursor += 1;
    }
    let open = bytes.get(end).is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':'));
    let sentence = bytes.get(end) == Some(&b'.') && !bytes.get(end + 1).is_some_and(u8::is_ascii_alphanumeric);
    ((9..=15).contains(&digits) && (!open || sentence)).then_some(end)
}

/// `(415) 555-0123`, `415-555-0123`, `1-415-555-0123` (North American Numbering Plan).
fn american(bytes: &[u8], at: usize) -> Option<usize> {
    let shapes: [&[u8]; 4] = [b"(ddd) ddd-dddd", b"(ddd)ddd-dddd", b"ddd-ddd-dddd", b"1-ddd-ddd-dddd"];
    let rest = &bytes[at..];
    if !(rest[0] == b'(' || rest.get(1) == Some(&b'-') || rest.get(3) == Some(&b'-')) {
        return None;
    }
    let fits = |shape: &[u8]| {
        rest.len() >= shape.len()
            && shape.iter().zip(rest).all(|(want, have)| if *want == b'd' { have.is_ascii_digit() } else { want == have })
            && !rest.get(shape.len()).is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'))
    };
    let shape = shapes.into_iter().find(|s| fits(s))?;
    let area = rest.iter().filter(|b| b.is_ascii_digit()).nth(usize::from(shape[0] == b'1'));
    area.is_some_and(|d| *d >= b'2').then_some(at + shape.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_checked_and_not_guessed() {
        assert!(card(b"4111111111111111", 0, usize::MAX).is_some());
        assert!(card(b"4111 1111 1111 1111 12", 0, usize::MAX) == Some(19));
        assert!(card(b"3782-822463-10005", 0, usize::MAX).is_some());
        assert!(card(b"4111111111111112", 0, usize::MAX).is_none());
        assert!(card(b"1700000000000000000", 0, usize::MAX).is_none());
        assert_eq!(iban(b"DE89370400440532013000", 0), Some(22));
        assert_eq!(iban(b"GB82 WEST 1234 5698 7654 32 x", 0), Some(27));
        assert_eq!(iban(b"DE88370400440532013000", 0), None);
        assert_eq!(phone(b"+49 30 1234567 ", 0, usize::MAX), Some(14));
        assert_eq!(phone(b"(415) 555-0123", 0, usize::MAX), Some(14));
        assert_eq!(phone(b"+0200", 0, usize::MAX), None);
        assert_eq!(phone(b"+1234567890123456", 0, usize::MAX), None);
    }

    #[test]
    fn addresses_of_people_and_not_of_machines() {
        let v4 = |text: &str| text.find('.').and_then(|at| ipv4(text.as_bytes(), at, AddressMode::All)).map(|found| found.2);
        assert!(v4("from 203.0.113.9 port").is_some_and(|ip| hidden(AddressMode::Public, ip.into())));
        assert!(
            v4("from 10.0.0.1 port")
                .is_some_and(|ip| !hidden(AddressMode::Public, ip.into()) && hidden(AddressMode::All, ip.into()))
        );
        for text in ["Upgraded libfoo 1.2.3.4", "Installed: package openssl (1.1.1.2)", "Unpacking lib-bar 12.0.0.1 over"] {
            assert!(v4(text).is_none(), "{text}");
        }
        for text in
            ["installed from 203.0.113.9", "updated host 203.0.113.9", "login ana 203.0.113.9", "upgraded\nana 203.0.113.9"]
        {
            assert!(v4(text).is_some(), "{text}");
        }
        for text in
            ["Chrome/120.0.6099.109 x", "v1.2.3.4", "1.2.3.4.5", "256.1.1.1", "version 1.2.3.4", "lib-1.2.3.4.jar", "1.2.3"]
        {
            assert!(v4(text).is_none(), "{text}");
        }
        let v6 = |text: &str| text.find(':').and_then(|at| ipv6(text.as_bytes(), at).ok()).map(|found| found.2);
        assert!(v6("2001:db8::1").is_some_and(|ip| hidden(AddressMode::Public, ip.into())));
        assert!(v6("fe80::1").is_some_and(|ip| !hidden(AddressMode::Public, ip.into())));
        for text in ["12:34:56", "std::fs", "a:b:c", "2024-01-02T10:11:12.5"] {
            assert!(v6(text).is_none(), "{text}");
        }
    }

    #[test]
    fn mail_addresses_have_a_domain() {
        let found = |text: &str| text.find('@').and_then(|at| email(text.as_bytes(), at)).map(|(a, b)| text[a..b].to_owned());
        assert_eq!(found("to <ana.b+x@mail.example.org>."), Some("ana.b+x@mail.example.org".into()));
        assert_eq!(found("by ana@example.com."), Some("ana@example.com".into()));
        for text in ["user@host", "getty@tty1.service", "lodash@4.17.21", "git@github.com:a/b", "img@sha256:ab", "@x.com"] {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
