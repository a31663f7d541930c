//! Rules for text in arguments, by the kind of field: how long, which characters, which URL schemes. They refuse or strip
//! what no honest caller writes (controls, direction overrides, tag characters) and never touch what a query may hold:
//! queries are built from types and not by pasting, so quotes and semicolons are just characters.

use std::borrow::Cow;

use portcullis_model::{Fault, check_path_segment};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clean::is_hidden;

/// What is done about text that breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SanitizeMode {
    /// Nothing.
    Off,
    /// The call is refused, and the answer says why.
    #[default]
    Reject,
    /// Characters that break a rule are taken out. What is too long, or has a foreign URL scheme, is refused all the
    /// same: a shortened text would mean something else.
    Strip,
}

/// What a text is. A schema names it with `x-portcullis-kind`; without that it is free text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextKind {
    /// Anything a person writes.
    FreeText,
    /// A query in a language of its own (PromQL, LogQL, TraceQL, SQL).
    Query,
    /// What a field is compared with: a value, a part of one, a regular expression.
    FilterValue,
    /// A Kubernetes label or field selector.
    LabelSelector,
    /// The name of a service, metric, source or object.
    Name,
    /// An absolute URL.
    Url,
    /// One segment of the path of a URL. Its rule cannot be loosened.
    PathSegment,
}

impl TextKind {
    /// As written in `x-portcullis-kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FreeText => "free_text",
            Self::Query => "query",
            Self::FilterValue => "filter_value",
            Self::LabelSelector => "label_selector",
            Self::Name => "name",
            Self::Url => "url",
            Self::PathSegment => "path_segment",
        }
    }

    /// Reads `x-portcullis-kind`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let all = [Self::FreeText, Self::Query, Self::FilterValue, Self::LabelSelector, Self::Name, Self::Url, Self::PathSegment];
        all.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// The rules of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TextRule {
    /// What is done.
    pub mode: SanitizeMode,
    /// Longest text, in characters.
    pub max_length: usize,
    /// Character sequences that are not let through besides the hidden ones, such as `;` or `<script>`; compared
    /// without regard to ASCII case. Empty by default, because every one of them occurs in honest queries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forbid: Vec<String>,
    /// Adds the sequences of SQL, shell and HTML that some guides remove from every input to `forbid`: `;` `'` `"` `--` `/*`
    /// `*/` `|` `&` `$` `(` `)` `<` `>` `` ` `` `<script>` `javascript:` `onload=` `onerror=`. Off by default: honest PromQL,
    /// SQL and regular expressions contain them, and no query is made by pasting text.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub forbid_injection: bool,
}

impl Default for TextRule {
    fn default() -> Self {
        Self { mode: SanitizeMode::Reject, max_length: 16_384, forbid: Vec::new(), forbid_injection: false }
    }
}

/// The rules, by kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SanitizeSettings {
    /// Anything a person writes; also every text whose schema names no kind.
    pub free_text: TextRule,
    /// Queries.
    pub query: TextRule,
    /// Values, parts of values and regular expressions.
    pub filter_value: TextRule,
    /// Label and field selectors: letters, digits and `-_./,=!()` with spaces.
    pub label_selector: TextRule,
    /// Names: one line.
    pub name: TextRule,
    /// URLs.
    pub url: TextRule,
    /// Schemes a URL may have.
    pub url_schemes: Vec<String>,
}

impl Default for SanitizeSettings {
    fn default() -> Self {
        let up_to = |max_length| TextRule { max_length, ..TextRule::default() };
        Self {
            free_text: TextRule::default(),
            query: up_to(65_536),
            filter_value: up_to(8_192),
            label_selector: up_to(1_000),
            name: up_to(1_000),
            url: up_to(2_048),
            url_schemes: vec!["http".into(), "https".into()],
        }
    }
}

