//! The way out of a plugin. Guards the order of the checks: the manifest declares the origin, the operator grants it, and
//! only then egress opens a connection to an address it checked itself. Credentials are put in here, for the origins the
//! manifest binds them to, and never pass through the plugin.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Method;
use percent_encoding::percent_decode_str;
use portcullis_egress::{
    AddressPolicy, Authentication, Credential, Echoes, EgressClient, EgressConfig, EgressErrorKind, EgressRequest, SecretFault,
    SecretResolver, TlsOptions, origin_of,
};
use portcullis_policy::{Permit, Trail};
use url::Url;

use crate::bindings::portcullis::plugin::http::{Failure, Request, Response};
use crate::bindings::portcullis::plugin::types::Pair;
use crate::stdio::clean;
use crate::{Limits, Manifest, OriginPattern, PluginGrant, SecretPlace, SecretRequest};

/// Connections to different origins kept at once, for patterns with a wildcard.
const MOST_CLIENTS: usize = 16;
/// Largest request body.
pub(crate) const MOST_BODY: usize = 4 << 20;
/// Largest answer, where a plugin's memory holds more.
const MOST_ANSWER: u64 = 32 << 20;
/// Most headers of a request.
const MOST_HEADERS: usize = 64;

/// A secret the operator granted.
#[derive(Debug, Clone)]
struct GrantedSecret {
    credential: Credential,
    request: SecretRequest,
    read: bool,
}

/// What one plugin may reach, and the connections it has.
pub(crate) struct Outside {
    plugin: Arc<str>,
    declared: Vec<OriginPattern>,
    granted: Vec<OriginPattern>,
    requested: Vec<SecretRequest>,
    secrets: BTreeMap<String, GrantedSecret>,
    addresses: AddressPolicy,
    tls: TlsOptions,
    largest: u64,
    clients: Mutex<Vec<(String, EgressClient)>>,
}

/// A secret that a plugin may not have or that cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Withheld {
    Undeclared,
    Refused,
    Unavailable,
}

impl Outside {
    /// Nothing is opened and no secret is read.
    ///
    /// # Errors
    /// When a secret's reference names a store or an entry that is not configured.
    pub(crate) fn new(
        manifest: &Manifest,
        grant: &PluginGrant,
        limits: &Limits,
        secrets: &dyn SecretResolver,
    ) -> Result<Self, SecretFault> {
        let mut given = BTreeMap::new();
        for request in &manifest.permissions.secrets {
            let Some(grant) = grant.secrets.get(&request.name) else { continue };
            let credential = secrets.credential(&grant.value)?;
            let read = grant.read && request.read;
            given.insert(request.name.clone(), GrantedSecret { credential, request: request.clone(), read });
        }
        let tls = TlsOptions { ca_pem_file: grant.ca_file.clone(), ..TlsOptions::default() };
        Ok(Self {
            plugin: Arc::from(manifest.name.as_str()),
            declared: manifest.permissions.http.clone(),
            granted: grant.http.clone(),
            requested: manifest.permissions.secrets.clone(),
            secrets: given,
            addresses: AddressPolicy::new(grant.allow_addresses.iter().copied()),
            tls,
            largest: (limits.memory / 2).clamp(1, MOST_ANSWER),
            clients: Mutex::default(),
        })
    }

    /// What is declared and not granted, in words for the operator.
    pub(crate) fn not_granted(&self) -> Vec<String> {
        let open =
            |declared: &OriginPattern| self.granted.iter().any(|granted| granted.covers(declared) || declared.covers(granted));
        let origins = self.declared.iter().filter(|declared| !open(declared)).map(ToString::to_string);
        let secrets = self.requested.iter().filter(|secret| !self.secrets.contains_key(&secret.name));
        origins.chain(secrets.map(|secret| format!("secret {}", secret.name))).collect()
    }

    /// Leaves what a plugin was kept from in the record of the call, with as much of the reason as the plugin learns. What
    /// merely did not work is no refusal.
    fn keep_from(&self, trail: &Trail, what: &str, failure: Failure) -> Failure {
        let (Failure::Invalid(why) | Failure::Undeclared(why) | Failure::Refused(why) | Failure::Redirect(why)) = &failure else {
            return failure;
        };
        self.refuse(trail, what, why);
        failure
    }

