//! Records as CSV for a spreadsheet. Guards that no cell is taken for a formula there, whatever an agent put into a
//! name. Must not cut or leave out anything.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;

use crate::read::Record;

const COLUMNS: [&str; 32] = [
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
    "intent",
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
    "signs",
    "trace_id",
    "note",
];

/// What a spreadsheet takes for the beginning of a formula, also in the full width of East Asian keyboards.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// What a spreadsheet may take for the end of a cell although the file says otherwise: which separator it expects depends on
/// the language it is set to, and behind another one than ours quotes do not count.
const SEPARATOR: [char; 4] = [';', '\t', '\r', '\n'];

/// A cell that a spreadsheet shows as text: what begins like a formula, here or behind what it may take for the end of a
/// cell, gets an apostrophe in front.
///
/// Source: OWASP, CSV Injection.
pub fn neutralised(cell: &str) -> String {
    let mut out = String::with_capacity(cell.len() + 1);
    if cell.starts_with(['\t', '\r', '\n']) {
        out.push('\'');
    }
    let mut begins = true;
    for character in cell.chars() {
        if begins && FORMULA.contains(&character) {
            out.push('\'');
        }
        // Blanks and quotes in front are dropped on the way in.
        begins = SEPARATOR.contains(&character) || (begins && (character == '"' || character.is_whitespace()));
        out.push(character);
    }
    out
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
    let counts = |map: &BTreeMap<Cow<'static, str>, u64>| -> String {
        map.iter().map(|(what, count)| format!("{what}={count}")).collect::<Vec<_>>().join(" ")
    };
    if let Some(members) = flat.as_object_mut() {
        members.insert("outcome".to_owned(), record.outcome().as_str().into());
        members.insert("sources".to_owned(), event.sources.join(" ").into());
        members.insert("redactions".to_owned(), counts(&event.redactions).into());
        members.insert("signs".to_owned(), counts(&event.signs).into());
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
            .signs([("hidden_characters", 3), ("texts_like_instructions", 1)])
            .decided(Decision::Deny, "r, \"quoted\"")
            .latency_us(12);
        let row = &exported(event)[0];
        let cell = |name: &str| &row[COLUMNS.iter().position(|c| *c == name).unwrap()];
        assert_eq!((cell("seq"), cell("tool"), cell("sources"), cell("redactions")), ("7", "query_logs", "a b", "email=2"));
        assert_eq!(cell("signs"), "hidden_characters=3 texts_like_instructions=1");
        assert_eq!((cell("rule"), cell("outcome"), cell("latency_us"), cell("note")), ("r, \"quoted\"", "refused", "12", ""));
    }

    #[test]
    fn formulas_are_text() {
        for planted in ["=cmd()", "+1", "-1", "@SUM(A1)", "\t1", "\r1", "\n1"] {
            let row = &exported(AuditEvent::new(EventKind::Call).tool(planted.to_owned()))[0];
            assert_eq!(&row[TOOL], format!("'{planted}"));
        }
        assert_eq!(neutralised("\t=1"), "'\t'=1");
        assert_eq!((neutralised("a=b").as_str(), COLUMNS[TOOL]), ("a=b", "tool"));
        assert_eq!(neutralised("＝cmd()"), "'＝cmd()");
        // A spreadsheet whose separator is the semicolon cuts here.
        assert_eq!(neutralised("a;=cmd();\"@x\n +1;b-c"), "a;'=cmd();\"'@x\n '+1;b-c");
    }

    proptest! {
        #[test]
        fn no_cell_begins_like_a_formula_and_nothing_is_lost(tool in "\\PC{0,40}|[=+@\\-\t\r\n].{0,20}|[;=+ \"a\t\n＝]{0,12}") {
            let row = &exported(AuditEvent::new(EventKind::Call).tool(tool.clone()))[0];
            let begins = |part: &str| part.trim_start_matches(|c: char| c == '"' || c.is_whitespace()).starts_with(FORMULA);
            prop_assert!(row.iter().all(|cell| !cell.starts_with(['\t', '\r', '\n'])));
            prop_assert!(row.iter().flat_map(|cell| cell.split(SEPARATOR)).all(|part| !begins(part)));
            let cell = &row[TOOL];
            prop_assert_eq!(cell.replace('\'', ""), tool.replace('\'', ""));
        }
    }
}
