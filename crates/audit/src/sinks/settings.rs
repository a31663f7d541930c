//! The list `audit.sinks` of the configuration. Guards that a sink that could not work, or that would send records in
//! clear text to another machine, is refused when the configuration is read.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use portcullis_config::Span;
use portcullis_egress::{AllowedRange, TlsSettings, origin_of};
use portcullis_model::{Secret, SecretReference};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::AuditError;

/// Shortest secret that signs what a webhook gets, in bytes.
const SHORTEST_SECRET: usize = 16;
/// Most records in one delivery.
const LARGEST_BATCH: usize = 10_000;
/// Longest time for one delivery.
const LONGEST_TIMEOUT: Duration = Duration::from_mins(5);

/// One more place that gets the audit records. The files stay the truth: a sink is fed from them, at its own speed, at
/// least once, and goes on where it was after a restart. `log` and `seq` of a record tell a repeated one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SinkSettings {
    /// Unique among the sinks; part of the name of its cursor file. Letters, digits, `_`, `.` and `-`.
    pub name: String,
    /// Where the records go.
    pub to: SinkTarget,
    /// With `true`, calls stop while the sink is further behind than `max_lag`, as they do when the log cannot be
    /// written; retention keeps every file the sink has not got yet; and records it refuses are tried again rather than
    /// set aside.
    #[serde(default)]
    pub required: bool,
    /// How far a required sink may fall behind.
    #[serde(default)]
    pub max_lag: LagSettings,
    /// Where a sink begins that has never been fed.
    #[serde(default)]
    pub begin: SinkBegin,
}

/// How far a required sink may fall behind; whichever is reached first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LagSettings {
    /// Records it has not got.
    pub records: u64,
    /// Age of the oldest of them.
    pub age: Span,
}

impl Default for LagSettings {
    fn default() -> Self {
        Self { records: 10_000, age: Span(Duration::from_mins(5)) }
    }
}

/// Where a sink begins that has never been fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SinkBegin {
    /// With the oldest record that is kept.
    #[default]
    Oldest,
    /// With the next one.
    Now,
}

/// Where records go. Syslog over TCP, UDP or TLS is not offered: only HTTP through the egress room may leave this
/// machine. Let the local syslog daemon forward, or use `otlp` or `webhook`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SinkTarget {
    /// Standard error, one JSON object per line.
    Stderr,
    /// An HTTP endpoint of your own.
    Webhook(WebhookSettings),
    /// OTLP logs over HTTP, as JSON.
    Otlp(OtlpSettings),
    /// RFC 5424 messages, to the syslog daemon of this machine or to standard error.
    Syslog(SyslogSettings),
}

impl SinkTarget {
    /// The name of the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Stderr => "stderr",
            Self::Webhook(_) => "webhook",
            Self::Otlp(_) => "otlp",
            Self::Syslog(_) => "syslog",
        }
    }
}

/// Records as `{"sink":…,"records":[…]}` by POST. The header `X-Portcullis-Signature` holds `v1=` and the hexadecimal
/// HMAC-SHA-256 under the secret over the value of `X-Portcullis-Timestamp` (seconds since 1970), a dot, and the body.
/// Check it, and refuse time stamps that are more than five minutes old. Answer with 2xx once the records are safe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    /// `https://…`; `http://` only for this machine.
    pub url: String,
    /// Secret of the signature, at least 16 characters: a value (usually `${VAR}`) or a reference, as `file:/path`.
    #[schemars(with = "String")]
    pub secret: SecretReference,
    /// Most records in one request.
    #[serde(default = "batch")]
    pub batch: usize,
    /// Time for one request.
    #[serde(default = "timeout")]
    pub timeout: Span,
    /// Address ranges besides public ones that the host may be in: `loopback`, `private`, `shared` or a network.
    #[serde(default)]
    pub allow_addresses: Vec<AllowedRange>,
    /// TLS towards the host.
    #[serde(default)]
    pub tls: TlsSettings,
}

