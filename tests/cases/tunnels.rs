//! Connections of bytes between two proxies share one: whole, in order, judged one by one, and nobody's fate but their own.

use crate::Case;
use anyhow::{Context, ensure};
use harness::{Access, Exec, Mesh, allow_tcp, echo, eventually, roots, tcp_server};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

pub(crate) const CASES: &[Case] = &[
    (
        "bytes_pass_whole_and_in_order_and_survive_the_peers_restart",
        &["curl", "nc", "sha256sum", "setpriv"],
        whole,
    ),
    (
        "each_stream_is_judged_and_cut_off_by_itself",
        &["curl", "nc"],
        judged,
    ),
    (
        "a_stream_outlives_the_roots_and_new_ones_find_the_new_root",
        &["nc", "openssl"],
        rotated,
    ),
];

const WHOLE: &str = r#"
export WEFT_PROXY_WORKERS=1
proxy client; proxy server; peer=$pid
for ns in client server; do ready $ns; done
ip netns exec server $app role tcp 7000 & ip netns exec server $app role banner 25 &
until [ "$(c sh -c 'printf up | timeout 30 nc -N 10.1.9.9 7000')" = upbye ]; do sleep 0.1; done
sum() { metric $1 "$2" | awk '{ sum += $NF } END { print sum + 0 }'; }
streams() { sum server 'weft_tunnel_streams_total{direction="inbound"'; }
# many at once, of many sizes, each with its own bytes: what comes back is the same and the answer to the end
for n in $(seq 40); do head -c $((n * n * 250)) /dev/urandom > $dir/sent.$n; done
# a tunnel that takes a second to answer is done without: a busy machine may need more than one try to see them share one
for try in $(seq 20); do
  before=$(streams)
  for n in $(seq 40); do c sh -c "timeout 180 nc -N 10.1.9.9 7000 < $dir/sent.$n > $dir/got.$n" & calls[$n]=$!; done
  wait ${calls[@]}
  for n in $(seq 40); do
    [ "$( (cat $dir/sent.$n; echo bye) | sha256sum)" = "$(sha256sum < $dir/got.$n)" ] || { echo "$n came back otherwise"; exit 1; }
  done
  shared=$(($(streams) - before)) tunnels=$(sum client 'weft_tunnels_open{direction="outbound"')
  if [ $shared -ge 40 ] && [ $tunnels = 1 ]; then echo "forty share one"; break; fi
done
# a stream that is open when the peer dies ends, and later ones find the new peer
c bash -c "exec 3<>/dev/tcp/10.1.9.9/7000; echo held >&3; read -u 3 a; echo \$a > $dir/held; read -t 120 -u 3 b; echo \$? > $dir/ended" &
until [ "$(cat $dir/held 2>/dev/null)" = held ]; do sleep 0.1; done
kill -9 $peer; { wait $peer || true; } 2>/dev/null
until [ -s $dir/ended ]; do sleep 0.1; done
[ "$(cat $dir/ended)" -le 128 ] || { echo 'the stream outlives its peer'; exit 1; }
proxy server; ready server
until [ "$(c sh -c 'printf again | timeout 30 nc -N 10.1.9.9 7000')" = againbye ] && [ $(streams) -ge 1 ]; do sleep 0.1; done
# much of it, twice: the second time on a connection of its own
head -c 5000000 /dev/urandom > $dir/much
for n in 1 2; do
  c sh -c "timeout 180 nc -N 10.1.9.9 7000 < $dir/much > $dir/got"
  [ "$( (cat $dir/much; echo bye) | sha256sum)" = "$(sha256sum < $dir/got)" ] && echo whole
  metric client 'weft_tunnel_streams_total{direction="outbound"' | sed "s/^/much $n /"
done
"#;

fn whole() -> anyhow::Result<()> {
    let text = harness::hand::run(WHOLE)?;
    ensure!(text.contains("forty share one"), "{text}");
    let value = |start: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(start));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.unwrap_or(f64::NAN)
    };
    ensure!(text.matches("whole").count() == 2, "{text}");
    ensure!(
        value("much 1 weft_tunnel") == value("much 2 weft_tunnel"),
        "bulk is learnt: {text}"
    );
    Ok(())
}

