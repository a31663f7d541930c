//! Names to addresses, checked. Guards against DNS rebinding: the connection goes to exactly the addresses that were
//! classified here, and one forbidden address refuses the whole name. Must not cache.

use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::{AddressPolicy, EgressErrorKind};

/// The resolver of one client.
#[derive(Debug, Clone)]
pub(crate) struct CheckedResolver {
    policy: Arc<AddressPolicy>,
}

impl CheckedResolver {
    pub(crate) fn new(policy: AddressPolicy) -> Self {
        Self { policy: Arc::new(policy) }
    }
}

/// Lets a set of addresses pass only as a whole.
fn check_all(policy: &AddressPolicy, found: &[SocketAddr]) -> Result<(), EgressErrorKind> {
    for socket in found {
        let address = socket.ip();
        policy.check(address).map_err(|class| EgressErrorKind::AddressRefused { address, class })?;
    }
    Ok(())
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = Arc::clone(&self.policy);
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            check_all(&policy, &found)?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AddressClass;

    #[test]
    fn one_forbidden_address_refuses_the_name() {
        let policy = AddressPolicy::default();
        let public: SocketAddr = "93.184.216.34:0".parse().unwrap();
        let inside: SocketAddr = "[::ffff:10.0.0.5]:0".parse().unwrap();
        assert!(check_all(&policy, &[public]).is_ok());
        let refused = check_all(&policy, &[public, inside]).unwrap_err();
        assert!(matches!(refused, EgressErrorKind::AddressRefused { class: AddressClass::Private, .. }));
    }
}
