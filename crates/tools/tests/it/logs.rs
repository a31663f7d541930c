//! `query_logs` and `log_patterns`.

use std::collections::BTreeSet;

use portcullis_model::{Severity, Signal};
use portcullis_ports::Arguments;
use serde_json::json;

use crate::fake::{Fake, shared};
use crate::support::{House, ago, house, record};

fn two_sources() -> House {
    let mut a = Fake::new("a", &[Signal::Logs]);
    let mut b = Fake::new("b", &[Signal::Logs]);
    for n in 0..57u64 {
        // Several records share a time stamp, within and across sources.
        a.logs.push(record(ago(100 + n / 3), "cart", Severity::Info, &format!("a-{n}")));
        if n % 2 == 0 {
            b.logs.push(record(ago(100 + n / 4), "checkout", Severity::Error, &format!("b-{n}")));
        }
    }
    house(vec![shared(a), shared(b)])
}

#[tokio::test]
async fn a_cursor_walk_covers_everything_exactly_once() {
    let house = two_sources();
    for limit in [1, 7, 20, 200] {
        let mut seen: Vec<String> = Vec::new();
        let mut arguments = json!({"limit": limit});
        loop {
            let said = house.ask("query_logs", arguments.clone()).await;
            assert_eq!(said.data["total"], 86);
            seen.extend(said.data["records"].as_array().unwrap().iter().map(|r| r["body"].as_str().unwrap().to_owned()));
            let Some(next) = said.data["next"].as_str() else {
                assert_eq!(said.data["truncated"], false);
                break;
            };
            assert_eq!(said.data["truncated"], true);
            arguments["cursor"] = json!(next);
        }
        let distinct: BTreeSet<&String> = seen.iter().collect();
        assert_eq!((seen.len(), distinct.len()), (86, 86), "limit {limit}");
    }
}

#[tokio::test]
async fn a_cursor_of_another_question_is_refused() {
    let house = two_sources();
    let next = house.ask("query_logs", json!({"limit": 5})).await.data["next"].as_str().unwrap().to_owned();
    for arguments in
        [json!({"limit": 5, "service": "cart", "cursor": next}), json!({"cursor": "AAAA"}), json!({"cursor": "not base64!"})]
    {
        let fault = house.refused("query_logs", arguments).await;
        assert!(fault.message().starts_with("cursor:"), "{fault:?}");
    }
}

#[tokio::test]
async fn a_cursor_says_how_far_back_its_window_reads() {
    let house = two_sources();
    let tool = house.tool("query_logs");
    let arguments = json!({"limit": 5, "start": "now-7d", "end": "now"});
    let next = house.ask("query_logs", arguments.clone()).await.data["next"].as_str().unwrap().to_owned();
    let reach = |cursor: &str| {
        let mut arguments = Arguments(arguments.as_object().unwrap().clone());
        arguments.0.insert("cursor".to_owned(), json!(cursor));
        tool.reach_back(&arguments).map(|reach| reach.as_secs())
    };
    assert_eq!(reach(&next), Some(7 * 86_400));
    assert_eq!(reach("AAAA"), None, "what cannot be read is not short");
    assert_eq!(tool.cursor_argument(), Some("cursor"));
}

#[tokio::test]
async fn filters_narrow_and_totals_are_of_the_filter() {
    let house = two_sources();
    let said = house.ask("query_logs", json!({"service": "checkout", "level": "error", "text": "B-1", "limit": 3})).await;
    // b-1x with even x, and b-1 is odd: b-10, b-12, b-14, b-16, b-18.
    assert_eq!((said.data["shown"].as_u64(), said.data["total"].as_u64()), (Some(3), Some(5)));
    let said = house.ask("query_logs", json!({"regex": "^a-(1|2)$"})).await;
    assert_eq!(said.data["total"], 2);
    assert!(said.text.contains("looked and found nothing: b"), "{}", said.text);
}

#[tokio::test]
async fn counts_add_up_over_sources() {
    let house = two_sources();
    let said = house.ask("query_logs", json!({"count_by": ["service", "severity"]})).await;
    let groups = said.data["groups"].as_array().unwrap();
    assert_eq!(groups[0], json!({"key": {"service": "cart", "severity": "info"}, "count": 57}));
    assert_eq!(groups[1]["count"], 29);
    assert_eq!(said.data["records_total"], 86);
    let said = house.ask("query_logs", json!({"step": "1m", "window": "5m"})).await;
    let buckets = said.data["groups"][0]["over_time"].as_array().unwrap();
    let sum: u64 = buckets.iter().map(|b| b[1].as_u64().unwrap()).sum();
    assert_eq!(sum, 86);
}

