//! Precision and recall over the labelled corpus. A telling prefix is kept apart by `¦` in the files, so that no scanner
//! takes them for a leak; every value in them is made up.

use std::collections::BTreeMap;

use portcullis_guard::{Redactions, Redactor};
use serde::Deserialize;

const SECRETS: &str = include_str!("../../corpus/secrets.jsonl");
const PERSONAL: &str = include_str!("../../corpus/personal.jsonl");
const BENIGN: &str = include_str!("../../corpus/benign.jsonl");

#[derive(Debug, Deserialize)]
pub(crate) struct Labelled {
    #[serde(default)]
    pub(crate) kind: String,
    pub(crate) text: String,
    #[serde(default)]
    pub(crate) secrets: Vec<String>,
}

fn read(lines: &str) -> Vec<Labelled> {
    let joined = lines.replace('¦', "");
    joined.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

/// Lines with something to take out.
pub(crate) fn labelled() -> Vec<Labelled> {
    let mut lines = read(SECRETS);
    lines.extend(read(PERSONAL));
    lines
}

/// Lines to leave as they are.
pub(crate) fn benign() -> Vec<Labelled> {
    read(BENIGN)
}

#[derive(Default)]
struct Score {
    lines: u32,
    found: u32,
    rightly: u64,
    wrongly: u64,
}

#[test]
fn precision_and_recall_hold_their_floors() {
    let redactor = Redactor::new().unwrap();
    let mut scores: BTreeMap<String, Score> = BTreeMap::new();
    let mut missed = Vec::new();
    for line in labelled() {
        let mut counts = Redactions::default();
        let clean = redactor.text(&line.text, &mut counts);
        let leaked: Vec<&String> = line.secrets.iter().filter(|s| clean.contains(s.as_str())).collect();
        let score = scores.entry(line.kind.clone()).or_default();
        score.lines += 1;
        if leaked.is_empty() {
            score.found += 1;
        } else {
            missed.push(format!("{}: {clean}", line.kind));
        }
        for (kind, count) in counts.counts() {
            scores.entry(kind.to_owned()).or_default().rightly += count;
        }
    }
    let mut wrong = Vec::new();
    for line in benign() {
        let mut counts = Redactions::default();
        let clean = redactor.text(&line.text, &mut counts);
        if counts.total() > 0 {
            wrong.push(clean.into_owned());
        }
        for (kind, count) in counts.counts() {
            scores.entry(kind.to_owned()).or_default().wrongly += count;
        }
    }
    println!("{:<24}{:>7}{:>9}{:>11}", "category", "lines", "recall", "precision");
    let (mut lines, mut found, mut rightly, mut wrongly) = (0, 0, 0, 0);
    for (kind, score) in &scores {
        let recall =
            if score.lines == 0 { "-".to_owned() } else { format!("{:.3}", f64::from(score.found) / f64::from(score.lines)) };
        let all = score.rightly + score.wrongly;
        let precision = if all == 0 { "-".to_owned() } else { format!("{:.3}", score.rightly as f64 / all as f64) };
        println!("{kind:<24}{:>7}{recall:>9}{precision:>11}", score.lines);
        lines += score.lines;
        found += score.found;
        rightly += score.rightly;
        wrongly += score.wrongly;
    }
    let recall = f64::from(found) / f64::from(lines);
    let precision = rightly as f64 / (rightly + wrongly) as f64;
    println!("{:<24}{lines:>7}{recall:>9.3}{precision:>11.3}", "all");
    println!("missed:\n{}\nwrong:\n{}", missed.join("\n"), wrong.join("\n"));
    assert!(lines >= 400 && benign().len() >= 150, "the corpus is too small to say anything");
    assert!(recall >= 0.999, "recall {recall}");
    assert!(precision >= 0.998, "precision {precision}");
    for (kind, score) in &scores {
        let recall = f64::from(score.found) / f64::from(score.lines.max(1));
        // Random strings under no telling name are told by measure alone, and some of them look like words.
        let floor = if kind == "high-entropy" { 0.85 } else { 0.97 };
        assert!(score.lines == 0 || recall >= floor, "{kind}: recall {recall}");
        let all = (score.rightly + score.wrongly).max(1);
        assert!(score.wrongly as f64 / all as f64 <= 0.05, "{kind}: {} of {all} findings are in benign lines", score.wrongly);
    }
}

#[test]
fn every_mark_names_what_went() {
    let redactor = Redactor::new().unwrap();
    let mut named = 0_u32;
    let mut other = Vec::new();
    let lines = labelled();
    for line in &lines {
        let mut counts = Redactions::default();
        let clean = redactor.text(&line.text, &mut counts).into_owned();
        if counts.counts().any(|(kind, _)| kind == line.kind) {
            named += 1;
        } else {
            other.push(format!("{}: {clean}", line.kind));
        }
    }
    println!("{}", other.join("\n"));
    assert!(f64::from(named) / lines.len() as f64 >= 0.95, "{named} of {}", lines.len());
}
