//! Owner of every series. Bundles are found or made here when something is compiled or connected, never per request.

use super::bundle::{
    BackendMetrics, ConnectionMetrics, Count, EdgeMetrics, Flights, Level, OpenConnection,
};
use super::catalogue::{self, Metric};
use super::endpoints::{EndpointFamily, OneByOne};
use super::family::{CAP, Family};
use super::format::Format;
use super::labels::{ConnectionLabels, EdgeLabels, Group, Key as _, Side, yes_no};
use super::rare::{Rare, RareKey};
use super::tier::Tiers;
use crate::connection::{Direction, NoTls};
use crate::tap::Taps;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime};
use tokio::sync::watch;
use weft_proxy_api::identity::SpiffeId;
use weft_proxy_api::policy::MetricsTier;

/// In place of the permission that came nearest, where none did.
const NO_RULE: &str = "none";

/// All metrics of this proxy. Shared by every thread.
pub struct Metrics {
    pub(super) namespace: String,
    pub(super) workload: ArcSwap<String>,
    pub(super) edges: Family<EdgeLabels, EdgeMetrics>,
    pub(super) connections: Family<ConnectionLabels, ConnectionMetrics>,
    pub(super) backends: Family<Arc<str>, BackendMetrics>,
    pub(super) rare: Family<RareKey, Rare>,
    /// Those that name an object, and may be forgotten with it.
    pub(super) named: Family<RareKey, Rare>,
    pub(super) aliases: AtomicBool,
    /// Endpoints that are counted one by one.
    pub(super) endpoints: Arc<EndpointFamily>,
    tiers: Tiers,
    taps: Taps,
    /// Tells this process from the one before it in the same pod.
    pub(super) incarnation: u64,
    pub(super) started: SystemTime,
    in_flight: [Arc<Flights>; 2],
    kept: Arc<Flights>,
    /// When the stream from the controller ended, in [`crate::balance::now`]; 0: it is open.
    control_lost: AtomicU64,
}

impl Metrics {
    /// A registry for a workload in `namespace`.
    pub fn new(namespace: &str) -> Arc<Self> {
        Self::with_cap(namespace, CAP)
    }

    pub(super) fn with_cap(namespace: &str, cap: usize) -> Arc<Self> {
        Arc::new(Self {
            namespace: namespace.to_owned(),
            workload: ArcSwap::default(),
            edges: Family::new("edges", cap),
            connections: Family::new("connections", cap),
            backends: Family::new("backends", cap),
            rare: Family::new("rare", cap),
            named: Family::new("named", cap),
            aliases: AtomicBool::new(true),
            endpoints: Arc::default(),
            tiers: Tiers::default(),
            taps: Taps::default(),
            incarnation: fastrand::u64(1..),
            started: SystemTime::now(),
            in_flight: Default::default(),
            kept: Arc::default(),
            control_lost: AtomicU64::new(crate::balance::now()),
        })
    }

    /// What the workload is called (`deploy/web`), once policy says it.
    pub fn set_workload(&self, workload: &str) {
        if self.workload.load().as_str() != workload {
            self.workload.store(Arc::new(workload.to_owned()));
        }
    }

    /// Whether a scrape also says the figures under Linkerd's names. On at first.
    pub fn set_aliases(&self, on: bool) {
        self.aliases.store(on, Relaxed);
    }

    /// In how much detail a scrape says it all, as the policy wants it.
    pub fn set_tier(&self, tier: MetricsTier) {
        self.tiers.policy(tier);
        self.say_tier();
    }

    /// The same, as somebody wants it for now, whatever the policy says; `None`: as the policy says.
    pub fn ask_for_tier(&self, tier: Option<MetricsTier>) {
        self.tiers.asked(tier);
        self.say_tier();
    }

    fn say_tier(&self) {
        let tier = f64::from(self.tier() as u8);
        self.gauge(&catalogue::TIER, &[]).set(tier);
    }

    /// The tier in force.
    pub fn tier(&self) -> MetricsTier {
        self.tiers.in_force()
    }

    /// The tier in force, and when it changes.
    pub(crate) fn tiers(&self) -> watch::Receiver<MetricsTier> {
        self.tiers.watch()
    }

    /// The series of an edge; the same labels always give the same series.
    pub fn edge(&self, labels: EdgeLabels) -> Arc<EdgeMetrics> {
        self.edges.get(labels)
    }

    /// Who looks at single requests.
    pub fn taps(&self) -> &Taps {
        &self.taps
    }

