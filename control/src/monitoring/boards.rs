//! What the dashboards show: titles, questions and units, with nothing of Grafana's form ([`super::grafana`] has that).

/// A dashboard.
#[derive(Debug)]
pub struct Board {
    /// Name of the file, and end of its identifier.
    pub id: &'static str,
    /// Title.
    pub title: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// What is chosen above it.
    pub choice: Choice,
    /// Panels, in reading order.
    pub panels: &'static [Panel],
}

/// What a reader chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Nothing.
    None,
    /// Namespaces.
    Namespace,
    /// Namespaces, and workloads in them.
    Workload,
}

/// A panel.
#[derive(Debug)]
pub struct Panel {
    /// Title.
    pub title: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Grafana's name of the unit.
    pub unit: &'static str,
    /// Form.
    pub form: Form,
    /// Legends and questions.
    pub queries: &'static [(&'static str, &'static str)],
    /// Why it may be empty although there is traffic; empty: it may not.
    pub empty: &'static str,
}

/// How a panel looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One number.
    Stat,
    /// Lines over time.
    Lines,
    /// Rows of now.
    Table,
}

/// The mesh as a whole, by namespace.
pub const TOP_LINE: &[Panel] = &[
    Panel {
        title: "Requests",
        help: "Requests in a second, as those called counted them.",
        unit: "reqps",
        form: Form::Stat,
        empty: "",
        queries: &[(
            "",
            r#"sum(rate(weft_requests_total{direction="inbound",namespace=~"$namespace"}[$__rate_interval]))"#,
        )],
    },
    Panel {
        title: "Success",
        help: "Share of the answers that are successes.",
        unit: "percentunit",
        form: Form::Stat,
        empty: "",
        queries: &[(
            "",
            r#"sum (rate(weft_responses_total{direction="inbound",namespace=~"$namespace",classification="success"}[$__rate_interval])) / (sum (rate(weft_responses_total{direction="inbound",namespace=~"$namespace"}[$__rate_interval])) > 0)"#,
        )],
    },
    Panel {
        title: "p95",
        help: "95 of 100 answers took at most this long.",
        unit: "s",
        form: Form::Stat,
        empty: "",
        queries: &[(
            "",
            r#"histogram_quantile(0.95, sum by (le) (rate(weft_response_latency_seconds_bucket{direction="inbound",namespace=~"$namespace"}[$__rate_interval])))"#,
        )],
    },
    Panel {
        title: "Without mutual TLS",
        help: "Share of the requests whose caller did not prove who it is.",
        unit: "percentunit",
        form: Form::Stat,
        empty: "",
        queries: &[(
            "",
            r#"(sum(rate(weft_requests_total{direction="inbound",namespace=~"$namespace",tls="false"}[$__rate_interval])) or vector(0)) / sum(rate(weft_requests_total{direction="inbound",namespace=~"$namespace"}[$__rate_interval]))"#,
        )],
    },
    Panel {
        title: "Requests by workload",
        help: "Requests in a second.",
        unit: "reqps",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{namespace}}/{{workload}}",
            r#"sum by (namespace, workload) (rate(weft_requests_total{direction="inbound",namespace=~"$namespace"}[$__rate_interval]))"#,
        )],
    },
    Panel {
        title: "Success by workload",
        help: "Share of the answers that are successes.",
        unit: "percentunit",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{namespace}}/{{workload}}",
            r#"sum by (namespace, workload) (rate(weft_responses_total{direction="inbound",namespace=~"$namespace",classification="success"}[$__rate_interval])) / (sum by (namespace, workload) (rate(weft_responses_total{direction="inbound",namespace=~"$namespace"}[$__rate_interval])) > 0)"#,
        )],
    },
    Panel {
        title: "p95 by workload",
        help: "95 of 100 answers took at most this long.",
        unit: "s",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{namespace}}/{{workload}}",
            r#"histogram_quantile(0.95, sum by (namespace, workload, le) (rate(weft_response_latency_seconds_bucket{direction="inbound",namespace=~"$namespace"}[$__rate_interval])))"#,
        )],
    },
    Panel {
        title: "Denied by workload",
        help: "Requests and connections denied by policy in a second.",
        unit: "reqps",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{namespace}}/{{workload}}: {{reason}}",
            r#"sum by (namespace, workload, reason) (rate(weft_denied_total{direction="inbound",namespace=~"$namespace"}[$__rate_interval]))"#,
        )],
    },
];

