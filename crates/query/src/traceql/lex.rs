//! Splits a raw TraceQL query into words, as Tempo's lexer does. Guards the parser against size, depth and attribute names
//! that different versions of Tempo end at different places. Must not recurse.
//!
//! Source: `pkg/traceql/lexer.go` of Tempo, versions 2.2 to 2.8: older ones know no quotes inside attribute names and skip
//! comments there, so a name is taken only when all of them read it alike.

use super::ast::Field;
use crate::QueryError;
use crate::error::{Language, shown};
use crate::lexis::{Cursor, Numeric};
use crate::scan::{MAX_NESTING, MAX_OPERATORS, position};
use crate::words::{Lexeme, Token};

/// A word of a query.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Word {
    /// A keyword, function or value without quotes.
    Name(String),
    Text(String),
    /// A number or duration, as written.
    Number(String),
    /// An attribute, or an intrinsic with its scope.
    Field(Field),
    Sign(&'static str),
    End,
}

impl Lexeme for Word {
    const END: &'static Self = &Self::End;

    fn sign(&self) -> Option<&'static str> {
        if let Self::Sign(sign) = self { Some(sign) } else { None }
    }
}

/// Signs, longest first.
const SIGNS: [&str; 33] = [
    "!>>", "!<<", "&>>", "&<<", "!=", "!~", "!>", "!<", "=~", ">=", "<=", ">>", "<<", "&&", "||", "&>", "&<", "&~", "=", ">",
    "<", "~", "!", "|", "+", "-", "*", "/", "%", "^", "(", ")", ",",
];
/// Scopes of attributes, with the point.
const SCOPES: [&str; 7] = [".", "span.", "resource.", "event.", "link.", "instrumentation.", "parent."];
/// Intrinsics with their scope.
const SCOPED: [&str; 18] = [
    "trace:duration",
    "trace:rootName",
    "trace:rootService",
    "trace:id",
    "span:duration",
    "span:name",
    "span:kind",
    "span:status",
    "span:statusMessage",
    "span:id",
    "span:parentID",
    "span:childCount",
    "event:name",
    "event:timeSinceStart",
    "link:traceID",
    "link:spanID",
    "instrumentation:name",
    "instrumentation:version",
];

/// Whether a name can stand behind `resource.` so that every version of Tempo reads exactly it.
pub(crate) fn is_attribute(name: &str) -> bool {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | '@' | '$');
    let begins = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
    begins && name.len() <= 256 && name.chars().all(fits) && !name.contains("//")
}

/// What bounds the depth and the breadth of the tree to come; none for what this crate wrote.
pub(crate) struct Limits {
    pub(crate) operators_left: usize,
}

impl Limits {
    pub(crate) fn of_callers() -> Self {
        Self { operators_left: 2 * MAX_OPERATORS }
    }

    /// Every filter has grown by the scope's names; the length of the text is the bound.
    pub(crate) fn of_rendered() -> Self {
        Self { operators_left: usize::MAX }
    }
}

/// Splits `raw`; the last token is [`Word::End`].
pub(crate) fn split(raw: &str, mut limits: Limits) -> Result<Vec<Token<Word>>, QueryError> {
    let mut cursor = Cursor::new(Language::Traceql, raw);
    let mut tokens = Vec::new();
    let mut open = 0_usize;
    loop {
        let before = cursor.at;
        cursor.skip_white_space();
        let (offset, apart) = (cursor.at, cursor.at > before);
        let Some(c) = cursor.peek() else {
            tokens.push(Token { word: Word::End, offset, apart });
            return Ok(tokens);
        };
        let word = next(&mut cursor, c)?;
        match word {
            Word::Sign("(" | "{") => open += 1,
            Word::Sign(")" | "}") => open = open.saturating_sub(1),
            Word::Sign(_) => {
                let Some(left) = limits.operators_left.checked_sub(1) else {
                    let position = position(raw, offset);
                    return Err(QueryError::TooComplex { what: "operators and commas", limit: 2 * MAX_OPERATORS, position });
                };
                limits.operators_left = left;
            }
            _ => {}
        }
        // Confinement adds two levels of its own.
        if open > MAX_NESTING + 2 {
            let position = position(raw, offset);
            return Err(QueryError::TooComplex { what: "levels of brackets", limit: MAX_NESTING, position });
        }
        tokens.push(Token { word, offset, apart });
    }
}

