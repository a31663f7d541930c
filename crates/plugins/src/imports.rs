//! The host functions of a plugin, besides WASI. Guards that each belongs to the call that is running: without one (while a
//! plugin describes itself) there is no way out, no cache and no secret.

use std::time::Instant;

use crate::bindings::portcullis::plugin::{cache, call, http, log, secrets, telemetry, types};
use crate::outside::Withheld;
use crate::state::{CallState, Progress, Way};
use crate::stdio::clean;

impl types::Host for CallState {}
impl telemetry::Host for CallState {}

impl log::Host for CallState {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        self.count_line()?;
        let (plugin, message) = (&*self.home.name, clean(&message));
        match level {
            log::Level::Debug => tracing::debug!(target: "portcullis::plugin", plugin, "{message}"),
            log::Level::Info => tracing::info!(target: "portcullis::plugin", plugin, "{message}"),
            log::Level::Warn => tracing::warn!(target: "portcullis::plugin", plugin, "{message}"),
            log::Level::Error => tracing::error!(target: "portcullis::plugin", plugin, "{message}"),
        }
        Ok(())
    }
}

impl http::Host for CallState {
    async fn send(&mut self, request: http::Request) -> wasmtime::Result<Result<http::Response, http::Failure>> {
        self.count_request()?;
        let Some((permit, way)) = self.call.as_ref().map(|call| (call.permit.clone(), call.way.clone())) else {
            return Ok(Err(http::Failure::Refused("nothing is reached while a plugin describes itself".to_owned())));
        };
        let under = match way {
            Way::Open => permit.clone(),
            Way::Reading(reading) if only_reads(&request) => *reading,
            Way::Reading(_) => {
                self.held_back += 1;
                let why =
                    "a preview sends nothing that may change something: GET and HEAD, and no header that stands for another";
                return Ok(Err(http::Failure::Refused(why.to_owned())));
            }
            Way::Closed(why) => {
                self.held_back += 1;
                return Ok(Err(http::Failure::Refused(format!("a preview reads nothing here: {why}"))));
            }
        };
        let home = self.home.clone();
        Ok(self.wait(home.outside.send(&under, permit.trail(), request)).await)
    }
}

/// Headers by which some servers take a request for one of another method.
const OTHER_METHOD: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// Whether a request asks and does nothing (RFC 9110, safe methods).
fn only_reads(request: &http::Request) -> bool {
    let stands_for_another = |pair: &types::Pair| OTHER_METHOD.iter().any(|name| pair.name.trim().eq_ignore_ascii_case(name));
    matches!(request.method.as_str(), "GET" | "HEAD") && !request.headers.iter().any(stands_for_another)
}

impl cache::Host for CallState {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        Ok(self.call.as_ref().and_then(|call| self.home.cache.get(call.scope, &key)).map(|value| value.to_vec()))
    }

    fn set(&mut self, key: String, value: Vec<u8>, seconds: u32) -> wasmtime::Result<bool> {
        Ok(self.call.as_ref().is_some_and(|call| self.home.cache.set(call.scope, &key, &value, seconds)))
    }

    fn delete(&mut self, key: String) -> wasmtime::Result<()> {
        if let Some(call) = &self.call {
            self.home.cache.delete(call.scope, &key);
        }
        Ok(())
    }
}

impl secrets::Host for CallState {
    async fn read(&mut self, name: String) -> wasmtime::Result<Result<String, secrets::Failure>> {
        let Some(trail) = self.call.as_ref().map(|call| call.permit.trail().clone()) else {
            return Ok(Err(secrets::Failure::Refused));
        };
        if !self.count_secret() {
            return Ok(Err(secrets::Failure::Unavailable));
        }
        let home = self.home.clone();
        let read = self.wait(home.outside.read_secret(&trail, &name)).await;
        Ok(read.map_err(|withheld| match withheld {
            Withheld::Undeclared => secrets::Failure::Undeclared,
            Withheld::Refused => secrets::Failure::Refused,
            Withheld::Unavailable => secrets::Failure::Unavailable,
        }))
    }
}

impl call::Host for CallState {
    fn time_left(&mut self) -> wasmtime::Result<u32> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        Ok(u32::try_from(left.as_millis()).unwrap_or(u32::MAX))
    }

    fn cancelled(&mut self) -> wasmtime::Result<bool> {
        let closed = self.call.as_ref().is_some_and(|call| call.progress.is_closed());
        Ok(closed || self.deadline <= Instant::now())
    }

    fn settings(&mut self) -> wasmtime::Result<String> {
        Ok(self.home.settings.clone())
    }

    fn progress(&mut self, done: f64, total: Option<f64>, message: String) -> wasmtime::Result<()> {
        self.count_line()?;
        if let Some(call) = &self.call {
            // Nobody listens any more: that is what `cancelled` says.
            let _ = call.progress.send(Progress { done, total, message: clean(&message) });
        }
        Ok(())
    }
}
