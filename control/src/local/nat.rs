//! What kube-proxy does: addresses of Services become addresses of ready pods, by chance. The rules are text made from
//! values, loaded whole in one transaction.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::addresses::{SERVICE_BITS_V4, SERVICE_BITS_V6, SERVICES_V4, SERVICES_V6};

/// One port of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    /// For people reading the rules.
    pub(crate) name: String,
    pub(crate) to: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    /// Ready pods; none: refused at once.
    pub(crate) endpoints: Vec<SocketAddr>,
}

/// Transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// Marks a connection of a pod to itself through a Service: its source must be the node, or the answer never leaves the pod.
const HAIRPIN: &str = "0x4000";

/// Ruleset for `nft -f -`: both families, replacing what was there.
pub(crate) fn nft(forwards: &[Forward]) -> String {
    let mut text = String::new();
    nft_family(&mut text, forwards, false);
    nft_family(&mut text, forwards, true);
    text
}

fn nft_family(text: &mut String, all: &[Forward], v6: bool) {
    let (family, ip, network) = match v6 {
        false => ("ip", "ip", format!("{SERVICES_V4}/{SERVICE_BITS_V4}")),
        true => ("ip6", "ip6", format!("{SERVICES_V6}/{SERVICE_BITS_V6}")),
    };
    let forwards: Vec<_> = all
        .iter()
        .filter(|f| f.to.is_ipv6() == v6 && !f.endpoints.is_empty())
        .collect();
    let _ = write!(
        text,
        "table {family} weft-node {{}}\ndelete table {family} weft-node\ntable {family} weft-node {{\n"
    );
    for (number, forward) in forwards.iter().enumerate() {
        for (place, endpoint) in forward.endpoints.iter().enumerate() {
            let _ = writeln!(text, "\tchain pod-{number}-{place} {{ # {}", forward.name);
            let _ = writeln!(
                text,
                "\t\t{ip} saddr {} meta mark set {HAIRPIN}",
                endpoint.ip()
            );
            let _ = writeln!(
                text,
                "\t\tmeta l4proto {} dnat to {endpoint}\n\t}}",
                forward.protocol.name()
            );
        }
    }
    let _ = writeln!(text, "\tchain services {{");
    for (number, forward) in forwards.iter().enumerate() {
        let _ = write!(
            text,
            "\t\t{ip} daddr {} {} dport {} ",
            forward.to,
            forward.protocol.name(),
            forward.port
        );
        let _ = write!(
            text,
            "numgen random mod {} vmap {{ ",
            forward.endpoints.len()
        );
        for place in 0..forward.endpoints.len() {
            let comma = if place == 0 { "" } else { ", " };
            let _ = write!(text, "{comma}{place} : goto pod-{number}-{place}");
        }
        let _ = writeln!(text, " }}");
    }
    let _ = writeln!(text, "\t}}");
    let _ = writeln!(
        text,
        "\tchain refuse {{\n\t\t{ip} daddr {network} meta l4proto tcp reject with tcp reset\n\t\t{ip} daddr {network} reject\n\t}}"
    );
    for (name, kind, hook, priority, rule) in [
        ("pre", "nat", "prerouting", "-100", "jump services"),
        ("out", "nat", "output", "-100", "jump services"),
        (
            "post",
            "nat",
            "postrouting",
            "100",
            "meta mark 0x4000 masquerade",
        ),
        ("pass", "filter", "forward", "0", "jump refuse"),
        ("own", "filter", "output", "0", "jump refuse"),
    ] {
        let _ = writeln!(
            text,
            "\tchain {name} {{ type {kind} hook {hook} priority {priority}; {rule}; }}"
        );
    }
    text.push_str("}\n");
}

