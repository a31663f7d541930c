//! Ordinary log lines: the chatter of services that has nothing to do with any incident.
//!
//! Guards variety: many templates with changing numbers, so that template mining and summaries have something to do.
//! Nothing here may hint at a fault of a scenario.

use opentelemetry_proto::tonic::logs::v1::SeverityNumber;

use crate::random::Dice;
use crate::services::Service;

/// Why a request failed that failed for a reason of its own.
pub(crate) fn internal_failure(dice: &mut Dice, service: Service) -> String {
    let code = dice.between(100, 999);
    match dice.below(5) {
        0 => format!("unhandled exception in {} worker {}: index out of range", service.name(), dice.below(16)),
        1 => format!("could not decode response body: unexpected end of input at byte {code}"),
        2 => format!("connection reset by peer while reading from 10.2.{}.{}", dice.below(255), dice.below(255)),
        3 => format!("optimistic lock failed for entity {code}, giving up"),
        _ => format!("request cancelled: request id r-{:x}", dice.bits() >> 40),
    }
}

/// A line a pod writes of its own accord now and then.
pub(crate) fn chatter(dice: &mut Dice, service: Service) -> (SeverityNumber, String) {
    let (small, big) = (dice.between(2, 40), dice.between(1_000, 90_000));
    let (info, debug, warn) = (SeverityNumber::Info, SeverityNumber::Debug, SeverityNumber::Warn);
    let own = match service {
        Service::Frontend => match dice.below(3) {
            0 => (info, format!("served {big} static assets from edge cache, hit ratio 0.{}", dice.between(90, 99))),
            1 => (debug, format!("session store compacted, {big} sessions kept, {small} expired")),
            _ => (warn, format!("event loop lagged {small} ms behind")),
        },
        Service::Checkout => (info, format!("fraud rules reloaded: {small} rules, revision {big}")),
        Service::Cart => (info, format!("{small} abandoned carts expired")),
        Service::Catalog => match dice.below(2) {
            0 => (info, format!("product cache: {big} entries, {small} evicted since last report")),
            _ => (info, format!("search index refreshed in {big} us")),
        },
        Service::Payment => (info, format!("settlement batch {big} closed with {small} charges")),
        Service::Shipping => (info, format!("carrier rates refreshed, {small} zones")),
        Service::Inventory => match dice.below(2) {
            0 => (info, format!("stock levels synchronised with warehouse, {small} of {big} changed")),
            _ => (info, format!("low stock: product {} has {small} left", big % 480)),
        },
        Service::Recommendation => (info, format!("model generation {small} loaded, {big} vectors")),
        Service::Email => (info, format!("provider quota: {big} of 100000 messages left today")),
        Service::DeployController => (info, format!("reconciled 9 deployments in {small} ms, nothing to do")),
    };
    match dice.below(5) {
        0 => (debug, format!("health check passed in {small} ms")),
        1 if matches!(service.profile().language, "java" | "dotnet") => {
            (info, format!("GC pause (young) {}.{} ms, heap {} MiB", small, big % 10, 180 + big % 90))
        }
        2 => (debug, format!("configuration unchanged, checksum {:08x}", (big * 2_654_435_761) & 0xFFFF_FFFF)),
        _ => own,
    }
}
