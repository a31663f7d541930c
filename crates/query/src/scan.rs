//! The first look at a raw query: limits, brackets, strings and numbers, before any parser sees it. Guards the
//! parser behind it against depth, size and literals it would misread. Must not recurse.

use std::time::Duration;

use crate::QueryError;
use crate::error::Language;
use crate::text::{check_regex, promql_string};

/// Longest raw query, in bytes.
pub const MAX_QUERY_BYTES: usize = 8 * 1024;
/// Deepest nesting of brackets.
pub const MAX_NESTING: usize = 48;
/// Most operators in one query; each can add a level to the syntax tree.
pub const MAX_OPERATORS: usize = 200;
/// Most regular expressions in one query; each is compiled.
pub const MAX_REGEXES: usize = 32;
/// Longest range or offset: 100 years, so that no sum of them overflows.
const MAX_DURATION: Duration = Duration::from_hours(100 * 365 * 24);

/// One word of a query and where it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: TokenKind,
    /// The text as written.
    pub(crate) text: &'a str,
    /// Byte offset in the raw query.
    pub(crate) offset: usize,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A name or keyword.
    Word,
    /// A number or duration.
    Number,
    /// A string literal.
    String,
    /// `(`, `{` or `[`.
    Open,
    /// `)`, `}` or `]`.
    Close,
    /// An arithmetic, comparison or matching operator.
    Operator,
    /// `,`, `:` or `@`.
    Mark,
}

/// A query that passed the first look.
pub(crate) struct Scanned<'a> {
    /// Its words.
    pub(crate) tokens: Vec<Token<'a>>,
    /// The query without comments and with every string rewritten in the one portable form.
    pub(crate) canonical: String,
}

struct Scanner<'a> {
    raw: &'a str,
    at: usize,
    open: Vec<(u8, usize)>,
    operators: usize,
    regexes: usize,
    tokens: Vec<Token<'a>>,
    canonical: String,
}

/// Splits `raw` into words and refuses what no parser should be asked to read.
pub(crate) fn scan(raw: &str) -> Result<Scanned<'_>, QueryError> {
    if raw.len() > MAX_QUERY_BYTES {
        return Err(QueryError::TooLong { bytes: raw.len(), limit: MAX_QUERY_BYTES });
    }
    let mut scanner = Scanner {
        raw,
        at: 0,
        open: Vec::new(),
        operators: 0,
        regexes: 0,
        tokens: Vec::new(),
        canonical: String::with_capacity(raw.len() + 16),
    };
    while let Some(c) = scanner.peek() {
        scanner.step(c)?;
    }
    if let Some(&(bracket, offset)) = scanner.open.last() {
        return Err(scanner.syntax(offset, format!("'{}' is never closed", char::from(bracket))));
    }
    if scanner.tokens.is_empty() {
        return Err(QueryError::Syntax {
            language: Language::Promql,
            message: "the query is empty; write an expression such as up".into(),
            position: None,
        });
    }
    Ok(Scanned { tokens: scanner.tokens, canonical: scanner.canonical })
}

/// The 1-based character position of a byte offset.
pub(crate) fn position(raw: &str, offset: usize) -> usize {
    raw.char_indices().take_while(|(at, _)| *at < offset).count() + 1
}

