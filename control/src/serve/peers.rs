//! `Peers`: what another controller of the mesh asks of this one ([`crate::peers`]). Answered from what was heard here.

use super::tls::Peer;
use super::{Shared, caller, own_identity, stopped};
use crate::peers::channel::is_controller;
use crate::peers::{Heard, INSTANCE, OUTDATED, Question, wire};
use crate::pod_ref::PodRef;
use futures_util::stream::{BoxStream, StreamExt, iter};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};
use weft_proxy_api::wire::decode::metrics_tier;
use weft_proxy_api::wire::generated as pb;

/// Pods named in one order.
const MAX_NAMED: usize = 8_192;

/// The service.
pub struct Answering(pub Arc<Shared>);

#[tonic::async_trait]
impl pb::peers_server::Peers for Answering {
    type TrafficStream = BoxStream<'static, Result<pb::PeerPod, Status>>;
    type TapStream = BoxStream<'static, Result<pb::PeerShown, Status>>;

    async fn traffic(
        &self,
        request: Request<pb::PeerTraffic>,
    ) -> Result<Response<Self::TrafficStream>, Status> {
        self.admit(&request)?;
        let (shared, asked) = (&self.0, request.into_inner());
        if asked.asker == shared.instance {
            return Err(Status::already_exists("it asked itself"));
        }
        let window = Duration::from_millis(asked.window_ms.into());
        let question = Question {
            window: (!window.is_zero()).then_some(window),
            fresh: asked.fresh,
            proxies_only: asked.proxies_only,
            up_to_date: asked.up_to_date,
        };
        let is_read = !question.up_to_date || shared.read().await;
        if !question.proxies_only {
            let since = shared.look();
            if question.fresh {
                shared.reported_after(since).await;
            }
        }
        let now = Instant::now();
        let pods = Heard::of(shared, question, now).tell(now);
        let mut answer = Response::new(iter(pods.into_iter().map(Ok)).boxed());
        let instance = MetadataValue::from(shared.instance);
        answer.metadata_mut().insert(INSTANCE, instance);
        if !is_read {
            let outdated = MetadataValue::from_static("true");
            answer.metadata_mut().insert(OUTDATED, outdated);
        }
        Ok(answer)
    }

    async fn tap(
        &self,
        request: Request<pb::PeerTap>,
    ) -> Result<Response<Self::TapStream>, Status> {
        let peer = self.admit(&request)?;
        let asked = request.into_inner();
        let (start, pods) = (asked.start.unwrap_or_default(), named(asked.pods)?);
        tracing::info!(target: "audit", who = %peer.id, pods = pods.len(), secrets = start.show_secrets, "tap for another controller");
        let tap = self.0.taps.start(start, pods);
        let tap = tap
            .ok_or_else(|| Status::resource_exhausted("too many look at requests there already"))?;
        let mut stopping = self.0.stopping.subscribe();
        let shown = tap.stream().map(|passed| Ok(wire::tell(passed)));
        let shown = shown.take_until(async move { stopped(&mut stopping).await });
        Ok(Response::new(shown.boxed()))
    }

    async fn detail(
        &self,
        request: Request<pb::PeerDetail>,
    ) -> Result<Response<pb::PeerDone>, Status> {
        let peer = self.admit(&request)?;
        let asked = request.into_inner();
        let (pods, order) = (named(asked.pods)?, asked.metrics.unwrap_or_default());
        let wanted = match order.tier() {
            pb::MetricsTier::Unspecified => None,
            tier => {
                let tier = metrics_tier(tier.into());
                let tier = tier.map_err(|error| Status::invalid_argument(error.to_string()))?;
                Some((tier, Duration::from_secs(order.seconds.into())))
            }
        };
        tracing::info!(target: "audit", who = %peer.id, pods = pods.len(), tier = ?wanted, "metrics for another controller");
        self.0.tiers.ask(&pods, wanted);
        Ok(Response::new(pb::PeerDone {}))
    }
}

impl Answering {
    /// Only a controller is answered: what is told here is everybody's traffic.
    fn admit<T>(&self, request: &Request<T>) -> Result<Peer, Status> {
        let refused = || Status::permission_denied("only controllers of this mesh may ask this");
        let peer = caller(request)?;
        let own = own_identity(self.0.ca.trust_domain()).map_err(|_| refused())?;
        match is_controller(&peer, &own) {
            true => Ok(peer),
            false => Err(refused()),
        }
    }
}

fn named(pods: Vec<pb::PodName>) -> Result<BTreeSet<PodRef>, Status> {
    if pods.len() > MAX_NAMED {
        return Err(Status::invalid_argument(format!(
            "at most {MAX_NAMED} pods"
        )));
    }
    let pods = pods.iter();
    Ok(pods
        .map(|pod| PodRef::new(&pod.namespace, &pod.pod))
        .collect())
}
