//! The listeners' protection, put together from the configuration: certificates, who receives connections, and the rule
//! that nobody speaks in clear text beyond this machine without having said so.
//!
//! Must not let a certificate that cannot be read pass for none, and must not let handshakes fill the audit log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use portcullis_acme::{Answers, certificate_file};
use portcullis_audit::{AuditEvent, AuditLog, Decision, EventKind};
use portcullis_config::{CertificateOrigin, Plaintext, TlsSettings, TrustedProxies};
use portcullis_identity::ClientCertificate;
use portcullis_model::{FaultCode, SystemClock, Whence, format_duration};
use portcullis_wire::{Certificates, Challenges, HandshakeFailure, Protocol, Reception, Refreshed, Wire};
use tokio_util::sync::CancellationToken;

use crate::refusals::{Kind, Tally};
use crate::settings::Config;

/// Setting of the MCP listener.
const LISTEN: &str = "listen.tls";
/// Setting of the admin listener.
const ADMIN: &str = "admin.tls";
/// Setting of the OTLP listeners.
const INGEST: &str = "ingest.tls";
/// How often the files of certificates are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often the end of a certificate is announced in the log.
const REMIND: Duration = Duration::from_hours(24);

/// The certificates of every listener that has some.
#[derive(Debug, Clone, Default)]
pub struct Doors {
    /// MCP.
    pub mcp: Option<Arc<Certificates>>,
    /// Administration.
    pub admin: Option<Arc<Certificates>>,
    /// OTLP over HTTP.
    pub otlp_http: Option<Arc<Certificates>>,
    /// OTLP over gRPC.
    pub otlp_grpc: Option<Arc<Certificates>>,
}

impl Doors {
    /// Reads the certificates of every listener that will be opened.
    pub fn load(config: &Config) -> anyhow::Result<Self> {
        Self::answering(config, None)
    }

    /// The same; the MCP listener answers challenges as well where they are answered inside TLS.
    pub fn answering(config: &Config, answers: Option<&Answers>) -> anyhow::Result<Self> {
        let challenges = match answers {
            Some(Answers::Tls(challenges)) => Some(challenges.clone()),
            _ => None,
        };
        let admin = config.admin.tls.as_ref().filter(|_| config.admin.enabled);
        let ingest = config.ingest.tls.as_ref().filter(|_| takes_telemetry(config));
        let load = |tls: Option<&TlsSettings>, protocol, challenges, setting: &'static str| {
            let loaded = tls.map(|tls| certificates(config, tls, protocol, challenges, setting == LISTEN));
            anyhow::Ok(loaded.transpose().context(setting)?.map(Arc::new))
        };
        Ok(Self {
            mcp: load(config.listen.tls.as_ref(), Protocol::Http1, challenges, LISTEN)?,
            admin: load(admin, Protocol::Http1, None, ADMIN)?,
            otlp_http: load(ingest, Protocol::Http1, None, INGEST)?,
            otlp_grpc: load(ingest, Protocol::Http2, None, INGEST)?,
        })
    }

    /// The certificates with the setting they come from.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Arc<Certificates>)> {
        [(LISTEN, &self.mcp), (ADMIN, &self.admin), (INGEST, &self.otlp_http), (INGEST, &self.otlp_grpc)]
            .into_iter()
            .filter_map(|(setting, certificates)| certificates.as_ref().map(|certificates| (setting, certificates)))
    }

    /// Takes over new files until `stop`; says what was taken over, what was not, and what ends soon.
    pub async fn keep_fresh(self, audit: Arc<AuditLog>, stop: CancellationToken) {
        let mut reminded: Option<Instant> = None;
        loop {
            if reminded.is_none_or(|at| at.elapsed() >= REMIND) {
                reminded = Some(Instant::now());
                self.remind();
            }
            if stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
                return;
            }
            for (setting, certificates) in self.all() {
                let looked = certificates.clone();
                // Files may lie on something slow.
                let Ok(refreshed) = tokio::task::spawn_blocking(move || looked.refresh()).await else { continue };
                let (operation, note) = match refreshed {
                    Refreshed::Unchanged => continue,
                    Refreshed::Replaced => {
                        tracing::info!("{setting}: the new certificate is in force");
                        ("certificate.replaced", None)
                    }
                    Refreshed::Kept(reason) => {
                        tracing::error!("{setting}: the new files are not in force, the last good ones are: {reason}");
                        ("certificate.refused", Some(reason))
                    }
                };
                let mut event = AuditEvent::operation(EventKind::Config, operation, setting);
                if let Some(note) = note {
                    event = event.note(note);
                }
                if let Err(error) = audit.append(event) {
                    tracing::error!(%error, "the audit log could not be written");
                }
            }
        }
    }

    fn remind(&self) {
        for (setting, certificates) in self.all() {
            if certificates.expires_at().is_none() {
                let why = certificates.refused().map(|why| format!(" ({why})")).unwrap_or_default();
                tracing::error!("{setting}: there is no certificate yet{why}: every handshake is refused until there is one");
            } else if let Some(warning) = certificates.ends_soon().filter(|_| !is_renewed_here(certificates)) {
                tracing::warn!("{setting}: the certificate ends in {}", format_duration(warning.left));
            }
        }
    }
}

