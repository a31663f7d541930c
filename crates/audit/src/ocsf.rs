//! Records as events of the Open Cybersecurity Schema Framework, for a SIEM: Authentication for credentials, API Activity
//! for everything else. Source: <https://schema.ocsf.io/1.3.0>.

use portcullis_model::FaultCode;
use serde_json::{Map, Value, json};

use crate::event::EventKind;
use crate::read::{Outcome, Record};

/// Version of the schema that events follow.
pub const OCSF_VERSION: &str = "1.3.0";

const API_ACTIVITY: u64 = 6_003;
const AUTHENTICATION: u64 = 3_002;
/// Number of an activity that the class does not know.
const OTHER: u64 = 99;

/// One record as an OCSF event.
pub fn to_ocsf(record: &Record) -> Value {
    let event = &record.event;
    let authentication = is_authentication(record);
    let (class, class_name, category, category_name) = if authentication {
        (AUTHENTICATION, "Authentication", 3, "Identity & Access Management")
    } else {
        (API_ACTIVITY, "API Activity", 6, "Application Activity")
    };
    let (activity, activity_name) = activity(record);
    let (severity, severity_name) = severity(record);
    let (status, status_name) = match record.outcome() {
        // How it ends is not known yet.
        Outcome::Begun => (0, "Unknown"),
        Outcome::Ok => (1, "Success"),
        Outcome::Failed | Outcome::Refused => (2, "Failure"),
    };
    let mut out = json!({
        "class_uid": class,
        "class_name": class_name,
        "category_uid": category,
        "category_name": category_name,
        "activity_id": activity,
        "activity_name": if activity == OTHER { own_activity(record) } else { activity_name },
        "type_uid": class * 100 + activity,
        "type_name": format!("{class_name}: {activity_name}"),
        "severity_id": severity,
        "severity": severity_name,
        "status_id": status,
        "status": status_name,
        "time": record.time.as_nanos().div_euclid(1_000_000),
        "metadata": {
            "version": OCSF_VERSION,
            "uid": record.position(),
            "sequence": record.sequence,
            "log_name": record.chain,
            "logged_time": record.time.as_nanos().div_euclid(1_000_000),
            "product": {"name": "Portcullis", "vendor_name": "Portcullis", "version": env!("CARGO_PKG_VERSION")},
        },
        "actor": actor(record),
        "src_endpoint": source(record),
        "unmapped": unmapped(record),
    });
    if let Some(members) = out.as_object_mut() {
        if let Some(code) = event.code {
            members.insert("status_code".to_owned(), code.as_str().into());
        }
        if let Some(rule) = &event.rule {
            members.insert("status_detail".to_owned(), format!("rule {rule}").into());
        }
        if let Some(count) = event.count {
            members.insert("count".to_owned(), count.into());
        }
        if let Some(micros) = event.latency_us {
            members.insert("duration".to_owned(), (micros / 1_000).into());
        }
        if let Some(note) = &event.note {
            members.insert("message".to_owned(), note.as_ref().into());
        }
        if authentication {
            members.insert("user".to_owned(), user(record));
            members.insert("service".to_owned(), json!({"name": "portcullis"}));
        } else {
            members.insert("api".to_owned(), api(record));
        }
    }
    out
}

/// Activity of the class, by what the record says was done.
fn activity(record: &Record) -> (u64, &'static str) {
    let method = record.event.method.as_deref().unwrap_or_default();
    match record.event.kind {
        _ if is_authentication(record) => (1, "Logon"),
        EventKind::Lookup => (2, "Read"),
        _ => match method.rsplit(['.', '/']).next().unwrap_or_default() {
            "create" | "created" | "requested" | "import" | "installed" => (1, "Create"),
            "list" | "read" | "get" | "show" => (2, "Read"),
            "rotate" | "rotated" | "loaded" | "changed" | "granted" | "denied" | "enabled" | "disabled" => (3, "Update"),
            "revoke" | "revoked" | "removed" | "erase" | "expired" => (4, "Delete"),
            _ => (OTHER, "Other"),
        },
    }
}

