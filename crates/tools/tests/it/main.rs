//! The tools as the gate runs them: over fake sources that answer, fail, dawdle or hold nothing.

mod catalogue;
mod fake;
mod fanning;
mod health;
mod logs;
mod metrics;
mod others;
mod support;
mod traces;
