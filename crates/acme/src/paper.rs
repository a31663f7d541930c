//! A certificate as it was issued, or as it was kept. Guards that what cannot be used never takes the place of what can.

use portcullis_model::Timestamp;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Most certificates in a chain.
const MOST: usize = 10;

/// What a chain says about its first certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paper {
    /// Names, in lower case.
    pub(crate) names: Vec<String>,
    /// First instant of the certificate.
    pub(crate) begins: Timestamp,
    /// Last instant of the first that ends, of the certificate and those it is shown with.
    pub(crate) ends: Timestamp,
    /// The public key, as it stands in the certificate.
    pub(crate) public_key: Vec<u8>,
    /// Digest of the certificate, for what shall differ from one to the next.
    pub(crate) digest: [u8; 32],
}

impl Paper {
    /// Reads a chain in PEM form; keys in the same text are passed over.
    pub(crate) fn read(pem: &[u8]) -> Result<Self, String> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
            .take(MOST + 1)
            .collect::<Result<_, _>>()
            .map_err(|e| format!("it is not PEM: {e}"))?;
        if chain.len() > MOST {
            return Err(format!("it is a chain of more than {MOST} certificates"));
        }
        let mut papers = chain.iter().map(Self::one);
        let mut first = papers.next().ok_or("there is no certificate in it")??;
        for further in papers {
            first.ends = first.ends.min(further?.ends);
        }
        Ok(first)
    }

    fn one(der: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| "a certificate in it cannot be read")?;
        let names = parsed.subject_alternative_name().map_err(|_| "its names cannot be read")?;
        let names = names.map(|extension| extension.value.general_names.iter()).into_iter().flatten();
        let validity = parsed.validity();
        Ok(Self {
            names: names
                .filter_map(|name| match name {
                    GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                    _ => None,
                })
                .collect(),
            begins: Timestamp::from_seconds(validity.not_before.timestamp()),
            ends: Timestamp::from_seconds(validity.not_after.timestamp()),
            public_key: parsed.public_key().subject_public_key.data.to_vec(),
            digest: *blake3::hash(der).as_bytes(),
        })
    }

    /// Whether it can be shown now, for all these names.
    pub(crate) fn check(&self, domains: &[String], now: Timestamp) -> Result<(), String> {
        if now > self.ends {
            return Err(format!("it ended {}", self.ends));
        }
        if now < self.begins {
            return Err(format!("it begins only {}; is the clock of this machine right?", self.begins));
        }
        match domains.iter().find(|domain| !self.names.contains(domain)) {
            Some(domain) => Err(format!("it is not for {domain}")),
            None => Ok(()),
        }
    }

    /// In 0..1, different from one certificate to the next and the same for everybody who looks at this one.
    pub(crate) fn spread(&self) -> f64 {
        f64::from(u16::from_be_bytes([self.digest[0], self.digest[1]])) / f64::from(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    fn made(names: &[&str], from: i32, to: i32) -> (String, KeyPair) {
        let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key)
    }

    #[test]
    fn names_times_and_the_key_are_read() {
        let (pem, key) = made(&["a.example", "B.example"], 2020, 2040);
        let (shorter, _) = made(&["authority"], 2020, 2030);
        let paper = Paper::read(format!("{}{pem}{shorter}", key.serialize_pem()).as_bytes()).unwrap();
        assert_eq!(paper.names, ["a.example", "b.example"]);
        assert_eq!(paper.public_key, key.public_key_raw());
        assert_eq!(paper.ends.to_string(), "2030-01-01T00:00:00Z");
        let at = |year: i64| Timestamp::from_seconds((year - 1970) * 31_556_952);
        let domains = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(paper.check(&domains(&["b.example"]), at(2025)), Ok(()));
        assert!(paper.check(&domains(&["c.example"]), at(2025)).unwrap_err().contains("not for c.example"));
        assert!(paper.check(&[], at(2035)).unwrap_err().contains("it ended"));
        assert!(paper.check(&[], at(2010)).unwrap_err().contains("begins only"));
        assert!((0.0..=1.0).contains(&paper.spread()));
    }

    #[test]
    fn what_is_no_chain_is_refused() {
        for wrong in
            ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\n"]
        {
            assert!(Paper::read(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
        let (pem, _) = made(&["a.example"], 2020, 2040);
        assert!(Paper::read(pem.repeat(11).as_bytes()).unwrap_err().contains("more than 10"));
    }
}
