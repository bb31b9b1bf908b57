//! How the proxies themselves are doing.

use super::{BY_ENDPOINT, Board, Choice, Form, Panel};

/// The dashboard.
pub(super) const BOARD: Board = Board {
    id: "proxy",
    title: "Weft: proxy internals",
    help: "How the proxies themselves are doing.",
    choice: Choice::None,
    panels: PANELS,
};

const PANELS: &[Panel] = &[
    Panel {
        title: "CPU",
        help: "Seconds of CPU time in a second.",
        unit: "short",
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
    Panel {
        title: "Requests by endpoint",
        help: "Requests in a second to each pod, where metrics are said by endpoint (meshctl metrics --tier endpoints).",
        unit: "reqps",
        form: Form::Lines,
        empty: BY_ENDPOINT,
        queries: &[(
            "{{workload}} to {{pod}} {{result}}",
            "sum by (workload, pod, result) (rate(weft_endpoint_requests_total[$__rate_interval]))",
        )],
    },
    Panel {
        title: "p95 by endpoint",
        help: "95 of 100 answers of each pod began within this time, where metrics are said by endpoint.",
        unit: "s",
        form: Form::Lines,
        empty: BY_ENDPOINT,
        queries: &[(
            "{{workload}} to {{pod}}",
            "histogram_quantile(0.95, sum by (workload, pod, le) (rate(weft_endpoint_latency_seconds_bucket[$__rate_interval])))",
        )],
    },
];
