//! The requests of the Prometheus HTTP API (<https://prometheus.io/docs/prometheus/latest/querying/api/>) and what their
//! failures mean. Guards that a failure never looks like an empty answer. Must not decide what may be asked.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_egress::{EgressClient, EgressRequest, EgressResponse};
use portcullis_model::{Fault, FaultCode, TimeWindow, Timestamp, cut};
use portcullis_policy::Permit;
use portcullis_query::promql::Selector;
use serde::de::DeserializeOwned;

use super::wire::{Alerts, BuildInfo, Envelope, Failure, LabelSet, Metadata, QueryData, Rules, SeriesExemplars, Targets};

/// Longest text of a backend that is passed on.
const MAX_TEXT: usize = 400;
/// Warnings passed on at most.
const MAX_WARNINGS: usize = 20;
/// Metadata is a convenience; a larger answer is not worth its memory.
const MAX_METADATA_BYTES: u64 = 16 << 20;

/// Words of backends (Prometheus, Mimir, Thanos, VictoriaMetrics) for a query that would read or return too much.
const TOO_LARGE: [&str; 7] = [
    "too many samples",
    "exceeded maximum resolution",
    "too many points",
    "err-mimir-max",
    "exceeds the limit",
    "exceeded the maximum",
    "cannot select more than",
];

/// Who wrote the query; decides whom an error belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Author {
    /// The caller: a query the backend refuses is the caller's to mend.
    Caller,
    /// This crate.
    House,
}

/// An answer with the backend's warnings.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    pub(crate) data: T,
    pub(crate) warnings: Vec<String>,
}

/// The API of one backend.
#[derive(Debug)]
pub(crate) struct Api {
    client: EgressClient,
    timeout: Duration,
}

type Pairs = Vec<(String, String)>;

fn pair(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
}

/// Seconds with milliseconds, as the API reads them; never before the epoch.
fn seconds(at: Timestamp) -> String {
    let millis = at.as_nanos().max(0) / 1_000_000;
    format!("{}.{:03}", millis / 1_000, millis % 1_000)
}

fn milliseconds(length: Duration) -> String {
    format!("{}ms", length.as_millis().max(1))
}

fn matching(selectors: &[Selector], window: TimeWindow) -> Pairs {
    let mut pairs: Pairs = selectors.iter().map(|s| pair("match[]", s.to_string())).collect();
    pairs.push(pair("start", seconds(window.start)));
    pairs.push(pair("end", seconds(window.end)));
    pairs
}

impl Api {
    pub(crate) fn new(client: EgressClient, timeout: Duration) -> Self {
        Self { client, timeout }
    }

    /// `POST /query`
    pub(crate) async fn query(&self, permit: &Permit, query: &str, at: Timestamp) -> Result<Reply<QueryData>, Fault> {
        let form = vec![pair("query", query), pair("time", seconds(at)), self.time_limit(permit)];
        self.read(permit, post(&["query"], form), Author::House).await
    }

    /// `POST /query_range`
    pub(crate) async fn query_range(
        &self,
        permit: &Permit,
        query: &str,
        window: TimeWindow,
        step: Duration,
        author: Author,
    ) -> Result<Reply<QueryData>, Fault> {
        let form = vec![
            pair("query", query),
            pair("start", seconds(window.start)),
            pair("end", seconds(window.end)),
            pair("step", format!("{}.{:03}", step.as_secs(), step.subsec_millis())),
            self.time_limit(permit),
        ];
        self.read(permit, post(&["query_range"], form), author).await
    }

    /// `POST /series`, at most `limit` of them where the backend knows the parameter.
    pub(crate) async fn series(
        &self,
        permit: &Permit,
        selectors: &[Selector],
        window: TimeWindow,
        limit: usize,
    ) -> Result<Reply<Vec<LabelSet>>, Fault> {
        let mut form = matching(selectors, window);
        form.push(pair("limit", limit.to_string()));
        self.read(permit, post(&["series"], form), Author::House).await
    }

    /// `POST /labels`
    pub(crate) async fn labels(&self, permit: &Permit, selectors: &[Selector], window: TimeWindow) -> Result<Vec<String>, Fault> {
        let reply = self.read(permit, post(&["labels"], matching(selectors, window)), Author::House).await?;
        Ok(reply.data)
    }

    /// `GET /label/<name>/values`
    pub(crate) async fn label_values(
        &self,
        permit: &Permit,
        label: &str,
        selectors: &[Selector],
        window: TimeWindow,
    ) -> Result<Vec<String>, Fault> {
        let path = ["api", "v1", "label", label, "values"];
        let request = EgressRequest::get(path).query_pairs(matching(selectors, window));
        Ok(self.read(permit, request, Author::House).await?.data)
    }

