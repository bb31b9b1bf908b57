//! Who may look at the traffic is said by the rights of the API server's users.

use super::mesh::{Node, node};
use anyhow::{Context, Result, ensure};
use harness::{echo, eventually, program};
use std::process::Command;
use weft_proxy_api::names::ports;

/// `ops` may see figures of the mesh, and single requests of namespace `default`.
const RIGHTS: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: { name: ops }
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: nobody }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: traffic }
rules: [{ apiGroups: [weft.mesh], resources: [traffic], verbs: [get] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: traffic }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: traffic }
subjects: [{ kind: ServiceAccount, name: ops, namespace: default }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: tap }
rules: [{ apiGroups: [weft.mesh], resources: [pods/tap], verbs: [watch] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: tap }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: tap }
subjects: [{ kind: ServiceAccount, name: ops, namespace: default }]
"#;

pub(super) fn permitted() -> Result<()> {
    let manifests = [echo("web", 1), echo("client", 1)];
    let node = node(&[&manifests[0], &manifests[1]], &[])?;
    node.mesh.answers("client", "http://web:8080/", 200)?;
    node.kube.apply(RIGHTS)?;
    let stat = ["stat", "deploy/web", "-t", "start"];
    let (code, text) = eventually("ops sees figures", || {
        let (code, text) = meshctl(&node, "ops", &stat)?;
        ensure!(code == 0, "{code}: {text}");
        Ok((code, text))
    })?;
    ensure!(text.contains("SUCCESS"), "{code}: {text}");
    let tap = ["tap", "deploy/web", "--seconds", "2", "-n", "default"];
    eventually("ops sees requests", || {
        let (code, text) = meshctl(&node, "ops", &tap)?;
        ensure!(code == 0 && text.contains("looking at"), "{code}: {text}");
        Ok(())
    })?;
    for (account, words, why) in [
        (
            "ops",
            &["tap", "-A"][..],
            "may not watch pods/tap of weft.mesh in all namespaces",
        ),
        (
            "ops",
            &["metrics", "--tier", "edges"],
            "may not update pods/metrics",
        ),
        (
            "nobody",
            &stat,
            "system:serviceaccount:default:nobody may not get traffic",
        ),
    ] {
        let (code, text) = meshctl(&node, account, words)?;
        ensure!(code == 1 && text.contains(why), "{words:?}: {code}: {text}");
    }
    let log = node
        .mesh
        .client()
        .log_file("default", "weft-control", None)?;
    let audit = std::fs::read_to_string(log)?;
    ensure!(
        audit.contains("tap: ") && audit.contains("system:serviceaccount:default:ops"),
        "{audit}"
    );
    Ok(())
}

/// `meshctl` with a token of this account, on the node.
fn meshctl(node: &Node, account: &str, words: &[&str]) -> Result<(i32, String)> {
    let token = node.kube.kubectl(&["create", "token", account])?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), token)?;
    let [first, rest @ ..] = node.prefix.as_slice() else {
        anyhow::bail!("no command");
    };
    let control = format!("127.0.0.1:{}", ports::CONTROL_ADMIN);
    let output = Command::new(first)
        .args(rest)
        .arg(program("meshctl")?)
        .args(words)
        .args(["--control", &control, "--token-file"])
        .arg(file.path())
        .output()
        .context("cannot run meshctl")?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Ok((output.status.code().unwrap_or(-1), text))
}
