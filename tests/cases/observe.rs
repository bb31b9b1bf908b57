//! What the command line says about traffic: exactly what happened, and why.

use crate::Case;
use anyhow::{Context, ensure};
use harness::{Access, Mesh, allow_http, echo, eventually, program};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

pub(crate) const CASES: &[Case] = &[
    ("every_command_tells_it", &["curl"], told_of),
    ("a_slow_dependency_is_named", &[], slow),
    ("requests_are_shown_and_filtered", &["curl"], tapped),
    (
        "controllers_tell_the_traffic_of_the_whole_mesh",
        &["curl", "nc", "setpriv"],
        replicas,
    ),
];

/// What `meshctl` prints, with its exit code.
pub(crate) fn meshctl(mesh: &Mesh, args: &[&str]) -> anyhow::Result<(i32, String)> {
    let output = Command::new(program("meshctl")?)
        .args(args)
        .arg("--state")
        .arg(mesh.client().state())
        .output()
        .context("cannot run meshctl")?;
    let said = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&said).into_owned();
    Ok((output.status.code().unwrap_or(-1), text))
}

/// The first row of `meshctl stat`, since the proxies started.
pub(crate) fn stat(mesh: &Mesh, args: &[&str]) -> anyhow::Result<Value> {
    let all = [&["stat", "-t", "start", "-o", "json"], args].concat();
    let (code, text) = meshctl(mesh, &all)?;
    ensure!(code == 0, "{args:?}: {code}: {text}");
    let document: Value = serde_json::from_str(&text)?;
    let row = document["rows"].get(0).cloned();
    row.with_context(|| format!("no row in {text}"))
}

/// Every command, on some traffic with a denial in it.
fn told_of() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Strict, &[&echo("web", 1), &echo("client", 1)])?;
    mesh.apply("allow", &allow_http("client", "web", "GET", "/"))?;
    mesh.answers("client", "http://web:8080/", 200)?;
    // What is not a GET is not allowed.
    for method in ["GET", "POST"] {
        let url = "http://web:8080/[1-20]";
        mesh.exec(
            "client",
            &["curl", "-s", "-o", "/dev/null", "-X", method, url],
        )?;
    }
    eventually("every command tells it", || told(&mesh))
}

fn told(mesh: &Mesh) -> anyhow::Result<()> {
    let (_, edges) = meshctl(mesh, &["edges"])?;
    let edge = edges.lines().find(|line| line.starts_with("deploy/client"));
    ensure!(
        edge.is_some_and(|line| line.contains("deploy/web") && line.contains('√')),
        "{edges}"
    );
    let (_, routes) = meshctl(mesh, &["routes", "deploy/web", "-t", "start", "-o", "wide"])?;
    ensure!(
        routes.contains("web-routes/only") && routes.contains("[DEFAULT]"),
        "{routes}"
    );
    let (_, authz) = meshctl(mesh, &["authz", "-t", "start"])?;
    ensure!(
        authz.contains("TrafficTarget default/client-to-web")
            && authz.contains("denied: no_matching_route"),
        "{authz}"
    );
    let (_, graph) = meshctl(mesh, &["graph", "-o", "dot", "-t", "start"])?;
    ensure!(
        graph.contains("\"default/deploy/client\" -> \"default/deploy/web\""),
        "{graph}"
    );
    let (code, identity) = meshctl(mesh, &["identity"])?;
    ensure!(
        code == 0 && identity.contains("web.default") && identity.contains("SYNCED"),
        "{identity}"
    );
    let (_, endpoints) = meshctl(mesh, &["diagnostics", "endpoints", "deploy/client"])?;
    ensure!(
        endpoints.contains("default/web:8080") && endpoints.contains("ready"),
        "{endpoints}"
    );
    let (_, top) = meshctl(mesh, &["top", "deploy/web", "--seconds", "1"])?;
    ensure!(
        top.contains("looking at the proxy of") && top.contains("SUCCESS_RATE"),
        "{top}"
    );
    let (code, text) = meshctl(mesh, &["stat", "deploy/nothing"])?;
    ensure!(code == 1, "{code}: {text}");
    let unreachable = Command::new(program("meshctl")?)
        .args(["stat", "deploy", "--state", "/nonexistent"])
        .output()?;
    ensure!(unreachable.status.code() == Some(3), "{unreachable:?}");
    Ok(())
}

