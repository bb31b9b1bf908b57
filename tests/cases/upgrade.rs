//! Hot upgrade of both proxies between a client and a server, under load; and what `await` promises.

use crate::Case;
use anyhow::{Context, ensure};
use harness::{program, sandbox};

pub(crate) const CASES: &[Case] = &[
    (
        "ten_upgrades_of_both_proxies_lose_nothing",
        &["curl", "setpriv"],
        upgrades,
    ),
    (
        "a_job_waits_for_its_sidecar_and_ends_it",
        &["curl", "setpriv"],
        awaits,
    ),
];

const UPGRADES: &str = r#"
start() { # workload, workers, arguments
  WEFT_PROXY_WORKERS=$2 WEFT_PROXY_UPGRADE_SOCKET=$dir/$1.door/socket WEFT_PROXY_SHUTDOWN_GRACE=40s proxy "$@"
}
for ns in client server; do start $ns 2; old[$pid]=$pid; last[$ns]=$pid; done
for ns in client server; do ready $ns; done
ip netns exec server $app role echo 8080 & ip netns exec server $app role tcp 7000 &
until c curl -sf -o /dev/null http://10.1.9.9:8080/; do sleep 0.1; done
# nobody else gets the listeners, not even root
! ip netns exec client env WEFT_PROXY_UPGRADE_SOCKET=$dir/client.door/socket WEFT_PROXY_WORKLOAD=vm/client \
  WEFT_PROXY_CONTROL_ADDR=10.1.0.2:8086 WEFT_PROXY_TOKEN_FILE=$dir/client.token WEFT_PROXY_TRUST_ANCHORS_FILE=$dir/roots.pem \
  $dir/weft-proxy --take-over > $dir/root.log 2>&1
grep -o 'the other process belongs to user [0-9]*' $dir/root.log

ip netns exec client $app role mixed 10.1.9.9:8080 > $dir/load 2>&1 & load=$!
# a long stream, open before the first upgrade of all
c bash -c "exec 3<>/dev/tcp/10.1.9.9/7000; echo before >&3; read -u 3 a; echo \$a > $dir/stream
  until [ -e $dir/upgraded ]; do sleep 0.1; done; echo after >&3; read -u 3 b; echo \$b >> $dir/stream" & stream=$!
until [ -s $dir/stream ]; do sleep 0.1; done

# one that never gets ready: the old one goes on
WEFT_PROXY_CONTROL_ADDR=10.1.0.2:1 start client 1 --take-over
until grep -q 'a new process takes the listeners over' $dir/client.log; do sleep 0.1; done
kill -9 $pid; { wait $pid || true; } 2>/dev/null
until metric client 'weft_upgrades_total{result="failed"' | grep -q ' 2$'; do sleep 0.1; done

for round in $(seq 10); do
  for ns in client server; do
    start $ns $((1 + round % 3)) --take-over
    until [ $(grep -c 'the old proxy lets its connections end' $dir/$ns.log) = $round ]; do sleep 0.05; done
    # The admin port is the new one's, and it is ready at once.
    metric $ns 'weft_upgrades_total{result="taken"' | grep -q ' 1$'
    [ "$(ip netns exec $ns curl -s http://127.0.0.1:4191/ready)" = ready ]
    old[${last[$ns]}]=${last[$ns]}; last[$ns]=$pid
  done
  touch $dir/upgraded
done
wait $stream; echo "stream $(tr '\n' ' ' < $dir/stream)"
for ns in client server; do unset "old[${last[$ns]}]"; done
# every old process ends by itself, well
for gone in ${old[@]}; do wait $gone || { echo "an old proxy ended with $?"; exit 1; }; done
echo "ended ${#old[@]}"
kill $load; wait $load || true; cat $dir/load
"#;

const AWAIT: &str = r#"
WEFT_PROXY_ADMIN_SHUTDOWN=true proxy server
ip netns exec server $app role echo 8080 &
in_server() { ip netns exec server "$@"; }
# the command runs when the sidecar is ready, its signals are its own, and its exit code is ours
in_server $dir/weft-proxy await --timeout 60s -- sh -c 'curl -s http://127.0.0.1:4191/ready; exit 7' || echo "ended $?"
ip netns exec server $dir/weft-proxy await --shutdown -- \
  sh -c 'trap "echo told; exit 3" TERM; touch $0/up; while :; do sleep 0.1; done' $dir & job=$!
until [ -e $dir/up ]; do sleep 0.1; done
kill $job; code=0; wait $job || code=$?
echo "then $code"
wait $pid && echo "the sidecar left"
# nobody there
in_server $dir/weft-proxy await --timeout 100ms -- echo never || echo "gave up $?"
"#;

