//! What a write of an API would do: the request as the one builder makes it, and what is there now compared with what would be
//! (RFC 9110 for PUT and DELETE, RFC 7396 and RFC 6902 for PATCH). What could not be read is said, and never taken for
//! "nothing there". Must not send anything but a GET.

use http::Method;
use portcullis_egress::ForeseenRequest;
use portcullis_model::Fault;
use portcullis_policy::Permit;
use portcullis_ports::{Arguments, Change, Preview, PreviewedBody, PreviewedRequest, Sight};
use serde_json::{Map, Value};

use crate::api::ApiTool;

/// Largest present state that is read, bytes.
const LARGEST: u64 = 1 << 20;

impl ApiTool {
    /// What a call with these arguments would send, and what would change.
    pub(crate) async fn foreseen(&self, permit: &Permit, sight: Sight<'_>, arguments: &Arguments) -> Result<Preview, Fault> {
        let request = self.api.client.foresee(permit, &self.request(&arguments.0)?).map_err(Fault::from)?;
        let change = self.change(&request, sight, arguments).await;
        Ok(Preview {
            requests: vec![PreviewedRequest {
                method: request.method.to_string(),
                url: request.url.clone(),
                content_type: request.content_type.clone(),
                body: body(&request),
            }],
            change,
            answer: None,
            sources: vec![self.api.name.clone()],
        })
    }

    async fn change(&self, request: &ForeseenRequest, sight: Sight<'_>, arguments: &Arguments) -> Change {
        let unknown = |why: String| Change::Unknown(why);
        if !self.plan.changes_a_place() {
            return unknown(format!("what a {} does is not known beforehand", request.method));
        }
        let Some(reader) = &self.reader else {
            return unknown("nothing that is offered reads what is at this address".into());
        };
        let Some(reading) = reader.arguments(self, arguments) else {
            return unknown(format!("'{}' cannot be asked with these arguments", reader.tool));
        };
        let permit = match sight {
            Sight::Allowed(permit) => permit,
            Sight::Closed(why) => return unknown(format!("the present state is not shown: {why}")),
        };
        let before = match self.present(permit, &reading, reader).await {
            Ok(before) => before,
            Err(why) => return unknown(format!("could not read the present state: {why}")),
        };
        let body = || serde_json::from_slice::<Value>(&request.body).ok();
        let how = |text: &str| text.to_owned();
        match (&request.method, before) {
            (&Method::DELETE, before) => {
                let said = if before.is_some() { "this would be gone" } else { "there is nothing at this address now" };
                Change::Known { before, after: None, how: how(said) }
            }
            (&Method::PUT, None) => Change::Known { before: None, after: body(), how: how("nothing is at this address now") },
            (&Method::PUT, before) => match body() {
                Some(after) => {
                    let said =
                        "what is there is replaced by the body; members the body leaves out go, unless the server fills them in";
                    Change::Known { before, after: Some(after), how: how(said) }
                }
                None => unknown("the body is no JSON, so it is not compared".into()),
            },
            (_, None) => unknown("there is nothing at this address now".into()),
            (_, Some(before)) => {
                let Some(patch) = body() else { return unknown("the body is no JSON, so it is not compared".into()) };
                let kind = request.content_type.as_deref().unwrap_or_default();
                let (after, said) = if kind.starts_with("application/json-patch+json") {
                    match patched(before.clone(), &patch) {
                        Ok(after) => (after, "the operations of the patch, applied here to what is there"),
                        Err(why) => return unknown(format!("the patch does not fit what is there: {why}")),
                    }
                } else if kind.starts_with("application/merge-patch+json") {
                    (merged(before.clone(), &patch), "the patch, merged here into what is there")
                } else {
                    (merged(before.clone(), &patch), "taken for a merge: members of the body replace those that are there")
                };
                Change::Known { before: Some(before), after: Some(after), how: how(said) }
            }
        }
    }

