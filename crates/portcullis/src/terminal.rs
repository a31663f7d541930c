//! What a person at a terminal sees: tables and colour there, plain text in a pipe.

use std::io::IsTerminal;

use comfy_table::{ContentArrangement, Table, presets};

/// Prints one line to standard output. The one place outside the protocol that does.
pub fn say(text: impl std::fmt::Display) {
    anstream::println!("{text}");
}

/// Prints JSON to standard output, indented for a person, compact in a pipe.
pub fn say_json(value: &serde_json::Value) {
    let text = if std::io::stdout().is_terminal() { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    say(text.unwrap_or_default());
}

/// A table with `header`; borders only at a terminal.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Table {
    let mut table = Table::new();
    table.load_style(if std::io::stdout().is_terminal() { presets::UTF8_HORIZONTAL_ONLY } else { presets::NOTHING });
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    table
}

/// Marks words in the terminal's colours; stripped in a pipe by the output stream.
pub mod paint {
    /// Good news.
    pub fn good(text: &str) -> String {
        format!("\u{1b}[32m{text}\u{1b}[0m")
    }
    /// Attention.
    pub fn warn(text: &str) -> String {
        format!("\u{1b}[33m{text}\u{1b}[0m")
    }
    /// Bad news.
    pub fn bad(text: &str) -> String {
        format!("\u{1b}[31m{text}\u{1b}[0m")
    }
    /// What matters in a line.
    pub fn strong(text: &str) -> String {
        format!("\u{1b}[1m{text}\u{1b}[0m")
    }
    /// What matters less.
    pub fn faint(text: &str) -> String {
        format!("\u{1b}[2m{text}\u{1b}[0m")
    }
}