    /// `GET /metadata`
    pub(crate) async fn metadata(&self, permit: &Permit) -> Result<BTreeMap<String, Vec<Metadata>>, Fault> {
        let request = get(&["metadata"]).max_response_bytes(MAX_METADATA_BYTES);
        Ok(self.read(permit, request, Author::House).await?.data)
    }

    /// `POST /query_exemplars`
    pub(crate) async fn exemplars(
        &self,
        permit: &Permit,
        query: &str,
        window: TimeWindow,
    ) -> Result<Vec<SeriesExemplars>, Fault> {
        let form = vec![pair("query", query), pair("start", seconds(window.start)), pair("end", seconds(window.end))];
        Ok(self.read(permit, post(&["query_exemplars"], form), Author::House).await?.data)
    }

    /// `GET /rules`, alerting rules only.
    pub(crate) async fn alerting_rules(&self, permit: &Permit) -> Result<Rules, Fault> {
        Ok(self.read(permit, get(&["rules"]).query("type", "alert"), Author::House).await?.data)
    }

    /// `GET /alerts`
    pub(crate) async fn alerts(&self, permit: &Permit) -> Result<Alerts, Fault> {
        Ok(self.read(permit, get(&["alerts"]), Author::House).await?.data)
    }

    /// `GET /targets`, active ones only.
    pub(crate) async fn targets(&self, permit: &Permit) -> Result<Targets, Fault> {
        Ok(self.read(permit, get(&["targets"]).query("state", "active"), Author::House).await?.data)
    }

    /// `GET /status/buildinfo`; nothing when the backend does not have it.
    pub(crate) async fn build_info(&self, permit: &Permit) -> Result<Option<BuildInfo>, Fault> {
        let response = self.send(permit, get(&["status", "buildinfo"])).await?;
        if matches!(response.status.as_u16(), 400 | 404 | 405) {
            return Ok(None);
        }
        self.parse(&response, Author::House).map(|reply| Some(reply.data))
    }

    /// Tells the backend to stop when nobody will wait for the answer any more.
    fn time_limit(&self, permit: &Permit) -> (String, String) {
        pair("timeout", milliseconds(permit.time_left().min(self.timeout)))
    }

    async fn read<T: DeserializeOwned>(
        &self,
        permit: &Permit,
        request: EgressRequest,
        author: Author,
    ) -> Result<Reply<T>, Fault> {
        let response = self.send(permit, request).await?;
        self.parse(&response, author)
    }

    async fn send(&self, permit: &Permit, request: EgressRequest) -> Result<EgressResponse, Fault> {
        let permit = permit.with_deadline_at_most(std::time::Instant::now() + self.timeout);
        Ok(self.client.send(&permit, request).await?)
    }

    fn parse<T: DeserializeOwned>(&self, response: &EgressResponse, author: Author) -> Result<Reply<T>, Fault> {
        if !response.status.is_success() {
            return Err(self.refused(response, author));
        }
        let unreadable = |why: String| {
            let message = format!("source '{}' sent something that is not an answer of the Prometheus API", self.client.name());
            Err(Fault::backend(message, why))
        };
        match serde_json::from_slice::<Envelope<T>>(&response.body) {
            Ok(Envelope { status, data: Some(data), warnings, infos, is_partial, .. }) if status == "success" => {
                Ok(Reply { data, warnings: self.notes(&warnings, &infos, is_partial) })
            }
            Ok(Envelope { status, .. }) if status != "success" => Err(self.refused(response, author)),
            Ok(_) => unreadable("a success without data".into()),
            Err(error) => unreadable(format!("{error}; the body begins: {}", beginning(&response.body))),
        }
    }

    fn notes(&self, warnings: &[String], infos: &[String], is_partial: bool) -> Vec<String> {
        let mut notes: Vec<String> = warnings.iter().chain(infos).map(|text| plain(text)).collect();
        // Thanos answers with what its stores gave and says in the warnings which did not.
        let says_partial = |text: &String| {
            ["partial response", "fetch series for", "No StoreAPIs", "receive series from"].iter().any(|w| text.contains(w))
        };
        let partial = is_partial || notes.iter().any(says_partial);
        let more = notes.len().saturating_sub(MAX_WARNINGS);
        notes.truncate(MAX_WARNINGS);
        if more > 0 {
            notes.push(format!("and {more} more warnings"));
        }
        if partial {
            notes.insert(
                0,
                format!("the answer of source '{}' is partial: some of its storage did not answer", self.client.name()),
            );
        }
        notes
    }

