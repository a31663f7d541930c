//! What a statement may be. Everything not recognised here is refused, with a sentence that says what was wrong.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, TableReference};
use datafusion::logical_expr::{Expr, FetchType, Limit, LogicalPlan, SkipType, WindowFunctionDefinition};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, ObjectName, ObjectNamePart, Query, SetExpr, Statement as SqlStatement, TableFactor, Visit as _, Visitor,
};

use super::depth::{self, Depth};
use super::{calls, reader};
use crate::error::{Result, StoreError};
use crate::schema::Table;

/// Tables, subqueries and queries in one statement at most, where a `WITH` query counts wherever it is named: each is planned
/// anew there, so a few that name each other twice would be millions.
const MOST_TABLES: usize = 64;
/// Joins without equal columns in one statement at most.
const MOST_PRODUCTS: usize = 1;
/// Steps that make rows out of lists in one statement at most, where a `WITH` query counts wherever it is named: each
/// multiplies the rows of the one before.
const MOST_UNNESTS: usize = 1;
/// The largest numbers of `LIMIT` and `OFFSET` together: some steps make room for that many rows before they read one.
const MOST_LIMIT: usize = 100_000;
/// Functions that keep every value they see, which costs more than their input.
const KEEPING: [&str; 4] = ["array_agg", "string_agg", "listagg", "nth_value"];
/// Aggregates that begin anew, or look at all they have seen, for every row of a window.
const SLOW_OVER: [&str; 7] = [
    "median",
    "percentile_cont",
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "approx_distinct",
    "grouping",
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

/// Says that a text is too long.
pub(super) fn too_long(text: &str, most_bytes: usize) -> StoreError {
    StoreError::Invalid(format!("the statement has {} bytes; the limit is {most_bytes}", text.len()))
}

/// Reads exactly one query.
pub(super) fn statement(text: &str, most_bytes: usize) -> Result<Statement> {
    if text.len() > most_bytes {
        return Err(too_long(text, most_bytes));
    }
    if let Err(sentence) = depth::text(text) {
        return refuse(sentence);
    }
    let mut statements = match reader::read(text) {
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

/// Walks the statement's text tree.
#[derive(Default)]
struct Shape {
    queries: usize,
    statements: usize,
    depth: Depth,
    /// Tables of each query that is being walked, the outermost first.
    open: Vec<usize>,
    /// The queries of `WITH` that were not walked yet, by where they are, and their names.
    announced: BTreeMap<usize, String>,
    /// Tables of the queries of `WITH` that were walked, by their names in small letters. Of equal names the largest counts.
    named: HashMap<String, usize>,
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
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.announced.insert(place_of(&cte.query), cte.alias.name.value.to_lowercase());
        }
        let wrong = if self.queries > MOST_SCANS {
            Some(format!("the statement has more than {MOST_SCANS} queries inside"))
        } else if query.with.as_ref().is_some_and(|w| w.recursive) {
            Some("WITH RECURSIVE is not allowed".into())
        } else if !query.locks.is_empty() || query.for_clause.is_some() {
            Some("FOR UPDATE and other FOR clauses are not allowed".into())
        } else if query.settings.is_some() || query.format_clause.is_some() || !query.pipe_operators.is_empty() {
            Some("SETTINGS, FORMAT and |> are not allowed".into())
        } else {
            match depth::parts(&query.body) {
                Ok(parts) => {
                    self.open.push(parts.len());
                    parts.into_iter().find_map(body)
                }
                Err(sentence) => Some(sentence),
            }
        };
        wrong.map_or(ControlFlow::Continue(()), ControlFlow::Break)
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        let tables = self.open.pop().unwrap_or_default();
        if let Some(name) = self.announced.remove(&place_of(query)) {
            let known = self.named.entry(name).or_default();
            *known = tables.max(*known);
            return ControlFlow::Continue(());
        }
        self.count(tables)
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<String> {
        let allowed = match factor {
            TableFactor::Table { args, with_hints, version, partitions, .. } => {
                args.is_none() && with_hints.is_empty() && version.is_none() && partitions.is_empty()
            }
            TableFactor::Derived { .. } | TableFactor::NestedJoin { .. } | TableFactor::UNNEST { .. } => true,
            _ => false,
        };
        if !allowed {
            return ControlFlow::Break(
                "table functions are not allowed in FROM; use the otel_* tables, subqueries and UNNEST".into(),
            );
        }
        let inside = match factor {
            TableFactor::Table { name, .. } => {
                last_word(name).and_then(|word| self.named.get(&word.to_lowercase())).copied().unwrap_or_default()
            }
            _ => 0,
        };
        self.count(inside + 1)
    }

    fn pre_visit_expr(&mut self, expression: &SqlExpr) -> ControlFlow<String> {
        self.depth.enter(expression)?;
        if let SqlExpr::Function(call) = expression
            && let Some(name) = last_word(&call.name)
            && KEEPING.iter().any(|keeping| name.eq_ignore_ascii_case(keeping))
            && (call.over.is_none() || !name.eq_ignore_ascii_case("nth_value"))
        {
            return ControlFlow::Break(format!("{name} is not allowed, it keeps every value; {ALLOWED_AGGREGATES}"));
        }
        if matches!(expression, SqlExpr::GroupingSets(_) | SqlExpr::Cube(_) | SqlExpr::Rollup(_)) {
            return ControlFlow::Break(calls::SETS.into());
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _expression: &SqlExpr) -> ControlFlow<String> {
        self.depth.leave();
        ControlFlow::Continue(())
    }
}

impl Shape {
    /// Adds to the tables of the query that is being walked.
    fn count(&mut self, tables: usize) -> ControlFlow<String> {
        let Some(so_far) = self.open.last_mut() else { return ControlFlow::Continue(()) };
        *so_far = so_far.saturating_add(tables);
        if *so_far > MOST_TABLES {
            return ControlFlow::Break(format!(
                "the statement puts together more than {MOST_TABLES} tables and queries; a WITH query counts wherever it is named"
            ));
        }
        ControlFlow::Continue(())
    }
}

/// What to use in place of an aggregate that is not allowed.
const ALLOWED_AGGREGATES: &str = "use count, sum, min, max, avg, median, approx_distinct, approx_median, \
                                  approx_percentile_cont, percentile_cont, stddev, var, corr, covar_*, regr_*, bool_*, bit_*, \
                                  first_value, last_value or any_value, or select the rows";

/// Where a query is: names a query among those of one statement, which does not move while it is walked.
fn place_of(query: &Query) -> usize {
    std::ptr::from_ref(query).addr()
}

fn last_word(name: &ObjectName) -> Option<&str> {
    name.0.last().and_then(ObjectNamePart::as_ident).map(|word| word.value.as_str())
}

fn body(part: &SetExpr) -> Option<String> {
    match part {
        SetExpr::Select(select) if select.into.is_some() => Some("SELECT … INTO is not allowed".into()),
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => None,
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

/// Refuses an optimized plan that multiplies tables. What is left then as a join without equal columns really is one.
pub(super) fn products(plan: &LogicalPlan) -> Result<()> {
    let mut products = 0;
    let walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Join(join) = node
            && join.on.is_empty()
            && !is_one_row(&join.left)
            && !is_one_row(&join.right)
        {
            products += 1;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    if let Err(error) = walked {
        return Err(walk_failed(&error));
    }
    if products > MOST_PRODUCTS {
        return refuse(format!(
            "the statement multiplies {} tables; join them by equal columns, such as ON a.TraceId = b.TraceId: at most \
             {MOST_PRODUCTS} join may do without",
            products + 1
        ));
    }
    Ok(())
}

/// Whether a plan certainly answers one row at most, as a total does.
fn is_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_) => plan.inputs().into_iter().all(is_one_row),
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Values(values) => values.values.len() <= 1,
        _ => false,
    }
}

fn walk_failed(error: &DataFusionError) -> StoreError {
    StoreError::Invalid(format!("the statement cannot be checked: {error}"))
}

#[derive(Default)]
struct Checks {
    scans: usize,
    unnests: usize,
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
            | LogicalPlan::Values(_)
            | LogicalPlan::Distinct(_) => {}
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Unnest(_) => {
                self.unnests += 1;
                if self.unnests > MOST_UNNESTS {
                    self.refuse(format!(
                        "the statement makes rows out of lists more than {MOST_UNNESTS} time; use one unnest, and name the WITH \
                         query it stands in once"
                    ));
                }
            }
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

    fn limit(&mut self, limit: &Limit) {
        let rows = match (limit.get_skip_type(), limit.get_fetch_type()) {
            (Ok(SkipType::Literal(skip)), Ok(FetchType::Literal(fetch))) => Some(skip.saturating_add(fetch.unwrap_or_default())),
            _ => None,
        };
        if rows.is_none_or(|rows| rows > MOST_LIMIT) {
            self.refuse(format!("LIMIT and OFFSET are written as numbers, of {MOST_LIMIT} together at most"));
        }
    }

    fn expression(&mut self, expression: &Expr) {
        if let Some(sentence) = calls::wrong(expression) {
            self.refuse(sentence);
        }
        match expression {
            Expr::ScalarVariable(..) => self.refuse("variables are not allowed"),
            Expr::Placeholder(_) => self.refuse("placeholders are not allowed; write the values"),
            Expr::Lambda(_) | Expr::LambdaVariable(_) | Expr::HigherOrderFunction(_) => {
                self.refuse("lambda functions are not allowed");
            }
            Expr::WindowFunction(window) => {
                if let WindowFunctionDefinition::AggregateUDF(function) = &window.fun
                    && (window.params.distinct || SLOW_OVER.contains(&function.name()))
                {
                    let name = function.name();
                    self.refuse(format!(
                        "{name} with OVER, or with DISTINCT and OVER, would begin anew for every row; group by it in a WITH query"
                    ));
                }
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
