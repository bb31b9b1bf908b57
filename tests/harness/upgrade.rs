//! Hot upgrades of both proxies between a client and a server, while clients of three kinds call and a long stream is open.

use crate::hand;
use anyhow::{Context, ensure};

/// What the clients of one kind saw.
#[derive(Debug, Clone)]
pub struct Seen {
    /// How they use connections: Kept, New, Http2.
    pub kind: &'static str,
    /// Calls.
    pub requests: u64,
    /// Of them, without their answer.
    pub failures: u64,
    /// Connections opened for them.
    pub connections: u64,
}

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
    # The admin port is the new one's (but for who came to the old one at this moment), and it is ready.
    until metric $ns 'weft_upgrades_total{result="taken"' | grep -q ' 1$'; do sleep 0.05; done
    until [ "$(ip netns exec $ns curl -s http://127.0.0.1:4191/ready)" = ready ]; do sleep 0.05; done
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

/// Ten upgrades of each proxy; an error where an old process does not end well or the stream breaks.
pub fn ten() -> anyhow::Result<Vec<Seen>> {
    let text = hand::run(UPGRADES)?;
    ensure!(text.contains("belongs to user 2102"), "{text}");
    ensure!(text.contains("stream before after"), "{text}");
    ensure!(text.contains("ended 20"), "{text}");
    let kinds = ["Kept", "New", "Http2"].into_iter();
    kinds.map(|kind| seen(kind, &text)).collect()
}

fn seen(kind: &'static str, text: &str) -> anyhow::Result<Seen> {
    let line = text
        .lines()
        .find(|line| line.starts_with(kind) && line.contains("requests="))
        .with_context(|| format!("no figures of {kind}: {text}"))?;
    let figure = |name: &str| {
        let value = line.split(' ').find_map(|word| word.strip_prefix(name));
        let value = value.and_then(|value| value.parse().ok());
        value.with_context(|| format!("no {name} in {line}"))
    };
    Ok(Seen {
        kind,
        requests: figure("requests=")?,
        failures: figure("failures=")?,
        connections: figure("connections=")?,
    })
}
