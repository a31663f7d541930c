//! The user who started the process: the principal of stdio and of `portcullis call`.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use portcullis_model::{CredentialKind, InvalidName, Principal, PrincipalId, Scope, TenantId};

/// Role of the local user when the configuration names none.
pub const DEFAULT_LOCAL_ROLE: &str = "operator";

/// Longest user name that is kept.
const USER_BYTES: usize = 64;

/// Name of the user this process runs as, from the system's user database; `uid-<n>` when it has none.
pub fn local_user() -> String {
    let Ok(uid) = std::fs::metadata("/proc/self").map(|m| m.uid()) else {
        // Systems without /proc: the login name is only a label here, it grants nothing.
        return std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned());
    };
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_of(uid, &users).unwrap_or_else(|| format!("uid-{uid}"))
}

fn name_of(uid: u32, users: &str) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid) && !name.is_empty()).then(|| name.to_owned())
    })
}

/// The principal `local:<user>` of the default tenant. Characters a principal's id cannot carry become `_`.
pub fn local_principal(user: &str, role: &str) -> Result<Principal, InvalidName> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '@');
    let user: String = user.chars().map(|c| if allowed(c) { c } else { '_' }).take(USER_BYTES).collect();
    let tenant = TenantId::default_tenant();
    Ok(Principal {
        id: PrincipalId::new(format!("local:{user}"))?,
        credential: CredentialKind::Local,
        tenant: tenant.clone(),
        roles: [Arc::from(role)].into(),
        doors: [Arc::from("mcp")].into(),
        scope: Scope::tenant_wide(tenant),
    })
}

/// Whoever comes over loopback without a credential, where the operator allows it.
pub(crate) fn anonymous(role: &str) -> Result<Principal, InvalidName> {
    Ok(Principal {
        id: PrincipalId::new("anonymous")?,
        credential: CredentialKind::Anonymous,
        roles: BTreeSet::from([Arc::from(role)]),
        ..local_principal("anonymous", role)?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_number_and_made_fit() {
        let users = "root:x:0:0:root:/root:/bin/sh\nana:x:1000:1000::/home/ana:/bin/sh\nbroken\n";
        assert_eq!(name_of(1000, users).as_deref(), Some("ana"));
        assert_eq!(name_of(7, users), None);
        assert!(!local_user().is_empty());
        assert_eq!(local_principal("DOM\\ana b", "reader").unwrap().id.as_str(), "local:DOM_ana_b");
        assert!(local_principal(&"x".repeat(500), "reader").is_ok());
    }
}
