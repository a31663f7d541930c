//! Handing a batch over, once. Guards that nothing counts as delivered without the receiver's word, and that HTTP goes
//! through egress under the sink's own charter. Must not wait or try again; that is for the shipper.

use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use portcullis_egress::{
    AddressPolicy, AllowedRange, Authentication, Credential, EgressClient, EgressConfig, EgressRequest, EgressResponse,
    SecretResolver, origin_of,
};
use portcullis_model::{Clock, Scope, Secret, TenantId};
use portcullis_policy::{Budget, Charter, CharterGrant};
use serde_json::Value;
use sha2::Sha256;

use super::MakeCharter;
use super::format::{host_name, json_line, otlp_body, syslog_message, webhook_body};
use super::settings::{SinkSettings, SinkTarget, SyslogTransport, is_loopback, long_enough};
use crate::AuditError;
use crate::read::Record;
use crate::seal::hex_of;

/// Largest answer of a receiver.
const MAX_ANSWER: u64 = 64 << 10;
/// How long the local syslog daemon may keep us waiting for one datagram.
const DATAGRAM_TIME: Duration = Duration::from_secs(5);
/// Most records at a time where every record is handed over by itself.
const LOCAL_BATCH: usize = 500;

/// Where records go, ready to be used.
#[derive(Debug)]
pub(super) enum Target {
    Stderr,
    Webhook { client: EgressClient, charter: Charter, secret: Credential },
    Otlp { client: EgressClient, charter: Charter },
    SyslogSocket { socket: PathBuf, host: String },
    SyslogStderr { host: String },
}

/// The receiver's word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Taken {
    /// Records of the batch that it refused for good, though it took the others.
    pub(super) rejected: u64,
    /// Why.
    pub(super) reason: Option<String>,
}

/// Why a batch was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It may be taken later, not before `after` where the receiver says so.
    Later { reason: String, after: Option<Duration> },
    /// A smaller one may be taken.
    TooLarge { reason: String },
    /// It will never be taken.
    Never { reason: String },
}

impl Target {
    /// Makes the target; nothing is sent to find out whether it works.
    pub(super) fn new(
        sink: &SinkSettings,
        charter: &mut MakeCharter<'_>,
        secrets: &dyn SecretResolver,
    ) -> Result<(Self, usize), AuditError> {
        let wrong = |reason: String| AuditError::Settings(format!("sinks: '{}': {reason}", sink.name));
        Ok(match &sink.to {
            SinkTarget::Stderr => (Self::Stderr, LOCAL_BATCH),
            SinkTarget::Syslog(syslog) => {
                let host = host_name(&std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default());
                let target = match syslog.transport {
                    SyslogTransport::Socket => Self::SyslogSocket { socket: syslog.socket.clone(), host },
                    SyslogTransport::Stderr => Self::SyslogStderr { host },
                };
                (target, LOCAL_BATCH)
            }
            SinkTarget::Webhook(webhook) => {
                let mut config = http(&sink.name, &webhook.url, &webhook.allow_addresses, webhook.timeout.0).map_err(wrong)?;
                config.tls = webhook.tls.clone().into();
                let (client, charter) = client(&sink.name, config, charter).map_err(wrong)?;
                let secret = secrets.credential(&webhook.secret).map_err(|fault| wrong(format!("secret: {fault}")))?;
                (Self::Webhook { client, charter, secret }, webhook.batch)
            }
            SinkTarget::Otlp(otlp) => {
                let mut config = http(&sink.name, &otlp.url, &otlp.allow_addresses, otlp.timeout.0).map_err(wrong)?;
                config.tls = otlp.tls.clone().into();
                if let Some(token) = &otlp.token {
                    let token = secrets.credential(token).map_err(|fault| wrong(format!("token: {fault}")))?;
                    config.authentication = Authentication::Bearer(token);
                }
                let (client, charter) = client(&sink.name, config, charter).map_err(wrong)?;
                (Self::Otlp { client, charter }, otlp.batch)
            }
        })
    }

