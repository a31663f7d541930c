//! Requests as data. Guards the shape of a URL: every path segment and query value is encoded on its own, so nothing
//! from outside can climb out of the base path or add a parameter. Must not carry credentials; those belong to the client.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use portcullis_model::Secret;
use reqwest::Url;
use serde_json::Value;

use crate::origin::{origin, parse_base};
use crate::{Authentication, EgressErrorKind};

/// Headers that neither a request nor a configuration may set: credentials and what belongs to the connection.
pub const FORBIDDEN_HEADERS: [&str; 18] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "cookie2",
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "accept-encoding",
    "traceparent",
    "x-forwarded-for",
    "forwarded",
];

/// Headers that are added to those of a request, about: media type, credential, trace, those of the client.
const OTHER_HEADERS: usize = 8;

/// What is sent along.
#[derive(Debug, Clone, PartialEq)]
pub enum EgressBody {
    /// Nothing.
    Empty,
    /// `application/x-www-form-urlencoded` pairs.
    Form(Vec<(String, String)>),
    /// `application/json`.
    Json(Value),
    /// Bytes of the given media type, such as `application/x-protobuf` for OTLP.
    Bytes {
        /// Media type.
        content_type: String,
        /// The bytes.
        bytes: Bytes,
    },
}

/// One request, relative to the base URL of the client that sends it.
#[derive(Debug, Clone, PartialEq)]
pub struct EgressRequest {
    pub(crate) method: Method,
    segments: Vec<String>,
    trailing_slash: bool,
    query: Vec<(String, String)>,
    body: EgressBody,
    headers: Vec<(String, String)>,
    pub(crate) idempotent: bool,
    pub(crate) max_response_bytes: Option<u64>,
    pub(crate) authentication: Option<Authentication>,
    pub(crate) credentials: Vec<Authentication>,
    secrets: Vec<(String, Secret)>,
    reference: Option<String>,
    pub(crate) hands_back_redirects: bool,
}

impl EgressRequest {
    /// A request with any method. `segments` are the parts of the path below the base URL, not yet encoded.
    pub fn new<S: Into<String>>(method: Method, segments: impl IntoIterator<Item = S>) -> Self {
        let idempotent = matches!(method, Method::GET | Method::HEAD | Method::OPTIONS);
        Self {
            method,
            segments: segments.into_iter().map(Into::into).collect(),
            trailing_slash: false,
            query: Vec::new(),
            body: EgressBody::Empty,
            headers: Vec::new(),
            idempotent,
            max_response_bytes: None,
            authentication: None,
            credentials: Vec::new(),
            secrets: Vec::new(),
            reference: None,
            hands_back_redirects: false,
        }
    }

    /// A GET request.
    pub fn get<S: Into<String>>(segments: impl IntoIterator<Item = S>) -> Self {
        Self::new(Method::GET, segments)
    }

    /// A POST request; not repeated on failure unless marked [`EgressRequest::idempotent`].
    pub fn post<S: Into<String>>(segments: impl IntoIterator<Item = S>) -> Self {
        Self::new(Method::POST, segments)
    }

    /// Ends the path with `/`: to some servers that is another path.
    #[must_use]
    pub fn trailing_slash(mut self) -> Self {
        self.trailing_slash = true;
        self
    }

    /// Adds a query parameter.
    #[must_use]
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    /// Adds query parameters.
    #[must_use]
    pub fn query_pairs(mut self, pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        self.query.extend(pairs);
        self
    }

    /// Sends a form.
    #[must_use]
    pub fn form(mut self, pairs: Vec<(String, String)>) -> Self {
        self.body = EgressBody::Form(pairs);
        self
    }

    /// Sends JSON.
    #[must_use]
    pub fn json(mut self, value: Value) -> Self {
        self.body = EgressBody::Json(value);
        self
    }

    /// Sends bytes.
    #[must_use]
    pub fn bytes(mut self, content_type: impl Into<String>, bytes: Bytes) -> Self {
        self.body = EgressBody::Bytes { content_type: content_type.into(), bytes };
        self
    }

