//! The objects of the mesh that is measured, and where they are written.

use super::Failure;
use super::server::Server;
use futures_util::{TryStreamExt, stream};
use http::{Method, Request};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weft_control::kube::{Client, connect};

/// How large the mesh is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) services: u32,
    pub(crate) endpoints: u32,
    pub(crate) pods: u32,
    pub(crate) splits: u32,
}

/// The first address of endpoints that come by change; each change makes one.
const CHANGED: u32 = 0x0b00_0000;
/// Services that change, one after the other.
const CHANGING: u32 = 200;

impl Size {
    /// Every how many Services is one that changes?
    fn stride(self) -> u32 {
        (self.services / CHANGING).max(1)
    }

    /// Which Service a change is about.
    pub(crate) fn service_of(self, change: u32) -> u32 {
        (change % self.round()) * self.stride()
    }

    /// After how many changes it is the same Service's turn.
    pub(crate) fn round(self) -> u32 {
        self.services.min(CHANGING)
    }

    /// The first change of a Service, if it ever changes.
    pub(crate) fn first_change(self, service: u32) -> Option<u32> {
        let turn = service / self.stride();
        (service.is_multiple_of(self.stride()) && turn < self.round()).then_some(turn)
    }
}

pub(crate) fn service_ip(service: u32) -> SocketAddr {
    (Ipv4Addr::from(0x0a60_0100 + service), 80).into()
}

/// Which change made an address.
pub(crate) fn change_of(address: IpAddr) -> Option<u32> {
    match address {
        IpAddr::V4(address) => u32::from(address).checked_sub(CHANGED),
        IpAddr::V6(_) => None,
    }
}

fn service(n: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": format!("s{n}"), "namespace": "default"},
        "spec": {
            "clusterIP": service_ip(n).ip(), "selector": {"app": format!("s{n}")},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    })
}

fn account(n: u32) -> Value {
    let metadata = json!({"name": format!("sa-{n}"), "namespace": "default"});
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
}

fn pod(size: Size, n: u32) -> Value {
    let (service, ip) = (n % size.services, Ipv4Addr::from(0x0a80_0001 + n));
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("pod-{n}"), "namespace": "default", "uid": format!("uid-{n}"),
            "labels": {"app": format!("s{service}"), "pod-template-hash": "5d8f"},
            "annotations": {"weft.mesh/injected-at-version": "1"},
        },
        "spec": {
            "serviceAccountName": format!("sa-{service}"), "nodeName": format!("node-{}", n % 100),
            "containers": [{"name": "app", "image": "registry/app:1", "ports": [{"containerPort": 8080}]}],
        },
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

/// The endpoints of a Service; the first one is where the last change moved it.
pub(crate) fn slice(size: Size, service: u32, change: Option<u32>) -> Value {
    let of = (0..size.endpoints).skip(service as usize);
    let of = of.step_by(size.services as usize);
    let endpoint = |n: u32, address: u32| {
        json!({
            "addresses": [Ipv4Addr::from(address)], "zone": "a",
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": "default", "name": format!("pod-{n}")},
        })
    };
    let mut all: Vec<Value> = of.map(|n| endpoint(n, 0x0a80_0001 + n)).collect();
    if let (Some(change), Some(first)) = (change, all.first_mut()) {
        *first = endpoint(service, CHANGED + change);
    }
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": format!("s{service}-a"), "namespace": "default",
            "labels": {"kubernetes.io/service-name": format!("s{service}")},
        },
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": all,
    })
}

fn split(n: u32) -> Value {
    let backends = json!([{"service": format!("s{n}"), "weight": 90}, {"service": format!("s{}", n + 1), "weight": 10}]);
    json!({
        "apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
        "metadata": {"name": format!("split-{n}"), "namespace": "default", "uid": format!("split-{n}"), "generation": 1},
        "spec": {"service": format!("s{n}"), "backends": backends},
    })
}

/// Where objects are written.
pub(crate) enum Place {
    /// Into a server of this program.
    Own(Arc<Server>, PathBuf),
    /// Into a real one.
    Real(Client, PathBuf),
}

impl Place {
    pub(crate) async fn own(folder: &Path) -> Result<Self, Failure> {
        let (server, address) = Server::start().await?;
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: own\n\
             clusters: [{{ name: own, cluster: {{ server: 'http://{address}' }} }}]\n\
             users: [{{ name: own, user: {{}} }}]\n\
             contexts: [{{ name: own, context: {{ cluster: own, user: own }} }}]\n"
        );
        let path = folder.join("kubeconfig");
        std::fs::write(&path, text)?;
        Ok(Self::Own(server, path))
    }

    pub(crate) async fn real(kubeconfig: &Path) -> Result<Self, Failure> {
        let settings = connect::Settings {
            kubeconfig: Some(kubeconfig.to_owned()),
            ..connect::Settings::default()
        };
        let client = connect::client(&settings).await?;
        Ok(Self::Real(client, kubeconfig.to_owned()))
    }

    /// How a controller finds the server.
    pub(crate) fn kubeconfig(&self) -> &Path {
        match self {
            Self::Own(_, path) | Self::Real(_, path) => path,
        }
    }

    /// Writes the whole mesh.
    pub(crate) async fn fill(&self, size: Size) -> Result<(), Failure> {
        let accounts = (0..size.services).map(|n| ("serviceaccounts", account(n)));
        let services = (0..size.services).map(|n| ("services", service(n)));
        let pods = (0..size.pods).map(move |n| ("pods", pod(size, n)));
        let slices = (0..size.services).map(move |n| ("endpointslices", slice(size, n, None)));
        let splits = (0..size.splits).map(|n| ("trafficsplits", split(n * 2)));
        let all = accounts
            .chain(services)
            .chain(pods)
            .chain(slices)
            .chain(splits);
        stream::iter(all.map(Ok))
            .try_for_each_concurrent(32, |(plural, object)| self.make(plural, object))
            .await
    }

    async fn make(&self, plural: &str, object: Value) -> Result<(), Failure> {
        match self {
            Self::Own(server, _) => server.put(plural, object),
            Self::Real(client, _) => {
                let body = serde_json::to_vec(&object)?;
                let request = Request::post(path(plural, &object)).body(body)?;
                client.request::<Value>(request).await?;
                if let ("pods", Some(status)) = (plural, object.get("status")) {
                    let name = object["metadata"]["name"].as_str().unwrap_or_default();
                    let path = format!("{}/{name}/status", path(plural, &object));
                    merge(client, path, &json!({"status": status})).await?;
                }
            }
        }
        Ok(())
    }

    /// Moves an endpoint of a Service.
    pub(crate) async fn change(&self, size: Size, change: u32) -> Result<(), Failure> {
        let object = slice(size, size.service_of(change), Some(change));
        match self {
            Self::Own(server, _) => server.put("endpointslices", object),
            Self::Real(client, _) => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let path = format!("{}/{name}", path("endpointslices", &object));
                merge(client, path, &json!({"endpoints": object["endpoints"]})).await?;
            }
        }
        Ok(())
    }
}

fn path(plural: &str, object: &Value) -> String {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let root = if version.contains('/') { "apis" } else { "api" };
    format!("/{root}/{version}/namespaces/default/{plural}")
}

async fn merge(client: &Client, path: String, patch: &Value) -> Result<(), Failure> {
    let request = Request::builder()
        .method(Method::PATCH)
        .uri(path)
        .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
        .body(serde_json::to_vec(patch)?)?;
    client.request::<Value>(request).await?;
    Ok(())
}
