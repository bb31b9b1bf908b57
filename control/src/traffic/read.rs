//! A summary as a proxy sends it, checked: every reference leads somewhere, every number is possible, nothing is longer
//! than it may be.

use super::counts::{Code, Counts};
use super::table::{Backend, ConnectionKey, Connections, Direction, EdgeKey, ReadingKey};
use std::cell::Cell;
use std::time::Duration;
use weft_proxy_api::latency::BUCKETS;
use weft_proxy_api::wire::generated as pb;

/// Bytes of a name.
const MAX_NAME: usize = 600;
/// The same of why something was denied: one of a table of words.
const MAX_REASON: usize = 64;
/// How many bytes of text one summary may unfold to: references are short, what they name is not.
const MAX_TEXT: usize = 4 << 20;
/// The same of what another controller added up.
const MAX_TEXT_ADDED: usize = 64 << 20;
/// Entries of each list of one summary; a proxy has a cap of its own below this.
pub(super) const MAX_ENTRIES: usize = 4_096;
/// Kinds of answers and reasons of one edge.
const MAX_KINDS: usize = 64;
/// The same of edges that were added up.
const MAX_KINDS_ADDED: usize = 1_024;
/// Labels of a reading.
const MAX_LABELS: usize = 8;

/// What one summary says.
#[derive(Debug, Default)]
pub struct Summary {
    /// Of the process: totals of another one began anew.
    pub incarnation: u64,
    /// How long the process has run.
    pub uptime: Duration,
    /// Totals by edge, with the number of the series.
    pub edges: Vec<(EdgeKey, u64, Counts)>,
    /// Totals by kind of connection.
    pub connections: Vec<(ConnectionKey, Connections)>,
    /// Endpoint sets by name.
    pub backends: Vec<(String, Backend)>,
    /// Other metrics.
    pub readings: Vec<(ReadingKey, f64)>,
}

/// Checks a summary, or says what is malformed in it.
pub fn summary(from: &pb::Summary) -> Result<Summary, String> {
    within(from, MAX_KINDS, MAX_TEXT)
}

/// The same as another controller tells it, which may have added edges up: there every code has its place.
pub fn of_controller(from: &pb::Summary) -> Result<Summary, String> {
    within(from, MAX_KINDS_ADDED, MAX_TEXT_ADDED)
}

fn within(from: &pb::Summary, kinds: usize, text: usize) -> Result<Summary, String> {
    let table = Table {
        strings: &from.strings,
        kinds,
        left: Cell::new(text),
    };
    Ok(Summary {
        incarnation: from.incarnation,
        uptime: Duration::from_millis(from.uptime_ms),
        edges: each("edges", &from.edges, |edge| table.edge(edge))?,
        connections: each("connections", &from.connections, |kind| table.kind(kind))?,
        backends: each("backends", &from.backends, |at| table.backend(at))?,
        readings: each("readings", &from.readings, |at| table.reading(at))?,
    })
}

fn each<F, T>(
    field: &str,
    all: &[F],
    read: impl Fn(&F) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    if all.len() > MAX_ENTRIES {
        return Err(format!("{field}: {}, at most {MAX_ENTRIES}", all.len()));
    }
    let read = |(at, one)| read(one).map_err(|reason| format!("{field}[{at}].{reason}"));
    all.iter().enumerate().map(read).collect()
}

struct Table<'a> {
    strings: &'a [String],
    /// Most kinds of answers and reasons of one edge.
    kinds: usize,
    /// Bytes of text that may still be looked up.
    left: Cell<usize>,
}

