//! `weft-init`: in place, proven, run twice, and gone without a trace; for every backend this machine has.

use crate::Case;
use anyhow::ensure;
use harness::{program, sandbox};

pub(crate) const CASES: &[Case] = &[
    (
        "in_place_twice_and_gone_without_a_trace",
        &["iptables-save", "nft"],
        traceless,
    ),
    ("native_tables_need_no_program", &["nft"], native),
    ("a_backend_that_is_not_there_is_an_error", &[], absent),
];

/// A namespace with somewhere to go to.
const NETWORK: &str = r#"
ip link set lo up
ip link add w0 type veth peer name w1
ip address add 10.9.9.2/24 dev w0; ip -6 address add fd09::2/64 dev w0 nodad
ip link set w0 up; ip link set w1 up
ip route add default via 10.9.9.1; ip -6 route add default via fd09::1
all() { { nft list ruleset 2>/dev/null; iptables-save; ip6tables-save; } | sed -E '/^#/d; s/packets [0-9]+ bytes [0-9]+/packets N/; s/\[[0-9]+:[0-9]+\]/[N]/'; }
"#;

fn traceless() -> anyhow::Result<()> {
    let init = program("weft-init")?.display().to_string();
    let script = format!(
        r#"{NETWORK}
for round in nothing something; do
  [ $round = nothing ] || iptables -t nat -A OUTPUT -p tcp --dport 9 -j RETURN
  for backend in auto iptables-nft nft; do
    before=$(all)
    $1 --backend $backend --skip-inbound-ports 22,9000-9100 --skip-outbound-ports 25 --skip-subnets 172.16.0.0/12,fc00::/7
    once=$(all); [ "$once" != "$before" ]
    $1 --backend $backend --skip-inbound-ports 22,9000-9100 --skip-outbound-ports 25 --skip-subnets 172.16.0.0/12,fc00::/7
    twice=$(all); [ "$(grep -v WEFT_MADE <<<"$once")" = "$(grep -v WEFT_MADE <<<"$twice")" ] || {{ diff <(echo "$once") <(echo "$twice"); exit 1; }}
    $1 --remove
    after=$(all); [ "$after" = "$before" ] || {{ diff <(echo "$before") <(echo "$after"); exit 1; }}
  done
done
"#
    );
    let text = sandbox::script(&script, &[&init])?;
    ensure!(
        text.matches("IPv4 verified").count() == 12 && text.matches("IPv6 verified").count() == 12,
        "{text}"
    );
    Ok(())
}

fn native() -> anyhow::Result<()> {
    let init = program("weft-init")?.display().to_string();
    // The program alone: no iptables, no nft on its path. What it wrote is then read with nft and compared with the text.
    let script = format!(
        r#"{NETWORK}
before=$(all)
options="--skip-inbound-ports 22,9000-9100 --skip-outbound-ports 25 --skip-subnets 172.16.0.0/12,fc00::/7 --proxy-mark 0x539"
PATH=/nowhere $1 $options
written=$(nft list table ip weft; nft list table ip6 weft)
PATH=/nowhere $1 --remove
[ "$(all)" = "$before" ]
PATH=/nowhere $1 $options --dry-run | nft -f -
[ "$(nft list table ip weft; nft list table ip6 weft)" = "$written" ]
"#
    );
    let text = sandbox::script(&script, &[&init])?;
    ensure!(
        text.contains("by nft") && text.contains("IPv6 verified"),
        "{text}"
    );
    Ok(())
}

fn absent() -> anyhow::Result<()> {
    let init = program("weft-init")?.display().to_string();
    let text = sandbox::script(
        "ip link set lo up; PATH=/nowhere $1 --backend iptables-nft && exit 1; true",
        &[&init],
    )?;
    ensure!(
        text.contains("iptables-nft-restore"),
        "the error names what is missing: {text}"
    );
    let text = sandbox::script(
        "ip link set lo up; PATH=/nowhere $1 --backend iptables-nft --remove && exit 1; true",
        &[&init],
    )?;
    ensure!(
        text.contains("no way to look for redirection"),
        "nothing is said to be removed by who cannot look: {text}"
    );
    Ok(())
}
