//! The demo as a newcomer runs it: the cause is found from the answers, what it prints at the end works, and nothing is
//! left behind.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::server::BINARY;

/// The demo on `port` (0 for free ports), with temporary files under `directory` only.
fn demo(directory: &Path, port: &str) -> Command {
    let mut command = Command::new(BINARY);
    command.args(["demo", "--port", port]).current_dir(directory).env("TMPDIR", directory).stdin(Stdio::null());
    command.env_remove("PORTCULLIS_DATA_DIR").env_remove("PORTCULLIS_CONFIG");
    command
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}

/// Ends with the test, whatever happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_cause_is_found_from_the_answers_and_nothing_is_left_behind() {
    let directory = tempfile::tempdir().unwrap();
    let output = demo(directory.path(), "0").args(["--exit", "--seed", "3"]).output().unwrap();
    let (said, log) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{said}\n{log}");
    for number in 1..=5 {
        assert!(said.contains(&format!("\n{number}. ")), "{said}");
    }
    // The questions after the first are about what the first answered.
    for part in ["MCP 2026-07-28", "> get_service_health", "> log_patterns service=inventory", "> get_trace trace_id="] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
    assert!(said.contains("cause found: inventory, and what changed: version 1.8.0"), "{said}");
    assert!(!said.contains('\u{1b}') && !log.contains('\u{1b}'), "colours in a pipe: {said}{log}");
    assert!(is_empty(directory.path()), "something is left in the temporary directory");
}

#[test]
fn the_demo_keeps_serving_and_the_printed_request_works() {
    let directory = tempfile::tempdir().unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    let errors = Stdio::from(log.reopen().unwrap());
    let mut running = Running(demo(directory.path(), "0").stdout(Stdio::piped()).stderr(errors).spawn().unwrap());
    let lines = BufReader::new(running.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut said = Vec::new();
    for line in lines {
        let last = line.contains("Ctrl-C ends it all");
        said.push(line);
        if last {
            break;
        }
    }
    let request = said.iter().find(|line| line.starts_with("curl -")).unwrap_or_else(|| panic!("no request in {said:#?}"));
    let key = request.split("Bearer ").nth(1).unwrap().split('"').next().unwrap();
    for client in ["claude mcp add --transport http", "{\"mcpServers\""] {
        assert!(said.iter().any(|line| line.starts_with(client) && line.contains(key)), "{client}: {said:#?}");
    }
    if Command::new("curl").arg("--version").output().is_ok() {
        let output = Command::new("sh").args(["-c", request]).output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer:#}"));
        assert!(text.contains("LIKELY CAUSE"), "{text}");
        let wrong = request.replace(key, &format!("{key}x"));
        let refused = Command::new("sh").args(["-c", &wrong]).output().unwrap();
        let refused: Value = serde_json::from_slice(&refused.stdout).unwrap();
        assert!(refused["error"]["message"].is_string(), "{refused:#}");
    } else {
        crate::server::skipped("the printed request, for there is no curl");
    }
    assert!(Command::new("kill").args(["-TERM", &running.0.id().to_string()]).status().unwrap().success());
    let ended = running.0.wait().unwrap();
    assert!(ended.success(), "{ended}: {}", std::fs::read_to_string(log.path()).unwrap());
    assert!(is_empty(directory.path()), "something is left in the temporary directory");
}

#[test]
fn a_taken_port_and_a_used_directory_are_refused_with_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = demo(directory.path(), &port).arg("--exit").output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && log.contains(&port) && log.contains("--port"), "{log}");
    assert!(is_empty(directory.path()), "something is left in the temporary directory");
    std::fs::write(directory.path().join("mine"), "").unwrap();
    let output = demo(directory.path(), "0").args(["--exit", "--data", "."]).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && log.contains("not empty"), "{log}");
}
