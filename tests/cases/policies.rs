//! A ServicePolicy is in force as soon as its file is there, and as long as it is there.

use crate::Case;
use anyhow::ensure;
use harness::{Access, Mesh, allow_all, echo, eventually};
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    (
        "what_a_policy_asks_for_comes_and_goes_with_its_file",
        &["curl"],
        comes_and_goes,
    ),
    (
        "a_broken_policy_keeps_its_last_good_state",
        &["curl"],
        broken,
    ),
];

/// A ServicePolicy for the Service `web`.
fn policy(spec: &str) -> String {
    format!(
        "apiVersion: weft.mesh/v1alpha1\nkind: ServicePolicy\nmetadata: {{ name: web }}\nspec: {{ service: web, {spec} }}\n"
    )
}

fn up() -> anyhow::Result<Mesh> {
    let mesh = Mesh::up(
        Access::Strict,
        &[
            &echo("web", 1),
            &echo("client", 1),
            &allow_all("client", "web"),
        ],
    )?;
    answered(&mesh, 200, None)?;
    Ok(mesh)
}

/// How long it takes until a request is answered like this.
fn answered(mesh: &Mesh, status: u16, error: Option<&str>) -> anyhow::Result<Duration> {
    let began = Instant::now();
    eventually(&format!("{status} {error:?}"), || {
        let answer = mesh.curl("client", "http://web:8080/", &[])?;
        ensure!(
            answer.status == status && answer.header("weft-error") == error,
            "{answer:?}"
        );
        Ok(began.elapsed())
    })
}

fn comes_and_goes() -> anyhow::Result<()> {
    let mesh = up()?;
    for (spec, status, error) in [
        // Kept by the caller's proxy.
        (
            "fault: { abort: { percent: 100, status: 418 } }",
            418,
            "E129 fault-injected",
        ),
        (
            "timeouts: { request: 200ms }, fault: { delay: { percent: 100, duration: 30s } }",
            504,
            "E116 request-timeout",
        ),
        // Kept by the pods of the Service.
        (
            "rateLimit: { requests: 1, per: 1h, burst: 1 }",
            429,
            "E123 rate-limited",
        ),
    ] {
        mesh.apply("policy", &policy(spec))?;
        let came = answered(&mesh, status, Some(error))?;
        mesh.delete("policy")?;
        let went = answered(&mesh, 200, None)?;
        println!("{error}: came after {came:?}, went after {went:?}");
    }
    Ok(())
}

fn broken() -> anyhow::Result<()> {
    let mesh = up()?;
    let abort = |status: u16| format!("fault: {{ abort: {{ percent: 100, status: {status} }} }}");
    let in_force = |status| answered(&mesh, status, Some("E129 fault-injected"));
    mesh.apply("policy", &policy(&abort(418)))?;
    in_force(418)?;
    for (text, named) in [
        (
            policy(&format!("{}, timeouts: {{ request: soon }}", abort(500))),
            "spec.timeouts.request",
        ),
        (
            policy(&format!("{}, timeout: {{ request: 1s }}", abort(500))),
            "spec.timeout: ",
        ),
        ("kind: [ServicePolicy\n".to_owned(), "policy.yaml"),
    ] {
        mesh.apply("policy", &text)?;
        eventually("the mistake is reported", || {
            let problems = mesh.client().status()?.problems.join("\n");
            ensure!(
                problems.contains(named) && problems.contains("policy.yaml"),
                "{named:?} is not in {problems:?}"
            );
            Ok(())
        })?;
        let answer = mesh.curl("client", "http://web:8080/", &[])?;
        ensure!(answer.status == 418, "the last good one holds: {answer:?}");
    }
    mesh.apply("policy", &policy(&abort(451)))?;
    in_force(451)?;
    mesh.delete("policy")?;
    answered(&mesh, 200, None)?;
    Ok(())
}
