//! Keys over their whole life, on memory and on a shared SQLite file, and the questions asked at the doors.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise, in its helpers too")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_identity::{
    DEFAULT_LOCAL_ROLE, Door, Identity, KeyError, KeyRequest, KeyRing, KeyStatus, Pepper, Presented, RefusalReason,
    local_principal,
};
use portcullis_model::{CredentialKind, FaultCode, ManualClock, NameSet, TenantId, Timestamp};
use portcullis_state::{MemoryStore, SqliteStore, Store};

fn clock() -> ManualClock {
    ManualClock::new(Timestamp::from_seconds(1_800_000_000))
}

struct House {
    clock: ManualClock,
    store: MemoryStore,
    ring: KeyRing,
}

async fn house() -> House {
    let clock = clock();
    let store = MemoryStore::new(Arc::new(clock.clone()));
    let pepper = Pepper::in_memory().unwrap();
    let ring = KeyRing::open(Arc::new(store.clone()), Arc::new(clock.clone()), pepper).await.unwrap();
    House { clock, store, ring }
}

fn request() -> KeyRequest {
    KeyRequest::new("test", "reader", TenantId::default_tenant())
}

fn reason(ring: &KeyRing, key: &str) -> RefusalReason {
    ring.verify(key).unwrap_err().reason
}

#[tokio::test]
async fn a_key_is_shown_once_hashed_at_rest_and_opens_its_door() {
    let house = house().await;
    let mut wanted = request();
    wanted.tenant = TenantId::new("shop").unwrap();
    wanted.services = NameSet::only(["cart"]);
    let created = house.ring.create(wanted).await.unwrap();
    let principal = house.ring.verify(created.secret.expose()).unwrap();
    assert_eq!(principal.id.as_str(), format!("key:{}", created.record.id));
    assert_eq!(principal.credential, CredentialKind::ApiKey { id: created.record.id.clone() });
    assert_eq!(principal.tenant.as_str(), "shop");
    assert_eq!(principal.scope.tenant.as_str(), "shop");
    assert!(principal.scope.require_service("payment").is_err());

    let secret_part = created.secret.expose().split('_').nth(2).unwrap().to_owned();
    for entry in house.store.list("identity.api_keys", "", 100).await.unwrap().entries {
        assert!(!String::from_utf8(entry.value).unwrap().contains(&secret_part), "the secret is nowhere at rest");
    }
    let printed = format!("{created:?} {:?} {:?}", house.ring, house.ring.list().await.unwrap());
    assert!(!printed.contains(&secret_part), "{printed}");
}

#[tokio::test]
async fn wrong_checksum_wrong_secret_and_another_pepper_are_refused() {
    let house = house().await;
    let created = house.ring.create(request()).await.unwrap();
    let other = house.ring.create(request()).await.unwrap();
    let (good, stranger) = (created.secret.expose(), other.secret.expose());
    let mistyped = format!("{}{}", &good[..good.len() - 1], if good.ends_with('x') { 'y' } else { 'x' });
    assert_eq!(reason(&house.ring, &mistyped), RefusalReason::Malformed);

    // The id of one key with the secret of another and a right checksum.
    let mixed = format!("{}{}", &good[..14], &stranger[14..58]);
    let mixed = with_checksum(&mixed);
    assert_eq!(reason(&house.ring, &mixed), RefusalReason::UnknownKey);

    let elsewhere = KeyRing::open(Arc::new(house.store.clone()), Arc::new(house.clock.clone()), Pepper::in_memory().unwrap());
    assert_eq!(reason(&elsewhere.await.unwrap(), good), RefusalReason::UnknownKey, "a stolen store is of no use");
}

fn with_checksum(text: &str) -> String {
    let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rest = crc32fast::hash(text.as_bytes());
    let mut sum = vec![0; 6];
    for digit in sum.iter_mut().rev() {
        *digit = digits[(rest % 62) as usize];
        rest /= 62;
    }
    format!("{text}_{}", String::from_utf8(sum).unwrap())
}

#[tokio::test]
async fn a_key_ends_at_its_expiry() {
    let house = house().await;
    let mut wanted = request();
    wanted.expires_in = Some(Duration::from_secs(3));
    let created = house.ring.create(wanted).await.unwrap();
    house.clock.advance(Duration::from_millis(2_999));
    assert!(house.ring.verify(created.secret.expose()).is_ok());
    house.clock.advance(Duration::from_millis(1));
    let refusal = house.ring.verify(created.secret.expose()).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::Expired);
    assert_eq!(refusal.key.as_ref(), Some(&created.record.id));
    assert!(refusal.www_authenticate.unwrap().contains("expired"));
    let listed = house.ring.list().await.unwrap();
    assert_eq!(listed[0].status(Timestamp::from_seconds(1_900_000_000)), KeyStatus::Expired);
}

