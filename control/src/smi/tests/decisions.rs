//! The table of decisions names tests that exist, and every number has one.

use std::collections::BTreeSet;
use std::path::Path;

const TABLE: &str = include_str!("../DECISIONS.md");

/// The names of all test functions of the project that begin with a number.
fn tests(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let names = text
                .lines()
                .filter_map(|line| line.trim().strip_prefix("fn d"));
            let names = names
                .filter_map(|rest| rest.split_once('('))
                .map(|(name, _)| name);
            found.extend(names.map(|name| format!("d{name}")));
        }
    }
}

#[test]
fn every_decision_has_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut known = BTreeSet::new();
    for part in ["control/src", "proxy/src", "proxy-api/src", "tests/cases"] {
        tests(&root.join(part), &mut known);
    }
    let rows: Vec<Vec<&str>> = TABLE
        .lines()
        .filter(|line| line.starts_with("| D"))
        .map(|line| line.split(" | ").collect())
        .collect();
    assert_eq!(rows.len(), 41);
    for (number, row) in (1..).zip(rows) {
        let decision = row[0].trim_start_matches("| ");
        assert_eq!(decision, format!("D{number:02}"));
        let named: Vec<&str> = row[3].split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "{decision}");
        for test in named {
            assert!(known.contains(test), "{decision}: there is no test {test}");
            assert!(
                test.contains(&decision.to_lowercase()),
                "{decision}: {test}"
            );
        }
    }
}
