//! What was presented to an upstream must not come back from it. Guards that a credential in an answer, an error or a
//! message is taken out, also in base64 and percent-encoding. Must not look for anything it was not given.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use portcullis_model::Secret;
use serde_json::Value;

/// What stands where a credential was.
const INSTEAD: &str = "[redacted:credential]";
/// Shorter secrets are left alone: they would hit ordinary words.
const SHORTEST: usize = 6;

/// Credentials that were presented, in every form they may come back in.
#[derive(Clone, Default)]
pub(crate) struct Echoes(Vec<Secret>);

impl std::fmt::Debug for Echoes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Echoes({})", self.0.len())
    }
}

impl Echoes {
    /// Looks for these.
    pub(crate) fn of<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut forms = Vec::new();
        for secret in secrets {
            let plain = secret.expose().trim_end_matches(['\r', '\n']);
            if plain.len() < SHORTEST {
                continue;
            }
            let encoded: String = plain
                .bytes()
                .map(|b| {
                    if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
                        char::from(b).to_string()
                    } else {
                        format!("%{b:02X}")
                    }
                })
                .collect();
            // Of base64, what does not depend on the bytes around it: for each of the three places it can begin at.
            for skipped in 0..3_usize {
                let padded = [&vec![b' '; skipped][..], plain.as_bytes()].concat();
                let whole = padded.len() / 3 * 3;
                for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                    let text = engine.encode(&padded[..whole]);
                    let from = if skipped == 0 { 0 } else { 4 };
                    if let Some(core) = text.get(from..).filter(|core| core.len() >= 8) {
                        forms.push(core.to_owned());
                    }
                }
            }
            forms.push(encoded);
            forms.push(plain.to_owned());
        }
        forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        forms.dedup();
        Self(forms.into_iter().map(Secret::new).collect())
    }

    /// Takes them out of a text.
    pub(crate) fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut clean = Cow::Borrowed(text);
        for form in &self.0 {
            if clean.contains(form.expose()) {
                clean = Cow::Owned(clean.replace(form.expose(), INSTEAD));
            }
        }
        clean
    }

    /// Takes them out of a value, names of members included.
    pub(crate) fn value(&self, value: &mut Value) {
        if self.0.is_empty() {
            return;
        }
        match value {
            Value::String(text) => {
                if let Cow::Owned(clean) = self.text(text) {
                    *text = clean;
                } else if self.hidden_in(text) {
                    *text = STANDARD.encode(INSTEAD);
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(members) => {
                if members.keys().any(|name| matches!(self.text(name), Cow::Owned(_))) {
                    let all = std::mem::take(members);
                    members.extend(all.into_iter().map(|(name, member)| (self.text(&name).into_owned(), member)));
                }
                members.values_mut().for_each(|member| self.value(member));
            }
            _ => {}
        }
    }

    /// Whether a text is base64 of bytes that hold one of them.
    fn hidden_in(&self, text: &str) -> bool {
        let plausible = text.len() >= 16
            && text.len().is_multiple_of(4)
            && text.bytes().take(64).all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
        plausible
            && STANDARD.decode(text).is_ok_and(|bytes| {
                let inside = String::from_utf8_lossy(&bytes);
                self.0.iter().any(|form| inside.contains(form.expose()))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_credential_comes_out_of_every_form() {
        let secret = Secret::new("s3cr3t/token+value=1\n");
        let echoes = Echoes::of([&secret, &Secret::new("no")]);
        let plain = "s3cr3t/token+value=1";
        let mut forms = vec![plain.to_owned(), "s3cr3t%2Ftoken%2Bvalue%3D1".to_owned()];
        for before in ["", "a", "ab", "user:"] {
            forms.push(STANDARD.encode(format!("{before}{plain} and more text")));
            forms.push(URL_SAFE_NO_PAD.encode(format!("{before}{plain}")));
        }
        for form in forms {
            let mut value = json!({"a": [format!("x {form} y")], form.clone(): 1});
            echoes.value(&mut value);
            let text = value.to_string();
            assert!(!text.contains(&form[4..form.len() - 4]), "{form}: {text}");
            assert!(text.contains("redacted:credential"), "{form}: {text}");
        }
        assert_eq!(echoes.text("no change"), "no change");
        assert_eq!(format!("{echoes:?}").contains("s3cr3t"), false);
    }
}
