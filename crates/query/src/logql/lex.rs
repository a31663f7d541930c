//! Splits a raw LogQL query into words, as Loki's lexer does. Guards the parser against size, depth and everything two
//! readers could take for different words. Must not recurse.
//!
//! Source: `pkg/logql/syntax/lex.go` of Loki 3.7.

use crate::QueryError;
use crate::error::Language;
use crate::lexis::{Cursor, Numeric};
use crate::scan::{MAX_NESTING, MAX_OPERATORS, MAX_REGEXES, position, read_duration};
use crate::words::{Lexeme, Token};

/// A word of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    /// A name or keyword, as written.
    Name(String),
    Text(String),
    Numeric(Numeric),
    /// `[5m]`, as written inside the brackets.
    Range(String),
    /// `--strict`, `--keep-empty`.
    Flag(&'static str),
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
const SIGNS: [&str; 25] = [
    "==", "=~", "!=", "!~", "!>", ">=", "<=", "|=", "|~", "|>", "=", ">", "<", "|", "+", "-", "*", "/", "%", "^", "(", ")", "{",
    "}", ",",
];
const FLAGS: [&str; 2] = ["--strict", "--keep-empty"];

/// Splits `raw`; the last token is [`Word::End`].
pub(crate) fn split(raw: &str, mut limits: Limits) -> Result<Vec<Token<Word>>, QueryError> {
    let mut cursor = Cursor::new(Language::Logql, raw);
    let mut tokens = Vec::new();
    loop {
        let before = cursor.at;
        cursor.skip_white_space();
        while cursor.byte(0) == Some(b'#') {
            // Loki ends a comment at a line feed only; a bare carriage return would leave the rest to be argued about.
            let comment = cursor.rest().find('\n').map_or(cursor.rest(), |end| &cursor.rest()[..end]);
            if comment.trim_end_matches('\r').contains('\r') {
                return Err(cursor.error(cursor.at, "a comment cannot hold a carriage return"));
            }
            cursor.at += comment.len();
            cursor.skip_white_space();
        }
        let (offset, apart) = (cursor.at, cursor.at > before);
        let Some(c) = cursor.peek() else {
            tokens.push(Token { word: Word::End, offset, apart });
            return Ok(tokens);
        };
        let word = next(&mut cursor, c)?;
        limits.count(raw, &word, offset)?;
        tokens.push(Token { word, offset, apart });
    }
}

/// What bounds the depth and the breadth of the tree to come.
pub(crate) struct Limits {
    open: usize,
    operators_left: usize,
    /// Regular expressions of selectors, each of which is compiled.
    pub(crate) regexes: usize,
}

impl Limits {
    pub(crate) fn of_callers() -> Self {
        Self { open: 0, operators_left: 2 * MAX_OPERATORS, regexes: MAX_REGEXES }
    }

    /// Every selector has grown by a few matchers; the length of the text is the bound.
    pub(crate) fn of_rendered() -> Self {
        Self { open: 0, operators_left: usize::MAX, regexes: usize::MAX }
    }

    fn operator(&mut self, raw: &str, offset: usize) -> Result<(), QueryError> {
        let Some(left) = self.operators_left.checked_sub(1) else {
            let position = position(raw, offset);
            return Err(QueryError::TooComplex { what: "operators and commas", limit: 2 * MAX_OPERATORS, position });
        };
        self.operators_left = left;
        Ok(())
    }

    fn count(&mut self, raw: &str, word: &Word, offset: usize) -> Result<(), QueryError> {
        match word {
            Word::Sign("(" | "{") => self.open += 1,
            Word::Sign(")" | "}") => self.open = self.open.saturating_sub(1),
            Word::Sign(_) => self.operator(raw, offset)?,
            Word::Name(name) if ["and", "or", "unless"].iter().any(|w| w.eq_ignore_ascii_case(name)) => {
                self.operator(raw, offset)?;
            }
            _ => {}
        }
        if self.open > MAX_NESTING {
            let position = position(raw, offset);
            return Err(QueryError::TooComplex { what: "levels of brackets", limit: MAX_NESTING, position });
        }
        Ok(())
    }
}

fn next(cursor: &mut Cursor<'_>, c: char) -> Result<Word, QueryError> {
    match c {
        '"' | '`' => cursor.string(c as u8).map(Word::Text),
        '[' => range(cursor),
        c if c.is_ascii_digit() || (c == '.' && cursor.byte(1).is_some_and(|b| b.is_ascii_digit())) => {
            cursor.numeric(true).map(Word::Numeric)
        }
        c if c.is_ascii_alphabetic() || c == '_' => {
            let rest = cursor.rest();
            let length = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
            let name = rest[..length].to_owned();
            cursor.at += length;
            // Loki's names may go on with letters of any script, of which its labels have none.
            match cursor.peek() {
                Some(c) if !c.is_ascii() => Err(cursor.error(cursor.at, format!("unexpected {c:?} in a name"))),
                _ => Ok(Word::Name(name)),
            }
        }
        '-' if cursor.byte(1) == Some(b'-') => {
            let found = FLAGS.into_iter().find(|flag| {
                let after = cursor.rest().strip_prefix(flag);
                after.is_some_and(|after| !after.starts_with(|c: char| c.is_alphanumeric() || c == '-' || c == '_'))
            });
            let flag = found.ok_or_else(|| cursor.error(cursor.at, "expected --strict or --keep-empty"))?;
            cursor.at += flag.len();
            Ok(Word::Flag(flag))
        }
        _ => {
            cursor.refuse_slash_comment()?;
            let sign = SIGNS.into_iter().find(|sign| cursor.rest().starts_with(sign));
            let sign = sign.ok_or_else(|| cursor.error(cursor.at, format!("unexpected {c:?}")))?;
            cursor.at += sign.len();
            Ok(Word::Sign(sign))
        }
    }
}

fn range(cursor: &mut Cursor<'_>) -> Result<Word, QueryError> {
    let start = cursor.at;
    let inside = cursor.rest()[1..].split_once(']').map(|(inside, _)| inside);
    let inside = inside.ok_or_else(|| cursor.error(start, "'[' is never closed"))?;
    let length = read_duration(inside).filter(|length| !length.is_zero());
    let fits = length.is_some_and(|length| length.as_secs() <= 100 * 365 * 86_400);
    if !fits {
        let shown = crate::error::shown(inside);
        return Err(cursor.error(start, format!("'[{shown}]' is not a range such as [5m], up to 100 years")));
    }
    cursor.at += inside.len() + 2;
    Ok(Word::Range(inside.to_owned()))
}