/// Whether the certificate is ordered here, so that its end is announced by a failed order and not by a date.
fn is_renewed_here(certificates: &Certificates) -> bool {
    certificates.settings().acme.is_some()
}

/// The certificate of one listener, wherever it comes from.
fn certificates(
    config: &Config,
    tls: &TlsSettings,
    protocol: Protocol,
    challenges: Option<Arc<Challenges>>,
    is_listen: bool,
) -> anyhow::Result<Certificates> {
    let clock = Arc::new(SystemClock);
    match tls.origin().map_err(anyhow::Error::msg)? {
        CertificateOrigin::Files { .. } => Ok(Certificates::load(tls.clone(), protocol, clock)?),
        CertificateOrigin::Acme(_) if is_listen => {
            Ok(Certificates::awaited(tls.clone(), &certificate_file(&config.data), protocol, clock, challenges)?)
        }
        CertificateOrigin::Acme(_) => bail!("acme belongs into listen.tls; write same_as_listen: true here"),
        CertificateOrigin::Listen if is_listen => {
            bail!("same_as_listen belongs into ingest.tls or admin.tls; say here where the certificate comes from")
        }
        CertificateOrigin::Listen => {
            let listen =
                config.listen.tls.as_ref().context("same_as_listen: there is no listen.tls to take a certificate from")?;
            let TlsSettings { certificate, key, acme, .. } = listen.clone();
            let own = TlsSettings { certificate, key, acme, same_as_listen: false, ..tls.clone() };
            match listen.origin().map_err(|why| anyhow::anyhow!("listen.tls: {why}"))? {
                CertificateOrigin::Files { .. } => Ok(Certificates::load(own, protocol, clock)?),
                CertificateOrigin::Acme(_) => {
                    Ok(Certificates::awaited(own, &certificate_file(&config.data), protocol, clock, None)?)
                }
                CertificateOrigin::Listen => bail!("listen.tls: same_as_listen belongs into ingest.tls or admin.tls"),
            }
        }
    }
}

/// Whether the OTLP listeners are opened.
pub fn takes_telemetry(config: &Config) -> bool {
    config.ingest.enabled && config.store.enabled
}

