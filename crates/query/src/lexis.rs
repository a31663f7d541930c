//! What LogQL and TraceQL write the same way, both being read by Go's scanner: strings, numbers, durations, sizes. Guards
//! that a literal means here what it means there; whatever the two could read differently is refused. Must not recurse.

use crate::QueryError;
use crate::error::Language;
use crate::scan::{position, read_duration, string_end, unescape};

/// Longest range, offset or other duration, in nanoseconds: 100 years, so that no sum of them overflows.
pub(crate) const MAX_NANOS: i128 = 100 * 365 * 86_400 * 1_000_000_000;

/// Where a reader stands in a raw query.
pub(crate) struct Cursor<'a> {
    pub(crate) language: Language,
    pub(crate) raw: &'a str,
    /// Byte offset.
    pub(crate) at: usize,
}

/// A literal that begins with a digit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Numeric {
    /// A decimal number without a sign, as written.
    Number(String),
    /// A duration without a sign, as written, and its length in nanoseconds.
    Duration(String, i128),
    /// A size such as `10KB`, as written.
    Bytes(String),
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(language: Language, raw: &'a str) -> Self {
        Self { language, raw, at: 0 }
    }

    pub(crate) fn rest(&self) -> &'a str {
        &self.raw[self.at..]
    }

    pub(crate) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(crate) fn byte(&self, ahead: usize) -> Option<u8> {
        self.raw.as_bytes().get(self.at + ahead).copied()
    }

    pub(crate) fn error(&self, offset: usize, message: impl Into<String>) -> QueryError {
        QueryError::Syntax { language: self.language, message: message.into(), position: Some(position(self.raw, offset)) }
    }

    /// White space as Go's scanner skips it.
    pub(crate) fn skip_white_space(&mut self) {
        let white = self.rest().bytes().take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.at += white;
    }

    /// `//` and `/*` begin comments for some readers and are operators for others.
    pub(crate) fn refuse_slash_comment(&self) -> Result<(), QueryError> {
        if self.byte(0) == Some(b'/') && matches!(self.byte(1), Some(b'/' | b'*')) {
            return Err(self.error(self.at, "comments between slashes are not taken; leave them out"));
        }
        Ok(())
    }

    /// Reads a string in double quotes or backticks.
    pub(crate) fn string(&mut self, quote: u8) -> Result<String, QueryError> {
        let start = self.at;
        let text = &self.raw[start + 1..];
        let end = string_end(text, quote).ok_or_else(|| self.error(start, "this string is never closed"))?;
        let inner = &text[..end];
        self.at = start + end + 2;
        if inner.contains('\0') {
            return Err(self.error(start, "a string cannot hold the NUL character; write \\x00"));
        }
        if quote == b'`' {
            return Ok(inner.to_owned());
        }
        unescape(inner, quote).map_err(|(offset, message)| self.error(start + 1 + offset, message))
    }

    /// Reads a number, a duration or, where `sizes` are known, a size.
    pub(crate) fn numeric(&mut self, sizes: bool) -> Result<Numeric, QueryError> {
        let start = self.at;
        let text = self.rest();
        let mut length = 0;
        let mut before = ' ';
        for c in text.chars() {
            let exponent_sign = matches!(c, '+' | '-') && matches!(before, 'e' | 'E') && is_mantissa(&text[..length - 1]);
            if !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | 'µ') || exponent_sign) {
                break;
            }
            length += c.len_utf8();
            before = c;
        }
        let word = &text[..length];
        self.at += length;
        if is_number(word) {
            return Ok(Numeric::Number(word.to_owned()));
        }
        match duration_nanos(word) {
            Some(nanos) if nanos <= MAX_NANOS => return Ok(Numeric::Duration(word.to_owned(), nanos)),
            Some(_) => return Err(self.error(start, format!("'{word}' is longer than 100 years"))),
            None => {}
        }
        if sizes && is_size(word) {
            return Ok(Numeric::Bytes(word.to_owned()));
        }
        let kinds =
            if sizes { "a number, a duration such as 5m or a size such as 10KB" } else { "a number or a duration such as 5m" };
        Err(self.error(start, format!("'{}' is not {kinds}", crate::error::shown(word))))
    }
}

