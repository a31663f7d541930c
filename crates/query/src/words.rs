//! Where a parser of LogQL or TraceQL stands in the words of a query. Guards that what is refused is refused with its place
//! in the caller's own text. Must not know either grammar.

use crate::QueryError;
use crate::error::{Language, shown};
use crate::scan::position;

/// A word of one of the languages.
pub(crate) trait Lexeme: PartialEq + 'static {
    /// What stands behind the last word.
    const END: &'static Self;

    /// The sign it is.
    fn sign(&self) -> Option<&'static str>;
}

/// A word and where it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token<W> {
    pub(crate) word: W,
    /// Byte offset.
    pub(crate) offset: usize,
    /// Whether white space or a comment stood in front of it.
    pub(crate) apart: bool,
}

/// The words of a query, and how many of them were read.
pub(crate) struct Words<'a, W> {
    pub(crate) language: Language,
    pub(crate) raw: &'a str,
    pub(crate) tokens: Vec<Token<W>>,
    /// Index of the next token.
    pub(crate) at: usize,
    /// Regular expressions that may still be compiled.
    pub(crate) regexes_left: usize,
}

impl<W: Lexeme> Words<'_, W> {
    /// Whether there is no word at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.len() == 1
    }

    pub(crate) fn word(&self) -> &W {
        self.ahead(0)
    }

    pub(crate) fn ahead(&self, by: usize) -> &W {
        self.tokens.get(self.at + by).map_or(W::END, |token| &token.word)
    }

    pub(crate) fn offset(&self) -> usize {
        self.tokens.get(self.at).map_or(self.raw.len(), |token| token.offset)
    }

    /// Whether the next word stands apart from the one before it.
    pub(crate) fn apart(&self) -> bool {
        self.tokens.get(self.at).is_some_and(|token| token.apart)
    }

    pub(crate) fn error(&self, message: impl Into<String>) -> QueryError {
        let position = Some(position(self.raw, self.offset()));
        QueryError::Syntax { language: self.language, message: message.into(), position }
    }

    pub(crate) fn expected(&self, what: &str) -> QueryError {
        if self.word() == W::END {
            return self.error(format!("the query ends where {what} is expected"));
        }
        let end = self.tokens.get(self.at + 1).map_or(self.raw.len(), |token| token.offset);
        self.error(format!("expected {what}, found '{}'", shown(self.raw[self.offset()..end].trim_end())))
    }

    pub(crate) fn is(&self, sign: &str) -> bool {
        self.word().sign() == Some(sign)
    }

    pub(crate) fn takes(&mut self, sign: &str) -> bool {
        let found = self.is(sign);
        self.at += usize::from(found);
        found
    }

    pub(crate) fn expect(&mut self, sign: &str) -> Result<(), QueryError> {
        if self.takes(sign) { Ok(()) } else { Err(self.expected(&format!("'{sign}'"))) }
    }
}
