//! The controller, certificates and roots.

use super::{Look, ROW, Row, inside, kill, sum};
use crate::promise::Promise::{AtLeast, AtMost, Closed, Lost, LostNotBefore, Recovered};
use anyhow::ensure;
use harness::{Access, Mesh, allow_all, echo, roots};
use std::path::PathBuf;

const TTL: &str = "WEFT_CONTROL_CERT_TTL";

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "1",
        fault: "controller killed (-9), stays away",
        promises: &[Lost(0)],
        full: 600,
        inject: |mesh, _| mesh.client().signal_control(9),
        heal: |mesh| mesh.client().start_control(),
        ..ROW
    },
    Row {
        name: "2",
        fault: "controller frozen (STOP)",
        promises: &[Lost(0)],
        inject: |mesh, _| mesh.client().signal_control(19),
        heal: |mesh| mesh.client().signal_control(18),
        ..ROW
    },
    Row {
        name: "7",
        fault: "strict access; controller killed, then the server's proxy starts without it",
        promises: &[Closed(500), Recovered(15_000)],
        access: Access::Strict,
        manifests: || {
            vec![
                echo("web", 1),
                echo("client", 1),
                allow_all("client", "web"),
            ]
        },
        inject: |mesh, _| {
            mesh.client().signal_control(9)?;
            kill(mesh, "web", "weft-proxy", "KILL")
        },
        heal: |mesh| {
            stranger_is_refused(mesh)?;
            mesh.client().start_control()
        },
        after: 20,
        ..ROW
    },
    Row {
        name: "8",
        fault: "certificates of 20 s, controller killed until they have ended; connections from before go on, new ones are refused",
        promises: &[
            LostNotBefore(4_000),
            Recovered(20_000),
            AtMost("requests in plain text", 0.0),
        ],
        control_env: &[(TTL, "20s")],
        manifests: || vec![echo("web", 3), echo("other", 1), echo("client", 1)],
        prepare: |mesh| mesh.answers("client", "http://other:8080/", 200),
        short: 40,
        inject: |mesh, _| mesh.client().signal_control(9),
        heal: |mesh| {
            nothing_new(mesh)?;
            mesh.client().start_control()
        },
        after: 30,
        look: |mesh| {
            let labels = [("direction", "inbound"), ("tls", "false")];
            let plain = sum(mesh, "web", "weft_requests_total", &labels)?;
            Ok(vec![("requests in plain text", plain)])
        },
        ..ROW
    },
    Row {
        name: "renewal",
        fault: "certificates of 20 s, renewed under load",
        promises: &[Lost(0), AtLeast("renewals of one proxy", 4.0)],
        control_env: &[(TTL, "20s")],
        short: 60,
        full: 300,
        look: |mesh| {
            let name = "weft_identity_renewals_total";
            let all = sum(mesh, "client", name, &[("result", "ok")])?;
            Ok(vec![("renewals of one proxy", all)])
        },
        ..ROW
    },
    Row {
        name: "11",
        fault: "root replaced (old, both, new)",
        promises: &[Lost(0), AtLeast("old root refused", 1.0)],
        short: 40,
        full: 40,
        inject: |mesh, _| {
            std::fs::create_dir_all(shown(mesh))?;
            let state = mesh.state().join("control");
            roots::certificate(&state, &shown(mesh), "old")?;
            roots::shake(mesh, &shown(mesh), Some("old"))?;
            ensure!(refused(mesh)?[0].1 == 0.0, "the old root was refused early");
            roots::replace(mesh)
        },
        heal: |mesh| roots::shake(mesh, &shown(mesh), Some("old")),
        look: refused,
        ..ROW
    },
];

fn shown(mesh: &Mesh) -> PathBuf {
    mesh.state().with_file_name("shown")
}

fn refused(mesh: &Mesh) -> anyhow::Result<Look> {
    let labels = [("reason", "tls_unknown_ca")];
    let all = sum(mesh, "web", "weft_policy_denied_total", &labels)?;
    Ok(vec![("old root refused", all)])
}

/// Without a certificate there are no new connections between proxies, and nobody says that all is well.
fn nothing_new(mesh: &Mesh) -> anyhow::Result<()> {
    kill(mesh, "other", "weft-proxy", "KILL")?;
    let answer = mesh.curl("client", "http://other:8080/", &[])?;
    ensure!(answer.status >= 500 || answer.status == 0, "{answer:?}");
    let ready = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:4191/ready";
    let ready = inside(mesh, &mesh.pod("client")?, ready)?;
    ensure!(ready != "200", "still ready: {ready}");
    Ok(())
}

/// Nobody from outside the mesh gets an answer from the server's own address.
fn stranger_is_refused(mesh: &Mesh) -> anyhow::Result<()> {
    let answer = mesh.ask(&mesh.pod("web")?, 8080, "/");
    ensure!(answer.is_err(), "a stranger was answered: {answer:?}");
    Ok(())
}
