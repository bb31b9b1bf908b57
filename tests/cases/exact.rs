//! Whoever is asked, the same figures: what the load generator saw, what both proxies count, what Prometheus scraped,
//! what `meshctl stat` says and what the metrics API of SMI would say. `WEFT_EXACT_REQUESTS=10000` makes more requests
//! than the case by itself; the table is printed.

use crate::Case;
use crate::monitoring::{Prometheus, meshctl, samples};
use anyhow::{Context, bail, ensure};
use harness::{Access, Mesh, Scrape, allow_http, echo, eventually};
use http::{Method, Uri};
use std::collections::BTreeMap;
use std::time::Duration;
use weft_control::kube::metrics_api::{Reports, handle};
use weft_control::state::OBSERVE_TOKEN;
use weft_control::traffic::Report;
use weft_proxy_api::names::ports;

pub(crate) const CASES: &[Case] = &[(
    "all_who_are_asked_say_the_same",
    &["curl", "prometheus"],
    exact,
)];

/// Answers by code (`404`, `grpc-14`).
type Counts = BTreeMap<String, u64>;

/// How many of a hundred requests end how.
const MIX: [(&str, u64); 7] = [
    ("200", 50),
    ("404", 18),
    ("500", 10),
    ("403", 8),
    ("grpc-0", 6),
    ("grpc-7", 4),
    ("grpc-14", 4),
];

/// Somebody who knows, and how they are asked.
type Witness = (&'static str, fn(&Mesh) -> anyhow::Result<Counts>);

const WITNESSES: [Witness; 8] = [
    ("server /metrics", |mesh| {
        Ok(scraped(&mesh.metrics("web")?, "inbound"))
    }),
    ("client /metrics", |mesh| {
        Ok(scraped(&mesh.metrics("client")?, "outbound"))
    }),
    ("Prometheus, server", |mesh| {
        asked(mesh, "inbound", "deploy/web")
    }),
    ("Prometheus, client", |mesh| {
        asked(mesh, "outbound", "deploy/client")
    }),
    ("stat deploy/web", |mesh| stat(mesh, &["deploy/web"])),
    ("stat --to svc/web", |mesh| {
        stat(mesh, &["deploy/client", "--to", "svc/web"])
    }),
    ("stat svc/web", |mesh| stat(mesh, &["svc/web"])),
    ("SMI deployments/web", smi),
];

fn exact() -> anyhow::Result<()> {
    let total: u64 = match std::env::var("WEFT_EXACT_REQUESTS") {
        Ok(text) => text.parse().context("WEFT_EXACT_REQUESTS")?,
        Err(_) => 1_000,
    };
    ensure!(total.is_multiple_of(100), "give hundreds of requests");
    let mesh = Mesh::up(Access::Strict, &[&echo("web", 1), &echo("client", 1)])?;
    mesh.apply("allow", &allow_http("client", "web", "GET", "/"))?;
    mesh.answers("client", "http://web:8080/", 200)?;
    let folder = tempfile::tempdir()?;
    let state = mesh.client().state().to_string_lossy().into_owned();
    meshctl(&["--targets", "--state", &state], folder.path())?;
    let _prometheus = Prometheus::start(&mesh, folder.path())?;
    // What made the mesh ready is counted too: everybody must agree about it before anything begins.
    let before = eventually("Prometheus knows all that was counted", || {
        let all = all_say(&mesh)?;
        ensure!(all[0] == all[2] && all[1] == all[3], "{all:?}");
        ensure!(!all[2].is_empty() && !all[3].is_empty(), "{all:?}");
        Ok(all)
    })?;
    let expected: Counts = MIX
        .map(|(code, share)| (code.to_owned(), share * total / 100))
        .into();
    let mut table = vec![("load generator", load(&mesh, &expected)?)];
    let seen = eventually("all say the same", || {
        let after = all_say(&mesh)?;
        let grown: Vec<Counts> = after
            .iter()
            .zip(&before)
            .map(|at| since(at.0, at.1))
            .collect();
        for ((name, _), grown) in WITNESSES.iter().zip(&grown) {
            let expected = match *name {
                "SMI deployments/web" => well_and_not(&expected),
                _ => expected.clone(),
            };
            ensure!(
                *grown == expected,
                "{name}: {grown:?} in place of {expected:?}"
            );
        }
        Ok(grown)
    })?;
    let names = WITNESSES.iter().map(|(name, _)| *name);
    table.extend(names.zip(seen));
    print(&table);
    ensure!(table[0].1 == expected, "{table:?}");
    Ok(())
}

/// Makes the requests; what their client saw.
fn load(mesh: &Mesh, wanted: &Counts) -> anyhow::Result<Counts> {
    let mut seen = Counts::new();
    for (code, count) in wanted {
        let query = match code.strip_prefix("grpc-") {
            Some(grpc) => format!("grpc={grpc}"),
            None => format!("status={code}"),
        };
        let url = format!("http://web:8080/[1-{count}]?{query}");
        // What is not a GET is not allowed.
        let method = if code == "403" { "POST" } else { "GET" };
        let command = [
            "curl",
            "-s",
            "--max-time",
            "300",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %header{grpc-status}\\n",
            "-X",
            method,
            &url,
        ];
        let output = mesh.exec("client", &command)?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let code = match line.split_once(' ') {
                Some((status, "")) => status.to_owned(),
                Some((_, grpc)) => format!("grpc-{grpc}"),
                None => bail!("{line:?}"),
            };
            *seen.entry(code).or_default() += 1;
        }
    }
    Ok(seen)
}

