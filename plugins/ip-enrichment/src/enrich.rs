//! One answer about several addresses. Guards that only public addresses leave, that there are few requests, and that what was
//! not found, what failed and what was not asked stay three things.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::portcullis::plugin::http::{Failure, Request, Response};
use crate::portcullis::plugin::types::Pair;
use crate::settings::{Rdap, Settings};
use crate::{dns, rdap, registry};

/// Most addresses of one call.
pub(crate) const MOST_ADDRESSES: usize = 10;
/// Milliseconds that must be left to begin another request.
const ENOUGH_TIME: u32 = 1_500;
const DAY: u32 = 86_400;

/// The way out and what is kept: the host, or a double in tests.
pub(crate) trait Door {
    fn send(&self, request: &Request) -> Result<Response, Failure>;
    fn kept(&self, key: &str) -> Option<Vec<u8>>;
    fn keep(&self, key: &str, value: &[u8], seconds: u32);
    /// Milliseconds.
    fn time_left(&self) -> u32;
}

/// How a question to somebody else ended.
enum Found {
    /// There is something.
    This(Value),
    /// There is nothing, and that is the answer.
    Nothing,
    /// A sentence.
    Failed(String),
}

/// Reads an address as people write it.
///
/// # Errors
/// What is wrong with it and what would be right.
pub(crate) fn address(text: &str) -> Result<IpAddr, String> {
    let trimmed = text.trim();
    let bare = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(trimmed);
    let bare = bare.split_once('%').map_or(bare, |(address, _zone)| address);
    bare.parse().map_err(|_| {
        let shown: String = trimmed.chars().filter(|c| !c.is_control()).take(60).collect();
        let hint = if trimmed.contains('/') {
            "; give single addresses, no networks"
        } else if trimmed.matches(':').count() == 1 {
            "; leave the port out"
        } else {
            ""
        };
        format!("'{shown}' is no IPv4 or IPv6 address{hint}")
    })
}

/// Answers for `addresses`, in their order.
pub(crate) fn enrich(door: &dyn Door, settings: &Settings, addresses: &[IpAddr], look_up: bool) -> Value {
    let asks = Asks { door, settings };
    let mut results: Vec<Value> = Vec::new();
    for (at, address) in addresses.iter().enumerate() {
        if let Some(first) = addresses[..at].iter().position(|earlier| earlier == address) {
            results.push(json!({"position": at, "address": address.to_string(), "same_as": first}));
            continue;
        }
        results.push(asks.one(at, *address, look_up));
    }
    let mut asked = Vec::new();
    if look_up {
        asked.extend(settings.dns.as_ref().map(|_| "dns"));
        asked.extend((settings.rdap != Rdap::Off).then_some("rdap"));
    }
    let note = match (look_up, asked.is_empty()) {
        (false, _) => "nothing outside was asked, as wanted",
        (true, true) => "nothing outside was asked: the operator configured neither dns nor rdap",
        (true, false) => "countries are those of the registration, not of the machine",
    };
    json!({"results": results, "asked": asked, "note": note})
}

struct Asks<'a> {
    door: &'a dyn Door,
    settings: &'a Settings,
}

