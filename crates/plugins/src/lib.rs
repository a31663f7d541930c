//! Plugins of others: WASM components in signed packages. Guards that nothing runs that was not signed by a key the operator
//! trusts, that what runs reaches only what its manifest declares and the operator grants, and that its limits hold. Must
//! not let a wasmtime type out.
//!
//! What a plugin is built against is `wit/plugin.wit`.

mod bindings;
mod cache;
mod compiled;
mod confine;
mod convert;
mod digest;
mod engine;
mod extension;
mod fetch;
mod hub;
mod hub_build;
mod hubs;
mod imports;
mod limits;
mod manifest;
mod oci;
mod omcp;
mod origin;
mod outside;
mod package;
mod place;
mod plugin;
mod preview;
mod referrers;
mod registry;
mod settings;
mod signature;
mod source;
mod state;
mod stdio;
mod store;
mod tool;
mod trust;

pub use digest::{Digest, InvalidDigest};
pub use engine::EngineError;
pub use extension::{Plugins, PluginsError, TriedOut, try_out};
pub use fetch::{Chartering, FetchError, Fetcher, Progress};
pub use hub::{HubError, HubIndex, HubLocation, HubName, HubPlugin, HubVersion, IndexSignature, MOST_INDEX};
pub use hub_build::{BuiltHub, HubBuild, HubBuildError, build_hub};
pub use hubs::{FromHub, Hubs, HubsError, KnownHub, OpenHub, Seen};
pub use limits::{LimitSettings, Limits};
pub use manifest::{
    HOST_API, Manifest, ManifestError, ManifestPreview, ManifestTool, PLUGIN_NAME_RULE, Permissions, PluginName, SecretPlace,
    SecretRequest,
};
pub use oci::{Blob, Challenge, OciError, PluginManifest};
pub use omcp::{OmcpError, OmcpVerified, verify_omcp, verify_omcp_archive};
pub use origin::{InvalidOrigin, OriginPattern};
pub use package::{MOST_PACKED, Package, PackageError};
pub use place::{HubEntryName, InvalidPlace, OciReference, PackagePlace, WebAddress};
pub use plugin::LoadError;
pub use referrers::AttachedSignatures;
pub use registry::{Publication, Pulled};
pub use settings::{PackageSource, PluginGrant, PluginSettings, SecretGrant};
pub use signature::{PackageSignature, PrivateKey, PublicKey, SignatureError};
pub use state::Exceeded;
pub use store::{InstallOptions, Installation, Installed, PluginStore, Quarantine, StoreError, Verified, read_bounded, verify};
pub use trust::{InvalidTrustRoot, KeyRole, Occasion, Revocation, RevokedPackage, TrustError, TrustRoot, TrustedKey};

/// The world plugins are built against, as `portcullis plugin new` writes it.
pub const WIT: &str = include_str!("../wit/plugin.wit");
