//! What the dashboards show: titles, questions and units, with nothing of Grafana's form ([`super::grafana`] has that).
//! A file for each of them.

mod control;
mod proxy;
mod route;
mod security;
mod split;
mod top_line;
mod workload;

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

/// Why panels of the most detailed tier of metrics may be empty.
pub const BY_ENDPOINT: &str = "only where metrics are said by endpoint";

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

/// What several dashboards show in the same words; each asks in its own way.
const REQUESTS: Panel = Panel {
    title: "Requests",
    help: "Requests in a second.",
    unit: "reqps",
    form: Form::Lines,
    queries: &[],
    empty: "",
};
const SUCCESS: Panel = Panel {
    title: "Success",
    help: "Share of the answers that are successes.",
    unit: "percentunit",
    ..REQUESTS
};
const P95: Panel = Panel {
    title: "p95",
    help: "95 of 100 answers took at most this long.",
    unit: "s",
    ..REQUESTS
};

/// Every dashboard.
pub const BOARDS: &[Board] = &[
    top_line::BOARD,
    workload::BOARD,
    route::BOARD,
    split::BOARD,
    security::BOARD,
    proxy::BOARD,
    control::BOARD,
];
