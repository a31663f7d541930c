//! Secrets in tables and mark-up: the cell behind a secret's name, the column below it, the content of an element.

use super::fields::{self, Strength};
use super::scan::{RANK_FIELD, Scan};

impl Scan<'_> {
    pub(super) fn cells(&mut self) {
        let bytes = self.bytes;
        let mut line_end = 0;
        for at in memchr::memchr3_iter(b'|', b'\t', b'>', bytes) {
            if bytes[at] == b'>' {
                self.element(at);
            } else if at >= line_end {
                line_end = self.row(at);
            }
        }
        let tables = self.look.tables;
        for at in tables.gaps.find_iter(bytes) {
            let named = at > 0 && bytes[at - 1].is_ascii_alphanumeric() && fields::name_before(bytes, at).is_some();
            if named {
                self.named = true;
                let gap = bytes[at..].iter().take(256).take_while(|b| **b == b' ').count();
                self.cell(at + gap);
            }
        }
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
        let Some(name) = fields::name_before(bytes, at) else { return };
        self.named = true;
        if name.start == 0 || bytes[name.start - 1] != b'<' || name.end != at {
            return;
        }
        let length = bytes[at + 1..].iter().take(4_096).take_while(|b| **b != b'<').count();
        let value = &bytes[at + 1..at + 1 + length];
        if !fields::harmless(value) {
            self.secret(at + 1, at + 1 + length, "secret-value", RANK_FIELD);
        }
    }

    /// A line of cells: `name|value`, or a heading whose column holds secrets. Says where the line ends.
    fn row(&mut self, at: usize) -> usize {
        let bytes = self.bytes;
        let separator = bytes[at];
        let start = memchr::memrchr(b'\n', &bytes[..at]).map_or(0, |n| n + 1);
        let end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |n| at + n);
        let cells = split(bytes, start, end, separator);
        for (index, (from, to)) in cells.iter().enumerate() {
            let Some(strength) = fields::strength(&bytes[*from..*to]) else { continue };
            self.named = true;
            let next =
                cells.get(index + 1).filter(|(a, b)| fields::secretish(&bytes[*a..*b]) && !fields::harmless(&bytes[*a..*b]));
            if let Some((a, b)) = next {
                self.secret(*a, *b, "secret-value", RANK_FIELD);
            } else {
                self.column(end + 1, separator, cells.len(), index, strength);
            }
        }
        end
    }

    /// The cells of one column below a heading.
    fn column(&mut self, mut from: usize, separator: u8, width: usize, index: usize, strength: Strength) {
        let bytes = self.bytes;
        // A heading inside a table whose column was followed already says nothing new.
        let column = (separator, width, index, strength);
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
                let sure = regular && strength != Strength::Weak;
                if !rule && !fields::harmless(value) && (sure || fields::secretish(value)) {
                    self.secret(a, b, "secret-value", RANK_FIELD);
                }
            }
            from = end + 1;
        }
    }
}

/// Cells of a line, without the space around them. An escaped `\|` separates nothing.
fn split(bytes: &[u8], start: usize, end: usize, separator: u8) -> Vec<(usize, usize)> {
    let mut cells = Vec::new();
    let mut from = start;
    for at in start..=end.min(bytes.len()) {
        let border = at == end || (bytes[at] == separator && !(separator == b'|' && bytes[..at].ends_with(b"\\")));
        if border {
            let cell = &bytes[from..at];
            let left = cell.iter().take_while(|b| **b == b' ').count();
            let right = cell[left..].iter().rev().take_while(|b| matches!(**b, b' ' | b'\r')).count();
            cells.push((from + left, at - right));
            from = at + 1;
        }
    }
    cells
}
