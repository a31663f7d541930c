//! Packages in an OCI registry, over the real binary and the packaged `docker-registry`: pushed, installed by tag and by
//! digest, and refused when the registry's disk, its answers or the credentials are not right.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::ExtendedKeyUsagePurpose;
use serde_json::{Value, json};

use crate::parcels::{Author, Page, Registry, Web, installed, json_of, recorded_refusal, refusal, text};
use crate::server::{Home, intact};
use crate::wire::{authority, private};

/// `hunter2-registry`, as bcrypt.
const HTPASSWD: &str = "robot:$2y$05$abcdefghijklmnopqrstuulZu.ILEXqeNBq7QTUS3kx8ZZIO3trhO\n";
const LOOPBACK: [&str; 2] = ["--allow-address", "loopback"];

fn with<'a>(command: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [&["plugin"], command, &LOOPBACK, more].concat()
}

/// An operator who trusts the author of a package.
fn people(extra: &str) -> (Home, Author, String, String) {
    let home = Home::new(extra);
    let author = Author::new(&home, "stranger");
    author.trusted(&home, &[]);
    let (package, digest) = author.release(&home, "sample", "1.0.0");
    (home, author, text(&package), digest)
}

#[test]
fn a_package_is_pushed_and_installed_by_tag_and_by_digest() {
    let Some(registry) = Registry::start(false, "", &[]) else { return };
    let (home, author, package, digest) = people("");
    let plain = ["--plain-http"];
    let tag = registry.reference("acme/sample:1.0.0");
    recorded_refusal(&home, &with(&["push", &package, &tag], &[]), "plugin.push", "cannot be fetched");
    let pushed = json_of(&home, &with(&["push", &package, &tag, "--json"], &plain));
    let pinned = pushed["pinned"].as_str().unwrap().to_owned();
    assert_eq!(pushed["digest"], digest.as_str());
    let record =
        home.audited(|r| r["method"] == "plugin.push" && r["decision"] == "allow" && r["note"].to_string().contains(&digest));
    assert!(record["note"].to_string().contains(", without encryption"), "{record}");
    // Once more changes nothing; another package under the same tag has to be meant.
    home.run_ok(&with(&["push", &package, &tag], &plain));
    let (other, other_digest) = author.release(&home, "sample", "1.1.0");
    let other = text(&other);
    recorded_refusal(&home, &with(&["push", &other, &tag], &plain), "plugin.push", "is there already");

    let verified = json_of(&home, &with(&["verify", &tag, "--json"], &plain));
    assert_eq!(verified["digest"], digest.as_str());
    assert!(home.run_ok(&with(&["info", &tag], &plain)).contains("sample_do"));
    let got = json_of(&home, &with(&["install", &tag, "--json"], &plain));
    assert_eq!(got["digest"], digest.as_str());
    let record = home.audited(|r| r["method"] == "plugin.install" && r["decision"] == "allow");
    let resolved = format!("{pinned}, without encryption");
    assert!(record["note"].to_string().contains(&resolved), "the tag is resolved, and the record says to what and how: {record}");

    // A tag that moved is another package; the digest is not.
    home.run_ok(&with(&["push", &other, &tag, "--replace"], &plain));
    assert_eq!(json_of(&home, &with(&["info", &tag, "--json"], &plain))["digest"], other_digest.as_str());
    home.run_ok(&["plugin", "remove", "sample"]);
    assert_eq!(json_of(&home, &with(&["install", &pinned, "--json"], &plain))["digest"], digest.as_str());
    recorded_refusal(
        &home,
        &with(&["install", &tag, "--digest", &digest], &plain),
        "plugin.install",
        "is not the package of --digest",
    );
    for wrong in ["acme/none:1.0.0", "acme/sample:9.9.9"] {
        let reference = registry.reference(wrong);
        recorded_refusal(&home, &with(&["install", &reference], &plain), "plugin.install", "answers 404");
    }
    let said = refusal(&home, &with(&["install", &registry.reference("acme/sample")], &plain));
    assert!(said.contains("neither a tag nor a digest"), "{said}");
    assert!(intact(&home));
}

