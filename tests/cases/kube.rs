//! Against a real Kubernetes API server.

use crate::Case;
use anyhow::ensure;
use harness::kube::Kube;

pub(crate) const CASES: &[Case] = &[(
    "an_api_server_of_our_own_starts_and_comes_again",
    &[],
    starts_and_comes_again,
)];

fn starts_and_comes_again() -> anyhow::Result<()> {
    let kube = Kube::up()?;
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: { name: web }\n";
    kube.apply(account)?;
    kube.kill_api();
    ensure!(
        kube.kubectl(&["get", "--raw", "/readyz"]).is_err(),
        "killed"
    );
    kube.start_api()?;
    let found = kube.get(&["serviceaccount", "web"])?;
    ensure!(found["metadata"]["name"] == "web", "{found}");
    // RBAC is on: an account may do nothing by itself.
    let as_web = kube.kubectl(&[
        "auth",
        "can-i",
        "list",
        "pods",
        "--as=system:serviceaccount:default:web",
    ]);
    ensure!(as_web.is_err(), "{as_web:?}");
    Ok(())
}
