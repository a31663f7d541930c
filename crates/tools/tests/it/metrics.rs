//! `query_metrics` and `find_metrics`.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_model::{NameSet, Sample, Series, Signal};
use portcullis_ports::Arguments;
use serde_json::json;

use crate::fake::{Fake, Metric, shared};
use crate::support::{House, NOW, ago, house, tokens};

fn series(labels: &[(&str, &str)], value: impl Fn(u64) -> f64) -> Series {
    // Every 15 s over two hours, oldest first.
    let samples =
        (1..=480u64).rev().map(|n| Sample { at: NOW.minus(Duration::from_secs(15 * n)), value: value(15 * n) }).collect();
    Series { labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(), samples }
}

fn cpu_house() -> House {
    let mut fake = Fake::new("prom", &[Signal::Metrics]);
    let mut all: Vec<Series> =
        (0..30).map(|n| series(&[("service", "cart"), ("pod", &format!("cart-{n:02}"))], |_| 0.05)).collect();
    // One replica burns, and only since ten minutes ago, with one peak.
    all.push(series(&[("service", "cart"), ("pod", "cart-hot")], |back| match back {
        300 => 0.991,
        b if b <= 600 => 0.9,
        _ => 0.05,
    }));
    fake.metrics.insert("cpu".to_owned(), Metric { unit: "1".to_owned(), series: all });
    fake.metrics
        .insert("queue_length".to_owned(), Metric { unit: String::new(), series: vec![series(&[("q", "x")], |b| b as f64)] });
    house(vec![shared(fake)])
}

#[tokio::test]
async fn every_series_counts_and_the_worst_comes_first() {
    let house = cpu_house();
    let said = house.ask("query_metrics", json!({"metric": "cpu", "service": "cart"})).await;
    let first = &said.data["series"][0];
    assert_eq!(first["labels"]["pod"], "cart-hot");
    assert_eq!((first["max"].as_f64(), first["max_at"].as_str()), (Some(0.991), Some("2026-03-01T09:55:00Z")));
    assert_eq!((said.data["shown"].as_u64(), said.data["total"].as_u64()), (Some(10), Some(31)));
    assert!(said.text.contains("10 of 31 series") && said.text.contains("99.1%"), "{}", said.text);
    assert!(first["change"].as_f64().unwrap() > 5.0, "{first}");
    // It leapt ten minutes ago, five into the window, and stayed there.
    assert_eq!(first["trend"], "jumped at 09:50:00", "{}", said.text);
    assert!(said.text.contains("jumped at 09:50:00"), "{}", said.text);
    assert!(tokens(&said.text) < 600, "{} tokens\n{}", tokens(&said.text), said.text);
}

#[tokio::test]
async fn points_only_on_request_and_peaks_survive() {
    let house = cpu_house();
    let arguments = json!({"metric": "cpu", "labels": {"pod": "cart-hot"}, "window": "2h", "compare": "none"});
    let said = house.ask("query_metrics", arguments.clone()).await;
    assert!(said.data["series"][0].get("points").is_none());
    let mut with_points = arguments;
    with_points["points"] = json!(true);
    let said = house.ask("query_metrics", with_points).await;
    let points = &said.data["series"][0]["points"];
    let values = points["values"].as_array().unwrap();
    assert!(values.len() <= 60, "{}", values.len());
    assert!(values.contains(&json!(0.991)), "{values:?}");
}

#[tokio::test]
async fn change_is_against_the_window_asked_for() {
    let mut fake = Fake::new("prom", &[Signal::Metrics]);
    // Like yesterday, unlike the quarter of an hour before.
    let day = |back: u64| if back <= 900 { 10.0 } else { 2.0 };
    let mut rising = series(&[("service", "a")], day);
    let yesterday = (1..=60u64).map(|n| Sample { at: ago(86_400 + 15 * n), value: 10.0 });
    rising.samples.splice(0..0, yesterday.collect::<Vec<_>>().into_iter().rev());
    fake.metrics.insert("m".to_owned(), Metric { unit: String::new(), series: vec![rising] });
    let house = house(vec![shared(fake)]);
    let before = |said: &crate::support::Said| said.data["series"][0]["mean_before"].as_f64();
    assert_eq!(before(&house.ask("query_metrics", json!({"metric": "m"})).await), Some(2.0));
    assert_eq!(before(&house.ask("query_metrics", json!({"metric": "m", "compare": "day"})).await), Some(10.0));
    assert_eq!(before(&house.ask("query_metrics", json!({"metric": "m", "compare": "none"})).await), None);
    let week = house.ask("query_metrics", json!({"metric": "m", "compare": "week"})).await;
    assert_eq!(week.data["series"][0]["new"], true, "{}", week.text);
}

#[tokio::test]
async fn a_plain_one_is_not_a_percentage_unless_it_means_one() {
    let mut fake = Fake::new("prom", &[Signal::Metrics]);
    fake.metrics.insert("jobs_waiting".to_owned(), Metric { unit: "1".to_owned(), series: vec![series(&[], |_| 5.0)] });
    let house = house(vec![shared(fake)]);
    let said = house.ask("query_metrics", json!({"metric": "jobs_waiting"})).await;
    assert!(said.text.contains("current 5,") && !said.text.contains("500%"), "{}", said.text);
}