fn all_say(mesh: &Mesh) -> anyhow::Result<Vec<Counts>> {
    let all = WITNESSES.iter();
    all.map(|(name, ask)| ask(mesh).context(*name)).collect()
}

fn since(after: &Counts, before: &Counts) -> Counts {
    let grown = after.iter().map(|(code, count)| {
        let before = before.get(code).copied().unwrap_or(0);
        (code.clone(), count.saturating_sub(before))
    });
    grown.filter(|(_, count)| *count > 0).collect()
}

fn code(status: &str, grpc: &str) -> String {
    match grpc {
        "" => status.to_owned(),
        grpc => format!("grpc-{grpc}"),
    }
}

fn scraped(scrape: &Scrape, direction: &str) -> Counts {
    let mut counts = Counts::new();
    for sample in scrape.select("weft_responses_total", &[("direction", direction)]) {
        let code = code(sample.label("status"), sample.label("grpc_status"));
        *counts.entry(code).or_default() += sample.value as u64;
    }
    counts
}

fn asked(mesh: &Mesh, direction: &str, workload: &str) -> anyhow::Result<Counts> {
    let question = format!(
        "sum by (status, grpc_status) (weft_responses_total{{direction={direction:?},workload={workload:?}}})"
    );
    let answers = samples(mesh, &question)?.into_iter();
    let counts = answers.map(|one| {
        let label = |name: &str| one["metric"][name].as_str().unwrap_or_default();
        let value = one["value"][1].as_str().unwrap_or_default();
        let value: u64 = value.parse().context("no number")?;
        Ok((code(label("status"), label("grpc_status")), value))
    });
    counts.collect()
}

/// All that was reported since the proxies started.
fn report(mesh: &Mesh) -> anyhow::Result<Report> {
    let token = mesh.state().join("control").join(OBSERVE_TOKEN);
    let token = std::fs::read_to_string(token)?;
    let header = format!("authorization: Bearer {}", token.trim());
    let port = ports::CONTROL_ADMIN;
    let url = format!("http://127.0.0.1:{port}/api/v1/traffic?fresh&window=start");
    let output = mesh.node(&["curl", "-s", "-H", &header, &url])?;
    serde_json::from_slice(&output.stdout).context("no report")
}

/// What `meshctl stat` prints for programs.
fn stat(mesh: &Mesh, resource: &[&str]) -> anyhow::Result<Counts> {
    let row = crate::observe::stat(mesh, resource)?;
    let answers = row["answers"].as_object().into_iter().flatten();
    let counts = answers.map(|(code, count)| (code.clone(), count.as_u64().unwrap_or(0)));
    Ok(counts.collect())
}

/// A report of the whole time, whatever window is asked for.
struct Whole(Report);

impl Reports for Whole {
    async fn report(&self, _: Duration) -> Report {
        self.0.clone()
    }
}

/// The API of metrics.smi-spec.io as the aggregator asks it; it knows successes and failures.
fn smi(mesh: &Mesh) -> anyhow::Result<Counts> {
    let uri = "/apis/metrics.smi-spec.io/v1alpha1/namespaces/default/deployments/web";
    let (report, uri) = (Whole(report(mesh)?), Uri::from_static(uri));
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let (status, document) = runtime.block_on(handle(&report, &Method::GET, &uri));
    ensure!(status.is_success(), "{status}: {document}");
    let metrics = document["metrics"].as_array().context("no metrics")?;
    let mut counts = Counts::new();
    for metric in metrics {
        let name = metric["name"].as_str().unwrap_or_default();
        if let Some(kind) = name.strip_suffix("_count") {
            let value = metric["value"].as_str().context("no quantity")?;
            let number = match value.strip_suffix('k') {
                Some(thousands) => thousands.parse::<u64>()? * 1000,
                None => value.parse()?,
            };
            counts.insert(kind.to_owned(), number);
        }
    }
    Ok(counts)
}

/// What SMI knows of it.
fn well_and_not(counts: &Counts) -> Counts {
    let failed = |code: &str| code.starts_with('5') || matches!(code, "grpc-7" | "grpc-14");
    let mut sums = Counts::new();
    for (code, count) in counts {
        let kind = if failed(code) { "failure" } else { "success" };
        *sums.entry(kind.to_owned()).or_default() += count;
    }
    sums
}

fn print(table: &[(&str, Counts)]) {
    let mut text = String::new();
    for (name, counts) in table {
        let counts: Vec<String> = counts.iter().map(|(at, n)| format!("{at}={n}")).collect();
        text.push_str(&format!("{name:<20} {}\n", counts.join(" ")));
    }
    println!("{text}");
}
