//! The miner as a whole.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn line(at: i64, body: &str) -> LogLine<'_> {
    LogLine { at: Timestamp::from_seconds(at), severity: None, service: "shop", body }
}

fn mine(options: MinerOptions, current: &[&str], baseline: &[&str]) -> TemplateReport {
    let mut miner = Miner::new(options);
    for (at, body) in baseline.iter().enumerate() {
        miner.observe(Period::Baseline, &line(at as i64, body));
    }
    for (at, body) in current.iter().enumerate() {
        miner.observe(Period::Current, &line(1_000 + at as i64, body));
    }
    miner.report(Some(Windows { current: Duration::from_mins(1), baseline: Duration::from_mins(2) }))
}

#[test]
fn counts_times_services_and_examples() {
    let report =
        mine(MinerOptions::default(), &["took 5 ms", "took 7 ms", "took 7 ms", "took 9 ms"], &["took 5 ms", "took 4 ms"]);
    assert_eq!(report.templates.len(), 1);
    let template = &report.templates[0];
    assert_eq!((template.text.as_str(), template.count, template.baseline_count), ("took <*>", 4, Some(2)));
    assert_eq!(
        (template.first_seen, template.last_seen),
        (Some(Timestamp::from_seconds(1_000)), Some(Timestamp::from_seconds(1_003)))
    );
    assert_eq!(template.examples, ["took 5 ms", "took 7 ms"]);
    assert_eq!((template.new, template.rate_change), (Some(false), Some(4.0)));
    assert_eq!(template.services, [(Arc::from("shop"), 4)]);
}

#[test]
fn new_is_only_said_with_a_baseline_and_leads() {
    let usual = ["request served in 5 ms"; 50];
    let mut current: Vec<&str> = usual.to_vec();
    current.push("disk quota exceeded on volume data");
    let report = mine(MinerOptions::default(), &current, &usual);
    assert_eq!(report.templates[0].text, "disk quota exceeded on volume data");
    assert_eq!(report.templates[0].new, Some(true));
    let report = mine(MinerOptions::default(), &current, &[]);
    assert!(report.templates.iter().all(|t| t.new.is_none() && t.baseline_count.is_none() && t.rate_change.is_none()));
    let report = mine(MinerOptions::default(), &usual, &current);
    assert!(report.templates.iter().any(Template::gone));
}

#[test]
fn one_failing_request_among_many_is_a_template_of_its_own() {
    let mut bodies: Vec<String> =
        (0..2_000).map(|i| format!(r#"{{"level":"info","msg":"request done","status":200,"ms":{i}}}"#)).collect();
    bodies.push(r#"{"level":"info","msg":"request done","status":500,"ms":3}"#.to_owned());
    let borrowed: Vec<&str> = bodies.iter().map(String::as_str).collect();
    let report = mine(MinerOptions::default(), &borrowed, &[]);
    let texts: Vec<(&str, u64, bool)> = report.templates.iter().map(|t| (t.text.as_str(), t.count, t.rare)).collect();
    assert_eq!(texts, [("request done status=5xx", 1, true), ("request done", 2_000, false)]);
}

#[test]
fn severities_inside_bodies_count() {
    let report = mine(MinerOptions::default(), &[r#"{"level":"error","msg":"a b"}"#, "level=warn msg=\"c d\""], &[]);
    assert_eq!(report.templates[0].severities, SeverityCounts { error: 1, ..SeverityCounts::default() });
    assert_eq!(report.templates[1].severities.highest(), Some(Severity::Warn));
}

#[test]
fn memory_is_bounded_and_the_overflow_is_counted() {
    let word = |mut n: usize| {
        let mut out = String::new();
        for _ in 0..6 {
            out.push(char::from(b'a' + (n % 26) as u8));
            n /= 26;
        }
        out
    };
    let options = MinerOptions { max_skeletons: 64, ..MinerOptions::default() };
    let unlike: Vec<String> =
        (0..3_000).map(|i| format!("{} {} {}", word(i * 7919), word(i * 104_729 + 1), word(i * 31 + 5))).collect();
    let mut bodies: Vec<&str> = vec!["steady line of text"];
    bodies.extend(unlike.iter().map(String::as_str));
    bodies.push("steady line of text");
    let report = mine(options, &bodies, &[]);
    assert!(report.templates.len() <= 64 && report.overflow_lines > 2_000);
    assert_eq!(report.templates.iter().map(|t| t.count).sum::<u64>() + report.overflow_lines, bodies.len() as u64);
    assert!(report.templates.iter().any(|t| t.text == "steady line of text" && t.count == 2));
    let users: Vec<String> = (0..3_000).map(|i| format!("cannot log in user {} today", word(i * 7919))).collect();
    let bodies: Vec<&str> = users.iter().map(String::as_str).collect();
    let report = mine(options, &bodies, &[]);
    assert_eq!((report.templates.len(), report.overflow_lines), (1, 0), "what can be merged makes room");
    assert_eq!(report.templates[0].text, "cannot log in user <*> today");
}

#[test]
fn the_rare_variant_of_a_merged_template_is_among_the_examples() {
    let mut bodies: Vec<String> = Vec::new();
    for (name, count) in [("ann", 50), ("bob", 40), ("eve", 1)] {
        bodies.extend((0..count).map(|_| format!("session opened for user {name}")));
    }
    let borrowed: Vec<&str> = bodies.iter().map(String::as_str).collect();
    let report = mine(MinerOptions::default(), &borrowed, &[]);
    assert_eq!(report.templates.len(), 1);
    assert!(report.templates[0].examples.contains(&"session opened for user eve".to_owned()), "{report:?}");
}

proptest! {
    #[test]
    fn any_lines_are_all_counted_and_repeatable(
        bodies in prop::collection::vec(prop_oneof!["\\PC{0,60}", "[a-z]{1,3}( [a-z0-9=\"']{1,4}){0,5}", any::<String>()], 0..60),
    ) {
        let borrowed: Vec<&str> = bodies.iter().map(String::as_str).collect();
        let options = MinerOptions { max_skeletons: 16, ..MinerOptions::default() };
        let report = mine(options, &borrowed, &borrowed[..borrowed.len() / 2]);
        let counted: u64 = report.templates.iter().map(|t| t.count + t.baseline_count.unwrap_or(0)).sum::<u64>() + report.overflow_lines;
        prop_assert_eq!(counted, report.lines + report.baseline_lines);
        prop_assert_eq!(&report, &mine(options, &borrowed, &borrowed[..borrowed.len() / 2]));
    }
}
