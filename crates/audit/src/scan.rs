//! Reading files line by line, forwards and backwards, in bounded memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crate::line::MAX_LINE;

/// What stands at a place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line, without its line feed.
    Whole(Vec<u8>),
    /// The end of the file, without a line feed.
    Incomplete(Vec<u8>),
    /// Longer than any record can be.
    TooLong,
}

/// Lines from a place in a file to its end.
pub(crate) struct Forward {
    reader: BufReader<File>,
    /// Where the next line starts, in bytes from the beginning of the file.
    pub(crate) offset: u64,
}

impl Forward {
    pub(crate) fn open(path: &Path, offset: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { offset, ..Self::of(file) })
    }

    /// From the beginning of a file nothing was read from.
    pub(crate) fn of(file: File) -> Self {
        Self { reader: BufReader::with_capacity(64 << 10, file), offset: 0 }
    }

    pub(crate) fn next(&mut self) -> io::Result<Option<Line>> {
        let mut line = Vec::new();
        let read = (&mut self.reader).take(MAX_LINE).read_until(b'\n', &mut line)?;
        self.offset += read as u64;
        if read == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
            return Ok(Some(Line::Whole(line)));
        }
        if (read as u64) < MAX_LINE {
            return Ok(Some(Line::Incomplete(line)));
        }
        self.skip_line()?;
        Ok(Some(Line::TooLong))
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let block = self.reader.fill_buf()?;
            if block.is_empty() {
                return Ok(());
            }
            let end = block.iter().position(|b| *b == b'\n');
            let used = end.map_or(block.len(), |at| at + 1);
            self.reader.consume(used);
            self.offset += used as u64;
            if end.is_some() {
                return Ok(());
            }
        }
    }
}

/// Lines from a place in a file back to its beginning.
pub(crate) struct Backward {
    file: File,
    /// Everything before this is unread.
    position: u64,
    /// What was read and not given out yet; starts at `position`.
    pending: Vec<u8>,
    first: bool,
}

const BLOCK: u64 = 64 << 10;

impl Backward {
    /// From `end` bytes, or from the end of the file.
    pub(crate) fn open(path: &Path, end: Option<u64>) -> io::Result<Self> {
        let mut lines = Self::of(File::open(path)?)?;
        lines.position = end.map_or(lines.position, |end| end.min(lines.position));
        Ok(lines)
    }

    /// From the end of a file.
    pub(crate) fn of(file: File) -> io::Result<Self> {
        let position = file.metadata()?.len();
        Ok(Self { file, position, pending: Vec::new(), first: true })
    }

    fn grow(&mut self) -> io::Result<()> {
        let block = self.position.min(BLOCK);
        self.position -= block;
        self.file.seek(SeekFrom::Start(self.position))?;
        let mut grown = vec![0; block as usize];
        self.file.read_exact(&mut grown)?;
        grown.append(&mut self.pending);
        self.pending = grown;
        Ok(())
    }

    /// The line before the one given last. A line longer than any record ends the walk with `TooLong`.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line>> {
        if self.pending.is_empty() {
            if self.position == 0 {
                return Ok(None);
            }
            self.grow()?;
        }
        let whole = self.pending.last() == Some(&b'\n');
        if whole {
            self.pending.pop();
        } else if !self.first {
            // Only the end of the file can lack its line feed.
            return Ok(None);
        }
        self.first = false;
        loop {
            if let Some(at) = self.pending.iter().rposition(|b| *b == b'\n') {
                let line = self.pending.split_off(at + 1);
                return Ok(Some(if whole { Line::Whole(line) } else { Line::Incomplete(line) }));
            }
            if self.position == 0 {
                let line = std::mem::take(&mut self.pending);
                return Ok(Some(if whole { Line::Whole(line) } else { Line::Incomplete(line) }));
            }
            if self.pending.len() as u64 > MAX_LINE {
                self.position = 0;
                self.pending.clear();
                return Ok(Some(Line::TooLong));
            }
            self.grow()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn both(text: &[u8]) -> (Vec<Line>, Vec<Line>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut forward = Forward::open(file.path(), 0).unwrap();
        let ahead: Vec<_> = std::iter::from_fn(|| forward.next().unwrap()).collect();
        assert_eq!(forward.offset, text.len() as u64);
        let mut backward = Backward::open(file.path(), None).unwrap();
        let mut back: Vec<_> = std::iter::from_fn(|| backward.next().unwrap()).collect();
        back.reverse();
        (ahead, back)
    }

    #[test]
    fn a_line_beyond_every_record_is_not_held_in_memory() {
        let mut text = vec![b'x'; 3 << 20];
        text.extend_from_slice(b"\nshort\n");
        let (ahead, back) = both(&text);
        assert_eq!(ahead, [Line::TooLong, Line::Whole(b"short".to_vec())]);
        assert_eq!(back, ahead);
    }

    proptest! {
        #[test]
        fn both_directions_see_the_same_lines(
            lines in proptest::collection::vec(0..40_000_usize, 0..12),
            rest in 0..3_usize,
        ) {
            let mut text: Vec<u8> = Vec::new();
            for (index, length) in lines.iter().enumerate() {
                text.extend(std::iter::repeat_n(b'a' + (index % 26) as u8, *length));
                text.push(b'\n');
            }
            text.extend(std::iter::repeat_n(b'z', rest));
            let (ahead, back) = both(&text);
            prop_assert_eq!(ahead.len(), lines.len() + usize::from(rest > 0));
            prop_assert_eq!(ahead, back);
        }
    }
}
