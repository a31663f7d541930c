//! Checks and generators for developers: `cargo xtask <command>`. Changes nothing but the checked-in files it
//! generates, reaches no network of its own, and is no part of the product.

mod controls;
mod crates_readme;
mod docs;
mod files;
mod finding;
mod floors;
mod generate;
mod metadata;
mod plugins;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use finding::Finding;

const USAGE: &str = "\
Usage: cargo xtask <command>

  floors                     which crate may depend on what
  files                      length, opening line, ignored tests, open marks and machine paths of the sources
  docs                       links of the documentation, and the tests SECURITY.md names
  controls [--ran FILE]      the tests that docs/security/controls.md names are there and, with the output of cargo test,
                             ran and passed
  crates-readme [--check]    every crate has its paragraph in crates/README.md, on its floor (this only ever checks)
  plugins [--binary PATH]    build the plugins of this repository into target/plugins, with portcullis plugin build
  plugin-tests               run the tests inside of the plugins of this repository, in their own languages
  generate [--check] [--binary PATH]
                             write docs/reference from the built binary, or check that it is current;
                             the binary is target/debug/portcullis unless given
";

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs one command; `false` when it found something to mend.
fn run(arguments: &[String]) -> anyhow::Result<bool> {
    let root = root()?;
    let Some((command, options)) = arguments.split_first() else { bail!("no command given\n\n{USAGE}") };
    let options = Options::parse(options)?;
    match command.as_str() {
        "floors" => {
            options.only(command, false, false)?;
            report("floors", &floors::check(&metadata::read(&root)?))
        }
        "files" => {
            options.only(command, false, false)?;
            report("files", &files::check(&root)?)
        }
        "docs" => {
            options.only(command, false, false)?;
            report("docs", &docs::check(&root)?)
        }
        "controls" => {
            options.only(command, false, false)?;
            let ran = options
                .ran
                .as_ref()
                .map(|path| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display())));
            report(command, &controls::check(&root, ran.transpose()?.as_deref())?)
        }
        "crates-readme" => {
            options.only(command, true, false)?;
            report(command, &crates_readme::check(&root)?)
        }
        "generate" => {
            options.only(command, true, true)?;
            let binary = options.binary.clone().unwrap_or_else(|| built_binary(&root));
            settle(&root, command, &generate::render(&binary)?, options.check)
        }
        "plugins" => {
            options.only(command, false, true)?;
            let binary = options.binary.clone().unwrap_or_else(|| built_binary(&root));
            say(plugins::build(&root, &binary)?.trim_end()).map(|()| true)
        }
        "plugin-tests" => {
            options.only(command, false, false)?;
            say(plugins::test(&root)?.trim_end()).map(|()| true)
        }
        "help" | "--help" | "-h" => say(USAGE).map(|()| true),
        other => bail!("there is no command '{other}'\n\n{USAGE}"),
    }
}

/// What may follow the command.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    check: bool,
    binary: Option<PathBuf>,
    ran: Option<PathBuf>,
}

impl Options {
    fn parse(words: &[String]) -> anyhow::Result<Self> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--check" => options.check = true,
                "--binary" => options.binary = Some(words.next().context("--binary wants a path")?.into()),
                "--ran" => options.ran = Some(words.next().context("--ran wants a path")?.into()),
                other => bail!("'{other}' is not an option\n\n{USAGE}"),
            }
        }
        Ok(options)
    }

    fn only(&self, command: &str, check: bool, binary: bool) -> anyhow::Result<()> {
        let misplaced = self.ran.is_some() && command != "controls";
        if (self.check && !check) || (self.binary.is_some() && !binary) || misplaced {
            bail!("{command} does not take this option\n\n{USAGE}");
        }
        Ok(())
    }
}

/// The folder of the workspace.
fn root() -> anyhow::Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).context("xtask has no parent folder")
}

