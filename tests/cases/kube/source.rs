//! The source: what is applied with `kubectl` is what the controller knows, whatever happens to the server.

use super::{client, define_smi, with_runtime};
use anyhow::{Result, ensure};
use harness::eventually;
use harness::kube::Kube;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::mpsc;
use weft_control::index::Index;
use weft_control::manifest::{Kind, Object, ObjectKey};
use weft_control::smi::Groups;
use weft_control::views::{self, Mesh, ViewKey};

pub(super) fn comes_again() -> Result<()> {
    let kube = Kube::up()?;
    kube.apply("apiVersion: v1\nkind: ServiceAccount\nmetadata: { name: web }\n")?;
    kube.kill_api();
    ensure!(
        kube.kubectl(&["get", "--raw", "/readyz"]).is_err(),
        "killed"
    );
    kube.start_api()?;
    let found = kube.get(&["serviceaccount", "web"])?;
    ensure!(found["metadata"]["name"] == "web", "{found}");
    let web = "--as=system:serviceaccount:default:web";
    let may = kube.kubectl(&["auth", "can-i", "list", "pods", web]);
    ensure!(may.is_err(), "an account may do nothing by itself: {may:?}");
    Ok(())
}

const SERVICE: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: web }
spec:
  clusterIP: 10.96.0.80
  selector: { app: web }
  ports: [{ name: http, port: 80, targetPort: web }]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: web-1, labels: { kubernetes.io/service-name: web } }
addressType: IPv4
ports: [{ name: http, port: 8080 }]
endpoints:
  - { addresses: [10.1.0.1], zone: a, conditions: { ready: true } }
  - { addresses: [10.1.0.2], zone: b, conditions: { ready: false } }
---
apiVersion: v1
kind: Pod
metadata: { name: web-1, labels: { app: web } }
spec: { containers: [{ name: app, image: example }] }
"#;

const SMI: &str = r#"
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: { name: web }
spec: { service: web, backends: [{ service: web, weight: 1 }] }
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: { name: routes }
spec: { matches: [{ name: all, pathRegex: /.* }] }
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: { name: tcp }
spec: {}
"#;

pub(super) fn objects() -> Result<()> {
    followed(story)
}

pub(super) fn forgotten() -> Result<()> {
    followed(compacted)
}

/// A server, and an index that follows it.
fn followed(story: fn(&Kube, &Index) -> Result<()>) -> Result<()> {
    let kube = Kube::up()?;
    with_runtime(async {
        let index = Arc::new(Index::new(Mesh::default(), []));
        let (tx, mut events) = mpsc::channel(16);
        let _source = weft_control::source::kube::watch(
            client(&kube.kubeconfig()).await?,
            Groups::Current,
            tx,
            Arc::default(),
        );
        let taker = index.clone();
        tokio::spawn(async move {
            while let Some(batch) = events.recv().await {
                taker.apply(batch);
            }
        });
        // Waits in a thread of its own, so that the source can go on.
        tokio::task::spawn_blocking(move || story(&kube, &index)).await?
    })
}

/// Is the object there, and is what is said of it so?
fn has(index: &Index, kind: Kind, name: &str) -> bool {
    let key = ObjectKey::new(kind, "default", name);
    index.read(|world| world.object(&key).is_some())
}

fn becomes(what: &str, condition: impl Fn() -> bool) -> Result<()> {
    eventually(what, || {
        ensure!(condition(), "not yet");
        Ok(())
    })
}

fn weight(index: &Index) -> Option<u32> {
    let key = ObjectKey::new(Kind::TrafficSplit, "default", "web");
    index.read(|world| match &world.object(&key)?.object {
        Object::TrafficSplit(split) => u32::try_from(split.backends[0].weight).ok(),
        _ => None,
    })
}

fn endpoints(index: &Index) -> String {
    let key = ViewKey::Endpoints("default/web:80".into());
    format!("{:?}", index.read(|world| views::compute(world, &key).0))
}

