//! Every connection of the real binary, as the kernel saw it: with every kind of destination configured, each goes to one of
//! them, each of them is reached, and nothing else is.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::exchange;
use crate::parcels::Author;
use crate::plugins::{MANIFEST, component_of};
use crate::secrets::empty_prometheus;
use crate::server::{BINARY, Home, free_port, modern, modern_headers, post};
use crate::upstreams::{tool, until};
use crate::visitor::{Backend, now_nanos};

/// `address:port` of every line that names where something goes.
fn destinations(trace: &str) -> BTreeSet<String> {
    let between = |line: &str, from: &str, to: &str| {
        let rest = line.split_once(from)?.1;
        Some(rest.split_once(to)?.0.to_owned())
    };
    let read = |line: &str| {
        let port = between(line, "htons(", ")")?;
        let address = between(line, "inet_addr(\"", "\"").or_else(|| between(line, "inet_pton(AF_INET6, \"", "\""))?;
        Some(format!("{address}:{port}"))
    };
    trace.lines().filter(|l| l.contains("AF_INET")).map(|l| read(l).unwrap_or_else(|| l.to_owned())).collect()
}

/// A server whose system calls are written down.
struct Traced {
    tracer: Child,
    trace: PathBuf,
    ended: bool,
}

impl Traced {
    /// `None` where nothing can be traced.
    fn start(home: &Home) -> Option<Self> {
        if Command::new("strace").arg("-V").output().is_err() {
            crate::server::skipped("strace is not installed");
            return None;
        }
        let trace = home.directory.path().join("trace");
        let log = std::fs::File::create(home.directory.path().join("log")).unwrap();
        let mut tracer = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o"])
            .arg(&trace)
            .arg(BINARY)
            .arg("--config")
            .arg(&home.config)
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let began = Instant::now();
        while TcpStream::connect(home.mcp).is_err() && began.elapsed() < Duration::from_mins(1) {
            let log = || std::fs::read_to_string(home.directory.path().join("log")).unwrap_or_default();
            assert!(tracer.try_wait().unwrap().is_none(), "this process may not trace, or the server ended: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(Self { tracer, trace, ended: false })
    }

    /// The traced process first: a tracer that is killed lets go of it and leaves it running.
    fn stop(&mut self) -> bool {
        if std::mem::replace(&mut self.ended, true) {
            return true;
        }
        let children = format!("/proc/{0}/task/{0}/children", self.tracer.id());
        let traced = std::fs::read_to_string(children).unwrap_or_default().trim().to_owned();
        let stopped = Command::new("kill").args(["-TERM", &traced]).status().is_ok_and(|status| status.success());
        let _ = self.tracer.wait();
        stopped
    }

    /// Ends it, and says where it went.
    fn destinations(mut self) -> BTreeSet<String> {
        assert!(self.stop(), "the server had ended before");
        destinations(&std::fs::read_to_string(&self.trace).unwrap())
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.stop();
    }
}

fn place(url: &str) -> String {
    url.trim_start_matches("https://").trim_start_matches("http://").to_owned()
}

fn call(mcp: SocketAddr, credential: &str, name: &str, arguments: &Value) -> Value {
    let headers = [modern_headers(name), vec![("Authorization".to_owned(), format!("Bearer {credential}"))]].concat();
    post(mcp, "/mcp", &headers, modern(name, arguments).to_string().as_bytes()).json()
}

/// Everything that can be configured to be asked over the network, but an authority of certificates.
struct World {
    backends: Vec<(&'static str, Backend)>,
    prometheus: [String; 2],
    signing: rcgen::KeyPair,
}

fn answering(body: &Value) -> Backend {
    let body = body.to_string();
    Backend::start(move |_, _| (200, body.clone()))
}

fn world() -> World {
    let (issuer, signing) = exchange::issuer();
    let upstream = Backend::start(|_, body| {
        let Ok(request) = serde_json::from_str::<Value>(body) else { return (405, String::new()) };
        let mut result = match request["method"].as_str().unwrap_or_default() {
            "server/discover" => json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}),
            _ => json!({"tools": [tool("look", "Looks.")]}),
        };
        result["resultType"] = json!("complete");
        (200, json!({"jsonrpc": "2.0", "id": request["id"], "result": result}).to_string())
    });
    let vault = Backend::start(|path, _| {
        let metadata = json!({"created_time": "2026-01-01T00:00:00Z", "deletion_time": "", "destroyed": false, "version": 1});
        match path {
            "/v1/secret/data/apps/prom" => {
                (200, json!({"data": {"data": {"token": "kept-in-a-store"}, "metadata": metadata}}).to_string())
            }
            _ => (200, json!({"data": {"ttl": 3600, "renewable": true}}).to_string()),
        }
    });
    let backends = vec![
        ("issuer", issuer),
        ("upstream", upstream),
        ("vault", vault),
        ("opa", answering(&json!({"result": true}))),
        ("webhook", answering(&json!({}))),
        ("otlp", answering(&json!({}))),
        ("api", answering(&json!([{"id": "1"}]))),
        ("plugin", answering(&json!({}))),
    ];
    World { backends, prometheus: [empty_prometheus().0, empty_prometheus().0], signing }
}

impl World {
    fn url(&self, name: &str) -> &str {
        &self.backends.iter().find(|(known, _)| *known == name).unwrap().1.url
    }

