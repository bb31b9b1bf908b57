//! Single requests, shown to whoever asks. Off, it costs one load per request; on, what fits is sampled fairly and
//! handed over through a bounded queue: nobody waits for the one who looks, and what is left out is counted.

mod filter;
mod limit;

pub use filter::{Filter, Seen};
pub use limit::Limit;

use crate::connection::Direction;
use crate::http::body::End;
use crate::http::{Attribution, Request, Response, headers, outcome::ResponseHead};
use crate::metrics::Metrics;
use crate::tell::without_userinfo;
use arc_swap::ArcSwap;
use http::HeaderMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{OwnedPermit, Sender};

/// Taps at once; more are refused.
pub const MAX_TAPS: usize = 16;
/// Header fields shown of one message, and bytes of a name or value.
const MAX_FIELDS: usize = 64;
const MAX_VALUE: usize = 512;
/// Bytes of all fields shown of one message: thousands of looks may wait for who reads them.
const MAX_SHOWN: usize = 4096;
/// Bytes of a path shown.
const MAX_PATH: usize = 2048;
/// Words in the names of fields whose values are shown only when that is asked for.
const SECRETS: [&str; 12] = [
    "authorization",
    "cookie",
    "token",
    "secret",
    "password",
    "passwd",
    "credential",
    "session",
    "jwt",
    "api-key",
    "api_key",
    "apikey",
];

/// All taps of this proxy.
#[derive(Default)]
pub struct Taps {
    on: AtomicBool,
    all: ArcSwap<Vec<Arc<Tap>>>,
    exchanges: AtomicU64,
}

/// One tap.
pub struct Tap {
    /// Chosen by who asked.
    pub id: u32,
    filter: Filter,
    limit: Limit,
    fields: Fields,
    /// Where looks go.
    looks: Sender<Look>,
    counts: Counts,
}

/// Which header fields are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fields {
    /// None.
    Hidden,
    /// All, secrets blotted out.
    Redacted,
    /// All as they are.
    Plain,
}

/// What a tap has come across.
#[derive(Debug, Default)]
struct Counts {
    seen: AtomicU64,
    matched: AtomicU64,
    skipped: AtomicU64,
    /// Part of `skipped` that the last look told.
    told: AtomicU64,
}

/// The same as values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct State {
    /// Exchanges looked at.
    pub seen: u64,
    /// Of these, fitted.
    pub matched: u64,
    /// Of these, left out.
    pub skipped: u64,
}

/// One look at an exchange.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// For which tap.
    pub tap: u32,
    /// The same in both looks at one exchange.
    pub exchange: u64,
    /// Outbound rather than inbound.
    pub outbound: bool,
    /// Method.
    pub method: String,
    /// Path without query: queries carry secrets.
    pub path: String,
    /// Host.
    pub authority: String,
    /// `ns/deploy/web`, as far as it is known.
    pub peer: String,
    /// Both ends proved who they are.
    pub mutual_tls: bool,
    /// As called.
    pub service: String,
    /// As chosen.
    pub backend: String,
    /// What described the request.
    pub route: String,
    /// Status.
    pub status: u16,
    /// gRPC code, once it is known.
    pub grpc: Option<u8>,
    /// `E111 denied`, where a proxy answered.
    pub error: String,
    /// From the head of the request until now.
    pub took: Duration,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// How it ended; `None`: it has not.
    pub ended: Option<End>,
    /// Exchanges left out since the last look.
    pub skipped: u64,
    /// Fields of the request.
    pub request_fields: Vec<(String, String)>,
    /// Fields of the answer.
    pub response_fields: Vec<(String, String)>,
}

/// A request that some taps may want to see; what of it they need is copied, as it goes on.
pub struct Begun {
    taps: Vec<Arc<Tap>>,
    look: Look,
}

/// An exchange that taps see the end of.
pub struct Followed {
    taps: Vec<(Arc<Tap>, OwnedPermit<Look>)>,
    look: Look,
    started: Instant,
}

impl Taps {
    /// Is anybody looking?
    pub fn on(&self) -> bool {
        self.on.load(Relaxed)
    }