#[test]
fn what_was_changed_in_the_registry_is_refused() {
    let Some(registry) = Registry::start(false, "", &[]) else { return };
    let (home, _, package, digest) = people("");
    let tag = registry.reference("acme/sample:1.0.0");
    let plain = ["--plain-http"];
    let pushed = json_of(&home, &with(&["push", &package, &tag, "--json"], &plain));
    let manifest = registry.blob(pushed["manifest"].as_str().unwrap());
    let blob = registry.blob(&digest);
    let good = std::fs::read(&blob).unwrap();
    let install = with(&["install", &tag], &plain);
    let mut altered = good.clone();
    altered[100] ^= 1;
    std::fs::write(&blob, &altered).unwrap();
    recorded_refusal(&home, &install, "plugin.install", "is not what was named");
    std::fs::write(&blob, &good[..good.len() - 1]).unwrap();
    recorded_refusal(&home, &install, "plugin.install", "is not what was named: it has");
    std::fs::write(&blob, [good.as_slice(), b"more"].concat()).unwrap();
    recorded_refusal(&home, &install, "plugin.install", "has more than");
    std::fs::write(&blob, &good).unwrap();
    // The manifest, by tag and by digest.
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("Answers sample", "Answers simple")).unwrap();
    recorded_refusal(&home, &install, "plugin.install", "is not what was named");
    let pinned = pushed["pinned"].as_str().unwrap();
    recorded_refusal(&home, &with(&["install", pinned], &plain), "plugin.install", "is not what was named");
    std::fs::write(&manifest, text).unwrap();
    assert!(installed(&home).is_empty());
    // Everything fits, and nobody trusts who signed it.
    let stranger = Home::new("");
    stranger.key(&["--role", "reader"]);
    recorded_refusal(&stranger, &install, "plugin.install", "there is no trust root");
    home.run_ok(&install);
    assert_eq!(installed(&home), ["sample 1.0.0"]);
}

#[test]
fn a_registry_behind_a_password_is_read_with_it_and_not_without() {
    let auth = "auth: {htpasswd: {realm: it, path: 'HERE/htpasswd'}}";
    let Some(registry) = Registry::start(true, auth, &[("htpasswd", HTPASSWD)]) else { return };
    let (home, _, package, digest) = people("");
    let password = home.directory.path().join("password");
    private(&password, "hunter2-registry\n");
    let password = format!("file:{}", text(&password));
    let (ca, tag) = (registry.ca(), registry.reference("acme/sample:1.0.0"));
    let reach = ["--ca-file", ca.as_str()];
    let known = ["--ca-file", &ca, "--username", "robot", "--password", &password];
    recorded_refusal(&home, &with(&["push", &package, &tag], &reach), "plugin.push", "does not let us in");
    home.run_ok(&with(&["push", &package, &tag], &known));
    recorded_refusal(&home, &with(&["install", &tag], &reach), "plugin.install", "does not let us in");
    let other = ["--ca-file", &ca, "--username", "eve", "--password", &password];
    recorded_refusal(&home, &with(&["install", &tag], &other), "plugin.install", "does not let us in");
    assert!(installed(&home).is_empty());
    let got = json_of(&home, &with(&["install", &tag, "--json"], &known));
    assert_eq!(got["digest"], digest.as_str());
    let record = home.audited(|r| r["method"] == "plugin.install" && r["decision"] == "allow");
    assert!(!record["note"].to_string().contains("without encryption"), "{record}");
    // The same from the settings, where it stays.
    let config = std::fs::read_to_string(&home.config).unwrap();
    let source = format!(
        "plugins:\n  sources:\n    - origin: 'https://{}'\n      allow_addresses: [loopback]\n      ca_file: '{ca}'\n      auth: {{basic: {{user: robot, password: '{password}'}}}}\n",
        registry.authority
    );
    std::fs::write(&home.config, format!("{config}{source}")).unwrap();
    home.run_ok(&["plugin", "remove", "sample"]);
    home.run_ok(&["plugin", "install", &tag]);
    let audit = home.run_ok(&["audit", "tail", "-n", "1000", "--json"]);
    assert!(!audit.contains("hunter2"), "{audit}");
}