/// One workload: who calls it, whom it calls.
pub const WORKLOAD: &[Panel] = &[
    Panel {
        title: "Requests",
        help: "Requests in a second.",
        unit: "reqps",
        form: Form::Stat,
        empty: "",
        queries: &[(
            "",
            r#"sum(rate(weft_requests_total{direction="inbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval]))"#,
        )],
    },
    Panel {
        title: "Success",
        help: "Share of the answers that are successes.",
        unit: "percentunit",
        form: Form::Stat,
        empty: "",
        queries: &[(
            "",
            r#"sum (rate(weft_responses_total{direction="inbound",namespace=~"$namespace",workload=~"$workload",classification="success"}[$__rate_interval])) / (sum (rate(weft_responses_total{direction="inbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval])) > 0)"#,
        )],
    },
    Panel {
        title: "Latency",
        help: "Half, 95 and 99 of 100 answers took at most this long.",
        unit: "s",
        form: Form::Lines,
        empty: "",
        queries: &[
            (
                "p50",
                r#"histogram_quantile(0.5, sum by (le) (rate(weft_response_latency_seconds_bucket{direction="inbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval])))"#,
            ),
            (
                "p95",
                r#"histogram_quantile(0.95, sum by (le) (rate(weft_response_latency_seconds_bucket{direction="inbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval])))"#,
            ),
            (
                "p99",
                r#"histogram_quantile(0.99, sum by (le) (rate(weft_response_latency_seconds_bucket{direction="inbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval])))"#,
            ),
        ],
    },
    Panel {
        title: "Answers by status",
        help: "Answers in a second.",
        unit: "reqps",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{status}} {{grpc_status}}",
            r#"sum by (status, grpc_status) (rate(weft_responses_total{direction="inbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval]))"#,
        )],
    },
    Panel {
        title: "Callers",
        help: "Requests in a second, by account of the caller.",
        unit: "reqps",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{peer_namespace}}/{{peer_workload}}",
            r#"sum by (peer_namespace, peer_workload) (rate(weft_requests_total{direction="inbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval]))"#,
        )],
    },
    Panel {
        title: "Calls to",
        help: "Requests in a second to others.",
        unit: "reqps",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{peer_namespace}}/{{peer_workload}}",
            r#"sum by (peer_namespace, peer_workload) (rate(weft_requests_total{direction="outbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval]))"#,
        )],
    },
    Panel {
        title: "Success of calls",
        help: "Share of the answers of others that are successes.",
        unit: "percentunit",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{peer_namespace}}/{{peer_workload}}",
            r#"sum by (peer_namespace, peer_workload) (rate(weft_responses_total{direction="outbound",namespace=~"$namespace",workload=~"$workload",classification="success"}[$__rate_interval])) / (sum by (peer_namespace, peer_workload) (rate(weft_responses_total{direction="outbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval])) > 0)"#,
        )],
    },
    Panel {
        title: "p95 of calls",
        help: "95 of 100 answers of others took at most this long.",
        unit: "s",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{peer_namespace}}/{{peer_workload}}",
            r#"histogram_quantile(0.95, sum by (peer_namespace, peer_workload, le) (rate(weft_response_latency_seconds_bucket{direction="outbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval])))"#,
        )],
    },
    Panel {
        title: "Payload",
        help: "Bytes in a second from and to callers.",
        unit: "Bps",
        form: Form::Lines,
        empty: "",
        queries: &[
            (
                "from callers",
                r#"sum(rate(weft_received_bytes_total{direction="inbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval]))"#,
            ),
            (
                "to callers",
                r#"sum(rate(weft_sent_bytes_total{direction="inbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval]))"#,
            ),
        ],
    },
    Panel {
        title: "Connections open",
        help: "Connections now.",
        unit: "short",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{direction}} {{side}}",
            r#"sum by (direction, side) (weft_connections_open{namespace=~"$namespace",workload=~"$workload"})"#,
        )],
    },
];

