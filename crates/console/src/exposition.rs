//! The two text formats of scrapes: OpenMetrics 1.0 and the older text format 0.0.4 of Prometheus, which differ in the names
//! of counters, in units and in how they end.
//!
//! Sources: <https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md>,
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::collections::HashMap;

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4.
    Text,
}

impl Format {
    /// What a scraper that sends these headers understands; without a wish for OpenMetrics, the older format.
    pub(crate) fn wanted(headers: &HeaderMap) -> Self {
        let wishes = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        let open = wishes.into_iter().any(|wish| {
            let mut parts = wish.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let refused = |part: &str| part.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0));
            kind.eq_ignore_ascii_case("application/openmetrics-text") && !parts.any(refused)
        });
        if open { Self::OpenMetrics } else { Self::Text }
    }

    /// The media type.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// What an OpenMetrics exposition is in this format.
    pub(crate) fn write(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Text => older(&open_metrics),
        }
    }
}

/// The same in the older format: counters and infos are declared under the names of their samples, and there are neither
/// units nor an end mark.
fn older(text: &str) -> String {
    let mut names: HashMap<&str, &'static str> = HashMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            match kind {
                "counter" => names.insert(name, "_total"),
                "info" => names.insert(name, "_info"),
                _ => None,
            };
        }
    }
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let declared =
            ["# HELP ", "# TYPE "].into_iter().find_map(|mark| Some((mark, line.strip_prefix(mark)?.split_once(' ')?)));
        if let Some((mark, (name, rest))) = declared {
            let suffix = names.get(name).copied().unwrap_or_default();
            let rest = if mark == "# TYPE " && suffix == "_info" { "gauge" } else { rest };
            out.push_str(mark);
            out.push_str(name);
            out.push_str(suffix);
            out.push(' ');
            out.push_str(rest);
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn wanted(accept: &str) -> Format {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        Format::wanted(&headers)
    }

    #[test]
    fn a_scraper_gets_what_it_understands() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(wanted(prometheus), Format::OpenMetrics);
        assert_eq!(wanted("text/plain;version=0.0.4, application/OpenMetrics-Text; version=1.0.0"), Format::OpenMetrics);
        for other in ["*/*", "text/plain", "application/openmetrics-text;q=0", "application/openmetrics", ""] {
            assert_eq!(wanted(other), Format::Text, "{other}");
        }
        assert_eq!(Format::wanted(&HeaderMap::new()), Format::Text);
    }

    #[test]
    fn the_older_format_names_counters_by_their_samples() {
        let text = "# HELP a_seconds A.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total{x=\"# TYPE b counter\"} 1\n\
                    # HELP build B.\n# TYPE build info\nbuild_info{v=\"1\"} 1\n# HELP g G.\n# TYPE g gauge\ng 2\n# EOF\n";
        let older = Format::Text.write(text.to_owned());
        let expected = "# HELP a_seconds_total A.\n# TYPE a_seconds_total counter\na_seconds_total{x=\"# TYPE b counter\"} 1\n\
                        # HELP build_info B.\n# TYPE build_info gauge\nbuild_info{v=\"1\"} 1\n# HELP g G.\n# TYPE g gauge\ng 2\n";
        assert_eq!(older, expected);
    }
}
