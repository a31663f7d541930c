//! PromQL as a backend reads it: what a request asks, and which series each selector of it takes.
//!
//! Guards that a confinement is judged by what a query finds, not by words that stand in it.

use promql_parser::label::METRIC_NAME;
use promql_parser::parser::{Expr, VectorSelector, parse};
use promql_parser::util::{ExprVisitor, walk_expr};

/// Labels of a series.
pub(crate) type Labels<'a> = [(&'a str, &'a str)];

#[derive(Default)]
struct Selectors(Vec<VectorSelector>);

impl ExprVisitor for Selectors {
    type Error = String;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, String> {
        match expr {
            Expr::VectorSelector(selector) => self.0.push(selector.clone()),
            Expr::MatrixSelector(matrix) => self.0.push(matrix.vs.clone()),
            // The walk passes over parameters of aggregations.
            Expr::Aggregate(aggregate) => {
                if let Some(parameter) = &aggregate.param {
                    walk_expr(self, parameter)?;
                }
            }
            _ => {}
        }
        Ok(true)
    }
}

/// Every selector of a query, at any depth.
pub(crate) fn selectors(query: &str) -> Vec<VectorSelector> {
    let mut found = Selectors::default();
    let expr = parse(query).unwrap_or_else(|e| panic!("a backend could not read {query}: {e}"));
    walk_expr(&mut found, &expr).unwrap();
    found.0
}

/// Whether a selector finds a series of these labels, whatever the name of its metric.
pub(crate) fn takes(selector: &VectorSelector, labels: &Labels) -> bool {
    let value = |name: &str| labels.iter().find(|(label, _)| *label == name).map_or("", |(_, value)| *value);
    let holds = |matchers: &[promql_parser::label::Matcher]| {
        matchers.iter().filter(|m| m.name != METRIC_NAME).all(|m| m.is_match(value(&m.name)))
    };
    let matchers = &selector.matchers;
    holds(&matchers.matchers) && (matchers.or_matchers.is_empty() || matchers.or_matchers.iter().any(|or| holds(or)))
}

/// The values of a parameter in the query or the form of a request, decoded.
pub(crate) fn parameters(request: &str, name: &str) -> Vec<String> {
    let (head, body) = request.split_once("\r\n\r\n").unwrap_or((request, ""));
    let target = head.split(' ').nth(1).unwrap_or_default();
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let pairs = query.split('&').chain(body.split('&'));
    let pairs = pairs.filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| decoded(key) == name).map(|(_, value)| decoded(value)).collect()
}

/// A word of a form (`application/x-www-form-urlencoded`).
fn decoded(text: &str) -> String {
    crate::canary::percent_decoded(&text.replace('+', " "))
}