    /// Adds a header; credentials and connection headers are refused when the request is sent.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Goes to the place a server named as a reference to its own URL (RFC 3986), such as `/messages?session=1`, instead of
    /// one made of segments. Sending fails when it leads to another origin.
    #[must_use]
    pub fn at_reference(mut self, reference: impl Into<String>) -> Self {
        self.reference = Some(reference.into());
        self
    }

    /// Takes a redirect to another origin as the response instead of refusing it, for whoever may ask there too: with a
    /// client of that origin's own, and without the credentials of this one.
    #[must_use]
    pub fn hand_back_redirects(mut self) -> Self {
        self.hands_back_redirects = true;
        self
    }

    /// A credential of this request alone, instead of the client's. Like that one it goes to the client's origin only.
    #[must_use]
    pub fn authenticated(mut self, authentication: Authentication) -> Self {
        self.authentication = Some(authentication);
        self
    }

    /// Adds a credential that is looked up when the request is sent, beside the client's or the request's own. Like those it
    /// goes to the client's origin only.
    #[must_use]
    pub fn credential(mut self, credential: Authentication) -> Self {
        self.credentials.push(credential);
        self
    }

    /// Adds a header whose value is secret; the same names are refused as in [`EgressRequest::header`].
    #[must_use]
    pub fn secret_header(mut self, name: impl Into<String>, value: Secret) -> Self {
        self.secrets.push((name.into(), value));
        self
    }

    /// Sending it twice has no further effect, so it may be repeated after a failure.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// A lower cap for this response, in bytes after decompression.
    #[must_use]
    pub fn max_response_bytes(mut self, bytes: u64) -> Self {
        self.max_response_bytes = Some(bytes);
        self
    }

    /// The address below the base URL `base` that this request is sent to.
    ///
    /// # Errors
    /// When the base is none, a segment cannot be one, or the finished address does not read as what was meant.
    pub fn address(&self, base: &str) -> Result<String, EgressErrorKind> {
        let base = parse_base(base).map_err(|e| EgressErrorKind::InvalidRequest(e.to_string()))?;
        self.url(&base).map(Into::into)
    }

    /// The URL below `base`.
    pub(crate) fn url(&self, base: &Url) -> Result<Url, EgressErrorKind> {
        if let Some(reference) = &self.reference {
            return referenced(base, reference);
        }
        // Nothing of the request is in it, and the base was read and checked when the client was made.
        if self.segments.is_empty() && self.query.is_empty() && !self.trailing_slash && !base.path().ends_with('/') {
            return Ok(base.clone());
        }
        let mut url = base.clone();
        {
            let mut path =
                url.path_segments_mut().map_err(|()| EgressErrorKind::InvalidRequest("the base URL takes no path".into()))?;
            path.pop_if_empty();
            for segment in &self.segments {
                check_segment(segment)?;
                path.push(segment);
            }
            if self.trailing_slash {
                path.push("");
            }
        }
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        if self.reads_as_meant(base, &url) {
            Ok(url)
        } else {
            Err(EgressErrorKind::InvalidRequest("the address does not read as what was meant".into()))
        }
    }

    /// Reads the finished address again, as the other side will, and compares it with what was meant, part by part.
    fn reads_as_meant(&self, base: &Url, built: &Url) -> bool {
        let Ok(read) = Url::parse(built.as_str()) else { return false };
        let same_place = read.scheme() == base.scheme()
            && read.host() == base.host()
            && read.port_or_known_default() == base.port_or_known_default()
            && read.username().is_empty()
            && read.password().is_none()
            && read.fragment().is_none();
        let parts = |url: &Url| url.path_segments().map(|s| s.map(str::to_owned).collect::<Vec<_>>()).unwrap_or_default();
        let mut prefix = parts(base);
        if prefix.last().is_some_and(String::is_empty) {
            prefix.pop();
        }
        let slash = self.trailing_slash.then(String::new);
        let mut meant: Vec<&str> = self.segments.iter().chain(&slash).map(String::as_str).collect();
        if prefix.is_empty() && meant.is_empty() {
            meant.push("");
        }
        let path = parts(&read);
        let same_path = path.len() == prefix.len() + meant.len()
            && path.iter().zip(&prefix).all(|(found, wanted)| found == wanted)
            && path[prefix.len()..].iter().zip(&meant).all(|(found, wanted)| decoded(found) == wanted.as_bytes());
        let same_query = read.query().is_some() != self.query.is_empty()
            && read.query_pairs().eq(self.query.iter().map(|(k, v)| (Cow::from(k.as_str()), Cow::from(v.as_str()))));
        same_place && same_path && same_query
    }

