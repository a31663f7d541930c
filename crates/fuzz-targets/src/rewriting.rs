//! Queries of callers, confined to a scope: what comes out must still be confined, whatever went in.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use portcullis_model::{ManualClock, NameSet, Scope, SourceName, TenantId, Timestamp};
use portcullis_policy::{Budget, CharterGrant, Permit, Policies, Vocabulary};
use portcullis_ports::{Source as _, SqlRequest};
use portcullis_query::promql::LabelName;
use portcullis_query::{Confinement, ScopeLabels, confine_promql, promql_info};
use portcullis_telemetry::{EmbeddedSource, Encoding, OtlpSignal, SqlLimits, StatementHost, Store, StoreSettings, answer_on};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::{Target, Verdict};

pub(crate) const PROMQL: Target = Target {
    name: "promql",
    promise: "every selector of a confined query carries the scope's matcher, and confining it again changes nothing",
    seeds: &[
        "sum by (pod) (rate(http_requests_total{code=~\"5..\"}[5m])) / on(pod) group_left sum(rate(http_requests_total[5m]))",
        "histogram_quantile(0.99, sum by (le) (rate(latency_bucket[5m])))",
        "up{service_name=\"payment\"} or vector(1)",
        "max_over_time(rate(x[5m])[1h:1m] offset 1d) @ end()",
        "{__name__=~\".+\"}",
        "label_replace(up, \"a\", \"$1\", \"b\", \"(.*)\") unless absent(down)",
        "x{a=\"\\\"}\", b!=`c`} # comment\n+ -y ^ 2",
        "topk(3, {\"utf8.metric\", \"la bel\"=\"x\"})",
    ],
    words: &[
        "{",
        "}",
        "[5m]",
        "[1h:]",
        "(",
        ")",
        "sum",
        " by (",
        "rate(",
        " offset 5m",
        " @ 1",
        "\"",
        "`",
        "'",
        "\\",
        "=~",
        "!~",
        "!=",
        " or ",
        " and ",
        " unless ",
        "service_name=",
        "#",
        "\n",
        "info(",
        "1e",
        "0x",
        "Inf",
        ",",
        "__name__",
    ],
    run: promql,
};

fn scope() -> Scope {
    Scope { services: NameSet::only(["cart"]), ..Scope::tenant_wide(TenantId::default_tenant()) }
}

static CONFINEMENT: LazyLock<Confinement> = LazyLock::new(|| {
    let label = LabelName::new("service_name").unwrap_or_else(|e| panic!("a label: {e}"));
    let labels = ScopeLabels { tenant: None, service: Some(label), namespace: None };
    Confinement::of_scope(&scope(), &labels).unwrap_or_else(|e| panic!("the scope of the target: {e}"))
});

fn promql(bytes: &[u8]) -> Verdict {
    let raw = String::from_utf8_lossy(bytes);
    match confine_promql(&raw, &CONFINEMENT) {
        Ok(confined) => {
            let info = promql_info(&confined).unwrap_or_else(|e| panic!("{confined} cannot be read again: {e}"));
            let carried =
                ["service_name=\"cart\"", "service_name=~\"cart\""].iter().map(|m| confined.matches(m).count()).sum::<usize>();
            assert!(carried >= info.selectors, "{} selectors and {carried} matchers: {confined}", info.selectors);
            match confine_promql(&confined, &CONFINEMENT) {
                Ok(again) => {
                    let twice = promql_info(&again).unwrap_or_else(|e| panic!("{again} cannot be read again: {e}"));
                    assert_eq!(twice, info, "confined twice: {again}");
                }
                // Only the length may stop the second time: matchers were added once already.
                Err(error) => assert!(confined.len() > 8_192, "{confined} is refused the second time: {error}"),
            }
            Verdict::accepted()
        }
        Err(error) => Verdict::refused(error),
    }
}

