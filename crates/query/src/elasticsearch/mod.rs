//! The search body of Elasticsearch and OpenSearch: from types, and raw ones confined. Guards that a value is only ever a
//! value, and that a raw search finds nothing beyond the scope. Must refuse every member that is not known to be harmless.

mod aggregations;
mod build;
mod confine;
mod json;
mod members;

pub use build::{FieldName, Filter, Search};
pub use confine::{SearchConfinement, SearchScope, confine_elasticsearch};
