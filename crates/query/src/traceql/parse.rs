//! Reads TraceQL: Tempo's grammar as a recursive descent over words that were counted before. Guards that every filter of
//! spans is seen, and every pipeline that begins without one; what the grammar does not have is an error with its place.
//!
//! Source: `pkg/traceql/expr.y` of Tempo 2.8.

use super::ast::{Field, FieldExpr, Metrics, Operand, Pipeline, Query, Stage, Term, Value};
use super::lex::{Limits, Word, split};
use crate::QueryError;
use crate::error::Language;
use crate::scan::MAX_QUERY_BYTES;
use crate::words::Words;

/// Operators between sets of spans.
const SPANSET_OPERATORS: [&str; 17] =
    ["&&", "||", ">", ">>", "<", "<<", "~", "!>", "!>>", "!<", "!<<", "!~", "&>", "&>>", "&<", "&<<", "&~"];
const COMPARISONS: [&str; 6] = ["=", "!=", "<", "<=", ">", ">="];
const ARITHMETIC: [&str; 6] = ["+", "-", "*", "/", "%", "^"];
/// Operators between values of one span.
const FIELD_OPERATORS: [&str; 16] = ["&&", "||", "=", "!=", "<", "<=", ">", ">=", "=~", "!~", "+", "-", "*", "/", "%", "^"];
const AGGREGATES: [&str; 5] = ["count", "avg", "max", "min", "sum"];
const COUNTING: [&str; 2] = ["rate", "count_over_time"];
const MEASURING: [&str; 6] =
    ["min_over_time", "max_over_time", "avg_over_time", "sum_over_time", "histogram_over_time", "quantile_over_time"];
/// Values without quotes.
const VALUES: [&str; 12] =
    ["true", "false", "nil", "ok", "error", "unset", "unspecified", "internal", "server", "client", "producer", "consumer"];
const INTRINSICS: [&str; 13] = [
    "duration",
    "childCount",
    "name",
    "status",
    "statusMessage",
    "kind",
    "parent",
    "rootName",
    "rootServiceName",
    "traceDuration",
    "nestedSetLeft",
    "nestedSetRight",
    "nestedSetParent",
];
/// Hints that change what is shown of the spans found, and nothing else.
const HINTS: [&str; 3] = ["most_recent", "exemplars", "sample"];

/// Whether an operator computes with numbers.
pub(crate) fn is_arithmetic(operator: &str) -> bool {
    ARITHMETIC.contains(&operator)
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
    let tokens = split(raw, limits)?;
    let mut reader = Words { language: Language::Traceql, raw, tokens, at: 0, regexes_left: 0 };
    if reader.is_empty() {
        let message = "the query is empty; write a filter such as { status = error }".to_owned();
        return Err(QueryError::Syntax { language: Language::Traceql, message, position: None });
    }
    let query = reader.query()?;
    match reader.word() {
        Word::End => Ok(query),
        _ => Err(reader.expected("the end of the query")),
    }
}

/// What a stage gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Spans,
    /// A number per set of spans.
    Scalar,
}