/// Sequences of SQL, shell and HTML that some guides remove from every input: what [`TextRule::forbid_injection`] adds, for
/// installations that must show such a rule; honest PromQL, SQL and regular expressions contain them.
pub const INJECTION_SEQUENCES: &[&str] =
    &[";", "'", "\"", "--", "/*", "*/", "|", "&", "$", "(", ")", "<", ">", "`", "<script>", "javascript:", "onload=", "onerror="];

/// Longest list of forbidden sequences, and longest sequence.
const MAX_FORBIDDEN: usize = 64;
/// Longest length an operator can allow, in characters.
const MAX_LENGTH: usize = 1 << 20;

/// Checks text in arguments.
#[derive(Debug, Clone, Default)]
pub struct Sanitizer {
    settings: SanitizeSettings,
}

impl Sanitizer {
    /// A sanitizer with these rules.
    ///
    /// # Errors
    /// A sentence naming the rule that cannot be used.
    pub fn new(mut settings: SanitizeSettings) -> Result<Self, String> {
        let rules = [
            ("free_text", &settings.free_text),
            ("query", &settings.query),
            ("filter_value", &settings.filter_value),
            ("label_selector", &settings.label_selector),
            ("name", &settings.name),
            ("url", &settings.url),
        ];
        for (name, rule) in rules {
            if !(1..=MAX_LENGTH).contains(&rule.max_length) {
                return Err(format!("{name}.max_length is {}, it must be 1 to {MAX_LENGTH}", rule.max_length));
            }
            if rule.forbid.len() > MAX_FORBIDDEN || rule.forbid.iter().any(|f| f.is_empty() || f.len() > MAX_FORBIDDEN) {
                return Err(format!("{name}.forbid may hold {MAX_FORBIDDEN} sequences of 1 to {MAX_FORBIDDEN} bytes"));
            }
        }
        if settings.url_schemes.is_empty() {
            return Err("url_schemes is empty; 'https' would be a good one".into());
        }
        for rule in [
            &mut settings.free_text,
            &mut settings.query,
            &mut settings.filter_value,
            &mut settings.label_selector,
            &mut settings.name,
            &mut settings.url,
        ] {
            if rule.forbid_injection {
                rule.forbid.extend(INJECTION_SEQUENCES.iter().map(|sequence| (*sequence).to_owned()));
            }
        }
        Ok(Self { settings })
    }

    fn rule(&self, kind: TextKind) -> &TextRule {
        match kind {
            TextKind::FreeText => &self.settings.free_text,
            TextKind::Query => &self.settings.query,
            TextKind::FilterValue => &self.settings.filter_value,
            TextKind::LabelSelector => &self.settings.label_selector,
            TextKind::Name | TextKind::PathSegment => &self.settings.name,
            TextKind::Url => &self.settings.url,
        }
    }

    /// Checks `text`, and gives it back, stripped where the rule says so.
    ///
    /// # Errors
    /// [`FaultCode::InvalidArgument`](portcullis_model::FaultCode) naming what is wrong, where, and what would be right.
    pub fn check<'t>(&self, kind: TextKind, text: &'t str) -> Result<Cow<'t, str>, Fault> {
        if kind == TextKind::PathSegment {
            check_path_segment(text).map_err(|why| {
                Fault::invalid(format!("this text {why}"))
                    .with_hint("it is one segment of a path: give the plain value, not an address or an encoded one")
            })?;
        }
        let rule = self.rule(kind);
        if rule.mode == SanitizeMode::Off {
            return Ok(Cow::Borrowed(text));
        }
        // Bytes are an upper bound of characters: counting is for texts that may be too long.
        if text.len() > rule.max_length {
            let length = text.chars().count();
            if length > rule.max_length {
                return Err(Fault::invalid(format!(
                    "a {} has {length} characters, at most {} are allowed",
                    described(kind),
                    rule.max_length
                )));
            }
        }
        let clean = match rule.mode {
            SanitizeMode::Strip => strip(kind, rule, text)?,
            _ => match offence(kind, rule, text) {
                Some(fault) => return Err(fault),
                None => Cow::Borrowed(text),
            },
        };
        if kind == TextKind::Url {
            self.url(&clean)?;
        }
        Ok(clean)
    }

    fn url(&self, text: &str) -> Result<(), Fault> {
        let schemes = || self.settings.url_schemes.join(", ");
        let fault = |what: &str| {
            Err(Fault::invalid(what).with_hint(format!("a URL is <scheme>://host/path with one of the schemes {}", schemes())))
        };
        let Some((scheme, rest)) = text.split_once("://") else { return fault("this is not an absolute URL") };
        if !self.settings.url_schemes.iter().any(|s| s.eq_ignore_ascii_case(scheme)) {
            return fault("this URL scheme is not allowed");
        }
        let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or("");
        if authority.is_empty() {
            return fault("this URL names no host");
        }
        if authority.contains('@') {
            return fault("a URL in an argument must not carry credentials");
        }
        if text.contains('\\') {
            return fault("a URL must not hold a backslash");
        }
        Ok(())
    }
}

