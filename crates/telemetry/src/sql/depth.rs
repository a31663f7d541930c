//! How long and how deep a statement may be. Parser, planner and optimizer recurse into what they are given, and a stack
//! that overflows ends the whole process; so the text is measured before it is parsed, and the tree before it is planned.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, DataType, Expr, SetExpr};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// How deep calls and `CASE` may nest: every level may triple the parser's work.
const CALLS: usize = 8;
/// How deep brackets may nest.
const BRACKETS: usize = 40;
/// Operators in one statement at most: a chain of them is as deep as it is long.
const OPERATORS: usize = 1_000;
/// How deep one expression may be. `a OR b OR c` is three deep, and so is `a IS NULL IS NULL`.
const EXPRESSION: usize = 128;
/// Steps of one access such as `a.b['c'][1]`.
const STEPS: usize = 16;
/// How deep a type may nest.
const TYPES: usize = 8;
/// `UNION`, `EXCEPT` and `INTERSECT` in one query at most.
const SETS: usize = 32;

/// Words in front of a bracket that call nothing.
const BEFORE_BRACKETS: [Keyword; 20] = [
    Keyword::SELECT,
    Keyword::FROM,
    Keyword::WHERE,
    Keyword::AND,
    Keyword::OR,
    Keyword::IN,
    Keyword::AS,
    Keyword::ON,
    Keyword::BY,
    Keyword::JOIN,
    Keyword::HAVING,
    Keyword::UNION,
    Keyword::ALL,
    Keyword::EXCEPT,
    Keyword::INTERSECT,
    Keyword::OVER,
    Keyword::WHEN,
    Keyword::THEN,
    Keyword::ELSE,
    Keyword::EXISTS,
];
/// Words that make a tree deeper.
const OPERATOR_WORDS: [Keyword; 25] = [
    Keyword::AND,
    Keyword::OR,
    Keyword::XOR,
    Keyword::NOT,
    Keyword::IS,
    Keyword::NOTNULL,
    Keyword::LIKE,
    Keyword::ILIKE,
    Keyword::RLIKE,
    Keyword::REGEXP,
    Keyword::SIMILAR,
    Keyword::BETWEEN,
    Keyword::IN,
    Keyword::DIV,
    Keyword::OVERLAPS,
    Keyword::COLLATE,
    Keyword::AT,
    Keyword::CASE,
    Keyword::UNION,
    Keyword::INTERSECT,
    Keyword::EXCEPT,
    Keyword::MINUS,
    Keyword::INTERVAL,
    Keyword::OPERATOR,
    Keyword::MEMBER,
];

/// Measures the text by its tokens, so that what stands in strings and comments does not count. The sentence says what is
/// too much.
pub(super) fn text(text: &str) -> Result<(), String> {
    // What has no tokens is refused by the parser, which begins with the same step.
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, text).tokenize() else { return Ok(()) };
    operators(&tokens)?;
    brackets(&tokens)
}

fn operators(tokens: &[Token]) -> Result<(), String> {
    if tokens.iter().filter(|token| is_operator(token)).count() > OPERATORS {
        return Err(format!("the statement has more than {OPERATORS} operators; compare with IN (…) in place of many ORs"));
    }
    Ok(())
}

fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => OPERATOR_WORDS.contains(&word.keyword),
        Token::EOF
        | Token::Whitespace(_)
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::EscapedStringLiteral(_)
        | Token::NationalStringLiteral(_)
        | Token::HexStringLiteral(_)
        | Token::DollarQuotedString(_)
        | Token::Comma
        | Token::Period
        | Token::SemiColon
        | Token::LParen
        | Token::RParen
        | Token::RBracket
        | Token::RBrace => false,
        _ => true,
    }
}

/// Bounds how deep brackets, calls, prefixes and types nest. The parser tries `CAST(`, `POSITION(` and their kin first as
/// special forms and then as functions, at every level again. `reader.rs` ends what would keep it busy for ever; here the
/// plain cases are refused before, with a sentence that says what to do.
fn brackets(tokens: &[Token]) -> Result<(), String> {
    // The weight of each open bracket, the calls among them, and prefixes that wait for their operand.
    let (mut open, mut nested, mut prefixes, mut types) = (Vec::new(), 0_usize, 0_usize, 0_usize);
    // Without its END a CASE is read once more as a name, and so is each one inside it.
    let mut cases = 0_usize;
    let mut word = None;
    for token in tokens {
        match token {
            Token::Whitespace(_) => continue,
            Token::LParen | Token::LBracket | Token::LBrace => {
                let call = word.is_some_and(|keyword| !BEFORE_BRACKETS.contains(&keyword));
                // A prefix in front of a bracket stays open as long as the bracket does.
                let weight = usize::from(call).max(prefixes);
                nested += weight;
                open.push(weight);
                prefixes = 0;
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                nested -= open.pop().unwrap_or(0);
                prefixes = 0;
            }
            Token::Word(w) if matches!(w.keyword, Keyword::INTERVAL | Keyword::NOT | Keyword::PRIOR) => prefixes += 1,
            Token::Word(w) if w.keyword == Keyword::CASE => cases += 1,
            Token::Word(w) if w.keyword == Keyword::END => cases = cases.saturating_sub(1),
            Token::Plus | Token::Minus | Token::Tilde => {}
            Token::Lt if matches!(word, Some(Keyword::ARRAY | Keyword::STRUCT | Keyword::MAP)) => types += 1,
            _ => prefixes = 0,
        }
        word = if let Token::Word(w) = token { Some(w.keyword) } else { None };
        if nested + prefixes + cases > CALLS {
            return Err(format!("calls and CASE nest deeper than {CALLS} levels; name a part of them in WITH … AS (SELECT …)"));
        }
        if open.len() > BRACKETS {
            return Err(format!("brackets nest deeper than {BRACKETS} levels; name a part in WITH … AS (SELECT …)"));
        }
        if types > TYPES {
            return Err(format!("the statement has more than {TYPES} types written with <…>; write a list type as INT[]"));
        }
    }
    Ok(())
}