/// Refuses clear text on an address other machines can reach, unless the operator said who speaks TLS instead.
pub fn refuse_clear_text(config: &Config) -> anyhow::Result<()> {
    let check = |address: SocketAddr, setting: &str, section: &str, tls: bool, plaintext: Option<Plaintext>| {
        if address.ip().to_canonical().is_loopback() || tls || plaintext == Some(Plaintext::ITerminateTlsElsewhere) {
            return Ok(());
        }
        bail!(
            "{setting} is {address}, which other machines can reach, and nothing encrypts what they say: set {section}.tls, or \
             {section}.plaintext to i-terminate-tls-elsewhere when a proxy in front of it does"
        )
    };
    let listen = &config.listen;
    check(listen.mcp, "listen.mcp", "listen", listen.tls.is_some(), listen.plaintext)?;
    if config.admin.enabled {
        let admin = &config.admin;
        check(admin.listen, "admin.listen", "admin", admin.tls.is_some(), admin.plaintext)?;
    }
    if takes_telemetry(config) {
        let ingest = &config.ingest;
        check(ingest.http, "ingest.http", "ingest", ingest.tls.is_some(), ingest.plaintext)?;
        check(ingest.grpc, "ingest.grpc", "ingest", ingest.tls.is_some(), ingest.plaintext)?;
    }
    Ok(())
}

/// Reads client certificates and records whom the handshake refused.
pub struct AuditedReception {
    tally: Arc<Tally>,
    transport: &'static str,
}

/// The wire of a listener behind `proxies`.
pub fn wire(
    certificates: Option<&Arc<Certificates>>,
    proxies: &TrustedProxies,
    tally: &Arc<Tally>,
    transport: &'static str,
) -> Wire {
    let reception = AuditedReception { tally: tally.clone(), transport };
    Wire::new(certificates.cloned(), Arc::new(reception)).recording(tally.at(transport)).behind(proxies.clone())
}

impl Reception for AuditedReception {
    fn certificate(&self, der: &[u8], known: &mut http::Extensions) -> Result<(), String> {
        let certificate = ClientCertificate::from_der(der).map_err(|error| error.to_string())?;
        known.insert(Arc::new(certificate));
        Ok(())
    }

    fn turned_away(&self, peer: SocketAddr, failure: &HandshakeFailure) {
        // Scanners and broken connections are no callers; who came with a wrong certificate, or without one, is.
        let HandshakeFailure::ClientCertificate(reason) = failure else {
            tracing::debug!(%peer, %failure, "a connection was not taken");
            return;
        };
        let event = AuditEvent::new(EventKind::Authentication)
            .method("handshake")
            .transport(self.transport)
            .decided(Decision::Deny, "client-certificate")
            .code(Some(FaultCode::Unauthenticated))
            .note(reason.clone());
        let kind = Kind { transport: self.transport, method: "handshake", rule: "client-certificate".to_owned(), who: None };
        if let Err(error) = self.tally.note(kind, Some(&Whence::direct(peer)), event) {
            tracing::error!(%error, "the audit record of a refused connection could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_config::ListenSettings;

    fn refused(config: &Config) -> Option<String> {
        refuse_clear_text(config).err().map(|error| error.to_string())
    }

    #[test]
    fn clear_text_beyond_this_machine_is_refused_listener_by_listener() {
        let public: SocketAddr = "0.0.0.0:1".parse().unwrap();
        assert_eq!(refused(&Config::default()), None);
        let mut config = Config::default();
        config.listen.mcp = public;
        assert!(refused(&config).is_some_and(|text| text.contains("listen.plaintext to i-terminate-tls-elsewhere")));
        config.listen.plaintext = Some(Plaintext::ITerminateTlsElsewhere);
        assert_eq!(refused(&config), None);
        config.ingest.grpc = public;
        assert!(refused(&config).is_some_and(|text| text.starts_with("ingest.grpc")));
        config.ingest.enabled = false;
        assert_eq!(refused(&config), None, "what is not opened needs nothing");
        config.admin.listen = public;
        assert!(refused(&config).is_some_and(|text| text.starts_with("admin.listen") && text.contains("admin.tls")));
        config.admin.enabled = false;
        assert_eq!(refused(&config), None);
        config.listen = ListenSettings { mcp: "[::ffff:10.0.0.1]:1".parse().unwrap(), ..ListenSettings::default() };
        assert!(refused(&config).is_some_and(|text| text.contains("listen.tls")));
        config.listen.mcp = "[::ffff:127.0.0.1]:1".parse().unwrap();
        assert_eq!(refused(&config), None);
    }
}