/// Whether somebody proved who it is, or failed to: at the doors for telemetry that is a record of theirs.
fn is_authentication(record: &Record) -> bool {
    let event = &record.event;
    event.kind == EventKind::Authentication
        || (event.kind == EventKind::Ingest && event.method.as_deref() == Some("authenticate"))
}

/// What an activity that the class has no number for is called here, as the schema asks for.
fn own_activity(record: &Record) -> &str {
    record.event.method.as_deref().unwrap_or_else(|| record.event.kind.as_str())
}

fn severity(record: &Record) -> (u64, &'static str) {
    let attention = matches!(record.event.kind, EventKind::Bypass | EventKind::Lockout | EventKind::Error | EventKind::Erased);
    match (record.outcome(), record.event.code) {
        (_, Some(FaultCode::Internal | FaultCode::Unavailable)) => (4, "High"),
        (Outcome::Refused, _) => (3, "Medium"),
        _ if attention => (3, "Medium"),
        (Outcome::Failed, _) => (2, "Low"),
        (Outcome::Begun | Outcome::Ok, _) => (1, "Informational"),
    }
}

fn user(record: &Record) -> Value {
    let event = &record.event;
    let mut user = Map::new();
    let name = event.principal.as_ref().map_or("unknown", |p| p.as_str());
    user.insert("name".to_owned(), name.into());
    user.insert("uid".to_owned(), name.into());
    if let Some(credential) = &event.credential {
        user.insert("type".to_owned(), credential.as_ref().into());
        user.insert("type_id".to_owned(), 99.into());
    }
    if let Some(tenant) = &event.tenant {
        user.insert("org".to_owned(), json!({"uid": tenant.as_str(), "name": tenant.as_str()}));
    }
    if let Some(key) = &event.key {
        user.insert("credential_uid".to_owned(), key.as_str().into());
    }
    Value::Object(user)
}

fn actor(record: &Record) -> Value {
    let mut actor = json!({"user": user(record)});
    if let (Some(session), Some(members)) = (&record.event.session, actor.as_object_mut()) {
        members.insert("session".to_owned(), json!({"uid": session}));
    }
    actor
}

fn source(record: &Record) -> Value {
    match record.event.client {
        Some(client) => {
            let mut endpoint = Map::from_iter([("ip".to_owned(), json!(client.address))]);
            endpoint.extend(client.port.map(|port| ("port".to_owned(), json!(port))));
            let hops = record.event.via.as_deref().map(|via| via.split(", ").collect::<Vec<_>>());
            endpoint.extend(hops.map(|hops| ("intermediate_ips".to_owned(), json!(hops))));
            Value::Object(endpoint)
        }
        None => json!({"name": "local"}),
    }
}

fn api(record: &Record) -> Value {
    let event = &record.event;
    let operation = event.tool.as_deref().or(event.method.as_deref()).unwrap_or_else(|| event.kind.as_str());
    let mut api = json!({"operation": operation, "service": {"name": "portcullis"}});
    if let Some(members) = api.as_object_mut() {
        if let Some(code) = event.code {
            members.insert("response".to_owned(), json!({"error": code.as_str()}));
        }
        if let Some(trace) = &event.trace_id {
            members.insert("request".to_owned(), json!({"uid": trace}));
        }
    }
    api
}

