//! What is foretold from manifests is what the proxies do with the same manifests.

use crate::Case;
use anyhow::{anyhow, ensure};
use harness::{Access, Mesh, allow_http, allow_tcp, echo, eventually, split, tcp_server, unmeshed};
use weft_control::simulate::question::Written;
use weft_control::simulate::{Answer, Files, Simulation, files::File};
use weft_control::views::Mesh as Rules;
pub(crate) use weft_proxy_api::policy::Access as Foretold;
use weft_proxy_api::policy::Access::Strict;

pub(crate) const CASES: &[Case] = &[(
    "answers_equal_what_the_proxies_do",
    &["curl", "nc"],
    answers,
)];

/// A root over two versions: those who ask for the second one by header get it.
fn versions() -> String {
    let root = "apiVersion: v1\nkind: Service\nmetadata: { name: web }\nspec:\n  selector: { app: web-v1 }\n  ports:\n    - { name: http, port: 8080 }\n";
    let beta = split("web", &[("web-v1", 0), ("web-v2", 1)])
        + "  matches:\n    - { kind: HTTPRouteGroup, name: beta }\n---\napiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\nmetadata: { name: beta }\nspec:\n  matches:\n    - name: beta\n      headers:\n        - x-beta: \"yes\"\n";
    let zero =
        root.replace("name: web }", "name: zero }") + "---\n" + &split("zero", &[("web-v1", 0)]);
    [
        root.to_owned(),
        beta,
        zero,
        echo("web-v1", 1),
        echo("web-v2", 1),
    ]
    .join("---\n")
}

/// Who asks, the Service and port, method, path, options of curl.
const REQUESTS: &[(&str, &str, &str, &str, &[&str])] = &[
    ("client", "web:8080", "GET", "/public", &[]),
    ("client", "web:8080", "GET", "/public/a?b=c", &[]),
    ("client", "web:8080", "GET", "/publicity", &[]),
    ("client", "web:8080", "POST", "/public", &[]),
    ("client", "web:8080", "GET", "/private", &[]),
    ("client", "web:8080", "GET", "/", &[]),
    ("client", "web:8080", "GET", "/public/../private", &[]),
    ("client", "web:8080", "GET", "/private/../public", &[]),
    ("client", "web:8080", "GET", "/public/%2e%2e/private", &[]),
    ("client", "web:8080", "GET", "/pub%6cic", &[]),
    ("client", "web:8080", "GET", "/public%2fa", &[]),
    ("client", "web:8080", "GET", "/public%00", &[]),
    ("client", "web:8080", "GET", "/PUBLIC", &[]),
    (
        "client",
        "web:8080",
        "GET",
        "/public",
        &["-H", "x-beta: yes"],
    ),
    ("client", "web:8080", "GET", "/beta", &["-H", "x-beta: yes"]),
    ("client", "web:8080", "GET", "/beta", &["-H", "x-beta: no"]),
    (
        "client",
        "web:8080",
        "GET",
        "/beta",
        &["-H", "x-beta: no", "-H", "x-beta: yes"],
    ),
    (
        "client",
        "web:8080",
        "GET",
        "/public",
        &["--http2-prior-knowledge"],
    ),
    (
        "client",
        "web:8080",
        "GET",
        "/private",
        &["--http2-prior-knowledge"],
    ),
    (
        "client",
        "web:8080",
        "GET",
        "/beta",
        &["--http2-prior-knowledge", "-H", "x-beta: yes"],
    ),
    ("client", "web-v1:8080", "GET", "/public", &[]),
    ("client", "web-v2:8080", "GET", "/public", &[]),
    ("client", "web-v2:8080", "GET", "/beta", &[]),
    ("client", "zero:8080", "GET", "/public", &[]),
    ("client", "web:8081", "GET", "/public", &[]),
    ("other", "web:8080", "GET", "/public", &[]),
    ("other", "web-v2:8080", "GET", "/beta", &[]),
    ("stranger", "web:8080", "GET", "/public", &[]),
    ("stranger", "web-v2:8080", "GET", "/beta", &[]),
    ("client", "stranger:8080", "GET", "/any", &[]),
    ("other", "stranger:8080", "POST", "/any", &[]),
];

