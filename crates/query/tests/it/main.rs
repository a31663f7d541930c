//! Properties of the query crate seen from outside: what goes in as a value comes out as a value, and what is confined
//! is confined everywhere. Must not reach into private modules.

mod builders;
mod confinement;
mod generate;
mod prometheus;