    /// What is there now; `None` when the API says that nothing is.
    async fn present(&self, permit: &Permit, arguments: &Map<String, Value>, reader: &Reader) -> Result<Option<Value>, String> {
        let client_safe = |fault: Fault| fault.message().to_owned();
        self.api.may_use(permit).map_err(client_safe)?;
        let request = reader.plan.request(arguments).map_err(client_safe)?;
        let request = request.header("accept", "application/json").max_response_bytes(LARGEST);
        let response = self.api.client.send(permit, request).await.map_err(|error| client_safe(error.into()))?;
        let status = response.status;
        if matches!(status.as_u16(), 404 | 410) {
            return Ok(None);
        }
        if !status.is_success() {
            return Err(format!("the API answered {status}"));
        }
        serde_json::from_slice(&response.body).map(Some).map_err(|_| "it is no JSON".to_owned())
    }
}

/// The operation that reads what another one changes.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    /// The tool it is.
    pub(crate) tool: String,
    /// Its requests.
    pub(crate) plan: crate::plan::Plan,
}

impl Reader {
    /// The arguments of reading, for those of writing: what is in the path, and nothing else. `None` when one is not there.
    pub(crate) fn arguments(&self, writer: &ApiTool, arguments: &Arguments) -> Option<Map<String, Value>> {
        let mut reading = Map::new();
        for (wire, argument) in self.plan.places() {
            let given = writer.plan.place_of(wire)?;
            reading.insert(argument.to_owned(), arguments.0.get(given)?.clone());
        }
        Some(reading)
    }
}

/// The body, as much of it as can be read.
fn body(request: &ForeseenRequest) -> PreviewedBody {
    if request.body.is_empty() {
        return PreviewedBody::Empty;
    }
    let is_json = request.content_type.as_deref().is_some_and(|kind| kind.contains("json"));
    if is_json && let Ok(value) = serde_json::from_slice(&request.body) {
        return PreviewedBody::Json(value);
    }
    match std::str::from_utf8(&request.body) {
        Ok(text) => PreviewedBody::Text(text.to_owned()),
        Err(_) => PreviewedBody::Bytes(request.body.len()),
    }
}

