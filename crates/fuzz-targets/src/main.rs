//! `portcullis-fuzz [--seconds N] [--seed N] [--keep FILE] [target …]`: runs the targets one after the other.
//! Exits with 1 when a promise was broken, with 2 when it was asked wrongly. Must print what is needed to run it again.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use portcullis_fuzz_targets::drive::{Plan, drive};
use portcullis_fuzz_targets::{TARGETS, Target, target};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (plan, targets) = match asked(&arguments) {
        Ok(asked) => asked,
        Err(wrong) => {
            let _ = writeln!(io::stderr(), "{wrong}");
            return ExitCode::from(2);
        }
    };
    // The driver says what a panic said, once and with its input.
    std::panic::set_hook(Box::new(|_| {}));
    let mut broken = 0;
    for target in targets {
        let line = match drive(target, &plan) {
            Ok(run) => format!("ok      {:<10} {run}", target.name),
            Err(error) => {
                broken += 1;
                format!("BROKEN  {:<10} {}\n  {error}", target.name, target.promise)
            }
        };
        if writeln!(io::stdout(), "{line}").is_err() {
            return ExitCode::from(2);
        }
    }
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn asked(arguments: &[String]) -> Result<(Plan, Vec<&'static Target>), String> {
    let mut plan = Plan::default();
    let mut targets = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut number = |name: &str| {
            let value = rest.next().ok_or_else(|| format!("{name} needs a number"))?;
            value.parse::<u64>().map_err(|_| format!("{name} needs a number, not '{value}'"))
        };
        match argument.as_str() {
            "--seconds" => plan.time = Duration::from_secs(number("--seconds")?),
            "--seed" => plan.seed = number("--seed")?,
            "--keep" => plan.keep = Some(rest.next().ok_or("--keep needs a file")?.into()),
            name => {
                let known = || TARGETS.iter().map(|t| t.name).collect::<Vec<_>>().join(", ");
                targets.push(target(name).ok_or_else(|| format!("no target '{name}'; there are {}", known()))?);
            }
        }
    }
    if targets.is_empty() {
        targets.extend(TARGETS);
    }
    Ok((plan, targets))
}
