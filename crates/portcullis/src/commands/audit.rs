//! `portcullis audit`: check the chain, search, count, export, and erase a subject. Only `erase` and `adopt` write.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, bail};
use portcullis_audit::{
    AuditFilter, AuditLog, AuditOptions, CsvExport, Outcome, Outcomes, PublicKey, Record, Statistics, Unreadable, VerifyOptions,
    adopt, erase, public_key, query, tail, to_ocsf, unsigned_chains, verify_with,
};
use portcullis_identity::{local_principal, local_user};
use portcullis_model::{PrincipalId, SystemClock};

use crate::cli::{AuditAction, EraseArgs, ExportArgs, ExportFormat, FilterArgs, QueryArgs, VerifyArgs};
use crate::house::audit_directory;
use crate::operations::{AuditPage, audit_filter, audit_page};
use crate::settings::Config;
use crate::terminal::{json_line, paint, say, say_aside, say_json, say_json_line, table};

/// Most names per group in the table of `stats`; `--json` has all.
const NAMES_SHOWN: usize = 10;
/// Most records named whose end is missing; `--json` has all.
const UNENDED_SHOWN: usize = 5;

/// Runs `portcullis audit …`.
pub fn run(config: &Config, action: &AuditAction) -> anyhow::Result<()> {
    let directory = audit_directory(config);
    if !directory.is_dir() {
        bail!("there is no audit log yet in {}", directory.display());
    }
    let key_file = config.audit.key_file.clone();
    match action {
        AuditAction::Verify(args) => check(&directory, args, key_file),
        AuditAction::Tail { lines, json } => newest(&directory, *lines, *json),
        AuditAction::Query(args) => search(&directory, args),
        AuditAction::Stats { filter, output } => count(&directory, filter, output.json),
        AuditAction::Export(args) => export(&directory, args),
        AuditAction::Erase(args) => forget(&directory, args, &AuditOptions { key_file, ..AuditOptions::default() }),
        AuditAction::Adopt { chains } => sign_as_it_is(&directory, chains, AuditOptions { key_file, ..AuditOptions::default() }),
        AuditAction::PublicKey => {
            let key = public_key(&directory, key_file.as_deref())?;
            let key = key.context("this audit log was never signed; it gets its key when Portcullis starts")?;
            say(key.to_hex());
            Ok(())
        }
    }
}

fn check(directory: &Path, args: &VerifyArgs, key_file: Option<PathBuf>) -> anyhow::Result<()> {
    let key = args.public_key.as_deref().map(given_key).transpose()?;
    let options = VerifyOptions { public_key: key, key_file, accept_unsigned: args.accept_unsigned };
    let report = verify_with(directory, &options)?;
    if args.json {
        say_json(&serde_json::to_value(&report)?);
    } else {
        for chain in &report.chains {
            let state = if chain.live { "being written" } else { "at rest" };
            let mut line = format!("{}: {} records in {} files, {state}", chain.chain, chain.records, chain.files);
            if chain.begins_at > 1 {
                let _ = write!(line, ", begins at record {} after retention", chain.begins_at);
            }
            if report.public_key.is_some() {
                let _ = write!(line, ", signed up to record {} of {}", chain.signed_to, chain.last_sequence);
            }
            if chain.erased > 0 {
                let _ = write!(line, ", {} pseudonymised", chain.erased);
            }
            say(line);
        }
        for finding in &report.findings {
            let line = finding.line.map(|l| format!(" line {l}")).unwrap_or_default();
            say(format!("{} {}{line}: {}", paint::bad("broken"), finding.file, finding.detail));
        }
        if report.more_findings > 0 {
            say(format!("and {} findings more", report.more_findings));
        }
    }
    if !report.is_intact() {
        bail!("the audit log is not as it was written");
    }
    if !args.json {
        let signed =
            if report.public_key.is_some() { "every hash and signature fits" } else { "every hash fits, nothing is signed" };
        say(format!("{}: {} records, {signed}", paint::good("intact"), report.records()));
    }
    Ok(())
}

/// A public key as digits or as the name of a file that holds them.
fn given_key(text: &str) -> anyhow::Result<PublicKey> {
    let path = PathBuf::from(text);
    if path.is_file() {
        return PublicKey::from_file(&path).with_context(|| format!("reading {}", path.display()));
    }
    Ok(PublicKey::from_hex(text)?)
}

