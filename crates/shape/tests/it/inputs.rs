//! Deterministic answers in the shape real backends send them.

use std::collections::BTreeMap;

use portcullis_model::{Sample, Series, Span, SpanKind, SpanStatus, Timestamp, Trace};
use serde_json::{Value, json};

pub(crate) const START: i64 = 1_772_359_200;

/// A small generator (SplitMix64), so that inputs are the same on every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn hex(&mut self, digits: usize) -> String {
        format!("{:016x}{:016x}", self.next(), self.next())[..digits].to_owned()
    }

    pub(crate) fn suffix(&mut self) -> String {
        (0..5).map(|_| char::from(b"bcdfghjklmnpqrstvwxz2456789"[(self.next() % 27) as usize])).collect()
    }
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// 40 series of one metric, 8 labels each, most of them constant.
pub(crate) fn instant_vector() -> Vec<(BTreeMap<String, String>, f64)> {
    let mut dice = Dice(1);
    (0..40)
        .map(|index| {
            let pod = format!("checkout-7d9f8b6c54-{}", dice.suffix());
            let labels = labels(&[
                ("__name__", "http_server_requests_in_flight"),
                ("cluster", "prod-eu-central-1"),
                ("namespace", "shop"),
                ("job", "kubernetes-pods"),
                ("service", "checkout"),
                ("container", "server"),
                ("pod", &pod),
                ("instance", &format!("10.42.{}.{}:8080", index / 8, dice.next() % 250)),
            ]);
            (labels, (dice.unit() * 1e6).round() / 1e4)
        })
        .collect()
}

pub(crate) fn prometheus_vector(rows: &[(BTreeMap<String, String>, f64)]) -> Value {
    let result: Vec<Value> = rows
        .iter()
        .map(|(labels, value)| json!({"metric": labels, "value": [START as f64 + 0.781, value.to_string()]}))
        .collect();
    json!({"status": "success", "data": {"resultType": "vector", "result": result}})
}

/// One hour at 15 s for eight series of a latency quantile, with a peak in one of them.
pub(crate) fn range() -> Vec<Series> {
    let mut dice = Dice(2);
    (0..8)
        .map(|index| {
            let samples = (0..240)
                .map(|step| {
                    let peak = if index == 3 && step == 137 { 4.812_345 } else { 0.0 };
                    let value = 0.12 + 0.02 * f64::from(index) + 0.05 * dice.unit() + peak;
                    Sample { at: Timestamp::from_seconds(START + i64::from(step) * 15), value }
                })
                .collect();
            let labels = labels(&[
                ("cluster", "prod-eu-central-1"),
                ("namespace", "shop"),
                ("service", "checkout"),
                ("pod", &format!("checkout-7d9f8b6c54-{}", dice.suffix())),
                ("quantile", "0.95"),
            ]);
            Series { labels, samples }
        })
        .collect()
}

pub(crate) fn prometheus_matrix(series: &[Series]) -> Value {
    let one = |s: &Series| {
        let values: Vec<Value> =
            s.samples.iter().map(|p| json!([p.at.as_nanos() / 1_000_000_000, p.value.to_string()])).collect();
        json!({"metric": s.labels, "values": values})
    };
    json!({"status": "success", "data": {"resultType": "matrix", "result": series.iter().map(one).collect::<Vec<_>>()}})
}

const OPERATIONS: [(&str, &str, SpanKind); 12] = [
    ("frontend", "GET /checkout", SpanKind::Server),
    ("checkout", "POST /api/checkout", SpanKind::Server),
    ("cart", "GET /api/cart/{id}", SpanKind::Server),
    ("cart", "HGETALL", SpanKind::Client),
    ("catalog", "GetProduct", SpanKind::Server),
    ("catalog", "SELECT shop.products", SpanKind::Client),
    ("pricing", "POST /quote", SpanKind::Server),
    ("inventory", "ReserveItems", SpanKind::Server),
    ("inventory", "UPDATE shop.stock", SpanKind::Client),
    ("payment", "Charge", SpanKind::Server),
    ("payment", "POST /v1/charges", SpanKind::Client),
    ("shipping", "POST /rates", SpanKind::Server),
];

