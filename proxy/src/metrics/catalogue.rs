//! Every metric of the proxy: name, kind, unit, labels, tier and help, once. The golden file, the table for people and
//! the text of a scrape are made from it.

use std::fmt::Write;

/// What kind of metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by bucket.
    Histogram,
}

/// How much of it there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// A handful of series for the whole process.
    Process,
    /// Series for each edge between workloads; always.
    Edge,
    /// Series for each backend.
    Backend,
    /// Series for each endpoint; only in the most detailed tier.
    Endpoint,
    /// The same figures under the names existing tools ask for.
    Alias,
}

/// One metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name as scraped.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// `seconds`, `bytes`, … or empty.
    pub unit: &'static str,
    /// Names of the labels.
    pub labels: &'static [&'static str],
    /// Tier.
    pub tier: Tier,
    /// One sentence.
    pub help: &'static str,
}

macro_rules! catalogue {
    ($($id:ident = $name:literal, $kind:ident, $unit:literal, $tier:ident, $labels:expr, $help:literal;)*) => {
        $(#[doc = $help]
        pub static $id: Metric = Metric {
            name: $name, kind: Kind::$kind, unit: $unit, labels: $labels, tier: Tier::$tier, help: $help,
        };)*
        /// All of them, in the order of a scrape.
        pub static ALL: &[&Metric] = &[$(&$id),*];
    };
}

/// Labels of an edge.
pub const EDGE: &[&str] = &[
    "direction",
    "namespace",
    "workload",
    "peer_namespace",
    "peer_workload",
    "service",
    "backend",
    "route",
    "tls",
];
const ANSWER: &[&str] = &[
    "direction",
    "namespace",
    "workload",
    "peer_namespace",
    "peer_workload",
    "service",
    "backend",
    "route",
    "tls",
    "classification",
    "status",
    "grpc_status",
];
const EDGE_REASON: &[&str] = &[
    "direction",
    "namespace",
    "workload",
    "peer_namespace",
    "peer_workload",
    "service",
    "backend",
    "route",
    "tls",
    "reason",
];
const CONNECTION: &[&str] = &[
    "direction",
    "namespace",
    "workload",
    "side",
    "peer_namespace",
    "peer_workload",
    "tls",
    "no_tls_reason",
    "protocol",
];
const BACKEND: &[&str] = &["namespace", "workload", "backend"];
const ENDPOINT: &[&str] = &["namespace", "workload", "backend", "pod_namespace", "pod"];
const ENDPOINT_RESULT: &[&str] = &[
    "namespace",
    "workload",
    "backend",
    "pod_namespace",
    "pod",
    "result",
];
const BREAKER: &[&str] = &["namespace", "workload", "backend", "limit"];
const ALIAS: &[&str] = &[
    "direction",
    "namespace",
    "deployment",
    "tls",
    "client_id",
    "dst_namespace",
    "dst_deployment",
    "dst_service",
];
const ALIAS_ANSWER: &[&str] = &[
    "direction",
    "namespace",
    "deployment",
    "tls",
    "client_id",
    "dst_namespace",
    "dst_deployment",
    "dst_service",
    "classification",
    "status_code",
    "grpc_status",
];
const ALIAS_TCP: &[&str] = &[
    "direction",
    "namespace",
    "deployment",
    "tls",
    "peer",
    "dst_namespace",
    "dst_deployment",
];

