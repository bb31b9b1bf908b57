//! The mesh as a whole, by namespace.

use super::{Board, Choice, Form, P95, Panel, SUCCESS};

/// The dashboard.
pub(super) const BOARD: Board = Board {
    id: "top-line",
    title: "Weft: top line",
    help: "The mesh as a whole, by namespace.",
    choice: Choice::Namespace,
    panels: PANELS,
};

const PANELS: &[Panel] = &[
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
        form: Form::Stat,
        queries: &[(
            "",
            r#"(sum (rate(weft_responses_total{direction="inbound",namespace=~"$namespace",classification="success"}[$__rate_interval])) or sum (rate(weft_responses_total{direction="inbound",namespace=~"$namespace"}[$__rate_interval])) * 0) / (sum (rate(weft_responses_total{direction="inbound",namespace=~"$namespace"}[$__rate_interval])) > 0)"#,
        )],
        ..SUCCESS
    },
    Panel {
        form: Form::Stat,
        queries: &[(
            "",
            r#"histogram_quantile(0.95, sum by (le) (rate(weft_response_latency_seconds_bucket{direction="inbound",namespace=~"$namespace"}[$__rate_interval])))"#,
        )],
        ..P95
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
            r#"(sum by (namespace, workload) (rate(weft_responses_total{direction="inbound",namespace=~"$namespace",classification="success"}[$__rate_interval])) or sum by (namespace, workload) (rate(weft_responses_total{direction="inbound",namespace=~"$namespace"}[$__rate_interval])) * 0) / (sum by (namespace, workload) (rate(weft_responses_total{direction="inbound",namespace=~"$namespace"}[$__rate_interval])) > 0)"#,
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
