//! What was presented to a server must not come back from it. Guards that a credential in an answer, an error or a
//! message is taken out, also in base64 and percent-encoding. Must not look for anything it was not given.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use portcullis_model::Secret;
use serde_json::Value;

/// What stands where a credential was.
const INSTEAD: &str = "[redacted:credential]";
/// Shorter secrets are left alone: they would hit ordinary words.
const SHORTEST: usize = 6;

/// A line of a secret of several lines is looked for by itself from this length on.
const SHORTEST_LINE: usize = 20;

/// Credentials that were presented, in every form they may come back in. Cheap to clone.
#[derive(Clone, Default)]
pub struct Echoes(Finder);

#[derive(Clone, Default)]
enum Finder {
    #[default]
    Nothing,
    Forms(Arc<AhoCorasick>),
    /// There are more than can be looked for: then everything counts as one of them.
    Everything,
}

impl std::fmt::Debug for Echoes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let forms = match &self.0 {
            Finder::Nothing => 0,
            Finder::Forms(forms) => forms.patterns_len(),
            Finder::Everything => usize::MAX,
        };
        write!(f, "Echoes({forms})")
    }
}

/// The forms one secret may come back in.
fn forms_of(plain: &str, forms: &mut BTreeSet<String>) {
    let encoded = |escaped: fn(u8) -> String| -> String {
        let plainly = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
        plain.bytes().map(|b| if plainly(b) { char::from(b).to_string() } else { escaped(b) }).collect()
    };
    // Of base64, what does not depend on the bytes around it: for each of the three places it can begin at.
    for skipped in 0..3_usize {
        let padded = [&vec![b' '; skipped][..], plain.as_bytes()].concat();
        let whole = padded.len() / 3 * 3;
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let text = engine.encode(&padded[..whole]);
            let from = if skipped == 0 { 0 } else { 4 };
            if let Some(core) = text.get(from..).filter(|core| core.len() >= 8) {
                forms.insert(core.to_owned());
            }
        }
    }
    forms.insert(encoded(|b| format!("%{b:02X}")));
    forms.insert(encoded(|b| format!("%{b:02x}")));
    forms.insert(plain.to_owned());
}

