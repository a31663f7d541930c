//! A client certificate as the rules need it: its subject alternative names and its fingerprint.
//!
//! The chain and the possession of the private key were verified by TLS before anything here is asked; nothing here
//! verifies a signature, and a certificate that TLS did not verify must never be turned into one of these.

use std::fmt;
use std::net::IpAddr;

use portcullis_model::Timestamp;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// Longest subject alternative name that is read, in bytes.
const MAX_NAME_BYTES: usize = 512;

/// A subject alternative name (RFC 5280 section 4.2.1.6) of a kind that can name a caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SanName {
    /// A DNS name, in lower case.
    Dns(String),
    /// A URI as written, such as a SPIFFE id.
    Uri(String),
    /// An e-mail address; the part after `@` in lower case.
    Email(String),
    /// An IP address.
    Ip(IpAddr),
}

impl fmt::Display for SanName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::Uri(uri) => write!(f, "uri:{uri}"),
            Self::Email(address) => write!(f, "email:{address}"),
            Self::Ip(address) => write!(f, "ip:{address}"),
        }
    }
}

/// A certificate that cannot be used to name a caller. The client's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not one DER certificate.
    #[error("the client certificate is not one certificate in DER")]
    Unreadable,
    /// A name that is empty, too long, not visible ASCII, or the extension is there twice.
    #[error("the subject alternative names of the client certificate cannot be read")]
    Names,
}

/// A client certificate that TLS verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its names, in the order of the certificate. Kinds that cannot name a caller are left out.
    pub subject_alternative_names: Vec<SanName>,
    /// Last instant at which it is valid. TLS looked at the handshake; a connection may live longer.
    pub not_after: Timestamp,
    /// SHA-256 of the whole certificate, for the audit record.
    pub fingerprint_sha256: [u8; 32],
}

impl ClientCertificate {
    /// Reads the end-entity certificate of a verified chain.
    ///
    /// # Errors
    /// Anything that is not exactly one certificate, or names that two readers could understand differently.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| CertificateError::Unreadable)?;
        if !rest.is_empty() {
            return Err(CertificateError::Unreadable);
        }
        let extension = certificate.subject_alternative_name().map_err(|_| CertificateError::Names)?;
        let mut names = Vec::new();
        for name in extension.iter().flat_map(|found| &found.value.general_names) {
            names.extend(read(name)?);
        }
        let not_after = Timestamp::from_nanos(certificate.validity().not_after.timestamp().saturating_mul(1_000_000_000));
        Ok(Self { subject_alternative_names: names, not_after, fingerprint_sha256: Sha256::digest(der).into() })
    }

    /// The fingerprint in lower-case hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        use std::fmt::Write as _;
        self.fingerprint_sha256.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

fn visible(text: &str) -> Result<&str, CertificateError> {
    let fits = (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    fits.then_some(text).ok_or(CertificateError::Names)
}

fn read(name: &GeneralName<'_>) -> Result<Option<SanName>, CertificateError> {
    Ok(match name {
        GeneralName::DNSName(name) => Some(SanName::Dns(visible(name)?.to_ascii_lowercase())),
        GeneralName::URI(uri) => Some(SanName::Uri(visible(uri)?.to_owned())),
        GeneralName::RFC822Name(address) => Some(SanName::Email(mailbox(visible(address)?).ok_or(CertificateError::Names)?)),
        GeneralName::IPAddress(bytes) => Some(SanName::Ip(address(bytes).ok_or(CertificateError::Names)?)),
        GeneralName::Invalid(..) => return Err(CertificateError::Names),
        _ => None,
    })
}

/// An address with its host in lower case: RFC 5321 section 2.4 leaves only the local part case-sensitive.
pub(crate) fn mailbox(address: &str) -> Option<String> {
    let (local, host) = address.split_once('@')?;
    (!local.is_empty() && !host.is_empty() && !host.contains('@')).then(|| format!("{local}@{}", host.to_ascii_lowercase()))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(address.to_canonical())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    /// A self-signed certificate with these names, DER.
    pub(crate) fn der(names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn names_are_read_by_kind_and_brought_into_one_form() {
        let der = der(vec![
            SanType::DnsName("Agent.Example.COM".try_into().unwrap()),
            SanType::URI("spiffe://mesh.example/ns/Shop/sa/agent".try_into().unwrap()),
            SanType::Rfc822Name("Ana@Example.COM".try_into().unwrap()),
            SanType::IpAddress("::ffff:192.0.2.7".parse().unwrap()),
        ]);
        let certificate = ClientCertificate::from_der(&der).unwrap();
        assert_eq!(
            certificate.subject_alternative_names,
            [
                SanName::Dns("agent.example.com".into()),
                SanName::Uri("spiffe://mesh.example/ns/Shop/sa/agent".into()),
                SanName::Email("Ana@example.com".into()),
                SanName::Ip("192.0.2.7".parse().unwrap()),
            ]
        );
        assert_eq!(certificate.fingerprint().len(), 64);
        assert_eq!(certificate.fingerprint_sha256, <[u8; 32]>::from(Sha256::digest(&der)));
    }

    #[test]
    fn what_is_not_one_clean_certificate_is_refused() {
        let good = der(vec![]);
        assert!(ClientCertificate::from_der(&good).unwrap().subject_alternative_names.is_empty());
        let longer = [good.as_slice(), b"\0"].concat();
        for wrong in [&[][..], b"-----BEGIN CERTIFICATE-----", &good[..good.len() - 1], &longer] {
            assert_eq!(ClientCertificate::from_der(wrong), Err(CertificateError::Unreadable));
        }
        let space = der(vec![SanType::URI("spiffe://a b".try_into().unwrap())]);
        assert_eq!(ClientCertificate::from_der(&space), Err(CertificateError::Names));
        let nobody = der(vec![SanType::Rfc822Name("nobody".try_into().unwrap())]);
        assert_eq!(ClientCertificate::from_der(&nobody), Err(CertificateError::Names));
    }
}
