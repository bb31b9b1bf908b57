//! One case per protocol, with a real client of it: nothing is configured, and nothing is noticed.

use crate::Case;
use crate::simulate::{Foretold, foretold};
use anyhow::ensure;
use harness::{Access, Mesh, Output, allow_http, echo, eventually, tcp_server, workload};
use serde_json::Value;
use weft_control::simulate::question::Written;

pub(crate) const CASES: &[Case] = &[
    ("http1_and_http2_by_curl", &["curl"], curl),
    ("grpc_in_all_four_call_kinds", &[], grpc),
    ("websocket_end_to_end", &[], websocket),
    ("websocket_on_a_stream_of_http2", &[], websocket_on_http2),
    (
        "redis_by_its_own_client",
        &["redis-server", "redis-cli"],
        redis,
    ),
    ("tls_of_the_application_passes_untouched", &["openssl"], tls),
    (
        "tls_of_the_application_is_routed_by_its_server_name",
        &["openssl"],
        tls_by_name,
    ),
    (
        "declared_protocols_override_detection",
        &["curl", "bash"],
        declared,
    ),
];

/// Options of curl, the path, and what the answer or the echo must hold.
type Row = (
    &'static [&'static str],
    &'static str,
    &'static [&'static str],
);

const CURL: &[Row] = &[
    (&["--http1.0"], "/old", &["200", "\"version\":\"1\""]),
    (&["--http1.1"], "/a//b/../c", &["200", "/a/c"]),
    (
        &["--http2-prior-knowledge"],
        "/two",
        &["200", "\"version\":\"2\""],
    ),
    (
        &["-X", "PATCH", "-d", "abc"],
        "/patch",
        &["200", "PATCH", "\"body_bytes\":3"],
    ),
    (&["-I"], "/head", &["200"]),
    (
        &["-X", "OPTIONS", "--request-target", "*"],
        "/",
        &["200", "\"uri\":\"*\""],
    ),
    (
        &["-H", "Transfer-Encoding: chunked", "-d", "abcde"],
        "/chunked",
        &["200", "\"body_bytes\":5"],
    ),
    (
        &["-H", "Expect: 100-continue", "-d", "abcde"],
        "/expect",
        &["200", "\"body_bytes\":5"],
    ),
    (
        &["--http2-prior-knowledge", "-d", "abcde"],
        "/post",
        &["200", "\"body_bytes\":5"],
    ),
    (
        &[
            "-H",
            "Connection: x-gone",
            "-H",
            "X-Gone: 1",
            "-H",
            "X-Kept: 2",
        ],
        "/hop",
        &["200", "x-kept"],
    ),
    (
        &["-H", "Weft-Client-Id: spiffe://forged"],
        "/spoof",
        &["200", "sa/client"],
    ),
    (
        &["-x", "http://web:8080"],
        "/absolute",
        &["200", "/absolute"],
    ),
    (
        &["-x", "http://web:8080", "-p"],
        "/tunnel",
        &["501", "E127"],
    ),
    (&["-H", "Host:"], "/nohost", &["400", "E101"]),
    (&["--path-as-is"], "/../up", &["400", "E101"]),
    (&["--path-as-is"], "/a%2fb", &["400", "E101"]),
];

fn curl() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Permissive, &[&echo("web", 1), &echo("client", 1)])?;
    mesh.answers("client", "http://web:8080/", 200)?;
    let web = mesh.pod("web")?.ips;
    let mut hosts = vec!["web:8080".to_owned()];
    hosts.extend(
        web.iter()
            .filter(|ip| ip.is_ipv6())
            .map(|ip| format!("[{ip}]:8080")),
    );
    for host in &hosts {
        eventually(&format!("{host} answers"), || {
            let answer = mesh.curl("client", &format!("http://{host}/"), &["-g"])?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(())
        })?;
        for (options, path, wanted) in CURL {
            let answer = mesh.curl(
                "client",
                &format!("http://{host}{path}"),
                &[&["-g"], *options].concat(),
            )?;
            let text = format!("{} {:?} {}", answer.status, answer.headers, answer.body);
            let missing = wanted.iter().find(|what| !text.contains(**what));
            ensure!(
                missing.is_none(),
                "{host} {options:?} {path}: no {missing:?} in {text}"
            );
            ensure!(
                !text.contains("x-gone\",\"1") && !text.contains("forged"),
                "{options:?}: {text}"
            );
        }
    }
    // Keep-alive: three requests, one connection.
    let count = ["-s", "-o", "/dev/null", "-w", "%{num_connects}"];
    let urls = "http://web:8080/[1-3]";
    let output = mesh.exec("client", &[&["curl"], &count[..], &[urls]].concat())?;
    ensure!(output.stdout == b"100", "{output:?}");
    Ok(())
}

