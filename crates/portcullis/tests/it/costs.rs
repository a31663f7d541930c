//! What controls cost is measured for every one of them. How much it is, the benchmark says in a build with optimisations.

use std::collections::BTreeSet;

use crate::controls::{ROAD, Rounds, figures};

#[test]
fn the_cost_of_every_control_on_the_road_of_a_call_is_measured() {
    let figures = figures(Rounds { calls: 5 });
    let measured: BTreeSet<&str> = figures.iter().map(|figure| figure.control).collect();
    let road: BTreeSet<&str> = ROAD.into_iter().chain(["call"]).collect();
    assert_eq!(measured, road);
    for figure in &figures {
        println!("{:<10} {:<66} {:>10.2}", figure.control, figure.what, figure.micros);
        assert!(figure.micros.is_finite(), "{figure:?}");
        // A difference of two calls may be lost among what the machine does beside; whatever is measured by itself is not.
        assert!(
            figure.micros > 0.0
                || figure.what.contains("beside")
                || figure.what.starts_with("of it")
                || figure.what.starts_with("each"),
            "{figure:?}"
        );
    }
    let distinct: BTreeSet<&str> = figures.iter().map(|figure| figure.what.as_str()).collect();
    assert_eq!(distinct.len(), figures.len(), "two figures with one name");
}
