//! SQL: what it answers, and everything it must not do.

use std::time::Duration;

use portcullis_model::{FaultCode, NameSet, Scope};
use portcullis_ports::{Source as _, SqlAnswer, SqlRequest};
use portcullis_telemetry::{SqlLimits, Store, StoreSettings};
use proptest::prelude::*;
use serde_json::{Value, json};

use opentelemetry_proto::tonic::metrics::v1::{Histogram, HistogramDataPoint, metric::Data};

use crate::data::{ingest_logs, ingest_metrics, ingest_spans, log, logs, logs_in, metric, span, spans, trace_hex};
use crate::support::{NOW, everything, only_services, open, open_with, permit, settings, source};

async fn filled(directory: &std::path::Path) -> Store {
    let store = open(directory);
    ingest_logs(&store, &logs("cart", (0..10).map(|n| log(n, 9, &format!("cart line {n}"))).collect())).await;
    ingest_logs(&store, &logs_in("payment", "bank", (0..10).map(|n| log(n, 17, &format!("payment secret {n}"))).collect())).await;
    ingest_spans(&store, &spans("payment", vec![span(1, 1, 0, "Charge", 0, 20, true)])).await;
    ingest_spans(&store, &spans("cart", vec![span(1, 2, 1, "GET /cart", 0, 20, false)])).await;
    store.flush().await.unwrap();
    ingest_logs(&store, &logs("cart", vec![log(100, 9, "in memory")])).await;
    store
}

async fn ask(store: &Store, scope: Scope, statement: &str) -> Result<SqlAnswer, portcullis_model::Fault> {
    source(store).sql(&permit(scope), &SqlRequest { statement: statement.into(), max_rows: 100 }).await
}

async fn rows(store: &Store, statement: &str) -> Vec<Vec<Value>> {
    ask(store, everything(), statement).await.unwrap_or_else(|e| panic!("{statement}: {e} {:?}", e.internal())).rows
}

#[tokio::test]
async fn the_exporters_schema_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path()).await;
    let point = HistogramDataPoint {
        time_unix_nano: NOW as u64,
        count: 3,
        sum: Some(1.0),
        bucket_counts: vec![1, 2],
        explicit_bounds: vec![0.5],
        ..HistogramDataPoint::default()
    };
    let data = Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality: 2 });
    ingest_metrics(&store, &metric("cart", "latency", "s", data)).await;
    for (statement, expected) in [
        ("SELECT count(*) FROM otel_logs", json!([[21]])),
        (
            "SELECT ServiceName, COUNT(*) AS n FROM otel_logs GROUP BY ServiceName ORDER BY n DESC",
            json!([["cart", 11], ["payment", 10]]),
        ),
        (
            "SELECT Body FROM otel_logs WHERE LogAttributes['user'] = 'u1' AND ServiceName = 'cart' ORDER BY Timestamp LIMIT 2",
            json!([["cart line 1"], ["cart line 4"]]),
        ),
        (
            "SELECT DISTINCT ResourceAttributes['k8s.namespace.name'] AS ns FROM otel_logs ORDER BY ns",
            json!([["bank"], ["shop"]]),
        ),
        (
            "SELECT Timestamp, SeverityNumber, TraceFlags FROM otel_logs WHERE Body LIKE '%line 3'",
            json!([["2026-03-01T10:00:03Z", 9, 0]]),
        ),
        (
            "SELECT Body FROM otel_logs WHERE Timestamp >= '2026-03-01T10:01:00' AND Timestamp < '2026-03-01T11:00:00'",
            json!([["in memory"]]),
        ),
        (
            "SELECT SpanName, SpanKind, StatusCode, Duration / 1000000 AS ms, Events.Name[1] AS e FROM otel_traces WHERE StatusCode = 'Error'",
            json!([["Charge", "Server", "Error", 20.0, "exception"]]),
        ),
        (
            "SELECT BucketCounts, ExplicitBounds, Count, Sum, Min FROM otel_metrics_histogram WHERE MetricName = 'latency'",
            json!([[[1, 2], [0.5], 3, 1.0, null]]),
        ),
        (
            "SELECT l.Body FROM otel_logs l JOIN otel_traces t ON l.TraceId = t.TraceId WHERE t.ServiceName = 'payment' AND l.ServiceName = 'cart'",
            json!([["cart line 1"]]),
        ),
        ("WITH e AS (SELECT * FROM otel_logs WHERE SeverityNumber >= 17) SELECT count(*) FROM e", json!([[10]])),
        ("SELECT count(*) FROM otel_metrics_gauge", json!([[0]])),
        (
            "SELECT date_trunc('minute', Timestamp) AS m, count(*) FROM otel_logs GROUP BY m ORDER BY m",
            json!([["2026-03-01T10:00:00Z", 20], ["2026-03-01T10:01:00Z", 1]]),
        ),
        ("SELECT 1 AS a, 'x' AS b", json!([[1, "x"]])),
        ("SELECT count(*) FROM otel_traces WHERE Timestamp > now() - INTERVAL '100 years'", json!([[2]])),
    ] {
        assert_eq!(json!(rows(&store, statement).await), expected, "{statement}");
    }
    let by_trace = format!("SELECT Body, SpanId FROM otel_logs WHERE TraceId = '{}' ORDER BY ServiceName", trace_hex(4));
    assert_eq!(
        json!(rows(&store, &by_trace).await),
        json!([["cart line 4", "0707070707070707"], ["payment secret 4", "0707070707070707"]])
    );
    let answer =
        ask(&store, everything(), "SELECT Timestamp, LogAttributes, SeverityNumber FROM otel_logs LIMIT 1").await.unwrap();
    assert_eq!(answer.columns.iter().map(|c| c.kind.as_str()).collect::<Vec<_>>(), ["timestamp", "map", "integer"]);
    assert!(answer.rows[0][1]["http.route"] == "/cart");
}

