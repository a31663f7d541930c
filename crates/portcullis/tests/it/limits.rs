//! How much, over the real binary: each limit of the admission refuses by its own rule, says when to come back, and is in the
//! audit log; what is within the limits goes on meanwhile.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::profiles::stopped;
use crate::server::{Home, Reply, Server, intact};
use crate::visitor::{Backend, Visitor};

/// How long the slow operation of the backend takes.
const SLOW: Duration = Duration::from_mins(1);

/// An API that reads, writes, and takes its time.
fn backend() -> Backend {
    Backend::start(|path, _| {
        if path == "/slow" {
            std::thread::sleep(SLOW);
        }
        (200, "[]".to_owned())
    })
}

/// A home with the API, whose writes are enabled, and these limits.
pub(crate) fn home(backend: &Backend, limits: &str) -> Home {
    let home = Home::new("");
    let spec = home.directory.path().join("shop.json");
    let body = json!({"required": true, "content": {"application/json": {"schema": {"type": "object", "properties": {"item": {"type": "string"}}}}}});
    let description = json!({"openapi": "3.0.3", "info": {"title": "Shop", "version": "1"}, "paths": {
        "/orders": {"post": {"operationId": "createOrder", "summary": "Places an order", "requestBody": body}},
        "/slow": {"get": {"operationId": "wait", "summary": "Takes its time"}}}});
    std::fs::write(&spec, description.to_string()).unwrap();
    let mut text = std::fs::read_to_string(&home.config).unwrap();
    write!(
        text,
        "tools: {{expose: all}}\nwrite: {{enable: ['api:shop']}}\nlimits: {{{limits}}}\n\
         apis: [{{name: shop, spec: {{file: '{}'}}, url: '{}', allow_addresses: [loopback], allow: [{{methods: ['*']}}]}}]\n",
        spec.display(),
        backend.url
    )
    .unwrap();
    std::fs::write(&home.config, text).unwrap();
    home
}

