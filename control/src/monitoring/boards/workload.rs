//! One workload: who calls it, whom it calls.

use super::{Board, Choice, Form, Panel, REQUESTS, SUCCESS};

/// The dashboard.
pub(super) const BOARD: Board = Board {
    id: "workload",
    title: "Weft: workload",
    help: "One workload: who calls it, whom it calls.",
    choice: Choice::Workload,
    panels: PANELS,
};

const PANELS: &[Panel] = &[
    Panel {
        form: Form::Stat,
        queries: &[(
            "",
            r#"sum(rate(weft_requests_total{direction="inbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval]))"#,
        )],
        ..REQUESTS
    },
    Panel {
        form: Form::Stat,
        queries: &[(
            "",
            r#"(sum (rate(weft_responses_total{direction="inbound",namespace=~"$namespace",workload=~"$workload",classification="success"}[$__rate_interval])) or sum (rate(weft_responses_total{direction="inbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval])) * 0) / (sum (rate(weft_responses_total{direction="inbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval])) > 0)"#,
        )],
        ..SUCCESS
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
            r#"(sum by (peer_namespace, peer_workload) (rate(weft_responses_total{direction="outbound",namespace=~"$namespace",workload=~"$workload",classification="success"}[$__rate_interval])) or sum by (peer_namespace, peer_workload) (rate(weft_responses_total{direction="outbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval])) * 0) / (sum by (peer_namespace, peer_workload) (rate(weft_responses_total{direction="outbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval])) > 0)"#,
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