catalogue! {
    REQUESTS = "weft_requests_total", Counter, "", Edge, EDGE, "Requests received.";
    RESPONSES = "weft_responses_total", Counter, "", Edge, ANSWER, "Requests answered, by status and by whether that is a success or a failure.";
    LATENCY = "weft_response_latency_seconds", Histogram, "seconds", Edge, EDGE, "From the head of a request to the end of its answer.";
    CANCELLED = "weft_requests_cancelled_total", Counter, "", Edge, EDGE, "Requests whose client went away before the answer was complete.";
    DENIED = "weft_denied_total", Counter, "", Edge, EDGE_REASON, "Requests and connections denied by policy, by what was missing.";
    STREAMS = "weft_tcp_streams_total", Counter, "", Edge, EDGE, "Connections that carried bytes rather than HTTP.";
    RECEIVED = "weft_received_bytes_total", Counter, "bytes", Edge, EDGE, "Payload bytes from the client.";
    SENT = "weft_sent_bytes_total", Counter, "bytes", Edge, EDGE, "Payload bytes to the client.";

    OPENED = "weft_connections_opened_total", Counter, "", Edge, CONNECTION, "Connections accepted (src) or opened (dst).";
    CLOSED = "weft_connections_closed_total", Counter, "", Edge, CONNECTION, "Connections that ended.";
    OPEN = "weft_connections_open", Gauge, "", Edge, CONNECTION, "Connections open now.";
    LIFETIME = "weft_connection_duration_seconds", Histogram, "seconds", Edge, CONNECTION, "Life of connections that ended.";
    READ = "weft_connection_read_bytes_total", Counter, "bytes", Edge, CONNECTION, "Bytes read from sockets.";
    WRITTEN = "weft_connection_written_bytes_total", Counter, "bytes", Edge, CONNECTION, "Bytes written to sockets.";

    ENDPOINTS = "weft_backend_endpoints", Gauge, "", Backend, BACKEND, "Endpoints known.";
    EJECTED = "weft_backend_endpoints_ejected", Gauge, "", Backend, BACKEND, "Endpoints set aside by their breaker now.";
    EJECTIONS = "weft_backend_ejections_total", Counter, "", Backend, BACKEND, "Times an endpoint was set aside.";
    CONNECT_FAILURES = "weft_backend_connect_failures_total", Counter, "", Backend, BACKEND, "Connections to endpoints that could not be opened.";

    BREAKER_FULL = "weft_backend_breaker_full", Gauge, "", Backend, BREAKER, "1 while a limit of the Service's breaker (connections, pending, requests) is used up.";
    BREAKER_REFUSED = "weft_backend_breaker_refused_total", Counter, "", Backend, BREAKER, "Requests and connections refused by the Service's breaker, by limit.";
    FALLBACKS = "weft_backend_fallbacks_total", Counter, "", Backend, BACKEND, "Requests sent to the fallback of the Service instead.";

    ENDPOINT_REQUESTS = "weft_endpoint_requests_total", Counter, "", Endpoint, ENDPOINT_RESULT, "Requests (and connections of bytes) sent to an endpoint, each try by itself, by how they ended.";
    ENDPOINT_LATENCY = "weft_endpoint_latency_seconds", Histogram, "seconds", Endpoint, ENDPOINT, "From sending to an endpoint until its answer began.";
    ENDPOINT_IN_FLIGHT = "weft_endpoint_requests_in_flight", Gauge, "", Endpoint, ENDPOINT, "Requests (and connections of bytes) under way to an endpoint.";

    ALLOWED = "weft_policy_allowed_total", Counter, "", Process, &["rule"], "Connections and requests allowed, by what allowed them.";
    REFUSED = "weft_policy_denied_total", Counter, "", Process, &["reason", "audit", "rule"], "Connections and requests denied (with audit: that would have been), by reason (`metrics::reasons` says what each means) and by the permission that came nearest (`none`: no permission names the caller).";
    ERRORS = "weft_errors_total", Counter, "", Process, &["direction", "code", "name"], "Errors the proxy itself answered.";
    IN_FLIGHT = "weft_requests_in_flight", Gauge, "", Process, &["direction"], "Requests whose answer has not ended; 100000 in either direction at most.";
    KEPT = "weft_upstream_connections_kept", Gauge, "", Process, &[], "Connections to endpoints and the application kept for later requests: of HTTP/1 those that are idle, of HTTP/2 all.";
    KEPT_CLOSED = "weft_upstream_connections_kept_closed_total", Counter, "", Process, &[], "Of those, closed because there were more than `WEFT_PROXY_MAX_IDLE`.";
    RETRIES = "weft_retries_total", Counter, "", Process, &["direction", "service", "result"], "Requests sent again (tried), and how that ended: succeeded; or why not: attempts spent, budget spent, no time left, not replayable.";
    TIMEOUTS = "weft_timeouts_total", Counter, "", Process, &["direction", "kind"], "Times something took too long: request, response, try, idle.";
    FAULTS = "weft_faults_total", Counter, "", Process, &["service", "kind"], "Failures made on purpose: abort, delay.";
    RATE_LIMITED = "weft_rate_limited_total", Counter, "", Process, &["rule", "audit"], "Requests beyond a rate limit, by rule (with audit: let pass nevertheless).";
    PANICS = "weft_panics_total", Counter, "", Process, &["direction"], "Connections lost to a mistake in the proxy itself.";
    CONNECTION_LIMIT = "weft_connections_limit", Gauge, "", Process, &[], "Connections accepted at once, in both directions together; E134 counts those beyond.";
    EXHAUSTED = "weft_accept_exhausted_total", Counter, "", Process, &["direction"], "Times no connection could be accepted for want of descriptors or memory.";
    ACCESS_LINES = "weft_access_log_lines_total", Counter, "", Process, &["result"], "Lines of the access log: written, dropped (whoever reads them was too slow).";
    SPANS = "weft_spans_total", Counter, "", Process, &["result"], "Spans of traces: sent, failed (the collector did not take them), dropped (too many waited).";
    UPGRADES = "weft_upgrades_total", Counter, "", Process, &["result"], "Hot upgrades: taken (this process took the listeners over), failed (another one wanted them and did not get ready).";
    TUNNELS = "weft_tunnels_open", Gauge, "", Process, &["direction"], "Connections between proxies that carry several connections of bytes, open now.";
    TUNNEL_STREAMS = "weft_tunnel_streams_total", Counter, "", Process, &["direction"], "Connections of bytes carried as streams of tunnels.";
    DETECTED = "weft_detections_total", Counter, "", Process, &["direction", "result"], "What the first bytes of connections were found to be.";
    IDENTITY_EXPIRY = "weft_identity_expiry_timestamp_seconds", Gauge, "seconds", Process, &[], "When the certificate ends, seconds since 1970; 0: there is none.";
    IDENTITY_LIFETIME = "weft_identity_lifetime_seconds", Gauge, "seconds", Process, &[], "How long the certificate was to last when it was taken over; 0: there is none.";
    IDENTITY_RENEWALS = "weft_identity_renewals_total", Counter, "", Process, &["result"], "Certificates asked for.";
    CONTROL_CONNECTED = "weft_control_connected", Gauge, "", Process, &[], "1 while the stream from the controller is open.";
    CONTROL_STALENESS = "weft_control_staleness_seconds", Gauge, "seconds", Process, &[], "How long the controller has not been heard; 0 while connected.";
    CONTROL_RECONNECTS = "weft_control_reconnects_total", Counter, "", Process, &[], "Attempts to reconnect to the controller.";
    CONTROL_UPDATES = "weft_control_updates_total", Counter, "", Process, &["resource"], "Updates applied, by what they were about.";
    CONTROL_NACKS = "weft_control_nacks_total", Counter, "", Process, &[], "Updates rejected as malformed; the last good one stays in force.";
    CONTROL_SUBSCRIPTIONS = "weft_control_subscriptions", Gauge, "", Process, &[], "Resources subscribed to.";
    DROPPED = "weft_metrics_dropped_total", Counter, "", Process, &["family"], "Requests for a series beyond the cap, counted as __other__ instead.";
    TIER = "weft_metrics_tier", Gauge, "", Process, &[], "In how much detail this is: 0 by edge, 1 also by route, 2 also by endpoint.";
    SERIES = "weft_metrics_series", Gauge, "", Process, &["family"], "Bundles of series held.";
    BUILD = "weft_build_info", Gauge, "", Process, &["version"], "1, with the version of the program.";

    CPU = "process_cpu_seconds_total", Counter, "seconds", Process, &[], "CPU time used, user and system.";
    RSS = "process_resident_memory_bytes", Gauge, "bytes", Process, &[], "Resident memory.";
    FDS = "process_open_fds", Gauge, "", Process, &[], "Open file descriptors.";
    MAX_FDS = "process_max_fds", Gauge, "", Process, &[], "Most file descriptors allowed.";
    THREADS = "process_threads", Gauge, "", Process, &[], "Threads.";
    START = "process_start_time_seconds", Gauge, "seconds", Process, &[], "When the process started, seconds since 1970.";

    ALIAS_REQUESTS = "request_total", Counter, "", Alias, ALIAS, "Requests received (Linkerd's name).";
    ALIAS_RESPONSES = "response_total", Counter, "", Alias, ALIAS_ANSWER, "Requests answered (Linkerd's name).";
    ALIAS_LATENCY = "response_latency_ms", Histogram, "milliseconds", Alias, ALIAS, "From the head of a request to the end of its answer (Linkerd's name and unit).";
    ALIAS_TCP_OPENED = "tcp_open_total", Counter, "", Alias, ALIAS_TCP, "Connections opened (Linkerd's name).";
    ALIAS_TCP_CLOSED = "tcp_close_total", Counter, "", Alias, ALIAS_TCP, "Connections ended (Linkerd's name).";
    ALIAS_TCP_OPEN = "tcp_open_connections", Gauge, "", Alias, ALIAS_TCP, "Connections open now (Linkerd's name).";
    ALIAS_TCP_READ = "tcp_read_bytes_total", Counter, "bytes", Alias, ALIAS_TCP, "Bytes read from sockets (Linkerd's name).";
    ALIAS_TCP_WRITTEN = "tcp_write_bytes_total", Counter, "bytes", Alias, ALIAS_TCP, "Bytes written to sockets (Linkerd's name).";
}

