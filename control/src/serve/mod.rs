//! What proxies talk to: one TCP port, mutual TLS, four gRPC services over the index.
//!
//! * [`tls`]: accepts connections and says who is on the other end ([`tls::PeerIdentity`]).
//! * [`policy`]: `Sync`, one multiplexed policy stream for each proxy ([`session`]: what to send, [`delta`]: how little,
//!   [`parts`]: how much at once).
//! * [`identity`]: `Certify`, the one call without a client certificate; [`proof`]: what its token proves.
//! * [`observe`]: `Attach`, traffic summaries into the [`TrafficTable`].
//! * [`peers`]: `Traffic`, `Tap` and `Detail`, for the other controllers of the mesh alone.
//! * [`proxies`]: who is connected and how current they are.
//!
//! The services see the index only through [`Views`], so they are tested against a table.

pub mod counters;
pub mod delta;
pub mod identity;
pub mod observe;
pub mod parts;
pub mod peers;
pub mod places;
pub mod policy;
pub mod proof;
pub mod proxies;
pub mod rate;
pub mod session;
#[cfg(test)]
pub(crate) mod tests;
pub mod tls;

use crate::ca::{Ca, common_name};
use crate::live::fresh::Fresh;
use crate::pod_ref::PodRef;
use crate::state::StateDir;
use crate::traffic::TrafficTable;
use crate::traffic::tap::Taps;
use crate::traffic::tiers::TiersAsked;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::{Request, Status};
use weft_proxy_api::identity::SpiffeId;
use weft_proxy_api::names;
use weft_proxy_api::wire::generated::identity_server::IdentityServer;
use weft_proxy_api::wire::generated::observe_server::ObserveServer;
use weft_proxy_api::wire::generated::peers_server::PeersServer;
use weft_proxy_api::wire::generated::policy_server::PolicyServer;
use weft_proxy_api::wire::{Body, Resource, encode, generated as pb};

/// Largest message of a Sync stream taken from a proxy: a hello, a subscription.
const MAX_REQUEST: usize = 64 << 10;
/// Largest Certify: a token and a signing request, with some room. Anybody may send one.
const MAX_CERTIFY: usize = 32 << 10;
/// Largest message of a proxy's reports. What it may unfold to is measured first ([`crate::traffic::measure`]).
const MAX_SUMMARY: usize = 4 << 20;
/// Largest message taken from another controller: the names of many pods.
const MAX_ORDER: usize = 1 << 20;
/// How long fresh reports of the proxies are waited for.
const REPORT_LIMIT: Duration = Duration::from_secs(2);
/// Streams on one connection: Sync, Attach, a Certify now and then. Each may hold a message that is not complete.
const MAX_STREAMS: u32 = 8;
/// How long a proxy may keep us waiting for its hello.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// How long a pod that is not there yet is waited for: its manifest and its proxy start in any order.
const POD_LIMIT: Duration = Duration::from_secs(5);
/// How long open calls may take to end when the controller stops.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// The current answer to one subscription, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// `wire::encode::version` of the body; never 0.
    pub version: u64,
    /// The whole body (never `Unchanged` or `Delta`).
    pub body: Body,
}

/// What serving needs to know of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodInfo {
    /// Its service account; `default` where the manifest names none.
    pub service_account: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Whether it has a proxy.
    pub meshed: bool,
    /// Tells it from a later pod of the same name, where that is known.
    pub uid: Option<String>,
}

/// What the index offers to the services.
pub trait Views: Send + Sync + 'static {
    /// The current and every later answer for `resource` as `proxy` must see it. The trust bundle is not asked here.
    fn subscribe(&self, proxy: &PodRef, resource: &Resource) -> watch::Receiver<Arc<View>>;
    /// A pod, if it is there.
    fn pod(&self, pod: &PodRef) -> Option<PodInfo>;
    /// The pod's proxy has a certificate from now on: it is meshed.
    fn enroll(&self, pod: &PodRef);
}

