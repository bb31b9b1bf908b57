//! The whole controller on a folder: manifests in, a token, a certificate, policy out; killed and started again.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::pod_ref::PodRef;
use crate::serve::tests::{Certificate, connect};
use crate::token::{DEFAULT_TTL, issue_for_pod};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use weft_proxy_api::policy::outbound::Outbound;
use weft_proxy_api::wire::generated::identity_client::IdentityClient;
use weft_proxy_api::wire::generated::policy_client::PolicyClient;
use weft_proxy_api::wire::generated::{self as pb, sync_request::Message};
use weft_proxy_api::wire::{Body, Item, Resource, decode, encode};

const WEB: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: default, labels: {app: web}}
spec:
  serviceAccountName: web
  containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]
status: {podIP: 10.244.0.1, podIPs: [{ip: 10.244.0.1}]}
";

struct Running {
    control: SocketAddr,
    admin: SocketAddr,
    facts: Facts,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<()>>,
}

async fn start(dir: &Path) -> Running {
    let local: SocketAddr = ([127, 0, 0, 1], 0).into();
    let config = Config {
        source: crate::args::Source::Folders(vec![dir.into()]),
        access: Access::Strict,
        access_chosen: true,
        metrics: Default::default(),
        groups: Default::default(),
        state: Some(crate::state::default_path(dir)),
        listen: Some(local),
        peers: vec![],
        admin: local,
        trust_domain: "cluster.local".into(),
        cert_ttl: Duration::from_secs(3600),
        log: "info".into(),
        webhook: None,
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let (tell, told) = oneshot::channel();
    let stopped = async { drop(stopped.await) };
    let task = tokio::spawn(async move {
        let tell = |ready| drop(tell.send(ready));
        Box::pin(run_and_tell(config, stopped, tell)).await
    });
    let Ready {
        control,
        admin,
        facts,
    } = told.await.unwrap();
    Running {
        control,
        admin,
        facts,
        stop,
        task,
    }
}

impl Running {
    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }

    async fn certify(&self, token: String) -> Certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let csr = csr.der().to_vec();
        let mut client = IdentityClient::new(connect(self.control, None).await.unwrap());
        let answer = client.certify(pb::CertifyRequest { csr, token }).await;
        let chain = answer.unwrap().into_inner().chain;
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        (chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    /// Says hello as `web-1` and subscribes to one address.
    async fn subscribe(&self, certificate: Certificate, to: SocketAddr, held: u64) -> Stream {
        let channel = connect(self.control, Some(certificate)).await.unwrap();
        let (requests, outgoing) = mpsc::channel(10);
        let mut policy = PolicyClient::new(channel);
        let answers = policy.sync(ReceiverStream::new(outgoing)).await;
        let answers = answers.unwrap().into_inner();
        let hello = pb::Hello {
            namespace: "default".into(),
            pod: "web-1".into(),
            ..Default::default()
        };
        let resource = Some(encode::resource(&Resource::Outbound(to)));
        let subscribe = pb::Subscribe {
            id: 1,
            resource,
            version: held,
        };
        for message in [Message::Hello(hello), Message::Subscribe(subscribe)] {
            let message = Some(message);
            requests.send(pb::SyncRequest { message }).await.unwrap();
        }
        Stream {
            answers,
            _requests: requests,
        }
    }
}

struct Stream {
    answers: Streaming<pb::SyncResponse>,
    _requests: mpsc::Sender<pb::SyncRequest>,
}

impl Stream {
    async fn item(&mut self) -> Item {
        let answer = tokio::time::timeout(Duration::from_secs(60), self.answers.message()).await;
        let answer = answer.expect("an answer").unwrap().unwrap();
        decode::response(&answer).remove(0).unwrap()
    }
}

#[tokio::test]
async fn a_folder_becomes_policy_and_a_restart_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("web.yaml"), WEB).unwrap();
    let service = ([10, 96, 0, 1], 80).into();
    let running = start(dir.path()).await;
    assert_eq!(running.facts.objects, 2, "{:?}", running.facts);

    let state = StateDir::open(dir.path().join(".weft")).unwrap();
    let token = issue_for_pod(&state, &PodRef::new("default", "web-1"), "web", DEFAULT_TTL);
    let token = token.unwrap();
    let certificate = running.certify(token.clone()).await;
    let mut stream = running.subscribe(certificate, service, 0).await;
    let first = stream.item().await;
    assert!(
        matches!(&first.body, Body::Outbound(Outbound::Service(web)) if web.name.name == "web"),
        "{first:?}"
    );

    running.stop().await;
    let again = start(dir.path()).await;
    let certificate = again.certify(token).await;
    let mut stream = again.subscribe(certificate, service, first.version).await;
    assert_eq!(stream.item().await.body, Body::Unchanged);

    let split = "\
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: web, namespace: default}
spec: {service: web, backends: [{service: web, weight: 1}]}
";
    std::fs::write(dir.path().join("split.yaml"), split).unwrap();
    let item = stream.item().await;
    let by_split = |outbound: &Outbound| match outbound {
        Outbound::Service(web) => {
            web.routes[0].object.as_deref() == Some("TrafficSplit default/web")
        }
        _ => false,
    };
    assert!(
        matches!(&item.body, Body::Outbound(outbound) if by_split(outbound)),
        "{item:?}"
    );
    again.stop().await;
}

#[tokio::test]
async fn a_second_controller_on_the_same_addresses_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(dir.path()).await;
    assert_ne!(first.admin, first.control);
    let error = listen(Some(first.control))
        .and_then(|(bound, _)| bound.into_tokio())
        .unwrap_err();
    assert!(format!("{error:#}").contains("annot listen"), "{error:#}");
    first.stop().await;
}
