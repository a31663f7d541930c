//! Secrets in tables and mark-up: the cell behind a secret's name, the column below it, the content of an element.

use super::fields::{self, Strength};
use super::quick;
use super::scan::{RANK_FIELD, Scan};
use super::signs::Signs;

/// A column of a table in text: what separates its cells, how many there are, which it is, and whether its name is one of
/// a secret by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Column {
    separator: u8,
    width: usize,
    index: usize,
    sure: bool,
}

impl Scan<'_> {
    /// The border of a cell, or the end of an element's opening.
    pub(super) fn border(&mut self, at: usize, signs: &mut Signs) {
        if self.bytes[at] == b'>' {
            self.element(at);
        } else if at >= signs.line {
            signs.line = self.row(at);
        }
    }

    /// The first of the spaces behind a word, with a column behind them.
    pub(super) fn named_gap(&mut self, at: usize) {
        let bytes = self.bytes;
        // How many there are stands in a column more often than they do.
        let tells = |name: fields::Name| name.strength != Strength::Many;
        let named = at > 0 && bytes[at - 1].is_ascii_alphanumeric() && fields::name_before(bytes, at).is_some_and(tells);
        if named {
            self.judges(at);
            let gap = bytes[at..].iter().take(256).take_while(|b| **b == b' ').count();
            self.cell(at + gap);
        }
    }

    /// Tables with commas (RFC 4180): a heading is a line of nothing but names, with as many cells in the line below.
    pub(super) fn commas(&mut self) {
        let bytes = self.bytes;
        let mut from = 0;
        while let Some(comma) = memchr::memchr(b',', &bytes[from..]).map(|n| from + n) {
            let start = memchr::memrchr(b'\n', &bytes[from..comma]).map_or(from, |n| from + n + 1);
            let end = memchr::memchr(b'\n', &bytes[comma..]).map_or(bytes.len(), |n| comma + n);
            from = end + 1;
            if end < bytes.len() && heading_cell(&bytes[start..comma]) {
                from = self.heading(start, end);
            }
            if from >= bytes.len() {
                return;
            }
        }
    }

    /// The columns under a line that may be a heading. Says where to go on.
    fn heading(&mut self, start: usize, end: usize) -> usize {
        let bytes = self.bytes;
        let cells = split_quoted(bytes, start, end);
        // With its quotes, where it has any: only between them a name may have spaces.
        let named = |(a, b): &(usize, usize)| {
            heading_cell(&bytes[*a..*b]) || heading_cell(&bytes[a.saturating_sub(1).max(start)..(b + 1).min(end)])
        };
        if cells.len() < 2 || !cells.iter().all(named) {
            return end + 1;
        }
        let secret: Vec<(usize, Strength)> =
            cells.iter().enumerate().filter_map(|(at, (a, b))| Some((at, fields::strength(&bytes[*a..*b])?))).collect();
        if secret.is_empty() {
            return end + 1;
        }
        self.wide = true;
        let mut from = end + 1;
        while from < bytes.len() {
            let end = memchr::memchr(b'\n', &bytes[from..]).map_or(bytes.len(), |n| from + n);
            let row = split_quoted(bytes, from, end);
            if row.len() != cells.len() {
                break;
            }
            for (at, strength) in &secret {
                let (a, b) = row[*at];
                let value = &bytes[a..b];
                // The heading of another table below this one is none of its rows.
                let looks = fields::fits(*strength, value) && !fields::is_count(*strength, value);
                if looks && !fields::harmless(value) && fields::strength(value).is_none() {
                    self.secret(a, b, "secret-value", RANK_FIELD);
                }
            }
            from = end + 1;
        }
        from
    }

    /// A cell behind that of a secret's name: its value has to look like a secret, for the next column may be any other.
    fn cell(&mut self, at: usize) {
        if let Some(place) = fields::bare_at(self.bytes, at) {
            let value = &self.bytes[place.start..place.end];
            if fields::secretish(value) && !fields::harmless(value) {
                self.secret(place.start, place.end, "secret-value", RANK_FIELD);
            }
        }
    }

    /// `<password>x</password>`
    fn element(&mut self, at: usize) {
        let bytes = self.bytes;
        if !self.look.thorough && !quick::may_matter(bytes, at) {
            return;
        }
        let Some(name) = fields::name_before(bytes, at) else { return };
        self.wide = true;
        if name.start == 0 || bytes[name.start - 1] != b'<' || name.end != at {
            return;
        }
        let length = bytes[at + 1..].iter().take(4_096).take_while(|b| **b != b'<').count();
        let value = &bytes[at + 1..at + 1 + length];
        let fits = name.strength != Strength::Many || fields::fits(name.strength, value);
        if fits && !fields::harmless(value) {
            self.secret(at + 1, at + 1 + length, "secret-value", RANK_FIELD);
        }
    }

    /// A line of cells: `name|value`, or a heading whose column holds secrets. Says where the line ends.
    fn row(&mut self, at: usize) -> usize {
        let bytes = self.bytes;
        let separator = bytes[at];
        let start = memchr::memrchr(b'\n', &bytes[..at]).map_or(0, |n| n + 1);
        let end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |n| at + n);
        if !cells(bytes, start, end, separator).any(|(from, to)| fields::strength(&bytes[from..to]).is_some()) {
            return end;
        }
        let cells = split(bytes, start, end, separator);
        for (index, (from, to)) in cells.iter().enumerate() {
            let cell = &bytes[*from..*to];
            let Some(strength) = fields::strength(cell) else { continue };
            // The kind in a mark (`[redacted:password-hash]`) is no heading. Behind a field with one in a cell of its own the
            // next may be the rest of a value that had the separator in it.
            // Quotes and brackets may close behind it.
            let told = match memchr::memrchr(b']', cell) {
                Some(at) if !cell[at..].iter().any(u8::is_ascii_alphanumeric) => &cell[..=at],
                _ => cell,
            };
            let marked = fields::ends_in_marker(told);
            if marked && fields::is_marker(cell) {
                continue;
            }
            self.judges(*from);
            self.wide |= !marked;
            let next = cells.get(index + 1).filter(|(a, b)| {
                let value = &bytes[*a..*b];
                fields::secretish(value) && fields::fits(strength, value) && !fields::harmless(value)
            });
            if let Some((a, b)) = next {
                self.secret(*a, *b, "secret-value", RANK_FIELD);
            } else if !marked {
                self.column(end + 1, separator, cells.len(), index, strength);
            }
        }
        end
    }

    /// The cells of one column below a heading.
    fn column(&mut self, mut from: usize, separator: u8, width: usize, index: usize, strength: Strength) {
        let bytes = self.bytes;
        // A heading inside a table whose column was followed already says nothing new.
        let column = Column { separator, width, index, sure: fields::is_sure(strength) };
        if self.columns.get(&column).is_some_and(|end| from <= *end) {
            return;
        }
        while from < bytes.len() {
            let end = memchr::memchr(b'\n', &bytes[from..]).map_or(bytes.len(), |n| from + n);
            let cells = split(bytes, from, end, separator);
            self.columns.insert(column, end);
            if cells.len() < 2 {
                return;
            }
            // A line of another width is of a table in a cell, or broken: counted from its end, and only what looks like one.
            let regular = cells.len() == width;
            let place = if regular { Some(index) } else { (cells.len() + index).checked_sub(width) };
            if let Some((a, b)) = place.and_then(|place| cells.get(place)).copied() {
                let value = &bytes[a..b];
                let rule = value.iter().all(|b| matches!(b, b'-' | b':'));
                let sure = regular && fields::is_sure(strength) && !fields::is_count(strength, value);
                let looks = sure || (fields::secretish(value) && fields::fits(strength, value));
                if !rule && !fields::harmless(value) && looks {
                    self.secret(a, b, "secret-value", RANK_FIELD);
                }
            }
            from = end + 1;
        }
    }
}