    /// Hands the batch over.
    pub(super) async fn deliver(&self, sink: &str, records: &Arc<Vec<Record>>, clock: &dyn Clock) -> Result<Taken, Failure> {
        match self {
            Self::Stderr => locally(records, |records| lines(records, json_line)).await,
            Self::SyslogStderr { host } => {
                let host = host.clone();
                locally(records, move |records| lines(records, |r| syslog_message(r, &host, std::process::id()))).await
            }
            Self::SyslogSocket { socket, host } => {
                let (socket, host) = (socket.clone(), host.clone());
                locally(records, move |records| datagrams(records, &socket, &host)).await
            }
            Self::Webhook { client, charter, secret } => {
                let body = webhook_body(sink, records);
                let time = clock.now().as_nanos().div_euclid(1_000_000_000);
                // One that expired or cannot be had signs nothing.
                let secret = secret.current().await.map_err(|fault| later(fault.to_string()))?;
                long_enough(&secret).map_err(later)?;
                let signature = signature(&secret, time, &body);
                let request = EgressRequest::post(Vec::<String>::new())
                    .bytes("application/json", body.into())
                    .header("x-portcullis-timestamp", time.to_string())
                    .header("x-portcullis-signature", signature);
                let answer = client.send(&charter.permit(), request).await;
                judged(&answer.map_err(|e| later(e.to_string()))?).map(|()| Taken::default())
            }
            Self::Otlp { client, charter } => {
                let body = otlp_body(records, clock.now()).to_string().into_bytes();
                let request = EgressRequest::post(Vec::<String>::new()).bytes("application/json", body.into());
                let answer = client.send(&charter.permit(), request).await.map_err(|e| later(e.to_string()))?;
                judged(&answer)?;
                Ok(partial_success(&answer.body, records.len() as u64))
            }
        }
    }
}

/// `v1=` and HMAC-SHA-256 over the time stamp, a dot and the body.
pub(super) fn signature(secret: &Secret, time: i64, body: &[u8]) -> String {
    // HMAC takes keys of any length (RFC 2104); an error cannot come, and an empty signature would be refused.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose().trim_end().as_bytes()) else { return String::new() };
    mac.update(time.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("v1={}", hex_of(&mac.finalize().into_bytes()))
}

fn http(name: &str, url: &str, allowed: &[AllowedRange], timeout: Duration) -> Result<EgressConfig, String> {
    let origin = origin_of(url).map_err(|e| e.to_string())?;
    let mut config = EgressConfig::new(format!("sink:{name}"), url);
    // http is only spoken to this machine, whatever its name resolves to.
    let ranges = if is_loopback(&origin) { vec![AllowedRange::Loopback] } else { allowed.to_vec() };
    config.addresses = AddressPolicy::new(ranges);
    config.max_response_bytes = MAX_ANSWER;
    config.concurrency = 1;
    config.read_timeout = timeout;
    // The shipper has a pace of its own.
    config.breaker_failures = 0;
    Ok(config)
}

fn client(name: &str, config: EgressConfig, charter: &mut MakeCharter<'_>) -> Result<(EgressClient, Charter), String> {
    let time_limit = config.read_timeout;
    let client = EgressClient::new(config).map_err(|e| e.to_string())?;
    let charter = charter(CharterGrant {
        name: Arc::from(format!("sink:{name}")),
        destinations: [client.origin().to_owned()].into(),
        scope: Scope::tenant_wide(TenantId::default_tenant()),
        time_limit,
        budget: Budget { backend_bytes: MAX_ANSWER, ..Budget::default() },
    });
    Ok((client, charter.map_err(|e| e.to_string())?))
}

fn later(reason: String) -> Failure {
    Failure::Later { reason, after: None }
}

/// What a status means (RFC 9110 section 15): 2xx is the receiver's word; 408, 429, 5xx and what is no answer to a POST
/// may pass; every other 4xx will be the same tomorrow.
fn judged(answer: &EgressResponse) -> Result<(), Failure> {
    let status = answer.status.as_u16();
    let reason = format!("the receiver answered with status {status}");
    match status {
        200..=299 => Ok(()),
        413 => Err(Failure::TooLarge { reason }),
        408 | 429 => Err(Failure::Later { reason, after: answer.retry_after_seconds().map(Duration::from_secs) }),
        400..=499 => Err(Failure::Never { reason }),
        _ => Err(Failure::Later { reason, after: answer.retry_after_seconds().map(Duration::from_secs) }),
    }
}

/// Records an OTLP receiver dropped while taking the others (`ExportLogsPartialSuccess`); they must not be sent again.
fn partial_success(body: &[u8], sent: u64) -> Taken {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let partial = &answer["partialSuccess"];
    let rejected = &partial["rejectedLogRecords"];
    let rejected = rejected.as_u64().or_else(|| rejected.as_str().and_then(|text| text.parse().ok())).unwrap_or(0).min(sent);
    // Its own words stay out of the log: they may repeat what was sent.
    let reason = (rejected > 0).then(|| format!("the receiver dropped {rejected} of {sent} records"));
    Taken { rejected, reason }
}

/// Runs what may block on a thread that may.
async fn locally(
    records: &Arc<Vec<Record>>,
    write: impl FnOnce(&[Record]) -> io::Result<Taken> + Send + 'static,
) -> Result<Taken, Failure> {
    let records = Arc::clone(records);
    match tokio::task::spawn_blocking(move || write(&records)).await {
        Ok(written) => written.map_err(|e| later(e.to_string())),
        Err(ended) => Err(later(format!("the writer ended: {ended}"))),
    }
}

fn lines(records: &[Record], form: impl Fn(&Record) -> String) -> io::Result<Taken> {
    let mut out = io::stderr().lock();
    for record in records {
        // One write per line, so that lines of the server's own log do not come between.
        out.write_all(format!("{}\n", form(record)).as_bytes())?;
    }
    out.flush()?;
    Ok(Taken::default())
}

#[expect(clippy::disallowed_methods, reason = "the socket of syslog is a file of this machine: nothing leaves it")]
fn datagrams(records: &[Record], socket: &std::path::Path, host: &str) -> io::Result<Taken> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", socket.display()));
    let out = UnixDatagram::unbound()?;
    out.connect(socket).map_err(named)?;
    out.set_write_timeout(Some(DATAGRAM_TIME))?;
    let mut taken = Taken::default();
    for record in records {
        match out.send(syslog_message(record, host, std::process::id()).as_bytes()) {
            Ok(_) => {}
            // It will not get smaller.
            Err(error) if error.raw_os_error() == Some(MESSAGE_SIZE) => {
                taken.rejected += 1;
                taken.reason = Some(format!("record {} is too long for a datagram", record.position()));
            }
            Err(error) => return Err(named(error)),
        }
    }
    Ok(taken)
}

