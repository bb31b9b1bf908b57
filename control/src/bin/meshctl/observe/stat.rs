//! `meshctl stat`: success, rate and latency by deployment, pod, namespace, Service, split, route or account.

use super::connect::Target;
use super::table::{Align, Table, bytes_rate, latency, percent, rate};
use super::{Format, Scope, Window};
use anyhow::Result;
use clap::Args;
use std::process::ExitCode;
use weft_control::traffic::Report;
use weft_control::traffic::rows::{Kind, Query, Resource, Row, stat};

/// Show success rate, request rate and latency
#[derive(Debug, Args)]
pub(crate) struct StatArgs {
    /// What to show: deploy, sts, ds, pod, ns, svc, split, route or sa, with or without /NAME
    #[arg(default_value = "deploy")]
    resource: Resource,
    #[command(flatten)]
    scope: Scope,
    /// Only traffic from there, e.g. deploy/web
    #[arg(long, value_name = "KIND/NAME")]
    from: Option<Resource>,
    /// Only traffic to there, e.g. svc/web
    #[arg(long, value_name = "KIND/NAME")]
    to: Option<Resource>,
    /// Only pods with these labels, e.g. app=web,tier=front
    #[arg(short = 'l', long, value_delimiter = ',', value_parser = weft_control::traffic::api::label)]
    selector: Vec<(String, String)>,
    /// Time to look back over: 1s to 10m, or start
    #[arg(short = 't', long, default_value = "1m")]
    time_window: Window,
    /// Refresh every two seconds
    #[arg(short, long)]
    watch: bool,
    /// How
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    target: Target,
}

