//! What a ServicePolicy asks for, as the clients of a Service see it; each case prints its figures.

use crate::Case;
use anyhow::ensure;
use harness::balancing::policy;
use harness::{Access, Answer, Mesh, allow_all, echo, eventually, workload};
use std::time::Instant;

pub(crate) const CASES: &[Case] = &[
    ("retries_hide_one_failing_of_five", &["curl"], one_fails),
    ("retries_stay_within_the_budget", &["curl"], all_fail),
    ("limits_of_time_have_their_errors", &["curl"], times),
    ("faults_are_named_and_taken_back", &["curl"], faults),
    ("clients_are_held_to_their_rate", &["curl"], rates),
];

/// A Service `web` over `good` pods that answer and `bad` ones that always fail.
fn web(good: u32, bad: u32) -> String {
    let service = "apiVersion: v1\nkind: Service\nmetadata: { name: web }\nspec:\n  selector: { serves: web }\n  ports:\n    - { name: http, port: 8080 }\n";
    let serving = |name: &str, text: String| {
        let label = format!("labels: {{ app: {name} }}");
        text.replace(&label, &format!("labels: {{ app: {name}, serves: web }}"))
    };
    let mut text = service.to_owned();
    if good > 0 {
        text += &format!("---\n{}", serving("good", echo("good", good)));
    }
    if bad > 0 {
        let bad = workload("bad", bad, &["broken", "8080"], 8080, "http");
        text += &format!("---\n{}", serving("bad", bad));
    }
    text
}

/// Calls so often, several at once; how many were answered 200, and how many at all.
fn call(mesh: &Mesh, calls: usize) -> anyhow::Result<(usize, usize)> {
    let url = format!("http://web:8080/[1-{calls}]");
    let options = ["-Z", "--parallel-max", "20", "-o", "/dev/null"];
    let command = [
        &["curl", "-s", "-w", "%{http_code}\n", "--max-time", "60"],
        &options[..],
        &[&url],
    ]
    .concat();
    let text = String::from_utf8_lossy(&mesh.exec("client", &command)?.stdout).into_owned();
    Ok((text.matches("200").count(), text.lines().count()))
}

fn once(mesh: &Mesh, options: &[&str]) -> anyhow::Result<Answer> {
    mesh.curl("client", "http://web:8080/", options)
}

/// Sum of the series of a metric whose labels have all of these.
fn metric(mesh: &Mesh, pod: &str, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<f64> {
    Ok(mesh.metrics(pod)?.sum(name, labels))
}

/// Tries beyond the first.
fn tried(mesh: &Mesh) -> anyhow::Result<f64> {
    let labels = [("result", "tried")];
    metric(mesh, "client", "weft_retries_total", &labels)
}

/// Puts retries in force; they are once there was one.
fn with_retries(mesh: &Mesh, spec: &str) -> anyhow::Result<()> {
    mesh.apply("policy", &policy(spec))?;
    eventually("retries are in force", || {
        call(mesh, 20)?;
        ensure!(tried(mesh)? > 0.0);
        Ok(())
    })
}

fn one_fails() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Permissive, &[&web(4, 1), &echo("client", 1)])?;
    with_retries(&mesh, "retries: { attempts: 2, statuses: [5xx] }")?;
    let (good, calls) = call(&mesh, 2000)?;
    println!("one of five failing: {good} of {calls} answered well");
    ensure!(calls == 2000 && good >= 1998, "{good} of {calls}");
    Ok(())
}

fn all_fail() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Permissive, &[&web(0, 5), &echo("client", 1)])?;
    let began = Instant::now();
    with_retries(
        &mesh,
        "retries: { attempts: 3, statuses: [5xx] }, retryBudget: { percent: 20, minPerSecond: 10 }",
    )?;
    let before = tried(&mesh)?;
    let (good, calls) = call(&mesh, 2000)?;
    let retries = tried(&mesh)? - before;
    let seconds = began.elapsed().as_secs_f64();
    // What was saved before: a second's worth.
    let most = 0.2 * calls as f64 + 10.0 * (seconds + 1.0);
    println!(
        "all five failing: {calls} requests, {good} answered well, {retries} more tries (at most {most:.0})"
    );
    ensure!(good == 0 && retries <= most);
    Ok(())
}