/// What has no place in the classes.
fn unmapped(record: &Record) -> Value {
    const MAPPED: [&str; 16] = [
        "seq",
        "time",
        "log",
        "principal",
        "credential",
        "key",
        "tenant",
        "client",
        "via",
        "session",
        "code",
        "rule",
        "count",
        "latency_us",
        "note",
        "trace_id",
    ];
    match record.to_json() {
        Value::Object(members) => Value::Object(members.into_iter().filter(|(k, _)| !MAPPED.contains(&k.as_str())).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{AuditEvent, Decision};
    use portcullis_model::{PrincipalId, Timestamp, Whence};

    fn record(event: AuditEvent) -> Record {
        Record { chain: "audit-a".into(), sequence: 7, time: Timestamp::from_seconds(1_800_000_000), event, line: String::new() }
    }

    #[test]
    fn a_refused_call_is_api_activity_that_failed() {
        let event = AuditEvent::new(EventKind::Refused)
            .principal_id(PrincipalId::new("key:abc").unwrap())
            .whence(Some(&Whence::direct("192.0.2.7:5000".parse().unwrap())))
            .method("tools/call")
            .tool("delete_pod")
            .decided(Decision::Deny, "write-gate")
            .code(Some(FaultCode::Forbidden))
            .sources(["cluster"])
            .count(12)
            .latency_us(2_500);
        let event = to_ocsf(&record(event));
        assert_eq!((event["count"].as_u64(), &event["unmapped"]["count"]), (Some(12), &Value::Null));
        assert_eq!((event["class_uid"].as_u64(), event["category_uid"].as_u64()), (Some(6_003), Some(6)));
        assert_eq!(event["type_uid"], 600_399);
        assert_eq!(event["api"]["operation"], "delete_pod");
        assert_eq!(event["api"]["response"]["error"], "forbidden");
        assert_eq!(event["src_endpoint"], json!({"ip": "192.0.2.7", "port": 5000}));
        assert_eq!(event["actor"]["user"]["name"], "key:abc");
        assert_eq!((event["status_id"].as_u64(), event["severity_id"].as_u64()), (Some(2), Some(3)));
        assert_eq!(event["metadata"]["version"], OCSF_VERSION);
        assert_eq!((event["time"].as_i64(), event["duration"].as_u64()), (Some(1_800_000_000_000), Some(2)));
        assert_eq!(event["unmapped"]["sources"], json!(["cluster"]));
    }

    #[test]
    fn the_proxies_in_between_stand_beside_the_client() {
        let whence = Whence::relayed("198.51.100.7".parse().unwrap(), "10.1.1.1, 10.0.0.5");
        let event = to_ocsf(&record(AuditEvent::new(EventKind::Call).whence(Some(&whence))));
        let expected = json!({"ip": "198.51.100.7", "intermediate_ips": ["10.1.1.1", "10.0.0.5"]});
        assert_eq!((&event["src_endpoint"], &event["unmapped"]["via"]), (&expected, &Value::Null));
        let unplaced = Whence::unplaced("192.0.2.7:5".parse().unwrap(), Some("x-forwarded-for: 10.0.0.1"));
        let event = to_ocsf(&record(AuditEvent::new(EventKind::Call).whence(Some(&unplaced))));
        assert_eq!(event["src_endpoint"], json!({"ip": "192.0.2.7", "port": 5}));
        assert_eq!(event["unmapped"]["claimed"], "x-forwarded-for: 10.0.0.1");
    }

    #[test]
    fn a_credential_is_authentication_with_its_user() {
        let who = PrincipalId::new("user:anna").unwrap();
        let event = AuditEvent::new(EventKind::Authentication).principal_id(who).decided(Decision::Allow, "password");
        let event = to_ocsf(&record(event));
        assert_eq!((event["class_uid"].as_u64(), event["type_uid"].as_u64()), (Some(3_002), Some(300_201)));
        assert_eq!(event["user"]["name"], "user:anna");
        assert_eq!(event["service"]["name"], "portcullis");
        assert!(event.get("api").is_none());
        let refused = AuditEvent::new(EventKind::Ingest).method("authenticate").decided(Decision::Deny, "unknown_key");
        let refused = to_ocsf(&record(refused.code(Some(FaultCode::Unauthenticated))));
        assert_eq!((refused["type_uid"].as_u64(), refused["status_id"].as_u64()), (Some(300_201), Some(2)), "{refused}");
        has_what_is_required(&refused);
    }

    /// Attributes the schema 1.3.0 requires of both classes, and the constraints of the objects in them.
    fn has_what_is_required(event: &Value) {
        for attribute in ["activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"] {
            assert!(!event[attribute].is_null(), "{attribute} in {event}");
        }
        let number = |name: &str| event[name].as_u64().unwrap();
        assert_eq!(number("type_uid"), number("class_uid") * 100 + number("activity_id"));
        assert_eq!(number("category_uid"), number("class_uid") / 1_000);
        assert!([0, 1, 2, 3, 4, 5, 6, 99].contains(&number("severity_id")) && [0, 1, 2, 99].contains(&number("status_id")));
        let product = &event["metadata"]["product"];
        assert!(event["metadata"]["version"].is_string() && product["name"].is_string() && product["vendor_name"].is_string());
        let one_of = |object: &Value, names: &[&str]| names.iter().any(|name| !object[*name].is_null());
        assert!(one_of(&event["actor"], &["process", "user", "invoked_by", "session", "app_name"]), "{event}");
        assert!(one_of(&event["actor"]["user"], &["name", "uid", "account"]), "{event}");
        assert!(one_of(&event["src_endpoint"], &["ip", "uid", "name", "hostname", "svc_name", "instance_uid"]), "{event}");
        match number("class_uid") {
            AUTHENTICATION => {
                assert!(one_of(&event["user"], &["name", "uid"]) && one_of(event, &["service", "dst_endpoint"]), "{event}");
                assert!((0..=6).contains(&number("activity_id")) || number("activity_id") == OTHER);
            }
            API_ACTIVITY => {
                assert!(event["api"]["operation"].as_str().is_some_and(|operation| !operation.is_empty()), "{event}");
                assert!((0..=4).contains(&number("activity_id")) || number("activity_id") == OTHER);
                let request = &event["api"]["request"];
                assert!(request.is_null() || request["uid"].is_string(), "a request has its uid: {event}");
            }
            other => panic!("class {other}"),
        }
        // Times are milliseconds; attributes that end in _dt would need the profile for them.
        assert!(event["time"].as_i64().unwrap() > 1_000_000_000_000);
        assert!(!event.to_string().contains("_dt\":"), "{event}");
    }

    #[test]
    fn every_kind_of_record_has_what_its_class_requires() {
        let kinds = [
            "intent",
            "call",
            "refused",
            "failed",
            "lookup",
            "authentication",
            "key",
            "config",
            "start",
            "stop",
            "ingest",
            "charter",
            "approval",
            "policy",
            "secret",
            "plugin",
            "bypass",
            "lockout",
            "error",
            "sink",
            "retention",
            "erased",
            "checkpoint",
            "opened",
            "continued",
            "recovered",
            "closed",
            "other",
        ];
        for name in kinds {
            let kind: EventKind = serde_json::from_value(json!(name)).unwrap();
            let bare = AuditEvent::new(kind);
            has_what_is_required(&to_ocsf(&record(bare.clone())));
            let full = bare
                .principal_id(PrincipalId::new("key:abc").unwrap())
                .whence(Some(&Whence::direct("[2001:db8::1]:5000".parse().unwrap())))
                .session("s-1")
                .method("tools/call")
                .tool("query_logs")
                .trace_id("0af7651916cd43dd8448eb211c80319c")
                .decided(Decision::Deny, "rule")
                .code(Some(FaultCode::Unavailable));
            has_what_is_required(&to_ocsf(&record(full)));
        }
    }

    #[test]
    fn an_activity_without_a_number_keeps_its_own_name() {
        let event = to_ocsf(&record(AuditEvent::new(EventKind::Call).method("tools/call")));
        assert_eq!((event["activity_id"].as_u64(), event["activity_name"].as_str()), (Some(99), Some("tools/call")));
        assert_eq!(event["type_name"], "API Activity: Other");
    }

    #[test]
    fn what_is_about_to_begin_has_no_outcome_and_is_told_from_the_call() {
        let intent = AuditEvent::new(EventKind::Intent).method("call.intent").tool("restart").decided(Decision::Allow, "r");
        let event = to_ocsf(&record(intent));
        assert_eq!((event["status_id"].as_u64(), event["activity_name"].as_str()), (Some(0), Some("call.intent")), "{event}");
        let end = AuditEvent::new(EventKind::Call).method("tools/call").tool("restart").intent("audit-a/6");
        assert_eq!(to_ocsf(&record(end))["unmapped"]["intent"], "audit-a/6");
    }

    #[test]
    fn operations_have_their_activity() {
        for (method, activity) in
            [("key.create", 1), ("key.revoke", 4), ("policy.loaded", 3), ("resources/read", 2), ("tools/call", 99)]
        {
            let event = to_ocsf(&record(AuditEvent::new(EventKind::Key).method(method)));
            assert_eq!(event["activity_id"], activity, "{method}");
        }
    }
}
