//! The mesh itself, as on a virtual machine: a folder of manifests, the controller, a token to each side, the rules, two proxies.
//! Access is strict: what no TrafficTarget allows is refused, so every request is judged.

use crate::peers::{Peer, Proxy};
use crate::process::{Process, eventually, output};
use crate::world::{CLIENT, PORTS, Pods, SERVER, SERVICE, Side, privileged};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use weft_proxy_api::names::{PROXY_MARK, ports, proxy_env as env};

/// Programs of the mesh.
pub(crate) const PROGRAMS: [&str; 4] = ["weft-proxy", "weft-init", "weft-control", "meshctl"];

fn manifests() -> String {
    let [http1, http2, bytes] = PORTS;
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: client, namespace: bench }}
spec: {{ serviceAccountName: client, containers: [] }}
status: {{ podIP: {CLIENT} }}
---
apiVersion: v1
kind: Pod
metadata: {{ name: server, namespace: bench, labels: {{ app: server }} }}
spec: {{ serviceAccountName: server, containers: [] }}
status: {{ podIP: {SERVER} }}
---
apiVersion: v1
kind: Service
metadata: {{ name: server, namespace: bench }}
spec:
  clusterIP: {SERVICE}
  selector: {{ app: server }}
  ports: [{{ name: one, port: {http1} }}, {{ name: two, port: {http2} }}, {{ name: bytes, port: {bytes} }}]
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {{ name: ports, namespace: bench }}
spec: {{ matches: {{ ports: [{bytes}, {http1}, {http2}] }} }}
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {{ name: client-to-server, namespace: bench }}
spec:
  destination: {{ kind: ServiceAccount, name: server }}
  rules: [{{ kind: TCPRoute, name: ports }}]
  sources: [{{ kind: ServiceAccount, name: client }}]
"
    )
}

fn others_manifests(count: usize) -> String {
    let service = |n: usize| {
        let (high, low) = (n / 250, n % 250 + 1);
        let pod = |k: usize| {
            format!(
                "apiVersion: v1
kind: Pod
metadata: {{ name: other-{n}-{k}, namespace: bench, labels: {{ app: other-{n} }} }}
spec: {{ serviceAccountName: other-{n}, containers: [] }}
status: {{ podIP: 10.{}.{high}.{low} }}
---
",
                78 + k
            )
        };
        format!(
            "apiVersion: v1
kind: Service
metadata: {{ name: other-{n}, namespace: bench }}
spec: {{ clusterIP: 10.88.{high}.{low}, selector: {{ app: other-{n} }}, ports: [{{ name: http, port: 80 }}] }}
---
{}{}{}",
            pod(0),
            pod(1),
            pod(2)
        )
    };
    (0..count).map(service).collect()
}

/// Writes the rules in both pods; the very program a pod's init container runs.
pub(crate) fn redirect(pods: &Pods, programs: &Path) -> anyhow::Result<()> {
    for side in [Side::Client, Side::Server] {
        let mut init = pods.exec(side, &programs.join("weft-init").display().to_string());
        init.args(["--skip-inbound-ports", &ports::CONTROL.to_string()]);
        if !privileged() {
            init.args(["--proxy-mark", &PROXY_MARK.to_string()]);
        }
        output(&mut init)?;
    }
    Ok(())
}

/// `others`: so many more Services are known, with three endpoints each that nobody calls.
pub(crate) fn up(
    peer: &mut Peer,
    programs: &Path,
    workers: usize,
    others: usize,
) -> anyhow::Result<()> {
    let folder = peer.folder.join("manifests");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("mesh.yaml"), manifests())?;
    if others > 0 {
        std::fs::write(folder.join("others.yaml"), others_manifests(others))?;
    }
    let program = |name: &str| programs.join(name).display().to_string();
    let at = format!("{SERVER}:{}", ports::CONTROL);
    let mut control = peer.pods.exec(Side::Server, &program("weft-control"));
    control
        .arg("--dir")
        .arg(&folder)
        .args(["--access", "strict", "--listen", &at]);
    peer.others.push(Process::start(
        &mut control,
        &peer.folder.join("control.log"),
    )?);
    let anchors = folder.join(".weft/trust-anchors.pem");
    eventually(
        "the controller makes its keys",
        Duration::from_secs(20),
        || {
            anyhow::ensure!(std::fs::metadata(&anchors)?.len() > 0, "empty");
            Ok(())
        },
    )?;
    let roots = peer.folder.join("roots.pem");
    std::fs::copy(&anchors, &roots)?;
    for name in ["client", "server"] {
        let mut token = Command::new(program("meshctl"));
        let token = output(
            token
                .args(["token", &format!("bench/{name}"), "--dir"])
                .arg(&folder),
        )?;
        std::fs::write(peer.folder.join(format!("{name}.token")), token)?;
    }
    redirect(&peer.pods, programs)?;
    let proxy = |name: &'static str| {
        let environment = vec![
            (env::WORKLOAD.to_owned(), format!("bench/{name}")),
            (env::CONTROL_ADDR.to_owned(), at.clone()),
            (
                env::TOKEN_FILE.to_owned(),
                peer.folder
                    .join(format!("{name}.token"))
                    .display()
                    .to_string(),
            ),
            (
                env::TRUST_ANCHORS_FILE.to_owned(),
                roots.display().to_string(),
            ),
            (env::WORKERS.to_owned(), workers.to_string()),
        ];
        let mark = (!privileged()).then(|| (env::MARK.to_owned(), PROXY_MARK.to_string()));
        Proxy::new(
            vec![program("weft-proxy")],
            environment.into_iter().chain(mark).collect(),
            peer.folder.join(format!("{name}.log")),
        )
    };
    let (server, client) = (proxy("server"), proxy("client"));
    peer.server = Some(server.start(&peer.pods, Side::Server)?);
    peer.client = Some(client.start(&peer.pods, Side::Client)?);
    peer.program = Some(programs.join("weft-proxy"));
    Ok(())
}