    /// What tells the series of an edge from the others. A search: for what happens rarely.
    pub fn edge_labels(&self, edge: &Arc<EdgeMetrics>) -> Option<EdgeLabels> {
        self.edges.key_of(edge)
    }

    /// The series of requests and connections from a client with this identity.
    pub fn inbound_edge(&self, peer: Option<&SpiffeId>) -> Arc<EdgeMetrics> {
        self.inbound_route(peer, "")
    }

    /// The same, of those that a route describes (`HTTPRouteGroup shop/api read`).
    pub fn inbound_route(&self, peer: Option<&SpiffeId>, route: &str) -> Arc<EdgeMetrics> {
        let none: Arc<str> = Arc::default();
        self.edge(EdgeLabels {
            direction: Direction::Inbound,
            peer: Self::client(peer),
            service: none.clone(),
            backend: none,
            route: route.into(),
        })
    }

    /// The group of a client with this identity.
    pub fn client(peer: Option<&SpiffeId>) -> Group {
        match peer {
            Some(id) => Group::new(id.namespace(), &format!("sa/{}", id.account()), true),
            None => Group::unknown(),
        }
    }

    /// The series of a kind of connection.
    pub fn connection(&self, labels: ConnectionLabels) -> Arc<ConnectionMetrics> {
        self.connections.get(labels)
    }

    /// Counts a connection the proxy opened: to the application or to something outside of the mesh.
    pub fn opened_plain(&self, direction: Direction, protocol: &'static str) -> OpenConnection {
        let no_tls = match direction {
            Direction::Inbound => NoTls::Local,
            Direction::Outbound => NoTls::NotTls,
        };
        self.opened(direction, Group::unknown(), no_tls.label(), protocol)
    }

    /// Counts a connection the proxy opened to an endpoint. `tls`: mutual, as it turned out.
    pub fn opened_to(&self, peer: &Group, tls: bool, protocol: &'static str) -> OpenConnection {
        let (peer, no_tls) = match (peer.tls, tls) {
            (_, true) => (peer.clone(), ""),
            (false, false) => (peer.clone(), NoTls::NotTls.label()),
            // This very pod, called by itself.
            (true, false) => {
                let plain = Group::new(&peer.namespace, &peer.workload, false);
                (plain, NoTls::Local.label())
            }
        };
        self.opened(Direction::Outbound, peer, no_tls, protocol)
    }

    /// How many connections and requests have come from outside.
    pub fn arrivals(&self) -> u64 {
        let connections = self.accepted_inbound(|at| at.opened.load(Relaxed));
        let edges = self.edges.all().into_iter();
        let inbound = edges.filter(|(labels, _)| labels.direction == Direction::Inbound);
        connections
            + inbound
                .map(|(_, edge)| edge.requests.load(Relaxed))
                .sum::<u64>()
    }

    /// How many connections from outside are open.
    pub fn inbound_open(&self) -> u64 {
        self.accepted_inbound(ConnectionMetrics::open)
    }

    fn accepted_inbound(&self, value: impl Fn(&ConnectionMetrics) -> u64) -> u64 {
        let all = self.connections.all().into_iter();
        let accepted = all.filter(|(labels, _)| {
            labels.direction == Direction::Inbound && labels.side == Side::Src
        });
        accepted.map(|(_, at)| value(&at)).sum()
    }

    #[cfg(test)]
    pub(crate) fn accepted_plain(&self, direction: Direction) -> OpenConnection {
        OpenConnection::new(self.connection(ConnectionLabels {
            direction,
            side: Side::Src,
            peer: Group::unknown(),
            no_tls: NoTls::NotTls.label(),
            protocol: "opaque",
        }))
    }

    fn opened(
        &self,
        direction: Direction,
        peer: Group,
        no_tls: &'static str,
        protocol: &'static str,
    ) -> OpenConnection {
        OpenConnection::new(self.connection(ConnectionLabels {
            direction,
            side: Side::Dst,
            peer,
            no_tls,
            protocol,
        }))
    }

    /// The series of an endpoint set.
    pub fn backend(&self, name: &str) -> Arc<BackendMetrics> {
        let name: Arc<str> = name.into();
        let backend = self.backends.get(name.clone());
        let one_by_one = || OneByOne {
            all: self.endpoints.clone(),
            backend: name,
        };
        backend.one_by_one.get_or_init(one_by_one);
        backend
    }

    /// Requests in flight.
    pub fn in_flight(&self, direction: Direction) -> &Arc<Flights> {
        &self.in_flight[direction as usize]
    }

