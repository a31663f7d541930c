//! The quick look compared with the thorough one, which asks every byte everything: what cheap reasons let pass must be nothing.
//! On every line of the corpus and of logs, on mutations and mixtures of them, and on texts of telling pieces.

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
            "{\"timestamp\":\"2026-11-20T10:11:12.123Z\",\"level\":\"info\",\"logger\":\"shop.cart\",\"took_ms\":7,\"trace_id\":\"0af7651916cd43dd8448eb211c80319c\"}",
            "{\"log\":\"level=info msg=\\\"item \\\\\\\"a\\\\\\\" added\\\"\\n\",\"stream\":\"stderr\",\"labels\":{\"app\":\"cart\",\"pod\":\"cart-7d9f8b6c5d-x2x9z\"}}",
            "081109 203615 148 INFO dfs.DataNode$PacketResponder: Received block blk_-1608999687919862906 of size 91178 from /10.250.10.6:50010",
            "Dec 10 06:55:48 LabSZ sshd[24200]: Failed password for invalid user webmaster from 203.0.113.186 port 38926 ssh2",
            "Jun 14 15:16:01 combo sshd(pam_unix)[19939]: authentication failure; logname= uid=0 euid=0 tty=NODEVssh ruser= rhost=203.0.113.4 ",
            "2015-07-29 19:04:12,394 - INFO  [/10.10.34.11:3888:QuorumCnxManager$Listener@493] - Received connection request /0:0:0:0:0:0:0:0:2181",
            "[Sun Dec 04 04:47:44 2005] [error] [client 203.0.113.7] Directory index forbidden by rule: /var/www/html/",
            "[10.30 16:49:06] chrome.exe - proxy.example.net:5070 close, 1327 bytes (1.29 KB) sent, 3810 bytes (3.72 KB) received, lifetime 00:01",
            "17/06/09 20:10:45 INFO storage.BlockManager: Found block rdd_42_20 locally, id=1700000000123 owner=std::fs::File(0x7f)",
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
    "tokens",
    "api_keys",
    "session_id",
    "session.id",
    "sid",
    "cvv",
    "senha",
    "_v2",
    "пароль",
    "密码",
    "contraseña",
    "hasło",
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
    "%20",
    "ü",
    "\\n",
    "\\\"",
    "\\u0070",
    "&quot;",
    "1//0",
    "2001:db8:1:2:3:4:5:6",
    "::ffff:203.0.113.9",
    "1:2:3:4:5:6:1.2.3.4",
    "1.2.3.4.5",
    ":5432:shop:ana:hunter2",
    "*:*:*:ana:hunter2",
    "(415) 555-0123",
    "1-415-555-0123",
    " -p",
    " -token ",
    "--password ",
    "curl -u ana:hunter2 ",
    "mysql -phunter2 ",
    "jdbc:oracle:thin:shop/hunter2@db",
    "login ana password ",
    "Failed password for ",
    "the token is ",
    "IDENTIFIED BY '",
    "cookie sid=abcd1234; ",
    "password(\"",
    "hunter2",
    "aB3xK9mQ2pL7vR4nT8wZ1cY6",
    "cGFzc3dvcmQ6aHVudGVyMg",
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

/// Many lines of the corpus and of logs in one text, a few bytes of it replaced by any others.
fn mixed() -> impl Strategy<Value = String> {
    let lines = prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(vec!["\n", " ", ""])), 1..24);
    let bytes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12);
    (lines, bytes).prop_map(|(lines, bytes)| {
        let mut text: Vec<u8> = Vec::new();
        for (line, border) in lines {
            text.extend_from_slice(LINES[line.index(LINES.len())].as_bytes());
            text.extend_from_slice(border.as_bytes());
        }
        for (place, byte) in bytes {
            let place = place.index(text.len());
            text[place] = byte;
        }
        String::from_utf8_lossy(&text).into_owned()
    })
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

    #[test]
    fn mixed_logs_are_read_alike(text in mixed()) {
        same(&text)?;
    }

    #[test]
    fn mixed_logs_are_done_in_one_go(text in mixed()) {
        let clean = REDACTOR.text(&text, &mut Redactions::default()).into_owned();
        let again = REDACTOR.text(&clean, &mut Redactions::default()).into_owned();
        prop_assert_eq!(again, clean);
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
        "tokens", "apiKeys", "passwords", "cvv", "sessionId", "sid", "senha", "mdp", "contraseña", "пароль", "パスワード",
    ]), tail in prop::sample::select(vec!["", "2", "_old", "64", "_b64", "Base64", "_2_1", "_v2", "V3", "_plain_text", " ", "."])) {
        for name in [format!("{front}{word}{tail}"), format!("{piece}{word}{tail}"), format!("{word}{piece}"), front.clone()] {
            prop_assert_eq!(judged(name.as_bytes()), strength(name.as_bytes()), "{:?}", name);
            let last_is_name = name.as_bytes().last().is_some_and(|b| super::fields::in_name(*b));
            if last_is_name && super::fields::name_before(name.as_bytes(), name.len()).is_some() {
                prop_assert!(quick::may_matter(name.as_bytes(), name.len()), "{:?}", name);
            }
        }
    }
}
