//! What a person types after `portcullis plugin`. Parsing only.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{FetchArgs, KeyRoleArg, OutputArgs, PluginHubAction, PushArgs};

/// The language of a new plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PluginLanguage {
    /// Rust, built by cargo.
    Rust,
    /// Python, built by componentize-py.
    Python,
    /// JavaScript, built by componentize-js.
    Js,
}

/// How a package is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PluginFormat {
    /// Ours.
    Portcullis,
    /// That of observability-mcp: a folder or .tgz with manifest.json and manifest.json.sig.
    Omcp,
}

/// What to do with plugins.
#[derive(Debug, Subcommand)]
pub enum PluginAction {
    /// Write a new plugin that builds as it is.
    New {
        /// Its name; also the folder, unless --directory says otherwise.
        name: String,
        /// What to write it in.
        #[arg(long, value_enum, default_value = "rust")]
        language: PluginLanguage,
        /// Where to write it; must not exist yet.
        #[arg(long, value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// Build the component of a plugin with the tools of its language.
    Build {
        /// Folder with plugin.yaml.
        #[arg(default_value = ".")]
        directory: PathBuf,
        /// Where to put the component; `component.wasm` in the folder when absent.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Put component, manifest, README and bill of materials into one file, and try whether it loads.
    Pack(PackArgs),
    /// Sign a package; writes FILE.sig beside it.
    Sign {
        /// The package.
        package: PathBuf,
        /// Private key, as `keys new` makes it.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check a package against the trust root. Changes nothing.
    Verify(VerifyPluginArgs),
    /// Publish a signed package in an OCI registry.
    Push(PushArgs),
    /// Verify a package and install it. What it may reach is granted in the configuration.
    Install(InstallArgs),
    /// List installed plugins.
    List(OutputArgs),
    /// Show what an installed plugin, or a package, is and wants.
    Info(InfoArgs),
    /// Use an installed plugin; also ends its quarantine. Running servers follow within seconds.
    Enable {
        /// Its name.
        name: String,
    },
    /// Stop using a plugin, and keep it installed.
    Disable {
        /// Its name.
        name: String,
    },
    /// Remove a plugin. The highest version it had stays known, so that an older one is noticed.
    Remove {
        /// Its name.
        name: String,
    },
    /// Hubs: signed lists of plugins that are installed by name.
    Hub {
        /// What to do with hubs.
        #[command(subcommand)]
        action: PluginHubAction,
    },
    /// Keys for signing, and those that are trusted.
    Keys {
        /// What to do with keys.
        #[command(subcommand)]
        action: PluginKeyAction,
    },
}

/// Options of `plugin pack`.
#[derive(Debug, Args)]
pub struct PackArgs {
    /// Folder with plugin.yaml and README.md.
    #[arg(default_value = ".")]
    pub directory: PathBuf,
    /// The component; `component.wasm` in the folder when absent.
    #[arg(long, value_name = "FILE")]
    pub component: Option<PathBuf>,
    /// Bill of materials (CycloneDX JSON); made from the lock file of the folder when absent.
    #[arg(long, value_name = "FILE")]
    pub sbom: Option<PathBuf>,
    /// Where to put the package; NAME-VERSION.plugin in the folder when absent.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Options of `plugin verify`.
#[derive(Debug, Args)]
pub struct VerifyPluginArgs {
    /// The package: a file, https://…, oci://…, or a name in a hub; for --format omcp a folder or .tgz.
    pub package: String,
    /// The signature, a file or https://…; beside the package when absent.
    #[arg(long, value_name = "FILE")]
    pub signature: Option<String>,
    /// The trust root; that of the configuration when absent. For --format omcp a PEM file.
    #[arg(long, value_name = "FILE", env = "PLUGIN_TRUST_ROOT")]
    pub trust_root: Option<PathBuf>,
    /// How it is signed.
    #[arg(long, value_enum, default_value = "portcullis")]
    pub format: PluginFormat,
    /// Which package, and from where.
    #[command(flatten)]
    pub fetch: FetchArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Options of `plugin info`.
#[derive(Debug, Args)]
pub struct InfoArgs {
    /// Name of an installed plugin, or a package: a file, https://…, oci://…, or [HUB/]NAME[@VERSION] of a hub.
    pub plugin: String,
    /// Which package, and from where.
    #[command(flatten)]
    pub fetch: FetchArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Options of `plugin install`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// The package: a file, https://…, oci://REGISTRY/REPOSITORY:TAG or @sha256:…, or [HUB/]NAME[@VERSION] of a hub.
    pub source: String,
    /// The signature, a file or https://…; beside the package when absent.
    #[arg(long, value_name = "FILE")]
    pub signature: Option<String>,
    /// Which package, and from where.
    #[command(flatten)]
    pub fetch: FetchArgs,
    /// Also an older version than was installed before, or another package of the same version.
    #[arg(long)]
    pub allow_downgrade: bool,
    /// Also by another key than the one that signed what had its name before: what is granted to the name is theirs then.
    #[arg(long)]
    pub allow_new_key: bool,
    /// Also without a signature anybody vouches for. It then starts only with plugins.allow_unsigned, and every start,
    /// `doctor` and the audit log say so.
    #[arg(long)]
    pub insecure: bool,
    /// Use it at once.
    #[arg(long)]
    pub enable: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum PluginKeyAction {
    /// Make a private key for signing packages; prints the public key.
    New {
        /// Where to put it; must not exist yet.
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Trust a public key.
    Add(KeyAddArgs),
    /// Revoke a key by its id, or a package by its digest: what it vouched for does not start any more.
    Revoke {
        /// Id of a key, or sha256:… of a package.
        what: String,
        /// Why, for whoever meets it later.
        #[arg(long)]
        reason: String,
    },
    /// List trusted and revoked keys.
    List(OutputArgs),
}

/// Options of `plugin keys add`.
#[derive(Debug, Args)]
pub struct KeyAddArgs {
    /// The public key, as `keys new` prints it.
    pub public_key: String,
    /// Whose it is.
    #[arg(long)]
    pub owner: String,
    /// What it may sign (repeat): package, hub. A key for hubs vouches for the list and for no package on it.
    #[arg(long = "role", value_enum, default_value = "package", value_name = "ROLE")]
    pub roles: Vec<KeyRoleArg>,
    /// Hubs it may sign for (repeat), by name. All when absent.
    #[arg(long = "hub", value_name = "NAME")]
    pub hubs: Vec<String>,
    /// Plugins it may sign (repeat): a name, or a beginning and `*`. All when absent.
    #[arg(long = "plugin", value_name = "NAME")]
    pub plugins: Vec<String>,
    /// How long it may sign from now on, or from --not-before on when that is later, such as 52w.
    #[arg(long, default_value = "52w", value_name = "TIME")]
    pub valid_for: String,
    /// What it signed before this time (RFC 3339) does not count; all counts when absent.
    #[arg(long, value_name = "TIME")]
    pub not_before: Option<String>,
}