/// Input for `iptables-restore` (or `ip6tables-restore`), replacing the tables it names.
pub(crate) fn iptables(all: &[Forward], v6: bool) -> String {
    let network = match v6 {
        false => format!("{SERVICES_V4}/{SERVICE_BITS_V4}"),
        true => format!("{SERVICES_V6}/{SERVICE_BITS_V6}"),
    };
    let mut chains = String::new();
    let mut rules = String::new();
    let forwards = all
        .iter()
        .filter(|f| f.to.is_ipv6() == v6 && !f.endpoints.is_empty());
    for (number, forward) in forwards.enumerate() {
        let protocol = forward.protocol.name();
        let _ = writeln!(chains, ":WEFT-SVC-{number} - [0:0]");
        let _ = writeln!(
            rules,
            "-A WEFT-SERVICES -d {} -p {protocol} -m {protocol} --dport {} -j WEFT-SVC-{number}",
            forward.to, forward.port
        );
        let count = forward.endpoints.len();
        for (place, endpoint) in forward.endpoints.iter().enumerate() {
            let _ = writeln!(chains, ":WEFT-POD-{number}-{place} - [0:0]");
            let chance = match count - place {
                1 => String::new(),
                left => format!(
                    "-m statistic --mode random --probability {:.8} ",
                    1.0 / left as f64
                ),
            };
            let _ = writeln!(
                rules,
                "-A WEFT-SVC-{number} {chance}-j WEFT-POD-{number}-{place}"
            );
            let _ = writeln!(
                rules,
                "-A WEFT-POD-{number}-{place} -s {} -j MARK --set-mark {HAIRPIN}",
                endpoint.ip()
            );
            let _ = writeln!(
                rules,
                "-A WEFT-POD-{number}-{place} -p {protocol} -j DNAT --to-destination {endpoint}"
            );
        }
    }
    let unreachable = if v6 {
        "icmp6-port-unreachable"
    } else {
        "icmp-port-unreachable"
    };
    format!(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:WEFT-SERVICES - [0:0]\n{chains}\
         -A PREROUTING -j WEFT-SERVICES\n-A OUTPUT -j WEFT-SERVICES\n{rules}\
         -A POSTROUTING -m mark --mark {HAIRPIN} -j MASQUERADE\nCOMMIT\n\
         *filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:WEFT-REFUSE - [0:0]\n\
         -A FORWARD -d {network} -j WEFT-REFUSE\n-A OUTPUT -d {network} -j WEFT-REFUSE\n\
         -A WEFT-REFUSE -p tcp -j REJECT --reject-with tcp-reset\n-A WEFT-REFUSE -j REJECT --reject-with {unreachable}\nCOMMIT\n"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn forwards() -> Vec<Forward> {
        vec![
            Forward {
                name: "default/web:80".into(),
                to: "10.43.1.1".parse().unwrap(),
                protocol: Protocol::Tcp,
                port: 80,
                endpoints: vec![
                    "10.42.1.1:8080".parse().unwrap(),
                    "10.42.1.2:8080".parse().unwrap(),
                ],
            },
            Forward {
                name: "default/none:80".into(),
                to: "10.43.1.2".parse().unwrap(),
                protocol: Protocol::Tcp,
                port: 80,
                endpoints: vec![],
            },
            Forward {
                name: "default/web:80".into(),
                to: "fd43::101".parse().unwrap(),
                protocol: Protocol::Udp,
                port: 53,
                endpoints: vec!["[fd42::101]:53".parse().unwrap()],
            },
        ]
    }

    #[test]
    fn nft_sends_services_to_pods_by_chance() {
        let text = nft(&forwards());
        assert!(
            text.starts_with("table ip weft-node {}\ndelete table ip weft-node\n"),
            "one transaction replaces all"
        );
        assert!(text.contains(
            "ip daddr 10.43.1.1 tcp dport 80 numgen random mod 2 vmap { 0 : goto pod-0-0, 1 : goto pod-0-1 }"
        ));
        assert!(text.contains(
            "ip saddr 10.42.1.2 meta mark set 0x4000\n\t\tmeta l4proto tcp dnat to 10.42.1.2:8080"
        ));
        assert!(text.contains(
            "ip6 daddr fd43::101 udp dport 53 numgen random mod 1 vmap { 0 : goto pod-0-0 }"
        ));
        assert!(text.contains("dnat to [fd42::101]:53"));
        assert!(
            !text.contains("10.43.1.2"),
            "no endpoints: left to the chain that refuses"
        );
    }

    #[test]
    fn iptables_gives_each_endpoint_its_share() {
        let text = iptables(&forwards(), false);
        assert!(text.contains(
            "-A WEFT-SVC-0 -m statistic --mode random --probability 0.50000000 -j WEFT-POD-0-0\n"
        ));
        assert!(
            text.contains("-A WEFT-SVC-0 -j WEFT-POD-0-1\n"),
            "the last one takes what is left"
        );
        assert!(text.contains("--to-destination 10.42.1.2:8080\n"));
        assert_eq!(text.matches("COMMIT\n").count(), 2);
        assert!(iptables(&forwards(), true).contains("--to-destination [fd42::101]:53\n"));
    }
}
