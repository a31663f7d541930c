//! The guide "your first plugin in ten minutes", typed by a machine: the commands are read from its page and run one after
//! the other in a folder where nothing else is, for each language. What a person would have installed by hand (the table
//! of tools) is what `.ci/install` brought, in the versions that the new plugin names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::server::{BINARY, skipped};

const GUIDE: &str = include_str!("../../../../docs/guides/plugins.md");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The section of the guide, between its heading and the next one.
fn section() -> &'static str {
    let from = GUIDE.split_once("\n## Your first plugin in ten minutes\n").unwrap().1;
    from.split_once("\n## ").unwrap().0
}

/// The texts of the blocks of this kind.
fn blocks(kind: &str) -> Vec<&'static str> {
    let begins = format!("```{kind}\n");
    section().split(begins.as_str()).skip(1).map(|rest| rest.split_once("```").unwrap().0).collect()
}

/// Somebody at a terminal.
struct Terminal {
    folder: PathBuf,
    path: OsString,
    more: Vec<(&'static str, OsString)>,
}

impl Terminal {
    fn command(&self, line: &str) -> Command {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", line]).current_dir(&self.folder).env("PATH", &self.path).stdin(Stdio::null());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PORTCULLIS_")) {
            shell.env_remove(name);
        }
        shell.envs(self.more.iter().map(|(name, value)| (name, value)));
        shell
    }

    fn type_in(&self, line: &str) -> String {
        let Output { status, stdout, stderr } = self.command(line).output().unwrap();
        let said = String::from_utf8_lossy(&stdout).into_owned();
        assert!(status.success(), "{line}: {said}{}", String::from_utf8_lossy(&stderr));
        said
    }
}

/// Types what the guide says; `language` goes behind `plugin new`, and `tools` makes the tools of the table available in the
/// new folder. Gives the plugin's folder and what each command printed.
fn follow(folder: &Path, language: &str, more: Vec<(&'static str, OsString)>, tools: impl Fn(&Path)) -> Vec<(String, String)> {
    let own = [Path::new(BINARY).parent().unwrap().to_owned(), root().join("tests/clients/node/node_modules/.bin")];
    let path = std::env::join_paths(own.into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap()))).unwrap();
    let mut terminal = Terminal { folder: folder.to_owned(), path, more };
    let mut public = String::new();
    let mut printed = Vec::new();
    for line in blocks("sh").iter().flat_map(|block| block.lines()) {
        let line = line.split_once(" #").map_or(line, |(line, _)| line).trim();
        if let Some(entered) = line.strip_prefix("cd ") {
            terminal.folder.push(entered);
            tools(&terminal.folder);
            continue;
        }
        let mut typed = line.replace("PUBLIC_KEY", &public);
        if line.starts_with("portcullis plugin new ") {
            typed = format!("{typed} {language}");
        }
        let said = terminal.type_in(&typed);
        if line.starts_with("portcullis plugin keys new ") {
            let key = said.lines().map(str::trim).skip_while(|line| !line.ends_with("public key:")).nth(2);
            key.unwrap().clone_into(&mut public);
        }
        printed.push((line.to_owned(), said));
    }
    printed
}

fn printed<'a>(all: &'a [(String, String)], command: &str) -> &'a str {
    &all.iter().find(|(line, _)| line.starts_with(command)).unwrap_or_else(|| panic!("the guide has no {command}")).1
}

/// Without the numbers that are drawn anew each time.
fn without_numbers(text: &str) -> Vec<String> {
    let plain = |line: &str| match line.split_once("untrusted-data ") {
        Some((before, _)) => format!("{before}untrusted-data"),
        None => line.to_owned(),
    };
    text.trim().lines().map(plain).collect()
}

/// It is as the guide says, and the audit log of the trial has the way there.
fn as_promised(folder: &Path, all: &[(String, String)]) {
    let said = printed(all, "portcullis call greeter_greet");
    assert_eq!(without_numbers(said), without_numbers(blocks("text")[0]), "the guide shows what is printed");
    let doctor = printed(all, "portcullis doctor");
    let line = doctor.lines().find(|line| line.contains("plugin greeter")).unwrap_or_else(|| panic!("{doctor}"));
    assert!(line.contains("of Me"), "{line}");
    // A trial of its own: what is kept is in the folder.
    let output = Command::new(BINARY).args(["audit", "tail", "-n", "100", "--json"]).current_dir(folder.join("greeter")).output();
    let records: Vec<Value> =
        String::from_utf8(output.unwrap().stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for method in ["plugin.trust", "plugin.install", "plugin.loaded"] {
        assert!(records.iter().any(|r| r["method"] == method && r["decision"] == "allow"), "{method}: {records:#?}");
    }
    let call = records.iter().find(|r| r["tool"] == "greeter_greet").unwrap_or_else(|| panic!("{records:#?}"));
    assert!(call["note"].to_string().contains("tool greeter_greet: ok"), "{call}");
}

/// Nothing is written over: the same line a second time.
fn stays_as_it_is(folder: &Path) {
    let again = Command::new(BINARY).args(["plugin", "new", "greeter"]).current_dir(folder).output().unwrap();
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("is there already"));
}

#[test]
fn the_guide_leads_to_a_plugin_in_rust() {
    if crate::plugins::component_of("probe").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // The standard library is compiled already, for the plugins of this repository.
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("plugins/build");
    let all = follow(folder.path(), "", vec![("CARGO_TARGET_DIR", built.into())], |_| {});
    as_promised(folder.path(), &all);
    stays_as_it_is(folder.path());
}

/// The line of the table for a language.
fn table(language: &str) -> &'static str {
    section().lines().find(|line| line.starts_with(&format!("| {language}"))).unwrap()
}

#[test]
fn the_guide_leads_to_a_plugin_in_python() {
    let environment = root().join(".venv");
    if !environment.join("bin/componentize-py").exists() {
        return skipped("componentize-py is not installed");
    }
    assert!(table("Python").contains(".venv/bin/pip install -r requirements.txt"));
    let installed = std::fs::read_to_string(root().join("tests/clients/python/requirements.txt")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let all = follow(folder.path(), "--language python", Vec::new(), |new| {
        // What `pip install` would bring is there already.
        let wanted = std::fs::read_to_string(new.join("requirements.txt")).unwrap();
        for line in wanted.lines().filter(|line| !line.starts_with('#')) {
            assert!(installed.lines().any(|one| one == line), "a new plugin wants {line}, and tests build with something else");
        }
        std::os::unix::fs::symlink(&environment, new.join(".venv")).unwrap();
    });
    as_promised(folder.path(), &all);
}

#[test]
fn the_guide_leads_to_a_plugin_in_javascript() {
    let modules = root().join("tests/clients/node/node_modules");
    if !modules.join(".bin/componentize-js").exists() {
        return skipped("componentize-js is not installed");
    }
    assert!(table("JavaScript").contains("`npm install` in the new folder"));
    let read = |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let installed = read(&root().join("tests/clients/node/package.json"));
    let folder = tempfile::tempdir().unwrap();
    let all = follow(folder.path(), "--language js", Vec::new(), |new| {
        for (name, version) in read(&new.join("package.json"))["devDependencies"].as_object().unwrap() {
            assert_eq!(&installed["dependencies"][name], version, "a new plugin wants another {name} than tests build with");
        }
        std::os::unix::fs::symlink(&modules, new.join("node_modules")).unwrap();
    });
    as_promised(folder.path(), &all);
}