/// Statements that must be refused, whatever the scope.
const FORBIDDEN: &[&str] = &[
    "",
    ";",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE otel_logs",
    "DROP TABLE otel_logs",
    "DELETE FROM otel_logs",
    "INSERT INTO otel_logs SELECT * FROM otel_logs",
    "UPDATE otel_logs SET Body = 'x'",
    "TRUNCATE TABLE otel_logs",
    "CREATE TABLE t AS SELECT 1",
    "CREATE VIEW v AS SELECT 1",
    "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/etc'",
    "CREATE FUNCTION f() RETURNS INT RETURN 1",
    "COPY otel_logs TO '/tmp/x.parquet'",
    "COPY (SELECT 1) TO '/tmp/x.csv'",
    "EXPLAIN SELECT 1",
    "EXPLAIN ANALYZE SELECT * FROM otel_logs",
    "DESCRIBE otel_logs",
    "SHOW TABLES",
    "SHOW ALL",
    "SET datafusion.execution.batch_size = 1",
    "RESET datafusion.execution.batch_size",
    "USE other",
    "BEGIN",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DECLARE c CURSOR FOR SELECT 1",
    "CALL f()",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM \"/etc/passwd\"",
    "SELECT * FROM 'data.parquet'",
    "SELECT * FROM read_parquet('/etc/passwd')",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM parquet_metadata('/etc/passwd')",
    "SELECT * FROM url('http://127.0.0.1/', 'CSV')",
    "SELECT * FROM generate_series(1, 1000000000)",
    "SELECT * FROM range(1000000000)",
    "SELECT * FROM TABLE(generate_series(1, 10))",
    "SELECT * FROM otel_logs CROSS JOIN LATERAL generate_series(1, 10)",
    "SELECT generate_series(1, 1000000000)",
    "SELECT range(0, 1000000000)",
    "SELECT repeat('x', 1000000000)",
    "SELECT rpad('x', 1000000000, 'y')",
    "SELECT array_repeat(1, 1000000000)",
    "SELECT version()",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM information_schema.df_settings",
    "SELECT * FROM pg_catalog.pg_tables",
    "SELECT * FROM otel_logs_other",
    "SELECT * FROM other.otel_logs",
    "SELECT * FROM other.telemetry.otel_logs",
    "SELECT @@version",
    "SELECT $1",
    "SELECT * FROM otel_logs WHERE Body = ?",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT * FROM r",
    "SELECT * INTO t FROM otel_logs",
    "SELECT * FROM otel_logs FOR UPDATE",
    "TABLE otel_logs",
    "FROM otel_logs |> SELECT *",
    "SELECT * FROM (DELETE FROM otel_logs RETURNING *)",
    "WITH d AS (DELETE FROM otel_logs RETURNING *) SELECT * FROM d",
    "VACUUM",
    "ANALYZE TABLE otel_logs",
    "KILL 1",
    "ATTACH DATABASE 'x' AS y",
    "INSTALL httpfs",
    "LOAD 'x'",
    "PRAGMA table_info(otel_logs)",
    "/* SELECT 1 */ DROP TABLE otel_logs -- SELECT",
    "SELECT 1 -- \n; DROP TABLE otel_logs",
];