impl Scanner<'_> {
    fn peek(&self) -> Option<char> {
        self.raw[self.at..].chars().next()
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.raw.as_bytes().get(self.at + ahead).copied()
    }

    fn syntax(&self, offset: usize, message: impl Into<String>) -> QueryError {
        QueryError::Syntax { language: Language::Promql, message: message.into(), position: Some(position(self.raw, offset)) }
    }

    fn too_complex(&self, what: &'static str, limit: usize) -> QueryError {
        QueryError::TooComplex { what, limit, position: position(self.raw, self.at) }
    }

    fn innermost(&self) -> Option<u8> {
        self.open.last().map(|(bracket, _)| *bracket)
    }

    fn step(&mut self, c: char) -> Result<(), QueryError> {
        match c {
            ' ' | '\t' | '\n' | '\r' => {
                self.canonical.push(c);
                self.at += 1;
                Ok(())
            }
            '#' => {
                let end = self.raw[self.at..].find(['\n', '\r']).map_or(self.raw.len(), |found| self.at + found);
                self.at = end;
                self.canonical.push(' ');
                Ok(())
            }
            '(' | '{' | '[' => self.open_bracket(c as u8),
            ')' | '}' | ']' => self.close_bracket(c as u8),
            '"' | '\'' | '`' => self.string(c as u8),
            ',' | '@' => {
                self.take(TokenKind::Mark, 1);
                Ok(())
            }
            ':' if self.innermost() == Some(b'[') => {
                self.take(TokenKind::Mark, 1);
                Ok(())
            }
            '0'..='9' => self.number(),
            '.' if self.byte(1).is_some_and(|b| b.is_ascii_digit()) => self.number(),
            c if c.is_ascii_alphabetic() || c == '_' || c == ':' => self.word(),
            '+' | '-' | '*' | '/' | '%' | '^' | '=' | '!' | '<' | '>' => self.operator(),
            c => Err(self.syntax(self.at, format!("unexpected {c:?}; a name with it goes in quotes inside {{}}"))),
        }
    }

    fn take(&mut self, kind: TokenKind, length: usize) {
        let text = &self.raw[self.at..self.at + length];
        self.tokens.push(Token { kind, text, offset: self.at });
        self.canonical.push_str(text);
        self.at += length;
    }

    fn open_bracket(&mut self, bracket: u8) -> Result<(), QueryError> {
        if matches!(self.innermost(), Some(b'{' | b'[')) {
            return Err(self.syntax(self.at, format!("unexpected '{}' here", char::from(bracket))));
        }
        if self.open.len() >= MAX_NESTING {
            return Err(self.too_complex("levels of brackets", MAX_NESTING));
        }
        self.open.push((bracket, self.at));
        self.take(TokenKind::Open, 1);
        Ok(())
    }

    fn close_bracket(&mut self, bracket: u8) -> Result<(), QueryError> {
        let expected = match bracket {
            b')' => b'(',
            b'}' => b'{',
            _ => b'[',
        };
        match self.open.pop() {
            Some((open, _)) if open == expected => {
                self.take(TokenKind::Close, 1);
                Ok(())
            }
            Some((open, offset)) => Err(self.syntax(
                self.at,
                format!(
                    "'{}' does not close '{}' of character {}",
                    char::from(bracket),
                    char::from(open),
                    position(self.raw, offset)
                ),
            )),
            None => Err(self.syntax(self.at, format!("'{}' closes nothing", char::from(bracket)))),
        }
    }

    fn count_operator(&mut self) -> Result<(), QueryError> {
        self.operators += 1;
        if self.operators > MAX_OPERATORS { Err(self.too_complex("operators", MAX_OPERATORS)) } else { Ok(()) }
    }

    fn operator(&mut self) -> Result<(), QueryError> {
        let two = self.raw.as_bytes().get(self.at..self.at + 2).unwrap_or_default();
        let length = if matches!(two, b"==" | b"!=" | b"<=" | b">=" | b"=~" | b"!~") { 2 } else { 1 };
        if self.innermost() != Some(b'{') {
            self.count_operator()?;
        }
        self.take(TokenKind::Operator, length);
        Ok(())
    }

    fn word(&mut self) -> Result<(), QueryError> {
        let text = &self.raw[self.at..];
        let length = text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b == b':').count();
        let name = &text[..length];
        if self.innermost() != Some(b'{') && ["and", "or", "unless", "atan2"].iter().any(|w| w.eq_ignore_ascii_case(name)) {
            self.count_operator()?;
        }
        if ["inf", "nan"].iter().any(|w| w.eq_ignore_ascii_case(name)) && self.expects_duration() {
            return Err(self.syntax(self.at, "a range or offset must be a duration such as 5m"));
        }
        self.take(TokenKind::Word, length);
        Ok(())
    }

    /// Whether the next number is read as a duration: inside `[…]`, or after `offset` and an optional sign.
    fn expects_duration(&self) -> bool {
        if self.innermost() == Some(b'[') {
            return true;
        }
        let mut before = self.tokens.iter().rev();
        let last = before.next();
        let last = if last.is_some_and(|token| matches!(token.text, "+" | "-")) { before.next() } else { last };
        last.is_some_and(|token| token.kind == TokenKind::Word && token.text.eq_ignore_ascii_case("offset"))
    }

    fn number(&mut self) -> Result<(), QueryError> {
        let text = &self.raw[self.at..];
        let bytes = text.as_bytes();
        let mut length = 0;
        while let Some(b) = bytes.get(length) {
            let exponent_sign = matches!(b, b'+' | b'-')
                && length > 0
                && matches!(bytes[length - 1], b'e' | b'E')
                && !text.starts_with("0x")
                && !text.starts_with("0X")
                && bytes[..length - 1].iter().all(|b| b.is_ascii_digit() || *b == b'.');
            if b.is_ascii_alphanumeric() || *b == b'.' || *b == b'_' || exponent_sign {
                length += 1;
            } else {
                break;
            }
        }
        let word = &text[..length];
        if let Some(error) = self.check_number(word) {
            return Err(self.syntax(self.at, error));
        }
        self.take(TokenKind::Number, length);
        Ok(())
    }

    fn check_number(&self, word: &str) -> Option<String> {
        if let Ok(seconds) = word.parse::<f64>() {
            let accepted = 0.001..=MAX_DURATION.as_secs_f64();
            if self.expects_duration() && !accepted.contains(&seconds) {
                return Some(format!("'{word}' is not a duration between 1ms and 100y"));
            }
            return None;
        }
        if word.starts_with("0x") || word.starts_with("0X") {
            return match i64::from_str_radix(&word[2..], 16) {
                Ok(seconds) if self.expects_duration() && !(1..=3_153_600_000).contains(&seconds) => {
                    Some(format!("'{word}' is not a duration between 1ms and 100y"))
                }
                Ok(_) => None,
                Err(_) => Some(format!("'{word}' is not a number")),
            };
        }
        match read_duration(word) {
            Some(duration) if duration <= MAX_DURATION && !duration.is_zero() => None,
            Some(_) => Some(format!("'{word}' is not a duration between 1ms and 100y")),
            None => Some(format!("'{word}' is neither a number nor a duration such as 5m or 1h30m")),
        }
    }

    fn string(&mut self, quote: u8) -> Result<(), QueryError> {
        let start = self.at;
        let text = &self.raw[start + 1..];
        let end = string_end(text, quote).ok_or_else(|| self.syntax(start, "this string is never closed"))?;
        let inner = &text[..end];
        let value = if quote == b'`' {
            inner.to_owned()
        } else {
            unescape(inner, quote).map_err(|(offset, message)| self.syntax(start + 1 + offset, message))?
        };
        if self.tokens.last().is_some_and(|token| matches!(token.text, "=~" | "!~")) {
            self.regexes += 1;
            if self.regexes > MAX_REGEXES {
                return Err(self.too_complex("regular expressions", MAX_REGEXES));
            }
            check_regex(&value)?;
        }
        self.tokens.push(Token { kind: TokenKind::String, text: &self.raw[start..start + end + 2], offset: start });
        self.canonical.push_str(&promql_string(&value));
        self.at = start + end + 2;
        Ok(())
    }
}

