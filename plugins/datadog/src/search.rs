//! Filters as a log search of Datadog. Guards that every text from outside is a quoted term and that the caller's scope is in
//! every query. Source: <https://docs.datadoghq.com/logs/explorer/search_syntax/>.

use crate::portcullis::plugin::telemetry::{LabelMatch, LogFilter, MatchOperator, TextFilter};
use crate::portcullis::plugin::types::{Fault, Scope, Severity};
use crate::settings::Settings;
use crate::tags::{self, Allowed, invalid, unsupported};

/// A text as one term that means itself.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' | '\u{201c}' | '\u{201d}' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `name:"value"`, one of several values, or none of them.
fn one_of(name: &str, values: &[String]) -> String {
    let terms: Vec<String> = values.iter().map(|value| format!("{name}:{}", quoted(value))).collect();
    if terms.len() == 1 { terms.concat() } else { format!("({})", terms.join(" OR ")) }
}

/// Statuses of a severity and above, <https://docs.datadoghq.com/logs/log_configuration/processors/#log-status-remapper>.
fn statuses(minimum: Severity) -> &'static [&'static str] {
    const ALL: [&str; 12] =
        ["emergency", "alert", "critical", "error", "warn", "warning", "notice", "info", "ok", "debug", "trace", "verbose"];
    match minimum {
        Severity::Fatal => &ALL[..3],
        Severity::Error => &ALL[..4],
        Severity::Warn => &ALL[..6],
        Severity::Info => &ALL[..9],
        Severity::Debug => &ALL[..10],
        Severity::Trace => &ALL,
    }
}

/// The severity a status stands for.
pub(crate) fn severity(status: &str) -> Option<Severity> {
    match status.to_ascii_lowercase().as_str() {
        "emergency" | "alert" | "critical" => Some(Severity::Fatal),
        "error" => Some(Severity::Error),
        "warn" | "warning" => Some(Severity::Warn),
        "notice" | "info" | "ok" => Some(Severity::Info),
        "debug" => Some(Severity::Debug),
        "trace" | "verbose" => Some(Severity::Trace),
        _ => None,
    }
}

/// Where a field of a question is looked for: in a tag, or in an attribute too.
pub(crate) fn places(field: &str, settings: &Settings) -> Result<Vec<String>, Fault> {
    let key = tags::key(field, settings)?;
    if field == "severity" {
        return Ok(vec!["status".to_owned()]);
    }
    let reserved = ["service", "host", "status", "source"].contains(&key.as_str()) || key == settings.namespace_tag;
    Ok(if reserved || key == "env" { vec![key] } else { vec![format!("@{key}"), key] })
}

/// The facet records are grouped by.
pub(crate) fn facet(field: &str, settings: &Settings) -> Result<String, Fault> {
    Ok(places(field, settings)?.swap_remove(0))
}

fn condition(matcher: &LabelMatch, settings: &Settings) -> Result<String, Fault> {
    let places = places(&matcher.name, settings)?;
    let values = match matcher.operator {
        MatchOperator::Equal | MatchOperator::NotEqual => vec![matcher.value.clone()],
        MatchOperator::Regex | MatchOperator::NotRegex => tags::alternatives(&matcher.value).ok_or_else(|| {
            unsupported(
                "a log search of Datadog knows no regular expressions",
                "give exact values, or several of them with | between",
            )
        })?,
    };
    let terms: Vec<String> = places.iter().map(|place| one_of(place, &values)).collect();
    Ok(match matcher.operator {
        MatchOperator::Equal | MatchOperator::Regex if terms.len() == 1 => terms.concat(),
        MatchOperator::Equal | MatchOperator::Regex => format!("({})", terms.join(" OR ")),
        MatchOperator::NotEqual | MatchOperator::NotRegex => {
            let each = |term: &String| format!("NOT {term}");
            terms.iter().map(each).collect::<Vec<_>>().join(" AND ")
        }
    })
}

