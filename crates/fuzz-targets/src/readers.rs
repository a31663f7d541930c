//! Readers that judge a text as it is: messages, tokens, settings, policies, addresses, and the redactor.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use portcullis_egress::{AddressClass, AddressPolicy, AllowedRange, origin_of};
use portcullis_guard::{RedactionSettings, Redactions, Redactor, StrictLimits, check_strict};
use portcullis_identity::token::{TokenIssuer, TokenSettings, read_unsigned};
use portcullis_model::{NameSet, Timestamp};
use portcullis_policy::{Policies, PolicyText, Vocabulary};
use serde_json::{Value, json};

use crate::{Target, Verdict};

pub(crate) const JSON_RPC: Target = Target {
    name: "json_rpc",
    promise: "what is taken as strict JSON is JSON, within its depth, and reads the same again",
    seeds: &[
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"query_logs","arguments":{"service":"cart","limit":5}}}"#,
        r#"{"jsonrpc":"2.0","id":"a","method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1,"reason":"\u00e9\ud83d\ude00"}}"#,
        r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"result":{}}]"#,
        r#"{"a":1,"a":2}"#,
        r#"{"A":1,"a":2}"#,
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
        r#"{"n":-0.0e-999,"m":1e400,"k":123456789012345678901234567890}"#,
    ],
    words: &[
        "{", "}", "[", "]", ":", ",", "\"", "\\u0000", "\\ud800", "null", "true", "1e999", "-0", "\"id\":", "\"a\":1,",
        "\u{feff}",
    ],
    run: json_rpc,
};

fn json_rpc(bytes: &[u8]) -> Verdict {
    let outcome = check_strict(bytes, StrictLimits::default());
    if outcome.is_ok() {
        let value: Value = serde_json::from_slice(bytes).unwrap_or_else(|e| panic!("taken as strict, and is no JSON: {e}"));
        assert!(depth(&value) <= StrictLimits::default().depth, "deeper than the limit");
        let again = value.to_string();
        assert!(check_strict(again.as_bytes(), StrictLimits::default()).is_ok(), "its own text is refused: {again}");
    }
    Verdict::of(outcome)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

pub(crate) const JWT: Target = Target {
    name: "jwt",
    promise: "a token is read or refused; whoever it names has the scope of its claims and not more",
    seeds: &[
        // Written as header, claims and signature in clear text: the target encodes them, so that mutations reach the claims.
        r#"{"alg":"ES256","typ":"at+jwt","kid":"1"}|{"iss":"https://id.example","aud":"https://gate.example/mcp","sub":"ana","exp":1772362800,"iat":1772359200,"scope":"read","services":["cart"],"groups":["sre"]}|c2ln"#,
        r#"{"alg":"none"}|{"iss":"https://id.example","sub":"ana"}|"#,
        r#"{"alg":"HS256","jku":"https://evil.example","jwk":{},"crit":["b64"]}|{"iss":1,"aud":[1,2],"exp":"x"}|c2ln"#,
        r#"{"alg":"RS256","typ":"JWT"}|{"aud":["https://gate.example/mcp"],"exp":1e300,"nbf":-1e300,"iat":9223372036854775807,"sub":"\u0000"}|c2ln"#,
        "!eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJpc3MiOiJhIn0.c2ln",
        "!a.b.c.d.e",
    ],
    words: &[
        "\"exp\":",
        "\"nbf\":",
        "\"aud\":",
        "\"sub\":",
        "\"scope\":",
        "\"services\":",
        "-9223372036854775808",
        "1772362800",
        "\"read\"",
        "[]",
        "{}",
        "|",
        ".",
        "=",
    ],
    run: jwt,
};

static ISSUER: LazyLock<TokenIssuer> = LazyLock::new(|| {
    let settings = json!({
        "name": "corp", "issuer": "https://id.example", "roles": {"claim": "groups", "map": {"sre": "operator"}},
        "scopes": {"read": {"roles": ["reader"]}}, "services_claim": "services", "default_roles": ["reader"],
    });
    serde_json::from_value(settings).unwrap_or_else(|e| panic!("the issuer of the target: {e}"))
});

fn jwt(bytes: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(bytes);
    let token = if let Some(raw) = text.strip_prefix('!') {
        raw.to_owned()
    } else {
        let mut parts = text.splitn(3, '|').map(str::as_bytes);
        let (header, claims) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let signature = parts.next().map(String::from_utf8_lossy).unwrap_or_default();
        format!("{}.{}.{signature}", base64url(header), base64url(claims))
    };
    let now = Timestamp::from_nanos(1_772_360_000_000_000_000);
    let audiences = ["https://gate.example/mcp".to_owned()];
    match read_unsigned(&token, &ISSUER, &audiences, now) {
        Ok(claimed) => {
            assert!(matches!(claimed.services, NameSet::Only(_)), "the claim of services bounds everybody");
            assert!(!claimed.id.chars().any(char::is_control), "{:?}", claimed.id);
            assert!(claimed.roles.iter().all(|role| ["reader", "operator"].contains(&role.as_str())), "{:?}", claimed.roles);
            Verdict::accepted()
        }
        Err(refusal) => Verdict::refused(refusal.reason.as_str()),
    }
}

/// Base64url without padding (RFC 4648 section 5), written out so that no decoder is tested with its own encoder.
fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len() * 4 / 3 + 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().enumerate().fold(0_u32, |bits, (index, byte)| bits | u32::from(*byte) << (16 - 8 * index));
        for index in 0..=chunk.len() {
            text.push(char::from(LETTERS[(bits >> (18 - 6 * index) & 63) as usize]));
        }
    }
    text
}

