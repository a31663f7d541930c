//! What a person types about where packages come from. Parsing only.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use portcullis_egress::AllowedRange;

use super::OutputArgs;

/// How to reach an address named on the command line. What is needed again and again belongs into `plugins.sources`.
#[derive(Debug, Clone, Default, Args)]
pub struct ReachArgs {
    /// Ask without encryption: for http:// addresses, and for registries that have none. A credential is then sent only
    /// within this machine.
    #[arg(long, help_heading = "Reaching it")]
    pub plain_http: bool,
    /// Address range it may live in besides public ones (repeat): loopback, private, shared, or a network.
    #[arg(long = "allow-address", value_name = "RANGE", help_heading = "Reaching it")]
    pub allow_addresses: Vec<AllowedRange>,
    /// PEM file of the certificate authorities to trust instead of the system's.
    #[arg(long, value_name = "FILE", help_heading = "Reaching it")]
    pub ca_file: Option<PathBuf>,
    /// User there.
    #[arg(long, value_name = "USER", requires = "password", help_heading = "Reaching it")]
    pub username: Option<String>,
    /// Where the password is kept: env:NAME, file:/path or secret:NAME. Without --username it is a bearer token.
    #[arg(long, value_name = "REFERENCE", help_heading = "Reaching it")]
    pub password: Option<String>,
}

/// Which package, and from where.
#[derive(Debug, Clone, Default, Args)]
pub struct FetchArgs {
    /// The package must have this digest, whatever a server, a tag or a hub says.
    #[arg(long, value_name = "SHA256")]
    pub digest: Option<String>,
    /// Also a version its hub withdrew.
    #[arg(long)]
    pub allow_yanked: bool,
    /// How to reach it.
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// Options of `plugin push`.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// The package file.
    pub package: PathBuf,
    /// Where to: oci://REGISTRY/REPOSITORY:TAG.
    pub reference: String,
    /// The signature; FILE.sig when absent. What is not signed is not pushed.
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
    /// Also when the tag stands for something else already.
    #[arg(long)]
    pub replace: bool,
    /// Only attach the signature, to the package that is there already under this tag or digest: of somebody else who vouches
    /// for it.
    #[arg(long, conflicts_with = "replace")]
    pub attach: bool,
    /// How to reach it.
    #[command(flatten)]
    pub reach: ReachArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What to do with hubs.
#[derive(Debug, Subcommand)]
pub enum PluginHubAction {
    /// Make and sign the index of a hub from a folder with hub.yaml and entries/.
    Build(HubBuildArgs),
    /// Use a hub. Its index must be signed by a key with the role hub; credentials and private addresses are set in
    /// plugins.sources.
    Add {
        /// A folder, or the https:// address of one.
        place: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Stop using a hub. The newest index seen stays known, so that an older one is noticed.
    Remove {
        /// Its name.
        name: String,
    },
    /// List hubs and the newest index seen of each. Reaches nothing.
    List(OutputArgs),
    /// Ask all hubs what there is.
    Search {
        /// Words that a plugin's name, summary, tools or signals hold; everything when absent.
        words: Vec<String>,
        /// Only this hub.
        #[arg(long, value_name = "NAME")]
        hub: Option<String>,
        /// Print JSON, with every version and what it wants.
        #[arg(long)]
        json: bool,
    },
}

/// Options of `plugin hub build`.
#[derive(Debug, Args)]
pub struct HubBuildArgs {
    /// Folder with hub.yaml and entries/.
    pub folder: PathBuf,
    /// Private key, as `keys new` makes it; trusted by operators with the role hub.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Where index, signature and packages go, to be served as they are; `public` in the folder when absent.
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Number of the index; one more than that of the index in the output folder when absent.
    #[arg(long)]
    pub serial: Option<u64>,
    /// How long the index may be used. Make a new one before that, also when nothing changed.
    #[arg(long, default_value = "30d", value_name = "TIME")]
    pub valid_for: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What a key may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyRoleArg {
    /// Packages.
    Package,
    /// Indexes of hubs.
    Hub,
}
