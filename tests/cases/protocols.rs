//! Protocols as real clients speak them, and bytes no client should send.

use crate::Case;
use anyhow::ensure;
use harness::{Access, Mesh, allow_all, echo, eventually, tcp_server};

pub(crate) const CASES: &[Case] = &[
    (
        "a_server_that_speaks_first_needs_no_configuration",
        &["nc"],
        server_first,
    ),
    ("ambiguous_http_is_refused", &["nc", "curl"], ambiguous),
    ("junk_on_every_port_harms_nothing", &["nc", "curl"], junk),
    ("large_bodies_both_ways", &["curl"], bodies),
    ("ipv6_is_meshed_too", &["curl"], ipv6),
];

fn server_first() -> anyhow::Result<()> {
    let mesh = Mesh::up(
        Access::Permissive,
        &[&tcp_server("mail", "banner"), &echo("client", 1)],
    )?;
    let streams = || -> anyhow::Result<f64> {
        let streams = [("service", "default/mail:7000"), ("tls", "true")];
        Ok(mesh
            .metrics("client")?
            .sum("weft_tcp_streams_total", &streams))
    };
    let talk = || -> anyhow::Result<()> {
        let script = "exec 3<>/dev/tcp/mail/7000; read -t 60 -r line <&3; echo \"$line\"; echo hi >&3; read -t 60 -r line <&3; echo \"$line\"";
        let talk = mesh.exec("client", &["bash", "-c", script])?;
        let text = String::from_utf8_lossy(&talk.stdout).replace('\r', "");
        ensure!(text == "220 ready\n250 hi\n", "{talk:?}");
        Ok(())
    };
    // Before anybody was told where it leads, and after.
    eventually("the server speaks first", talk)?;
    let before = streams()?;
    talk()?;
    ensure!(
        before >= 1.0 && streams()? == before + 1.0,
        "encrypted all the same"
    );
    Ok(())
}

/// Heads that two parsers could read differently; each must be refused, none may reach the application.
const AMBIGUOUS: &[&str] = &[
    "POST / HTTP/1.1\\r\\nHost: web\\r\\nContent-Length: 5\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n",
    "POST / HTTP/1.1\\r\\nHost: web\\r\\nContent-Length: 5\\r\\nContent-Length: 6\\r\\n\\r\\nhello",
    "GET / HTTP/1.1\\r\\nHost: web\\r\\nHost: other\\r\\n\\r\\n",
    "GET / HTTP/1.1\\r\\n\\r\\n",
    "GET / HTTP/1.1\\r\\nHost: web\\r\\nX: a\\r\\n b\\r\\n\\r\\n",
    "GET / HTTP/1.1\\r\\nHost : web\\r\\n\\r\\n",
    "GET  / HTTP/1.1\\r\\nHost: web\\r\\n\\r\\n",
    "GET /%zz HTTP/1.1\\r\\nHost: web\\r\\n\\r\\n",
    "GET /a%2fb HTTP/1.1\\r\\nHost: web\\r\\n\\r\\n",
    "GET /%00 HTTP/1.1\\r\\nHost: web\\r\\n\\r\\n",
    "GET http://user@web/ HTTP/1.1\\r\\nHost: web\\r\\n\\r\\n",
    "POST / HTTP/1.1\\r\\nHost: web\\r\\nTransfer-Encoding: xchunked\\r\\n\\r\\n0\\r\\n\\r\\n",
    "POST / HTTP/1.1\\r\\nHost: web\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\nZZ\\r\\n\\r\\n",
];

fn ambiguous() -> anyhow::Result<()> {
    let mesh = Mesh::up(
        Access::Strict,
        &[
            &echo("web", 1),
            &echo("client", 1),
            &allow_all("client", "web"),
        ],
    )?;
    eventually("a plain request is served", || {
        ensure!(mesh.curl("client", "http://web:8080/", &[])?.status == 200);
        Ok(())
    })?;
    for head in AMBIGUOUS {
        let script = format!(
            "printf '{}' | timeout 8 nc -N web 8080",
            head.replace('%', "%%")
        );
        let answer = mesh.exec("client", &["bash", "-c", &script])?;
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        ensure!(
            !text.starts_with("HTTP/1.1 200"),
            "{head} was served: {text}"
        );
        ensure!(
            text.is_empty()
                || text.starts_with("HTTP/1.1 4")
                || text.starts_with("HTTP/1.0 4")
                || text.starts_with("HTTP/1.1 502"),
            "{head}: {text}"
        );
    }
    ensure!(
        mesh.curl("client", "http://web:8080/", &[])?.status == 200,
        "and the proxy serves on"
    );
    Ok(())
}

fn junk() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Permissive, &[&echo("web", 1), &echo("client", 1)])?;
    let web = mesh.pod("web")?.ips[0];
    for port in [8080, 4143, 4140, 4191] {
        for source in ["/dev/urandom", "/dev/zero"] {
            let script = format!(
                "head -c 200000 {source} | timeout 10 nc -N -w 3 {web} {port} >/dev/null 2>&1; true"
            );
            mesh.node(&["bash", "-c", &script])?;
            mesh.exec("client", &["bash", "-c", &script])?;
        }
    }
    let control = mesh.client().status()?.control_addr;
    let script = format!(
        "head -c 200000 /dev/urandom | timeout 10 nc -N -w 3 {} {} >/dev/null; true",
        control.ip(),
        control.port()
    );
    mesh.node(&["bash", "-c", &script])?;
    mesh.answers("client", "http://web:8080/", 200)?;
    for pod in mesh.client().pods()? {
        ensure!(
            pod.containers
                .iter()
                .all(|container| container.restarts == 0),
            "nothing was restarted: {pod:?}"
        );
    }
    for workload in ["web", "client"] {
        ensure!(
            !mesh.logs(workload, "weft-proxy")?.contains("panicked"),
            "no panic in the proxy of {workload}"
        );
    }
    Ok(())
}

fn bodies() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Permissive, &[&echo("web", 1), &echo("client", 1)])?;
    mesh.answers("client", "http://web:8080/", 200)?;
    const SIZE: usize = 10 << 20;
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let down =
            format!("curl -s {version} --max-time 180 'http://web:8080/?bytes={SIZE}' | wc -c");
        let output = mesh.exec("client", &["bash", "-c", &down])?;
        ensure!(
            String::from_utf8_lossy(&output.stdout).trim() == SIZE.to_string(),
            "{version} down: {output:?}"
        );
        let up = format!(
            "head -c {SIZE} /dev/zero | curl -s {version} --max-time 180 -T - http://web:8080/"
        );
        let output = mesh.exec("client", &["bash", "-c", &up])?;
        let echo: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        ensure!(echo["body_bytes"] == SIZE, "{version} up: {echo}");
    }
    Ok(())
}

fn ipv6() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Permissive, &[&echo("web", 1), &echo("client", 1)])?;
    let Some(web) = mesh.pod("web")?.ips.into_iter().find(|ip| ip.is_ipv6()) else {
        anyhow::bail!("the pod has no IPv6 address");
    };
    eventually("it is answered under mutual TLS", || {
        let answer = mesh.curl("client", &format!("http://[{web}]:8080/"), &["-g"])?;
        ensure!(
            answer.status == 200 && answer.body.contains("sa/client"),
            "{answer:?}"
        );
        let metrics = mesh.metrics("client")?;
        let secured = metrics.sum("weft_requests_total", &[("tls", "true")]);
        ensure!(secured >= 1.0, "{secured} counted");
        Ok(())
    })
}