#[test]
fn tokens_are_asked_of_the_realm_the_registry_names_for_one_repository() {
    let own = authority("realm");
    let signer = authority("signer");
    let paper = signer.issue("signer", ExtendedKeyUsagePurpose::ServerAuth);
    let certificate: String = paper.certificate.lines().filter(|line| !line.starts_with("-----")).collect();
    let key = EncodingKey::from_ec_pem(paper.key.as_bytes()).unwrap();
    // A token server as the distribution project describes it: it gives what is asked to whoever has the password.
    let realm = Web::answering(Some(&own), move |head| {
        let query = head.split(' ').nth(1)?.split_once('?')?.1;
        let scope = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("scope="))?
            .replace("%3A", ":")
            .replace("%2F", "/")
            .replace("%2C", ",");
        let known = head.to_lowercase().contains("authorization: basic cm9ib3q6ahvudgvymi1yzwfsbq==");
        let mut parts = scope.splitn(3, ':');
        let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
        let actions: Vec<&str> = if known { actions.split(',').collect() } else { Vec::new() };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let claims = json!({"iss": "issuer", "sub": "robot", "aud": "service", "exp": now + 300, "nbf": now - 10, "iat": now - 10,
            "jti": "1", "access": [{"type": kind, "name": name, "actions": actions}]});
        let header = Header { x5c: Some(vec![certificate.clone()]), ..Header::new(Algorithm::ES256) };
        Some(Page::new(json!({"token": encode(&header, &claims, &key).unwrap()}).to_string()))
    });
    let auth = format!(
        "auth: {{token: {{realm: '{}/token', service: service, issuer: issuer, rootcertbundle: 'HERE/signer.pem'}}}}",
        realm.url
    );
    let Some(registry) = Registry::start(true, &auth, &[("signer.pem", &signer.pem)]) else { return };
    let (home, _, package, digest) = people("");
    let place = home.directory.path();
    private(&place.join("password"), "hunter2-realm");
    private(&place.join("realm-ca.pem"), &own.pem);
    let (here, ca, tag) = (place.display().to_string(), registry.ca(), registry.reference("acme/sample:1.0.0"));
    let source = |origin: &str, ca: &str, more: &str| {
        format!("    - {{origin: '{origin}', allow_addresses: [loopback], ca_file: '{ca}'{more}}}\n")
    };
    let config = std::fs::read_to_string(&home.config).unwrap();
    let written = |credential: &str, realm_open: bool| {
        let registry = source(&format!("https://{}", registry.authority), &ca, credential);
        let realm = if realm_open { source(&realm.url, &format!("{here}/realm-ca.pem"), "") } else { String::new() };
        std::fs::write(&home.config, format!("{config}plugins:\n  sources:\n{registry}{realm}")).unwrap();
    };
    let credential = format!(", auth: {{basic: {{user: robot, password: 'file:{here}/password'}}}}");
    // A realm at an address nobody opened gets nothing.
    written(&credential, false);
    recorded_refusal(&home, &["plugin", "push", &package, &tag], "plugin.push", "loopback address");
    assert!(realm.seen().is_empty());
    written("", true);
    recorded_refusal(&home, &["plugin", "push", &package, &tag], "plugin.push", "does not let us in");
    written(&credential, true);
    home.run_ok(&["plugin", "push", &package, &tag]);
    let pushing = realm.seen();
    assert!(
        pushing.iter().all(|head| head.contains("scope=repository%3Aacme%2Fsample%3Apull%2Cpush&service=service")),
        "{pushing:?}"
    );
    let got = json_of(&home, &["plugin", "install", &tag, "--json"]);
    assert_eq!(got["digest"], digest.as_str());
    let last = realm.seen().pop().unwrap();
    assert!(last.contains("scope=repository%3Aacme%2Fsample%3Apull&"), "no more is asked for than is needed: {last}");
    let audit = home.run_ok(&["audit", "tail", "-n", "1000", "--json"]);
    assert!(!audit.contains("hunter2"), "{audit}");
}

