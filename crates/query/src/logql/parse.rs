//! Reads LogQL: Loki's grammar as a recursive descent over words that were counted before. Guards that every stream
//! selector is seen; what the grammar does not have is an error with its place. Must not guess.
//!
//! Source: `pkg/logql/syntax/syntax.y` of Loki 3.7.

use super::ast::{
    Binary, ChosenLabel, FormatValue, Grouping, Joint, LabelFilter, LabelTerm, LineOperator, LineValue, LogQuery, LogRange,
    Matcher, MetricExpr, Operand, Query, Stage, Unwrap,
};
use super::lex::{Limits, Word, split};
use crate::QueryError;
use crate::error::Language;
use crate::lexis::{Numeric, duration_nanos};
use crate::promql::MatchOperator;
use crate::scan::{MAX_QUERY_BYTES, MAX_REGEXES};
use crate::text::check_regex;
use crate::words::Words;

/// Words that are never names, in any spelling.
const KEYWORDS: [&str; 27] = [
    "by",
    "without",
    "bool",
    "unwrap",
    "label_replace",
    "offset",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "or",
    "and",
    "unless",
    "json",
    "xml",
    "regexp",
    "logfmt",
    "unpack",
    "pattern",
    "label_format",
    "line_format",
    "ip",
    "decolorize",
    "drop",
    "keep",
    "variants",
    "of",
];
const RANGE_FUNCTIONS: [&str; 15] = [
    "count_over_time",
    "rate",
    "rate_counter",
    "bytes_over_time",
    "bytes_rate",
    "avg_over_time",
    "sum_over_time",
    "min_over_time",
    "max_over_time",
    "stdvar_over_time",
    "stddev_over_time",
    "quantile_over_time",
    "first_over_time",
    "last_over_time",
    "absent_over_time",
];
const AGGREGATIONS: [&str; 12] =
    ["sum", "avg", "count", "max", "min", "stddev", "stdvar", "bottomk", "topk", "sort", "sort_desc", "approx_topk"];
const CONVERSIONS: [&str; 3] = ["bytes", "duration", "duration_seconds"];
const BINARY_SIGNS: [&str; 12] = ["+", "-", "*", "/", "%", "^", "==", "!=", ">", ">=", "<", "<="];
/// Comparisons of labels with numbers, durations and sizes.
const COMPARISONS: [&str; 7] = [">", ">=", "<", "<=", "!=", "=", "=="];
const BINARY_WORDS: [&str; 3] = ["or", "and", "unless"];

/// Whether a name can stand for a label in LogQL, where it cannot be quoted.
pub(crate) fn is_label(name: &str) -> bool {
    crate::text::is_plain_label(name) && !KEYWORDS.iter().any(|word| word.eq_ignore_ascii_case(name))
}

/// Reads a whole query of a caller.
pub(crate) fn parse(raw: &str) -> Result<Query, QueryError> {
    if raw.len() > MAX_QUERY_BYTES {
        return Err(QueryError::TooLong { bytes: raw.len(), limit: MAX_QUERY_BYTES });
    }
    read(raw, Limits::of_callers())
}

/// Reads what this crate wrote, which confinement made longer.
pub(crate) fn parse_rendered(text: &str) -> Result<Query, QueryError> {
    read(text, Limits::of_rendered())
}

fn read(raw: &str, limits: Limits) -> Result<Query, QueryError> {
    let regexes_left = limits.regexes;
    let tokens = split(raw, limits)?;
    let mut reader = Words { language: Language::Logql, raw, tokens, at: 0, regexes_left };
    if reader.is_empty() {
        let message = "the query is empty; write a stream selector such as {app=\"shop\"}".to_owned();
        return Err(QueryError::Syntax { language: Language::Logql, message, position: None });
    }
    let query = reader.query()?;
    match reader.word() {
        Word::End => Ok(query),
        _ => Err(reader.expected("the end of the query")),
    }
}

