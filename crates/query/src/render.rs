//! Writes a parsed PromQL tree as text. Guards exactness: what cannot be written so that it reads back the same is an
//! error, never an approximation. Must not change the tree's meaning or drop a part.

use std::time::{Duration, SystemTime};

use promql_parser::label::{Labels, Matcher};
use promql_parser::parser::{
    AggregateExpr, AtModifier, BinModifier, Expr, LabelModifier, Offset, SubqueryExpr, VectorMatchCardinality, VectorSelector,
};

use crate::text::{duration, grouping_label, matcher_label, number, promql_string, push};

/// Writes `expr`; the error says what has no faithful form.
pub(crate) fn render(expr: &Expr) -> Result<String, String> {
    let mut out = String::new();
    write_expr(&mut out, expr)?;
    Ok(out)
}

fn write_expr(out: &mut String, expr: &Expr) -> Result<(), String> {
    match expr {
        Expr::VectorSelector(selector) => {
            write_selector(out, selector)?;
            write_time(out, selector.at.as_ref(), selector.offset.as_ref())
        }
        Expr::MatrixSelector(matrix) => {
            write_selector(out, &matrix.vs)?;
            push(out, format_args!("[{}]", exact(&matrix.range)?));
            write_time(out, matrix.vs.at.as_ref(), matrix.vs.offset.as_ref())
        }
        Expr::NumberLiteral(literal) => {
            out.push_str(&number(literal.val));
            Ok(())
        }
        Expr::StringLiteral(literal) => {
            out.push_str(&promql_string(&literal.val));
            Ok(())
        }
        Expr::Unary(unary) => {
            out.push('-');
            write_expr(out, &unary.expr)
        }
        Expr::Paren(paren) => {
            out.push('(');
            write_expr(out, &paren.expr)?;
            out.push(')');
            Ok(())
        }
        Expr::Binary(binary) => {
            write_expr(out, &binary.lhs)?;
            push(out, format_args!(" {} ", binary.op));
            if let Some(modifier) = &binary.modifier {
                write_modifier(out, modifier);
            }
            write_expr(out, &binary.rhs)
        }
        Expr::Call(call) => {
            out.push_str(call.func.name);
            out.push('(');
            for (index, argument) in call.args.args.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_expr(out, argument)?;
            }
            out.push(')');
            Ok(())
        }
        Expr::Aggregate(aggregate) => write_aggregate(out, aggregate),
        Expr::Subquery(subquery) => write_subquery(out, subquery),
        Expr::Extension(_) => Err("an extension node has no text".to_owned()),
    }
}

fn write_selector(out: &mut String, selector: &VectorSelector) -> Result<(), String> {
    if !selector.matchers.or_matchers.is_empty() {
        return Err("'or' between matchers is not PromQL".to_owned());
    }
    if let Some(name) = &selector.name {
        out.push_str(name);
    }
    if !selector.matchers.matchers.is_empty() {
        let written: Vec<String> = selector.matchers.matchers.iter().map(matcher).collect();
        push(out, format_args!("{{{}}}", written.join(",")));
    }
    Ok(())
}

/// One matcher as text.
pub(crate) fn matcher(matcher: &Matcher) -> String {
    format!("{}{}{}", matcher_label(&matcher.name), matcher.op, promql_string(&matcher.value))
}

fn write_time(out: &mut String, at: Option<&AtModifier>, offset: Option<&Offset>) -> Result<(), String> {
    match at {
        None => {}
        Some(AtModifier::Start) => out.push_str(" @ start()"),
        Some(AtModifier::End) => out.push_str(" @ end()"),
        Some(AtModifier::At(instant)) => {
            let (sign, distance) = match instant.duration_since(SystemTime::UNIX_EPOCH) {
                Ok(after) => ("", after),
                Err(before) => ("-", before.duration()),
            };
            push(out, format_args!(" @ {sign}{}.{:03}", distance.as_secs(), distance.subsec_millis()));
        }
    }
    match offset {
        None => {}
        Some(Offset::Pos(by)) => push(out, format_args!(" offset {}", exact(by)?)),
        Some(Offset::Neg(by)) => push(out, format_args!(" offset -{}", exact(by)?)),
    }
    Ok(())
}

fn exact(by: &Duration) -> Result<String, String> {
    if by.is_zero() || !by.as_nanos().is_multiple_of(1_000_000) {
        return Err("a duration must be a whole number of milliseconds above zero".to_owned());
    }
    Ok(duration(*by))
}

fn labels(labels: &Labels) -> String {
    let names: Vec<String> = labels.labels.iter().map(|name| grouping_label(name)).collect();
    names.join(", ")
}

fn write_modifier(out: &mut String, modifier: &BinModifier) {
    if modifier.return_bool {
        out.push_str("bool ");
    }
    match &modifier.matching {
        Some(LabelModifier::Include(on)) => push(out, format_args!("on ({}) ", labels(on))),
        Some(LabelModifier::Exclude(ignoring)) => push(out, format_args!("ignoring ({}) ", labels(ignoring))),
        None => {}
    }
    match &modifier.card {
        VectorMatchCardinality::ManyToOne(include) => push(out, format_args!("group_left ({}) ", labels(include))),
        VectorMatchCardinality::OneToMany(include) => push(out, format_args!("group_right ({}) ", labels(include))),
        VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany => {}
    }
    if let Some(left) = modifier.fill_values.lhs {
        push(out, format_args!("fill_left ({}) ", number(left)));
    }
    if let Some(right) = modifier.fill_values.rhs {
        push(out, format_args!("fill_right ({}) ", number(right)));
    }
}

fn write_aggregate(out: &mut String, aggregate: &AggregateExpr) -> Result<(), String> {
    push(out, format_args!("{}", aggregate.op));
    match &aggregate.modifier {
        Some(LabelModifier::Include(by)) => push(out, format_args!(" by ({}) ", labels(by))),
        Some(LabelModifier::Exclude(without)) => push(out, format_args!(" without ({}) ", labels(without))),
        None => {}
    }
    out.push('(');
    if let Some(parameter) = &aggregate.param {
        write_expr(out, parameter)?;
        out.push_str(", ");
    }
    write_expr(out, &aggregate.expr)?;
    out.push(')');
    Ok(())
}

fn write_subquery(out: &mut String, subquery: &SubqueryExpr) -> Result<(), String> {
    write_expr(out, &subquery.expr)?;
    let step = subquery.step.as_ref().map(exact).transpose()?.unwrap_or_default();
    push(out, format_args!("[{}:{step}]", exact(&subquery.range)?));
    write_time(out, subquery.at.as_ref(), subquery.offset.as_ref())
}