#[test]
fn a_hostile_registry_gets_no_credential_for_another_place_and_is_not_believed() {
    let own = authority("hostile");
    let collector = Web::plain();
    let other = Web::encrypted(&own);
    let answer: Arc<Mutex<Option<Page>>> = Arc::default();
    let said = answer.clone();
    let registry = Web::answering(Some(&own), move |_| said.lock().unwrap().clone());
    let (home, _, _, _) = people("");
    let here = home.directory.path().display().to_string();
    private(&home.directory.path().join("ca.pem"), &own.pem);
    private(&home.directory.path().join("password"), "hunter2-registry");
    let authority = registry.url.trim_start_matches("https://").to_owned();
    let (reference, ca, password) =
        (format!("oci://{authority}/a/b:1"), format!("{here}/ca.pem"), format!("file:{here}/password"));
    let install = with(&["install", &reference], &["--ca-file", &ca, "--username", "robot", "--password", &password]);
    let answers = |page: Page, words: &str| {
        *answer.lock().unwrap() = Some(page);
        recorded_refusal(&home, &install, "plugin.install", words)
    };
    let challenge = |realm: &str| Page::status(401, "WWW-Authenticate", format!("Bearer realm=\"{realm}\",service=\"x\""));
    // A realm without encryption, one in the machine's own network, one that is no address.
    answers(challenge(&format!("{}/token", collector.url.replace("127.0.0.1", "localhost"))), "clear text");
    answers(challenge("http://collector.example/token"), "clear text");
    answers(challenge(&format!("{}/token", other.url)), "loopback address");
    answers(challenge("https://169.254.169.254/token"), "never reached");
    answers(challenge("https://u:p@collector.example/token"), "its token realm");
    assert!(collector.seen().is_empty() && other.seen().is_empty());
    assert!(registry.seen().iter().all(|head| !head.to_lowercase().contains("authorization")), "nothing is shown unasked");
    // A registry that goes on asking is answered once.
    let before = registry.seen().len();
    answers(Page::status(401, "WWW-Authenticate", "Basic realm=\"x\""), "does not let us in");
    assert_eq!(registry.seen().len(), before + 2);
    // Blobs elsewhere are fetched without the credential, and only from where it is open.
    answers(Page::redirect(format!("{}/x", other.url)), "loopback address");
    answers(Page::new(vec![b' '; 300_000]), "has more than");
    answers(Page::new("<html>"), "manifest cannot be read");
    answers(Page::new(json!({"schemaVersion": 2, "manifests": []}).to_string()), "manifest cannot be read");
    let image = json!({"schemaVersion": 2, "config": {"mediaType": "x", "digest": "y", "size": 1}, "layers": []});
    answers(Page::new(image.to_string()), "artifactType is nothing");
    let mut lying = Page::new(image.to_string());
    lying.headers.push(("Docker-Content-Digest".into(), format!("sha256:{}", "0".repeat(64))));
    answers(lying, "is not what was named");
    answers(Page::status(503, "Retry-After", "1"), "answers 503");
    assert!(installed(&home).is_empty());
    let audit: Vec<Value> = home.audit();
    assert!(!Value::from(audit).to_string().contains("hunter2"));
}

/// Another author's signature of the same package, beside the first one.
fn countersigned(home: &Home, package: &str) -> (Author, String) {
    let other = Author::new(home, "reviewer");
    let copy = other.folder.join(std::path::Path::new(package).file_name().unwrap());
    std::fs::copy(package, &copy).unwrap();
    home.run_ok(&["plugin", "sign", &text(&copy), "--key", &text(&other.key)]);
    (other, text(&copy))
}

/// An operator who trusts nobody yet but has a trust root, and a package of a stranger.
fn unknown() -> (Home, Author, String) {
    let home = Home::new("");
    let somebody = Author::new(&home, "somebody");
    somebody.trusted(&home, &[]);
    let author = Author::new(&home, "stranger");
    let (package, _) = author.release(&home, "sample", "1.0.0");
    (home, author, text(&package))
}