#[tokio::test]
async fn everything_but_reading_our_tables_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path()).await;
    for statement in FORBIDDEN {
        let answer = ask(&store, everything(), statement).await;
        let fault = answer.err().unwrap_or_else(|| panic!("was answered: {statement}"));
        assert_eq!(fault.code(), FaultCode::InvalidArgument, "{statement}: {fault}");
        assert!(
            fault.message().len() > 20 && !fault.message().contains(&directory.path().display().to_string()),
            "{statement}: {fault}"
        );
    }
    assert_eq!(rows(&store, "SELECT count(*) FROM otel_logs").await, vec![vec![json!(21)]]);
    assert!(!std::path::Path::new("/tmp/x.parquet").exists());
}

/// Ways to read a table; each must see only the scope. `@T@` stands for the table.
const READINGS: &[&str] = &[
    "SELECT ServiceName, Body FROM @T@",
    "SELECT a.ServiceName, a.Body FROM @T@ AS a",
    "SELECT ServiceName, Body FROM \"@T@\"",
    "SELECT ServiceName, Body FROM telemetry.@T@",
    "SELECT ServiceName, Body FROM portcullis.telemetry.@T@",
    "SELECT ServiceName, Body FROM (SELECT * FROM @T@)",
    "SELECT ServiceName, Body FROM (SELECT * FROM (SELECT * FROM @T@) x) y",
    "SELECT ServiceName, Body FROM @T@ WHERE true OR ServiceName = 'payment'",
    "SELECT ServiceName, Body FROM @T@ WHERE ServiceName = 'payment' OR ServiceName <> 'payment'",
    "SELECT ServiceName, Body FROM @T@ WHERE ServiceName IN ('payment', 'cart')",
    "SELECT ServiceName, Body FROM @T@ UNION ALL SELECT ServiceName, Body FROM @T@",
    "SELECT ServiceName, Body FROM @T@ EXCEPT SELECT 'cart', 'x'",
    "SELECT ServiceName, Body FROM @T@ INTERSECT SELECT ServiceName, Body FROM @T@",
    "WITH w AS (SELECT * FROM @T@) SELECT ServiceName, Body FROM w",
    "WITH @T@ AS (SELECT * FROM @T@) SELECT ServiceName, Body FROM @T@",
    "WITH otel_traces AS (SELECT * FROM @T@) SELECT ServiceName, Body FROM otel_traces",
    "SELECT b.ServiceName, b.Body FROM otel_traces a RIGHT JOIN @T@ b ON true",
    "SELECT b.ServiceName, b.Body FROM @T@ a FULL OUTER JOIN @T@ b ON a.Body = b.Body",
    "SELECT b.ServiceName, b.Body FROM @T@ a, @T@ b",
    "SELECT ServiceName, Body FROM @T@ WHERE EXISTS (SELECT 1 FROM @T@ i WHERE i.ServiceName = 'payment') OR true",
    "SELECT x.ServiceName, x.Body FROM @T@ o CROSS JOIN LATERAL (SELECT ServiceName, Body FROM @T@) x",
    "SELECT (SELECT max(ServiceName) FROM @T@), (SELECT max(Body) FROM @T@)",
    "SELECT max(ServiceName), max(Body) FROM @T@",
    "SELECT ServiceName, last_value(Body ORDER BY Timestamp) FROM @T@ GROUP BY ServiceName",
    "SELECT ServiceName, first_value(Body) OVER (PARTITION BY ServiceName ORDER BY Timestamp) FROM @T@",
    "SELECT ServiceName, Body FROM @T@ /* WHERE ServiceName = 'cart' */ -- x",
    "SELECT ServiceName, Body FROM @T@ ORDER BY (SELECT count(*) FROM @T@ WHERE ServiceName = 'payment')",
    "SELECT ResourceAttributes['service.name'], Body FROM @T@",
    "SELECT ServiceName, Body FROM @T@ WHERE Body = ANY (SELECT Body FROM @T@)",
    "SELECT 'x', Body FROM @T@ WHERE Body IN (SELECT Body FROM @T@)",
    "SELECT 'x', array_to_string(make_array(min(Body), max(Body)), ',') FROM @T@",
];

