//! Products: named bundles of tools, sources, services and limits, each offered under its own address.
//!
//! A product only ever narrows: it grants nothing that the rules of the house do not grant. A product that does not exist
//! and one of somebody else answer alike. Must not know how products are addressed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use portcullis_model::{NameSet, Principal, TenantId, parse_duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::usual_address;
use crate::engine::member_pattern;
use crate::error::{PolicyError, Refusal};
use crate::external::has_one_of;
use crate::limits::{Limits, matches_pattern, patterns_meet};
use crate::lookup::{Lookup, LookupKind};
use crate::permit::Permit;
use crate::vocabulary::{Vocabulary, did_you_mean};

/// The rule name of a refusal because a product is not there for this principal.
pub const UNKNOWN_PRODUCT: &str = "unknown-product";
/// The rule name of a refusal because a tool is not part of the product.
pub const NOT_IN_PRODUCT: &str = "product";

/// Most bytes a product's name may have: it is part of an address.
const NAME_BYTES: usize = 64;

/// One product as it is configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProductSettings {
    /// Name in the address `/mcp/<name>`: lower-case letters, digits and `-`.
    pub name: String,
    /// Title for people.
    #[serde(default)]
    pub title: Option<String>,
    /// Tools of the product; `*` stands for any text, as in `query_*`.
    pub tools: Vec<String>,
    /// URIs of its resources; `*` stands for any text. When absent: those of this server, where the tool whose work they show
    /// is part of the product, and none of other servers. A resource is never there without the tool behind it.
    #[serde(default)]
    pub resources: Option<Vec<String>>,
    /// Names of its prompts; `*` stands for any text. When absent: those of this server that tell to call nothing but tools
    /// of the product, and none of other servers.
    #[serde(default)]
    pub prompts: Option<Vec<String>>,
    /// Sources that may be asked through it; all when absent. `*` stands for any text.
    #[serde(default)]
    pub sources: Option<Vec<String>>,
    /// Services whose signals may be seen through it; all when absent.
    #[serde(default)]
    pub services: Option<Vec<String>>,
    /// Kubernetes namespaces whose signals may be seen through it; all when absent.
    #[serde(default)]
    pub namespaces: Option<Vec<String>>,
    /// Roles it is for; everybody when absent. Without the role it looks as if it did not exist.
    #[serde(default)]
    pub roles: Option<Vec<String>>,
    /// Tenants it is for; all when absent. For others it looks as if it did not exist.
    #[serde(default)]
    pub tenants: Option<Vec<String>>,
    /// How far back and how much.
    #[serde(default)]
    pub limits: ProductLimits,
}

/// What one call through a product may reach and return.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProductLimits {
    /// How far back from now questions may reach, such as `24h`.
    pub max_look_back: Option<String>,
    /// Rows or records that may be read from one source.
    pub max_rows: Option<u64>,
    /// Bytes of an answer.
    pub max_bytes: Option<u64>,
}

/// A checked product.
#[derive(Debug, Clone)]
pub struct Product {
    name: Arc<str>,
    title: Arc<str>,
    tools: BTreeSet<String>,
    resources: Option<Vec<String>>,
    prompts: Option<Vec<String>>,
    roles: Vec<String>,
    tenants: Vec<TenantId>,
    limits: Limits,
}

/// All products.
#[derive(Debug, Clone, Default)]
pub struct Products {
    by_name: BTreeMap<String, Arc<Product>>,
}

impl Products {
    /// Checks `settings` against what exists.
    ///
    /// # Errors
    /// A name that cannot be part of an address or is taken, and tools, sources, services or roles that do not exist.
    pub fn load(settings: &[ProductSettings], vocabulary: &Vocabulary) -> Result<Self, PolicyError> {
        let mut products = Self::default();
        let mut errors = Vec::new();
        for one in settings {
            match Product::of(one, vocabulary) {
                Ok(product) => {
                    if products.by_name.insert(one.name.clone(), Arc::new(product)).is_some() {
                        errors.push(PolicyError::Product { product: one.name.clone(), reason: "the name is used twice".into() });
                    }
                }
                Err(reason) => errors.push(PolicyError::Product { product: one.name.clone(), reason }),
            }
        }
        if errors.is_empty() { Ok(products) } else { Err(PolicyError::of(errors)) }
    }

    /// The tools of each product, for [`Vocabulary::products`]: rules may speak of `Portcullis::Product::"oncall"`.
    pub fn tools(&self) -> BTreeMap<String, BTreeSet<String>> {
        self.by_name.iter().map(|(name, product)| (name.clone(), product.tools.clone())).collect()
    }