/// Whether a cell can be a column's name: short, of one word, or of a few in quotes, beginning with a letter. Prose with
/// commas has cells of several words.
fn heading_cell(cell: &[u8]) -> bool {
    let whole = cell.trim_ascii();
    let quoted = whole.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let name = quoted.unwrap_or(whole);
    (1..=40).contains(&name.len())
        && (name[0].is_ascii_alphabetic() || name[0] == b'_')
        && name.iter().all(|b| fields::in_name(*b) || (*b == b' ' && quoted.is_some()))
}

/// Cells between commas, without the space and the quotes around them. A comma between quotes separates nothing.
fn split_quoted(bytes: &[u8], start: usize, end: usize) -> Vec<(usize, usize)> {
    let mut cells = Vec::new();
    let (mut from, mut quoted) = (start, false);
    for at in start..=end {
        if at < end && bytes[at] == b'"' {
            quoted = !quoted;
        } else if at == end || (bytes[at] == b',' && !quoted) {
            let cell = &bytes[from..at];
            let left = cell.iter().take_while(|b| matches!(**b, b' ' | b'"')).count();
            let right = cell[left..].iter().rev().take_while(|b| matches!(**b, b' ' | b'\r' | b'"')).count();
            cells.push((from + left, at - right));
            from = at + 1;
        }
    }
    cells
}

/// Cells of a line, without the space around them. An escaped `\|` separates nothing.
fn cells(bytes: &[u8], start: usize, end: usize, separator: u8) -> impl Iterator<Item = (usize, usize)> {
    let end = end.min(bytes.len());
    let borders = memchr::memchr_iter(separator, &bytes[start..end])
        .map(move |at| start + at)
        .filter(move |at| !(separator == b'|' && bytes[..*at].ends_with(b"\\")));
    let mut from = start;
    borders.chain(std::iter::once(end)).map(move |at| {
        let cell = &bytes[from..at];
        let left = cell.iter().take_while(|b| **b == b' ').count();
        let right = cell[left..].iter().rev().take_while(|b| matches!(**b, b' ' | b'\r')).count();
        let place = (from + left, at - right);
        from = at + 1;
        place
    })
}

fn split(bytes: &[u8], start: usize, end: usize, separator: u8) -> Vec<(usize, usize)> {
    cells(bytes, start, end, separator).collect()
}
