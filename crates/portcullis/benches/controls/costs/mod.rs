//! The figures: one or more for every control on the road of a call, each with the control it belongs to. Used by the
//! benchmark, which takes them often enough to mean something, and by a test, which takes them once.

mod doors;
mod gate;

use std::time::Instant;

/// The controls on the road of a call, in its order.
pub(crate) const ROAD: [&str; 17] = [
    "tls",
    "hosts",
    "origin",
    "json",
    "key",
    "password",
    "token",
    "admission",
    "budget",
    "arguments",
    "policy",
    "approval",
    "profile",
    "external",
    "egress",
    "release",
    "audit",
];

/// What something costs.
#[derive(Debug)]
pub(crate) struct Figure {
    /// One of [`ROAD`], or `call` for all of them together.
    pub(crate) control: &'static str,
    /// In words.
    pub(crate) what: String,
    /// Microseconds of one call. What is the difference of two whole calls may be less than nothing where it is lost among
    /// what the machine does beside.
    pub(crate) micros: f64,
}

impl Figure {
    pub(crate) fn new(control: &'static str, what: impl Into<String>, micros: f64) -> Self {
        Self { control, what: what.into(), micros }
    }
}

/// How often something is done for one figure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rounds {
    /// Calls in all rounds together, at least one for each of the five.
    pub(crate) calls: u32,
}

impl Rounds {
    const ROUNDS: u32 = 5;

    /// Microseconds of one call, the best of five rounds: what the machine does beside is not the control's cost.
    pub(crate) fn cost(self, mut work: impl FnMut()) -> f64 {
        let calls = (self.calls / Self::ROUNDS).max(1);
        let round = |work: &mut dyn FnMut()| {
            let began = Instant::now();
            for _ in 0..calls {
                work();
            }
            began.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
        };
        (0..Self::ROUNDS).map(|_| round(&mut work)).fold(f64::INFINITY, f64::min)
    }

    /// Fewer of them, for what takes milliseconds.
    pub(crate) fn fewer(self, times: u32) -> Self {
        Self { calls: self.calls / times }
    }
}

/// Every figure.
pub(crate) fn figures(rounds: Rounds) -> Vec<Figure> {
    let mut figures = doors::figures(rounds);
    figures.extend(gate::figures(rounds));
    figures
}
