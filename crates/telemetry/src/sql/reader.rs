//! Reads the text of a statement, with a bound on the work. Where the parser fails it goes back and reads the same words in
//! another way, at every level again: a short text can keep it busy for ever, and no deadline interrupts it. It asks its
//! dialect before every value it reads, and is stopped there. Must not judge what was read.

use std::any::TypeId;
use std::cell::Cell;

use datafusion::sql::sqlparser::ast::{Expr, Statement};
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

/// How deep the parser may recurse.
const DEPTH: usize = 40;
/// Values the parser may begin to read, those it reads again included. A statement of 16 KiB that can be read has 10,000.
const MOST_VALUES: u32 = 50_000;

/// The statements of a text, or a sentence that says why it cannot be read.
pub(super) fn read(text: &str) -> Result<Vec<Statement>, String> {
    let dialect = Bounded { left: Cell::new(MOST_VALUES) };
    let read =
        Parser::new(&dialect).with_recursion_limit(DEPTH).try_with_sql(text).and_then(|mut parser| parser.parse_statements());
    if dialect.left.get() == 0 {
        return Err(
            "there are too many ways to read it; close every CASE and bracket, and quote names that are words of SQL".into()
        );
    }
    read.map_err(|error| error.to_string())
}

/// The generic dialect, up to a number of values.
#[derive(Debug)]
struct Bounded {
    left: Cell<u32>,
}

/// What the generic dialect allows beyond the defaults of all dialects.
macro_rules! as_generic {
    ($($allows:ident)*) => {
        $(fn $allows(&self) -> bool {
            GenericDialect.$allows()
        })*
    };
}

impl Dialect for Bounded {
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn parse_prefix(&self, _parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        let left = self.left.get().saturating_sub(1);
        self.left.set(left);
        // Of all errors the parser tries nothing else after this one.
        (left == 0).then_some(Err(ParserError::RecursionLimitExceeded))
    }

    fn is_delimited_identifier_start(&self, character: char) -> bool {
        GenericDialect.is_delimited_identifier_start(character)
    }

    fn is_identifier_start(&self, character: char) -> bool {
        GenericDialect.is_identifier_start(character)
    }

    fn is_identifier_part(&self, character: char) -> bool {
        GenericDialect.is_identifier_part(character)
    }

    as_generic! {
        supports_unicode_string_literal
        supports_partition_by_after_order_by
        supports_array_join_syntax
        supports_group_by_expr
        supports_group_by_with_modifier
        supports_left_associative_joins_without_parens
        supports_connect_by
        supports_match_recognize
        supports_pipe_operator
        supports_start_transaction_modifier
        supports_window_function_null_treatment_arg
        supports_dictionary_syntax
        supports_window_clause_named_window_reference
        supports_parenthesized_set_variables
        supports_select_wildcard_except
        support_map_literal_syntax
        allow_extract_custom
        allow_extract_single_quotes
        supports_extract_comma_syntax
        supports_create_view_comment_syntax
        supports_parens_around_table_factor
        supports_values_as_table_factor
        supports_create_index_with_clause
        supports_explain_with_utility_options
        supports_limit_comma
        supports_update_order_by
        supports_from_first_select
        supports_projection_trailing_commas
        supports_asc_desc_in_column_definition
        supports_try_convert
        supports_bitwise_shift_operators
        supports_comment_on
        supports_load_extension
        supports_named_fn_args_with_assignment_operator
        supports_struct_literal
        supports_empty_projections
        supports_nested_comments
        supports_multiline_comment_hints
        supports_user_host_grantee
        supports_string_escape_constant
        supports_array_typedef_with_brackets
        supports_match_against
        supports_set_names
        supports_comma_separated_set_assignments
        supports_filter_during_aggregation
        supports_select_wildcard_exclude
        supports_data_type_signed_suffix
        supports_interval_options
        supports_quote_delimited_string
        supports_select_wildcard_replace
        supports_select_wildcard_ilike
        supports_select_wildcard_rename
        supports_optimize_table
        supports_install
        supports_detach
        supports_prewhere
        supports_with_fill
        supports_limit_by
        supports_interpolate
        supports_settings
        supports_select_format
        supports_comment_optimizer_hint
        supports_constraint_keyword_without_name
        supports_key_column_option
        supports_comma_separated_trim
        supports_cte_without_as
        supports_select_item_multi_column_alias
        supports_xml_expressions
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_can_be_read_in_ever_more_ways_is_given_up() {
        for piece in ["CASE WHEN end THEN ", "CASE WHEN true THEN (end) + ", "NOT - a = ", "x -> NOT - a = ", "END . NOT - a = "]
        {
            let began = Instant::now();
            // With the stack a statement has.
            let reading = move || read(&format!("SELECT {}", piece.repeat(36))).unwrap_err();
            let refused = std::thread::Builder::new().stack_size(32 << 20).spawn(reading).unwrap().join().unwrap();
            assert!(refused.contains("too many ways"), "{piece}: {refused}");
            assert!(began.elapsed() < Duration::from_secs(20), "{piece}: {:?}", began.elapsed());
        }
    }

    #[test]
    fn what_is_long_is_read_once() {
        let values = "1,".repeat(8_000);
        assert!(read(&format!("SELECT {values}1")).is_ok());
        assert!(read(&format!("SELECT 1 WHERE 1 IN ({values}1)")).is_ok());
        assert!(read(&format!("SELECT f({values}1)")).is_ok());
    }

    #[test]
    fn everything_is_read_as_the_generic_dialect_reads_it() {
        for text in [
            "SELECT `a`.\"b\", @c, d['e'][1], {'f': 1}, [1, 2], 'g' FROM h AS i",
            "SELECT * EXCEPT (a) FROM b WHERE c::INT[] IS NULL GROUP BY ROLLUP (d) LIMIT 1, 2",
            "SELECT sum(a) FILTER (WHERE b) OVER (w ORDER BY c), MAP {'d': 1} FROM e WINDOW w AS (PARTITION BY f)",
            "FROM a SELECT b, EXTRACT(EPOCH FROM c), INTERVAL '1 day', E'\\n' /* d /* e */ */",
            "SELECT a << 1, TRY_CONVERT(INT, b), x -> y, CASE WHEN c THEN d ELSE e END FROM (f JOIN g ON h = i)",
        ] {
            let generic = Parser::new(&GenericDialect)
                .with_recursion_limit(DEPTH)
                .try_with_sql(text)
                .and_then(|mut p| p.parse_statements());
            assert_eq!(read(text), generic.map_err(|error| error.to_string()), "{text}");
        }
    }
}
