//! What an MCP client says, in both eras, and a backend on loopback that answers what it is told to.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};

use crate::server::{Reply, Server, post};

/// Header of the session revisions.
const LEGACY: &str = "2025-11-25";

/// `_meta` of a request of the stateless revision.
pub(crate) fn meta(capabilities: &Value) -> Map<String, Value> {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": capabilities});
    meta.as_object().unwrap().clone()
}

/// A request of the stateless revision; `params` may bring members of `_meta` of its own.
pub(crate) fn modern_request(method: &str, params: &Value, capabilities: &Value) -> (Vec<(String, String)>, String) {
    let mut params = params.clone();
    let members = params.as_object_mut().unwrap();
    let mut all = meta(capabilities);
    if let Some(Value::Object(own)) = members.remove("_meta") {
        all.extend(own);
    }
    let name = members.get("name").or_else(|| members.get("uri")).and_then(Value::as_str).unwrap_or_default().to_owned();
    members.insert("_meta".into(), Value::Object(all));
    let mut headers = headers_of(method, &name);
    if name.is_empty() {
        headers.retain(|(key, _)| key != "Mcp-Name");
    }
    (headers, json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string())
}

fn headers_of(method: &str, name: &str) -> Vec<(String, String)> {
    // Header values are visible ASCII; anything else is sent in the encoding the revision has for it.
    let plain = !name.is_empty() && name.bytes().all(|b| (0x21..0x7f).contains(&b));
    let name = if plain {
        name.to_owned()
    } else {
        use base64::Engine as _;
        format!("=?base64?{}?=", base64::engine::general_purpose::STANDARD.encode(name))
    };
    [
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
        ("MCP-Protocol-Version", "2026-07-28"),
        ("Mcp-Method", method),
        ("Mcp-Name", &name),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec()
}

/// Somebody with a key.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    pub mcp: SocketAddr,
    pub path: String,
    pub key: String,
}

impl Visitor {
    pub(crate) fn new(server: &Server, key: &str) -> Self {
        Self { mcp: server.mcp, path: "/mcp".into(), key: key.to_owned() }
    }

    /// The same person at the address of a product.
    pub(crate) fn at(&self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }

    pub(crate) fn ask(&self, method: &str, params: &Value) -> Reply {
        self.ask_able(method, params, &json!({}))
    }

    pub(crate) fn ask_able(&self, method: &str, params: &Value, capabilities: &Value) -> Reply {
        let (headers, body) = modern_request(method, params, capabilities);
        self.send(headers, body.as_bytes())
    }

    pub(crate) fn call(&self, tool: &str, arguments: &Value) -> Reply {
        self.ask("tools/call", &json!({"name": tool, "arguments": arguments}))
    }

    /// Sends a body with these headers and the key.
    pub(crate) fn send(&self, mut headers: Vec<(String, String)>, body: &[u8]) -> Reply {
        headers.push(("Authorization".into(), format!("Bearer {}", self.key)));
        post(self.mcp, &self.path, &headers, body)
    }

    /// Opens a session of the older revisions: as a client that could be asked for its roots at least, or it would get none.
    pub(crate) fn session(&self, capabilities: &Value) -> Session {
        let mut capabilities = capabilities.clone();
        capabilities.as_object_mut().unwrap().entry("roots").or_insert_with(|| json!({}));
        let open = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": LEGACY, "capabilities": capabilities, "clientInfo": {"name": "it", "version": "1"}}});
        let reply = self.send(session_headers(None), open.to_string().as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.body);
        let id = reply.header("mcp-session-id").expect("a session");
        let session = Session { visitor: self.clone(), id };
        let ready = session.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        assert_eq!(ready.status, 202, "{}", ready.body);
        session
    }
}

fn session_headers(id: Option<&str>) -> Vec<(String, String)> {
    let mut headers = vec![
        ("Content-Type".to_owned(), "application/json".to_owned()),
        ("Accept".to_owned(), "application/json, text/event-stream".to_owned()),
    ];
    if let Some(id) = id {
        headers.push(("MCP-Protocol-Version".into(), LEGACY.into()));
        headers.push(("Mcp-Session-Id".into(), id.into()));
    }
    headers
}

/// A session of the older revisions.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub visitor: Visitor,
    pub id: String,
}

impl Session {
    pub(crate) fn send(&self, message: &Value) -> Reply {
        self.visitor.send(session_headers(Some(&self.id)), message.to_string().as_bytes())
    }

    pub(crate) fn ask(&self, method: &str, params: &Value) -> Reply {
        // Two requests of a session in flight must not have one id.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::SeqCst);
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
    }
}

impl Reply {
    /// A header of the answer.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).next()
    }
}

/// A web server on loopback that answers by path and body, and remembers whole requests.
pub(crate) struct Backend {
    pub url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Backend {
    /// `answer` gets the path and the body, and gives a status and a body; of a redirect the body is where it leads.
    pub(crate) fn start(answer: impl Fn(&str, &str) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (remembered, answer) = (seen.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let (remembered, answer) = (remembered.clone(), answer.clone());
                std::thread::spawn(move || {
                    let mut request = Vec::new();
                    let mut chunk = [0; 8192];
                    while let Ok(read @ 1..) = stream.read(&mut chunk) {
                        request.extend_from_slice(&chunk[..read]);
                        let text = String::from_utf8_lossy(&request);
                        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                        let length =
                            head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
                        if body.len() >= length.unwrap_or(0) {
                            break;
                        }
                    }
                    let request = String::from_utf8_lossy(&request).into_owned();
                    let (head, body) = request.split_once("\r\n\r\n").unwrap_or((&request, ""));
                    let path = head.split(' ').nth(1).unwrap_or_default();
                    let (status, body) = answer(path, body);
                    let mut head =
                        format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
                    if (300..400).contains(&status) {
                        let _ = write!(head, "Location: {body}\r\n");
                    }
                    let reply = format!("{head}Connection: close\r\n\r\n{body}");
                    // Before the answer, so that whoever got one finds its request remembered.
                    remembered.lock().unwrap().push(request);
                    // Who hung up does not want the answer.
                    let _ = stream.write_all(reply.as_bytes());
                });
            }
        });
        Self { url, seen }
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now_nanos() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()
}