impl Echoes {
    /// Looks for these.
    pub fn of<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut forms = BTreeSet::new();
        for secret in secrets {
            let plain = secret.expose().trim_end_matches(['\r', '\n']);
            if plain.len() < SHORTEST {
                continue;
            }
            forms_of(plain, &mut forms);
            // Keys in PEM come back line by line. Lines of other documents hold words that are no secrets.
            let dense = |line: &&str| {
                line.len() >= SHORTEST_LINE && line.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=_-.".contains(&b))
            };
            if plain.contains('\n') {
                plain.lines().map(str::trim).filter(dense).for_each(|line| forms_of(line, &mut forms));
            }
        }
        if forms.is_empty() {
            return Self(Finder::Nothing);
        }
        let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&forms);
        Self(built.map_or(Finder::Everything, |built| Finder::Forms(Arc::new(built))))
    }

    fn are_in(&self, bytes: &[u8]) -> bool {
        match &self.0 {
            Finder::Nothing => false,
            Finder::Forms(forms) => forms.is_match(bytes),
            Finder::Everything => true,
        }
    }

    /// Takes them out of a text.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match &self.0 {
            Finder::Forms(forms) if forms.is_match(text) => {
                let mut clean = String::with_capacity(text.len());
                forms.replace_all_with(text, &mut clean, |_, _, clean| {
                    clean.push_str(INSTEAD);
                    true
                });
                Cow::Owned(clean)
            }
            Finder::Everything => Cow::Borrowed(INSTEAD),
            _ => Cow::Borrowed(text),
        }
    }

    /// Takes them out of the bytes of a body, whatever it is.
    pub fn bytes(&self, body: Vec<u8>) -> Vec<u8> {
        match &self.0 {
            Finder::Forms(forms) if forms.is_match(&body) => {
                let mut clean = Vec::with_capacity(body.len());
                forms.replace_all_with_bytes(&body, &mut clean, |_, _, clean| {
                    clean.extend_from_slice(INSTEAD.as_bytes());
                    true
                });
                clean
            }
            Finder::Everything => INSTEAD.as_bytes().to_vec(),
            _ => body,
        }
    }

    /// Takes them out of a value, names of members included. Says whether there were any.
    pub fn value(&self, value: &mut Value) -> bool {
        if matches!(self.0, Finder::Nothing) {
            return false;
        }
        let mut any = false;
        match value {
            Value::String(text) => {
                if self.are_in(text.as_bytes()) {
                    *text = self.text(text).into_owned();
                    any = true;
                } else if self.hidden_in(text) {
                    *text = STANDARD.encode(INSTEAD);
                    any = true;
                }
            }
            Value::Array(items) => {
                for item in items {
                    any |= self.value(item);
                }
            }
            Value::Object(members) => {
                if members.keys().any(|name| self.are_in(name.as_bytes())) {
                    let all = std::mem::take(members);
                    members.extend(all.into_iter().map(|(name, member)| (self.text(&name).into_owned(), member)));
                    any = true;
                }
                for member in members.values_mut() {
                    any |= self.value(member);
                }
            }
            _ => {}
        }
        any
    }

    /// Whether a text is base64 of bytes that hold one of them.
    fn hidden_in(&self, text: &str) -> bool {
        let plausible = text.len() >= 16
            && text.len().is_multiple_of(4)
            && text.bytes().take(64).all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
        plausible && STANDARD.decode(text).is_ok_and(|bytes| self.are_in(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_credential_comes_out_of_bytes_that_are_no_text() {
        let echoes = Echoes::of([&Secret::new("hunter22")]);
        let basic = STANDARD.encode("somebody:hunter22");
        let clean = echoes.bytes([b"\xff hunter22, hunter22 ", basic.as_bytes(), b" \xfe"].concat());
        assert!(clean.starts_with(b"\xff [redacted:credential], [redacted:credential] ") && clean.ends_with(b" \xfe"));
        let text = String::from_utf8_lossy(&clean).into_owned();
        assert!(!text.contains(&basic[12..]), "{text}");
        assert_eq!(echoes.bytes(b"nothing".to_vec()), b"nothing");
    }

    #[test]
    fn a_key_of_many_lines_comes_out_line_by_line_and_many_secrets_at_once() {
        let key = Secret::new("-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEF\nAASCBKcwggSjAgEAAoIBAQC7\n-----END KEY-----\n");
        let document = Secret::new("{\n  \"kind\": \"service_account_of_somebody\",\n  \"key\": \"x\"\n}");
        let others: Vec<Secret> = (0..500).map(|n| Secret::new(format!("secret-number-{n}-of-many"))).collect();
        let echoes = Echoes::of(others.iter().chain([&key, &document]));
        assert_eq!(echoes.text("line: AASCBKcwggSjAgEAAoIBAQC7"), "line: [redacted:credential]");
        assert_eq!(echoes.text("x secret-number-499-of-many y"), "x [redacted:credential] y");
        assert_eq!(echoes.text("service_account_of_somebody"), "service_account_of_somebody");
    }

    #[test]
    fn a_credential_comes_out_of_every_form() {
        let secret = Secret::new("s3cr3t/token+value=1\n");
        let echoes = Echoes::of([&secret, &Secret::new("no")]);
        let plain = "s3cr3t/token+value=1";
        let mut forms = vec![plain.to_owned(), "s3cr3t%2Ftoken%2Bvalue%3D1".to_owned(), "s3cr3t%2ftoken%2bvalue%3d1".to_owned()];
        for before in ["", "a", "ab", "user:"] {
            forms.push(STANDARD.encode(format!("{before}{plain} and more text")));
            forms.push(URL_SAFE_NO_PAD.encode(format!("{before}{plain}")));
        }
        for form in forms {
            let mut value = json!({"a": [format!("x {form} y")], form.clone(): 1});
            assert!(echoes.value(&mut value) && !echoes.value(&mut value), "{form}: {value}");
            let text = value.to_string();
            assert!(!text.contains(&form[4..form.len() - 4]), "{form}: {text}");
            assert!(text.contains("redacted:credential"), "{form}: {text}");
        }
        let mut whole = json!([{"b": STANDARD.encode(format!("ab{plain}"))}, 1]);
        assert!(echoes.value(&mut whole) && !echoes.value(&mut json!([{"b": "no change"}, null, 1])), "{whole}");
        assert_eq!(echoes.text("no change"), "no change");
        assert!(!format!("{echoes:?}").contains("s3cr3t"));
    }
}