pub(crate) const CONFIG: Target = Target {
    name: "config",
    promise: "a file is read or refused with a sentence; anchors, nesting and placeholders cost no unbounded memory",
    seeds: &[
        "issuers:\n  - name: corp\n    issuer: https://id.example\n    audiences: [https://gate.example/mcp]\n    scopes:\n      read: {roles: [reader]}\n",
        "issuers:\n  - name: ${NAME}\n    issuer: ${ISSUER:-https://id.example}\n    clock_skew: 30s\n    max_lifetime: ${LIFE}\n",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n",
        "max_bytes: ${SIZE}\n",
        "a: !!binary aGVsbG8=\n? [complex, key]\n: |\n  block\n   more\n<<: {x: 1}\n",
        "# nothing\n",
        "issuers: [{name: a, name: b}]\n",
    ],
    words: &[
        "${",
        "}",
        ":-",
        "$$",
        "&a ",
        "*a",
        "<<: ",
        "- ",
        ": ",
        "\n  ",
        "|\n",
        "!!str ",
        "'",
        "\"",
        "{",
        "[",
        "~",
        "? ",
        "---\n",
        "...\n",
        "\t",
        "issuers:",
        "%YAML 1.2\n",
    ],
    run: config,
};

fn config(bytes: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(bytes);
    let lookup = |name: &str| match name {
        "NAME" => Some("corp".to_owned()),
        "LIFE" => Some("1h".to_owned()),
        "SIZE" => Some("8192".to_owned()),
        _ => None,
    };
    let read = portcullis_config::parse::<TokenSettings>(&text, "fuzz.yaml", &lookup);
    if let Ok(settings) = &read {
        let _ = settings.check(&["reader".to_owned(), "operator".to_owned()].into());
        let written = serde_json::to_value(settings);
        assert!(written.is_ok(), "what was read cannot be written: {written:?}");
    }
    Verdict::of(read)
}

