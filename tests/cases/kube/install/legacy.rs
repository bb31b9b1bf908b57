//! Routes under the name that their group had in the first releases of SMI: unknown, until an installation lets it count.

use super::{apply, free_port, install, install_with, log, start};
use anyhow::{Context, Result, ensure};
use harness::eventually;
use harness::kube::Kube;

const GROUP: &str = r#"
apiVersion: spec.smi-spec.io/v1alpha1
kind: HTTPRouteGroup
metadata: { name: reads }
matches: [{ name: all, pathRegex: "/a", methods: [GET] }]
"#;

const TARGET: &str = r#"
apiVersion: access.smi-spec.io/v1alpha4
kind: TrafficTarget
metadata: { name: readers }
spec:
  destination: { kind: ServiceAccount, name: default }
  sources: [{ kind: ServiceAccount, name: default }]
  rules: [{ kind: HTTPRouteGroup, name: reads, matches: [all] }]
"#;

/// Whether everything that the target names exists, as its status says.
fn resolved(kube: &Kube, expected: &str) -> Result<()> {
    let path = "jsonpath={.status.conditions[?(@.type=='ResolvedRefs')].status}";
    eventually(&format!("ResolvedRefs is {expected}"), || {
        let is = kube.kubectl(&["get", "traffictarget", "readers", "-o", path])?;
        ensure!(is == expected, "{is}");
        Ok(())
    })
    .with_context(|| log(kube))
}

fn refused(kube: &Kube, text: &str, part: &str) -> Result<()> {
    let said = kube.apply(text).err().map(|error| error.to_string());
    let said = said.with_context(|| format!("accepted:\n{text}"))?;
    ensure!(said.contains(part), "{part:?} is not in {said}");
    Ok(())
}

pub(in super::super) fn legacy() -> Result<()> {
    let (kube, port) = (Kube::up()?, free_port()?);
    apply(&kube, &install(port)?)?;
    refused(&kube, GROUP, "no matches for kind")?;
    apply(
        &kube,
        &install_with(port, &["--set", "legacySpecGroup=true"])?,
    )?;
    let _controller = start(&kube, port, &["--legacy-spec-group"])?;
    kube.apply(TARGET)?;
    resolved(&kube, "False")?;
    // Through the webhook, as soon as the API server trusts it.
    let wrong = GROUP.replace("\"/a\"", "\"/a(\"");
    eventually("what is wrong is refused with its field", || {
        refused(&kube, &wrong, "matches[0].pathRegex")
    })
    .with_context(|| log(&kube))?;
    kube.apply(GROUP)?;
    resolved(&kube, "True")?;
    // Both are the same object: the one goes, the other stays in force.
    let current = GROUP.replace("spec.smi-spec.io", "specs.smi-spec.io");
    kube.apply(&current)?;
    let names = [
        "httproutegroups.spec.smi-spec.io",
        "httproutegroups.specs.smi-spec.io",
    ];
    kube.kubectl(&["delete", names[0], "reads"])?;
    resolved(&kube, "True")?;
    kube.kubectl(&["delete", names[1], "reads"])?;
    resolved(&kube, "False")
}
