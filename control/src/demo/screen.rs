//! The live view in a terminal: who calls whom, how well, how fast, how safely; the split; the denials; the story so far.

use super::manifests::NAMESPACE;
use super::observe::{Look, since, tls_share};
use super::story::StepReport;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// What the picture shows besides measurements.
pub(super) struct View<'a> {
    pub(super) title: &'a str,
    /// Where a browser finds the application.
    pub(super) page: &'a str,
    /// Where the node keeps its state: what other commands are told, to ask it.
    pub(super) state: &'a Path,
    /// Weights asked for v1 and v2.
    pub(super) weights: (u32, u32),
    pub(super) steps: &'a [StepReport],
}

/// The picture between two looks.
pub(super) fn draw(before: &Look, now: &Look, view: &View<'_>) -> String {
    let seconds = (now.at - before.at).as_secs_f64().max(0.001);
    let edges = since(&now.edges, &before.edges);
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\x1b[1mweft demo\x1b[0m  {}\nthe application  {}\nask it           meshctl why web -n {NAMESPACE} --state {}\n",
        view.title,
        view.page,
        view.state.display()
    );
    let _ = writeln!(
        text,
        "{:<20} {:<20} {:>8} {:>9} {:>9} {:>9} {:>9} {:>6}",
        "FROM", "TO", "SUCCESS", "RPS", "P50", "P95", "P99", "MTLS"
    );
    for ((from, to), edge) in &edges {
        if edge.requests + edge.streams == 0.0 && edge.tls == 0.0 && edge.latency.is_empty() {
            continue;
        }
        let success = if edge.requests > 0.0 {
            format!(
                "{:.2}%",
                100.0 * (1.0 - edge.failures / edge.requests).max(0.0)
            )
        } else {
            "-".to_owned()
        };
        let quantile = |share| {
            edge.quantile_ms(share)
                .map_or("-".to_owned(), |ms| format!("{ms}ms"))
        };
        let total = edge.requests + edge.streams;
        let tls = if total == 0.0 {
            "-".to_owned()
        } else {
            format!("{:.0}%", 100.0 * edge.tls / total)
        };
        let rps = format!("{:.1}rps", edge.requests / seconds);
        let (p50, p95, p99) = (quantile(0.5), quantile(0.95), quantile(0.99));
        let _ = writeln!(
            text,
            "{from:<20} {to:<20} {success:>8} {rps:>9} {p50:>9} {p95:>9} {p99:>9} {tls:>6}"
        );
    }
    let load = now.load.since(&before.load);
    let total: u64 = load.versions.values().sum();
    let shares = load.versions.iter().map(|(version, count)| {
        format!(
            "{version} {:.1}%",
            100.0 * *count as f64 / total.max(1) as f64
        )
    });
    let (v1, v2) = view.weights;
    let _ = writeln!(text, "\nsplit wanted    v1 {v1}  v2 {v2}");
    let _ = writeln!(
        text,
        "split observed  {}",
        shares.collect::<Vec<_>>().join("  ")
    );
    let _ = writeln!(
        text,
        "denied          {:.1}/s",
        (now.denied - before.denied).max(0.0) / seconds
    );
    let _ = writeln!(text, "ejected now     {}", now.ejected_now);
    let share = tls_share(&edges).map_or("-".to_owned(), |share| format!("{:.1}%", share * 100.0));
    let _ = writeln!(text, "mutual TLS      {share}\n");
    for step in view.steps {
        let _ = writeln!(text, "{}", lines(step));
    }
    text
}

/// One step in two lines, which a terminal does not break.
pub fn lines(step: &StepReport) -> String {
    line(step).replacen(": expected ", "\n  expected ", 1)
}

/// One step in a line.
pub(super) fn line(step: &StepReport) -> String {
    let mark = if step.held { "√" } else { "×" };
    format!(
        "{mark} {}: expected {}; saw {}",
        step.name, step.expected, step.saw
    )
}

/// Shows a picture in place of the one before.
pub(super) fn show(picture: &str) {
    let mut out = std::io::stdout().lock();
    let _ = write!(out, "\x1b[H\x1b[2J{picture}");
    let _ = out.flush();
}
