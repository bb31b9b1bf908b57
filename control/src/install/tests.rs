//! Laws of an installation: complete, in order, the same every time, and no more than it needs.
#![allow(clippy::unwrap_used)]

use super::removal::{Keep, objects_to_delete};
use super::*;
use serde_json::json;
use std::collections::BTreeSet;

fn with(pairs: &[&str]) -> Install {
    let mut install = Install::default();
    for pair in pairs {
        install.values.set_pair(pair).unwrap();
    }
    install
}

fn name(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    format!(
        "{}/{}/{}",
        object["kind"].as_str().unwrap(),
        text("namespace"),
        text("name")
    )
}

fn find<'a>(objects: &'a [Value], wanted: &str) -> &'a Value {
    objects
        .iter()
        .find(|object| name(object) == wanted)
        .unwrap()
}

#[test]
fn what_others_refer_to_comes_first_and_nothing_comes_twice() {
    let objects = with(&["podMonitor=true"]).render();
    let names: Vec<String> = objects.iter().map(name).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    let at = |kind: &str| {
        names
            .iter()
            .position(|name| name.starts_with(kind))
            .unwrap()
    };
    let order = [
        "Namespace/",
        "CustomResourceDefinition/",
        "ServiceAccount/",
        "ClusterRole/",
        "ClusterRoleBinding/",
        "Role/",
        "RoleBinding/",
        "ConfigMap/",
        "Service/",
        "PodDisruptionBudget/",
        "Deployment/",
        "PodMonitor/",
        "APIService/",
        "MutatingWebhookConfiguration/",
        "ValidatingWebhookConfiguration/",
    ];
    let places: Vec<usize> = order.iter().map(|kind| at(kind)).collect();
    assert!(places.is_sorted(), "{names:?}");
    assert_eq!(objects, with(&["podMonitor=true"]).render());
}

/// Dashboards and alerts tell proxies from controllers by it.
#[test]
fn what_is_monitored_has_its_job() {
    let objects = with(&["podMonitor=true"]).render();
    for job in ["weft-proxy", "weft-control"] {
        let monitor = find(&objects, &format!("PodMonitor/weft-system/{job}"));
        let relabelings = &monitor["spec"]["podMetricsEndpoints"][0]["relabelings"];
        let named = json!({"targetLabel": "job", "replacement": job});
        let all = relabelings.as_array().unwrap();
        assert!(all.contains(&named), "{monitor}");
    }
}

#[test]
fn the_text_reads_as_the_objects() {
    for install in [Install::default(), with(&["podMonitor=true", "replicas=3"])] {
        let objects = install.render();
        let text = text::yaml(&objects);
        let parts: Vec<Value> = text
            .split("---\n")
            .skip(1)
            .map(|part| serde_saphyr::from_str(part).unwrap())
            .collect();
        assert_eq!(parts, objects);
    }
}

#[test]
fn values_reach_the_objects() {
    let chosen = [
        "replicas=5",
        "access=strict",
        "image=example/weft:1",
        "metrics=edges",
    ];
    let objects = with(&chosen).render();
    let deployment = find(&objects, "Deployment/weft-system/weft-control");
    assert_eq!(deployment["spec"]["replicas"], 5);
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "example/weft:1");
    let env = container["env"].to_string();
    for said in [
        r#"{"name":"WEFT_CONTROL_ACCESS","value":"strict"}"#,
        r#"{"name":"WEFT_CONTROL_METRICS","value":"edges"}"#,
    ] {
        assert!(env.contains(said), "{env}");
    }
    let args = container["args"].to_string();
    assert!(
        args.contains("config.weft.mesh/proxy-image=example/weft:1"),
        "{args}"
    );
    let kept = find(&objects, "ConfigMap/weft-system/weft-config");
    let kept: Value = serde_json::from_str(kept["data"][CONFIG_KEY].as_str().unwrap()).unwrap();
    assert_eq!(
        kept,
        json!({"access": "strict", "image": "example/weft:1", "metrics": "edges", "replicas": 5})
    );
    let none = with(&["crds=false"]).render();
    assert!(
        !none
            .iter()
            .any(|object| object["kind"] == "CustomResourceDefinition")
    );
}

