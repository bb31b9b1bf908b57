//! The controller and what it tells the proxies.

use super::{Board, Choice, Form, Panel};

/// The dashboard.
pub(super) const BOARD: Board = Board {
    id: "control",
    title: "Weft: control plane",
    help: "The controller and what it tells the proxies.",
    choice: Choice::None,
    panels: PANELS,
};

const PANELS: &[Panel] = &[
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
            (
                "subscriptions",
                r#"sum(weft_control_subscriptions{job="weft-control"})"#,
            ),
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
