//! What the credentials of known providers look like: a literal that starts them, an alphabet and a length. Formats are
//! those the providers document for secret scanning. Matching needs no regular expression.

use super::encoded::{LEAST_CHANGES, measure};

/// Alphabet of the part behind the literal.
#[derive(Debug, Clone, Copy)]
pub(super) enum Alphabet {
    Alnum,
    Upper,
    Hex,
    Word,
    Base64Url,
    Base64,
    Dotted,
    Path,
    Hook,
    Percent,
}

impl Alphabet {
    fn has(self, byte: u8) -> bool {
        match self {
            Self::Alnum => byte.is_ascii_alphanumeric(),
            Self::Upper => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Hex => byte.is_ascii_hexdigit(),
            Self::Word => byte.is_ascii_alphanumeric() || byte == b'_',
            Self::Base64Url => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
            Self::Base64 => byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'_' | b'-'),
            Self::Dotted => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'~'),
            Self::Percent => byte.is_ascii_alphanumeric() || matches!(byte, b'%' | b'+' | b'/' | b'=' | b'_' | b'-'),
            Self::Hook => byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'-' | b'@' | b'.' | b'%' | b'~'),
            Self::Path => byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'-'),
        }
    }
}

/// What the part behind the literal needs, because without it it may be words.
#[derive(Debug, Clone, Copy)]
enum Needs {
    Nothing,
    Digit,
    /// A digit, or a stretch that is longer than words are.
    NoWords,
    /// Capitals, small letters and digits as chance mixes them.
    Random,
}

/// Letters of a stretch that is no word any more.
const LONGEST_WORD: usize = 20;

/// One format.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Name in `[redacted:name]`.
    pub(super) kind: &'static str,
    /// The literal. Case counts.
    pub(super) literal: &'static str,
    alphabet: Alphabet,
    /// Least and most bytes behind the literal.
    least: usize,
    most: usize,
    /// Bytes in front of the literal that belong to the credential.
    before: usize,
    /// Bytes of the literal that stay readable (a host name).
    keep: usize,
    needs: Needs,
}

const ANY: usize = 4_096;

const fn shape(kind: &'static str, literal: &'static str, alphabet: Alphabet, least: usize, most: usize) -> Shape {
    Shape { kind, literal, alphabet, least, most, before: 0, keep: 0, needs: Needs::Nothing }
}

const fn with_digit(kind: &'static str, literal: &'static str, alphabet: Alphabet, least: usize) -> Shape {
    Shape { kind, literal, alphabet, least, most: ANY, before: 0, keep: 0, needs: Needs::Digit }
}

/// A host, and the path behind it that nobody may know. The host stays.
const fn hook(kind: &'static str, literal: &'static str, least: usize) -> Shape {
    Shape { kind, literal, alphabet: Hook, least, most: 400, before: 0, keep: literal.len(), needs: Needs::Nothing }
}

use Alphabet::{Alnum, Base64, Base64Url, Dotted, Hex, Hook, Path, Percent, Upper, Word};

