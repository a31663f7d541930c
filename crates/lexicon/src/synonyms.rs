//! Words of the field that stand for one another in the mouths of engineers: somebody asks to *bounce* a *container*, the
//! tool *restarts* a *pod*.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::words::stem;

/// Each line is one meaning. A word may be on several lines.
const GROUPS: &[&[&str]] = &[
    &["alert", "alarm", "firing", "page", "paging", "notification"],
    &["silence", "mute", "suppress", "snooze", "quiet"],
    &["log", "line", "message", "record", "stdout", "output"],
    &["metric", "measurement", "gauge", "counter", "timeseries", "series"],
    &["trace", "span", "request"],
    &["error", "failure", "fail", "exception", "broken", "fault", "wrong"],
    &["crash", "crashloop", "restarting", "died", "unhealthy"],
    &["slow", "latency", "duration", "p99", "p95", "performance"],
    &["spike", "anomaly", "outlier", "unusual", "strange", "jump", "sudden"],
    &["pattern", "template", "kind", "cluster", "common"],
    &["cause", "why", "root", "reason", "culprit", "explain", "investigate", "diagnose"],
    &["incident", "outage", "problem", "trouble"],
    &["issue", "ticket", "bug", "task"],
    &["health", "healthy", "status", "state", "condition", "alive", "well"],
    &["cpu", "processor", "usage", "consumption", "top"],
    &["memory", "ram", "oom", "heap", "usage"],
    &["disk", "storage", "volume", "pvc", "space"],
    &["pod", "container", "workload", "process"],
    &["kubernetes", "k8s", "kube", "kubectl", "cluster"],
    &["node", "machine", "host", "worker", "server"],
    &["restart", "bounce", "reboot", "rollout", "cycle"],
    &["rollback", "revert", "undo", "previous", "back", "restore"],
    &["deploy", "release", "ship", "rollout", "version", "chart"],
    &["install", "add", "deploy", "setup"],
    &["upgrade", "update", "bump"],
    &["scale", "replica", "resize", "instance", "copy"],
    &["drain", "evict", "empty", "vacate"],
    &["cordon", "unschedulable", "maintenance", "schedule"],
    &["delete", "remove", "destroy", "drop", "erase", "uninstall", "clean", "kill", "terminate"],
    &["create", "add", "new", "make", "open", "start", "raise", "write"],
    &["update", "change", "edit", "modify", "set", "patch", "rename", "adjust"],
    &["list", "show", "all", "every", "enumerate", "overview"],
    &["get", "read", "fetch", "retrieve", "show", "describe", "detail", "inspect", "see", "look", "view", "content"],
    &["search", "find", "query", "look", "match", "filter"],
    &["compare", "diff", "difference", "change"],
    &["service", "app", "application", "microservice", "component"],
    &["dependency", "topology", "upstream", "downstream", "graph", "call", "caller", "depend", "edge", "map"],
    &["dashboard", "panel", "board", "visualization", "graph"],
    &["config", "configuration", "setting", "parameter", "configmap", "option"],
    &["secret", "credential", "password", "token", "key"],
    &["permission", "access", "rbac", "allowed", "right", "authorize", "role", "forbidden"],
    &["user", "person", "member", "people", "account", "team"],
    &["oncall", "duty", "rota", "shift", "responder", "call"],
    &["pipeline", "build", "job", "ci", "workflow", "run", "action"],
    &["merge", "pull", "pr", "review"],
    &["commit", "change", "history", "revision"],
    &["repository", "repo", "code", "source"],
    &["event", "happened", "recent", "occurrence"],
    &["exec", "execute", "run", "command", "shell", "inside"],
    &["database", "sql", "postgres", "table", "db", "mysql"],
    &["query", "statement", "sql"],
    &["queue", "topic", "kafka", "broker", "stream", "partition"],
    &["lag", "behind", "backlog", "delay", "offset"],
    &["cache", "redis", "memcached"],
    &["certificate", "cert", "tls", "ssl", "expiry", "expire"],
    &["ingress", "route", "gateway", "endpoint", "url", "traffic"],
    &["dns", "name", "domain", "resolve"],
    &["image", "registry", "tag", "container"],
    &["vulnerability", "cve", "scan", "security"],
    &["cost", "spend", "billing", "bill", "price", "money", "expensive"],
    &["sync", "reconcile", "drift", "apply"],
    &["apply", "create", "manifest", "yaml"],
    &["backup", "snapshot", "dump", "restore"],
    &["label", "tag", "attribute", "annotation"],
    &["rule", "recording", "alerting", "expression"],
    &["target", "scrape", "exporter"],
    &["receiver", "notify", "contact", "channel", "slack"],
    &["index", "indices", "shard"],
    &["document", "doc", "record", "hit"],
    &["slo", "objective", "budget", "burn"],
    &["profile", "flamegraph", "pprof", "hot"],
    &["flag", "toggle", "feature", "switch"],
    &["time", "clock", "date", "now"],
    &["comment", "note", "annotate"],
    &["close", "resolve", "finish", "acknowledge", "ack"],
    &["frontend", "browser", "user", "session"],
    &["quota", "limit"],
    &["test", "check", "verify", "validate", "reachable", "probe"],
];

static BY_WORD: LazyLock<HashMap<String, Vec<String>>> = LazyLock::new(|| {
    let mut by_word: HashMap<String, Vec<String>> = HashMap::new();
    for group in GROUPS {
        let stems: Vec<String> = group.iter().map(|word| stem(word)).collect();
        for word in &stems {
            let others = by_word.entry(word.clone()).or_default();
            for other in &stems {
                if other != word && !others.contains(other) {
                    others.push(other.clone());
                }
            }
        }
    }
    by_word
});

/// What may stand for a stem.
pub(crate) fn of(stem: &str) -> Vec<String> {
    BY_WORD.get(stem).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meaning_goes_both_ways() {
        for (one, other) in [("pod", "container"), ("restart", "rollout"), ("mute", "silence"), ("why", "cause")] {
            assert!(of(&stem(one)).contains(&stem(other)) && of(&stem(other)).contains(&stem(one)), "{one} and {other}");
        }
        assert!(of("zebra").is_empty());
    }
}
