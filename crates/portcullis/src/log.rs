//! Where the server's own log goes: standard error, one event at a time, without the secrets that backends and callers put
//! into names and errors. An operator's log travels further than the operator thinks.

use std::io::{self, Write};

use anyhow::Context;
use portcullis_guard::{AddressMode, PersonalSettings, RedactionSettings, Redactions, Redactor};
use tracing_subscriber::fmt::MakeWriter;

use crate::terminal::escaped_json;

/// Makes writers that redact.
#[derive(Debug, Clone)]
pub struct Clean(Redactor);

impl Clean {
    /// Secrets and people as the operator's settings say; addresses stay, they are what an operator looks for.
    pub fn new(settings: &RedactionSettings) -> anyhow::Result<Self> {
        let settings = RedactionSettings { pii: PersonalSettings { ip: AddressMode::Off, ..settings.pii }, ..settings.clone() };
        let key = std::process::id().to_ne_bytes();
        Ok(Self(Redactor::with_settings(&settings, &key).map_err(anyhow::Error::msg).context("redaction")?))
    }

    /// The text without what is taken out.
    pub fn text(&self, text: &str) -> String {
        self.0.text(text, &mut Redactions::default()).into_owned()
    }
}

impl<'a> MakeWriter<'a> for Clean {
    type Writer = Event<'a>;

    fn make_writer(&'a self) -> Event<'a> {
        Event { redactor: &self.0, text: Vec::new() }
    }
}

/// One event on its way out; written whole when it is complete.
pub struct Event<'a> {
    redactor: &'a Redactor,
    text: Vec<u8>,
}

impl Write for Event<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let text = String::from_utf8_lossy(&self.text).into_owned();
        self.text.clear();
        io::stderr().write_all(visible(&self.redactor.text(&text, &mut Redactions::default())).as_bytes())
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        // A log that cannot be written has nowhere to say so.
        let _ = self.flush();
    }
}

/// What nobody would see is written out, so that no name from outside hides something in the log or turns a line around. Escapes
/// of a terminal are the log's own colours: those of others never come this far.
fn visible(text: &str) -> String {
    text.split('\u{1b}').map(escaped_json).collect::<Vec<_>>().join("\u{1b}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_redacted_as_a_whole() {
        let clean = Clean::new(&RedactionSettings::default()).unwrap();
        let said = clean
            .0
            .text("source 10.0.0.7 said password=hunter2hunter2 from 145.7.109.16\n", &mut Redactions::default())
            .into_owned();
        assert!(said.contains("145.7.109.16") && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn what_is_hidden_in_a_name_is_written_out_and_colours_stay() {
        let said = visible("\u{1b}[31mERROR\u{1b}[0m upstream a\u{202e}b\u{200b}c\u{2066}\td\n");
        assert_eq!(said, "\u{1b}[31mERROR\u{1b}[0m upstream a\\u202eb\\u200bc\\u2066\td\n");
    }
}