/// The formats, in no order: what starts with the longer literal wins where two start at the same place.
pub(super) const SHAPES: &[Shape] = &[
    shape("portcullis-key", "pcl_", Word, 40, 80),
    shape("aws-key", "AKIA", Upper, 16, 16),
    shape("aws-key", "ASIA", Upper, 16, 16),
    shape("aws-key", "ABIA", Upper, 16, 16),
    shape("aws-key", "ACCA", Upper, 16, 16),
    shape("aws-session-token", "IQoJb3JpZ2lu", Base64, 80, ANY),
    shape("aws-session-token", "FwoGZXIvYXdz", Base64, 80, ANY),
    shape("gcp-key", "AIza", Base64Url, 35, 40),
    shape("gcp-token", "ya29.", Dotted, 20, ANY),
    shape("gcp-token", "GOCSPX-", Base64Url, 20, ANY),
    shape("gcp-token", "1//0", Base64Url, 30, ANY),
    Shape { kind: "azure-key", literal: "8Q~", alphabet: Dotted, least: 30, most: 40, before: 3, keep: 0, needs: Needs::Nothing },
    Shape { kind: "azure-key", literal: "7Q~", alphabet: Dotted, least: 30, most: 40, before: 3, keep: 0, needs: Needs::Nothing },
    shape("github-token", "ghp_", Alnum, 30, 255),
    shape("github-token", "gho_", Alnum, 30, 255),
    shape("github-token", "ghu_", Alnum, 30, 255),
    shape("github-token", "ghs_", Alnum, 30, 255),
    shape("github-token", "ghr_", Alnum, 30, 255),
    shape("github-token", "github_pat_", Word, 40, 255),
    shape("gitlab-token", "glpat-", Dotted, 20, 300),
    shape("gitlab-token", "gldt-", Dotted, 20, 300),
    shape("gitlab-token", "glrt-", Dotted, 20, 300),
    shape("gitlab-token", "glptt-", Dotted, 20, 300),
    shape("gitlab-token", "glcbt-", Dotted, 16, 300),
    shape("gitlab-token", "glft-", Dotted, 20, 300),
    shape("gitlab-token", "glagent-", Dotted, 20, 300),
    shape("gitlab-token", "glsoat-", Dotted, 20, 300),
    shape("slack-token", "xoxb-", Base64Url, 10, ANY),
    shape("slack-token", "xoxp-", Base64Url, 10, ANY),
    shape("slack-token", "xoxa-", Base64Url, 10, ANY),
    shape("slack-token", "xoxr-", Base64Url, 10, ANY),
    shape("slack-token", "xoxs-", Base64Url, 10, ANY),
    shape("slack-token", "xoxe-", Base64Url, 10, ANY),
    shape("slack-token", "xoxe.xoxp-", Base64Url, 10, ANY),
    shape("slack-token", "xoxc-", Base64Url, 10, ANY),
    // A cookie's value: percent signs belong to it.
    shape("slack-token", "xoxd-", Percent, 10, ANY),
    shape("slack-token", "xapp-", Base64Url, 10, ANY),
    Shape {
        kind: "slack-webhook",
        literal: "hooks.slack.com/services/",
        alphabet: Path,
        least: 20,
        most: 200,
        before: 0,
        keep: 25,
        needs: Needs::Nothing,
    },
    hook("slack-webhook", "hooks.slack.com/workflows/", 16),
    hook("slack-webhook", "hooks.slack.com/triggers/", 16),
    hook("slack-webhook", "hooks.slack-gov.com/services/", 16),
    hook("discord-webhook", "discord.com/api/webhooks/", 30),
    hook("discord-webhook", "discord.com/api/v10/webhooks/", 30),
    hook("discord-webhook", "discordapp.com/api/webhooks/", 30),
    hook("teams-webhook", "webhook.office.com/webhookb2/", 20),
    hook("teams-webhook", "outlook.office.com/webhook/", 20),
    hook("teams-webhook", "outlook.office365.com/webhook/", 20),
    hook("webhook", "hooks.zapier.com/hooks/catch/", 8),
    shape("stripe-key", "sk_live_", Alnum, 16, 255),
    shape("stripe-key", "sk_test_", Alnum, 16, 255),
    shape("stripe-key", "rk_live_", Alnum, 16, 255),
    shape("stripe-key", "rk_test_", Alnum, 16, 255),
    shape("stripe-key", "whsec_", Base64, 20, 255),
    shape("openai-key", "sk-proj-", Base64Url, 20, 300),
    shape("openai-key", "sk-svcacct-", Base64Url, 20, 300),
    shape("openai-key", "sk-admin-", Base64Url, 20, 300),
    Shape { needs: Needs::NoWords, ..with_digit("model-provider-key", "sk-", Base64Url, 24) },
    shape("anthropic-key", "sk-ant-", Base64Url, 20, 300),
    shape("model-provider-key", "sk-or-", Base64Url, 20, 300),
    shape("model-provider-key", "hf_", Alnum, 30, 64),
    shape("model-provider-key", "gsk_", Alnum, 40, 80),
    shape("model-provider-key", "xai-", Alnum, 40, 120),
    shape("model-provider-key", "pplx-", Alnum, 30, 80),
    shape("model-provider-key", "r8_", Alnum, 30, 60),
    shape("npm-token", "npm_", Alnum, 36, 36),
    shape("pypi-token", "pypi-", Base64Url, 50, 400),
    shape("package-token", "rubygems_", Hex, 40, 64),
    shape("package-token", "dckr_pat_", Base64Url, 20, 80),
    shape("package-token", "dckr_oat_", Base64Url, 20, 80),
    with_digit("package-token", "cio", Alnum, 32),
    shape("package-token", "oy2", Alnum, 43, 43),
    shape("digitalocean-token", "dop_v1_", Hex, 40, 80),
    shape("digitalocean-token", "doo_v1_", Hex, 40, 80),
    shape("digitalocean-token", "dor_v1_", Hex, 40, 80),
    shape("vault-token", "hvs.", Base64Url, 12, 300),
    shape("vault-token", "hvb.", Base64Url, 12, 300),
    shape("vault-token", "hvr.", Base64Url, 12, 300),
    // Of versions before 1.10: 24 of base 62.
    Shape { needs: Needs::Random, ..shape("vault-token", "s.", Alnum, 24, 24) },
    shape("vault-token", "b.AAAA", Base64Url, 60, 400),
    Shape {
        kind: "terraform-token",
        literal: ".atlasv1.",
        alphabet: Base64Url,
        least: 40,
        most: 120,
        before: 14,
        keep: 0,
        needs: Needs::Nothing,
    },
    shape("grafana-token", "glsa_", Word, 32, 64),
    shape("grafana-token", "glc_", Base64, 30, 400),
    shape("grafana-token", "eyJrIjoi", Base64, 40, 400),
    shape("newrelic-key", "NRAK-", Upper, 20, 40),
    shape("newrelic-key", "NRII-", Base64Url, 20, 60),
    shape("newrelic-key", "NRJS-", Hex, 16, 40),
    shape("datadog-key", "ddapp_", Alnum, 30, 64),
    shape("dynatrace-token", "dt0c01.", Dotted, 60, 120),
    shape("dynatrace-token", "dt0s01.", Dotted, 60, 120),
    shape("honeycomb-key", "hcaik_", Word, 40, 90),
    shape("sentry-token", "sntrys_", Base64, 40, 300),
    shape("sentry-token", "sntryu_", Hex, 40, 80),
    shape("databricks-token", "dapi", Hex, 32, 32),
    shape("cloud-token", "dp.pt.", Alnum, 40, 60),
    shape("cloud-token", "dp.st.", Dotted, 40, 80),
    shape("cloud-token", "pul-", Hex, 40, 40),
    shape("cloud-token", "HRKU-", Base64Url, 36, 80),
    shape("cloud-token", "fo1_", Base64Url, 40, 60),
    shape("cloud-token", "nfp_", Alnum, 36, 60),
    shape("cloud-token", "sbp_", Hex, 40, 40),
    shape("cloud-token", "pscale_tkn_", Dotted, 32, 80),
    shape("cloud-token", "pscale_pw_", Dotted, 32, 80),
    shape("mail-key", "SG.", Dotted, 40, 100),
    shape("mail-key", "key-", Hex, 32, 32),
    shape("twilio-key", "SK", Hex, 32, 32),
    shape("shopify-token", "shpat_", Hex, 32, 32),
    shape("shopify-token", "shpss_", Hex, 32, 32),
    shape("shopify-token", "shppa_", Hex, 32, 32),
    shape("shopify-token", "shpca_", Hex, 32, 32),
    shape("payment-key", "sq0atp-", Base64Url, 22, 60),
    shape("payment-key", "sq0csp-", Base64Url, 40, 60),
    shape("atlassian-token", "ATATT3", Base64, 60, 300),
    shape("atlassian-token", "ATCTT3", Base64, 60, 300),
    shape("service-token", "lin_api_", Alnum, 30, 60),
    shape("service-token", "ntn_", Alnum, 40, 60),
    shape("service-token", "figd_", Base64Url, 38, 60),
    shape("service-token", "PMAK-", Base64Url, 50, 80),
    shape("service-token", "CCIPAT_", Word, 40, 90),
    shape("service-token", "squ_", Hex, 40, 40),
    shape("service-token", "sqp_", Hex, 40, 40),
    shape("service-token", "sqa_", Hex, 40, 40),
    shape("service-token", "AKCp", Alnum, 60, 90),
    shape("age-key", "AGE-SECRET-KEY-1", Upper, 50, 64),
    shape("age-key", "AGE-SECRET-KEY-PQ-1", Upper, 50, 128),
];

