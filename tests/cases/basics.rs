//! Unmodified applications reach each other through the mesh, and what they said is counted.

use crate::Case;
use anyhow::ensure;
use harness::{Access, Mesh, echo, eventually, program, tcp_server, unmeshed};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

pub(crate) const CASES: &[Case] = &[
    (
        "http_and_tcp_between_meshed_pods",
        &["curl", "nc"],
        between_meshed,
    ),
    ("unmeshed_pods_still_talk", &["curl"], unmeshed_pods),
    ("admin_says_little_and_obeys_only_the_pod", &["curl"], admin),
    ("a_reader_that_leaves_ends_meshctl_quietly", &[], leaves),
];

/// `meshctl … | head -1`: more is printed than a pipe holds.
fn leaves() -> anyhow::Result<()> {
    let mut child = Command::new(program("meshctl")?)
        .args(["completion", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    drop(child.stdout.take());
    let ended = child.wait_with_output()?;
    ensure!(
        ended.status.signal() == Some(nix::libc::SIGPIPE),
        "{ended:?}"
    );
    ensure!(ended.stderr.is_empty(), "{ended:?}");
    Ok(())
}

fn between_meshed() -> anyhow::Result<()> {
    let mesh = Mesh::up(
        Access::Permissive,
        &[
            &echo("web", 2),
            &echo("client", 1),
            &tcp_server("bytes", "tcp"),
        ],
    )?;
    mesh.answers("client", "http://web:8080/", 200)?;
    let before = mesh.metrics("client")?.sum("weft_requests_total", REQUESTS);
    for (options, version) in [(&[][..], "1"), (&["--http2-prior-knowledge"][..], "2")] {
        let answer = mesh.curl("client", "http://web:8080/hello?q=1", options)?;
        ensure!(answer.status == 200, "{answer:?}");
        let echo = answer.echo();
        ensure!(
            echo["version"] == version
                && echo["uri"]
                    .as_str()
                    .is_some_and(|uri| uri.ends_with("/hello?q=1")),
            "{echo}"
        );
        let id = "spiffe://cluster.local/ns/default/sa/client";
        ensure!(
            echo["headers"].to_string().contains(id),
            "the application is told who calls: {echo}"
        );
    }
    eventually("half-close works both ways", || {
        let bytes = mesh.exec(
            "client",
            &["sh", "-c", "printf hello | timeout 60 nc -N bytes 7000"],
        )?;
        ensure!(bytes.stdout == b"hellobye\n", "{bytes:?}");
        Ok(())
    })?;

    let pods = mesh.pods("web")?;
    eventually("two requests are counted at both ends", || {
        let outbound = mesh.metrics("client")?;
        let secured = outbound.sum("weft_requests_total", REQUESTS);
        ensure!(
            secured == before + 2.0,
            "{secured} under mutual TLS, {before} of them before"
        );
        let mut inbound = 0.0;
        for pod in &pods {
            let peer = [
                ("direction", "inbound"),
                ("tls", "true"),
                ("peer_workload", "sa/client"),
            ];
            inbound += mesh.metrics_of(pod)?.sum("weft_requests_total", &peer);
        }
        ensure!(inbound == secured, "the other side counted {inbound}");
        let streams = [("service", "default/bytes:7000"), ("tls", "true")];
        ensure!(outbound.sum("weft_tcp_streams_total", &streams) >= 1.0);
        Ok(())
    })
}

/// What the client's proxy counts of its calls to web.
const REQUESTS: &[(&str, &str)] = &[
    ("direction", "outbound"),
    ("tls", "true"),
    ("service", "default/web:8080"),
];

fn unmeshed_pods() -> anyhow::Result<()> {
    let old = unmeshed("old", &["echo", "8080"], 8080);
    let mesh = Mesh::up(Access::Permissive, &[&echo("web", 1), &old])?;
    mesh.answers("old", "http://web:8080/", 200)?;
    mesh.answers("web", "http://old:8080/", 200)?;
    let answer = mesh.curl("web", "http://old:8080/", &[])?;
    ensure!(
        answer.status == 200 && !answer.body.contains("weft-client-id"),
        "{answer:?}"
    );
    let metrics = mesh.metrics("web")?;
    ensure!(
        metrics.sum(
            "weft_requests_total",
            &[("direction", "outbound"), ("tls", "false")]
        ) >= 1.0
    );
    Ok(())
}

fn admin() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Permissive, &[&echo("web", 1), &echo("client", 1)])?;
    let web = mesh.pod("web")?.ips[0];
    let admin = |path: &str| format!("http://{web}:4191{path}");
    for path in ["/live", "/ready"] {
        ensure!(
            mesh.curl("web", &format!("http://127.0.0.1:4191{path}"), &[])?
                .status
                == 200,
            "{path}"
        );
    }
    ensure!(
        mesh.node(&["curl", "-sf", &admin("/metrics")])?.code == 0,
        "a scraper reads metrics"
    );
    for (method, path) in [
        ("GET", "/config"),
        ("POST", "/shutdown"),
        ("PUT", "/log-level"),
    ] {
        let refused = mesh.node(&[
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-X",
            method,
            &admin(path),
        ])?;
        ensure!(
            refused.stdout == b"403",
            "{path} from outside the pod: {refused:?}"
        );
    }
    let config = mesh.curl("web", "http://127.0.0.1:4191/config", &[])?;
    ensure!(
        config.status == 200 && !config.body.contains("PRIVATE KEY"),
        "{config:?}"
    );
    ensure!(
        mesh.curl("web", "http://127.0.0.1:4191/shutdown", &[])?
            .status
            == 405,
        "a GET changes nothing"
    );
    // Nobody is led round the admin port through the proxies.
    let answer = mesh.curl("client", &format!("http://{web}:4143/"), &[])?;
    ensure!(answer.status != 200, "{answer:?}");
    eventually("the pod is still there", || {
        ensure!(mesh.curl("client", "http://web:8080/", &[])?.status == 200);
        Ok(())
    })
}
