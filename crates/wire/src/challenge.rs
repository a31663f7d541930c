//! TLS-ALPN-01 (RFC 8737): the proof, on the TLS listener itself, that a name leads here.
//!
//! Guards that such a certificate is shown only while its challenge is pending, only for its name, and only to a client that
//! speaks `acme-tls/1` and nothing else; and that nothing is ever said on such a connection. Must not know who asked for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;
use tokio_rustls::StartHandshake;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, NoServerSessionStorage};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{self, ServerConfig, version};

/// The protocol of the proof, and the only one a client that asks for it may offer.
const ACME_TLS: &[u8] = b"acme-tls/1";

/// The challenges that are pending, by name. Empty nearly always.
#[derive(Debug, Default)]
pub struct Challenges {
    pending: Mutex<HashMap<String, Arc<ServerConfig>>>,
}

/// A challenge is answered while this is held.
#[derive(Debug)]
#[must_use = "the challenge is answered while this is held"]
pub struct PendingChallenge {
    challenges: Arc<Challenges>,
    name: String,
}

impl Challenges {
    /// Answers a challenge for `name`, in lower case, with a certificate made for it.
    ///
    /// # Errors
    /// When the key cannot be used.
    pub fn answer(
        self: &Arc<Self>,
        name: &str,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<PendingChallenge, String> {
        let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
        let unusable = |error: rustls::Error| error.to_string();
        // Not by the way of other certificates: the mark of RFC 8737 is critical, so they would refuse it.
        let key = provider.key_provider.load_private_key(key).map_err(unusable)?;
        let proof = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(unusable)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(proof));
        config.alpn_protocols = vec![ACME_TLS.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), Arc::new(config));
        Ok(PendingChallenge { challenges: self.clone(), name: name.to_owned() })
    }

    /// Whether any challenge is pending.
    pub(crate) fn any(&self) -> bool {
        !self.pending.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The answer to this greeting, when it asks for a pending challenge.
    fn answer_to(&self, hello: &ClientHello<'_>) -> Option<(String, Arc<ServerConfig>)> {
        let mut offered = hello.alpn()?;
        if offered.next() != Some(ACME_TLS) || offered.next().is_some() {
            return None;
        }
        let name = hello.server_name()?.to_ascii_lowercase();
        let config = self.pending.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned()?;
        Some((name, config))
    }

    /// Shows the proof, when this connection asks for one, and gives the connection back when it does not.
    pub(crate) async fn show(&self, start: StartHandshake<TcpStream>) -> Result<String, StartHandshake<TcpStream>> {
        let Some((name, config)) = self.answer_to(&start.client_hello()) else { return Err(start) };
        match start.into_stream(config).await {
            Ok(mut stream) => {
                // The proof was the handshake; there is nothing to say.
                if let Err(error) = tokio::io::AsyncWriteExt::shutdown(&mut stream).await {
                    tracing::debug!(%error, %name, "the connection of a challenge ended early");
                }
            }
            Err(error) => tracing::debug!(%error, %name, "the handshake of a challenge did not end well"),
        }
        Ok(name)
    }
}

impl Drop for PendingChallenge {
    fn drop(&mut self) {
        self.challenges.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}
