//! What a person at a terminal sees: tables and colour there, plain text in a pipe. Guards that no text from outside hides
//! something there, turns a line around or gives the terminal orders: what is printed passes here, and such characters are
//! written out. Must not leave any of them out.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use portcullis_guard::is_hidden;

/// Prints one line to standard output. The one place outside the protocol that does.
pub fn say(text: impl std::fmt::Display) {
    anstream::println!("{}", coloured(&text.to_string()));
}

/// Prints like [`say`], and says whether all of it was taken: not by a pipe whose reader went away.
pub fn say_heard(text: impl std::fmt::Display) -> bool {
    let mut stream = anstream::stdout();
    writeln!(stream, "{}", coloured(&text.to_string())).and_then(|()| stream.flush()).is_ok()
}

/// Whether what is printed goes to a terminal, where somebody reads it: not into a file, a pipe or nowhere.
pub fn is_seen_by_a_person() -> bool {
    std::io::stdout().is_terminal()
}

/// Prints one line to standard error.
pub fn say_aside(text: impl std::fmt::Display) {
    anstream::eprintln!("{}", coloured(&text.to_string()));
}

/// Prints JSON to standard output, indented for a person, compact in a pipe.
pub fn say_json(value: &serde_json::Value) {
    let text = if std::io::stdout().is_terminal() { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    anstream::println!("{}", escaped_json(&text.unwrap_or_default()));
}

/// Prints JSON to standard output on one line.
pub fn say_json_line(value: &serde_json::Value) {
    anstream::println!("{}", json_line(value));
}

/// JSON on one line, to be written elsewhere or to be printed.
pub fn json_line(value: &serde_json::Value) -> String {
    escaped_json(&value.to_string())
}

/// What nobody would see is written out, line ends and tabs too where they are no part of the form.
fn written_out(text: &str, lines: bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hidden(character) || (!lines && matches!(character, '\n' | '\t')) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The text as it may reach a terminal, with the colours of [`paint`] and no other sequence.
fn coloured(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in written_out(text, true).chars() {
        match paint::sequence(character) {
            Some(sequence) => out.push_str(sequence),
            None => out.push(character),
        }
    }
    out
}

/// The same JSON, where strings hold nothing unseen but as an escape of JSON.
pub fn escaped_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hidden(character) {
            let mut units = [0; 2];
            let units: &[u16] = character.encode_utf16(&mut units);
            for unit in units {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(character);
        }
    }
    out
}

/// A table with `header`; borders only at a terminal.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Table {
    let mut table = Table::new();
    table.load_style(if std::io::stdout().is_terminal() { presets::UTF8_HORIZONTAL_ONLY } else { presets::NOTHING });
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    for row in rows {
        // A line end in a name would look like a row of its own.
        table.add_row(row.map(|cell| written_out(&cell, false)));
    }
    table
}

/// Marks words in the terminal's colours; stripped in a pipe by the output stream.
pub mod paint {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    use std::sync::LazyLock;

    /// What marks stand for; the first ends what the others begin.
    const SEQUENCES: [&str; 6] = ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[2m", "\u{1b}[31m", "\u{1b}[32m", "\u{1b}[33m"];

    /// The first of the marks: characters for private use, others in each process, so that no text brings them along.
    static FIRST: LazyLock<u32> = LazyLock::new(|| {
        let places = 0xfff0 / SEQUENCES.len() as u64;
        let place = RandomState::new().build_hasher().finish() % places * SEQUENCES.len() as u64;
        0x10_0000 + u32::try_from(place).unwrap_or_default()
    });

    /// The sequence a mark stands for; `None` for every other character.
    pub(super) fn sequence(character: char) -> Option<&'static str> {
        let place = u32::from(character).checked_sub(*FIRST)?;
        SEQUENCES.get(usize::try_from(place).ok()?).copied()
    }

    fn marked(place: u32, text: &str) -> String {
        let mark = |place: u32| char::from_u32(*FIRST + place).unwrap_or(' ');
        format!("{}{text}{}", mark(place), mark(0))
    }

    /// Good news.
    pub fn good(text: &str) -> String {
        marked(4, text)
    }
    /// Attention.
    pub fn warn(text: &str) -> String {
        marked(5, text)
    }
    /// Bad news.
    pub fn bad(text: &str) -> String {
        marked(3, text)
    }
    /// What matters in a line.
    pub fn strong(text: &str) -> String {
        marked(1, text)
    }
    /// What matters less.
    pub fn faint(text: &str) -> String {
        marked(2, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Orders for a terminal, bidirectional marks, characters without width, tags.
    const PLANTED: &str = "a\u{1b}[8mb\u{9b}2Kc\u{202e}d\u{2066}e\u{200b}f\u{feff}g\u{e0041}h\r\u{7}i";

    #[test]
    fn what_is_hidden_is_written_out_and_the_rest_stays() {
        let shown = coloured(PLANTED);
        assert!(!shown.chars().any(is_hidden), "{shown:?}");
        assert!(shown.contains(r"a\u{1b}[8mb\u{9b}2Kc\u{202e}d") && shown.contains(r"g\u{e0041}h\u{d}\u{7}i"), "{shown}");
        assert_eq!(coloured("a\u{2800}b\u{3164}c\u{115f}d\u{ad}"), r"a\u{2800}b\u{3164}c\u{115f}d\u{ad}");
        let usual = "Ерика, naïve\tTür 日本 🙂\nnext";
        assert_eq!(coloured(usual), usual);
    }

    #[test]
    fn colours_are_our_own() {
        assert_eq!(coloured(&paint::bad("x\u{1b}[0my")), "\u{1b}[31mx\\u{1b}[0my\u{1b}[0m");
        assert_eq!(coloured(&format!("{} {}", paint::good("a"), paint::faint("b"))), "\u{1b}[32ma\u{1b}[0m \u{1b}[2mb\u{1b}[0m");
    }

    #[test]
    fn no_cell_begins_a_row_of_its_own() {
        let text = table(["name", ""], [["x\nforged\u{202e}".to_owned(), paint::good("ok")]]).to_string();
        assert!(text.contains(r"x\u{a}forged\u{202e}") && !text.contains('\u{202e}'), "{text}");
        assert!(coloured(&text).contains("\u{1b}[32mok\u{1b}[0m"), "{text}");
    }

    #[test]
    fn json_says_the_same_in_what_can_be_seen() {
        let value = serde_json::json!({PLANTED: [PLANTED, "日本 🙂"]});
        let text = escaped_json(&value.to_string());
        assert!(!text.chars().any(is_hidden) && text.contains(r"\u202e") && text.contains(r"\udb40\udc41"), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