#[tokio::test]
async fn contradictions_and_nonsense_are_refused() {
    let house = cpu_house();
    let cases = [
        (json!({}), "metric or query"),
        (json!({"metric": "cpu", "query": "up"}), "exclude each other"),
        (json!({"query": "up", "service": "cart"}), "inside the query"),
        (json!({"metric": "cpu", "group_by": ["pod"]}), "aggregation"),
        (json!({"metric": "cpu", "aggregation": "median"}), "maximum"),
        (json!({"metric": "cpu", "compare": "month"}), "previous, day, week, none"),
        (json!({"metric": "cpu", "window": "5 minutes"}), "15m"),
        (json!({"metric": "cpu", "aggregation": "sum", "group_by": ["a b"]}), "label name"),
        (json!({"metric": "cpu", "limit": 1000}), "1 to 100"),
    ];
    for (arguments, expected) in cases {
        let shown = arguments.to_string();
        let fault = house.refused("query_metrics", arguments).await;
        let whole = format!("{} {}", fault.message(), fault.hint().unwrap_or_default());
        assert!(whole.contains(expected), "{shown}: {whole}");
    }
}

#[tokio::test]
async fn look_back_cuts_the_comparison_too() {
    let mut house = cpu_house();
    house.scope.look_back = Some(Duration::from_mins(20));
    let said = house.ask("query_metrics", json!({"metric": "cpu"})).await;
    assert!(said.text.contains("compared with a shorter window"), "{}", said.text);
    let said = house.ask("query_metrics", json!({"metric": "cpu", "compare": "day"})).await;
    assert!(said.text.contains("not compared"), "{}", said.text);
    let said = house.ask("query_metrics", json!({"metric": "cpu", "window": "1h"})).await;
    assert!(said.text.contains("start moved to 2026-03-01T09:40:00Z"), "{}", said.text);
    house.scope.services = NameSet::only(["cart"]);
    assert!(house.output("query_metrics", json!({"metric": "cpu", "service": "cart"})).await.is_ok());
}

#[tokio::test]
async fn what_a_source_took_of_a_window_is_said_of_both_windows() {
    let asked = json!({"query": "up", "compare": "previous"});
    let shop = |warns| {
        let mut fake = Fake { warns: Some(warns), ..Fake::new("prom", &[Signal::Metrics]) };
        fake.metrics.insert("up".to_owned(), Metric { unit: String::new(), series: vec![series(&[("job", "a")], |_| 1.0)] });
        house(vec![shared(fake)])
    };
    let said = shop("the first value is of {start}").ask("query_metrics", asked.clone()).await;
    assert!(said.text.contains("prom warns: the first value is of 2026-03-01T09:45:00Z"), "{}", said.text);
    let earlier = "prom warns of the earlier window: the first value is of 2026-03-01T09:30:00Z";
    assert!(said.text.contains(earlier), "{}", said.text);
    let once = shop("store-1 did not answer").ask("query_metrics", asked).await;
    assert_eq!(once.text.matches("store-1 did not answer").count(), 1, "{}", once.text);
}

#[tokio::test]
async fn nothing_found_says_where_to_look() {
    let house = cpu_house();
    let said = house.ask("query_metrics", json!({"metric": "no_such_metric"})).await;
    assert!(
        !said.failed && said.text.contains("No series matches 'no_such_metric'") && said.text.contains("find_metrics"),
        "{}",
        said.text
    );
}

#[tokio::test]
async fn metrics_are_found_with_labels_and_pages() {
    let mut fake = Fake::new("prom", &[Signal::Metrics]);
    for n in 0..45 {
        let metric = Metric { unit: "By".to_owned(), series: vec![series(&[("pod", &format!("p{n}"))], |_| 1.0)] };
        fake.metrics.insert(format!("m_{n:02}_bytes"), metric);
    }
    let house = house(vec![shared(fake)]);
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut arguments = json!({"contains": "bytes", "limit": 20});
    loop {
        let said = house.ask("find_metrics", arguments.clone()).await;
        assert_eq!(said.data["total"], 45);
        for metric in said.data["metrics"].as_array().unwrap() {
            *seen.entry(metric["name"].as_str().unwrap().to_owned()).or_default() += 1;
            assert_eq!(metric["labels"], json!(["pod"]));
        }
        match said.data["next"].as_str() {
            Some(next) => arguments["cursor"] = json!(next),
            None => break,
        }
    }
    assert_eq!(seen.len(), 45);
    assert!(seen.values().all(|count| *count == 1));
    let said = house.ask("find_metrics", json!({"values_of": "pod", "limit": 3})).await;
    assert_eq!(said.data["values"], json!(["p0", "p1", "p10"]));
    assert_eq!(said.data["truncated"], true);
    assert!(house.refused("find_metrics", json!({"metric": "x"})).await.message().contains("values_of"));
}

#[test]
fn a_raw_query_says_how_far_back_it_reads_and_what_is_none_cannot() {
    let house = house(Vec::new());
    let tool = house.tool("query_metrics");
    for (arguments, seconds) in [
        (json!({"query": "up", "compare": "none"}), Some(900)),
        (json!({"query": "up"}), Some(1_800)),
        (json!({"query": "vector(1)", "window": "1h"}), Some(3_600)),
        (json!({"query": "up offset 10d", "compare": "none"}), Some(864_900)),
        (json!({"query": "max_over_time(up[30d])", "compare": "none"}), Some(2_592_900)),
        (json!({"query": "max_over_time(up[30d])", "compare": "week"}), Some(2_592_000 + 7 * 86_400 + 900)),
        (json!({"query": "up @ 1000000000"}), Some(772_359_200)),
        (json!({"query": "up offset -1h", "compare": "none"}), Some(900)),
        (json!({"query": "rate(up["}), None),
        (json!({"query": "up", "window": "soon"}), None),
        (json!({"query": "up", "compare": "year"}), None),
        (json!({"metric": "up"}), None),
    ] {
        let reach = tool.reach_back(&Arguments(arguments.as_object().unwrap().clone()));
        assert_eq!(reach.map(|reach| reach.as_secs()), seconds, "{arguments}");
    }
}