/// Where OTLP logs go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OtlpSettings {
    /// The whole URL, such as `https://collector.example.com/v1/logs`; `http://` only for this machine.
    pub url: String,
    /// Bearer token, where the receiver wants one: a value or a reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub token: Option<SecretReference>,
    /// Most records in one request.
    #[serde(default = "batch")]
    pub batch: usize,
    /// Time for one request.
    #[serde(default = "timeout")]
    pub timeout: Span,
    /// Address ranges besides public ones that the host may be in: `loopback`, `private`, `shared` or a network.
    #[serde(default)]
    pub allow_addresses: Vec<AllowedRange>,
    /// TLS towards the host.
    #[serde(default)]
    pub tls: TlsSettings,
}

/// How syslog messages leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SyslogSettings {
    /// By which way.
    pub transport: SyslogTransport,
    /// The datagram socket of the local daemon.
    pub socket: PathBuf,
}

impl Default for SyslogSettings {
    fn default() -> Self {
        Self { transport: SyslogTransport::default(), socket: PathBuf::from("/dev/log") }
    }
}

/// By which way syslog messages leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SyslogTransport {
    /// One datagram per record to the local daemon.
    #[default]
    Socket,
    /// One line per record to standard error.
    Stderr,
}

fn batch() -> usize {
    500
}

fn timeout() -> Span {
    Span(Duration::from_secs(10))
}

/// Checks a list of sinks.
pub(crate) fn check(sinks: &[SinkSettings]) -> Result<(), AuditError> {
    let mut names = BTreeSet::new();
    for sink in sinks {
        let wrong = |reason: String| AuditError::Settings(format!("sinks: '{}': {reason}", sink.name));
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if !(1..=64).contains(&sink.name.len()) || !sink.name.bytes().all(plain) {
            return Err(wrong("a name has 1 to 64 letters, digits, '_', '.' or '-'".to_owned()));
        }
        if !names.insert(&sink.name) {
            return Err(wrong("there is another sink of this name".to_owned()));
        }
        if sink.required && (sink.max_lag.records == 0 || sink.max_lag.age.0.is_zero()) {
            return Err(wrong("max_lag.records and max_lag.age must be above zero: no record arrives in no time".to_owned()));
        }
        match &sink.to {
            SinkTarget::Stderr | SinkTarget::Syslog(_) => {}
            SinkTarget::Webhook(webhook) => {
                check_http(&webhook.url, webhook.batch, webhook.timeout).map_err(wrong)?;
                // What a reference stands for is looked at when it is used.
                if let SecretReference::Literal(secret) = &webhook.secret {
                    long_enough(secret).map_err(wrong)?;
                }
            }
            SinkTarget::Otlp(otlp) => check_http(&otlp.url, otlp.batch, otlp.timeout).map_err(wrong)?,
        }
    }
    Ok(())
}

/// A short secret can be guessed from one signature.
pub(super) fn long_enough(secret: &Secret) -> Result<(), String> {
    if secret.expose().trim_end().len() < SHORTEST_SECRET {
        return Err(format!("secret must have at least {SHORTEST_SECRET} characters"));
    }
    Ok(())
}

fn check_http(url: &str, batch: usize, timeout: Span) -> Result<(), String> {
    let origin = origin_of(url).map_err(|e| format!("url: {e}"))?;
    if !origin.starts_with("https://") && !is_loopback(&origin) {
        return Err("url: use https; http is only accepted for this machine, because records name persons".to_owned());
    }
    if !(1..=LARGEST_BATCH).contains(&batch) {
        return Err(format!("batch must be 1 to {LARGEST_BATCH}"));
    }
    if timeout.0.is_zero() || timeout.0 > LONGEST_TIMEOUT {
        return Err(format!("timeout must be 1s to {} s", LONGEST_TIMEOUT.as_secs()));
    }
    Ok(())
}