/// For every format its place among those without a greatest length, and how many those are.
const UNBOUNDED: ([Option<usize>; SHAPES.len()], usize) = {
    let mut places = [None; SHAPES.len()];
    let (mut count, mut index) = (0, 0);
    while index < SHAPES.len() {
        if SHAPES[index].most == ANY {
            places[index] = Some(count);
            count += 1;
        }
        index += 1;
    }
    (places, count)
};

/// Up to where each format without a greatest length was looked for already.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen([usize; UNBOUNDED.1]);

impl Seen {
    /// Whether the format at `index` has been looked for at `at`. It has where one began before and its alphabet went on: without
    /// this, one literal after the other would be looked through to its end.
    pub(super) fn covers(&mut self, index: usize, bytes: &[u8], at: usize) -> bool {
        let Some(seen) = UNBOUNDED.0[index].and_then(|place| self.0.get_mut(place)) else { return false };
        if at < *seen {
            return true;
        }
        let shape = &SHAPES[index];
        let body = at + shape.literal.len();
        let length = bytes[body..].iter().take(ANY + 1).take_while(|b| shape.alphabet.has(**b)).count();
        *seen = body + if length > ANY { ANY / 2 } else { length };
        false
    }
}

impl Shape {
    /// The credential around the literal found at `at`: what goes, from and to.
    pub(super) fn matches(&self, bytes: &[u8], at: usize) -> Option<(usize, usize)> {
        let body = at + self.literal.len();
        let start = at.checked_sub(self.before)?;
        if self.before > 0 && !bytes[start..at].iter().all(|b| self.alphabet.has(*b)) {
            return None;
        }
        if !starts_word(bytes, start) {
            return None;
        }
        // `o.s.AbstractBean…` is a name in a program.
        if matches!(self.needs, Needs::Random) && bytes[..start].ends_with(b".") {
            return None;
        }
        let rest = &bytes[body..];
        let length = rest.iter().take(self.most + 1).take_while(|b| self.alphabet.has(**b)).count();
        // Longer than the format allows and still going: something else that starts alike.
        if length < self.least || (length > self.most && self.most < ANY) {
            return None;
        }
        let next = rest.get(length);
        if matches!(self.alphabet, Upper | Hex | Alnum) && next.is_some_and(u8::is_ascii_alphanumeric) {
            return None;
        }
        let secret = &rest[..length];
        let digit = || secret.iter().any(u8::is_ascii_digit);
        let fits = match self.needs {
            Needs::Nothing => true,
            Needs::Digit => digit(),
            Needs::NoWords => digit() || secret.split(|b| !b.is_ascii_alphanumeric()).any(|part| part.len() >= LONGEST_WORD),
            Needs::Random => digit() && measure(secret).changes >= LEAST_CHANGES,
        };
        if !fits {
            return None;
        }
        let trimmed = secret.iter().rev().take_while(|b| **b == b'.').count();
        Some((start + self.keep, body + length - trimmed))
    }
}

