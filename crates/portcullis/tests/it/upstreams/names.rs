//! What is written about a name, rules, approvals, habits, is about what had the name then: it never comes to mean the tool or
//! resource of somebody else.

use serde_json::{Value, json};

use super::{Puppet, accept_all, home, sees, stands, tool, tools, until};
use crate::server::Server;
use crate::visitor::Visitor;

fn answers_of(visitor: &Visitor, name: &str) -> String {
    let reply = visitor.call(name, &json!({"q": "x"})).json();
    reply["result"]["content"][0]["text"].as_str().map_or_else(|| reply.to_string(), str::to_owned)
}

#[test]
fn a_name_stays_with_the_upstream_it_was_accepted_for_also_while_its_tool_is_held() {
    let search = |says: &str| json!({"tools": [tool("search", says)]});
    let puppets = [Puppet::new(&search("In a.")), Puppet::new(&search("In b."))];
    let entries = [puppets[0].entry("a", "", ""), puppets[1].entry("b", "", "")];
    let server = Server::start_in(home(&entries, ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    until("both wait", || if super::listed(&server.home).len() == 2 { Ok(()) } else { Err(server.log()) });
    accept_all(&server.home, "a");
    sees(&visitor, "search", true);
    // The scanner says that the name is taken; that is what this is about.
    server.home.run_ok(&["upstream", "review", "b"]);
    server.home.run_ok(&["upstream", "accept", "b", "search", "--despite-findings"]);
    sees(&visitor, "b_search", true);
    puppets[0].order(&search("In a, and elsewhere."));
    stands(&server.home, "search", "changed");
    sees(&visitor, "search", false);
    let all = tools(&visitor);
    assert!(all.contains(&"b_search".to_owned()) && !all.contains(&"search".to_owned()), "{all:?}");
    assert!(answers_of(&visitor, "search").contains("unknown tool"));
    assert_eq!(visitor.call("b_search", &json!({})).json()["result"]["isError"], false);
    // Neither when it is no longer listed, rejected, or the server was started anew.
    puppets[0].order(&json!({"tools": []}));
    server.home.run_ok(&["upstream", "review", "a"]);
    server.home.run_ok(&["upstream", "reject", "a", "search"]);
    let server = Server::start_in(server.kill());
    let visitor = Visitor { mcp: server.mcp, ..visitor };
    sees(&visitor, "b_search", true);
    assert!(!tools(&visitor).contains(&"search".to_owned()));
}

#[test]
fn who_was_accepted_first_keeps_the_name_wherever_it_stands_in_the_file() {
    let search = |says: &str| json!({"tools": [tool("search", says)]});
    let puppets = [Puppet::new(&search("In a.")), Puppet::new(&search("In b."))];
    let entries = [puppets[0].entry("a", "", ""), puppets[1].entry("b", "", "")];
    let server = Server::start_in(home(&entries, ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    until("both wait", || if super::listed(&server.home).len() == 2 { Ok(()) } else { Err(server.log()) });
    accept_all(&server.home, "b");
    sees(&visitor, "search", true);
    let before = answers_of(&visitor, "search");
    server.home.run_ok(&["upstream", "review", "a"]);
    server.home.run_ok(&["upstream", "accept", "a", "search", "--despite-findings"]);
    sees(&visitor, "a_search", true);
    let pid = |answer: &str| answer.split_once("\"pid\": ").map(|(_, rest)| rest.split('}').next().unwrap().to_owned());
    assert_eq!(pid(&answers_of(&visitor, "search")), pid(&before), "still the one of b");
    assert_ne!(pid(&answers_of(&visitor, "a_search")), pid(&before));
}

#[test]
fn a_fixed_address_is_read_from_its_maker_whosever_template_fits_it() {
    let a = Puppet::new(&json!({"templates": [{"uriTemplate": "note://{+path}", "name": "everything"}], "says": "a: "}));
    let orders = |description: &str| {
        let fixed = json!({"uri": "note://x", "name": "x", "description": description});
        json!({"resources": [fixed], "templates": [{"uriTemplate": "note://{+path}", "name": "mine too"}], "says": "b: "})
    };
    let b = Puppet::new(&orders("One."));
    let server = Server::start_in(home(&[a.entry("a", "", ""), b.entry("b", "", "")], ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    until("all wait", || if super::listed(&server.home).len() == 3 { Ok(()) } else { Err(server.log()) });
    accept_all(&server.home, "a");
    accept_all(&server.home, "b");
    let read = |uri: &str| visitor.ask("resources/read", &json!({ "uri": uri })).json();
    let from = |reply: &Value, whose: &str| reply["result"]["contents"][0]["text"].as_str().is_some_and(|t| t.contains(whose));
    until("both are offered", || {
        let (one, other) = (read("note://x"), read("note://y"));
        if from(&one, "b: ") && from(&other, "a: ") { Ok(()) } else { Err(format!("{one} {other}")) }
    });
    // The second to claim a template is told so.
    let report = server.home.run(&["doctor", "--json"]);
    assert!(String::from_utf8_lossy(&report.stdout).contains("is another upstream's already"), "{report:?}");
    b.order(&orders("Another one."));
    stands(&server.home, "note://x", "changed");
    until("it is held", || {
        let reply = read("note://x");
        assert!(!from(&reply, "a: "), "never read from another one: {reply}");
        if reply.get("error").is_some() { Ok(()) } else { Err(reply.to_string()) }
    });
}
