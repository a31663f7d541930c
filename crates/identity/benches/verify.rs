//! What verifying a key costs: right, wrong secret and unknown id, with 1,000 keys on the ring.

use std::sync::Arc;

use divan::Bencher;
use portcullis_identity::{KeyRequest, KeyRing, Pepper};
use portcullis_model::{Secret, SystemClock, TenantId};
use portcullis_state::MemoryStore;

fn main() {
    divan::main();
}

async fn ring(keys: usize) -> Result<(KeyRing, Secret), Box<dyn std::error::Error>> {
    let clock = Arc::new(SystemClock);
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let minute = std::time::Duration::from_mins(10);
    let ring = KeyRing::open_with(store, clock, Pepper::in_memory()?, minute).await?;
    let mut last = Secret::new("");
    for index in 0..keys {
        let request = KeyRequest::new(format!("bench {index}"), "reader", TenantId::default_tenant());
        last = ring.create(request).await?.secret;
    }
    Ok((ring, last))
}

fn prepared() -> Option<(KeyRing, Secret)> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().ok()?;
    runtime.block_on(ring(1_000)).ok()
}

#[divan::bench]
fn right_key(bencher: Bencher<'_, '_>) {
    if let Some((ring, secret)) = prepared() {
        bencher.bench_local(|| ring.verify(divan::black_box(secret.expose()), None).is_ok());
    }
}

#[divan::bench]
fn key_of_another_ring(bencher: Bencher<'_, '_>) {
    if let (Some((ring, _)), Some((_, stranger))) = (prepared(), prepared()) {
        bencher.bench_local(|| ring.verify(divan::black_box(stranger.expose()), None).is_err());
    }
}