/// Which bytes may stand in the first four places of a word that begins something: for every byte the groups of beginnings
/// that have it there. A word of no group is passed over without a look.
#[derive(Debug, Clone)]
struct Beginnings(Box<[[u64; 256]; 4]>);

impl Beginnings {
    /// Groups: those of the formats, and the last for each of the others.
    const GROUPS: usize = 64;

    fn add(&mut self, group: usize, places: [impl Fn(u8) -> bool; 4]) {
        for (place, may_be) in self.0.iter_mut().zip(places) {
            for byte in (0..=255).filter(|byte| may_be(*byte)) {
                place[usize::from(byte)] |= 1 << group;
            }
        }
    }

    #[inline]
    fn have(&self, [a, b, c, d]: [u8; 4]) -> bool {
        let [first, second, third, fourth] = &*self.0;
        first[usize::from(a)] & second[usize::from(b)] & third[usize::from(c)] & fourth[usize::from(d)] != 0
    }
}

/// What can start where, by the first bytes of a word. The few formats with bytes in front of their literal are found by a sign
/// inside it.
#[derive(Debug, Clone)]
pub(super) struct Starts {
    beginnings: Beginnings,
    /// For every pair of ASCII the group of the formats that start with it; 0 for none.
    pairs: Box<[u8; 128 * 128]>,
    /// The formats of every group.
    groups: Vec<Vec<u8>>,
    tilde: Vec<u8>,
    dot: Vec<u8>,
}

