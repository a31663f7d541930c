//! What the protocol asks for, carried over egress under the charter: one origin, TLS, caps, deadlines.
//!
//! Guards that the URLs an authority names lead nowhere else, and that a pause it asks for is known and bounded. Must not
//! follow a URL that would be written differently on the way: its signature would be about another one.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use portcullis_egress::{EgressClient, EgressRequest, origin_of};
use portcullis_policy::Charter;

/// Longest pause an authority is believed.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_hours(7 * 24);

/// The way to one authority.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    client: EgressClient,
    charter: Charter,
    asked: Arc<Mutex<Option<Duration>>>,
}

impl Transport {
    pub(crate) fn new(client: EgressClient, charter: Charter) -> Self {
        Self { client, charter, asked: Arc::default() }
    }

    /// The longest pause that came with a refusal since it was last asked.
    pub(crate) fn take_pause(&self) -> Option<Duration> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn send(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let (parts, body) = request.into_parts();
        let segments = segments(self.client.origin(), &parts.uri).map_err(|why| Error::Other(why.into()))?;
        let Ok(body) = body.collect().await;
        let mut asked = EgressRequest::new(parts.method, segments);
        if let Some(kind) = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) {
            asked = asked.bytes(kind, body.to_bytes());
        }
        asked = asked.header("user-agent", concat!("portcullis/", env!("CARGO_PKG_VERSION")));
        let answer = self.client.send(&self.charter.permit(), asked).await.map_err(|error| Error::Other(Box::new(error)))?;
        let pause = answer.retry_after_seconds().map(|seconds| Duration::from_secs(seconds).min(LONGEST_PAUSE));
        let status = answer.status;
        if status.is_client_error() || status.is_server_error() {
            self.note(pause);
            if serde_json::from_slice::<serde_json::Value>(&answer.body).is_err() {
                return Err(Error::Other(format!("it answers with status {}", status.as_u16()).into()));
            }
        }
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = answer.headers;
        // Bounded here: a time beyond all clocks would be added to one.
        response.headers_mut().remove(RETRY_AFTER);
        if let Some(pause) = pause {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(pause.as_secs()));
        }
        Ok(BytesResponse { parts: response.into_parts().0, body: Box::new(answer.body) })
    }

    fn note(&self, pause: Option<Duration>) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        *asked = asked.max(pause);
    }
}

impl HttpClient for Transport {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().send(request))
    }
}

/// The parts of the path of a URL of this origin, when none of them would be written differently.
fn segments(origin: &str, uri: &Uri) -> Result<Vec<String>, String> {
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err("a URL it names is not complete".into());
    };
    if !origin_of(&format!("{scheme}://{authority}/")).is_ok_and(|named| named == origin) {
        return Err(format!("a URL it names leads away from {origin}"));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b);
    let path = uri.path();
    let parts: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
    let good = |part: &String| !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain);
    if uri.query().is_some() || !parts.iter().all(good) {
        return Err("a URL it names has a query or a path that is written in more than one way".into());
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_of_the_directory_are_followed_and_each_as_it_stands() {
        let origin = "https://acme.example:443";
        let read = |url: &str| segments(origin, &url.parse().unwrap());
        assert_eq!(read("https://acme.example/acme/new-order").unwrap(), ["acme", "new-order"]);
        assert_eq!(read("https://ACME.example:443/a:b/c=").unwrap(), ["a:b", "c="]);
        for away in [
            "https://evil.example/x",
            "https://acme.example:8443/x",
            "http://acme.example/x",
            "https://acme.example@evil.example/x",
            "https://user@acme.example/x",
            "https://acme.example.evil.example/x",
            "/x",
        ] {
            assert!(read(away).is_err(), "{away}");
        }
        for other in [
            "https://acme.example/a?b=c",
            "https://acme.example/a//b",
            "https://acme.example/a/../b",
            "https://acme.example/%2e%2e",
            "https://acme.example/a/",
        ] {
            assert!(read(other).unwrap_err().contains("more than one way"), "{other}");
        }
    }
}
