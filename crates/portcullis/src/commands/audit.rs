//! `portcullis audit`: check the chain, read the newest records. Opens nothing for writing.

use anyhow::bail;
use portcullis_audit::{AuditFilter, tail, verify};

use crate::cli::AuditAction;
use crate::house::audit_directory;
use crate::settings::Config;
use crate::terminal::{paint, say, say_json, table};

/// Runs `portcullis audit …`.
pub fn run(config: &Config, action: &AuditAction) -> anyhow::Result<()> {
    let directory = audit_directory(config);
    if !directory.is_dir() {
        bail!("there is no audit log yet in {}", directory.display());
    }
    match action {
        AuditAction::Verify(output) => {
            let report = verify(&directory)?;
            if output.json {
                say_json(&serde_json::to_value(&report)?);
            } else {
                for chain in &report.chains {
                    let state = if chain.live { "being written" } else { "at rest" };
                    say(format!("{}: {} records in {} files, {state}", chain.chain, chain.records, chain.files));
                }
                for finding in &report.findings {
                    let line = finding.line.map(|l| format!(" line {l}")).unwrap_or_default();
                    say(format!("{} {}{line}: {}", paint::bad("broken"), finding.file, finding.detail));
                }
            }
            if !report.is_intact() {
                bail!("the audit log is not as it was written");
            }
            if !output.json {
                say(format!("{}: {} records, every hash fits", paint::good("intact"), report.records()));
            }
            Ok(())
        }
        AuditAction::Tail { lines, json } => {
            let newest = tail(&directory, *lines, &AuditFilter::default())?;
            if *json {
                for record in &newest.records {
                    say(&record.line);
                }
            } else {
                let rows = newest.records.iter().map(|r| {
                    let e = &r.event;
                    let text = |t: Option<&str>| t.unwrap_or("").to_owned();
                    let kind = serde_json::to_value(e.kind).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
                    let end = e.code.map_or_else(|| paint::good("ok"), |c| paint::bad(c.as_str()));
                    [
                        r.time.to_string(),
                        kind,
                        e.principal.as_ref().map(ToString::to_string).unwrap_or_default(),
                        text(e.tool.as_deref().or(e.method.as_deref())),
                        text(e.rule.as_deref()),
                        end,
                        e.latency_us.map(|us| format!("{:.1} ms", us as f64 / 1000.0)).unwrap_or_default(),
                    ]
                });
                say(table(["time", "kind", "principal", "what", "rule", "end", "took"], rows));
            }
            for unreadable in &newest.unreadable {
                say(format!("{} {}: {}", paint::bad("unreadable"), unreadable.file, unreadable.detail));
            }
            Ok(())
        }
    }
}
