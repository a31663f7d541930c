//! The only HTTP client of the house. Guards every outgoing connection: no request without a [`Permit`], no address
//! that was not classified, no body beyond its cap, no credential to another origin. Must not know any backend.
//!
//! One [`EgressClient`] per configured source: it is bound to one origin and holds that origin's credential, TLS
//! identity, connection pool and circuit breaker.
//!
//! [`Permit`]: portcullis_policy::Permit

mod address;
mod authentication;
mod body;
mod breaker;
mod caller;
mod client;
mod config;
mod confine;
mod credential;
mod echoes;
mod error;
mod meter;
mod origin;
mod request;
mod resolver;
mod retry;
mod settings;
mod stream;

pub use address::{AddressClass, AddressPolicy, AllowedRange, InvalidRange};
pub use authentication::Authentication;
pub use caller::{CallerCredentials, CallerFault, ExchangeTarget, Exchanged};
pub use client::{EgressClient, EgressResponse, ForeseenRequest};
pub use config::{EgressConfig, EgressConfigError, TlsOptions};
pub use confine::{InvalidTemplate, PathTemplate, RefusedValue};
pub use credential::{Credential, LiteralSecrets, SecretFault, SecretProvider, SecretResolver};
pub use echoes::{CameBack, Echoes, Fixed};
pub use error::{EgressError, EgressErrorKind};
pub use meter::{EgressCounts, egress_counts};
pub use origin::{InvalidBaseUrl, origin_of};
pub use request::{EgressBody, EgressRequest, FORBIDDEN_HEADERS};
pub use settings::{AuthSettings, BasicSettings, ExchangeAuth, HeaderSettings, TlsSettings};
pub use stream::{EgressStream, StreamLimits};
