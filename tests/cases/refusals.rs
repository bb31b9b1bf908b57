//! Certificates that are no good: each is refused by its own reason, whoever shows it.

use crate::Case;
use anyhow::ensure;
use harness::roots::{Certificate, shake};
use harness::{Access, Mesh, echo, eventually};
use std::path::Path;
use std::time::{Duration, SystemTime};
use weft_control::ca::Ca;
use weft_control::state::StateDir;

pub(crate) const CASES: &[Case] = &[
    (
        "each_wrong_caller_is_refused_by_its_own_reason",
        &["curl", "openssl"],
        callers,
    ),
    (
        "each_wrong_server_is_refused_by_its_own_reason",
        &["curl", "openssl"],
        servers,
    ),
];

const HOUR: Duration = Duration::from_secs(3600);

/// What is wrong with a certificate.
#[derive(Clone, Copy)]
enum Wrong {
    Nothing,
    Expired,
    NotYetValid,
    OtherCa,
    OtherAccount,
}

/// Makes a certificate for `account` in files called `name`, and says what is wrong with it.
fn make(mesh: &Mesh, folder: &Path, name: &str, account: &str, wrong: Wrong) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let state = match wrong {
        Wrong::OtherCa => folder.join("other"),
        _ => mesh.state().join("control"),
    };
    let ca = Ca::open_or_create(&StateDir::open(&state)?, "cluster.local")?;
    Certificate {
        ca: &ca,
        account: match wrong {
            Wrong::OtherAccount => "somebody",
            _ => account,
        },
        from: match wrong {
            Wrong::Expired => now - 2 * HOUR,
            Wrong::NotYetValid => now + 2 * HOUR,
            _ => now,
        },
        ttl: HOUR,
    }
    .write(folder, name)
}

/// Connections refused for a reason by the proxy of a workload.
fn refused(mesh: &Mesh, workload: &str, reason: &str) -> anyhow::Result<f64> {
    let labels = [("reason", reason), ("audit", "false")];
    Ok(mesh
        .metrics(workload)?
        .sum("weft_policy_denied_total", &labels))
}

fn callers() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Permissive, &[&echo("web", 1), &echo("client", 1)])?;
    mesh.answers("client", "http://web:8080/", 200)?;
    let scratch = tempfile::tempdir()?;
    let table = [
        (Some(("expired", Wrong::Expired)), "tls_expired"),
        (Some(("early", Wrong::NotYetValid)), "tls_not_yet_valid"),
        (Some(("foreign", Wrong::OtherCa)), "tls_unknown_ca"),
        (None, "tls_absent"),
    ];
    for (shown, reason) in table {
        let name = match shown {
            Some((name, wrong)) => {
                make(&mesh, scratch.path(), name, "client", wrong)?;
                Some(name)
            }
            None => None,
        };
        ensure!(refused(&mesh, "web", reason)? == 0.0, "{reason} too early");
        shake(&mesh, scratch.path(), name)?;
        eventually(reason, || {
            ensure!(refused(&mesh, "web", reason)? == 1.0, "not counted");
            let log = mesh.logs("web", "weft-proxy")?;
            ensure!(log.contains(reason), "not in the log");
            Ok(())
        })?;
    }
    make(&mesh, scratch.path(), "good", "client", Wrong::Nothing)?;
    shake(&mesh, scratch.path(), Some("good"))?;
    for (_, reason) in table {
        ensure!(refused(&mesh, "web", reason)? == 1.0, "{reason} again");
    }
    mesh.answers("client", "http://web:8080/", 200)
}

/// A Deployment without a proxy that the controller takes for one with; it shows the certificate called like itself.
fn impostor(folder: &Path, name: &str) -> String {
    let folder = folder.display();
    let serve = format!(
        "while sleep 0.1; do openssl s_server -accept 8080 -quiet -tls1_3 -alpn weft-http/1,weft-h2 -certform DER -keyform DER \
         -cert {folder}/{name}.leaf -key {folder}/{name}.key -cert_chain {folder}/{name}.issuer; done"
    );
    format!(
        r#"apiVersion: v1
kind: ServiceAccount
metadata: {{ name: {name} }}
---
apiVersion: v1
kind: Service
metadata: {{ name: {name} }}
spec: {{ selector: {{ app: {name} }}, ports: [{{ name: http, port: 8080 }}] }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {name} }}
spec:
  selector: {{ matchLabels: {{ app: {name} }} }}
  template:
    metadata:
      labels: {{ app: {name} }}
      annotations: {{ weft.mesh/inject: disabled, weft.mesh/injected-at-version: "1" }}
    spec:
      serviceAccountName: {name}
      containers:
        - {{ name: app, image: example, command: [sh, -c, {serve:?}] }}
"#
    )
}

fn servers() -> anyhow::Result<()> {
    let table = [
        ("expired", Wrong::Expired, "tls_expired"),
        ("early", Wrong::NotYetValid, "tls_not_yet_valid"),
        ("foreign", Wrong::OtherCa, "tls_unknown_ca"),
        ("stranger", Wrong::OtherAccount, "tls_wrong_identity"),
    ];
    let scratch = tempfile::tempdir()?;
    let impostors = table.map(|(name, ..)| impostor(scratch.path(), name));
    let mut manifests: Vec<&str> = impostors.iter().map(String::as_str).collect();
    let client = echo("client", 1);
    manifests.push(&client);
    let mesh = Mesh::up(Access::Permissive, &manifests)?;
    for (name, wrong, reason) in table {
        make(&mesh, scratch.path(), name, name, wrong)?;
        let url = format!("http://{name}:8080/");
        eventually(reason, || {
            let answer = mesh.curl("client", &url, &[])?;
            ensure!(answer.status == 502, "{answer:?}");
            let error = answer.header("weft-error");
            ensure!(error == Some("E108 peer-identity"), "{answer:?}");
            ensure!(refused(&mesh, "client", reason)? >= 1.0, "not counted");
            let log = mesh.logs("client", "weft-proxy")?;
            ensure!(log.contains(reason), "not in the log");
            Ok(())
        })?;
    }
    Ok(())
}