impl Words<'_, Word> {
    /// The keyword or function here, of those given, in any spelling.
    fn keyword_at(&self, by: usize, words: &[&'static str]) -> Option<&'static str> {
        match self.ahead(by) {
            Word::Name(name) => words.iter().copied().find(|word| word.eq_ignore_ascii_case(name)),
            _ => None,
        }
    }

    fn keyword(&mut self, words: &[&'static str]) -> Option<&'static str> {
        let found = self.keyword_at(0, words);
        self.at += usize::from(found.is_some());
        found
    }

    /// Whether what follows makes a function of the word here: `(`, or `by (`.
    fn calls(&self) -> bool {
        let open = |by: usize| matches!(self.ahead(by), Word::Sign("("));
        open(1) || (self.keyword_at(1, &["by", "without"]).is_some() && open(2))
    }

    fn function(&self, functions: &[&'static str]) -> Option<&'static str> {
        self.keyword_at(0, functions).filter(|_| self.calls())
    }

    fn is_name(&self) -> bool {
        let Word::Name(name) = self.word() else { return false };
        let function = [&RANGE_FUNCTIONS[..], &AGGREGATIONS, &CONVERSIONS, &["vector"]]
            .concat()
            .iter()
            .any(|f| f.eq_ignore_ascii_case(name));
        is_label(name) && !(function && self.calls())
    }

    fn name(&mut self, what: &str) -> Result<String, QueryError> {
        match self.word() {
            Word::Name(name) if self.is_name() => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.expected(what)),
        }
    }

    fn text(&mut self, what: &str) -> Result<String, QueryError> {
        match self.word() {
            Word::Text(text) => {
                let text = text.clone();
                self.at += 1;
                Ok(text)
            }
            _ => Err(self.expected(what)),
        }
    }

    fn number(&mut self) -> Result<String, QueryError> {
        match self.word() {
            Word::Numeric(Numeric::Number(number)) => {
                let number = number.clone();
                self.at += 1;
                Ok(number)
            }
            _ => Err(self.expected("a number")),
        }
    }

    fn query(&mut self) -> Result<Query, QueryError> {
        if self.keyword_at(0, &["variants"]).is_some() {
            return self.variants();
        }
        if self.is("{") {
            return self.logs().map(Query::Logs);
        }
        if self.is("(") && self.holds_logs() {
            self.at += 1;
            let inner = self.query()?;
            self.expect(")")?;
            return Ok(inner);
        }
        self.metric().map(Query::Metric)
    }

    /// Whether the parentheses here hold a log query: then the first word behind them is `{`.
    fn holds_logs(&self) -> bool {
        let first = self.tokens[self.at..].iter().find(|token| token.word != Word::Sign("("));
        first.is_some_and(|token| token.word == Word::Sign("{"))
    }

    fn variants(&mut self) -> Result<Query, QueryError> {
        self.at += 1;
        self.expect("(")?;
        let mut wanted = vec![self.metric()?];
        while self.takes(",") {
            wanted.push(self.metric()?);
        }
        self.expect(")")?;
        if self.keyword(&["of"]).is_none() {
            return Err(self.expected("'of'"));
        }
        self.expect("(")?;
        let of = self.range()?;
        self.expect(")")?;
        Ok(Query::Variants { wanted, of })
    }

    fn logs(&mut self) -> Result<LogQuery, QueryError> {
        let matchers = self.selector()?;
        let mut stages = Vec::new();
        while let Some(stage) = self.stage()? {
            stages.push(stage);
        }
        Ok(LogQuery { matchers, stages })
    }

    fn selector(&mut self) -> Result<Vec<Matcher>, QueryError> {
        let start = self.at;
        self.expect("{")?;
        let mut matchers = Vec::new();
        while !self.is("}") {
            if !matchers.is_empty() {
                self.expect(",")?;
            }
            matchers.push(self.matcher(true)?);
        }
        self.at += 1;
        // As Loki: a selector that every stream could match is none.
        if matchers.iter().all(matches_empty) {
            self.at = start;
            return Err(self.error("a stream selector needs a matcher that does not match the empty value, such as app=~\".+\""));
        }
        Ok(matchers)
    }

    fn match_operator(&self) -> Option<MatchOperator> {
        match self.word() {
            Word::Sign("=") => Some(MatchOperator::Equal),
            Word::Sign("!=") => Some(MatchOperator::NotEqual),
            Word::Sign("=~") => Some(MatchOperator::Regex),
            Word::Sign("!~") => Some(MatchOperator::NotRegex),
            _ => None,
        }
    }

    fn matcher(&mut self, of_stream: bool) -> Result<Matcher, QueryError> {
        let name = self.name("a label name")?;
        self.matcher_of(name, of_stream)
    }

    fn matcher_of(&mut self, name: String, of_stream: bool) -> Result<Matcher, QueryError> {
        let operator = self.match_operator().ok_or_else(|| self.expected("=, !=, =~ or !~"))?;
        self.at += 1;
        let before = self.at;
        let value = self.text("a value in quotes")?;
        if of_stream && matches!(operator, MatchOperator::Regex | MatchOperator::NotRegex) {
            let Some(left) = self.regexes_left.checked_sub(1) else {
                self.at = before;
                let position = crate::scan::position(self.raw, self.offset());
                return Err(QueryError::TooComplex { what: "regular expressions", limit: MAX_REGEXES, position });
            };
            self.regexes_left = left;
            check_regex(&value)?;
        }
        Ok(Matcher { name, operator, value })
    }

    fn stage(&mut self) -> Result<Option<Stage>, QueryError> {
        let sign = match self.word() {
            Word::Sign(sign) => *sign,
            _ => return Ok(None),
        };
        if let Some(operator) = LineOperator::ALL.into_iter().find(|operator| operator.as_str() == sign) {
            self.at += 1;
            return self.line(operator).map(Some);
        }
        if sign != "|" || self.keyword_at(1, &["unwrap"]).is_some() {
            return Ok(None);
        }
        self.at += 1;
        self.after_pipe().map(Some)
    }

    fn line(&mut self, operator: LineOperator) -> Result<Stage, QueryError> {
        let mut any_of = vec![self.line_value()?];
        while self.keyword(&["or"]).is_some() {
            any_of.push(self.line_value()?);
        }
        Ok(Stage::Line { operator, any_of })
    }

    fn line_value(&mut self) -> Result<LineValue, QueryError> {
        if self.keyword(&["ip"]).is_none() {
            return self.text("a text in quotes").map(LineValue::Text);
        }
        self.in_parentheses().map(LineValue::Ip)
    }

    fn in_parentheses(&mut self) -> Result<String, QueryError> {
        self.expect("(")?;
        let text = self.text("a text in quotes")?;
        self.expect(")")?;
        Ok(text)
    }

    fn after_pipe(&mut self) -> Result<Stage, QueryError> {
        const WORDS: [&str; 11] =
            ["json", "xml", "logfmt", "regexp", "pattern", "unpack", "decolorize", "line_format", "label_format", "drop", "keep"];
        let Some(word) = self.keyword(&WORDS) else { return self.filter().map(Stage::Labels) };
        match word {
            "json" | "xml" | "logfmt" => self.fields(word),
            "regexp" | "pattern" => Ok(Stage::Expression { parser: word, expression: self.text("an expression in quotes")? }),
            "line_format" => self.text("a template in quotes").map(Stage::LineFormat),
            "label_format" => self.label_format(),
            "drop" | "keep" => self.choose(word == "keep"),
            bare => Ok(Stage::Bare(bare)),
        }
    }

    fn fields(&mut self, parser: &'static str) -> Result<Stage, QueryError> {
        let mut flags = Vec::new();
        while let Word::Flag(flag) = self.word() {
            if parser != "logfmt" {
                return Err(self.error(format!("{flag} belongs to logfmt")));
            }
            flags.push(*flag);
            self.at += 1;
        }
        let mut wanted = Vec::new();
        if self.is_name() {
            loop {
                let name = self.name("a label name")?;
                let from = if self.takes("=") { Some(self.text("a field in quotes")?) } else { None };
                wanted.push((name, from));
                if !self.takes(",") {
                    break;
                }
            }
        }
        Ok(Stage::Fields { parser, flags, wanted })
    }

    fn label_format(&mut self) -> Result<Stage, QueryError> {
        let mut formats = Vec::new();
        loop {
            let name = self.name("a label name")?;
            self.expect("=")?;
            let value = match self.word() {
                Word::Text(_) => FormatValue::Template(self.text("a template")?),
                _ => FormatValue::Label(self.name("a label name or a template in quotes")?),
            };
            formats.push((name, value));
            if !self.takes(",") {
                return Ok(Stage::LabelFormat(formats));
            }
        }
    }

    fn choose(&mut self, keep: bool) -> Result<Stage, QueryError> {
        let mut labels = Vec::new();
        loop {
            let name = self.name("a label name")?;
            let label = if self.match_operator().is_some() {
                ChosenLabel::Matching(self.matcher_of(name, false)?)
            } else {
                ChosenLabel::Named(name)
            };
            labels.push(label);
            if !self.takes(",") {
                return Ok(Stage::Choose { keep, labels });
            }
        }
    }

    fn filter(&mut self) -> Result<LabelFilter, QueryError> {
        let first = Box::new(self.term()?);
        let mut rest = Vec::new();
        loop {
            let joint = if self.takes(",") {
                Joint::Comma
            } else if let Some(word) = self.keyword(&["and", "or"]) {
                if word == "and" { Joint::And } else { Joint::Or }
            } else if self.is("(") || self.is_name() {
                Joint::Adjacent
            } else {
                return Ok(LabelFilter { first, rest });
            };
            rest.push((joint, self.term()?));
        }
    }

    fn term(&mut self) -> Result<LabelTerm, QueryError> {
        if self.takes("(") {
            let inner = self.filter()?;
            self.expect(")")?;
            return Ok(LabelTerm::Group(inner));
        }
        let name = self.name("a label name, a parser or a formatter")?;
        if matches!(self.ahead(1), Word::Text(_)) {
            return self.matcher_of(name, false).map(LabelTerm::Matcher);
        }
        let operator = match self.word() {
            Word::Sign(sign) => COMPARISONS.into_iter().find(|known| known == sign),
            _ => None,
        };
        let operator = operator.ok_or_else(|| self.expected("a comparison"))?;
        self.at += 1;
        if matches!(operator, "=" | "!=") && self.keyword(&["ip"]).is_some() {
            return Ok(LabelTerm::Ip { name, equal: operator == "=", value: self.in_parentheses()? });
        }
        let value = self.compared()?;
        Ok(LabelTerm::Compare { name, operator, value })
    }

    /// A number, duration or size with its sign.
    fn compared(&mut self) -> Result<String, QueryError> {
        let sign = if self.takes("-") {
            "-"
        } else {
            self.takes("+");
            ""
        };
        let negative_apart = sign == "-" && self.apart();
        let value = match self.word() {
            Word::Numeric(Numeric::Number(text)) => text.clone(),
            Word::Numeric(Numeric::Duration(text, _)) if !negative_apart => text.clone(),
            Word::Numeric(Numeric::Bytes(text)) if sign.is_empty() => text.clone(),
            _ => return Err(self.expected("a text in quotes, a number, a duration or a size")),
        };
        self.at += 1;
        Ok(format!("{sign}{value}"))
    }

    fn range(&mut self) -> Result<LogRange, QueryError> {
        let depth = self.tokens[self.at..].iter().take_while(|token| token.word == Word::Sign("(")).count();
        self.at += depth;
        let matchers = self.selector()?;
        let mut over =
            LogRange { logs: LogQuery { matchers, stages: Vec::new() }, unwrap: None, range: String::new(), offset: None };
        let mut open = depth;
        loop {
            if self.is(")") && open > 0 {
                open -= 1;
                self.at += 1;
            } else if let Word::Range(range) = self.word() {
                if !over.range.is_empty() {
                    return Err(self.error("a second range"));
                }
                over.range.clone_from(range);
                self.at += 1;
                if self.keyword(&["offset"]).is_some() {
                    over.offset = Some(self.duration()?);
                }
            } else if self.is("|") && self.keyword_at(1, &["unwrap"]).is_some() && over.unwrap.is_none() {
                self.at += 1;
                over.unwrap = Some(self.unwrap()?);
            } else if let Some(unwrap) = &mut over.unwrap {
                if !self.takes("|") {
                    break;
                }
                unwrap.filters.push(self.filter()?);
            } else if let Some(stage) = self.stage()? {
                over.logs.stages.push(stage);
            } else {
                break;
            }
        }
        if open > 0 {
            return Err(self.expected("')'"));
        }
        if over.range.is_empty() {
            return Err(self.expected("a range such as [5m]"));
        }
        Ok(over)
    }

    /// The duration of an offset, with its sign.
    fn duration(&mut self) -> Result<String, QueryError> {
        let sign = if self.takes("-") { "-" } else { "" };
        let apart = !sign.is_empty() && self.apart();
        match self.word() {
            Word::Numeric(Numeric::Duration(text, _)) if !apart => {
                let text = format!("{sign}{text}");
                self.at += 1;
                Ok(text)
            }
            _ => Err(self.expected("a duration such as 5m")),
        }
    }

    fn unwrap(&mut self) -> Result<Unwrap, QueryError> {
        self.at += 1;
        if let Some(conversion) = self.function(&CONVERSIONS) {
            self.at += 1;
            self.expect("(")?;
            let label = self.name("a label name")?;
            self.expect(")")?;
            return Ok(Unwrap { label, conversion: Some(conversion), filters: Vec::new() });
        }
        Ok(Unwrap { label: self.name("a label name")?, conversion: None, filters: Vec::new() })
    }

    fn metric(&mut self) -> Result<MetricExpr, QueryError> {
        let mut expr = MetricExpr::of(self.operand()?);
        loop {
            let operator = match self.word() {
                Word::Sign(sign) => BINARY_SIGNS.into_iter().find(|known| known == sign),
                _ => self.keyword_at(0, &BINARY_WORDS),
            };
            let Some(operator) = operator else { return Ok(expr) };
            self.at += 1;
            let binary = self.binary(operator)?;
            expr.rest.push((binary, self.operand()?));
        }
    }

    fn binary(&mut self, operator: &'static str) -> Result<Binary, QueryError> {
        let returns_bool = self.keyword(&["bool"]).is_some();
        let matching = match self.keyword(&["on", "ignoring"]) {
            Some(word) => Some((word == "on", self.labels()?)),
            None => None,
        };
        let group = match matching.is_some().then(|| self.keyword(&["group_left", "group_right"])).flatten() {
            Some(word) => {
                Some((word == "group_left", if self.is("(") && self.is_label_list() { self.labels()? } else { Vec::new() }))
            }
            None => None,
        };
        Ok(Binary { operator, returns_bool, matching, group })
    }

    /// Whether the parentheses behind `group_left` are its labels and not the operand: names, commas, and the end.
    fn is_label_list(&self) -> bool {
        let inside = self.tokens[self.at + 1..].iter().take_while(|t| t.word != Word::Sign(")"));
        inside.map(|t| &t.word).all(|word| matches!(word, Word::Name(_) | Word::Sign(",")))
    }

    fn labels(&mut self) -> Result<Vec<String>, QueryError> {
        self.expect("(")?;
        let mut labels = Vec::new();
        while !self.takes(")") {
            if !labels.is_empty() {
                self.expect(",")?;
            }
            labels.push(self.name("a label name")?);
        }
        Ok(labels)
    }

    fn grouping(&mut self) -> Result<Option<Grouping>, QueryError> {
        let Some(word) = self.keyword(&["by", "without"]) else { return Ok(None) };
        Ok(Some(Grouping { without: word == "without", labels: self.labels()? }))
    }

    fn operand(&mut self) -> Result<Operand, QueryError> {
        if self.is("(") {
            if self.holds_logs() {
                return Err(self.error("log lines cannot be computed with; take a range of them, as in rate({app=\"a\"}[5m])"));
            }
            self.at += 1;
            let inner = self.metric()?;
            self.expect(")")?;
            return Ok(Operand::Group(inner));
        }
        if self.is("+") || self.is("-") {
            let sign = if self.is("-") { "-" } else { "" };
            self.at += 1;
            return Ok(Operand::Number(format!("{sign}{}", self.number()?)));
        }
        if matches!(self.word(), Word::Numeric(_)) {
            return self.number().map(Operand::Number);
        }
        if let Some(function) = self.function(&RANGE_FUNCTIONS) {
            self.at += 1;
            return self.range_aggregation(function);
        }
        if let Some(function) = self.function(&AGGREGATIONS) {
            self.at += 1;
            return self.aggregation(function);
        }
        if self.function(&["vector"]).is_some() {
            self.at += 1;
            self.expect("(")?;
            let number = self.number()?;
            self.expect(")")?;
            return Ok(Operand::Vector(number));
        }
        if self.function(&["label_replace"]).is_some() {
            self.at += 1;
            return self.label_replace();
        }
        if self.is("{") {
            return Err(self.error("log lines cannot be computed with; take a range of them, as in rate({app=\"a\"}[5m])"));
        }
        Err(self.expected("a stream selector, a function or a number"))
    }

    /// A number and a comma in front of what a function works on.
    fn parameter(&mut self) -> Result<Option<String>, QueryError> {
        if !matches!((self.word(), self.ahead(1)), (Word::Numeric(Numeric::Number(_)), Word::Sign(","))) {
            return Ok(None);
        }
        let number = self.number()?;
        self.expect(",")?;
        Ok(Some(number))
    }

    fn range_aggregation(&mut self, function: &'static str) -> Result<Operand, QueryError> {
        self.expect("(")?;
        let parameter = self.parameter()?;
        let over = self.range()?;
        self.expect(")")?;
        Ok(Operand::Range { function, parameter, over, grouping: self.grouping()? })
    }

    fn aggregation(&mut self, function: &'static str) -> Result<Operand, QueryError> {
        let before = self.grouping()?;
        self.expect("(")?;
        let parameter = self.parameter()?;
        let inner = self.metric()?;
        self.expect(")")?;
        let grouping = if before.is_some() { before } else { self.grouping()? };
        Ok(Operand::Aggregate { function, parameter, inner, grouping })
    }

    fn label_replace(&mut self) -> Result<Operand, QueryError> {
        self.expect("(")?;
        let inner = self.metric()?;
        let mut texts: [String; 4] = Default::default();
        for text in &mut texts {
            self.expect(",")?;
            *text = self.text("a text in quotes")?;
        }
        self.expect(")")?;
        Ok(Operand::LabelReplace { inner, texts })
    }
}

/// Whether a matcher also matches streams without the label.
pub(crate) fn matches_empty(matcher: &Matcher) -> bool {
    let fits = |pattern: &str| regex::Regex::new(&format!("^(?:{pattern})$")).is_ok_and(|regex| regex.is_match(""));
    match matcher.operator {
        MatchOperator::Equal => matcher.value.is_empty(),
        MatchOperator::NotEqual => !matcher.value.is_empty(),
        MatchOperator::Regex => fits(&matcher.value),
        MatchOperator::NotRegex => !fits(&matcher.value),
    }
}

/// Length of a range or offset that was read, in nanoseconds, with its sign.
pub(crate) fn nanos(written: &str) -> i128 {
    match written.strip_prefix('-') {
        Some(back) => -duration_nanos(back).unwrap_or(i128::from(i64::MAX)),
        None => duration_nanos(written).unwrap_or(i128::from(i64::MAX)),
    }
}
