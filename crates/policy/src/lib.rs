//! The rules of the house: who may do what, checked when they are loaded, and the [`Permit`] that
//! nothing else can make.
//!
//! This crate is pure. It must not know a protocol, a store or a runtime.

mod arguments;
mod check;
mod compile;
mod engine;
mod error;
mod explain;
mod expression;
mod external;
mod limits;
mod operations;
mod permit;
mod products;
mod rule;
mod schema;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod trail;
mod vocabulary;
mod witness;

pub use engine::{Asked, Decision, Policies, is_member};
pub use error::{PolicyError, Refusal};
pub use explain::{Explanation, RuleInfo, RuleOutcome, RuleTrace};
pub use external::{Action, EXTERNAL_RULE, ExternalDecision, ExternalInput, ExternalPolicy, ExternalPrincipal, ExternalTool};
pub use limits::Limits;
pub use operations::Operation;
pub use permit::{Budget, Charter, CharterGrant, Permit, Purpose};
pub use products::{NOT_IN_PRODUCT, Product, ProductLimits, ProductSettings, Products, UNKNOWN_PRODUCT};
pub use trail::Trail;
pub use vocabulary::{BUILT_IN_ROLES, PolicyText, Vocabulary};

/// The built-in role policies, as shipped.
pub const BUILT_IN_POLICIES: &str = include_str!("built_in.cedar");