impl Starts {
    pub(super) fn new() -> Self {
        let mut starts = Self {
            beginnings: Beginnings(Box::new([[0; 256]; 4])),
            pairs: Box::new([0; 128 * 128]),
            groups: vec![Vec::new()],
            tilde: Vec::new(),
            dot: Vec::new(),
        };
        let others = super::told::BEGINNINGS.iter().chain(OTHERS);
        let first_other = Beginnings::GROUPS - others.clone().count();
        for (index, shape) in SHAPES.iter().enumerate() {
            match shape.literal.as_bytes() {
                [_, _, b'~', ..] if shape.before > 0 => starts.tilde.push(index as u8),
                [b'.', ..] if shape.before > 0 => starts.dot.push(index as u8),
                [first, second, ..] => {
                    let group = starts.group(*first, *second);
                    starts.groups[group].push(index as u8);
                    let places = [0, 1, 2, 3].map(|place| {
                        move |byte| match shape.literal.as_bytes().get(place) {
                            Some(literal) => byte == *literal,
                            None => shape.alphabet.has(byte),
                        }
                    });
                    starts.beginnings.add(group % first_other, places);
                }
                _ => {}
            }
        }
        for (index, places) in others.enumerate() {
            let places = places.map(|known| move |byte| known.is_empty() || known.contains(&byte));
            starts.beginnings.add(first_other + index, places);
        }
        starts
    }

    /// The group of the formats that start with these two bytes of ASCII, a new one when there is none.
    fn group(&mut self, first: u8, second: u8) -> usize {
        let place = pair(first, second);
        if self.pairs[place] == 0 {
            self.pairs[place] = self.groups.len() as u8;
            self.groups.push(Vec::new());
        }
        usize::from(self.pairs[place])
    }

    /// Whether something known may start with these bytes.
    #[inline]
    pub(super) fn may_begin(&self, four: [u8; 4]) -> bool {
        self.beginnings.have(four)
    }

    /// Formats whose literal starts with these two bytes.
    pub(super) fn of(&self, first: u8, second: u8) -> &[u8] {
        &self.groups[usize::from(self.pairs[pair(first, second)])]
    }

