//! Taps in the words of the control API: what is asked, and what was seen.

use crate::connection::Direction;
use crate::http::body::End;
use crate::tap::{Fields, Filter, Limit, Look, State, Tap};
use tokio::sync::mpsc::Sender;
use weft_proxy_api::wire::generated as pb;

/// Exchanges in a second where nothing is said.
const PER_SECOND: u32 = 100;
/// The most that can be asked for.
const MOST_PER_SECOND: u32 = 5_000;
/// Conditions on header fields of one tap.
const MAX_FIELDS: usize = 16;

/// The tap that is asked for.
pub(super) fn tap(asked: pb::TapStart, looks: Sender<Look>) -> Tap {
    let per_second = match asked.max_per_second {
        0 => PER_SECOND,
        n => n.min(MOST_PER_SECOND),
    };
    let limit = Limit::new(per_second, asked.max_events);
    let fields = match (asked.show_headers, asked.show_secrets) {
        (false, _) => Fields::Hidden,
        (true, false) => Fields::Redacted,
        (true, true) => Fields::Plain,
    };
    Tap::new(asked.id, filter(asked), limit, fields, looks)
}

fn filter(asked: pb::TapStart) -> Filter {
    let direction = match asked.direction() {
        pb::Direction::Unspecified => None,
        pb::Direction::Inbound => Some(Direction::Inbound),
        pb::Direction::Outbound => Some(Direction::Outbound),
    };
    let status = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    let fields = asked.headers.into_iter().take(MAX_FIELDS);
    Filter {
        direction,
        method: asked.method,
        path_prefix: asked.path_prefix,
        peer_namespace: asked.peer_namespace,
        peer_workload: asked.peer_workload,
        service: asked.service,
        fields: fields.map(|at| (at.name, at.value)).collect(),
        status: (status(asked.status_from), status(asked.status_to)),
        denied_only: asked.denied_only,
    }
}

/// A look, as it is told.
pub(super) fn look(look: Look) -> pb::TapEvent {
    let fields = |all: Vec<(String, String)>| {
        let all = all.into_iter();
        all.map(|(name, value)| pb::Field { name, value }).collect()
    };
    let direction = match look.outbound {
        true => pb::Direction::Outbound,
        false => pb::Direction::Inbound,
    };
    let outcome = match look.ended {
        None => "",
        Some(End::Complete) => "complete",
        Some(End::Broken) => "broken",
        Some(End::Dropped) => "cancelled",
        Some(End::Late) => "late",
    };
    pb::TapEvent {
        id: look.tap,
        method: look.method,
        path: look.path,
        peer: look.peer,
        status: look.status.into(),
        duration_us: u64::try_from(look.took.as_micros()).unwrap_or(u64::MAX),
        mutual_tls: look.mutual_tls,
        denied_by: look.error,
        skipped: look.skipped,
        exchange: look.exchange,
        ended: look.ended.is_some(),
        direction: direction.into(),
        authority: look.authority,
        service: look.service,
        backend: look.backend,
        route: look.route,
        bytes: look.bytes,
        grpc: look.grpc.map_or(0, |code| u32::from(code.min(17)) + 1),
        request_headers: fields(look.request_fields),
        response_headers: fields(look.response_fields),
        outcome: outcome.to_owned(),
    }
}

/// How a tap fares, as it is told.
pub(super) fn state(id: u32, state: State, ended: bool) -> pb::TapState {
    pb::TapState {
        id,
        seen: state.seen,
        matched: state.matched,
        skipped: state.skipped,
        ended,
    }
}
