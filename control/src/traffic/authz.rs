//! Who is allowed, and who is being denied: permissions beside the traffic they let in, and denials by caller and reason.
//! Pure.

use super::report::Report;
use super::rows::{Sum, route_name};
use super::table::Direction;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One caller of one account.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthzRow {
    /// Namespace of the pods called.
    pub namespace: String,
    /// Their service account.
    pub account: String,
    /// Who calls: an identity, `sa/NAME` of another namespace, or `-` for nobody known.
    pub client: String,
    /// What allows it; empty: nothing does.
    pub object: String,
    /// Routes of the permission; empty: any traffic.
    pub routes: Vec<String>,
    /// Denials by reason.
    pub denied_by: BTreeMap<String, u64>,
    /// What it sent.
    pub sum: Sum,
}

/// Every permission and every denied caller, by account called.
pub fn authz(report: &Report) -> Vec<AuthzRow> {
    let mut rows = allowed(report);
    rows.extend(denied(report));
    rows.sort_by(|a, b| {
        let key = |row: &AuthzRow| {
            let denied = row.object.is_empty();
            (
                row.namespace.clone(),
                row.account.clone(),
                denied,
                row.client.clone(),
            )
        };
        key(a).cmp(&key(b)).then_with(|| a.object.cmp(&b.object))
    });
    rows.iter_mut().for_each(|row| row.sum.finish());
    rows
}

fn allowed(report: &Report) -> Vec<AuthzRow> {
    let mut rows = Vec::new();
    for permission in &report.permissions {
        let routes = permission.routes.as_deref().unwrap_or_default();
        for source in &permission.sources {
            let mut row = AuthzRow {
                namespace: permission.namespace.clone(),
                account: permission.account.clone(),
                client: source.clone(),
                object: permission.object.clone(),
                routes: routes.iter().map(|route| route_name(route)).collect(),
                ..AuthzRow::default()
            };
            let pods = report.pods.iter().filter(|pod| {
                pod.facts.namespace == row.namespace && pod.facts.service_account == row.account
            });
            for pod in pods {
                for edge in &pod.edges {
                    let key = &edge.key;
                    let fits = match &permission.routes {
                        Some(routes) => routes.contains(&key.route),
                        None => key.route.is_empty(),
                    };
                    let own = key.direction == Direction::Inbound && is(source, key);
                    if own && fits {
                        row.sum.add(&edge.counts, pod.seconds);
                    }
                }
            }
            rows.push(row);
        }
    }
    rows
}

/// Is the caller of this edge the one with this identity (`spiffe://domain/ns/NAMESPACE/sa/NAME`)?
fn is(source: &str, key: &super::table::EdgeKey) -> bool {
    let end = format!("/ns/{}/{}", key.peer_namespace, key.peer_workload);
    key.mutual_tls && source.ends_with(&end)
}

fn denied(report: &Report) -> Vec<AuthzRow> {
    let mut rows: BTreeMap<(String, String, String), AuthzRow> = BTreeMap::new();
    for pod in &report.pods {
        for edge in &pod.edges {
            let key = &edge.key;
            if key.direction != Direction::Inbound || edge.counts.denied == 0 {
                continue;
            }
            let client = match key.peer_workload.as_str() {
                "" => "-".to_owned(),
                account => format!("{}/{account}", key.peer_namespace),
            };
            let facts = &pod.facts;
            let at = (
                facts.namespace.clone(),
                facts.service_account.clone(),
                client,
            );
            let row = rows.entry(at).or_default();
            for (reason, count) in &edge.counts.denied_by {
                let known = row.denied_by.entry(reason.clone()).or_default();
                *known = known.saturating_add(*count);
            }
            row.sum.add(&edge.counts, pod.seconds);
        }
    }
    let rows = rows.into_iter();
    rows.map(|((namespace, account, client), row)| AuthzRow {
        namespace,
        account,
        client,
        ..row
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::inventory::Permission;
    use super::super::rows::tests::story;
    use super::*;

    #[test]
    fn permissions_stand_beside_what_they_let_in_and_denials_beside_their_reason() {
        let mut report = story();
        report.permissions = vec![Permission {
            namespace: "shop".into(),
            account: "web".into(),
            object: "TrafficTarget shop/web".into(),
            sources: vec!["spiffe://cluster.local/ns/shop/sa/load".into()],
            ports: vec![],
            routes: Some(vec!["HTTPRouteGroup shop/api read".into()]),
        }];
        let mut refused = report.pods[1].edges[0].clone();
        refused.key.peer_workload = "sa/stranger".into();
        refused.counts.denied = 3;
        refused.counts.denied_by = [("not_a_source".to_owned(), 3)].into();
        report.pods[1].edges.push(refused);
        let rows = authz(&report);
        assert_eq!(rows.len(), 2);
        assert_eq!(
            (rows[0].object.as_str(), rows[0].sum.counts.requests),
            ("TrafficTarget shop/web", 100)
        );
        assert_eq!(rows[0].routes, ["api/read"]);
        assert_eq!(
            (rows[1].client.as_str(), rows[1].denied_by["not_a_source"]),
            ("shop/sa/stranger", 3)
        );
    }
}