/// Digits with at most one point: what may stand in front of an exponent.
fn is_mantissa(word: &str) -> bool {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    digits > 0 && digits + word.matches('.').count() == word.len() && word.matches('.').count() <= 1
}

/// A decimal number that no reader takes for octal or infinite.
fn is_number(word: &str) -> bool {
    let (mantissa, exponent) = word.split_once(['e', 'E']).map_or((word, None), |(m, e)| (m, Some(e)));
    let exponent = exponent.map(|e| e.strip_prefix(['+', '-']).unwrap_or(e));
    let octal = mantissa.len() > 1 && mantissa.starts_with('0') && !mantissa.starts_with("0.");
    is_mantissa(mantissa)
        && !octal
        && exponent.is_none_or(|e| !e.is_empty() && e.bytes().all(|b| b.is_ascii_digit()))
        && word.parse::<f64>().is_ok_and(f64::is_finite)
}

/// Units of Go's durations, in nanoseconds.
const GO_UNITS: [(&str, f64); 7] = [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];
/// Units of sizes.
const SIZE_UNITS: [&str; 17] =
    ["B", "kB", "KB", "MB", "GB", "TB", "PB", "KiB", "MiB", "GiB", "TiB", "PiB", "K", "M", "G", "T", "P"];

/// A duration as Prometheus writes it (`1h30m`, falling units up to years), or Go (`1.5h`, `100us`).
pub(crate) fn duration_nanos(word: &str) -> Option<i128> {
    if let Some(duration) = read_duration(word) {
        return i128::try_from(duration.as_nanos()).ok();
    }
    let mut rest = word;
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, after) = rest.split_at(digits);
        if !is_mantissa(number) {
            return None;
        }
        let letters: usize = after.chars().take_while(|c| c.is_ascii_alphabetic() || *c == 'µ').map(char::len_utf8).sum();
        let (unit, after) = after.split_at(letters);
        let factor = GO_UNITS.iter().find(|(name, _)| *name == unit)?.1;
        total += number.parse::<f64>().ok()? * factor;
        rest = after;
    }
    // Anything beyond the longest duration is refused by the caller, so saturation says enough.
    (!word.is_empty()).then_some(total.ceil() as i128)
}

/// A size as Loki reads it: a number and a unit up to peta.
fn is_size(word: &str) -> bool {
    let digits = word.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = word.split_at(digits);
    is_mantissa(number) && SIZE_UNITS.contains(&unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &str) -> Result<Numeric, QueryError> {
        let mut cursor = Cursor::new(Language::Logql, raw);
        let found = cursor.numeric(true)?;
        assert_eq!(cursor.rest(), "", "{raw}");
        Ok(found)
    }

    #[test]
    fn literals_are_told_apart() {
        for raw in ["0", "12", "1.5", ".5", "5.", "1e9", "2.5E-3", "1e+3", "0.1", "0"] {
            assert_eq!(read(raw), Ok(Numeric::Number(raw.into())));
        }
        for (raw, nanos) in [
            ("5m", 300_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("10us", 10_000),
            ("10µs", 10_000),
            ("7ns", 7),
            ("1d", 86_400_000_000_000),
            ("0s", 0),
        ] {
            assert_eq!(read(raw), Ok(Numeric::Duration(raw.into(), nanos)));
        }
        for raw in ["10KB", "1.5GiB", "5B", "2M"] {
            assert_eq!(read(raw), Ok(Numeric::Bytes(raw.into())));
        }
        for raw in ["0x1F", "017", "1_000", "5q", "1e", "1e999", "1.2.3", "5m3q", "200y", "1..5s"] {
            assert!(read(raw).is_err(), "{raw}: {:?}", read(raw));
        }
    }
}