#[tokio::test]
async fn revocation_in_another_process_is_seen_at_the_next_refresh() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let clock = clock();
    let open = || async {
        let store = SqliteStore::open(&path, Arc::new(clock.clone())).await.unwrap();
        let pepper = Pepper::load_or_create(&directory.path().join("pepper")).unwrap();
        KeyRing::open(Arc::new(store), Arc::new(clock.clone()), pepper).await.unwrap()
    };
    let (server, command_line) = (open().await, open().await);
    let created = command_line.create(request()).await.unwrap();
    assert_eq!(reason(&server, created.secret.expose()), RefusalReason::UnknownKey);
    assert!(server.refresh().await.unwrap().changed);
    assert!(server.verify(created.secret.expose()).is_ok());
    assert!(!server.refresh().await.unwrap().changed);

    let id = created.record.id.as_str();
    let revoked = command_line.revoke(id).await.unwrap().unwrap();
    assert!(server.refresh().await.unwrap().changed);
    assert_eq!(reason(&server, created.secret.expose()), RefusalReason::Revoked);
    clock.advance(Duration::from_secs(1));
    assert_eq!(server.revoke(id).await.unwrap().unwrap(), revoked, "the first revocation stands");
    assert_eq!(server.show(id).await.unwrap().status(clock_now(&clock)), KeyStatus::Revoked);
    assert!(matches!(server.revoke("nosuchkey0").await, Err(KeyError::NotFound(_))));
    assert!(matches!(server.show("../etc").await, Err(KeyError::NotFound(_))));
}

fn clock_now(clock: &ManualClock) -> Timestamp {
    portcullis_model::Clock::now(clock)
}

#[tokio::test]
async fn keep_fresh_makes_a_revocation_effective_within_a_second() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let clock = Arc::new(portcullis_model::SystemClock);
    let pepper = Pepper::in_memory().unwrap();
    let mut rings = Vec::new();
    for _ in 0..2 {
        let store = Arc::new(SqliteStore::open(&path, clock.clone()).await.unwrap());
        rings.push(KeyRing::open(store, clock.clone(), pepper.clone()).await.unwrap());
    }
    let created = rings[0].create(request()).await.unwrap();
    let server = rings[1].clone();
    let fresh = tokio::spawn(server.clone().keep_fresh(Duration::from_millis(500), |_| {}));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(server.verify(created.secret.expose()).is_ok());
    rings[0].revoke(created.record.id.as_str()).await.unwrap();
    let start = std::time::Instant::now();
    while server.verify(created.secret.expose()).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(1), "revocation took longer than a second");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    fresh.abort();
}

#[tokio::test]
async fn an_unreachable_store_fails_closed_and_recovers() {
    let house = house().await;
    let created = house.ring.create(request()).await.unwrap();
    house.store.set_unreachable(true);
    house.clock.advance(Duration::from_secs(5));
    assert!(house.ring.refresh().await.is_err());
    assert!(house.ring.verify(created.secret.expose()).is_ok(), "five seconds are still trusted");
    house.clock.advance(Duration::from_millis(1));
    assert!(house.ring.refresh().await.is_err());
    let refusal = house.ring.verify(created.secret.expose()).unwrap_err();
    assert_eq!(
        (refusal.reason, refusal.code(), refusal.http_status()),
        (RefusalReason::StoreUnreachable, FaultCode::Unavailable, 503)
    );
    assert_eq!(refusal.www_authenticate, None, "the credential is not to blame");
    house.store.set_unreachable(false);
    house.ring.refresh().await.unwrap();
    assert!(house.ring.verify(created.secret.expose()).is_ok());
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_refused_named_and_removable() {
    let house = house().await;
    let created = house.ring.create(request()).await.unwrap();
    let entry = house.store.get("identity.api_keys", created.record.id.as_str()).await.unwrap().unwrap();
    let newer = String::from_utf8(entry.value).unwrap().replace("\"label\"", "\"allowed_hours\":[8,18],\"label\"");
    house.store.put("identity.api_keys", created.record.id.as_str(), newer.as_bytes(), None).await.unwrap();
    let refreshed = house.ring.refresh().await.unwrap();
    assert_eq!(refreshed.unreadable, [created.record.id.to_string()]);
    assert_eq!(reason(&house.ring, created.secret.expose()), RefusalReason::UnknownKey);
    assert!(matches!(house.ring.list().await, Err(KeyError::Unreadable { .. })));
    assert_eq!(house.ring.revoke(created.record.id.as_str()).await.unwrap(), None);
    assert!(house.ring.list().await.unwrap().is_empty());
}

fn identity(house: &House) -> Identity {
    let local = local_principal("ana", DEFAULT_LOCAL_ROLE).unwrap();
    Identity::new(Some(house.ring.clone()), local, Arc::new(house.clock.clone()))
}

fn http<'a>(authorization: Option<&'a str>, peer: &str) -> Presented<'a> {
    let peer: SocketAddr = peer.parse().unwrap();
    Presented::http(authorization, Some(peer))
}

