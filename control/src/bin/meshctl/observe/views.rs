//! `meshctl routes`, `authz`, `graph` and `identity`: the report in other shapes.

use super::connect::Target;
use super::table::{Align, Table, latency, percent, rate};
use super::{Format, Scope, Window};
use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};
use weft_control::traffic::authz::{AuthzRow, authz};
use weft_control::traffic::edges::{Edge, edges};
use weft_control::traffic::graph;
use weft_control::traffic::report::PodReport;
use weft_control::traffic::rows::{Kind, Query, Resource, stat};

/// What these have in common
#[derive(Debug, Args)]
pub(crate) struct Common {
    #[command(flatten)]
    scope: Scope,
    /// Time to look back over: 1s to 10m, or start
    #[arg(short = 't', long, default_value = "1m")]
    time_window: Window,
    /// Refresh every two seconds
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    target: Target,
}

/// Show traffic by route, as the called ones saw it
#[derive(Debug, Args)]
pub(crate) struct RoutesArgs {
    /// Only of these, e.g. deploy/web or svc/web
    to: Option<Resource>,
    /// How
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    common: Common,
}

/// Show who is allowed, and who is being denied
#[derive(Debug, Args)]
pub(crate) struct AuthzArgs {
    /// How
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    common: Common,
}

/// Draw who calls whom
#[derive(Debug, Args)]
pub(crate) struct GraphArgs {
    /// How
    #[arg(short, long, value_enum, default_value_t = Drawing::Text)]
    output: Drawing,
    #[command(flatten)]
    common: Common,
}

