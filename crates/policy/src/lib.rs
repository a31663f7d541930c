//! The rules of the house: who may do what, checked when they are loaded, and the [`Permit`] that
//! nothing else can make.
//!
//! This crate is pure. It must not know a protocol, a store or a runtime.

mod engine;
mod permit;
mod schema;

pub use engine::{Decision, Policies, PolicyError, PolicyText, Refusal, Vocabulary};
pub use permit::{Budget, Charter, CharterGrant, Permit, Purpose};

/// The built-in role policies, as shipped.
pub const BUILT_IN_POLICIES: &str = include_str!("built_in.cedar");