async fn sees_only_cart(store: &Store, scope: Scope, statement: &str) {
    // A statement the engine does not know is no leak; an answer must not hold another service's rows.
    if let Ok(answer) = ask(store, scope, statement).await {
        let text = json!(answer.rows).to_string();
        assert!(!text.contains("payment"), "{statement}: {text}");
    }
}

#[tokio::test]
async fn no_statement_sees_beyond_its_scope() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path()).await;
    let by_namespace = Scope { namespaces: NameSet::only(["shop"]), ..everything() };
    let mut answered = 0;
    for reading in READINGS {
        let statement = reading.replace("@T@", "otel_logs");
        for scope in [only_services(&["cart"]), by_namespace.clone()] {
            sees_only_cart(&store, scope.clone(), &statement).await;
            answered += usize::from(ask(&store, scope, &statement).await.is_ok_and(|a| !a.rows.is_empty()));
        }
    }
    assert!(answered >= 2 * READINGS.len() - 12, "only {answered} statements were answered");
    let nothing = ask(&store, only_services(&[]), "SELECT * FROM otel_logs").await.unwrap();
    assert!(nothing.rows.is_empty());
    let past = Scope { look_back: Some(Duration::ZERO), ..everything() };
    let late = ask(&store, past, "SELECT min(Timestamp) FROM otel_logs").await.unwrap();
    assert_eq!(late.rows[0][0], json!("2026-03-01T10:00:00Z"));
}

/// What must become of an attack.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    /// Refused, whatever the scope.
    Refused,
    /// Answered from the scope alone, or refused.
    Confined,
}

/// Attempts to reach another service's or tenant's rows, the server's own, or to write; each by another way.
const ATTACKS: &[(Fate, &str)] = &[
    (Fate::Refused, "SELECT Body FROM otel_logs UNION ALL SELECT table_name FROM information_schema.tables"),
    (Fate::Refused, "SELECT Body FROM otel_logs EXCEPT SELECT name FROM information_schema.df_settings"),
    (Fate::Refused, "SELECT Body FROM otel_logs INTERSECT SELECT table_name FROM portcullis.information_schema.views"),
    (Fate::Refused, "SELECT (SELECT value FROM information_schema.df_settings LIMIT 1) FROM otel_logs"),
    (Fate::Refused, "WITH RECURSIVE r(b) AS (SELECT Body FROM otel_logs UNION ALL SELECT b FROM r) SELECT b FROM r LIMIT 10"),
    (Fate::Refused, "EXPLAIN ANALYZE VERBOSE SELECT Body FROM otel_logs WHERE ServiceName = 'payment'"),
    (Fate::Refused, "EXPLAIN (FORMAT tree) SELECT Body FROM otel_logs"),
    (Fate::Refused, "/* harmless */ COPY otel_logs TO 'stolen.csv' STORED AS CSV -- SELECT"),
    (Fate::Refused, "SELECT 1 /* ; */ ; CREATE EXTERNAL TABLE p STORED AS CSV LOCATION '/etc/passwd'"),
    (Fate::Refused, "PREPARE steal(TEXT) AS SELECT Body FROM otel_logs WHERE ServiceName = $1"),
    (Fate::Refused, "EXECUTE steal('payment')"),
    (Fate::Refused, "SELECT Body INTO stolen FROM otel_logs"),
    (Fate::Refused, "SELECT * FROM (VALUES (1)) v, LATERAL generate_series(1, 1000000000)"),
    (Fate::Refused, "SELECT * FROM unnest(generate_series(1, 1000000000))"),
    (Fate::Refused, "SELECT Body FROM otel_l\u{43e}gs"),
    (Fate::Refused, "SELECT Body FROM \u{ff4f}\u{ff54}\u{ff45}\u{ff4c}_logs"),
    (Fate::Refused, "SELECT Body FROM \"otel_logs\u{200b}\""),
    (Fate::Refused, "SELECT Body FROM \"otel_logs\u{0}\""),
    (Fate::Refused, "SELECT Body FROM \"telemetry.otel_logs\""),
    (Fate::Refused, "SELECT Body FROM \"../default/otel_logs\""),
    (Fate::Confined, "SELECT Body FROM otel_logs /*/**/ WHERE ServiceName = 'cart' /*/**/ OR ServiceName = 'payment' --*/"),
    (Fate::Confined, "SELECT o.Body, (SELECT max(i.Body) FROM otel_logs i WHERE i.TraceId = o.TraceId) FROM otel_logs o"),
    (
        Fate::Confined,
        "SELECT o.Body FROM otel_logs o WHERE EXISTS (SELECT 1 FROM otel_logs i WHERE i.TraceId = o.TraceId AND i.ServiceName = 'payment')",
    ),
    (
        Fate::Confined,
        "SELECT t.SpanName FROM otel_traces t WHERE t.TraceId IN (SELECT l.TraceId FROM otel_logs l WHERE l.ServiceName = 'payment')",
    ),
    (Fate::Confined, "SELECT count(*) FILTER (WHERE ServiceName = 'payment') AS n, max(Body) FROM otel_logs"),
    (Fate::Confined, "SELECT ServiceName, Body FROM otel_logs NATURAL FULL JOIN (SELECT Body FROM otel_logs) x"),
    (Fate::Confined, "SELECT lag(Body) OVER (ORDER BY Timestamp), lead(Body) OVER (ORDER BY Timestamp) FROM otel_logs"),
    (Fate::Refused, "SELECT Body FROM otel_logs GROUP BY GROUPING SETS ((Body), ()) HAVING max(ServiceName) >= 'p'"),
    (Fate::Confined, "SELECT Body FROM otel_logs WHERE CASE WHEN ServiceName = 'payment' THEN true ELSE 1 / 0 = 1 END"),
    (Fate::Confined, "SELECT DISTINCT ON (ServiceName) ServiceName, Body FROM otel_logs ORDER BY ServiceName DESC"),
];

