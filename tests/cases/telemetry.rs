//! How much is said, and what that costs those who are served: tiers of metrics, metrics as Prometheus reads them, a tap
//! of a busy proxy.

use crate::Case;
use crate::observe::meshctl;
use anyhow::{Context, ensure};
use harness::{Access, Mesh, allow_http, echo, eventually, program, split};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use weft_proxy_api::names::ports;

pub(crate) const CASES: &[Case] = &[
    ("metrics_follow_the_tier", &["curl"], tiers),
    (
        "promtool_finds_nothing_in_metrics",
        &["promtool", "curl"],
        checked,
    ),
    (
        "a_busy_proxy_is_tapped_and_no_request_fails",
        &["curl"],
        tapped,
    ),
];

/// A namespace whose pods say their metrics like this.
fn namespace(tier: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: default, annotations: {{config.weft.mesh/metrics: {tier}}}}}}}"
    )
}

/// What a scrape of the client says: a sample by route, and one by endpoint.
fn detail(mesh: &Mesh) -> anyhow::Result<(bool, bool)> {
    let scrape = mesh.metrics("client")?;
    let mut all = scrape.select("weft_requests_total", &[("direction", "outbound")]);
    let by_route = all.any(|at| !at.label("route").is_empty());
    let mut all = scrape.select("weft_endpoint_requests_total", &[("result", "success")]);
    Ok((by_route, all.any(|at| at.value > 0.0)))
}

fn tiers() -> anyhow::Result<()> {
    let mesh = Mesh::up(
        Access::Permissive,
        &[&echo("web", 1), &echo("web-v2", 1), &echo("client", 1)],
    )?;
    mesh.apply("split", &split("web", &[("web", 50), ("web-v2", 50)]))?;
    let becomes = |expected: (bool, bool)| {
        eventually(&format!("(by route, by endpoint) is {expected:?}"), || {
            let url = "http://web:8080/[1-5]";
            mesh.exec("client", &["curl", "-s", "-o", "/dev/null", url])?;
            let seen = detail(&mesh)?;
            ensure!(seen == expected, "{seen:?}");
            Ok(())
        })
    };
    becomes((true, false))?;
    let requests = || -> anyhow::Result<f64> {
        let labels = [("direction", "outbound")];
        Ok(mesh.metrics("client")?.sum("weft_requests_total", &labels))
    };
    let before = requests()?;
    // By annotation, of the namespace and of a pod that knows better.
    mesh.apply("namespace", &namespace("edges"))?;
    becomes((false, false))?;
    ensure!(requests()? >= before, "nothing is lost on the way");
    // Live, and back; the annotation is as it was.
    let order = [
        "metrics",
        "deploy/client",
        "--tier",
        "endpoints",
        "--for",
        "5m",
    ];
    let (code, said) = meshctl(&mesh, &order)?;
    ensure!(
        code == 0 && said.contains("by endpoints for 300 s"),
        "{said}"
    );
    becomes((true, true))?;
    eventually("what is in force is shown", || {
        let (_, said) = meshctl(&mesh, &["metrics"])?;
        let of = |name: &str| {
            said.lines()
                .find(|line| line.contains(name))
                .unwrap_or_default()
        };
        ensure!(of("default/client-").ends_with("endpoints"), "{said}");
        ensure!(of("default/web-").ends_with("edges"), "{said}");
        Ok(())
    })?;
    let (code, said) = meshctl(&mesh, &["metrics", "deploy/client", "--reset"])?;
    ensure!(code == 0, "{said}");
    becomes((false, false))?;
    mesh.apply("namespace", &namespace("endpoints"))?;
    becomes((true, true))?;
    let (code, said) = meshctl(&mesh, &["metrics", "deploy/nobody", "--tier", "edges"])?;
    ensure!(
        code == 1 && said.contains("no connected proxy fits"),
        "{code}: {said}"
    );
    Ok(())
}

/// Both formats of a proxy that has seen some of everything, and what the controller says.
fn checked() -> anyhow::Result<()> {
    let mesh = Mesh::up(
        Access::Strict,
        &[&namespace("endpoints"), &echo("web", 2), &echo("client", 1)],
    )?;
    mesh.apply("allow", &allow_http("client", "web", "GET", "/"))?;
    mesh.answers("client", "http://web:8080/", 200)?;
    for (method, query) in [("GET", "status=500"), ("GET", "grpc=14"), ("POST", "")] {
        let url = format!("http://web:8080/[1-50]?{query}");
        mesh.exec(
            "client",
            &["curl", "-s", "-o", "/dev/null", "-X", method, &url],
        )?;
    }
    let at = |pod: &str| -> anyhow::Result<String> {
        Ok(format!(
            "http://{}:{}/metrics",
            mesh.pod(pod)?.ips[0],
            ports::ADMIN
        ))
    };
    let control = format!("http://127.0.0.1:{}/metrics", ports::CONTROL_ADMIN);
    for url in [at("web")?, at("client")?, control] {
        let output = mesh.node(&["curl", "-s", "--max-time", "10", &url])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(text.len() > 1000, "{url}: {text}");
        let mut check = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut input = check.stdin.take().context("no input")?;
        input.write_all(text.as_bytes())?;
        drop(input);
        let output = check.wait_with_output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        // Names that other tools look for are as they are.
        let own = said
            .lines()
            .filter(|line| !line.starts_with("response_latency_ms"));
        let own: Vec<&str> = own.filter(|line| !line.is_empty()).collect();
        ensure!(own.is_empty(), "{url}: {own:#?}");
    }
    Ok(())
}

