//! An installation: what `meshctl install` prints, a controller with the rights it gives, and what the API server then
//! asks of it. Nothing runs Deployments here, so the controller is a program of the host; the Service that leads to it is
//! one of type ExternalName to `localhost`, with another port.

mod checked;
mod legacy;
mod rotated;
mod tools;

pub(super) use checked::checks;
pub(super) use legacy::legacy;
pub(super) use rotated::rotates;

use anyhow::{Context, Result, ensure};
use harness::kube::{Kube, free_ports};
use harness::{eventually, program};
use serde_json::{Value, json};
use std::fs::File;
use std::process::{Child, Command, Stdio};
use weft_proxy_api::names::{CONTROL_ACCOUNT, SYSTEM_NAMESPACE};

/// A controller of the host; ends with its owner.
struct Controller(Child);

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `meshctl` says on standard output.
fn meshctl(words: &[&str]) -> Result<String> {
    let output = Command::new(program("meshctl")?).args(words).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let status = output.status;
    ensure!(
        status.success(),
        "meshctl {words:?}: {status}: {}",
        text(&output.stderr)
    );
    Ok(text(&output.stdout))
}

/// An installation whose Service leads to this port of the host.
fn install(port: u16) -> Result<String> {
    install_with(port, &[])
}

fn install_with(port: u16, more: &[&str]) -> Result<String> {
    let text = meshctl(&[&["install", "--set", "metricsApi=false"], more].concat())?;
    let text = text.replace("8443", &port.to_string());
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": CONTROL_ACCOUNT, "namespace": SYSTEM_NAMESPACE},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    });
    let parts = text.split("---\n").map(|part| {
        match part.contains("\nkind: Service\n") && !part.contains("clusterIP: None") {
            true => format!("{service}\n"),
            false => part.to_owned(),
        }
    });
    Ok(parts.collect::<Vec<_>>().join("---\n"))
}

fn start(kube: &Kube, port: u16, more: &[&str]) -> Result<Controller> {
    let log = File::create(kube.folder().join("weft-control.log"))?;
    let kubeconfig = kube.kubeconfig_of(SYSTEM_NAMESPACE, CONTROL_ACCOUNT)?;
    let mut command = Command::new(program("weft-control")?);
    command
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(["--listen", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"])
        .arg(format!("--webhook-addr=127.0.0.1:{port}"))
        .args(more)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok(Controller(command.spawn()?))
}

fn log(kube: &Kube) -> String {
    std::fs::read_to_string(kube.folder().join("weft-control.log")).unwrap_or_default()
}

fn free_port() -> Result<u16> {
    let [port]: [u16; 1] = free_ports()?;
    Ok(port)
}

/// An API server with an installation whose webhook answers.
fn installed(more: &[&str]) -> Result<(Kube, Controller)> {
    let (kube, port) = (Kube::up()?, free_port()?);
    apply(&kube, &install(port)?)?;
    let controller = start(&kube, port, more)?;
    eventually("the webhook answers", || {
        let pod = pod("ready", json!({"weft.mesh/inject": "enabled"}));
        let made = create(&kube, "default", &pod, &["--dry-run=server"])?;
        ensure!(is_injected(&made), "{made}");
        Ok(())
    })
    .with_context(|| log(&kube))?;
    Ok((kube, controller))
}

/// The definitions of an installation take a moment to be in force; nothing else depends on that.
fn apply(kube: &Kube, text: &str) -> Result<String> {
    let said = kube.apply(text)?;
    let wait = [
        "wait",
        "crd",
        "--all",
        "--for=condition=Established",
        "--timeout=30s",
    ];
    kube.kubectl(&wait)?;
    Ok(said)
}

fn pod(name: &str, annotations: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"containers": [{"name": "app", "image": "example"}]},
    })
}

fn create(kube: &Kube, namespace: &str, object: &Value, more: &[&str]) -> Result<Value> {
    let words = [&["create", "-n", namespace, "-o", "json", "-f", "-"], more].concat();
    let said = kube.kubectl_with(&words, &object.to_string())?;
    Ok(serde_json::from_str(&said)?)
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    let items = pod["spec"][list].as_array().into_iter().flatten();
    items
        .filter_map(|item| item["name"].as_str().map(str::to_owned))
        .collect()
}

