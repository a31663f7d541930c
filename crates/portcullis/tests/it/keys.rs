//! API keys over their whole life, through the real binary: each refusal is seen at the door and in the audit log.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{BINARY, Home, Reply, Server, intact, modern, modern_headers, post};

/// A revocation, a rotation and a new key are known to a running server within this time.
const WITHIN: Duration = Duration::from_secs(1);

fn ask(server: &Server, key: &str) -> Reply {
    server.call(Some(key), "list_sources", &json!({}))
}

/// Asks until the answer has this status; fails after [`WITHIN`].
fn soon(server: &Server, key: &str, status: u16) -> Reply {
    let began = Instant::now();
    loop {
        let reply = ask(server, key);
        if reply.status == status {
            return reply;
        }
        assert!(began.elapsed() < WITHIN, "still {} {}", reply.status, reply.body);
        // Slow enough that a key the server does not know yet is not locked out as guessed at.
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn refused(reply: &Reply, status: u16, says: &str) {
    assert_eq!(reply.status, status, "{}", reply.body);
    let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains(says), "{message}");
}

/// The audit record of a refusal at the door.
fn audited(home: &Home, rule: &str) -> Value {
    let record = home.audited(|r| r["kind"] == "authentication" && r["rule"] == rule);
    assert_eq!(record["decision"], "deny");
    record
}

fn with_input(home: &Home, arguments: &[&str], input: &str) -> std::process::Output {
    let mut child = Command::new(BINARY)
        .arg("--config")
        .arg(&home.config)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn id_of(key: &str) -> &str {
    key.split('_').nth(1).unwrap()
}

#[test]
fn a_key_is_made_listed_shown_and_its_use_is_noted() {
    let server = Server::start("");
    let home = &server.home;
    let key = home.key(&["--from", "127.0.0.0/8", "--service", "cart"]);
    let id = id_of(&key);
    let shown = |arguments: &[&str]| serde_json::from_str::<Value>(&home.run_ok(arguments)).unwrap();
    let record = shown(&["key", "show", id, "--json"]);
    assert_eq!((&record["status"], &record["last_used_at"]), (&json!("active"), &Value::Null));
    assert_eq!((&record["from"], &record["rotate_now"]), (&json!(["127.0.0.0/8"]), &json!(false)));
    assert_eq!(record["services"], json!({"only": ["cart"]}));
    soon(&server, &key, 200);
    let began = Instant::now();
    while shown(&["key", "show", id, "--json"])["last_used_at"].is_null() {
        assert!(began.elapsed() < Duration::from_secs(5), "the use was not noted");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!shown(&["key", "list", "--json"])[0]["last_used_at"].is_null());
    for text in [home.run_ok(&["key", "list"]), home.run_ok(&["key", "show", id])] {
        assert!(text.contains(id) && text.contains("active") && !text.contains(key.split('_').nth(2).unwrap()), "{text}");
    }
    home.audited(|r| r["kind"] == "key" && r["method"] == "key.create" && r["key"] == id);
    let missing = home.run(&["key", "show", "nosuchkey0"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("key list"), "{missing:?}");
}

#[test]
fn a_rotated_key_has_two_secrets_for_the_overlap_and_then_one() {
    let server = Server::start("");
    let home = &server.home;
    let old = home.key(&[]);
    let id = id_of(&old).to_owned();
    soon(&server, &old, 200);
    let rotate = |overlap: &str| -> String {
        let made: Value = serde_json::from_str(&home.run_ok(&["key", "rotate", &id, "--overlap", overlap, "--json"])).unwrap();
        assert!(made["old_ends_at"].is_string(), "{made}");
        made["key"].as_str().unwrap().to_owned()
    };
    let new = rotate("8s");
    let rotated = Instant::now();
    assert_eq!(id_of(&new), id, "the same principal");
    soon(&server, &new, 200);
    assert_eq!(ask(&server, &old).status, 200, "the overlap");
    std::thread::sleep(Duration::from_secs(8).saturating_sub(rotated.elapsed()));
    refused(&ask(&server, &old), 401, "not valid");
    audited(home, "unknown_key");
    assert_eq!(ask(&server, &new).status, 200);

    let newest = rotate("0s");
    refused(&soon(&server, &new, 401), 401, "not valid");
    assert_eq!(ask(&server, &newest).status, 200);
    home.audited(|r| r["kind"] == "key" && r["method"] == "key.rotate" && r["key"] == id.as_str());

    home.run_ok(&["key", "revoke", &id]);
    refused(&soon(&server, &newest, 401), 401, "revoked");
    let record = audited(home, "revoked_key");
    assert!(record["note"].as_str().unwrap().contains(&id), "the record names the key: {record}");
    let again = home.run(&["key", "rotate", &id]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("revoked"), "{again:?}");
    assert!(intact(home));
}

/// Makes a key look as if it had been made so many days before.
fn made_before(home: &Home, id: &str, days: u32) {
    let shift = r#"
import json, sqlite3, sys
store = sqlite3.connect(sys.argv[1])
(value,) = store.execute("SELECT value FROM entry WHERE namespace = 'identity.api_keys' AND key = ?", (sys.argv[2],)).fetchone()
stored = json.loads(value)
for name in ("created_at", "secret_made_at", "expires_at"):
    stored["record"][name] -= int(sys.argv[3]) * 86400 * 10**9
store.execute(
    "UPDATE entry SET value = ? WHERE namespace = 'identity.api_keys' AND key = ?", (json.dumps(stored).encode(), sys.argv[2])
)
store.commit()
"#;
    let state = home.data().join("state.sqlite");
    let done = Command::new("python3").args(["-c", shift]).arg(&state).args([id, &days.to_string()]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn a_key_that_is_old_or_ends_soon_is_pointed_out_until_it_is_rotated() {
    let home = Home::new("");
    let [fresh, usual, old] = [&["--expires", "90d"], &["--expires", "90d"], &["--expires", "365d"]].map(|valid| home.key(valid));
    let (fresh, usual, old) = (id_of(&fresh), id_of(&usual), id_of(&old));
    let due = || -> Vec<bool> {
        let one = |id: &&str| serde_json::from_str::<Value>(&home.run_ok(&["key", "show", id, "--json"])).unwrap();
        [fresh, usual, old].iter().map(|id| one(id)["rotate_now"] == true).collect()
    };
    let doctor = || -> Value {
        let report: Value = serde_json::from_str(&home.run_ok(&["doctor", "--json"])).unwrap();
        report.as_array().unwrap().iter().find(|line| line["name"] == "key aging").unwrap().clone()
    };
    assert_eq!(due(), [false, false, false]);
    assert!(doctor()["state"] == "on" && !home.run_ok(&["key", "list"]).contains("key rotate"), "{}", doctor());

    made_before(&home, usual, 80);
    made_before(&home, old, 91);
    assert_eq!(due(), [false, true, true]);
    let (said, listed) = (doctor(), home.run_ok(&["key", "list"]));
    assert!(said["state"] == "attention" && [usual, old].iter().all(|id| said.to_string().contains(id)), "{said}");
    assert!(!said.to_string().contains(fresh), "{said}");
    let reminder = listed.lines().find(|line| line.contains("key rotate")).unwrap();
    assert!(reminder.contains(usual) && reminder.contains(old) && !reminder.contains(fresh), "{reminder}");
    assert!(home.run_ok(&["key", "show", usual]).contains("key rotate"));

    for id in [usual, old] {
        home.run_ok(&["key", "rotate", id, "--expires", "90d"]);
    }
    assert_eq!((due(), &doctor()["state"]), (vec![false, false, false], &json!("on")));
}

#[test]
fn a_chosen_secret_is_checked_hashed_and_never_on_the_command_line() {
    let server = Server::start("");
    let home = &server.home;
    let import = ["key", "import", "--label", "legacy", "--json"];
    for (weak, says) in [
        ("short", "at least 16"),
        ("onlylowercaseletters", "three of"),
        ("Password12345678!", "well-known"),
        ("Ab1!Ab1!Ab1!Ab1!", "repeats"),
        ("", "no secret"),
        ("Kq7#vLp2xWm9zR!d\nsecond line", "visible ASCII"),
    ] {
        let output = with_input(home, &import, weak);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(says), "{weak}: {text}");
        assert!(weak.is_empty() || weak == "short" || !text.contains(weak), "{text}");
    }
    let secret = "Kq7#vLp2xWm9zR!d";
    let output = with_input(home, &import, &format!("{secret}\n"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains(secret), "{text}");
    let made: Value = serde_json::from_str(&text).unwrap();
    let id = made["id"].as_str().unwrap();
    let key = format!("pcli_{id}_{secret}");
    assert_eq!(made["key_prefix"], format!("pcli_{id}_"));
    soon(&server, &key, 200);
    // Remembered: far below the tens of milliseconds of a verification, even in a debug build.
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(ask(&server, &key).status, 200);
    }
    println!("five calls with a chosen secret that is remembered: {:?}", began.elapsed());
    refused(&ask(&server, &format!("pcli_{id}_Kq7#vLp2xWm9zR!x")), 401, "not valid");
    refused(&ask(&server, &format!("pcli_0000000000_{secret}")), 401, "not valid");
    audited(home, "unknown_key");
    home.audited(|r| r["kind"] == "key" && r["method"] == "key.import" && r["key"] == id);
    home.run_ok(&["key", "revoke", id]);
    refused(&soon(&server, &key, 401), 401, "revoked");
    let state = std::fs::read(home.data().join("state.sqlite")).unwrap();
    assert!(!state.windows(secret.len()).any(|w| w == secret.as_bytes()), "the secret is in the state");
    assert!(!server.log().contains(secret), "the secret is in the log");

    let file = home.directory.path().join("secret");
    std::fs::write(&file, "wN4-rT8_yU2.iO6!").unwrap();
    let file = file.to_str().unwrap();
    home.run_ok(&["key", "import", "--label", "from a file", "--secret-file", file]);
}

#[test]
fn a_key_of_another_network_is_refused_and_so_is_an_unknown_address() {
    let server = Server::start("");
    let home = &server.home;
    let away = home.key(&["--from", "10.0.0.0/8", "--from", "2001:db8::/32"]);
    let near = home.key(&["--from", "::ffff:127.0.0.0/104"]);
    soon(&server, &near, 200);
    refused(&ask(&server, &away), 403, "not accepted from this address");
    let record = audited(home, "key_from_wrong_address");
    assert_eq!(record["code"], "forbidden");
    assert!(record["note"].as_str().unwrap().contains(id_of(&away)), "{record}");
    // Behind a proxy the caller's own address is not known.
    let mut headers = modern_headers("list_sources");
    headers.push(("Authorization".into(), format!("Bearer {near}")));
    headers.push(("X-Forwarded-For".into(), "127.0.0.1".into()));
    let body = modern("list_sources", &json!({})).to_string();
    refused(&post(server.mcp, "/mcp", &headers, body.as_bytes()), 403, "not accepted from this address");
    let wrong = home.run(&["key", "create", "--label", "x", "--from", "10.1.2.3/8"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("did you mean 10.0.0.0/8"), "{wrong:?}");
}

#[test]
fn a_credential_in_the_url_is_refused_and_recorded() {
    let server = Server::start("");
    let key = server.home.key(&[]);
    soon(&server, &key, 200);
    let mut headers = modern_headers("list_sources");
    let body = modern("list_sources", &json!({})).to_string();
    for query in [format!("api_key={key}"), format!("x={key}"), "token=abc".to_owned(), "%61ccess%5Ftoken=abc".to_owned()] {
        let reply = post(server.mcp, &format!("/mcp?{query}"), &headers, body.as_bytes());
        refused(&reply, 400, "Authorization header");
        assert!(!reply.body.contains(&key));
    }
    headers.push(("Authorization".into(), format!("Bearer {key}")));
    refused(&post(server.mcp, &format!("/mcp?api_key={key}"), &headers, body.as_bytes()), 400, "URL");
    assert_eq!(post(server.mcp, "/mcp?page=2", &headers, body.as_bytes()).status, 200, "other parameters do no harm");
    audited(&server.home, "credential_in_url");
    let audit = server.home.run_ok(&["audit", "tail", "-n", "100", "--json"]);
    assert!(!audit.contains(key.split('_').nth(2).unwrap()) && !server.log().contains(&key));
}

#[test]
fn who_keeps_guessing_has_to_wait_and_it_is_recorded() {
    let server = Server::start("");
    let key = server.home.key(&[]);
    soon(&server, &key, 200);
    let guess = format!("pcli_{}_Kq7#vLp2xWm9zR!x", id_of(&key));
    for _ in 0..6 {
        refused(&ask(&server, &guess), 401, "not valid");
    }
    let locked = ask(&server, &guess);
    refused(&locked, 429, "too many failed attempts");
    assert!(locked.head.to_ascii_lowercase().contains("retry-after: "), "{}", locked.head);
    let record = audited(&server.home, "locked_out");
    assert_eq!(record["code"], "rate_limited");
    let other = server.home.key(&[]);
    soon(&server, &other, 200);
}

#[test]
fn a_password_is_hashed_for_the_configuration() {
    let home = Home::new("");
    let output = with_input(&home, &["key", "hash-password"], "the Kettle is 4 tall Giraffe\n");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
    let weak = with_input(&home, &["key", "hash-password"], "hunter2");
    assert!(!weak.status.success() && String::from_utf8_lossy(&weak.stderr).contains("at least 16"));
    assert!(!home.data().exists(), "hashing opens no state");
}

#[test]
fn what_cannot_be_recorded_is_not_done_to_a_key_and_a_revocation_is() {
    let home = Home::new("");
    let id = id_of(&home.key(&[])).to_owned();
    let intent = home.audited(|r| r["kind"] == "key" && r["method"] == "key.intent");
    assert_eq!(intent["note"], "key.create", "said before it is done: {intent}");
    let secret = home.directory.path().join("chosen");
    std::fs::write(&secret, "Kq7#vLp2xWm9zR!d").unwrap();
    // A file lies where the log would be: not even root writes in it.
    let (audit, kept) = (home.data().join("audit"), home.data().join("audit.kept"));
    std::fs::rename(&audit, &kept).unwrap();
    std::fs::write(&audit, "no directory").unwrap();
    for arguments in [
        vec!["key", "create", "--label", "x"],
        vec!["key", "import", "--label", "x", "--secret-file", secret.to_str().unwrap()],
        vec!["key", "rotate", id.as_str()],
    ] {
        let output = home.run(&arguments);
        assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}: {output:?}");
    }
    let output = home.run(&["key", "revoke", &id]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains(&format!("key '{id}' is revoked, and that could not be recorded")),
        "{said}"
    );
    std::fs::remove_file(&audit).unwrap();
    std::fs::rename(&kept, &audit).unwrap();
    let keys: Value = serde_json::from_str(&home.run_ok(&["key", "list", "--json"])).unwrap();
    let keys = keys.as_array().unwrap();
    assert_eq!(keys.len(), 1, "nothing was made: {keys:?}");
    assert_eq!((&keys[0]["id"], &keys[0]["status"]), (&json!(id), &json!("revoked")));
    assert_eq!(keys[0]["secret_made_at"], keys[0]["created_at"], "nor given a new secret");
    // What is refused afterwards leaves how it ended.
    assert!(!home.run(&["key", "rotate", &id]).status.success());
    let refused = home.audited(|r| r["kind"] == "key" && r["method"] == "key.rotate");
    assert_eq!((&refused["decision"], &refused["rule"]), (&json!("deny"), &json!("key-request")), "{refused}");
}

#[test]
fn a_key_whose_record_cannot_be_read_is_removed_and_recorded() {
    use portcullis_state::Store as _;
    let home = Home::new("");
    home.key(&[]);
    let broken = "aaaaaaaaaaaaaaaa";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let clock = std::sync::Arc::new(portcullis_model::SystemClock);
        let store = portcullis_state::SqliteStore::open(&home.data().join("state.sqlite"), clock).await.unwrap();
        store.put("identity.api_keys", broken, b"not a record", None).await.unwrap();
        store.close().await;
    });
    let output = home.run(&["key", "revoke", broken]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("was removed"), "{said} {}", String::from_utf8_lossy(&output.stderr));
    let record = home.audited(|r| r["kind"] == "key" && r["method"] == "key.remove");
    assert_eq!(record["target"], broken, "{record}");
    assert!(record["principal"].as_str().unwrap().starts_with("local:"), "{record}");
    assert!(!home.run(&["key", "revoke", broken]).status.success(), "it is gone");
}
