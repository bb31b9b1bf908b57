//! The graph of who calls whom, as text, DOT (Graphviz) and Mermaid. Pure.

use super::edges::{Edge, Node};
use std::collections::BTreeSet;
use std::fmt::Write;

/// One line for each edge, under its caller.
pub fn text(edges: &[Edge]) -> String {
    let mut out = String::new();
    let mut last = None;
    for edge in edges {
        if last != Some(&edge.src) {
            let _ = writeln!(out, "{}", name(&edge.src));
            last = Some(&edge.src);
        }
        let lock = if edge.secured {
            "secured"
        } else {
            "not secured"
        };
        let _ = writeln!(out, "  → {}   {}, {lock}", name(&edge.dst), figures(edge));
    }
    out
}

/// For `dot`.
pub fn dot(edges: &[Edge]) -> String {
    let mut out = String::from("digraph mesh {\n  rankdir=LR;\n  node [shape=box];\n");
    for edge in edges {
        let style = if edge.secured { "solid" } else { "dashed" };
        let ends = [&edge.src, &edge.dst].map(|node| quoted(&name(node)));
        let label = quoted(&figures(edge));
        let _ = writeln!(
            out,
            "  {} -> {} [label={label}, style={style}];",
            ends[0], ends[1]
        );
    }
    out + "}\n"
}

/// For Markdown.
pub fn mermaid(edges: &[Edge]) -> String {
    let nodes: BTreeSet<&Node> = edges
        .iter()
        .flat_map(|edge| [&edge.src, &edge.dst])
        .collect();
    let nodes: Vec<&Node> = nodes.into_iter().collect();
    let id = |node: &Node| nodes.iter().position(|at| *at == node).unwrap_or(0);
    let mut out = String::from("flowchart LR\n");
    for node in &nodes {
        let _ = writeln!(out, "  n{}[\"{}\"]", id(node), name(node).replace('"', "'"));
    }
    for edge in edges {
        let arrow = if edge.secured { "-->" } else { "-.->" };
        let (src, dst) = (id(&edge.src), id(&edge.dst));
        let _ = writeln!(out, "  n{src} {arrow}|{}| n{dst}", figures(edge));
    }
    out
}

fn name(node: &Node) -> String {
    match node.workload.as_str() {
        "" => "outside of the mesh".into(),
        workload => format!("{}/{workload}", node.namespace),
    }
}

fn figures(edge: &Edge) -> String {
    let counts = &edge.sum.counts;
    let mut text = match counts.requests {
        0 => format!("{} connections", counts.connections),
        _ => format!("{:.1} rps", edge.sum.rps),
    };
    if let Some(success) = edge.sum.success_rate {
        let _ = write!(text, " {:.2} %", success * 100.0);
    }
    text
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::super::edges::edges;
    use super::super::rows::tests::story;
    use super::*;

    #[test]
    fn the_same_edges_in_three_languages() {
        let edges = edges(&story());
        let expected = "\
shop/deploy/load
  → shop/deploy/web-v1   9.0 rps 100.00 %, secured
  → shop/deploy/web-v2   1.0 rps 50.00 %, secured
";
        assert_eq!(text(&edges), expected);
        let line = "  \"shop/deploy/load\" -> \"shop/deploy/web-v1\" [label=\"9.0 rps 100.00 %\", style=solid];\n";
        assert!(dot(&edges).contains(line), "{}", dot(&edges));
        assert!(
            mermaid(&edges).contains("  n0 -->|9.0 rps 100.00 %| n1\n"),
            "{}",
            mermaid(&edges)
        );
    }
}
