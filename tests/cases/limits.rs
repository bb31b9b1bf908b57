//! What happens when the machine gives no more.

use crate::Case;
use anyhow::ensure;

pub(crate) const CASES: &[Case] = &[(
    "descriptors_run_out_and_come_back",
    &["curl", "setpriv", "prlimit"],
    descriptors,
)];

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
ip netns exec client $app role load 10.1.9.9:8080 / 10x12 1 > $dir/kept & kept=$!
until [ $(requests) -gt $((before + 2)) ]; do sleep 0.1; done
limit 60
c $app role hold 10.1.9.9:8080 100 3
wait $kept
echo "kept $(wc -l < $dir/kept) answered $(grep -c ' 200$' $dir/kept)"
limit 1000
until c curl -sf -o /dev/null http://10.1.9.9:8080/; do sleep 0.1; done
metric client 'weft_accept_exhausted_total{direction="outbound"'
echo "again $(c curl -s -o /dev/null -w '%{http_code}' http://10.1.9.9:8080/)"
"#;

fn descriptors() -> anyhow::Result<()> {
    let text = harness::hand::run(DESCRIPTORS)?;
    ensure!(text.contains("kept 120 answered 120"), "{text}");
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
