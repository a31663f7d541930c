//! The only door to the third-party PromQL parser. Guards it: nothing reaches it that was not scanned, and a panic
//! inside it is a refusal. Must not be bypassed by calling the parser elsewhere.

use std::panic::{AssertUnwindSafe, catch_unwind};

use promql_parser::parser::{AggregateExpr, BinaryExpr, Call, Expr, VectorSelector};

use crate::QueryError;
use crate::error::Language;
use crate::locate::locate;
use crate::scan::{Scanned, position, scan};

/// Scans and parses a raw query.
pub(crate) fn parse(raw: &str) -> Result<(Expr, Scanned<'_>), QueryError> {
    let scanned = scan(raw)?;
    match parse_rendered(&scanned.canonical) {
        Ok(expr) => Ok((expr, scanned)),
        Err(message) => {
            let (offset, message) = locate(&scanned.tokens, raw.len(), &message);
            Err(QueryError::Syntax { language: Language::Promql, message, position: offset.map(|offset| position(raw, offset)) })
        }
    }
}

/// Parses a text that was scanned before or rendered by this crate.
pub(crate) fn parse_rendered(text: &str) -> Result<Expr, String> {
    catch_unwind(AssertUnwindSafe(|| promql_parser::parser::parse(text)))
        .unwrap_or_else(|_| Err("the parser cannot read this query".to_owned()))
}

/// One node of interest while walking a query.
pub(crate) enum Node<'a> {
    /// A selector, of an instant or of a range.
    Selector(&'a VectorSelector),
    /// A function call.
    Call(&'a Call),
    /// A merge of series.
    Aggregate(&'a AggregateExpr),
    /// An operator between two expressions.
    Binary(&'a BinaryExpr),
}

/// Visits every selector, call, merge and operator. Recursion is bounded by the scan.
pub(crate) fn visit<'a>(expr: &'a Expr, see: &mut impl FnMut(Node<'a>)) {
    match expr {
        Expr::VectorSelector(selector) => see(Node::Selector(selector)),
        Expr::MatrixSelector(matrix) => see(Node::Selector(&matrix.vs)),
        Expr::Aggregate(aggregate) => {
            see(Node::Aggregate(aggregate));
            if let Some(parameter) = &aggregate.param {
                visit(parameter, see);
            }
            visit(&aggregate.expr, see);
        }
        Expr::Unary(unary) => visit(&unary.expr, see),
        Expr::Binary(binary) => {
            see(Node::Binary(binary));
            visit(&binary.lhs, see);
            visit(&binary.rhs, see);
        }
        Expr::Paren(paren) => visit(&paren.expr, see),
        Expr::Subquery(subquery) => visit(&subquery.expr, see),
        Expr::Call(call) => {
            see(Node::Call(call));
            for argument in &call.args.args {
                visit(argument, see);
            }
        }
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
}

/// Changes every selector. Recursion is bounded by the scan.
pub(crate) fn change_selectors(expr: &mut Expr, change: &impl Fn(&mut VectorSelector)) {
    match expr {
        Expr::VectorSelector(selector) => change(selector),
        Expr::MatrixSelector(matrix) => change(&mut matrix.vs),
        Expr::Aggregate(aggregate) => {
            if let Some(parameter) = &mut aggregate.param {
                change_selectors(parameter, change);
            }
            change_selectors(&mut aggregate.expr, change);
        }
        Expr::Unary(unary) => change_selectors(&mut unary.expr, change),
        Expr::Binary(binary) => {
            change_selectors(&mut binary.lhs, change);
            change_selectors(&mut binary.rhs, change);
        }
        Expr::Paren(paren) => change_selectors(&mut paren.expr, change),
        Expr::Subquery(subquery) => change_selectors(&mut subquery.expr, change),
        Expr::Call(call) => call.args.args.iter_mut().for_each(|argument| change_selectors(argument, change)),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
}