/// A piece of a seed, eight times.
macro_rules! eight {
    ($text:expr) => {
        concat!($text, $text, $text, $text, $text, $text, $text, $text)
    };
}

pub(crate) const SQL: Target = Target {
    name: "sql",
    promise: "one reading statement is answered within its limits, with rows of the scope only; everything else is refused",
    seeds: &[
        "SELECT Body, count(*) AS n FROM otel_logs GROUP BY Body ORDER BY n DESC LIMIT 5",
        "WITH a AS (SELECT * FROM otel_logs) SELECT l.Body FROM a l JOIN otel_logs r ON l.TraceId = r.TraceId WHERE r.ServiceName = 'payment'",
        "SELECT LogAttributes['k'], upper(Body) || 'x' FROM otel_logs WHERE Body LIKE '%line%' OR 1=1 -- x",
        "SELECT (SELECT max(Body) FROM otel_logs), EXISTS (SELECT 1 FROM otel_logs WHERE ServiceName='payment')",
        "SELECT Body FROM otel_logs UNION ALL SELECT SpanName FROM otel_traces",
        "SELECT sum(SeverityNumber) OVER (PARTITION BY ServiceName ORDER BY Timestamp) FROM otel_logs",
        "DROP TABLE otel_logs; SELECT 1",
        "SELECT repeat(Body, 1000000000) FROM otel_logs, otel_logs b, otel_logs c",
        "EXPLAIN ANALYZE SELECT * FROM information_schema.tables",
        "COPY otel_logs TO 'x.parquet'",
        // Deep trees, what can be read in ever more ways, and statements that multiply what they read.
        concat!("SELECT ", eight!(eight!("CASE WHEN end THEN ")), "1"),
        concat!("SELECT ", eight!(eight!("NOT - a = ")), "1"),
        concat!("SELECT 1", eight!(eight!(" IS NULL"))),
        concat!("SELECT 1 WHERE 1=1", eight!(eight!(" OR 1=1")), eight!(eight!(" OR 1=1"))),
        concat!("SELECT ", eight!(eight!("CASE WHEN true THEN ")), "1", eight!(eight!(" END"))),
        concat!("SELECT ", eight!("(SELECT "), "1", eight!(")")),
        concat!("SELECT 1", eight!(eight!("::int"))),
        concat!("SELECT 1::int", eight!(eight!("[]"))),
        concat!("SELECT 1", eight!(eight!("+1")), eight!(eight!("+1"))),
        concat!("SELECT 1", eight!(eight!(" UNION ALL SELECT 1"))),
        concat!("SELECT LogAttributes", eight!(eight!("['a']")), " FROM otel_logs"),
        concat!("SELECT CAST(NULL AS ", eight!(eight!("ARRAY<")), "INT"),
        "WITH a AS (SELECT SeverityNumber+SeverityNumber AS n FROM otel_logs), b AS (SELECT n+n AS n FROM a) SELECT 1 FROM b WHERE n > 1",
        "SELECT array_length(array_agg(a.Body)) FROM otel_logs a, otel_logs b, otel_logs c",
        "SELECT max(a.Body) OVER () FROM otel_logs a, otel_logs b WHERE a.Body < b.Body",
    ],
    words: &[
        "SELECT ",
        " FROM otel_logs ",
        " WHERE ",
        " UNION ALL ",
        " JOIN otel_traces ON ",
        "(",
        ")",
        "'",
        "\"",
        "--",
        "/*",
        ";",
        " AND ",
        " OR ",
        "NOT ",
        "NULL",
        " LIKE '%'",
        " CASE WHEN ",
        " END ",
        "count(*)",
        " GROUP BY ",
        " HAVING ",
        " LIMIT 1",
        "CAST(",
        " AS BIGINT)",
        "ServiceName",
        "Body",
        "Timestamp",
        "INTERVAL '1 day'",
        "[1]",
        "unnest(",
        " LATERAL ",
        "VALUES (1)",
        "1/0",
        "9223372036854775807",
        eight!(" IS NULL"),
        eight!("::int"),
        eight!("+1"),
        eight!(" OR true"),
        " OVER (ORDER BY Timestamp)",
    ],
    run: sql,
};