/// JSON Merge Patch (RFC 7396, section 2).
fn merged(target: Value, patch: &Value) -> Value {
    let Value::Object(changes) = patch else { return patch.clone() };
    let mut members = match target {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    for (name, change) in changes {
        if change.is_null() {
            members.shift_remove(name);
        } else {
            let before = members.get(name).cloned().unwrap_or(Value::Null);
            members.insert(name.clone(), merged(before, change));
        }
    }
    Value::Object(members)
}

/// Most operations of a patch that are applied.
const MOST_OPERATIONS: usize = 1_000;

/// JSON Patch (RFC 6902).
fn patched(mut target: Value, patch: &Value) -> Result<Value, String> {
    let operations = patch.as_array().ok_or("it is no list of operations")?;
    if operations.len() > MOST_OPERATIONS {
        return Err(format!("it has more than {MOST_OPERATIONS} operations"));
    }
    for (index, operation) in operations.iter().enumerate() {
        let text =
            |name: &str| operation.get(name).and_then(Value::as_str).ok_or_else(|| format!("operation {index} has no '{name}'"));
        let value = || operation.get("value").cloned().ok_or_else(|| format!("operation {index} has no 'value'"));
        let missing = || format!("operation {index} names what is not there");
        let (kind, path) = (text("op")?, text("path")?);
        match kind {
            "add" => add(&mut target, path, value()?).ok_or_else(missing)?,
            "remove" => drop(remove(&mut target, path).ok_or_else(missing)?),
            "replace" => *target.pointer_mut(path).ok_or_else(missing)? = value()?,
            "copy" => {
                let copied = target.pointer(text("from")?).cloned().ok_or_else(missing)?;
                add(&mut target, path, copied).ok_or_else(missing)?;
            }
            "move" => {
                let moved = remove(&mut target, text("from")?).ok_or_else(missing)?;
                add(&mut target, path, moved).ok_or_else(missing)?;
            }
            "test" => {
                if target.pointer(path) != Some(&value()?) {
                    return Err(format!("its test in operation {index} fails"));
                }
            }
            _ => return Err(format!("operation {index} is none that is known")),
        }
    }
    Ok(target)
}

/// The parent a pointer names, and the last part of it.
fn parent<'v>(target: &'v mut Value, path: &str) -> Option<(&'v mut Value, String)> {
    let (front, last) = path.rsplit_once('/')?;
    Some((target.pointer_mut(front)?, last.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *target = value;
        return Some(());
    }
    let (parent, name) = parent(target, path)?;
    match parent {
        Value::Object(members) => {
            members.insert(name, value);
        }
        Value::Array(items) if name == "-" => items.push(value),
        Value::Array(items) => {
            let at: usize = name.parse().ok()?;
            if at > items.len() {
                return None;
            }
            items.insert(at, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(target: &mut Value, path: &str) -> Option<Value> {
    let (parent, name) = parent(target, path)?;
    match parent {
        Value::Object(members) => members.shift_remove(&name),
        Value::Array(items) => {
            let at: usize = name.parse().ok()?;
            (at < items.len()).then(|| items.remove(at))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The examples of RFC 7396, appendix A.
    #[test]
    fn merging_is_that_of_its_document() {
        for (before, patch, after) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            assert_eq!(merged(before.clone(), &patch), after, "{before} {patch}");
        }
    }

    /// The examples of RFC 6902, appendix A.
    #[test]
    fn patches_are_applied_and_what_does_not_fit_is_said() {
        for (before, patch, after) in [
            (json!({"foo": "bar"}), json!([{"op": "add", "path": "/baz", "value": "qux"}]), json!({"baz": "qux", "foo": "bar"})),
            (
                json!({"foo": ["bar", "baz"]}),
                json!([{"op": "add", "path": "/foo/1", "value": "qux"}]),
                json!({"foo": ["bar", "qux", "baz"]}),
            ),
            (json!({"foo": ["bar", "qux"]}), json!([{"op": "remove", "path": "/foo/1"}]), json!({"foo": ["bar"]})),
            (json!({"a": 1, "b": 2}), json!([{"op": "replace", "path": "/a", "value": 3}]), json!({"a": 3, "b": 2})),
            (
                json!({"a": {"x": 1}, "b": {}}),
                json!([{"op": "move", "from": "/a/x", "path": "/b/y"}]),
                json!({"a": {}, "b": {"y": 1}}),
            ),
            (json!({"a": 1}), json!([{"op": "copy", "from": "/a", "path": "/b"}]), json!({"a": 1, "b": 1})),
            (json!({"a": [1]}), json!([{"op": "add", "path": "/a/-", "value": [2]}]), json!({"a": [1, [2]]})),
            (json!({"/": 9, "~1": 10}), json!([{"op": "test", "path": "/~01", "value": 10}]), json!({"/": 9, "~1": 10})),
            (json!({"foo": null}), json!([{"op": "add", "path": "", "value": 1}]), json!(1)),
        ] {
            assert_eq!(patched(before.clone(), &patch), Ok(after), "{before} {patch}");
        }
        for (patch, why) in [
            (json!({"a": 2}), "no list"),
            (json!([{"op": "remove", "path": "/z"}]), "not there"),
            (json!([{"op": "replace", "path": "/z", "value": 1}]), "not there"),
            (json!([{"op": "add", "path": "/z/y", "value": 1}]), "not there"),
            (json!([{"op": "test", "path": "/a", "value": 2}]), "fails"),
            (json!([{"op": "increment", "path": "/a"}]), "known"),
            (json!([{"path": "/a"}]), "'op'"),
            (json!([{"op": "add", "path": "/a"}]), "'value'"),
        ] {
            let refused = patched(json!({"a": 1}), &patch).unwrap_err();
            assert!(refused.contains(why), "{patch}: {refused}");
        }
    }
}
