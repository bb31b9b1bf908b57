//! How a destination is called: what a `ServicePolicy` may ask for, and what holds where nobody asked.

use super::ServicePort;
use super::matching::{HttpMatch, RequestView};
use std::time::Duration;

pub mod bounds;

/// Parts per million: shares are whole numbers, so that equal content has an equal hash.
pub const MILLION: u32 = 1_000_000;

/// For a Service as a whole. Every number is within [`bounds`]. The default is what holds without any `ServicePolicy`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServiceSettings {
    /// `ServicePolicy ns/name`; `None`: nobody asked for anything.
    pub object: Option<String>,
    /// Which endpoint a request goes to.
    pub balancer: Balancer,
    /// When an endpoint is set aside.
    pub ejection: Ejection,
    /// How much may be asked of the Service at once.
    pub breaker: Breaker,
    /// How many tries beyond the first.
    pub budget: Budget,
    /// For requests that no rule covers.
    pub requests: RequestSettings,
    /// The first that fits decides for a request.
    pub rules: Vec<RequestRule>,
}

/// Requests that are treated alike.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestRule {
    /// The `ServicePolicy` it comes from, as `ServicePolicy ns/name`.
    pub object: String,
    /// Any must fit; never empty.
    pub matches: Vec<HttpMatch>,
    /// What holds for them, whole: nothing is inherited from the Service's own.
    pub settings: RequestSettings,
}

/// For one request.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RequestSettings {
    /// How long it may take.
    pub timeouts: Timeouts,
    /// Which answers are asked for again; `None`: only what is safe for any request.
    pub retry: Option<Retry>,
    /// What is done to it on purpose.
    pub fault: Fault,
}

/// Limits of time; `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// From the request's head to the end of the answer's body, over all tries.
    pub request: Option<Duration>,
    /// From the request's head to the answer's head, over all tries.
    pub response: Option<Duration>,
    /// From the head of one try to the head of its answer.
    pub per_try: Option<Duration>,
    /// Without a byte of body in either direction.
    pub idle: Option<Duration>,
}

/// Answers that are asked for again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Tries beyond the first, at least 1.
    pub attempts: u32,
    /// HTTP statuses, from and to, both included.
    pub statuses: Vec<(u16, u16)>,
    /// gRPC codes: bit `n` is code `n`.
    pub grpc: u32,
    /// Methods; empty: the idempotent ones (RFC 9110 §9.2.2), and every gRPC call whose code is named.
    pub methods: Vec<String>,
    /// Wait before the second try; doubled for each further one, and shortened at random to half of it at most.
    pub backoff: Duration,
    /// No wait is longer.
    pub max_backoff: Duration,
}

/// Bounds attempts to `(1 + percent / 100) × requests + min_per_second × seconds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Tries beyond the first, per hundred requests.
    pub percent: u32,
    /// Tries that are always there.
    pub min_per_second: u32,
}

/// Failures made on purpose, in place of the service: each try draws anew, its delay counts against the timeouts, and an
/// abort is asked for again only where [`Retry`] names what it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fault {
    /// Share of requests that are answered at once with `status`, in parts per million.
    pub abort_ppm: u32,
    /// HTTP status of the answer; gRPC callers get the equivalent code. 0 with `abort_ppm` 0.
    pub status: u16,
    /// gRPC code of the answer to gRPC callers; `None`: the one that `status` stands for.
    pub grpc: Option<u8>,
    /// Share of requests that wait first, in parts per million.
    pub delay_ppm: u32,
    /// How long.
    pub delay: Duration,
}

/// Which endpoint a request goes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Balancer {
    /// How one is chosen among those that may be.
    pub policy: BalancerPolicy,
    /// Endpoints of a large Service (of each zone, where one is preferred) that one worker keeps to; 0: all, as always with
    /// [`BalancerPolicy::RingHash`], whose keys would otherwise differ between workers.
    pub subset: u32,
    /// A new endpoint's share grows from a tenth to its whole in this time; zero: at once.
    pub slow_start: Duration,
    /// Endpoints of the own zone first.
    pub prefer_zone: bool,
    /// Zones to go to when the own one has too few healthy endpoints, in order; then all others.
    pub failover_zones: Vec<String>,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum BalancerPolicy {
    /// The better of two by moving peak latency and requests in flight.
    #[default]
    Ewma,
    /// The better of two by requests in flight.
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Equal keys go to equal endpoints; where the key is absent as [`BalancerPolicy::Ewma`].
    RingHash(HashKey),
}

