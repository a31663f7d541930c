//! `portcullis-fuzz [--seconds N] [--seed N] [--jobs N] [--keep FILE] [target …]`: runs the targets, as many side by side
//! as there are cores, each in a process of its own. Exits with 1 when a promise was broken, with 2 when it was asked
//! wrongly. Must print what is needed to run it again.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use portcullis_fuzz_targets::drive::{Plan, drive};
use portcullis_fuzz_targets::side_by_side::{Ended, side_by_side};
use portcullis_fuzz_targets::{TARGETS, Target, target};

/// What was asked.
struct Asked {
    plan: Plan,
    targets: Vec<&'static Target>,
    jobs: usize,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = match asked(&arguments) {
        Ok(asked) => asked,
        Err(wrong) => {
            let _ = writeln!(io::stderr(), "{wrong}");
            return ExitCode::from(2);
        }
    };
    match asked.targets.as_slice() {
        [only] => alone(only, &asked.plan),
        _ => several(&asked),
    }
}

/// One target, in this process.
fn alone(target: &Target, plan: &Plan) -> ExitCode {
    // The driver says what a panic said, once and with its input.
    std::panic::set_hook(Box::new(|_| {}));
    let (line, code) = match drive(target, plan) {
        Ok(run) => (format!("ok      {:<13} {run}", target.name), ExitCode::SUCCESS),
        Err(error) => (format!("BROKEN  {:<13} {}\n  {error}", target.name, target.promise), ExitCode::FAILURE),
    };
    if writeln!(io::stdout(), "{line}").is_err() { ExitCode::from(2) } else { code }
}

/// Several targets, each in a process of its own, so that memory is that of one target.
fn several(asked: &Asked) -> ExitCode {
    let options: Vec<OsString> =
        ["--seconds", &asked.plan.time.as_secs().to_string(), "--seed", &asked.plan.seed.to_string()].map(OsString::from).into();
    let names: Vec<&'static str> = asked.targets.iter().map(|target| target.name).collect();
    let seen = |ended: &Ended| {
        let _ = writeln!(io::stdout(), "{}", ended.said);
    };
    let ended = std::env::current_exe()
        .and_then(|program| side_by_side(&program, &options, asked.plan.keep.as_deref(), &names, asked.jobs, &seen));
    match ended {
        Ok(ended) if ended.len() == names.len() && ended.iter().all(|one| one.held) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "the targets cannot be run: {error}");
            ExitCode::from(2)
        }
    }
}

fn asked(arguments: &[String]) -> Result<Asked, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut asked = Asked { plan: Plan::default(), targets: Vec::new(), jobs: cores };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut number = |name: &str| {
            let value = rest.next().ok_or_else(|| format!("{name} needs a number"))?;
            value.parse::<u64>().map_err(|_| format!("{name} needs a number, not '{value}'"))
        };
        match argument.as_str() {
            "--seconds" => asked.plan.time = Duration::from_secs(number("--seconds")?),
            "--seed" => asked.plan.seed = number("--seed")?,
            "--jobs" => {
                let jobs = usize::try_from(number("--jobs")?).ok().filter(|jobs| (1..=256).contains(jobs));
                asked.jobs = jobs.ok_or("--jobs needs a number from 1 to 256")?;
            }
            "--keep" => asked.plan.keep = Some(rest.next().ok_or("--keep needs a file")?.into()),
            name => {
                let known = || TARGETS.iter().map(|t| t.name).collect::<Vec<_>>().join(", ");
                let found = target(name).ok_or_else(|| format!("no target '{name}'; there are {}", known()))?;
                // Twice the same would write to the same file, and find the same.
                if !asked.targets.iter().any(|known| known.name == found.name) {
                    asked.targets.push(found);
                }
            }
        }
    }
    if asked.targets.is_empty() {
        asked.targets.extend(TARGETS);
    }
    Ok(asked)
}