/// This test program in the client's pod, in a role that ends by itself.
fn play(mesh: &Mesh, role: &[&str]) -> anyhow::Result<Output> {
    let this = std::env::current_exe()?.display().to_string();
    mesh.exec(
        "client",
        &[&["timeout", "30", &this, "role"], role].concat(),
    )
}

fn grpc() -> anyhow::Result<()> {
    let server = workload("calls", 1, &["grpc", "50051"], 50051, "any");
    let mesh = Mesh::up(Access::Permissive, &[&server, &echo("client", 1)])?;
    let lines = eventually("every call is made", || {
        let output = play(&mesh, &["grpc-client", "calls:50051"])?;
        ensure!(output.code == 0, "{output:?}");
        let text = String::from_utf8(output.stdout)?;
        // The first call may come before the proxy was told where the pods are.
        ensure!(!text.contains("no-endpoints"), "{text}");
        let lines: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
        Ok(lines?)
    })?;
    let rows = [
        ("Unary", &["hello world"][..], "0", false),
        (
            "Download",
            &["part 0", "part 1", "part 2", "part 3", "part 4"],
            "0",
            false,
        ),
        ("Upload", &["a+b+c"], "0", false),
        ("Bidi", &["echo 1", "echo 2", "echo 3"], "0", false),
        ("Fail", &[], "5", true),
        ("Late", &["one"], "13", false),
        ("Unknown", &[], "12", false),
    ];
    ensure!(lines.len() == rows.len(), "{lines:?}");
    for (line, (call, got, status, in_head)) in lines.iter().zip(rows) {
        let wanted = serde_json::json!({ "call": call, "got": got, "status": status, "trailers_only": in_head, "error": null });
        ensure!(*line == wanted, "{line} in place of {wanted}");
    }
    let metrics = mesh.metrics("client")?;
    for (status, class) in [
        ("0", "success"),
        ("5", "success"),
        ("13", "failure"),
        ("12", "success"),
    ] {
        let of = [
            ("service", "default/calls:50051"),
            ("grpc_status", status),
            ("tls", "true"),
        ];
        let all = metrics.sum("weft_responses_total", &of);
        ensure!(all > 0.0, "grpc-status {status} is not counted");
        let classed = [&of[..], &[("classification", class)]].concat();
        let classed = metrics.sum("weft_responses_total", &classed);
        ensure!(
            classed == all,
            "grpc-status {status}: {classed} of {all} are a {class}"
        );
    }
    Ok(())
}

fn websocket() -> anyhow::Result<()> {
    let server = workload("chat", 1, &["websocket", "8080"], 8080, "http");
    let mesh = Mesh::up(Access::Permissive, &[&server, &echo("client", 1)])?;
    eventually("frames come back", || {
        let output = play(&mesh, &["websocket-client", "chat:8080"])?;
        ensure!(output.stdout == b"echoed\n", "{output:?}");
        Ok(())
    })?;
    let upgraded = [
        ("service", "default/chat:8080"),
        ("status", "101"),
        ("tls", "true"),
    ];
    ensure!(
        mesh.metrics("client")?
            .sum("weft_responses_total", &upgraded)
            >= 1.0
    );
    Ok(())
}

fn websocket_on_http2() -> anyhow::Result<()> {
    let server = workload("chat", 1, &["websocket-http2", "8080"], 8080, "http");
    let client = echo("client", 1);
    let mesh = Mesh::up(Access::Strict, &[&server, &client])?;
    let foretold = |rule: &str| -> anyhow::Result<String> {
        let websocket = Some("websocket".to_owned());
        let told = foretold(
            Foretold::Strict,
            &[&server, &client, rule],
            ("client", "chat:8080"),
            |it| (it.connect_protocol, it.path) = (websocket, Some("/chat".to_owned())),
        )?;
        Ok(told.decision.verdict.as_str().to_owned())
    };
    let rule = allow_http("client", "chat", "CONNECT", "/chat");
    ensure!(foretold(&rule)? == "allow");
    mesh.apply("rule", &rule)?;
    eventually("frames come back", || {
        let output = play(&mesh, &["websocket-http2-client", "chat:8080"])?;
        ensure!(output.stdout == b"echoed\n", "{output:?}");
        Ok(())
    })?;
    let opened = [
        ("service", "default/chat:8080"),
        ("status", "200"),
        ("tls", "true"),
    ];
    ensure!(mesh.metrics("client")?.sum("weft_responses_total", &opened) >= 1.0);
    // Judged as what it is: this rule is about another method.
    let rule = allow_http("client", "chat", "GET", "/chat");
    ensure!(foretold(&rule)? == "deny");
    mesh.apply("rule", &rule)?;
    eventually("CONNECT is not GET", || {
        let output = play(&mesh, &["websocket-http2-client", "chat:8080"])?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.code != 0 && text.contains("403"), "{output:?}");
        Ok(())
    })
}