fn next(cursor: &mut Cursor<'_>, c: char) -> Result<Word, QueryError> {
    match c {
        // Go drops carriage returns from raw strings, and only from those.
        '`' => cursor.string(b'`').map(|text| Word::Text(text.replace('\r', ""))),
        '"' => cursor.string(b'"').map(Word::Text),
        '{' | '}' => {
            cursor.at += 1;
            Ok(Word::Sign(if c == '{' { "{" } else { "}" }))
        }
        c if c.is_ascii_digit() || (c == '.' && cursor.byte(1).is_some_and(|b| b.is_ascii_digit())) => {
            Ok(match cursor.numeric(false)? {
                Numeric::Number(text) | Numeric::Duration(text, _) | Numeric::Bytes(text) => Word::Number(text),
            })
        }
        '.' => attribute(cursor, "."),
        c if c.is_ascii_alphabetic() || c == '_' => name(cursor),
        _ => {
            cursor.refuse_slash_comment()?;
            let sign = SIGNS.into_iter().find(|sign| cursor.rest().starts_with(sign));
            let sign = sign.ok_or_else(|| cursor.error(cursor.at, format!("unexpected {c:?}")))?;
            cursor.at += sign.len();
            Ok(Word::Sign(sign))
        }
    }
}

fn name(cursor: &mut Cursor<'_>) -> Result<Word, QueryError> {
    let rest = cursor.rest();
    if let Some(scope) = SCOPES.into_iter().find(|scope| rest.starts_with(scope)) {
        if scope == "parent." {
            let inner = ["parent.span.", "parent.resource."].into_iter().find(|scope| rest.starts_with(scope));
            return attribute(cursor, inner.unwrap_or(scope));
        }
        return attribute(cursor, scope);
    }
    let length = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    if cursor.byte(length) == Some(b':') {
        let behind = rest[length + 1..].bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        let written = &rest[..length + 1 + behind];
        let Some(known) = SCOPED.into_iter().find(|known| *known == written) else {
            return Err(cursor.error(cursor.at, format!("'{}' is no intrinsic of TraceQL", shown(written))));
        };
        cursor.at += written.len();
        return Ok(Word::Field(Field::Intrinsic(known)));
    }
    cursor.at += length;
    match cursor.peek() {
        Some(c) if !c.is_ascii() => Err(cursor.error(cursor.at, format!("unexpected {c:?} in a name"))),
        _ => Ok(Word::Name(rest[..length].to_owned())),
    }
}

/// An attribute whose scope begins here. Tempo ends a name at white space or one of `{}()=~!<>&|^,`.
fn attribute(cursor: &mut Cursor<'_>, scope: &'static str) -> Result<Word, QueryError> {
    let start = cursor.at;
    let behind = &cursor.rest()[scope.len()..];
    let ends = |c: char| c.is_whitespace() || "{}()=~!<>&|^,".contains(c);
    let written = behind.split(ends).next().unwrap_or_default();
    let name = written.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(written);
    if !is_attribute(name) {
        return Err(cursor.error(
            start,
            format!(
                "'{}' is not an attribute that every Tempo reads alike: use letters, digits and _ - . / : @ $, and put white \
                 space before an operator",
                shown(&format!("{scope}{written}"))
            ),
        ));
    }
    cursor.at += scope.len() + written.len();
    Ok(Word::Field(Field::Attribute { scope, name: name.to_owned() }))
}
