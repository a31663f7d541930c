//! The way out: declared and granted, or not at all.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use portcullis_ports::NoExchange;
use serde_json::{Value, json};

use crate::shop::{MANIFEST, Shop};

/// A web server that remembers heads of requests and answers by path.
struct Web {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Web {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = seen.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut text = String::new();
                let mut part = [0; 4_096];
                while !text.contains("\r\n\r\n") {
                    match stream.read(&mut part) {
                        Ok(read @ 1..) => text.push_str(&String::from_utf8_lossy(&part[..read])),
                        _ => break,
                    }
                }
                let path = text.split(' ').nth(1).unwrap_or("").to_owned();
                let echo = text.lines().filter(|line| line.contains("hunter")).collect::<Vec<_>>().join("|");
                let (status, extra, body) = match path.as_str() {
                    "/away" => ("302 Found", "Location: http://127.0.0.1:1/stolen\r\n".to_owned(), String::new()),
                    "/within" => ("302 Found", format!("Location: http://127.0.0.1:{port}/end\r\n"), String::new()),
                    "/metadata" => ("302 Found", "Location: http://169.254.169.254/latest\r\n".to_owned(), String::new()),
                    "/echo" => ("200 OK", format!("X-Echo: {echo}\r\nSet-Cookie: a=b\r\n"), format!("you sent {echo}")),
                    _ => ("200 OK", String::new(), format!("at {path}")),
                };
                kept.lock().unwrap().push(text);
                let head = format!("HTTP/1.1 {status}\r\n{extra}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        Self { port, seen }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// The probe, with this server in the place of the one its manifest declares.
    fn shop(&self, grant: &str) -> Option<Shop> {
        let port = self.port.to_string();
        Shop::open_with(&MANIFEST.replace("18080", &port), &grant.replace("PORT", &port))
    }
}

const OPEN: &str =
    "http: ['http://127.0.0.1:PORT', 'http://localhost:PORT', 'http://169.254.169.254:80'], allow_addresses: [loopback]";

async fn fetch(shop: &Shop, arguments: Value) -> Value {
    let mut all = json!({"what": "http"});
    all.as_object_mut().unwrap().extend(arguments.as_object().unwrap().clone());
    shop.probe(all).await.unwrap()
}

async fn refused(shop: &Shop, url: &str, says: &str) {
    let answer = fetch(shop, json!({"url": url})).await;
    let failure = answer["failure"].as_str().unwrap_or_else(|| panic!("{url}: {answer}"));
    assert!(failure.contains(says), "{url}: {failure}");
}

#[tokio::test]
async fn what_is_declared_and_granted_is_reached_and_noted() {
    let web = Web::start();
    let Some(shop) = web.shop(OPEN) else { return };
    let permit = shop.permit();
    let arguments = json!({"what": "http", "url": web.url("/a%2Fb/c%20d/?q=x%26y")});
    let answer = shop.probe_with(&permit, &NoExchange, arguments).await.unwrap();
    assert_eq!((answer["status"].as_u64(), answer["body"].as_str()), (Some(200), Some("at /a%2Fb/c%20d/?q=x%26y")));
    let reached = permit.trail().all_reached();
    assert!(reached.iter().any(|what| **what == *format!("host:http://127.0.0.1:{}", web.port)), "{reached:?}");
}

#[tokio::test]
async fn undeclared_and_ungranted_hosts_are_not_reached() {
    let web = Web::start();
    let other = Web::start();
    let Some(shop) = web.shop(OPEN) else { return };
    refused(&shop, &other.url("/"), "Undeclared").await;
    refused(&shop, "https://deep.sub.example.com/", "Undeclared").await;
    refused(&shop, "https://example.com/", "Undeclared").await;
    refused(&shop, "https://api.example.com.evil.org/", "Undeclared").await;
    // Declared by a wildcard, and not granted.
    refused(&shop, "https://api.example.com/", "Refused").await;
    refused(&shop, &format!("http://user@127.0.0.1:{}/", web.port), "Invalid").await;
    let Some(bare) = web.shop("") else { return };
    refused(&bare, &web.url("/"), "Refused").await;
    assert!(web.seen().is_empty() && other.seen().is_empty());
}

#[tokio::test]
async fn redirects_are_followed_within_the_origin_only() {
    let web = Web::start();
    let Some(shop) = web.shop(OPEN) else { return };
    refused(&shop, &web.url("/away"), "Redirect").await;
    refused(&shop, &web.url("/metadata"), "Redirect").await;
    assert_eq!(fetch(&shop, json!({"url": web.url("/within")})).await["body"], "at /end");
}

#[tokio::test]
async fn a_granted_name_is_refused_when_its_address_is_closed() {
    let web = Web::start();
    // Loopback is not opened: neither by its address nor by a name that stands for it, however that name is answered.
    let closed = OPEN.replace(", allow_addresses: [loopback]", "");
    let Some(shop) = web.shop(&closed) else { return };
    refused(&shop, &web.url("/"), "Refused").await;
    refused(&shop, &format!("http://localhost:{}/", web.port), "loopback").await;
    assert!(web.seen().is_empty());
}

#[tokio::test]
async fn the_metadata_address_is_never_reached_even_when_declared_and_granted() {
    let web = Web::start();
    let Some(shop) = web.shop(OPEN) else { return };
    for url in ["http://169.254.169.254/latest/meta-data/", "http://2852039166/", "http://0xa9fea9fe/", "http://169.254.43518/"] {
        refused(&shop, url, "Refused").await;
    }
}

#[tokio::test]
async fn what_a_plugin_is_kept_from_is_noted_and_only_what_was_spoken_to_counts_as_reached() {
    let web = Web::start();
    let Some(shop) = web.shop(OPEN) else { return };
    let host = |port: u16| format!("host:http://127.0.0.1:{port}");
    let after = async |url: &str| {
        let permit = shop.permit();
        shop.probe_with(&permit, &NoExchange, json!({"what": "http", "url": url})).await.unwrap();
        let reached = permit.trail().all_reached().iter().any(|what| what.starts_with("host:"));
        (reached, permit.trail().words().unwrap())
    };
    let (reached, words) = after("https://example.org/").await;
    assert!(
        !reached && words.ends_with("; refused probe host:https://example.org:443 (the manifest does not declare this origin)"),
        "{words}"
    );
    let (reached, words) = after("https://api.example.com/").await;
    assert!(
        !reached && words.ends_with("; refused probe host:https://api.example.com:443 (the operator does not grant this origin)"),
        "{words}"
    );
    let (reached, words) = after(&web.url("/away")).await;
    assert!(reached && words.ends_with(&format!("; refused probe {} (it leads to another origin)", host(web.port))), "{words}");
    // Nobody listens there: no refusal, and nothing was reached.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let manifest = MANIFEST.replace("18080", &silent.to_string());
    let Some(shop) = Shop::open_with(&manifest, &OPEN.replace("PORT", &silent.to_string())) else { return };
    let permit = shop.permit();
    let url = format!("http://127.0.0.1:{silent}/");
    let answer = shop.probe_with(&permit, &NoExchange, json!({"what": "http", "url": url})).await.unwrap();
    assert!(answer["failure"].as_str().is_some_and(|failure| failure.contains("Unreachable")), "{answer}");
    assert!(!permit.trail().all_reached().iter().any(|what| **what == *host(silent)));
    assert!(!permit.trail().words().unwrap().contains("refused"));
}

#[tokio::test]
async fn headers_cannot_be_smuggled() {
    let web = Web::start();
    let Some(shop) = web.shop(OPEN) else { return };
    for (name, value) in [
        ("Authorization", "Bearer stolen"),
        ("Cookie", "a=b"),
        ("Host", "evil.example"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "0"),
        ("Connection", "upgrade"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Fine", "a\r\nAuthorization: Bearer stolen"),
        ("X-Fine\r\nAuthorization", "Bearer stolen"),
        ("bad name", "x"),
        ("Content-Type", "text/plain\r\nX-Evil: 1"),
    ] {
        let answer =
            fetch(&shop, json!({"url": web.url("/"), "headers": [[name, value]], "method": "POST", "text": "body"})).await;
        assert!(answer["failure"].as_str().is_some_and(|f| f.contains("Invalid")), "{name}: {answer}");
    }
    for method in ["CONNECT", "TRACE", "GET / HTTP/1.1\r\nX: y", "get"] {
        let answer = fetch(&shop, json!({"url": web.url("/"), "method": method})).await;
        assert!(answer["failure"].as_str().is_some_and(|f| f.contains("Invalid")), "{method}: {answer}");
    }
    for url in ["http://127.0.0.1:PORT/a/../../etc", "http://127.0.0.1:PORT/%2e%2e/x", "http://127.0.0.1:PORT/a%00b"] {
        let answer = fetch(&shop, json!({"url": url.replace("PORT", &web.port.to_string())})).await;
        // Written out of the path by the URL's own rules, or refused; never sent as it is.
        assert!(answer["failure"].is_string() || answer["body"] == "at /etc" || answer["body"] == "at /x", "{url}: {answer}");
    }
    assert!(web.seen().iter().all(|head| !head.contains("stolen") && !head.contains("X-Evil") && !head.contains("..")));
    let fine = fetch(&shop, json!({"url": web.url("/"), "headers": [["X-Fine", "yes"]]})).await;
    assert_eq!(fine["status"], 200);
}

#[tokio::test]
async fn secrets_go_where_the_manifest_says_and_never_through_the_plugin() {
    let web = Web::start();
    let grant = format!(
        "{OPEN}, secrets: {{token: {{value: hunter2-token}}, key: {{value: hunter3-key}}, signing: {{value: hunter4-signing}}}}"
    );
    let Some(shop) = web.shop(&grant) else { return };
    let answer = fetch(&shop, json!({"url": web.url("/echo"), "credentials": ["token", "key"]})).await;
    let head = web.seen().pop().unwrap().to_ascii_lowercase();
    assert!(head.contains("authorization: bearer hunter2-token") && head.contains("x-probe-key: hunter3-key"), "{head}");
    // The server gives back what it was sent; the plugin does not see it.
    let text = answer.to_string();
    assert!(
        text.contains("[redacted:credential]") && !text.contains("hunter") && !text.to_lowercase().contains("set-cookie"),
        "{text}"
    );
    // Undeclared, and declared for another origin.
    for (url, name, says) in [
        (web.url("/"), "password", "Undeclared"),
        (format!("http://localhost:{}/", web.port), "token", "Undeclared"),
        (web.url("/"), "signing", "Undeclared"),
    ] {
        let answer = fetch(&shop, json!({"url": url, "credentials": [name]})).await;
        assert!(answer["failure"].as_str().unwrap().contains(says), "{name}: {answer}");
    }
    // In the plugin's own hands only when both sides say so.
    for (name, failure) in [("token", "Undeclared"), ("signing", "Refused"), ("nothing", "Undeclared")] {
        let answer = shop.probe(json!({"what": "secret", "text": name})).await.unwrap();
        assert!(answer["failure"].as_str().unwrap().contains(failure), "{name}: {answer}");
    }
    let Some(open) =
        web.shop("secrets: {signing: {value: hunter4-signing, read: true}, token: {value: hunter2-token, read: true}}")
    else {
        return;
    };
    assert_eq!(open.probe(json!({"what": "secret", "text": "signing"})).await.unwrap()["value"], "hunter4-signing");
    let token = open.probe(json!({"what": "secret", "text": "token"})).await.unwrap();
    assert!(token["failure"].is_string(), "the manifest did not ask for it: {token}");
}

#[tokio::test]
async fn requests_of_one_call_are_counted() {
    let web = Web::start();
    let Some(shop) = web.shop(OPEN) else { return };
    assert_eq!(fetch(&shop, json!({"url": web.url("/"), "count": 3})).await["status"], 200);
    let fault = shop.probe(json!({"what": "http", "url": web.url("/"), "count": 4})).await.unwrap_err();
    assert!(fault.message().contains("its limit http_calls (3 requests)"), "{fault:?}");
    assert_eq!(web.seen().len(), 6);
}

#[tokio::test]
async fn no_host_is_reached_that_the_record_has_no_room_for() {
    let web = Web::start();
    let Some(shop) = web.shop(OPEN) else { return };
    let permit = shop.permit();
    let full = (0..64).map(|at| permit.trail().reached(&format!("host:https://{at}.example.com:443"))).any(|room| !room);
    assert!(full);
    let arguments = json!({"what": "http", "url": web.url("/")});
    let answer = shop.probe_with(&permit, &NoExchange, arguments).await.unwrap();
    assert!(answer["failure"].as_str().is_some_and(|failure| failure.contains("its record can name")), "{answer}");
    assert!(web.seen().is_empty());
}