    /// The product, for a principal it is for.
    ///
    /// # Errors
    /// The same refusal whether the product does not exist or is not for this principal.
    pub fn open(&self, name: &str, principal: &Principal) -> Result<Arc<Product>, Refusal> {
        let found = self.by_name.get(name).filter(|p| p.is_for(principal));
        found.cloned().ok_or_else(|| Refusal { rule: Arc::from(UNKNOWN_PRODUCT) })
    }

    /// The products a principal may use, by name.
    pub fn of(&self, principal: &Principal) -> impl Iterator<Item = &Arc<Product>> {
        self.by_name.values().filter(move |p| p.is_for(principal))
    }

    /// Every product, by name, whoever it is for.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Product>> {
        self.by_name.values()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

impl Product {
    fn of(settings: &ProductSettings, vocabulary: &Vocabulary) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let name = &settings.name;
        if name.is_empty() || name.len() > NAME_BYTES || !name.chars().all(fits) || name.starts_with('-') {
            return Err("a name is 1 to 64 lower-case letters, digits and '-', such as oncall".into());
        }
        let all: BTreeSet<&str> = vocabulary.all_tools();
        // What may come later is taken in when it is there.
        let may_come = |entry: &str| {
            vocabulary.expected.iter().any(|e| e == entry || matches_pattern(e, entry) || matches_pattern(entry, e))
        };
        let here = |entry: &str| all.iter().any(|tool| matches_pattern(entry, tool));
        let wanted: Vec<String> = settings.tools.iter().filter(|entry| here(entry) || !may_come(entry)).cloned().collect();
        let tools = chosen(&wanted, "tool", &all)?;
        if settings.tools.is_empty() {
            return Err("it has no tools; name at least one".into());
        }
        let sources = match (&settings.sources, &vocabulary.sources) {
            (None, _) => NameSet::All,
            (Some(wanted), Some(known)) => NameSet::Only(chosen(wanted, "source", &known.iter().map(String::as_str).collect())?),
            (Some(wanted), None) => NameSet::only(wanted.iter().cloned()),
        };
        let services = match (&settings.services, &vocabulary.services) {
            (None, _) => NameSet::All,
            (Some(wanted), Some(known)) => NameSet::Only(chosen(wanted, "service", &known.iter().map(String::as_str).collect())?),
            (Some(wanted), None) => match wanted.iter().find(|w| w.contains('*')) {
                Some(pattern) => return Err(format!("services come and go, so '{pattern}' cannot be resolved; write each name")),
                None => NameSet::only(wanted.iter().cloned()),
            },
        };
        let roles = settings.roles.clone().unwrap_or_default();
        let known_roles = vocabulary.all_roles();
        if let Some(unknown) = roles.iter().find(|r| !known_roles.contains(r.as_str())) {
            return Err(format!("there is no role '{unknown}'{}", did_you_mean(unknown, known_roles)));
        }
        if settings.roles.as_ref().is_some_and(Vec::is_empty) || settings.tenants.as_ref().is_some_and(Vec::is_empty) {
            return Err("an empty list of roles or tenants is nobody; leave it out for everybody".into());
        }
        let tenants: Result<Vec<TenantId>, String> =
            settings.tenants.iter().flatten().map(|t| TenantId::new(t).map_err(|e| e.to_string())).collect();
        let look_back: Option<Duration> = settings
            .limits
            .max_look_back
            .as_deref()
            .map(parse_duration)
            .transpose()
            .map_err(|e| format!("max_look_back: {e}"))?;
        if settings.limits.max_rows == Some(0) || settings.limits.max_bytes == Some(0) {
            return Err("max_rows and max_bytes must be at least 1".into());
        }
        let limits = Limits {
            look_back,
            rows: settings.limits.max_rows,
            bytes: settings.limits.max_bytes,
            sources,
            services,
            namespaces: settings.namespaces.as_ref().map_or(NameSet::All, |n| NameSet::only(n.iter().cloned())),
            ..Limits::default()
        };
        for uri in settings.resources.iter().flatten() {
            match usual_address(&uri.replace(['{', '}'], "")) {
                Ok(_) if uri.contains(['{', '}']) => {
                    return Err(format!("resources: '{uri}' is a template; write '*' in place of what is in braces"));
                }
                // What others list in a spelling of their own is read in that.
                Ok(usual) if usual != *uri && uri.starts_with("portcullis:") => {
                    return Err(format!("resources: '{uri}' is never asked for; write it as '{usual}'"));
                }
                Ok(_) => {}
                Err(fault) => return Err(format!("resources: '{uri}' is never asked for: {fault}")),
            }
        }
        Ok(Self {
            name: Arc::from(name.as_str()),
            title: Arc::from(settings.title.as_deref().unwrap_or(name)),
            tools,
            resources: settings.resources.clone(),
            prompts: settings.prompts.clone(),
            roles,
            tenants: tenants?,
            limits,
        })
    }