#[test]
fn a_signature_that_is_attached_later_is_found_by_tag_and_belongs_to_one_manifest() {
    let Some(registry) = Registry::start(false, "", &[]) else { return };
    let plain = ["--plain-http"];
    let (home, author, package) = unknown();
    let tag = registry.reference("acme/sample:1.0.0");
    let pushed = json_of(&home, &with(&["push", &package, &tag, "--json"], &plain));
    recorded_refusal(&home, &with(&["install", &tag], &plain), "plugin.install", "is not in the trust root");
    let (reviewer, copy) = countersigned(&home, &package);
    reviewer.trusted(&home, &[]);
    let attached = json_of(&home, &with(&["push", &copy, &tag, "--attach", "--json"], &plain));
    assert_ne!(attached["manifest"], pushed["manifest"]);
    // Once more is once; a second one goes beside it.
    home.run_ok(&with(&["push", &copy, &tag, "--attach"], &plain));
    home.run_ok(&with(&["push", &package, pushed["pinned"].as_str().unwrap(), "--attach"], &plain));
    let subject = pushed["manifest"].as_str().unwrap();
    let list = registry.tagged("acme/sample", &subject.replace(':', "-"));
    let list: Value = serde_json::from_slice(&std::fs::read(list).unwrap()).unwrap();
    assert_eq!(list["manifests"].as_array().unwrap().len(), 2, "{list}");
    let record =
        home.audited(|r| r["method"] == "plugin.push" && r["note"].to_string().contains("its signature alone, attached"));
    assert_eq!(record["decision"], "allow");
    home.run_ok(&with(&["install", &tag], &plain));
    assert_eq!(installed(&home), ["sample 1.0.0"]);
    home.run_ok(&["plugin", "remove", "sample"]);
    // Of another package it is refused, and what is attached to another manifest is nobody's.
    let (other, _) = author.release(&home, "sample", "1.1.0");
    recorded_refusal(&home, &with(&["push", &text(&other), &tag, "--attach"], &plain), "plugin.push", "is not what was named");
    home.run_ok(&with(&["push", &text(&other), &registry.reference("acme/sample:1.1.0")], &plain));
    let later = registry.reference("acme/sample:1.1.0");
    recorded_refusal(&home, &with(&["install", &later], &plain), "plugin.install", "is not in the trust root");
    // Taken back by whoever signed: nothing else vouches for it.
    home.run_ok(&["plugin", "keys", "revoke", &reviewer.id, "--reason", "it was a mistake"]);
    recorded_refusal(&home, &with(&["install", &tag], &plain), "plugin.install", "trust root");
    assert!(intact(&home));
}

#[test]
fn a_large_package_is_uploaded_in_pieces() {
    let Some(registry) = Registry::start(false, "", &[]) else { return };
    let (home, author, ..) = people("");
    // Nothing to compress: an own generator, so that it is the same each time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise = (0..(19 << 20) / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let component: Vec<u8> = b"\0asm\x0d\0\x01\0".iter().copied().chain(noise).collect();
    let (package, digest) = author.release_of(&home, "sample", "2.0.0", &component);
    assert!(std::fs::metadata(&package).unwrap().len() > 16 << 20);
    let tag = registry.reference("acme/sample:2.0.0");
    home.run_ok(&with(&["push", &text(&package), &tag], &["--plain-http"]));
    assert_eq!(std::fs::read(registry.blob(&digest)).unwrap(), std::fs::read(&package).unwrap());
    let got = json_of(&home, &with(&["install", &tag, "--json"], &["--plain-http"]));
    assert_eq!(got["digest"], digest.as_str());

    // Pieces as large as the registry wants them, and one that takes none gets everything at once.
    let size = std::fs::metadata(&package).unwrap().len();
    for (takes, patches) in [(true, 2), (false, 1)] {
        let stand_in = Web::answering(None, move |head| {
            let mut page = Page::new("");
            let uploads = "/v2/acme/sample/blobs/uploads/";
            page.status = match head.split(' ').next()? {
                "HEAD" | "GET" => 404,
                "PATCH" if !takes => 405,
                "PATCH" | "POST" => 202,
                _ => 201,
            };
            page.headers = vec![("Location".into(), format!("{uploads}one?state=x"))];
            page.headers.push(("OCI-Chunk-Min-Length".into(), (12 << 20).to_string()));
            Some(page)
        });
        let reference = format!("oci://{}/acme/sample:2.0.0", stand_in.url.trim_start_matches("http://"));
        home.run_ok(&with(&["push", &text(&package), &reference], &["--plain-http"]));
        let seen = stand_in.seen();
        let of = |method: &str| seen.iter().filter(|head| head.starts_with(method)).cloned().collect::<Vec<String>>();
        assert_eq!(of("PATCH").len(), patches, "{seen:#?}");
        if takes {
            let ranges: Vec<String> = of("PATCH").iter().map(|head| header(head, "content-range")).collect();
            assert_eq!(ranges, [format!("0-{}", (12 << 20) - 1), format!("{}-{}", 12 << 20, size - 1)]);
        }
        let whole = of("PUT").iter().any(|head| header(head, "content-length") == size.to_string());
        assert_eq!(whole, !takes, "{seen:#?}");
    }
}

