//! Standard output of a plugin: lines in the server's log, bounded. Guards that a chatty or hostile plugin can neither fill
//! the log nor write control characters into it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncWrite, sink};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// Longest line, in bytes; the rest of it is dropped.
pub(crate) const MOST_LINE: usize = 2_048;

/// What one call may still say.
#[derive(Debug)]
pub(crate) struct Speech {
    plugin: Arc<str>,
    left: u32,
    dropped: u64,
}

impl Speech {
    pub(crate) fn new(plugin: Arc<str>, lines: u32) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { plugin, left: lines, dropped: 0 }))
    }

    /// `false` when the call has said too much already.
    pub(crate) fn take(&mut self) -> bool {
        if self.left == 0 {
            self.dropped += 1;
            return false;
        }
        self.left -= 1;
        true
    }

    fn line(&mut self, bytes: &[u8]) {
        if self.take() {
            tracing::info!(target: "portcullis::plugin", plugin = &*self.plugin, "{}", clean(&String::from_utf8_lossy(bytes)));
        }
    }
}

impl Drop for Speech {
    fn drop(&mut self) {
        if self.dropped > 0 {
            let dropped = self.dropped;
            tracing::warn!(target: "portcullis::plugin", plugin = &*self.plugin, dropped, "further lines of this call were dropped");
        }
    }
}

/// Without control and hidden characters, and cut.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len() >= MOST_LINE {
            out.push('…');
            break;
        }
        out.push(if portcullis_guard::is_seen(c) { c } else { ' ' });
    }
    out
}

/// Standard output or standard error of a call.
pub(crate) struct LogStream(pub(crate) Arc<Mutex<Speech>>);

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    // Only asked for by what is not linked here (WASI 0.3).
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Lines { speech: self.0.clone(), pending: Vec::new() })
    }
}

struct Lines {
    speech: Arc<Mutex<Speech>>,
    pending: Vec<u8>,
}

impl Lines {
    fn flush_line(&mut self) {
        if !self.pending.is_empty() {
            self.speech.lock().unwrap_or_else(PoisonError::into_inner).line(&self.pending);
            self.pending.clear();
        }
    }
}

impl OutputStream for Lines {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            let room = MOST_LINE.saturating_sub(self.pending.len());
            self.pending.extend_from_slice(&text[..text.len().min(room)]);
            if part.ends_with(b"\n") {
                self.flush_line();
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.flush_line();
    }
}

#[async_trait::async_trait]
impl Pollable for Lines {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_cut_and_cleaned() {
        let speech = Speech::new("p".into(), 2);
        let mut lines = Lines { speech: speech.clone(), pending: Vec::new() };
        lines.write(Bytes::from_static(b"one\ntwo\nthree\nfour")).unwrap();
        drop(lines);
        let spoken = speech.lock().unwrap();
        assert_eq!((spoken.left, spoken.dropped), (0, 2));
        let long = clean(&"x".repeat(1 << 20));
        assert!(long.len() <= MOST_LINE + 4 && long.ends_with('…'));
        assert_eq!(clean("a\x1b[31m\nb"), "a [31m b");
    }
}
