//! `meshctl edges`: who calls whom, and whether it is secured; where not, why.

use super::connect::Target;
use super::table::{Align, Table, percent, rate};
use super::{Format, Scope, Window};
use anyhow::Result;
use clap::Args;
use std::process::ExitCode;
use weft_control::traffic::edges::{Edge, Node, edges};

/// Show who calls whom, with identities, and why an edge is not secured
#[derive(Debug, Args)]
pub(crate) struct EdgesArgs {
    #[command(flatten)]
    scope: Scope,
    /// Time to look back over: 1s to 10m, or start
    #[arg(short = 't', long, default_value = "start")]
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

/// Always 0: what is not secured is a fact, not a failure.
pub(crate) fn run(args: &EdgesArgs) -> Result<ExitCode> {
    let only = args.scope.only();
    let within = |node: &Node| only.as_ref().is_none_or(|at| *at == node.namespace);
    super::shown(args.watch, || {
        let report = args.target.report(args.time_window)?;
        let everywhere = edges(&report);
        let here = everywhere.iter();
        let here = here.filter(|edge| within(&edge.src) || within(&edge.dst));
        let all: Vec<Edge> = here.cloned().collect();
        if all.is_empty() {
            eprintln!("{}", super::no_traffic(only.as_ref(), &everywhere));
        }
        match args.output {
            Format::Table => Ok(render(&all, false)),
            Format::Wide => Ok(render(&all, true)),
            format => super::document(
                &serde_json::json!({
                    "apiVersion": report.api_version,
                    "kind": "Edges",
                    "windowSeconds": report.window_seconds,
                    "edges": all,
                }),
                format,
            ),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The table for people.
fn render(all: &[Edge], wide: bool) -> String {
    let left = |name| (name, Align::Left);
    let mut columns = ["SRC", "DST", "SRC_NS", "DST_NS", "SECURED"]
        .map(left)
        .to_vec();
    if wide {
        columns.extend(["CLIENT_ID", "SERVER_ID"].map(left));
        columns.extend(["SUCCESS", "RPS"].map(|name| (name, Align::Right)));
    }
    let mut table = Table::new(columns);
    let or_dash = |text: &str| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text.to_owned()
        }
    };
    for edge in all {
        let secured = match &edge.no_tls_reason {
            None => "√".to_owned(),
            Some(reason) => format!("× {reason}"),
        };
        let ends = [
            &edge.src.workload,
            &edge.dst.workload,
            &edge.src.namespace,
            &edge.dst.namespace,
        ];
        let mut cells: Vec<String> = ends.iter().map(|at| or_dash(at)).collect();
        cells.push(secured);
        if wide {
            let ids = [&edge.client_id, &edge.server_id];
            cells.extend(ids.map(|id| or_dash(id.as_deref().unwrap_or_default())));
            cells.extend([percent(edge.sum.success_rate), rate(edge.sum.rps)]);
        }
        table.row(cells);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edge_says_whether_it_is_secured() {
        let node = |workload: &str| Node {
            namespace: "shop".into(),
            workload: workload.into(),
        };
        let good = Edge {
            src: node("deploy/load"),
            dst: node("deploy/web"),
            secured: true,
            client_id: Some("load.shop".into()),
            server_id: Some("web.shop".into()),
            ..Edge::default()
        };
        let bad = Edge {
            src: Node::default(),
            dst: node("deploy/web"),
            no_tls_reason: Some("the client has no proxy".into()),
            ..Edge::default()
        };
        let expected = "\
SRC           DST          SRC_NS   DST_NS   SECURED
deploy/load   deploy/web   shop     shop     √
-             deploy/web   -        shop     × the client has no proxy
";
        assert_eq!(render(&[good, bad], false), expected);
    }
}
