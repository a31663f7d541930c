//! Other MCP servers behind the real binary, good and hostile ones, and what the audit log says about them.

mod addresses;
mod beside;
mod calls;
mod echoes;
mod ends;
mod hostile;
mod http;
mod lines;
mod names;
mod questions;
mod real;
mod reviews;
mod watching;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{BINARY, Home, Server};
use crate::visitor::Visitor;

/// Waits until something is so, or says what it was instead.
pub(crate) fn until<T>(what: &str, look: impl Fn() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(instead) => assert!(began.elapsed() < Duration::from_secs(30), "{what}: {instead}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Path of a program, as the configuration wants it.
pub(crate) fn program(name: &str) -> String {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    // A shim is a shell script; the program behind it is wanted.
    let found = found.unwrap_or_else(|| panic!("{name} is not installed"));
    let asked = std::process::Command::new(&found).args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    if name.starts_with("python") {
        return String::from_utf8(asked.stdout).unwrap().trim().to_owned();
    }
    std::fs::canonicalize(found).unwrap().to_str().unwrap().to_owned()
}

/// A server on standard streams that does what its file says.
pub(crate) struct Puppet {
    directory: tempfile::TempDir,
}

impl Puppet {
    pub(crate) fn new(orders: &Value) -> Self {
        let puppet = Self { directory: tempfile::tempdir().unwrap() };
        puppet.order(orders);
        puppet
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("orders.json")
    }

    /// Changes what it does from now on.
    pub(crate) fn order(&self, orders: &Value) {
        let fresh = self.directory.path().join("fresh.json");
        std::fs::write(&fresh, orders.to_string()).unwrap();
        std::fs::rename(fresh, self.file()).unwrap();
    }

    /// An entry of `upstreams`; `more` are further settings of it, `env` of the program.
    pub(crate) fn entry(&self, name: &str, env: &str, more: &str) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/upstreams/hostile.py");
        let refresh = if more.contains("refresh") { "" } else { "refresh: 1s," };
        format!(
            "- {{name: {name}, stdio: {{command: {}, args: [-u, {script}, {}], env: {{{env}}}}}, {refresh} {more}}}\n",
            program("python3"),
            self.file().display()
        )
    }
}

/// A tool that reads, as an upstream would list it.
pub(crate) fn tool(name: &str, description: &str) -> Value {
    json!({"name": name, "description": description, "annotations": {"readOnlyHint": true},
        "inputSchema": {"type": "object", "properties": {"q": {"type": "string"}}}})
}

/// A configuration with these upstreams.
pub(crate) fn home(entries: &[String], more: &str) -> Home {
    Home::new(&format!("tools: {{expose: all}}\nupstreams:\n{}{more}", entries.concat()))
}

/// What the command line lists: name and state.
pub(crate) fn listed(home: &Home) -> Vec<(String, String)> {
    let all: Value = serde_json::from_str(&home.run_ok(&["upstream", "list", "--json"])).unwrap();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let wanted = |entry: &&Value| entry["kind"] != "protocol";
    all.as_array().unwrap().iter().filter(wanted).map(|entry| (text(&entry["name"]), text(&entry["state"]))).collect()
}

/// Waits until an upstream's definition stands like this.
pub(crate) fn stands(home: &Home, name: &str, state: &str) {
    until(&format!("{name} is {state}"), || {
        let all = listed(home);
        let fits = all.iter().any(|(n, s)| n == name && s == state);
        if fits { Ok(()) } else { Err(format!("{all:?}")) }
    });
}

/// What of an upstream waits, or what has these names, as a program accepts it: by its digest.
fn by_digest(home: &Home, upstream: &str, names: &[&str]) -> Vec<String> {
    let arguments: [&[&str]; 2] = [&["upstream", "review", "--json", upstream, "--"], names];
    let shown = home.run_ok(&arguments.concat());
    let all: Value = serde_json::from_str(&shown).unwrap();
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_else(|| panic!("{all}")).to_owned();
    all.as_array().unwrap().iter().map(|entry| format!("{}@{}", text(entry, "name"), text(entry, "digest"))).collect()
}

fn accept(home: &Home, upstream: &str, options: &[&str], words: &[String]) {
    if !words.is_empty() {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let arguments: [&[&str]; 4] = [&["upstream", "accept", upstream], options, &["--"], &words];
        home.run_ok(&arguments.concat());
    }
}

/// Accepts everything of an upstream that waits.
pub(crate) fn accept_all(home: &Home, upstream: &str) {
    accept(home, upstream, &[], &by_digest(home, upstream, &[]));
}

/// Accepts everything of an upstream that waits, whatever the scanner found.
pub(crate) fn accept_all_despite(home: &Home, upstream: &str) {
    accept(home, upstream, &["--despite-findings"], &by_digest(home, upstream, &[]));
}

/// Accepts these of an upstream, whatever the scanner found.
pub(crate) fn accept_despite(home: &Home, upstream: &str, names: &[&str]) {
    accept(home, upstream, &["--despite-findings"], &by_digest(home, upstream, names));
}

/// What a person sees who runs the binary at a terminal.
pub(crate) fn at_a_terminal(home: &Home, arguments: &[&str]) -> String {
    let terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let mut command = Command::new(program("python3"));
    command.args(["-c", terminal, BINARY, "--config"]).arg(&home.config).args(arguments);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Somebody with a new key, once the server knows it.
pub(crate) fn visitor(server: &Server, options: &[&str]) -> Visitor {
    let visitor = Visitor::new(server, &server.home.key(options));
    until("the key is known", || {
        let reply = visitor.ask("tools/list", &json!({}));
        if reply.status == 200 { Ok(()) } else { Err(reply.body) }
    });
    visitor
}

/// Names of the tools a visitor sees.
pub(crate) fn tools(visitor: &Visitor) -> Vec<String> {
    let reply = visitor.ask("tools/list", &json!({})).json();
    let tools = reply["result"]["tools"].as_array().unwrap_or_else(|| panic!("{reply}")).clone();
    tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

/// Waits until a visitor sees a tool, or no longer does.
pub(crate) fn sees(visitor: &Visitor, name: &str, whether: bool) {
    until(&format!("{name} is listed: {whether}"), || {
        let all = tools(visitor);
        if all.iter().any(|tool| tool == name) == whether { Ok(()) } else { Err(format!("{all:?}")) }
    });
}

/// The text of a tool's answer, without the frame.
pub(crate) fn text(reply: &Value) -> String {
    unframed(&reply["result"]["content"][0]["text"])
}

/// A text without the frame around it.
pub(crate) fn unframed(text: &Value) -> String {
    let text = text.as_str().unwrap_or_else(|| panic!("{text}"));
    let inside = text.split_once("<untrusted-data ").and_then(|(_, rest)| rest.split_once(">\n"));
    inside.and_then(|(_, rest)| rest.rsplit_once("\n</untrusted-data")).map_or(text, |(inside, _)| inside).to_owned()
}

/// A server with one accepted puppet and somebody who may read.
pub(crate) fn with_accepted(puppet: &Puppet, env: &str, more: &str, settings: &str) -> (Server, Visitor) {
    let server = Server::start_in(home(&[puppet.entry("up", env, more)], settings));
    let someone = visitor(&server, &["--role", "operator"]);
    until("something waits", || match listed(&server.home) {
        none if none.is_empty() => Err(server.log()),
        some if some.iter().all(|(_, state)| state == "new" || state == "accepted") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    accept_all(&server.home, "up");
    (server, someone)
}
