//! `Identity.Certify`: a token and a signing request become a certificate. The one call without a client certificate.

use super::proof::Proven;
use super::rate::{Limiter, Rate};
use super::{Shared, address, own_identity};
use crate::ca::{CsrError, Leaf};
use crate::pod_ref::PodRef;
use crate::state::{ENROLLED, Stamp, StateDir};
use crate::token::TokenError;
use anyhow::Result;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tonic::{Request, Response, Status};
use weft_proxy_api::identity::SpiffeId;
use weft_proxy_api::wire::generated as pb;

/// For one pod. Generous: a healthy proxy asks once in hours, a test with short-lived certificates every few seconds.
const PER_POD: Rate = Rate {
    burst: 20,
    interval: Duration::from_secs(1),
};
/// For everybody: bounds the time spent signing (about 0.2 ms each), and is enough for 1,000 proxies in ten seconds.
const OVERALL: Rate = Rate {
    burst: 400,
    interval: Duration::from_millis(10),
};
/// Refusals that are logged; beyond that they are counted alone.
const TOLD: Rate = Rate {
    burst: 100,
    interval: Duration::from_secs(1),
};
/// Enrolled pods remembered before those that are gone are forgotten.
const MAX_ENROLLED: usize = 10_000;

/// The service.
pub struct Certify(pub Arc<Shared>);

/// How often one may ask for a certificate, and refusals are logged.
pub struct Limits {
    per_pod: Mutex<Limiter<PodRef>>,
    overall: Mutex<Limiter<()>>,
    told: Mutex<Limiter<()>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            per_pod: Mutex::new(Limiter::new(PER_POD)),
            overall: Mutex::new(Limiter::new(OVERALL)),
            told: Mutex::new(Limiter::new(TOLD)),
        }
    }
}

impl Limits {
    /// A pod that asks too often uses up nobody else's share.
    fn check(&self, pod: &PodRef, now: Instant) -> Result<(), Refusal> {
        self.per_pod
            .lock()
            .check(pod.clone(), now)
            .map_err(|wait| Refusal::TooOften("this pod", wait))?;
        self.overall
            .lock()
            .check((), now)
            .map_err(|wait| Refusal::TooOften("everybody", wait))
    }

    /// Is a refusal logged, of whatever service? Those of all callers together are bounded.
    pub fn is_told(&self) -> bool {
        self.told.lock().check((), Instant::now()).is_ok()
    }
}

