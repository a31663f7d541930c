//! Server-sent events, read as they arrive (WHATWG HTML, section 9.2). Guards memory: one event has a cap. Must not
//! interpret what an event holds.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Event {
    /// Its type; `message` when the server gave none.
    pub kind: String,
    /// Its data lines, joined.
    pub data: Vec<u8>,
    /// Its id, by which a stream can be taken up again.
    pub id: Option<String>,
    /// After how many milliseconds the server wants to be asked again.
    pub retry: Option<u64>,
}

/// An event is larger than may be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// Reads events out of chunks.
#[derive(Debug)]
pub(crate) struct EventReader {
    line: Vec<u8>,
    event: Event,
    any: bool,
    after_return: bool,
    begun: bool,
    most: usize,
}

impl EventReader {
    /// With the most bytes one event may have.
    pub(crate) fn new(most: usize) -> Self {
        Self { line: Vec::new(), event: Event::default(), any: false, after_return: false, begun: false, most }
    }

    /// Takes the next bytes and gives the events that are complete.
    pub(crate) fn push(&mut self, chunk: &[u8], complete: &mut Vec<Event>) -> Result<(), TooLarge> {
        for byte in chunk {
            match byte {
                b'\n' if self.after_return => self.after_return = false,
                b'\n' | b'\r' => {
                    self.after_return = *byte == b'\r';
                    let mut line = std::mem::take(&mut self.line);
                    self.take_line(&line, complete)?;
                    line.clear();
                    self.line = line;
                }
                other => {
                    self.after_return = false;
                    if self.line.len() >= self.most {
                        return Err(TooLarge);
                    }
                    self.line.push(*other);
                }
            }
        }
        Ok(())
    }

    fn take_line(&mut self, line: &[u8], complete: &mut Vec<Event>) -> Result<(), TooLarge> {
        let line = if self.begun { line } else { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) };
        self.begun = true;
        if line.is_empty() {
            let mut event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.any) {
                event.data.pop();
                if event.kind.is_empty() {
                    "message".clone_into(&mut event.kind);
                }
                complete.push(event);
            }
            return Ok(());
        }
        let (field, value) = match line.iter().position(|b| *b == b':') {
            Some(0) => return Ok(()),
            Some(at) => (&line[..at], line[at + 1..].strip_prefix(b" ").unwrap_or(&line[at + 1..])),
            None => (line, &[][..]),
        };
        let text = || String::from_utf8_lossy(value).into_owned();
        match field {
            b"data" => {
                if self.event.data.len() + value.len() >= self.most {
                    return Err(TooLarge);
                }
                self.event.data.extend_from_slice(value);
                self.event.data.push(b'\n');
                self.any = true;
            }
            b"event" => self.event.kind = text(),
            b"id" if value.len() <= 1_024 && !value.contains(&0) => {
                self.event.id = Some(text());
                self.any = true;
            }
            b"retry" => self.event.retry = text().parse().ok(),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8], step: usize) -> Vec<Event> {
        let (mut reader, mut events) = (EventReader::new(1_000), Vec::new());
        for chunk in text.chunks(step) {
            reader.push(chunk, &mut events).unwrap();
        }
        events
    }

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let text = "\u{feff}: hello\r\nevent: endpoint\r\ndata: /messages?x=1\r\n\r\nid: 7\nretry: 500\ndata: {\"a\":\ndata:1}\n\n\ndata\n\n"
            .as_bytes();
        for step in [1, 2, 3, 7, 1_000] {
            let events = all(text, step);
            assert_eq!(events.len(), 3, "{events:?}");
            assert_eq!((events[0].kind.as_str(), events[0].data.as_slice()), ("endpoint", b"/messages?x=1".as_slice()));
            assert_eq!((events[1].kind.as_str(), events[1].data.as_slice()), ("message", b"{\"a\":\n1}".as_slice()));
            assert_eq!((events[1].id.as_deref(), events[1].retry), (Some("7"), Some(500)));
            assert!(events[2].data.is_empty());
        }
    }

    #[test]
    fn an_event_without_end_is_not_held() {
        let mut reader = EventReader::new(100);
        assert_eq!(reader.push(&[b'x'; 101], &mut Vec::new()), Err(TooLarge));
        let mut reader = EventReader::new(100);
        let lines = "data: 0123456789\n".repeat(20);
        assert_eq!(reader.push(lines.as_bytes(), &mut Vec::new()), Err(TooLarge));
    }
}