    /// Begins to look; false: there are too many already. The same id again replaces.
    pub fn start(&self, tap: Tap) -> bool {
        let mut all = self.all.load_full().as_ref().clone();
        all.retain(|known| known.id != tap.id);
        let room = all.len() < MAX_TAPS;
        if room {
            all.push(Arc::new(tap));
        }
        self.set(all);
        room
    }

    /// Looks no more.
    pub fn stop(&self, id: u32) {
        let mut all = self.all.load_full().as_ref().clone();
        all.retain(|tap| tap.id != id);
        self.set(all);
    }

    /// Nobody looks any more.
    pub fn clear(&self) {
        self.set(Vec::new());
    }

    /// What each tap has come across.
    pub fn states(&self) -> Vec<(u32, State)> {
        let all = self.all.load();
        all.iter().map(|tap| (tap.id, tap.state())).collect()
    }

    fn set(&self, all: Vec<Arc<Tap>>) {
        self.on.store(!all.is_empty(), Relaxed);
        self.all.store(Arc::new(all));
    }

    /// A request came; `None`: nobody wants to see it.
    pub fn begin(&self, direction: Direction, request: &Request) -> Option<Box<Begun>> {
        let all = self.all.load();
        let mut taps = Vec::new();
        for tap in all.iter() {
            tap.counts.seen.fetch_add(1, Relaxed);
            if tap.filter.request(direction, request) {
                taps.push(tap.clone());
            }
        }
        if taps.is_empty() {
            return None;
        }
        let authority = request.uri().authority().map(|at| at.as_str().to_owned());
        let host = || request.headers().get(http::header::HOST);
        let authority = authority
            .unwrap_or_else(|| host().map_or_else(String::new, |host| text(host.as_bytes())));
        let shown = taps.iter().map(|tap| tap.fields).max_by_key(Fields::rank);
        let look = Look {
            exchange: self.exchanges.fetch_add(1, Relaxed) + 1,
            outbound: direction == Direction::Outbound,
            method: request.method().as_str().to_owned(),
            path: shortened(request.uri().path(), MAX_PATH),
            authority: without_userinfo(&authority).to_owned(),
            request_fields: shown.map_or_else(Vec::new, |shown| shown.of(request.headers())),
            ..Look::default()
        };
        Some(Box::new(Begun { taps, look }))
    }
}

impl Begun {
    /// The head of the answer is known; `None`: nobody wants to see it after all.
    pub fn answered(
        mut self: Box<Self>,
        response: &Response,
        head: &ResponseHead,
        edge: &Attribution,
        started: Instant,
        metrics: &Metrics,
    ) -> Option<Box<Followed>> {
        let labels = metrics.edge_labels(edge);
        let error = response.headers().get(headers::ERROR);
        let seen = Seen {
            status: response.status().as_u16(),
            error: error
                .map(|error| text(error.as_bytes()))
                .unwrap_or_default(),
            peer_namespace: labels.as_ref().map_or("", |at| &at.peer.namespace),
            peer_workload: labels.as_ref().map_or("", |at| &at.peer.workload),
            service: labels.as_ref().map_or("", |at| &at.service),
        };
        let now = Instant::now();
        self.taps
            .retain(|tap| tap.filter.answer(&seen) && tap.takes(crate::balance::at(now)));
        if self.taps.is_empty() {
            return None;
        }
        let look = &mut self.look;
        (look.status, look.grpc, look.error) = (seen.status, head.grpc(), seen.error);
        look.took = now.saturating_duration_since(started);
        let shown = self
            .taps
            .iter()
            .map(|tap| tap.fields)
            .max_by_key(Fields::rank);
        look.response_fields = shown.map_or_else(Vec::new, |at| at.of(response.headers()));
        if let Some(labels) = &labels {
            let peer = [&*labels.peer.namespace, &*labels.peer.workload];
            look.peer = peer.join("/").trim_matches('/').to_owned();
            look.mutual_tls = labels.peer.tls;
            look.service = labels.service.to_string();
            look.backend = labels.backend.to_string();
            look.route = labels.route.to_string();
        }
        let Begun { taps, look } = *self;
        // Who sees the head sees the end: an exchange is shown whole, or counted as left out.
        let shown = taps.into_iter().filter_map(|tap| {
            let end = tap.show(&look)?;
            Some((tap, end))
        });
        let taps: Vec<_> = shown.collect();
        if taps.is_empty() {
            return None;
        }
        Some(Box::new(Followed {
            taps,
            look,
            started,
        }))
    }
}

