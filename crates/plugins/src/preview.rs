//! What a plugin says a call would do, in the house's words. Guards that its planned requests are ones it could make, that
//! JSON is JSON, and that all of it is said to be the plugin's word. What was sent on the way is decided elsewhere.

use portcullis_model::{Fault, FaultCode, cut};
use portcullis_ports::{Change, Preview, PreviewedBody, PreviewedRequest};
use serde_json::Value;

use crate::bindings::foresight::exports::portcullis::plugin::preview::{self as wit, ToolPreview};
use crate::bindings::portcullis::plugin::http::{Failure, Request};
use crate::plugin::Plugin;
use crate::stdio::clean;

/// Most requests a preview may plan.
const MOST_REQUESTS: usize = 16;
/// Longest sentence of a plugin about a change, in characters.
const SENTENCE: usize = 500;

/// Bytes of all texts, and something for every request.
pub(crate) fn size_of(preview: &ToolPreview) -> u64 {
    let request = |request: &wit::PlannedRequest| {
        let texts = request.method.len() + request.url.len() + request.content_type.as_ref().map_or(0, String::len);
        texts + request.body.as_ref().map_or(0, Vec::len) + 32
    };
    let change = match &preview.change {
        wit::Change::Unknown(why) => why.len(),
        wit::Change::Known(known) => {
            known.how.len() + known.before.as_ref().map_or(0, String::len) + known.after.as_ref().map_or(0, String::len)
        }
    };
    (preview.requests.iter().map(request).sum::<usize>() + change) as u64
}

/// As the house has it.
///
/// # Errors
/// A preview that is none: JSON that cannot be read, or requests the plugin could not make.
pub(crate) fn read(plugin: &Plugin, preview: ToolPreview) -> Result<Preview, Fault> {
    let name = &plugin.name;
    let unfit = |why: String| {
        let message = format!("plugin '{name}' gave a preview that cannot be used, so what this call would do is not known");
        Fault::backend(message, format!("plugin {name}: {why}"))
    };
    if preview.requests.len() > MOST_REQUESTS {
        return Err(unfit(format!("it plans {} requests, {MOST_REQUESTS} are the most", preview.requests.len())));
    }
    let mut requests = Vec::with_capacity(preview.requests.len());
    for planned in preview.requests {
        let wit::PlannedRequest { method, url, content_type, body } = planned;
        let request = Request {
            method,
            url,
            headers: Vec::new(),
            body: None,
            credentials: Vec::new(),
            idempotent: false,
            timeout_ms: None,
        };
        let url = plugin.home.outside.planned(&request).map_err(|failure| match failure {
            Failure::Refused(why) => Fault::new(FaultCode::Forbidden, format!("plugin '{name}' would be stopped: {why}")),
            other => unfit(format!("it plans a request it could not make: {other:?}")),
        })?;
        let content_type = content_type.map(|text| cut::beginning(&clean(&text), 200).text.into_owned());
        let body = self::body(content_type.as_deref(), body);
        requests.push(PreviewedRequest { method: request.method, url, content_type, body });
    }
    let sentence = |text: &str| cut::beginning(&clean(text), SENTENCE).text.into_owned();
    let json = |text: Option<String>| {
        let value = text.as_deref().map(serde_json::from_str::<Value>).transpose();
        value.map_err(|error| unfit(format!("before or after is no JSON: {error}")))
    };
    let change = match preview.change {
        wit::Change::Unknown(why) => Change::Unknown(format!("plugin '{name}' says: {}", sentence(&why))),
        wit::Change::Known(known) => Change::Known {
            before: json(known.before)?,
            after: json(known.after)?,
            how: format!("as plugin '{name}' foresees it: {}", sentence(&known.how)),
        },
    };
    Ok(Preview { requests, change, answer: None, sources: vec![name.as_str().into()] })
}

fn body(content_type: Option<&str>, body: Option<Vec<u8>>) -> PreviewedBody {
    let Some(bytes) = body.filter(|bytes| !bytes.is_empty()) else { return PreviewedBody::Empty };
    let is_json = content_type.is_none_or(|kind| kind.contains("json"));
    if is_json && let Ok(value) = serde_json::from_slice(&bytes) {
        return PreviewedBody::Json(value);
    }
    String::from_utf8(bytes).map_or_else(|error| PreviewedBody::Bytes(error.as_bytes().len()), PreviewedBody::Text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_is_json_where_it_says_so_text_where_it_is_and_a_number_of_bytes_else() {
        let of = |kind: Option<&str>, bytes: &[u8]| body(kind, Some(bytes.to_vec()));
        assert_eq!(of(Some("application/json"), b"{\"a\":1}"), PreviewedBody::Json(json!({"a": 1})));
        assert_eq!(of(None, b"[1]"), PreviewedBody::Json(json!([1])));
        assert_eq!(of(Some("application/json"), b"{"), PreviewedBody::Text("{".into()));
        assert_eq!(of(Some("text/plain"), b"1"), PreviewedBody::Text("1".into()));
        assert_eq!(of(None, b"\xff\xfe\xfd"), PreviewedBody::Bytes(3));
        assert_eq!((of(None, b""), body(None, None)), (PreviewedBody::Empty, PreviewedBody::Empty));
    }

    #[test]
    fn every_text_of_a_preview_counts() {
        let planned =
            wit::PlannedRequest { method: "PUT".into(), url: "u".repeat(100), content_type: None, body: Some(vec![0; 50]) };
        let known = wit::KnownChange { before: Some("b".repeat(10)), after: None, how: "h".into() };
        let preview = ToolPreview { requests: vec![planned], change: wit::Change::Known(known) };
        assert_eq!(size_of(&preview), 3 + 100 + 50 + 32 + 11);
    }
}
