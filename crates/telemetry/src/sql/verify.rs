//! What a statement may be. Everything not recognised here is refused, with a sentence that says what was wrong.

use std::ops::ControlFlow;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, TableReference};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Query, SetExpr, Statement as SqlStatement, TableFactor, Visit as _, Visitor};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::error::{Result, StoreError};
use crate::schema::Table;

/// How deep a statement may nest.
const DEPTH: usize = 40;
/// How deep calls may nest: every level may triple the parser's work.
const CALLS: usize = 8;
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
/// Scans and queries in one statement at most.
const MOST_SCANS: usize = 16;
/// Functions that make text or lists longer, in one statement at most: each can double what it is given.
const MOST_GROWTH: usize = 8;
const GROWING: [&str; 9] = [
    "concat",
    "concat_ws",
    "replace",
    "regexp_replace",
    "array_concat",
    "array_append",
    "array_prepend",
    "array_to_string",
    "make_array",
];

fn refuse<T>(sentence: impl Into<String>) -> Result<T> {
    Err(StoreError::Invalid(sentence.into()))
}

/// Reads exactly one query.
pub(super) fn statement(text: &str, most_bytes: usize) -> Result<Statement> {
    if text.len() > most_bytes {
        return refuse(format!("the statement has {} bytes; the limit is {most_bytes}", text.len()));
    }
    calls(text)?;
    let parsed =
        Parser::new(&GenericDialect {}).with_recursion_limit(DEPTH).try_with_sql(text).and_then(|mut p| p.parse_statements());
    let mut statements = match parsed {
        Ok(statements) => statements,
        Err(error) => return refuse(format!("the statement cannot be read: {error}")),
    };
    let (Some(only), true) = (statements.pop(), statements.is_empty()) else {
        return refuse("send exactly one statement: a SELECT, or WITH … SELECT");
    };
    if !matches!(only, SqlStatement::Query(_)) {
        return refuse("only SELECT, or WITH … SELECT, is allowed; nothing here can be changed, set, explained or copied");
    }
    match only.visit(&mut Shape::default()) {
        ControlFlow::Continue(()) => Ok(Statement::Statement(Box::new(only))),
        ControlFlow::Break(sentence) => refuse(sentence),
    }
}

/// Bounds how deep calls and prefixes nest, before the parser sees them. It tries `CAST(`, `POSITION(` and their kin first
/// as special forms and then as functions, at every level again: forty of them inside each other would keep it busy for
/// ever, and no deadline can interrupt it.
fn calls(text: &str) -> Result<()> {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, text).tokenize() else { return Ok(()) };
    // Whether each open bracket is that of a call, how many are, and prefixes that wait for their operand.
    let (mut open, mut nested, mut prefixes) = (Vec::new(), 0_usize, 0_usize);
    let mut word = None;
    for token in &tokens {
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
            Token::Plus | Token::Minus | Token::Tilde => {}
            _ => prefixes = 0,
        }
        word = if let Token::Word(w) = token { Some(w.keyword) } else { None };
        if nested + prefixes > CALLS {
            return refuse(format!("calls nest deeper than {CALLS} levels; name a part of them in WITH … AS (SELECT …)"));
        }
    }
    Ok(())
}

/// Walks the statement's text tree.
#[derive(Default)]
struct Shape {
    queries: usize,
    statements: usize,
}

impl Visitor for Shape {
    type Break = String;