fn code(reply: &Reply) -> String {
    let body = reply.json();
    let code = body.pointer("/error/data/code").or_else(|| body.pointer("/result/_meta/portcullis~1code"));
    code.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Calls until a call is refused for how many there were; at most so often.
fn until_limited(visitor: &Visitor, tool: &str, arguments: &Value, most: usize) -> (usize, Reply) {
    for before in 0..most {
        let reply = visitor.call(tool, arguments);
        if code(&reply) == "rate_limited" {
            return (before, reply);
        }
        assert!(reply.json()["result"].is_object(), "{tool}: {}", reply.body);
    }
    panic!("{most} calls of {tool} were all answered");
}

/// The refusal says when to come back, in both places, and is recorded under its rule with who it was.
fn turned_away(server: &Server, visitor: &Visitor, reply: &Reply, tool: &str, rule: &str) {
    let seconds: u64 = reply.header("retry-after").unwrap_or_else(|| panic!("{rule}: {}", reply.head)).parse().unwrap();
    assert!(seconds >= 1, "{}", reply.head);
    let said = reply.json().to_string();
    assert!(said.contains(&format!("\"retry_after_seconds\":{seconds}")), "{rule}: {said}");
    let principal = format!("key:{}", visitor.key.split('_').nth(1).unwrap());
    let record = server.home.audited(|r| r["rule"] == rule && r["principal"] == principal.as_str());
    assert_eq!(
        (&record["decision"], &record["code"], &record["tool"]),
        (&json!("deny"), &json!("rate_limited"), &json!(tool)),
        "{record}"
    );
}

/// The numbers of a header of draft-ietf-httpapi-ratelimit-headers.
fn numbers(reply: &Reply, header: &str) -> Vec<(String, u64)> {
    let value = reply.header(header).unwrap_or_else(|| panic!("no {header}: {}", reply.head));
    let (name, rest) = value.split_once(';').unwrap();
    assert_eq!(name, "\"principal\"", "{value}");
    rest.split(';').map(|pair| pair.split_once('=').unwrap()).map(|(key, n)| (key.to_owned(), n.parse().unwrap())).collect()
}

#[test]
fn rates_of_tools_and_writes_a_full_house_and_the_deadline_refuse_by_their_own_rules() {
    let backend = backend();
    let home = home(
        &backend,
        "tool: {per_second: 1, burst: 6}, write: {per_second: 1, burst: 2}, calls_per_second: 100, burst: 200, \
         concurrent: 2, concurrent_per_principal: 1, queue: 1, queue_time: 1s, deadline: 6s",
    );
    let keys: Vec<String> = (0..4).map(|_| home.key(&["--role", "admin"])).collect();
    let scraper = home.key(&["--scope", "metrics"]);
    let server = Server::start_in(home);
    let [one, two, three, four] = [0, 1, 2, 3].map(|at| Visitor::new(&server, &keys[at]));

    // What is left of the rate is told with every answer.
    let first = one.call("list_sources", &json!({}));
    assert_eq!(numbers(&first, "ratelimit-policy"), [("q".to_owned(), 200), ("w".to_owned(), 2)]);
    let second = one.call("list_sources", &json!({}));
    let left = |reply: &Reply| numbers(reply, "ratelimit").into_iter().find(|(name, _)| name == "r").unwrap().1;
    assert!(left(&first) < 200 && left(&second) <= left(&first), "{} {}", first.head, second.head);

    let (answered, refused) = until_limited(&one, "list_sources", &json!({}), 30);
    assert!(answered >= 3, "{answered} calls after two");
    turned_away(&server, &one, &refused, "list_sources", "tool-rate");
    assert!(one.call("list_services", &json!({})).json()["result"].is_object(), "another tool has a rate of its own");
    assert!(two.call("list_sources", &json!({})).json()["result"].is_object(), "and so has somebody else");

    let (answered, refused) = until_limited(&one, "shop_create_order", &json!({"item": "x"}), 10);
    assert!((2..=3).contains(&answered), "{answered} writes");
    turned_away(&server, &one, &refused, "shop_create_order", "write-rate");
    let placed = backend.seen().iter().filter(|request| request.starts_with("POST /orders")).count();
    assert_eq!(placed, answered, "a refused write is not sent");

    // Two calls take both places of the house and end by its deadline; a third waits in vain, and a fourth may not even wait.
    let began = Instant::now();
    let slow = |visitor: &Visitor| {
        let visitor = visitor.clone();
        std::thread::spawn(move || visitor.call("shop_wait", &json!({})))
    };
    let running = [slow(&one), slow(&two)];
    crate::upstreams::until("both run", || {
        let waiting = backend.seen().iter().filter(|request| request.starts_with("GET /slow")).count();
        if waiting == 2 || began.elapsed() > Duration::from_secs(2) { Ok(()) } else { Err(format!("{waiting}")) }
    });
    let waiting = {
        let three = three.clone();
        std::thread::spawn(move || three.call("list_sources", &json!({})))
    };
    crate::upstreams::until("one waits", || {
        let metrics = crate::admin::get(&server, &scraper, "/metrics").body;
        if metrics.lines().any(|line| line == "portcullis_calls_queued 1.0") { Ok(()) } else { Err(metrics) }
    });
    let turned = four.call("list_sources", &json!({}));
    turned_away(&server, &four, &turned, "list_sources", "queue");
    let waited = waiting.join().unwrap();
    turned_away(&server, &three, &waited, "list_sources", "concurrency");
    for call in running {
        let reply = call.join().unwrap();
        assert_eq!(code(&reply), "deadline_exceeded", "{}", reply.body);
    }
    assert!(began.elapsed() < SLOW / 2, "the deadline of the house ended nothing: {:?}", began.elapsed());
    let record = server.home.audited(|r| r["tool"] == "shop_wait" && r["code"] == "deadline_exceeded");
    assert_eq!(record["kind"], "failed", "{record}");
    assert!(three.call("list_sources", &json!({})).json()["result"].is_object(), "there is room again");
    assert!(intact(&server.home));
}

#[test]
fn spent_days_of_a_caller_and_of_a_tenant_and_the_rate_of_everybody_refuse_by_their_own_rules() {
    let home = Home::new("limits: {tokens_per_day: 600, tenant: {tokens_per_day: 1500}}\n");
    let keys: Vec<String> = (0..6).map(|_| home.key(&["--role", "reader", "--tenant", "acme"])).collect();
    let neighbour = home.key(&["--role", "reader", "--tenant", "beta"]);
    let server = Server::start_in(home);
    let visitors: Vec<Visitor> = keys.iter().map(|key| Visitor::new(&server, key)).collect();
    let (answered, refused) = until_limited(&visitors[0], "list_sources", &json!({}), 60);
    assert!(answered > 0, "the first call is answered");
    turned_away(&server, &visitors[0], &refused, "list_sources", "token-budget");
    assert!(refused.body.contains("600 tokens this credential may take per day"), "{}", refused.body);
    // The others of its tenant go on, until the tenant has had its own.
    let of_tenant = visitors[1..].iter().find_map(|visitor| {
        let (answered, refused) = until_limited(visitor, "list_sources", &json!({}), 60);
        refused.body.contains("your tenant").then_some((visitor, answered, refused))
    });
    let (visitor, _, refused) = of_tenant.expect("five callers more, and the tenant's account is not used up");
    turned_away(&server, visitor, &refused, "list_sources", "tenant-token-budget");
    let beside = Visitor::new(&server, &neighbour).call("list_sources", &json!({}));
    assert!(beside.json()["result"].is_object(), "another tenant has an account of its own: {}", beside.body);
    // A restart forgets nothing.
    let server = Server::start_in(stopped(server));
    let again = visitors[0].call("list_sources", &json!({}));
    assert_eq!(code(&again), "rate_limited", "{}", again.body);
    assert!(intact(&server.home));
    drop(server);

    let home = Home::new("limits: {global: {per_second: 1, burst: 4}}\n");
    let keys: Vec<String> = (0..12).map(|_| home.key(&["--role", "reader"])).collect();
    let server = Server::start_in(home);
    let mut answered = 0;
    let turned = keys.iter().find_map(|key| {
        let visitor = Visitor::new(&server, key);
        let reply = visitor.call("list_sources", &json!({}));
        answered += usize::from(reply.json()["result"].is_object());
        (code(&reply) == "rate_limited").then_some((visitor, reply))
    });
    let (visitor, reply) = turned.expect("twelve calls of twelve callers are all answered");
    assert!(answered >= 3, "{answered}");
    turned_away(&server, &visitor, &reply, "list_sources", "global-rate");
}

#[test]
fn calls_at_once_do_not_each_take_the_rest_of_a_day_that_is_nearly_over() {
    let orders: Vec<Value> = (0..100).map(|id| json!({"id": id, "note": "the order waits for its parcel"})).collect();
    let body = json!(orders).to_string();
    // Slow enough that all of them would run at once.
    let backend = Backend::start(move |_, _| {
        std::thread::sleep(Duration::from_millis(300));
        (200, body.clone())
    });
    let home = home(&backend, "tokens_per_day: 1500");
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let visitor = Visitor::new(&server, &key);
    let call = || {
        let visitor = visitor.clone();
        std::thread::spawn(move || visitor.call("shop_wait", &json!({})))
    };
    let calls: Vec<_> = (0..20).map(|_| call()).collect();
    let replies: Vec<Reply> = calls.into_iter().map(|call| call.join().unwrap()).collect();
    let (refused, answered): (Vec<&Reply>, Vec<&Reply>) = replies.iter().partition(|reply| code(reply) == "rate_limited");
    for reply in &answered {
        let reply = reply.json();
        assert!(reply["result"].is_object() && reply["result"]["isError"] != true, "{reply}");
    }
    for reply in &refused {
        assert!(reply.header("retry-after").is_some(), "{}", reply.head);
        assert!(reply.body.contains("may take per day"), "{}", reply.body);
    }
    assert_eq!(backend.seen().len(), answered.len(), "a call that is refused is not made");
    let records = server.home.audit();
    let of = |decision: &'static str| records.iter().filter(move |r| r["tool"] == "shop_wait" && r["decision"] == decision);
    let tokens: Vec<u64> = of("allow").map(|record| record["tokens_out"].as_u64().unwrap()).collect();
    let largest = *tokens.iter().max().expect("the first one is answered");
    assert_eq!(tokens.len(), answered.len(), "{records:#?}");
    assert!(tokens.iter().sum::<u64>() < 1_500 + largest, "beyond the day by more than one answer: {tokens:?}");
    assert!(largest * 20 > 2 * 1_500, "all of them together would have been far beyond it: {largest}");
    assert_eq!(of("deny").filter(|record| record["rule"] == "token-budget").count(), refused.len(), "{records:#?}");
    assert!(intact(&server.home));
}

#[test]
fn a_token_account_that_cannot_be_read_lets_nobody_in_by_it() {
    use portcullis_state::Store as _;
    let home = Home::new("");
    let (key, other) = (home.key(&[]), home.key(&[]));
    let principal = format!("key:{}", key.split('_').nth(1).unwrap());
    let holder = blake3::hash(principal.as_bytes()).to_hex();
    let today = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 86_400;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let clock = Arc::new(portcullis_model::SystemClock);
        let store = portcullis_state::SqliteStore::open(&home.data().join("state.sqlite"), clock).await.unwrap();
        // The test may run over midnight.
        for day in [today, today + 1] {
            store.put("gateway.tokens", &format!("{day}/{holder}"), b"many", None).await.unwrap();
        }
        store.close().await;
    });
    let server = Server::start_in(home);
    let reply = Visitor::new(&server, &key).call("list_sources", &json!({}));
    assert_eq!(code(&reply), "unavailable", "{}", reply.body);
    let record = server.home.audited(|r| r["tool"] == "list_sources" && r["rule"] == "token-budget");
    assert_eq!((&record["principal"], &record["decision"]), (&json!(principal), &json!("deny")), "{record}");
    assert!(record["note"].as_str().is_some_and(|note| note.contains("cannot be read")), "{record}");
    let answered = Visitor::new(&server, &other).call("list_sources", &json!({}));
    assert!(answered.json()["result"]["structuredContent"].is_object(), "{}", answered.body);
    assert!(intact(&server.home));
}