/// What both scripts share: two namespaces, the controller, and how a proxy is started.
const WORLD: &str = r#"
bin=$1; app=$2; dir=$(mktemp -d); printf '%s' "$3" > $dir/vm.yaml; chmod 755 $dir
cp $bin/weft-proxy $dir    # the proxy's user may not reach the build folder
mount -t tmpfs tmpfs /run; ip link set lo up
declare -A old last
trap 'tail -n 40 $dir/*.log >&2; kill $(jobs -p) 2>/dev/null; rm -rf $dir' EXIT
ip netns add client; ip netns add server
ip link add eth0 netns client type veth peer name eth0 netns server
for ns in client server; do ip -n $ns link set lo up; ip -n $ns link set eth0 up; done
ip -n client address add 10.1.0.1/24 dev eth0; ip -n client route add default via 10.1.0.2
ip -n server address add 10.1.0.2/24 dev eth0; ip -n server route add default via 10.1.0.1
ip netns exec server $bin/weft-control --dir $dir --access strict --listen 10.1.0.2:8086 > $dir/control.log 2>&1 &
until [ -s $dir/.weft/trust-anchors.pem ]; do sleep 0.1; done
cp $dir/.weft/trust-anchors.pem $dir/roots.pem
for ns in client server; do
  $bin/meshctl token vm/$ns --dir $dir > $dir/$ns.token; chmod 644 $dir/$ns.token
  ip netns exec $ns $bin/weft-init --skip-inbound-ports 8086,4317
  mkdir -m 700 $dir/$ns.door; chown 2102:2102 $dir/$ns.door
done
proxy() { # workload, (workers,) arguments
  ns=$1; shift; if [ $# -gt 0 ]; then shift; fi
  WEFT_PROXY_WORKLOAD=vm/$ns WEFT_PROXY_CONTROL_ADDR=${WEFT_PROXY_CONTROL_ADDR:-10.1.0.2:8086} WEFT_PROXY_TOKEN_FILE=$dir/$ns.token \
  WEFT_PROXY_TRUST_ANCHORS_FILE=$dir/roots.pem \
    ip netns exec $ns setpriv --reuid=2102 --regid=2102 --clear-groups $dir/weft-proxy "$@" >> $dir/$ns.log 2>&1 &
  pid=$!
}
ready() { for i in $(seq 600); do ip netns exec $1 curl -sf -o /dev/null http://127.0.0.1:4191/ready && return; sleep 0.1; done; return 1; }
metric() { ip netns exec $1 curl -s http://127.0.0.1:4191/metrics | grep -F "$2" || true; }
c() { ip netns exec client "$@"; }
"#;

/// Runs a script in that world; its output.
pub(crate) fn run(script: &str) -> anyhow::Result<String> {
    let bin = program("meshctl")?
        .parent()
        .map(|path| path.display().to_string())
        .unwrap_or_default();
    let app = std::env::current_exe()?.display().to_string();
    let ends = "trap 'kill $(jobs -p) 2>/dev/null; rm -rf $dir' EXIT\n";
    let script = format!("{WORLD}{script}{ends}");
    sandbox::script(&script, &[&bin, &app, crate::hand::MANIFESTS])
}

fn upgrades() -> anyhow::Result<()> {
    let text = run(UPGRADES)?;
    ensure!(text.contains("belongs to user 2102"), "{text}");
    ensure!(text.contains("stream before after"), "{text}");
    ensure!(text.contains("ended 20"), "{text}");
    for kind in ["Kept", "New", "Http2"] {
        let line = text
            .lines()
            .find(|line| line.starts_with(kind) && line.contains("requests="))
            .with_context(|| format!("no figures of {kind}: {text}"))?;
        println!("{line}");
        let figure = |name: &str| -> u64 {
            let value = line.split(' ').find_map(|word| word.strip_prefix(name));
            value.and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        ensure!(figure("requests=") > 100, "{text}");
        ensure!(line.contains(" failures=0 "), "{text}");
        // They were told to come again, and found the new process.
        ensure!(figure("connections=") >= 10, "{text}");
    }
    Ok(())
}

fn awaits() -> anyhow::Result<()> {
    let text = run(AWAIT)?;
    for wanted in [
        "ready\nended 7",
        "told\nthen 3",
        "the sidecar left",
        "gave up 69",
    ] {
        ensure!(text.contains(wanted), "{wanted:?} is missing: {text}");
    }
    ensure!(!text.contains("never"), "{text}");
    Ok(())
}