/// By match of HTTPRouteGroups.
pub const ROUTE: &[Panel] = &[
    Panel {
        title: "Requests",
        help: "Requests in a second.",
        unit: "reqps",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{route}}",
            r#"sum by (route) (rate(weft_requests_total{direction="inbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval]))"#,
        )],
    },
    Panel {
        title: "Success",
        help: "Share of the answers that are successes.",
        unit: "percentunit",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{route}}",
            r#"sum by (route) (rate(weft_responses_total{direction="inbound",namespace=~"$namespace",workload=~"$workload",classification="success"}[$__rate_interval])) / (sum by (route) (rate(weft_responses_total{direction="inbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval])) > 0)"#,
        )],
    },
    Panel {
        title: "p50",
        help: "Half of the answers took at most this long.",
        unit: "s",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{route}}",
            r#"histogram_quantile(0.5, sum by (route, le) (rate(weft_response_latency_seconds_bucket{direction="inbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval])))"#,
        )],
    },
    Panel {
        title: "p95",
        help: "95 of 100 answers took at most this long.",
        unit: "s",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{route}}",
            r#"histogram_quantile(0.95, sum by (route, le) (rate(weft_response_latency_seconds_bucket{direction="inbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval])))"#,
        )],
    },
    Panel {
        title: "Sent again",
        help: "Tries beyond the first, in a second, and how they ended.",
        unit: "ops",
        form: Form::Lines,
        empty: "counted only where a request was sent again",
        queries: &[(
            "{{service}}: {{result}}",
            "sum by (service, result) (rate(weft_retries_total[$__rate_interval]))",
        )],
    },
    Panel {
        title: "Took too long",
        help: "Times a limit of time ran out, in a second.",
        unit: "ops",
        form: Form::Lines,
        empty: "counted only where a limit of time ran out",
        queries: &[(
            "{{direction}} {{kind}}",
            "sum by (direction, kind) (rate(weft_timeouts_total[$__rate_interval]))",
        )],
    },
];

/// Canaries: which backend gets how much, and how it does.
pub const SPLIT: &[Panel] = &[
    Panel {
        title: "Requests",
        help: "Requests in a second.",
        unit: "reqps",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{route}}: {{backend}}",
            r#"sum by (route, backend) (rate(weft_requests_total{direction="outbound",namespace=~"$namespace",route=~"TrafficSplit.*"}[$__rate_interval]))"#,
        )],
    },
    Panel {
        title: "Share",
        help: "Share of the requests of the split.",
        unit: "percentunit",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{route}}: {{backend}}",
            r#"sum by (route, backend) (rate(weft_requests_total{direction="outbound",namespace=~"$namespace",route=~"TrafficSplit.*"}[$__rate_interval])) / on (route) group_left () (sum by (route) (rate(weft_requests_total{direction="outbound",namespace=~"$namespace",route=~"TrafficSplit.*"}[$__rate_interval])) > 0)"#,
        )],
    },
    Panel {
        title: "Success",
        help: "Share of the answers that are successes.",
        unit: "percentunit",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{route}}: {{backend}}",
            r#"sum by (route, backend) (rate(weft_responses_total{direction="outbound",namespace=~"$namespace",route=~"TrafficSplit.*",classification="success"}[$__rate_interval])) / (sum by (route, backend) (rate(weft_responses_total{direction="outbound",namespace=~"$namespace",route=~"TrafficSplit.*"}[$__rate_interval])) > 0)"#,
        )],
    },
    Panel {
        title: "p95",
        help: "95 of 100 answers took at most this long.",
        unit: "s",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{route}}: {{backend}}",
            r#"histogram_quantile(0.95, sum by (route, backend, le) (rate(weft_response_latency_seconds_bucket{direction="outbound",namespace=~"$namespace",route=~"TrafficSplit.*"}[$__rate_interval])))"#,
        )],
    },
];

