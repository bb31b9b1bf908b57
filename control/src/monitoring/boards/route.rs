//! By match of HTTPRouteGroups.

use super::{Board, Choice, Form, P95, Panel, REQUESTS, SUCCESS};

/// The dashboard.
pub(super) const BOARD: Board = Board {
    id: "route",
    title: "Weft: route",
    help: "By match of HTTPRouteGroups.",
    choice: Choice::Workload,
    panels: PANELS,
};

const PANELS: &[Panel] = &[
    Panel {
        queries: &[(
            "{{route}}",
            r#"sum by (route) (rate(weft_requests_total{direction="inbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval]))"#,
        )],
        ..REQUESTS
    },
    Panel {
        queries: &[(
            "{{route}}",
            r#"(sum by (route) (rate(weft_responses_total{direction="inbound",namespace=~"$namespace",workload=~"$workload",classification="success"}[$__rate_interval])) or sum by (route) (rate(weft_responses_total{direction="inbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval])) * 0) / (sum by (route) (rate(weft_responses_total{direction="inbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval])) > 0)"#,
        )],
        ..SUCCESS
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
        queries: &[(
            "{{route}}",
            r#"histogram_quantile(0.95, sum by (route, le) (rate(weft_response_latency_seconds_bucket{direction="inbound",namespace=~"$namespace",workload=~"$workload"}[$__rate_interval])))"#,
        )],
        ..P95
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
