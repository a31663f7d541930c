//! Measures the scanner of definitions on two labelled sets, one it was made with and one it was not: what it finds in
//! definitions that mean harm, and how often it points at harmless ones. The harmless ones are the tools of published servers, as they list them, and some written to be
//! hard; the harmful ones were written for this set after the classes of attack seen in public.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that measures says what it measured")]

use portcullis_upstream::Scanner;
use serde_json::Value;

const HARMFUL: &str = include_str!("../corpus/malicious.json");
const HARMLESS: &str = include_str!("../corpus/benign.json");

/// What the scanner was not made with: attacks written after published accounts of them, and tools of other published
/// servers, both added when its patterns were finished. No pattern is to be changed because of a line in here.
const HARMFUL_HELD_OUT: &str = include_str!("../corpus/malicious-held-out.json");
const HARMLESS_HELD_OUT: &str = include_str!("../corpus/benign-held-out.json");

/// Names of tools of this house, which some of the set imitate.
const HOUSE: [&str; 6] = ["query_logs", "query_metrics", "query_traces", "list_services", "list_sources", "service_health"];

/// What the scanner says about a labelled set.
struct Measured {
    precision: f64,
    recall: f64,
    harmful: usize,
    harmless: usize,
}

fn measure(name: &str, harmful: &str, harmless: &str, whence: &str) -> Measured {
    let scanner = Scanner::new().unwrap();
    let neighbours: Vec<(String, String)> = HOUSE.iter().map(|name| ("this house".to_owned(), (*name).to_owned())).collect();
    let points_at = |entry: &Value| !scanner.look_at(entry["tool"].clone(), &neighbours).unwrap().is_empty();
    let harmful: Vec<Value> = serde_json::from_str(harmful).unwrap();
    let harmless: Vec<Value> = serde_json::from_str(harmless).unwrap();
    let (mut found, mut pointed) = (0_u32, 0_u32);
    for entry in &harmful {
        if points_at(entry) {
            found += 1;
        } else {
            println!("not found: {} {}", entry[whence], entry["tool"]["description"]);
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
        "scanner of definitions, {name}: precision {precision:.3}, recall {recall:.3} ({found} of {} harmful, {pointed} of {} harmless)",
        harmful.len(),
        harmless.len()
    );
    Measured { precision, recall, harmful: harmful.len(), harmless: harmless.len() }
}

#[test]
fn the_scanner_finds_most_harm_and_points_at_little_else() {
    let measured = measure("the set it was made with", HARMFUL, HARMLESS, "label");
    assert!(measured.harmful >= 70 && measured.harmless >= 130);
    assert!(measured.precision >= 0.95, "precision {:.3}", measured.precision);
    assert!(measured.recall >= 0.90, "recall {:.3}", measured.recall);
}

#[test]
fn on_what_it_was_not_made_with_the_scanner_is_worse_and_that_is_said() {
    let measured = measure("held out", HARMFUL_HELD_OUT, HARMLESS_HELD_OUT, "after");
    assert!(measured.harmful >= 30 && measured.harmless >= 70);
    // Floors below what was measured, so that a change that makes it worse is seen. They are no aim.
    assert!(measured.precision >= 0.95, "precision {:.3}", measured.precision);
    assert!(measured.recall >= 0.15, "recall {:.3}", measured.recall);
}