fn header(head: &str, name: &str) -> String {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next().unwrap_or_default()
}

/// What a registry of the later specification has beside its lists: a package, and a signature attached to it.
struct Shelf {
    /// Digest of the manifest of the package.
    subject: String,
    /// Digest of the manifest of the signature.
    attached: String,
    /// That manifest.
    signature: String,
}

/// Fills a web server that stands in for such a registry, as far as one package goes, with what the packaged one makes.
fn shelved(web: &Web, home: &Home, package: &str, copy: &str) -> Option<Shelf> {
    let packaged = Registry::start(false, "", &[])?;
    let tag = packaged.reference("acme/sample:1.0.0");
    let plain = ["--plain-http"];
    let pushed = json_of(home, &with(&["push", package, &tag, "--json"], &plain));
    let attached = json_of(home, &with(&["push", copy, &tag, "--attach", "--json"], &plain));
    let file = |digest: &Value| std::fs::read(packaged.blob(digest.as_str().unwrap())).unwrap();
    let manifest: Value = serde_json::from_slice(&file(&pushed["manifest"])).unwrap();
    let signature: Value = serde_json::from_slice(&file(&attached["manifest"])).unwrap();
    web.put(&place("manifests/1.0.0"), Page::new(file(&pushed["manifest"])));
    for layer in manifest["layers"].as_array().unwrap().iter().chain(signature["layers"].as_array().unwrap()) {
        web.put(&place(&format!("blobs/{}", layer["digest"].as_str().unwrap())), Page::new(file(&layer["digest"])));
    }
    let text_of = |value: &Value| value.as_str().unwrap().to_owned();
    let signature = String::from_utf8(file(&attached["manifest"])).unwrap();
    Some(Shelf { subject: text_of(&pushed["manifest"]), attached: text_of(&attached["manifest"]), signature })
}

fn place(rest: &str) -> String {
    format!("/v2/acme/sample/{rest}")
}

/// A list of manifests of signatures.
fn index(digests: &[&str]) -> String {
    let entry = |digest: &&str| {
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 700,
            "artifactType": "application/vnd.portcullis.plugin.signature.v1+json"})
    };
    let entries: Vec<Value> = digests.iter().map(entry).collect();
    json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries}).to_string()
}

