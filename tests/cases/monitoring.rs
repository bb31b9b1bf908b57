//! The files for Prometheus and Grafana: sound to the programs that read them, and every question has an answer.

use crate::Case;
use anyhow::{Context, bail, ensure};
use harness::{Access, Mesh, allow_http, echo, eventually, program, split};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use weft_control::monitoring::{boards, files, rules};
use weft_proxy::metrics::catalogue;

pub(crate) const CASES: &[Case] = &[
    ("rules_and_alerts_are_sound", &["promtool"], sound),
    ("every_metric_asked_for_exists", &[], exists),
    ("grafana_knows_every_field", &["npm", "node"], typed),
    ("every_panel_has_data", &["prometheus", "curl"], every_panel),
];

pub(crate) fn meshctl(args: &[&str], folder: &Path) -> anyhow::Result<()> {
    let output = Command::new(program("meshctl")?)
        .arg("monitoring")
        .arg(folder)
        .args(args)
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

fn sound() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    meshctl(&[], folder.path())?;
    std::fs::write(folder.path().join("prometheus/targets.json"), "[]")?;
    for args in [
        ["check", "rules", "rules.yml"],
        ["test", "rules", "rules_test.yml"],
        ["check", "rules", "../flagger/istio-names.yml"],
        ["check", "config", "machine.yml"],
        ["check", "config", "kubernetes.yml"],
    ] {
        let output = Command::new("promtool")
            .args(args)
            .current_dir(folder.path().join("prometheus"))
            .output()?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        // Debian's build has no discovery of Kubernetes, and reads no further.
        let lacks = text.contains("field kubernetes_sd_configs not found");
        ensure!(output.status.success() || lacks, "{args:?}: {text}");
    }
    Ok(())
}

/// Names in all questions, with what histograms add taken off.
fn asked() -> BTreeSet<String> {
    let panels = boards::BOARDS.iter().flat_map(|board| board.panels);
    let questions = panels.flat_map(|panel| panel.queries.iter().map(|(_, question)| *question));
    let rules = rules::RECORDS.iter().map(|(_, expr)| *expr);
    let alerts = rules::ALERTS.iter().map(|alert| alert.expr);
    let templates = files()
        .into_iter()
        .filter(|(path, _)| path.starts_with("flagger/"));
    let templates: Vec<String> = templates.map(|(_, text)| text).collect();
    let all = questions.chain(rules).chain(alerts);
    let all = all.chain(templates.iter().map(String::as_str));
    let words = all.flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let own = words.filter(|word| word.starts_with("weft_") || word.starts_with("process_"));
    own.map(|word| word.trim_end_matches("_bucket").to_owned())
        .collect()
}

fn exists() -> anyhow::Result<()> {
    let control = |name: &str| {
        let own = name.strip_prefix("weft_control_");
        own.is_some_and(|own| weft_control::admin::METRICS.iter().any(|row| row.0 == own))
    };
    let asked = asked();
    ensure!(asked.len() > 20, "{asked:?}");
    for name in asked {
        ensure!(
            catalogue::find(&name).is_some() || control(&name),
            "{name} is no metric"
        );
    }
    ensure!(!files().is_empty());
    Ok(())
}

/// Each dashboard, as a literal of the type that Grafana publishes.
fn typed() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana");
    for file in ["package.json", "package-lock.json", "types.ts"] {
        std::fs::copy(own.join(file), folder.path().join(file))?;
    }
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).current_dir(folder.path());
        command.output().with_context(|| program.to_owned())
    };
    let quiet = [
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--prefer-offline",
        // Who has no network is told so at once.
        "--fetch-retries=0",
        "--fetch-timeout=30000",
    ];
    let fetched = run("npm", &quiet)?;
    if !fetched.status.success() {
        let why = String::from_utf8_lossy(&fetched.stderr).into_owned();
        eprintln!(
            "monitoring::grafana_knows_every_field: ignored: its schema cannot be fetched: {why}"
        );
        return Ok(());
    }
    let mut check = vec!["node_modules/typescript/bin/tsc".to_owned()];
    let flags = "--noEmit --strict --skipLibCheck --moduleResolution bundler --module esnext --target es2022";
    check.extend(flags.split(' ').map(str::to_owned));
    for board in boards::BOARDS {
        let name = format!("{}.ts", board.id);
        let json = weft_control::monitoring::grafana::json(board);
        let text = format!(
            "import type {{ Board }} from \"./types\";\nexport const board: Board = {json};\n"
        );
        std::fs::write(folder.path().join(&name), text)?;
        check.push(name);
    }
    let words: Vec<&str> = check.iter().map(String::as_str).collect();
    let output = run("node", &words)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{said}");
    Ok(())
}