impl Words<'_, Word> {
    fn named(&self, by: usize, names: &[&'static str]) -> Option<&'static str> {
        match self.ahead(by) {
            Word::Name(name) => names.iter().copied().find(|known| known == name),
            _ => None,
        }
    }

    fn takes_name(&mut self, names: &[&'static str]) -> Option<&'static str> {
        let found = self.named(0, names);
        self.at += usize::from(found.is_some());
        found
    }

    fn sign_of(&self, signs: &[&'static str]) -> Option<&'static str> {
        match self.word() {
            Word::Sign(sign) => signs.iter().copied().find(|known| known == sign),
            _ => None,
        }
    }

    fn query(&mut self) -> Result<Query, QueryError> {
        let (pipeline, kind) = self.pipeline(true)?;
        if kind == Kind::Scalar {
            return Err(self.expected("a comparison behind the number"));
        }
        let mut query = Query { pipeline, metrics: None, ranked: None, hints: Vec::new() };
        if self.takes("|") {
            query.metrics = Some(self.metrics()?);
            if self.takes("|") {
                let function = self.takes_name(&["topk", "bottomk"]).ok_or_else(|| self.expected("topk or bottomk"))?;
                self.expect("(")?;
                query.ranked = Some((function, self.integer()?));
                self.expect(")")?;
            }
        }
        if self.takes_name(&["with"]).is_some() {
            self.hints(&mut query.hints)?;
        }
        Ok(query)
    }

    fn hints(&mut self, hints: &mut Vec<(&'static str, String)>) -> Result<(), QueryError> {
        self.expect("(")?;
        loop {
            let name = self.takes_name(&HINTS).ok_or_else(|| {
                self.error(format!("a hint must be one of {}; others change how the backend works", HINTS.join(", ")))
            })?;
            self.expect("=")?;
            let value = match (self.named(0, &["true", "false"]), self.word()) {
                (Some(word), _) => word.to_owned(),
                (None, Word::Number(number)) => number.clone(),
                _ => return Err(self.expected("true, false or a number")),
            };
            self.at += 1;
            hints.push((name, value));
            if !self.takes(",") {
                return self.expect(")");
            }
        }
    }

    /// Stages up to what is none; in front of metrics the `|` stays. `first` when nothing has found spans before.
    fn pipeline(&mut self, first: bool) -> Result<(Pipeline, Kind), QueryError> {
        let (stage, mut kind) = self.stage(first)?;
        let mut stages = vec![stage];
        let metrics = [&COUNTING[..], &MEASURING, &["compare"]].concat();
        while self.is("|") && self.named(1, &metrics).is_none() {
            if kind == Kind::Scalar {
                return Err(self.expected("a comparison behind the number"));
            }
            self.at += 1;
            let (stage, next) = self.stage(false)?;
            kind = next;
            stages.push(stage);
        }
        Ok((Pipeline { stages }, kind))
    }

    fn stage(&mut self, first: bool) -> Result<(Stage, Kind), QueryError> {
        let start = self.at;
        let (operand, kind) = self.operand(first)?;
        let alone = matches!(operand, Operand::By(_) | Operand::Coalesce | Operand::Select(_));
        let mut stage = Stage::of(operand);
        let mut kinds = vec![kind];
        loop {
            let all = [&SPANSET_OPERATORS[..], &COMPARISONS, &ARITHMETIC].concat();
            let Some(operator) = self.sign_of(&all) else { break };
            if alone {
                return Err(self.expected("'|' or the end"));
            }
            self.at += 1;
            let (operand, kind) = self.operand(first)?;
            if matches!(operand, Operand::By(_) | Operand::Coalesce | Operand::Select(_)) {
                self.at = start;
                return Err(self.error("by(), coalesce() and select() stand alone between '|'"));
            }
            stage.rest.push((operator, operand));
            kinds.push(kind);
        }
        let kind = Self::kind_of(&stage, &kinds).ok_or_else(|| {
            self.at = start;
            self.error("these operands and operators do not go together: filters take && || > >> < << ~, numbers one comparison")
        })?;
        Ok((stage, kind))
    }

    /// What a stage gives, or nothing when sets of spans and numbers are mixed.
    fn kind_of(stage: &Stage, kinds: &[Kind]) -> Option<Kind> {
        let operators = || stage.rest.iter().map(|(operator, _)| *operator);
        if kinds.iter().all(|kind| *kind == Kind::Spans) {
            return operators().all(|operator| SPANSET_OPERATORS.contains(&operator)).then_some(Kind::Spans);
        }
        let comparisons = operators().filter(|operator| COMPARISONS.contains(operator)).count();
        let computes = operators().all(|operator| COMPARISONS.contains(&operator) || is_arithmetic(operator));
        if kinds.contains(&Kind::Spans) || !computes || comparisons > 1 {
            return None;
        }
        // Numbers of pipelines of their own are compared with each other and with constants, not with those of this one.
        let own = stage.operands().any(Operand::is_source);
        let of_this_one = |operand: &Operand| !operand.is_source() && !matches!(operand, Operand::Number(_));
        if own && stage.operands().any(of_this_one) {
            return None;
        }
        Some(if comparisons == 1 { Kind::Spans } else { Kind::Scalar })
    }

    fn operand(&mut self, first: bool) -> Result<(Operand, Kind), QueryError> {
        if self.is("{") {
            return Ok((Operand::Filter(self.filter()?), Kind::Spans));
        }
        if self.is("(") {
            return self.group(first);
        }
        if self.is("-") || matches!(self.word(), Word::Number(_)) {
            let sign = if self.takes("-") { "-" } else { "" };
            let Word::Number(number) = self.word() else { return Err(self.expected("a number or a duration")) };
            let number = format!("{sign}{number}");
            self.at += 1;
            return Ok((Operand::Number(number), Kind::Scalar));
        }
        let functions = [&AGGREGATES[..], &["by", "coalesce", "select"]].concat();
        let Some(function) = self.takes_name(&functions) else {
            return Err(self.expected("a filter such as { status = error }, a function or '('"));
        };
        self.expect("(")?;
        let operand = match function {
            "count" => Operand::Aggregate { function, of: None },
            "by" => Operand::By(self.fields()?),
            "coalesce" if first => return Err(self.error("coalesce() needs something in front of it")),
            "coalesce" => Operand::Coalesce,
            "select" => Operand::Select(self.field_list()?),
            _ => Operand::Aggregate { function, of: Some(self.fields()?) },
        };
        self.expect(")")?;
        let kind = if matches!(operand, Operand::Aggregate { .. }) { Kind::Scalar } else { Kind::Spans };
        Ok((operand, kind))
    }

    fn group(&mut self, first: bool) -> Result<(Operand, Kind), QueryError> {
        let start = self.at;
        self.at += 1;
        let (inner, kind) = self.pipeline(first)?;
        self.expect(")")?;
        let operand = Operand::Group(inner);
        if let Operand::Group(inner) = &operand
            && !first
            && (inner.stages.len() > 1 || (kind == Kind::Scalar && operand.is_source()))
        {
            self.at = start;
            return Err(self.error("a pipeline in parentheses can only stand at the beginning"));
        }
        Ok((operand, kind))
    }

    fn filter(&mut self) -> Result<Option<FieldExpr>, QueryError> {
        self.expect("{")?;
        if self.takes("}") {
            return Ok(None);
        }
        let expr = self.fields()?;
        self.expect("}")?;
        Ok(Some(expr))
    }

    fn fields(&mut self) -> Result<FieldExpr, QueryError> {
        let mut expr = FieldExpr { first: Box::new(self.term()?), rest: Vec::new() };
        while let Some(operator) = self.sign_of(&FIELD_OPERATORS) {
            self.at += 1;
            expr.rest.push((operator, self.term()?));
        }
        Ok(expr)
    }

    fn term(&mut self) -> Result<Term, QueryError> {
        let mut signs = Vec::new();
        while let Some(sign) = self.sign_of(&["-", "!"]) {
            signs.push(sign);
            self.at += 1;
        }
        if self.takes("(") {
            let inner = self.fields()?;
            self.expect(")")?;
            return Ok(Term { signs, value: Value::Group(inner) });
        }
        let value = match self.word() {
            Word::Text(text) => Value::Text(text.clone()),
            Word::Number(number) => Value::Number(number.clone()),
            _ => match self.named(0, &VALUES) {
                Some(word) => Value::Word(word),
                None => return Ok(Term { signs, value: Value::Field(self.field()?) }),
            },
        };
        self.at += 1;
        Ok(Term { signs, value })
    }

    fn field(&mut self) -> Result<Field, QueryError> {
        let field = match (self.word(), self.named(0, &INTRINSICS)) {
            (Word::Field(field), _) => field.clone(),
            (_, Some(intrinsic)) => Field::Intrinsic(intrinsic),
            _ => return Err(self.expected("a value, an attribute such as span.http.route or an intrinsic such as duration")),
        };
        self.at += 1;
        Ok(field)
    }

    fn field_list(&mut self) -> Result<Vec<Field>, QueryError> {
        let mut fields = vec![self.field()?];
        while self.takes(",") {
            fields.push(self.field()?);
        }
        Ok(fields)
    }

    fn integer(&mut self) -> Result<String, QueryError> {
        match self.word() {
            Word::Number(number) if number.bytes().all(|b| b.is_ascii_digit()) => {
                let number = number.clone();
                self.at += 1;
                Ok(number)
            }
            _ => Err(self.expected("a whole number")),
        }
    }

    fn metrics(&mut self) -> Result<Metrics, QueryError> {
        if self.takes_name(&["compare"]).is_some() {
            self.expect("(")?;
            let selected = self.filter()?;
            let mut numbers = Vec::new();
            while self.takes(",") {
                numbers.push(self.integer()?);
            }
            self.expect(")")?;
            if !matches!(numbers.len(), 0 | 1 | 3) {
                return Err(self.error("compare() takes a filter, and then nothing, a number, or a number, a start and an end"));
            }
            return Ok(Metrics::Compare { selected, numbers });
        }
        let functions = [&COUNTING[..], &MEASURING].concat();
        let function = self.takes_name(&functions).ok_or_else(|| self.expected("a metrics function such as rate()"))?;
        self.expect("(")?;
        let of = if MEASURING.contains(&function) { Some(self.field()?) } else { None };
        let mut quantiles = Vec::new();
        while function == "quantile_over_time" && self.takes(",") {
            match self.word() {
                Word::Number(number) if number.parse::<f64>().is_ok() => quantiles.push(number.clone()),
                _ => return Err(self.expected("a number such as 0.9")),
            }
            self.at += 1;
        }
        if function == "quantile_over_time" && quantiles.is_empty() {
            return Err(self.expected("',' and a quantile"));
        }
        self.expect(")")?;
        let mut by = Vec::new();
        if self.takes_name(&["by"]).is_some() {
            self.expect("(")?;
            by = self.field_list()?;
            self.expect(")")?;
        }
        Ok(Metrics::Over { function, of, quantiles, by })
    }
}