fn is_injected(pod: &Value) -> bool {
    names(pod, "initContainers") == ["weft-init", "weft-proxy"]
}

fn namespace(kube: &Kube, name: &str, labels: Value, annotations: Value) -> Result<()> {
    let metadata = json!({"name": name, "labels": labels, "annotations": annotations});
    let account = json!({"name": "default", "namespace": name});
    let items = json!([
        {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
    ]);
    kube.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())?;
    Ok(())
}

/// What is printed is what is there, however often it is applied; and all of it goes again.
pub(super) fn converges() -> Result<()> {
    let (kube, port) = (Kube::up()?, free_port()?);
    let text = meshctl(&["install"])?;
    apply(&kube, &text)?;
    let settled = |text: &str, when: &str| -> Result<()> {
        let before = versions(&kube, text)?;
        kube.apply(text)?;
        ensure!(
            versions(&kube, text)? == before,
            "{when}: something was written"
        );
        // It ends with 1 where there is a difference.
        kube.kubectl_with(&["diff", "-f", "-"], text)
            .map(drop)
            .context(when.to_owned())
    };
    settled(&text, "before a controller runs")?;

    kube.kubectl(&["delete", "service", CONTROL_ACCOUNT, "-n", SYSTEM_NAMESPACE])?;
    let text = install(port)?;
    apply(&kube, &text)?;
    let controller = start(&kube, port, &[])?;
    eventually(
        "the API server trusts the webhook wherever it asks it",
        || trusted(&kube),
    )
    .with_context(|| log(&kube))?;
    settled(&text, "with a controller")?;
    gone(&kube, controller)
}

/// Which state of each object there is; status and leases change by themselves.
fn versions(kube: &Kube, text: &str) -> Result<Vec<(String, Value)>> {
    let said = kube.kubectl_with(&["get", "-o", "json", "-f", "-"], text)?;
    let list: Value = serde_json::from_str(&said)?;
    let items = list["items"].as_array().context("a list")?.iter();
    let version = |object: &Value| {
        let metadata = &object["metadata"];
        let name = format!("{} {}", object["kind"], metadata["name"]);
        (
            name,
            json!([
                metadata["generation"],
                metadata["labels"],
                metadata["annotations"],
                object["spec"],
                object["webhooks"]
            ]),
        )
    };
    Ok(items.map(version).collect())
}

fn trusted(kube: &Kube) -> Result<()> {
    let secret = kube.get(&["secret", "weft-webhook-ca", "-n", SYSTEM_NAMESPACE])?;
    let bundle = &secret["data"]["ca.crt"];
    ensure!(bundle.is_string(), "{secret}");
    for kind in [
        "mutatingwebhookconfiguration",
        "validatingwebhookconfiguration",
    ] {
        for object in kube.get(&[kind])?["items"].as_array().into_iter().flatten() {
            for hook in object["webhooks"].as_array().into_iter().flatten() {
                let trusted = &hook["clientConfig"]["caBundle"];
                ensure!(trusted == bundle, "{kind} {}", hook["name"]);
            }
        }
    }
    for definition in kube.get(&["crd"])?["items"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let conversion = &definition["spec"]["conversion"];
        let trusted = &conversion["webhook"]["clientConfig"]["caBundle"];
        let right = conversion["strategy"] == "None" || trusted == bundle;
        ensure!(right, "{}", definition["metadata"]["name"]);
    }
    Ok(())
}