fn times() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Permissive, &[&web(1, 0), &echo("client", 1)])?;
    mesh.answers("client", "http://web:8080/", 200)?;
    // The delay stands where a slow service would.
    let slow = "fault: { delay: { percent: 100, duration: 30s } }";
    for (name, error) in [
        ("request", "E116 request-timeout"),
        ("response", "E115 response-timeout"),
        ("perTry", "E131 try-timeout"),
        ("idle", "E132 idle-timeout"),
    ] {
        mesh.apply(
            "policy",
            &policy(&format!("timeouts: {{ {name}: 200ms }}, {slow}")),
        )?;
        eventually(error, || {
            let answer = once(&mesh, &["--max-time", "10"])?;
            ensure!(answer.status == 504, "{answer:?}");
            ensure!(answer.header("weft-error") == Some(error), "{answer:?}");
            Ok(())
        })?;
    }
    mesh.delete("policy")?;
    eventually("without a policy there is no limit", || {
        mesh.answers("client", "http://web:8080/", 200)
    })
}

fn faults() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Permissive, &[&web(1, 0), &echo("client", 1)])?;
    mesh.answers("client", "http://web:8080/", 200)?;
    mesh.apply(
        "policy",
        &policy("fault: { abort: { percent: 100, status: 418 } }"),
    )?;
    eventually("every request fails on purpose", || {
        let answer = once(&mesh, &[])?;
        ensure!(answer.status == 418, "{answer:?}");
        let error = answer.header("weft-error");
        ensure!(error == Some("E129 fault-injected"), "{answer:?}");
        Ok(())
    })?;
    mesh.apply(
        "policy",
        &policy("fault: { abort: { percent: 50, status: 500 } }"),
    )?;
    eventually("half of them", || {
        let (good, calls) = call(&mesh, 100)?;
        ensure!(calls == 100 && (20..=80).contains(&good), "{good}");
        Ok(())
    })?;
    let (good, calls) = call(&mesh, 1000)?;
    println!("half aborted on purpose: {good} of {calls} answered well");
    // 500 expected; chance goes beyond this twice in ten million times.
    ensure!(calls == 1000 && (418..=582).contains(&good), "{good}");
    mesh.delete("policy")?;
    eventually("none", || {
        ensure!(call(&mesh, 20)? == (20, 20));
        Ok(())
    })
}

fn rates() -> anyhow::Result<()> {
    let mesh = Mesh::up(
        Access::Strict,
        &[
            &echo("web", 1),
            &echo("client", 1),
            &echo("other", 1),
            &allow_all("client", "web"),
            &allow_all("other", "web"),
        ],
    )?;
    for from in ["client", "other"] {
        mesh.answers(from, "http://web:8080/", 200)?;
    }
    // So slow that nothing comes back while the case runs.
    let each = "rateLimit: { perClient: { requests: 5, per: 1h, burst: 5 } }";
    mesh.apply("policy", &policy(each))?;
    eventually("the client has used up its burst", || {
        let answer = once(&mesh, &[])?;
        ensure!(answer.status == 429, "{answer:?}");
        ensure!(answer.header("weft-error") == Some("E123 rate-limited"));
        let wait = answer.header("retry-after").unwrap_or_default();
        ensure!((1..=3600).contains(&wait.parse::<u32>()?), "{wait}");
        Ok(())
    })?;
    let other = mesh.curl("other", "http://web:8080/", &[])?;
    ensure!(other.status == 200, "another client: {other:?}");
    let limited = metric(
        &mesh,
        "web",
        "weft_rate_limited_total",
        &[("audit", "false")],
    )?;
    ensure!(limited > 0.0);
    mesh.apply("policy", &policy(&format!("{each}, mode: audit")))?;
    eventually("audit lets pass", || {
        mesh.answers("client", "http://web:8080/", 200)
    })?;
    let (good, calls) = call(&mesh, 20)?;
    let audited = metric(
        &mesh,
        "web",
        "weft_rate_limited_total",
        &[("audit", "true")],
    )?;
    println!("audit: {good} of {calls} let pass, {audited} of them counted");
    ensure!(good == 20 && audited > 0.0);
    Ok(())
}