fn described(kind: TextKind) -> &'static str {
    match kind {
        TextKind::FreeText => "text",
        TextKind::Query => "query",
        TextKind::FilterValue => "filter value",
        TextKind::LabelSelector => "label selector",
        TextKind::Name => "name",
        TextKind::Url => "URL",
        TextKind::PathSegment => "segment of a path",
    }
}

/// Whether a character may stand in a text of this kind.
fn allowed(kind: TextKind, character: char) -> bool {
    let line_break = matches!(character, '\n' | '\r' | '\t');
    match kind {
        // Windows line ends are honest in text that people paste.
        TextKind::FreeText | TextKind::Query | TextKind::FilterValue => line_break || !is_hidden(character),
        TextKind::Name | TextKind::PathSegment => !line_break && !is_hidden(character),
        TextKind::LabelSelector => character.is_ascii_alphanumeric() || "-_./,=!() ".contains(character),
        TextKind::Url => !line_break && character != ' ' && !is_hidden(character),
    }
}

/// Joiners that some scripts are written with (Persian, Hindi) and emoji are built from: no offence in text people write.
fn joins(kind: TextKind, before: Option<char>, character: char, after: Option<char>) -> bool {
    let visible = |c: Option<char>| c.is_some_and(|c| !c.is_ascii() && !is_hidden(c));
    matches!(kind, TextKind::FreeText | TextKind::Query | TextKind::FilterValue | TextKind::Name)
        && matches!(character, '\u{200c}' | '\u{200d}')
        && (visible(before) || before == Some('\u{fe0f}'))
        && visible(after)
}

/// The places of `text` that break a rule, as character offset, character and byte offset.
fn offenders(kind: TextKind, text: &str) -> impl Iterator<Item = (usize, char, usize)> + '_ {
    let plain = kind != TextKind::LabelSelector && text.bytes().all(|b| (b'!'..0x7f).contains(&b));
    let text = if plain { "" } else { text };
    let mut before = None;
    text.char_indices().enumerate().filter_map(move |(index, (offset, character))| {
        let fine = allowed(kind, character) || {
            let after = text[offset + character.len_utf8()..].chars().next();
            joins(kind, before, character, after)
        };
        before = Some(character);
        (!fine).then_some((index, character, offset))
    })
}

fn offence(kind: TextKind, rule: &TextRule, text: &str) -> Option<Fault> {
    if let Some((index, character, _)) = offenders(kind, text).next() {
        let what =
            format!("a {} must not hold the character U+{:04X} (at character {})", described(kind), character as u32, index + 1);
        let hint = match kind {
            TextKind::LabelSelector => "a selector is made of letters, digits, spaces and - _ . / , = ! ( )",
            _ => "remove invisible and control characters",
        };
        return Some(Fault::invalid(what).with_hint(hint));
    }
    let lower = (!rule.forbid.is_empty()).then(|| text.to_ascii_lowercase())?;
    let found = rule.forbid.iter().find(|f| lower.contains(&f.to_ascii_lowercase()))?;
    Some(Fault::invalid(format!("this installation does not allow '{}' in a {}", found.escape_debug(), described(kind))))
}

