//! Answers small enough for a model: token estimates, compact tables, bucketed series that keep their
//! extremes, span trees with their critical path, pages with opaque cursors, and budgets.
//!
//! Guards the rule that nothing is cut silently: every shape says what it shows, what it leaves out and how
//! much that was. Must not talk to anything, must not say what a secret is and must not decide who may see what.

pub mod budget;
pub mod difference;
pub mod number;
pub mod page;
pub mod series;
pub mod table;
mod text;
pub mod tokens;
pub mod trace;

pub use budget::{Budget, Dropped, Fitted, Part, fit};
pub use difference::{Difference, Differences, differences};
pub use number::Unit;
pub use page::{CursorError, Page, Position, Total, decode_cursor, encode_cursor};
pub use series::{Downsampled, RangeOptions, Summary, Trend, downsample, render_range, summarize};
pub use table::{Cell, Column, Order, Rendered, Table, TableError, TableOptions, instant_table};
pub use text::{field_line, one_line};
pub use trace::{PathSegment, RenderedTrace, TraceOptions, TraceTree, render_trace};
