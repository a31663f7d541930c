//! Settings of one Prometheus-compatible source, as the operator writes them. Guards that a misspelt key or a label that
//! cannot be one is an error at start-up. Must not open connections.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_config::{ByteSize, Span};
use portcullis_egress::{
    AddressPolicy, AllowedRange, AuthSettings, EgressConfig, EgressConfigError, SecretFault, SecretResolver, TlsSettings,
};
use portcullis_model::{SourceName, TenantId};
use portcullis_query::QueryError;
use portcullis_query::promql::LabelName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One Prometheus, Mimir or Cortex, Thanos, or VictoriaMetrics.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrometheusConfig {
    /// Base URL, to which `/api/v1/…` is added: `http://prometheus:9090`, `https://mimir.example.com/prometheus`.
    pub url: String,
    /// Credential sent to this source only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthSettings>,
    /// Tenant of a multi-tenant backend, sent as `X-Scope-OrgID` (Mimir, Cortex, Thanos).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_id: Option<String>,
    /// Further headers; credentials are refused here.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// TLS towards this source.
    #[serde(default)]
    pub tls: TlsSettings,
    /// Address ranges this source may live in besides public ones: `loopback`, `private`, `shared`, or networks such as
    /// `10.20.0.0/16`.
    #[serde(default)]
    pub allow_addresses: Vec<AllowedRange>,
    /// Tenant of Portcullis whose data this source holds. Principals of another tenant cannot ask it.
    #[serde(default = "TenantId::default_tenant")]
    #[schemars(with = "String")]
    pub tenant: TenantId,
    /// Labels that can hold the name of a service. The service of a series is the value of the first of these labels
    /// that the series has.
    #[serde(default = "default_service_labels")]
    pub service_labels: Vec<String>,
    /// Labels that can hold the Kubernetes namespace, in the same way.
    #[serde(default = "default_namespace_labels")]
    pub namespace_labels: Vec<String>,
    /// Labels that tell the instances of a service apart.
    #[serde(default = "default_instance_labels")]
    pub instance_labels: Vec<String>,
    /// Distance of samples. Found out from the targets and the samples when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrape_interval: Option<Span>,
    /// Longest time for one request; the deadline of a call can be earlier.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// Longest time to connect.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Span,
    /// Largest response, after decompression.
    #[serde(default = "default_max_response")]
    pub max_response: ByteSize,
    /// Requests at once.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|v| (*v).to_owned()).collect()
}

fn default_service_labels() -> Vec<String> {
    texts(&["service_name", "service", "job", "app"])
}

fn default_namespace_labels() -> Vec<String> {
    texts(&["namespace", "k8s_namespace_name", "kubernetes_namespace"])
}

fn default_instance_labels() -> Vec<String> {
    texts(&["instance", "service_instance_id", "pod", "k8s_pod_name"])
}

fn default_timeout() -> Span {
    Span(Duration::from_secs(30))
}

fn default_connect_timeout() -> Span {
    Span(Duration::from_secs(5))
}

fn default_max_response() -> ByteSize {
    ByteSize(32 << 20)
}

fn default_concurrency() -> usize {
    16
}

/// Settings that cannot work. For the operator to fix.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusConfigError {
    /// The connection.
    #[error(transparent)]
    Egress(#[from] EgressConfigError),
    /// A secret that is not configured.
    #[error("source '{source_name}': auth: {error}")]
    Secret {
        /// The source.
        source_name: SourceName,
        /// What is wrong.
        #[source]
        error: SecretFault,
    },
    /// A label name.
    #[error("source '{source_name}': {setting}: {error}")]
    Label {
        /// The source.
        source_name: SourceName,
        /// The setting.
        setting: &'static str,
        /// What is wrong.
        #[source]
        error: QueryError,
    },
    /// No label is left to find services by.
    #[error("source '{source_name}': service_labels is empty; name at least one label, such as job")]
    NoServiceLabel {
        /// The source.
        source_name: SourceName,
    },
}

/// The label names of one source, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Labels {
    pub(crate) service: Vec<LabelName>,
    pub(crate) namespace: Vec<LabelName>,
    pub(crate) instance: Vec<LabelName>,
}