/// How deep a walk through expressions is. It stops before it is too deep, so the walk itself cannot overflow.
#[derive(Default)]
pub(super) struct Depth(usize);

impl Depth {
    pub(super) fn enter(&mut self, expression: &Expr) -> ControlFlow<String> {
        self.0 += 1;
        if self.0 > EXPRESSION {
            return ControlFlow::Break(format!(
                "an expression is more than {EXPRESSION} levels deep; a chain of operators counts each: use IN (…), fewer \
                 terms, or several steps in WITH … AS (SELECT …)"
            ));
        }
        let steps = match expression {
            Expr::CompoundIdentifier(parts) => parts.len(),
            Expr::CompoundFieldAccess { access_chain, .. } => access_chain.len(),
            _ => 0,
        };
        if steps > STEPS {
            return ControlFlow::Break(format!("a value is reached in more than {STEPS} steps such as .name and ['name']"));
        }
        let kind = match expression {
            Expr::Cast { data_type, .. } => Some(data_type),
            Expr::Convert { data_type, .. } => data_type.as_ref(),
            Expr::TypedString(typed) => Some(&typed.data_type),
            _ => None,
        };
        if kind.is_some_and(is_too_deep) {
            return ControlFlow::Break(format!("a type nests deeper than {TYPES} levels"));
        }
        ControlFlow::Continue(())
    }

    pub(super) fn leave(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }
}

/// Whether lists of lists nest too deep. Types with brackets of their own are bounded by the brackets.
fn is_too_deep(kind: &DataType) -> bool {
    let (mut kind, mut depth) = (kind, 0);
    while let DataType::Array(
        ArrayElemTypeDef::SquareBracket(inner, _) | ArrayElemTypeDef::AngleBracket(inner) | ArrayElemTypeDef::Parenthesis(inner),
    ) = kind
    {
        depth += 1;
        if depth > TYPES {
            return true;
        }
        kind = inner;
    }
    false
}

/// The parts a set operation puts together, found without recursion.
pub(super) fn parts(set: &SetExpr) -> Result<Vec<&SetExpr>, String> {
    let (mut waiting, mut parts) = (vec![set], Vec::new());
    while let Some(next) = waiting.pop() {
        if let SetExpr::SetOperation { left, right, .. } = next {
            waiting.push(right);
            waiting.push(left);
        } else {
            parts.push(next);
        }
        if parts.len() + waiting.len() > SETS + 1 {
            return Err(format!("a query has more than {SETS} UNION, EXCEPT or INTERSECT; use OR, IN or GROUP BY"));
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_comments_do_not_count() {
        let many = " OR a = 1".repeat(1_500);
        assert!(text(&format!("SELECT 1 WHERE a = 1{many}")).is_err());
        assert!(text(&format!("SELECT '{many}' /* {many} */ -- {many}")).is_ok());
    }

    #[test]
    fn long_lists_are_not_deep() {
        let names: Vec<String> = (0..900).map(|n| format!("'pod-{n}'")).collect();
        assert_eq!(text(&format!("SELECT Body FROM otel_logs WHERE ServiceName IN ({})", names.join(", "))), Ok(()));
    }

    #[test]
    fn brackets_operators_and_types_have_a_limit_that_is_named() {
        let just_right = format!("SELECT {}1{}", "(".repeat(BRACKETS), ")".repeat(BRACKETS));
        assert_eq!(text(&just_right), Ok(()));
        for (statement, word) in [
            (format!("SELECT {}1{}", "(".repeat(BRACKETS + 1), ")".repeat(BRACKETS + 1)), "brackets"),
            (format!("SELECT 1{}", " IS NULL".repeat(OPERATORS + 1)), "operators"),
            (format!("SELECT 1{}", "::int".repeat(OPERATORS + 1)), "operators"),
            (format!("SELECT CAST(1 AS {}INT{})", "ARRAY<".repeat(TYPES + 1), ">".repeat(TYPES + 1)), "types"),
        ] {
            let refused = text(&statement).unwrap_err();
            assert!(refused.contains(word), "{refused}");
        }
    }
}
