//! `docs/reference/cli.md`: the help of every command, as the binary prints it.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};

/// How deep commands may nest; deeper means that the help was misread.
const DEEPEST: usize = 4;

/// The page; `help` runs the binary with the given words.
pub(super) fn render(help: &dyn Fn(&[&str]) -> anyhow::Result<String>) -> anyhow::Result<String> {
    let mut page = "<!-- Written by `cargo xtask generate`. -->\n# Command line\n".to_owned();
    section(&mut page, help, &[])?;
    Ok(page)
}

fn section(page: &mut String, help: &dyn Fn(&[&str]) -> anyhow::Result<String>, command: &[&str]) -> anyhow::Result<()> {
    if command.len() > DEEPEST {
        bail!("commands nest deeper than {DEEPEST}: portcullis {}", command.join(" "));
    }
    let text = help(&[command, &["--help"]].concat())?;
    let title = [&["portcullis"], command].concat().join(" ");
    let body: Vec<&str> = text.trim().lines().map(str::trim_end).collect();
    let _ = write!(page, "\n## {title}\n\n```text\n{}\n```\n", body.join("\n"));
    for name in subcommands(&text).with_context(|| format!("the help of `{title}`"))? {
        section(page, help, &[command, &[name]].concat())?;
    }
    Ok(())
}

/// Names below the heading `Commands:`, without `help`.
fn subcommands(help: &str) -> anyhow::Result<Vec<&str>> {
    let mut names = Vec::new();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    for line in listed {
        // Names are indented by two; continued descriptions by more.
        let Some(rest) = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')) else { continue };
        let name = rest.split_whitespace().next().context("a command without a name")?;
        if name != "help" {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP: &str =
        "About.\n\nUsage: x <COMMAND>\n\nCommands:\n  key   Keys,\n        and more\n  stdio\n  help  Print\n\nOptions:\n  -h\n";

    #[test]
    fn commands_are_found_and_nothing_else_is() {
        assert_eq!(subcommands(TOP).unwrap(), ["key", "stdio"]);
        assert_eq!(subcommands("Usage: x\n\nOptions:\n  -h\n").unwrap(), Vec::<&str>::new());
    }

    #[test]
    fn every_command_has_its_section() {
        let help = |words: &[&str]| {
            Ok(match words {
                ["--help"] => TOP.to_owned(),
                ["key", "--help"] => "Usage: x key\n\nCommands:\n  list  List\n".to_owned(),
                other => format!("help of {}  \n", other.join(" ")),
            })
        };
        let page = render(&help).unwrap();
        let titles: Vec<&str> = page.lines().filter(|l| l.starts_with("## ")).collect();
        assert_eq!(titles, ["## portcullis", "## portcullis key", "## portcullis key list", "## portcullis stdio"]);
        assert!(page.contains("```text\nhelp of stdio --help\n```\n"), "{page}");
    }

    #[test]
    fn help_that_repeats_itself_is_an_error() {
        let endless = |_: &[&str]| Ok("Commands:\n  again  Again\n".to_owned());
        assert!(render(&endless).unwrap_err().to_string().contains("nest deeper"));
    }
}
