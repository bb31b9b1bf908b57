//! The table, on the terminal and in a file.

use crate::figures::Figures;
use crate::others::{self, Other};
use crate::promise::Promise;
use crate::rows::{self, Row};
use std::collections::HashMap;
use std::path::Path;

pub(crate) const HEAD: &str = "| row | fault | load | lost of requests (ppm) | first / last failure after the fault | recovered after healing | longest gap | p99 before / fault / healed | RSS before / peak / after | descriptors | also | promise | kept |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|";
pub(crate) const OTHERS_HEAD: &str =
    "| row | what | build | figures | promise | kept |\n|---|---|---|---|---|---|";

const INTRODUCTION: &str = "# The fault matrix: promises and last measured figures

Written by `cargo build --workspace --bins --tests && target/debug/faults --markdown tests/faults/RESULTS.md
[--full] [ROW…]`; without names it runs all rows, and only rows that ran are replaced. `WEFT_TEST_PROGRAMS` names a folder
with other programs to measure, e.g. of a release build.

Each row is a mesh of its own: three endpoints and a client, mutual TLS, real redirection, an open-loop load for 5 s
before, during and after the fault. A request is lost if it has no 2xx within 2 s of the moment it was due. Memory and
descriptors are those of the client's proxy. `also` is by how much something else grew from the beginning to the end.

The machine has two cores, and the load, the applications, the controller and all proxies share them; the figures are
from November 2026. Counts can be trusted. Latencies and gaps are those of this machine, and of a debug build where the row says so.
";

fn build() -> &'static str {
    if std::env::var_os(harness::PROGRAMS).is_some() || !cfg!(debug_assertions) {
        "release"
    } else {
        "debug"
    }
}

/// `broken`: the promises that were not kept.
pub(crate) fn line(row: &Row, figures: &Figures, broken: &[Promise]) -> String {
    let ppm = figures.lost * 1_000_000 / figures.requests.max(1);
    let ms = |at: Option<i64>| at.map_or("–".into(), |at| format!("{at} ms"));
    let recovered = match (figures.lost, figures.recover) {
        (0, _) => "–".into(),
        (_, None) => "at once".into(),
        (_, Some(at)) => format!("{at} ms"),
    };
    let [before, peak, after] = figures.gauges;
    let [usual, faulty] = row.rate;
    let also = figures
        .more
        .iter()
        .map(|(name, grown)| format!("{name} {}", short(*grown)));
    let during = figures.during;
    let also: Vec<String> = also
        .chain(row.overloaded().then(|| {
            format!(
                "goodput {:.0}/s, p99 of admitted {} ms, of refused {} ms",
                during.goodput, during.admitted, during.refused
            )
        }))
        .chain(std::iter::once(format!(
            "series {}",
            short(after.series - before.series)
        )))
        .collect();
    let promises: Vec<String> = row.promises.iter().map(Promise::to_string).collect();
    let missed: Vec<String> = broken.iter().map(Promise::to_string).collect();
    format!(
        "| {} | {} | {} build, {usual} / {faulty} / {usual} per s on {} | {} of {} ({ppm}) | {} / {} | {recovered} | {} ms | {} / {} / {} ms | {:.0} / {:.0} / {:.0} MiB | {} / {} / {} | {} | {} | {} |",
        row.name,
        row.fault,
        build(),
        row.connections,
        figures.lost,
        figures.requests,
        ms(figures.first),
        ms(figures.last),
        figures.gap,
        figures.p99[0],
        figures.p99[1],
        figures.p99[2],
        before.rss,
        peak.rss,
        after.rss,
        before.descriptors,
        peak.descriptors,
        after.descriptors,
        also.join(", "),
        promises.join(", "),
        if missed.is_empty() {
            "yes".into()
        } else {
            format!("**no**: {}", missed.join(", "))
        },
    )
}

pub(crate) fn other_line(other: &Other, figures: &str, kept: bool) -> String {
    format!(
        "| {} | {} | {} build | {figures} | {} | {} |",
        other.name,
        other.what,
        build(),
        other.promise,
        if kept { "yes" } else { "**no**" }
    )
}

fn short(number: f64) -> String {
    format!("{}", (number * 10.0).round() / 10.0)
}

/// Puts lines in the place of those of the same rows.
pub(crate) fn write(page: &Path, lines: &[(&str, String)]) -> anyhow::Result<()> {
    let before = std::fs::read_to_string(page).unwrap_or_default();
    std::fs::write(page, merge(&before, lines))?;
    Ok(())
}

fn merge(before: &str, lines: &[(&str, String)]) -> String {
    let name = |line: &str| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        cells.next().map(str::to_owned)
    };
    let old = before.lines().filter(|line| line.contains(" build"));
    let mut all: HashMap<String, &str> = old.filter_map(|line| Some((name(line)?, line))).collect();
    all.extend(
        lines
            .iter()
            .map(|(at, line)| ((*at).to_owned(), line.as_str())),
    );
    let table = |head: &str, names: Vec<&str>| {
        let rows: Vec<&str> = names
            .iter()
            .filter_map(|at| all.get(*at).copied())
            .collect();
        format!("\n{head}\n{}\n", rows.join("\n"))
    };
    let rows: Vec<&str> = rows::all().map(|row| row.name).collect();
    let others: Vec<&str> = others::ALL.iter().map(|other| other.name).collect();
    let tables = [table(HEAD, rows), table(OTHERS_HEAD, others)];
    format!("{INTRODUCTION}{}", tables.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_ran_replace_theirs_and_the_order_is_that_of_the_matrix() {
        let line =
            |name: &str, figure: &str| format!("| {name} | fault | debug build, {figure} | yes |");
        let first = merge("", &[("6", line("6", "a")), ("2", line("2", "b"))]);
        let second = merge(
            &first,
            &[("6", line("6", "c")), ("upgrade", line("upgrade", "d"))],
        );
        assert!(second.starts_with(INTRODUCTION));
        let at = |text: &str| second.find(text).unwrap_or(usize::MAX);
        assert!(at(&line("2", "b")) < at(&line("6", "c")));
        assert!(at(OTHERS_HEAD) < at(&line("upgrade", "d")) && !second.contains("build, a"));
        assert_eq!(merge(&second, &[]), second);
    }
}
