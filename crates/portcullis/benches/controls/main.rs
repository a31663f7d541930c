//! What each control on the road of a call costs, in microseconds, on one core: `cargo bench -p portcullis --bench controls`.
//! Controls that wait for a person, and the network of an external policy or of a backend, cost what those take and are not
//! here. The tests take the same figures once over, so that none of them stops being measured.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs, reason = "a benchmark")]
#![allow(clippy::disallowed_methods, reason = "a handshake is measured over a connection of this machine")]

mod costs;

/// Calls per figure; a build without optimisations only shows that it runs.
const CALLS: u32 = if cfg!(debug_assertions) { 500 } else { 20_000 };

fn main() {
    println!("{:<14} {:<66} {:>10}", "control", "what", "us a call");
    let figures = costs::figures(costs::Rounds { calls: CALLS });
    for figure in &figures {
        println!("{:<14} {:<66} {:>10.2}", figure.control, figure.what, figure.micros);
    }
    for control in costs::ROAD {
        assert!(figures.iter().any(|figure| figure.control == control), "{control} was not measured");
    }
}
