//! What a caller may see of a source, as matchers. Guards the scope: every selector of this connector is built from a
//! [`View`], so none can forget it.
//!
//! The service of a series is the value of the first configured label that it has. Because a series can carry several
//! of them, a view that finds services under one label excludes series that have an earlier one: otherwise `job="cart"`
//! would also show the series of every other service that job scrapes.

use portcullis_model::{NameSet, Scope};
use portcullis_query::QueryError;
use portcullis_query::promql::{Expr, LabelName, Matcher, MetricName, Selector};

use super::config::Labels;
use super::wire::LabelSet;

/// One way to find what the caller may see; several views never hold the same series.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct View {
    /// Conditions on the service, if any.
    pub(crate) service: Vec<Matcher>,
    /// Conditions on the namespace, if any.
    pub(crate) namespace: Vec<Matcher>,
    /// The label the service is found under, when the view asks for services.
    pub(crate) label: Option<LabelName>,
}

impl View {
    /// All conditions.
    pub(crate) fn matchers(&self) -> impl Iterator<Item = &Matcher> {
        self.service.iter().chain(&self.namespace)
    }
}

/// Names one label family must have; `None` for no restriction.
type Wanted = Option<Vec<String>>;

/// The names a question may see: the asked service within the scope, or the whole scope.
pub(crate) fn wanted_services(scope: &Scope, service: Option<&str>) -> Wanted {
    match (service, &scope.services) {
        (Some(service), _) => Some(vec![service.to_owned()]),
        (None, NameSet::Only(names)) => Some(names.iter().filter(|n| !n.is_empty()).cloned().collect()),
        (None, NameSet::All) => None,
    }
}

/// One label and the conditions under which it holds a wanted name; no label where nothing is wanted.
type Alternative = (Option<LabelName>, Vec<Matcher>);

/// The alternatives of one family: per label, the conditions under which it holds one of the wanted names.
fn alternatives(family: &[LabelName], wanted: &Wanted, kind: &'static str) -> Result<Vec<Alternative>, QueryError> {
    let Some(names) = wanted else { return Ok(vec![(None, Vec::new())]) };
    if names.is_empty() {
        return Err(QueryError::NothingInScope { kind });
    }
    if family.is_empty() {
        return Err(QueryError::NoLabel { kind });
    }
    (0..family.len())
        .map(|index| {
            let mut matchers = vec![Matcher::any_of(family[index].clone(), names)?];
            matchers.extend(family[..index].iter().map(|earlier| Matcher::equal(earlier.clone(), "")));
            Ok((Some(family[index].clone()), matchers))
        })
        .collect()
}

/// Every view of a question, whether or not the source has anything there.
pub(crate) fn all_views(labels: &Labels, scope: &Scope, service: Option<&str>) -> Result<Vec<View>, QueryError> {
    let namespaces: Wanted = scope.namespaces.names().map(|names| names.iter().filter(|n| !n.is_empty()).cloned().collect());
    let services = alternatives(&labels.service, &wanted_services(scope, service), "service")?;
    let namespaces = alternatives(&labels.namespace, &namespaces, "namespace")?;
    let mut views = Vec::with_capacity(services.len() * namespaces.len());
    for (label, service) in &services {
        for (_, namespace) in &namespaces {
            views.push(View { service: service.clone(), namespace: namespace.clone(), label: label.clone() });
        }
    }
    Ok(views)
}

/// The views that find any service under `label`, for listing services.
pub(crate) fn listing_views(labels: &Labels, scope: &Scope) -> Result<Vec<(LabelName, View)>, QueryError> {
    let everything = all_views(labels, &Scope { services: NameSet::All, ..scope.clone() }, None)?;
    let mut views = Vec::new();
    for (index, label) in labels.service.iter().enumerate() {
        let mut service = vec![Matcher::not_equal(label.clone(), "")];
        service.extend(labels.service[..index].iter().map(|earlier| Matcher::equal(earlier.clone(), "")));
        for view in &everything {
            views.push((label.clone(), View { service: service.clone(), label: Some(label.clone()), ..view.clone() }));
        }
    }
    Ok(views)
}

