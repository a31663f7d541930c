//! Grouping accuracy (GA: share of lines whose template holds exactly the lines of their label) and its F1 over templates
//! (FGA). To beat without any setting: GA 0.784, FGA 0.779 (Drain3 with generic masking, mean over 14 systems).

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use portcullis_analysis::{LogLine, Miner, Period};
use portcullis_model::Timestamp;

/// A folder of the public data sets, if they are there.
pub(crate) fn data(name: &str) -> Option<PathBuf> {
    let base = std::env::var_os("PORTCULLIS_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let folder = base.join(name);
    if !folder.is_dir() {
        println!("skipped: no folder {name} (set PORTCULLIS_DATA)");
        return None;
    }
    Some(folder)
}

/// Rows of a CSV text; quotes may hold commas, line breaks and doubled quotes.
fn csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            '\r' if !quoted => {}
            other => cell.push(other),
        }
    }
    if !cell.is_empty() || !row.is_empty() {
        row.push(cell);
        rows.push(row);
    }
    rows
}

/// Content and label of every line.
fn labelled(folder: &Path, name: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(folder.join(name).join(format!("{name}_2k.log_structured_corrected.csv"))).unwrap();
    let rows = csv(&text);
    let column = |wanted: &str| rows[0].iter().position(|heading| heading == wanted).unwrap();
    let (content, label) = (column("Content"), column("EventId"));
    rows[1..].iter().map(|row| (row[content].clone(), row[label].clone())).collect()
}

fn score(found: &[Option<usize>], labels: &[&str]) -> (f64, f64) {
    let mut by_group: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut by_label: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, (group, label)) in found.iter().zip(labels).enumerate() {
        by_group.entry(group.unwrap()).or_default().push(index);
        by_label.entry(label).or_default().push(index);
    }
    let truth: HashSet<&Vec<usize>> = by_label.values().collect();
    let exact: Vec<&Vec<usize>> = by_group.values().filter(|lines| truth.contains(lines)).collect();
    let right: usize = exact.iter().map(|lines| lines.len()).sum();
    let (precision, recall) = (exact.len() as f64 / by_group.len() as f64, exact.len() as f64 / by_label.len() as f64);
    let f1 = if exact.is_empty() { 0.0 } else { 2.0 * precision * recall / (precision + recall) };
    (right as f64 / labels.len() as f64, f1)
}

#[test]
fn grouping_accuracy_beats_drain3_without_settings() {
    let Some(folder) = data("loghub-2k") else { return };
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .filter_map(|e| e.ok().filter(|e| e.path().is_dir())?.file_name().into_string().ok())
        .collect();
    names.sort();
    let (mut accuracy, mut f1) = (0.0, 0.0);
    for name in &names {
        let lines = labelled(&folder, name);
        assert_eq!(lines.len(), 2_000, "{name}");
        let mut miner = Miner::default();
        for (body, _) in &lines {
            miner.observe(Period::Current, &LogLine { at: Timestamp::from_seconds(0), severity: None, service: "", body });
        }
        let found = miner.assign(lines.iter().map(|(body, _)| body.as_str()));
        let labels: Vec<&str> = lines.iter().map(|(_, label)| label.as_str()).collect();
        let (ga, fga) = score(&found, &labels);
        let report = miner.report(None);
        println!(
            "{name}: GA {ga:.3}, FGA {fga:.3}, {} templates for {} labels",
            report.templates.len(),
            labels.iter().collect::<HashSet<_>>().len()
        );
        if std::env::var_os("PORTCULLIS_SHOW").is_some_and(|show| show.to_str() == Some(name)) {
            for template in &report.templates {
                println!("  {} {}", template.count, template.text);
            }
        }
        accuracy += ga / names.len() as f64;
        f1 += fga / names.len() as f64;
    }
    println!("mean over {} systems: GA {accuracy:.3}, FGA {f1:.3} (to beat: 0.784, 0.779)", names.len());
    assert!(accuracy > 0.784 && f1 > 0.779);
}
