//! DNS messages (RFC 1035) for questions over HTTPS (RFC 8484): one question out, texts and names back. Guards against messages
//! that are cut, lie about lengths or point at themselves. Must not send anything.

use std::net::IpAddr;

/// Types of records.
pub(crate) const PTR: u16 = 12;
pub(crate) const TXT: u16 = 16;
/// Most records looked at.
const MOST_RECORDS: u16 = 64;
/// Most compression pointers followed in one name.
const MOST_JUMPS: usize = 16;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Texts of TXT, names of PTR; empty when the name or such records do not exist.
    pub(crate) values: Vec<String>,
    /// Seconds the answer holds.
    pub(crate) seconds: u32,
}

/// A question for one name, recursion desired, with the identifier 0 as RFC 8484 advises.
pub(crate) fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        message.push(label.len() as u8);
        message.extend_from_slice(label);
    }
    message.push(0);
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&[0, 1]);
    message
}

/// `4.3.2.1.in-addr.arpa` and its like, under any suffixes for the two versions.
pub(crate) fn reversed(address: IpAddr, four: &str, six: &str) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.{four}")
        }
        IpAddr::V6(address) => {
            let mut name = String::with_capacity(80);
            for byte in address.octets().iter().rev() {
                name.push_str(&format!("{:x}.{:x}.", byte & 15, byte >> 4));
            }
            name + six
        }
    }
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

/// The name at `at`, and where the message goes on after it.
fn name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut out, mut after, mut jumps) = (String::new(), None, 0);
    loop {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => return Some((out, after.unwrap_or(at + 1))),
            1..=63 => {
                if !out.is_empty() {
                    out.push('.');
                }
                for byte in message.get(at + 1..at + 1 + length)? {
                    // Whoever holds the address chooses this text.
                    let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
                    out.push(if plain { char::from(*byte) } else { '?' });
                }
                if out.len() > 255 {
                    return None;
                }
                at += 1 + length;
            }
            192..=255 => {
                jumps += 1;
                if jumps > MOST_JUMPS {
                    return None;
                }
                after = after.or(Some(at + 2));
                at = usize::from(number(message, at)? & 0x3fff);
            }
            _ => return None,
        }
    }
}

