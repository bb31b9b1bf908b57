//! Who a token stands for, asked of the API server by an account that may do no more than our rules allow.

use super::{client, with_runtime};
use anyhow::{Result, ensure};
use harness::PATIENCE;
use harness::kube::Kube;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};
use weft_control::ca::Ca;
use weft_control::kube::{Client, rbac, review::Reviewer, secret};
use weft_control::pod_ref::PodRef;
use weft_control::state::StateDir;
use weft_control::token::TokenError;
use weft_proxy_api::names::{CONTROL_ACCOUNT, SYSTEM_NAMESPACE, inject::TOKEN_AUDIENCE};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const POD: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: { name: web }
---
apiVersion: v1
kind: Pod
metadata: { name: web-1 }
spec: { serviceAccountName: web, containers: [{ name: app, image: example }] }
"#;

/// The controller's account with the rules that an installation gives it.
pub(super) fn account(kube: &Kube) -> Result<()> {
    let rbac = rbac::rbac();
    let api = "rbac.authorization.k8s.io";
    let bound = |kind: &str, role: &str, namespace: Value| {
        json!({
            "apiVersion": format!("{api}/v1"), "kind": kind,
            "metadata": {"name": CONTROL_ACCOUNT, "namespace": namespace},
            "roleRef": {"apiGroup": api, "kind": role, "name": CONTROL_ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", "name": CONTROL_ACCOUNT, "namespace": SYSTEM_NAMESPACE}],
        })
    };
    let role = |kind: &str, namespace: Value, rules: Value| {
        json!({
            "apiVersion": format!("{api}/v1"), "kind": kind, "rules": rules,
            "metadata": {"name": CONTROL_ACCOUNT, "namespace": namespace},
        })
    };
    let own = json!(SYSTEM_NAMESPACE);
    let items = json!([
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": CONTROL_ACCOUNT, "namespace": SYSTEM_NAMESPACE}},
        role("ClusterRole", Value::Null, json!(rbac.cluster)),
        role("Role", own.clone(), json!(rbac.own_namespace)),
        bound("ClusterRoleBinding", "ClusterRole", Value::Null),
        bound("RoleBinding", "Role", own),
    ]);
    kube.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())?;
    Ok(())
}

pub(super) fn review() -> Result<()> {
    let kube = Kube::up()?;
    account(&kube)?;
    kube.apply(POD)?;
    let kubeconfig = kube.kubeconfig_of(SYSTEM_NAMESPACE, CONTROL_ACCOUNT)?;
    with_runtime(async {
        let client = client(&kubeconfig).await?;
        tokens(&kube, &Reviewer::new(client.clone())).await?;
        authority(client).await
    })
}

async fn tokens(kube: &Kube, reviewer: &Reviewer) -> Result<()> {
    let token = |audience: &str, pod: Option<&str>| kube.token("default", "web", audience, pod);
    let good = token(TOKEN_AUDIENCE, Some("web-1"))?;
    // The rights of the account are in force a moment after they were written.
    let asked = Instant::now();
    let proven = loop {
        match reviewer.verify(&good, HERE).await {
            Ok(proven) => break proven,
            Err(error) => ensure!(asked.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let pod = kube.get(&["pod", "web-1"])?;
    ensure!(
        proven.pod == PodRef::new("default", "web-1") && proven.account == "web",
        "{proven:?}"
    );
    ensure!(
        proven.uid.as_deref() == pod["metadata"]["uid"].as_str(),
        "{proven:?}"
    );
    let refused = [
        (
            token("https://elsewhere", Some("web-1"))?,
            TokenError::Unknown,
        ),
        (token(TOKEN_AUDIENCE, None)?, TokenError::Unbound),
        ("made.up.token".to_owned(), TokenError::Unknown),
    ];
    for (token, reason) in refused {
        ensure!(
            reviewer.verify(&token, HERE).await == Err(reason),
            "{reason}"
        );
    }
    kube.kubectl(&["delete", "pod", "web-1", "--grace-period=0", "--force"])?;
    // The API server remembers for ten seconds whom it has believed.
    let late = client(&kube.kubeconfig()).await?;
    let asked = Instant::now();
    while Reviewer::new(late.clone()).verify(&good, HERE).await != Err(TokenError::Unknown) {
        ensure!(asked.elapsed() < PATIENCE, "a token outlives its pod");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Replicas that start at the same moment end up with one authority, and so does whoever comes later.
async fn authority(client: Client) -> Result<()> {
    let open = |client: Client| async move {
        let folder = tempfile::tempdir()?;
        let state = StateDir::open(folder.path())?;
        secret::fill(client, SYSTEM_NAMESPACE, &state, "cluster.local").await?;
        anyhow::Ok(
            Ca::open_or_create(&state, "cluster.local")?
                .roots()
                .to_vec(),
        )
    };
    let (one, two) = tokio::join!(open(client.clone()), open(client.clone()));
    let (one, two, three) = (one?, two?, open(client).await?);
    ensure!(one == two && two == three, "one authority");
    Ok(())
}