    /// Its name, as in its address.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its title for people.
    pub fn title(&self) -> &Arc<str> {
        &self.title
    }

    /// Its tools.
    pub fn tools(&self) -> &BTreeSet<String> {
        &self.tools
    }

    /// The roles it is for; everybody where there is none.
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// The tenants it is for; all where there is none.
    pub fn tenants(&self) -> &[TenantId] {
        &self.tenants
    }

    /// What it confines a call to.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether the tool is part of it.
    pub fn offers(&self, tool: &str) -> bool {
        self.tools.contains(tool)
    }

    /// Whether what is looked up is part of it.
    pub(crate) fn offers_lookup(&self, lookup: &Lookup<'_>) -> bool {
        let of_its_tools = || lookup.tools.iter().all(|tool| self.offers(tool));
        match (lookup.kind, &self.resources, &self.prompts) {
            (LookupKind::Prompt, _, Some(named)) => named.iter().any(|pattern| matches_pattern(pattern, lookup.name)),
            (LookupKind::Prompt, _, None) | (_, None, _) => lookup.own && of_its_tools(),
            (LookupKind::Resource, Some(named), _) => {
                of_its_tools() && named.iter().any(|pattern| matches_pattern(pattern, lookup.name))
            }
            (LookupKind::Family, Some(named), _) => {
                let family = member_pattern(lookup.name);
                of_its_tools() && named.iter().any(|pattern| patterns_meet(pattern, &family))
            }
        }
    }

    /// Whether it is for this principal.
    pub fn is_for(&self, principal: &Principal) -> bool {
        has_one_of(principal, &self.roles) && (self.tenants.is_empty() || self.tenants.contains(&principal.tenant))
    }

    /// The permit within this product: never wider.
    #[must_use]
    pub fn narrow(&self, permit: &Permit) -> Permit {
        permit.within_product(&self.name, &self.limits)
    }
}

