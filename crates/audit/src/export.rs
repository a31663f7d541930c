//! Records as CSV for a spreadsheet. Guards that no cell is taken for a formula there, whatever an agent put into a
//! name. Must not cut or leave out anything.

use std::io::Write;

use crate::read::Record;

const COLUMNS: [&str; 30] = [
    "log",
    "seq",
    "time",
    "kind",
    "principal",
    "about",
    "credential",
    "key",
    "tenant",
    "transport",
    "client",
    "via",
    "claimed",
    "session",
    "method",
    "tool",
    "target",
    "parameters",
    "decision",
    "rule",
    "code",
    "count",
    "outcome",
    "latency_us",
    "bytes_out",
    "tokens_out",
    "sources",
    "redactions",
    "trace_id",
    "note",
];

/// A cell that a spreadsheet shows as text: what begins like a formula gets a leading apostrophe.
///
/// Source: OWASP, CSV Injection.
pub fn neutralised(cell: &str) -> String {
    match cell.chars().next() {
        Some('=' | '+' | '-' | '@' | '\t' | '\r' | '\n') => format!("'{cell}"),
        _ => cell.to_owned(),
    }
}

/// Writes records as CSV (RFC 4180), header first.
pub struct CsvExport<W: Write>(csv::Writer<W>);

impl<W: Write> std::fmt::Debug for CsvExport<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CsvExport")
    }
}

impl<W: Write> CsvExport<W> {
    /// Writes the header.
    pub fn new(out: W) -> std::io::Result<Self> {
        let mut writer = csv::Writer::from_writer(out);
        writer.write_record(COLUMNS).map_err(std::io::Error::other)?;
        Ok(Self(writer))
    }

    /// Writes one record. A field that is not known is an empty cell.
    pub fn write(&mut self, record: &Record) -> std::io::Result<()> {
        self.0.write_record(cells(record).iter().map(|cell| neutralised(cell))).map_err(std::io::Error::other)
    }

    /// Brings everything out.
    pub fn finish(mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

fn cells(record: &Record) -> Vec<String> {
    let mut flat = record.to_json();
    let event = &record.event;
    let redactions: Vec<String> = event.redactions.iter().map(|(what, count)| format!("{what}={count}")).collect();
    if let Some(members) = flat.as_object_mut() {
        members.insert("outcome".to_owned(), record.outcome().as_str().into());
        members.insert("sources".to_owned(), event.sources.join(" ").into());
        members.insert("redactions".to_owned(), redactions.join(" ").into());
    }
    COLUMNS
        .iter()
        .map(|column| match flat.get(*column) {
            None | Some(serde_json::Value::Null) => String::new(),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{AuditEvent, Decision, EventKind};
    use portcullis_model::Timestamp;
    use proptest::prelude::*;

    const TOOL: usize = 15;

    fn record(event: AuditEvent) -> Record {
        Record { chain: "audit-a".into(), sequence: 7, time: Timestamp::from_seconds(1_800_000_000), event, line: String::new() }
    }

    fn exported(event: AuditEvent) -> Vec<csv::StringRecord> {
        let mut out = Vec::new();
        let mut export = CsvExport::new(&mut out).unwrap();
        export.write(&record(event)).unwrap();
        export.finish().unwrap();
        csv::Reader::from_reader(out.as_slice()).records().map(Result::unwrap).collect()
    }

    #[test]
    fn every_column_is_filled_from_the_record() {
        let event = AuditEvent::new(EventKind::Refused)
            .tool("query_logs")
            .sources(["a", "b"])
            .redactions([("email", 2)])
            .decided(Decision::Deny, "r, \"quoted\"")
            .latency_us(12);
        let row = &exported(event)[0];
        let cell = |name: &str| &row[COLUMNS.iter().position(|c| *c == name).unwrap()];
        assert_eq!((cell("seq"), cell("tool"), cell("sources"), cell("redactions")), ("7", "query_logs", "a b", "email=2"));
        assert_eq!((cell("rule"), cell("outcome"), cell("latency_us"), cell("note")), ("r, \"quoted\"", "refused", "12", ""));
    }

    #[test]
    fn formulas_are_text() {
        for planted in ["=cmd()", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"] {
            let row = &exported(AuditEvent::new(EventKind::Call).tool(planted.to_owned()))[0];
            assert_eq!(&row[TOOL], format!("'{planted}"));
        }
        assert_eq!((neutralised("a=b").as_str(), COLUMNS[TOOL]), ("a=b", "tool"));
    }

    proptest! {
        #[test]
        fn no_cell_begins_like_a_formula_and_nothing_is_lost(tool in "\\PC{0,40}|[=+@\\-\t\r\n].{0,20}") {
            let row = &exported(AuditEvent::new(EventKind::Call).tool(tool.clone()))[0];
            prop_assert!(row.iter().all(|cell| !cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n'])));
            let cell = &row[TOOL];
            prop_assert!(cell == tool || cell.strip_prefix('\'') == Some(&tool), "{cell:?} {tool:?}");
        }
    }
}
