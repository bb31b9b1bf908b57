//! What happens when the machine gives no more.

use crate::Case;
use anyhow::ensure;

pub(crate) const CASES: &[Case] = &[
    (
        "descriptors_run_out_and_come_back",
        &["curl", "setpriv", "prlimit"],
        descriptors,
    ),
    (
        "beyond_the_cap_the_next_connection_is_closed",
        &["curl", "setpriv"],
        connections,
    ),
    (
        "silent_clients_of_one_address_leave_room_for_others",
        &["curl", "setpriv"],
        silent,
    ),
    (
        "connections_kept_for_later_have_a_limit",
        &["curl", "setpriv"],
        kept,
    ),
];

const DESCRIPTORS: &str = r#"
proxy client; client=$pid; proxy server
ip netns exec server $app role echo 8080 &
for ns in client server; do ready $ns; done
until c curl -sf -o /dev/null http://10.1.9.9:8080/; do sleep 0.1; done
# by the proxy's own user, as nobody else may
limit() { setpriv --reuid=2102 --regid=2102 --clear-groups prlimit --pid $client --nofile=$1:; }
# one client that keeps its connection; its first answers have come before descriptors run out
requests() { metric client 'weft_requests_total{direction="outbound"' | awk '{ sum += $NF } END { print sum + 0 }'; }
before=$(requests)
ip netns exec client $app role load 10.1.9.9:8080 / 10x18 1 12 > $dir/kept & kept=$!    # lost after twelve seconds, less than the others stay
until [ $(requests) -gt $((before + 2)) ]; do sleep 0.1; done
limit 60
c $app role hold 10.1.9.9:8080 100 14
wait $kept
echo "kept $(wc -l < $dir/kept) answered $(grep -c ' 200$' $dir/kept)"
limit 1000
until c curl -sf -o /dev/null http://10.1.9.9:8080/; do sleep 0.1; done
metric client 'weft_accept_exhausted_total{direction="outbound"'
echo "again $(c curl -s -o /dev/null -w '%{http_code}' http://10.1.9.9:8080/)"
"#;

fn descriptors() -> anyhow::Result<()> {
    let text = harness::hand::run(DESCRIPTORS)?;
    ensure!(text.contains("kept 180 answered 180"), "{text}");
    let turned_away = text
        .lines()
        .find(|line| line.starts_with("weft_accept_exhausted_total"));
    ensure!(
        turned_away.is_some_and(|line| !line.ends_with(" 0")),
        "{text}"
    );
    ensure!(text.contains("again 200"), "{text}");
    Ok(())
}

const CONNECTIONS: &str = r#"
WEFT_PROXY_MAX_CONNECTIONS=20 proxy client; proxy server
ip netns exec server $app role echo 8080 &
for ns in client server; do ready $ns; done
until c curl -sf -o /dev/null http://10.1.9.9:8080/; do sleep 0.1; done
metric client 'weft_connections_limit'
# whoever has its connection keeps it
requests() { metric client 'weft_requests_total{direction="outbound"' | awk '{ sum += $NF } END { print sum + 0 }'; }
before=$(requests)
ip netns exec client $app role load 10.1.9.9:8080 / 10x18 1 12 > $dir/kept & kept=$!
until [ $(requests) -gt $((before + 2)) ]; do sleep 0.1; done
c $app role hold 10.1.9.9:8080 40 14
wait $kept
echo "kept $(wc -l < $dir/kept) answered $(grep -c ' 200$' $dir/kept)"
until c curl -sf -o /dev/null http://10.1.9.9:8080/; do sleep 0.1; done
metric client 'weft_errors_total{direction="outbound",code="E134"'
grep -c 'E134 too-many-connections' $dir/client.log
"#;

fn connections() -> anyhow::Result<()> {
    let text = harness::hand::run(CONNECTIONS)?;
    ensure!(text.contains("weft_connections_limit 20"), "{text}");
    ensure!(text.contains("kept 180 answered 180"), "{text}");
    let closed = text
        .lines()
        .find(|line| line.starts_with("weft_errors_total"));
    let closed = closed.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok());
    // 40 at once, 20 places, one of them taken by who is kept.
    ensure!(closed.is_some_and(|closed| closed >= 20), "{text}");
    Ok(())
}

const SILENT: &str = r#"
WEFT_PROXY_MAX_CONNECTIONS=20 proxy server
ip netns exec server $app role echo 8080 &
ready server
ip -n client address add 10.1.0.3/24 dev eth0
# past the client's own proxy, as only its user may
stranger() { ip netns exec client setpriv --reuid=2102 --regid=2102 --clear-groups "$@"; }
stranger bash -c 'for n in $(seq 15); do exec {fd}<>/dev/tcp/10.1.0.2/8080; done; echo $$; exec sleep 50' > $dir/held &
until [ -s $dir/held ]; do sleep 0.1; done
until metric server 'weft_errors_total{direction="inbound",code="E134"' | grep -q ' 5$'; do sleep 0.1; done
echo "same $(stranger curl -s -o /dev/null -w '%{http_code}' http://10.1.0.2:8080/ || true)"
echo "other $(stranger curl -s --interface 10.1.0.3 -o /dev/null -w '%{http_code}' http://10.1.0.2:8080/)"
kill $(cat $dir/held)
until [ "$(stranger curl -s -o /dev/null -w '%{http_code}' http://10.1.0.2:8080/)" = 403 ]; do sleep 0.1; done
"#;

fn silent() -> anyhow::Result<()> {
    let text = harness::hand::run(SILENT)?;
    ensure!(text.contains("same 000"), "{text}");
    // Whoever is let in is judged: this one may not.
    ensure!(text.contains("other 403"), "{text}");
    Ok(())
}

const KEPT: &str = r#"
for n in $(seq 6); do ip -n server address add 198.18.0.$n/32 dev lo; done
WEFT_PROXY_MAX_IDLE=3 WEFT_PROXY_WORKERS=1 proxy client
ip netns exec server $app role echo 4317 &
ready client
# another address each time, until one more than the limit was left behind
closed() { metric client 'weft_upstream_connections_kept_closed_total' | grep -v '^#' | grep -qv ' 0$'; }
until closed; do
  for n in $(seq 6); do c curl -sf -o /dev/null http://198.18.0.$n:4317/ || true; done
done
metric client 'weft_upstream_connections_kept' | grep -v '^#'
echo "again $(c curl -s -o /dev/null -w '%{http_code}' http://198.18.0.1:4317/)"
"#;

fn kept() -> anyhow::Result<()> {
    let text = harness::hand::run(KEPT)?;
    let kept = text
        .lines()
        .find_map(|line| line.strip_prefix("weft_upstream_connections_kept "));
    let kept = kept.and_then(|count| count.parse::<u32>().ok());
    ensure!(kept.is_some_and(|kept| kept <= 3), "{text}");
    ensure!(text.contains("again 200"), "{text}");
    Ok(())
}
