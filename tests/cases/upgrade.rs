//! Hot upgrade of both proxies between a client and a server, under load; and what `await` promises.

use crate::Case;
use anyhow::ensure;
use harness::{hand, upgrade};

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

fn upgrades() -> anyhow::Result<()> {
    for seen in upgrade::ten()? {
        println!("{seen:?}");
        ensure!(seen.requests > 100 && seen.failures == 0, "{seen:?}");
        // They were told to come again, and found the new process.
        ensure!(seen.connections >= 10, "{seen:?}");
    }
    Ok(())
}

fn awaits() -> anyhow::Result<()> {
    let text = hand::run(AWAIT)?;
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