/// Show identities and certificates of the proxies
#[derive(Debug, Args)]
pub(crate) struct IdentityArgs {
    /// How
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Drawing {
    Text,
    Dot,
    Mermaid,
    Json,
}

/// Always 0.
pub(crate) fn routes(args: &RoutesArgs) -> Result<ExitCode> {
    let common = &args.common;
    let query = Query {
        namespace: common.scope.only(),
        to: args.to.clone(),
        ..Query::all(Kind::Route)
    };
    super::shown(common.watch, || {
        let report = common.target.report(common.time_window)?;
        let rows = stat(&report, &query).map_err(anyhow::Error::msg)?;
        if rows.is_empty() {
            let anywhere = Query {
                namespace: None,
                ..query.clone()
            };
            let elsewhere = stat(&report, &anywhere).unwrap_or_default().into_iter();
            let hint = super::elsewhere(&elsewhere.map(|row| row.namespace).collect());
            eprintln!("no traffic on any route there{hint}");
        }
        match args.output {
            Format::Table | Format::Wide => {
                let wide = args.output == Format::Wide;
                Ok(super::stat::render(
                    &rows,
                    common.scope.all_namespaces,
                    wide,
                ))
            }
            format => super::document(
                &json!({"apiVersion": report.api_version, "kind": "Routes", "rows": rows}),
                format,
            ),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Always 0: a denial is a fact.
pub(crate) fn authorizations(args: &AuthzArgs) -> Result<ExitCode> {
    let common = &args.common;
    let only = common.scope.only();
    super::shown(common.watch, || {
        let report = common.target.report(common.time_window)?;
        let (mut rows, here) = (authz(&report), |at: &String| {
            only.as_ref().is_none_or(|it| it == at)
        });
        let everywhere = rows.iter().map(|row| row.namespace.clone()).collect();
        rows.retain(|row| here(&row.namespace));
        if rows.is_empty() {
            let place = only
                .as_ref()
                .map_or_else(String::new, |at| format!(" in namespace {at}"));
            let hint = super::elsewhere(&everywhere);
            eprintln!("nobody is permitted or denied anything{place}{hint}");
        }
        match args.output {
            Format::Table | Format::Wide => Ok(authz_table(&rows)),
            format => super::document(
                &json!({"apiVersion": report.api_version, "kind": "Authz", "rows": rows}),
                format,
            ),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

fn authz_table(rows: &[AuthzRow]) -> String {
    let left = ["SERVER", "CLIENT", "AUTHORIZATION", "ROUTES"];
    let right = ["UNAUTHORIZED", "SUCCESS", "RPS", "LATENCY_P95"];
    let mut columns: Vec<_> = left.map(|name| (name, Align::Left)).into();
    columns.extend(right.map(|name| (name, Align::Right)));
    let mut table = Table::new(columns);
    for row in rows {
        let reasons: Vec<&str> = row.denied_by.keys().map(String::as_str).collect();
        let object = match row.object.as_str() {
            "" => format!("denied: {}", reasons.join(", ")),
            object => object.to_owned(),
        };
        let routes = match row.routes.is_empty() {
            true => "-".to_owned(),
            false => row.routes.join(","),
        };
        let client = row
            .client
            .split_once("/ns/")
            .map_or(row.client.as_str(), |(_, at)| at);
        let denied: u64 = row.denied_by.values().sum();
        table.row(vec![
            format!("{}/sa/{}", row.namespace, row.account),
            client.to_owned(),
            object,
            routes,
            denied.to_string(),
            percent(row.sum.success_rate),
            rate(row.sum.rps),
            latency(row.sum.latency_p95),
        ]);
    }
    table.render()
}

/// Always 0.
pub(crate) fn drawn(args: &GraphArgs) -> Result<ExitCode> {
    let common = &args.common;
    let only = common.scope.only();
    super::shown(common.watch, || {
        let report = common.target.report(common.time_window)?;
        let everywhere = edges(&report);
        let within = |namespace: &String| only.as_ref().is_none_or(|at| at == namespace);
        let here = everywhere.iter();
        let here = here.filter(|at| within(&at.src.namespace) || within(&at.dst.namespace));
        let all: Vec<Edge> = here.cloned().collect();
        if all.is_empty() {
            eprintln!("{}", super::no_traffic(only.as_ref(), &everywhere));
        }
        Ok(match args.output {
            Drawing::Text => graph::text(&all),
            Drawing::Dot => graph::dot(&all),
            Drawing::Mermaid => graph::mermaid(&all),
            Drawing::Json => super::document(
                &json!({"apiVersion": report.api_version, "kind": "Graph", "edges": all}),
                Format::Json,
            )?,
        })
    })?;
    Ok(ExitCode::SUCCESS)
}

/// 0, or 1 if a certificate has ended.
pub(crate) fn identities(args: &IdentityArgs) -> Result<ExitCode> {
    let common = &args.common;
    let only = common.scope.only();
    let mut ended = false;
    super::shown(common.watch, || {
        let report = common.target.report(common.time_window)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let all = report.pods.iter();
        let pods: Vec<&PodReport> = all
            .filter(|pod| only.as_ref().is_none_or(|at| *at == pod.facts.namespace))
            .collect();
        ended = pods
            .iter()
            .any(|pod| expiry(pod).is_some_and(|at| at <= now));
        match args.output {
            Format::Table | Format::Wide => Ok(identity_table(&pods, now)),
            format => {
                let pods: Vec<_> = pods
                    .iter()
                    .map(|pod| json!({
                        "namespace": pod.facts.namespace,
                        "pod": pod.facts.name,
                        "meshed": pod.facts.meshed,
                        "identity": format!("{}.{}", pod.facts.service_account, pod.facts.namespace),
                        "proxy": pod.proxy,
                    }))
                    .collect();
                super::document(
                    &json!({"apiVersion": report.api_version, "kind": "Identities", "pods": pods}),
                    format,
                )
            }
        }
    })?;
    Ok(if ended {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn expiry(pod: &PodReport) -> Option<f64> {
    pod.proxy.as_ref()?.certificate_expiry
}

fn identity_table(pods: &[&PodReport], now: f64) -> String {
    let columns = [
        "NAMESPACE",
        "POD",
        "IDENTITY",
        "CERTIFICATE",
        "CONFIG",
        "VERSION",
    ];
    let mut table = Table::new(columns.map(|name| (name, Align::Left)).into());
    for pod in pods {
        let facts = &pod.facts;
        let identity = match facts.meshed {
            true => format!("{}.{}", facts.service_account, facts.namespace),
            false => "- (no proxy)".to_owned(),
        };
        let certificate = match expiry(pod).map(|at| at - now) {
            None => "-".to_owned(),
            Some(left) if left <= 0.0 => "ended".to_owned(),
            Some(left) => format!("ends in {}", span(left)),
        };
        let (config, version) = match &pod.proxy {
            None => ("-".to_owned(), "-".to_owned()),
            Some(proxy) if proxy.synced => ("SYNCED".to_owned(), proxy.version.clone()),
            Some(proxy) => {
                let stale = span(proxy.stale_seconds.unwrap_or(0.0));
                (format!("STALE {stale}"), proxy.version.clone())
            }
        };
        let cells = [
            &facts.namespace,
            &facts.name,
            &identity,
            &certificate,
            &config,
            &version,
        ];
        table.row(cells.map(Clone::clone).into());
    }
    table.render()
}

/// `23h`, `12m`, `5s`.
fn span(seconds: f64) -> String {
    match seconds {
        s if s >= 48.0 * 3600.0 => format!("{:.0}d", s / 86_400.0),
        s if s >= 2.0 * 3600.0 => format!("{:.0}h", s / 3600.0),
        s if s >= 120.0 => format!("{:.0}m", s / 60.0),
        s => format!("{s:.0}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_control::traffic::inventory::PodFacts;
    use weft_control::traffic::report::ProxyReport;

    #[test]
    fn a_denied_caller_stands_beside_its_reason() {
        let row = AuthzRow {
            namespace: "shop".into(),
            account: "web".into(),
            client: "shop/sa/stranger".into(),
            denied_by: [("not_a_source".to_owned(), 7)].into(),
            ..AuthzRow::default()
        };
        let expected = "\
SERVER        CLIENT             AUTHORIZATION          ROUTES   UNAUTHORIZED   SUCCESS      RPS   LATENCY_P95
shop/sa/web   shop/sa/stranger   denied: not_a_source   -                   7         -   0.0rps             -
";
        assert_eq!(authz_table(&[row]), expected);
    }

    #[test]
    fn certificates_say_when_they_end() {
        let mut pod = PodReport {
            facts: PodFacts {
                namespace: "shop".into(),
                name: "web-1".into(),
                service_account: "web".into(),
                meshed: true,
                ..PodFacts::default()
            },
            ..PodReport::default()
        };
        pod.proxy = Some(ProxyReport {
            version: "0.1.0".into(),
            synced: true,
            certificate_expiry: Some(90_000.0),
            ..ProxyReport::default()
        });
        let expected = "\
NAMESPACE   POD     IDENTITY   CERTIFICATE   CONFIG   VERSION
shop        web-1   web.shop   ends in 24h   SYNCED   0.1.0
";
        assert_eq!(identity_table(&[&pod], 3600.0), expected);
    }
}
