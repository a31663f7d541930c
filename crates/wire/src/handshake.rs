//! The handshake: bounded in time and in number, and answered clearly when the client does not speak TLS.
//!
//! Guards that whoever does not finish a handshake holds a place for a few seconds at most. Must not look at what a
//! certificate says: that it verifies is all that is known here.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls;
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use crate::certificates::Certificates;

/// Type of a TLS record that carries a handshake (RFC 8446 section 5.1): the first byte of every client that speaks TLS.
const HANDSHAKE_RECORD: u8 = 0x16;
/// How long a client that speaks plain HTTP is listened to after it was told, so that it can read the answer.
const LINGER: Duration = Duration::from_secs(1);
/// The answer to plain HTTP on a port that speaks TLS.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\nConnection: close\r\nContent-Length: 46\r\n\r\nthis port speaks TLS: use https in the address";

/// What handshakes may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeLimits {
    /// From the connection to the end of the handshake.
    pub time: Duration,
    /// Handshakes at once; further ones wait within their time.
    pub at_once: usize,
}

impl Default for HandshakeLimits {
    fn default() -> Self {
        Self { time: Duration::from_secs(10), at_once: 512 }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeFailure {
    /// It took too long.
    #[error("the handshake did not end in time")]
    Slow,
    /// The client does not speak TLS.
    #[error("the client does not speak TLS")]
    Plaintext,
    /// The client showed no certificate, or one that is not accepted.
    #[error("the client certificate is not accepted: {0}")]
    ClientCertificate(String),
    /// No common version or cipher, or a client that does not accept this server's certificate.
    #[error("no agreement on TLS: {0}")]
    Disagreement(String),
    /// The connection ended.
    #[error("the connection ended during the handshake: {0}")]
    Gone(io::Error),
    /// It was an authority that looked at the proof for a name; there is nothing to say on such a connection.
    #[error("a challenge for {0} was answered")]
    Challenge(String),
    /// There is no certificate to show yet.
    #[error("there is no certificate yet")]
    NoCertificate,
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Shaken {
    /// What is said inside.
    pub stream: TlsStream<TcpStream>,
    /// The verified certificate of the client, DER; absent when it showed none.
    pub certificate: Option<Vec<u8>>,
}

impl Certificates {
    /// Greets a client.
    ///
    /// # Errors
    /// Why there is no connection; the client was told as far as the protocol knows words for it.
    pub async fn accept(&self, stream: TcpStream) -> Result<Shaken, HandshakeFailure> {
        match tokio::time::timeout(self.limits.time, self.shake(stream)).await {
            Ok(shaken) => shaken,
            Err(_elapsed) => Err(HandshakeFailure::Slow),
        }
    }

    async fn shake(&self, stream: TcpStream) -> Result<Shaken, HandshakeFailure> {
        // Who says nothing holds no place.
        let mut first = [0];
        match stream.peek(&mut first).await.map_err(HandshakeFailure::Gone)? {
            0 => return Err(HandshakeFailure::Gone(io::ErrorKind::UnexpectedEof.into())),
            _ if first != [HANDSHAKE_RECORD] => {
                tell_plain_client(stream, first[0]).await;
                return Err(HandshakeFailure::Plaintext);
            }
            _ => {}
        }
        // The semaphore is never closed.
        let _place = self.places.acquire().await.map_err(|error| HandshakeFailure::Gone(io::Error::other(error)))?;
        let shaking = match &self.challenges {
            Some(challenges) if challenges.any() => {
                let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(failure)?;
                match challenges.show(start).await {
                    Ok(name) => return Err(HandshakeFailure::Challenge(name)),
                    Err(start) => start.into_stream(self.config()),
                }
            }
            _ => TlsAcceptor::from(self.config()).accept(stream),
        };
        let stream = shaking.await.map_err(|error| match self.expires_at() {
            None => HandshakeFailure::NoCertificate,
            Some(_) => failure(error),
        })?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec());
        Ok(Shaken { stream, certificate })
    }
}

/// Says in HTTP what is wrong, to a client that may understand it.
async fn tell_plain_client(mut stream: TcpStream, first: u8) {
    if !first.is_ascii_uppercase() {
        return;
    }
    let told = async {
        stream.write_all(PLAIN_HTTP).await?;
        stream.shutdown().await?;
        // Closing with unread bytes would reset the connection and take the answer with it.
        let mut rest = [0; 4096];
        for _ in 0..16 {
            if stream.read(&mut rest).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    if let Ok(Err(error)) = tokio::time::timeout(LINGER, told).await {
        tracing::debug!(%error, "a client that does not speak TLS could not be told");
    }
}

fn failure(error: io::Error) -> HandshakeFailure {
    use rustls::Error::{InvalidCertRevocationList, InvalidCertificate, NoCertificatesPresented};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(NoCertificatesPresented) => HandshakeFailure::ClientCertificate("none was shown".into()),
        Some(error @ (InvalidCertificate(_) | InvalidCertRevocationList(_))) => {
            HandshakeFailure::ClientCertificate(error.to_string())
        }
        Some(error) => HandshakeFailure::Disagreement(error.to_string()),
        None => HandshakeFailure::Gone(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_plain_http_says_its_own_length() {
        let text = std::str::from_utf8(PLAIN_HTTP).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{} bytes", body.len());
    }
}