fn story(kube: &Kube, index: &Index) -> Result<()> {
    becomes("kinds that nobody defined do not hold up the start", || {
        *index.synced().borrow()
    })?;
    kube.apply(SERVICE)?;
    let status = json!({"phase": "Running", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}]});
    kube.set_status(&["pod", "web-1"], &status)?;
    becomes("the endpoint that is ready serves", || {
        let endpoints = endpoints(index);
        endpoints.contains("10.1.0.1:8080") && endpoints.contains("web-1")
    })?;
    ensure!(
        !endpoints(index).contains("10.1.0.2"),
        "{}",
        endpoints(index)
    );

    define_smi(kube)?;
    // What is established is served a moment later.
    eventually("objects of the kinds are taken", || {
        kube.apply(SMI).map(drop)
    })?;
    becomes("kinds are taken up when they are defined", || {
        has(index, Kind::TrafficSplit, "web")
            && has(index, Kind::HttpRouteGroup, "routes")
            && has(index, Kind::TcpRoute, "tcp")
    })?;

    // A field that cannot be read is named, and what was valid stays (D37).
    kube.apply(&SMI.replace("weight: 1", "weight: many"))?;
    becomes("the problem is told", || {
        let problems = index.problems();
        problems.iter().any(|problem| {
            problem.object.as_deref() == Some("TrafficSplit default/web")
                && problem.field.as_deref() == Some("spec.backends[0].weight")
        })
    })?;
    ensure!(
        weight(index) == Some(1),
        "the last valid state stays in force"
    );

    kube.kill_api();
    kube.start_api()?;
    ensure!(
        has(index, Kind::Service, "web"),
        "nothing is given up while the server is away"
    );
    eventually("the kinds are served again", || {
        kube.apply(&SMI.replace("weight: 1", "weight: 7")).map(drop)
    })?;
    becomes("the watch goes on after the server was killed", || {
        weight(index) == Some(7)
    })?;
    becomes("nothing is wrong any more", || {
        !index
            .problems()
            .iter()
            .any(|problem| problem.field.as_deref() == Some("spec.backends[0].weight"))
    })?;
    kube.kubectl(&[
        "delete",
        "trafficsplit/web",
        "service/web",
        "pod/web-1",
        "--grace-period=0",
        "--force",
    ])?;
    becomes("what is deleted is gone", || {
        !has(index, Kind::TrafficSplit, "web")
            && !has(index, Kind::Service, "web")
            && !has(index, Kind::Pod, "web-1")
    })
}

/// `/registry/services/specs/default/other`, where the API server keeps that Service in etcd.
const OTHER_IN_ETCD: &str = "L3JlZ2lzdHJ5L3NlcnZpY2VzL3NwZWNzL2RlZmF1bHQvb3RoZXI=";

/// What happens while the server is away and is forgotten by etcd before it is back: no watch can tell it, a list must.
fn compacted(kube: &Kube, index: &Index) -> Result<()> {
    let service = |name: &str| {
        let head = format!("apiVersion: v1\nkind: Service\nmetadata: {{ name: {name} }}\n");
        kube.apply(&(head + "spec: { ports: [{ port: 80 }] }\n"))
    };
    ["web", "other"]
        .into_iter()
        .try_for_each(|name| service(name).map(drop))?;
    becomes("both are known", || {
        has(index, Kind::Service, "web") && has(index, Kind::Service, "other")
    })?;

    kube.kill_api();
    let deleted = kube.etcd("/v3/kv/deleterange", &json!({"key": OTHER_IN_ETCD}))?;
    ensure!(deleted["deleted"] == "1", "{deleted}");
    // So that the deletion is not even the last thing that is remembered.
    let junk = json!({"key": "eA==", "value": "eA=="});
    let revision = kube.etcd("/v3/kv/put", &junk)?["header"]["revision"].clone();
    kube.etcd(
        "/v3/kv/compaction",
        &json!({"revision": revision, "physical": true}),
    )?;
    let before = json!({"key": "eA==", "revision": 2});
    ensure!(
        kube.etcd("/v3/kv/range", &before).is_err(),
        "it is forgotten"
    );
    ensure!(
        has(index, Kind::Service, "other"),
        "nothing is given up while the server is away"
    );

    kube.start_api()?;
    becomes("what is gone is noticed by listing again", || {
        !has(index, Kind::Service, "other") && has(index, Kind::Service, "web")
    })?;
    service("third")?;
    becomes("and the watch goes on", || {
        has(index, Kind::Service, "third") && has(index, Kind::Service, "web")
    })
}