pub(crate) const POLICY: Target = Target {
    name: "policy",
    promise: "a policy is loaded or refused with a sentence, at any nesting",
    seeds: &[
        "@id(\"a\")\npermit (principal in Portcullis::Role::\"reader\", action == Portcullis::Action::\"call\", resource) when { resource.name == \"query_logs\" };",
        "@id(\"b\")\nforbid (principal, action, resource) when { context.arguments has limit && context.arguments.limit > 10 } unless { principal in Portcullis::Role::\"admin\" };",
        "@id(\"c\")\n@look_back(\"1h\")\n@rows(\"10\")\npermit (principal, action, resource is Portcullis::Tool) when { [1, 2].contains(3) || ip(\"10.0.0.1\").isInRange(ip(\"10.0.0.0/8\")) };",
        "permit (principal == ?principal, action, resource);",
        "@id(\"d\") permit (principal, action, resource) when { ((((((((((((((((true)))))))))))))))) };",
        "@id(\"e\") forbid (principal, action, resource) when { if context.a.b.c like \"*x*\\u{41}\" then -9223372036854775808 < 1 else datetime(\"2026-01-01\") < datetime(\"2026-01-02\") };",
    ],
    words: &[
        "permit",
        "forbid",
        "(",
        ")",
        "{",
        "}",
        "&&",
        "||",
        "!",
        "-",
        "if ",
        "then ",
        "else ",
        "has ",
        "like ",
        "in ",
        "principal",
        "resource.",
        "context.",
        "@id(\"",
        "\")",
        "[",
        "]",
        "decimal(\"",
        "::",
        "9223372036854775808",
    ],
    run: policy,
};

fn policy(bytes: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let vocabulary = Vocabulary { tools: ["query_logs".to_owned(), "query_metrics".to_owned()].into(), ..Vocabulary::default() };
    Verdict::of(Policies::load(&[PolicyText { origin: "fuzz.cedar".into(), text }], &vocabulary, 1))
}

pub(crate) const ADDRESS: Target = Target {
    name: "address",
    promise: "an address has the class of the one hidden in it, and nothing but public ones passes without being listed",
    seeds: &[
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "::127.0.0.1",
        "fd00:ec2::254",
        "100.64.0.1",
        "0.0.0.0",
        "2001:0:53aa:64c::1",
        "10.0.0.0/8",
        "fe80::/10",
        "loopback",
        "http://[::ffff:7f00:1]:80/a",
        "https://0x7f.1/",
        "http://2130706433/",
        "8.8.8.8",
        "2606:4700::1111",
    ],
    words: &[
        "::",
        "ffff:",
        ".",
        ":",
        "/",
        "64:ff9b::",
        "2002:",
        "127.0.0.1",
        "169.254.169.254",
        "0x7f",
        "255",
        "%eth0",
        "[",
        "]",
        "http://",
        "@",
        "#",
    ],
    run: address,
};

fn address(bytes: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(bytes);
    // The raw bytes are an address of their own, whatever the text says.
    if let Some(four) = bytes.first_chunk::<4>() {
        classes(IpAddr::from(*four));
    }
    if let Some(sixteen) = bytes.first_chunk::<16>() {
        classes(IpAddr::from(*sixteen));
    }
    if let Ok(origin) = origin_of(&text) {
        assert!(origin.starts_with("http://") || origin.starts_with("https://"), "{origin}");
        assert!(!origin.contains('@'), "credentials in an origin: {origin}");
        assert_eq!(origin_of(&origin).ok().as_deref(), Some(origin.as_str()), "an origin is its own origin");
    }
    if let Ok(range) = text.parse::<AllowedRange>() {
        assert_eq!(range.to_string().parse::<AllowedRange>().ok(), Some(range), "a range reads as it is written");
        let listed = AddressPolicy::new([range]);
        for never in ["169.254.169.254", "fe80::1", "0.0.0.0", "::"] {
            let Ok(never) = never.parse::<IpAddr>() else { continue };
            assert!(listed.check(never).is_err(), "{never} passes with {text}");
        }
    }
    match text.trim().parse::<IpAddr>() {
        Ok(address) => {
            classes(address);
            Verdict { accepted: true, said: AddressClass::of(address).as_str().to_owned() }
        }
        Err(error) => Verdict::refused(error),
    }
}