/// What ties requests together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// A header's value; its name in lower case.
    Header(String),
    /// A cookie's value; the proxy does not make one.
    Cookie(String),
    /// The address that calls (the pod's own, for its proxy; meaningful where several clients share a proxy).
    Source,
}

/// When an endpoint is set aside, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// Failures one after the other; 0: not by this. Where nothing went well for a whole `window`, three of seven are enough,
    /// as who fails is avoided and would hardly get the rest.
    pub consecutive: u32,
    /// Successes per hundred below which it is; 0: not by this.
    pub success_percent: u32,
    /// Over this time.
    pub window: Duration,
    /// With at least so many requests in it.
    pub min_requests: u32,
    /// First time out; doubled at each repetition.
    pub min_time: Duration,
    /// No time out is longer.
    pub max_time: Duration,
    /// Endpoints per hundred that are never set aside; with 0 requests fail at once when all are.
    pub min_healthy_percent: u32,
}

/// What one proxy may ask of a Service at once; `None`: no limit. Beyond it requests fail at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Breaker {
    /// Connections, over all endpoints.
    pub connections: Option<u32>,
    /// Requests that wait for a connection.
    pub pending: Option<u32>,
    /// Requests in flight.
    pub requests: Option<u32>,
    /// Asked instead while the breaker is open or no endpoint is left.
    pub fallback: Option<Fallback>,
}

/// A Service that is asked instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// Which.
    pub name: ServicePort,
    /// Name of its endpoint set.
    pub endpoints: String,
}

/// A limit on what a workload accepts, held by its own proxy.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    /// The `ServicePolicy` it comes from, as `ServicePolicy ns/name`.
    pub object: String,
    /// Ports of the pod; empty: all.
    pub ports: Vec<u16>,
    /// Any must fit; empty: every request.
    pub matches: Vec<HttpMatch>,
    /// Requests per `per`, at least 1.
    pub requests: u32,
    /// At least a millisecond.
    pub per: Duration,
    /// Requests that may come at once, at least 1.
    pub burst: u32,
    /// Counted for each client identity by itself; callers without one share one count.
    pub per_client: bool,
    /// Counted and said, but not refused.
    pub audit: bool,
}

impl ServiceSettings {
    /// What holds for a request.
    pub fn request(&self, request: &RequestView<'_>) -> &RequestSettings {
        match self.rule(request) {
            Some(rule) => &self.rules[rule].settings,
            None => &self.requests,
        }
    }

    /// Index of the rule that decides for a request; `None`: no rule covers it.
    pub fn rule(&self, request: &RequestView<'_>) -> Option<usize> {
        self.rules
            .iter()
            .position(|rule| rule.matches.iter().any(|m| m.fits(request)))
    }
}

impl Fault {
    /// The gRPC code of an abort: its own, or what its HTTP status stands for (gRPC's doc/http-grpc-status-mapping.md).
    pub fn grpc_status(&self) -> u8 {
        self.grpc.unwrap_or(match self.status {
            400 => 13,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502..=504 => 14,
            _ => 2,
        })
    }
}

impl Retry {
    /// Whether an HTTP status is asked for again.
    pub fn has_status(&self, status: u16) -> bool {
        self.statuses
            .iter()
            .any(|(from, to)| (*from..=*to).contains(&status))
    }

    /// Whether a gRPC code is asked for again.
    pub fn has_grpc(&self, code: u32) -> bool {
        code < 32 && self.grpc & (1 << code) != 0
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            percent: 20,
            min_per_second: 10,
        }
    }
}

impl Default for Balancer {
    fn default() -> Self {
        Self {
            policy: BalancerPolicy::default(),
            subset: 20,
            slow_start: Duration::ZERO,
            prefer_zone: false,
            failover_zones: Vec::new(),
        }
    }
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            consecutive: 7,
            success_percent: 80,
            window: Duration::from_secs(10),
            min_requests: 5,
            min_time: Duration::from_secs(1),
            max_time: Duration::from_secs(60),
            min_healthy_percent: 50,
        }
    }
}
