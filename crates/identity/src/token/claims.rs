//! What a token's claims must be, and whom they make. Guards the order: only a token whose signature was verified comes
//! here. A claim that is missing or of the wrong type grants nothing; nothing is guessed from another one.

use std::collections::BTreeSet;
use std::sync::Arc;

use portcullis_model::{CredentialKind, NameSet, Principal, PrincipalId, Scope, TenantId, Timestamp};
use serde_json::{Map, Value};

use super::reason::{TokenReason, TokenRefusal, shown};
use super::settings::{ClaimPath, TenantMapping, TokenIssuer, ValueMapping};
use crate::record::Door;

/// Values of one claim that are read; a longer list is refused.
const MAX_VALUES: usize = 512;
/// Characters of a subject (OpenID Connect Core section 2).
const MAX_SUBJECT: usize = 255;
/// Characters of a subject that stands in a principal's id as it is.
const MAX_PLAIN_SUBJECT: usize = 80;
/// Claims only ID tokens and logout tokens have (OpenID Connect Core sections 2 and 3.3.2.11, Back-Channel Logout 2.4).
const FOREIGN_CLAIMS: [&str; 5] = ["nonce", "at_hash", "c_hash", "s_hash", "events"];
/// Claims by which some providers say what a token is, with the values that mean an access token: Keycloak, Cognito.
const KIND_CLAIMS: [(&str, &[&str]); 2] = [("typ", &["Bearer", "at+jwt", "access_token"]), ("token_use", &["access"])];

type Claims = Map<String, Value>;

fn refused(reason: TokenReason, detail: impl Into<String>) -> TokenRefusal {
    TokenRefusal::new(reason, detail)
}

/// A point in time (RFC 7519 section 2): seconds, perhaps with a fraction.
fn seconds(claims: &Claims, name: &str) -> Result<Option<i64>, TokenRefusal> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let number = value.as_i64().or_else(|| value.as_f64().filter(|s| s.abs() < 1e15).map(|s| s.floor() as i64));
    number.map(Some).ok_or_else(|| refused(TokenReason::ClaimMissing, format!("'{name}' is not a number of seconds")))
}

/// Checks time, audience and kind. Returns when the token expires.
pub(super) fn check(
    claims: &Claims,
    issuer: &TokenIssuer,
    audiences: &[String],
    kind: Option<&str>,
    now: Timestamp,
) -> Result<i64, TokenRefusal> {
    check_kind(claims, kind)?;
    check_audience(claims, audiences)?;
    let now = now.as_nanos().div_euclid(1_000_000_000);
    let skew = issuer.clock_skew.0.as_secs() as i64;
    let expires = seconds(claims, "exp")?.ok_or_else(|| refused(TokenReason::ClaimMissing, "'exp' is missing"))?;
    if expires.saturating_add(skew) <= now {
        return Err(refused(TokenReason::Expired, format!("it expired {} s ago", now.saturating_sub(expires))));
    }
    let issued = seconds(claims, "iat")?;
    for (name, value) in [("nbf", seconds(claims, "nbf")?), ("iat", issued)] {
        if let Some(at) = value.filter(|at| *at > now.saturating_add(skew)) {
            return Err(refused(TokenReason::NotYetValid, format!("'{name}' is {} s in the future", at.saturating_sub(now))));
        }
    }
    // Without the time of issue, what is left of its life must fit.
    let lifetime = expires.saturating_sub(issued.unwrap_or(now));
    let longest = i64::try_from(issuer.max_lifetime.0.as_secs()).unwrap_or(i64::MAX);
    if lifetime > longest.saturating_add(skew) {
        return Err(refused(TokenReason::LifetimeRefused, format!("it lives {lifetime} s, and {longest} s are accepted")));
    }
    if let Some(age) = issuer.max_age {
        let issued = issued.ok_or_else(|| refused(TokenReason::ClaimMissing, "'iat' is missing and max_age is set"))?;
        let longest = i64::try_from(age.0.as_secs()).unwrap_or(i64::MAX);
        if now.saturating_sub(issued) > longest.saturating_add(skew) {
            return Err(refused(TokenReason::LifetimeRefused, format!("it was issued more than {longest} s ago")));
        }
    }
    Ok(expires)
}

