//! A proxy as far as the controller can tell: it has a certificate, says hello, subscribes, and notes when it hears what.

use super::Failure;
use super::channel::{Certificate, connect};
use super::objects::{Size, change_of, service_ip};
use parking_lot::Mutex;
use prost::Message as _;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};
use weft_control::pod_ref::PodRef;
use weft_control::state::StateDir;
use weft_control::token;
use weft_proxy_api::wire::generated::identity_client::IdentityClient;
use weft_proxy_api::wire::generated::policy_client::PolicyClient;
use weft_proxy_api::wire::generated::{self as pb, sync_request::Message};
use weft_proxy_api::wire::{Body, Item, Resource, decode, encode};

/// How long any answer may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(100);
/// Attempts before there is no hope.
const ATTEMPTS: usize = 300;

/// A key and the chain to it.
pub(crate) type Identity = (Vec<u8>, Vec<Vec<u8>>);

/// Gets a certificate for one pod, and says how often it was put off.
pub(crate) async fn certify(
    to: SocketAddr,
    state: &StateDir,
    number: u32,
    account: &str,
) -> Result<(Identity, usize), Failure> {
    let pod = PodRef::new("default", format!("pod-{number}"));
    let token = token::issue_for_pod(state, &pod, account, Duration::from_secs(600))?;
    let key = KeyPair::generate()?;
    let csr = CertificateParams::default().serialize_request(&key)?;
    let csr = csr.der().to_vec();
    let mut client = IdentityClient::new(connect(to, number, None).await?);
    for put_off in 0..ATTEMPTS {
        let (csr, token) = (csr.clone(), token.clone());
        match client.certify(pb::CertifyRequest { csr, token }).await {
            Ok(answer) => return Ok(((key.serialize_der(), answer.into_inner().chain), put_off)),
            // A controller signs only so many at once; proxies come again.
            Err(status) if status.code() == Code::ResourceExhausted => sleep(PAUSE).await,
            Err(status) => return Err(status.into()),
        }
    }
    Err("there was no certificate".into())
}

/// What happens while proxies follow.
pub(crate) struct Story {
    pub(crate) size: Size,
    /// When each change was written.
    pub(crate) written: Mutex<Vec<Instant>>,
    /// The number of the first change that is not part of it.
    pub(crate) first: u32,
    /// How many there will be.
    pub(crate) end: u32,
    /// How long each proxy waited for each change, or for the one that took its place.
    pub(crate) waits: Mutex<Vec<Duration>>,
    /// Endpoint sets of proxies that are as they will be at the end.
    pub(crate) done: AtomicUsize,
    /// Whom a proxy turns to when its controller is gone.
    pub(crate) other: Option<SocketAddr>,
}

pub(crate) struct Proxy {
    number: u32,
    identity: Identity,
    resources: Vec<Resource>,
    /// Service of each endpoint set.
    sets: HashMap<u32, u32>,
    /// Last change heard of each endpoint set.
    heard: HashMap<u32, u32>,
    /// Version held of each resource.
    held: HashMap<u32, u64>,
    stream: Option<Stream>,
    pub(crate) controller: SocketAddr,
    /// Attempts of the last connect that failed.
    pub(crate) failed: usize,
    pub(crate) answers: usize,
    pub(crate) unchanged: usize,
    /// Bytes of messages from the controller.
    pub(crate) bytes: usize,
}

struct Stream {
    requests: mpsc::Sender<pb::SyncRequest>,
    responses: Streaming<pb::SyncResponse>,
}

impl Proxy {
    /// One that calls so many Services; the first of them is called by all.
    pub(crate) fn new(
        number: u32,
        called: u32,
        size: Size,
        identity: Identity,
        controller: SocketAddr,
    ) -> Self {
        let services = (0..called).map(|n| match n {
            0 => 0,
            n => (number * 7 + n * 13) % size.services,
        });
        let mut resources = vec![Resource::Inbound, Resource::Trust];
        let mut sets = HashMap::new();
        let mut seen = HashSet::new();
        for service in services.filter(|service| seen.insert(*service)) {
            resources.push(Resource::Outbound(service_ip(service)));
            sets.insert(u32::try_from(resources.len()).unwrap(), service);
            resources.push(Resource::Endpoints(format!("default/s{service}:80")));
        }
        Self {
            number,
            identity,
            resources,
            sets,
            heard: HashMap::new(),
            held: HashMap::new(),
            stream: None,
            controller,
            failed: 0,
            answers: 0,
            unchanged: 0,
            bytes: 0,
        }
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.resources.len()
    }

    /// How many of its endpoint sets are of Services that change.
    pub(crate) fn changing(&self, size: Size) -> usize {
        let sets = self.sets.values();
        sets.filter(|service| size.first_change(**service).is_some())
            .count()
    }

