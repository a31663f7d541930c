//! Certificates made for a test, and the directory they lie in.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use portcullis_config::{ClientCertificates, TlsSettings};
use portcullis_model::SystemClock;
use portcullis_wire::{Certificates, Protocol, TlsError};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

pub(crate) struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

pub(crate) struct Paper {
    pub certificate: String,
    pub key: String,
}

pub(crate) fn authority() -> Authority {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    // Authorities are told apart by their names.
    let name = format!("authority {}", MADE.fetch_add(1, Ordering::Relaxed));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Authority { pem, issuer: Issuer::new(params, key) }
}

impl Authority {
    fn issue(&self, params: &CertificateParams) -> Paper {
        let key = KeyPair::generate().unwrap();
        Paper { certificate: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    pub(crate) fn server(&self) -> Paper {
        self.issue(&params("localhost", ExtendedKeyUsagePurpose::ServerAuth))
    }

    pub(crate) fn server_of_years(&self, from: i32, to: i32) -> Paper {
        let mut params = params("localhost", ExtendedKeyUsagePurpose::ServerAuth);
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        self.issue(&params)
    }

    pub(crate) fn client(&self, serial: u64) -> Paper {
        let mut params = params("agent.example", ExtendedKeyUsagePurpose::ClientAuth);
        params.serial_number = Some(SerialNumber::from(serial));
        self.issue(&params)
    }

    pub(crate) fn revocations(&self, serials: &[u64], next_update: i32) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(next_update, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn params(name: &str, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.extended_key_usages = vec![usage];
    params
}

/// A directory with the files of a listener.
pub(crate) struct Desk {
    directory: tempfile::TempDir,
}

impl Desk {
    pub(crate) fn new(paper: &Paper) -> Self {
        let desk = Self { directory: tempfile::tempdir().unwrap() };
        desk.lay(paper);
        desk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        set_mode(&path, 0o600);
        path
    }

    pub(crate) fn lay(&self, paper: &Paper) {
        self.write("server.pem", &paper.certificate);
        self.write("server.key", &paper.key);
    }

    pub(crate) fn settings(&self) -> TlsSettings {
        TlsSettings { certificate: Some(self.path("server.pem")), key: Some(self.path("server.key")), ..TlsSettings::default() }
    }

    pub(crate) fn asking(&self, clients: &Authority, how: ClientCertificates) -> TlsSettings {
        TlsSettings { client_ca: Some(self.write("clients.pem", &clients.pem)), client_certificates: how, ..self.settings() }
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn load(settings: TlsSettings) -> Result<Certificates, TlsError> {
    Certificates::load(settings, Protocol::Http1, Arc::new(SystemClock))
}