    fn refuse(&self, trail: &Trail, what: &str, why: &str) {
        if trail.refused(&format!("{} {what}", self.plugin), why) {
            let (what, why) = (clean(what), clean(why));
            tracing::warn!(target: "portcullis::plugin", plugin = &*self.plugin, "kept from {what}: {why}");
        }
    }

    fn permits(&self, origin: &str) -> Result<(), Failure> {
        if !self.declared.iter().any(|pattern| pattern.matches(origin)) {
            return Err(Failure::Undeclared("the manifest does not declare this origin".to_owned()));
        }
        if !self.granted.iter().any(|pattern| pattern.matches(origin)) {
            return Err(Failure::Refused("the operator does not grant this origin".to_owned()));
        }
        Ok(())
    }

    fn client(&self, origin: &str) -> Result<EgressClient, Failure> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = clients.iter().position(|(known, _)| known == origin) {
            let used = clients.remove(at);
            let client = used.1.clone();
            clients.push(used);
            return Ok(client);
        }
        let mut config = EgressConfig::new(&*self.plugin, origin);
        config.addresses = self.addresses.clone();
        config.max_response_bytes = self.largest;
        if origin.starts_with("https://") {
            config.tls = self.tls.clone();
        }
        let client = EgressClient::new(config).map_err(|error| {
            tracing::warn!(target: "portcullis::plugin", plugin = &*self.plugin, "{error}");
            Failure::Refused("the operator's settings do not let this address be reached".to_owned())
        })?;
        if clients.len() >= MOST_CLIENTS {
            clients.remove(0);
        }
        clients.push((origin.to_owned(), client.clone()));
        Ok(client)
    }

    /// The origin of a request that is only planned, and its address as it would be sent.
    pub(crate) fn planned(&self, request: &Request) -> Result<String, Failure> {
        let (origin, _) = prepare(request)?;
        self.permits(&origin)?;
        Ok(Url::parse(&request.url).map_or_else(|_| request.url.clone(), |url| url.to_string()))
    }

    /// Sends a request on behalf of the call whose trail it is. The record names the host when there was, or may have been, a
    /// connection; what was refused before or on the way is in the record as that.
    pub(crate) async fn send(&self, permit: &Permit, trail: &Trail, request: Request) -> Result<Response, Failure> {
        let (origin, mut outgoing) = prepare(&request).map_err(|failure| self.keep_from(trail, "a request", failure))?;
        let host = format!("host:{origin}");
        let kept = |failure| self.keep_from(trail, &host, failure);
        self.permits(&origin).map_err(kept)?;
        let mut shown = Vec::new();
        for name in &request.credentials {
            let placed = self.placed(name, &origin);
            let secret = placed.map_err(|failure| self.keep_from(trail, &format!("secret '{name}' for {host}"), failure))?;
            outgoing = outgoing.credential(secret.authentication());
            shown.push(secret.credential.clone());
        }
        let client = self.client(&origin).map_err(kept)?;
        let Some(approach) = trail.approach(&host) else {
            return Err(kept(Failure::Refused("this call has reached as many origins as its record can name".to_owned())));
        };
        let work = client.send(permit, outgoing);
        let sent = match request.timeout_ms {
            None => work.await,
            Some(limit) => {
                let limit = Duration::from_millis(u64::from(limit.max(1)));
                tokio::time::timeout(limit, work).await.map_err(|_elapsed| Failure::TimedOut)?
            }
        };
        let answer = sent.map_err(|error| {
            tracing::debug!(target: "portcullis::plugin", plugin = &*self.plugin, "{error}");
            if !error.contacted() {
                approach.not_reached();
            }
            kept(failure(error.kind()))
        })?;
        let mut headers: Vec<Pair> = answer
            .headers
            .iter()
            .filter(|(name, _)| *name != http::header::SET_COOKIE)
            .map(|(name, value)| Pair { name: name.to_string(), value: String::from_utf8_lossy(value.as_bytes()).into_owned() })
            .collect();
        let mut known = Vec::new();
        for credential in shown {
            // What was good enough to be sent is known; when it cannot be had now, nothing can be told apart.
            known.extend(credential.current().await.ok());
        }
        let echoes = Echoes::of(&known);
        for pair in &mut headers {
            pair.value = echoes.text(&pair.value).into_owned();
        }
        let body = echoes.bytes(Vec::from(answer.body));
        Ok(Response { status: answer.status.as_u16(), headers, body })
    }

    fn placed(&self, name: &str, origin: &str) -> Result<&GrantedSecret, Failure> {
        let request = self.requested.iter().find(|secret| secret.name == name);
        let declared = request.is_some_and(|secret| secret.origins.iter().any(|pattern| pattern.matches(origin)));
        if !declared {
            return Err(Failure::Undeclared("the manifest does not declare this secret for this origin".to_owned()));
        }
        self.secrets.get(name).ok_or_else(|| Failure::Refused("the operator does not grant this secret".to_owned()))
    }

    /// A secret in the plugin's own hands, in the record of the call before it is: what the record has no room for is not
    /// handed out.
    pub(crate) async fn read_secret(&self, trail: &Trail, name: &str) -> Result<String, Withheld> {
        let kept = |withheld: Withheld, why: &str| {
            self.refuse(trail, &format!("secret '{name}'"), why);
            withheld
        };
        if !self.requested.iter().any(|secret| secret.name == name && secret.read) {
            return Err(kept(Withheld::Undeclared, "the manifest does not ask to read it"));
        }
        let granted = self.secrets.get(name).filter(|granted| granted.read);
        let granted = granted.ok_or_else(|| kept(Withheld::Refused, "the operator does not let it be read"))?;
        let secret = granted.credential.current().await.map_err(|fault| {
            tracing::warn!(target: "portcullis::plugin", plugin = &*self.plugin, "{fault}");
            Withheld::Unavailable
        })?;
        if !trail.reached(&format!("secret:{}/{name}", self.plugin)) {
            return Err(kept(Withheld::Unavailable, "the record of the call has no room for it"));
        }
        Ok(secret.expose().trim_end_matches(['\r', '\n']).to_owned())
    }
}