#[tokio::test]
async fn attacks_are_refused_or_see_their_own_scope_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path()).await;
    let foreign = crate::support::tenant("other");
    let secret = logs("cart", vec![log(5, 9, "foreign payment secret")]);
    crate::data::ingest(&store, &foreign, portcullis_telemetry::OtlpSignal::Logs, &secret).await;
    let mut answered = 0;
    for (fate, statement) in ATTACKS {
        let answer = ask(&store, only_services(&["cart"]), statement).await;
        let whole_tenant = ask(&store, everything(), statement).await;
        match (fate, answer) {
            (Fate::Refused, Ok(answer)) => panic!("was answered: {statement}: {:?}", answer.rows),
            (Fate::Refused, Err(fault)) => {
                assert_eq!(fault.code(), FaultCode::InvalidArgument, "{statement}: {fault}");
                assert!(whole_tenant.is_err(), "{statement}");
            }
            (Fate::Confined, Ok(answer)) => {
                let text = json!(answer.rows).to_string();
                assert!(!text.contains("payment") && !text.contains("Charge"), "{statement}: {text}");
                answered += 1;
            }
            (Fate::Confined, Err(_)) => {}
        }
        // The other tenant's rows are in nobody else's answer, whatever the scope within the tenant.
        let text = whole_tenant.map(|answer| json!(answer.rows).to_string()).unwrap_or_default();
        assert!(!text.contains("foreign"), "{statement}: {text}");
    }
    let confined = ATTACKS.iter().filter(|(fate, _)| *fate == Fate::Confined).count();
    assert!(answered + 3 >= confined, "only {answered} of {confined} were answered");
    assert_eq!(rows(&store, "SELECT count(*) FROM otel_logs").await, vec![vec![json!(21)]]);
    assert!(!std::path::Path::new("stolen.csv").exists());
}