/// A trace by its identifier, as OpenTelemetry writes it and as Datadog's own tracers do (the lower 64 bits in decimal).
fn of_trace(id: &str) -> Result<String, Fault> {
    let id = id.to_ascii_lowercase();
    if id.is_empty() || id.len() > 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(invalid(format!("'{}' is no trace id", tags::shown(&id)), "give up to 32 hexadecimal digits"));
    }
    let low = u64::from_str_radix(&id[id.len().saturating_sub(16)..], 16).unwrap_or_default();
    Ok(format!(r#"(@otel.trace_id:"{id}" OR trace_id:"{id}" OR trace_id:"{low}" OR @dd.trace_id:"{low}")"#))
}

/// The query of a filter within a scope; `None` when the scope leaves nothing to look for.
pub(crate) fn query(filter: &LogFilter, scope: &Scope, settings: &Settings) -> Result<Option<String>, Fault> {
    let mut terms = Vec::new();
    for (place, allowed) in [
        ("service", Allowed::of(filter.service.as_deref(), &scope.services)),
        (settings.namespace_tag.as_str(), Allowed::of(None, &scope.namespaces)),
    ] {
        match allowed {
            Allowed::Nothing => return Ok(None),
            Allowed::Everything => {}
            Allowed::Only(names) => terms.push(one_of(place, &names)),
        }
    }
    for (key, value) in &settings.tags {
        terms.push(one_of(key, std::slice::from_ref(value)));
    }
    if let Some(minimum) = filter.minimum_severity {
        let statuses: Vec<String> = statuses(minimum).iter().map(|status| (*status).to_owned()).collect();
        terms.push(one_of("status", &statuses));
    }
    match &filter.text {
        None => {}
        Some(TextFilter::Contains(words)) if words.trim().is_empty() => {}
        Some(TextFilter::Contains(words)) => terms.push(quoted(words.trim())),
        Some(TextFilter::Regex(expression)) => {
            let texts = tags::alternatives(expression).ok_or_else(|| {
                unsupported("a log search of Datadog knows no regular expressions", "search for words that the message contains")
            })?;
            let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
            terms.push(format!("({})", texts.join(" OR ")));
        }
    }
    for matcher in &filter.attributes {
        terms.push(condition(matcher, settings)?);
    }
    if let Some(id) = &filter.trace_id {
        terms.push(of_trace(id)?);
    }
    Ok(Some(if terms.is_empty() { "*".to_owned() } else { terms.join(" AND ") }))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::portcullis::plugin::types::{FaultCode, NameSet, Window};

    pub(crate) fn filter() -> LogFilter {
        let window = Window { start: 1_700_000_000_000_000_000, end: 1_700_003_600_000_000_000 };
        LogFilter { window, service: None, minimum_severity: None, text: None, attributes: Vec::new(), trace_id: None }
    }

    pub(crate) fn scope(services: NameSet, namespaces: NameSet) -> Scope {
        Scope { tenant: "default".into(), services, namespaces }
    }

    fn everything() -> Scope {
        scope(NameSet::Everything, NameSet::Everything)
    }

    fn plain() -> Settings {
        Settings::read("{}").unwrap()
    }

    #[test]
    fn a_filter_becomes_terms_and_nothing_becomes_everything() {
        assert_eq!(query(&filter(), &everything(), &plain()).unwrap().unwrap(), "*");
        let full = LogFilter {
            service: Some("cart".into()),
            minimum_severity: Some(Severity::Error),
            text: Some(TextFilter::Contains("payment refused".into())),
            attributes: vec![LabelMatch { name: "http.status_code".into(), operator: MatchOperator::Equal, value: "500".into() }],
            ..filter()
        };
        let settings = Settings::read(r#"{"tags": ["env:prod"]}"#).unwrap();
        assert_eq!(
            query(&full, &everything(), &settings).unwrap().unwrap(),
            "service:\"cart\" AND env:\"prod\" AND \
             (status:\"emergency\" OR status:\"alert\" OR status:\"critical\" OR status:\"error\") AND \
             \"payment refused\" AND (@http.status_code:\"500\" OR http.status_code:\"500\")"
        );
    }

    #[test]
    fn the_scope_is_in_every_query() {
        let two = scope(NameSet::Only(vec!["cart".into(), "pay".into()]), NameSet::Only(vec!["shop".into()]));
        let asked = query(&filter(), &two, &plain()).unwrap().unwrap();
        assert_eq!(asked, r#"(service:"cart" OR service:"pay") AND kube_namespace:"shop""#);
        let other = LogFilter { service: Some("other".into()), ..filter() };
        assert_eq!(query(&other, &two, &plain()).unwrap(), None);
        assert_eq!(query(&filter(), &scope(NameSet::Only(vec![]), NameSet::Everything), &plain()).unwrap(), None);
    }

    /// Takes a query apart: what stands in quotes is text, everything else is syntax.
    fn syntax(query: &str) -> String {
        let (mut out, mut inside, mut characters) = (String::new(), false, query.chars());
        while let Some(c) = characters.next() {
            match c {
                '\\' if inside => drop(characters.next()),
                '"' => inside = !inside,
                c if !inside => out.push(c),
                _ => {}
            }
        }
        assert!(!inside, "{query}");
        out
    }

    #[test]
    fn no_text_from_outside_becomes_syntax() {
        let nasty = [r#"" OR *"#, r#"\" OR service:*"#, r"\", "a\" AND -service:\"cart", "*", "x\n\u{0}y", "“ OR *”", r#"\\""#];
        for text in nasty {
            let hostile = LogFilter {
                service: Some(text.into()),
                text: Some(TextFilter::Contains(text.into())),
                attributes: vec![
                    LabelMatch { name: "k".into(), operator: MatchOperator::Equal, value: text.into() },
                    LabelMatch { name: "k".into(), operator: MatchOperator::NotEqual, value: text.into() },
                ],
                ..filter()
            };
            let asked = query(&hostile, &everything(), &plain()).unwrap().unwrap();
            assert_eq!(syntax(&asked), "service: AND  AND (@k: OR k:) AND NOT @k: AND NOT k:", "{asked}");
            let named = LabelMatch { name: text.into(), operator: MatchOperator::Equal, value: "v".into() };
            let refused = query(&LogFilter { attributes: vec![named], ..filter() }, &everything(), &plain()).unwrap_err();
            assert_eq!(refused.code, FaultCode::InvalidArgument);
            let traced = LogFilter { trace_id: Some(text.into()), ..filter() };
            assert!(query(&traced, &everything(), &plain()).is_err());
        }
    }

    #[test]
    fn expressions_are_taken_where_they_are_alternatives_and_else_said_to_be_unsupported() {
        let matching = |operator, value: &str| {
            let attributes = vec![LabelMatch { name: "service".into(), operator, value: value.into() }];
            query(&LogFilter { attributes, ..filter() }, &everything(), &plain())
        };
        assert_eq!(matching(MatchOperator::Regex, "a|b").unwrap().unwrap(), r#"(service:"a" OR service:"b")"#);
        assert_eq!(matching(MatchOperator::NotRegex, "a|b").unwrap().unwrap(), r#"NOT (service:"a" OR service:"b")"#);
        assert_eq!(matching(MatchOperator::Regex, "a.*").unwrap_err().code, FaultCode::Unsupported);
        let text = LogFilter { text: Some(TextFilter::Regex("time(d)? out".into())), ..filter() };
        assert_eq!(query(&text, &everything(), &plain()).unwrap_err().code, FaultCode::Unsupported);
    }

    #[test]
    fn a_trace_is_found_in_both_spellings() {
        let traced = LogFilter { trace_id: Some("0AF7651916CD43DD8448EB211C80319C".into()), ..filter() };
        let asked = query(&traced, &everything(), &plain()).unwrap().unwrap();
        assert!(asked.contains(r#"@otel.trace_id:"0af7651916cd43dd8448eb211c80319c""#) && asked.contains("9532127138774266268"));
    }
}