/// Reads an answer to a question of this type.
///
/// # Errors
/// A sentence when it is no answer: unreadable, cut, or a failure of the resolver.
pub(crate) fn read(message: &[u8], kind: u16) -> Result<Answer, String> {
    let broken = || "the resolver's answer cannot be read".to_owned();
    let flags = number(message, 2).ok_or_else(broken)?;
    if flags & 0x8000 == 0 {
        return Err(broken());
    }
    match flags & 15 {
        0 => {}
        3 => return Ok(Answer { values: Vec::new(), seconds: 3_600 }),
        code => return Err(format!("the resolver failed with code {code}")),
    }
    if flags & 0x0200 != 0 {
        return Err("the resolver cut its answer".to_owned());
    }
    let (questions, answers) = (number(message, 4).ok_or_else(broken)?, number(message, 6).ok_or_else(broken)?);
    let mut at = 12;
    for _ in 0..questions.min(MOST_RECORDS) {
        at = name(message, at).ok_or_else(broken)?.1 + 4;
    }
    let mut found = Answer { values: Vec::new(), seconds: 86_400 };
    for _ in 0..answers.min(MOST_RECORDS) {
        at = name(message, at).ok_or_else(broken)?.1;
        let of = number(message, at).ok_or_else(broken)?;
        let seconds = message.get(at + 4..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        let length = usize::from(number(message, at + 8).ok_or_else(broken)?);
        let data = at + 10;
        let bytes = message.get(data..data + length).ok_or_else(broken)?;
        if of == kind {
            found.seconds = found.seconds.min(seconds.unwrap_or(0));
            found.values.push(match kind {
                PTR => name(message, data).ok_or_else(broken)?.0,
                _ => text(bytes).ok_or_else(broken)?,
            });
        }
        at = data + length;
    }
    if found.values.is_empty() {
        found.seconds = 3_600;
    }
    Ok(found)
}

/// The strings of a TXT record, one after the other.
fn text(mut bytes: &[u8]) -> Option<String> {
    let mut out = String::new();
    while let Some((length, rest)) = bytes.split_first() {
        let part = rest.get(..usize::from(*length))?;
        out.push_str(&String::from_utf8_lossy(part));
        bytes = &rest[part.len()..];
    }
    Some(out.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An answer to a question, as a resolver writes it: names as pointers to the question.
    pub(crate) fn answer(question: &[u8], records: &[(u16, u32, Vec<u8>)]) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2..4].copy_from_slice(&[0x81, 0x80]);
        message[7] = records.len() as u8;
        for (kind, seconds, data) in records {
            message.extend_from_slice(&[0xc0, 12]);
            message.extend_from_slice(&kind.to_be_bytes());
            message.extend_from_slice(&[0, 1]);
            message.extend_from_slice(&seconds.to_be_bytes());
            message.extend_from_slice(&(data.len() as u16).to_be_bytes());
            message.extend_from_slice(data);
        }
        message
    }

    pub(crate) fn texts(text: &str) -> Vec<u8> {
        text.as_bytes().chunks(255).flat_map(|part| std::iter::once(part.len() as u8).chain(part.iter().copied())).collect()
    }

    #[test]
    fn a_question_is_answered() {
        let asked = question("8.8.8.8.origin.asn.cymru.com", TXT);
        assert_eq!(&asked[12..15], &[1, b'8', 1]);
        let long = "x".repeat(300);
        let got =
            read(&answer(&asked, &[(5, 60, vec![0]), (TXT, 120, texts("15169 | 8.8.8.0/24")), (TXT, 90, texts(&long))]), TXT)
                .unwrap();
        assert_eq!((got.values.as_slice(), got.seconds), (["15169 | 8.8.8.0/24".to_owned(), long].as_slice(), 90));
        let asked = question("8.8.8.8.in-addr.arpa", PTR);
        let got = read(&answer(&asked, &[(PTR, 60, vec![3, b'd', b'n', b's', 2, b'g', b'\n', 0xc0, 28])]), PTR).unwrap();
        assert_eq!(got.values, ["dns.g?.arpa"]);
    }

    #[test]
    fn names_of_addresses_run_backwards() {
        assert_eq!(reversed("1.2.3.4".parse().unwrap(), "in-addr.arpa", "ip6.arpa"), "4.3.2.1.in-addr.arpa");
        let six = reversed("2001:db8::1".parse().unwrap(), "in-addr.arpa", "ip6.arpa");
        assert_eq!(six, "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa");
    }

    #[test]
    fn what_does_not_exist_is_empty_and_what_failed_is_not() {
        let mut missing = answer(&question("a.b", TXT), &[]);
        missing[3] = 0x83;
        assert!(read(&missing, TXT).unwrap().values.is_empty());
        missing[3] = 0x82;
        assert!(read(&missing, TXT).unwrap_err().contains("code 2"));
        let mut cut = answer(&question("a.b", TXT), &[]);
        cut[2] |= 2;
        assert!(read(&cut, TXT).unwrap_err().contains("cut"));
    }

    #[test]
    fn broken_messages_end() {
        let asked = question("a.b", PTR);
        let whole = answer(&asked, &[(PTR, 60, vec![1, b'x', 0xc0, 12]), (TXT, 60, texts("y"))]);
        for length in 0..whole.len() {
            assert!(read(&whole[..length], PTR).is_err(), "{length}");
        }
        // A name that points at itself.
        let at = asked.len() as u8 + 12;
        assert!(read(&answer(&asked, &[(PTR, 60, vec![0xc0, at])]), PTR).is_err());
        for seed in 0..2_000_u32 {
            let mut bytes = whole.clone();
            let place = (seed.wrapping_mul(2_654_435_761) >> 8) as usize % bytes.len();
            bytes[place] = (seed % 256) as u8;
            let _ = read(&bytes, PTR);
            let _ = read(&bytes, TXT);
        }
    }
}
