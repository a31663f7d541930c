//! Requests to Datadog and what becomes of their failures. Guards that keys are named and never held, and that a limit says
//! when it ends. Source: <https://docs.datadoghq.com/api/latest/>, its pages on authentication and rate limits.

use serde_json::Value;

use crate::portcullis::plugin::http::{Failure, Request, Response};
use crate::portcullis::plugin::types::{Fault, FaultCode, Pair};
use crate::settings::Settings;
use crate::tags::shown;

/// The way out: the host, or a double in tests.
pub(crate) trait Door {
    fn send(&self, request: &Request) -> Result<Response, Failure>;
    /// For the operator's log.
    fn warn(&self, message: &str);
}

/// Datadog's HTTP API.
pub(crate) struct Api<'a> {
    pub(crate) door: &'a dyn Door,
    pub(crate) settings: &'a Settings,
}

impl Api<'_> {
    /// `path` begins with `/`; values of `query` are encoded here.
    pub(crate) fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Fault> {
        let mut url = format!("{}{path}", self.settings.base);
        for (at, (name, value)) in query.iter().enumerate() {
            url.push(if at == 0 { '?' } else { '&' });
            url.push_str(name);
            url.push('=');
            url.push_str(&encoded(value));
        }
        self.send("GET", url, None)
    }

    /// A search; nothing is changed by it, so it may be repeated.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, Fault> {
        self.send("POST", format!("{}{path}", self.settings.base), Some(body.to_string().into_bytes()))
    }

    fn send(&self, method: &str, url: String, body: Option<Vec<u8>>) -> Result<Value, Fault> {
        let header = |name: &str, value: &str| Pair { name: name.to_owned(), value: value.to_owned() };
        let mut headers = vec![header("Accept", "application/json")];
        if body.is_some() {
            headers.push(header("Content-Type", "application/json"));
        }
        let request = Request {
            method: method.to_owned(),
            url,
            headers,
            body,
            credentials: vec!["api_key".to_owned(), "application_key".to_owned()],
            idempotent: true,
            timeout_ms: None,
        };
        let response = self.door.send(&request).map_err(unreached)?;
        if !(200..300).contains(&response.status) {
            return Err(refused(&response));
        }
        serde_json::from_slice(&response.body)
            .map_err(|error| fault(FaultCode::BackendFailed, "Datadog answered no JSON", None, Some(error.to_string())))
    }
}

/// Percent-encodes everything but unreserved characters (RFC 3986, 2.3).
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

pub(crate) fn fault(code: FaultCode, message: &str, hint: Option<&str>, detail: Option<String>) -> Fault {
    Fault { code, message: message.to_owned(), hint: hint.map(str::to_owned), detail, retry_after_seconds: None }
}

fn unreached(failure: Failure) -> Fault {
    let grant = Some("the operator grants https://api.SITE and both keys in plugins.grants");
    match failure {
        Failure::Undeclared(why) | Failure::Refused(why) => {
            fault(FaultCode::Forbidden, "this plugin may not reach Datadog here", grant, Some(why))
        }
        Failure::TimedOut => {
            fault(FaultCode::BackendFailed, "Datadog did not answer in time", Some("ask about less time or fewer services"), None)
        }
        Failure::TooLarge(bytes) => {
            fault(FaultCode::TooLarge, &format!("Datadog's answer has more than {bytes} bytes"), Some("ask about less"), None)
        }
        Failure::Unreachable(why) => fault(FaultCode::BackendFailed, "Datadog cannot be reached", None, Some(why)),
        Failure::Redirect(why) => {
            fault(FaultCode::BackendFailed, "Datadog sent us elsewhere", Some("is the setting 'site' right?"), Some(why))
        }
        Failure::Invalid(why) => fault(FaultCode::Internal, "the request could not be written", None, Some(why)),
    }
}

/// A status that is no success.
fn refused(response: &Response) -> Fault {
    let body: Value = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
    let said = said(&body);
    match response.status {
        400 | 422 => {
            let why = if said.is_empty() { "it does not say why".to_owned() } else { shown_long(&said) };
            fault(FaultCode::InvalidArgument, &format!("Datadog does not take this query: {why}"), None, None)
        }
        401 | 403 => fault(
            FaultCode::Forbidden,
            "Datadog refuses these keys, or they may not read this",
            Some("the application key needs timeseries_query, metrics_read and logs_read_data; is the setting 'site' right?"),
            Some(said),
        ),
        404 => fault(FaultCode::NotFound, "Datadog has nothing of this name", None, Some(said)),
        413 => fault(FaultCode::TooLarge, "Datadog finds this question too large", Some("ask about less"), Some(said)),
        429 => limited(response),
        status => fault(FaultCode::BackendFailed, &format!("Datadog answered with status {status}"), None, Some(said)),
    }
}

/// <https://docs.datadoghq.com/api/latest/rate-limits/>: the reset is in seconds from now.
fn limited(response: &Response) -> Fault {
    let header = |name: &str| {
        response.headers.iter().find(|pair| pair.name.eq_ignore_ascii_case(name)).map(|pair| pair.value.trim().to_owned())
    };
    let number = |name: &str| header(name)?.parse::<f64>().ok().filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
    let seconds = number("x-ratelimit-reset").or_else(|| number("retry-after")).or_else(|| number("x-ratelimit-period"));
    let seconds = seconds.map(|seconds| seconds.ceil().clamp(1.0, 86_400.0) as u32);
    let limit = match (number("x-ratelimit-limit"), number("x-ratelimit-period")) {
        (Some(limit), Some(period)) => format!(" of {limit} requests in {period} seconds"),
        _ => String::new(),
    };
    let when = seconds.map_or_else(|| "it does not say when it ends".to_owned(), |s| format!("it ends in {s} seconds"));
    Fault {
        code: FaultCode::RateLimited,
        message: format!("Datadog's limit{limit} is reached; {when}"),
        hint: Some("ask again then, or ask once about more".to_owned()),
        detail: header("x-ratelimit-name").map(|name| format!("rate limit {}", shown(&name))),
        retry_after_seconds: seconds,
    }
}

