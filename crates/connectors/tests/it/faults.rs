//! Backends that are down, slow, confused, endless or strict; and what goes out on the wire for whom.

use std::time::{Duration, Instant};

use portcullis_config::Span;
use portcullis_connectors::PrometheusSource;
use portcullis_egress::{AuthSettings, BasicSettings};
use portcullis_model::{FaultCode, NameSet, Secret, Signal, SourceName, TenantId, Timestamp};
use portcullis_ports::{
    AlertRequest, LabelMatch, LabelValuesRequest, MatchOperator, MetricCatalogueRequest, SemanticMetric, Source, Total,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::support::{
    config, everything, json, last, named, peak_growth, permit, raw, read_request, response, semantic, serve, source,
};

fn seconds(seconds: u64) -> Span {
    Span(Duration::from_secs(seconds))
}

const HOUR: Duration = Duration::from_hours(1);

/// A backend with one service `cart` under `job`, and whatever `query_range` answers.
fn cart(path: &str, range: &str) -> Vec<u8> {
    match path {
        "/api/v1/query_range" => json(range),
        "/api/v1/label/job/values" => json(r#"{"status":"success","data":["cart"]}"#),
        "/api/v1/label/__name__/values" => json(r#"{"status":"success","data":["up"]}"#),
        "/api/v1/metadata" => json(r#"{"status":"success","data":{"up":[{"type":"gauge","unit":"","help":""}]}}"#),
        path if path.starts_with("/api/v1/label/") => json(r#"{"status":"success","data":[]}"#),
        "/api/v1/alerts" => json(r#"{"status":"success","data":{"alerts":[]}}"#),
        _ => response("404 Not Found", "", "404 page not found"),
    }
}

const EMPTY: &str = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;

#[tokio::test]
async fn a_source_that_is_down_fails_everywhere_and_is_never_empty() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let mut settings = config(&url);
    settings.connect_timeout = seconds(1);
    let source = PrometheusSource::new(SourceName::new("prom").unwrap(), settings).unwrap();
    let permit = permit(&source, everything());
    let window = last(HOUR);
    let catalogue = MetricCatalogueRequest { window, service: None, name_contains: None, limit: 10, with_labels: true };
    let faults = [
        source.services(&permit, window).await.unwrap_err(),
        source.metrics(&permit, &named("up", window)).await.unwrap_err(),
        source.metrics(&permit, &raw("up", window)).await.unwrap_err(),
        source.metric_catalogue(&permit, &catalogue).await.unwrap_err(),
        source.alerts(&permit, &AlertRequest::default()).await.unwrap_err(),
    ];
    for fault in faults {
        assert_eq!(fault.code(), FaultCode::BackendFailed);
        assert!(fault.message().contains("'prom'") && !fault.message().contains("127.0.0.1"), "{fault}");
    }
    let health = source.health(&permit).await;
    assert!(!health.up && health.message.is_some());
}

#[tokio::test]
async fn a_slow_source_ends_at_its_timeout_or_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let silent = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    let mut settings = config(&url);
    settings.timeout = seconds(1);
    let source = PrometheusSource::new(SourceName::new("prom").unwrap(), settings).unwrap();
    let started = Instant::now();
    let fault = source.metrics(&permit(&source, everything()), &raw("up", last(HOUR))).await.unwrap_err();
    assert!(matches!(fault.code(), FaultCode::BackendFailed | FaultCode::DeadlineExceeded), "{fault:?}");
    assert!(started.elapsed() < Duration::from_secs(5));

    let soon = permit(&source, everything()).with_deadline_at_most(Instant::now() + Duration::from_millis(200));
    let started = Instant::now();
    let health = source.health(&soon).await;
    assert!(!health.up && started.elapsed() < Duration::from_secs(1));
    silent.abort();
}

#[tokio::test]
async fn garbage_is_a_failure_with_a_clear_sentence() {
    for body in [
        "",
        "not json",
        "<html><body>Login</body></html>",
        "[]",
        "null",
        r#"{"status":"success"}"#,
        r#"{"status":"success","data":null}"#,
        r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,2]]}]}}"#,
        r#"{"status":"success","data":{"resultType":"matrix","result":{}}}"#,
        "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[{\"metric\":{\"a\":\"\u{0}",
    ] {
        let server = serve(move |request| cart(&request.path, body)).await;
        let source = source(&server.url);
        let fault = source.metrics(&permit(&source, everything()), &raw("up", last(HOUR))).await.unwrap_err();
        assert_eq!(fault.code(), FaultCode::BackendFailed, "{body}: {fault:?}");
        assert!(fault.message().contains("not an answer of the Prometheus API"), "{body}: {fault}");
    }
    let deep = format!("{{\"status\":\"success\",\"data\":{}", "[".repeat(100_000));
    let server = serve(move |request| cart(&request.path, &deep)).await;
    let source = source(&server.url);
    assert!(source.metrics(&permit(&source, everything()), &raw("up", last(HOUR))).await.is_err());
}