    /// Connections to endpoints that are kept for later requests.
    pub fn kept(&self) -> &Arc<Flights> {
        &self.kept
    }

    /// Counter of those that were closed because there were too many.
    pub fn kept_closed(&self) -> Count {
        self.counter(&catalogue::KEPT_CLOSED, &[])
    }

    /// Counter of a permission that allowed something (`rule`: the object's name, or `permissive`, `probe`).
    pub fn allowed(&self, rule: &str) -> Count {
        self.named(&catalogue::ALLOWED, &[rule])
    }

    /// Counter of denials by a reason of [`super::reasons`]; `audit`: would have been denied.
    pub fn denied(&self, reason: &'static str, audit: bool) -> Count {
        self.denied_near(reason, audit, NO_RULE)
    }

    /// The same, where a permission (`rule`: the object's name) names the caller but not what it does.
    pub fn denied_near(&self, reason: &'static str, audit: bool, rule: &str) -> Count {
        debug_assert!(super::reasons::is_known(reason), "{reason}");
        let values = [reason, yes_no(audit), rule];
        match rule {
            NO_RULE => self.counter(&catalogue::REFUSED, &values),
            _ => self.named(&catalogue::REFUSED, &values),
        }
    }

    /// Counter of errors the proxy itself made: `E104`, `no-endpoints`.
    pub fn error(&self, direction: Direction, code: &'static str, name: &'static str) -> Count {
        self.counter(&catalogue::ERRORS, &[direction.label(), code, name])
    }

    /// Counter of requests sent again, and of why they were not: `tried`, `succeeded`, `attempts`, `budget`, `late`,
    /// `not_replayable`.
    pub fn retries(&self, direction: Direction, service: &str, result: &'static str) -> Count {
        self.named(&catalogue::RETRIES, &[direction.label(), service, result])
    }

    /// Counter of what took too long: `request`, `response`, `try`, `idle`.
    pub fn timeouts(&self, direction: Direction, kind: &'static str) -> Count {
        self.counter(&catalogue::TIMEOUTS, &[direction.label(), kind])
    }

    /// Counter of failures made on purpose: `abort`, `delay`.
    pub fn faults(&self, service: &str, kind: &'static str) -> Count {
        self.named(&catalogue::FAULTS, &[service, kind])
    }

    /// Counter of requests beyond a rate limit; `audit`: let pass nevertheless.
    pub fn rate_limited(&self, rule: &str, audit: bool) -> Count {
        self.named(&catalogue::RATE_LIMITED, &[rule, yes_no(audit)])
    }

    /// Counter of connections lost to a panic.
    pub fn panics(&self, direction: Direction) -> Count {
        self.counter(&catalogue::PANICS, &[direction.label()])
    }

    /// Counter of times there were no descriptors (or memory) for another connection.
    pub fn accept_exhausted(&self, direction: Direction) -> Count {
        self.counter(&catalogue::EXHAUSTED, &[direction.label()])
    }

    /// How many connections there may be at once.
    pub fn connection_limit(&self) -> Level {
        self.gauge(&catalogue::CONNECTION_LIMIT, &[])
    }

    /// Counter of lines of the access log: `written`, `dropped`.
    pub fn access_lines(&self, result: &'static str) -> Count {
        self.counter(&catalogue::ACCESS_LINES, &[result])
    }

    /// Counter of spans: `sent`, `failed`, `dropped`.
    pub fn spans(&self, result: &'static str) -> Count {
        self.counter(&catalogue::SPANS, &[result])
    }

    /// Counter of hot upgrades: `taken`, `failed`.
    pub fn upgrades(&self, result: &'static str) -> Count {
        self.counter(&catalogue::UPGRADES, &[result])
    }

    /// Tunnels open now.
    pub fn tunnels_open(&self, direction: Direction) -> Level {
        self.gauge(&catalogue::TUNNELS, &[direction.label()])
    }

    /// Counter of connections that became streams of tunnels.
    pub fn tunnel_streams(&self, direction: Direction) -> Count {
        self.counter(&catalogue::TUNNEL_STREAMS, &[direction.label()])
    }

    /// Counter of what detection found: `http1`, `http2`, `tls`, `opaque`, `timeout`, `server_first`, …
    pub fn detected(&self, direction: Direction, result: &'static str) -> Count {
        self.counter(&catalogue::DETECTED, &[direction.label(), result])
    }