#[tokio::test]
async fn answers_are_limited_in_rows_bytes_time_and_memory() {
    let directory = tempfile::tempdir().unwrap();
    let limits =
        SqlLimits { rows: 50, result_bytes: 20_000, memory_bytes: 4 << 20, time: Duration::from_secs(3), ..SqlLimits::default() };
    let store = open_with(StoreSettings { sql: limits, ..settings(directory.path()) });
    for n in 0..40 {
        ingest_logs(
            &store,
            &logs("cart", (0..250).map(|k| log(n * 250 + k, 9, &format!("{n} {k} {}", "x".repeat(200)))).collect()),
        )
        .await;
    }
    let answer = ask(&store, everything(), "SELECT SeverityNumber FROM otel_logs").await.unwrap();
    assert_eq!((answer.rows.len(), answer.truncated), (50, true));
    let exact = ask(&store, everything(), "SELECT SeverityNumber FROM otel_logs LIMIT 50").await.unwrap();
    assert_eq!((exact.rows.len(), exact.truncated), (50, false));
    let wide = ask(&store, everything(), "SELECT * FROM otel_logs").await.unwrap();
    assert!(wide.truncated && wide.rows.len() < 50 || wide.rows.len() == 50, "{}", wide.rows.len());
    let memory = ask(&store, everything(), "SELECT Body, count(*) FROM otel_logs GROUP BY Body ORDER BY 2").await.unwrap_err();
    assert!(memory.message().contains("more memory"), "{memory}");
    let bomb = "SELECT count(*) FROM otel_logs a, otel_logs b, otel_logs c, otel_logs d WHERE a.Body < b.Body AND c.Body < d.Body AND a.SpanId <> d.Body";
    let started = std::time::Instant::now();
    let slow = ask(&store, everything(), bomb).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert!(matches!(slow.code(), FaultCode::DeadlineExceeded | FaultCode::InvalidArgument), "{slow}");
    let long = format!("SELECT '{}'", "x".repeat(20_000));
    assert!(ask(&store, everything(), &long).await.unwrap_err().message().contains("bytes"));
    let growing = format!("SELECT {} FROM otel_logs", vec!["Body"; 60].join(" || "));
    assert!(ask(&store, everything(), &growing).await.unwrap_err().message().contains("more than 8 times"));
    let deep = format!("SELECT {}1{}", "(".repeat(3_000), ")".repeat(3_000));
    assert!(ask(&store, everything(), &deep).await.is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Random nestings of readings stay inside the scope.
    #[test]
    fn random_statements_stay_inside(shape in statement_strategy(3)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let store = filled(directory.path()).await;
            sees_only_cart(&store, only_services(&["cart"]), &shape).await;
        });
    }

    /// Arbitrary text never panics and never changes anything.
    #[test]
    fn arbitrary_text_is_answered_or_refused(text in "(SELECT|WITH|DROP|COPY|[A-Za-z_'\"(){};,.*= -]){0,40}") {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let store = open(directory.path());
            let _ = ask(&store, everything(), &text).await;
        });
    }
}

fn statement_strategy(depth: u32) -> BoxedStrategy<String> {
    let table =
        prop_oneof![Just("otel_logs".to_owned()), Just("\"otel_logs\"".to_owned()), Just("telemetry.otel_logs".to_owned())];
    let condition = prop_oneof![
        Just(String::new()),
        Just(" WHERE ServiceName = 'payment'".to_owned()),
        Just(" WHERE NOT (ServiceName = 'cart')".to_owned()),
        Just(" WHERE SeverityNumber >= 9 OR ServiceName LIKE 'pay%'".to_owned()),
        Just(" WHERE Body IN (SELECT Body FROM otel_logs)".to_owned()),
    ];
    let leaf = (table, condition)
        .prop_map(|(table, condition)| format!("SELECT ServiceName, Body, SeverityNumber FROM {table}{condition}"));
    leaf.prop_recursive(depth, 8, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|s| format!("SELECT * FROM ({s}) AS q")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("SELECT * FROM ({a}) AS l UNION ALL SELECT * FROM ({b}) AS r")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| {
                format!("SELECT l.ServiceName, r.Body, l.SeverityNumber FROM ({a}) AS l LEFT JOIN ({b}) AS r ON l.SeverityNumber <> r.SeverityNumber")
            }),
            inner.clone().prop_map(|s| format!("WITH otel_traces AS ({s}) SELECT * FROM otel_traces")),
            inner.prop_map(|s| format!("SELECT max(ServiceName) AS ServiceName, max(Body) AS Body, max(SeverityNumber) AS SeverityNumber FROM ({s}) AS m")),
        ]
    })
    .boxed()
}