fn classes(address: IpAddr) {
    let class = AddressClass::of(address);
    assert_eq!(AddressPolicy::default().check(address).is_ok(), class == AddressClass::Public, "{address} is {class:?}");
    if let IpAddr::V4(v4) = address {
        let [a, b, c, d] = v4.octets().map(u16::from);
        let hidden: [IpAddr; 3] = [
            IpAddr::V6(v4.to_ipv6_mapped()),
            IpAddr::from([0x64, 0xff9b, 0, 0, 0, 0, a << 8 | b, c << 8 | d]),
            IpAddr::from([0x2002, a << 8 | b, c << 8 | d, 0, 0, 0, 0, 1]),
        ];
        if class != AddressClass::Public {
            for form in hidden {
                assert!(AddressPolicy::default().check(form).is_err(), "{form} hides {v4}, which is {class:?}, and passes");
            }
        }
        if v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4 == Ipv4Addr::UNSPECIFIED {
            assert_ne!(class, AddressClass::Public, "{v4}");
        }
    }
}

pub(crate) const REDACTOR: Target = Target {
    name: "redactor",
    promise: "redacting twice is redacting once, growth is bounded, and a JSON document stays one",
    seeds: &[
        "2026-11-20T10:00:00Z INFO login user=ana@example.com password=hunter2 from 203.0.113.9",
        "{\"kind\":\"Secret\",\"data\":{\"a\":\"aGVsbG8=\"},\"metadata\":{\"name\":\"x\"}}",
        "Authorization: Bearer abcdef1234567890\nCookie: sid=abc123; theme=dark\n",
        "postgres://shop:p4ss@db:5432/x?sslmode=off&sig=abcdef123",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
        "| user | password |\n|---|---|\n| ana | hunter2 |\n",
        "name,api_key,city\nana,abc123def,Bonn\n",
        "env:\n- name: DB_PASSWORD\n  value: hunter2\n",
        "{\\\"token\\\":\\\"abc123def\\\"}\\n%70assword=x1y2z3",
        "card 4111 1111 1111 1111 iban GB82 WEST 1234 5698 7654 32 phone +49 30 1234567",
        "libfoo 1.2.3.4 upgraded, from 198.51.100.7:443",
    ],
    words: &[
        "password",
        "token",
        "=",
        ":",
        "\"",
        "'",
        "\\",
        "\\n",
        "\\\"",
        "\n",
        "|",
        "\t",
        ",",
        "  ",
        "@",
        "://",
        "Bearer ",
        "[redacted:",
        "[ip:",
        "203.0.113.9",
        "2001:db8::1",
        "ana@example.com",
        "4111111111111111",
        "+4930123456789",
        "kind: Secret",
        "data:\n",
        "stringData",
        "%3D",
        "\\u0070",
        "&quot;",
        "eyJ",
        "-----BEGIN ",
        "PRIVATE KEY-----",
        "auth",
        "pwd",
        "--",
    ],
    run: redactor,
};

static REDACTORS: LazyLock<Redactor> = LazyLock::new(|| {
    Redactor::with_settings(&RedactionSettings::default(), b"pepper").unwrap_or_else(|e| panic!("built-in tables: {e}"))
});

fn redactor(bytes: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(bytes);
    let mut found = Redactions::default();
    let clean = REDACTORS.text(&text, &mut found);
    assert!(clean.len() <= 34 * text.len() + 34, "grew from {} to {} bytes", text.len(), clean.len());
    let twice = REDACTORS.text(&clean, &mut Redactions::default());
    assert_eq!(twice, clean, "redacted twice is not redacted once");
    if let Ok(mut value) = serde_json::from_str::<Value>(&text) {
        REDACTORS.value(&mut value, &mut found);
        let mut again = value.clone();
        REDACTORS.value(&mut again, &mut Redactions::default());
        assert_eq!(again, value, "a document redacted twice is not redacted once");
    }
    let kinds: Vec<&str> = found.counts().map(|(kind, _)| kind).collect();
    Verdict { accepted: found.total() == 0, said: kinds.join(",") }
}