    /// Formats whose literal has a tilde as its third byte.
    pub(super) fn with_tilde(&self) -> &[u8] {
        &self.tilde
    }

    /// Formats whose literal starts with a dot.
    pub(super) fn with_dot(&self) -> &[u8] {
        &self.dot
    }
}

/// What a word may begin beside a format, by its first four bytes: a JWT, a scheme of authorization, an account number (by
/// country and check digits), and the first word behind the dot of [`Starts::with_dot`].
const OTHERS: &[[&[u8]; 4]] = &[
    [b"e", b"y", b"J", b""],
    [b"bB", b"eE", b"aA", b"rR"],
    [b"bB", b"aA", b"sS", b"iI"],
    [CAPITALS, CAPITALS, b"0123456789", b"0123456789"],
    [b"a", b"t", b"l", b"a"],
];
const CAPITALS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Place of a pair in the table. Bytes that are no ASCII share those of others, which costs a look and no more.
fn pair(first: u8, second: u8) -> usize {
    usize::from(first & 127) << 7 | usize::from(second & 127)
}

/// Whether a word can start at `at`: nothing alphanumeric in front, except the letter of an escape such as `\n`.
pub(super) fn starts_word(bytes: &[u8], at: usize) -> bool {
    let Some(before) = at.checked_sub(1).map(|i| bytes[i]) else { return true };
    if !before.is_ascii_alphanumeric() {
        return true;
    }
    matches!(before, b'n' | b't' | b'r') && at >= 2 && bytes[at - 2] == b'\\'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_have_bounds() {
        for (index, shape) in SHAPES.iter().enumerate() {
            assert!(shape.least <= shape.most && shape.literal.len() + shape.least + shape.before >= 15, "{}", shape.literal);
            assert!(SHAPES[..index].iter().all(|s| s.literal != shape.literal), "{} is listed twice", shape.literal);
        }
    }

    #[test]
    fn every_format_is_looked_for() {
        let starts = Starts::new();
        for (index, shape) in SHAPES.iter().enumerate() {
            let index = u8::try_from(index).unwrap();
            let bytes = shape.literal.as_bytes();
            let inside = (bytes.get(2) == Some(&b'~') && starts.with_tilde().contains(&index))
                || (shape.literal.starts_with(".atla") && starts.with_dot().contains(&index));
            // Every byte that may follow a short literal.
            let behind: Vec<u8> = (0..=255).filter(|byte| shape.alphabet.has(*byte)).collect();
            let first = starts.of(bytes[0], bytes[1]).contains(&index)
                && behind.iter().all(|byte| {
                    let mut four = [*byte; 4];
                    let length = bytes.len().min(4);
                    four[..length].copy_from_slice(&bytes[..length]);
                    starts.may_begin(four)
                });
            assert!(if shape.before > 0 { inside } else { first }, "{}", shape.literal);
        }
        assert!(starts.groups.len() < 256, "a group's number is a byte");
    }

    #[test]
    fn few_words_are_looked_at() {
        let starts = Starts::new();
        let words = "order placed in com zaxxer hikari pool connection not available request timed out level info caller compact \
                     message timestamp logger shop cart item added trace span inventory items Mozilla Linux GET HTTP the and with \
                     Failed invalid user from port ssh2 service container docker which should does discover packet block received";
        let all = words.split_whitespace();
        let seen: Vec<&str> =
            all.clone().filter(|word| starts.may_begin(*format!("{word}   ").as_bytes().first_chunk().unwrap())).collect();
        assert!(seen.len() * 10 < all.count(), "{seen:?}");
    }

    #[test]
    fn words_start_after_escapes_too() {
        assert!(starts_word(b"x", 0));
        assert!(starts_word(b"=x", 1));
        assert!(starts_word(b"\\nx", 2));
        assert!(!starts_word(b"nx", 1));
        assert!(!starts_word(b"ax", 1));
    }
}