impl Asks<'_> {
    fn one(&self, position: usize, address: IpAddr, look_up: bool) -> Value {
        let kind = registry::classify(address);
        let mut out = Map::new();
        out.insert("position".into(), json!(position));
        out.insert("address".into(), json!(address.to_string()));
        out.insert("version".into(), json!(if address.is_ipv4() { 4 } else { 6 }));
        out.insert("class".into(), json!(kind.class));
        out.insert("name".into(), json!(kind.name));
        if let Some((first, length)) = kind.block {
            out.insert("block".into(), json!(format!("{first}/{length}")));
        }
        out.insert("reference".into(), json!(kind.reference));
        out.insert("globally_reachable".into(), json!(kind.reachable));
        let mut subject = kind.is_public().then_some(address);
        if let Some((inner, how)) = registry::embedded(address) {
            let inner_kind = registry::classify(inner.into());
            out.insert(
                "embedded".into(),
                json!({"address": inner.to_string(), "how": how, "class": inner_kind.class, "name": inner_kind.name}),
            );
            subject = inner_kind.is_public().then_some(inner.into());
        }
        if let Some(subject) = subject.filter(|_| look_up) {
            self.ask(subject, &mut out);
        }
        Value::Object(out)
    }

    /// Asks everybody who is configured about a public address.
    fn ask(&self, address: IpAddr, out: &mut Map<String, Value>) {
        let (mut nothing, mut failed) = (Vec::new(), Vec::new());
        let mut settle = |what: &str, found: Found| match found {
            Found::This(value) => drop(out.insert(what.to_owned(), value)),
            Found::Nothing => nothing.push(what.to_owned()),
            Found::Failed(why) => failed.push(json!({"what": what, "why": why})),
        };
        if self.settings.dns.is_some() {
            settle("origin", self.origin(address));
            settle("reverse", self.reverse(address));
        }
        if self.settings.rdap != Rdap::Off {
            settle("network", self.network(address));
        }
        if !nothing.is_empty() {
            out.insert("not_found".into(), json!(nothing));
        }
        if !failed.is_empty() {
            out.insert("failed".into(), json!(failed));
        }
    }

    /// Sends a request unless the time is over; a success is JSON or bytes of this media type.
    fn send(&self, request: &Request) -> Result<Option<Vec<u8>>, String> {
        if self.door.time_left() < ENOUGH_TIME {
            return Err("there was no time left to ask; ask again with fewer addresses".to_owned());
        }
        let response = self.door.send(request).map_err(|failure| match failure {
            Failure::Undeclared(_) | Failure::Refused(_) => "the operator does not grant this address".to_owned(),
            Failure::TimedOut => "no answer in time".to_owned(),
            Failure::TooLarge(_) => "the answer is too large".to_owned(),
            Failure::Redirect(_) => "it points to another server, which is not followed".to_owned(),
            Failure::Unreachable(_) => "it cannot be reached".to_owned(),
            Failure::Invalid(_) => "the configured address cannot be used".to_owned(),
        })?;
        match response.status {
            200..300 => Ok(Some(response.body)),
            404 => Ok(None),
            429 => {
                let after = response.headers.iter().find(|pair| pair.name.eq_ignore_ascii_case("retry-after"));
                let after = after.and_then(|pair| pair.value.trim().parse::<u32>().ok());
                Err(after.map_or_else(
                    || "it is asked too often; try later".to_owned(),
                    |seconds| format!("it is asked too often; try again in {seconds} seconds"),
                ))
            }
            status => Err(format!("it answered with status {status}")),
        }
    }

    /// A value that was kept, or a new one.
    fn kept_or(&self, key: &str, make: impl FnOnce() -> Result<(Option<Value>, u32), String>) -> Found {
        let found = |value: Option<Value>| value.map_or(Found::Nothing, Found::This);
        let kept = self.door.kept(key).and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        if let Some(value) = kept {
            return found(Some(value).filter(|value| !value.is_null()));
        }
        match make() {
            Ok((value, seconds)) => {
                let text = value.as_ref().unwrap_or(&Value::Null).to_string();
                self.door.keep(key, text.as_bytes(), seconds.clamp(60, DAY));
                found(value)
            }
            Err(why) => Found::Failed(why),
        }
    }

    fn resolve(&self, name: &str, kind: u16) -> Result<dns::Answer, String> {
        let url = self.settings.dns.clone().unwrap_or_default();
        let media = "application/dns-message".to_owned();
        let request = Request {
            method: "POST".into(),
            url,
            headers: vec![
                Pair { name: "Accept".into(), value: media.clone() },
                Pair { name: "Content-Type".into(), value: media },
            ],
            body: Some(dns::question(name, kind)),
            credentials: Vec::new(),
            idempotent: true,
            timeout_ms: Some(4_000),
        };
        let body = self.send(&request)?.ok_or("the configured address is no resolver")?;
        dns::read(&body, kind)
    }

    /// The autonomous system, as Team Cymru publishes it: `AS | prefix | country | registry | date`.
    fn origin(&self, address: IpAddr) -> Found {
        self.kept_or(&format!("origin {address}"), || {
            let answer = self.resolve(&dns::reversed(address, "origin.asn.cymru.com", "origin6.asn.cymru.com"), dns::TXT)?;
            let mut best: Option<(Vec<u32>, Vec<String>)> = None;
            for text in &answer.values {
                let fields: Vec<String> = text.split('|').map(|field| field.trim().to_owned()).collect();
                let systems: Vec<u32> = fields[0].split_whitespace().filter_map(|number| number.parse().ok()).collect();
                let length = |fields: &[String]| fields.get(1).and_then(|p| p.split_once('/')?.1.parse::<u8>().ok()).unwrap_or(0);
                if !systems.is_empty() && best.as_ref().is_none_or(|(_, known)| length(known) < length(&fields)) {
                    best = Some((systems, fields));
                }
            }
            let Some((systems, fields)) = best else { return Ok((None, answer.seconds)) };
            let mut origin = Map::new();
            origin.insert("asn".into(), json!(systems));
            for (at, name) in [(1, "prefix"), (2, "country"), (3, "registry"), (4, "allocated")] {
                if let Some(field) = fields.get(at).filter(|field| !field.is_empty()) {
                    origin.insert(name.into(), json!(field.chars().take(60).collect::<String>()));
                }
            }
            let mut seconds = answer.seconds;
            match self.system(systems[0]) {
                Found::This(name) => drop(origin.insert("as_name".into(), name)),
                Found::Nothing => {}
                Found::Failed(why) => {
                    origin.insert("as_name_failed".into(), json!(why));
                    seconds = 0;
                }
            }
            Ok((Some(Value::Object(origin)), seconds))
        })
    }

    /// Name of an autonomous system: `AS | country | registry | date | name`.
    fn system(&self, number: u32) -> Found {
        self.kept_or(&format!("as {number}"), || {
            let answer = self.resolve(&format!("AS{number}.asn.cymru.com"), dns::TXT)?;
            let name = answer.values.first().and_then(|text| text.splitn(5, '|').nth(4)).map(|name| name.trim());
            let name = name.filter(|name| !name.is_empty()).map(|name| json!(name.chars().take(120).collect::<String>()));
            Ok((name, answer.seconds))
        })
    }

    fn reverse(&self, address: IpAddr) -> Found {
        self.kept_or(&format!("reverse {address}"), || {
            let mut answer = self.resolve(&dns::reversed(address, "in-addr.arpa", "ip6.arpa"), dns::PTR)?;
            answer.values.retain(|name| !name.is_empty());
            answer.values.truncate(5);
            Ok(((!answer.values.is_empty()).then(|| json!(answer.values)), answer.seconds))
        })
    }

    fn get(&self, url: String, media: &str) -> Result<Option<Value>, String> {
        let request = Request {
            method: "GET".into(),
            url,
            headers: vec![Pair { name: "Accept".into(), value: media.into() }],
            body: None,
            credentials: Vec::new(),
            idempotent: true,
            timeout_ms: Some(6_000),
        };
        let Some(body) = self.send(&request)? else { return Ok(None) };
        serde_json::from_slice(&body).map(Some).map_err(|_| "its answer is no JSON".to_owned())
    }

    fn network(&self, address: IpAddr) -> Found {
        self.kept_or(&format!("rdap {address}"), || {
            let base = match &self.settings.rdap {
                Rdap::Off => return Ok((None, DAY)),
                Rdap::At(base) => base.clone(),
                Rdap::Bootstrap => {
                    let file = if address.is_ipv4() { "ipv4" } else { "ipv6" };
                    let url = format!("https://data.iana.org/rdap/{file}.json");
                    let bootstrap = match self.kept_or(&url, || Ok((self.get(url.clone(), "application/json")?, DAY))) {
                        Found::This(bootstrap) => bootstrap,
                        Found::Nothing => return Err("IANA has no list of registries".to_owned()),
                        Found::Failed(why) => return Err(format!("IANA's list of registries: {why}")),
                    };
                    let Some(base) = rdap::base(&bootstrap, address) else { return Ok((None, DAY)) };
                    base
                }
            };
            let answer = self.get(format!("{base}/ip/{address}"), "application/rdap+json")?;
            match answer {
                None => Ok((None, 3_600)),
                Some(answer) => {
                    rdap::network(&answer).map(|network| (Some(network), DAY)).ok_or("its answer is no network".to_owned())
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