#[test]
fn a_backend_that_is_down_is_asked_again_only_for_what_changes_nothing_and_then_left_alone() {
    let up = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&up);
    let backend = Backend::start(move |_, _| (if switch.load(Ordering::SeqCst) { 200 } else { 504 }, "[]".to_owned()));
    let home = home(&backend, "");
    let key = home.key(&["--role", "admin"]);
    let server = Server::start_in(home);
    let visitor = Visitor::new(&server, &key);
    let asked = |request: &str| backend.seen().iter().filter(|seen| seen.starts_with(request)).count();

    assert_eq!(visitor.call("shop_create_order", &json!({"item": "x"})).json()["result"]["isError"], true);
    assert_eq!(asked("POST /orders"), 1, "what changes something is sent once");
    assert_eq!(visitor.call("shop_wait", &json!({})).json()["result"]["isError"], true);
    assert_eq!(asked("GET /slow"), 3, "what reads is tried three times");

    // The fifth failure in a row opens the circuit: whoever asks is told when to come back, and nothing is sent.
    let open = |reply: &Reply| reply.body.contains("is being left alone");
    let told = visitor.call("shop_wait", &json!({}));
    assert!(open(&told), "{}", told.body);
    assert_eq!(asked("GET /slow"), 4, "it was not left alone before");
    up.store(true, Ordering::SeqCst);
    let told = visitor.call("shop_wait", &json!({}));
    let seconds: u64 = told.header("retry-after").unwrap_or_else(|| panic!("{}", told.head)).parse().unwrap();
    assert!(open(&told) && (1..=10).contains(&seconds) && asked("GET /slow") == 4, "{} {}", told.head, told.body);
    let record = server.home.audited(|r| r["tool"] == "shop_wait");
    assert_eq!((&record["kind"], &record["code"]), (&json!("failed"), &json!("backend_failed")), "{record}");

    let answered = crate::upstreams::until("it is asked again", || {
        let reply = visitor.call("shop_wait", &json!({}));
        if open(&reply) { Err(reply.body) } else { Ok(reply) }
    });
    assert_eq!((answered.json()["result"]["isError"] == true, asked("GET /slow")), (false, 5), "{}", answered.body);
    assert!(intact(&server.home));
}