/// What the services share.
pub struct Shared {
    /// The index.
    pub views: Arc<dyn Views>,
    /// Signs certificates.
    pub ca: Arc<Ca>,
    /// Checks tokens.
    pub tokens: proof::Tokens,
    /// Remembers who has a certificate.
    pub enrolled: identity::Enrolled,
    /// How often one may ask for a certificate.
    pub limits: identity::Limits,
    /// Life of a workload's certificate.
    pub cert_ttl: Duration,
    /// Number of this process: a controller that asks all others knows itself by it.
    pub instance: u64,
    /// Who is connected.
    pub proxies: Arc<proxies::Proxies>,
    /// How often a pod may report.
    pub summaries: parking_lot::Mutex<rate::Limiter<PodRef>>,
    /// How often a pod may say anything of what it sees.
    pub reports: parking_lot::Mutex<rate::Limiter<PodRef>>,
    /// Traffic that proxies reported.
    pub traffic: TrafficTable,
    /// What single requests somebody wants to see.
    pub taps: Arc<Taps>,
    /// In what detail somebody wants metrics for now.
    pub tiers: TiersAsked,
    /// When somebody last asked for traffic: then proxies report more often.
    pub looked_at: watch::Sender<Option<Instant>>,
    /// What happened so far.
    pub counters: counters::Counters,
    /// The trust bundle.
    pub trust: watch::Sender<Arc<View>>,
    /// True once the controller stops.
    pub stopping: watch::Sender<bool>,
    /// How to know that all that is written was read, once there is a source.
    pub fresh: OnceLock<Fresh>,
}

impl Shared {
    /// Everything for the services, with nobody connected yet.
    pub fn new(
        views: Arc<dyn Views>,
        ca: Arc<Ca>,
        tokens: impl Into<proof::Tokens>,
        enrolled: identity::Enrolled,
        cert_ttl: Duration,
    ) -> Arc<Self> {
        let trust = trust_view(&ca);
        Arc::new(Self {
            views,
            ca,
            tokens: tokens.into(),
            enrolled,
            limits: identity::Limits::default(),
            cert_ttl,
            instance: fastrand::u64(1..),
            proxies: Arc::default(),
            summaries: parking_lot::Mutex::new(rate::Limiter::new(observe::SUMMARIES)),
            reports: parking_lot::Mutex::new(rate::Limiter::new(observe::REPORTS)),
            traffic: TrafficTable::default(),
            taps: Arc::default(),
            tiers: TiersAsked::default(),
            looked_at: watch::Sender::new(None),
            counters: counters::Counters::default(),
            trust: watch::Sender::new(trust),
            stopping: watch::Sender::new(false),
            fresh: OnceLock::new(),
        })
    }

    /// Waits until all that is written now has been taken in; false: that is not known.
    pub async fn read(&self) -> bool {
        match self.fresh.get() {
            Some(fresh) => fresh.read().await,
            None => true,
        }
    }

    /// Makes the proxies report often for a while; gives the time from which their reports answer this look.
    pub fn look(&self) -> Instant {
        let now = Instant::now();
        self.looked_at.send_replace(Some(now));
        now
    }

