//! The rules in the language of `iptables-restore`. Pure.

use crate::args::PortRange;
use crate::rules::{Action, Chain, Family, Hook, Own, Plan, Rule, When};
use std::fmt::Write;

/// What `iptables-nft` makes as a side effect, and the empty chain that remembers, inside the packet filter itself, that
/// it was not there before us.
pub(crate) const MADE: [(Side, &str); 3] = [
    (Side::Table, "WEFT_MADE_TABLE"),
    (Side::Chain("PREROUTING"), "WEFT_MADE_PREROUTING"),
    (Side::Chain("OUTPUT"), "WEFT_MADE_OUTPUT"),
];

/// Something that comes into being with the first rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Table,
    Chain(&'static str),
}

/// `multiport` holds fifteen ports, and a range counts for two.
const MULTIPORT: usize = 15;

/// Input for one atomic `iptables-restore --noflush`. `present` is what `iptables-save -t nat` says now: re-declaring
/// our chains empties them, but a jump from a built-in chain would be added a second time. `new` is what comes into
/// being with this.
pub(crate) fn restore(plan: &Plan, family: Family, present: &str, new: &[Side]) -> String {
    let mut text = String::from("*nat\n");
    let chains = plan.chains(family);
    for chain in &chains {
        let _ = writeln!(text, ":{} - [0:0]", chain.name);
    }
    for (side, marker) in MADE {
        if new.contains(&side) || declared(present, marker) {
            let _ = writeln!(text, ":{marker} - [0:0]");
        }
    }
    for chain in &chains {
        for rule in &chain.rules {
            let _ = writeln!(text, "# {}", rule.why);
            for line in rule_lines(chain, rule) {
                let _ = writeln!(text, "{line}");
            }
        }
    }
    for chain in &chains {
        let jump = jump(chain);
        if !present.lines().any(|line| line == jump) {
            let _ = writeln!(text, "{jump}");
        }
    }
    text.push_str("COMMIT\n");
    text
}

/// Input that takes everything of ours away; `None` if there is nothing.
pub(crate) fn remove(plan: &Plan, family: Family, present: &str) -> Option<String> {
    let chains = plan.chains(family);
    let mut text = String::from("*nat\n");
    for chain in &chains {
        let jump = jump(chain);
        for _ in present.lines().filter(|line| *line == jump) {
            let _ = writeln!(text, "-D{}", jump.trim_start_matches("-A"));
        }
    }
    let names = chains
        .iter()
        .map(|chain| chain.name)
        .chain(MADE.map(|(_, marker)| marker));
    let ours: Vec<_> = names.filter(|name| declared(present, name)).collect();
    for name in &ours {
        let _ = writeln!(text, "-F {name}\n-X {name}");
    }
    text.push_str("COMMIT\n");
    (!ours.is_empty()).then_some(text)
}

/// Is this chain in what `iptables-save` says?
pub(crate) fn declared(present: &str, name: &str) -> bool {
    present.lines().any(|line| {
        line.strip_prefix(':')
            .is_some_and(|rest| rest.split(' ').next() == Some(name))
    })
}

fn jump(chain: &Chain) -> String {
    let from = match chain.hook {
        Hook::Prerouting => "PREROUTING",
        Hook::Output => "OUTPUT",
    };
    format!("-A {from} -p tcp -j {}", chain.name)
}

fn rule_lines(chain: &Chain, rule: &Rule) -> Vec<String> {
    let target = match rule.action {
        Action::Return => "RETURN".to_owned(),
        Action::Redirect(port) => format!("REDIRECT --to-ports {port}"),
    };
    let conditions = match &rule.when {
        When::Always => vec![String::new()],
        When::Own(Own::Uid(id)) => vec![format!(" -m owner --uid-owner {id}")],
        When::Own(Own::Gid(id)) => vec![format!(" -m owner --gid-owner {id}")],
        When::Own(Own::Mark(mark)) => vec![format!(" -m mark --mark {mark:#x}")],
        When::Loopback => vec![" -o lo".to_owned()],
        When::To(network) => vec![format!(" -d {network}")],
        When::Ports(ranges) => multiport(ranges),
    };
    conditions
        .iter()
        .map(|condition| format!("-A {} -p tcp{condition} -j {target}", chain.name))
        .collect()
}

fn multiport(ranges: &[PortRange]) -> Vec<String> {
    let mut groups: Vec<(usize, Vec<String>)> = vec![(0, Vec::new())];
    for range in ranges {
        let size = if range.first == range.last { 1 } else { 2 };
        if groups
            .last()
            .is_none_or(|(used, _)| used + size > MULTIPORT)
        {
            groups.push((0, Vec::new()));
        }
        if let Some((used, group)) = groups.last_mut() {
            *used += size;
            group.push(range.to_string().replace('-', ":"));
        }
    }
    groups
        .iter()
        .map(|(_, group)| format!(" -m multiport --dports {}", group.join(",")))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::args::Args;
    use clap::Parser;

    fn plan(args: &[&str]) -> Plan {
        Plan::from_args(&Args::try_parse_from([&["weft-init"], args].concat()).unwrap())
    }

    #[test]
    fn a_second_run_adds_no_second_jump() {
        let plan = plan(&[]);
        let first = restore(&plan, Family::V4, "", &[Side::Table]);
        assert_eq!(
            first.matches("-A OUTPUT -p tcp -j WEFT_OUTBOUND").count(),
            1
        );
        let second = restore(&plan, Family::V4, &first, &[]);
        assert_eq!(second.matches("-A OUTPUT").count(), 0);
        assert_eq!(
            second.matches("-A WEFT_OUTBOUND").count(),
            first.matches("-A WEFT_OUTBOUND").count()
        );
    }

    #[test]
    fn the_marker_is_set_only_where_we_made_the_table() {
        let first = restore(&plan(&[]), Family::V4, "", &[Side::Table]);
        assert!(first.contains("WEFT_MADE_TABLE"));
        assert!(
            restore(&plan(&[]), Family::V4, &first, &[]).contains("WEFT_MADE_TABLE"),
            "a second run keeps it"
        );
        assert!(!restore(&plan(&[]), Family::V4, "", &[]).contains("WEFT_MADE_TABLE"));
    }

    #[test]
    fn removal_undoes_just_what_is_ours() {
        let plan = plan(&[]);
        let present = format!(
            "{}-A OUTPUT -p tcp --dport 9 -j DROP\n",
            restore(&plan, Family::V4, "", &[Side::Table])
        );
        let removal = remove(&plan, Family::V4, &present).unwrap();
        assert!(removal.contains("-D OUTPUT -p tcp -j WEFT_OUTBOUND"));
        assert!(removal.contains("-X WEFT_INBOUND") && !removal.contains("DROP"));
        assert_eq!(remove(&plan, Family::V4, "*nat\nCOMMIT\n"), None);
    }

    #[test]
    fn sixteen_ports_need_two_rules_and_a_range_counts_twice() {
        let ports: Vec<_> = (1..=16u16).map(|n| PortRange::from(n * 10)).collect();
        assert_eq!(multiport(&ports).len(), 2);
        let ranges: Vec<_> = (1..=7u16)
            .map(|n| PortRange {
                first: n * 10,
                last: n * 10 + 2,
            })
            .collect();
        assert_eq!(multiport(&ranges).len(), 1);
        let eight: Vec<_> = (1..=8u16)
            .map(|n| PortRange {
                first: n * 10,
                last: n * 10 + 2,
            })
            .collect();
        assert_eq!(multiport(&eight).len(), 2);
    }
}
