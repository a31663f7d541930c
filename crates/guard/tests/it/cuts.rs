//! Cut first and redacted then, half a secret looks like none. What is cut under the rule of the releaser, at any place, shows no
//! more of a secret than the whole text would.

use portcullis_guard::{RedactionSettings, Redactor, Releaser};
use portcullis_model::cut::{self, Beginning};
use portcullis_ports::{Content, Outcome, Output};

use crate::canary::permit;
use crate::corpus::labelled;

/// Characters of a secret that tell it.
const TELLING: usize = 8;

fn releaser() -> Releaser {
    Releaser::new(Redactor::with_settings(&RedactionSettings::default(), b"pepper").unwrap())
}

fn released(releaser: &Releaser, text: String) -> String {
    let released = releaser.outcome(&permit("default"), Outcome::Complete(Output::text(text))).unwrap();
    let Outcome::Complete(output) = released.into_inner() else { panic!("not complete") };
    let Some(Content::Text(text)) = output.content.into_iter().next() else { panic!("no text") };
    text
}

/// As a tool cuts, and as the gate releases.
fn shown(releaser: &Releaser, text: &str, most: usize) -> String {
    let cut = cut::under(&releaser.cut_rule(&permit("default"), true), || {
        let Beginning { text, left } = cut::beginning(text, most);
        if left == 0 { text.into_owned() } else { format!("{text}…(+{left} chars)") }
    });
    released(releaser, cut)
}

fn start(secret: &str) -> String {
    secret.chars().take(TELLING).collect()
}

#[test]
fn no_half_of_a_secret_comes_out_wherever_a_text_is_cut() {
    let releaser = releaser();
    let (mut cuts, mut halves) = (0_u32, Vec::new());
    for line in labelled() {
        let whole = released(&releaser, line.text.clone());
        // What the whole text shows is the corpus' own matter.
        let starts: Vec<String> =
            line.secrets.iter().map(|secret| start(secret)).filter(|s| !whole.contains(s.as_str())).collect();
        for secret in &line.secrets {
            let Some(at) = line.text.find(secret.as_str()) else { continue };
            let front = line.text[..at].chars().count();
            let length = secret.chars().count();
            // Every place in a short one, and some in a long one, its end and what follows it among them.
            let step = (length / 6).max(1);
            for most in (front + TELLING.min(length)..front + length).step_by(step).chain(front + length..front + length + 3) {
                cuts += 1;
                let shown = shown(&releaser, &line.text, most);
                if let Some(start) = starts.iter().find(|start| shown.contains(start.as_str())) {
                    halves.push(format!("{} cut after {most}: {start} in {shown}", line.kind));
                }
            }
        }
    }
    println!("{cuts} cuts\n{}", halves.join("\n"));
    assert!(cuts > 800, "{cuts} cuts say little");
    assert!(halves.is_empty(), "{} of {cuts} cuts show a part of a secret", halves.len());
}

#[test]
fn a_cut_shows_pseudonyms_of_the_tenant_and_the_unredacted_only_to_whom_it_was_granted() {
    let releaser = releaser();
    let text = format!("mail from ana.smith@example.com {}", "and more ".repeat(20));
    let whole = released(&releaser, text.clone());
    let pseudonym = whole.split_whitespace().find(|word| word.starts_with("[email:")).unwrap();
    assert!(shown(&releaser, &text, 60).contains(pseudonym), "a cut does not change who is meant");
    let rule = releaser.cut_rule(&permit("default"), false);
    let asked = cut::under(&rule, || cut::beginning(&text, 30).text.into_owned());
    assert!(!asked.contains("ana.smith"), "the wish alone does not open it: {asked}");
}

#[test]
fn a_key_longer_than_what_is_looked_at_does_not_come_out() {
    let releaser = releaser();
    let line = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQDqzeJvVnPsTt0x";
    let key = format!("before\n-----BEGIN {} KEY-----\n{}", "PRIVATE", format!("{line}\n").repeat(200));
    for most in [40, 100, 300, 5_000] {
        let shown = shown(&releaser, &key, most);
        assert!(!shown.contains("MIIEvQ") && !shown.contains("AASCBKcw"), "cut after {most}: {shown}");
    }
}

#[test]
fn what_stands_far_behind_a_cut_tells_what_is_in_front_of_it() {
    let releaser = releaser();
    // Far more than is shown lies between a value and what says that it is a secret.
    let blob = "QUJD".repeat(4_000);
    let value = "c3dvcmRmaXNo";
    let json = format!(r#"{{"apiVersion":"v1","data":{{"pin":"{value}","blob":"{blob}"}},"kind":"Secret"}}"#);
    let yaml = format!("apiVersion: v1\ndata:\n  pin: {value}\n  blob: {blob}\nkind: Secret\nmetadata:\n  name: db\n");
    let line = "qwertyuiopasdfghjklzxcvbnmqwertyuiopasdfghjklzxcvbnmqwertyuiopas";
    let tail = format!("{}-----END RSA {} KEY-----\n", format!("{line}\n").repeat(250), "PRIVATE");
    for (text, secret) in [(&json, value), (&yaml, value), (&tail, &line[..TELLING])] {
        assert!(!released(&releaser, text.clone()).contains(secret), "known whole");
        for most in [60, 300, 1_000] {
            let shown = shown(&releaser, text, most);
            assert!(!shown.contains(secret), "cut after {most}: {shown}");
        }
    }
    // Without what says so, both are no secrets.
    let open = format!("apiVersion: v1\ndata:\n  pin: {value}\n  blob: {blob}\nkind: ConfigMap\n");
    assert!(shown(&releaser, &open, 300).contains(value));
}
