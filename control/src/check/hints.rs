//! What to do about each check that does not come out well; also a table of the README.

/// Name of a check, and what to do.
pub const HINTS: &[(&str, &str)] = &[
    (
        "api-reachable",
        "Look at the kubeconfig and context that are used, and whether kubectl gets an answer with them.",
    ),
    (
        "api-version",
        "Kubernetes 1.30 is the oldest with all that the webhooks ask for (matchConditions).",
    ),
    (
        "clock",
        "Synchronise the clocks (NTP): certificates count from and until a time.",
    ),
    (
        "permissions",
        "Install as somebody who may make these objects, usually a cluster-admin.",
    ),
    (
        "other-meshes",
        "Pods of a namespace should have one sidecar: enable only one mesh in each.",
    ),
    (
        "definitions-of-others",
        "Applying ours replaces these definitions; objects of versions that both serve stay. OSM and FSM took path patterns for whole paths: annotate such groups (config.weft.mesh/path-match: full).",
    ),
    (
        "not-installed",
        "meshctl upgrade keeps the values that this installation has.",
    ),
    (
        "namespace",
        "meshctl install makes it; beside an installation: kubectl create namespace NAME, or name the controller's with -n.",
    ),
    (
        "status-written",
        "The log of the controller says why (W170): it needs its namespace, and rights to Leases there.",
    ),
    (
        "installed",
        "meshctl install | kubectl apply -f -, or name the namespace with -n.",
    ),
    (
        "same-version",
        "meshctl upgrade | kubectl apply -f - with the meshctl of the version wanted.",
    ),
    (
        "access",
        "meshctl simulate --access strict says what would be denied; then meshctl upgrade --set access=strict, or the annotation config.weft.mesh/access.",
    ),
    (
        "as-rendered",
        "meshctl upgrade | kubectl apply -f - puts these fields right again.",
    ),
    (
        "rights",
        "meshctl upgrade | kubectl apply -f - gives the controller's account the rights it needs.",
    ),
    (
        "definitions-served",
        "meshctl install --crds | kubectl apply -f -; kubectl describe crd NAME says what is wrong.",
    ),
    (
        "replicas",
        "kubectl describe and kubectl logs of the pods of deploy/weft-control.",
    ),
    (
        "webhook-authority",
        "The controller makes the Secret weft-webhook-ca and replaces it in time: look at its log and its rights.",
    ),
    (
        "ca-bundle",
        "The controller fills these in within seconds: look at its log and its rights.",
    ),
    (
        "injection-works",
        "The message is the API server's: can it reach Service weft-control on port 8443?",
    ),
    (
        "conversion-works",
        "The message is the API server's: can it reach Service weft-control on port 8443?",
    ),
    (
        "mesh-authority",
        "The certificate authority of the mesh is in Secret weft-ca: rotate its roots in time.",
    ),
    (
        "metrics-api",
        "kubectl describe apiservice v1alpha1.metrics.smi-spec.io says why; until then discovery is slow.",
    ),
    (
        "controller-answers",
        "Look at the log of the controller: meshctl local logs, or kubectl logs deploy/weft-control.",
    ),
    (
        "controllers-answer",
        "Is it running, and does --peers of each controller name all the others? Until it answers its proxies keep what they have.",
    ),
    (
        "objects-in-force",
        "meshctl analyze and the log of the controller say what is wrong with which field.",
    ),
    (
        "proxies-connected",
        "Look at the log of the container weft-proxy of these pods: who answers, and with what error?",
    ),
    (
        "proxies-synced",
        "These proxies hold an older policy: the log of the container weft-proxy says why.",
    ),
    (
        "proxies-version",
        "Restart these workloads (kubectl rollout restart) to inject the proxy of this version.",
    ),
];

/// What to do about a check.
pub fn remedy(id: &str) -> &'static str {
    let hint = HINTS.iter().find(|(name, _)| *name == id);
    hint.map_or("", |(_, remedy)| remedy)
}

/// The hints as a table of Markdown, each with its anchor.
pub fn table() -> String {
    let mut text = String::from("| check | what to do |\n|---|---|\n");
    for (id, remedy) in HINTS {
        let remedy = remedy.replace('|', "\\|");
        text.push_str(&format!("| <a id=\"check-{id}\"></a>`{id}` | {remedy} |\n"));
    }
    text
}