    fn home(&self) -> Home {
        let home = Home::new("");
        let token = home.directory.path().join("vault-token");
        std::fs::write(&token, "a-token-for-the-store").unwrap();
        std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let spec = home.directory.path().join("shop.json");
        let description = json!({"openapi": "3.0.3", "info": {"title": "Shop", "version": "1"}, "paths": {
            "/orders": {"get": {"operationId": "listOrders", "summary": "Lists orders"}}}});
        std::fs::write(&spec, description.to_string()).unwrap();
        let mut text = std::fs::read_to_string(&home.config).unwrap();
        text.push_str(&exchange::settings(self.url("issuer"), &self.prometheus[0]));
        write!(
            text,
            "- {{name: stored, kind: prometheus, url: '{}', allow_addresses: [loopback], auth: {{bearer: 'vault:main/apps/prom#token'}}}}\n\
             tools: {{expose: all}}\n\
             secret_stores: [{{name: main, url: '{}', allow_addresses: [loopback], auth: {{token: 'file:{}'}}}}]\n\
             external_policy: {{url: '{}', path: portcullis/allow, allow_addresses: [loopback]}}\n\
             upstreams: [{{name: up, http: {{url: '{}/mcp', allow_addresses: [loopback]}}, refresh: 1s}}]\n\
             apis: [{{name: shop, spec: {{file: '{}'}}, url: '{}', allow_addresses: [loopback]}}]\n\
             plugins: {{grants: [{{name: probe, http: ['{}'], allow_addresses: [loopback]}}]}}\n\
             audit:\n  sinks:\n  - {{name: hook, to: {{webhook: {{url: '{}/in', secret: a-made-up-signing-secret, allow_addresses: [loopback]}}}}}}\n  \
             - {{name: logs, to: {{otlp: {{url: '{}/v1/logs', allow_addresses: [loopback]}}}}}}\n",
            self.prometheus[1],
            self.url("vault"),
            token.display(),
            self.url("opa"),
            self.url("upstream"),
            spec.display(),
            self.url("api"),
            self.url("plugin"),
            self.url("webhook"),
            self.url("otlp"),
        )
        .unwrap();
        std::fs::write(&home.config, text).unwrap();
        home
    }
}

#[test]
fn every_connection_of_the_server_goes_to_the_configured_source() {
    let world = world();
    let home = world.home();
    let plugin = component_of("probe");
    if let Some(component) = &plugin {
        let author = Author::new(&home, "stranger");
        let port = world.url("plugin").rsplit(':').next().unwrap().to_owned();
        let package = author.pack(&home, component, &MANIFEST.replace("18080", &port));
        author.trusted(&home, &["--plugin", "probe"]);
        home.run_ok(&["plugin", "install", &package, "--enable"]);
    }
    let key = home.key(&["--role", "admin"]);
    // Before the server runs: two processes cannot open the store together.
    let tools: Value = serde_json::from_str(&home.run_ok(&["tools", "--json"])).unwrap();
    let tools = tools.as_array().or_else(|| tools["tools"].as_array()).unwrap();
    let names: Vec<&str> = tools.iter().map(|t| t["name"].as_str().unwrap()).collect();
    let Some(traced) = Traced::start(&home) else { return };
    for name in &names {
        // Arguments that tempt: addresses and names where one could be followed.
        for arguments in [
            json!({}),
            json!({"query": "up", "source": "stored"}),
            json!({"service": "http://169.254.169.254/latest"}),
            json!({"query": "select * from 'http://192.0.2.1/x.parquet'"}),
        ] {
            call(home.mcp, &key, name, &arguments);
        }
    }
    let somebody = exchange::token(&world.signing, world.url("issuer"), home.mcp, "ada", &json!({}));
    call(home.mcp, &somebody, "query_metrics", &json!({"query": "up", "source": "prom"}));
    call(home.mcp, &key, "shop_list_orders", &json!({}));
    if plugin.is_some() {
        call(home.mcp, &key, "probe_do", &json!({"what": "http", "url": format!("{}/", world.url("plugin"))}));
        call(home.mcp, &key, "probe_do", &json!({"what": "http", "url": "http://169.254.169.254/latest/meta-data/"}));
        call(home.mcp, &key, "probe_do", &json!({"what": "http", "url": "http://192.0.2.1/"}));
    }
    // A sender of telemetry may name places as well.
    let places = json!({"resourceLogs": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "http://192.0.2.1/"}}]},
        "scopeLogs": [{"logRecords": [{"timeUnixNano": now_nanos().to_string(), "body": {"stringValue": "http://192.0.2.1/"}}]}]}]});
    post(home.otlp, "/v1/logs", &[("Content-Type".into(), "application/json".into())], places.to_string().as_bytes());
    let wanted = |name: &str| name != "plugin" || plugin.is_some();
    until("everything configured is asked", || {
        let unseen = world.backends.iter().filter(|(name, backend)| wanted(name) && backend.seen().is_empty());
        let unseen: Vec<&str> = unseen.map(|(name, _)| *name).collect();
        if unseen.is_empty() { Ok(()) } else { Err(format!("not asked: {unseen:?}")) }
    });
    let issuer = &world.backends[0].1;
    assert!(
        issuer.seen().iter().any(|request| request.starts_with("POST /token")),
        "no token was exchanged: {:?}",
        issuer.seen()
    );
    let configured = world.backends.iter().filter(|(name, _)| wanted(name)).map(|(_, backend)| place(&backend.url));
    let configured: BTreeSet<String> = configured.chain(world.prometheus.iter().map(|url| place(url))).collect();
    assert!(names.len() > 5, "only {} tools were called", names.len());
    assert_eq!(traced.destinations(), configured);
}

#[test]
fn a_certificate_is_asked_for_at_the_configured_authority_and_nowhere_else() {
    // It never answers: where the server goes is all that is looked at.
    let authority = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = authority.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in authority.incoming() {
            drop(stream);
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mcp = free_port();
    let mut home = Home::new(&format!(
        "listen: {{mcp: '{mcp}', tls: {{acme: {{directory: 'https://{address}/dir', domains: [mcp.portcullis.example], \
         terms_of_service_agreed: true, allow_addresses: [loopback], retry: {{first: 1s, longest: 2s}}}}}}}}\n"
    ));
    home.mcp = mcp;
    let Some(traced) = Traced::start(&home) else { return };
    until("the authority is asked", || if asked.load(Ordering::SeqCst) > 0 { Ok(()) } else { Err("nobody came".to_owned()) });
    assert_eq!(traced.destinations(), BTreeSet::from([address.to_string()]));
}