fn gone(kube: &Kube, controller: Controller) -> Result<()> {
    let kubeconfig = kube.kubeconfig().display().to_string();
    let uninstall = ["uninstall", "--kubeconfig", &kubeconfig];
    let text = eventually("all that the controller makes is there", || {
        let text = meshctl(&uninstall)?;
        for made in ["weft-ca", "weft-webhook-ca", "weft-control-status"] {
            ensure!(
                text.contains(&format!("name: {made}\n")),
                "{made} in {text}"
            );
        }
        Ok(text)
    })?;
    let elsewhere = [&uninstall[..], &["-n", "elsewhere"]].concat();
    ensure!(
        meshctl(&elsewhere).is_err(),
        "who mistakes the namespace takes nothing away"
    );
    drop(controller);
    // Nothing here takes a namespace's finalizer away, so it is not waited for.
    kube.kubectl_with(&["delete", "--wait=false", "-f", "-"], &text)?;
    eventually("nothing is left but the namespace, which goes", || {
        let left = meshctl(&uninstall)?;
        let kinds: Vec<&str> = left
            .lines()
            .filter(|line| line.starts_with("kind:"))
            .collect();
        ensure!(kinds.is_empty() || kinds == ["kind: Namespace"], "{left}");
        Ok(())
    })?;
    let namespace = kube.get(&["namespace", SYSTEM_NAMESPACE])?;
    ensure!(
        namespace["metadata"]["deletionTimestamp"].is_string(),
        "{namespace}"
    );
    let kinds = "crd,apiservices,clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations";
    let left = kube.kubectl(&["get", kinds, "-o", "name"])?;
    let ours: Vec<&str> = left
        .lines()
        .filter(|name| name.contains("weft") || name.contains("smi-spec"))
        .collect();
    ensure!(ours.is_empty(), "{ours:?}");
    let left = kube.kubectl(&["get", "rolebindings", "-n", "kube-system", "-o", "name"])?;
    ensure!(!left.contains("weft"), "{left}");
    let inside = "secrets,configmaps,leases,serviceaccounts,roles,rolebindings,services,deployments,poddisruptionbudgets,endpointslices";
    let left = kube.kubectl(&["get", inside, "-n", SYSTEM_NAMESPACE, "-o", "name"])?;
    ensure!(left.trim().is_empty(), "{left}");
    Ok(())
}

/// Pods are injected as they are created: by the real call, with no more rights than the installation gives.
pub(super) fn injects() -> Result<()> {
    let (kube, _controller) = installed(&[])?;
    whose(&kube)?;
    once_only(&kube)?;
    by_hand(&kube)?;
    refused(&kube)?;
    ensure!(!log(&kube).contains("panicked"), "{}", log(&kube));
    Ok(())
}

fn whose(kube: &Kube) -> Result<()> {
    let (on, off, none) = (
        json!({"weft.mesh/inject": "enabled"}),
        json!({"weft.mesh/inject": "disabled"}),
        json!({}),
    );
    namespace(kube, "labelled", on.clone(), none.clone())?;
    namespace(kube, "unwanted", off.clone(), none.clone())?;
    let level = "config.weft.mesh/proxy-log-level";
    let annotations = json!({"weft.mesh/inject": "enabled", level: "debug"});
    namespace(kube, "annotated", none.clone(), annotations)?;
    kube.apply("apiVersion: v1\nkind: ServiceAccount\nmetadata: { name: default, namespace: kube-system }\n")?;
    let table = [
        ("default", &none, false),
        ("default", &on, true),
        ("labelled", &none, true),
        ("labelled", &off, false),
        ("annotated", &none, true),
        ("annotated", &off, false),
        ("unwanted", &on, false),
        ("kube-system", &on, false),
    ];
    for (at, (namespace, annotations, expected)) in table.into_iter().enumerate() {
        let pod = pod(&format!("pod-{at}"), annotations.clone());
        let made = create(kube, namespace, &pod, &[])?;
        ensure!(
            is_injected(&made) == expected,
            "{namespace} {annotations}: {made}"
        );
        if namespace == "annotated" && expected {
            ensure!(
                made.to_string().contains("debug"),
                "what the namespace configures: {made}"
            );
        }
    }
    let roots = kube.get(&["pod", "pod-1"])?.to_string();
    ensure!(
        roots.contains("BEGIN CERTIFICATE"),
        "the roots are in the pod: {roots}"
    );
    Ok(())
}

