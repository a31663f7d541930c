//! Files that cannot be used are named with the mend, and never come into force.

use std::sync::Arc;
use std::time::Duration;

use portcullis_config::{ClientCertificates, TlsSettings};
use portcullis_model::{ManualClock, Timestamp, parse_instant};
use portcullis_wire::{Certificates, Protocol, Refreshed};

use crate::paper::{Desk, authority, load, set_mode};

fn refusal(settings: TlsSettings) -> String {
    load(settings).expect_err("must be refused").to_string()
}

#[test]
fn what_is_missing_or_something_else_is_named() {
    let authority = authority();
    let paper = authority.server();
    let desk = Desk::new(&paper);
    assert!(load(desk.settings()).is_ok());
    let absent = TlsSettings { certificate: Some(desk.path("absent.pem")), ..desk.settings() };
    assert!(refusal(absent).contains("absent.pem: cannot be read"));
    let swapped = TlsSettings { certificate: Some(desk.path("server.key")), ..desk.settings() };
    let text = refusal(swapped);
    assert!(text.contains("holds no certificate (CERTIFICATE), but PRIVATE KEY"), "{text}");
    let both = TlsSettings { key: Some(desk.path("server.pem")), ..desk.settings() };
    let text = refusal(both);
    assert!(text.contains("holds no private key") && text.contains("but CERTIFICATE"), "{text}");
    let empty = TlsSettings { certificate: Some(desk.write("empty.pem", "hello")), ..desk.settings() };
    assert!(refusal(empty).contains("nothing in PEM form"));
    let locked = desk.write("locked.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let text = refusal(TlsSettings { key: Some(locked), ..desk.settings() });
    assert!(text.contains("ENCRYPTED PRIVATE KEY") && text.contains("store it decrypted"), "{text}");
    let torn = desk.write("torn.pem", &paper.certificate[..paper.certificate.len() / 2]);
    assert!(refusal(TlsSettings { certificate: Some(torn), ..desk.settings() }).contains("torn.pem"));
    let two = desk.write("two.key", &format!("{}{}", paper.key, authority.server().key));
    assert!(refusal(TlsSettings { key: Some(two), ..desk.settings() }).contains("several private keys"));
}

#[test]
fn a_key_of_another_certificate_and_one_open_to_everybody_are_refused() {
    let authority = authority();
    let desk = Desk::new(&authority.server());
    let foreign = desk.write("foreign.key", &authority.server().key);
    let text = refusal(TlsSettings { key: Some(foreign), ..desk.settings() });
    assert!(text.contains("foreign.key: is not the private key of the certificate in") && text.contains("server.pem"), "{text}");
    set_mode(&desk.path("server.key"), 0o644);
    let text = refusal(desk.settings());
    assert!(text.contains("mode 0644") && text.contains("chmod o-r"), "{text}");
    set_mode(&desk.path("server.key"), 0o640);
    assert!(load(desk.settings()).is_ok(), "a group may read it: that is how orchestrators mount secrets");
}

#[test]
fn certificates_out_of_their_time_are_refused() {
    let authority = authority();
    let desk = Desk::new(&authority.server_of_years(2020, 2021));
    let text = refusal(desk.settings());
    assert!(text.contains("the certificate ended 2021-01-01"), "{text}");
    desk.lay(&authority.server_of_years(2190, 2191));
    let text = refusal(desk.settings());
    assert!(text.contains("the certificate begins only 2190-01-01"), "{text}");
}

#[test]
fn contradictions_are_refused() {
    let authority = authority();
    let desk = Desk::new(&authority.server());
    let unasked = desk.asking(&authority, ClientCertificates::None);
    assert!(refusal(unasked).contains("set client_certificates to optional or required"));
    let unknown = TlsSettings { client_certificates: ClientCertificates::Required, ..desk.settings() };
    assert!(refusal(unknown).contains("needs client_ca"));
    let lists = TlsSettings { client_revocations: Some(desk.path("lists.pem")), ..desk.settings() };
    assert!(refusal(lists).contains("client_revocations needs client_ca"));
}

#[test]
fn the_end_is_announced_three_weeks_before() {
    let desk = Desk::new(&authority().server_of_years(2024, 2030));
    let at = |text: &str| parse_instant(text, Timestamp::from_seconds(0)).unwrap();
    let clock = ManualClock::new(at("2029-12-01T00:00:00Z"));
    let certificates = Certificates::load(desk.settings(), Protocol::Http1, Arc::new(clock.clone())).unwrap();
    assert_eq!(certificates.expires_at(), Some(at("2030-01-01T00:00:00Z")));
    assert_eq!(certificates.ends_soon(), None);
    clock.advance(Duration::from_hours(11 * 24));
    assert_eq!(certificates.ends_soon().unwrap().left, Duration::from_hours(20 * 24));
    clock.advance(Duration::from_hours(100 * 24));
    assert_eq!(certificates.ends_soon().unwrap().left, Duration::ZERO);
}

#[test]
fn a_bad_new_file_leaves_the_last_good_one_in_force() {
    let authority = authority();
    let desk = Desk::new(&authority.server_of_years(2024, 2090));
    let certificates = load(desk.settings()).unwrap();
    let first = certificates.expires_at();
    assert_eq!(certificates.refresh(), Refreshed::Unchanged);
    let next = authority.server_of_years(2024, 2091);
    desk.write("server.pem", &next.certificate);
    let Refreshed::Kept(reason) = certificates.refresh() else { panic!("a certificate without its key was taken over") };
    assert!(reason.contains("is not the private key"), "{reason}");
    assert_eq!(certificates.refused().as_deref(), Some(reason.as_str()));
    assert_eq!(certificates.expires_at(), first);
    assert_eq!(certificates.refresh(), Refreshed::Unchanged, "said once");
    desk.write("server.key", &next.key);
    assert_eq!(certificates.refresh(), Refreshed::Replaced);
    assert_ne!(certificates.expires_at(), first);
    assert_eq!(certificates.refused(), None);
    std::fs::remove_file(desk.path("server.key")).unwrap();
    assert!(matches!(certificates.refresh(), Refreshed::Kept(reason) if reason.contains("cannot be read")));
}
