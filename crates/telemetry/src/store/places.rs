//! Places among the SQL statements that run at once, and how many of them one caller and one tenant may have. Guards that
//! nobody keeps all others from asking: who has a full share is refused at once and does not wait in front of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use portcullis_model::{PrincipalId, TenantId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lock;
use crate::error::{Result, StoreError};

/// SQL statements that run at once; more wait for a place. They have places of their own, so that long ones hold up no others.
const STATEMENTS: usize = 4;
/// Statements of one principal under way at once.
const OF_ONE_PRINCIPAL: usize = 2;
/// Statements of all principals of one tenant under way at once.
const OF_ONE_TENANT: usize = 3;
/// When who was refused may come back, seconds.
const RETRY_AFTER_SECONDS: u64 = 2;

/// The places, and who has how many.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) free: Arc<Semaphore>,
    shares: Arc<Mutex<Shares>>,
}

/// Statements that wait or run, by whose they are.
#[derive(Debug, Default)]
struct Shares {
    principals: BTreeMap<PrincipalId, usize>,
    tenants: BTreeMap<TenantId, usize>,
}

/// One statement counted to its principal and tenant, until this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    shares: Arc<Mutex<Shares>>,
    principal: PrincipalId,
    tenant: TenantId,
}

/// A place, with the share it is of. A statement keeps it until nothing of it is left.
#[derive(Debug)]
pub(crate) struct Place {
    _turn: OwnedSemaphorePermit,
    _share: Share,
}

impl Place {
    pub(super) fn new(turn: OwnedSemaphorePermit, share: Share) -> Self {
        Self { _turn: turn, _share: share }
    }
}

impl Places {
    pub(super) fn new() -> Self {
        Self { free: Arc::new(Semaphore::new(STATEMENTS)), shares: Arc::default() }
    }

    /// Counts one more statement, unless that would be too many.
    pub(super) fn share(&self, principal: &PrincipalId, tenant: &TenantId) -> Result<Share> {
        let mut shares = lock(&self.shares);
        let of_principal = shares.principals.get(principal).copied().unwrap_or_default();
        let of_tenant = shares.tenants.get(tenant).copied().unwrap_or_default();
        if of_principal >= OF_ONE_PRINCIPAL {
            return Err(crowded("this principal", OF_ONE_PRINCIPAL));
        }
        if of_tenant >= OF_ONE_TENANT {
            return Err(crowded("this tenant", OF_ONE_TENANT));
        }
        shares.principals.insert(principal.clone(), of_principal + 1);
        shares.tenants.insert(tenant.clone(), of_tenant + 1);
        Ok(Share { shares: Arc::clone(&self.shares), principal: principal.clone(), tenant: tenant.clone() })
    }
}

fn crowded(whose: &'static str, most: usize) -> StoreError {
    StoreError::Crowded { whose, most, retry_after_seconds: RETRY_AFTER_SECONDS }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut shares = lock(&self.shares);
        one_less(&mut shares.principals, &self.principal);
        one_less(&mut shares.tenants, &self.tenant);
    }
}

/// Names nobody who has none, so that the map stays as small as the number of places.
fn one_less<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_more_than_a_share_of_the_places_and_each_comes_back() {
        let places = Places::new();
        let principal = |name: &str| PrincipalId::new(name).unwrap();
        let (shop, bank) = (TenantId::new("shop").unwrap(), TenantId::new("bank").unwrap());
        let first = places.share(&principal("one"), &shop).unwrap();
        let _second = places.share(&principal("one"), &shop).unwrap();
        let refused = places.share(&principal("one"), &shop).unwrap_err();
        assert!(matches!(refused, StoreError::Crowded { most: OF_ONE_PRINCIPAL, .. }), "{refused}");
        let third = places.share(&principal("two"), &shop).unwrap();
        let refused = places.share(&principal("three"), &shop).unwrap_err();
        assert!(matches!(refused, StoreError::Crowded { most: OF_ONE_TENANT, .. }), "{refused}");
        let _other = places.share(&principal("four"), &bank).unwrap();
        drop(first);
        let _again = places.share(&principal("one"), &shop).unwrap();
        drop(third);
        assert_eq!(lock(&places.shares).principals.len(), 2);
        assert_eq!(lock(&places.shares).tenants.len(), 2);
    }
}