/// A workload of a program that is installed here.
fn installed(name: &str, command: &[&str], port: u16) -> String {
    let template = workload(name, 1, &["none"], port, "any");
    let lines = template
        .lines()
        .map(|line| match line.trim_start().starts_with("command:") {
            true => format!("          command: {command:?}"),
            false => line.to_owned(),
        });
    lines.collect::<Vec<_>>().join("\n")
}

fn redis() -> anyhow::Result<()> {
    let command = [
        "redis-server",
        "--port",
        "6379",
        "--bind",
        "*",
        "--protected-mode",
        "no",
        "--save",
        "",
        "--dir",
        "/tmp",
    ];
    let mesh = Mesh::up(
        Access::Permissive,
        &[&installed("store", &command, 6379), &echo("client", 1)],
    )?;
    let script = "set -e; export LC_ALL=C; r() { timeout 20 redis-cli -h store \"$@\"; }
        r flushall >/dev/null; r ping; r set k v; r get k; r append k w; r get k
        for i in $(seq 1000); do echo \"SET key$i $i\"; done | timeout 20 redis-cli -h store --pipe | tail -1
        r dbsize; head -c 1000000 /dev/zero | tr '\\0' x | r -x set big; r strlen big";
    let text = eventually("redis answers", || {
        let output = mesh.exec("client", &["bash", "-c", script])?;
        ensure!(output.code == 0, "{output:?}");
        Ok(String::from_utf8(output.stdout)?)
    })?;
    ensure!(text.starts_with("PONG\nOK\nv\n2\nvw\n"), "{text}");
    ensure!(
        text.contains("errors: 0, replies: 1000") && text.ends_with("1001\nOK\n1000000\n"),
        "{text}"
    );
    let streams = [("service", "default/store:6379"), ("tls", "true")];
    ensure!(
        mesh.metrics("client")?
            .sum("weft_tcp_streams_total", &streams)
            >= 9.0
    );
    Ok(())
}

/// An `openssl s_server` that sends lines back reversed, with a certificate of its own.
struct Secure {
    folder: tempfile::TempDir,
    manifest: String,
}

impl Secure {
    fn new(workload: &str, host: &str) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("weft-case-tls-")
            .tempdir()?;
        let made = rcgen::generate_simple_self_signed([host.to_owned()])?;
        let (cert, key) = (
            folder.path().join("cert.pem"),
            folder.path().join("key.pem"),
        );
        std::fs::write(&cert, made.cert.pem())?;
        std::fs::write(&key, made.signing_key.serialize_pem())?;
        let (cert, key) = (cert.display().to_string(), key.display().to_string());
        let command = [
            "openssl", "s_server", "-accept", "8443", "-cert", &cert, "-key", &key, "-rev",
            "-quiet",
        ];
        let manifest = installed(workload, &command, 8443);
        Ok(Self { folder, manifest })
    }

    /// A script that calls Service `secure` for `host`, and believes this certificate alone.
    fn call(&self, host: &str) -> String {
        let cert = self.folder.path().join("cert.pem").display().to_string();
        format!(
            "printf 'hello\\nCLOSE\\n' | timeout 10 openssl s_client -connect secure:8443 -servername {host} \
             -CAfile {cert} -verify_return_error -verify_hostname {host} -quiet 2>/dev/null"
        )
    }
}