/// Why no certificate was signed.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("token: {0}")]
    Token(#[from] TokenError),
    #[error("{0}")]
    Pod(String),
    #[error("{0}")]
    Csr(#[from] CsrError),
    #[error("too many certificates for {0}; try again in {1:.1?}")]
    TooOften(&'static str, Duration),
}

impl Refusal {
    fn label(&self) -> &'static str {
        match self {
            Self::Token(error) => error.label(),
            Self::Pod(_) => "pod",
            Self::Csr(error) => error.label(),
            Self::TooOften(..) => "rate",
        }
    }

    fn status(&self) -> Status {
        let text = self.to_string();
        match self {
            Self::Token(TokenError::Review | TokenError::Busy | TokenError::Doubted) => {
                Status::unavailable(text)
            }
            Self::Token(_) => Status::unauthenticated(text),
            Self::Pod(_) => Status::failed_precondition(text),
            Self::Csr(CsrError::IssuerExpired | CsrError::Sign(_)) => Status::internal(text),
            Self::Csr(CsrError::Name { .. }) => Status::permission_denied(text),
            Self::Csr(_) => Status::invalid_argument(text),
            Self::TooOften(..) => Status::resource_exhausted(text),
        }
    }
}

#[tonic::async_trait]
impl pb::identity_server::Identity for Certify {
    async fn certify(
        &self,
        request: Request<pb::CertifyRequest>,
    ) -> Result<Response<pb::CertifyResponse>, Status> {
        let (from, request) = (address(&request), request.into_inner());
        let decided = self.decide(&request, from).await;
        let (pod, id, leaf) = decided.map_err(|refusal| {
            self.0.counters.certificate_refused(refusal.label());
            if self.0.limits.is_told() {
                tracing::warn!(reason = refusal.to_string(), %from, "certificate refused"); // a text is written with escapes
            }
            refusal.status()
        })?;
        self.0.counters.certificates.add(1);
        tracing::info!(%pod, %id, serial = leaf.serial, not_after = leaf.not_after, "certificate issued");
        self.enroll(pod).await;
        Ok(Response::new(pb::CertifyResponse {
            chain: leaf
                .chain
                .iter()
                .map(|certificate| certificate.to_vec())
                .collect(),
            not_after: leaf.not_after,
            roots: self.0.ca.roots().iter().map(|root| root.to_vec()).collect(),
        }))
    }
}

impl Certify {
    async fn decide(
        &self,
        request: &pb::CertifyRequest,
        from: IpAddr,
    ) -> Result<(PodRef, SpiffeId, Leaf), Refusal> {
        let shared = &self.0;
        let proven = shared
            .tokens
            .verify(&request.token, from, SystemTime::now())
            .await?;
        shared.limits.check(&proven.pod, Instant::now())?;
        self.check_pod(&proven).await?;
        let Proven { pod, account, .. } = proven;
        let id = SpiffeId::new(shared.ca.trust_domain(), &pod.namespace, &account)
            .map_err(|error| Refusal::Pod(error.to_string()))?;
        // Proxies and other controllers know a controller by this name: who could get it would be believed by all of them.
        if own_identity(shared.ca.trust_domain()).is_ok_and(|own| own == id) {
            return Err(Refusal::Pod(format!(
                "{id} is the controller; run {pod} as another service account"
            )));
        }
        let leaf =
            shared
                .ca
                .issue_leaf(&request.csr, &id, &pod, shared.cert_ttl, SystemTime::now())?;
        Ok((pod, id, leaf))
    }

    async fn check_pod(&self, proven: &Proven) -> Result<(), Refusal> {
        let Proven { pod, account, uid } = proven;
        let info = self
            .0
            .pod(pod)
            .await
            .map_err(|status| Refusal::Pod(status.message().to_owned()))?;
        if info.service_account != *account {
            let is = info.service_account;
            return Err(Refusal::Pod(format!(
                "{pod} runs as {is}, the token says {account}"
            )));
        }
        if let (Some(is), Some(says)) = (&info.uid, uid)
            && is != says
        {
            return Err(Refusal::Pod(format!(
                "the token is of another pod that was called {pod}"
            )));
        }
        Ok(())
    }

    /// From now on the pod is meshed, also after a restart. That it cannot be remembered must not stop its proxy.
    async fn enroll(&self, pod: PodRef) {
        self.0.views.enroll(&pod);
        let shared = self.0.clone();
        let written = tokio::task::spawn_blocking(move || {
            shared
                .enrolled
                .add(pod, |pod| shared.views.pod(pod).is_some())
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("cannot remember who is enrolled: {error:#}"),
            Err(error) => tracing::warn!("cannot remember who is enrolled: {error}"),
        }
    }
}

/// The pods that ever got a certificate, in memory and in the state folder.
pub struct Enrolled {
    state: StateDir,
    pods: Mutex<BTreeSet<PodRef>>,
    /// The file that was read last.
    read: Mutex<Option<Stamp>>,
    /// How often something was added.
    added: AtomicU64,
    /// Up to which of these all is written; whoever writes holds it.
    written: Mutex<u64>,
}

impl Enrolled {
    /// What the state folder remembers.
    pub fn open(state: StateDir) -> Result<Self> {
        let read = Mutex::new(state.stamp(ENROLLED));
        let pods = Mutex::new(state.enrolled()?);
        Ok(Self {
            state,
            pods,
            read,
            added: AtomicU64::new(0),
            written: Mutex::new(0),
        })
    }

    /// All of them.
    pub fn all(&self) -> BTreeSet<PodRef> {
        self.pods.lock().clone()
    }

    /// Pods that got a certificate from another controller of this state folder since the last call.
    pub fn learn(&self) -> Result<Vec<PodRef>> {
        let (stamp, mut read) = (self.state.stamp(ENROLLED), self.read.lock());
        if *read == stamp {
            return Ok(Vec::new());
        }
        // What could not be read is read again.
        let written = self.state.enrolled()?;
        *read = stamp;
        let mut pods = self.pods.lock();
        let new: Vec<_> = written.difference(&pods).cloned().collect();
        pods.extend(new.iter().cloned());
        Ok(new)
    }

    /// Adds one. When there are very many, those that `exists` denies are forgotten. Pods that come while one is written
    /// are written together.
    pub fn add(&self, pod: PodRef, exists: impl Fn(&PodRef) -> bool) -> Result<()> {
        let mut pods = self.pods.lock();
        if !pods.insert(pod) {
            return Ok(());
        }
        if pods.len() > MAX_ENROLLED {
            pods.retain(&exists);
        }
        let number = self.added.fetch_add(1, Ordering::Relaxed) + 1;
        drop(pods);
        let mut written = self.written.lock();
        match *written >= number {
            true => Ok(()),
            false => self.write(&mut written, exists),
        }
    }

    /// Tries again what could not be written; what is being written now is whose business it is.
    pub fn write_rest(&self) {
        if let Some(mut written) = self.written.try_lock()
            && *written < self.added.load(Ordering::Relaxed)
        {
            // Said when it was tried first.
            let _ = self.write(&mut written, |_| true);
        }
    }

    fn write(&self, written: &mut u64, exists: impl Fn(&PodRef) -> bool) -> Result<()> {
        let (pods, upto) = {
            let pods = self.pods.lock();
            (pods.clone(), self.added.load(Ordering::Relaxed))
        };
        // Those that another controller wrote meanwhile stay there, and are learnt like all others.
        let _lock = self.state.lock()?;
        let mut all = self.state.enrolled()?;
        if all.len() > MAX_ENROLLED {
            all.retain(&exists);
        }
        all.extend(pods);
        self.state.set_enrolled(&all)?;
        *written = upto;
        Ok(())
    }
}
