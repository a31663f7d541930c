//! Keys over their whole life, on memory and on a shared SQLite file, and the questions asked at the doors.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise, in its helpers too")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use portcullis_identity::{
    Accepted, ClientCertificate, DEFAULT_LOCAL_ROLE, Door, Identity, IdentityRefusal, IdentitySettings, KeyError, KeyRequest,
    KeyRing, KeyStatus, Pepper, Presented, RefusalReason, Rotation, SanName, SecretHash, Term, TokenVerifier, local_principal,
    networks,
};
use portcullis_model::{CredentialKind, FaultCode, ManualClock, NameSet, Principal, Secret, TenantId, Timestamp, Whence};
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
    ring.verify(key, None).unwrap_err().reason
}

#[tokio::test]
async fn a_key_is_shown_once_hashed_at_rest_and_opens_its_door() {
    let house = house().await;
    let mut wanted = request();
    wanted.tenant = TenantId::new("shop").unwrap();
    wanted.services = NameSet::only(["cart"]);
    let created = house.ring.create(wanted).await.unwrap();
    let principal = house.ring.verify(created.secret.expose(), None).unwrap();
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
    assert!(house.ring.verify(created.secret.expose(), None).is_ok());
    house.clock.advance(Duration::from_millis(1));
    let refusal = house.ring.verify(created.secret.expose(), None).unwrap_err();
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
    assert!(server.verify(created.secret.expose(), None).is_ok());
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
    assert!(server.verify(created.secret.expose(), None).is_ok());
    rings[0].revoke(created.record.id.as_str()).await.unwrap();
    let start = std::time::Instant::now();
    while server.verify(created.secret.expose(), None).is_ok() {
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
    assert!(house.ring.verify(created.secret.expose(), None).is_ok(), "five seconds are still trusted");
    house.clock.advance(Duration::from_millis(1));
    assert!(house.ring.refresh().await.is_err());
    let refusal = house.ring.verify(created.secret.expose(), None).unwrap_err();
    assert_eq!(
        (refusal.reason, refusal.code(), refusal.http_status()),
        (RefusalReason::StoreUnreachable, FaultCode::Unavailable, 503)
    );
    assert_eq!(refusal.www_authenticate, None, "the credential is not to blame");
    house.store.set_unreachable(false);
    house.ring.refresh().await.unwrap();
    assert!(house.ring.verify(created.secret.expose(), None).is_ok());
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
    assert_eq!((basic.reason, basic.http_status()), (RefusalReason::NotAcceptedHere, 401), "there are no users");
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
    let near: SocketAddr = NEAR.parse().unwrap();
    for not_near in [Whence::unplaced(near, None), Whence::relayed(near.into(), "127.0.0.1")] {
        assert!(
            identity.identify(&Presented { whence: Some(not_near.clone()), ..http(None, FAR) }).await.is_err(),
            "{not_near:?}"
        );
    }
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
    for _ in 0..21 {
        assert_eq!(identity.identify(&http(Some("Bearer wrong"), FAR)).await.unwrap_err().reason, RefusalReason::Malformed);
    }
    let refusal = identity.identify(&http(Some("Bearer wrong"), FAR)).await.unwrap_err();
    assert_eq!((refusal.reason, refusal.http_status(), refusal.retry_after_seconds), (RefusalReason::Locked, 429, Some(3)));
    let other = identity.identify(&http(Some("Bearer wrong"), "192.0.2.8:1")).await.unwrap_err();
    assert_eq!(other.reason, RefusalReason::Malformed, "other addresses are not touched");
    house.clock.advance(Duration::from_secs(3));
    let again = identity.identify(&http(Some("Bearer wrong"), FAR)).await.unwrap_err();
    assert_eq!(again.reason, RefusalReason::Malformed);
}

#[tokio::test]
async fn a_guesser_does_not_lock_out_who_shares_its_address_or_its_proxy() {
    let house = house().await;
    let key = format!("Bearer {}", house.ring.create(request()).await.unwrap().secret.expose());
    let ana = basic("ana", CHOSEN);
    let settings = settings(serde_json::json!({"users": [self::ana()]}));
    let identity = identity(&house).with_settings(&settings).unwrap().with_token_verifier(Arc::new(OneToken));
    let through = |header, client: &str| {
        let whence = Whence::relayed(client.parse().unwrap(), "192.0.2.7");
        Presented { whence: Some(whence), ..http(Some(header), FAR) }
    };
    for _ in 0..40 {
        assert!(identity.identify(&through("Bearer wrong", "198.51.100.7")).await.is_err());
    }
    let guesser = identity.identify(&through(&ana, "198.51.100.7")).await.unwrap_err();
    assert_eq!(guesser.reason, RefusalReason::Locked, "by its own address");
    for header in [&key, &ana] {
        assert!(identity.identify(&through(header, "198.51.100.8")).await.is_ok(), "behind the same proxy");
        assert!(identity.identify(&http(Some(header), FAR)).await.is_ok(), "nor do they count for the proxy itself");
    }
    // Who claims to be forwarded, and is not believed, counts like everybody else at the address.
    let claimed = |header| {
        let whence = Whence::unplaced(FAR.parse().unwrap(), Some("x-forwarded-for: 203.0.113.1"));
        Presented { whence: Some(whence), ..http(Some(header), FAR) }
    };
    for _ in 0..40 {
        assert!(identity.identify(&claimed("Bearer wrong")).await.is_err());
    }
    let wrong = identity.identify(&http(Some("Bearer wrong"), FAR)).await.unwrap_err();
    assert_eq!(wrong.reason, RefusalReason::Locked);
    for unguessable in [key.as_str(), "Bearer a.b.c"] {
        assert!(identity.identify(&claimed(unguessable)).await.is_ok(), "{unguessable}");
        assert!(identity.identify(&http(Some(unguessable), FAR)).await.is_ok(), "{unguessable}");
    }
    let slow = identity.identify(&http(Some(&ana), FAR)).await.unwrap_err();
    assert_eq!(slow.reason, RefusalReason::Locked, "what a person chose can be guessed, and waits");
}

#[tokio::test]
async fn an_agent_with_a_key_that_has_ended_is_no_guesser() {
    let house = house().await;
    let mut short = request();
    short.expires_in = Some(Duration::from_secs(1));
    let expired = house.ring.create(short).await.unwrap();
    let revoked = house.ring.create(request()).await.unwrap();
    house.ring.revoke(revoked.record.id.as_str()).await.unwrap();
    later(&house, Duration::from_secs(2)).await;
    let ana = basic("ana", CHOSEN);
    let identity = identity(&house).with_settings(&settings(serde_json::json!({"users": [self::ana()]}))).unwrap();
    for (key, reason) in [(expired, RefusalReason::Expired), (revoked, RefusalReason::Revoked)] {
        let header = format!("Bearer {}", key.secret.expose());
        for _ in 0..50 {
            assert_eq!(identity.identify(&http(Some(&header), FAR)).await.unwrap_err().reason, reason);
        }
    }
    assert!(identity.identify(&http(Some(&ana), FAR)).await.is_ok(), "its neighbours are let in");
}

#[tokio::test]
async fn what_was_accepted_ends_with_its_key_or_its_time() {
    let house = house().await;
    let created = house.ring.create(request()).await.unwrap();
    let identity = identity(&house);
    let header = format!("Bearer {}", created.secret.expose());
    let accepted = identity.accept(&http(Some(&header), FAR)).await.unwrap();
    assert!(identity.still_accepts(&accepted.principal, accepted.term));
    let soon = Term { ends_at: Some(Timestamp::from_seconds(1_800_000_001)), ..accepted.term };
    assert!(identity.still_accepts(&accepted.principal, soon));
    later(&house, Duration::from_secs(1)).await;
    assert!(!identity.still_accepts(&accepted.principal, soon), "its time is over");
    house.ring.revoke(created.record.id.as_str()).await.unwrap();
    assert!(!identity.still_accepts(&accepted.principal, accepted.term), "its key was taken back");
}

#[tokio::test]
async fn what_an_old_secret_opened_ends_with_the_overlap_and_what_the_new_one_opened_goes_on() {
    let house = house().await;
    let generated = house.ring.create(request()).await.unwrap();
    let chosen = house.ring.import(request(), &Secret::new(CHOSEN)).await.unwrap();
    let identity = identity(&house);
    for (id, old, secret) in [
        (generated.record.id.to_string(), generated.secret.expose().to_owned(), None),
        (chosen.id.to_string(), format!("pcli_{}_{CHOSEN}", chosen.id), Some(Secret::new("wN4-rT8_yU2.iO6!"))),
    ] {
        let open = async |key: &str| identity.accept(&http(Some(&format!("Bearer {key}")), FAR)).await.unwrap();
        let before = open(&old).await;
        let is_open = |accepted: &Accepted| identity.still_accepts(&accepted.principal, accepted.term);
        let given = secret.as_ref().map(|secret| format!("pcli_{id}_{}", secret.expose()));
        let rotation = Rotation { overlap: Duration::from_mins(10), secret, ..Rotation::default() };
        let rotated = house.ring.rotate(&id, &rotation).await.unwrap();
        let new = rotated.secret.map(|secret| secret.expose().to_owned()).or(given).unwrap();
        house.ring.refresh().await.unwrap();
        let (during, after) = (open(&old).await, open(&new).await);
        later(&house, Duration::from_millis(599_999)).await;
        assert!(is_open(&before) && is_open(&during) && is_open(&after), "{id}");
        later(&house, Duration::from_millis(1)).await;
        assert!(!is_open(&before) && !is_open(&during), "{id}: the old secret is over");
        assert!(is_open(&after), "{id}: the new one is not");
        house.ring.revoke(&id).await.unwrap();
        assert!(!is_open(&after));
    }
}

/// Time passes, and the ring hears from its store.
async fn later(house: &House, passed: Duration) {
    house.clock.advance(passed);
    house.ring.refresh().await.unwrap();
}

const CHOSEN: &str = "Kq7#vLp2xWm9zR!d";

#[tokio::test]
async fn a_rotated_key_overlaps_and_keeps_its_principal() {
    let house = house().await;
    let created = house.ring.create(request()).await.unwrap();
    let id = created.record.id.as_str();
    let hour = Duration::from_hours(1);
    let rotation = |overlap| Rotation { overlap, ..Rotation::default() };
    let rotated = house.ring.rotate(id, &rotation(hour)).await.unwrap();
    let new = rotated.secret.unwrap();
    let principals = [created.secret.expose(), new.expose()].map(|key| house.ring.verify(key, None).unwrap());
    assert_eq!(principals[0], principals[1]);
    later(&house, Duration::from_millis(3_599_999)).await;
    assert!(house.ring.verify(created.secret.expose(), None).is_ok());
    later(&house, Duration::from_millis(1)).await;
    assert_eq!(reason(&house.ring, created.secret.expose()), RefusalReason::UnknownKey);
    assert!(house.ring.verify(new.expose(), None).is_ok());

    // A later rotation never makes an earlier secret live longer.
    let second = house.ring.rotate(id, &rotation(hour)).await.unwrap().secret.unwrap();
    house.ring.rotate(id, &rotation(hour * 10)).await.unwrap();
    later(&house, hour).await;
    assert_eq!(reason(&house.ring, new.expose()), RefusalReason::UnknownKey);
    assert!(house.ring.verify(second.expose(), None).is_ok());
    house.ring.rotate(id, &rotation(hour)).await.unwrap();
    house.ring.rotate(id, &rotation(hour)).await.unwrap();
    let many = house.ring.rotate(id, &rotation(hour)).await.unwrap_err();
    assert!(many.to_string().contains("overlap of 0s"), "{many}");
    let last = house.ring.rotate(id, &rotation(Duration::ZERO)).await.unwrap().secret.unwrap();
    assert_eq!(reason(&house.ring, second.expose()), RefusalReason::UnknownKey, "every earlier secret ended");
    assert!(house.ring.verify(last.expose(), None).is_ok());

    house.ring.revoke(id).await.unwrap();
    assert!(house.ring.rotate(id, &Rotation::default()).await.unwrap_err().to_string().contains("revoked"));
}

#[tokio::test]
async fn an_expired_key_rotates_only_with_a_new_validity_and_old_secrets_are_reminded_of() {
    let house = house().await;
    let day = Duration::from_hours(24);
    let mut wanted = request();
    wanted.expires_in = Some(day * 10);
    let short = house.ring.create(wanted).await.unwrap().record.id;
    let long = house.ring.create(request()).await.unwrap().record.id;
    assert!(house.ring.aging(clock_now(&house.clock)).await.unwrap().is_empty());
    house.clock.advance(day * 90);
    let aging = house.ring.aging(clock_now(&house.clock)).await.unwrap();
    assert_eq!(aging.iter().map(|r| &r.id).collect::<Vec<_>>(), [&long], "the expired one needs nobody's care");
    let error = house.ring.rotate(short.as_str(), &Rotation::default()).await.unwrap_err();
    assert!(error.to_string().contains("new validity"), "{error}");
    let renewed = Rotation { expires_in: Some(day * 60), ..Rotation::default() };
    let key = house.ring.rotate(short.as_str(), &renewed).await.unwrap().secret.unwrap();
    assert!(house.ring.verify(key.expose(), None).is_ok());
    house.ring.rotate(long.as_str(), &Rotation::default()).await.unwrap();
    assert!(house.ring.aging(clock_now(&house.clock)).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_chosen_secret_is_hashed_found_by_id_and_can_be_replaced() {
    let house = house().await;
    let weak = house.ring.import(request(), &Secret::new("Password12345678!")).await.unwrap_err();
    assert!(matches!(&weak, KeyError::Request(why) if why.contains("well-known")), "{weak}");
    let whole = house.ring.import(request(), &Secret::new("pcl_Kq7#vLp2xWm9zR!d")).await.unwrap_err();
    assert!(whole.to_string().contains("only the secret"), "{whole}");
    let record = house.ring.import(request(), &Secret::new(CHOSEN)).await.unwrap();
    let entry = house.store.get("identity.api_keys", record.id.as_str()).await.unwrap().unwrap();
    let stored = String::from_utf8(entry.value).unwrap();
    assert!(stored.contains("$argon2id$v=19$m=19456,t=2,p=1$") && !stored.contains(CHOSEN), "{stored}");
    let key = format!("pcli_{}_{CHOSEN}", record.id);
    assert_eq!(house.ring.verify_chosen(&key, None).await.unwrap().id.as_str(), format!("key:{}", record.id));
    for wrong in [format!("{key}x"), format!("pcli_0000000000_{CHOSEN}")] {
        assert_eq!(house.ring.verify_chosen(&wrong, None).await.unwrap_err(), IdentityRefusal::new(RefusalReason::UnknownKey));
    }
    let rotated = house.ring.rotate(record.id.as_str(), &Rotation::default()).await.unwrap();
    let generated = rotated.secret.unwrap();
    assert!(house.ring.verify(generated.expose(), None).is_ok());
    let old = house.ring.verify_chosen(&key, None).await.unwrap_err();
    assert_eq!(old.reason, RefusalReason::UnknownKey, "remembered, but its time is over");
    house.ring.revoke(record.id.as_str()).await.unwrap();
    assert_eq!(reason(&house.ring, generated.expose()), RefusalReason::Revoked);
}

#[tokio::test]
async fn a_key_of_some_networks_is_good_only_from_there() {
    let house = house().await;
    let mut wanted = request();
    wanted.from = networks(["10.0.0.0/8", "2001:db8::/32"]).unwrap();
    let key = house.ring.create(wanted).await.unwrap().secret;
    for (from, good) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("2001:db8::1", true),
        ("11.0.0.1", false),
        ("::ffff:11.0.0.1", false),
        ("::10.1.2.3", false),
        ("2001:db9::1", false),
    ] {
        let verified = house.ring.verify(key.expose(), Some(from.parse().unwrap()));
        assert_eq!(verified.is_ok(), good, "{from}");
    }
    let unknown = house.ring.verify(key.expose(), None).unwrap_err();
    assert_eq!((unknown.reason, unknown.http_status()), (RefusalReason::WrongAddress, 403));
    let identity = identity(&house);
    let header = format!("Bearer {}", key.expose());
    assert!(identity.identify(&http(Some(&header), "10.1.2.3:1")).await.is_ok());
    let from = |whence| Presented { whence: Some(whence), ..http(Some(&header), FAR) };
    let unplaced = Whence::unplaced("10.1.2.3:1".parse().unwrap(), Some("via: 1.1 x"));
    assert_eq!(identity.identify(&from(unplaced)).await.unwrap_err().reason, RefusalReason::WrongAddress);
    let relayed = |client: &str| Whence::relayed(client.parse().unwrap(), "10.1.2.3");
    assert!(identity.identify(&from(relayed("10.9.9.9"))).await.is_ok(), "whom a trusted proxy names");
    assert_eq!(identity.identify(&from(relayed("11.9.9.9"))).await.unwrap_err().reason, RefusalReason::WrongAddress);
}

#[tokio::test]
async fn a_use_is_noted_in_the_background() {
    let house = house().await;
    let created = house.ring.create(request()).await.unwrap();
    assert_eq!(house.ring.write_usage().await.unwrap(), 0);
    house.ring.verify(created.secret.expose(), None).unwrap();
    assert_eq!(house.ring.last_used(&created.record.id).await.unwrap(), None, "a call writes nothing");
    let counter = house.store.change_counter("identity.api_keys").await.unwrap();
    assert_eq!(house.ring.write_usage().await.unwrap(), 1);
    assert_eq!(house.ring.last_used(&created.record.id).await.unwrap(), Some(clock_now(&house.clock)));
    assert_eq!(house.store.change_counter("identity.api_keys").await.unwrap(), counter, "a use is no change of the keys");
    later(&house, Duration::from_secs(59)).await;
    house.ring.verify(created.secret.expose(), None).unwrap();
    house.ring.create(request()).await.unwrap();
    assert_eq!(house.ring.write_usage().await.unwrap(), 0, "once a minute, also after the keys were loaded anew");
    house.store.set_unreachable(true);
    assert!(house.ring.verify(created.secret.expose(), None).is_ok());
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}")))
}

fn settings(value: serde_json::Value) -> IdentitySettings {
    serde_json::from_value(value).unwrap()
}

fn ana() -> serde_json::Value {
    let hash = SecretHash::of(&Secret::new(CHOSEN)).unwrap();
    serde_json::json!({"name": "ana", "password_hash": hash.as_str(), "roles": ["reader"], "tenant": "shop"})
}

fn certificate(name: &str) -> ClientCertificate {
    ClientCertificate {
        subject_alternative_names: vec![SanName::Dns(name.to_owned())],
        not_after: Timestamp::from_seconds(1_900_000_000),
        fingerprint_sha256: [1; 32],
    }
}

#[derive(Debug)]
struct OneToken;

#[async_trait]
impl TokenVerifier for OneToken {
    async fn verify(&self, token: &str) -> Result<Arc<Principal>, IdentityRefusal> {
        let refused = || IdentityRefusal::new(RefusalReason::Malformed);
        (token == "a.b.c").then(|| Arc::new(local_principal("token", "reader").unwrap())).ok_or_else(refused)
    }

    fn looks_like(&self, token: &str) -> bool {
        token.matches('.').count() == 2
    }
}

#[tokio::test]
async fn each_listener_accepts_the_kinds_it_was_told_to() {
    let house = house().await;
    let mut wanted = request();
    wanted.doors = [Door::Mcp, Door::Ingest].into();
    let key = format!("Bearer {}", house.ring.create(wanted).await.unwrap().secret.expose());
    let password = basic("ana", CHOSEN);
    let certificate = certificate("agent.example");
    let rule =
        serde_json::json!({"name": "agent", "san": {"dns": "agent.example"}, "roles": ["reader"], "doors": ["mcp", "ingest"]});
    for (kind, header) in
        [("key", Some(key.as_str())), ("basic", Some(password.as_str())), ("token", Some("Bearer a.b.c")), ("certificate", None)]
    {
        for accepted in ["key", "basic", "token", "certificate"] {
            let only: serde_json::Map<_, _> =
                ["key", "basic", "token", "certificate"].map(|k| (k.to_owned(), (k == accepted).into())).into_iter().collect();
            let settings = settings(serde_json::json!({"mcp": only, "users": [ana()], "certificates": [rule]}));
            let identity = identity(&house).with_settings(&settings).unwrap().with_token_verifier(Arc::new(OneToken));
            let presented = Presented { certificate: header.is_none().then_some(&certificate), ..http(header, FAR) };
            let verified = identity.identify(&presented).await;
            assert_eq!(verified.is_ok(), kind == accepted, "{kind} where {accepted} is accepted: {verified:?}");
            if kind == "certificate" || kind == "key" {
                assert!(identity.identify_ingest(&presented).await.is_ok(), "the other listener is not touched");
            }
        }
    }
}

#[tokio::test]
async fn a_header_decides_and_with_binding_both_must_be_accepted() {
    let house = house().await;
    let key = format!("Bearer {}", house.ring.create(request()).await.unwrap().secret.expose());
    let rule = serde_json::json!({"name": "agent", "san": {"dns": "agent.example"}, "roles": ["reader"]});
    let (known, stranger) = (certificate("agent.example"), certificate("other.example"));
    let ask = async |binding: bool, header: Option<&str>, certificate: Option<&ClientCertificate>| {
        let settings = settings(serde_json::json!({"require_certificate_binding": binding, "certificates": [rule]}));
        let identity = identity(&house).with_settings(&settings).unwrap();
        let verified = identity.identify(&Presented { certificate, ..http(header, FAR) }).await;
        verified.map(|principal| principal.id.to_string()).map_err(|refusal| refusal.reason)
    };
    let by_key = format!("key:{}", house.ring.list().await.unwrap()[0].id);
    for (header, certificate, loose, bound) in [
        (Some(key.as_str()), None, Ok(by_key.clone()), Err(RefusalReason::CertificateRequired)),
        (Some(key.as_str()), Some(&known), Ok(by_key.clone()), Ok(by_key.clone())),
        (Some(key.as_str()), Some(&stranger), Ok(by_key.clone()), Err(RefusalReason::NoCertificateRule)),
        (Some("Bearer wrong"), Some(&known), Err(RefusalReason::Malformed), Err(RefusalReason::Malformed)),
        (None, Some(&known), Ok("cert:agent".to_owned()), Ok("cert:agent".to_owned())),
        (None, Some(&stranger), Err(RefusalReason::NoCertificateRule), Err(RefusalReason::NoCertificateRule)),
        (None, None, Err(RefusalReason::NoCredential), Err(RefusalReason::NoCredential)),
    ] {
        assert_eq!(ask(false, header, certificate).await, loose, "{certificate:?}");
        assert_eq!(ask(true, header, certificate).await, bound, "{certificate:?}");
    }
}

#[tokio::test]
async fn a_certificate_binds_only_at_the_listeners_its_rule_opens() {
    let house = house().await;
    let asking = format!("Bearer {}", house.ring.create(request()).await.unwrap().secret.expose());
    let sending = KeyRequest { doors: [Door::Ingest].into(), ..request() };
    let sending = format!("Bearer {}", house.ring.create(sending).await.unwrap().secret.expose());
    let known = certificate("agent.example");
    for (doors, mcp, ingest) in [(vec!["mcp"], true, false), (vec!["ingest"], false, true), (vec!["mcp", "ingest"], true, true)] {
        let rule = serde_json::json!({"name": "agent", "san": {"dns": "agent.example"}, "roles": ["reader"], "doors": doors});
        let settings = settings(serde_json::json!({"require_certificate_binding": true, "certificates": [rule]}));
        let identity = identity(&house).with_settings(&settings).unwrap();
        let shown = |header| Presented { certificate: Some(&known), ..http(Some(header), FAR) };
        let asked = identity.identify(&shown(asking.as_str())).await.map(drop).map_err(|refusal| refusal.reason);
        let sent = identity.identify_ingest(&shown(sending.as_str())).await.map(drop).map_err(|refusal| refusal.reason);
        let expected = |opens: bool| if opens { Ok(()) } else { Err(RefusalReason::WrongDoor) };
        assert_eq!((asked, sent), (expected(mcp), expected(ingest)), "{doors:?}");
    }
}

#[tokio::test]
async fn guessing_at_a_name_waits_there_and_nowhere_else() {
    let house = house().await;
    let identity = identity(&house).with_settings(&settings(serde_json::json!({"users": [ana()]}))).unwrap();
    let (right, wrong, stranger) = (basic("ana", CHOSEN), basic("ana", "wrong"), basic("bob", "wrong"));
    assert_eq!(identity.identify(&http(Some(&right), FAR)).await.unwrap().id.as_str(), "user:ana");
    for _ in 0..6 {
        let refusal = identity.identify(&http(Some(&wrong), FAR)).await.unwrap_err();
        assert_eq!((refusal.reason, refusal.http_status()), (RefusalReason::WrongPassword, 401));
    }
    let locked = identity.identify(&http(Some(&right), FAR)).await.unwrap_err();
    assert_eq!((locked.reason, locked.http_status(), locked.retry_after_seconds), (RefusalReason::Locked, 429, Some(1)));
    assert!(identity.identify(&http(Some(&right), "192.0.2.8:1")).await.is_ok(), "ana is let in from elsewhere");
    let other = identity.identify(&http(Some(&stranger), FAR)).await.unwrap_err();
    assert_eq!(other.reason, RefusalReason::WrongPassword, "other names are not touched");
    // The word of a stranger does not make another address of it.
    let whence = Some(Whence::unplaced(FAR.parse().unwrap(), Some("x-forwarded-for: 192.0.2.8")));
    let forwarded = Presented { whence, ..http(Some(&right), FAR) };
    assert_eq!(identity.identify(&forwarded).await.unwrap_err().reason, RefusalReason::Locked);
    house.clock.advance(Duration::from_secs(1));
    assert!(identity.identify(&http(Some(&right), FAR)).await.is_ok());
    assert_eq!(identity.identify(&http(Some(&wrong), FAR)).await.unwrap_err().reason, RefusalReason::WrongPassword);
    assert!(identity.identify(&http(Some(&right), FAR)).await.is_ok(), "the right password made the count start anew");
}

#[tokio::test]
async fn a_credential_in_the_url_is_refused_even_with_a_good_header() {
    let house = house().await;
    let identity = identity(&house).with_anonymous_loopback("reader").unwrap();
    let header = format!("Bearer {}", house.ring.create(request()).await.unwrap().secret.expose());
    for header in [None, Some(header.as_str())] {
        let refusal = identity.identify(&Presented { query: Some("api_key=x"), ..http(header, NEAR) }).await.unwrap_err();
        assert_eq!((refusal.reason, refusal.http_status()), (RefusalReason::CredentialInUrl, 400));
        assert!(identity.identify(&Presented { query: Some("page=2"), ..http(header, NEAR) }).await.is_ok());
    }
}