    /// Waits until every connected proxy has reported after `since`, or patience ends.
    pub async fn reported_after(&self, since: Instant) {
        let deadline = since + REPORT_LIMIT;
        let is_late = |pod: &PodRef| {
            let reported = self.traffic.reported(pod);
            self.proxies.streams_of(pod) > 0 && reported.is_none_or(|at| at < since)
        };
        let connected = self.proxies.list().into_iter();
        let mut awaited: Vec<PodRef> = connected.map(|proxy| proxy.pod).collect();
        loop {
            awaited.retain(is_late);
            if awaited.is_empty() || Instant::now() >= deadline {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Reads the authority's files again; tells every proxy, and is true, if anything is different.
    pub fn reload_authority(&self, state: &StateDir) -> anyhow::Result<bool> {
        let changed = self.ca.reload(state)?;
        if changed {
            self.trust.send_replace(trust_view(&self.ca));
        }
        Ok(changed)
    }

    /// A pod, waited for a moment if it is not there yet.
    async fn pod(&self, pod: &PodRef) -> Result<PodInfo, Status> {
        let deadline = tokio::time::Instant::now() + POD_LIMIT;
        loop {
            if let Some(info) = self.views.pod(pod) {
                return Ok(info);
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(Status::failed_precondition(format!(
                    "the controller knows no pod {pod}"
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The pod that says hello, if the caller has proven to be this pod, and it has the account of the certificate.
    async fn greet(&self, hello: &pb::Hello, caller: &tls::Peer) -> Result<PodRef, Status> {
        let (pod, id) = (PodRef::new(&hello.namespace, &hello.pod), &caller.id);
        if id.namespace() != pod.namespace || caller.common_name != common_name(&pod) {
            return Err(Status::permission_denied(format!(
                "the certificate of {id} was made for {:?}, not for {:?}",
                caller.common_name,
                pod.to_string()
            )));
        }
        let account = self.pod(&pod).await?.service_account;
        if id.account() != account {
            return Err(Status::permission_denied(format!(
                "{pod} runs as {account}, the certificate says {id}"
            )));
        }
        Ok(pod)
    }
}

fn trust_view(ca: &Ca) -> Arc<View> {
    let body = Body::Trust(ca.trust());
    Arc::new(View {
        version: encode::version(&body),
        body,
    })
}

/// What the caller of an RPC has proven.
fn caller<T>(request: &Request<T>) -> Result<tls::Peer, Status> {
    let peer = request
        .extensions()
        .get::<tls::PeerIdentity>()
        .and_then(|caller| caller.peer.clone());
    peer.ok_or_else(|| {
        Status::unauthenticated(
            "this call needs a client certificate of the mesh; see Identity.Certify",
        )
    })
}

/// Where the caller of an RPC is.
fn address<T>(request: &Request<T>) -> IpAddr {
    let caller = request.extensions().get::<tls::PeerIdentity>();
    caller.map_or(Ipv4Addr::UNSPECIFIED.into(), |caller| caller.address)
}

/// Resolves once the controller stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await; // an error: the sender is gone, so we stop as well
}

/// Why a stream ends whose certificate is over. A healthy proxy has renewed it long ago and comes again with that.
fn expired() -> Status {
    Status::unauthenticated("the client certificate has expired; connect again with the new one")
}

/// Serves until `shared.stopping`, then lets open calls end for a moment.
pub async fn run(
    shared: Arc<Shared>,
    listener: TcpListener,
    own: Arc<tls::OwnIdentity>,
) -> anyhow::Result<()> {
    let connections = tls::accept(shared.clone(), listener, own)?;
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .http2_max_header_list_size(16 << 10)
        .max_concurrent_streams(MAX_STREAMS)
        .add_service(
            PolicyServer::new(policy::Sync(shared.clone())).max_decoding_message_size(MAX_REQUEST),
        )
        .add_service(
            IdentityServer::new(identity::Certify(shared.clone()))
                .max_decoding_message_size(MAX_CERTIFY),
        )
        .add_service(
            ObserveServer::new(observe::Attach(shared.clone()))
                .max_decoding_message_size(MAX_SUMMARY),
        )
        .add_service(
            PeersServer::new(peers::Answering(shared.clone())).max_decoding_message_size(MAX_ORDER),
        );
    let (mut stop, mut cut_off) = (shared.stopping.subscribe(), shared.stopping.subscribe());
    let serving =
        server.serve_with_incoming_shutdown(connections, async move { stopped(&mut stop).await });
    tokio::select! {
        result = serving => Ok(result?),
        () = async { stopped(&mut cut_off).await; tokio::time::sleep(STOP_LIMIT).await } => Ok(()),
    }
}

/// Identity of the controller itself.
pub fn own_identity(trust_domain: &str) -> anyhow::Result<SpiffeId> {
    Ok(SpiffeId::new(
        trust_domain,
        names::SYSTEM_NAMESPACE,
        names::CONTROL_ACCOUNT,
    )?)
}