impl GrantedSecret {
    fn authentication(&self) -> Authentication {
        match &self.request.place {
            None => Authentication::None,
            Some(SecretPlace::Bearer) => Authentication::Bearer(self.credential.clone()),
            Some(SecretPlace::Basic(user)) => Authentication::Basic { user: user.clone(), password: self.credential.clone() },
            Some(SecretPlace::Header(name)) => Authentication::Header { name: name.clone(), value: self.credential.clone() },
        }
    }
}

/// Takes the URL apart and puts the request together anew, so that what is sent is what was checked.
fn prepare(request: &Request) -> Result<(String, EgressRequest), Failure> {
    let invalid = |reason: &str| Failure::Invalid(reason.to_owned());
    let method = Method::from_bytes(request.method.as_bytes()).map_err(|_| invalid("this is no HTTP method"))?;
    let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    if !known.contains(&method) {
        return Err(invalid("methods are GET, HEAD, POST, PUT, PATCH and DELETE"));
    }
    if request.url.chars().any(|c| c.is_control() || c == '\\' || c == ' ') {
        return Err(invalid("the URL holds blanks, control characters or backslashes"));
    }
    let url = Url::parse(&request.url).map_err(|error| Failure::Invalid(format!("the URL cannot be read: {error}")))?;
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(invalid("the URL holds a user, a password or a fragment"));
    }
    let mut bare = url.clone();
    bare.set_path("");
    bare.set_query(None);
    let origin = origin_of(bare.as_str()).map_err(|error| Failure::Invalid(error.to_string()))?;
    let path = url.path_segments().ok_or_else(|| invalid("the URL has no path"))?;
    let mut segments = Vec::new();
    for segment in path {
        let decoded = percent_decode_str(segment).decode_utf8().map_err(|_| invalid("the path is not UTF-8"))?;
        segments.push(decoded.into_owned());
    }
    let slash = segments.last().is_some_and(String::is_empty);
    if slash {
        segments.pop();
    }
    let mut outgoing = EgressRequest::new(method, segments).query_pairs(url.query_pairs().into_owned());
    if slash {
        outgoing = outgoing.trailing_slash();
    }
    if request.headers.len() > MOST_HEADERS {
        return Err(Failure::Invalid(format!("{MOST_HEADERS} headers are the most")));
    }
    let mut content_type = None;
    for Pair { name, value } in &request.headers {
        if name.eq_ignore_ascii_case("content-type") {
            content_type = Some(value.clone());
        } else {
            outgoing = outgoing.header(name, value);
        }
    }
    if let Some(body) = &request.body {
        if body.len() > MOST_BODY {
            return Err(Failure::Invalid(format!("a request may have a body of {MOST_BODY} bytes")));
        }
        let media = content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
        outgoing = outgoing.bytes(media, body.clone().into());
    }
    if request.idempotent {
        outgoing = outgoing.idempotent();
    }
    Ok((origin, outgoing))
}