/// Offset of the closing quote, by Prometheus' rules: backticks know no escapes.
pub(crate) fn string_end(text: &str, quote: u8) -> Option<usize> {
    let mut escaped = false;
    for (offset, byte) in text.bytes().enumerate() {
        if quote != b'`' && escaped {
            escaped = false;
        } else if quote != b'`' && byte == b'\\' {
            escaped = true;
        } else if byte == quote {
            return Some(offset);
        }
    }
    None
}

/// Reads Go's escapes (Prometheus `strutil.Unquote`). Errors carry the offset inside the string.
pub(crate) fn unescape(inner: &str, quote: u8) -> Result<String, (usize, String)> {
    let bytes = inner.as_bytes();
    let mut out: Vec<u8> = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'\n' {
            return Err((at, "a line break inside a string is written \\n".into()));
        }
        if byte != b'\\' {
            out.push(byte);
            at += 1;
            continue;
        }
        let escape = bytes.get(at + 1).copied().unwrap_or(0);
        let digits = match escape {
            b'x' => Some((at + 2, 2, 16)),
            b'u' => Some((at + 2, 4, 16)),
            b'U' => Some((at + 2, 8, 16)),
            b'0'..=b'7' => Some((at + 1, 3, 8)),
            _ => None,
        };
        if let Some((start, count, radix)) = digits {
            let code = inner.get(start..start + count).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
            let code = code.and_then(|text| u32::from_str_radix(text, radix).ok());
            let Some(code) = code else { return Err((at, "this escape has too few digits".into())) };
            if matches!(escape, b'u' | b'U') {
                let Some(c) = char::from_u32(code) else { return Err((at, "this escape is not a character".into())) };
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                let Ok(byte) = u8::try_from(code) else { return Err((at, "this escape is larger than one byte".into())) };
                out.push(byte);
            }
            at = start + count;
            continue;
        }
        out.push(match escape {
            b'a' => 0x07,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'\\' => b'\\',
            other if other == quote => quote,
            _ => return Err((at, "this escape is not known; a backslash is written \\\\".into())),
        });
        at += 2;
    }
    String::from_utf8(out).map_err(|_| (0, "the bytes of this string are not UTF-8".into()))
}

