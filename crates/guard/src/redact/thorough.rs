//! The quick look compared with the thorough one: what cheap reasons let pass must be nothing. On every line of the corpus, on
//! mutations of them, and on texts of telling pieces.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::fields::{judged, strength};
use super::scan::{Look, Span, find};
use super::{Redactions, Redactor, quick};

static REDACTOR: LazyLock<Redactor> = LazyLock::new(|| Redactor::new().unwrap());

/// Lines of the corpus, and of logs as services write them.
static LINES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let files = [
        include_str!("../../corpus/secrets.jsonl"),
        include_str!("../../corpus/personal.jsonl"),
        include_str!("../../corpus/benign.jsonl"),
    ];
    let text = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["text"].as_str().unwrap().to_owned();
    let mut lines: Vec<String> = files.iter().flat_map(|file| file.lines()).map(|line| text(&line.replace('¦', ""))).collect();
    lines.extend(
        [
            "2026-11-20T10:11:12.123Z INFO  [http-nio-8080-exec-7] c.s.checkout.OrderController : order 4711 placed in 12 ms",
            "trace_id=0af7651916cd43dd8448eb211c80319c span_id=b7ad6b7169203331 GET http://inventory:8080/items/1 200 in 3ms",
            "203.0.113.7 - - [20/Nov/2026:10:11:12 +0000] \"GET /items/1?page=2 HTTP/1.1\" 200 17 \"-\" \"curl/8.5.0\"",
            "2026-11-20T10:00:00Z",
            "2026-11-20 10:00:00.123456789+00:00",
        ]
        .map(str::to_owned),
    );
    lines
});

const PIECES: &[&str] = &[
    "password",
    "token",
    "access key",
    "name",
    "value",
    "kind: Secret",
    "\"kind\":\"Secret\"",
    "data:",
    "sig",
    "pwd",
    "b64",
    "64",
    "_old",
    "=",
    ":",
    " ",
    "  ",
    "\"",
    "'",
    "\\",
    "\n",
    "|",
    "\t",
    "]",
    ",",
    ";",
    "&",
    "?",
    "@",
    "://",
    "/",
    "<",
    ">",
    "-",
    "--",
    "$",
    "(",
    ")",
    "+",
    "~",
    ".",
    "::",
    "Bearer ",
    "Basic ",
    "-----BEGIN PRIVATE KEY-----",
    "-----END PRIVATE KEY-----",
    "$2b$",
    "eyJ",
    "sk-",
    "AKIA",
    ".atlasv1.",
    "8Q~",
    "203.0.113.9",
    "2001:db8::1",
    "ana@example.com",
    "4111111111111111",
    "5500 0000 0000 0004",
    "415-555-0123",
    "DE89370400440532013000",
    "GB82 WEST 1234 5698 7654 32",
    "+4930123456789",
    "10:11:12.5",
    "2026-11-20",
    "[redacted:secret-value]",
    "[ip:1a2b3c4d]",
    "%3D",
    "ü",
];

fn piece() -> impl Strategy<Value = String> {
    prop::sample::select(PIECES).prop_map(str::to_owned)
}

/// A few lines, each with pieces put in at any place and parts cut out.
fn mutated() -> impl Strategy<Value = String> {
    let change = (any::<prop::sample::Index>(), prop_oneof![2 => piece(), 1 => Just(String::new())], 0..12_usize);
    let line = (any::<prop::sample::Index>(), prop::collection::vec(change, 0..4)).prop_map(|(line, changes)| {
        let mut text: Vec<char> = LINES[line.index(LINES.len())].chars().collect();
        for (place, piece, cut) in changes {
            let at = place.index(text.len() + 1);
            let end = if piece.is_empty() { (at + cut).min(text.len()) } else { at };
            text.splice(at..end, piece.chars());
        }
        text.into_iter().collect::<String>()
    });
    let border = prop::sample::select(vec!["\n", "\n", " ", "", "\\n"]);
    prop::collection::vec((line, border), 1..5).prop_map(|lines| lines.into_iter().map(|(line, border)| line + border).collect())
}

fn spans(text: &str, thorough: bool) -> Vec<Span> {
    let mut spans = find(Look { thorough, ..REDACTOR.look() }, text).spans;
    spans.sort_by_key(|span| (span.start, span.end, span.rank, format!("{:?}", span.mark)));
    spans.dedup();
    spans
}

fn same(text: &str) -> Result<(), TestCaseError> {
    prop_assert_eq!(spans(text, false), spans(text, true), "{:?}", text);
    Ok(())
}

#[test]
fn the_corpus_is_read_alike() {
    for line in LINES.iter() {
        same(line).unwrap();
    }
    // Where blocks of bytes meet, at every distance.
    for line in LINES.iter().step_by(7) {
        for front in 0..64 {
            same(&format!("{}{line}", " ".repeat(front))).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_lines_are_read_alike(text in mutated()) {
        same(&text)?;
    }

    #[test]
    fn pieces_are_read_alike(pieces in prop::collection::vec(prop_oneof![4 => piece(), 1 => "[A-Za-z0-9+/=_.-]{1,40}", 1 => "[0-9 -]{1,24}"], 0..24)) {
        same(&pieces.concat())?;
    }

    /// A line that was not changed needs no second look: looking at everything again finds nothing.
    #[test]
    fn one_go_is_enough(text in mutated()) {
        let clean = REDACTOR.text(&text, &mut Redactions::default()).into_owned();
        let again = REDACTOR.text(&clean, &mut Redactions::default()).into_owned();
        prop_assert_eq!(again, clean);
    }

    /// Every name that is judged a secret's passes the quick look at its ending, as a whole name and in a text.
    #[test]
    fn no_name_is_passed_over(front in "[A-Za-z_.-]{0,6}", piece in piece(), word in prop::sample::select(vec![
        "password", "PassWd", "pwd", "api_key", "apiKey", "secret", "token", "JWT", "auth", "Pass", "cookie", "authorization", "credentials", "conn_str",
    ]), tail in prop::sample::select(vec!["", "2", "_old", "64", "_b64", "Base64", "_2_1", "_plain_text", " ", "."])) {
        for name in [format!("{front}{word}{tail}"), format!("{piece}{word}{tail}"), format!("{word}{piece}"), front.clone()] {
            prop_assert_eq!(judged(name.as_bytes()), strength(name.as_bytes()), "{:?}", name);
            let last_is_name = name.as_bytes().last().is_some_and(|b| super::fields::in_name(*b));
            if last_is_name && super::fields::name_before(name.as_bytes(), name.len()).is_some() {
                prop_assert!(quick::may_matter(name.as_bytes(), name.len()), "{:?}", name);
            }
        }
    }
}