/// Rounds of taking sequences out: taking one out may put another together.
const ROUNDS: usize = 16;

fn strip<'t>(kind: TextKind, rule: &TextRule, text: &'t str) -> Result<Cow<'t, str>, Fault> {
    let mut gone = offenders(kind, text).map(|(_, character, offset)| (offset, character.len_utf8())).peekable();
    let mut clean = Cow::Borrowed(text);
    if gone.peek().is_some() {
        let mut kept = String::with_capacity(text.len());
        let mut from = 0;
        for (offset, length) in gone {
            kept.push_str(&text[from..offset]);
            from = offset + length;
        }
        kept.push_str(&text[from..]);
        clean = Cow::Owned(kept);
    }
    for _ in 0..ROUNDS {
        let before = clean.len();
        for sequence in &rule.forbid {
            if let Some(without) = without(&clean, sequence) {
                clean = Cow::Owned(without);
            }
        }
        if clean.len() == before {
            return Ok(clean);
        }
    }
    Err(Fault::invalid(format!("a {} holds sequences inside each other that this installation does not allow", described(kind))))
}

/// `text` without `sequence`, in any ASCII case; `None` when it is not in there.
fn without(text: &str, sequence: &str) -> Option<String> {
    let (lower, sequence) = (text.to_ascii_lowercase(), sequence.to_ascii_lowercase());
    let mut kept = String::new();
    let mut from = 0;
    for (at, _) in lower.match_indices(&sequence) {
        kept.push_str(&text[from..at]);
        from = at + sequence.len();
    }
    (from > 0).then(|| {
        kept.push_str(&text[from..]);
        kept
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with(change: impl FnOnce(&mut SanitizeSettings)) -> Sanitizer {
        let mut settings = SanitizeSettings::default();
        change(&mut settings);
        Sanitizer::new(settings).unwrap()
    }

    const KINDS: [TextKind; 4] = [TextKind::FreeText, TextKind::Query, TextKind::FilterValue, TextKind::Name];

    #[test]
    fn hidden_characters_are_refused_by_default() {
        let sanitizer = Sanitizer::default();
        for kind in KINDS {
            for text in ["a\u{0}b", "a\u{1b}[31m", "a\u{202e}b", "a\u{200b}b", "a\u{e0041}b", "\u{feff}a", "a\u{85}b"] {
                let fault = sanitizer.check(kind, text).unwrap_err();
                assert!(fault.message().contains("U+"), "{kind:?} {text:?}: {}", fault.message());
            }
        }
        assert!(sanitizer.check(TextKind::Name, "a\nb").is_err());
        assert!(sanitizer.check(TextKind::Query, "sum(\n  rate(x[5m])\r\n)\t").is_ok());
        assert!(sanitizer.check(TextKind::FreeText, "می\u{200c}خواهم 👩\u{200d}👧").is_ok());
    }

    #[test]
    fn length_schemes_and_selectors() {
        let sanitizer = Sanitizer::default();
        let long = sanitizer.check(TextKind::Name, &"ä".repeat(1_001)).unwrap_err();
        assert!(long.message().contains("1001 characters, at most 1000"), "{}", long.message());
        assert!(sanitizer.check(TextKind::Name, &"ä".repeat(1_000)).is_ok());
        for good in ["https://example.org/a?b=c", "HTTP://h:80"] {
            assert!(sanitizer.check(TextKind::Url, good).is_ok(), "{good}");
        }
        for bad in [
            "file:///etc/passwd",
            "javascript:alert(1)",
            "//host/x",
            "https://u:p@h/",
            "https:///x",
            "https://a b",
            "https://a\\b",
            "gopher://h",
        ] {
            assert!(sanitizer.check(TextKind::Url, bad).is_err(), "{bad}");
        }
        assert!(sanitizer.check(TextKind::LabelSelector, "app in (a,b),tier!=x,!y,k8s.io/z=1").is_ok());
        assert!(sanitizer.check(TextKind::LabelSelector, "app=a;b").is_err());
    }

    #[test]
    fn strip_takes_out_and_off_lets_through() {
        let strip = with(|s| {
            s.filter_value.mode = SanitizeMode::Strip;
            s.filter_value.forbid_injection = true;
        });
        assert_eq!(strip.check(TextKind::FilterValue, "a\u{200b}'; DROP --x<scr<script>ipt>").unwrap(), "a DROP xscrscriptipt");
        let off = with(|s| s.free_text.mode = SanitizeMode::Off);
        assert_eq!(off.check(TextKind::FreeText, "a\u{0}").unwrap(), "a\u{0}");
        let forbid = with(|s| s.name.forbid = vec!["<script>".into()]);
        assert!(forbid.check(TextKind::Name, "x<SCRIPT>y").unwrap_err().message().contains("<script>"));
    }

    #[test]
    fn settings_are_checked() {
        for change in [
            (|s| s.url_schemes.clear()) as fn(&mut SanitizeSettings),
            |s| s.name.max_length = 0,
            |s| s.query.forbid = vec![String::new()],
            |s| s.query.forbid = vec!["x".into(); 65],
        ] {
            let mut settings = SanitizeSettings::default();
            change(&mut settings);
            assert!(Sanitizer::new(settings).is_err());
        }
        let misspelt = serde_json::from_value::<SanitizeSettings>(serde_json::json!({"freetext": {}})).unwrap_err();
        assert!(misspelt.to_string().contains("freetext"));
    }

    /// Honest queries as they are typed: every sign of PromQL, LogQL, SQL and regular expressions, in any order.
    fn honest() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            Just(r#"sum by (le) (rate(http_requests_total{job=~"api|web",code!="200"}[5m])) > 0.5"#.to_owned()),
            Just(r#"{app="shop"} |= `panic: "x"` | json | line_format "{{.msg}}" != "--"#.to_owned()),
            Just("SELECT \"a\", 'it''s' FROM t WHERE x <> 1 AND y LIKE '%;--/*%' /* why */ -- end\n".to_owned()),
            Just(r"^(?:[\w.+-]+@[a-z]{2,}|\$\d+\.\d{2})$".to_owned()),
            Just("{ span.http.status_code >= 500 && duration > 1s } | select(name)".to_owned()),
            Just("status:>=500 AND NOT path:\"/a b\" OR \\\"q\\\"".to_owned()),
            Just("<script>alert(1)</script> && $(x) `y`; DROP TABLE z".to_owned()),
            "[ -~\n\t]{0,40}",
            "[äöüßéñ世界привет🙂 a-z]{0,12}",
        ];
        proptest::collection::vec(part, 1..6).prop_map(|parts| parts.join(" "))
    }

    proptest! {
        #[test]
        fn honest_queries_pass_unchanged(text in honest()) {
            for mode in [SanitizeMode::Off, SanitizeMode::Reject, SanitizeMode::Strip] {
                let sanitizer = with(|s| {
                    s.free_text.mode = mode;
                    s.query.mode = mode;
                    s.filter_value.mode = mode;
                });
                for kind in [TextKind::FreeText, TextKind::Query, TextKind::FilterValue] {
                    let checked = sanitizer.check(kind, &text).unwrap();
                    prop_assert!(matches!(checked, Cow::Borrowed(_)));
                    prop_assert_eq!(checked.as_ref(), text.as_str());
                }
            }
        }

        #[test]
        fn nothing_hidden_gets_through(text in any::<String>()) {
            let strip = with(|s| s.name.mode = SanitizeMode::Strip);
            for (sanitizer, kind) in [(&strip, TextKind::Name), (&Sanitizer::default(), TextKind::Name)] {
                if let Ok(clean) = sanitizer.check(kind, &text) {
                    let hidden = clean.chars().any(|c| is_hidden(c) && !matches!(c, '\u{200c}' | '\u{200d}'));
                    prop_assert!(!hidden);
                }
            }
        }
    }
}
