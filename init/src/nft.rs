//! The rules as a native nftables table: as text for people, and as netlink messages for the kernel, so that neither
//! `iptables` nor `nft` needs to be installed. Both are made from the same list. Pure.

use crate::args::PortRange;
use crate::netlink::{Batch, Expr};
use crate::rules::{Action, Chain, Family, Hook, Own, Plan, When};
use ipnet::IpNet;
use std::fmt::Write;

/// Our table, one in each family; nobody else writes to it, so taking it away leaves what was there before.
pub const TABLE: &str = "weft";

/// One condition with at most one port range, which both forms can say in one rule.
enum One<'a> {
    Always,
    Own(Own),
    Loopback,
    To(&'a IpNet),
    Ports(PortRange),
}

fn split(when: &When) -> Vec<One<'_>> {
    match when {
        When::Always => vec![One::Always],
        When::Own(own) => vec![One::Own(*own)],
        When::Loopback => vec![One::Loopback],
        When::To(network) => vec![One::To(network)],
        When::Ports(ranges) => ranges.iter().map(|range| One::Ports(*range)).collect(),
    }
}

/// The table as `nft -f` would read it.
pub fn text(plan: &Plan, family: Family) -> String {
    let name = family_name(family);
    let mut text =
        format!("table {name} {TABLE}\ndelete table {name} {TABLE}\ntable {name} {TABLE} {{\n");
    for chain in plan.chains(family) {
        let _ = writeln!(text, "\tchain {} {{", chain.name);
        let _ = writeln!(
            text,
            "\t\ttype nat hook {} priority -100; policy accept;",
            hook_name(chain.hook)
        );
        for rule in &chain.rules {
            for one in split(&rule.when) {
                let action = match rule.action {
                    Action::Return => "return".to_owned(),
                    Action::Redirect(port) => format!("redirect to :{port}"),
                };
                let _ = writeln!(
                    text,
                    "\t\tmeta l4proto tcp{} {action} comment \"{}\"",
                    condition(&one),
                    rule.why
                );
            }
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    text
}

fn condition(one: &One<'_>) -> String {
    match one {
        One::Always => String::new(),
        One::Own(Own::Uid(id)) => format!(" meta skuid {id}"),
        One::Own(Own::Gid(id)) => format!(" meta skgid {id}"),
        One::Own(Own::Mark(mark)) => format!(" meta mark {mark:#x}"),
        One::Loopback => " oifname \"lo\"".to_owned(),
        One::To(IpNet::V4(network)) => format!(" ip daddr {network}"),
        One::To(IpNet::V6(network)) => format!(" ip6 daddr {network}"),
        One::Ports(range) => format!(" tcp dport {range}"),
    }
}

/// The table as one atomic batch: whatever was there of ours is replaced.
pub(crate) fn install(plan: &Plan, families: &[Family]) -> Batch {
    let mut batch = Batch::new();
    for family in families {
        // "Make sure it is there, then delete it" is the way to say "delete if present" to every kernel.
        batch.table(*family, TABLE);
        batch.delete_table(*family, TABLE);
        batch.table(*family, TABLE);
        for chain in plan.chains(*family) {
            batch.chain(*family, TABLE, chain.name, hook_number(chain.hook), -100);
            add_rules(&mut batch, *family, &chain);
        }
    }
    batch
}

fn add_rules(batch: &mut Batch, family: Family, chain: &Chain) {
    for rule in &chain.rules {
        for one in split(&rule.when) {
            let mut exprs = vec![Expr::TCP];
            exprs.extend(expressions(&one));
            exprs.push(match rule.action {
                Action::Return => Expr::Return,
                Action::Redirect(port) => Expr::Redirect(port),
            });
            batch.rule(family, TABLE, chain.name, &exprs, rule.why);
        }
    }
}

fn expressions(one: &One<'_>) -> Vec<Expr> {
    match one {
        One::Always => vec![],
        One::Own(Own::Uid(id)) => vec![Expr::MetaIs {
            key: Expr::SKUID,
            value: id.to_ne_bytes().to_vec(),
        }],
        One::Own(Own::Gid(id)) => vec![Expr::MetaIs {
            key: Expr::SKGID,
            value: id.to_ne_bytes().to_vec(),
        }],
        One::Own(Own::Mark(mark)) => vec![Expr::MetaIs {
            key: Expr::MARK,
            value: mark.to_ne_bytes().to_vec(),
        }],
        One::Loopback => {
            let mut name = b"lo".to_vec();
            name.resize(libc::IFNAMSIZ, 0);
            vec![Expr::MetaIs {
                key: Expr::OIFNAME,
                value: name,
            }]
        }
        One::To(IpNet::V4(network)) => {
            let (address, mask) = (
                network.network().octets().to_vec(),
                network.netmask().octets().to_vec(),
            );
            vec![Expr::NetworkIs {
                offset: 16,
                address,
                mask,
            }]
        }
        One::To(IpNet::V6(network)) => {
            let (address, mask) = (
                network.network().octets().to_vec(),
                network.netmask().octets().to_vec(),
            );
            vec![Expr::NetworkIs {
                offset: 24,
                address,
                mask,
            }]
        }
        One::Ports(range) => vec![Expr::PortIn {
            first: range.first,
            last: range.last,
        }],
    }
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "prerouting",
        Hook::Output => "output",
    }
}

fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => libc::NF_INET_PRE_ROUTING as u32,
        Hook::Output => libc::NF_INET_LOCAL_OUT as u32,
    }
}