/// 0, or 1 if what was named is not there.
pub(crate) fn run(args: &StatArgs) -> Result<ExitCode> {
    let namespace = match args.resource.kind {
        Kind::Namespace => None,
        _ => args.scope.only(),
    };
    let query = Query {
        resource: args.resource.clone(),
        namespace,
        labels: args.selector.clone(),
        from: args.from.clone(),
        to: args.to.clone(),
    };
    let mut nothing = false;
    super::shown(args.watch, || {
        let report = args.target.report(args.time_window)?;
        let rows = stat(&report, &query).map_err(anyhow::Error::msg)?;
        nothing = rows.is_empty();
        if nothing && matches!(args.output, Format::Table | Format::Wide) {
            let place = query.namespace.as_ref();
            let place = place.map_or_else(String::new, |at| format!(" in namespace {at}"));
            let anywhere = Query {
                namespace: None,
                ..query.clone()
            };
            let elsewhere = stat(&report, &anywhere).unwrap_or_default().into_iter();
            let elsewhere = elsewhere.map(|row| row.namespace).collect();
            let hint = super::elsewhere(&elsewhere);
            eprintln!("there is no {}{place}{hint}", args.resource);
            return Ok(String::new());
        }
        text(&report, &rows, args)
    })?;
    let missed = nothing
        && args
            .resource
            .name
            .as_ref()
            .is_some_and(|name| !name.ends_with('/'));
    Ok(if missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn text(report: &Report, rows: &[Row], args: &StatArgs) -> Result<String> {
    let wide = args.output == Format::Wide;
    match args.output {
        Format::Table | Format::Wide => Ok(render(rows, args.scope.all_namespaces, wide)),
        format => super::document(
            &serde_json::json!({
                "apiVersion": report.api_version,
                "kind": "Stat",
                "windowSeconds": report.window_seconds,
                "rows": rows,
            }),
            format,
        ),
    }
}

/// The table for people.
pub(super) fn render(rows: &[Row], namespaces: bool, wide: bool) -> String {
    let split = rows.iter().any(|row| row.share.is_some());
    let route = rows.iter().any(|row| row.kind == Kind::Route);
    let left = |name| (name, Align::Left);
    let mut columns = Vec::new();
    if namespaces {
        columns.push(left("NAMESPACE"));
    }
    columns.push(left("NAME"));
    if split {
        columns.extend([left("APEX"), left("LEAF")]);
        columns.extend(["WEIGHT", "WANTED", "SEEN"].map(|name| (name, Align::Right)));
    } else if !route {
        columns.push(("MESHED", Align::Right));
    }
    let figures = [
        "SUCCESS",
        "RPS",
        "LATENCY_P50",
        "LATENCY_P95",
        "LATENCY_P99",
    ];
    columns.extend(figures.map(|name| (name, Align::Right)));
    if !split && !route {
        columns.push(("TCP_CONN", Align::Right));
    }
    if wide {
        let more = [
            "READ_BYTES/SEC",
            "WRITE_BYTES/SEC",
            "REQUESTS",
            "FAILURES",
            "DENIED",
        ];
        columns.extend(more.map(|name| (name, Align::Right)));
    }
    let mut table = Table::new(columns);
    for row in rows {
        table.row(cells(row, namespaces, split, route, wide));
    }
    table.render()
}

fn cells(row: &Row, namespaces: bool, split: bool, route: bool, wide: bool) -> Vec<String> {
    let (sum, counts) = (&row.sum, &row.sum.counts);
    let mut cells = Vec::new();
    if namespaces {
        cells.push(row.namespace.clone());
    }
    // Workloads of one kind need not say it on every line.
    cells.push(
        row.name
            .rsplit_once('/')
            .filter(|_| row.kind == Kind::Workload)
            .map_or_else(|| row.name.clone(), |(_, name)| name.to_owned()),
    );
    if let Some(share) = &row.share {
        let weight = share.weight.to_string();
        cells.extend([share.apex.clone(), share.leaf.clone(), weight]);
        cells.extend([percent(Some(share.wanted)), percent(share.observed)]);
    } else if !split && !route {
        let meshed = row.meshed.map(|(meshed, all)| format!("{meshed}/{all}"));
        cells.push(meshed.unwrap_or_else(|| "-".into()));
    }
    let rps = if counts.requests > 0 {
        rate(sum.rps)
    } else {
        "-".into()
    };
    cells.extend([percent(sum.success_rate), rps]);
    cells.extend([sum.latency_p50, sum.latency_p95, sum.latency_p99].map(latency));
    if !split && !route {
        let open = row.open_connections.map(|open| open.to_string());
        cells.push(open.unwrap_or_else(|| "-".into()));
    }
    if wide {
        cells.extend([sum.read_bytes_per_second, sum.write_bytes_per_second].map(bytes_rate));
        cells.extend([counts.requests, counts.failure, counts.denied].map(|n| n.to_string()));
    }
    cells
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use weft_control::traffic::Counts;
    use weft_control::traffic::rows::{SplitShare, Sum};

    fn row(kind: Kind, name: &str) -> Row {
        let mut sum = Sum::default();
        let counts = Counts {
            requests: 120,
            success: 119,
            failure: 1,
            latency: vec![0, 0, 120],
            bytes_out: 60_000,
            ..Counts::default()
        };
        sum.add(&counts, 60.0);
        sum.finish();
        Row {
            kind,
            namespace: "shop".into(),
            name: name.into(),
            meshed: Some((1, 2)),
            share: None,
            open_connections: Some(3),
            sum,
        }
    }

    #[test]
    fn workloads_have_the_columns_everybody_knows() {
        let idle = Row {
            sum: Sum::default(),
            ..row(Kind::Workload, "deploy/idle")
        };
        let text = render(&[row(Kind::Workload, "deploy/web"), idle], true, false);
        let expected = "\
NAMESPACE   NAME   MESHED   SUCCESS      RPS   LATENCY_P50   LATENCY_P95   LATENCY_P99   TCP_CONN
shop        web       1/2    99.17%   2.0rps         0.8ms         1.0ms         1.0ms          3
shop        idle      1/2         -        -             -             -             -          3
";
        assert_eq!(text, expected);
    }

    #[test]
    fn splits_say_what_was_wanted_and_seen() {
        let mut split = row(Kind::Split, "web");
        split.share = Some(SplitShare {
            apex: "web".into(),
            leaf: "web-v1".into(),
            weight: 9,
            wanted: 0.9,
            observed: Some(0.91),
        });
        let text = render(&[split], false, true);
        let expected = "\
NAME   APEX   LEAF     WEIGHT   WANTED     SEEN   SUCCESS      RPS   LATENCY_P50   LATENCY_P95   LATENCY_P99   READ_BYTES/SEC   WRITE_BYTES/SEC   REQUESTS   FAILURES   DENIED
web    web    web-v1        9   90.00%   91.00%    99.17%   2.0rps         0.8ms         1.0ms         1.0ms             0B/s           1.0kB/s        120          1        0
";
        assert_eq!(text, expected);
    }
}
