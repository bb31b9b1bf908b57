//! What is promised is proved: every error of the table is provoked by a test, proxies answer nothing without one, and
//! the tests that THREATS.md names are there.

use crate::Case;
use crate::tidy::{root, sources};
use anyhow::{Context, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use weft_proxy_api::errors;

pub(crate) const CASES: &[Case] = &[
    ("every_error_is_provoked_by_a_test", &[], provoked),
    ("proxies_answer_nothing_without_a_code", &[], answers),
    ("threats_name_tests_that_are_there", &[], threats),
];

/// Error, and a test or case that makes a proxy make it.
const PROVOKED: &[(&str, &str)] = &[
    (
        "E101",
        "test ambiguous_requests_are_refused_and_end_the_connection",
    ),
    (
        "E102",
        "case conformance::declared_protocols_override_detection",
    ),
    ("E104", "test what_cannot_be_served_says_why"),
    ("E105", "test what_cannot_be_served_says_why"),
    ("E106", "test what_cannot_be_served_says_why"),
    ("E107", "test an_endpoint_that_does_not_answer_is_given_up"),
    (
        "E108",
        "case refusals::each_wrong_server_is_refused_by_its_own_reason",
    ),
    (
        "E109",
        "test who_cannot_be_called_under_mutual_tls_is_not_called",
    ),
    (
        "E110",
        "test without_policy_nothing_reaches_the_application",
    ),
    ("E111", "case access::only_what_a_target_allows"),
    (
        "E112",
        "test the_application_does_not_reach_its_own_proxy_through_it",
    ),
    ("E113", "test what_cannot_be_served_says_why"),
    ("E114", "test a_request_counts_until_its_response_has_ended"),
    ("E115", "test each_limit_of_time_has_its_own_error"),
    ("E116", "test each_limit_of_time_has_its_own_error"),
    (
        "E117",
        "test an_endpoint_that_breaks_a_rule_breaks_only_its_own_answer",
    ),
    ("E118", "test protocols_are_not_switched_unasked"),
    ("E119", "test bytes_that_outlive_the_drain_are_cut_off"),
    (
        "E121",
        "test a_head_that_is_too_large_is_told_so_in_our_words",
    ),
    (
        "E122",
        "test a_service_whose_endpoints_are_all_set_aside_says_so",
    ),
    ("E123", "case resilience::clients_are_held_to_their_rate"),
    (
        "E124",
        "test a_head_has_ten_seconds_and_silence_between_requests_has_not",
    ),
    (
        "E125",
        "test who_cannot_be_called_under_mutual_tls_is_not_called",
    ),
    (
        "E126",
        "test nobody_waits_long_for_a_controller_that_is_away",
    ),
    (
        "E127",
        "test an_endpoint_without_extended_connect_is_not_asked",
    ),
    ("E128", "test corpus_of_requests_none_is_read_in_two_ways"),
    (
        "E129",
        "test what_fails_on_purpose_says_so_and_reaches_nobody",
    ),
    ("E131", "test each_limit_of_time_has_its_own_error"),
    ("E132", "test each_limit_of_time_has_its_own_error"),
    (
        "E133",
        "test beyond_a_limit_requests_fail_at_once_or_go_to_the_fallback",
    ),
    (
        "E134",
        "case limits::beyond_the_cap_the_next_connection_is_closed",
    ),
];

/// Nothing makes it on purpose: it stands where the code cannot come.
const NEVER: &[&str] = &["E130"];

/// Where answers of a proxy to its clients are made. (`admin.rs` answers on a port of its own, and a tunnel says to the
/// other proxy that it has opened a stream.)
const ANSWERS: &[&str] = &[
    "proxy/src/layers/respond.rs",
    "proxy/src/admin.rs",
    "proxy/src/tunnel/server.rs",
];

fn provoked() -> anyhow::Result<()> {
    let rust = all_rust()?;
    for row in errors::ALL {
        let by = PROVOKED.iter().find(|(code, _)| *code == row.code);
        let Some((_, by)) = by else {
            ensure!(NEVER.contains(&row.code), "no test provokes {row}");
            continue;
        };
        let text = proof(by, &rust).with_context(|| row.to_string())?;
        let kind = format!("{:?}", row.kind);
        let says = [row.code, row.name, &kind]
            .iter()
            .any(|word| text.contains(word));
        ensure!(says, "{by} says nothing of {row}");
    }
    let known: BTreeSet<_> = errors::ALL.iter().map(|row| row.code).collect();
    let unknown = PROVOKED.iter().find(|(code, _)| !known.contains(code));
    ensure!(unknown.is_none(), "{unknown:?} is no error");
    Ok(())
}

fn answers() -> anyhow::Result<()> {
    let mut elsewhere = Vec::new();
    for file in sources(&root().join("proxy/src"))? {
        let text = std::fs::read_to_string(&file)?;
        let code = text.split("#[cfg(test)]\nmod tests {").next();
        let code = code.unwrap_or_default();
        let name = file.strip_prefix(root())?.display().to_string();
        let makes = ["Response::new(", "Response::builder("];
        if makes.iter().any(|make| code.contains(make)) && !ANSWERS.contains(&name.as_str()) {
            elsewhere.push(name);
        }
    }
    ensure!(
        elsewhere.is_empty(),
        "answers are made in {elsewhere:?}, too: do they have a code?"
    );
    Ok(())
}

/// Every promise of THREATS.md has a proof, and every proof is there.
fn threats() -> anyhow::Result<()> {
    let text = std::fs::read_to_string(root().join("THREATS.md"))?;
    let rust = all_rust()?;
    let rows = text.lines().filter(|line| line.starts_with("| **"));
    let mut count = 0;
    for row in rows {
        let quoted = row.split('`').skip(1).step_by(2);
        let kinds = ["test ", "case ", "row ", "fuzz "];
        let proofs: Vec<_> = quoted
            .filter(|quoted| kinds.iter().any(|kind| quoted.starts_with(kind)))
            .collect();
        ensure!(!proofs.is_empty(), "nothing proves {row}");
        for named in &proofs {
            proof(named, &rust).with_context(|| format!("in {row}"))?;
        }
        count += 1;
    }
    ensure!(count > 0, "THREATS.md promises nothing");
    Ok(())
}

/// The text of the file that holds `test NAME`, `case GROUP::NAME`, `row NUMBER` of the fault matrix or `fuzz TARGET`.
fn proof<'a>(named: &str, rust: &'a [(PathBuf, String)]) -> anyhow::Result<&'a str> {
    let (kind, name) = named.split_once(' ').context("not a proof")?;
    let (file, holds) = match kind {
        "test" => (None, format!("fn {name}(")),
        "case" => {
            let (group, name) = name.split_once("::").context("a case is GROUP::NAME")?;
            let file = match group {
                "kube" => "tests/cases/kube/mod.rs".to_owned(),
                group => format!("tests/cases/{group}.rs"),
            };
            (Some(file), format!("\"{name}\""))
        }
        "row" => (Some("tests/faults".to_owned()), format!("name: \"{name}\"")),
        "fuzz" => (Some("fuzz/src/all.rs".to_owned()), format!("(\"{name}\", ")),
        other => anyhow::bail!("{other} is no kind of proof"),
    };
    let found = rust.iter().find(|(path, text)| {
        let here = file.as_ref().is_none_or(|file| path.starts_with(file));
        here && text.contains(&holds)
    });
    let (_, text) = found.with_context(|| format!("{named} is not there"))?;
    Ok(text)
}

/// Every file of Rust that a proof may be in, by its path from the root.
fn all_rust() -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    let folders = [
        "proxy-api/src",
        "proxy/src",
        "init/src",
        "control/src",
        "tests",
        "fuzz/src",
    ];
    for folder in folders {
        collect(&root().join(folder), &mut files)?;
    }
    Ok(files)
}

fn collect(folder: &Path, files: &mut Vec<(PathBuf, String)>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = std::fs::read_to_string(&path)?;
            files.push((path.strip_prefix(root())?.to_owned(), text));
        }
    }
    Ok(())
}
