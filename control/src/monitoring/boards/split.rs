//! Canaries: which backend gets how much, and how it does.

use super::{Board, Choice, Form, P95, Panel, REQUESTS, SUCCESS};

/// The dashboard.
pub(super) const BOARD: Board = Board {
    id: "split",
    title: "Weft: traffic split",
    help: "Canaries: which backend gets how much, and how it does.",
    choice: Choice::Namespace,
    panels: PANELS,
};

const PANELS: &[Panel] = &[
    Panel {
        queries: &[(
            "{{route}}: {{backend}}",
            r#"sum by (route, backend) (rate(weft_requests_total{direction="outbound",namespace=~"$namespace",route=~"TrafficSplit.*"}[$__rate_interval]))"#,
        )],
        ..REQUESTS
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
        queries: &[(
            "{{route}}: {{backend}}",
            r#"(sum by (route, backend) (rate(weft_responses_total{direction="outbound",namespace=~"$namespace",route=~"TrafficSplit.*",classification="success"}[$__rate_interval])) or sum by (route, backend) (rate(weft_responses_total{direction="outbound",namespace=~"$namespace",route=~"TrafficSplit.*"}[$__rate_interval])) * 0) / (sum by (route, backend) (rate(weft_responses_total{direction="outbound",namespace=~"$namespace",route=~"TrafficSplit.*"}[$__rate_interval])) > 0)"#,
        )],
        ..SUCCESS
    },
    Panel {
        queries: &[(
            "{{route}}: {{backend}}",
            r#"histogram_quantile(0.95, sum by (route, backend, le) (rate(weft_response_latency_seconds_bucket{direction="outbound",namespace=~"$namespace",route=~"TrafficSplit.*"}[$__rate_interval])))"#,
        )],
        ..P95
    },
];