fn check_kind(claims: &Claims, kind: Option<&str>) -> Result<(), TokenRefusal> {
    if claims.contains_key("cnf") {
        let detail = "it is bound to a key of its holder ('cnf'), and such proofs are not verified here";
        return Err(refused(TokenReason::SenderConstrained, detail));
    }
    // RFC 9068: a token that says so in its header is an access token.
    if kind == Some("at+jwt") {
        return Ok(());
    }
    if let Some(name) = FOREIGN_CLAIMS.iter().find(|name| claims.contains_key(**name)) {
        return Err(refused(TokenReason::NotAnAccessToken, format!("it has the claim '{name}'")));
    }
    for (name, wanted) in KIND_CLAIMS {
        if let Some(value) = claims.get(name).filter(|value| value.as_str().is_none_or(|kind| !wanted.contains(&kind))) {
            let detail = format!("its claim '{name}' is {}", shown(&value.to_string()));
            return Err(refused(TokenReason::NotAnAccessToken, detail));
        }
    }
    Ok(())
}

fn check_audience(claims: &Claims, audiences: &[String]) -> Result<(), TokenRefusal> {
    let named = match claims.get("aud") {
        None => return Err(refused(TokenReason::ClaimMissing, "'aud' is missing")),
        Some(value) => texts(value, "aud")?,
    };
    if named.iter().any(|name| audiences.iter().any(|own| own == name)) {
        return Ok(());
    }
    let named = named.join(", ");
    Err(refused(TokenReason::AudienceRefused, format!("it is meant for '{}', not for '{}'", shown(&named), audiences.join(", "))))
}

/// A text, or a list of texts.
fn texts<'c>(value: &'c Value, name: &str) -> Result<Vec<&'c str>, TokenRefusal> {
    let wrong =
        || refused(TokenReason::ClaimMissing, format!("'{name}' is neither a text nor a list of at most {MAX_VALUES} texts"));
    match value {
        Value::String(text) => Ok(vec![text]),
        Value::Array(list) if list.len() <= MAX_VALUES => list.iter().map(|item| item.as_str().ok_or_else(wrong)).collect(),
        _ => Err(wrong()),
    }
}

/// The claim at a path. Each step is one exact name.
fn at<'c>(claims: &'c Claims, path: &ClaimPath) -> Option<&'c Value> {
    let (first, rest) = path.steps().split_first()?;
    rest.iter().try_fold(claims.get(first)?, |value, step| value.as_object()?.get(step))
}

fn texts_at<'c>(claims: &'c Claims, path: &ClaimPath) -> Result<Vec<&'c str>, TokenRefusal> {
    at(claims, path).map_or(Ok(Vec::new()), |value| texts(value, &path.steps().join(".")))
}

/// What the values of a claim mean; values that are not listed mean nothing.
fn mapped<'m>(claims: &Claims, mapping: &'m ValueMapping) -> Result<BTreeSet<&'m str>, TokenRefusal> {
    let values = texts_at(claims, &mapping.claim)?;
    Ok(values.into_iter().filter_map(|value| mapping.map.get(value)).map(String::as_str).collect())
}

/// Makes the principal of a token that passed [`check`].
pub(super) fn principal(claims: &Claims, issuer: &TokenIssuer) -> Result<Principal, TokenRefusal> {
    let path = &issuer.principal_claim;
    let subject = at(claims, path).and_then(Value::as_str).unwrap_or_default();
    if subject.is_empty() || subject.chars().count() > MAX_SUBJECT || subject.chars().any(char::is_control) {
        let detail = format!("'{}' is not a text of 1 to {MAX_SUBJECT} characters", path.steps().join("."));
        return Err(refused(TokenReason::ClaimMissing, detail));
    }
    let tenant = tenant(claims, issuer)?;
    let (roles, doors) = grants(claims, issuer)?;
    let without_role = [Door::Ingest, Door::Metrics].iter().any(|door| doors.contains(door.as_str()));
    if doors.is_empty() || (roles.is_empty() && !without_role) {
        let detail = format!("no scope or role of '{}' is mapped for issuer '{}'", shown(subject), issuer.name);
        return Err(refused(TokenReason::GrantsNothing, detail));
    }
    let mut scope = Scope::tenant_wide(tenant.clone());
    scope.services = names(claims, issuer.services_claim.as_ref())?;
    scope.namespaces = names(claims, issuer.namespaces_claim.as_ref())?;
    Ok(Principal {
        id: principal_id(&issuer.name, subject)?,
        credential: CredentialKind::Token { issuer: Arc::from(issuer.issuer.as_str()), subject: Arc::from(subject) },
        tenant,
        roles,
        doors,
        scope,
    })
}

