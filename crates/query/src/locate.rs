//! Finds where a query stops being PromQL, for a message a caller can act on. Guards only wording: whether a query is
//! valid is decided by the parser, never here.

use crate::scan::{Token, TokenKind};

/// Words that take a list of labels in parentheses.
const LABEL_LISTS: [&str; 9] =
    ["by", "without", "on", "ignoring", "group_left", "group_right", "fill", "fill_left", "fill_right"];

/// The byte offset (when found) and the message for a query the parser refused with `complaint`.
pub(crate) fn locate(tokens: &[Token<'_>], length: usize, complaint: &str) -> (Option<usize>, String) {
    if let Some(found) = named_call(tokens, complaint) {
        return found;
    }
    let mut reader = Reader { tokens, at: 0, length, open: Vec::new() };
    match reader.read() {
        Err((offset, message)) => (Some(offset), message),
        Ok(()) => (None, complaint.to_owned()),
    }
}

/// Complaints about a function name it in quotes; the place is where that function is called.
fn named_call(tokens: &[Token<'_>], complaint: &str) -> Option<(Option<usize>, String)> {
    if !complaint.contains("function") && !complaint.contains("in call to") {
        return None;
    }
    let name = complaint.split('\'').nth(1)?;
    let mut calls = tokens.windows(2).filter(|pair| pair[0].text == name && pair[1].text == "(");
    let first = calls.next()?;
    let offset = calls.next().is_none().then_some(first[0].offset);
    let message = if complaint.contains("expected type matrix") && complaint.contains("got vector") {
        format!("{name}() takes a range such as {name}(metric[5m]), not an instant selector")
    } else if complaint.contains("expected type vector") && complaint.contains("got matrix") {
        format!("{name}() takes an instant selector, not a range; leave out the [..] or wrap it in rate() or a *_over_time()")
    } else {
        complaint.to_owned()
    };
    Some((offset, message))
}

type Problem = (usize, String);

struct Reader<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    length: usize,
    /// Whether each open parenthesis belongs to a call, where `,` and `()` may stand.
    open: Vec<bool>,
}

impl<'a> Reader<'a> {
    fn peek(&self, ahead: usize) -> Option<&'a Token<'a>> {
        self.tokens.get(self.at + ahead)
    }

    fn text(&self, ahead: usize) -> &'a str {
        self.peek(ahead).map_or("", |token| token.text)
    }

    fn is_word(&self, words: &[&str]) -> bool {
        self.peek(0).is_some_and(|t| t.kind == TokenKind::Word && words.iter().any(|w| w.eq_ignore_ascii_case(t.text)))
    }

    fn problem<T>(&self, expected: &str) -> Result<T, Problem> {
        match self.peek(0) {
            Some(token) => Err((token.offset, format!("expected {expected}, found '{}'", crate::error::shown(token.text)))),
            None => Err((self.length, format!("the query ends where {expected} is expected"))),
        }
    }

    fn read(&mut self) -> Result<(), Problem> {
        loop {
            self.operand()?;
            if self.after_operand()? {
                return Ok(());
            }
        }
    }

    /// Reads up to the end of one operand.
    fn operand(&mut self) -> Result<(), Problem> {
        loop {
            let Some(token) = self.peek(0) else { return self.problem("an expression") };
            match (token.kind, token.text) {
                (TokenKind::Operator, "+" | "-") => self.at += 1,
                (TokenKind::Open, "(") => {
                    self.open.push(false);
                    self.at += 1;
                }
                (TokenKind::Open, "{") => return self.matchers(),
                (TokenKind::Number | TokenKind::String, _) => {
                    self.at += 1;
                    return Ok(());
                }
                (TokenKind::Close, ")") if self.open.last() == Some(&true) && self.tokens[self.at - 1].text == "(" => {
                    return Ok(());
                }
                (TokenKind::Word, _) => {
                    self.at += 1;
                    if self.is_word(&["by", "without"]) && self.text(1) == "(" {
                        self.at += 1;
                        self.label_list()?;
                        if self.text(0) != "(" {
                            return self.problem("'(' and the expression to aggregate");
                        }
                    }
                    if self.text(0) == "(" {
                        self.open.push(true);
                        self.at += 1;
                        continue;
                    }
                    return if self.text(0) == "{" { self.matchers() } else { Ok(()) };
                }
                _ => return self.problem("an expression"),
            }
        }
    }

    /// Reads what may follow an operand up to the next operand; true at the end of the query.
    fn after_operand(&mut self) -> Result<bool, Problem> {
        loop {
            let Some(token) = self.peek(0) else { return Ok(true) };
            match (token.kind, token.text) {
                (TokenKind::Operator, "=" | "=~" | "!~") => return self.problem("a comparison such as == outside of {}"),
                (TokenKind::Operator, _) => {
                    self.at += 1;
                    self.modifiers()?;
                    return Ok(false);
                }
                (TokenKind::Word, _) if self.is_word(&["and", "or", "unless", "atan2"]) => {
                    self.at += 1;
                    self.modifiers()?;
                    return Ok(false);
                }
                (TokenKind::Word, _) if self.is_word(&["offset"]) => {
                    self.at += 1;
                    self.signed("a duration such as 5m")?;
                }
                (TokenKind::Word, _) if self.is_word(&["by", "without"]) => {
                    self.at += 1;
                    self.label_list()?;
                }
                (TokenKind::Mark, "@") => {
                    self.at += 1;
                    if self.is_word(&["start", "end"]) && self.text(1) == "(" && self.text(2) == ")" {
                        self.at += 3;
                    } else {
                        self.signed("a time in seconds, start() or end()")?;
                    }
                }
                (TokenKind::Mark, ",") if self.open.last() == Some(&true) => {
                    self.at += 1;
                    return Ok(false);
                }
                (TokenKind::Open, "[") => self.range()?,
                (TokenKind::Close, ")") => {
                    self.open.pop();
                    self.at += 1;
                }
                _ => return self.problem("an operator or the end of the query"),
            }
        }
    }

    fn signed(&mut self, expected: &str) -> Result<(), Problem> {
        if matches!(self.text(0), "+" | "-") {
            self.at += 1;
        }
        self.expect(TokenKind::Number, expected)
    }

    fn expect(&mut self, kind: TokenKind, expected: &str) -> Result<(), Problem> {
        if self.peek(0).is_some_and(|token| token.kind == kind) {
            self.at += 1;
            return Ok(());
        }
        self.problem(expected)
    }

    fn modifiers(&mut self) -> Result<(), Problem> {
        if self.is_word(&["bool"]) {
            self.at += 1;
        }
        while self.is_word(&LABEL_LISTS[2..]) {
            let optional = self.is_word(&["group_left", "group_right"]);
            if self.text(1) != "(" && !optional {
                self.at += 1;
                return self.problem("'('");
            }
            self.at += 1;
            if self.text(0) == "(" {
                self.label_list()?;
            }
        }
        Ok(())
    }

    fn label_list(&mut self) -> Result<(), Problem> {
        self.expect(TokenKind::Open, "'(' and labels")?;
        while self.text(0) != ")" {
            let fits = self.peek(0).is_some_and(|t| t.kind != TokenKind::Open && t.kind != TokenKind::Close);
            if !fits {
                return self.problem("a label name");
            }
            self.at += 1;
        }
        self.at += 1;
        Ok(())
    }

    fn range(&mut self) -> Result<(), Problem> {
        self.at += 1;
        self.expect(TokenKind::Number, "a duration such as 5m")?;
        if self.text(0) == ":" {
            self.at += 1;
            if self.text(0) != "]" {
                self.expect(TokenKind::Number, "a duration such as 1m")?;
            }
        }
        self.expect(TokenKind::Close, "']'")
    }

    fn matchers(&mut self) -> Result<(), Problem> {
        self.at += 1;
        while self.text(0) != "}" {
            let quoted = self.peek(0).is_some_and(|token| token.kind == TokenKind::String);
            if quoted {
                self.at += 1;
            } else {
                self.expect(TokenKind::Word, "a label name")?;
            }
            let alone = quoted && matches!(self.text(0), "," | "}");
            if !alone {
                if !matches!(self.text(0), "=" | "!=" | "=~" | "!~") {
                    return self.problem("=, !=, =~ or !~");
                }
                self.at += 1;
                self.expect(TokenKind::String, "a value in quotes")?;
            }
            match self.text(0) {
                "," => self.at += 1,
                "}" => {}
                _ => return self.problem("',' or '}'"),
            }
        }
        self.at += 1;
        Ok(())
    }
}