/// 150 spans over eight services: a request with an N+1 query, a fan-out, and one failed charge.
pub(crate) fn trace() -> Trace {
    let mut dice = Dice(3);
    let trace_id = dice.hex(32);
    let mut spans: Vec<Span> = Vec::new();
    let add =
        |spans: &mut Vec<Span>, dice: &mut Dice, parent: Option<usize>, operation: usize, start: i64, duration: u64| -> usize {
            let (service, name, kind) = OPERATIONS[operation];
            let attributes = labels(&[
                ("net.peer.name", &format!("{service}.shop.svc.cluster.local")),
                ("thread.id", &(dice.next() % 64).to_string()),
                ("http.request.method", "POST"),
                ("server.address", &format!("10.42.{}.{}", dice.next() % 8, dice.next() % 250)),
            ]);
            spans.push(Span {
                trace_id: trace_id.clone(),
                span_id: dice.hex(16),
                parent_span_id: parent.map(|p| spans[p].span_id.clone()).unwrap_or_default(),
                service: service.into(),
                name: name.into(),
                kind,
                start: Timestamp::from_nanos(START * 1_000_000_000 + start * 1_000 + 417),
                duration_nanos: duration * 1_000 + 311,
                status: SpanStatus::Unset,
                status_message: String::new(),
                attributes,
                events: Vec::new(),
            });
            spans.len() - 1
        };
    let root = add(&mut spans, &mut dice, None, 0, 0, 1_240_000);
    let checkout = add(&mut spans, &mut dice, Some(root), 1, 3_000, 1_230_000);
    let cart = add(&mut spans, &mut dice, Some(checkout), 2, 5_000, 40_000);
    add(&mut spans, &mut dice, Some(cart), 3, 7_000, 3_000);
    let mut at: i64 = 50_000;
    for _ in 0..40 {
        let spent = 3_000 + dice.next() % 6_000;
        let product = add(&mut spans, &mut dice, Some(checkout), 4, at, spent);
        add(&mut spans, &mut dice, Some(product), 5, at + 500, spent - 900);
        at += spent as i64 + 200;
    }
    for _ in 0..14 {
        let spent = 8_000 + dice.next() % 9_000;
        let reserve = add(&mut spans, &mut dice, Some(checkout), 7, at, spent);
        add(&mut spans, &mut dice, Some(reserve), 8, at + 300, spent / 2);
        add(&mut spans, &mut dice, Some(reserve), 6, at + 300 + spent as i64 / 2, spent / 3);
        at += spent as i64 + 100;
    }
    let charge = add(&mut spans, &mut dice, Some(checkout), 9, at, 400_000);
    let call = add(&mut spans, &mut dice, Some(charge), 10, at + 2_000, 390_000);
    for failed in [charge, call] {
        spans[failed].status = SpanStatus::Error;
        spans[failed].status_message = "upstream timed out after 390ms".into();
    }
    while spans.len() < 150 {
        add(&mut spans, &mut dice, Some(checkout), 11, at + 1_000, 9_000);
    }
    Trace { trace_id, spans, truncated: false }
}

pub(crate) const SERVICES: [&str; 8] = ["edge", "orders", "stock", "ledger", "search", "mail", "users", "prices"];

/// 120 spans in which no parent has two children of one operation: each request goes to another route, as in a batch job.
pub(crate) fn varied_trace() -> Trace {
    const ROUTES: [&str; 15] = [
        "GET /items",
        "POST /orders",
        "SELECT stock",
        "Reserve",
        "PUT /cart",
        "Validate",
        "GET /prices",
        "Publish",
        "LookupUser",
        "UPDATE ledger",
        "GET /offers",
        "Render",
        "SendMail",
        "INSERT audit",
        "GET /search",
    ];
    let mut dice = Dice(5);
    let trace_id = dice.hex(32);
    let mut spans: Vec<Span> = Vec::new();
    for index in 0..120usize {
        let parent = (index > 0).then(|| (index - 1) / 8);
        let service = SERVICES[(index * 5 + index / 8) % 8];
        let (start, length) = match parent.map(|p| &spans[p]) {
            None => (START * 1_000_000_000, 2_400_000_000),
            Some(above) => (above.start.as_nanos() + 400_000, above.duration_nanos / 9 + dice.next() % 900_000),
        };
        let attributes = labels(&[
            ("net.peer.name", &format!("{service}.shop.svc.cluster.local")),
            ("thread.id", &(dice.next() % 64).to_string()),
            ("http.request.method", "POST"),
            ("server.address", &format!("10.42.{}.{}", dice.next() % 8, dice.next() % 250)),
        ]);
        spans.push(Span {
            trace_id: trace_id.clone(),
            span_id: dice.hex(16),
            parent_span_id: parent.map(|p| spans[p].span_id.clone()).unwrap_or_default(),
            service: service.into(),
            name: format!("{}{}", ROUTES[index % 15], if index % 15 < 5 { "/{id}" } else { "" }),
            kind: if index % 3 == 0 { SpanKind::Client } else { SpanKind::Server },
            start: Timestamp::from_nanos(start + (index as i64 % 8) * (length as i64 + 90_000)),
            duration_nanos: length,
            status: SpanStatus::Unset,
            status_message: String::new(),
            attributes,
            events: Vec::new(),
        });
    }
    let failed = (0..120).rev().find(|index| &*spans[*index].service == "ledger").unwrap_or(0);
    spans[failed].status = SpanStatus::Error;
    spans[failed].status_message = "balance changed meanwhile".into();
    Trace { trace_id, spans, truncated: false }
}

/// The trace as OTLP-JSON (`TracesData`), one resource per service.
pub(crate) fn otlp(trace: &Trace) -> Value {
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let mut services: Vec<&str> = trace.spans.iter().map(|s| &*s.service).collect();
    services.sort_unstable();
    services.dedup();
    let resources: Vec<Value> = services
        .iter()
        .map(|service| {
            let spans: Vec<Value> = trace
                .spans
                .iter()
                .filter(|s| &*s.service == *service)
                .map(|s| {
                    let start = s.start.as_nanos();
                    json!({
                        "traceId": s.trace_id,
                        "spanId": s.span_id,
                        "parentSpanId": s.parent_span_id,
                        "name": s.name,
                        "kind": if s.kind == SpanKind::Server { 2 } else { 3 },
                        "startTimeUnixNano": start.to_string(),
                        "endTimeUnixNano": (start as u64 + s.duration_nanos).to_string(),
                        "attributes": s.attributes.iter().map(|(k, v)| text(k, v)).collect::<Vec<_>>(),
                        "status": if s.status == SpanStatus::Error { json!({"code": 2, "message": s.status_message}) } else { json!({}) },
                    })
                })
                .collect();
            json!({
                "resource": {"attributes": [text("service.name", service), text("k8s.namespace.name", "shop")]},
                "scopeSpans": [{"scope": {"name": "io.opentelemetry.sdk", "version": "2.9.0"}, "spans": spans}],
            })
        })
        .collect();
    json!({"resourceSpans": resources})
}