/// Reads `1h30m` as Prometheus does, with units in falling order; `None` when it is not a duration.
pub(crate) fn read_duration(word: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 7] =
        [("y", 31_536_000_000), ("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut rest = word;
    let mut next_unit = 0;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u32 = rest.get(..digits)?.parse().ok()?;
        let after = &rest[digits..];
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = &after[..letters];
        let index = UNITS.iter().position(|(name, _)| *name == unit).filter(|index| *index >= next_unit)?;
        next_unit = index + 1;
        total = u64::from(number).checked_mul(UNITS[index].1).and_then(|part| total.checked_add(part))?;
        rest = &after[letters..];
    }
    (!word.is_empty()).then(|| Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(raw: &str) -> String {
        scan(raw).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn limits_come_before_any_parser() {
        assert!(error(&"a".repeat(MAX_QUERY_BYTES + 1)).contains("the limit is 8192"));
        assert!(error(&"(".repeat(8_000)).contains("levels of brackets"));
        assert!(error(&format!("{}1", "-".repeat(8_000))).contains("operators"));
        assert!(error(&vec!["a"; 300].join(" or ")).contains("operators"));
        assert!(error(&format!("a{{{}}}", vec!["b=~\"c\""; 40].join(","))).contains("regular expressions"));
    }

    #[test]
    fn brackets_and_strings_are_named_with_their_place() {
        assert!(error("sum(rate(x[5m])").contains("at character 4: '(' is never closed"));
        assert!(error("sum(x]").contains("at character 6: ']' does not close '(' of character 4"));
        assert!(error("x)").contains("closes nothing"));
        assert!(error("é").contains("at character 1"));
        assert!(error("x{a=\"b").contains("at character 5: this string is never closed"));
        assert!(error("x{a=\"\\d\"}").contains("at character 6"));
        assert!(error("   ").contains("the query is empty"));
    }

    #[test]
    fn strings_get_one_portable_form() {
        let canonical = |raw| scan(raw).unwrap().canonical;
        assert_eq!(canonical(r"x{a=~`a\d`}"), r#"x{a=~"a\\d"}"#);
        assert_eq!(canonical(r"x{a='say \'hi\' ok'}"), r#"x{a="say 'hi' ok"}"#);
        assert_eq!(canonical(r#"x{a="\xe2\x82\xac \u20ac \101"}"#), "x{a=\"€ € A\"}");
        assert_eq!(canonical("x # (((\n + y"), "x  \n + y");
        assert!(error(r#"x{a="\xff"}"#).contains("not UTF-8"));
    }

    #[test]
    fn durations_that_the_parser_would_misread_or_choke_on_are_refused() {
        for raw in [
            "x[99999999999m1s]",
            "x[1e30]",
            "x[0]",
            "x[1e-9]",
            "x offset 1e300",
            "x offset -NaN",
            "x offset Inf",
            "x[5q]",
            "x[5s5m]",
        ] {
            assert!(scan(raw).is_err(), "{raw}");
        }
        for raw in ["x[5m]", "x[1.5]", "x[1h30m:15s]", "x offset 1w", "x[1m] offset -1m", "1e300", "0x1F", "x[300]"] {
            assert!(scan(raw).is_ok(), "{raw}: {}", error(raw));
        }
    }
}
