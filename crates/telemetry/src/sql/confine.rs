//! Adds the scope to the plan: a filter over every table scan, in every subquery, join, union and CTE. The scan applies
//! the same scope again by itself ([`super::table`]), so a fault here cannot show another's rows; this makes it visible.

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, lit};
use std::sync::Arc;

use crate::error::{Result, StoreError};
use crate::read::Confinement;
use crate::schema::Table;

/// The plan with the scope's conditions over every scan.
pub(super) fn plan(plan: LogicalPlan, confinement: &Confinement) -> Result<LogicalPlan> {
    let confined = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = &node else { return Ok(Transformed::no(node)) };
        let Some(table) = Table::from_name(scan.table_name.table()) else { return Ok(Transformed::no(node)) };
        let column = |at: usize| Expr::Column(Column::new(Some(scan.table_name.clone()), table.columns()[at].name));
        let mut conditions = Vec::new();
        if let Some(names) = confinement.services().names() {
            let names = names.iter().map(|n| lit(n.as_str())).collect();
            conditions.push(column(table.service_column()).in_list(names, false));
        }
        if let Some(earliest) = confinement.earliest() {
            let earliest = Expr::Literal(ScalarValue::TimestampNanosecond(Some(earliest), None), None);
            conditions.push(column(table.time_column()).gt_eq(earliest));
        }
        match conditions.into_iter().reduce(Expr::and) {
            Some(condition) => Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(condition, Arc::new(node))?))),
            None => Ok(Transformed::no(node)),
        }
    });
    confined.map(|t| t.data).map_err(|e| StoreError::Invalid(format!("the statement cannot be confined to the scope: {e}")))
}
