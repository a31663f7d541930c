//! An answer as it is, for who was granted that: by a rule, for the calls that rule is about, for each call anew, and recorded
//! twice, with the rule that grants it: the wish before anything runs, and the release with the call.

use serde_json::{Value, json};

use crate::server::{Home, Reply, Server, intact};
use crate::visitor::Visitor;

/// A token no provider ever gave, put together so that no scanner takes this file for a leak.
const TOKEN: &str = concat!("gh", "p_0123456789abcdefghijABCDEFGHIJ456789");

const RULES: &str = r#"
@id("auditors-see-logs-as-they-are")
@unredacted("true")
permit (principal in Portcullis::Role::"admin", action == Portcullis::Action::"call", resource == Portcullis::Tool::"query_logs");
"#;

fn ask(visitor: &Visitor, tool: &str, arguments: &Value, wish: bool) -> Reply {
    let mut params = json!({"name": tool, "arguments": arguments});
    if wish {
        params["_meta"] = json!({"portcullis/unredacted": true});
    }
    visitor.ask("tools/call", &params)
}

#[test]
fn a_bare_answer_is_for_who_was_granted_it_for_each_call_and_recorded_twice() {
    let home = Home::new("");
    let rules = home.directory.path().join("own.cedar");
    std::fs::write(&rules, RULES).unwrap();
    let text = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, format!("{text}policies: ['{}']\n", rules.display())).unwrap();
    let (admin, reader) = (home.key(&["--role", "admin"]), home.key(&["--role", "reader"]));
    let server = Server::start_in(home);
    assert_eq!(server.send_log("checkout", 17, &format!("presented {TOKEN} to the hub")).status, 200);
    let (granted, other) = (Visitor::new(&server, &admin), Visitor::new(&server, &reader));
    let logs = json!({"window": "1h"});

    // Without the wish the grant changes nothing, and is no reason for a record.
    let plain = ask(&granted, "query_logs", &logs, false);
    assert!(plain.body.contains("[redacted:github-token]") && !plain.body.contains(TOKEN), "{}", plain.body);
    let records = |kind: &str| server.home.audit().into_iter().filter(|r| r["kind"] == kind).collect::<Vec<_>>();
    assert!(records("bypass").is_empty());

    let bare = ask(&granted, "query_logs", &logs, true);
    assert!(bare.body.contains(TOKEN), "{}", bare.body);
    let signs = bare.json()["result"]["_meta"].to_string();
    assert!(signs.contains("\"unredacted\":true"), "the answer says of itself what it is: {signs}");
    let principal = format!("key:{}", admin.split('_').nth(1).unwrap());
    let wishes = records("bypass");
    let [wish] = wishes.as_slice() else { panic!("{wishes:#?}") };
    assert_eq!(
        (&wish["principal"], &wish["tool"], &wish["decision"], &wish["rule"]),
        (&json!(principal), &json!("query_logs"), &json!("allow"), &json!("auditors-see-logs-as-they-are"))
    );
    let calls: Vec<Value> = records("call").into_iter().filter(|r| r["tool"] == "query_logs").collect();
    let [first, released] = calls.as_slice() else { panic!("{calls:#?}") };
    assert!(!first["note"].to_string().contains("without redaction"), "{first}");
    let note = released["note"].to_string();
    assert!(note.contains("released without redaction, by rule auditors-see-logs-as-they-are"), "{released}");
    assert_eq!(released["rule"], "admin-may-everything-enabled", "the call itself is allowed by another rule: {released}");
    assert!(wish["seq"].as_u64() < released["seq"].as_u64(), "the wish stands before the release");

    // Good once: the next answer is redacted again. And nothing of it is kept or written down.
    let again = ask(&granted, "query_logs", &logs, false);
    assert!(!again.body.contains(TOKEN), "{}", again.body);
    let written = format!("{}{}", server.log(), server.home.run_ok(&["audit", "query", "--json", "--limit", "10000"]));
    assert!(!written.contains(TOKEN), "{written}");

    // Another tool is not what the rule is about, and somebody else has no rule.
    let statement = json!({"query": "SELECT Body FROM otel_logs"});
    for (visitor, tool, arguments) in [(&granted, "sql", &statement), (&other, "query_logs", &logs), (&other, "sql", &statement)]
    {
        let refused = ask(visitor, tool, arguments, true);
        assert!(
            !refused.body.contains(TOKEN) && refused.body.contains("may not see unredacted answers"),
            "{tool}: {}",
            refused.body
        );
        let record = server.home.audited(|r| r["rule"] == "unredacted" && r["tool"] == tool);
        assert_eq!((&record["decision"], &record["code"]), (&json!("deny"), &json!("forbidden")), "{record}");
    }
    // What is not exactly the wish is none.
    for odd in [json!("true"), json!(1), json!({"a": true}), json!(false), Value::Null] {
        let params = json!({"name": "query_logs", "arguments": logs, "_meta": {"portcullis/unredacted": odd}});
        let reply = granted.ask("tools/call", &params);
        assert!(!reply.body.contains(TOKEN), "{odd}: {}", reply.body);
    }
    assert_eq!(records("bypass").len(), 1, "one wish was granted");
    assert!(intact(&server.home));
}