fn tls() -> anyhow::Result<()> {
    let secure = Secure::new("secure", "secure.example")?;
    let mesh = Mesh::up(Access::Permissive, &[&secure.manifest, &echo("client", 1)])?;
    let script = secure.call("secure.example");
    eventually(
        "the application's own certificate is verified and bytes come back reversed",
        || {
            let output = mesh.exec("client", &["bash", "-c", &script])?;
            ensure!(output.stdout.starts_with(b"olleh"), "{output:?}");
            Ok(())
        },
    )?;
    let metrics = mesh.metrics("client")?;
    let streams = [("service", "default/secure:8443"), ("tls", "true")];
    ensure!(
        metrics.sum("weft_tcp_streams_total", &streams) >= 1.0,
        "inside mutual TLS"
    );
    ensure!(metrics.sum("weft_detections_total", &[("result", "tls")]) >= 1.0);
    Ok(())
}

/// A split that takes TLS for one host, and nothing else, to another backend.
const BY_NAME: &str = r#"apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: { name: secure }
spec:
  service: secure
  matches:
    - { kind: HTTPRouteGroup, name: beta }
  backends:
    - { service: secure-beta, weight: 1 }
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: { name: beta }
spec:
  matches:
    - name: beta
      headers:
        - host: "beta\\.example"
"#;

fn tls_by_name() -> anyhow::Result<()> {
    let stable = Secure::new("secure", "secure.example")?;
    let beta = Secure::new("secure-beta", "beta.example")?;
    let client = echo("client", 1);
    let manifests = [&*stable.manifest, &*beta.manifest, BY_NAME, &*client];
    let mesh = Mesh::up(Access::Permissive, &manifests)?;
    for (host, backend) in [
        ("secure.example", "secure"),
        ("beta.example", "secure-beta"),
        ("BETA.example", "secure-beta"),
    ] {
        let to = ("client", "secure:8443");
        let named = |it: &mut Written| it.sni = Some(host.to_owned());
        let told = foretold(Foretold::Permissive, &manifests, to, named)?;
        ensure!(told.backends[0].service == backend, "{host}: {told:#?}");
    }
    let served = |script: String| -> anyhow::Result<bool> {
        let output = mesh.exec("client", &["bash", "-c", &script])?;
        Ok(output.stdout.starts_with(b"olleh"))
    };
    eventually("each name leads to the server that proves it", || {
        ensure!(served(stable.call("secure.example"))?, "the others");
        ensure!(served(beta.call("beta.example"))?, "beta.example");
        ensure!(served(beta.call("BETA.example"))?, "in any case");
        Ok(())
    })?;
    ensure!(!served(stable.call("beta.example"))?);
    let metrics = mesh.metrics("client")?;
    let streams = [("backend", "default/secure-beta:8443"), ("tls", "true")];
    ensure!(
        metrics.sum("weft_tcp_streams_total", &streams) >= 1.0,
        "inside mutual TLS"
    );
    Ok(())
}

fn declared() -> anyhow::Result<()> {
    let by_name = workload("by-name", 1, &["echo", "8080"], 8080, "tcp");
    let by_app = echo("by-app", 1).replace(
        "name: http, port: 8080",
        "name: http, port: 8080, appProtocol: tcp",
    );
    let by_note = echo("by-note", 1).replace(
        "metadata: { name: by-note }\nspec:\n  selector: { app: by-note }",
        "metadata: { name: by-note, annotations: { config.weft.mesh/opaque-ports: \"8080\" } }\nspec:\n  selector: { app: by-note }",
    );
    let said_http =
        tcp_server("said-http", "banner").replace("name: any, port", "name: http, port");
    let mesh = Mesh::up(
        Access::Permissive,
        &[&by_name, &by_app, &by_note, &said_http, &echo("client", 1)],
    )?;
    for service in ["by-name", "by-app", "by-note"] {
        mesh.answers("client", &format!("http://{service}:8080/"), 200)?;
        let of = format!("default/{service}:8080");
        let metrics = mesh.metrics("client")?;
        let streams = metrics.sum("weft_tcp_streams_total", &[("service", &of)]);
        ensure!(
            streams >= 1.0 && metrics.sum("weft_requests_total", &[("service", &of)]) == 0.0,
            "{service} carries bytes"
        );
    }
    // What is declared as HTTP and is not is told so, and goes nowhere.
    let script = "exec 3<>/dev/tcp/said-http/7000; echo hello >&3; timeout 60 cat <&3";
    eventually("what is not HTTP is told so", || {
        let output = mesh.exec("client", &["bash", "-c", script])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            text.starts_with("HTTP/1.1 400 ") && text.contains("E102 not-http"),
            "{text}"
        );
        Ok(())
    })
}