/// A word only the service outside of the scope has written.
const FOREIGN: &str = "zebra";

struct Database {
    runtime: Runtime,
    source: EmbeddedSource,
    permit: Permit,
    _directory: tempfile::TempDir,
}

static DATABASE: LazyLock<Mutex<Database>> =
    LazyLock::new(|| Mutex::new(database().unwrap_or_else(|e| panic!("the store of the target: {e}"))));

/// Statements of this target are answered here: what goes wrong with one is then a finding, with its input.
#[derive(Debug)]
struct Here;

impl StatementHost for Here {
    fn start(&self, line: UnixStream) -> std::io::Result<Option<tokio::process::Child>> {
        let answered = || answer_on(line, |_| Err("this target scrubs nothing".to_owned()));
        std::thread::Builder::new().spawn(answered).map(|_| None)
    }
}

fn database() -> Result<Database, Box<dyn std::error::Error>> {
    const NOW: i64 = 1_772_359_200_000_000_000;
    let directory = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut settings = StoreSettings::new(directory.path());
    settings.sql =
        SqlLimits { time: Duration::from_secs(1), memory_bytes: 16 << 20, result_bytes: 1 << 20, ..SqlLimits::default() };
    settings.statements = Some(Arc::new(Here));
    let clock = Arc::new(ManualClock::new(Timestamp::from_nanos(NOW)));
    let store = {
        let _inside = runtime.enter();
        Store::open(settings, clock)?
    };
    for (service, word) in [("cart", "apple"), ("payment", FOREIGN)] {
        let records: Vec<_> = (0..20_i64)
            .map(|n| {
                json!({
                    "timeUnixNano": (NOW - n * 1_000_000_000).to_string(), "severityNumber": 9,
                    "body": {"stringValue": format!("{word} line {n}")},
                    "attributes": [{"key": "k", "value": {"stringValue": word}}],
                })
            })
            .collect();
        let resource = json!({"attributes": [{"key": "service.name", "value": {"stringValue": service}}]});
        let request = json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]});
        let bytes = serde_json::to_vec(&request)?;
        runtime.block_on(store.ingest(TenantId::default_tenant(), OtlpSignal::Logs, Encoding::Json, bytes.into()))?;
    }
    let policies = Policies::load(&[], &Vocabulary::default(), 1)?;
    let grant = CharterGrant {
        name: "fuzz".into(),
        destinations: BTreeSet::new(),
        scope: scope(),
        time_limit: Duration::from_hours(24),
        budget: Budget::default(),
    };
    let permit = policies.charter(grant)?.permit();
    Ok(Database { runtime, source: EmbeddedSource::new(SourceName::new("store")?, store), permit, _directory: directory })
}

fn sql(bytes: &[u8]) -> Verdict {
    let statement = String::from_utf8_lossy(bytes).into_owned();
    let asked_for_it = statement.to_lowercase();
    let database = DATABASE.lock().unwrap_or_else(PoisonError::into_inner);
    let request = SqlRequest { statement, max_rows: 100 };
    match database.runtime.block_on(database.source.sql(&database.permit, &request)) {
        Ok(answer) => {
            assert!(answer.rows.len() <= 100, "{} rows", answer.rows.len());
            let text = serde_json::to_string(&answer.rows).unwrap_or_default().to_lowercase();
            assert!(!text.contains(FOREIGN) || asked_for_it.contains(FOREIGN), "a row of a foreign service: {text}");
            Verdict::accepted()
        }
        Err(fault) => {
            let said = format!("{} {}", fault.message(), fault.internal().unwrap_or_default());
            assert!(!said.contains("panicked") && !said.contains("ended its own process"), "{said}");
            Verdict::refused(fault.message())
        }
    }
}