#[test]
fn a_registry_that_lists_what_is_attached_is_asked_and_not_believed() {
    let (home, _, package) = unknown();
    let (reviewer, copy) = countersigned(&home, &package);
    reviewer.trusted(&home, &[]);
    let web = Web::plain();
    let Some(Shelf { subject, attached, signature }) = shelved(&web, &home, &package, &copy) else { return };
    let lists = |digest: &str, body: String| {
        // The first of the list is no longer there.
        web.put(&place(&format!("referrers/{subject}")), Page::new(index(&[&sha256(b"taken away"), digest])));
        web.put(&place(&format!("manifests/{digest}")), Page::new(body));
    };
    let reference = format!("oci://{}/acme/sample:1.0.0", web.url.trim_start_matches("http://"));
    let install = with(&["install", &reference], &["--plain-http"]);
    // Other bytes than are listed, and a signature that is attached to something else.
    lists(&attached, signature.replace("schemaVersion", "schemaversion"));
    recorded_refusal(&home, &install, "plugin.install", "is not what was named");
    let elsewhere = signature.replace(&subject, &format!("sha256:{}", "0".repeat(64)));
    lists(&sha256(elsewhere.as_bytes()), elsewhere);
    recorded_refusal(&home, &install, "plugin.install", "is not in the trust root");
    lists(&attached, signature);
    home.run_ok(&install);
    assert_eq!(installed(&home), ["sample 1.0.0"]);
    let asked = web.seen();
    assert!(
        asked
            .iter()
            .any(|head| head.contains("/referrers/sha256:") && head.contains("artifactType=application%2Fvnd.portcullis")),
        "{asked:#?}"
    );
    assert!(
        !asked.iter().any(|head| head.contains("manifests/sha256-")),
        "no tag is looked for where there is a list: {asked:#?}"
    );
}

#[test]
fn a_list_of_what_is_attached_is_followed_page_by_page_and_nowhere_else() {
    let (home, _, package) = unknown();
    let (reviewer, copy) = countersigned(&home, &package);
    reviewer.trusted(&home, &[]);
    // The pages of the list, by what their address says comes before them.
    let pages: Arc<Mutex<BTreeMap<String, Page>>> = Arc::default();
    let kept = pages.clone();
    let web = Web::answering(None, move |head| {
        let (_, asked) = head.split(' ').nth(1)?.split_once("/referrers/")?;
        let after = asked.split_once("last=").map_or("", |(_, after)| after);
        let missing = || Page { status: 404, ..Page::new("no such page") };
        Some(kept.lock().unwrap().get(after).cloned().unwrap_or_else(missing))
    });
    let Some(Shelf { subject, attached, signature }) = shelved(&web, &home, &package, &copy) else { return };
    web.put(&place(&format!("manifests/{attached}")), Page::new(signature));
    let gone = sha256(b"taken away");
    let list = |after: &str, digest: &str, next: Option<&str>| {
        let headers = next.map(|next| ("Link".to_owned(), format!("<{next}>; rel=\"next\""))).into_iter().collect();
        pages.lock().unwrap().insert(after.to_owned(), Page { headers, ..Page::new(index(&[digest])) });
    };
    let at = |after: &str| place(&format!("referrers/{subject}?last={after}"));
    let reference = format!("oci://{}/acme/sample:1.0.0", web.url.trim_start_matches("http://"));
    let install = with(&["install", &reference], &["--plain-http"]);
    // Another server, another repository, another path of the same one.
    let other = Web::plain();
    let other_server = format!("{}{}", other.url, at("1"));
    let other_repository = at("1").replace("acme/sample", "acme/other");
    for next in [other_server.as_str(), &other_repository, &place("manifests/1.0.0")] {
        list("", &gone, Some(next));
        recorded_refusal(&home, &install, "plugin.install", "only pages of the same list");
    }
    assert!(other.seen().is_empty(), "{:#?}", other.seen());
    // A page that does not come is no end of the list.
    list("", &gone, Some(&at("1")));
    recorded_refusal(&home, &install, "plugin.install", "answers 404");
    // More pages than are looked at: it is said, and what stands on them does not count.
    for page in 1..12 {
        list(&page.to_string(), if page == 9 { &attached } else { &gone }, Some(&at(&(page + 1).to_string())));
    }
    let asked = || web.seen().iter().filter(|head| head.contains("/referrers/")).count();
    let before = asked();
    let said = recorded_refusal(&home, &install, "plugin.install", "is not in the trust root");
    assert!(said.contains("not all that is attached") && said.contains("goes on after the 8 pages"), "{said}");
    assert_eq!(asked() - before, 8);
    assert!(installed(&home).is_empty());
    list("2", &attached, None);
    home.run_ok(&install);
    assert_eq!(installed(&home), ["sample 1.0.0"]);
}

fn sha256(bytes: &[u8]) -> String {
    portcullis_plugins::Digest::of(bytes).to_string()
}