/// Whether an origin is `http` on this machine.
pub(super) fn is_loopback(origin: &str) -> bool {
    let Some((host, _port)) = origin.strip_prefix("http://").and_then(|rest| rest.rsplit_once(':')) else { return false };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<SinkSettings>, String> {
        let sinks: Vec<SinkSettings> = serde_json::from_str(text).map_err(|e| e.to_string())?;
        check(&sinks).map_err(|e| e.to_string())?;
        Ok(sinks)
    }

    #[test]
    fn sinks_are_read_with_their_defaults_and_secrets_are_not_written_back() {
        let sinks = read(
            r#"[{"name":"err","to":"stderr"},
                {"name":"siem","to":{"webhook":{"url":"https://siem.example.com/in","secret":"0123456789abcdef"}},"required":true},
                {"name":"otel","to":{"otlp":{"url":"http://127.0.0.1:4318/v1/logs"}},"begin":"now"},
                {"name":"local","to":{"syslog":{}}}]"#,
        )
        .unwrap();
        assert_eq!(sinks.iter().map(|s| s.to.kind()).collect::<Vec<_>>(), ["stderr", "webhook", "otlp", "syslog"]);
        let SinkTarget::Webhook(webhook) = &sinks[1].to else { panic!("{sinks:?}") };
        assert_eq!((webhook.batch, webhook.timeout.0), (500, Duration::from_secs(10)));
        assert_eq!((sinks[1].max_lag.records, sinks[0].begin), (10_000, SinkBegin::Oldest));
        let SinkTarget::Syslog(syslog) = &sinks[3].to else { panic!("{sinks:?}") };
        assert_eq!((syslog.transport, syslog.socket.to_str()), (SyslogTransport::Socket, Some("/dev/log")));
        let shown = format!("{sinks:?}{}", serde_json::to_string(&sinks).unwrap());
        assert!(!shown.contains("0123456789abcdef"), "{shown}");
    }

    #[test]
    fn a_secret_may_be_a_reference() {
        let sinks = read(
            r#"[{"name":"siem","to":{"webhook":{"url":"https://siem.example.com/in","secret":"file:/run/secrets/siem"}}},
                {"name":"otel","to":{"otlp":{"url":"https://otel.example.com/v1/logs","token":"env:TOKEN"}}}]"#,
        )
        .unwrap();
        let SinkTarget::Webhook(webhook) = &sinks[0].to else { panic!("{sinks:?}") };
        assert!(matches!(&webhook.secret, SecretReference::File(path) if path.to_str() == Some("/run/secrets/siem")));
        let SinkTarget::Otlp(otlp) = &sinks[1].to else { panic!("{sinks:?}") };
        assert!(!matches!(otlp.token, None | Some(SecretReference::Literal(_))));
    }

    #[test]
    fn what_cannot_work_or_is_not_safe_is_refused_with_what_would_be_right() {
        let webhook = |url: &str, more: &str| {
            format!(r#"[{{"name":"a","to":{{"webhook":{{"url":"{url}","secret":"0123456789abcdef"{more}}}}}}}]"#)
        };
        for (text, says) in [
            (webhook("http://siem.example.com/", ""), "use https"),
            (webhook("http://10.0.0.1/", ""), "use https"),
            (webhook("siem", ""), "url"),
            (webhook("https://siem.example.com/", r#","batch":0"#), "batch must be 1"),
            (webhook("https://siem.example.com/", r#","timeout":"1h""#), "timeout must be"),
            (webhook("https://siem.example.com/", r#","verify_tls":false"#), "unknown field"),
            (webhook("https://siem.example.com/", "").replace("0123456789abcdef", "short"), "at least 16"),
            (r#"[{"name":"a","to":{"syslog":{"transport":"tcp"}}}]"#.to_owned(), "unknown variant"),
            (r#"[{"name":"../a","to":"stderr"}]"#.to_owned(), "1 to 64 letters"),
            (r#"[{"name":"a","to":"stderr"},{"name":"a","to":"stderr"}]"#.to_owned(), "another sink"),
            (r#"[{"name":"a","to":"stderr","required":true,"max_lag":{"records":0}}]"#.to_owned(), "above zero"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
