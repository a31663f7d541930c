//! Made-up secrets, one of every class. A telling prefix and its value are put together here, so that no scanner takes this
//! file for a leak.

use std::fmt::Write as _;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

pub(crate) const BASE32: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
pub(crate) const LETTERS: &[u8] = b"abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
pub(crate) const RANDOM: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
pub(crate) const DIGITS: &[u8] = b"0123456789";
pub(crate) const HEX: &[u8] = b"0123456789abcdef";

/// Made-up values, different each time, the same in every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn of(&mut self, alphabet: &[u8], length: usize) -> String {
        let mut text = String::with_capacity(length);
        for at in 0..length {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = usize::try_from(self.0 >> 33).unwrap() % alphabet.len();
            // No leading zero, so that numbers stay numbers.
            text.push(char::from(if at == 0 && alphabet[number] == b'0' { alphabet[1] } else { alphabet[number] }));
        }
        text
    }
}

/// One text with the parts of it that nobody may see.
#[derive(Debug, Clone)]
pub(crate) struct Plant {
    pub(crate) class: &'static str,
    pub(crate) text: String,
    pub(crate) hidden: Vec<String>,
}

/// A release as Helm keeps it in a Secret: JSON, gzip, base64, and base64 once more as data of a Secret.
fn helm_release(password: &str) -> String {
    let chart = format!("{{\"name\":\"shop\",\"config\":{{\"db\":{{\"password\":\"{password}\"}}}}}}");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(chart.as_bytes()).unwrap();
    STANDARD.encode(STANDARD.encode(packed.finish().unwrap()))
}

fn luhn(mut digits: String) -> String {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(at, b)| u32::from(b - b'0') * if at % 2 == 0 { 2 } else { 1 })
        .map(|n| if n > 9 { n - 9 } else { n })
        .sum();
    write!(digits, "{}", (10 - sum % 10) % 10).unwrap();
    digits
}

fn iban(body: &str) -> String {
    let number = format!("{body}131400");
    let rest = number.bytes().fold(0_u64, |rest, b| (rest * 10 + u64::from(b - b'0')) % 97);
    format!("DE{:02}{body}", 98 - rest)
}

/// One of every class.
pub(crate) fn plants(dice: &mut Dice) -> Vec<Plant> {
    let mut all = Vec::new();
    let mut add = |class, text: String, hidden: &[&str]| {
        all.push(Plant { class, text, hidden: hidden.iter().map(|h| (*h).to_owned()).collect() });
    };
    let formats: [(&str, &str, &[u8], usize); 11] = [
        ("aws-key", "AKIA", BASE32, 16),
        ("gcp-key", "AIza", LETTERS, 35),
        ("github-token", "ghp_", LETTERS, 36),
        ("gitlab-token", "glpat-", LETTERS, 20),
        ("stripe-key", "sk_live_", LETTERS, 24),
        ("openai-key", "sk-proj-", LETTERS, 48),
        ("anthropic-key", "sk-ant-api03-", LETTERS, 80),
        ("npm-token", "npm_", LETTERS, 36),
        ("digitalocean-token", "dop_v1_", HEX, 64),
        ("vault-token", "hvs.", LETTERS, 90),
        ("shopify-token", "shpat_", HEX, 32),
    ];
    for (class, prefix, alphabet, length) in formats {
        let value = dice.of(alphabet, length);
        add(class, format!("using key {prefix}{value} for upload"), &[&value]);
    }
    let slack = dice.of(LETTERS, 24);
    add("slack-token", format!("bot xoxb-541060202875-{slack} connected"), &[&slack]);
    let part = |dice: &mut Dice, length| dice.of(LETTERS, length);
    let claims = URL_SAFE_NO_PAD.encode(format!("{{\"sub\":\"{}\"}}", part(dice, 12)));
    let signature = part(dice, 43);
    add("jwt", format!("token eyJhbGciOiJSUzI1NiJ9.{claims}.{signature} presented"), &[&claims, &signature]);
    let bearer = part(dice, 32);
    add("bearer", format!("upstream said Authorization: Bearer {bearer}"), &[&bearer]);
    let (one, two) = (part(dice, 64), part(dice, 64));
    add("pem", format!("-----BEGIN PRIVATE KEY-----\n{one}\n{two}\n-----END PRIVATE KEY-----"), &[&one, &two]);
    let password = part(dice, 11);
    add("dsn", format!("connecting to postgres://shop:{password}@db:5432/orders"), &[&password]);
    let password = part(dice, 11);
    add("url", format!("GET https://ana:{password}@files.example.com/a"), &[&password]);
    let signature = dice.of(HEX, 64);
    add("signed-url", format!("GET https://b.s3.example/o?X-Amz-Signature={signature}&X-Amz-Expires=60"), &[&signature]);
    let password = part(dice, 9);
    add("assignment", format!("retry with password={password} failed"), &[&password]);
    let password = part(dice, 9);
    add("json", format!("{{\"user\":\"ana\",\"api_key\":\"{password}\"}}"), &[&password]);
    let data = STANDARD.encode(part(dice, 18));
    add(
        "kubernetes",
        format!("apiVersion: v1\nkind: Secret\nmetadata:\n  name: db\ndata:\n  a.conf: {data}\ntype: Opaque"),
        &[&data],
    );
    let password = STANDARD.encode(part(dice, 15));
    let applied =
        serde_json::json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "data": {"a.conf": password}});
    add(
        "last-applied",
        serde_json::json!({"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied.to_string()}}})
            .to_string(),
        &[&password],
    );
    let release = helm_release(&part(dice, 60));
    add("helm-release", format!("release sh.helm.release.v1.shop.v3 is {release} now"), &[&release[130..170]]);
    let random = dice.of(RANDOM, 48);
    add("high-entropy", format!("session opened {random} for upload"), &[&random]);
    let key = STANDARD.encode(part(dice, 90));
    add("kubeconfig", format!("users: [{{user: {{client-key-data: {key}}}}}]"), &[&key]);
    let name = format!("ana{}", dice.of(DIGITS, 6));
    add("email", format!("user {name}@mail.example.org signed in"), &[&name]);
    let address = format!(
        "145.{}.109.{}",
        100 + dice.of(DIGITS, 2).parse::<u8>().unwrap(),
        100 + dice.of(DIGITS, 2).parse::<u8>().unwrap()
    );
    add("ip", format!("failed login from {address} port 22"), &[&address]);
    let card = luhn(format!("4{}", dice.of(DIGITS, 14)));
    add("card", format!("card {card} declined"), &[&card]);
    let account = iban(&dice.of(DIGITS, 18));
    add("iban", format!("transfer to {account} booked"), &[&account]);
    let phone = format!("+49 30 {}", dice.of(DIGITS, 7));
    add("phone", format!("call {phone} now"), &[&phone]);
    all
}