fn tenant(claims: &Claims, issuer: &TokenIssuer) -> Result<TenantId, TokenRefusal> {
    let mapping = match &issuer.tenant {
        TenantMapping::Fixed(tenant) => return Ok(tenant.clone()),
        TenantMapping::By(mapping) => mapping,
    };
    let unmapped = |detail: &str| refused(TokenReason::TenantUnmapped, format!("'{}' {detail}", mapping.claim.steps().join(".")));
    let mut found = mapped(claims, mapping)?.into_iter();
    match (found.next(), found.next()) {
        (Some(tenant), None) => TenantId::new(tenant).map_err(|_| unmapped("maps to something that is no tenant")),
        (None, _) => Err(unmapped("maps to no tenant")),
        (Some(_), Some(_)) => Err(unmapped("maps to several tenants")),
    }
}

type Names = BTreeSet<Arc<str>>;

/// Roles and doors.
fn grants(claims: &Claims, issuer: &TokenIssuer) -> Result<(Names, Names), TokenRefusal> {
    let mut roles: Names = issuer.default_roles.iter().map(|role| Arc::from(role.as_str())).collect();
    if let Some(mapping) = &issuer.roles {
        roles.extend(mapped(claims, mapping)?.into_iter().map(Arc::from));
    }
    let mut doors = Names::new();
    if issuer.scopes.is_empty() {
        doors.insert(Arc::from(Door::Mcp.as_str()));
        return Ok((roles, doors));
    }
    // A text holds several scopes, a list one in each place (some providers write `scp` so).
    let scopes = texts_at(claims, &issuer.scope_claim)?;
    for grant in scopes.iter().flat_map(|text| text.split(' ')).filter_map(|scope| issuer.scopes.get(scope)) {
        roles.extend(grant.roles.iter().map(|role| Arc::from(role.as_str())));
        doors.extend(grant.doors.iter().map(|door| Arc::from(door.as_str())));
    }
    Ok((roles, doors))
}

/// Names a principal is confined to; none when the claim is absent.
fn names(claims: &Claims, path: Option<&ClaimPath>) -> Result<NameSet, TokenRefusal> {
    let Some(path) = path else { return Ok(NameSet::All) };
    let values = texts_at(claims, path)?;
    if values.iter().any(|name| name.is_empty() || name.len() > 256 || name.chars().any(char::is_control)) {
        return Err(refused(TokenReason::ClaimMissing, format!("'{}' holds a name of a wrong shape", path.steps().join("."))));
    }
    Ok(NameSet::only(values))
}

/// `token:<issuer>/<subject>`. A subject with other characters than an id may have stands there as its hash, so that two
/// subjects never share an id.
fn principal_id(issuer: &str, subject: &str) -> Result<PrincipalId, TokenRefusal> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | ':' | '@');
    let id = if subject.len() <= MAX_PLAIN_SUBJECT && subject.chars().all(plain) {
        format!("token:{issuer}/{subject}")
    } else {
        let digest = blake3::hash(subject.as_bytes()).to_hex();
        format!("token:{issuer}/blake3/{}", &digest.as_str()[..40])
    };
    PrincipalId::new(id).map_err(|e| refused(TokenReason::ClaimMissing, e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn claims(value: &Value) -> Claims {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn paths_are_exact_names() {
        let claims = claims(&json!({"a.b": 1, "a": {"b": 2, "c": {"d": 3}}, "https://x/roles": 4}));
        let name = |n: &str| at(&claims, &ClaimPath::Name(n.to_owned())).cloned();
        let path = |p: &[&str]| at(&claims, &ClaimPath::Path(p.iter().map(|s| (*s).to_owned()).collect())).cloned();
        assert_eq!(name("a.b"), Some(json!(1)));
        assert_eq!(name("https://x/roles"), Some(json!(4)));
        assert_eq!(path(&["a", "c", "d"]), Some(json!(3)));
        assert_eq!((name("A"), path(&["a", "b", "c"]), path(&[])), (None, None, None));
    }

    #[test]
    fn times_have_one_meaning() {
        let read = |value: Value| seconds(&claims(&json!({"exp": value})), "exp");
        assert_eq!(read(json!(5)).unwrap(), Some(5));
        assert_eq!(read(json!(5.9)).unwrap(), Some(5));
        for wrong in [json!("5"), json!(null), json!([5]), json!(1e300), json!(true)] {
            assert_eq!(read(wrong.clone()).unwrap_err().reason, TokenReason::ClaimMissing, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn two_subjects_never_share_an_id(one in "\\PC{1,120}", other in "\\PC{1,120}") {
            prop_assume!(one != other);
            prop_assert_ne!(principal_id("corp", &one).unwrap(), principal_id("corp", &other).unwrap());
        }

        #[test]
        fn issuers_never_share_an_id(subject in "\\PC{1,120}") {
            prop_assert_ne!(principal_id("a", &subject).unwrap(), principal_id("b", &subject).unwrap());
        }
    }
}
