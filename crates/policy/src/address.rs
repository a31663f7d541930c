//! Addresses of resources, read in every way somebody may read them. Guards that a rule about an address holds for all its
//! spellings (RFC 3986, sections 2.3 and 6.2.2), and for what a reader that decodes it would see. Must not know any resource.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Times an address is decoded at most to see what hides in it.
const DEPTH: usize = 8;

/// An address that no rule can be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressFault {
    /// A `%` without two digits.
    #[error("it has a '%' that is not followed by two hexadecimal digits")]
    Percent,
    /// Encoded bytes that are no UTF-8, or control characters.
    #[error("it encodes what is no text")]
    NoText,
    /// `.` or `..` between slashes.
    #[error("it has a part '.' or '..', so it could be another one")]
    Dots,
    /// Encoded over and over.
    #[error("it is encoded more often than anybody would")]
    Depth,
}

/// The usual spelling of an address: nothing is encoded that need not be, and everything that must be is, with capital digits.
///
/// # Errors
/// When it has none.
pub fn usual_address(uri: &str) -> Result<Cow<'_, str>, AddressFault> {
    let usual = spelled(uri)?;
    forms(&usual)?;
    Ok(if usual == uri { Cow::Borrowed(uri) } else { Cow::Owned(usual) })
}

/// The address as it is written, in its usual spelling, and as it is after each decoding.
pub(crate) fn readings(uri: &str) -> Result<Vec<String>, AddressFault> {
    let mut all = vec![uri.to_owned()];
    for form in forms(&spelled(uri)?)? {
        if !all.contains(&form) {
            all.push(form);
        }
    }
    Ok(all)
}

/// An address and what comes out when it is decoded. Where its path ends is said by what is written: an encoded `?` is a part
/// of the path to whoever decodes that.
fn forms(usual: &str) -> Result<Vec<String>, AddressFault> {
    let path = usual.split(['?', '#']).next().unwrap_or_default();
    if decodings(path)?.iter().any(|form| has_dots(form)) {
        return Err(AddressFault::Dots);
    }
    decodings(usual)
}

/// A text and what comes out when it is decoded, until nothing is left to decode.
fn decodings(text: &str) -> Result<Vec<String>, AddressFault> {
    let mut all = vec![text.to_owned()];
    loop {
        let last = all.last().map(String::as_str).unwrap_or_default();
        let decoded = match decoded(last) {
            Ok(decoded) => decoded,
            // Only the first reading must be encoded well; what comes out of it may have a `%` of its own.
            Err(AddressFault::Percent) if all.len() > 1 => return Ok(all),
            Err(fault) => return Err(fault),
        };
        if decoded == last {
            return Ok(all);
        }
        if all.len() > DEPTH {
            return Err(AddressFault::Depth);
        }
        all.push(decoded);
    }
}

fn has_dots(path: &str) -> bool {
    path.split(['/', '\\', '?', '#']).any(|part| matches!(part, "." | ".."))
}

fn digits(rest: &[u8]) -> Result<u8, AddressFault> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match rest {
        [high, low, ..] => Ok(digit(high).ok_or(AddressFault::Percent)? << 4 | digit(low).ok_or(AddressFault::Percent)?),
        _ => Err(AddressFault::Percent),
    }
}

fn decoded(uri: &str) -> Result<String, AddressFault> {
    let mut bytes = Vec::with_capacity(uri.len());
    let mut rest = uri.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first == b'%' {
            bytes.push(digits(tail)?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| AddressFault::NoText)?;
    if text.chars().any(char::is_control) { Err(AddressFault::NoText) } else { Ok(text) }
}

fn spelled(uri: &str) -> Result<String, AddressFault> {
    let mut usual = String::with_capacity(uri.len());
    let mut rest = uri.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let byte = if *first == b'%' {
            let byte = digits(tail)?;
            rest = &tail[2..];
            if !(byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) {
                // Writing to a string cannot fail.
                let _ = write!(usual, "%{byte:02X}");
                continue;
            }
            byte
        } else {
            *first
        };
        if byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=".contains(&byte) {
            usual.push(char::from(byte));
        } else {
            let _ = write!(usual, "%{byte:02X}");
        }
    }
    Ok(usual)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_address_has_one_usual_spelling() {
        for (written, usual) in [
            ("portcullis://service/payment", "portcullis://service/payment"),
            ("portcullis://service/p%61yment", "portcullis://service/payment"),
            ("portcullis://service/%70%61%79%6d%65%6E%74", "portcullis://service/payment"),
            ("portcullis://service/a%2fb", "portcullis://service/a%2Fb"),
            ("portcullis://service/a b", "portcullis://service/a%20b"),
            ("note://café?q={x}", "note://caf%C3%A9?q=%7Bx%7D"),
        ] {
            assert_eq!(usual_address(written).unwrap(), usual, "{written}");
        }
        for (written, fault) in [
            ("x://a%", AddressFault::Percent),
            ("x://a%4", AddressFault::Percent),
            ("x://a%+4", AddressFault::Percent),
            ("x://a%zz", AddressFault::Percent),
            ("x://a%00", AddressFault::NoText),
            ("x://a%FF", AddressFault::NoText),
            ("x://a/../b", AddressFault::Dots),
            ("x://a/%2e%2E/b", AddressFault::Dots),
            ("x://a/b%2F..%2fc", AddressFault::Dots),
            ("x://a/%252e%252e/b", AddressFault::Dots),
            ("x://a/..%5Cb", AddressFault::Dots),
            ("x://a/%3F%2F..%2Fb", AddressFault::Dots),
            ("x://a/%23%2F..%2Fb", AddressFault::Dots),
            ("x://a/..%3Fb", AddressFault::Dots),
        ] {
            assert_eq!(usual_address(written), Err(fault), "{written}");
        }
        assert_eq!(usual_address(&format!("x://a/%{}41", "25".repeat(20))), Err(AddressFault::Depth));
        assert!(usual_address("x://a/b..c/...?q=../%2F..%2F").is_ok());
    }

    #[test]
    fn what_is_encoded_is_read_as_well() {
        assert_eq!(readings("f:///a%2fb").unwrap(), ["f:///a%2fb", "f:///a%2Fb", "f:///a/b"]);
        assert_eq!(readings("f:///p%2561y").unwrap(), ["f:///p%2561y", "f:///p%61y", "f:///pay"]);
        assert_eq!(readings("f:///100%25").unwrap(), ["f:///100%25", "f:///100%"]);
    }

    proptest! {
        #[test]
        fn spelling_once_is_enough(text in "[a-c%./ é0-9A-F]{0,24}") {
            if let Ok(usual) = usual_address(&text) {
                prop_assert_eq!(&*usual_address(&usual).unwrap(), &*usual);
                prop_assert_eq!(decoded(&usual), decoded(&text));
            }
        }
    }
}