#[tokio::test]
async fn repetitions_fold_and_long_bodies_say_so() {
    let mut fake = Fake::new("a", &[Signal::Logs]);
    for n in 0..12 {
        fake.logs.push(record(ago(10 + n), "cart", Severity::Warn, "retrying"));
    }
    fake.logs.push(record(ago(30), "cart", Severity::Error, &"x".repeat(2_000)));
    fake.logs.push(record(ago(31), "cart", Severity::Error, "two\nlines\u{1b}[31m"));
    let house = house(vec![shared(fake)]);
    let said = house.ask("query_logs", json!({})).await;
    assert_eq!(said.data["records"].as_array().unwrap().len(), 3);
    assert_eq!(said.data["records"][0]["count"], 12);
    assert_eq!(said.data["shown"], 14);
    assert!(said.text.contains("(×12 since 09:59:39)"), "{}", said.text);
    assert!(said.text.contains("…(+1700 chars)") && said.text.contains("bodies are cut"), "{}", said.text);
    assert!(said.text.contains("two\\nlines\\u{1b}[31m"), "{}", said.text);
    let said = house.ask("query_logs", json!({"level": "error", "limit": 3})).await;
    assert!(!said.text.contains("chars)"), "{}", said.text);
}

#[tokio::test]
async fn around_a_moment() {
    let house = two_sources();
    let said = house.ask("query_logs", json!({"around": "now-110s", "window": "4s"})).await;
    assert_eq!(said.data["window"], json!({"start": "2026-03-01T09:58:08Z", "end": "2026-03-01T09:58:12Z"}));
    assert!(said.data["total"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn nonsense_is_refused_with_what_would_be_right() {
    let house = two_sources();
    let cases = [
        (json!({"window": "banana"}), "15m"),
        (json!({"window": "99999d"}), "400d"),
        (json!({"start": "yesterday"}), "now-15m"),
        (json!({"level": "loud"}), "trace, debug, info, warn, error, fatal"),
        (json!({"regex": "("}), "regular expression"),
        (json!({"text": "a", "regex": "a"}), "exclude each other"),
        (json!({"text": ""}), "empty"),
        (json!({"limit": 0}), "1 to 200"),
        (json!({"trace_id": "xyz"}), "trace id"),
        (json!({"labels": {"a b": "c"}}), "label name"),
        (json!({"labels": {"a": "=~("}}), "regular expression"),
        (json!({"count_by": ["service"], "cursor": "x"}), "cursor"),
        (json!({"step": "1s", "window": "1h"}), "buckets"),
        (json!({"servce": "cart"}), "servce"),
        (json!({"around": "now-1m", "start": "now-2m"}), "around"),
    ];
    for (arguments, expected) in cases {
        let shown = arguments.to_string();
        let fault = house.refused("query_logs", arguments).await;
        let whole = format!("{} {}", fault.message(), fault.hint().unwrap_or_default());
        assert!(whole.contains(expected), "{shown}: {whole}");
    }
}

fn changed_logs() -> House {
    let mut fake = Fake::new("a", &[Signal::Logs]);
    for n in 0..600u64 {
        fake.logs.push(record(ago(n * 7), "cart", Severity::Info, &format!("served request {n} in {} ms", n % 9)));
    }
    for n in 0..8u64 {
        fake.logs.push(record(ago(30 + n * 20), "stock", Severity::Error, &format!("no connection after {} ms", 2000 + n)));
        fake.logs.push(record(ago(2_000 + n * 100), "stock", Severity::Info, &format!("heartbeat {n} ok")));
    }
    house(vec![shared(fake)])
}

#[tokio::test]
async fn patterns_put_new_and_severe_ones_first() {
    let house = changed_logs();
    let said = house.ask("log_patterns", json!({})).await;
    let patterns = said.data["patterns"].as_array().unwrap();
    assert_eq!(
        (patterns[0]["new"].as_bool(), patterns[0]["count"].as_u64(), patterns[0]["level"].as_str()),
        (Some(true), Some(8), Some("error"))
    );
    assert!(patterns[0]["template"].as_str().unwrap().starts_with("no connection after"), "{patterns:?}");
    assert!((2..=3).contains(&patterns[0]["examples"].as_array().unwrap().len()));
    assert_eq!(patterns[1]["new"], false);
    assert_eq!(said.data["gone_total"], 1);
    assert!(said.text.contains("heartbeat"), "{}", said.text);
    let said = house.ask("log_patterns", json!({"service": "stock", "compare": "none"})).await;
    assert!(!said.text.contains("NEW"), "{}", said.text);
}

#[tokio::test]
async fn patterns_without_a_line_do_not_claim_anything() {
    let house = changed_logs();
    let said = house.ask("log_patterns", json!({"service": "cart", "level": "fatal"})).await;
    assert_eq!(said.data["shown"], 0);
    assert!(said.text.contains("No line matches"), "{}", said.text);
}
