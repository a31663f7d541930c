//! The estimate against the real tokenizer on what answers are made of.

use portcullis_model::{TimeWindow, Timestamp};
use portcullis_shape::{RangeOptions, TraceOptions, Unit, instant_table, render_range, render_trace, tokens::estimate};

use crate::inputs::{self, Dice};

fn log_lines() -> String {
    let mut dice = Dice(4);
    (0..60)
        .map(|i| match i % 4 {
            0 => format!(
                "2026-03-01T10:{:02}:{:02}.{:03}Z ERROR [checkout] payment failed for order {}: connection refused (attempt {})\n",
                dice.next() % 60, dice.next() % 60, dice.next() % 1000, dice.hex(16), dice.next() % 5
            ),
            1 => format!(
                "10.42.{}.{} - - \"GET /api/products/{} HTTP/1.1\" 200 {} \"-\" \"Mozilla/5.0 (X11; Linux x86_64)\" {:.3}\n",
                dice.next() % 9, dice.next() % 250, dice.next() % 10_000, dice.next() % 90_000, dice.unit()
            ),
            2 => format!(
                "level=warn ts=2026-03-01T10:00:{:02}Z caller=cache.go:{} msg=\"eviction pressure, dropped entries\" entries={} shard=shard-{}\n",
                dice.next() % 60, dice.next() % 900, dice.next() % 5000, dice.next() % 16
            ),
            _ => format!(
                "java.lang.IllegalStateException: Transaction {} was rolled back at com.shop.checkout.OrderService.place(OrderService.java:{})\n",
                dice.hex(8), dice.next() % 400
            ),
        })
        .collect()
}

#[test]
fn the_estimate_is_within_fifteen_percent() {
    let rows = inputs::instant_vector();
    let borrowed: Vec<_> = rows.iter().map(|(labels, value)| (labels, *value)).collect();
    let (table, options) = instant_table(&borrowed, None, Unit::None);
    let window = TimeWindow::new(Timestamp::from_seconds(inputs::START), Timestamp::from_seconds(inputs::START + 3600)).unwrap();
    let series = inputs::range();
    let trace = inputs::trace();
    let mut dice = Dice(5);
    let hex: String = (0..60).map(|_| dice.hex(32) + "\n").collect();
    let uuids: String = (0..60).map(|_| [8, 4, 4, 4, 12].map(|digits| dice.hex(digits)).join("-") + "\n").collect();
    let prose = "The checkout service is degraded: its 95th percentile latency rose from 210ms to 1.4s at 10:34, thirty seconds after \
        the payment service began to fail. No other service changed in that window. Two sources answered, one failed with a timeout, \
        so nothing can be said about its logs. Narrow the window or name a service to see single records.";
    let texts = [
        ("prometheus vector json", inputs::prometheus_vector(&rows).to_string()),
        ("prometheus matrix json", inputs::prometheus_matrix(&series).to_string()),
        ("otlp json", inputs::otlp(&trace).to_string()),
        ("pretty json", serde_json::to_string_pretty(&inputs::prometheus_vector(&rows[..8])).unwrap()),
        ("log lines", log_lines()),
        ("table", table.render(&options).text),
        ("range text", render_range(&series, window, &RangeOptions::default()).text),
        (
            "trace text",
            render_trace(&trace, &TraceOptions { fold_from: usize::MAX, max_lines: 200, ..TraceOptions::default() }).text,
        ),
        ("hex ids", hex),
        ("uuids", uuids),
        ("prose", prose.to_owned()),
    ];
    let mut worst: f64 = 0.0;
    for (name, text) in &texts {
        let exact = tiktoken_rs::o200k_base_singleton().encode_ordinary(text).len();
        let error = (estimate(text) as f64 / exact as f64 - 1.0) * 100.0;
        println!("{name}: estimated {} of {exact} ({error:+.1} %)", estimate(text));
        worst = worst.max(error.abs());
    }
    assert!(worst <= 15.0, "worst error {worst:.1} %");
}

#[test]
fn recorded_logs_are_estimated_well_too() {
    let data = std::env::var_os("PORTCULLIS_DATA")
        .map_or_else(|| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), std::path::PathBuf::from);
    let folder = data.join("loghub-2k");
    if !folder.is_dir() {
        println!("skipped: no folder loghub-2k (set PORTCULLIS_DATA)");
        return;
    }
    for name in ["Apache", "HDFS", "Linux", "OpenSSH", "Proxifier", "Spark", "Zookeeper"] {
        let text = std::fs::read_to_string(folder.join(name).join(format!("{name}_2k.log"))).unwrap();
        let exact = tiktoken_rs::o200k_base_singleton().encode_ordinary(&text).len();
        let error = (estimate(&text) as f64 / exact as f64 - 1.0) * 100.0;
        println!("{name}: {exact} tokens ({error:+.1} %)");
        assert!(error.abs() <= 15.0, "{name} {error}");
    }
}
