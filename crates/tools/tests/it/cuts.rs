//! Secrets that straddle the place where a tool cuts, and values that stand apart from the name that tells what they are, from
//! sources that redact nothing themselves.

use std::collections::BTreeMap;

use portcullis_model::{Alert, AlertState, LogRecord, Severity, Signal};
use portcullis_ports::{Content, Outcome};
use serde_json::{Value, json};

use crate::fake::{Fake, shared};
use crate::support::{House, ago, house, record, releaser};

/// A secret in its words, and the beginning of it that nobody may see.
fn secrets() -> Vec<(String, String)> {
    [
        ("connecting to postgres://svc:", "PgLongPass123xyz", "@db:5432/orders"),
        ("using key AK", "IAIOSFODNN7EXAMPLE", " for upload"),
        ("using key gh", "p_16C7e42F292c6912E7710c838347Ae178B4a", " for upload"),
        ("using key sk", "_live_4eC39HqLyjWDarjtT1zdp7dc", " for upload"),
        ("card ", "4111 1111 1111 1111", " declined"),
        ("user ", "anna.smith@example.org", " signed in"),
        ("retry with password=", "Tiger4711xLily", " failed"),
    ]
    .into_iter()
    .map(|(front, secret, behind)| (format!("{front}\u{0}{secret}{behind}"), secret.chars().take(8).collect()))
    .collect()
}

/// Every secret behind words that put a cut after `most` characters into its last quarter, and right behind its end.
fn straddling(most: usize) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (text, start) in secrets() {
        let (front, rest) = text.split_once('\u{0}').unwrap();
        let length = rest.find(['@', ' ']).filter(|at| *at > 8).unwrap_or(16);
        for inside in [length * 3 / 4, length] {
            let Some(room) = most.checked_sub(front.chars().count() + inside + 1) else { continue };
            let words: String = "waited again ".chars().cycle().take(room).collect();
            all.push((format!("{words} {front}{rest}"), start.clone()));
        }
    }
    all
}

/// Where tools cut.
const CUTS: [usize; 9] = [80, 100, 120, 160, 200, 240, 300, 400, 500];

/// What the gate sends of an answer.
async fn sent(house: &House, name: &str, arguments: Value) -> String {
    let output = house.output(name, arguments).await.unwrap();
    let released = releaser().outcome(&house.permit(name), Outcome::Complete(output)).unwrap();
    let Outcome::Complete(output) = released.into_inner() else { panic!("not complete") };
    let texts = output.content.iter().filter_map(|content| match content {
        Content::Text(text) => Some(text.clone()),
        _ => None,
    });
    let structured = output.structured.map(|value| value.to_string());
    texts.chain(structured).collect::<Vec<_>>().join("\n")
}

fn none_is_in(shown: &str, what: &str) {
    for (_, start) in secrets() {
        assert!(!shown.contains(&start), "{what} shows {start}: {shown}");
    }
}

/// Logs and alerts with secrets that straddle these cuts, and how many there are.
fn planted(cuts: &[usize]) -> (House, u64) {
    let (mut logs, mut alerts) = (Fake::new("a", &[Signal::Logs]), Fake::new("b", &[Signal::Alerts]));
    let mut planted = 0;
    for (text, _) in cuts.iter().flat_map(|most| straddling(*most)) {
        planted += 1;
        let noted = record(ago(100 + planted), "cart", Severity::Error, &text);
        logs.logs.push(LogRecord { attributes: BTreeMap::from([("note".to_owned(), text.clone())]), ..noted });
        alerts.alerts.push(Alert {
            name: format!("High{planted}"),
            state: AlertState::Firing,
            severity: None,
            labels: BTreeMap::from([("note".to_owned(), text.clone()), ("job".to_owned(), text.clone())]),
            annotations: BTreeMap::from([("summary".to_owned(), text)]),
            active_since: None,
            value: None,
        });
    }
    (house(vec![shared(logs), shared(alerts)]), planted)
}

#[tokio::test]
async fn no_half_of_a_secret_is_left_where_a_tool_cuts() {
    let houses: Vec<(House, u64)> = CUTS.chunks(3).map(planted).collect();
    assert!(houses.iter().map(|(_, planted)| planted).sum::<u64>() > 80);
    for (name, arguments) in [
        ("query_logs", json!({"limit": 200, "attributes": true})),
        ("query_logs", json!({"limit": 200, "count_by": ["note"]})),
        ("query_logs", json!({"limit": 200, "count_by": ["service", "note"], "step": "1m"})),
        ("log_patterns", json!({"limit": 100})),
        ("list_alerts", json!({"limit": 200})),
    ] {
        let mut shown = String::new();
        for (house, _) in &houses {
            shown.push_str(&sent(house, name, arguments.clone()).await);
        }
        assert!(shown.contains("chars)"), "{name} cut nothing: {shown}");
        none_is_in(&shown, name);
    }
}

#[tokio::test]
async fn a_value_apart_from_its_name_is_judged_by_it_and_tells_nothing_by_its_group() {
    let mut fake = Fake::new("a", &[Signal::Logs]);
    for (at, password) in ["Tiger 4711 and Lily", "Zebra4712x", "Tiger 4711 and Lily", "Aardvark1x"].into_iter().enumerate() {
        let one = record(ago(100 + at as u64), "cart", Severity::Error, "log-in");
        let attributes =
            BTreeMap::from([("db.password".to_owned(), password.to_owned()), ("pod".to_owned(), "cart-1".to_owned())]);
        fake.logs.push(LogRecord { attributes, ..one });
    }
    let house = house(vec![shared(fake)]);
    for arguments in [
        json!({"count_by": ["db.password"]}),
        json!({"count_by": ["pod", "db.password"]}),
        json!({"count_by": ["db.password"], "step": "1m"}),
        json!({"attributes": true}),
    ] {
        let shown = sent(&house, "query_logs", arguments.clone()).await;
        for word in ["Tiger", "Lily", "Zebra", "Aardvark"] {
            assert!(!shown.contains(word), "{arguments}: {shown}");
        }
        assert!(shown.contains("[redacted:"), "{arguments}: {shown}");
    }
    let said = house.ask("query_logs", json!({"count_by": ["db.password"]})).await;
    let groups = said.data["groups"].as_array().unwrap();
    assert_eq!((groups.len(), &groups[0]["count"]), (1, &json!(4)), "{}", said.data);
}
