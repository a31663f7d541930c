//! Statements that would end or hold up the server: each is refused or answered, and the next one is answered as ever.

use std::time::{Duration, Instant};

use portcullis_model::{FaultCode, Scope};
use portcullis_ports::{Source as _, SqlRequest};
use portcullis_telemetry::{SqlLimits, Store, StoreSettings};
use serde_json::json;

use crate::data::{ingest_logs, log, logs};
use crate::support::{everything, open, open_with, permit, permit_of, settings, source, tenant, window};

/// Bytes of the longest statement.
const MOST_BYTES: usize = 16 << 10;

/// What stands in front of the piece that is repeated, the piece, and what stands behind it.
const CHAINS: &[(&str, &str, &str)] = &[
    ("SELECT 1", " IS NULL", ""),
    ("SELECT 1", " IS NOT NULL", ""),
    ("SELECT 1 IS NULL", " IS TRUE", ""),
    ("SELECT 1 WHERE 1=1", " OR 1=1", ""),
    ("SELECT Body FROM otel_logs WHERE Body = 'a'", " OR Body = 'b'", ""),
    ("SELECT Body FROM otel_logs WHERE Body = 'a'", " AND Body <> 'b'", ""),
    ("SELECT 1", "+1", ""),
    ("SELECT SeverityNumber", "+SeverityNumber", " FROM otel_logs"),
    ("SELECT 1", "::int", ""),
    ("SELECT 'a'", "||'a'", ""),
    ("SELECT 1::int", "[]", ""),
    ("SELECT CONVERT(1, int", "[]", ")"),
    ("SELECT LogAttributes", "['a']", " FROM otel_logs"),
    ("SELECT LogAttributes", ".a", " FROM otel_logs"),
    ("SELECT LogAttributes['a']", ".a['a']", " FROM otel_logs"),
    ("SELECT 1", " UNION ALL SELECT 1", ""),
    ("SELECT 1", " UNION SELECT 1", ""),
    ("SELECT 1", " EXCEPT SELECT 1", ""),
    ("SELECT 1", " INTERSECT SELECT 1", ""),
    ("SELECT Body", " COLLATE c", " FROM otel_logs"),
    ("SELECT Timestamp", " AT TIME ZONE 'UTC'", " FROM otel_logs"),
    ("SELECT 1", " IN (1)", ""),
    ("SELECT 1", " BETWEEN 0 AND 1", ""),
    ("SELECT Body", " LIKE 'a'", " FROM otel_logs"),
    ("SELECT 1", " = 1", ""),
    ("SELECT ", "-", "1"),
    ("SELECT ", "- ", "1"),
    ("SELECT ", "~", "1"),
    ("SELECT ", "+ -", "1"),
    ("SELECT ", "NOT ", "true"),
    ("SELECT ", "INTERVAL ", "'1 day'"),
    ("SELECT ", "NOT - a = ", "1"),
    ("SELECT ", "CASE WHEN end THEN ", "1"),
    ("SELECT ", "END . a[1] . ", "1"),
    ("SELECT 1 FROM otel_logs a0", ", otel_logs", ""),
    ("SELECT 1 FROM otel_logs a0", " NATURAL JOIN otel_logs", ""),
    ("WITH c AS (SELECT 1 AS n) SELECT 1 FROM c", ", c", ""),
    ("SELECT 1 FROM (VALUES (1))", ", (VALUES (1))", ""),
    ("SELECT 1", ", 1", ""),
    ("SELECT 1 WHERE 1 IN (1", ", 1", ")"),
    ("", "EXPLAIN ", "SELECT 1"),
    ("", "BEGIN ", "SELECT 1"),
    ("", "WITH a AS (", "SELECT 1"),
];

/// What opens, what stands in the middle, and what closes.
const NESTS: &[(&str, &str, &str)] = &[
    ("CASE WHEN true THEN ", "1", " END"),
    ("CASE ", "1", " WHEN 1 THEN 1 END"),
    ("(SELECT ", "1", ")"),
    ("(", "1", ")"),
    ("abs(", "1", ")"),
    ("CAST(", "1", " AS INT)"),
    ("EXISTS (SELECT ", "1", ")"),
    ("1 IN (SELECT ", "1", ")"),
    ("[", "1", "]"),
    ("{'a': ", "1", "}"),
    ("struct(", "1", ")"),
    ("CAST(NULL AS ARRAY<", "INT", ">)"),
];