fn newest(directory: &Path, lines: usize, json: bool) -> anyhow::Result<()> {
    let newest = tail(directory, lines, &AuditFilter::default())?;
    if json {
        for record in &newest.records {
            say_json_line(&record.to_json());
        }
    } else {
        say(rows(&newest.records));
    }
    warn(&newest.unreadable);
    Ok(())
}

/// What could not be read goes to standard error, so that JSON on standard output stays JSON.
fn warn(unreadable: &[Unreadable]) {
    for one in unreadable {
        say_aside(format!("{} {}: {}", paint::bad("unreadable"), one.file, one.detail));
    }
}

fn rows(records: &[Record]) -> comfy_table::Table {
    let cells = records.iter().map(|r| {
        let e = &r.event;
        let text = |t: Option<&str>| t.unwrap_or("").to_owned();
        let end = match r.outcome() {
            Outcome::Ok => paint::good("ok"),
            Outcome::Begun => paint::faint("begun"),
            _ => paint::bad(e.code.map_or("refused", portcullis_model::FaultCode::as_str)),
        };
        [
            r.time.to_string(),
            e.kind.as_str().to_owned(),
            e.principal.as_ref().map(ToString::to_string).unwrap_or_default(),
            text(e.tool.as_deref().or(e.target.as_deref()).or(e.method.as_deref())),
            text(e.rule.as_deref()),
            end,
            e.latency_us.map(milliseconds).unwrap_or_default(),
        ]
    });
    table(["time", "kind", "principal", "what", "rule", "end", "took"], cells)
}

fn milliseconds(micros: u64) -> String {
    format!("{:.1} ms", micros as f64 / 1000.0)
}

/// The newest records that fit, or with a cursor those that follow it.
fn search(directory: &Path, args: &QueryArgs) -> anyhow::Result<()> {
    let wanted = audit_filter(&args.filter)?;
    let page = audit_page(directory, &wanted, args.cursor.as_deref(), args.limit, &AtomicBool::new(false))?;
    let AuditPage { records: found, unreadable, more } = page;
    if args.json {
        for record in &found {
            say_json_line(&record.to_json());
        }
    } else if found.is_empty() {
        say("No record fits.");
    } else {
        say(rows(&found));
    }
    if let (true, Some(last)) = (more, found.last()) {
        let position = last.position();
        // JSON lines stay records only: what is about them goes to standard error.
        let text = format!("There are more records than {}; go on with --cursor {position}", args.limit);
        if args.json {
            say_aside(&text);
        } else {
            say(paint::warn(&text));
        }
    }
    warn(&unreadable);
    Ok(())
}

fn count(directory: &Path, args: &FilterArgs, json: bool) -> anyhow::Result<()> {
    let mut counted = Statistics::default();
    for item in query(directory, audit_filter(args)?)? {
        match item {
            Ok(record) => counted.add(&record),
            Err(_) => counted.add_unreadable(),
        }
    }
    let counted = counted.finished();
    if json {
        say_json(&serde_json::to_value(&counted)?);
        return Ok(());
    }
    let all = counted.all;
    say(format!("{} records: {} ok, {} failed, {} refused", all.records, all.ok, all.failed, all.refused));
    if let (Some(p50), Some(p95)) = (counted.latency_p50_us, counted.latency_p95_us) {
        say(format!("latency: median {}, 95 % within {}", milliseconds(p50), milliseconds(p95)));
    }
    say(format!(
        "released: {} bytes, about {} tokens; {} values redacted",
        counted.bytes_out, counted.tokens_out, counted.redactions
    ));
    for (what, group) in [("principal", &counted.principals), ("tool", &counted.tools)] {
        say(outcomes(what, group));
    }
    for (what, group) in [("decision", &counted.decisions), ("code", &counted.codes), ("kind", &counted.kinds)] {
        say(table([what, "records"], group.iter().map(|(name, count)| [name.clone(), count.to_string()])));
    }
    say_unended(&counted.unended, args);
    if counted.unreadable > 0 {
        say(format!("{} {} lines; run 'portcullis audit verify'", paint::bad("unreadable"), counted.unreadable));
    }
    Ok(())
}

/// What was about to change something, and has no end on record: it may have happened.
fn say_unended(places: &BTreeSet<String>, args: &FilterArgs) {
    // Where ends were left out, there is nothing to say about them.
    let halves = !args.kind.is_empty() || args.outcome.is_some() || args.code.is_some() || args.text.is_some();
    if places.is_empty() || halves {
        return;
    }
    let shown: Vec<&str> = places.iter().take(UNENDED_SHOWN).map(String::as_str).collect();
    let more = if places.len() > shown.len() { " …" } else { "" };
    say(paint::warn(&format!(
        "{} calls that may change something were begun and have no end here (they run, or their process ended): {}{more}",
        places.len(),
        shown.join(", ")
    )));
}

