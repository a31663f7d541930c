//! Quoting for SQL in the ANSI form that DataFusion, PostgreSQL and SQLite share. Guards the few places where SQL is
//! written at all. Must not be used for backends with backslash escapes (MySQL, ClickHouse).

use crate::QueryError;
use crate::error::shown;

/// An identifier in double quotes, as written, case kept. Refuses empty names, NUL and more than 255 bytes.
pub fn sql_identifier(name: &str) -> Result<String, QueryError> {
    if name.is_empty() || name.len() > 255 || name.contains('\0') {
        return Err(QueryError::Name {
            kind: "SQL identifier",
            shown: shown(name),
            rule: "use 1 to 255 bytes without the NUL character",
        });
    }
    Ok(format!("\"{}\"", name.replace('"', "\"\"")))
}

/// A string literal in single quotes. Refuses NUL, which no SQL text can carry.
pub fn sql_literal(text: &str) -> Result<String, QueryError> {
    if text.contains('\0') {
        return Err(QueryError::Name { kind: "SQL text", shown: shown(text), rule: "leave out the NUL character" });
    }
    Ok(format!("'{}'", text.replace('\'', "''")))
}

/// Escapes `%`, `_` and `\` so that a LIKE pattern with `ESCAPE '\'` matches `literal` itself. Not quoted yet:
/// pass the finished pattern through [`sql_literal`].
pub fn like_escape(literal: &str) -> String {
    let mut out = String::with_capacity(literal.len() + 4);
    for c in literal.chars() {
        if matches!(c, '%' | '_' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_and_texts() {
        assert_eq!(sql_identifier("Ser\"vice").unwrap(), "\"Ser\"\"vice\"");
        assert_eq!(sql_literal("it's").unwrap(), "'it''s'");
        assert_eq!(like_escape("50%_\\"), "50\\%\\_\\\\");
        assert!(sql_identifier("").is_err());
        assert!(sql_literal("a\0b").is_err());
    }

    proptest! {
        #[test]
        fn nothing_leaves_the_quotes(text in "[^\\x00]*") {
            let literal = sql_literal(&text).unwrap();
            let inner = &literal[1..literal.len() - 1];
            prop_assert!(!inner.replace("''", "").contains('\''));
            prop_assert_eq!(inner.replace("''", "'"), text);
        }
    }
}