/// The known names that `wanted` (with `*` for any text) chooses. Each entry must choose something.
fn chosen(wanted: &[String], kind: &str, known: &BTreeSet<&str>) -> Result<BTreeSet<String>, String> {
    let mut all = BTreeSet::new();
    for entry in wanted {
        let matching: Vec<&str> = known.iter().copied().filter(|k| matches_pattern(entry, k)).collect();
        if matching.is_empty() {
            return Err(format!("there is no {kind} '{entry}'{}", did_you_mean(entry, known.iter().copied())));
        }
        all.extend(matching.into_iter().map(str::to_owned));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::principal;

    fn vocabulary() -> Vocabulary {
        Vocabulary {
            tools: ["query_logs", "query_metrics", "sql"].map(str::to_owned).into(),
            sources: Some(["prod-eu", "lab"].map(str::to_owned).into()),
            ..Vocabulary::default()
        }
    }

    fn settings(text: &str) -> ProductSettings {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_tool_that_may_come_is_no_mistake_and_one_that_may_not_is() {
        let mut vocabulary = vocabulary();
        vocabulary.expected = ["grafana_*".to_owned(), "kube_get".to_owned()].into();
        let load = |tools: &str| {
            let product = settings(&format!(r#"{{"name": "oncall", "tools": {tools}}}"#));
            Products::load(&[product], &vocabulary).map(|p| p.tools()["oncall"].clone())
        };
        assert_eq!(load(r#"["grafana_search", "query_*", "kube_get"]"#).unwrap().len(), 2);
        assert!(load(r#"["grafana_*"]"#).unwrap().is_empty());
        assert!(load(r#"["loki_search"]"#).unwrap_err().to_string().contains("loki_search"));
    }

    #[test]
    fn a_product_chooses_by_pattern() {
        let one = settings(r#"{"name":"oncall","tools":["query_*"],"sources":["prod-*"],"limits":{"max_look_back":"1h"}}"#);
        let products = Products::load(&[one], &vocabulary()).unwrap();
        let product = products.open("oncall", &principal("reader")).unwrap();
        assert!(product.offers("query_logs") && !product.offers("sql"));
        assert_eq!(product.limits().sources, NameSet::only(["prod-eu"]));
        assert_eq!(product.limits().look_back, Some(Duration::from_hours(1)));
    }

    #[test]
    fn a_product_bundles_what_is_looked_up_as_well() {
        let product = |more: &str| {
            let one = settings(&format!(r#"{{"name":"oncall","tools":["query_*"]{more}}}"#));
            Products::load(&[one], &vocabulary()).unwrap().open("oncall", &principal("reader")).unwrap()
        };
        let tools = ["query_logs".to_owned(), "sql".to_owned()];
        let (inside, both) = (&tools[..1], &tools[..]);
        let with = |lookup: Lookup<'static>, own, tools| Lookup { own, tools, ..lookup };
        let (one, family, ask) = (Lookup::resource("n://a/1"), Lookup::family("n://a/{id}"), Lookup::prompt("triage"));
        let quiet = product("");
        for lookup in [one, family, ask] {
            assert!(quiet.offers_lookup(&lookup) && quiet.offers_lookup(&with(lookup, true, inside)), "{lookup:?}");
            assert!(!quiet.offers_lookup(&with(lookup, true, both)), "{lookup:?} shows what a tool outside of it shows");
            assert!(!quiet.offers_lookup(&with(lookup, false, &[])), "{lookup:?} of another server is not named");
        }
        let named = product(r#","resources":["n://a/1"],"prompts":["tri*"]"#);
        for lookup in [one, family, ask] {
            assert!(named.offers_lookup(&with(lookup, false, &[])), "{lookup:?}");
        }
        assert!(!named.offers_lookup(&with(one, true, both)), "naming a resource does not bring its tool");
        assert!(!named.offers_lookup(&Lookup::resource("n://a/2")) && !named.offers_lookup(&Lookup::family("n://b/{id}")));
        assert!(!named.offers_lookup(&Lookup::prompt("other")));
        let none = product(r#","resources":[],"prompts":[]"#);
        assert!(![one, family, ask].iter().any(|lookup| none.offers_lookup(lookup)));
    }

    #[test]
    fn a_foreign_product_looks_like_an_unknown_one() {
        let one = settings(r#"{"name":"oncall","tools":["sql"],"roles":["operator"],"tenants":["default"]}"#);
        let products = Products::load(&[one], &vocabulary()).unwrap();
        assert!(products.open("oncall", &principal("operator")).is_ok());
        let foreign = products.open("oncall", &principal("reader")).unwrap_err();
        assert_eq!(foreign, products.open("nothing", &principal("operator")).unwrap_err());
        let mut other = principal("operator");
        other.tenant = TenantId::new("other").unwrap();
        assert_eq!(products.open("oncall", &other).unwrap_err(), foreign);
        assert_eq!(products.of(&other).count(), 0);
    }

    #[test]
    fn mistakes_name_the_nearest() {
        for (text, expected) in [
            (r#"{"name":"a","tools":["query_log"]}"#, "did you mean 'query_logs'"),
            (r#"{"name":"a","tools":["delete_*"]}"#, "there is no tool"),
            (r#"{"name":"a","tools":["sql"],"sources":["prod-ue"]}"#, "did you mean 'prod-eu'"),
            (r#"{"name":"a","tools":["sql"],"services":["cart-*"]}"#, "come and go"),
            (r#"{"name":"a","tools":["sql"],"roles":["readr"]}"#, "did you mean 'reader'"),
            (r#"{"name":"a","tools":["sql"],"roles":[]}"#, "nobody"),
            (r#"{"name":"a","tools":["sql"],"resources":["portcullis://service/p%61yment"]}"#, "portcullis://service/payment"),
            (r#"{"name":"a","tools":["sql"],"resources":["note://by-id/{id}"]}"#, "'*'"),
            (r#"{"name":"a","tools":["sql"],"resources":["note://a/../b"]}"#, "'..'"),
            (r#"{"name":"A b","tools":["sql"]}"#, "lower-case"),
            (r#"{"name":"a","tools":[]}"#, "at least one"),
            (r#"{"name":"a","tools":["sql"],"limits":{"max_look_back":"soon"}}"#, "15m"),
        ] {
            let error = Products::load(&[settings(text)], &vocabulary()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let twice = settings(r#"{"name":"a","tools":["sql"]}"#);
        assert!(Products::load(&[twice.clone(), twice], &vocabulary()).unwrap_err().to_string().contains("twice"));
        assert!(serde_json::from_str::<ProductSettings>(r#"{"name":"a","tools":["sql"],"source":["x"]}"#).is_err());
    }
}