/// The debug binary, where cargo puts it.
fn built_binary(root: &Path) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
    target.join("debug").join(format!("portcullis{}", std::env::consts::EXE_SUFFIX))
}

/// Prints findings; `false` when there are any.
fn report(command: &str, findings: &[Finding]) -> anyhow::Result<bool> {
    if findings.is_empty() {
        say(&format!("{command}: fine\n"))?;
        return Ok(true);
    }
    let mut lines = findings.iter().map(ToString::to_string).collect::<Vec<_>>();
    lines.push(format!("{command}: {} to mend\n", findings.len()));
    say(&lines.join("\n"))?;
    Ok(false)
}

/// Writes generated files, or with `check` compares them; paths are relative to `root`.
fn settle(root: &Path, command: &str, wanted: &[(String, String)], check: bool) -> anyhow::Result<bool> {
    if check {
        let findings: Vec<Finding> = wanted
            .iter()
            .filter_map(|(path, text)| {
                let found = std::fs::read_to_string(root.join(path)).ok();
                let place = difference(found.as_deref(), text)?;
                Some(Finding::new(path.clone(), format!("is not what `cargo xtask {command}` writes: {place}")))
            })
            .collect();
        return report(command, &findings);
    }
    for (path, text) in wanted {
        let path = root.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    say(&format!("{command}: wrote {}\n", wanted.len()))?;
    Ok(true)
}

/// The first line that differs, in words; `None` when nothing does.
fn difference(found: Option<&str>, wanted: &str) -> Option<String> {
    let Some(found) = found else { return Some("it is missing".into()) };
    if found == wanted {
        return None;
    }
    let (mut have, mut want) = (found.lines(), wanted.lines());
    let mut line = 1;
    loop {
        match (have.next(), want.next()) {
            (None, None) => return Some("the line endings differ".into()),
            (have, want) if have != want => {
                let shown = |text: Option<&str>| {
                    text.map_or_else(
                        || "the end of the file".to_owned(),
                        |t| format!("'{}'", t.chars().take(90).collect::<String>()),
                    )
                };
                return Some(format!("line {line} is {}, should be {}", shown(have), shown(want)));
            }
            _ => line += 1,
        }
    }
}

fn say(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_are_read_and_wrong_ones_refused() {
        let options = Options::parse(&words("--check --binary a/b")).unwrap();
        assert_eq!(options, Options { check: true, binary: Some("a/b".into()), ran: None });
        assert!(options.only("floors", false, false).is_err());
        assert!(Options::parse(&words("--binary")).is_err());
        assert!(Options::parse(&words("--chekc")).is_err());
        assert!(run(&words("florrs")).unwrap_err().to_string().contains("no command 'florrs'"));
    }

    #[test]
    fn the_first_different_line_is_named() {
        assert_eq!(difference(Some("a\nb\n"), "a\nb\n"), None);
        assert_eq!(difference(None, "a").unwrap(), "it is missing");
        assert_eq!(difference(Some("a\nx\n"), "a\nb\n").unwrap(), "line 2 is 'x', should be 'b'");
        assert_eq!(difference(Some("a\n"), "a\nb\n").unwrap(), "line 2 is the end of the file, should be 'b'");
        assert_eq!(difference(Some("a\r\n"), "a\n").unwrap(), "the line endings differ");
    }

    #[test]
    fn a_stale_or_missing_file_is_found_and_writing_mends_it() {
        let folder = std::env::temp_dir().join(format!("xtask-settle-{}", std::process::id()));
        let wanted = [("docs/a.md".to_owned(), "one\n".to_owned())];
        assert!(!settle(&folder, "generate", &wanted, true).unwrap());
        assert!(settle(&folder, "generate", &wanted, false).unwrap());
        assert!(settle(&folder, "generate", &wanted, true).unwrap());
        std::fs::write(folder.join("docs/a.md"), "two\n").unwrap();
        assert!(!settle(&folder, "generate", &wanted, true).unwrap());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