    fn pre_visit_statement(&mut self, statement: &SqlStatement) -> ControlFlow<String> {
        self.statements += 1;
        if self.statements > 1 || !matches!(statement, SqlStatement::Query(_)) {
            return ControlFlow::Break("statements inside the query are not allowed".into());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        self.queries += 1;
        let wrong = if self.queries > MOST_SCANS {
            Some(format!("the statement has more than {MOST_SCANS} queries inside"))
        } else if query.with.as_ref().is_some_and(|w| w.recursive) {
            Some("WITH RECURSIVE is not allowed".into())
        } else if !query.locks.is_empty() || query.for_clause.is_some() {
            Some("FOR UPDATE and other FOR clauses are not allowed".into())
        } else if query.settings.is_some() || query.format_clause.is_some() || !query.pipe_operators.is_empty() {
            Some("SETTINGS, FORMAT and |> are not allowed".into())
        } else {
            body(&query.body)
        };
        wrong.map_or(ControlFlow::Continue(()), ControlFlow::Break)
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<String> {
        let allowed = match factor {
            TableFactor::Table { args, with_hints, version, partitions, .. } => {
                args.is_none() && with_hints.is_empty() && version.is_none() && partitions.is_empty()
            }
            TableFactor::Derived { .. } | TableFactor::NestedJoin { .. } | TableFactor::UNNEST { .. } => true,
            _ => false,
        };
        if allowed {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break("table functions are not allowed in FROM; use the otel_* tables, subqueries and UNNEST".into())
        }
    }
}

fn body(set: &SetExpr) -> Option<String> {
    match set {
        SetExpr::Select(select) if select.into.is_some() => Some("SELECT … INTO is not allowed".into()),
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => None,
        SetExpr::SetOperation { left, right, .. } => body(left).or_else(|| body(right)),
        _ => Some("only SELECT and VALUES may stand in a query".into()),
    }
}

/// Refuses every plan that is not made of reading operators over our tables.
pub(super) fn plan(plan: &LogicalPlan) -> Result<()> {
    let mut checks = Checks::default();
    let walked = plan.apply_with_subqueries(|node| {
        checks.node(node);
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                checks.expression(part);
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(if checks.wrong.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    if let Err(error) = walked {
        return Err(walk_failed(&error));
    }
    checks.wrong.map_or(Ok(()), refuse)
}

fn walk_failed(error: &DataFusionError) -> StoreError {
    StoreError::Invalid(format!("the statement cannot be checked: {error}"))
}

#[derive(Default)]
struct Checks {
    scans: usize,
    growth: usize,
    wrong: Option<String>,
}

impl Checks {
    fn node(&mut self, node: &LogicalPlan) {
        match node {
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::EmptyRelation(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Values(_)
            | LogicalPlan::Distinct(_)
            | LogicalPlan::Unnest(_) => {}
            LogicalPlan::TableScan(scan) => {
                self.scans += 1;
                if self.scans > MOST_SCANS {
                    self.refuse(format!("the statement reads tables more than {MOST_SCANS} times"));
                }
                if !is_ours(&scan.table_name) || !scan.source.schema().eq(&known_schema(&scan.table_name)) {
                    self.refuse(format!("'{}' is not one of the otel_* tables", scan.table_name));
                }
            }
            other => {
                let name = other.display().to_string();
                let name = name.split([':', ' ']).next().unwrap_or("this").to_owned();
                self.refuse(format!("{name} is not allowed in a statement"));
            }
        }
    }

    fn expression(&mut self, expression: &Expr) {
        match expression {
            Expr::ScalarVariable(..) => self.refuse("variables are not allowed"),
            Expr::Placeholder(_) => self.refuse("placeholders are not allowed; write the values"),
            Expr::Lambda(_) | Expr::LambdaVariable(_) | Expr::HigherOrderFunction(_) => {
                self.refuse("lambda functions are not allowed");
            }
            Expr::ScalarFunction(call) if GROWING.contains(&call.name()) => self.grow(),
            Expr::BinaryExpr(binary) if matches!(binary.op, datafusion::logical_expr::Operator::StringConcat) => self.grow(),
            _ => {}
        }
    }

    fn grow(&mut self) {
        self.growth += 1;
        if self.growth > MOST_GROWTH {
            self.refuse(format!("the statement joins or replaces text more than {MOST_GROWTH} times"));
        }
    }

    fn refuse(&mut self, sentence: impl Into<String>) {
        self.wrong.get_or_insert_with(|| sentence.into());
    }
}

fn is_ours(reference: &TableReference) -> bool {
    let plain = matches!(reference, TableReference::Bare { .. })
        || (reference.schema() == Some(super::session::SCHEMA)
            && reference.catalog().is_none_or(|c| c == super::session::CATALOG));
    plain && Table::from_name(reference.table()).is_some()
}

fn known_schema(reference: &TableReference) -> arrow::datatypes::SchemaRef {
    Table::from_name(reference.table())
        .map_or_else(|| std::sync::Arc::new(arrow::datatypes::Schema::empty()), Table::shown_schema)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn calls_that_would_keep_the_parser_busy_are_refused_at_once() {
        let openings = [
            "CAST(",
            "TRY_CAST(",
            "POSITION(",
            "ARRAY[",
            "INTERVAL ",
            "INTERVAL - ",
            "INTERVAL (",
            "NOT ",
            "NOT (",
            "CEIL(",
            "a[",
        ];
        for opening in openings {
            for depth in [9, 39, 300] {
                let text = format!("SELECT {}", opening.repeat(depth));
                let began = Instant::now();
                let refused = statement(&text, 16 << 10).is_err();
                assert!(refused && began.elapsed() < Duration::from_secs(2), "{opening} {depth}: {:?}", began.elapsed());
            }
        }
    }

    #[test]
    fn honest_nesting_passes() {
        for text in [
            "SELECT upper(trim(substring(coalesce(cast(round(abs(1)) AS TEXT), '') FROM 1)))",
            "SELECT 1 FROM (SELECT 1 FROM (SELECT 1 FROM (SELECT 1 FROM (SELECT 1 FROM (SELECT 1)))))",
            "SELECT 1 WHERE (((((((((1 = 1) AND (1 = 1)) OR (1 IN (1, 2)))))))))",
            "SELECT 1 WHERE NOT a AND NOT b AND NOT c AND NOT d AND NOT e AND NOT f AND NOT g AND NOT h AND NOT i AND NOT j",
            "SELECT now() - INTERVAL '1 day' + INTERVAL '1 day', f(1), f(2), f(3), f(4), f(5), f(6), f(7), f(8), f(9), f(10)",
        ] {
            assert!(statement(text, 16 << 10).is_ok(), "{text}");
        }
    }
}
