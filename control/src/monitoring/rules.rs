//! Recording rules and alerts.

use std::fmt::Write;

/// An alert.
#[derive(Debug)]
pub struct Alert {
    /// Name.
    pub name: &'static str,
    /// What is wrong.
    pub expr: &'static str,
    /// How long it must be.
    pub wait: &'static str,
    /// `critical`: somebody should look now; `warning`: today.
    pub severity: &'static str,
    /// One sentence, with labels of the series.
    pub summary: &'static str,
    /// What to do first.
    pub action: &'static str,
}

/// Name and expression of every recorded series.
pub const RECORDS: &[(&str, &str)] = &[
    (
        "weft:requests:rate5m",
        r#"sum by (namespace, workload) (rate(weft_requests_total{direction="inbound"}[5m]))"#,
    ),
    (
        "weft:success:ratio_rate5m",
        r#"(sum by (namespace, workload) (rate(weft_responses_total{direction="inbound",classification="success"}[5m])) or sum by (namespace, workload) (rate(weft_responses_total{direction="inbound"}[5m])) * 0) / (sum by (namespace, workload) (rate(weft_responses_total{direction="inbound"}[5m])) > 0)"#,
    ),
    (
        "weft:latency_seconds:p95_rate5m",
        r#"histogram_quantile(0.95, sum by (namespace, workload, le) (rate(weft_response_latency_seconds_bucket{direction="inbound"}[5m])))"#,
    ),
];

/// Every alert.
pub const ALERTS: &[Alert] = &[
    Alert {
        name: "WeftSuccessRateLow",
        expr: "weft:success:ratio_rate5m < 0.95 and weft:requests:rate5m > 0.1",
        wait: "5m",
        severity: "critical",
        summary: "{{ $labels.namespace }}/{{ $labels.workload }} answers only {{ $value | humanizePercentage }} of its requests well.",
        action: "meshctl why names the callers and the dependency that fails.",
    },
    Alert {
        name: "WeftRequestsDenied",
        expr: r#"sum by (namespace, workload, reason) (rate(weft_denied_total{direction="inbound"}[5m])) > 0"#,
        wait: "10m",
        severity: "warning",
        summary: "{{ $labels.namespace }}/{{ $labels.workload }} denies requests: {{ $labels.reason }}.",
        action: "meshctl authz shows who is denied, and what permissions there are.",
    },
    Alert {
        name: "WeftProxyDisconnected",
        expr: "weft_control_connected == 0",
        wait: "5m",
        severity: "critical",
        summary: "The proxy {{ $labels.instance }} has no controller; it keeps to what it knew.",
        action: "Is the controller up, and may the pod reach it?",
    },
    Alert {
        name: "WeftCertificateExpiring",
        // Both are 0 where there is no certificate, or none any more.
        expr: "clamp_min(weft_identity_expiry_timestamp_seconds - time(), 0) <= 0.2 * weft_identity_lifetime_seconds",
        wait: "5m",
        severity: "critical",
        summary: "The certificate of {{ $labels.instance }} ends in {{ $value | humanizeDuration }} and was not renewed.",
        action: "meshctl identity, and the controller's log: it says why a certificate was refused.",
    },
    Alert {
        name: "WeftUpdateRefused",
        expr: r#"increase(weft_control_nacks_total{job!="weft-control"}[10m]) > 0"#,
        wait: "0m",
        severity: "warning",
        summary: "The proxy {{ $labels.instance }} refused an update; the last good one stays in force.",
        action: "meshctl identity shows what was refused. Are proxy and controller of one version?",
    },
    Alert {
        name: "WeftEndpointsSetAside",
        expr: "weft_backend_endpoints > 0 and weft_backend_endpoints_ejected >= weft_backend_endpoints",
        wait: "1m",
        severity: "critical",
        summary: "{{ $labels.namespace }}/{{ $labels.workload }} has set aside every endpoint of {{ $labels.backend }}.",
        action: "The endpoints fail or cannot be reached: meshctl why, and their logs.",
    },
    Alert {
        name: "WeftProxyPanicked",
        expr: "increase(weft_panics_total[10m]) > 0",
        wait: "0m",
        severity: "warning",
        summary: "The proxy {{ $labels.instance }} lost a connection to a mistake of its own.",
        action: "Its log has the place; please report it.",
    },
    Alert {
        name: "WeftSeriesDropped",
        expr: "increase(weft_metrics_dropped_total[10m]) > 0",
        wait: "0m",
        severity: "warning",
        summary: "The proxy {{ $labels.instance }} counts some {{ $labels.family }} as __other__: more than it keeps series for.",
        action: "Who calls so many different services, or is called by so many?",
    },
    Alert {
        name: "WeftControllerDown",
        expr: "absent(weft_control_ready == 1)",
        wait: "2m",
        severity: "critical",
        summary: "No controller is ready: changes do not reach the proxies, certificates are not renewed.",
        action: "Look at the controller's pods and log.",
    },
    Alert {
        name: "WeftObjectsBroken",
        expr: r#"weft_control_problems{severity="error"} > 0"#,
        wait: "5m",
        severity: "warning",
        summary: "{{ $value }} problems keep objects of the mesh out of force.",
        action: "The dashboard and the controller's /problems list them by file and line.",
    },
];

/// As Prometheus reads them.
pub fn yaml() -> String {
    let mut out = String::from("groups:\n  - name: weft-records\n    rules:\n");
    for (name, expr) in RECORDS {
        let _ = writeln!(
            out,
            "      - record: {name}\n        expr: >-\n          {expr}"
        );
    }
    out.push_str("  - name: weft-alerts\n    rules:\n");
    for alert in ALERTS {
        let _ = writeln!(
            out,
            "      - alert: {}\n        expr: >-\n          {}\n        for: {}\n        labels:\n          severity: {}\n        \
             annotations:\n          summary: >-\n            {}\n          action: >-\n            {}",
            alert.name, alert.expr, alert.wait, alert.severity, alert.summary, alert.action
        );
    }
    out
}