/// Requests under the tap, and at once.
const REQUESTS: u64 = 6_000;
const AT_ONCE: &str = "32";
/// States of the tap after the last request that may come until all is told.
const MOST_STATES: u32 = 30;

/// As many requests as the proxies can carry, a thousand of them asked to be shown in every second: none fails, and each
/// one is shown, or counted as left out.
fn tapped() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Permissive, &[&echo("web", 1), &echo("client", 1)])?;
    mesh.answers("client", "http://web:8080/", 200)?;
    let mut tap = Command::new(program("meshctl")?)
        .args(["tap", "deploy/web", "--direction", "inbound", "-o", "json"])
        .args(["--path", "/busy", "--max-rps", "1000"])
        .arg("--state")
        .arg(mesh.client().state())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let out = tap.stdout.take().context("no output")?;
    let seen = busy(&mesh, BufReader::new(out));
    let _ = tap.kill();
    let _ = tap.wait();
    let Shown {
        head,
        ended,
        matched,
        skipped,
        lost,
        seconds,
    } = seen?;
    println!(
        "{REQUESTS} requests in {seconds:.1} s ({:.0}/s): {head} shown ({:.0}/s), {skipped} left out, {lost} lines lost",
        REQUESTS as f64 / seconds,
        head as f64 / seconds
    );
    ensure!(matched == REQUESTS, "{matched} matched");
    let told = 2 * (matched - skipped) == head + ended + lost;
    ensure!(
        told && head > 0,
        "{head} + {ended} + {lost} lines, {skipped} left out"
    );
    Ok(())
}

/// What a tap showed and counted.
#[derive(Debug, Default)]
struct Shown {
    head: u64,
    ended: u64,
    matched: u64,
    skipped: u64,
    lost: u64,
    seconds: f64,
}

fn busy(mesh: &Mesh, lines: impl BufRead) -> anyhow::Result<Shown> {
    let mut lines = lines
        .lines()
        .map(|line| -> anyhow::Result<Value> { Ok(serde_json::from_str(&line?)?) });
    let mut shown = Shown::default();
    // The proxy has begun to look.
    while lines.next().context("the tap ended")??["event"] != "state" {}
    let mut after = 0;
    std::thread::scope(|scope| {
        let load = scope.spawn(|| load(mesh));
        loop {
            let line = lines.next().context("the tap ended")??;
            let number = |name: &str| line[name].as_u64().unwrap_or(0);
            match line["event"].as_str() {
                Some("answered") => shown.head += 1,
                Some("ended") => shown.ended += 1,
                Some("state") => {
                    shown.matched = number("matched");
                    (shown.skipped, shown.lost) = (number("skipped"), number("lost"));
                    let said = shown.head + shown.ended + shown.lost;
                    let all =
                        shown.matched >= REQUESTS && said >= 2 * (shown.matched - shown.skipped);
                    // What the proxy says may be from before the last request; it says more every second.
                    after += u32::from(load.is_finished());
                    if load.is_finished() && (all || after > MOST_STATES) {
                        break;
                    }
                }
                _ => {}
            }
        }
        shown.seconds = load
            .join()
            .map_err(|_| anyhow::anyhow!("the load broke off"))??;
        Ok(shown)
    })
}

/// Seconds it took; an error if one request failed.
fn load(mesh: &Mesh) -> anyhow::Result<f64> {
    let url = format!("http://web:8080/busy/[1-{REQUESTS}]");
    let begun = std::time::Instant::now();
    let options = ["-s", "-Z", "--parallel-max", AT_ONCE, "-o", "/dev/null"];
    let said = ["-w", "%{http_code}\\n", "--max-time", "300", &url];
    let output = mesh.exec("client", &[&["curl"], &options[..], &said[..]].concat())?;
    let seconds = begun.elapsed().as_secs_f64();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let well = text.lines().filter(|line| *line == "200").count() as u64;
    ensure!(
        well == REQUESTS,
        "{well} of {REQUESTS} were answered with 200"
    );
    Ok(seconds)
}