/// The demonstration's application, with colours that take their time.
fn slow() -> anyhow::Result<()> {
    let app = include_str!("../../control/manifests/demo/app.yaml")
        .replace(r#""v1"]"#, r#""v1", "--delay-ms", "300"]"#)
        .replace(r#""v2"]"#, r#""v2", "--delay-ms", "300"]"#)
        .replace(r#""100"]"#, r#""2"]"#)
        .replace("replicas: 3", "replicas: 1");
    let policy = include_str!("../../control/manifests/demo/policy.yaml");
    let permission = include_str!("../../control/manifests/demo/web-to-front.yaml");
    let mesh = Mesh::up(Access::Strict, &[&app, policy, permission])?;
    eventually("the slow dependency is named", || {
        let (code, text) = meshctl(&mesh, &["why", "web", "-n", "loom"])?;
        ensure!(code == 0, "{code}: {text}");
        let cause = text
            .lines()
            .find(|line| line.starts_with("The slow dependency is"));
        let cause = cause.with_context(|| text.clone())?;
        for part in ["deploy/colour-v", "called by deploy/front", "colours/pick"] {
            ensure!(cause.contains(part), "{text}");
        }
        Ok(())
    })
}

/// What `meshctl tap` shows of twenty requests made meanwhile.
fn tap(
    mesh: &Mesh,
    args: &[&str],
    url: &str,
    options: &[&str],
) -> anyhow::Result<(Vec<Value>, String)> {
    let mut tap = Command::new(program("meshctl")?)
        .args(["tap", "deploy/web", "--direction", "inbound", "-o", "json"])
        .args(args)
        .arg("--state")
        .arg(mesh.client().state())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let out = tap.stdout.take().context("no output")?;
    let mut lines = BufReader::new(out).lines();
    // Connected, and the proxy has begun to look.
    let mut seen = Vec::new();
    while !seen.iter().any(|line: &Value| line["event"] == "state") {
        let line = lines.next().context("the tap ended")??;
        seen.push(serde_json::from_str(&line)?);
    }
    let command = [&["curl", "-s", "-o", "/dev/null"], options, &[url]].concat();
    mesh.exec("client", &command)?;
    for line in lines {
        seen.push(serde_json::from_str(&line?)?);
    }
    let output = tap.wait_with_output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok((seen, String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// A second controller of the same folder, which the client's proxy has chosen; both are asked.
const REPLICAS: &str = r#"
peers=10.1.0.2:8086,10.1.0.2:4317
second() { ip netns exec server $bin/weft-control --dir $dir --access strict --listen 10.1.0.2:4317 --admin-addr 127.0.0.1:18085 \
  --peers $peers >> $dir/second.log 2>&1 & second=$!; }
second; out=$(mktemp -d)
WEFT_PROXY_CONTROL_ADDR=10.1.0.2:4317 proxy client; proxy server
ip netns exec server $app role echo 8080 &
ready client; ready server
all() { ip netns exec server $bin/meshctl "$@" --control 127.0.0.1:18085 --token-file $dir/.weft/observe.token; }
one() { ip netns exec server $bin/meshctl "$@" --control 127.0.0.1:8085 --token-file $dir/.weft/observe.token; }
eventually() { for i in $(seq 1800); do "$@" && return; sleep 0.1; done; echo "never: $*"; return 1; }
answers() { c curl -sf --max-time 60 -o /dev/null http://10.1.9.9:8080/; }
eventually answers
# a tap asked of the one reaches the proxy of the other
all tap pod/server -n vm --direction inbound --path /tapped --max 1 --seconds 60 -o json > $out/tap.json 2> $out/tap.log &
tap=$!
eventually grep -q '"state"' $out/tap.json
c curl -sf -o /dev/null "http://10.1.9.9:8080/tapped"
wait $tap; grep -c '"event":"answered"' $out/tap.json
c curl -sf -o /dev/null "http://10.1.9.9:8080/counted/[1-50]"
told() { $1 stat pod/$2 -n vm -t start -o json ${3:-} | grep -m1 '"200"' | sed 's/.*://' | tr -dc 0-9; }
counted() { n=$(told all $1 "${2:-}"); echo "$1 $n" > $out/seen; [ "${n:-0}" -ge 52 ]; }
eventually counted client '--to svc/server'; cat $out/seen
eventually counted server; cat $out/seen
echo "of the first alone: $(told one client '--to svc/server')."
echo "all: $(all edges -n vm 2>&1)"
# the proxies of both are told of, and waited for
all wait && echo "everywhere"
all check --local -o json > $out/check.json || cat $out/check.json
echo "proxies: $(all describe svc vm/server -o json | tr -d ' \n' | grep -o '"proxies":{.*')"
# the first one goes: its proxy's traffic is missing, and that is said
kill %1; eventually sh -c "! ip netns exec server curl -sf -o /dev/null http://127.0.0.1:8085/live"
echo "then: $(all edges -n vm 2>&1 | head -1)"
all check --local > $out/check.txt || echo "check: $? $(grep -A2 "controller answers" $out/check.txt | tr -d '\n')"
"#;

fn replicas() -> anyhow::Result<()> {
    let said = harness::hand::run(REPLICAS)?;
    for part in [
        "of the first alone: .",
        "everywhere\n",
        r#"proxies: "proxies":{"connected":2,"synced":2,"behind":[],"controllers":{"known":2,"answered":2}}"#,
        "client   server   vm",
        "check: 1 × every controller answers",
        "10.1.0.2:8086: ",
        "then: meshctl: 1 of 2 controllers answered; what the proxies of the others do is missing (10.1.0.2:8086: ",
    ] {
        ensure!(said.contains(part), "{part:?} is not in {said}");
    }
    let all = said.lines().skip_while(|line| !line.starts_with("all: "));
    let first = all.take(1).collect::<String>();
    ensure!(!first.contains("answered"), "{said}");
    // Two single requests and fifty: both ends count them, whoever has their proxy.
    let count = |pod: &str| {
        let mut lines = said.lines();
        lines.find_map(|line| line.strip_prefix(pod)?.trim().parse::<u64>().ok())
    };
    let (client, server) = (count("client "), count("server "));
    ensure!((client, server) == (Some(52), Some(52)), "{said}");
    Ok(())
}

fn tapped() -> anyhow::Result<()> {
    let mesh = Mesh::up(Access::Permissive, &[&echo("web", 1), &echo("client", 1)])?;
    mesh.answers("client", "http://web:8080/", 200)?;
    let of = |seen: &[Value], event: &str| -> Vec<Value> {
        let all = seen.iter().filter(|line| line["event"] == event);
        all.cloned().collect()
    };
    let secret = ["-H", "authorization: secret", "-H", "x-user: ann"];
    let url = "http://web:8080/a/[1-20]?token=secret";
    let (seen, said) = tap(
        &mesh,
        // Ends with the last of them; the time is for a machine on which something is wrong.
        &[
            "--header",
            "x-user: ann",
            "--headers",
            "--max",
            "20",
            "--seconds",
            "60",
        ],
        url,
        &secret,
    )?;
    let (heads, ends) = (of(&seen, "answered"), of(&seen, "ended"));
    ensure!((heads.len(), ends.len()) == (20, 20), "{said}: {seen:?}");
    ensure!(
        said.contains("looking at the proxy of default/web"),
        "{said}"
    );
    let head = &heads[0];
    ensure!(
        head["peer"] == "default/sa/client" && head["mutualTls"] == true && head["status"] == 200,
        "{head}"
    );
    let text = serde_json::to_string(&heads)?;
    ensure!(
        text.contains("[redacted]") && !text.contains("secret"),
        "{text}"
    );
    // What does not fit is not shown, and it is said that something passed.
    for filter in [["--path", "/b"], ["--status", "5xx"], ["--method", "POST"]] {
        let short = ["--seconds", "4"];
        // On a busy machine that may be over before it has begun.
        let (seen, said) = eventually("the tap begins", || {
            tap(&mesh, &[&filter[..], &short].concat(), url, &secret)
        })?;
        ensure!(of(&seen, "answered").is_empty(), "{filter:?}: {seen:?}");
        ensure!(said.contains("0 matched"), "{said}");
    }
    let audit =
        std::fs::read_to_string(mesh.client().log_file("default", "weft-control", None)?)?;
    ensure!(audit.contains("tap: resource=deploy/web"), "{audit}");
    Ok(())
}
