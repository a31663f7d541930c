//! Against a double that answers like a resolver (RFC 8484) and a registry (RFC 9083).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use super::*;
use crate::dns::tests::{answer, texts};

struct Double {
    asked: RefCell<Vec<String>>,
    kept: RefCell<BTreeMap<String, Vec<u8>>>,
    time: Cell<u32>,
    status: u16,
}

impl Double {
    fn new() -> Self {
        Self { asked: RefCell::default(), kept: RefCell::default(), time: Cell::new(10_000), status: 200 }
    }
}

impl Door for Double {
    fn send(&self, request: &Request) -> Result<Response, Failure> {
        let respond =
            |status, body| Ok(Response { status, headers: vec![Pair { name: "Retry-After".into(), value: "30".into() }], body });
        if self.status != 200 {
            self.asked.borrow_mut().push(request.url.clone());
            return respond(self.status, Vec::new());
        }
        let Some(body) = &request.body else {
            self.asked.borrow_mut().push(request.url.clone());
            return match request.url.as_str() {
                "https://data.iana.org/rdap/ipv4.json" => {
                    respond(200, br#"{"services": [[["8.0.0.0/8"], ["https://rdap.arin.net/registry/"]]]}"#.to_vec())
                }
                "https://rdap.arin.net/registry/ip/8.8.8.8" => respond(
                    200,
                    br#"{"objectClassName": "ip network", "name": "GOGL", "country": "US", "handle": "NET-8-8-8-0-2"}"#.to_vec(),
                ),
                _ => respond(404, Vec::new()),
            };
        };
        let mut name = String::new();
        let mut at = 12;
        while body[at] != 0 {
            let end = at + 1 + usize::from(body[at]);
            name.push_str(std::str::from_utf8(&body[at + 1..end]).unwrap());
            name.push('.');
            at = end;
        }
        self.asked.borrow_mut().push(name.clone());
        let records = match name.as_str() {
            "8.8.8.8.origin.asn.cymru.com." => vec![
                (dns::TXT, 60, texts("3356 | 8.0.0.0/9 | US | arin | 1992-12-01")),
                (dns::TXT, 60, texts("15169 | 8.8.8.0/24 | US | arin | 2023-12-28")),
            ],
            "AS15169.asn.cymru.com." => vec![(dns::TXT, 60, texts("15169 | US | arin | 2000-03-30 | GOOGLE - Google LLC, US"))],
            "8.8.8.8.in-addr.arpa." => vec![(dns::PTR, 60, b"\x03dns\x06google\x00".to_vec())],
            _ => vec![],
        };
        respond(200, answer(body, &records))
    }
    fn kept(&self, key: &str) -> Option<Vec<u8>> {
        self.kept.borrow().get(key).cloned()
    }
    fn keep(&self, key: &str, value: &[u8], seconds: u32) {
        assert!((60..=DAY).contains(&seconds));
        self.kept.borrow_mut().insert(key.to_owned(), value.to_vec());
    }
    fn time_left(&self) -> u32 {
        self.time.get()
    }
}

fn both() -> Settings {
    Settings::read(r#"{"dns": "https://dns.google/dns-query", "rdap": "bootstrap"}"#).unwrap()
}

fn parsed(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| address(text).unwrap()).collect()
}

#[test]
fn a_public_address_is_looked_up_once_and_then_remembered() {
    let double = Double::new();
    let said = enrich(&double, &both(), &parsed(&["8.8.8.8"]), true);
    let one = &said["results"][0];
    assert_eq!(
        (&one["class"], &one["origin"]["asn"], &one["origin"]["prefix"]),
        (&json!("public"), &json!([15169]), &json!("8.8.8.0/24"))
    );
    assert_eq!((&one["origin"]["as_name"], &one["reverse"]), (&json!("GOOGLE - Google LLC, US"), &json!(["dns.google"])));
    assert_eq!((&one["network"]["name"], &one["network"]["country"]), (&json!("GOGL"), &json!("US")));
    let requests = double.asked.borrow().len();
    assert_eq!(requests, 5);
    assert_eq!(enrich(&double, &both(), &parsed(&["8.8.8.8"]), true), said);
    assert_eq!(double.asked.borrow().len(), requests, "the second time nothing is asked");
}

#[test]
fn what_is_not_public_never_leaves() {
    let double = Double::new();
    let addresses = parsed(&[
        "10.0.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "::1",
        "fd00::1",
        "::ffff:192.168.1.1",
        "fe80::1%eth0",
        "203.0.113.7",
        "64:ff9b::10.0.0.1",
    ]);
    let said = enrich(&double, &both(), &addresses, true);
    assert!(double.asked.borrow().is_empty(), "{:?}", double.asked.borrow());
    let classes: Vec<&str> = said["results"].as_array().unwrap().iter().map(|one| one["class"].as_str().unwrap()).collect();
    assert_eq!(
        classes,
        ["private", "loopback", "link-local", "loopback", "private", "mapped", "link-local", "documentation", "translated"]
    );
    assert_eq!(
        said["results"][5]["embedded"],
        json!({"address": "192.168.1.1", "how": "mapped", "class": "private", "name": "Private-Use"})
    );
}

#[test]
fn a_mapped_public_address_is_looked_up_as_what_it_is() {
    let double = Double::new();
    let said = enrich(&double, &both(), &parsed(&["::ffff:8.8.8.8", "8.8.8.8", "::ffff:8.8.8.8"]), true);
    assert_eq!(said["results"][0]["origin"]["asn"], json!([15169]));
    assert_eq!(said["results"][2]["same_as"], 0);
    assert_eq!(double.asked.borrow().len(), 5, "the second is known from the first");
}

#[test]
fn not_found_and_failed_and_not_asked_are_three_things() {
    let double = Double::new();
    let unknown = enrich(&double, &both(), &parsed(&["9.9.9.9"]), true);
    assert_eq!(unknown["results"][0]["not_found"], json!(["origin", "reverse", "network"]));
    assert_eq!(unknown["results"][0].get("failed"), None);
    let busy = Double { status: 429, ..Double::new() };
    let failed = enrich(&busy, &both(), &parsed(&["8.8.8.8"]), true);
    let why = failed["results"][0]["failed"].to_string();
    assert!(why.matches("in 30 seconds").count() == 3 && failed["results"][0].get("not_found").is_none(), "{why}");
    assert!(busy.kept.borrow().is_empty(), "failures are not remembered");
    let late = Double::new();
    late.time.set(100);
    let said = enrich(&late, &both(), &parsed(&["8.8.8.8"]), true);
    assert!(said["results"][0]["failed"].to_string().contains("no time left") && late.asked.borrow().is_empty());
    let quiet = Double::new();
    let said = enrich(&quiet, &both(), &parsed(&["8.8.8.8"]), false);
    assert!(quiet.asked.borrow().is_empty() && said["note"].to_string().contains("as wanted"));
    let none = enrich(&quiet, &Settings::default(), &parsed(&["8.8.8.8"]), true);
    assert!(quiet.asked.borrow().is_empty() && none["note"].to_string().contains("neither dns nor rdap"));
}

#[test]
fn what_is_no_address_is_named_with_a_way_out() {
    for (text, says) in [
        ("10.0.0.0/8", "no networks"),
        ("1.2.3.4:80", "leave the port out"),
        ("example.com", "no IPv4"),
        ("010.1.1.1", "no IPv4"),
        ("", "''"),
    ] {
        let why = address(text).unwrap_err();
        assert!(why.contains(says), "{text}: {why}");
    }
    assert_eq!(address(" [2001:db8::1] ").unwrap(), "2001:db8::1".parse::<IpAddr>().unwrap());
}
