//! A local mesh whose controller takes its objects from an API server.

use super::define_smi;
use anyhow::{Result, ensure};
use harness::kube::{Kube, Options, mirror};
use harness::{Access, Mesh, echo, eventually, split};
use std::time::{Duration, Instant};

/// A node, and the API server on it that its controller takes its objects from.
pub(super) struct Node {
    pub(super) mesh: Mesh,
    pub(super) kube: Kube,
    /// Words before a command that runs on the node.
    pub(super) prefix: Vec<String>,
    _folder: tempfile::TempDir,
}

/// Starts both, with these manifests on the node and this environment of its controller, and waits until every pod is
/// ready.
pub(super) fn node(manifests: &[&str], environment: &[(&str, &str)]) -> Result<Node> {
    let folder = tempfile::tempdir()?;
    let kubeconfig = folder.path().join("kubeconfig");
    let mesh = Mesh::start_with(Access::Permissive, manifests, |options| {
        options.kubeconfig = Some(kubeconfig.clone());
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        options.control_env.extend(environment.iter().map(owned));
    })?;
    // The server runs on the node: what its pods and its controller reach is what we reach.
    let meshctl = harness::program("meshctl")?.display().to_string();
    let state = mesh.client().state().display().to_string();
    let words = [&meshctl, "local", "--state", &state, "exec", "node", "--"];
    let prefix: Vec<String> = words.map(str::to_owned).to_vec();
    let kube = Kube::up_with(Options {
        prefix: prefix.clone(),
        service_range: "10.43.0.0/16,fd43::/112".into(),
        ..Options::default()
    })?;
    define_smi(&kube)?;
    eventually("the node's pods are in the API server", || {
        mirror(&kube, &mesh)
    })?;
    std::fs::copy(kube.kubeconfig(), &kubeconfig)?;
    mesh.client().start_control()?;
    eventually("pods are ready, and known to be", || {
        mesh.client().wait(Duration::from_millis(100))?;
        mirror(&kube, &mesh)
    })?;
    Ok(Node {
        mesh,
        kube,
        prefix,
        _folder: folder,
    })
}

pub(super) fn obeys() -> Result<()> {
    let root = "apiVersion: v1\nkind: Service\nmetadata: { name: web }\nspec:\n  selector: { app: web-v1 }\n  ports:\n    - { name: http, port: 8080 }\n";
    let manifests = [
        root,
        &echo("web-v1", 1),
        &echo("web-v2", 1),
        &echo("client", 1),
    ];
    let Node { mesh, kube, .. } = &node(&manifests, &[])?;
    mesh.answers("client", "http://web:8080/", 200)?;

    let second = mesh.pod("web-v2")?.name;
    let serves = |name: &str| -> Result<bool> {
        let answer = mesh.curl("client", "http://web:8080/", &[])?;
        ensure!(
            answer.status == 200,
            "no request fails meanwhile: {answer:?}"
        );
        Ok(answer.body.contains(name))
    };
    ensure!(!serves(&second)?, "nothing leads to web-v2 yet");
    kube.apply(&split("web", &[("web-v1", 0), ("web-v2", 1)]))?;
    let applied = Instant::now();
    while !serves(&second)? {
        ensure!(
            applied.elapsed() < harness::PATIENCE,
            "the split is not obeyed"
        );
    }
    eprintln!("obeyed {:?} after kubectl ended", applied.elapsed());
    kube.kubectl(&["delete", "trafficsplit", "web"])?;
    eventually("without the split the root serves", || {
        ensure!(!serves(&second)?);
        Ok(())
    })
}