/// Prometheus in the node's own namespace, until dropped.
pub(crate) struct Prometheus<'a> {
    child: Child,
    mesh: &'a Mesh,
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let url = format!("http://{PORT}/-/quit");
        let _ = self.mesh.node(&["curl", "-s", "-X", "POST", &url]);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PORT: &str = "127.0.0.1:19790";

impl<'a> Prometheus<'a> {
    pub(crate) fn start(mesh: &'a Mesh, folder: &Path) -> anyhow::Result<Self> {
        let data = folder.join("data");
        let child = Command::new(program("meshctl")?)
            .args(["local", "exec", "--state"])
            .arg(mesh.client().state())
            .args(["node", "--", "prometheus"])
            .arg(format!(
                "--config.file={}",
                folder.join("prometheus/machine.yml").display()
            ))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={PORT}"))
            .arg("--web.enable-lifecycle")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, mesh })
    }
}

/// Series that answer a question now.
pub(crate) fn samples(mesh: &Mesh, question: &str) -> anyhow::Result<Vec<Value>> {
    let url = format!("http://{PORT}/api/v1/query");
    let query = format!("query={question}");
    let command = [
        "curl",
        "-s",
        "--max-time",
        "10",
        "-G",
        &url,
        "--data-urlencode",
        &query,
    ];
    let output = mesh.node(&command)?;
    let answer: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    ensure!(answer["status"] == "success", "{question}: {answer}");
    let series = answer["data"]["result"].as_array();
    let series = series.context("no result")?.iter();
    // A share of nothing is no number, and no data.
    Ok(series
        .filter(|one| one["value"][1] != "NaN")
        .cloned()
        .collect())
}

fn every_panel() -> anyhow::Result<()> {
    let detail = "{apiVersion: v1, kind: Namespace, metadata: {name: default, annotations: {config.weft.mesh/metrics: endpoints}}}";
    let mesh = Mesh::up(
        Access::Strict,
        &[
            detail,
            &echo("web", 1),
            &echo("web-v2", 1),
            &echo("client", 1),
        ],
    )?;
    mesh.apply("allow", &allow_http("client", "web", "GET", "/"))?;
    mesh.apply("allow-v2", &allow_http("client", "web-v2", "GET", "/"))?;
    mesh.apply("split", &split("web", &[("web", 50), ("web-v2", 50)]))?;
    let folder = tempfile::tempdir()?;
    let state = mesh.client().state().to_string_lossy().into_owned();
    meshctl(&["--targets", "--state", &state], folder.path())?;
    let _prometheus = Prometheus::start(&mesh, folder.path())?;
    let panels = boards::BOARDS.iter().flat_map(|board| {
        let panels = board.panels.iter();
        panels.map(move |panel| (board.id, panel))
    });
    let mut open: Vec<_> = panels
        .filter(|(_, panel)| panel.empty.is_empty() || panel.empty == boards::BY_ENDPOINT)
        .flat_map(|(board, panel)| {
            panel
                .queries
                .iter()
                .map(move |query| (board, panel.title, query.1))
        })
        .collect();
    let url = "http://web:8080/[1-20]";
    // Not from a proxy: neither mutual TLS nor an identity.
    let bare = mesh.pod("web")?.ips[0];
    eventually("every panel has data", || {
        for method in ["GET", "POST"] {
            let command = ["curl", "-s", "-o", "/dev/null", "-X", method, url];
            mesh.exec("client", &command)?;
        }
        let past = format!("http://{bare}:8080/[1-5]");
        mesh.node(&["curl", "-s", "-o", "/dev/null", &past])?;
        let mut last = Vec::new();
        for one in std::mem::take(&mut open) {
            let question = one
                .2
                .replace("$__rate_interval", "30s")
                .replace("$namespace", ".+")
                .replace("$workload", ".+");
            match samples(&mesh, &question) {
                Ok(series) if !series.is_empty() => {}
                // It may not have started yet; what is wrong for good stays in the list.
                Ok(_) | Err(_) => last.push(one),
            }
        }
        open = last;
        if open.is_empty() {
            return Ok(());
        }
        bail!("{} without data: {open:#?}", open.len())
    })
}
