//! How often the tool somebody needs is among the first five that are found: printed, with a floor.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on shall stop, and what is measured is said"
)]

use portcullis_lexicon::{Field, Lexicon};

const CATALOGUE: &str = include_str!("../fixtures/catalogue.tsv");
const TASKS: &str = include_str!("../fixtures/tasks.tsv");

fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(|line| line.split('\t').collect()).collect()
}

/// Share of the tasks of one set whose tool is among the first `most`; says which are not.
fn recall(lexicon: &Lexicon, names: &[&str], set: &str, most: usize) -> f64 {
    let tasks: Vec<Vec<&str>> = rows(TASKS).into_iter().filter(|row| row[0] == set).collect();
    let mut hits = 0_u32;
    for task in &tasks {
        let found: Vec<&str> = lexicon.find(task[1], |_| true).into_iter().take(most).map(|f| names[f.document]).collect();
        for wanted in task[2].split('|') {
            assert!(names.contains(&wanted), "{wanted} is no tool of the catalogue");
        }
        if task[2].split('|').any(|wanted| found.contains(&wanted)) {
            hits += 1;
        } else {
            println!("{set}@{most}: not found: {} -> {} (found {found:?})", task[1], task[2]);
        }
    }
    f64::from(hits) / tasks.len() as f64
}

#[test]
fn the_tool_of_a_task_is_among_the_first_five() {
    let catalogue = rows(CATALOGUE);
    let names: Vec<&str> = catalogue.iter().map(|row| row[0]).collect();
    let lexicon = Lexicon::build(catalogue.iter().map(|row| {
        [
            Field { weight: 2.5, text: row[0] },
            Field { weight: 1.0, text: row[1] },
            Field { weight: 0.6, text: row.get(2).copied().unwrap_or_default() },
        ]
    }));
    let measured: Vec<(&str, f64, f64)> = ["tuned", "held-out"]
        .into_iter()
        .map(|set| (set, recall(&lexicon, &names, set, 1), recall(&lexicon, &names, set, 5)))
        .collect();
    for (set, first, five) in &measured {
        println!("{set}: recall@1 {first:.2}, recall@5 {five:.2} over {} tools", names.len());
    }
    for (set, _, five) in measured {
        assert!(five >= 0.9, "{set}: recall@5 {five:.2}");
    }
}