fn judged() -> anyhow::Result<()> {
    let mesh = Mesh::up(
        Access::Strict,
        &[&tcp_server("bytes", "tcp"), &echo("client", 1)],
    )?;
    let call = || {
        mesh.exec(
            "client",
            &["sh", "-c", "printf hello | timeout 30 nc -N bytes 7000"],
        )
    };
    let streams = || -> anyhow::Result<f64> {
        let inbound = [("direction", "inbound")];
        Ok(mesh
            .metrics("bytes")?
            .sum("weft_tunnel_streams_total", &inbound))
    };
    let denied = || -> anyhow::Result<f64> {
        let inbound = [("direction", "inbound")];
        Ok(mesh.metrics("bytes")?.sum("weft_denied_total", &inbound))
    };
    mesh.apply("allow", &allow_tcp("client", "bytes", 7000))?;
    let answered = || {
        eventually("the target is in force", || {
            let answer = call()?;
            ensure!(answer.stdout.starts_with(b"hello"), "{answer:?}");
            Ok(())
        })
    };
    answered()?;
    let client = mesh.client().clone();
    let pod = mesh.pod("client")?.name;
    let held = std::thread::spawn(move || {
        // It would stay open for longer than anything here is waited for.
        let open = "(printf hello; sleep 300) | timeout 300 nc bytes 7000; echo ended";
        client
            .output(&harness::Exec::new(&pod, ["sh", "-c", open]))
            .map(drop)
    });
    let open = || -> anyhow::Result<f64> {
        let dst = [("direction", "inbound"), ("side", "dst")];
        Ok(mesh.metrics("bytes")?.sum("weft_connections_open", &dst))
    };
    eventually("a long stream is open", || {
        ensure!(open()? >= 1.0);
        Ok(())
    })?;
    mesh.delete("allow")?;
    eventually("it is cut off once the permission is gone", || {
        ensure!(open()? == 0.0, "{} open", open()?);
        Ok(())
    })?;
    let (before, refused) = (streams()?, denied()?);
    // One whose tunnel is slow to answer gets a connection of its own.
    let mut calls = 0.0;
    eventually("three streams were opened", || {
        let answer = call()?;
        calls += 1.0;
        assert!(answer.stdout.is_empty(), "denied: {answer:?}");
        ensure!(streams()? >= before + 3.0, "{calls} calls");
        Ok(())
    })?;
    let (streams, denied) = (streams()? - before, denied()? - refused);
    ensure!(
        denied >= calls,
        "each was judged: {denied} of {calls} denied, {streams} of them streams"
    );
    mesh.apply("allow", &allow_tcp("client", "bytes", 7000))?;
    answered()?;
    mesh.node(&["pkill", "-f", "sleep 300"])?;
    let _ = held.join();
    Ok(())
}

fn rotated() -> anyhow::Result<()> {
    let mesh = Mesh::up(
        Access::Permissive,
        &[&tcp_server("web", "tcp"), &echo("client", 1)],
    )?;
    let (client, pod) = (mesh.client().clone(), mesh.pod("client")?.name);
    let shell = |line: &str| client.output(&Exec::new(&pod, ["sh", "-c", line]));
    let call = || -> anyhow::Result<()> {
        let answer = shell("printf hello | timeout 60 nc -N web 7000")?;
        ensure!(answer.stdout == b"hellobye\n", "{answer:?}");
        Ok(())
    };
    let streams = || -> anyhow::Result<f64> {
        let inbound = [("direction", "inbound")];
        Ok(mesh
            .metrics("web")?
            .sum("weft_tunnel_streams_total", &inbound))
    };
    let open = |expected: f64| {
        let dst = [("direction", "inbound"), ("side", "dst")];
        let now = mesh.metrics("web")?.sum("weft_connections_open", &dst);
        ensure!(now == expected, "{now} open");
        Ok(())
    };
    eventually("the server answers", call)?;
    eventually("the calls are over", || open(0.0))?;
    let scratch = tempfile::tempdir()?;
    let go = scratch.path().join("go");
    let words = format!(
        "(printf first; until [ -e {0} ]; do sleep 0.2; done; printf last) | nc -N web 7000",
        go.display()
    );
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let held = scope.spawn(|| shell(&words));
        // Whatever fails, the others must not wait for ever.
        let outcome = (|| {
            eventually("a long stream is open", || open(1.0))?;
            let calling = scope.spawn(|| {
                let mut calls = 0;
                while !over.load(Relaxed) {
                    call()?;
                    calls += 1;
                }
                anyhow::Ok(calls)
            });
            let replaced = roots::replace(&mesh);
            over.store(true, Relaxed);
            let calls = calling.join().ok().context("the calls panicked")??;
            ensure!(calls >= 1, "nobody called meanwhile");
            replaced
        })();
        over.store(true, Relaxed);
        std::fs::write(&go, "")?;
        let held = held.join().ok().context("the stream's thread panicked")??;
        outcome?;
        ensure!(held.stdout == b"firstlastbye\n", "{held:?}");
        let before = streams()?;
        // One whose tunnel is slow to answer gets a connection of its own.
        eventually("new ones are streams again", || {
            call()?;
            ensure!(streams()? > before);
            Ok(())
        })
    })
}
