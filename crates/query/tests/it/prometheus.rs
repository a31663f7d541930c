//! The confined text is read by Prometheus' own parser, through `promtool` from the distribution's package. Skips with
//! a message where promtool is not installed.

use std::io::Write;
use std::process::Command;

use portcullis_query::confine_promql;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::confinement::confinement;
use crate::generate::expression;

#[test]
fn prometheus_reads_what_confinement_writes() {
    if Command::new("promtool").arg("--version").output().is_err() {
        assert!(std::env::var_os("PORTCULLIS_TESTS_MUST_RUN").is_none(), "promtool is not installed");
        println!("skipped: promtool is not installed");
        return;
    }
    let mut runner = TestRunner::deterministic();
    let strategy = expression();
    let mut rules = String::from("groups:\n- name: confined\n  rules:\n");
    let mut written = 0;
    for index in 0..400 {
        let raw = strategy.new_tree(&mut runner).unwrap().current();
        let Ok(text) = confine_promql(&raw, &confinement()) else { continue };
        let quoted = text.replace('\'', "''");
        rules.extend(["  - record: r", &index.to_string(), "\n    expr: '", &quoted, "'\n"]);
        written += 1;
    }
    assert!(written > 200, "{written}");
    let folder = std::env::temp_dir().join(format!("portcullis-query-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("rules.yml");
    std::fs::File::create(&file).unwrap().write_all(rules.as_bytes()).unwrap();
    let output = Command::new("promtool").args(["check", "rules"]).arg(&file).output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains(&format!("{written} rules found")), "{said}");
}
