//! What travels between pods: TLS and nothing readable with the mesh, readable text without it.

use crate::Case;
use anyhow::{Context, ensure};
use harness::{Access, Exec, Mesh, echo, eventually, unmeshed};

pub(crate) const CASES: &[Case] = &[
    (
        "a_capture_shows_tls_and_no_plaintext",
        &["tcpdump", "curl"],
        captured,
    ),
    ("renewal_under_load_loses_no_request", &["curl"], renewal),
];

const SECRET: &str = "only-for-your-ears";
const END: &str = "end-of-the-capture";

fn captured() -> anyhow::Result<()> {
    let meshed = Mesh::up(Access::Permissive, &[&echo("web", 1), &echo("client", 1)])?;
    let wire = capture(&meshed)?;
    ensure!(
        !contains(&wire, SECRET.as_bytes()),
        "the secret can be read from the wire"
    );
    ensure!(
        contains(&wire, b"weft-http/1") || contains(&wire, b"weft-h2"),
        "the capture holds the handshake of the two proxies"
    );
    drop(meshed);
    let (web, client) = (
        unmeshed("web", &["echo", "8080"], 8080),
        unmeshed("client", &["echo", "8080"], 8080),
    );
    let plain = Mesh::up(Access::Permissive, &[&web, &client])?;
    ensure!(
        contains(&capture(&plain)?, SECRET.as_bytes()),
        "without the mesh the same capture shows the secret"
    );
    Ok(())
}

/// Everything that crosses the node while the client sends its secret.
fn capture(mesh: &Mesh) -> anyhow::Result<Vec<u8>> {
    let file = mesh.dir().join(".capture");
    let path = file.display().to_string();
    let client = mesh.client().clone();
    let command = [
        "tcpdump",
        "--immediate-mode",
        // Packets wait in a ring of places as large as the longest packet: by default there are eight of them.
        "-B",
        "65536",
        "-U",
        "-Z",
        "root",
        "-i",
        "any",
        "-s",
        "65535",
        // Whatever else the node says meanwhile; only a bound.
        "-c",
        "100000",
        "-w",
        &path,
        "tcp",
    ];
    let capture = Exec::new(
        "node",
        ["timeout", "-s", "INT", "300"].into_iter().chain(command),
    );
    let running = std::thread::spawn(move || client.output(&capture));
    eventually("tcpdump starts", || {
        ensure!(std::fs::metadata(&file)?.len() >= 24, "empty");
        Ok(())
    })?;
    mesh.answers("client", "http://web:8080/", 200)?;
    // Whatever is kept open from before: this is another connection of the two proxies, and another handshake. (Of one
    // alone the name of the protocol could be cut in two by the end of a segment.)
    let again = mesh.curl("client", "http://web:8080/", &["--http2-prior-knowledge"])?;
    ensure!(again.status == 200, "{again:?}");
    let header = format!("x-secret: {SECRET}");
    let answer = mesh.curl("client", "http://web:8080/", &["-H", &header])?;
    ensure!(
        answer.status == 200 && answer.body.contains(SECRET),
        "{answer:?}"
    );
    // A caller without a proxy speaks in the clear: once its words are in the file, so is everything before them.
    let url = format!("http://{}:8080/", mesh.pod("web")?.ips[0]);
    mesh.node(&["curl", "-s", "-H", &format!("x-end: {END}"), &url])?;
    eventually("the capture is complete", || {
        ensure!(contains(&std::fs::read(&file)?, END.as_bytes()));
        Ok(())
    })?;
    mesh.node(&["pkill", "-INT", "tcpdump"])?;
    running.join().ok().context("the capture")??;
    Ok(std::fs::read(&file)?)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

fn renewal() -> anyhow::Result<()> {
    let mesh = Mesh::up_with(
        Access::Permissive,
        &[&echo("web", 1), &echo("client", 1)],
        |options| {
            options
                .control_env
                .push(("WEFT_CONTROL_CERT_TTL".into(), "36s".into()));
        },
    )?;
    let count = |name: &str| -> anyhow::Result<f64> {
        Ok(mesh
            .metrics(name)?
            .sum("weft_identity_renewals_total", &[("result", "ok")]))
    };
    mesh.answers("client", "http://web:8080/", 200)?;
    let before = (count("client")?, count("web")?);
    let mut calls = 0;
    // At 70 % of its life: a busy machine has ten seconds to answer.
    eventually("a renewal at both ends", || {
        let answer = mesh.curl("client", "http://web:8080/", &[])?;
        calls += 1;
        if answer.status != 200 {
            // Not a condition to wait for: the case has failed.
            panic!("call {calls} during renewal: {answer:?}");
        }
        let now = (count("client")?, count("web")?);
        ensure!(now.0 > before.0 && now.1 > before.1, "not yet");
        Ok(())
    })
}