/// What Datadog says in `errors` (texts in version 1, texts or objects in version 2) or `error`.
pub(crate) fn said(body: &Value) -> String {
    let one = |value: &Value| -> Option<String> {
        let text = value.as_str().or_else(|| value.get("detail")?.as_str()).or_else(|| value.get("title")?.as_str());
        text.map(str::to_owned)
    };
    match (body.get("errors").and_then(Value::as_array), body.get("error").and_then(Value::as_str)) {
        (Some(errors), _) => errors.iter().filter_map(one).collect::<Vec<_>>().join("; "),
        (None, Some(error)) => error.to_owned(),
        (None, None) => String::new(),
    }
}

pub(crate) fn shown_long(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::RefCell;

    use serde_json::json;

    use super::*;

    /// Answers in a row, and remembers what was asked.
    #[derive(Default)]
    pub(crate) struct Double {
        pub(crate) answers: RefCell<Vec<Result<Response, Failure>>>,
        pub(crate) asked: RefCell<Vec<(String, String, Value)>>,
        pub(crate) warned: RefCell<Vec<String>>,
    }

    impl Double {
        pub(crate) fn answering(bodies: &[Value]) -> Self {
            let answers = bodies.iter().rev().map(|body| Ok(response(200, &[], body))).collect();
            Self { answers: RefCell::new(answers), ..Self::default() }
        }
    }

    impl Door for Double {
        fn send(&self, request: &Request) -> Result<Response, Failure> {
            assert_eq!(request.credentials, ["api_key", "application_key"]);
            let body = request.body.as_ref().map_or(Value::Null, |body| serde_json::from_slice(body).unwrap());
            self.asked.borrow_mut().push((request.method.clone(), request.url.clone(), body));
            self.answers.borrow_mut().pop().expect("no more requests than answers")
        }
        fn warn(&self, message: &str) {
            self.warned.borrow_mut().push(message.to_owned());
        }
    }

    pub(crate) fn response(status: u16, headers: &[(&str, &str)], body: &Value) -> Response {
        let headers = headers.iter().map(|(n, v)| Pair { name: (*n).to_owned(), value: (*v).to_owned() }).collect();
        Response { status, headers, body: body.to_string().into_bytes() }
    }

    fn refusal(status: u16, headers: &[(&str, &str)], body: &Value) -> Fault {
        let double = Double { answers: RefCell::new(vec![Ok(response(status, headers, body))]), ..Double::default() };
        let settings = Settings::read("{}").unwrap();
        Api { door: &double, settings: &settings }.get("/api/v1/validate", &[]).unwrap_err()
    }

    #[test]
    fn a_limit_says_when_it_ends() {
        let headers = [
            ("X-RateLimit-Limit", "300"),
            ("X-RateLimit-Period", "3600"),
            ("X-RateLimit-Remaining", "0"),
            ("X-RateLimit-Reset", "17"),
            ("X-RateLimit-Name", "logs_public_search_api"),
        ];
        let fault = refusal(429, &headers, &json!({"errors": ["Rate limit of 300 requests in 3600 seconds reached."]}));
        assert_eq!((fault.code, fault.retry_after_seconds), (FaultCode::RateLimited, Some(17)));
        assert!(fault.message.contains("300 requests in 3600 seconds") && fault.message.contains("in 17 seconds"));
        assert_eq!(refusal(429, &[], &json!({})).retry_after_seconds, None);
        assert_eq!(refusal(429, &[("x-ratelimit-reset", "soon")], &json!({})).retry_after_seconds, None);
    }

    #[test]
    fn every_refusal_has_its_code() {
        let errors = json!({"errors": ["Error parsing query: unable to parse"]});
        for (status, code) in [
            (400, FaultCode::InvalidArgument),
            (401, FaultCode::Forbidden),
            (403, FaultCode::Forbidden),
            (404, FaultCode::NotFound),
            (413, FaultCode::TooLarge),
            (500, FaultCode::BackendFailed),
            (503, FaultCode::BackendFailed),
        ] {
            assert_eq!(refusal(status, &[], &errors).code, code, "{status}");
        }
        assert!(refusal(400, &[], &errors).message.contains("unable to parse"));
        assert!(refusal(400, &[], &json!({"errors": [{"title": "t", "detail": "the detail"}]})).message.contains("the detail"));
    }

    #[test]
    fn what_is_no_json_is_no_empty_answer() {
        let bad = Response { status: 200, headers: Vec::new(), body: b"<html>".to_vec() };
        let double = Double { answers: RefCell::new(vec![Ok(bad), Err(Failure::TimedOut)]), ..Double::default() };
        let settings = Settings::read("{}").unwrap();
        let api = Api { door: &double, settings: &settings };
        assert!(api.get("/x", &[("query", "avg:a{b:c d}".into())]).unwrap_err().message.contains("in time"));
        assert_eq!(double.asked.borrow()[0].1, "https://api.datadoghq.com/x?query=avg%3Aa%7Bb%3Ac%20d%7D");
        assert!(api.get("/x", &[]).unwrap_err().message.contains("no JSON"));
    }
}
