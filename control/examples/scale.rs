//! What a mesh of some size costs its controller: 1,000 Services, 5,000 endpoints and 200 proxies over the real protocol.
//! Run by hand, prints its figures: `cargo build -p weft-control && cargo run -p weft-control --example scale`.
//!
//! The controller is a process of its own, so that its memory and time are its own; the proxies all live in this one.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "scale/channel.rs"]
mod channel;
#[path = "scale/controller.rs"]
mod controller;

use channel::{Certificate, connect};
use controller::{Controller, Usage};
use futures_util::future::join_all;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::collections::HashMap;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use weft_control::pod_ref::PodRef;
use weft_control::state::StateDir;
use weft_control::token;
use weft_proxy_api::wire::generated::identity_client::IdentityClient;
use weft_proxy_api::wire::generated::policy_client::PolicyClient;
use weft_proxy_api::wire::generated::{self as pb, sync_request::Message};
use weft_proxy_api::wire::{Body, Item, Resource, decode, encode};

const SERVICES: u32 = 1_000;
const PODS: u32 = 5_000;
const PROXIES: u32 = 200;
/// Services that each proxy calls; the first one is called by all.
const CALLED: u32 = 50;
const CHANGES: u32 = 40;

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    write_world(dir.path())?;
    let started = Instant::now();
    let mut controller = Controller::start(dir.path(), "127.0.0.1:0").await?;
    println!(
        "{SERVICES} Services, {PODS} pods read and served after {:.1?}",
        started.elapsed()
    );
    show("idle", &controller, &Usage::default());

    let state = StateDir::open(dir.path().join(".weft"))?;
    let before = controller.usage();
    let started = Instant::now();
    let certified = (0..PROXIES).map(|n| certify(controller.address, &state, n));
    let certificates: Vec<_> = join_all(certified)
        .await
        .into_iter()
        .collect::<Result<_, _>>()?;
    println!("{PROXIES} certificates: {:.1?}", started.elapsed());
    show("certified", &controller, &before);

    let before = controller.usage();
    let started = Instant::now();
    let mut proxies: Vec<Proxy> =
        join_all((0..PROXIES).map(|n| Proxy::new(n, &certificates))).await;
    connect_all(&mut proxies, controller.address).await?;
    println!(
        "first connect of {PROXIES}, {} subscriptions each, all answered: {:.1?}",
        2 + 2 * CALLED,
        started.elapsed()
    );
    show("connected", &controller, &before);

    let before = controller.usage();
    let mut latencies = Vec::new();
    for change in 0..CHANGES {
        let at = Instant::now();
        put(dir.path(), "extra.yaml", &pod(PODS, 0, change % 2))?;
        let heard = join_all(proxies.iter_mut().map(|proxy| proxy.hear(at))).await;
        latencies.extend(heard.into_iter().collect::<Result<Vec<_>, _>>()?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    latencies.sort_unstable();
    let rank = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    println!(
        "one endpoint changes, file to proxy, {CHANGES} x {PROXIES}: p50 {:.1?}, p99 {:.1?}, most {:.1?}",
        rank(0.5),
        rank(0.99),
        rank(1.0)
    );
    show("changed", &controller, &before);

    let before = controller.usage();
    proxies.iter_mut().for_each(|proxy| proxy.stream = None);
    let started = Instant::now();
    connect_all(&mut proxies, controller.address).await?;
    println!(
        "reconnect of all {PROXIES} at once: {:.1?}; {}",
        started.elapsed(),
        told(&proxies)
    );
    show("reconnected", &controller, &before);

    let address = controller.address.to_string();
    controller.kill().await;
    proxies.iter_mut().for_each(|proxy| proxy.stream = None);
    let started = Instant::now();
    controller = Controller::start(dir.path(), &address).await?;
    let serving = started.elapsed();
    connect_all(&mut proxies, controller.address).await?;
    println!(
        "killed; serving again after {serving:.1?}, all {PROXIES} current after {:.1?}; {}",
        started.elapsed(),
        told(&proxies)
    );
    show("restarted", &controller, &Usage::default());
    Ok(())
}

fn show(what: &str, controller: &Controller, before: &Usage) {
    let now = controller.usage();
    println!(
        "  {what}: RSS {} MiB (most {} MiB), CPU {:.2} s",
        now.rss >> 20,
        now.most >> 20,
        (now.cpu - before.cpu).as_secs_f64()
    );
}

fn told(proxies: &[Proxy]) -> String {
    let unchanged: usize = proxies.iter().map(|proxy| proxy.unchanged).sum();
    let all: usize = proxies.iter().map(|proxy| proxy.answers).sum();
    format!("{unchanged} of {all} answers say unchanged")
}

fn service_ip(service: u32) -> SocketAddr {
    (Ipv4Addr::from(0x0a60_0001 + service), 80).into()
}

fn pod(number: u32, service: u32, variant: u32) -> String {
    let ip = Ipv4Addr::from(0x0af4_0001 + number + variant);
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: pod-{number}, namespace: default, labels: {{app: s{service}}}, annotations: {{weft.mesh/injected-at-version: '1'}}}}
spec: {{serviceAccountName: sa-{service}, containers: [{{name: app, image: a, ports: [{{containerPort: 8080}}]}}]}}
status: {{podIP: {ip}, podIPs: [{{ip: {ip}}}]}}
---
"
    )
}