/// Who proves who it is, who is denied, whose certificate ends when.
pub const SECURITY: &[Panel] = &[
    Panel {
        title: "Without mutual TLS",
        help: "Requests in a second whose caller did not prove who it is.",
        unit: "reqps",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{namespace}}/{{workload}}",
            r#"sum by (namespace, workload) (rate(weft_requests_total{direction="inbound",namespace=~"$namespace",tls="false"}[$__rate_interval]))"#,
        )],
    },
    Panel {
        title: "With mutual TLS",
        help: "Requests in a second whose caller did.",
        unit: "reqps",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{namespace}}/{{workload}}",
            r#"sum by (namespace, workload) (rate(weft_requests_total{direction="inbound",namespace=~"$namespace",tls="true"}[$__rate_interval]))"#,
        )],
    },
    Panel {
        title: "Denied",
        help: "Requests and connections denied in a second, by what was missing.",
        unit: "reqps",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{namespace}}/{{workload}}: {{reason}}",
            r#"sum by (namespace, workload, reason) (rate(weft_denied_total{direction="inbound",namespace=~"$namespace"}[$__rate_interval]))"#,
        )],
    },
    Panel {
        title: "Denied callers",
        help: "Who was denied, in a second.",
        unit: "reqps",
        form: Form::Table,
        empty: "",
        queries: &[(
            "",
            r#"sum by (namespace, workload, peer_namespace, peer_workload, reason) (rate(weft_denied_total{direction="inbound",namespace=~"$namespace"}[$__rate_interval])) > 0"#,
        )],
    },
    Panel {
        title: "Allowed by",
        help: "Connections and requests allowed in a second, by what allowed them.",
        unit: "ops",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{rule}}",
            "sum by (rule) (rate(weft_policy_allowed_total[$__rate_interval]))",
        )],
    },
    Panel {
        title: "Why connections are not TLS",
        help: "Connections opened in a second without mutual TLS.",
        unit: "ops",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{no_tls_reason}}",
            r#"sum by (no_tls_reason) (rate(weft_connections_opened_total{namespace=~"$namespace",tls="false"}[$__rate_interval]))"#,
        )],
    },
    Panel {
        title: "Certificate left",
        help: "Until the certificates of proxies end.",
        unit: "s",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{instance}}",
            "(weft_identity_expiry_timestamp_seconds > 0) - time()",
        )],
    },
    Panel {
        title: "Certificates asked for",
        help: "Renewals in a second, by result.",
        unit: "ops",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{result}}",
            "sum by (result) (rate(weft_identity_renewals_total[$__rate_interval]))",
        )],
    },
];

/// How the proxies themselves are doing.
pub const PROXY: &[Panel] = &[
    Panel {
        title: "CPU",
        help: "Seconds of CPU time in a second.",
        unit: "percentunit",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{instance}}",
            r#"rate(process_cpu_seconds_total{job="weft-proxy"}[$__rate_interval])"#,
        )],
    },
    Panel {
        title: "Memory",
        help: "Resident memory.",
        unit: "bytes",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{instance}}",
            r#"process_resident_memory_bytes{job="weft-proxy"}"#,
        )],
    },
    Panel {
        title: "In flight",
        help: "Requests whose answer has not ended.",
        unit: "short",
        form: Form::Lines,
        empty: "",
        queries: &[("{{instance}} {{direction}}", "weft_requests_in_flight")],
    },
    Panel {
        title: "Descriptors",
        help: "File descriptors in use, of those allowed.",
        unit: "percentunit",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{instance}}",
            r#"process_open_fds{job="weft-proxy"} / process_max_fds{job="weft-proxy"}"#,
        )],
    },
    Panel {
        title: "Series",
        help: "Bundles of series held, by family.",
        unit: "short",
        form: Form::Lines,
        empty: "",
        queries: &[("{{family}}", "sum by (family) (weft_metrics_series)")],
    },
    Panel {
        title: "Errors answered",
        help: "Answers the proxies themselves gave, in a second, by name.",
        unit: "ops",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{direction}} {{name}}",
            "sum by (direction, name) (rate(weft_errors_total[$__rate_interval]))",
        )],
    },
    Panel {
        title: "Endpoints",
        help: "Endpoints known, and of these set aside.",
        unit: "short",
        form: Form::Lines,
        empty: "",
        queries: &[
            ("{{backend}}", "max by (backend) (weft_backend_endpoints)"),
            (
                "{{backend}} set aside",
                "max by (backend) (weft_backend_endpoints_ejected)",
            ),
        ],
    },
    Panel {
        title: "Connections not opened",
        help: "Connections to endpoints that could not be opened, in a second.",
        unit: "ops",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{backend}}",
            "sum by (backend) (rate(weft_backend_connect_failures_total[$__rate_interval]))",
        )],
    },
    Panel {
        title: "Behind the controller",
        help: "How long the controller has not been heard.",
        unit: "s",
        form: Form::Lines,
        empty: "",
        queries: &[("{{instance}}", "weft_control_staleness_seconds")],
    },
    Panel {
        title: "Detected",
        help: "What the first bytes of connections were found to be, in a second.",
        unit: "ops",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{direction}} {{result}}",
            "sum by (direction, result) (rate(weft_detections_total[$__rate_interval]))",
        )],
    },
];

