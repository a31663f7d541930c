//! The rules of the house: who may do what, checked when they are loaded, and the [`Permit`] that
//! nothing else can make.
//!
//! This crate is pure. It must not know a protocol, a store or a runtime.

mod address;
mod arguments;
mod check;
mod compile;
mod confinement;
mod engine;
mod error;
mod explain;
mod expression;
mod external;
mod facts;
mod limits;
mod lookup;
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

pub use address::{AddressFault, usual_address};
pub use confinement::Confinement;
pub use engine::{ADDRESS_FORM, Asked, Decision, Policies, Reach, Wanted, is_member};
pub use error::{PolicyError, Refusal};
pub use explain::{Explanation, RuleInfo, RuleOutcome, RuleTrace};
pub use external::{Action, EXTERNAL_RULE, ExternalDecision, ExternalInput, ExternalPolicy, ExternalPrincipal, ExternalTool};
pub use limits::Limits;
pub use lookup::{Lookup, LookupKind};
pub use operations::Operation;
pub use permit::{Budget, Charter, CharterGrant, Permit, Purpose};
pub use products::{NOT_IN_PRODUCT, Product, ProductLimits, ProductSettings, Products, UNKNOWN_PRODUCT};
pub use trail::{Approach, Trail};
pub use vocabulary::{BUILT_IN_ROLES, PolicyText, Vocabulary};

/// The built-in role policies, as shipped.
pub const BUILT_IN_POLICIES: &str = include_str!("built_in.cedar");
