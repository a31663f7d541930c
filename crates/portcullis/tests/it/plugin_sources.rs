//! Packages from web servers, over the real binary: what is fetched is bounded, encrypted, from addresses that are open, and
//! judged like a file; what is refused is in the audit log.

use serde_json::Value;

use crate::parcels::{Author, Page, Web, installed, json_of, recorded_refusal, refusal, text};
use crate::server::{Home, intact};
use crate::wire::{authority, private};

/// An operator who trusts an author, and a web server with the author's package.
struct Scene {
    home: Home,
    author: Author,
    web: Web,
    ca: String,
    url: String,
    digest: String,
    own: crate::wire::Authority,
}

fn scene() -> Scene {
    let home = Home::new("");
    let own = authority("web");
    let ca = home.directory.path().join("web-ca.pem");
    private(&ca, &own.pem);
    let web = Web::encrypted(&own);
    let author = Author::new(&home, "stranger");
    author.trusted(&home, &[]);
    let (package, digest) = author.release(&home, "sample", "1.0.0");
    let url = web.publish("/releases/sample-1.0.0.plugin", &package);
    Scene { home, author, web, ca: text(&ca), url, digest, own }
}

impl Scene {
    fn install(&self, url: &str, more: &[&str]) -> Vec<String> {
        let reach = ["--ca-file", &self.ca, "--allow-address", "loopback"];
        let arguments = [&["plugin", "install", url], &reach[..], more].concat();
        arguments.into_iter().map(str::to_owned).collect()
    }