/// The controller and what it tells the proxies.
pub const CONTROL: &[Panel] = &[
    Panel {
        title: "Proxies",
        help: "Connected proxies, by whether they hold the current version of everything.",
        unit: "short",
        form: Form::Lines,
        empty: "",
        queries: &[("{{state}}", "sum by (state) (weft_control_proxies)")],
    },
    Panel {
        title: "Objects",
        help: "Objects in force.",
        unit: "short",
        form: Form::Stat,
        empty: "",
        queries: &[("", "max(weft_control_objects)")],
    },
    Panel {
        title: "Problems",
        help: "Problems of the objects, by severity.",
        unit: "short",
        form: Form::Lines,
        empty: "",
        queries: &[("{{severity}}", "max by (severity) (weft_control_problems)")],
    },
    Panel {
        title: "Answers sent",
        help: "Answers sent to proxies in a second: whole, as a difference, or that nothing changed.",
        unit: "ops",
        form: Form::Lines,
        empty: "",
        queries: &[(
            "{{kind}}",
            "sum by (kind) (rate(weft_control_items_sent_total[$__rate_interval]))",
        )],
    },
    Panel {
        title: "Taken over and refused",
        help: "Versions that proxies took over, and refused, in a second.",
        unit: "ops",
        form: Form::Lines,
        empty: "",
        queries: &[
            (
                "taken over",
                "sum(rate(weft_control_acks_total[$__rate_interval]))",
            ),
            (
                "refused",
                r#"sum(rate(weft_control_nacks_total{job="weft-control"}[$__rate_interval]))"#,
            ),
        ],
    },
    Panel {
        title: "Certificates",
        help: "Certificates signed and not signed in a second.",
        unit: "ops",
        form: Form::Lines,
        empty: "",
        queries: &[
            (
                "signed",
                "sum(rate(weft_control_certificates_issued_total[$__rate_interval]))",
            ),
            (
                "not signed",
                "sum(rate(weft_control_certificates_refused_total[$__rate_interval])) or vector(0)",
            ),
        ],
    },
    Panel {
        title: "Views",
        help: "Answers held for proxies; those that ask the same share one.",
        unit: "short",
        form: Form::Lines,
        empty: "",
        queries: &[
            ("views", "sum(weft_control_views)"),
            ("subscriptions", "sum(weft_control_subscriptions)"),
        ],
    },
    Panel {
        title: "Own certificate left",
        help: "Until the controller's own certificate ends.",
        unit: "s",
        form: Form::Stat,
        empty: "",
        queries: &[(
            "",
            "min(weft_control_certificate_expiry_timestamp_seconds) - time()",
        )],
    },
];

/// Every dashboard.
pub const BOARDS: &[Board] = &[
    Board {
        id: "top-line",
        title: "Weft: top line",
        help: "The mesh as a whole, by namespace.",
        choice: Choice::Namespace,
        panels: TOP_LINE,
    },
    Board {
        id: "workload",
        title: "Weft: workload",
        help: "One workload: who calls it, whom it calls.",
        choice: Choice::Workload,
        panels: WORKLOAD,
    },
    Board {
        id: "route",
        title: "Weft: route",
        help: "By match of HTTPRouteGroups.",
        choice: Choice::Workload,
        panels: ROUTE,
    },
    Board {
        id: "split",
        title: "Weft: traffic split",
        help: "Canaries: which backend gets how much, and how it does.",
        choice: Choice::Namespace,
        panels: SPLIT,
    },
    Board {
        id: "security",
        title: "Weft: security",
        help: "Who proves who it is, who is denied, whose certificate ends when.",
        choice: Choice::Namespace,
        panels: SECURITY,
    },
    Board {
        id: "proxy",
        title: "Weft: proxy internals",
        help: "How the proxies themselves are doing.",
        choice: Choice::None,
        panels: PROXY,
    },
    Board {
        id: "control",
        title: "Weft: control plane",
        help: "The controller and what it tells the proxies.",
        choice: Choice::None,
        panels: CONTROL,
    },
];