/// One selector per view.
pub(crate) fn selectors(views: &[View], base: &Selector) -> Vec<Selector> {
    views.iter().map(|view| base.clone().matching_all(view.matchers())).collect()
}

/// The same expression over every view, joined. Views are disjoint, so the join loses nothing.
pub(crate) fn over_views(
    views: &[Vec<Matcher>],
    metric: &MetricName,
    conditions: &[Matcher],
    build: &dyn Fn(Selector) -> Expr,
) -> Option<Expr> {
    let each =
        views.iter().map(|matchers| build(Selector::metric(metric.clone()).matching_all(conditions).matching_all(matchers)));
    each.reduce(Expr::or)
}

/// The service that labels name: the value of the first configured label that is there.
pub(crate) fn value_of<'a>(family: &[LabelName], labels: &'a LabelSet) -> Option<&'a str> {
    family.iter().filter_map(|label| labels.get(label.as_str())).map(String::as_str).find(|value| !value.is_empty())
}

/// Whether something with these labels may be seen. What names no service is nobody's, so a restricted caller does not
/// see it.
pub(crate) fn is_visible(labels: &Labels, scope: &Scope, service: Option<&str>, set: &LabelSet) -> bool {
    let inside = |allowed: &NameSet, family: &[LabelName]| {
        allowed.is_all() || value_of(family, set).is_some_and(|value| allowed.contains(value))
    };
    inside(&scope.services, &labels.service)
        && inside(&scope.namespaces, &labels.namespace)
        && service.is_none_or(|wanted| value_of(&labels.service, set) == Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::TenantId;

    fn labels() -> Labels {
        let names = |list: &[&str]| list.iter().map(|n| LabelName::new(*n).unwrap()).collect();
        Labels { service: names(&["service_name", "job"]), namespace: names(&["namespace"]), instance: names(&["instance"]) }
    }

    fn scope(services: NameSet, namespaces: NameSet) -> Scope {
        Scope { services, namespaces, ..Scope::tenant_wide(TenantId::default_tenant()) }
    }

    fn written(views: &[View]) -> Vec<String> {
        selectors(views, &Selector::any()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_unrestricted_question_has_one_view_without_conditions() {
        let views = all_views(&labels(), &scope(NameSet::All, NameSet::All), None).unwrap();
        assert_eq!(views, [View::default()]);
    }

    #[test]
    fn a_later_label_excludes_series_with_an_earlier_one() {
        let views = all_views(&labels(), &scope(NameSet::All, NameSet::only(["shop"])), Some("cart")).unwrap();
        assert_eq!(
            written(&views),
            [r#"{service_name="cart",namespace="shop"}"#, r#"{job="cart",service_name="",namespace="shop"}"#]
        );
    }

    #[test]
    fn a_scope_of_nothing_is_refused() {
        let nothing = || NameSet::only(Vec::<String>::new());
        assert!(all_views(&labels(), &scope(nothing(), NameSet::All), None).is_err());
        assert!(all_views(&labels(), &scope(NameSet::only([""]), NameSet::All), None).is_err());
        assert!(all_views(&labels(), &scope(NameSet::All, nothing()), Some("cart")).is_err());
        let mut without = labels();
        without.namespace.clear();
        assert!(all_views(&without, &scope(NameSet::All, NameSet::only(["shop"])), None).is_err());
    }

    #[test]
    fn alerts_belong_to_the_first_label_they_have() {
        let set = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<LabelSet>();
        let cart = scope(NameSet::only(["cart"]), NameSet::All);
        let visible = |pairs: &[(&str, &str)]| is_visible(&labels(), &cart, None, &set(pairs));
        assert!(visible(&[("job", "cart")]));
        assert!(visible(&[("service_name", ""), ("job", "cart")]));
        assert!(!visible(&[("service_name", "payment"), ("job", "cart")]));
        assert!(!visible(&[("severity", "critical")]));
    }
}