fn write_world(dir: &Path) -> std::io::Result<()> {
    for file in 0..10 {
        let (mut services, mut pods) = (String::new(), String::new());
        for n in (0..SERVICES).filter(|n| n % 10 == file) {
            let ip = service_ip(n).ip();
            let _ = write!(
                services,
                "apiVersion: v1
kind: Service
metadata: {{name: s{n}, namespace: default}}
spec: {{clusterIP: {ip}, selector: {{app: s{n}}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
---
"
            );
        }
        for n in (0..PODS).filter(|n| n % 10 == file) {
            pods += &pod(n, n % SERVICES, 0);
        }
        put(dir, &format!("services-{file}.yaml"), &services)?;
        put(dir, &format!("pods-{file}.yaml"), &pods)?;
    }
    Ok(())
}

/// A file that appears whole.
fn put(dir: &Path, name: &str, text: &str) -> std::io::Result<()> {
    let aside = dir.join(format!(".{name}"));
    std::fs::write(&aside, text)?;
    std::fs::rename(aside, dir.join(name))
}

async fn certify(
    to: SocketAddr,
    state: &StateDir,
    n: u32,
) -> Result<(Vec<u8>, Vec<Vec<u8>>), Failure> {
    let pod = PodRef::new("default", format!("pod-{n}"));
    let ttl = Duration::from_secs(600);
    let token = token::issue_for_pod(state, &pod, &format!("sa-{}", n % SERVICES), ttl)?;
    let key = KeyPair::generate()?;
    let csr = CertificateParams::default().serialize_request(&key)?;
    let csr = csr.der().to_vec();
    let mut client = IdentityClient::new(connect(to, None).await?);
    let answer = client.certify(pb::CertifyRequest { csr, token }).await?;
    Ok((key.serialize_der(), answer.into_inner().chain))
}

/// A proxy as far as the controller can tell.
struct Proxy {
    number: u32,
    certificate: (Vec<u8>, Vec<Vec<u8>>),
    resources: Vec<Resource>,
    /// Version held of each resource.
    held: HashMap<u32, u64>,
    stream: Option<Stream>,
    answers: usize,
    unchanged: usize,
}

struct Stream {
    requests: mpsc::Sender<pb::SyncRequest>,
    responses: Streaming<pb::SyncResponse>,
}

impl Proxy {
    async fn new(number: u32, certificates: &[(Vec<u8>, Vec<Vec<u8>>)]) -> Self {
        let called = (0..CALLED).map(|n| {
            if n == 0 {
                0
            } else {
                (number * 7 + n * 13) % SERVICES
            }
        });
        let mut resources = vec![
            Resource::Endpoints("default/s0:80".into()),
            Resource::Inbound,
            Resource::Trust,
        ];
        for service in called {
            resources.push(Resource::Outbound(service_ip(service)));
            resources.push(Resource::Endpoints(format!("default/s{service}:80")));
        }
        let mut seen = std::collections::HashSet::new();
        resources.retain(|resource| seen.insert(resource.clone()));
        Self {
            number,
            certificate: certificates[number as usize].clone(),
            resources,
            held: HashMap::new(),
            stream: None,
            answers: 0,
            unchanged: 0,
        }
    }

    fn certificate(&self) -> Certificate {
        let (key, chain) = self.certificate.clone();
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        (chain, PrivatePkcs8KeyDer::from(key).into())
    }

    /// Connects, subscribes to everything, and waits until everything was answered.
    async fn connect(&mut self, to: SocketAddr) -> Result<(), Failure> {
        (self.answers, self.unchanged) = (0, 0);
        let (requests, outgoing) = mpsc::channel(1024);
        let channel = connect(to, Some(self.certificate())).await?;
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
        while self.answers < self.resources.len() {
            let items = self.items().await?;
            self.answers += items.len();
            self.unchanged += items
                .iter()
                .filter(|item| item.body == Body::Unchanged)
                .count();
        }
        Ok(())
    }

    /// Waits for news of the first set; after how long it came.
    async fn hear(&mut self, since: Instant) -> Result<Duration, Failure> {
        while self.items().await?.iter().all(|item| item.id != 0) {}
        Ok(since.elapsed())
    }

    async fn items(&mut self) -> Result<Vec<Item>, Failure> {
        let stream = self.stream.as_mut().ok_or("not connected")?;
        let limit = Duration::from_secs(60);
        let response = tokio::time::timeout(limit, stream.responses.message()).await??;
        let items = decode::response(&response.ok_or("the stream ended")?).into_iter();
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

async fn connect_all(proxies: &mut [Proxy], to: SocketAddr) -> Result<(), Failure> {
    let all = join_all(proxies.iter_mut().map(|proxy| proxy.connect(to))).await;
    all.into_iter().collect()
}