const NEAR: &str = "127.0.0.1:5000";
const FAR: &str = "192.0.2.7:5000";

#[tokio::test]
async fn stdio_is_the_local_user_and_http_needs_a_credential() {
    let house = house().await;
    let identity = identity(&house);
    let stdio = Presented::stdio();
    let local = identity.identify(&stdio).await.unwrap();
    assert_eq!(local.id.as_str(), "local:ana");
    assert!(local.roles.contains("operator") && !local.roles.contains("admin"));
    for peer in [NEAR, FAR] {
        let refusal = identity.identify(&http(None, peer)).await.unwrap_err();
        assert_eq!(refusal.reason, RefusalReason::NoCredential);
        assert_eq!(refusal.www_authenticate.as_deref(), Some("Bearer realm=\"portcullis\""));
    }
    let created = house.ring.create(request()).await.unwrap();
    let header = format!("Bearer {}", created.secret.expose());
    assert_eq!(identity.identify(&http(Some(&header), FAR)).await.unwrap().roles.iter().next().unwrap().as_ref(), "reader");
    let basic = identity.identify(&http(Some("Basic dXNlcjpwYXNz"), FAR)).await.unwrap_err();
    assert_eq!((basic.reason, basic.http_status()), (RefusalReason::UnsupportedScheme, 401));
    let ringless = Identity::new(None, (*local).clone(), Arc::new(house.clock.clone()));
    assert_eq!(ringless.identify(&http(Some(&header), FAR)).await.unwrap_err().reason, RefusalReason::NoKeyRing);
}

#[tokio::test]
async fn anonymous_needs_the_operators_word_and_a_loopback_peer() {
    let house = house().await;
    let identity = identity(&house).with_anonymous_loopback("reader").unwrap();
    for near in [NEAR, "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        let principal = identity.identify(&http(None, near)).await.unwrap();
        assert_eq!((principal.id.as_str(), &principal.credential), ("anonymous", &CredentialKind::Anonymous));
    }
    assert!(identity.identify(&http(None, FAR)).await.is_err());
    let unknown_peer = Presented::http(None, None);
    assert!(identity.identify(&unknown_peer).await.is_err());
    let wrong = identity.identify(&http(Some("Bearer nonsense"), NEAR)).await.unwrap_err();
    assert_eq!(wrong.reason, RefusalReason::Malformed, "a wrong credential is not an absent one");
}

#[tokio::test]
async fn the_ingest_door_takes_ingest_keys_and_loopback_peers() {
    let house = house().await;
    let mut wanted = request();
    wanted.doors = [Door::Ingest].into();
    wanted.tenant = TenantId::new("shop").unwrap();
    let sender = format!("Bearer {}", house.ring.create(wanted).await.unwrap().secret.expose());
    let asker = format!("Bearer {}", house.ring.create(request()).await.unwrap().secret.expose());
    let identity = identity(&house);
    assert_eq!(identity.identify_ingest(&http(Some(&sender), FAR)).await.unwrap().as_str(), "shop");
    assert_eq!(identity.identify_ingest(&http(None, NEAR)).await.unwrap().as_str(), "default");
    assert!(identity.identify_ingest(&http(None, FAR)).await.is_err());
    for (refused, door) in [
        (identity.identify_ingest(&http(Some(&asker), NEAR)).await.map(|_| ()), "ingest"),
        (identity.identify(&http(Some(&sender), FAR)).await.map(|_| ()), "mcp"),
    ] {
        let refusal = refused.expect_err(door);
        assert_eq!((refusal.reason, refusal.http_status()), (RefusalReason::WrongDoor, 403));
        assert!(refusal.key.is_some());
    }
    let closed = identity.with_open_ingest_on_loopback(false);
    assert_eq!(closed.identify_ingest(&http(None, NEAR)).await.unwrap_err().reason, RefusalReason::NoCredential);
}

#[tokio::test]
async fn an_address_that_keeps_failing_has_to_wait() {
    let house = house().await;
    let header = format!("Bearer {}", house.ring.create(request()).await.unwrap().secret.expose());
    let identity = identity(&house);
    for _ in 0..100 {
        assert!(identity.identify(&http(None, FAR)).await.is_err());
        assert!(identity.identify(&http(Some(&header), FAR)).await.is_ok());
    }
    for _ in 0..20 {
        assert_eq!(identity.identify(&http(Some("Bearer wrong"), FAR)).await.unwrap_err().reason, RefusalReason::Malformed);
    }
    let refusal = identity.identify(&http(Some(&header), FAR)).await.unwrap_err();
    assert_eq!((refusal.reason, refusal.http_status(), refusal.retry_after_seconds), (RefusalReason::RateLimited, 429, Some(3)));
    assert!(identity.identify(&http(Some(&header), "192.0.2.8:1")).await.is_ok(), "other addresses are not touched");
    house.clock.advance(Duration::from_secs(3));
    assert!(identity.identify(&http(Some(&header), FAR)).await.is_ok());
}