/// Injected by hand it names a ConfigMap that nobody makes, and is told the roots themselves.
fn by_hand(kube: &Kube) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("pod.json");
    std::fs::write(&file, pod("by-hand", json!({})).to_string())?;
    let text = meshctl(&["inject", &file.display().to_string()])?;
    ensure!(text.contains("weft-trust-anchors"), "{text}");
    let made = create(kube, "default", &serde_json::from_str(&text)?, &[])?.to_string();
    ensure!(
        made.contains("BEGIN CERTIFICATE") && !made.contains("weft-trust-anchors"),
        "{made}"
    );
    Ok(())
}

/// A dry run leaves nothing behind, and what was injected is not injected again.
fn once_only(kube: &Kube) -> Result<()> {
    let dry = pod("dry", json!({"weft.mesh/inject": "enabled"}));
    let made = create(kube, "default", &dry, &["--dry-run=server"])?;
    ensure!(is_injected(&made), "{made}");
    ensure!(kube.get(&["pod", "dry"]).is_err(), "a dry run");
    let mut again = made.clone();
    for field in [
        "uid",
        "creationTimestamp",
        "resourceVersion",
        "managedFields",
    ] {
        again["metadata"]
            .as_object_mut()
            .context("a map")?
            .remove(field);
    }
    again["metadata"]["name"] = "again".into();
    let twice = create(kube, "default", &again, &[])?;
    ensure!(
        is_injected(&twice) && names(&twice, "containers") == ["app"],
        "{twice}"
    );
    ensure!(
        names(&twice, "volumes").len() == names(&made, "volumes").len(),
        "{twice}"
    );
    Ok(())
}

fn refused(kube: &Kube) -> Result<()> {
    let key = "config.weft.mesh/opaque-ports";
    let bad = pod("bad", json!({"weft.mesh/inject": "enabled", key: "many"}));
    let error = create(kube, "default", &bad, &[])
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    ensure!(error.contains(key) && error.contains("many"), "{error}");
    let word = pod("word", json!({"weft.mesh/inject": "yes"}));
    let error = create(kube, "default", &word, &[])
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    ensure!(error.contains("neither enabled nor disabled"), "{error}");
    Ok(())
}

const SPLIT: &str = "apiVersion: split.smi-spec.io/v1alpha1
kind: TrafficSplit
metadata: { name: web, namespace: default }
spec:
  service: web
  backends: [{ service: web-v1, weight: 900m }, { service: web-v2, weight: 100m }]
";

/// Objects are shown in every version by the controller's own webhook, and refused with the field named.
pub(super) fn converts() -> Result<()> {
    let (kube, _controller) = installed(&[])?;
    eventually("an object of an old version is taken", || {
        kube.apply(SPLIT).map(drop)
    })
    .with_context(|| log(&kube))?;
    for version in ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"] {
        let resource = format!("trafficsplits.{version}.split.smi-spec.io");
        let split = kube.get(&[&resource, "web"])?;
        let group = format!("split.smi-spec.io/{version}");
        ensure!(split["apiVersion"] == group, "{split}");
        ensure!(
            split["spec"]["backends"].as_array().map(Vec::len) == Some(2),
            "{split}"
        );
    }
    let back = kube.get(&["trafficsplits.v1alpha1.split.smi-spec.io", "web"])?;
    ensure!(back["spec"]["backends"][0]["weight"] == "900m", "{back}");
    let policy = "apiVersion: weft.mesh/v1alpha1\nkind: ServicePolicy\nmetadata: { name: p }\nspec: { service: web, timeouts: { request: 1s } }\n";
    kube.apply(policy)?;
    let table = [
        (SPLIT.replace("900m", "-1"), "spec.backends[0].weight"),
        (
            policy.replace("service: web,", "service: web, tmeouts: {},"),
            "spec.tmeouts",
        ),
    ];
    for (text, field) in table {
        let error = kube
            .apply(&text)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        ensure!(error.contains(field), "{field} in {error}");
    }
    tools::canaries(&kube)?;
    tools::emptied(&kube)
}
