//! What the demo runs on: a directory, a house with its doors, a key, and the two charters under which the sender and
//! the client reach it. Guards that both come through the doors on loopback and can reach nothing else.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use portcullis_egress::{AddressPolicy, AllowedRange, Authentication, EgressClient, EgressConfig};
use portcullis_identity::{KeyRequest, local_principal, local_user};
use portcullis_mcp::McpClient;
use portcullis_model::{Scope, Secret, TenantId};
use portcullis_policy::{Budget, Charter, CharterGrant, Policies, Vocabulary};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::otlp::Sender;
use crate::commands::serve::Listeners;
use crate::house::House;
use crate::operations::change_key;
use crate::settings::Config;
use crate::terminal::{paint, say};

/// Longest one request of the client or the sender may take.
const TIME_LIMIT: Duration = Duration::from_mins(1);
/// How long the demo's key is valid.
const KEY_LIFE: Duration = Duration::from_hours(24);
const CLIENT: &str = "demo-client";
const SHOP: &str = "demo-shop";

/// Where everything is kept.
pub(super) enum Place {
    /// Gone when the demo ends.
    Passing(TempDir),
    /// Chosen by the user, and kept.
    Kept(PathBuf),
}

impl Place {
    /// The chosen directory, or a temporary one.
    pub(super) fn take(chosen: Option<PathBuf>) -> anyhow::Result<Self> {
        let Some(path) = chosen else {
            let directory = tempfile::Builder::new().prefix("portcullis-demo-").tempdir();
            return Ok(Self::Passing(directory.context("creating a temporary directory")?));
        };
        match std::fs::read_dir(&path) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    bail!(
                        "{} is not empty, and the demo's telemetry is invented: it must not mix with yours. Name a new or empty \
                         directory with --data (or PORTCULLIS_DATA_DIR), or none for a temporary one",
                        path.display()
                    );
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("reading the directory {}", path.display())),
        }
        Ok(Self::Kept(path))
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Passing(directory) => directory.path(),
            Self::Kept(path) => path,
        }
    }

    /// Removes what is not to be kept.
    pub(super) fn leave(self) {
        match self {
            Self::Passing(directory) => {
                let path = directory.path().to_owned();
                if let Err(error) = directory.close() {
                    tracing::warn!(%error, "{} could not be removed", path.display());
                }
            }
            Self::Kept(path) => say(format!("Everything is kept in {}.", path.display())),
        }
    }
}

/// The house and how to reach it.
pub(super) struct Stage {
    /// The house.
    pub(super) house: Arc<House>,
    /// Its settings.
    pub(super) config: Config,
    /// Where MCP is served.
    pub(super) mcp: SocketAddr,
    /// Where OTLP over HTTP is taken.
    pub(super) otlp: SocketAddr,
    /// The client's API key.
    pub(super) key: Secret,
    /// The shop's way in.
    pub(super) sender: Sender,
    egress: EgressClient,
    charter: Charter,
}

impl Stage {
    /// Binds the doors, opens the house and makes the key.
    pub(super) async fn build(port: u16, data: &Path) -> anyhow::Result<(Self, Listeners)> {
        let (listeners, mcp, otlp) = doors(port).await?;
        let mut config = Config { data: data.to_owned(), ..Config::default() };
        config.listen.mcp = mcp;
        if let Some(admin) = &listeners.admin {
            config.admin.listen = admin.local_addr()?;
        }
        let house = House::open(&config).await?;
        let request = KeyRequest { expires_in: Some(KEY_LIFE), ..KeyRequest::new("demo", "reader", TenantId::default_tenant()) };
        let who = local_principal(&local_user(), "admin")?;
        let making = house.foundations.keys.create(request);
        let created = change_key(&house.foundations, &who, "key.create", making, |created| &created.record.id).await?;
        // Standing work of the demo; it speaks of no tool, so the built-in roles are all there is to load.
        let policies = Policies::load(&[], &Vocabulary::default(), 1)?;
        let authentication = Authentication::Bearer(created.secret.clone().into());
        let egress = client(CLIENT, &format!("http://{mcp}/mcp"), authentication)?;
        let to_shop = client(SHOP, &format!("http://{otlp}"), Authentication::None)?;
        let sender = Sender::new(to_shop.clone(), charter(&policies, SHOP, &to_shop)?);
        let charter = charter(&policies, CLIENT, &egress)?;
        Ok((Self { house: Arc::new(house), config, mcp, otlp, key: created.secret, sender, egress, charter }, listeners))
    }

