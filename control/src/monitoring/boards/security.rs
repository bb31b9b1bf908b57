//! Who proves who it is, who is denied, whose certificate ends when.

use super::{Board, Choice, Form, Panel};

/// The dashboard.
pub(super) const BOARD: Board = Board {
    id: "security",
    title: "Weft: security",
    help: "Who proves who it is, who is denied, whose certificate ends when.",
    choice: Choice::Namespace,
    panels: PANELS,
};

const PANELS: &[Panel] = &[
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
            "clamp_min(weft_identity_expiry_timestamp_seconds - time(), 0)",
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