    /// The body and the headers that belong to this request alone.
    pub(crate) fn encode(&self) -> Result<(HeaderMap, Bytes), EgressErrorKind> {
        let mut headers = HeaderMap::with_capacity(self.headers.len() + self.secrets.len() + OTHER_HEADERS);
        for (name, value) in &self.headers {
            let (name, value) = checked_header(name, value).map_err(EgressErrorKind::InvalidRequest)?;
            headers.append(name, value);
        }
        for (name, value) in &self.secrets {
            let (name, mut value) = checked_header(name, value.expose()).map_err(EgressErrorKind::InvalidRequest)?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        let bad = |e: String| EgressErrorKind::InvalidRequest(e);
        let (content_type, bytes) = match &self.body {
            EgressBody::Empty => return Ok((headers, Bytes::new())),
            EgressBody::Form(pairs) => ("application/x-www-form-urlencoded", Bytes::from(form_encoded(pairs))),
            EgressBody::Json(value) => {
                ("application/json", Bytes::from(serde_json::to_vec(value).map_err(|e| bad(e.to_string()))?))
            }
            EgressBody::Bytes { content_type, bytes } => (content_type.as_str(), bytes.clone()),
        };
        let content_type = HeaderValue::from_str(content_type).map_err(|_| bad("the media type is not a header value".into()))?;
        headers.insert(header::CONTENT_TYPE, content_type);
        Ok((headers, bytes))
    }
}

/// The URL a reference of the server itself stands for.
fn referenced(base: &Url, reference: &str) -> Result<Url, EgressErrorKind> {
    let refuse = |why: &str| Err(EgressErrorKind::InvalidRequest(format!("the address the server gave {why}")));
    if reference.len() > 4_096 || reference.contains(char::is_control) {
        return refuse("is no reference");
    }
    let Ok(url) = base.join(reference) else { return refuse("is no reference") };
    if origin(&url) != origin(base) || !url.username().is_empty() || url.password().is_some() {
        return refuse("leads to another origin");
    }
    Ok(url)
}

/// The bytes of one segment of a path, written out so that the encoder is not checked by its own twin.
fn decoded(segment: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hexadecimal = |at: usize| after.get(at).and_then(|b| char::from(*b).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (first, hexadecimal(0), hexadecimal(1)) {
            bytes.push((high * 16 + low) as u8);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    bytes
}

fn form_encoded(pairs: &[(String, String)]) -> String {
    // A URL's query uses the same encoding; the scratch URL is never requested.
    let Ok(mut scratch) = Url::parse("http://form.invalid/") else { return String::new() };
    scratch.query_pairs_mut().extend_pairs(pairs);
    scratch.query().unwrap_or_default().to_owned()
}

fn check_segment(segment: &str) -> Result<(), EgressErrorKind> {
    let why = if segment.is_empty() {
        "is empty"
    } else if matches!(segment, "." | "..") {
        "climbs out of the path"
    } else if segment.contains(char::is_control) {
        "holds control characters"
    } else {
        return Ok(());
    };
    Err(EgressErrorKind::InvalidRequest(format!("a part of the path {why}")))
}

/// Checks a header that somebody else than this crate sets.
pub(crate) fn checked_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("'{shown}' is not a header name"))?;
    if FORBIDDEN_HEADERS.contains(&name.as_str()) {
        return Err(format!("header '{shown}' may not be set here; credentials belong in the authentication settings"));
    }
    let value = HeaderValue::from_str(value).map_err(|_| format!("the value of header '{shown}' holds control characters"))?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn base() -> Url {
        Url::parse("https://host/prefix/").unwrap()
    }

    #[test]
    fn segments_are_encoded_one_by_one() {
        let url =
            EgressRequest::get(["api", "v1", "label", "a/b?c#d %2e\\é", "values"]).query("match[]", "{a=\"b&c\"}").url(&base());
        assert_eq!(
            url.unwrap().as_str(),
            "https://host/prefix/api/v1/label/a%2Fb%3Fc%23d%20%252e%5C%C3%A9/values?match%5B%5D=%7Ba%3D%22b%26c%22%7D"
        );
        for bad in ["", ".", "..", "a\nb", "\0"] {
            assert!(EgressRequest::get(["api", bad]).url(&base()).is_err(), "{bad:?}");
        }
        let slash = EgressRequest::get(["api"]).trailing_slash();
        assert_eq!(slash.address("https://host").unwrap(), "https://host/api/");
        assert_eq!(EgressRequest::get::<String>([]).address("https://host").unwrap(), "https://host/");
        assert_eq!(EgressRequest::get::<String>([]).address("https://host/a/").unwrap(), "https://host/a");
        assert_eq!(EgressRequest::get::<String>([]).address("https://host/%61/../mcp").unwrap(), "https://host/mcp");
        assert!(EgressRequest::get(["api"]).address("https://user@host").is_err());
    }

    #[test]
    fn an_address_that_reads_otherwise_is_noticed() {
        let request = EgressRequest::get(["api", "a b"]).query("q", "1");
        let right = "https://host/prefix/api/a%20b?q=1";
        assert!(request.reads_as_meant(&base(), &Url::parse(right).unwrap()));
        for wrong in [
            "http://host/prefix/api/a%20b?q=1",
            "https://host:444/prefix/api/a%20b?q=1",
            "https://other/prefix/api/a%20b?q=1",
            "https://u@host/prefix/api/a%20b?q=1",
            "https://host/api/a%20b?q=1",
            "https://host/prefix/x/a%20b?q=1",
            "https://host/prefix/api/a%20b/?q=1",
            "https://host/prefix/api/a/b?q=1",
            "https://host/prefix/api/a%20b",
            "https://host/prefix/api/a%20b?q=1&q=2",
            "https://host/prefix/api/a%20b?p=1",
            "https://host/prefix/api/a%20b?q=1#f",
        ] {
            assert!(!request.reads_as_meant(&base(), &Url::parse(wrong).unwrap()), "{wrong}");
        }
    }

    #[test]
    fn credentials_cannot_be_smuggled_as_headers() {
        for name in ["Authorization", "COOKIE", "host", "Transfer-Encoding", "bad name", "x\r\ny", ""] {
            assert!(EgressRequest::get(["x"]).header(name, "v").encode().is_err(), "{name}");
        }
        assert!(EgressRequest::get(["x"]).header("x-scope-orgid", "a\r\nb: c").encode().is_err());
        let (headers, _) = EgressRequest::get(["x"]).header("X-Scope-OrgID", "team").encode().unwrap();
        assert_eq!(headers["x-scope-orgid"], "team");
    }

    proptest! {
        #[test]
        fn a_segment_never_leaves_its_place(segment in "\\PC{1,30}", value in ".{0,30}") {
            prop_assume!(segment != "." && segment != "..");
            let url = EgressRequest::get(["api".to_owned(), segment, "end".to_owned()]).query("q", &value).url(&base()).unwrap();
            let parts: Vec<&str> = url.path_segments().unwrap().collect();
            prop_assert_eq!(parts.len(), 4);
            prop_assert_eq!((parts[0], parts[1], parts[3]), ("prefix", "api", "end"));
            prop_assert_eq!(url.host_str(), Some("host"));
            let pairs: Vec<_> = url.query_pairs().into_owned().collect();
            prop_assert_eq!(pairs, vec![("q".to_owned(), value)]);
        }

        #[test]
        fn a_form_holds_exactly_its_pairs(name in ".{0,20}", value in ".{0,40}") {
            let encoded = form_encoded(&[(name.clone(), value.clone()), ("last".into(), "1".into())]);
            let read: Vec<_> = Url::parse(&format!("http://h/?{encoded}")).unwrap().query_pairs().into_owned().collect();
            prop_assert_eq!(read, vec![(name, value), ("last".into(), "1".into())]);
        }
    }
}