fn answers() -> anyhow::Result<()> {
    let stranger = unmeshed("stranger", &["echo", "8080"], 8080);
    let manifests = [
        versions(),
        echo("client", 1),
        echo("other", 1),
        stranger,
        tcp_server("bytes", "tcp"),
        allow_http("client", "web-v1", "GET", "/public"),
        allow_http("client", "web-v2", "GET", "/beta"),
        allow_tcp("client", "bytes", 7000),
    ];
    let texts: Vec<&str> = manifests.iter().map(String::as_str).collect();
    let mesh = Mesh::up(Access::Strict, &texts)?;
    mesh.answers("client", "http://web:8080/public", 200)?;
    let simulation = simulation(Strict, &texts);
    for (from, to, method, path, options) in REQUESTS {
        let told = told(&simulation, from, to, method, path, options)?;
        let url = format!("http://{to}{path}");
        let mut all = vec!["-X", method, "--path-as-is"];
        all.extend(*options);
        let foretold = told.decision.status.unwrap_or(0);
        // The first of them may come before its proxy was told where that leads.
        let seen = eventually(&format!("{from} {method} {to}{path} {options:?}"), || {
            let seen = mesh.curl(from, &url, &all)?;
            ensure!(seen.status == foretold, "{seen:?}, foretold {told:#?}");
            Ok(seen)
        })?;
        // One backend has all of it: is it the one that answers?
        let backend = told.backends.iter().find(|it| it.share == 100.0);
        if let (200, Some(backend)) = (seen.status, backend) {
            let pod = seen.echo()["pod"].as_str().unwrap_or_default().to_owned();
            let name = match backend.service.as_str() {
                "web" => "web-v1", // its own endpoints
                name => name,
            };
            ensure!(
                pod.starts_with(name),
                "{to}{path} {options:?}: {pod}, foretold {name}"
            );
        }
    }
    for from in ["client", "other", "stranger"] {
        let mut question = written(from, "bytes:7000");
        question.protocol = Some("tcp".to_owned());
        let told = simulation.ask(&question.meant().map_err(|why| anyhow!(why))?);
        let command = "printf hello | timeout 30 nc -N bytes 7000";
        let passes = told.decision.verdict.as_str() == "allow";
        eventually(&format!("{from} is treated as foretold"), || {
            let seen = mesh.exec(from, &["sh", "-c", command])?;
            ensure!(
                seen.stdout.starts_with(b"hello") == passes,
                "{seen:?}, foretold {told:#?}"
            );
            Ok(())
        })?;
    }
    Ok(())
}

/// What is foretold from these manifests of one request, which the case that asks also makes.
pub(crate) fn foretold(
    access: Foretold,
    texts: &[&str],
    (from, to): (&str, &str),
    change: impl FnOnce(&mut Written),
) -> anyhow::Result<Answer> {
    let mut written = written(from, to);
    change(&mut written);
    let question = written.meant().map_err(|why| anyhow!(why))?;
    Ok(simulation(access, texts).ask(&question))
}

fn simulation(access: Foretold, texts: &[&str]) -> Simulation {
    let file = |(at, text): (usize, &&str)| File {
        id: at.to_string(),
        shown: at.to_string().into(),
        text: (*text).to_owned(),
    };
    let files = Files::new(texts.iter().enumerate().map(file).collect());
    let rules = Rules {
        access,
        ..Rules::default()
    };
    Simulation::new(&files, rules)
}

fn told(
    simulation: &Simulation,
    from: &str,
    to: &str,
    method: &str,
    path: &str,
    options: &[&str],
) -> anyhow::Result<Answer> {
    let mut written = written(from, to);
    let headers = options.iter().filter(|option| !option.starts_with('-'));
    written.headers = headers.map(|it| serde_json::Value::from(*it)).collect();
    written.method = Some(method.to_owned());
    written.path = Some(path.to_owned());
    if options.contains(&"--http2-prior-knowledge") {
        written.protocol = Some("h2".to_owned());
    }
    let question = written.meant().map_err(|why| anyhow!(why))?;
    Ok(simulation.ask(&question))
}

fn written(from: &str, to: &str) -> Written {
    Written {
        from_pod: Some(from.to_owned()),
        to: Some(to.to_owned()),
        ..Written::default()
    }
}
