//! Against a real Kubernetes API server.

mod authority;
mod identity;
mod install;
mod live;
mod mesh;
mod metrics;
mod observers;
mod smi;
mod source;
mod status;

use crate::Case;
use anyhow::{Context, Result};
use harness::eventually;
use harness::kube::Kube;
use serde_json::{Value, json};
use std::path::Path;
use weft_control::kube::connect;

pub(crate) const CASES: &[Case] = &[
    (
        "the_server_comes_again_with_its_objects",
        &[],
        source::comes_again,
    ),
    (
        "objects_reach_the_policy_and_watches_go_on",
        &[],
        source::objects,
    ),
    (
        "a_watch_that_the_server_forgot_is_a_list_again",
        &["curl"],
        source::forgotten,
    ),
    (
        "the_authority_is_replaced_under_every_replica",
        &["openssl"],
        authority::replaced,
    ),
    (
        "objects_of_smi_are_read_back_in_every_version",
        &[],
        smi::versions,
    ),
    (
        "tokens_are_reviewed_and_the_authority_is_one",
        &[],
        identity::review,
    ),
    ("status_is_told_and_its_writer_replaced", &[], status::told),
    (
        "install::what_is_printed_converges_and_goes_again",
        &[],
        install::converges,
    ),
    (
        "install::pods_are_injected_by_the_real_call",
        &[],
        install::injects,
    ),
    (
        "install::objects_are_converted_and_refused_by_the_real_call",
        &[],
        install::converts,
    ),
    (
        "install::the_old_name_of_a_group_counts_where_it_is_chosen",
        &[],
        install::legacy,
    ),
    (
        "install::a_check_says_what_works_and_what_does_not",
        &[],
        install::checks,
    ),
    (
        "install::the_authority_of_the_webhook_changes_without_a_gap",
        &[],
        install::rotates,
    ),
    (
        "a_mesh_obeys_kubectl_within_a_second",
        &["curl"],
        mesh::obeys,
    ),
    (
        "the_command_line_is_told_what_is_in_force",
        &["curl"],
        live::asked,
    ),
    ("an_upgrade_keeps_what_was_chosen", &[], live::upgraded),
    (
        "traffic_is_told_through_the_aggregator",
        &["curl"],
        metrics::aggregated,
    ),
    (
        "rights_of_the_server_say_who_sees_traffic",
        &["curl"],
        observers::permitted,
    ),
];

/// A definition of a kind with one version that takes everything, for as long as a case needs no more of it.
fn definition(group: &str, kind: &str, plural: &str, version: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{
                "name": version, "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

/// Defines the kinds of SMI that a controller of this build reads, and waits until they are served.
fn define_smi(kube: &Kube) -> Result<()> {
    let mut items = Vec::new();
    for watched in weft_control::source::kube::kinds::WATCHED {
        if let Some(version) = watched.readable().next().filter(|_| watched.custom) {
            items.push(definition(
                watched.group,
                watched.kind,
                watched.plural,
                version,
            ));
        }
    }
    kube.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())?;
    eventually("the definitions are in force", || {
        let wait = [
            "wait",
            "crd",
            "--all",
            "--for=condition=Established",
            "--timeout=10s",
        ];
        kube.kubectl(&wait).map(drop)
    })
}

/// A client with this kubeconfig.
async fn client(kubeconfig: &Path) -> Result<weft_control::kube::Client> {
    let settings = connect::Settings {
        kubeconfig: Some(kubeconfig.to_owned()),
        ..connect::Settings::default()
    };
    connect::client(&settings).await
}

/// Runs a case that waits for more than one thing at a time.
fn with_runtime<T>(case: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?
        .block_on(case)
}
