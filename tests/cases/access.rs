//! Who may call whom: nobody without a TrafficTarget, exactly whom it names with one.

use crate::Case;
use anyhow::{bail, ensure};
use harness::{Access, Mesh, allow_http, allow_tcp, echo, eventually, tcp_server, unmeshed};

pub(crate) const CASES: &[Case] = &[
    ("only_what_a_target_allows", &["curl"], targets),
    (
        "withdrawn_permission_closes_connections",
        &["curl", "nc"],
        withdrawn,
    ),
    ("identity_headers_cannot_be_forged", &["curl"], forged),
    ("audit_counts_and_denies_nothing", &["curl"], audit),
    ("refusals_say_who_decided", &["curl"], explained),
];

fn targets() -> anyhow::Result<()> {
    let stranger = unmeshed("stranger", &["echo", "8080"], 8080);
    let mesh = Mesh::up(
        Access::Strict,
        &[
            &echo("web", 1),
            &echo("client", 1),
            &echo("other", 1),
            &stranger,
        ],
    )?;
    let status = |from: &str, path: &str, options: &[&str]| -> anyhow::Result<u16> {
        Ok(mesh
            .curl(from, &format!("http://web:8080{path}"), options)?
            .status)
    };
    mesh.answers("client", "http://web:8080/public/a", 403)?;
    let refused = mesh.curl("client", "http://web:8080/public/a", &[])?;
    ensure!(
        refused
            .header("weft-error")
            .is_some_and(|error| error.contains("denied")),
        "{refused:?}"
    );
    mesh.apply("allow", &allow_http("client", "web", "GET", "/public"))?;
    eventually("the target is in force", || {
        ensure!(status("client", "/public/a", &[])? == 200);
        Ok(())
    })?;
    // Nobody has told the other proxy yet where that leads.
    mesh.answers("other", "http://web:8080/public", 403)?;
    for (from, path, options, expected) in [
        ("client", "/public", &[][..], 200),
        ("client", "/public/a", &["--http2-prior-knowledge"], 200),
        ("client", "/private", &[], 403),
        ("client", "/private", &["--http2-prior-knowledge"], 403),
        ("client", "/public", &["-X", "POST"], 403),
        ("client", "/public/../private", &["--path-as-is"], 403),
        ("client", "/public/%2e%2e/private", &["--path-as-is"], 403),
        ("other", "/public", &[], 403),
        ("stranger", "/public", &[], 403),
    ] {
        let seen = status(from, path, options)?;
        ensure!(
            seen == expected,
            "{from} {path} {options:?}: {seen}, expected {expected}"
        );
    }
    let denied = mesh
        .metrics("web")?
        .sum("weft_denied_total", &[("direction", "inbound")]);
    ensure!(denied >= 8.0, "counted {denied}");
    mesh.delete("allow")?;
    eventually("without the target it is refused again", || {
        ensure!(status("client", "/public/a", &[])? == 403);
        Ok(())
    })
}

fn withdrawn() -> anyhow::Result<()> {
    let mesh = Mesh::up(
        Access::Strict,
        &[&tcp_server("bytes", "tcp"), &echo("client", 1)],
    )?;
    // It would stay open for longer than anything here is waited for.
    let open = "(printf hello; sleep 300) | timeout 300 nc bytes 7000";
    let refused = mesh.exec(
        "client",
        &["sh", "-c", "printf hello | timeout 30 nc -N bytes 7000"],
    )?;
    ensure!(refused.stdout.is_empty(), "denied by default: {refused:?}");
    mesh.apply("allow", &allow_tcp("client", "bytes", 7000))?;
    eventually("the target is in force", || {
        let answer = mesh.exec(
            "client",
            &["sh", "-c", "printf hello | timeout 30 nc -N bytes 7000"],
        )?;
        ensure!(answer.stdout.starts_with(b"hello"), "{answer:?}");
        Ok(())
    })?;
    let client = mesh.client().clone();
    let pod = mesh.pod("client")?.name;
    let held = std::thread::spawn(move || {
        client
            .output(&harness::Exec::new(&pod, ["sh", "-c", open]))
            .map(drop)
    });
    let opened = || -> anyhow::Result<f64> {
        Ok(mesh.metrics("bytes")?.sum(
            "weft_connections_open",
            &[("direction", "inbound"), ("side", "dst")],
        ))
    };
    eventually("a long connection is open", || {
        ensure!(opened()? >= 1.0);
        Ok(())
    })?;
    mesh.delete("allow")?;
    eventually("it is closed once the permission is gone", || {
        ensure!(opened()? == 0.0, "{} open", opened()?);
        Ok(())
    })?;
    mesh.node(&["pkill", "-f", "sleep 300"])?;
    match held.join() {
        Ok(ended) => ended,
        Err(_) => bail!("the long connection"),
    }
}