/// What a plugin may know of a failure: no addresses, no chain of causes.
fn failure(kind: &EgressErrorKind) -> Failure {
    match kind {
        EgressErrorKind::NotPermitted { .. } => Failure::Refused("this work may not reach that origin".to_owned()),
        EgressErrorKind::InvalidRequest(reason) => Failure::Invalid(reason.clone()),
        EgressErrorKind::DeadlineExceeded | EgressErrorKind::TimedOut(_) => Failure::TimedOut,
        EgressErrorKind::CircuitOpen { .. } => {
            Failure::Unreachable("it failed repeatedly and is being left alone for a moment".to_owned())
        }
        EgressErrorKind::Credential(fault) => Failure::Refused(format!("the credential {}", fault.state())),
        EgressErrorKind::Caller(_) => Failure::Refused("there is no credential in the caller's name".to_owned()),
        EgressErrorKind::AddressRefused { class, .. } => {
            Failure::Refused(format!("the name stands for a {} address, which is not open for this plugin", class.as_str()))
        }
        EgressErrorKind::Connect { .. } => Failure::Unreachable("no connection".to_owned()),
        EgressErrorKind::BrokenOff { .. } => Failure::Unreachable("the answer broke off".to_owned()),
        EgressErrorKind::Garbage(_) => Failure::Unreachable("the answer is not readable".to_owned()),
        EgressErrorKind::ResponseTooLarge { limit } => Failure::TooLarge(*limit),
        EgressErrorKind::RedirectRefused(reason) => Failure::Redirect(reason.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(url: &str) -> Request {
        Request {
            method: "GET".into(),
            url: url.into(),
            headers: Vec::new(),
            body: None,
            credentials: Vec::new(),
            idempotent: false,
            timeout_ms: None,
        }
    }

    #[test]
    fn the_origin_checked_is_the_origin_of_the_url_however_it_is_written() {
        for (url, origin) in [
            ("https://api.example.com/v1/x?y=z", "https://api.example.com:443"),
            ("HTTPS://API.Example.COM:443", "https://api.example.com:443"),
            ("http://2852039166/latest", "http://169.254.169.254:80"),
            ("http://[::ffff:10.0.0.1]/", "http://[::ffff:a00:1]:80"),
        ] {
            assert_eq!(prepare(&request(url)).unwrap().0, origin, "{url}");
        }
        for url in [
            "https://user@api.example.com/",
            "https://api.example.com@evil.org/",
            "https://api.example.com\\@evil.org/",
            "https://api.example.com/#x",
            "https://api.example.com/a b",
            "ftp://api.example.com/",
            "file:///etc/passwd",
            "//api.example.com/",
            "",
        ] {
            assert!(matches!(prepare(&request(url)), Err(Failure::Invalid(_))), "{url}");
        }
        assert!(prepare(&Request { method: "CONNECT".into(), ..request("https://e.org/") }).is_err());
    }
}
