//! Files for Prometheus and Grafana, made here and committed under `control/monitoring`, so that they can be taken without
//! building anything. `meshctl monitoring DIR` writes the same. A test compares both; `WEFT_BLESS=1` writes them anew.
//!
//! [`rules`]: recording rules and alerts. [`boards`]: what the dashboards show. [`grafana`]: how Grafana wants it.

pub mod boards;
pub mod grafana;
pub mod rules;

/// Path and text of every file.
pub fn files() -> Vec<(String, String)> {
    let fixed = [
        (
            "prometheus/kubernetes.yml",
            include_str!("monitoring/kubernetes.yml"),
        ),
        (
            "prometheus/machine.yml",
            include_str!("monitoring/machine.yml"),
        ),
        (
            "prometheus/podmonitor.yaml",
            include_str!("monitoring/podmonitor.yaml"),
        ),
        (
            "prometheus/rules_test.yml",
            include_str!("monitoring/rules_test.yml"),
        ),
        (
            "flagger/metric-templates.yaml",
            include_str!("monitoring/metric-templates.yaml"),
        ),
        (
            "flagger/istio-names.yml",
            include_str!("monitoring/istio_names.yml"),
        ),
    ];
    let fixed = fixed.map(|(path, text)| (path.to_owned(), text.to_owned()));
    let mut all = Vec::from(fixed);
    all.push(("prometheus/rules.yml".to_owned(), rules::yaml()));
    let boards = boards::BOARDS.iter();
    all.extend(boards.map(|board| (format!("grafana/{}.json", board.id), grafana::json(board))));
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::install::Install;
    use std::path::Path;
    use weft_proxy_api::names::CONTROL_ACCOUNT;

    #[test]
    fn committed_files_are_the_generated_ones() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("monitoring");
        for (path, text) in files() {
            let path = folder.join(path);
            if std::env::var_os("WEFT_BLESS").is_some() {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &text).unwrap();
            }
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(committed == text, "{} is stale", path.display());
        }
    }

    /// Prometheus looks for the controller by a label and a port that its pods have.
    #[test]
    fn the_controller_is_found_as_it_is_installed() {
        let objects = Install::default().render();
        let deployment = objects.iter().find(|it| it["kind"] == "Deployment");
        let pod = &deployment.unwrap()["spec"]["template"];
        let label = "app.kubernetes.io/component";
        assert_eq!(pod["metadata"]["labels"][label], CONTROL_ACCOUNT);
        let ports = pod["spec"]["containers"][0]["ports"].as_array().unwrap();
        assert!(ports.iter().any(|it| it["name"] == "admin"));
        let operator = include_str!("monitoring/podmonitor.yaml");
        assert!(operator.contains(&format!("      {label}: {CONTROL_ACCOUNT}\n")));
        assert!(operator.contains("    - port: admin\n"));
        // The dashboards ask for these jobs; the operator would call them otherwise.
        for job in ["weft-proxy", "weft-control"] {
            let named = format!("        - targetLabel: job\n          replacement: {job}\n");
            assert!(operator.contains(&named), "{job}");
        }
        let cluster = include_str!("monitoring/kubernetes.yml");
        let meta = label.replace(['.', '/'], "_");
        let kept = format!(
            "[__meta_kubernetes_pod_label_{meta}]\n        regex: {CONTROL_ACCOUNT}\n        action: keep\n"
        );
        assert!(cluster.contains(&kept));
    }

    #[test]
    fn every_alert_has_a_test() {
        let tests = include_str!("monitoring/rules_test.yml");
        for alert in rules::ALERTS {
            let name = format!("alertname: {}\n", alert.name);
            assert!(tests.contains(&name), "{}", alert.name);
        }
    }
}