impl Followed {
    /// The answer's body has ended.
    pub fn ended(mut self, end: End, bytes: u64, grpc: Option<u8>, now: Instant) {
        self.look.ended = Some(end);
        self.look.bytes = bytes;
        self.look.grpc = grpc;
        self.look.took = now.saturating_duration_since(self.started);
        self.look.request_fields.clear();
        self.look.response_fields.clear();
        for (tap, room) in self.taps {
            room.send(tap.seen(&self.look));
        }
    }
}

impl Tap {
    /// A tap that hands its looks over there.
    pub fn new(id: u32, filter: Filter, limit: Limit, fields: Fields, looks: Sender<Look>) -> Self {
        Self {
            id,
            filter,
            limit,
            fields,
            looks,
            counts: Counts::default(),
        }
    }

    /// It fits: is there room for it in this second?
    fn takes(&self, now: u64) -> bool {
        self.counts.matched.fetch_add(1, Relaxed);
        let takes = self.limit.takes(now, fastrand::u32(..));
        if !takes {
            self.counts.skipped.fetch_add(1, Relaxed);
        }
        takes
    }

    /// Shows the head of an exchange, and keeps room for its end; `None`: there is no room for both.
    fn show(&self, look: &Look) -> Option<OwnedPermit<Look>> {
        let end = self.looks.clone().try_reserve_owned().ok();
        let head = self.looks.try_reserve().ok();
        let (Some(end), Some(head)) = (end, head) else {
            self.counts.skipped.fetch_add(1, Relaxed);
            return None;
        };
        head.send(self.seen(look));
        Some(end)
    }

    /// A look as this tap may see it.
    fn seen(&self, look: &Look) -> Look {
        let mut look = look.clone();
        look.tap = self.id;
        let skipped = self.counts.skipped.load(Relaxed);
        look.skipped = skipped.saturating_sub(self.counts.told.swap(skipped, Relaxed));
        if self.fields == Fields::Hidden {
            look.request_fields.clear();
            look.response_fields.clear();
        } else if self.fields == Fields::Redacted {
            redact(&mut look.request_fields);
            redact(&mut look.response_fields);
        }
        look
    }

    fn state(&self) -> State {
        State {
            seen: self.counts.seen.load(Relaxed),
            matched: self.counts.matched.load(Relaxed),
            skipped: self.counts.skipped.load(Relaxed),
        }
    }
}

impl Fields {
    /// Shows more than one of a lower rank.
    fn rank(&self) -> u8 {
        match self {
            Fields::Hidden => 0,
            Fields::Redacted => 1,
            Fields::Plain => 2,
        }
    }

    fn of(self, fields: &HeaderMap) -> Vec<(String, String)> {
        if self == Fields::Hidden {
            return Vec::new();
        }
        let shown = fields.iter().take(MAX_FIELDS).map(|(name, value)| {
            let value = shortened(&text(value.as_bytes()), MAX_VALUE);
            (shortened(name.as_str(), MAX_VALUE), value)
        });
        let mut bytes = 0;
        let fits = |(name, value): &(String, String)| {
            bytes += name.len() + value.len();
            bytes <= MAX_SHOWN
        };
        let mut shown: Vec<_> = shown.take_while(fits).collect();
        if self == Fields::Redacted {
            redact(&mut shown);
        }
        shown
    }
}

/// Blots the values of secret fields out.
fn redact(fields: &mut [(String, String)]) {
    for (name, value) in fields {
        if SECRETS.iter().any(|word| name.contains(word)) {
            *value = "[redacted]".to_owned();
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn shortened(text: &str, most: usize) -> String {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
#[path = "tap_tests.rs"]
mod tests;