impl Table<'_> {
    fn text(&self, field: &str, reference: u32) -> Result<String, String> {
        self.text_of(field, reference, MAX_NAME)
    }

    fn text_of(&self, field: &str, reference: u32, most: usize) -> Result<String, String> {
        let Some(at) = (reference as usize).checked_sub(1) else {
            return Ok(String::new());
        };
        let text = self.strings.get(at);
        let text = text.ok_or_else(|| format!("{field}: {reference} is outside the table"))?;
        if text.len() > most {
            return Err(format!("{field}: {} bytes, at most {most}", text.len()));
        }
        let left = self.left.get().checked_sub(text.len());
        let too_much = || format!("{field}: the summary unfolds to too much text");
        self.left.set(left.ok_or_else(too_much)?);
        // Shown as it is, in terminals too: nothing of it steers them.
        Ok(text.replace(char::is_control, "\u{fffd}"))
    }

    fn edge(&self, edge: &pb::Edge) -> Result<(EdgeKey, u64, Counts), String> {
        if edge.latency.len() > BUCKETS {
            let buckets = edge.latency.len();
            return Err(format!("latency: {buckets} buckets, at most {BUCKETS}"));
        }
        if edge.answers.len().max(edge.denied_by.len()) > self.kinds {
            return Err(format!("answers: at most {} kinds", self.kinds));
        }
        let key = EdgeKey {
            direction: direction(edge.direction)?,
            peer_namespace: self.text("peer_namespace", edge.peer_namespace_ref)?,
            peer_workload: self.text("peer_workload", edge.peer_workload_ref)?,
            service: self.text("service", edge.service_ref)?,
            backend: self.text("backend", edge.backend_ref)?,
            route: self.text("route", edge.route_ref)?,
            mutual_tls: edge.mutual_tls,
        };
        let mut counts = Counts {
            requests: edge.requests,
            success: edge.success,
            failure: edge.failure,
            cancelled: edge.cancelled,
            denied: edge.denied,
            latency: edge.latency.clone(),
            latency_sum_us: edge.latency_sum_us,
            bytes_in: edge.bytes_in,
            bytes_out: edge.bytes_out,
            connections: edge.connections,
            ..Counts::default()
        };
        for at in &edge.answers {
            let code = Code::from_wire(at.status, at.grpc)
                .ok_or_else(|| format!("answers: no code {}/{}", at.status, at.grpc))?;
            counts.answers.insert(code, at.count);
        }
        for at in &edge.denied_by {
            let reason = self.text_of("denied_by", at.reason_ref, MAX_REASON)?;
            counts.denied_by.insert(reason, at.count);
        }
        Ok((key, edge.series, counts))
    }

    fn kind(&self, kind: &pb::ConnectionKind) -> Result<(ConnectionKey, Connections), String> {
        let key = ConnectionKey {
            direction: direction(kind.direction)?,
            opened_by_proxy: kind.opened_by_proxy,
            peer_namespace: self.text("peer_namespace", kind.peer_namespace_ref)?,
            peer_workload: self.text("peer_workload", kind.peer_workload_ref)?,
            no_tls_reason: self.text("no_tls", kind.no_tls_ref)?,
            protocol: self.text("protocol", kind.protocol_ref)?,
        };
        let connections = Connections {
            opened: kind.opened,
            open: kind.opened.saturating_sub(kind.closed),
            bytes_read: kind.bytes_read,
            bytes_written: kind.bytes_written,
        };
        Ok((key, connections))
    }

    fn backend(&self, at: &pb::BackendState) -> Result<(String, Backend), String> {
        let backend = Backend {
            endpoints: at.endpoints,
            ejected: at.ejected,
            ejections: at.ejections,
            connect_failures: at.connect_failures,
        };
        Ok((self.text("name", at.name_ref)?, backend))
    }

    fn reading(&self, at: &pb::Reading) -> Result<(ReadingKey, f64), String> {
        if at.label_refs.len() > MAX_LABELS {
            return Err(format!("labels: at most {MAX_LABELS}"));
        }
        let labels = at
            .label_refs
            .iter()
            .map(|label| self.text("labels", *label));
        let key = ReadingKey {
            metric: self.text("metric", at.metric_ref)?,
            labels: labels.collect::<Result<_, _>>()?,
        };
        match at.value.is_finite() {
            true => Ok((key, at.value)),
            false => Err(format!("value: {} is no number", at.value)),
        }
    }
}

fn direction(direction: i32) -> Result<Direction, String> {
    match pb::Direction::try_from(direction) {
        Ok(pb::Direction::Inbound) => Ok(Direction::Inbound),
        Ok(pb::Direction::Outbound) => Ok(Direction::Outbound),
        _ => Err(format!("direction: {direction} is unknown")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn edge() -> pb::Edge {
        pb::Edge {
            direction: pb::Direction::Outbound.into(),
            peer_namespace_ref: 1,
            peer_workload_ref: 2,
            requests: 1,
            ..pb::Edge::default()
        }
    }

    fn of(edge: pb::Edge) -> pb::Summary {
        pb::Summary {
            strings: vec!["default".into(), "deploy/web".into()],
            edges: vec![edge],
            ..pb::Summary::default()
        }
    }

    #[test]
    fn names_and_codes_are_looked_up() {
        let answers = vec![pb::Answers {
            status: 200,
            grpc: 15,
            count: 1,
        }];
        let read = summary(&of(pb::Edge { answers, ..edge() })).unwrap();
        let (key, _, counts) = &read.edges[0];
        assert_eq!(key.peer_workload, "deploy/web");
        assert_eq!(counts.answers[&Code::Grpc(14)], 1);
        let mut steers = of(edge());
        steers.strings[1] = "deploy/\u{1b}[2J".into();
        let read = summary(&steers).unwrap();
        assert_eq!(read.edges[0].0.peer_workload, "deploy/\u{fffd}[2J");
    }

    #[test]
    fn what_is_malformed_is_named() {
        let code = pb::Answers {
            status: 999,
            ..pb::Answers::default()
        };
        for (bad, part) in [
            (
                pb::Edge {
                    peer_workload_ref: 9,
                    ..edge()
                },
                "edges[0].peer_workload: 9",
            ),
            (
                pb::Edge {
                    direction: 0,
                    ..edge()
                },
                "direction",
            ),
            (
                pb::Edge {
                    latency: vec![0; 65],
                    ..edge()
                },
                "latency",
            ),
            (
                pb::Edge {
                    answers: vec![code],
                    ..edge()
                },
                "answers",
            ),
        ] {
            let error = summary(&of(bad)).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let many = pb::Summary {
            edges: vec![edge(); MAX_ENTRIES + 1],
            ..pb::Summary::default()
        };
        assert!(summary(&many).unwrap_err().contains("at most"));
        let unfolds = pb::Summary {
            strings: vec!["x".repeat(MAX_NAME)],
            edges: vec![
                pb::Edge {
                    peer_namespace_ref: 1,
                    peer_workload_ref: 1,
                    ..edge()
                };
                MAX_ENTRIES
            ],
            ..pb::Summary::default()
        };
        assert!(
            summary(&unfolds)
                .unwrap_err()
                .contains("unfolds to too much text")
        );
        let reading = pb::Reading {
            value: f64::NAN,
            ..pb::Reading::default()
        };
        let nan = pb::Summary {
            readings: vec![reading],
            ..pb::Summary::default()
        };
        assert!(summary(&nan).is_err());
    }
}
