//! What verifying a token costs, by algorithm: shape, strict JSON, key, signature, claims, principal. One thread.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench may stop where it cannot go on")]

mod signed;

use jsonwebtoken::Algorithm;
use signed::prepared;

fn main() {
    divan::main();
}

#[divan::bench(args = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA])]
fn verify(bencher: divan::Bencher<'_, '_>, algorithm: Algorithm) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (verifier, token) = prepared(algorithm);
    runtime.block_on(verifier.verify_token(&token)).expect("the keys are fetched once, before the clock runs");
    bencher.bench_local(|| runtime.block_on(verifier.verify_token(&token)).unwrap());
}