    /// Identity: when the certificate ends (seconds since 1970).
    pub fn identity_expiry(&self) -> Level {
        self.gauge(&catalogue::IDENTITY_EXPIRY, &[])
    }

    /// Identity: how long the certificate was to last when it was taken over.
    pub fn identity_lifetime(&self) -> Level {
        self.gauge(&catalogue::IDENTITY_LIFETIME, &[])
    }

    /// Identity: renewals by result (`ok`, `failed`).
    pub fn identity_renewals(&self, result: &'static str) -> Count {
        self.counter(&catalogue::IDENTITY_RENEWALS, &[result])
    }

    /// The counter of a catalogued metric with these label values. For rare paths: keep what it returns.
    pub fn counter(&self, metric: &'static Metric, values: &[&str]) -> Count {
        Count(self.rare(metric, values))
    }

    /// The gauge of a catalogued metric with these label values. For rare paths: keep what it returns.
    pub fn gauge(&self, metric: &'static Metric, values: &[&str]) -> Level {
        Level(self.rare(metric, values))
    }

    /// The same for what names an object: gone some time after nobody counts for it any more, as objects come and go.
    fn named(&self, metric: &'static Metric, values: &[&str]) -> Count {
        Count(self.named.get(RareKey::new(metric, values)))
    }

    /// All single values, those of one metric together.
    pub(super) fn singles(&self) -> Vec<(RareKey, Arc<Rare>)> {
        let mut all = self.rare.all();
        all.extend(self.named.all());
        all.sort_by(|a, b| a.0.order(&b.0));
        all
    }

    pub(super) fn rare(&self, metric: &'static Metric, values: &[&str]) -> Arc<Rare> {
        self.rare.get(RareKey::new(metric, values))
    }

    /// The stream from the controller opened.
    pub(crate) fn control_connected(&self) {
        self.control_lost.store(0, Relaxed);
    }

    /// The stream from the controller ended.
    pub(crate) fn control_lost(&self) {
        // The first loss counts: failed attempts to reconnect make nothing younger.
        let _ = self
            .control_lost
            .compare_exchange(0, crate::balance::now(), Relaxed, Relaxed);
    }

    /// How long the controller has not been heard; `None`: it is connected.
    pub fn control_staleness(&self) -> Option<std::time::Duration> {
        let lost = self.control_lost.load(Relaxed);
        (lost != 0)
            .then(|| std::time::Duration::from_nanos(crate::balance::now().saturating_sub(lost)))
    }

    /// Everything as text, in the Prometheus format. Forgets series unused for long.
    pub fn render(&self) -> String {
        self.render_as(Format::Prometheus)
    }

    /// The same in another format.
    pub fn render_as(&self, format: Format) -> String {
        self.sweep(Instant::now());
        super::render::render(self, format)
    }

    pub(super) fn sweep(&self, now: Instant) {
        self.edges.sweep(now);
        self.connections.sweep(now);
        self.backends.sweep(now);
        self.endpoints.0.sweep(now);
        self.named.sweep(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_an_object_is_forgotten_with_it_and_the_rest_stays() {
        let metrics = Metrics::with_cap("shop", 4);
        let start = Instant::now();
        let hour = std::time::Duration::from_secs(3600);
        let held = metrics.allowed("TrafficTarget shop/kept");
        held.inc();
        for rule in ["a", "b", "c", "d", "e"] {
            metrics
                .denied_near(crate::metrics::reasons::REASONS[0].0, false, rule)
                .inc();
        }
        metrics.identity_renewals("ok").inc();
        assert!(metrics.named.dropped() > 0, "full");
        metrics.sweep(start);
        metrics.sweep(start + hour);
        metrics.allowed("TrafficTarget shop/new").inc();
        let names: Vec<&str> = metrics
            .named
            .all()
            .iter()
            .map(|(key, _)| key.metric.name)
            .collect();
        assert_eq!(names, [catalogue::ALLOWED.name; 2]);
        assert_eq!(metrics.rare.len(), 1);
    }

    #[test]
    fn staleness_counts_from_the_first_loss_and_ends_with_the_connection() {
        let metrics = Metrics::new("shop");
        assert!(
            metrics.control_staleness().is_some(),
            "never connected is stale"
        );
        metrics.control_connected();
        assert_eq!(metrics.control_staleness(), None);
        metrics.control_lost();
        let first = metrics.control_lost.load(Relaxed);
        metrics.control_lost();
        assert_eq!(metrics.control_lost.load(Relaxed), first);
    }
}
