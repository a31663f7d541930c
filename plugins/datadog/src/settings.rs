//! What an operator configures for this plugin (`plugins.grants[].settings`). Guards that a misspelt key is named and that a
//! site is one of Datadog's.

use serde_json::Value;

use crate::portcullis::plugin::types::{Fault, FaultCode};
use crate::tags;

/// Sites there are, <https://docs.datadoghq.com/getting_started/site/>.
const SITES: [&str; 8] = [
    "datadoghq.com",
    "us3.datadoghq.com",
    "us5.datadoghq.com",
    "datadoghq.eu",
    "ap1.datadoghq.com",
    "ap2.datadoghq.com",
    "ddog-gov.com",
    "us2.ddog-gov.com",
];
const KEYS: &str = "site, endpoint, tags, indexes, namespace_tag, apm_operation";

/// Settings in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `https://api.SITE`, or what stands in front of it.
    pub(crate) base: String,
    /// Tags every question is narrowed to, as key and value.
    pub(crate) tags: Vec<(String, String)>,
    /// Log indexes; empty for all.
    pub(crate) indexes: Vec<String>,
    /// Tag that holds the Kubernetes namespace.
    pub(crate) namespace_tag: String,
    /// Name of the APM operation whose metrics say how services do, such as `http.request`.
    pub(crate) apm_operation: Option<String>,
}

impl Settings {
    /// Reads the operator's JSON object.
    pub(crate) fn read(text: &str) -> Result<Self, Fault> {
        let parsed: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        let members = parsed.as_object().ok_or_else(|| wrong("they are no JSON object"))?;
        let mut settings = Self {
            base: format!("https://api.{}", SITES[0]),
            tags: Vec::new(),
            indexes: Vec::new(),
            namespace_tag: "kube_namespace".to_owned(),
            apm_operation: None,
        };
        let mut endpoint = None;
        for (key, value) in members {
            match key.as_str() {
                "site" => {
                    let site = word(key, value)?;
                    if !SITES.contains(&site.as_str()) {
                        return Err(wrong(&format!("site must be one of {}", SITES.join(", "))));
                    }
                    settings.base = format!("https://api.{site}");
                }
                "endpoint" => endpoint = Some(word(key, value)?.trim_end_matches('/').to_owned()),
                "tags" => {
                    for tag in words(key, value)? {
                        let pair = tag.split_once(':').filter(|(key, value)| tags::is_key(key) && tags::is_value(value));
                        let (key, value) = pair.ok_or_else(|| wrong("tags must be written key:value"))?;
                        settings.tags.push((key.to_owned(), value.to_owned()));
                    }
                }
                "indexes" => settings.indexes = words(key, value)?,
                "namespace_tag" => {
                    settings.namespace_tag = word(key, value)?;
                    if !tags::is_key(&settings.namespace_tag) {
                        return Err(wrong("namespace_tag is no key of a tag"));
                    }
                }
                "apm_operation" => {
                    let operation = word(key, value)?;
                    if !tags::is_metric(&operation) {
                        return Err(wrong("apm_operation is no name of an operation, such as http.request"));
                    }
                    settings.apm_operation = Some(operation);
                }
                _ => return Err(wrong(&format!("'{key}' is not known; there are {KEYS}"))),
            }
        }
        settings.base = endpoint.unwrap_or(settings.base);
        Ok(settings)
    }
}

fn wrong(why: &str) -> Fault {
    Fault {
        code: FaultCode::Internal,
        message: format!("the operator's settings of this plugin cannot be used: {why}"),
        hint: Some("see plugins.grants[].settings and the README of the plugin".to_owned()),
        detail: None,
        retry_after_seconds: None,
    }
}

fn word(key: &str, value: &Value) -> Result<String, Fault> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned).ok_or_else(|| wrong(&format!("{key} must be a text")))
}

fn words(key: &str, value: &Value) -> Result<Vec<String>, Fault> {
    let list = value.as_array().ok_or_else(|| wrong(&format!("{key} must be a list of texts")))?;
    list.iter().map(|item| word(key, item)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_decides_where_questions_go() {
        assert_eq!(Settings::read("{}").unwrap().base, "https://api.datadoghq.com");
        assert_eq!(Settings::read(r#"{"site": "us3.datadoghq.com"}"#).unwrap().base, "https://api.us3.datadoghq.com");
        let behind = Settings::read(r#"{"site": "datadoghq.eu", "endpoint": "https://dd.example.com/"}"#).unwrap();
        assert_eq!(behind.base, "https://dd.example.com");
        let narrow = Settings::read(r#"{"tags": ["env:prod"], "indexes": ["main"], "namespace_tag": "ns"}"#).unwrap();
        assert_eq!(narrow.tags, [("env".to_owned(), "prod".to_owned())]);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (text, says) in [
            (r#"{"site": "datadoghq.evil"}"#, "site must be one of datadoghq.com"),
            (r#"{"region": "eu"}"#, "'region' is not known; there are site"),
            (r#"{"tags": ["env"]}"#, "key:value"),
            (r#"{"tags": ["env:prod OR *"]}"#, "key:value"),
            (r#"{"tags": "env:prod"}"#, "list of texts"),
            (r#"{"apm_operation": "x{*}"}"#, "no name of an operation"),
            ("[]", "no JSON object"),
        ] {
            let fault = Settings::read(text).unwrap_err();
            assert!(fault.message.contains(says), "{text}: {}", fault.message);
        }
    }
}
