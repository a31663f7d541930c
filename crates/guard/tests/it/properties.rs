//! What holds for any text: redacting twice is redacting once, nothing panics, structure stays structure, growth is bounded.

use portcullis_guard::{AddressMode, ExtraPattern, PersonalSettings, RedactionSettings, Redactions, Redactor, Switch};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::LazyLock;

use crate::corpus::{benign, labelled};

static REDACTOR: LazyLock<Redactor> =
    LazyLock::new(|| Redactor::with_settings(&RedactionSettings::default(), b"pepper").expect("built-in tables compile"));

fn once(text: &str) -> String {
    REDACTOR.text(text, &mut Redactions::default()).into_owned()
}

/// Most bytes a text may grow by: a mark of at most 33 bytes for a value of at least one.
fn bound(text: &str) -> usize {
    34 * text.len() + 34
}

/// Pieces that mean something to the redactor, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => prop::sample::select(vec![
            "password", "token", "=", ":", " ", "\"", "'", "\\", "\\\"", "\n", "|", "\t", "  ", "{", "}", "[", "]", ",", ";", "&", "?", "@", "://", "/", "<", ">",
            "Bearer ", "Basic ", "Authorization", "Cookie", "-----BEGIN ", "PRIVATE KEY", "-----", "-----END ", "kind: Secret", "\"kind\":\"Secret\"", "data:", "\"data\":{",
            "stringData:", "name", "value", "%3D", "\\u0070", "&quot;", " --", "$2b$", "eyJ", ".", "..", "::", "+", "(", ")", "-", "[redacted:", "[ip:1a2b3c4d]", "null", "pwd",
            "hunter2", "203.0.113.9", "2001:db8::1", "ana@example.com", "4111111111111111", "DE89370400440532013000", "+4930123456789", "auth", "sig", "key",
        ]).prop_map(str::to_owned),
        1 => "[A-Za-z0-9+/=_.-]{1,50}",
        1 => "[0-9 -]{1,24}",
        1 => "\\PC{0,6}",
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        pieces().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(Value::Null),
        any::<bool>().prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let key = prop_oneof![
            prop::sample::select(vec![
                "password",
                "token",
                "data",
                "stringData",
                "kind",
                "type",
                "name",
                "value",
                "columns",
                "rows",
                "next",
                "card",
                "items",
                "id"
            ])
            .prop_map(str::to_owned),
            pieces(),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

#[test]
fn the_corpus_is_redacted_in_one_go() {
    for line in labelled().iter().chain(&benign()) {
        let clean = once(&line.text);
        assert_eq!(once(&clean), clean, "from {}", line.text);
    }
    // The kind in a mark is no heading of the column below it.
    let table = format!("{{\"k\":\"glptt-{}\"}} | deploy |\nusing key abc123def | deploy |\n", "phVOTdIMDbzNb6OZZ6E3");
    let clean = once(&table);
    assert!(clean.contains("abc123def") && !clean.contains("glptt-"), "{clean}");
    assert_eq!(once(&clean), clean);
}

#[test]
fn a_list_hides_no_field_inside_it() {
    for text in ["token: [a, password=hunter]", "token=[x, y, secret: \"quux\"]"] {
        let clean = once(text);
        assert!(!clean.contains("hunter") && !clean.contains("quux"), "{clean}");
    }
}

#[test]
fn arguments_of_a_command_are_looked_at_together() {
    let clean = |mut value: Value| {
        Redactor::new().unwrap().value(&mut value, &mut Redactions::default());
        value
    };
    let hidden = "[redacted:secret-value]";
    for (given, wanted) in [
        (json!(["redis-cli", "-a", "swordfish", "ping"]), json!(["redis-cli", "-a", hidden, "ping"])),
        (json!(["curl", "-u", "ana:swordfish", "http://a/b"]), json!(["curl", "-u", format!("ana:{hidden}"), "http://a/b"])),
        (json!(["mysql", "-uroot", "-pswordfish"]), json!(["mysql", "-uroot", format!("-p{hidden}")])),
        (json!(["tool", "--password", "swordfish", "-v"]), json!(["tool", "--password", hidden, "-v"])),
        (json!(["nginx", "-p", "/etc/nginx"]), json!(["nginx", "-p", "/etc/nginx"])),
        (json!(["docker", "run", "-p", "8080:80", "-u", "1:1"]), json!(["docker", "run", "-p", "8080:80", "-u", "1:1"])),
        (json!(["a", "-b", "say \"x\"", 1]), json!(["a", "-b", "say \"x\"", 1])),
    ] {
        assert_eq!(clean(json!({"spec": {"command": given}})), json!({"spec": {"command": wanted}}));
    }
}

#[test]
fn columns_of_comma_tables_lose_what_their_heading_names() {
    let table = "name,\"api key\",city\r\nana,abc123def,Bonn\r\n\"Bo, jr\",\"x,y z\",Rome\r\n\nname,password is wrong\n";
    let kept = "name,\"api key\",city\r\nana,[redacted:secret-value],Bonn\r\n\"Bo, jr\",\"[redacted:secret-value]\",Rome\r\n\nname,password is wrong\n";
    assert_eq!(once(table), kept);
    assert_eq!(once("id,user,password\n1,ana,hunter\n2,bo,\n"), "id,user,password\n1,ana,[redacted:secret-value]\n2,bo,\n");
    for text in [
        "no token, no entry\nsecond line without any\n",
        "a,token\nb\nc,d\n",
        "{\"a\":1,\"token\":2}\n{\"a\":1,\"b\":3}\n",
        "level,count\ninfo,3\n",
    ] {
        assert_eq!(once(text), text);
    }
}

#[test]
fn settings_switch_what_they_name() {
    let text = "password=hunter2 ana@example.com 203.0.113.9 10.0.0.1 ORD-123456";
    let with = |settings: RedactionSettings| {
        let redactor = Redactor::with_settings(&settings, b"pepper").unwrap();
        let mut found = Redactions::default();
        let clean = redactor.text(text, &mut found).into_owned();
        (clean, found.counts().map(|(kind, _)| kind).collect::<Vec<_>>())
    };
    let off =
        PersonalSettings { email: Switch::Off, ip: AddressMode::Off, card: Switch::Off, iban: Switch::Off, phone: Switch::Off };
    let (clean, kinds) = with(RedactionSettings { pii: off, ..RedactionSettings::default() });
    assert_eq!(
        (clean.as_str(), kinds),
        ("password=[redacted:secret-value] ana@example.com 203.0.113.9 10.0.0.1 ORD-123456", vec!["secret-value"])
    );
    let (clean, kinds) =
        with(RedactionSettings { pii: PersonalSettings { ip: AddressMode::All, ..off }, ..RedactionSettings::default() });
    assert!(!clean.contains("10.0.0.1") && kinds == ["ip", "secret-value"], "{clean}");
    let order = ExtraPattern { name: "order".into(), regex: r"ORD-(?P<v>\d{6})".into() };
    let (clean, kinds) = with(RedactionSettings { extra_patterns: vec![order], ..RedactionSettings::default() });
    assert!(clean.ends_with("ORD-[redacted:order]") && kinds.contains(&"extra-pattern"), "{clean}");
    let named =
        RedactionSettings { secrets: Switch::Off, allow_secrets: Some("i-understand".into()), ..RedactionSettings::default() };
    let (clean, _) = with(named);
    assert!(clean.contains("hunter2") && !clean.contains("ana@"), "{clean}");
    assert!(
        Redactor::with_settings(&RedactionSettings { secrets: Switch::Off, ..RedactionSettings::default() }, b"")
            .unwrap_err()
            .contains("i-understand")
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_are_redacted_in_one_go(text in pieces()) {
        let clean = once(&text);
        prop_assert_eq!(once(&clean), clean.clone());
        prop_assert!(clean.len() <= bound(&text));
    }

    #[test]
    fn any_text_is_survived(text in any::<String>()) {
        let clean = once(&text);
        prop_assert!(clean.len() <= bound(&text));
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let text = String::from_utf8_lossy(&bytes);
        prop_assert!(once(&text).len() <= bound(&text));
    }

    #[test]
    fn structure_stays_structure(value in tree()) {
        let mut clean = value.clone();
        REDACTOR.value(&mut clean, &mut Redactions::default());
        let text = clean.to_string();
        let parsed: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&parsed, &clean);
        prop_assert!(text.len() <= bound(&value.to_string()));
        let mut twice = clean.clone();
        REDACTOR.value(&mut twice, &mut Redactions::default());
        prop_assert_eq!(twice, clean);
    }

    #[test]
    fn a_field_keeps_its_name_and_loses_its_value(value in "[a-z]{3}[0-9]{3}[A-Za-z0-9!#]{0,20}", field in prop::sample::select(vec!["password", "db.password", "API_KEY", "clientSecret"])) {
        for text in [format!("{field}={value}"), format!("x {field}: \"{value}\" y"), json!({ field: value }).to_string(), json!(json!({ field: value }).to_string()).to_string()] {
            let clean = once(&text);
            prop_assert!(clean.contains(field) && !clean.contains(value.as_str()), "{}", clean);
        }
    }
}

/// Texts written to make every pass look at everything behind it: time must grow with the text and not with its square.
#[test]
fn hostile_repetition_costs_no_more_than_its_length() {
    let pieces = [
        "kind: Secret\ndata:{",
        "\"kind\":\"Secret\",\"data\":{",
        "data:\n",
        "stringData:\n ",
        "token|x\n",
        "token\tx\n",
        "a,token\n",
        "password: |\n ",
        "password: \"",
        "password='",
        "\\\"password\\\":\\\"",
        "--password ",
        "-----BEGIN PRIVATE KEY-----",
        "-----END PRIVATE KEY-----",
        "name: token\nvalue",
        "://a:b",
        "a@b.co",
        "+4930123456",
        "4111 1111 1111 ",
        "::1",
        "1.2.3.4.",
        "token  ",
        "<token>",
        "Cookie: a=b1234; ",
        "eyJ.",
        "[token: [",
        "token=[",
        "token=",
        "auth=",
        "authorization: digest a ",
        "%3D",
        "DE89 3704 0044 0532 ",
        "sk-a",
        ".atlasv1.",
        "$2b$",
        "Bearer ",
        "AKIA",
        "abcDEF123.",
        "curl -u ",
        " -p",
        "mysql -p",
        "\"-p\",",
        "'-a', '",
        "- -a\n",
        "password is ",
        "password for a ",
        "password '",
        "is is ",
        "password:\n",
        "password:\n  \"",
        "password(\"",
        "token(",
        "identified by '",
        "login a password ",
        "a:5432:b:c:",
        "*:*:",
        "pwd={",
        "cookie a=b;",
        "cGFz",
        "jdbc:oracle:a/b@",
        "sqlplus a/b@",
        "password for ana from 203.0.113.9 ",
        "/a@b ",
        "name=",
        "1.2.3.4,",
        "2026-11-20T10:11:12 ",
        "\\\\\"",
        "%20",
        "s.aB3x",
        "\\/",
    ];
    for piece in pieces {
        let took = |bytes: usize| {
            let text = format!("kind: Secret\n{}", piece.repeat(bytes / piece.len()));
            let began = std::time::Instant::now();
            once(&text);
            began.elapsed()
        };
        let (small, large) = (took(8 << 10), took(64 << 10));
        assert!(
            large < small * 24 + std::time::Duration::from_millis(400),
            "{piece:?}: {small:?}, then {large:?} for eight times the text"
        );
    }
}
