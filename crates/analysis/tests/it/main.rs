//! Template mining against labelled logs (Loghub-2k, corrected labels) and its speed; anomaly detection against labelled
//! series (Numenta Anomaly Benchmark).

#![allow(clippy::print_stdout, clippy::unwrap_used)] // a test binary that prints the figures it measures

mod accuracy;
mod labelled_series;