    fn refused(&self, url: &str, more: &[&str], words: &str) {
        let arguments = self.install(url, more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        recorded_refusal(&self.home, &arguments, "plugin.install", words);
        assert!(installed(&self.home).is_empty(), "{url}");
    }

    fn installs(&self, url: &str, more: &[&str]) -> Value {
        let arguments = self.install(url, &[more, &["--json"]].concat());
        json_of(&self.home, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

#[test]
fn a_package_from_a_web_server_is_judged_like_a_file_and_its_place_is_recorded() {
    let scene = scene();
    let Scene { home, url, digest, .. } = &scene;
    let reach = ["--ca-file", &scene.ca, "--allow-address", "loopback"];
    let verified = json_of(home, &[&["plugin", "verify", url, "--json"], &reach[..]].concat());
    assert_eq!((&verified["verified"], &verified["digest"]), (&Value::Bool(true), &Value::from(digest.as_str())));
    let info = home.run_ok(&[&["plugin", "info", url], &reach[..]].concat());
    assert!(info.contains("sample_do") && info.contains(digest.as_str()), "{info}");
    scene.refused(url, &["--digest", &format!("sha256:{}", "0".repeat(64))], "is not the package of --digest");
    let got = scene.installs(url, &["--digest", digest]);
    assert_eq!((&got["version"], &got["digest"]), (&Value::from("1.0.0"), &Value::from(digest.as_str())));
    let record = home.audited(|r| r["method"] == "plugin.install" && r["decision"] == "allow");
    assert!(record["note"].to_string().contains(&format!("from {url}")), "{record}");
    assert!(intact(home));
}

#[test]
fn what_a_web_server_gives_needs_the_authors_signature() {
    let scene = scene();
    let (package, _) = scene.author.release(&scene.home, "sample", "1.1.0");
    let bytes = std::fs::read(&package).unwrap();
    let unsigned = scene.web.put("/unsigned.plugin", Page::new(bytes.clone()));
    scene.refused(&unsigned, &[], "the package is not signed");
    // The signature of another version, and a package that was changed on the server.
    let mixed = scene.web.put("/mixed.plugin", Page::new(bytes.clone()));
    let other = std::fs::read(scene.author.folder.join("sample-1.0.0.plugin.sig")).unwrap();
    scene.web.put("/mixed.plugin.sig", Page::new(other));
    scene.refused(&mixed, &[], "signature is over sample 1.0.0");
    let mut altered = bytes;
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    let url = scene.web.publish("/altered.plugin", &package);
    scene.web.put("/altered.plugin", Page::new(altered));
    scene.refused(&url, &[], "no plugin package");
    scene.refused(&format!("{}/nowhere.plugin", scene.web.url), &[], "answers 404");
    // The signature may be somewhere else.
    let right = scene.web.publish("/right.plugin", &package);
    let named = scene.installs(&unsigned, &["--signature", &format!("{right}.sig")]);
    assert_eq!(named["version"], "1.1.0");
}

#[test]
fn addresses_authorities_and_encryption_are_the_operators_choice() {
    let scene = scene();
    let Scene { home, url, .. } = &scene;
    recorded_refusal(home, &["plugin", "install", url, "--ca-file", &scene.ca], "plugin.install", "loopback address");
    let metadata = ["plugin", "install", "https://169.254.169.254/x.plugin", "--allow-address", "0.0.0.0/0"];
    recorded_refusal(home, &metadata, "plugin.install", "never reached");
    let unknown = ["plugin", "install", url, "--allow-address", "loopback"];
    recorded_refusal(home, &unknown, "plugin.install", "cannot be fetched");
    let plain = Web::plain();
    let (package, _) = scene.author.release(home, "sample", "1.2.0");
    let url = plain.publish("/sample.plugin", &package);
    recorded_refusal(home, &["plugin", "install", &url], "plugin.install", "not encrypted");
    recorded_refusal(home, &["plugin", "install", &url, "--allow-address", "loopback"], "plugin.install", "--plain-http");
    assert!(plain.seen().is_empty(), "nothing was asked in clear text");
    for wrong in ["https://user:hunter2@127.0.0.1/x.plugin", "ftp://127.0.0.1/x.plugin", "https:///x"] {
        let said = refusal(home, &["plugin", "install", wrong]);
        assert!(said.contains("is no place of a package") && !said.contains("hunter2"), "{wrong}: {said}");
    }
    home.run_ok(&["plugin", "install", &url, "--plain-http", "--allow-address", "loopback"]);
    assert_eq!(installed(home), ["sample 1.2.0"]);
}

#[test]
fn redirects_are_followed_to_open_places_and_take_no_credential_along() {
    let scene = scene();
    let Scene { home, web, own, .. } = &scene;
    let token = home.directory.path().join("token");
    private(&token, "hunter2-of-the-web");
    let password = format!("file:{}", text(&token));
    let elsewhere = Web::encrypted(own);
    let (package, _) = scene.author.release(home, "sample", "1.0.0");
    let there = elsewhere.publish("/cdn/sample.plugin", &package);
    let moved = web.put("/moved.plugin", Page::redirect(&there));
    web.put("/moved.plugin.sig", Page::redirect(format!("{there}.sig")));
    // A place nobody opened: what the command line says is about the address it names.
    scene.refused(&moved, &[], "loopback address");
    assert!(elsewhere.seen().is_empty());
    let plain = Web::plain();
    let clear = web.put("/clear.plugin", Page::redirect(plain.publish("/x", &package)));
    scene.refused(&clear, &[], "is not encrypted");
    let around = web.put("/around.plugin", Page::redirect("/around.plugin"));
    scene.refused(&around, &[], "in a row");
    let metadata = web.put("/metadata.plugin", Page::redirect("https://169.254.169.254/latest"));
    scene.refused(&metadata, &[], "never reached");
    let file = web.put("/file.plugin", Page::redirect("file:///etc/passwd"));
    scene.refused(&file, &[], "not followed");
    assert!(plain.seen().is_empty());
    let config = std::fs::read_to_string(&home.config).unwrap();
    let opened = format!(
        "{config}plugins:\n  sources:\n    - {{origin: '{}', ca_file: '{}', allow_addresses: [loopback]}}\n",
        elsewhere.url, scene.ca
    );
    std::fs::write(&home.config, opened).unwrap();
    scene.installs(&moved, &["--username", "robot", "--password", &password]);
    assert!(web.seen().iter().any(|head| head.to_lowercase().contains("authorization: basic")), "{:?}", web.seen());
    assert_eq!(elsewhere.seen().len(), 2);
    assert!(elsewhere.seen().iter().all(|head| !head.to_lowercase().contains("authorization")), "{:?}", elsewhere.seen());
    let audit = home.run_ok(&["audit", "tail", "-n", "1000", "--json"]);
    assert!(!audit.contains("hunter2"));
}

#[test]
fn what_comes_is_bounded_whole_and_no_password_stands_on_the_command_line() {
    let scene = scene();
    let Scene { web, home, url, .. } = &scene;
    let most = 64 << 20;
    let length = ("Content-Length".to_owned(), (most + 1).to_string());
    let announced = web.put("/announced.plugin", Page { headers: vec![length], ..Page::new("x") });
    scene.refused(&announced, &[], "has more than 67108864 bytes");
    let endless = web.put("/endless.plugin", Page { announced: false, ..Page::new(vec![b'x'; most + 4_096]) });
    scene.refused(&endless, &[], "has more than 67108864 bytes");
    let cut = web.put("/cut.plugin", Page { headers: vec![("Content-Length".into(), "9000".into())], ..Page::new("PK") });
    scene.refused(&cut, &[], "cannot be fetched");
    let body = vec![b'x'; 20_000];
    let signature = web.publish("/large-signature.plugin", &scene.author.folder.join("sample-1.0.0.plugin"));
    web.put("/large-signature.plugin.sig", Page::new(body));
    scene.refused(&signature, &[], "has more than 8192 bytes");
    web.put("/locked.plugin", Page::status(401, "WWW-Authenticate", "Basic realm=\"x\""));
    scene.refused(&format!("{}/locked.plugin", web.url), &[], "does not let us in");
    let said = refusal(home, &["plugin", "install", url, "--username", "robot", "--password", "hunter2"]);
    assert!(said.contains("--password takes a reference") && !said.contains("hunter2"), "{said}");
    let said = refusal(home, &["plugin", "install", &text(&scene.author.folder.join("sample-1.0.0.plugin")), "--plain-http"]);
    assert!(said.contains("belong to an https://"), "{said}");
}
