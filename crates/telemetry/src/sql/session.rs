//! The engine's session for one statement: only our tables, only listed functions, no files, no variables, bounded memory.

use std::num::NonZeroUsize;
use std::sync::Arc;

use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider, SchemaProvider,
};
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::prelude::SessionConfig;

use super::desk::Desk;
use super::engine;
use super::serve::Limits;
use super::table::ConfinedTable;
use crate::error::Result;
use crate::read::Confinement;
use crate::schema::Table;

/// Name of the only catalogue.
pub(super) const CATALOG: &str = "portcullis";
/// Name of its only schema.
pub(super) const SCHEMA: &str = "telemetry";
/// Rows of a batch; small, because functions may make rows longer.
const BATCH_ROWS: usize = 2_048;

/// Scalar functions a statement may use. Left out on purpose: what makes long values out of short ones (`repeat`, `lpad`,
/// `rpad`, `array_repeat`, `generate_series`, `range`, `array_resize`), what takes the square of its input in time
/// (`levenshtein`), what reads a type out of a text as deep as it is long (`arrow_cast`, `arrow_try_cast`), and what speaks of
/// the server (`version`).
const SCALARS: &[&str] = &[
    "abs",
    "ceil",
    "floor",
    "round",
    "trunc",
    "sqrt",
    "power",
    "exp",
    "ln",
    "log",
    "log10",
    "log2",
    "signum",
    "isnan",
    "iszero",
    "greatest",
    "least",
    "nanvl",
    "coalesce",
    "nullif",
    "nvl",
    "nvl2",
    "arrow_typeof",
    "get_field",
    "named_struct",
    "struct",
    "character_length",
    "octet_length",
    "bit_length",
    "lower",
    "upper",
    "btrim",
    "ltrim",
    "rtrim",
    "substr",
    "left",
    "right",
    "split_part",
    "strpos",
    "starts_with",
    "ends_with",
    "contains",
    "concat",
    "concat_ws",
    "replace",
    "reverse",
    "initcap",
    "ascii",
    "find_in_set",
    "substr_index",
    "translate",
    "to_hex",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
    "regexp_count",
    "regexp_instr",
    "date_trunc",
    "date_bin",
    "date_part",
    "now",
    "current_date",
    "current_time",
    "to_timestamp",
    "to_timestamp_seconds",
    "to_timestamp_millis",
    "to_timestamp_micros",
    "to_timestamp_nanos",
    "from_unixtime",
    "to_unixtime",
    "to_char",
    "to_date",
    "to_local_time",
    "map_extract",
    "map_keys",
    "map_values",
    "map_entries",
    "cardinality",
    "array_length",
    "array_element",
    "array_has",
    "array_has_any",
    "array_has_all",
    "array_to_string",
    "array_position",
    "array_distinct",
    "array_sort",
    "array_max",
    "array_min",
    "array_slice",
    "array_concat",
    "array_append",
    "array_prepend",
    "make_array",
    "array_any_value",
    "empty",
    "flatten",
    "array_reverse",
    "array_ndims",
];

/// Aggregate functions a statement may use. Left out on purpose: what keeps every value it sees and walks through them again
/// and again (`array_agg`, `string_agg`, `nth_value`).
const AGGREGATES: &[&str] = &[
    "count",
    "sum",
    "min",
    "max",
    "avg",
    "median",
    "percentile_cont",
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "stddev",
    "stddev_pop",
    "var",
    "var_pop",
    "corr",
    "covar_samp",
    "covar_pop",
    "regr_slope",
    "regr_intercept",
    "regr_count",
    "regr_r2",
    "regr_avgx",
    "regr_avgy",
    "regr_sxx",
    "regr_syy",
    "regr_sxy",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "bit_xor",
    "first_value",
    "last_value",
    "any_value",
    "grouping",
];

/// A session for one statement.
pub(super) fn state(desk: &Arc<Desk>, confinement: &Confinement, limits: Limits) -> Result<SessionState> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(limits.sql.memory_bytes)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()
        .map_err(|e| engine(&e))?;
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(false)
        .with_batch_size(NonZeroUsize::new(BATCH_ROWS).map_or(BATCH_ROWS, NonZeroUsize::get))
        .with_target_partitions(limits.threads);
    // Columns are named as in ClickHouse, where upper and lower case differ.
    config.options_mut().sql_parser.enable_ident_normalization = false;
    let schema = MemorySchemaProvider::new();
    for table in Table::ALL {
        let provider = ConfinedTable::new(Arc::clone(desk), table, confinement.clone(), limits.deadline);
        schema.register_table(table.name().to_owned(), Arc::new(provider)).map_err(|e| engine(&e))?;
    }
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema(SCHEMA, Arc::new(schema)).map_err(|e| engine(&e))?;
    let catalogs = MemoryCatalogProviderList::new();
    catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_catalog_list(Arc::new(catalogs))
        .with_expr_planners(SessionStateDefaults::default_expr_planners())
        .with_scalar_functions(scalars())
        .with_aggregate_functions(aggregates())
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .build();
    // `now()` is one moment for the whole statement.
    state.mark_start_execution();
    Ok(state)
}

fn scalars() -> Vec<Arc<ScalarUDF>> {
    SessionStateDefaults::default_scalar_functions().into_iter().filter(|f| SCALARS.contains(&f.name())).collect()
}

fn aggregates() -> Vec<Arc<AggregateUDF>> {
    SessionStateDefaults::default_aggregate_functions().into_iter().filter(|f| AGGREGATES.contains(&f.name())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_function_exists() {
        let known: Vec<String> =
            scalars().iter().map(|f| f.name().to_owned()).chain(aggregates().iter().map(|f| f.name().to_owned())).collect();
        let missing: Vec<&&str> = SCALARS.iter().chain(AGGREGATES).filter(|name| !known.iter().any(|k| k == **name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