fn outcomes(what: &str, group: &std::collections::BTreeMap<String, Outcomes>) -> String {
    let mut names: Vec<_> = group.iter().collect();
    names.sort_by(|a, b| (b.1.records, a.0).cmp(&(a.1.records, b.0)));
    let hidden = names.len().saturating_sub(NAMES_SHOWN);
    let cells = names.into_iter().take(NAMES_SHOWN).map(|(name, o)| {
        let name = if name.is_empty() { "(none)".to_owned() } else { name.clone() };
        [name, o.records.to_string(), o.ok.to_string(), o.failed.to_string(), o.refused.to_string()]
    });
    let mut text = table([what, "records", "ok", "failed", "refused"], cells).to_string();
    if hidden > 0 {
        let _ = write!(text, "\nand {hidden} more; --json has all");
    }
    text
}

fn export(directory: &Path, args: &ExportArgs) -> anyhow::Result<()> {
    let records = query(directory, audit_filter(&args.filter)?)?;
    let mut out: Box<dyn std::io::Write> = match &args.output {
        None => Box::new(std::io::BufWriter::new(std::io::stdout())),
        Some(path) => {
            use std::os::unix::fs::OpenOptionsExt;
            let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
            Box::new(std::io::BufWriter::new(file.with_context(|| format!("writing {}", path.display()))?))
        }
    };
    let mut unreadable = Vec::new();
    let mut keep = |item: Result<Record, Unreadable>| item.map_err(|problem| unreadable.push(problem)).ok();
    match args.format {
        ExportFormat::Csv => {
            let mut csv = CsvExport::new(&mut out)?;
            for record in records.filter_map(&mut keep) {
                csv.write(&record)?;
            }
            csv.finish()?;
        }
        ExportFormat::Json => {
            for record in records.filter_map(&mut keep) {
                writeln!(out, "{}", json_line(&record.to_json()))?;
            }
        }
        ExportFormat::Ocsf => {
            for record in records.filter_map(&mut keep) {
                writeln!(out, "{}", json_line(&to_ocsf(&record)))?;
            }
        }
    }
    out.flush()?;
    warn(&unreadable);
    if !unreadable.is_empty() {
        bail!("{} lines could not be read and are not in the export; run 'portcullis audit verify'", unreadable.len());
    }
    Ok(())
}

/// Every chain that can be is signed, whatever becomes of the others.
fn sign_as_it_is(directory: &Path, names: &[String], options: AuditOptions) -> anyhow::Result<()> {
    let by = local_principal(&local_user(), "admin")?;
    let log = AuditLog::open_with(directory, Arc::new(SystemClock), options)?;
    let mut refused = 0;
    for name in names {
        match adopt(&log, name, &by, &SystemClock) {
            Ok(adopted) => {
                say(format!("{}: signed as it is, up to record {} ({})", adopted.chain, adopted.sequence, adopted.hash));
            }
            Err(error) => {
                refused += 1;
                say_aside(format!("{} {error}", paint::bad("refused")));
            }
        }
    }
    log.close()?;
    let unsigned = unsigned_chains(directory)?;
    if refused > 0 {
        let left = if unsigned.is_empty() { "none".to_owned() } else { unsigned.join(", ") };
        bail!("{refused} of {} chains were not signed; without signatures are: {left}", names.len());
    }
    Ok(())
}

fn forget(directory: &Path, args: &EraseArgs, options: &AuditOptions) -> anyhow::Result<()> {
    let subject = PrincipalId::new(&args.subject)?;
    let by = local_principal(&local_user(), "admin")?;
    let report = erase(directory, &subject, &by.id, Arc::new(SystemClock), options)?;
    if args.json {
        say_json(&serde_json::to_value(&report)?);
    } else {
        if report.finished_earlier {
            say("An erasure that was interrupted earlier is finished.");
        }
        match report.pseudonym.as_str() {
            "" => say("No record speaks of this subject."),
            name => say(format!("{} records now speak of {name}; the chain still verifies.", report.records)),
        }
        if report.removed_files > 0 {
            say(format!("{} files with incomplete records that named the subject are removed.", report.removed_files));
        }
    }
    if report.left > 0 {
        bail!(
            "{} records from before personal text was sealed name the subject in hashed bytes and cannot be changed; retention removes them",
            report.left
        );
    }
    Ok(())
}