    /// A client of the MCP door, greeted.
    pub(super) async fn client(&self) -> anyhow::Result<McpClient> {
        Ok(McpClient::connect(self.egress.clone(), self.charter.clone(), CLIENT).await?)
    }
}

fn client(name: &str, url: &str, authentication: Authentication) -> anyhow::Result<EgressClient> {
    let addresses = AddressPolicy::new([AllowedRange::Loopback]);
    Ok(EgressClient::new(EgressConfig { authentication, addresses, read_timeout: TIME_LIMIT, ..EgressConfig::new(name, url) })?)
}

fn charter(policies: &Policies, name: &str, egress: &EgressClient) -> anyhow::Result<Charter> {
    Ok(policies.charter(CharterGrant {
        name: Arc::from(name),
        destinations: [egress.origin().to_owned()].into(),
        scope: Scope::tenant_wide(TenantId::default_tenant()),
        time_limit: TIME_LIMIT,
        budget: Budget::default(),
    })?)
}

/// The listeners and where MCP and OTLP over HTTP are.
async fn doors(port: u16) -> anyhow::Result<(Listeners, SocketAddr, SocketAddr)> {
    let mcp = match listen(port).await {
        Ok(listener) => listener,
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
            "port {port} of 127.0.0.1 is in use by another process; stop it, or give another port with --port (0 takes a free one)"
        ),
        Err(error) => return Err(error).with_context(|| format!("listening on 127.0.0.1:{port} (--port)")),
    };
    let anywhere = port == 0;
    let http = preferably(if anywhere { 0 } else { 4318 }, "OTLP over HTTP").await?;
    let grpc = preferably(if anywhere { 0 } else { 4317 }, "OTLP over gRPC").await?;
    let admin = preferably(if anywhere { 0 } else { 7469 }, "administration").await?;
    let (at, otlp) = (mcp.local_addr()?, http.local_addr()?);
    let (grpc_at, admin_at) = (grpc.local_addr()?, admin.local_addr()?);
    say(paint::faint(&format!(
        "MCP on http://{at}/mcp, OTLP on http://{otlp} and grpc://{grpc_at}, administration on http://{admin_at}"
    )));
    Ok((Listeners { mcp, otlp: Some((http, grpc)), challenges: None, admin: Some(admin) }, at, otlp))
}

async fn listen(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
}

/// The usual port, or a free one where somebody else has it.
async fn preferably(port: u16, what: &str) -> anyhow::Result<TcpListener> {
    match listen(port).await {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let listener = listen(0).await.with_context(|| format!("listening for {what}"))?;
            say(format!(
                "Port {port} is in use by another process; {what} takes port {} instead.",
                listener.local_addr()?.port()
            ));
            Ok(listener)
        }
        other => other.with_context(|| format!("listening on 127.0.0.1:{port} for {what}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_something_in_it_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(Place::take(Some(directory.path().to_owned())), Ok(Place::Kept(_))));
        assert!(matches!(Place::take(Some(directory.path().join("new"))), Ok(Place::Kept(_))));
        std::fs::write(directory.path().join("mine"), "").unwrap();
        let refused = Place::take(Some(directory.path().to_owned())).err().unwrap().to_string();
        assert!(refused.contains("not empty") && refused.contains("--data"), "{refused}");
    }

    #[test]
    fn a_temporary_directory_is_gone_afterwards() {
        let place = Place::take(None).unwrap();
        let path = place.path().to_owned();
        assert!(path.is_dir());
        place.leave();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_option() {
        let taken = listen(0).await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let refused = doors(port).await.err().unwrap().to_string();
        assert!(refused.contains(&port.to_string()) && refused.contains("--port"), "{refused}");
        assert_ne!(preferably(port, "OTLP").await.unwrap().local_addr().unwrap().port(), port);
    }
}
