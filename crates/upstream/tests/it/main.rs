//! Measures the scanner of definitions on a labelled set: what it finds in definitions that mean harm, and how often it
//! points at harmless ones. The harmless ones are the tools of published servers, as they list them, and some written to be
//! hard; the harmful ones were written for this set after the classes of attack seen in public.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that measures says what it measured")]

use portcullis_upstream::Scanner;
use serde_json::Value;

const HARMFUL: &str = include_str!("../corpus/malicious.json");
const HARMLESS: &str = include_str!("../corpus/benign.json");

/// Names of tools of this house, which some of the set imitate.
const HOUSE: [&str; 6] = ["query_logs", "query_metrics", "query_traces", "list_services", "list_sources", "service_health"];

#[test]
fn the_scanner_finds_most_harm_and_points_at_little_else() {
    let scanner = Scanner::new().unwrap();
    let neighbours: Vec<(String, String)> = HOUSE.iter().map(|name| ("this house".to_owned(), (*name).to_owned())).collect();
    let points_at = |entry: &Value| !scanner.look_at(entry["tool"].clone(), &neighbours).unwrap().is_empty();
    let harmful: Vec<Value> = serde_json::from_str(HARMFUL).unwrap();
    let harmless: Vec<Value> = serde_json::from_str(HARMLESS).unwrap();
    let (mut found, mut pointed) = (0_u32, 0_u32);
    for entry in &harmful {
        if points_at(entry) {
            found += 1;
        } else {
            println!("not found: {} {}", entry["label"], entry["tool"]["description"]);
        }
    }
    for entry in &harmless {
        if points_at(entry) {
            pointed += 1;
            println!("pointed at: {} of {}", entry["tool"]["name"], entry["from"]);
        }
    }
    let precision = f64::from(found) / f64::from(found + pointed);
    let recall = f64::from(found) / harmful.len() as f64;
    println!(
        "scanner of definitions: precision {precision:.3}, recall {recall:.3} ({found} of {} harmful, {pointed} of {} harmless)",
        harmful.len(),
        harmless.len()
    );
    assert!(harmful.len() >= 70 && harmless.len() >= 130);
    assert!(precision >= 0.95, "precision {precision:.3}");
    assert!(recall >= 0.90, "recall {recall:.3}");
}