    fn certificate(&self) -> Certificate {
        let (key, chain) = self.identity.clone();
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        (chain, PrivatePkcs8KeyDer::from(key).into())
    }

    /// Ends its stream, as if the connection broke.
    pub(crate) fn cut(&mut self) {
        self.stream = None;
    }

    /// Connects, again and again if need be, as proxies do.
    pub(crate) async fn come(&mut self) -> Result<Vec<Item>, Failure> {
        for failed in 0.. {
            match self.connect().await {
                Ok(items) => {
                    self.failed = failed;
                    return Ok(items);
                }
                Err(error) if failed == ATTEMPTS => return Err(error),
                Err(_) => sleep(PAUSE).await,
            }
        }
        Err("there was no attempt".into())
    }

    /// Connects, subscribes to everything, and waits until everything was answered.
    async fn connect(&mut self) -> Result<Vec<Item>, Failure> {
        (self.answers, self.unchanged, self.bytes) = (0, 0, 0);
        let (requests, outgoing) = mpsc::channel(1024);
        let channel = connect(self.controller, self.number, Some(self.certificate())).await?;
        let responses = PolicyClient::new(channel)
            .sync(ReceiverStream::new(outgoing))
            .await?;
        let hello = pb::Hello {
            namespace: "default".into(),
            pod: format!("pod-{}", self.number),
            version: "scale".into(),
            ..Default::default()
        };
        self.stream = Some(Stream {
            requests,
            responses: responses.into_inner(),
        });
        self.say(Message::Hello(hello)).await?;
        for (id, resource) in (0..).zip(self.resources.clone()) {
            let version = self.held.get(&id).copied().unwrap_or_default();
            let resource = Some(encode::resource(&resource));
            self.say(Message::Subscribe(pb::Subscribe {
                id,
                resource,
                version,
            }))
            .await?;
        }
        let mut all = Vec::new();
        while self.answers < self.resources.len() {
            let items = self.items().await?;
            self.answers += items.len();
            let unchanged = items.iter().filter(|item| item.body == Body::Unchanged);
            self.unchanged += unchanged.count();
            all.extend(items);
        }
        Ok(all)
    }

    /// Follows what is told until the end of the story; another controller is asked when this one is gone.
    pub(crate) async fn follow(
        mut self,
        story: Arc<Story>,
        mut end: watch::Receiver<bool>,
    ) -> Self {
        loop {
            let heard = tokio::select! {
                heard = self.items() => heard,
                _ = end.wait_for(|end| *end) => return self,
            };
            let items = match (heard, story.other) {
                (Ok(items), _) => items,
                (Err(_), None) => return self,
                (Err(_), Some(other)) => {
                    self.controller = other;
                    match self.come().await {
                        Ok(items) => items,
                        Err(_) => return self,
                    }
                }
            };
            self.note(&story, &items);
        }
    }

    /// Notes how long it was without each change that it hears of, or that was overtaken by one.
    fn note(&mut self, story: &Story, items: &[Item]) {
        let now = Instant::now();
        for item in items {
            let (Body::Endpoints(told) | Body::Delta { upsert: told, .. }) = &item.body else {
                continue;
            };
            let changes = told.iter().filter_map(|it| change_of(it.address.ip()));
            let Some(change) = changes.max().filter(|it| *it >= story.first) else {
                continue;
            };
            let last = self.heard.insert(item.id, change);
            let last = last.filter(|last| *last >= story.first);
            if last == Some(change) {
                continue;
            }
            let round = story.size.round();
            let unheard = last.map_or(story.first + change % round, |it| it + round);
            let written = story.written.lock();
            let since = written.get((unheard.min(change) - story.first) as usize);
            let since = since.copied().unwrap_or(now);
            drop(written);
            story.waits.lock().push(now.duration_since(since));
            if change + round >= story.end {
                story.done.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn items(&mut self) -> Result<Vec<Item>, Failure> {
        let stream = self.stream.as_mut().ok_or("not connected")?;
        let response = tokio::time::timeout(LIMIT, stream.responses.message()).await??;
        let response = response.ok_or("the stream ended")?;
        self.bytes += response.encoded_len();
        let items = decode::response(&response).into_iter();
        let items: Vec<Item> = items
            .collect::<Result<_, _>>()
            .map_err(|bad| format!("{bad:?}"))?;
        for Item { id, version, .. } in &items {
            self.held.insert(*id, *version);
            let (id, version) = (*id, *version);
            self.say(Message::Ack(pb::Ack { id, version })).await?;
        }
        Ok(items)
    }

    async fn say(&self, message: Message) -> Result<(), Failure> {
        let stream = self.stream.as_ref().ok_or("not connected")?;
        let message = Some(message);
        Ok(stream.requests.send(pb::SyncRequest { message }).await?)
    }
}
