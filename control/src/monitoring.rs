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
    use std::path::Path;

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

    #[test]
    fn every_alert_has_a_test() {
        let tests = include_str!("monitoring/rules_test.yml");
        for alert in rules::ALERTS {
            let name = format!("alertname: {}\n", alert.name);
            assert!(tests.contains(&name), "{}", alert.name);
        }
    }
}