impl PrometheusConfig {
    /// A source at `url` with every default.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            auth: None,
            org_id: None,
            headers: BTreeMap::new(),
            tls: TlsSettings::default(),
            allow_addresses: Vec::new(),
            tenant: TenantId::default_tenant(),
            service_labels: default_service_labels(),
            namespace_labels: default_namespace_labels(),
            instance_labels: default_instance_labels(),
            scrape_interval: None,
            timeout: default_timeout(),
            connect_timeout: default_connect_timeout(),
            max_response: default_max_response(),
            concurrency: default_concurrency(),
        }
    }

    pub(crate) fn labels(&self, name: &SourceName) -> Result<Labels, PrometheusConfigError> {
        let read = |setting, names: &[String]| {
            let labels: Result<Vec<LabelName>, QueryError> = names.iter().map(LabelName::new).collect();
            labels.map_err(|error| PrometheusConfigError::Label { source_name: name.clone(), setting, error })
        };
        let labels = Labels {
            service: read("service_labels", &self.service_labels)?,
            namespace: read("namespace_labels", &self.namespace_labels)?,
            instance: read("instance_labels", &self.instance_labels)?,
        };
        if labels.service.is_empty() {
            return Err(PrometheusConfigError::NoServiceLabel { source_name: name.clone() });
        }
        Ok(labels)
    }

    /// What works and is dangerous all the same, for the operator to read at start-up and in the doctor's report.
    pub fn warnings(&self, name: &SourceName) -> Vec<String> {
        self.connection(name).warnings_with(self.auth.is_some())
    }

    /// Everything of the connection, its secret to be looked up by `secrets` for each request.
    pub(crate) fn egress(&self, name: &SourceName, secrets: &dyn SecretResolver) -> Result<EgressConfig, PrometheusConfigError> {
        let mut egress = self.connection(name);
        if let Some(auth) = &self.auth {
            egress.authentication = auth
                .authentication(secrets)
                .map_err(|error| PrometheusConfigError::Secret { source_name: name.clone(), error })?;
        }
        Ok(egress)
    }

    fn connection(&self, name: &SourceName) -> EgressConfig {
        let mut egress = EgressConfig::new(name.as_str(), &self.url);
        egress.headers = self.headers.clone().into_iter().collect();
        egress.headers.extend(self.org_id.clone().map(|id| ("X-Scope-OrgID".to_owned(), id)));
        egress.tls = self.tls.clone().into();
        egress.addresses = AddressPolicy::new(self.allow_addresses.iter().copied());
        egress.connect_timeout = self.connect_timeout.0;
        egress.read_timeout = self.timeout.0;
        egress.max_response_bytes = self.max_response.0;
        egress.concurrency = self.concurrency;
        egress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_with_defaults_and_unknown_keys_are_refused() {
        let config: PrometheusConfig = serde_json::from_str(
            r#"{"url":"http://p:9090","allow_addresses":["private"],"auth":{"bearer":"t"},"timeout":"10s"}"#,
        )
        .unwrap();
        assert_eq!(config.service_labels, ["service_name", "service", "job", "app"]);
        assert_eq!(config.timeout.0, Duration::from_secs(10));
        let error = serde_json::from_str::<PrometheusConfig>(r#"{"url":"x","tennant":"y"}"#).unwrap_err();
        assert!(error.to_string().contains("tennant"));
        assert!(serde_json::from_str::<PrometheusConfig>(r#"{"url":"x","allow_addresses":["10.0.0.1/8"]}"#).is_err());
    }

    #[test]
    fn labels_that_cannot_be_labels_are_refused() {
        let name = SourceName::new("p").unwrap();
        let mut config = PrometheusConfig::at("http://p");
        config.service_labels = vec![String::new()];
        assert!(config.labels(&name).unwrap_err().to_string().contains("service_labels"));
        config.service_labels.clear();
        assert!(config.labels(&name).is_err());
    }

    #[test]
    fn settings_that_cannot_take_effect_are_refused_and_dangerous_ones_warned_of() {
        let name = SourceName::new("p").unwrap();
        let read = |text: &str| serde_json::from_str::<PrometheusConfig>(text).unwrap();
        let config = read(r#"{"url":"http://prometheus.example.org:9090","tls":{"ca_file":"/nonexistent/ca.pem"}}"#);
        let error = crate::PrometheusSource::new(name.clone(), config).unwrap_err().to_string();
        assert!(error.contains("'p'") && error.contains("https://"), "{error}");
        let config = read(r#"{"url":"http://prometheus.example.org:9090","auth":{"bearer":"hunter2"}}"#);
        let warnings = config.warnings(&name);
        assert!(warnings.len() == 1 && warnings[0].contains("clear text") && !warnings[0].contains("hunter2"), "{warnings:?}");
        assert!(crate::PrometheusSource::new(name.clone(), config).is_ok(), "a warning refuses nothing");
        assert!(PrometheusConfig::at("http://prometheus.example.org").warnings(&name).is_empty());
    }

    #[test]
    fn the_schema_documents_every_field() {
        let schema = serde_json::to_value(schemars::schema_for!(PrometheusConfig)).unwrap();
        for (name, property) in schema["properties"].as_object().unwrap() {
            assert!(property["description"].is_string(), "{name}");
        }
        assert_eq!(schema["additionalProperties"], false);
    }
}