/// The metric with this name.
pub fn find(name: &str) -> Option<&'static Metric> {
    ALL.iter().find(|metric| metric.name == name).copied()
}

impl Kind {
    /// As a scrape says it.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

impl Tier {
    /// As the table says it.
    pub fn label(self) -> &'static str {
        match self {
            Tier::Process => "process",
            Tier::Edge => "edge",
            Tier::Backend => "backend",
            Tier::Endpoint => "endpoint",
            Tier::Alias => "alias",
        }
    }
}

/// The catalogue as a table for people: one line each.
pub fn table() -> String {
    let mut out = String::new();
    for metric in ALL {
        let labels = metric.labels.join(",");
        let (kind, tier) = (metric.kind.label(), metric.tier.label());
        let _ = writeln!(
            out,
            "{} | {kind} | {} | {tier} | {labels} | {}",
            metric.name, metric.unit, metric.help
        );
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// `WEFT_UPDATE_GOLDEN=1` writes the file anew.
    #[test]
    fn names_that_dashboards_rely_on_do_not_change_unseen() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("metrics.golden");
        if std::env::var_os("WEFT_UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, table()).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(&file).unwrap_or_default(),
            table(),
            "proxy/metrics.golden is stale"
        );
    }

    #[test]
    fn names_are_unique_and_follow_the_conventions() {
        for (at, metric) in ALL.iter().enumerate() {
            assert!(
                ALL[..at].iter().all(|other| other.name != metric.name),
                "{} twice",
                metric.name
            );
            assert_eq!(
                metric.kind == Kind::Counter,
                metric.name.ends_with("_total"),
                "{}",
                metric.name
            );
            assert!(
                metric
                    .name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            );
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