/// `EMSGSIZE` on Linux.
const MESSAGE_SIZE: i32 = 90;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{AuditEvent, EventKind};
    use portcullis_model::Timestamp;

    #[test]
    fn signatures_are_what_a_receiver_computes() {
        // openssl: printf '1800000000.{}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let secret = Secret::new("0123456789abcdef\n");
        let signed = signature(&secret, 1_800_000_000, b"{}");
        assert_eq!(signed, "v1=1313ae9c874eb1a0868ad0b65f841c4243c23fdcfad69a3ada227726fad9960e");
        assert_ne!(signature(&secret, 1_800_000_001, b"{}"), signed);
        assert_ne!(signature(&secret, 1_800_000_000, b"{ }"), signed);
    }

    #[test]
    fn what_an_otlp_receiver_drops_is_read() {
        let taken = |text: &str| partial_success(text.as_bytes(), 10);
        assert_eq!(taken("{}"), Taken::default());
        assert_eq!(taken(""), Taken::default());
        assert_eq!(taken(r#"{"partialSuccess":{}}"#), Taken::default());
        assert_eq!(taken(r#"{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"too old"}}"#).rejected, 3);
        let all = taken(r#"{"partialSuccess":{"rejectedLogRecords":99,"errorMessage":"too old"}}"#);
        assert_eq!((all.rejected, all.reason.unwrap().contains("too old")), (10, false));
    }

    #[test]
    fn the_local_daemon_gets_one_datagram_per_record() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let record = |tool: String| Record {
            chain: "audit-a".into(),
            sequence: 7,
            time: Timestamp::from_seconds(1_800_000_000),
            event: AuditEvent { tool: Some(tool.into()), ..AuditEvent::new(EventKind::Call) },
            line: String::new(),
        };
        let absent = datagrams(&[record("a".into())], &path, "h").unwrap_err();
        assert!(absent.to_string().contains(path.to_str().unwrap()), "{absent}");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let taken = datagrams(&[record("a".into()), record("x".repeat(4 << 20)), record("b".into())], &path, "h").unwrap();
        assert_eq!(taken.rejected, 1, "what is too long is said: {taken:?}");
        daemon.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for tool in ["a", "b"] {
            let mut buffer = [0; 4096];
            let length = daemon.recv(&mut buffer).unwrap();
            let text = std::str::from_utf8(&buffer[..length]).unwrap();
            assert!(text.starts_with("<110>1 ") && text.contains(&format!("\"tool\":\"{tool}\"")), "{text}");
        }
    }
}