fn lethal() -> Vec<String> {
    let mut all = Vec::new();
    for (before, piece, after) in CHAINS {
        let room = (MOST_BYTES - before.len() - after.len()) / piece.len();
        for times in [49, 100, 127, 150, 999, room] {
            all.push(format!("{before}{}{after}", piece.repeat(times.min(room))));
        }
    }
    for (open, middle, close) in NESTS {
        let room = (MOST_BYTES - middle.len() - 7) / (open.len() + close.len());
        for times in [9, 20, 40, 49, 150, room] {
            let times = times.min(room);
            all.push(format!("SELECT {}{middle}{}", open.repeat(times), close.repeat(times)));
            // Left open, so that the parser fails at its deepest.
            all.push(format!("SELECT {}", open.repeat(times)));
        }
    }
    let list = "ARRAY<".repeat(2_000);
    all.push(format!("SELECT CAST(NULL AS {list}INT"));
    all
}

async fn filled(store: &Store, rows: i64) {
    ingest_logs(store, &logs("cart", (0..rows).map(|n| log(n, 9, &format!("line {n}"))).collect())).await;
}

/// Whether it was answered; a refusal must be one of the caller's own statement.
async fn survives(store: &Store, statement: &str) -> Result<(), String> {
    let asked = SqlRequest { statement: statement.into(), max_rows: 10 };
    let shown: String = statement.chars().take(120).collect();
    match source(store).sql(&permit(everything()), &asked).await {
        Ok(_) => Ok(()),
        Err(fault) => {
            assert_eq!(fault.code(), FaultCode::InvalidArgument, "{shown}: {fault}");
            assert!(!fault.message().contains("unexpectedly"), "{shown}: {fault}");
            Err(fault.message().to_owned())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_is_deep_enough_to_end_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    filled(&store, 3).await;
    let statements = lethal();
    let mut answered = 0;
    for statement in &statements {
        answered += usize::from(survives(&store, statement).await.is_ok());
    }
    assert!(answered >= 10 && answered < statements.len() / 2, "{answered} of {} were answered", statements.len());
    assert_eq!(survives(&store, "SELECT count(*) FROM otel_logs").await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_honest_caller_writes_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    filled(&store, 30).await;
    let terms: Vec<String> = (0..100).map(|n| format!("Body = 'line {n}'")).collect();
    let names: Vec<String> = (0..800).map(|n| format!("'line {n}'")).collect();
    let counts: Vec<String> = (0..60).map(|n| format!("sum(CASE WHEN Body = 'line {n}' THEN 1 ELSE 0 END) AS c{n}")).collect();
    for statement in [
        format!("SELECT count(*) FROM otel_logs WHERE {}", terms.join(" OR ")),
        format!("SELECT count(*) FROM otel_logs WHERE Body IN ({})", names.join(", ")),
        format!("SELECT {} FROM otel_logs", counts.join(", ")),
        "SELECT l.Body FROM otel_logs l, otel_logs r WHERE l.TraceId = r.TraceId AND l.Body = r.Body".into(),
        "SELECT l.Body, t.n FROM otel_logs l, (SELECT count(*) AS n FROM otel_logs) t, (SELECT max(Body) AS m FROM otel_logs) u".into(),
        "SELECT Body, sum(SeverityNumber) OVER (PARTITION BY ServiceName), nth_value(Body, 2) OVER (ORDER BY Timestamp) FROM otel_logs".into(),
        "SELECT ServiceName, median(SeverityNumber), approx_distinct(Body), stddev(SeverityNumber) FROM otel_logs GROUP BY 1".into(),
    ] {
        assert_eq!(survives(&store, &statement).await, Ok(()), "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_few_words_blow_up_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    filled(&store, 133).await;
    // Each query names the one before it twice: 2^13 tables, and in the others 8^13 copies of a column.
    let doubled: Vec<String> = (1..13).map(|n| format!("q{n} AS (SELECT a.n FROM q{} a, q{} b)", n - 1, n - 1)).collect();
    let grown: Vec<String> = (1..13).map(|n| format!("q{n} AS (SELECT {} AS n FROM q{})", ["n"; 8].join("+"), n - 1)).collect();
    let long: Vec<String> = (1..13).map(|n| format!("q{n} AS (SELECT n{} AS n FROM q{})", "+1".repeat(70), n - 1)).collect();
    let with = |steps: &[String]| {
        format!(
            "WITH q0 AS (SELECT SeverityNumber AS n FROM otel_logs), {} SELECT count(*) FROM q12 WHERE n > 1",
            steps.join(", ")
        )
    };
    for (statement, word) in [
        (with(&doubled), "64 tables"),
        // Names are the same in capitals.
        (with(&doubled).replace(", q", ", Q"), "64 tables"),
        (with(&grown), "20000 parts"),
        (with(&long), "levels"),
        ("SELECT array_length(array_agg(a.Body)) FROM otel_logs a, otel_logs b, otel_logs c".into(), "array_agg is not allowed"),
        ("SELECT Array_Agg(Body) FROM otel_logs".into(), "approx_distinct"),
        ("SELECT string_agg(Body, ',') FROM otel_logs".into(), "string_agg is not allowed"),
        ("SELECT nth_value(Body, 2) FROM otel_logs".into(), "nth_value is not allowed"),
        ("SELECT \"array_agg\"(Body) OVER () FROM otel_logs".into(), "array_agg is not allowed"),
        ("SELECT median(SeverityNumber) OVER (ORDER BY Timestamp) FROM otel_logs".into(), "for every row"),
        ("SELECT count(*) FROM otel_logs a, otel_logs b, otel_logs c".into(), "equal columns"),
        ("SELECT count(*) FROM otel_logs a JOIN otel_logs b ON a.Body < b.Body CROSS JOIN otel_logs c".into(), "equal columns"),
        ("SELECT levenshtein(a.Body, b.Body) FROM otel_logs a, otel_logs b".into(), "levenshtein"),
    ] {
        refused_at_once(&store, &statement, word).await;
    }
}

/// Refused for the reason that has `word` in it, before anything is read.
async fn refused_at_once(store: &Store, statement: &str, word: &str) {
    let began = Instant::now();
    let refused = survives(store, statement).await.expect_err(statement);
    assert!(refused.contains(word), "{statement}: {refused}");
    assert!(began.elapsed() < Duration::from_secs(10), "{statement}: {:?}", began.elapsed());
}

/// Numbers that would become the size of something, and texts that are a language of their own.
#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_a_size_or_a_program_is_written_out_and_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    filled(&store, 30).await;
    let nested = format!("SELECT arrow_cast(1, '{}Int32{}')", "List(".repeat(1_300), ")".repeat(1_300));
    for (statement, word) in [
        ("SELECT approx_percentile_cont(SeverityNumber, 0.5, 4000000000) FROM otel_logs", "centroids"),
        ("SELECT approx_percentile_cont(0.5, 4000000000) WITHIN GROUP (ORDER BY SeverityNumber) FROM otel_logs", "centroids"),
        (
            "SELECT approx_percentile_cont_with_weight(SeverityNumber, SeverityNumber, 0.5, 4000000000) FROM otel_logs",
            "centroids",
        ),
        (nested.as_str(), "arrow_cast"),
        ("SELECT arrow_cast(1, 'Int32')", "arrow_cast"),
        ("SELECT CAST(make_array(1) AS INT[2000000000])", "fixed length"),
        ("SELECT TRY_CAST(NULL AS INT[2000000000])", "fixed length"),
        ("SELECT lag(Body, 4000000000) OVER (ORDER BY Timestamp) FROM otel_logs", "at most 10000"),
        ("SELECT lead(Body, SeverityNumber) OVER (ORDER BY Timestamp) FROM otel_logs", "at most 10000"),
        ("SELECT ntile(4000000000) OVER (ORDER BY Timestamp) FROM otel_logs", "at most 10000"),
        ("SELECT nth_value(Body, 4000000000) OVER (ORDER BY Timestamp) FROM otel_logs", "at most 10000"),
        (
            "SELECT m FROM (SELECT Body, max(SeverityNumber) AS m FROM otel_logs GROUP BY Body ORDER BY m DESC LIMIT 4000000000) x \
             WHERE m > 1",
            "100000",
        ),
        ("SELECT Body FROM (SELECT Body FROM otel_logs ORDER BY Body LIMIT 1 OFFSET 100000) x", "100000"),
        ("SELECT regexp_like(Body, Body) FROM otel_logs", "written out"),
        ("SELECT Body FROM otel_logs WHERE Body ~ concat('(', Body, ')')", "written out"),
    ] {
        refused_at_once(&store, statement, word).await;
    }
    for statement in [
        "SELECT approx_percentile_cont(SeverityNumber, 0.5) FROM otel_logs",
        "SELECT lag(Body, 2) OVER (ORDER BY Timestamp), ntile(4) OVER (ORDER BY Timestamp) FROM otel_logs",
        "SELECT Body FROM otel_logs WHERE Body ~ 'line (1|2)' AND regexp_like(Body, '^line') ORDER BY Body LIMIT 10 OFFSET 5",
    ] {
        assert_eq!(survives(&store, statement).await, Ok(()), "{statement}");
    }
}

/// Lists that become rows, and rows that become lists of rows.
#[tokio::test(flavor = "multi_thread")]
async fn what_multiplies_rows_may_stand_in_a_statement_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    filled(&store, 30).await;
    let hundred = format!("make_array({})", ["1"; 100].join(", "));
    let stacked: Vec<String> = (1..6).map(|n| format!("q{n} AS (SELECT unnest({hundred}) AS n FROM q{})", n - 1)).collect();
    let stacked = format!("WITH q0 AS (SELECT unnest({hundred}) AS n), {} SELECT count(*) FROM q5", stacked.join(", "));
    let twice = format!("WITH q AS (SELECT unnest({hundred}) AS n) SELECT count(*) FROM q a JOIN q b ON a.n = b.n");
    for (statement, word) in [
        (stacked.as_str(), "one unnest"),
        (twice.as_str(), "one unnest"),
        ("SELECT count(*) FROM otel_logs GROUP BY CUBE(ServiceName, Body, TraceId)", "UNION ALL"),
        ("SELECT count(*) FROM otel_logs GROUP BY ROLLUP(ServiceName, Body)", "UNION ALL"),
        ("SELECT count(*) FROM otel_logs GROUP BY GROUPING SETS ((ServiceName), (Body))", "UNION ALL"),
    ] {
        refused_at_once(&store, statement, word).await;
    }
    let once = format!("SELECT Body, unnest({hundred}) AS n FROM otel_logs");
    assert_eq!(survives(&store, &once).await, Ok(()));
}

/// Calls that make longer what they are given, around each other, in one query or over several.
#[tokio::test(flavor = "multi_thread")]
async fn what_grows_may_not_grow_again_and_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    filled(&store, 30).await;
    let replaced = |inner: String| format!("replace({inner}, 'a', 'aaaaaaaaaa')");
    let nested = (0..7).fold("'a'".to_owned(), |inner, _| replaced(inner));
    let steps: Vec<String> =
        (1..8).map(|n| format!("q{n} AS (SELECT {} AS b FROM q{})", replaced("b".to_owned()), n - 1)).collect();
    let steps = format!("WITH q0 AS (SELECT Body AS b FROM otel_logs), {} SELECT b FROM q7", steps.join(", "));
    let below = "SELECT replace((SELECT max(replace(Body, 'e', 'eeeeeeeeee')) FROM otel_logs), 'e', 'eeeeeeeeee') FROM otel_logs";
    let long = format!("SELECT replace('{}', 'a', 'aaaaaaaa') FROM otel_logs", "a".repeat(4_000));
    let joined: Vec<String> = (1..8).map(|n| format!("q{n} AS (SELECT concat(b, b, b) AS b FROM q{})", n - 1)).collect();
    let joined = format!("WITH q0 AS (SELECT Body AS b FROM otel_logs), {} SELECT b FROM q7", joined.join(", "));
    let list = format!("SELECT make_array({}) FROM otel_logs", ["Body"; 900].join(","));
    let formats = format!("SELECT to_char(Timestamp, '{}') FROM otel_logs", "%+".repeat(4_000));
    let times = "65 times as long";
    for (statement, word) in [
        (format!("SELECT {nested} FROM otel_logs"), times),
        (steps, times),
        (below.into(), times),
        (long, times),
        (joined, times),
        (list, times),
        (formats, "64 bytes"),
        (format!("SELECT replace(Body, 'e', '{}') FROM otel_logs", "e".repeat(65)), "64 bytes"),
        ("SELECT regexp_replace(Body, '.', Body, 'g') FROM otel_logs".into(), "64 bytes"),
        ("SELECT array_to_string(make_array(Body, Body), Body) FROM otel_logs".into(), "64 bytes"),
    ] {
        refused_at_once(&store, &statement, word).await;
    }
    for statement in [
        "SELECT regexp_replace(regexp_replace(Body, '[0-9]+', 'N', 'g'), 'line', 'L') FROM otel_logs",
        "SELECT concat(ServiceName, ': ', replace(Body, 'line', 'row')) || '.' FROM otel_logs",
        "SELECT to_char(Timestamp, '%Y-%m-%d'), make_array(Body, ServiceName) FROM otel_logs",
    ] {
        assert_eq!(survives(&store, statement).await, Ok(()), "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_window_holds_is_memory_of_its_statement() {
    let directory = tempfile::tempdir().unwrap();
    let limits = SqlLimits { memory_bytes: 4 << 20, ..SqlLimits::default() };
    let store = open_with(StoreSettings { sql: limits, ..settings(directory.path()) });
    filled(&store, 600).await;
    let windowed = "SELECT max(x.l) FROM (SELECT a.Timestamp AS l, b.Timestamp AS r, sum(1) OVER () AS n FROM otel_logs a, otel_logs b) x \
                    WHERE x.n > 1 AND x.r > x.l";
    let refused = survives(&store, windowed).await.unwrap_err();
    assert!(refused.contains("more memory"), "{refused}");
    let small = "SELECT Body, sum(1) OVER () FROM otel_logs ORDER BY Body LIMIT 1";
    let asked = SqlRequest { statement: small.into(), max_rows: 10 };
    assert_eq!(json!(source(&store).sql(&permit(everything()), &asked).await.unwrap().rows), json!([["line 0", 600]]));
}

/// More statements of one principal than it may have, each too long for its time: all are told so in time, and others' and
/// questions of another kind are not held up by them.
#[tokio::test(flavor = "multi_thread")]
async fn statements_that_take_too_long_hold_up_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let limits = SqlLimits { time: Duration::from_secs(4), ..SqlLimits::default() };
    let store = open_with(StoreSettings { sql: limits, ..settings(directory.path()) });
    for part in 0..40 {
        ingest_logs(&store, &logs("cart", (0..1_000).map(|n| log(n, 9, &format!("line {part} {n}"))).collect())).await;
    }
    // All rows have one service, so the join multiplies.
    let slow =
        "SELECT sum(a.SeverityNumber * b.SeverityNumber) FROM otel_logs a JOIN otel_logs b ON a.ServiceName = b.ServiceName";
    let ask = |name: &'static str, scope: Scope, statement: &str| {
        let (store, asked) = (store.clone(), SqlRequest { statement: statement.into(), max_rows: 10 });
        tokio::spawn(async move {
            let began = Instant::now();
            let permit = permit_of(name, scope, Duration::from_mins(1));
            (source(&store).sql(&permit, &asked).await, began.elapsed())
        })
    };
    let counted = "SELECT count(*) FROM otel_logs";
    let waiting: Vec<_> = (0..8).map(|_| ask("busy", everything(), slow)).collect();
    let began = Instant::now();
    source(&store).services(&permit(everything()), window()).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // Another principal of the tenant has a place, and so has another tenant.
    let (colleague, _) = ask("colleague", everything(), counted).await.unwrap();
    assert_eq!(json!(colleague.unwrap().rows), json!([[40_000]]));
    let (stranger, _) = ask("stranger", Scope::tenant_wide(tenant("other")), counted).await.unwrap();
    assert_eq!(json!(stranger.unwrap().rows), json!([[0]]));
    let mut codes = Vec::new();
    for statement in waiting {
        let (outcome, took) = statement.await.unwrap();
        let fault = outcome.unwrap_err();
        codes.push(fault.code());
        assert!(took < Duration::from_secs(10), "{took:?}");
        if fault.code() == FaultCode::RateLimited {
            assert!(fault.message().contains("2 sql statements under way") && fault.retry_after_seconds().is_some(), "{fault}");
        }
    }
    let late = codes.iter().filter(|code| **code == FaultCode::DeadlineExceeded).count();
    let crowded = codes.iter().filter(|code| **code == FaultCode::RateLimited).count();
    assert_eq!((late, crowded), (2, 6), "{codes:?}");
    // Their places come back when they have ended.
    let until = Instant::now() + Duration::from_secs(30);
    let rows = loop {
        match ask("busy", everything(), counted).await.unwrap().0 {
            Ok(answer) => break answer.rows,
            Err(fault) => assert!(Instant::now() < until, "no place came back: {fault}"),
        }
    };
    assert_eq!(json!(rows), json!([[40_000]]));
    let compared = "SELECT count(*) FROM otel_logs a, otel_logs b WHERE a.Body < lower(b.Body)";
    assert!(survives(&store, compared).await.unwrap_err().contains("pairs of rows"));
}