#[tokio::test]
async fn a_gigabyte_of_answer_is_refused_with_little_memory() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let endless = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = read_request(&mut stream).await;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            let chunk = format!("10000\r\n{}\r\n", "[1795187170,\"1\"],".repeat(4_096).get(..65_536).unwrap());
            for _ in 0..16_384 {
                if stream.write_all(chunk.as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    });
    let source = source(&url);
    let permit = permit(&source, everything());
    let question = raw("up", last(HOUR));
    let (outcome, grown) = peak_growth(source.metrics(&permit, &question)).await;
    let fault = outcome.unwrap_err();
    assert_eq!(fault.code(), FaultCode::TooLarge, "{fault:?}");
    assert!(fault.hint().is_some());
    assert!(grown < 64 << 20, "resident memory grew by {grown} bytes");
    println!("1 GiB body: refused at 32 MiB, resident memory grew by at most {} KiB", grown >> 10);
    endless.abort();
}

#[tokio::test]
async fn an_answer_cut_half_way_is_a_failure() {
    let server = serve(|request| {
        let mut whole = cart(&request.path, EMPTY);
        if request.path.ends_with("query_range") {
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 500\r\nconnection: close\r\n\r\n{\"status\":\"succ";
            whole = head.as_bytes().to_vec();
        }
        whole
    })
    .await;
    let mut settings = config(&server.url);
    settings.timeout = seconds(2);
    let source = PrometheusSource::new(SourceName::new("prom").unwrap(), settings).unwrap();
    let fault = source.metrics(&permit(&source, everything()), &raw("up", last(HOUR))).await.unwrap_err();
    assert!(matches!(fault.code(), FaultCode::BackendFailed | FaultCode::DeadlineExceeded), "{fault:?}");
}

#[tokio::test]
async fn refusals_are_told_apart() {
    for (status, headers, code, words) in [
        ("401 Unauthorized", "", FaultCode::BackendFailed, "credential"),
        ("403 Forbidden", "", FaultCode::BackendFailed, "credential"),
        ("429 Too Many Requests", "retry-after: 7\r\n", FaultCode::RateLimited, "too many requests"),
        ("500 Internal Server Error", "", FaultCode::BackendFailed, "status 500"),
    ] {
        let server = serve(move |_| response(status, headers, "s3cret detail of the backend")).await;
        let source = source(&server.url);
        let fault = source.metrics(&permit(&source, everything()), &raw("up", last(HOUR))).await.unwrap_err();
        assert_eq!(fault.code(), code, "{fault:?}");
        assert!(fault.message().contains(words) && !fault.message().contains("s3cret"), "{fault}");
        assert_eq!(fault.retry_after_seconds().is_some(), !headers.is_empty());
    }
}

#[tokio::test]
async fn other_backends_refuse_in_their_own_words() {
    for (status, error, code) in [
        ("422 Unprocessable Entity", "cannot select more than -search.maxSamplesPerQuery=1000 samples", FaultCode::TooLarge),
        ("422 Unprocessable Entity", "unparsed data left", FaultCode::InvalidArgument),
        (
            "422 Unprocessable Entity",
            "the query exceeded the maximum number of chunks (err-mimir-max-chunks-per-query)",
            FaultCode::TooLarge,
        ),
        ("400 Bad Request", "exceeded maximum resolution of 11,000 points per timeseries", FaultCode::TooLarge),
    ] {
        let body = format!(r#"{{"status":"error","errorType":"422","error":"{error}"}}"#);
        let server = serve(move |_| response(status, "content-type: application/json\r\n", &body)).await;
        let source = source(&server.url);
        let fault = source.metrics(&permit(&source, everything()), &raw("up", last(HOUR))).await.unwrap_err();
        assert_eq!(fault.code(), code, "{error}: {fault:?}");
    }
}

#[tokio::test]
async fn warnings_and_partial_answers_are_passed_on() {
    let thanos = r#"{"status":"success","warnings":["fetch series for store-1: rpc error\u001b[31m"],"infos":["PromQL info: metric might not be a counter"],"data":{"resultType":"matrix","result":[]}}"#;
    let victoria = r#"{"status":"success","isPartial":true,"data":{"resultType":"matrix","result":[]}}"#;
    for (body, words) in [
        (thanos, "fetch series for store-1"),
        (thanos, "might not be a counter"),
        (thanos, "is partial"),
        (victoria, "is partial"),
    ] {
        let server = serve(move |request| cart(&request.path, body)).await;
        let source = source(&server.url);
        let answer = source.metrics(&permit(&source, everything()), &raw("up", last(HOUR))).await.unwrap();
        assert!(answer.warnings.iter().any(|w| w.contains(words)), "{:?}", answer.warnings);
        assert!(!answer.warnings.iter().any(|w| w.contains('\u{1b}')));
        assert_eq!((answer.series.len(), answer.total_series), (0, Total::Exact(0)), "empty, not zero");
    }
}

#[tokio::test]
async fn credentials_and_the_tenant_header_go_out_per_source() {
    let server = serve(|request| cart(&request.path, EMPTY)).await;
    for (auth, expected) in [
        (AuthSettings::Bearer(Secret::new("token-a").into()), "authorization: bearer token-a"),
        (AuthSettings::Basic(BasicSettings { user: "u".into(), password: Secret::new("p").into() }), "authorization: basic dtpw"),
    ] {
        let mut settings = config(&format!("{}/prometheus", server.url));
        settings.auth = Some(auth);
        settings.org_id = Some("team-a".into());
        let source = PrometheusSource::new(SourceName::new("mimir").unwrap(), settings).unwrap();
        let _ = source.metrics(&permit(&source, everything()), &raw("up", last(HOUR))).await;
        let arrived = server.arrived.lock().unwrap().last().unwrap().clone();
        assert_eq!(arrived.path, "/prometheus/api/v1/query_range");
        assert!(arrived.head.contains(expected) && arrived.head.contains("x-scope-orgid: team-a"), "{}", arrived.head);
    }
}

/// Every selector that reaches the backend names the service, whatever is asked.
#[tokio::test]
async fn every_request_of_a_confined_caller_carries_its_scope() {
    let server = serve(|request| cart(&request.path, EMPTY)).await;
    let source = source(&server.url);
    let mut scope = everything();
    scope.services = NameSet::only(["cart"]);
    let permit = permit(&source, scope);
    let window = last(HOUR);
    let mut sneaky = named("up", window);
    sneaky.matchers =
        vec![LabelMatch { name: "job".into(), operator: MatchOperator::NotEqual, value: "cart\"} or up{a=\"".into() }];
    for request in [
        named("up", window),
        sneaky,
        raw("sum(up) + on() count({job=\"payment\"})", window),
        semantic(SemanticMetric::Cpu, None, window),
        semantic(SemanticMetric::ErrorRate, Some("cart"), window),
        semantic(SemanticMetric::Saturation, None, window),
    ] {
        source.metrics(&permit, &request).await.unwrap();
    }
    source.services(&permit, window).await.unwrap();
    let catalogue = MetricCatalogueRequest { window, service: None, name_contains: None, limit: 10, with_labels: false };
    source.metric_catalogue(&permit, &catalogue).await.unwrap();
    let values = LabelValuesRequest {
        window,
        signal: Signal::Metrics,
        label: "instance".into(),
        metric: None,
        service: None,
        prefix: String::new(),
        limit: 10,
    };
    source.label_values(&permit, &values).await.unwrap();

    let arrived = server.arrived.lock().unwrap().clone();
    let mut checked = 0;
    for request in &arrived {
        for text in request.all("query").into_iter().chain(request.all("match[]")) {
            let selectors = portcullis_query::promql_info(text).unwrap().selectors;
            let named = text.matches("=\"cart\"").count();
            // Listing services asks for the label itself; its values are filtered before they are shown.
            let lists = request.path.starts_with("/api/v1/label/") && text.contains("!=\"\"");
            assert!(lists || named >= selectors, "{} {text}", request.path);
            checked += selectors;
        }
        if request.path == "/api/v1/label/instance/values" || request.path == "/api/v1/label/__name__/values" {
            assert!(!request.all("match[]").is_empty(), "{request:?}");
        }
    }
    assert!(checked > 15, "{checked}");

    let outside = semantic(SemanticMetric::Cpu, Some("payment"), window);
    assert_eq!(source.metrics(&permit, &outside).await.unwrap_err().code(), FaultCode::Forbidden);
}

#[tokio::test]
async fn look_back_cuts_the_window_and_what_a_rate_reads() {
    let server = serve(|request| cart(&request.path, EMPTY)).await;
    let source = source(&server.url);
    let mut scope = everything();
    scope.look_back = Some(HOUR);
    let permit = permit(&source, scope);
    let window = last(HOUR * 24);
    let answer = source.metrics(&permit, &raw("rate(up[10m])", window)).await.unwrap();
    assert!(answer.warnings.iter().any(|w| w.contains("may look back 1h only")), "{:?}", answer.warnings);
    let arrived = server.arrived.lock().unwrap().last().unwrap().clone();
    let start: f64 = arrived.all("start")[0].parse().unwrap();
    let earliest = window.end.as_seconds_f64() - 3_600.0;
    assert!(start - 600.0 >= earliest - 1.0, "a rate over ten minutes begins ten minutes later: {start} {earliest}");
    // What a rate takes of the window is said with the very time that was asked for, and not where nothing is taken.
    let begins = format!("the first value is of {}: each reads the 10m before it", Timestamp::from_seconds(start as i64));
    assert!(answer.warnings.iter().any(|w| w.starts_with(&begins)), "{begins}: {:?}", answer.warnings);
    let near = source.metrics(&permit, &raw("rate(up[10m])", last(HOUR / 2))).await.unwrap();
    assert!(!near.warnings.iter().any(|w| w.contains("look back")), "{:?}", near.warnings);
    let fault = source.metrics(&permit, &raw("up offset 1d", last(HOUR / 2))).await.unwrap_err();
    assert!(matches!(fault.code(), FaultCode::Forbidden | FaultCode::InvalidArgument), "{fault:?}");
    let old = window.previous();
    assert_eq!(source.metrics(&permit, &raw("up", old)).await.unwrap_err().code(), FaultCode::Forbidden);
}

#[tokio::test]
async fn other_tenants_and_other_sources_are_not_served() {
    let server = serve(|request| cart(&request.path, EMPTY)).await;
    let source = source(&server.url);
    let mut foreign = everything();
    foreign.tenant = TenantId::new("other").unwrap();
    let mut elsewhere = everything();
    elsewhere.sources = NameSet::only(["another"]);
    let mut nothing = everything();
    nothing.services = NameSet::only(Vec::<String>::new());
    for scope in [foreign, elsewhere, nothing] {
        let permit = permit(&source, scope);
        let fault = source.metrics(&permit, &raw("up", last(HOUR))).await.unwrap_err();
        assert_eq!(fault.code(), FaultCode::Forbidden, "{fault:?}");
    }
    assert!(server.arrived.lock().unwrap().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn raw_queries_that_cannot_be_asked_are_refused_before_they_are_sent() {
    let server = serve(|request| cart(&request.path, EMPTY)).await;
    let source = source(&server.url);
    let permit = permit(&source, everything());
    for query in ["sum(rate(up[5m])", "up[5m]", "\"text\"", ""] {
        let fault = source.metrics(&permit, &raw(query, last(HOUR))).await.unwrap_err();
        assert_eq!(fault.code(), FaultCode::InvalidArgument, "{query}");
    }
    assert!(server.arrived.lock().unwrap().is_empty());
}

#[tokio::test]
async fn labels_that_are_secrets_by_name_are_refused_before_anything_is_sent() {
    let server = serve(|request| cart(&request.path, EMPTY)).await;
    let source = source(&server.url);
    let permit = permit(&source, everything());
    let window = last(HOUR);
    let condition = |operator, value: &str| {
        let mut request = named("up", window);
        request.matchers = vec![LabelMatch { name: "api_key".into(), operator, value: value.into() }];
        request
    };
    let mut grouped = named("up", window);
    grouped.group_by = vec!["job".into(), "db.password".into()];
    for request in [
        raw("up{api_key=\"guess\"}", window),
        raw("count by (api_key) (up)", window),
        raw("label_replace(up, \"x\", \"$1\", \"api_key\", \"(.).*\")", window),
        condition(MatchOperator::Equal, "guess"),
        condition(MatchOperator::Regex, "T.*"),
        condition(MatchOperator::NotRegex, "T.*"),
        grouped,
    ] {
        let fault = source.metrics(&permit, &request).await.unwrap_err();
        assert_eq!(fault.code(), FaultCode::Forbidden, "{fault}");
        assert!(fault.message().contains("its name says it is a secret"), "{fault}");
    }
    let values = |label: &str| LabelValuesRequest {
        window,
        signal: Signal::Metrics,
        label: label.into(),
        metric: None,
        service: None,
        prefix: String::new(),
        limit: 10,
    };
    let fault = source.label_values(&permit, &values("session_token")).await.unwrap_err();
    assert!(fault.code() == FaultCode::Forbidden && fault.message().contains("'session_token'"), "{fault}");
    assert!(server.arrived.lock().unwrap().is_empty(), "something was sent");

    // Whether the label is there may be asked, and other labels.
    source.metrics(&permit, &condition(MatchOperator::NotEqual, "")).await.unwrap();
    source.metrics(&permit, &raw("up{api_key!=\"\"}", window)).await.unwrap();
    source.label_values(&permit, &values("token_type")).await.unwrap();
}