fn forged() -> anyhow::Result<()> {
    let old = unmeshed("old", &["echo", "8080"], 8080);
    let mesh = Mesh::up(
        Access::Permissive,
        &[&echo("web", 1), &echo("client", 1), &old],
    )?;
    let forged = "spiffe://cluster.local/ns/default/sa/admin";
    mesh.answers("client", "http://web:8080/", 200)?;
    for from in ["old", "client"] {
        for name in [
            "weft-client-id",
            "Weft_Client_Id",
            "l5d-client-id",
            "x-forwarded-client-cert",
        ] {
            let header = format!("{name}: {forged}");
            let answer = mesh.curl(from, "http://web:8080/", &["-H", &header])?;
            ensure!(
                answer.status == 400 || !answer.body.contains(forged),
                "{from} {name}: {answer:?}"
            );
        }
        let nominated = mesh.curl(
            from,
            "http://web:8080/",
            &["-H", "connection: weft-client-id"],
        )?;
        ensure!(
            (from == "client") == nominated.body.contains("sa/client"),
            "{from}: {nominated:?}"
        );
    }
    Ok(())
}

fn audit() -> anyhow::Result<()> {
    let said = |name: &str, access: &str| {
        let inject = "weft.mesh/inject: enabled";
        let access = format!("{inject}\n        config.weft.mesh/access: {access}");
        echo(name, 1).replace(inject, &access)
    };
    for (mesh, namespace, of_mesh, of_namespace) in [
        (Access::Audit, "strict", 200, 403),
        (Access::Strict, "audit", 403, 200),
    ] {
        let namespace = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{ name: default, annotations: {{ config.weft.mesh/access: {namespace} }} }}\n"
        );
        let mesh = Mesh::up(
            mesh,
            &[
                &echo("web", 1),
                &said("lenient", "audit"),
                &said("firm", "strict"),
                &echo("client", 1),
            ],
        )?;
        // The pod's own word goes first, then its namespace's, then the mesh's.
        judged(&mesh, &[("web", of_mesh), ("lenient", 200), ("firm", 403)])?;
        mesh.apply("namespace", &namespace)?;
        judged(
            &mesh,
            &[("web", of_namespace), ("lenient", 200), ("firm", 403)],
        )?;
    }
    Ok(())
}

/// Each workload answers like this, and counts what it denied, or would have.
fn judged(mesh: &Mesh, expected: &[(&str, u16)]) -> anyhow::Result<()> {
    for (to, status) in expected {
        let audit = if *status == 200 { "true" } else { "false" };
        let labels = [("reason", "not_a_source"), ("audit", audit)];
        let count = || -> anyhow::Result<f64> {
            Ok(mesh.metrics(to)?.sum("weft_policy_denied_total", &labels))
        };
        eventually(&format!("{to} answers {status}"), || {
            let before = count()?;
            let answer = mesh.curl("client", &format!("http://{to}:8080/"), &[])?;
            ensure!(answer.status == *status, "{answer:?}");
            let after = count()?;
            ensure!(after > before, "audit={audit}: {before}, then {after}");
            Ok(())
        })?;
    }
    Ok(())
}

fn explained() -> anyhow::Result<()> {
    let mesh = Mesh::up(
        Access::Strict,
        &[&echo("web", 1), &echo("client", 1), &echo("other", 1)],
    )?;
    mesh.apply("allow", &allow_http("client", "web", "GET", "/public"))?;
    mesh.answers("client", "http://web:8080/public", 200)?;
    let private = |from: &str| mesh.curl(from, "http://web:8080/private", &[]);
    let silent = private("client")?;
    ensure!(
        silent.status == 403 && silent.header("weft-denied-by").is_none(),
        "strangers are told nothing unless asked for: {silent:?}"
    );
    let namespace = |annotations: &str| {
        format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{ name: default, annotations: {{ {annotations} }} }}\n"
        )
    };
    mesh.apply(
        "namespace",
        &namespace("config.weft.mesh/explain-denials: enabled"),
    )?;
    for (from, reason, rule) in [
        ("client", "no_matching_route", "TrafficTarget default/"),
        ("other", "not_a_source", "none"),
    ] {
        let expected = format!("reason={reason}; rule={rule}");
        let identity = format!("identity=spiffe://cluster.local/ns/default/sa/{from}; ");
        eventually("the refusal says who decided", || {
            let refused = private(from)?;
            let words = refused.header("weft-denied-by").unwrap_or_default();
            ensure!(
                words.starts_with(&expected)
                    && words.contains(&identity)
                    && words.contains("access=strict by the mesh")
                    && words.contains("needs=a "),
                "{refused:?}"
            );
            Ok(())
        })?;
        let denied = mesh.metrics("web")?.sum(
            "weft_policy_denied_total",
            &[("reason", reason), ("audit", "false")],
        );
        ensure!(denied >= 1.0, "{reason}: {denied}");
    }
    mesh.apply("namespace", &namespace("config.weft.mesh/access: audit"))?;
    eventually("the namespace is in audit mode", || {
        ensure!(private("other")?.status == 200);
        Ok(())
    })?;
    let audited = mesh
        .metrics("web")?
        .sum("weft_policy_denied_total", &[("audit", "true")]);
    ensure!(audited >= 1.0, "counted {audited}");
    mesh.delete("namespace")?;
    eventually("and strict again", || {
        ensure!(private("other")?.status == 403);
        Ok(())
    })
}