#[test]
fn the_controller_understands_its_own_arguments() {
    let objects = with(&["proxy.sidecar=plain", "webhook.caTtl=90d"]).render();
    let deployment = find(&objects, "Deployment/weft-system/weft-control");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let args = container["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it.as_str().unwrap());
    let words = ["weft-control", "--kubernetes", "--webhook-addr=[::]:8443"];
    let words = words.into_iter().chain(args).map(std::ffi::OsString::from);
    let config = crate::args::Config::parse(words, None).unwrap();
    let webhook = config.webhook.unwrap();
    assert_eq!(webhook.sidecar, crate::inject::Sidecar::Plain);
    assert_eq!(
        webhook.control_addr,
        "weft-control.weft-system.svc.cluster.local:8086"
    );
}

#[test]
fn the_controller_may_do_no_harm() {
    let objects = Install::default().render();
    let deployment = find(&objects, "Deployment/weft-system/weft-control");
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let context = &pod["containers"][0]["securityContext"];
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
    assert!(!pod.to_string().contains("hostPath"));
}

#[test]
fn another_namespace_is_another_namespace_everywhere() {
    let install = Install {
        namespace: "mesh".into(),
        ..Install::default()
    };
    let text = text::yaml(&install.render());
    assert!(!text.contains("weft-system"), "{text}");
}

#[test]
fn everything_that_is_made_is_deleted_in_the_opposite_order() {
    let install = with(&["podMonitor=true", "legacySpecGroup=true"]);
    let deleted = objects_to_delete(&install, Keep::default());
    let names: Vec<String> = deleted.iter().map(name).collect();
    let mut wanted: Vec<String> = install.render().iter().map(name).collect();
    wanted.reverse();
    let others: Vec<&String> = names.iter().filter(|name| !wanted.contains(name)).collect();
    let expected = [
        "Lease/weft-system/weft-control-status",
        "Secret/weft-system/weft-webhook-ca",
        "Secret/weft-system/weft-ca",
    ];
    assert_eq!(others, expected);
    assert!(wanted.iter().all(|name| names.contains(name)));
    assert_eq!(names.last().unwrap(), "Namespace//weft-system");
    assert!(names[0].starts_with("ValidatingWebhookConfiguration"));
    let keep = Keep {
        definitions: true,
        namespace: true,
    };
    let kept = objects_to_delete(&install, keep);
    assert!(!kept.iter().any(|it| {
        ["Namespace", "CustomResourceDefinition"]
            .iter()
            .any(|kind| it["kind"] == *kind)
    }));
}

#[test]
fn the_old_name_of_a_group_is_installed_where_it_is_chosen() {
    let of = |install: &Install| -> Vec<String> {
        let objects = install.render();
        let about = objects.iter().filter(|it| {
            let text = it.to_string();
            text.contains("\"spec.smi-spec.io\"") || name(it).contains("legacy")
        });
        about.map(name).collect()
    };
    assert_eq!(of(&Install::default()), [""; 0]);
    let chosen = with(&["legacySpecGroup=true"]);
    let expected = [
        "CustomResourceDefinition//httproutegroups.spec.smi-spec.io",
        "CustomResourceDefinition//tcproutes.spec.smi-spec.io",
        "ClusterRole//weft-control-legacy",
        "ClusterRoleBinding//weft-control-legacy",
        "ValidatingWebhookConfiguration//weft-validator-legacy",
    ];
    assert_eq!(of(&chosen), expected);
    assert_eq!(
        of(&with(&["legacySpecGroup=true", "crds=false"])),
        expected[2..]
    );
    // Definitions that are perhaps another product's are not taken away.
    let deleted = |install: &Install| {
        let all = objects_to_delete(install, Keep::default());
        all.iter()
            .filter(|it| name(it).contains(".spec.smi-spec.io"))
            .count()
    };
    assert_eq!((deleted(&Install::default()), deleted(&chosen)), (0, 2));
    let config = |install: &Install| {
        let objects = install.render();
        let deployment = find(&objects, "Deployment/weft-system/weft-control");
        deployment["spec"]["template"]["spec"]["containers"][0]["env"].to_string()
    };
    let env = r#"{"name":"WEFT_CONTROL_LEGACY_SPEC_GROUP","value":"true"}"#;
    assert!(config(&chosen).contains(env) && !config(&Install::default()).contains(env));
}