    /// What a refusal means, and for whom.
    fn refused(&self, response: &EgressResponse, author: Author) -> Fault {
        let name = self.client.name();
        let failure: Failure = serde_json::from_slice(&response.body).unwrap_or_default();
        let text = plain(&failure.error);
        let status = response.status.as_u16();
        let internal = format!("status {status}, {} {}; the body begins: {}", failure.kind, text, beginning(&response.body));
        let narrow = "ask for a shorter window, a larger step, more matchers or fewer series";
        let fault = match (status, failure.kind.as_str()) {
            (401 | 403, _) => Fault::new(
                FaultCode::BackendFailed,
                format!("source '{name}' refuses its configured credential; an operator has to mend it"),
            ),
            (429, _) => Fault::new(FaultCode::RateLimited, format!("source '{name}' is receiving too many requests")),
            (_, "timeout" | "canceled") => {
                Fault::new(FaultCode::BackendFailed, format!("source '{name}' gave up on the query because it took too long"))
                    .with_hint(narrow)
            }
            // VictoriaMetrics puts the status where Prometheus puts the kind.
            (400 | 422, _) if TOO_LARGE.iter().any(|words| text.contains(words)) => {
                Fault::new(FaultCode::TooLarge, format!("source '{name}' refuses the query as too large")).with_hint(narrow)
            }
            (400 | 422, _) if author == Author::Caller => {
                Fault::invalid(format!("source '{name}' does not accept the query: {text}"))
            }
            (404 | 405, _) => Fault::new(FaultCode::BackendFailed, format!("source '{name}' does not have this part of the API")),
            _ => Fault::new(FaultCode::BackendFailed, format!("source '{name}' failed with status {status}")),
        };
        let fault = fault.with_internal(internal);
        match response.retry_after_seconds() {
            Some(after) => fault.with_retry_after(after),
            None => fault,
        }
    }
}

fn get(path: &[&str]) -> EgressRequest {
    EgressRequest::get(["api", "v1"].iter().chain(path).copied())
}

/// Queries change nothing, so a POST that only carries a long query may be repeated.
fn post(path: &[&str], form: Pairs) -> EgressRequest {
    EgressRequest::post(["api", "v1"].iter().chain(path).copied()).form(form).idempotent()
}

/// A backend's text on one line; of a long one the beginning and the end, where Prometheus says what is wrong.
fn plain(text: &str) -> String {
    let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if shown.chars().count() <= MAX_TEXT {
        return shown;
    }
    // Both ends are cuts: what is left of a secret at one of them would look like none.
    let shown = cut::whole(&shown);
    let total = shown.chars().count();
    if total <= MAX_TEXT {
        return shown.into_owned();
    }
    let beginning = cut::beginning(&shown, MAX_TEXT / 2).text;
    let end: String = shown.chars().skip(total - MAX_TEXT / 2).collect();
    // Where nobody says what a secret is, no half of a word stays.
    let end = end.split_once(' ').map_or("", |(_, words)| words);
    format!("{beginning} … {end}")
}

fn beginning(body: &[u8]) -> String {
    let looked_at = String::from_utf8_lossy(&body[..body.len().min(8 << 10)]);
    plain(&cut::beginning(&looked_at, 200).text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_exactly() {
        assert_eq!(seconds(Timestamp::from_nanos(1_772_359_200_123_999_999)), "1772359200.123");
        assert_eq!(seconds(Timestamp::from_nanos(-1_000_000)), "0.000", "there is nothing before the epoch");
        assert_eq!(milliseconds(Duration::from_micros(5)), "1ms");
    }

    #[test]
    fn texts_are_shortened_and_have_one_line() {
        assert_eq!(plain("a\nb\u{1b}[31m"), "a b [31m");
        let (key, words) = ("AKIAIOSFODNN7EXAMPLE", "too many samples ".repeat(20));
        let shown = plain(&format!("{}{key} {words} {key}{}", "x".repeat(MAX_TEXT / 2 - 15), "y".repeat(MAX_TEXT / 2 - 5)));
        assert_eq!(shown, " … ", "neither end shows a part of a word");
        let shown = plain(&format!("first {words}{words}last"));
        assert!(shown.starts_with("first too many") && shown.ends_with("samples last"), "{shown}");
        assert!(shown.contains(" … ") && shown.chars().count() <= MAX_TEXT + 3, "{shown}");
    }
}
